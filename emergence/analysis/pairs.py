"""Which prompts of other classes a prompt is compared with, and whether operands alone give the class away.

In: prompts of one style. Out: `Pairs`. Where a problem is asked under every class (matched operands), a
prompt is compared with the very same problem under another class. Where it is not, any prompt of the other
class serves, unless operands tell the class: then a difference between classes could be one between operands.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from ..readings.readings import Prompt

ENOUGH = 30
"""Prompts of a class below which nothing is judged; counterfactual pairs too."""
NEIGHBOURS = 5
SURE = 0.01
"""Operands are said to tell the class where chance would do so well less often than this."""


@dataclass(frozen=True)
class Pairs:
    """The comparisons of one class's prompts with those of each other class."""

    own: dict[str, Int[np.ndarray, " pair"]]
    """By other class: positions among the class's own prompts; those without a partner are left out."""
    partner: dict[str, Int[np.ndarray, " pair"]]
    """By other class: indices of the partners among all prompts; none comes twice."""
    matched: bool
    """Partners have the same operands."""
    confounded: str = ""
    """Why a difference between classes could be one between operands; empty where it could not."""


def problem(p: Prompt) -> Hashable:
    """What two prompts share that ask about the same operands, whatever the class."""
    return p.numbers or p.key


def pair(prompts: Sequence[Prompt], mine: Int[np.ndarray, " own"], style: str) -> Pairs:
    """Partners for the prompts at `mine`, which are all of one class."""
    if not len(mine):
        return Pairs({}, {}, matched=False)
    cls = prompts[mine[0]].cls
    by_class: dict[str, list[int]] = {}
    for i, p in enumerate(prompts):
        if p.style == style and p.half >= 0 and p.cls != cls:
            by_class.setdefault(p.cls, []).append(i)
    same = {c: _same(prompts, mine, theirs) for c, theirs in by_class.items()}
    fewest = min((len(own) for own, _ in same.values()), default=0)
    matched = Pairs({c: own for c, (own, _) in same.items()}, {c: p for c, (_, p) in same.items()}, True)
    if fewest >= ENOUGH and 2 * fewest >= len(mine):
        return matched
    if why := _confounded(prompts, style, cls, fewest):
        return matched if fewest >= ENOUGH else Pairs({}, {}, False, why)
    return _any(prompts, mine, by_class)


def _same(
    prompts: Sequence[Prompt], mine: Int[np.ndarray, " own"], theirs: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of prompts about the same operands."""
    free = {problem(prompts[i]): i for i in reversed(theirs)}
    found = [(k, free.pop(problem(prompts[i]))) for k, i in enumerate(mine) if problem(prompts[i]) in free]
    own, partner = (np.array(x, dtype=int) for x in zip(*found, strict=True)) if found else (_NONE, _NONE)
    return own, partner


_NONE = np.zeros(0, dtype=int)


def _any(prompts: Sequence[Prompt], mine: Int[np.ndarray, " own"], by_class: dict[str, list[int]]) -> Pairs:
    """Partners in the order of the prompts, from the same half: independent of one another, used once."""
    own: dict[str, np.ndarray] = {}
    partner: dict[str, np.ndarray] = {}
    for c, theirs in by_class.items():
        found: list[tuple[int, int]] = []
        for half in {prompts[i].half for i in mine}:
            here = [k for k, i in enumerate(mine) if prompts[i].half == half]
            found += zip(here, (i for i in theirs if prompts[i].half == half), strict=False)
        own[c], partner[c] = (np.array([f[i] for f in sorted(found)], dtype=int) for i in (0, 1))
    return Pairs(own, partner, matched=False)


def _confounded(prompts: Sequence[Prompt], style: str, cls: str, shared: int) -> str:
    used = [p for p in prompts if p.style == style and p.half >= 0]
    if not all(p.numbers for p in used):
        if not shared:
            return ""  # prompts of one's own: no problem is asked under two classes
        few = f"only {shared} prompts of {cls} have the same problem under every other class"
        return f"{few}; {ENOUGH} are needed"
    accuracy, chance, p = operands_tell(used)
    if p >= SURE:
        return ""
    return (
        f"operands alone tell the class in {accuracy:.0%} of prompts (chance {chance:.0%}), so that no "
        f"difference can be put down to the class; ask every pair of operands under every class"
    )


def operands_tell(prompts: Sequence[Prompt]) -> tuple[float, float, float]:
    """How often the nearest other prompts, by operands alone, are of a prompt's own class: share, chance, p.

    Leave-one-out nearest neighbours; the p-value is that of a binomial test against the share of the most
    frequent class.
    """
    width = max(len(p.numbers) for p in prompts)
    x = np.array([[*p.numbers, *[0] * (width - len(p.numbers))] for p in prompts], dtype=float)
    _, y = np.unique([p.cls for p in prompts], return_inverse=True)
    guess = _nearest(x / np.maximum(x.std(axis=0), 1e-9), y)
    hits, chance = int((guess == y).sum()), float(np.bincount(y).max() / len(y))
    return hits / len(y), chance, _binomial_tail(hits, len(y), chance)


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


def _nearest(x: Float[np.ndarray, "n k"], y: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The class of most of the nearest others; ties are broken at random, from a constant seed."""
    distance = np.abs(x[:, None] - x[None]).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    k = min(NEIGHBOURS, len(x) - 1)
    near = distance <= np.sort(distance, axis=1)[:, [k - 1]]
    votes = near.astype(float) @ np.eye(y.max() + 1)[y]
    return np.asarray((votes + 0.5 * np.random.default_rng(len(y)).random(votes.shape)).argmax(axis=1))


def deals(prompts: Sequence[Prompt], mine: Int[np.ndarray, " own"], n: int) -> Bool[np.ndarray, "deal own"]:
    """Which of the prompts are in the first half, in each of `n` deals; the first deal is the recorded one.

    All prompts about one problem lie in one half. The other deals are random, from a constant seed.
    """
    first = np.array([prompts[i].half == 0 for i in mine], dtype=bool)
    known, index = np.unique([repr(problem(prompts[i])) for i in mine], return_inverse=True)
    rng = np.random.default_rng([len(known), 40])
    order = rng.permuted(np.broadcast_to(np.arange(len(known)), (max(n - 1, 0), len(known))), axis=1)
    rest = (order < (len(known) + 1) // 2)[:, index]
    return np.concatenate([first[None], rest])
