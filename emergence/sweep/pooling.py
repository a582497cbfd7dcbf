"""Effects of several models as one: the random-effects mean of DerSimonian and Laird.

In: estimates with their 95 % intervals, one a model. Out: `Pooled`. The models are taken as a sample of those
that one might have asked, so the interval speaks of their mean, and `tau` says how far they lie apart.

R. DerSimonian and N. Laird, "Meta-analysis in clinical trials", Controlled Clinical Trials 7 (1986).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FEWEST = 5
"""Models below which their spread says nothing, and no mean is given."""
_Z = 1.959963984540054


@dataclass(frozen=True)
class Pooled:
    """A mean over models, in the unit of their estimates."""

    estimate: float
    low: float
    high: float
    """95 %, normal."""
    tau: float
    """Standard deviation between models; 0 where chance within each explains how they differ."""
    n: int


def pooled(estimates: Sequence[float], variances: Sequence[float]) -> Pooled:
    """The DerSimonian-Laird mean of `estimates`, whose sampling variances are known and positive.

    With w = 1 / v: tau² = max(0, (Q - (n - 1)) / (Σw - Σw² / Σw)), Q = Σ w (y - Σwy / Σw)²; the mean weighs
    each by 1 / (v + tau²). It takes variances as known, so with few models its interval is somewhat short.

    Raises
    ------
    ValueError
        No estimate, or a variance that is not positive and finite.
    """
    y, v = np.asarray(estimates, float), np.asarray(variances, float)
    if not y.size or y.shape != v.shape or not (np.isfinite(y) & np.isfinite(v) & (v > 0)).all():
        raise ValueError(f"estimates {estimates} with variances {variances} cannot be pooled")
    w = 1 / v
    centre = (w * y).sum() / w.sum()
    q, c = (w * (y - centre) ** 2).sum(), w.sum() - (w**2).sum() / w.sum()
    tau2 = max(0.0, (q - (y.size - 1)) / c) if c > 0 else 0.0
    weights = 1 / (v + tau2)
    mean, error = (weights * y).sum() / weights.sum(), 1 / math.sqrt(weights.sum())
    return Pooled(float(mean), float(mean - _Z * error), float(mean + _Z * error), math.sqrt(tau2), y.size)


def variance(low: float, high: float) -> float:
    """The variance of an estimate with this 95 % interval, taken as normal."""
    return ((high - low) / (2 * _Z)) ** 2
