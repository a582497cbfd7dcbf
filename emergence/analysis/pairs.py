"""Which prompts of other classes a prompt is compared with, and whether operands alone give the class away.

In: prompts of one style. Out: `Pairs`. Where a problem is asked under every class (matched operands), a
prompt is compared with the very same problem under another class. Where it is not, any prompt of the other
class serves, unless operands tell the class: then a difference between classes could be one between operands.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from ..readings.operands import operands_tell
from ..readings.readings import Prompt

ENOUGH = 30
"""Prompts of a class below which nothing is judged; counterfactual pairs too."""
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
