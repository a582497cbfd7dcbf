"""Arrays to p-values: permutation tests, their adjustment for multiplicity, trend and onset.

In: masses as arrays, axes `seed cell prompt` or `seed step`. Out: p-values with what they are about. Nothing
here knows a model, a prediction or a threshold. A permutation p is (b + 1) / (m + 1): of m random orders, b
reach at least what was observed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

from .intervals import LEVEL

PERMUTATIONS = 4999
_TIES = 1e-9


def _ranked(scores: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Ranks from 1, ties averaged. SciPy's statistics load here: a look at a table needs none of them."""
    from scipy import stats

    return np.asarray(stats.rankdata(scores, axis=axis))


def auroc(
    scores: Float[np.ndarray, "*many n"], labels: Bool[np.ndarray, "m n"]
) -> Float[np.ndarray, "*many m"]:
    """Area under the ROC curve by ranks (Mann-Whitney; ties count one half), for each row of labels.

    NaN where a row of labels is constant. Leaves out calibration: only the order of scores matters.
    """
    return _area(_ranked(scores, axis=-1), labels)


def _area(
    ranks: Float[np.ndarray, "*many n"], labels: Bool[np.ndarray, "m n"]
) -> Float[np.ndarray, "*many m"]:
    """Linear in the ranks: a mean of areas is the area of mean ranks."""
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


@lru_cache(maxsize=8)
def signs(n: int, m: int = PERMUTATIONS) -> Float[np.ndarray, "m n"]:
    """`m` random sequences of `n` signs, 1 or -1, from a constant seed."""
    rng = np.random.default_rng([n, m, 5])
    return rng.choice(np.array([-1.0, 1.0]), size=(m, n))


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
    scores: Float[np.ndarray, "seed cell n"],
    labels: Bool[np.ndarray, " n"],
    m: int = PERMUTATIONS,
    group: Int[np.ndarray, " n"] | None = None,
) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"]]:
    """One-vs-rest AUROC of each cell (mean over seeds), and its max-T p over permuted class labels.

    Labels are permuted over prompts, the same for all seeds: prompts are the unit, seeds only repeat them.
    With `group`, only among the prompts of one group: those about the same problem.
    """
    orders = permutations(len(labels), m) if group is None else _within(tuple(group.tolist()), m)
    shuffled = np.concatenate([labels[None], labels[orders]])
    areas = _area(_ranked(scores, axis=-1).mean(axis=0), shuffled)
    return areas[:, 0], max_t(areas[:, 0], areas[:, 1:])


@lru_cache(maxsize=8)
def _within(groups: tuple[int, ...], m: int) -> Int[np.ndarray, "m n"]:
    """`m` random orders that leave every place in its group."""
    group = np.array(groups)
    rng = np.random.default_rng([len(group), m, 11])
    places = np.argsort(group, kind="stable")
    keys = group[None] + rng.random((m, len(group)))  # sorting by group first, at random within it
    orders = np.empty((m, len(group)), dtype=np.int64)
    orders[:, places] = np.argsort(keys, axis=1, kind="stable")
    return orders


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
    # What an answer holds on average is the same under every permutation.
    above = np.moveaxis(mass[:, :, used] - mass[:, :, used].mean(axis=1, keepdims=True), 0, 2).copy()
    null = np.zeros((len(mass), m))
    for by_answer, given in zip(above, index[permutations(n, m)].T, strict=True):
        null += by_answer.take(given, axis=0).T
    observed = above[np.arange(n), index].sum(axis=0)
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
    ranks = _ranked(mass, axis=1)
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


def onset(present: Callable[[int], bool], steps: Sequence[int]) -> tuple[int | None, int] | None:
    """(previous, this]: `this` is the first checkpoint from which it is present at all later ones.

    `present` is asked of indices into `steps`, from the last one back to the first that lacks it. `previous`
    is None where it is present from the first checkpoint on; None where the last one lacks it.
    """
    first = len(steps)
    while first > 0 and present(first - 1):
        first -= 1
    if first == len(steps):
        return None
    return (steps[first - 1] if first else None, steps[first])


FEWEST = 5
"""Right answers, and wrong ones, that a seed must have in each half for an AUROC to be given."""


@dataclass(frozen=True)
class Area:
    """How well a score predicts a yes or no: AUROC with its interval and permutation p."""

    estimate: float
    low: float
    high: float
    noise: float
    """Variance that prompts give it."""
    between: float
    """Variance of the mean over seeds, by what they differ by; 0 with one seed."""
    df: float
    usable: int
    """Seeds in which both outcomes occur often enough; the others say nothing and are left out."""
    p: float = 1.0

    @property
    def se(self) -> float:
        """Its standard error."""
        return float(np.sqrt(self.noise + self.between))


def area(
    scores: Float[np.ndarray, "seed prompt"],
    outcomes: Bool[np.ndarray, "seed prompt"],
    half: Bool[np.ndarray, " prompt"],
) -> Area | None:
    """AUROC of `scores` for `outcomes` within each half, prompt by prompt; mean over halves and usable seeds.

    Its variance is that of DeLong et al. (1988): what a prompt adds is averaged over seeds, which read the
    same prompts, and what seeds differ by is added. None where no seed is usable.
    """
    usable = _usable(outcomes, half)
    if not usable.any():
        return None
    areas, noise, n = [], 0.0, int(half.size)
    for here in (half, ~half):
        found = [_placed(s[here], o[here]) for s, o in zip(scores[usable], outcomes[usable], strict=True)]
        areas.append([a for a, _ in found])
        # An AUROC of 1 has no variance: it gets no less than one more prompt, misplaced, would give it.
        least = (1 / (here.sum() + 1)) ** 2
        noise += max(float(np.mean([x for _, x in found], axis=0).var(ddof=1) / here.sum()), least) / 4
    by_seed = np.mean(areas, axis=0)
    seeds = len(by_seed)
    between = float(by_seed.var(ddof=1)) / seeds if seeds > 1 else 0.0
    df = (noise + between) ** 2 / (noise**2 / (n - 2) + between**2 / max(seeds - 1, 1))
    se, estimate = float(np.sqrt(noise + between)), float(by_seed.mean())
    # On the scale of log-odds: near 1 an AUROC is skewed, and a symmetric interval lies too high.
    inner = min(max(estimate, min(se, 0.5)), 1 - min(se, 0.5))
    reach = float(special.stdtrit(df, (1 + LEVEL) / 2)) * se / (inner * (1 - inner))
    ends = special.expit(special.logit(inner) + np.array([-reach, reach]))
    low, high = min(float(ends[0]), estimate), max(float(ends[1]), estimate)
    return Area(estimate, low, high, noise, between, float(df), seeds)


def _usable(outcomes: Bool[np.ndarray, "seed prompt"], half: Bool[np.ndarray, " prompt"]) -> np.ndarray:
    counts = [x[:, here].sum(axis=1) for x in (outcomes, ~outcomes) for here in (half, ~half)]
    return np.asarray(np.min(counts, axis=0) >= FEWEST)


def _placed(
    scores: Float[np.ndarray, " n"], outcome: Bool[np.ndarray, " n"]
) -> tuple[float, Float[np.ndarray, " n"]]:
    """AUROC, and what each prompt adds to it: its influence, whose mean is 0."""
    yes, no = scores[outcome], scores[~outcome]
    wins = (yes[:, None] > no) + 0.5 * (yes[:, None] == no)
    influence, n = np.empty(len(scores)), len(scores)
    influence[outcome] = (wins.mean(axis=1) - wins.mean()) * n / len(yes)
    influence[~outcome] = (wins.mean(axis=0) - wins.mean()) * n / len(no)
    return float(wins.mean()), influence


def predicts(
    scores: Float[np.ndarray, "seed prompt"],
    outcomes: Bool[np.ndarray, "seed prompt"],
    half: Bool[np.ndarray, " prompt"],
    m: int = PERMUTATIONS,
) -> Area | None:
    """`area` with its p: outcomes are permuted over the prompts of a half, the same for all seeds."""
    found = area(scores, outcomes, half)
    if found is None:
        return None
    usable, null, seen = _usable(outcomes, half), np.zeros(m), 0.0
    for here in (half, ~half):
        orders = permutations(int(here.sum()), m)
        for s, o in zip(scores[usable][:, here], outcomes[usable][:, here], strict=True):
            ranks = _ranked(s)
            null += o[orders] @ ranks / _pairs(o)
            seen += ranks[o].sum() / _pairs(o)
    return replace(found, p=float(((null >= seen - _TIES).sum() + 1) / (m + 1)))


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
