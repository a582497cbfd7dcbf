"""Kinds of noise for simulated masses: many near 0, many near 1, and exactly the mean that was asked for.

A mass is looked up in a table of quantiles, by its mean and by the cell that a normal score falls in. So
scores that are correlated (over seeds, layers, prompts about the same operands) give masses that are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats
from scipy.special import expit, logit, ndtr, ndtri

CELLS, LEVELS = 4096, 200
_U = (np.arange(CELLS) + 0.5) / CELLS
_SPREAD = {"narrow": 0.35, "wide": 3.0}


@dataclass(frozen=True)
class Noise:
    """A distribution of masses, and how its variance (of the normal scores) divides; the parts add up to 1.

    The rest, `1 - pair - prompt - layer`, is drawn anew in every run, step and layer.
    """

    shape: str = "wide"
    """Standard deviations at a mean of .30: `narrow` .07, `wide` (logistic-normal) .33, `mixture` (two betas)
    .40, `spike` (a share of the prompts holds nearly all, the others nearly nothing) .44."""
    pair: float = 0.3
    """Shared by the prompts about the same operands, whatever their class."""
    prompt: float = 0.3
    """Shared by a prompt's readings at every layer, in every run."""
    layer: float = 0.2
    """Shared by a prompt's readings at one layer, in every run."""


NARROW, WIDE, MIXTURE, SPIKE = (Noise(s) for s in ("narrow", "wide", "mixture", "spike"))


@lru_cache(maxsize=8)
def quantiles(shape: str) -> np.ndarray:
    """Masses `[level, cell]`: means 0, .005, ..., 1 by equal parts of probability."""
    means = np.linspace(0, 1, LEVELS + 1)[1:-1]
    if shape in _SPREAD:
        table = _logistic_normal(means[:, None], _SPREAD[shape])
    elif shape == "spike":
        table = np.stack([_two_parts(m, 10 ** (3 * _U - 6), 0.9 + 0.1 * _U) for m in means])
    else:
        low, high = stats.beta.ppf(_U, 0.3, 30), stats.beta.ppf(_U, 5, 1)
        table = np.stack([_two_parts(m, low, high) for m in means])
    return np.concatenate([np.full((1, CELLS), 1e-9), table, np.ones((1, CELLS))])


def _logistic_normal(means: np.ndarray, spread: float) -> np.ndarray:
    wanted, scores = logit(means), spread * ndtri(_U)
    middle = wanted * np.sqrt(1 + spread**2 / 3)
    for _ in range(8):  # Newton's, on the scale of the logit, on which it is almost a line
        masses = expit(middle + scores)
        found = masses.mean(axis=1, keepdims=True)
        slope = (masses * (1 - masses)).mean(axis=1, keepdims=True) / (found * (1 - found))
        middle = middle + (wanted - logit(found)) / slope
    return expit(middle + scores)


def _two_parts(mean: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Low masses, and so large a share of high ones that the mean is right."""
    if mean <= low.mean():
        return low * mean / low.mean()
    if mean >= high.mean():
        return 1 - (1 - high) * (1 - mean) / (1 - high.mean())
    k = round(CELLS * (mean - low.mean()) / (high.mean() - low.mean()))
    parts = [np.interp((np.arange(m) + 0.5) / max(m, 1), _U, x) for m, x in ((CELLS - k, low), (k, high))]
    table = np.concatenate(parts)
    return np.minimum(table * mean / table.mean(), 1.0)


def masses(shape: str, level: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Masses with mean `level` for standard normal scores `z`, of one shape or of shapes that broadcast."""
    at = np.clip(level, 0, 1) * LEVELS
    below = np.minimum(at.astype(int), LEVELS - 1)
    part, cell = at - below, np.minimum((ndtr(z) * CELLS).astype(int), CELLS - 1)
    table = quantiles(shape)
    return np.asarray((1 - part) * table[below, cell] + part * table[below + 1, cell])
