"""A grid of truths for every criterion: how often the verdict rules err, and what their intervals cover.

`-m slow` simulates each of the cells 1,000 times; it takes about an hour on one core. The names of the three
errors, the worlds and the numbers are in `support/generators.py` and `support/simulations.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from generators import (
    BASE,
    CERTAIN,
    CLASSES,
    SFT,
    WRONG,
    Case,
    Design,
    Right,
    answers,
    avoided_digits,
    lucky_set,
    rows,
    slope,
    streams,
    words,
    words_by_size,
)
from simulations import (
    DECODABLE,
    EMERGES,
    FULL,
    GROWS,
    IS,
    NONE,
    PREDICTS,
    REPLICATES,
    Make,
    claim,
    most_errors,
    refuse,
    stands_in,
    two_layers_that_grow,
    verdicts,
)
from tails import MIXTURE, NARROW, SPIKE, WIDE, Noise
from wild import Wild, by_operands, confidently_wrong, heavy, hurdle, lit_elsewhere, many_layers

from emergence.verdicts.predictions import Prediction

NOTHING = rows(0.0)
STEPS = (0, 100, 200, 300)
Wrong = Callable[[Case], tuple[bool, bool]]


def of_add(case: Case) -> tuple[bool, bool]:
    """Whether it is wrong to say that the class `add` has it, and wrong to say that it lacks it."""
    truth = case.truth["add"]
    return truth.supported_is_wrong, truth.falsified_is_wrong


def of_every_seed(case: Case) -> tuple[bool, bool]:
    return not all(case.having), all(case.having)


@dataclass(frozen=True)
class Cell:
    """A claim, a world, and what is wrong to say in it."""

    claim: Prediction
    make: Make
    wrong: Wrong = of_add


def world_of_words(own: float, other: float, noise: Noise, design: Design, split: str = "shares") -> Make:
    means = [NOTHING, rows(own, other), NOTHING]
    return lambda k: words(means, replace(design, rng=(k,)), noise, split)


def world_of_answers(
    own: list[list[float]], noise: Noise, design: Design, bias: float = 0.0, right: Right = CERTAIN
) -> Make:
    return lambda k: answers(own, replace(design, rng=(k,)), noise, bias, right)


def _named(kind: str, *values: object) -> str:
    return " ".join([kind, *(v.shape if isinstance(v, Noise) else f"{v}" for v in values)])


TRUTHS = [
    (0.05, 0.0), (0.10, 0.0), (0.15, 0.0), (0.30, 0.0), (0.60, 0.0),
    (0.10, 0.05), (0.15, 0.10), (0.15, 0.05), (0.30, 0.25), (0.30, 0.20), (0.60, 0.30),
]  # fmt: skip
"""Mass on the own word, mass on another one: the smallest part is the difference."""
FEW = {c: (n, m) for c, n, m in zip(CLASSES, (30, 40, 20), (12, 30, 45), strict=True)}
SEEDS = {
    "5 seeds, differing": replace(SFT, seeds=5, differ=0.3),
    "3 seeds, half have it": replace(SFT, share=0.5),
    "5 seeds, half have it": replace(SFT, seeds=5, share=0.5),
    "unequal n": replace(BASE, n=FEW),
}
GRID: dict[str, Cell] = {
    _named("words", own, other, noise): Cell(NONE, world_of_words(own, other, noise, BASE))
    for own, other in TRUTHS
    for noise in (NARROW, WIDE, MIXTURE, SPIKE)
}
GRID |= {
    _named("words", own, other, name): Cell(
        NONE if design.arm == "base" else IS, world_of_words(own, other, WIDE, design)
    )
    for name, design in SEEDS.items()
    for own, other in ((0.05, 0.0), (0.10, 0.0), (0.60, 0.0), (0.15, 0.05))
}
GRID |= {
    _named("words, one a prompt,", own, other): Cell(
        NONE,
        world_of_words(own, other, WIDE, BASE, "one word"),
    )
    for own, other in ((0.15, 0.05), (0.45, 0.35))
}
GRID |= {
    _named("answers", now, bias, noise): Cell(
        EMERGES, world_of_answers([[0, before, 0], [0, now, 0]], noise, SFT, bias=bias)
    )
    for before, now, bias in ((0, 0.0, 0.9), (0, 0.05, 0.0), (0.3, 0.4, 0.0), (0, 0.5, 0.2))
    for noise in (WIDE, SPIKE)
}
SINGLE: dict[str, tuple[Prediction, Callable[[Design], Case]]] = {
    "twelve layers in the gap": (NONE, lambda d: words([rows(0.08)] * 12, d, Noise(layer=0.5))),
    "drift over layers": (NONE, lambda d: words([rows(i / 40) for i in range(12)], d)),
    "sizes, matched": (IS, words_by_size),
    "sizes, not matched": (IS, lambda d: words_by_size(replace(d, matched=False))),
    "wrong words": (IS, lambda d: words([NOTHING, WRONG, NOTHING], d)),
    "the prompt's digits avoided": (
        claim("no classifier", family="answer"),
        lambda d: avoided_digits(0.95, d),
    ),
    "a lucky set": (claim("no classifier", "sft", "random words"), lambda d: lucky_set(0.4, d)),
}


def numbered(world: Callable[[Design], Case], arm: str) -> Make:
    design = BASE if arm == "base" else SFT
    return lambda k: world(replace(design, rng=(k,)))


GRID |= {name: Cell(p, numbered(world, p.arm)) for name, (p, world) in SINGLE.items()}


def _curve(*own: float) -> list[list[float]]:
    return [[0, mass, 0] for mass in own]


CURVES = {
    "none": (0.3, 0.3, 0.3, 0.3),
    "2 points": (0.3, 0.307, 0.313, 0.32),
    "10 points": (0.2, 0.233, 0.267, 0.3),
    "30 points": (0.1, 0.2, 0.3, 0.4),
    "up and down": (0.1, 0.5, 0.5, 0.1),
    "falling": (0.4, 0.35, 0.3, 0.25),
}
TRAINED = Design("sft", 3, STEPS, differ=0.2)
GRID |= {
    _named("growth,", name, noise): Cell(
        GROWS,
        world_of_answers(_curve(*own), noise, TRAINED),
        lambda _, own=own: (slope(own, STEPS) <= 1e-9, own[-1] - own[0] >= 0.10 - 1e-9),
    )
    for name, own in CURVES.items()
    for noise in (NARROW, WIDE, SPIKE)
}
RIGHT = [Right(0.5), Right(0.95), Right(0.1), Right(0.5, 0.2), Right(0.95, 0.4), Right(0.5, 0.6)]
GRID |= {
    _named("correctness,", right.share, right.correlation): Cell(
        PREDICTS,
        world_of_answers(_curve(0, 0.4), WIDE, SFT, right=right),
        lambda _, a=right.auroc: (a <= 0.51, a >= 0.60),
    )
    for right in RIGHT
}
GRID |= {
    _named("replication,", name, noise): Cell(
        REPLICATES, world_of_answers(_curve(0, mass), noise, design), of_every_seed
    )
    for name, mass, design in (
        ("half of 5 seeds have it", 0.5, replace(SFT, seeds=5, share=0.5)),
        ("5 seeds have it", 0.5, replace(SFT, seeds=5, differ=0.2)),
    )
    for noise in (WIDE, SPIKE)
}
FORMS = Design(styles=("symbolic", "worded"))
PROBES = {
    _named("probe,", code): Cell(DECODABLE, lambda k, code=code: streams(code, replace(FORMS, rng=(k,))))
    for code in ("class", "form", "operands")
}
FEW_BY_CLASS = ((30, 10), (12, 30), (20, 45))
WILD = {
    "3 of 100 confidently wrong": Wild(confidently_wrong(0.13, 0.03)),
    "3 of 100 confidently wrong, 30 prompts": Wild(confidently_wrong(0.115, 0.03), n=30),
    "3 of 100 confidently wrong, 3 seeds": Wild(confidently_wrong(0.13, 0.03), 3, "sft"),
    "heavy tails": Wild(heavy(2.4, 1)),
    "heavy tails, 5 seeds": Wild(heavy(2.0, 0, 0.6), 5, "sft"),
    "all or nothing, 0.10": Wild(hurdle(0.10)),
    "all or nothing, 0.10, 30 prompts": Wild(hurdle(0.10), n=30),
    "all or nothing, 0.05, 300 prompts": Wild(hurdle(0.05), n=300),
    "all or nothing, 0.50 and 0.40": Wild(hurdle(0.5, 0.4)),
    "all or nothing, 0.50 and 0.45": Wild(hurdle(0.5, 0.45)),
    "all or nothing, unequal n": Wild(hurdle(0.10), n=FEW_BY_CLASS),
    "all or nothing, half of 3 seeds": Wild(hurdle(0.2, share=0.5), 3, "sft"),
    "all or nothing, half of 5 seeds": Wild(hurdle(0.2, share=0.5), 5, "sft"),
    "all or nothing, a sixth of 5 seeds": Wild(hurdle(0.6, share=1 / 6), 5, "sft"),
    "operands, whichever the class": Wild(by_operands(1.5, 0, selective=False)),
    "operands, the own word": Wild(by_operands(4, -8)),
    "lit on another class, 0.40": Wild(lit_elsewhere(0.5, 0.4)),
    "lit on another class, 0.45": Wild(lit_elsewhere(0.5, 0.45)),
    "24 layers, 0.10": Wild(many_layers(0.10)),
    "24 layers, 0.05": Wild(many_layers(0.05)),
}
"""Worlds of another make; see `wild`."""
GRID |= {f"wild, {name}": Cell(NONE if w.arm == "base" else IS, w.make) for name, w in WILD.items()}


def errors_in(cell: Cell, sims: int) -> dict[str, int]:
    """How often a cell was called present, or absent, and how often each was wrong."""
    found: Counter[str] = Counter()
    absence = cell.claim.test == "no classifier"
    for v, case in verdicts(cell.claim, cell.make, sims):
        there, absent = ("falsified", "supported") if absence else ("supported", "falsified")
        there_is_wrong, absent_is_wrong = cell.wrong(case)
        found["there"] += v.outcome == there
        found["absent"] += v.outcome == absent
        found["wrongly there"] += v.outcome == there and there_is_wrong
        found["wrongly absent"] += v.outcome == absent and absent_is_wrong
    return {k: found[k] for k in ("there", "absent", "wrongly there", "wrongly absent")} | {
        "opposite": min(found["there"], found["absent"])
    }


def refuse_all(found: dict[str, int], sims: int) -> None:
    for what in ("opposite", "wrongly there", "wrongly absent"):
        refuse(found[what], sims, f"{what} ({found})")


QUICK = {
    "words 0.3 0.25 wide": (),
    "words 0.15 0.0 wide": (),
    "words 0.6 0.0 5 seeds, differing": (),
    "answers 0.0 0.9 wide": (),
    "growth, 30 points narrow": (),
    "growth, falling wide": (),
    "correctness, 0.95 0.0": (),
    "replication, half of 5 seeds have it wide": (),
    "wild, 3 of 100 confidently wrong, 30 prompts": (),
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks) for name, marks in QUICK.items()])
def test_verdicts_in_the_grid_err_at_most_as_often_as_they_may_quickly(name):
    sims = 12
    refuse_all(errors_in(GRID[name], sims), sims)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*GRID, *PROBES])
def test_verdicts_in_the_grid_err_at_most_as_often_as_they_may(name, record_property):
    sims = FULL if name in GRID else 100
    found = errors_in((GRID | PROBES)[name], sims)
    record_property("outcomes", found)
    print(f"{name}: {found} of {sims}")
    refuse_all(found, sims)


@pytest.mark.slow
def test_few_verdicts_are_of_one_deal_only():
    """Of 200 studies of growth that is hard to see: those whose verdict most deals do not share."""
    sims = 200
    found = [stands_in(GROWS, two_layers_that_grow(k), 20) for k in range(sims)]
    alone = sum(stated != "inconclusive" and deals < 10 for stated, deals in found)
    print(f"{alone} of {sims} verdicts are shared by fewer than 10 of 20 deals")
    refuse(alone, sims, "a verdict that most deals do not share")


# Intervals --------------------------------------------------------------------------------------------------

COVERAGE = [
    (0.30, NARROW, BASE), (0.30, WIDE, BASE), (0.10, WIDE, BASE), (0.10, SPIKE, BASE), (0.05, MIXTURE, BASE),
    (0.30, WIDE, replace(SFT, differ=0.3)), (0.30, SPIKE, replace(SFT, seeds=5, differ=0.3)),
    (0.60, WIDE, replace(SFT, seeds=5)), (0.30, WIDE, replace(BASE, n=FEW)),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("mass", "noise", "design"), COVERAGE)
def test_intervals_cover_the_mass_of_the_one_layer_there_is(mass, noise, design):
    """`estimate` is the mean own-class mass at the layer named, over all prompts and seeds there could be."""
    p = NONE if design.arm == "base" else IS
    one_layer = [rows(mass), NOTHING]
    made = verdicts(p, lambda k: words(one_layer, replace(design, rng=(k,)), noise), FULL)
    missed = [(v.low > mass, v.high < mass) for v, _ in made]
    above, below = np.sum(missed, axis=0)
    print(
        f"{mass} {noise.shape} {design.arm} {design.seeds}: {1 - (above + below) / FULL:.3f}, {above} {below}"
    )
    assert above + below <= most_errors(FULL, 0.07), f"missed {above} times above, {below} below, of {FULL}"
