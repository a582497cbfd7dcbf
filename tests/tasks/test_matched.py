"""Matched operands: every pair is asked under every class, in one split and one half, and tells no class."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from emergence.errors import UsageError
from emergence.readings.plan import halves
from emergence.tasks import arithmetic
from emergence.tasks.arithmetic import MOST_PAIRS, OPERATIONS, Arithmetic, Problem

BOTH = {"a": (10, 99), "b": (2, 9)}
COUNTS = {"num_train": 60, "num_valid": 10, "num_test": 20}
THREE = ("add", "subtract", "multiply")


def task(classes: tuple[str, ...] = THREE, **fields: object) -> Arithmetic:
    return Arithmetic(classes=classes, **{"operands": BOTH, **COUNTS} | fields)


def parts(splits) -> dict[str, tuple[Problem, ...]]:
    return {name: getattr(splits, name) for name in ("train", "valid", "test")}


def all_pairs(
    classes: tuple[str, ...], a: tuple[int, int], b: tuple[int, int]
) -> dict[frozenset[int], tuple[int, int]]:
    """Every pair that can be asked under every class, found by asking; the larger number first if it can."""
    found = {}
    for x in range(a[0], a[1] + 1):
        for y in range(b[0], b[1] + 1):
            try:
                for cls in classes:
                    Problem(cls, x, y)
            except UsageError:
                continue
            found[frozenset((x, y))] = max((x, y), found.get(frozenset((x, y)), (x, y)))
    return found


@given(
    classes=st.lists(st.sampled_from(OPERATIONS), min_size=2, unique=True).map(tuple),
    lows=st.tuples(st.integers(0, 30), st.integers(0, 12)),
    widths=st.tuples(st.integers(6, 30), st.integers(1, 12)),
    counts=st.tuples(*[st.integers(1, 30)] * 3),
    seed=st.integers(0, 2**32 - 1),
    show=st.integers(0, 10**6),
)
@settings(max_examples=30, deadline=None)
def test_each_pair_is_asked_under_every_class_in_one_split(classes, lows, widths, counts, seed, show):
    """Ranges may overlap and hold zeros. The items of one pair stand together, since classes interleave."""
    operands = {n: (low, low + width) for n, low, width in zip("ab", lows, widths, strict=True)}
    sizes = dict(zip(COUNTS, counts, strict=True))
    matched = task(classes, operands=operands, seed=seed, **sizes)
    possible = all_pairs(classes, operands["a"], operands["b"])
    if len(possible) < matched.need:
        with pytest.raises(UsageError, match=f"are {len(possible)} pairs .*{matched.need} are needed"):
            matched.split()
        return
    spare = sorted(possible.values()) if len(possible) > matched.need else []
    banned = [Problem(classes[0], *pair) for pair in spare[show % max(len(spare), 1) :][:1]]
    where = defaultdict(set)
    k = len(classes)
    for name, items in parts(matched.split(banned)).items():
        assert len(items) == k * getattr(matched, f"num_{name}")
        for start in range(0, len(items), k):
            asked = items[start : start + k]
            assert tuple(item.cls for item in asked) == classes
            assert {item.numbers for item in asked} == {possible[frozenset(asked[0].numbers)]}
            where[frozenset(asked[0].numbers)].add((name, start))
    assert len(where) == matched.need
    assert all(len(found) == 1 for found in where.values()), "one split, once, in whichever order"
    assert not set(where) & {frozenset(item.numbers) for item in banned}


def test_every_pair_there_is_can_be_used_up_and_not_one_more():
    for classes in (("add", "multiply"), THREE, OPERATIONS):
        possible = all_pairs(classes, *BOTH.values())
        full = task(classes, num_train=len(possible) - 30)
        assert {frozenset(item.numbers) for items in parts(full.split()).values() for item in items} == set(
            possible
        )
        with pytest.raises(UsageError, match=f"{len(possible)} pairs") as refused:
            replace(full, num_train=full.num_train + 1).split()
        said = str(refused.value)
        assert said.startswith("operands: a in [10, 99] with b in [2, 9] are ")
        assert f"but {len(possible) + 1} are needed" in said
        assert said.isprintable()
        assert len(said) < 220


def test_where_one_divides_all_pairs_are_whole_and_where_one_subtracts_none_is_negative():
    splits = task(OPERATIONS, num_train=30).split()
    pairs = {item.numbers for items in parts(splits).values() for item in items}
    assert len(pairs) == 60
    assert all(a % b == 0 for a, b in pairs)
    crossing = {"a": (2, 30), "b": (2, 30)}
    below = {item.numbers for item in task(THREE, operands=crossing).split().train}
    assert all(a >= b for a, b in below)


def test_of_two_orders_of_a_pair_one_is_asked_the_larger_number_first():
    """Otherwise `3 + 4` could be trained on and `4 + 3` be tested."""
    crossing = {"a": (2, 20), "b": (2, 20)}
    splits = task(("add", "multiply"), operands=crossing).split()
    for items in parts(splits).values():
        assert all(item.a >= item.b for item in items)
    apart = task(("add", "multiply"), operands={"a": (2, 9), "b": (10, 60)}).split()
    assert all(item.a < item.b for item in apart.train), "where there is one order, it is that of the ranges"


@pytest.mark.parametrize(
    "shown", [("subtract", 30, 6), ("multiply", 6, 30), ("add", 30, 6), ("divide", 30, 6)]
)
@pytest.mark.parametrize("classes", [THREE, OPERATIONS])
def test_a_shown_prompt_bans_its_pair_under_every_class(shown, classes):
    if shown[0] not in classes:
        return
    matched = task(classes, num_train=all_pairs_count(classes) - 31)
    banned = Problem(*shown)
    splits = matched.split([banned])
    used = {item.numbers for items in parts(splits).values() for item in items}
    assert len(used) == all_pairs_count(classes) - 1, "all pairs but that one"
    assert (30, 6) not in used
    with pytest.raises(UsageError, match=f"are {all_pairs_count(classes) - 1} pairs"):
        replace(matched, num_train=matched.num_train + 1).split([banned])


def all_pairs_count(classes: tuple[str, ...]) -> int:
    return len(all_pairs(classes, *BOTH.values()))


def test_a_banned_pair_moves_no_other():
    """Those behind it move up by one; nothing is shuffled anew."""
    whole = [item.numbers for item in task().draw("add", 200, ())]
    banned = Problem("add", *whole[50])
    without = [item.numbers for item in task().draw("add", 199, {banned.key})]
    assert without == whole[:50] + whole[51:]


def test_ranges_of_more_than_a_million_pairs_are_refused_in_one_line(monkeypatch):
    wide = task(operands={"a": (0, MOST_PAIRS // 10), "b": (2, 11)})
    with pytest.raises(UsageError) as refused:
        wide.split()
    size = (MOST_PAIRS // 10 + 1) * 10
    assert (
        str(refused.value) == f"operands: a and b hold {size} pairs, more than 1000000; narrow their ranges"
    )
    assert wide.shortage("add") == str(refused.value).removeprefix("operands: ")
    monkeypatch.setattr(arithmetic, "MOST_PAIRS", 720)
    assert task().shortage("add") == "", "90 times 8"
    monkeypatch.setattr(arithmetic, "MOST_PAIRS", 719)
    assert task().shortage("add").startswith("a and b hold 720 pairs, more than 719")


def test_a_range_that_is_not_named_is_the_usual_one():
    assert task(operands={"a": (10, 99)}).operands == {"a": (10, 99), "b": (2, 99)}
    assert task(operands={"b": (2, 9)}).operands == {"a": (2, 99), "b": (2, 9)}
    assert task(operands={"b": (2, 9)}).matched
    assert not task(operands={}).matched
    assert not task(operands={"add": (2, 9)}).matched


# The order of the pairs


def test_the_order_of_pairs_depends_on_seed_and_ranges_alone():
    """Not on how many are asked for, the forms, nor the names and the order of classes that forbid none."""
    drawn = [item.numbers for item in task().draw("add", 90, ())]
    assert drawn != sorted(drawn)
    assert [item.numbers for item in task(seed=1).draw("add", 90, ())] != drawn
    others = {
        "more": task(num_train=400, num_valid=11, num_test=21),
        "order": task(("multiply", "subtract", "add")),
        "fewer classes": task(("add", "multiply")),  # every a is larger than every b
        "styles": task(styles=("story",), read_styles=("story", "noun")),
    }
    for name, other in others.items():
        assert [item.numbers for item in other.draw("add", 90, ())] == drawn, name
        assert [item.numbers for item in other.draw("multiply", 90, ())] == drawn, name


def test_what_is_tested_stays_when_more_is_trained_on():
    base, more = task().split(), task(num_train=300).split()
    assert base.test == more.test
    assert base.valid == more.valid


def test_the_draw_is_the_same_on_every_machine_and_version():
    drawn = [item.numbers for item in task().draw("add", 5, ())]
    assert drawn == [(32, 9), (13, 9), (49, 6), (44, 6), (70, 6)]


# Halves


@pytest.mark.parametrize("classes", [("add", "multiply"), THREE, OPERATIONS])
def test_all_items_of_a_pair_are_in_one_half_and_the_halves_are_equal(classes):
    test = task(classes).split().test
    half = halves(test, 0)
    by_pair = defaultdict(set)
    for item in test:
        by_pair[item.numbers].add(half[item])
    assert all(len(found) == 1 for found in by_pair.values())
    for cls in classes:
        mine = [half[item] for item in test if item.cls == cls]
        assert sum(mine) == len(mine) // 2 == 10
    assert halves(test, 1) != half


# What the operands say


def features(items) -> tuple[np.ndarray, np.ndarray]:
    x = np.array(
        [[a, b, a + b, a - b, a * b, a % b, a // b] for a, b in (item.numbers for item in items)], float
    )
    return x, np.array([item.cls for item in items])


GUESSERS = {
    "nearest neighbour": KNeighborsClassifier(1),
    "five nearest neighbours": KNeighborsClassifier(5),
    "logistic regression": LogisticRegression(max_iter=2000),
    "forest": RandomForestClassifier(50, random_state=0),
}


def accuracy(guesser, drawing: Arithmetic) -> float:
    splits = drawing.split()
    (x, y), (unseen, truth) = features(splits.train), features(splits.test)
    middle, spread = x.mean(0), x.std(0) + 1e-9  # where all divide, no remainder differs
    return float(guesser.fit((x - middle) / spread, y).score((unseen - middle) / spread, truth))


@pytest.mark.parametrize("guesser", GUESSERS.values(), ids=GUESSERS)
@pytest.mark.parametrize("classes", [THREE, OPERATIONS])
def test_operands_tell_the_class_no_better_than_chance(guesser, classes):
    """Whatever is learned of pairs, on unseen ones each guess is right for one of the classes exactly."""
    counts = {"num_train": 40 if "divide" in classes else 300, "num_valid": 5, "num_test": 40}
    assert accuracy(guesser, task(classes, **counts)) == pytest.approx(1 / len(classes))


@pytest.mark.parametrize("guesser", GUESSERS.values(), ids=GUESSERS)
def test_operands_by_class_do_tell_it_so_that_chance_above_means_something(guesser):
    apart = {"add": (10, 99), "subtract": (2, 60), "multiply": (2, 30)}
    assert accuracy(guesser, task(operands=apart, num_train=300, num_valid=5, num_test=40)) > 0.5


def test_prompts_of_one_form_differ_in_the_sign_alone():
    texts = {cls: set() for cls in THREE}
    for item in task().split().train:
        texts[item.cls].add(re.sub(r"[+*-]", "?", item.prompt("symbolic")))
    assert texts["add"] == texts["subtract"] == texts["multiply"]
