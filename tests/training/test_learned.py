"""What is said of a training as a whole: known answers by hand, error rates by simulation."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from emergence.tasks.arithmetic import Problem
from emergence.tasks.encoding import Row
from emergence.tasks.examples import Example
from emergence.training import learned

ROWS = {"add": 30, "multiply": 30, "subtract": 30}
SURE = {"valid_loss": 1.0, "valid_accuracy": 0.5, "valid_exact": 0.5}


def line(step: int, by_class: dict[str, float] | None = None, **given: float) -> dict[str, Any]:
    """A line of the log; every class alike, except in the first-token shares that are given `by_class`."""
    made: dict[str, Any] = {"step": step, **SURE, **given}
    for name in ("valid_accuracy", "valid_exact"):
        made[f"{name}_by_class"] = dict.fromkeys(ROWS, made[name])
    if by_class:
        made["valid_accuracy_by_class"] = by_class
        made["valid_accuracy"] = sum(by_class.values()) / len(by_class)
    return made


FALLEN = "held-out first token 50 % at step 0, {} % at step 300"
CASES = {
    "as before": ({}, []),
    "better": ({"valid_loss": 0.1, "valid_accuracy": 0.9, "valid_exact": 0.9}, []),
    # 2 sqrt((.25 + .2331) / 90) = .147 and 2 sqrt((.25 + .2275) / 90) = .146
    "a fall within two standard errors": ({"valid_accuracy": 0.37}, []),
    "a fall beyond them": ({"valid_accuracy": 0.35}, [FALLEN.format(35)]),
    "whole answers fell": (
        {"valid_exact": 0.1},
        ["held-out whole answer 50 % at step 0, 10 % at step 300"],
    ),
    "a loss that rose by less than a tenth": ({"valid_loss": 1.09}, []),
    "a loss that rose by more": (
        {"valid_loss": 1.234},
        ["validation loss 1 nats at step 0, 1.23 at step 300"],
    ),
    "right more often, and surer where wrong": ({"valid_loss": 3.0, "valid_exact": 0.9}, []),
    "a lower loss excuses no fall": ({"valid_loss": 0.2, "valid_accuracy": 0.1}, [FALLEN.format(10)]),
    "all of it": (
        {"valid_loss": 9.0, "valid_accuracy": 0.0, "valid_exact": 0.0},
        [
            FALLEN.format(0),
            "held-out whole answer 50 % at step 0, 0 % at step 300",
            "validation loss 1 nats at step 0, 9 at step 300",
        ],
    ),
}


@pytest.mark.parametrize(("last", "said"), CASES.values(), ids=CASES)
def test_a_training_is_held_against_its_own_step_0(last, said):
    log = [line(0), line(150, valid_accuracy=0.0, valid_loss=99.0), line(300, **last)]
    assert learned.worse_than_step_0(log, ROWS) == said


def test_one_class_forgotten_is_told_by_the_mean_of_the_classes():
    forgotten = line(300, by_class={"add": 0.5, "multiply": 0.5, "subtract": 0.0})
    assert learned.worse_than_step_0([line(0), forgotten], ROWS) == [FALLEN.format(33)]


@pytest.mark.parametrize("right", range(7))
def test_few_rows_condemn_nothing_by_one_row_a_class(right):
    log = [line(0, valid_accuracy=right / 6), line(300, valid_accuracy=max(0, right - 1) / 6)]
    assert learned.worse_than_step_0(log, dict.fromkeys(ROWS, 6)) == []


def test_one_row_that_was_right_and_is_wrong_is_no_evidence_although_its_share_fell_from_all_to_none():
    log = [line(0, valid_accuracy=1.0), line(300, by_class={"add": 0.0, "multiply": 1.0, "subtract": 1.0})]
    assert learned.worse_than_step_0(log, dict.fromkeys(ROWS, 1)) == []
    assert learned.worse_than_step_0(log, ROWS) != [], "of thirty rows it is"


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.5, 0.9, 1.0])
def test_a_training_that_does_nothing_is_called_broken_in_one_of_forty_at_most(share):
    """Two scores by the same truth: one in 44 is two standard errors below by chance."""
    rng, n, called = np.random.default_rng(0), 2000, 0
    for _ in range(n):
        shares = rng.binomial(30, share, (2, 3)) / 30
        first, last = (
            line(s, by_class=dict(zip(ROWS, row.tolist(), strict=True))) for s, row in enumerate(shares)
        )
        called += bool(learned.worse_than_step_0([first, last], ROWS))
    # three standard errors of the simulation itself
    assert called / n <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / n)


@pytest.mark.parametrize(
    ("before", "after", "power"), [(0.42, 0.17, 0.9), (0.9, 0.6, 0.99), (0.2, 0.02, 0.9)]
)
def test_a_training_that_breaks_the_model_is_called_so(before, after, power):
    """42 to 17 % is what a rate of 5e-4 does to Gemma 3 270M."""
    rng, n, called = np.random.default_rng(1), 500, 0
    for _ in range(n):
        shares = [rng.binomial(30, share, 3) / 30 for share in (before, after)]
        first, last = (
            line(s, by_class=dict(zip(ROWS, row.tolist(), strict=True))) for s, row in enumerate(shares)
        )
        called += bool(learned.worse_than_step_0([first, last], ROWS))
    assert called / n >= power


def rows(firsts: dict[str, list[int]], style: str = "symbolic") -> list[Row]:
    """Rows whose answers begin with these tokens."""
    item = Example if style == "own" else Problem
    given = ("text", "answer") if style == "own" else (4, 3)
    return [Row(item(cls, *given), style, (1, 2), (first, 0)) for cls, f in firsts.items() for first in f]


def test_chance_is_the_commonest_first_token_of_the_class_that_the_prompt_names():
    made = rows({"add": [5, 5, 6, 7], "subtract": [6, 6, 6, 8]})
    assert learned.chance(made, made) == (2 + 3) / 8
    assert learned.chance(made, rows({"add": [6, 5], "subtract": [5, 8]})) == 1 / 4


def test_chance_does_not_know_the_class_that_is_asked_for():
    made = rows({"even": [5, 5], "odd": [6, 6]}, "own")
    assert learned.chance(made, made) == 0.5


def test_chance_equals_a_guesser_that_counts():
    rng = np.random.default_rng(2)
    train, valid = (rows({c: rng.integers(3, 7, 40).tolist() for c in ROWS}) for _ in range(2))
    counts = {c: Counter(r.answer_ids[0] for r in train if r.item.cls == c) for c in ROWS}
    best = {c: max(count.values()) for c, count in counts.items()}
    tied = [c for c in ROWS if sum(v == best[c] for v in counts[c].values()) > 1]
    assert not tied, "choose another seed: a tie leaves two right answers"
    guesses = {c: next(t for t, v in counts[c].items() if v == best[c]) for c in ROWS}
    assert learned.chance(train, valid) == np.mean([guesses[r.item.cls] == r.answer_ids[0] for r in valid])


@pytest.mark.parametrize(
    ("n", "accuracy", "is_learned"),
    # of n rows, half begin with the commonest token: 2 sqrt(.25 / n) is .158 for 40 rows, .05 for 400
    [(40, 0.65, False), (40, 0.67, True), (400, 0.54, False), (400, 0.56, True), (400, 0.1, False)],
)
def test_learned_is_two_standard_errors_above_chance(n, accuracy, is_learned):
    made = rows({"even": [5] * (n // 2), "odd": [6] * (n // 2)}, "own")
    assert learned.learned(accuracy, made, made) == {"chance": 0.5, "learned": is_learned}


@pytest.mark.parametrize(
    ("rate", "text"), [(5e-4, "5e-4"), (5e-4 / 5, "1e-4"), (3.3e-5, "3.3e-5"), (0.1, "1e-1")]
)
def test_a_rate_is_written_as_people_write_it(rate, text):
    assert learned.short(rate) == text
    assert float(text) == pytest.approx(rate)
