"""Models that are known inside: what is used and what can only be read are told apart, on rotated copies.

Each has two blocks and prompts of three tokens: an operand, a class, an `=`. The class decides the answer.
The first block writes the class at the `=` in two planes, one that the head reads words from and one that it
reads answers from; the second block wipes one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import synthetic

from emergence.interventions.rules import interchange
from emergence.lens.edits import Edit
from emergence.lens.logit_lens import LogitLens
from emergence.readings.intervening import intervene
from emergence.readings.plan import Pair, Plan
from emergence.readings.readings import Prompt, Study
from emergence.verdicts import Prediction, Verdict, judge

CLASSES = ("add", "subtract", "multiply")
OPERANDS, MARKS, EQUALS, ANSWERS, WORDS = range(120), (120, 121, 122), 123, (124, 125, 126), (127, 128, 129)
SIZE, HIDDEN = 130, 40
MARK, WORD, ANSWER, DORMANT, OPERAND = range(3), range(3, 6), range(6, 9), range(9, 12), range(12, 40)
Kind = Literal["answer plane used", "word plane used", "both by another path"]


class Block(nn.Module):
    """Adds to each position one linear map of its stream, and another of the sum of all before."""

    def __init__(self, here: np.ndarray, before: np.ndarray):
        super().__init__()
        self.here, self.before = mx.array(here), mx.array(before)

    def __call__(self, x, mask=None, cache=None):
        return x + x @ self.here + (mx.cumsum(x, axis=1) - x) @ self.before


class Model(nn.Module):
    """A model of a kind; `seed` turns its residual stream and draws what operands add to the answers."""

    model_type = "known"

    def __init__(self, kind: Kind, seed: int):
        super().__init__()
        rng = np.random.default_rng(seed)
        turn = np.linalg.qr(rng.standard_normal((HIDDEN, HIDDEN)))[0]
        embed, head = np.zeros((SIZE, HIDDEN)), np.zeros((SIZE, HIDDEN))
        embed[list(MARKS), list(MARK)] = 1.0
        embed[list(OPERANDS), OPERAND.start :] = rng.standard_normal((len(OPERANDS), len(OPERAND)))
        first, second = np.zeros((2, 2, HIDDEN, HIDDEN))  # [here or before]
        first[1][list(MARK), list(WORD)] = 3.0
        first[1][list(MARK), list(ANSWER)] = 3.0
        first[1][OPERAND, OPERAND] = 0.3
        head[list(WORDS), list(WORD)] = 4.0
        head[list(ANSWERS), OPERAND.start :] = 0.1 * rng.standard_normal((3, len(OPERAND)))
        if kind == "answer plane used":
            head[list(ANSWERS), list(ANSWER)] = 4.0
            second[0][list(WORD), list(WORD)] = -1.0
        elif kind == "word plane used":
            head[list(ANSWERS), list(WORD)] = 4.1
            second[0][list(ANSWER), list(ANSWER)] = -1.0
        else:
            for plane in (WORD, ANSWER):
                second[0][list(plane), list(plane)] = -1.0
            second[1][list(MARK), list(MARK)] = 3.0
            head[list(ANSWERS), list(MARK)] = 4.0
            head[list(ANSWERS), list(DORMANT)] = 4.0  # it would act, and nothing ever writes it
        self.embed, self.head = nn.Embedding(SIZE, HIDDEN), nn.Linear(HIDDEN, SIZE, bias=False)
        self.embed.weight, self.head.weight = mx.array(_f32(embed @ turn)), mx.array(_f32(head @ turn))
        self.layers = [Block(*(_f32(turn.T @ m @ turn) for m in block)) for block in (first, second)]
        self._turn = turn

    def __call__(self, tokens, cache=None):
        x = self.embed(tokens)
        for block in self.layers:
            x = block(x)
        return self.head(x)

    def directions(self, plane: range) -> np.ndarray:
        """The directions of a plane in the turned stream."""
        return _f32(self._turn[list(plane)])


def _f32(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32)


def plan() -> Plan:
    """Every operand under every class, as pairs in which classes take turns as the source."""
    prompts = tuple(
        Prompt(f"{a} {cls} =", cls, str(k), "symbolic", a % 2, f"{a} {cls}", a, (a,))
        for a in OPERANDS
        for k, cls in enumerate(CLASSES)
    )
    ids = tuple((a, mark, EQUALS) for a in OPERANDS for mark in MARKS)
    pairs = []
    for i in range(len(prompts)):
        a, k = divmod(i, 3)
        source = 3 * a + (k + 1 + a // 2 % 2) % 3
        pairs.append(Pair(i, source, (source + 6) % len(prompts)))
    words = {"symbolic": {cls: (word,) for cls, word in zip(CLASSES, WORDS, strict=True)}}
    nothing = {"glyphs": {}, "random_words": {}, "answer_ids": (), "own_answer": (), "first_ids": ()}
    return Plan(
        prompts=prompts, prompt_ids=ids, forced_ids=ids, classes=CLASSES, words=words, **nothing,
        own_first=(), trained=("symbolic",), longest=1, asked={}, intervened={}, pairs=tuple(pairs),
    )  # fmt: skip


PLAN = plan()
STUDY = synthetic.study(n_layers=2, arms={"sft": 1}, hidden=2)


def outcomes(model: Model, family: str) -> set[str]:
    return {v.outcome for v in verdicts(model, PLAN, family)}


def verdicts(model: Model, asked_of: Plan, family: str, test: str = "used") -> list[Verdict]:
    effects = intervene(LogitLens(model), asked_of, ((family, "at 54 %"),), with_maps=True)
    run = replace(STUDY.runs[0], prompts=PLAN.prompts, effects={0: effects})
    claim = Prediction("K", "it is used", "base", family, "at 54 %", "symbolic", test)
    return judge([claim], Study((run,)))


def read(model: Model) -> float:
    """Least mass that the lens reads on the own class's word after the first block."""
    lens = LogitLens(model)
    sets = {cls: (word,) for cls, word in zip(CLASSES, WORDS, strict=True)}
    mass = np.exp(lens.read(list(PLAN.prompt_ids), sets, layers=[0]).log_mass[0])
    return float(min(mass[i, i % 3] for i in range(len(mass))))


@pytest.mark.parametrize(
    "seeds", [range(1), pytest.param(range(1, 50), marks=pytest.mark.slow)], ids=["one", "49 more"]
)
def test_a_used_word_and_a_word_that_is_only_readable_are_told_apart(seeds: range) -> None:
    for one in seeds:
        used, idle = Model("word plane used", one), Model("answer plane used", one)
        assert min(read(used), read(idle)) > 0.10, "the lens reads the word in both"
        assert outcomes(used, "words") == {"supported"}
        assert outcomes(idle, "words") == {"falsified"}
        assert outcomes(used, "stream") == outcomes(idle, "stream") == {"supported"}
        assert outcomes(idle, "class means") == {"supported"}


def test_a_direction_that_acts_through_a_dormant_path_is_not_taken_for_one_that_is_used() -> None:
    """Makelov et al. 2023 (arXiv:2311.17030): the sum of an idle direction and a dormant one has an effect.

    The class is written where nothing reads it, and reaches the answer by another path. An optimised
    direction would find the sum; neither of our planes does.
    """
    model = Model("both by another path", 3)
    lens = LogitLens(model)
    base, source = [list(PLAN.prompt_ids[0])], [list(PLAN.prompt_ids[1])]
    illusion = (model.directions(WORD)[:2] + model.directions(DORMANT)[:2]) / np.sqrt(2)
    streams = lens.streams(source, [0])[0]

    def odds(z: np.ndarray) -> float:
        return float(z[-1, 0, ANSWERS[1]] - z[-1, 0, ANSWERS[0]])

    own, whole = odds(lens.logits(base)), odds(lens.logits(source))
    with lens.patched([Edit(0, -1, interchange(streams, illusion))]):
        moved = odds(lens.logits(base))
    assert (moved - own) / (whole - own) > 0.2, "the illusion is there"
    for family in ("words", "class means", "stream"):
        assert outcomes(model, family) == {"falsified"}


def test_where_the_answer_is_one_for_all_operands_nothing_tells_the_operation_from_it() -> None:
    """The class alone decides what this model says, so both prompts of a class say one thing."""
    found = verdicts(Model("answer plane used", 0), PLAN, "stream", "carries the operation")
    assert {v.outcome for v in found} == {"inconclusive"}
    assert all("different things after the prompts in 0 pairs" in v.reason for v in found)


@pytest.mark.parametrize("family", ["stream", "words", "class means"])
@pytest.mark.parametrize(
    "pairs",
    [(), PLAN.pairs[:1], [p._replace(other=-1) for p in PLAN.pairs if PLAN.prompts[p.base].half == 0]],
    ids=["none", "one", "of one half"],
)
def test_too_few_pairs_are_told_and_end_nothing(pairs: Sequence[Pair], family: str) -> None:
    found = verdicts(Model("answer plane used", 0), replace(PLAN, pairs=tuple(pairs)), family)
    assert {v.outcome for v in found} == {"inconclusive"}
    assert all("nothing could be exchanged: " in v.reason and "2 are needed" in v.reason for v in found)
