"""Whether operands alone give the class of a prompt away.

In: prompts of one style that have numbers. Out: how often they do, beside chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from .readings import Prompt

NEIGHBOURS = 5


def operands_tell(prompts: Sequence[Prompt], apart: bool = False) -> tuple[float, float, float]:
    """How often the nearest other prompts, by operands alone, are of a prompt's own class: share, chance, p.

    Nearest neighbours among all others or, with `apart`, among those of the other half, where the same
    operands under another class are not. The p-value is that of a binomial test against the share of the
    most frequent class.
    """
    width = max(len(p.numbers) for p in prompts)
    x = np.array([[*p.numbers, *[0] * (width - len(p.numbers))] for p in prompts], dtype=float)
    _, y = np.unique([p.cls for p in prompts], return_inverse=True)
    halves = np.array([p.half for p in prompts])
    hidden = halves[:, None] == halves if apart else np.eye(len(y), dtype=bool)
    right = float(_guessed(x / np.maximum(x.std(axis=0), 1e-9), y, hidden).sum())
    chance = float(np.bincount(y).max() / len(y))
    return right / len(y), chance, _binomial_tail(round(right), len(y), chance)


def _binomial_tail(hits: int, n: int, p: float) -> float:
    """P(at least `hits` of `n`), without a statistics package: every door that shows results loads this."""
    log = [
        math.lgamma(n + 1)
        - math.lgamma(k + 1)
        - math.lgamma(n - k + 1)
        + k * math.log(p)
        + (n - k) * math.log1p(-p)
        for k in range(hits, n + 1)
    ]
    return float(sum(math.exp(x) for x in log))


def _guessed(
    x: Float[np.ndarray, "n k"], y: Int[np.ndarray, " n"], hidden: Bool[np.ndarray, "n n"]
) -> Float[np.ndarray, " n"]:
    """Whether most of the nearest that are not hidden have a prompt's own class; its share of a tie."""
    distance = np.where(hidden, np.inf, np.abs(x[:, None] - x[None]).sum(axis=2))
    k = min(NEIGHBOURS, int((~hidden).sum(axis=1).min()))
    near = distance <= np.sort(distance, axis=1)[:, [k - 1]]
    votes = near.astype(float) @ np.eye(y.max() + 1)[y]
    most = votes == votes.max(axis=1, keepdims=True)
    return np.asarray(most[np.arange(len(y)), y] / most.sum(axis=1))
