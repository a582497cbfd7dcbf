"""Arrays to p-values: permutation tests, their adjustment for multiplicity, trend and onset.

In: masses as arrays, axes `seed cell prompt` or `seed step`. Out: p-values with what they are about. Nothing
here knows a model, a prediction or a threshold. A permutation p is (b + 1) / (m + 1): of m random orders, b
reach at least what was observed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special, stats

from .intervals import LEVEL

DRAWS = 2000
PERMUTATIONS = 4999
_TIES = 1e-9


def auroc(
    scores: Float[np.ndarray, "*many n"], labels: Bool[np.ndarray, "m n"]
) -> Float[np.ndarray, "*many m"]:
    """Area under the ROC curve by ranks (Mann-Whitney; ties count one half), for each row of labels.

    NaN where a row of labels is constant. Leaves out calibration: only the order of scores matters.
    """
    ranks = stats.rankdata(scores, axis=-1)
    yes = labels.sum(axis=1)
    no = labels.shape[1] - yes
    with np.errstate(divide="ignore", invalid="ignore"):
        area = (ranks @ labels.T.astype(float) - yes * (yes + 1) / 2) / (yes * no)
    return np.asarray(area)


@lru_cache(maxsize=32)
def permutations(n: int, m: int = PERMUTATIONS) -> Int[np.ndarray, "m n"]:
    """`m` random orders of `n` things, from a constant seed."""
    rng = np.random.default_rng([n, m, 3])
    return rng.permuted(np.broadcast_to(np.arange(n), (m, n)), axis=1)


def max_t(
    observed: Float[np.ndarray, " cell"], null: Float[np.ndarray, "cell m"]
) -> Float[np.ndarray, " cell"]:
    """Single-step max-T p-values (Westfall & Young 1993): each cell against the largest of all cells.

    Valid however the cells (layers, sets, steps) depend on one another, and however many there are.
    """
    largest = null.max(axis=0)
    beaten = (largest[None, :] >= observed[:, None] - _TIES).sum(axis=1)
    return np.asarray((beaten + 1) / (null.shape[1] + 1))


def separation(
    scores: Float[np.ndarray, "seed cell n"], labels: Bool[np.ndarray, " n"], m: int = PERMUTATIONS
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """One-vs-rest AUROC of each cell (mean over seeds), and its max-T p over permuted class labels.

    Labels are permuted over prompts, the same for all seeds: prompts are the unit, seeds only repeat them.
    """
    shuffled = np.concatenate([labels[None], labels[permutations(len(labels), m)]])
    areas = sum((auroc(seed, shuffled) for seed in scores), np.zeros(())) / len(scores)
    return areas[:, 0], max_t(areas[:, 0], areas[:, 1:])


def matching(
    mass: Float[np.ndarray, "cell n answer"], own: Int[np.ndarray, " n"], m: int = PERMUTATIONS
) -> Float[np.ndarray, " cell"]:
    """Max-T p for "the mass is on the *right* answer": answers are permuted over the problems of a class.

    The statistic of a cell is mean own-answer mass, standardised over the permutations, so that a layer with
    more mass has no more say. A bias towards some digits is the same under every permutation and earns
    nothing.
    """
    n = len(own)
    used, index = np.unique(own, return_inverse=True)
    hot = (index[permutations(n, m)][..., None] == np.arange(len(used))).reshape(m, -1).astype(np.float32)
    # What an answer holds on average is the same under every permutation; without it, float32 is enough.
    above = mass[:, :, used] - mass[:, :, used].mean(axis=1, keepdims=True)
    null = (above.reshape(len(mass), -1).astype(np.float32) @ hot.T).astype(float)
    observed = above[:, np.arange(n), index].sum(axis=1)
    spread = null.std(axis=1)
    scale = np.where(spread > 1e-9, spread, np.inf)
    middle = null.mean(axis=1)
    # A cell that no permutation changes says nothing: its score is 0 and its p is 1.
    z = (observed - middle) / scale
    p = max_t(z - 1e-4 * (z > 0), (null - middle[:, None]) / scale[:, None])
    return np.where(np.isfinite(scale), p, 1.0)


def holm(p: Sequence[float]) -> Float[np.ndarray, " test"]:
    """Holm's (1979) adjusted p-values, in the order given."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(values) else steps
    return adjusted


def slopes(mass: Float[np.ndarray, "step ..."], steps: Sequence[int]) -> Float[np.ndarray, "..."]:
    """Least-squares slope of mass over the steps, per optimizer step."""
    t = np.asarray(steps, dtype=float)
    centred = t - t.mean()
    return np.asarray(np.tensordot(centred / (centred**2).sum(), mass, axes=(0, 0)))


def trend(mass: Float[np.ndarray, "seed step"], m: int = PERMUTATIONS) -> tuple[float, float]:
    """Spearman's rho between step and mean mass (mean over seeds), and p over orders of a run's checkpoints.

    The order is permuted within each seed, never prompt by prompt: a checkpoint shifts all its prompts at
    once.
    """
    seeds, steps = mass.shape
    ranks = stats.rankdata(mass, axis=1)
    spread = ranks.std(axis=1, keepdims=True)
    scored = np.where(
        spread > 0, (ranks - ranks.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1), 0.0
    )
    time = np.arange(steps) - (steps - 1) / 2
    time = time / np.sqrt((time**2).mean())
    rng = np.random.default_rng([seeds, steps, 5])
    orders = rng.permuted(np.broadcast_to(np.arange(steps), (m, seeds, steps)), axis=2)
    null = (np.take_along_axis(np.broadcast_to(scored, (m, seeds, steps)), orders, 2) * time).mean(
        axis=(1, 2)
    )
    rho = float((scored * time).mean())
    return rho, float(((null >= rho - _TIES).sum() + 1) / (m + 1))


def onset(present: Sequence[bool], steps: Sequence[int]) -> tuple[int | None, int] | None:
    """(previous, this]: `this` is the first checkpoint from which it is present at all later ones.

    `previous` is None where it is present from the first checkpoint on; None where the last one lacks it.
    """
    first = len(steps)
    while first > 0 and present[first - 1]:
        first -= 1
    if first == len(steps):
        return None
    return (steps[first - 1] if first else None, steps[first])


@lru_cache(maxsize=16)
def _draws(n: int, draws: int) -> Float[np.ndarray, "draw n"]:
    """Bootstrap weights: how often each of `n` is drawn, over `n`; the same every time."""
    rng = np.random.default_rng([n, draws])
    return rng.multinomial(n, np.full(n, 1 / n), size=draws) / n


@dataclass(frozen=True)
class Area:
    """How well a score predicts a yes or no: AUROC with its interval and permutation p."""

    estimate: float
    low: float
    high: float
    p: float
    usable: int
    """Seeds in which both outcomes occur; the others say nothing and are left out."""


def predicts(
    scores: Float[np.ndarray, "seed prompt"],
    outcomes: Bool[np.ndarray, "seed prompt"],
    m: int = PERMUTATIONS,
    draws: int = DRAWS,
) -> Area | None:
    """AUROC of `scores` for `outcomes`, prompt by prompt, mean over the seeds where both outcomes occur.

    The interval draws prompts (the same for all seeds) and adds what seeds differ by; None where no seed is
    usable.
    """
    both = outcomes.any(axis=1) & ~outcomes.all(axis=1)
    if not both.any():
        return None
    scores, outcomes = scores[both], outcomes[both]
    seeds, n = scores.shape
    areas = np.array([auroc(s, o[None])[0] for s, o in zip(scores, outcomes, strict=True)])
    weights = _draws(n, draws)
    drawn = np.full((draws, seeds), np.nan)
    for s in range(seeds):
        yes, no = scores[s][outcomes[s]], scores[s][~outcomes[s]]
        wins = (yes[:, None] > no) + 0.5 * (yes[:, None] == no)
        w_yes, w_no = weights[:, outcomes[s]], weights[:, ~outcomes[s]]
        total = w_yes.sum(axis=1) * w_no.sum(axis=1)
        np.divide(((w_yes @ wins) * w_no).sum(axis=1), total, out=drawn[:, s], where=total > 0)
    means = drawn[np.isfinite(drawn).all(axis=1)].mean(axis=1)
    v_prompt = means.var(ddof=1) * n / (n - 1)
    v_seed = areas.var(ddof=1) / seeds if seeds > 1 else 0.0
    half, estimate = 0.0, float(areas.mean())
    if v_prompt + v_seed > 0:
        df = (v_prompt + v_seed) ** 2 / (v_prompt**2 / (n - 1) + v_seed**2 / max(seeds - 1, 1))
        half = float(special.stdtrit(df, (1 + LEVEL) / 2) * np.sqrt(v_prompt + v_seed))
    ranks = stats.rankdata(scores, axis=1)
    orders = permutations(n, m)
    null = np.mean([(outcomes[s][orders] @ ranks[s]) / _pairs(outcomes[s]) for s in range(seeds)], axis=0)
    seen = np.mean([ranks[s][outcomes[s]].sum() / _pairs(outcomes[s]) for s in range(seeds)])
    p = ((null >= seen - _TIES).sum() + 1) / (len(null) + 1)
    return Area(estimate, max(0.0, estimate - half), min(1.0, estimate + half), float(p), seeds)


def _pairs(outcome: Bool[np.ndarray, " n"]) -> int:
    return int(outcome.sum() * (~outcome).sum())


def confusion(
    scores: Float[np.ndarray, "*many n class"], truth: Int[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, "class class"], float]:
    """Confusion table [true, read] of the class with most mass (seeds summed), and the balanced accuracy.

    Balanced accuracy is the mean over classes of the share of its prompts that are read as it; chance is 1 /
    classes.
    """
    k = scores.shape[-1]
    read = scores.argmax(axis=-1).reshape(-1, len(truth))
    table = np.zeros((k, k), dtype=np.int64)
    for row in read:
        np.add.at(table, (truth, row), 1)
    there = table.sum(axis=1) > 0
    return table, float((np.diag(table)[there] / table.sum(axis=1)[there]).mean())
