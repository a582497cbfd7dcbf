"""A task that no stage knows of goes through all of them: splits, rows, plan, controls, probes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import tiny
from transformers import PreTrainedTokenizerFast

from emergence.analysis import probes
from emergence.errors import BrokenExperiment, UsageError
from emergence.readings.plan import make_plan
from emergence.readings.readings import Prompt, Readings, disjoint
from emergence.tasks.encoding import boundary_report, rows
from emergence.tasks.item import Item
from emergence.tasks.task import Shown, Task
from emergence.tasks.vocabulary import audit
from emergence.training.batches import shuffled_answers

VERBS = {"larger": max, "smaller": min}


@dataclass(frozen=True, order=True)
class Comparison:
    """Which of two numbers is the larger (or smaller) one; the order in which they are named is no matter."""

    cls: str
    a: int
    b: int
    names_class: ClassVar[bool] = True

    @property
    def answer(self) -> str:
        return str(VERBS[self.cls](self.numbers))

    @property
    def key(self) -> str:
        return f"{self.cls} of {min(self.numbers)} and {max(self.numbers)}"

    @property
    def numbers(self) -> tuple[int, ...]:
        return self.a, self.b

    @property
    def control_label(self) -> int:
        return self.b

    def prompt(self, style: str) -> str:
        return {"asked": f"{self.cls}({self.a},{self.b}) = ", "told": f"{self.cls} {self.a} {self.b}: "}[
            style
        ]

    def row(self) -> dict[str, Any]:
        return {"class": self.cls, "a": self.a, "b": self.b, "answer": self.answer}


@dataclass(frozen=True, kw_only=True)
class Comparisons(Task[Comparison]):
    name: ClassVar[str] = "comparison"
    styles: tuple[str, ...] = ("asked",)
    read_styles: tuple[str, ...] = ("asked", "told")
    highest: int = 30

    def draw(self, cls: str, count: int, banned: Collection[str]) -> list[Comparison]:
        pairs = [(a, b) for a in range(self.highest) for b in range(self.highest) if a != b]
        random.Random(f"{self.seed}/{cls}").shuffle(pairs)
        by_key = {c.key: c for c in (Comparison(cls, *pair) for pair in pairs) if c.key not in banned}
        return list(by_key.values())[:count]

    def shortage(self, cls: str, exclude: Iterable[Item] = ()) -> str:
        free = self.highest * (self.highest - 1) // 2 - len({i.key for i in exclude if i.cls == cls})
        return "" if free >= self.need else f"{free} pairs below {self.highest}, {self.need} needed"

    def place(self, cls: str) -> tuple[str, ...]:
        return ("highest",)

    def shown(self, prompt: str, cls: str, expected: str | None = None) -> Shown:
        a, b = (int(n) for n in prompt.partition("(")[2].partition(")")[0].split(","))
        return Shown(Comparison(cls, a, b), "asked", prompt)

    def counterfactual(self, item: Comparison, cls: str) -> Comparison:
        return Comparison(cls, item.a, item.b)


TASK = Comparisons(classes=("larger", "smaller"), num_train=40, num_valid=5, num_test=48)
VOCABULARY = {"larger": ("sum",), "smaller": ("difference",)}


@pytest.fixture(scope="module")
def tokenizer():
    return PreTrainedTokenizerFast(tokenizer_object=tiny.tokenizer(), eos_token="<|endoftext|>")


@pytest.fixture(scope="module")
def made(tokenizer):
    shown = TASK.shown("larger(31,47) = ", "larger")
    audited = audit(tokenizer, VOCABULARY, TASK.glyphs)
    return make_plan(tokenizer, audited, TASK, TASK.split([shown.item]).test, [shown])


def test_it_is_split_without_what_is_excluded_in_whatever_form():
    drawn = TASK.split().test[0]
    mirrored = Comparison(drawn.cls, *reversed(drawn.numbers))
    splits = TASK.split(exclude=[mirrored])
    assert drawn.key not in {i.key for part in (splits.train, splits.valid, splits.test) for i in part}
    assert Counter(i.cls for i in splits.train) == {"larger": 40, "smaller": 40}
    with pytest.raises(UsageError, match="highest: 435 pairs below 30, 509 needed"):
        Comparisons(classes=("larger",), num_train=480, num_valid=5, num_test=24).split()


def test_its_rows_are_encoded_and_noted(tokenizer):
    train = TASK.split().train
    for item, row in zip(train, rows(tokenizer, train, TASK.styles), strict=True):
        assert tokenizer.decode([*row.prompt_ids, *row.answer_ids[:-1]]) == item.prompt("asked") + item.answer
    assert boundary_report(tokenizer, train, TASK.read_styles) == ()


def test_its_plan_has_keys_labels_numbers_and_one_half_a_problem(made):
    assert len(made.prompts) == 2 * 2 * 48 + 1
    judged = [p for p in made.prompts if p.half >= 0]
    halves = {(p.cls, p.numbers): p.half for p in judged}
    assert len(halves) == 2 * 48
    assert all(p.half == halves[p.cls, p.numbers] for p in judged), "one half in every style"
    assert Counter(half for (cls, _), half in halves.items() if cls == "larger") == {0: 24, 1: 24}
    shared = [numbers for cls, numbers in halves if cls == "smaller" and ("larger", numbers) in halves]
    assert shared
    assert all(halves["smaller", numbers] == halves["larger", numbers] for numbers in shared)
    first = sum(half == 0 for (cls, _), half in halves.items() if cls == "smaller")
    assert abs(first - 24) <= len(shared), "the others are dealt in turn"
    assert made.glyphs == {"larger": (), "smaller": ()}
    last = made.prompts[-1]
    assert (last.text, last.half, last.key) == ("larger(31,47) = ", -1, "larger of 31 and 47")
    assert (last.label, last.numbers) == (47, (31, 47))
    disjoint(made.prompts)


def test_a_problem_of_its_in_both_halves_is_refused(made):
    first = made.prompts[0]
    other = Comparison(first.cls, *reversed(first.numbers))
    twice = type(first)(other.prompt("asked"), other.cls, other.answer, "asked", 1 - first.half, other.key)
    with pytest.raises(BrokenExperiment, match=f"such as '{other.key}'"):
        disjoint([*made.prompts, twice])


def test_its_answers_are_shuffled_within_the_class_as_its_prompts_name_it(tokenizer):
    train = rows(tokenizer, TASK.split().train, TASK.styles)
    shuffled = shuffled_answers(train, 0)
    for cls in TASK.classes:
        before, after = (
            Counter(r.answer_ids for r in part if r.item.cls == cls) for part in (train, shuffled)
        )
        assert before == after
    assert all(a.answer_ids != b.answer_ids for a, b in zip(train, shuffled, strict=True))


def _read(prompts: tuple[Prompt, ...], hidden: np.ndarray) -> Readings:
    """Readings of step 0 of which nothing but the streams says anything."""
    layers, n = hidden.shape[:2]
    empty = {"words": 2, "glyphs": 2, "random_words": 1, "answers": 1, "firsts": 1, "top_log_probs": 1}
    arrays = {name: np.zeros((1, layers, n, width), np.float32) for name, width in empty.items()}
    arrays |= {name: np.zeros((1, layers, n), np.float32) for name in ("entropy", "kl")}
    arrays |= {"anywhere": np.zeros((1, layers, n, 1, 2), np.float32), "exact": np.zeros((1, n), np.float32)}
    ids = {"top_ids": np.zeros((1, layers, n, 1), int)}
    ids |= {name: np.zeros(1, int) for name in ("answer_ids", "first_ids")}
    ids |= {name: np.zeros(n, int) for name in ("own_answer", "own_first")}
    rest = {"correct": np.zeros((1, n), bool), "token_sets": {}}
    fixed = {"arm": "sft", "seed": 0, "steps": (0,), "classes": TASK.classes}
    return Readings(prompts=prompts, hidden=hidden, **fixed, **arrays, **ids, **rest)


def test_its_streams_are_probed_against_its_own_control_task(made):
    prompts = tuple(p for p in made.prompts if p.half >= 0)
    assert probes.has_control(prompts)
    assert set(probes.control_types(prompts)) == {p.label for p in prompts}
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((4, len(prompts), 24)).astype(np.float32)
    code = rng.standard_normal(24).astype(np.float32)
    hidden[3] += np.outer([1 if p.cls == "larger" else -1 for p in prompts], code)
    found = probes.evaluate(probes.fit_all(_read(prompts, hidden), "asked", (3, 1)), "larger")
    assert found.accuracy[0] > 0.9 > found.accuracy[1]
    assert found.unseen["operands"] > 0.8


def test_what_it_is_decides_its_spec():
    assert TASK.spec() == {"task": "comparison", "classes": ["larger", "smaller"], "num_train": 40} | {
        "num_valid": 5,
        "num_test": 48,
    }
    assert TASK.reward(Comparison("smaller", 3, 9), " 3\n") == 1.0
    assert TASK.counterfactual(Comparison("smaller", 3, 9), "larger").answer == "9"


def test_a_probe_that_knows_the_numbers_by_heart_fails_on_numbers_it_has_not_seen():
    """Each class has numbers of its own, and the streams say nothing but them: no unseen one may be told."""
    rng = np.random.default_rng(1)
    prompts = []
    for k, cls in enumerate(TASK.classes):
        for i in range(160):
            a, b = (int(n) for n in k * 30 + rng.choice(30, 2, replace=False))
            problem = {"key": f"{cls}{i}", "label": a, "numbers": (a, b)}
            prompts += [Prompt(f"{s}{i}", cls, "1", s, i % 2, **problem) for s in TASK.read_styles]
    codes = rng.standard_normal((60, 96))
    hidden = np.stack([codes[list(p.numbers)].sum(axis=0) for p in prompts]).astype(np.float32)
    found = probes.evaluate(probes.fit_all(_read(tuple(prompts), hidden[None]), "asked", (0,)), "larger")
    assert found.accuracy[0] > 0.9
    assert found.unseen["operands"] < 0.7
