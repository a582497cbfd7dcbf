"""Which rows make up the batch of a step."""

from __future__ import annotations

from collections import Counter

import numpy as np
import tiny_training
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_training import CLASSES

from emergence.tasks.arithmetic import Problem
from emergence.tasks.encoding import Row, rows
from emergence.training.batches import Batches, collate, shuffled_answers, strata


def row(
    operation: str, prompt: int, answer: list[int], a: int = 30, b: int = 2, style: str = "symbolic"
) -> Row:
    return Row(Problem(operation, a, b), style, tuple(range(1, prompt + 1)), tuple(answer))


LENGTHS = st.lists(
    st.tuples(st.sampled_from(CLASSES), st.integers(1, 6), st.integers(1, 5)), min_size=1, max_size=12
)


@given(LENGTHS)
def test_every_answer_token_is_supervised_once_and_nothing_else_is(shapes):
    made = [row(o, p, [100 + i for i in range(a)]) for o, p, a in shapes]
    batch = collate(made)
    assert batch.tokens.shape == (len(made), max(p + a - 1 for _, p, a in shapes))
    seen = [(int(r), int(p), int(t)) for r, p, t in zip(batch.row, batch.position, batch.target, strict=True)]
    wanted = [(i, p - 1 + j, 100 + j) for i, (_, p, a) in enumerate(shapes) for j in range(a)]
    assert seen == wanted
    for i, (_, p, a) in enumerate(shapes):
        whole = (*made[i].prompt_ids, *made[i].answer_ids)
        assert tuple(batch.tokens[i, : p + a - 1]) == whole[:-1]
        assert batch.last[i] == p - 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(0, 5), st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_classes_are_balanced_in_every_batch_and_rows_used_evenly(size, seed, counts):
    made = [
        row(o, 1 + i % 4, [5] * (1 + i % 3), a=30 + i)
        for o, n in zip(CLASSES, counts, strict=False)
        for i in range(n)
    ]
    batches, used = Batches(made, size, seed), Counter()
    for step in range(24):
        indices = batches.indices(step)
        assert len(indices) == size
        by_class = Counter(made[i].item.cls for i in indices)
        # Eight batches are dealt at once, each class's rows spread over them in turn.
        assert max(by_class.values()) - min(by_class.get(o, 0) for o in CLASSES[: len(counts)]) <= 1
        used.update(indices)
    for members in strata(made).values():
        uses = [used[i] for i in members]
        assert max(uses) - min(uses) <= 1


def test_a_batch_depends_on_seed_and_step_only(tokenizer):
    made = tiny_training.rows(tokenizer, 30)
    forward = [Batches(made, 8, 1).indices(s) for s in range(20)]
    again = Batches(made, 8, 1)
    assert [again.indices(s) for s in reversed(range(20))] == forward[::-1]
    assert [Batches(made, 8, 2).indices(s) for s in range(20)] != forward


def test_each_time_round_the_rows_come_in_another_order():
    made = [row("add", 3, [5], a=30 + i) for i in range(32)]
    batches = Batches(made, 4, 0)
    rounds = [[i for step in range(8 * n, 8 * n + 8) for i in batches.indices(step)] for n in range(3)]
    assert all(sorted(r) == list(range(32)) for r in rounds)
    met = {frozenset(frozenset(r[i : i + 4]) for i in range(0, 32, 4)) for r in rounds}
    assert len(met) == 3, "the same rows meet in a batch every time"


def test_like_lengths_go_together_without_costing_a_class(tokenizer):
    mixed = [
        Problem(o, a, 1 + a % 3) for o in CLASSES for a in (*range(5, 9), *range(50, 60), *range(500, 520))
    ]
    made = rows(tokenizer, mixed, ("symbolic",))
    batches = Batches(made, 16, 0)
    ours = [batches[s] for s in range(40)]
    rng = np.random.default_rng(0)
    blind = [collate([made[i] for i in rng.choice(len(made), 16)]) for _ in range(40)]
    assert sum(b.tokens.size for b in ours) < 0.95 * sum(b.tokens.size for b in blind)
    assert all(min(Counter(b.classes).values()) >= 5 for b in ours)
    first = {b.tokens.shape[1] for b in ours[::8]}
    assert len(first) > 1, "every window starts with its shortest batch: a curriculum"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=20), st.integers(0, 50))
def test_shuffled_answers_leave_as_few_in_place_as_can_be(offsets, seed):
    made = [row("add", 3, [100 + k], a=30 + k, b=0) for k in offsets]
    shuffled = shuffled_answers(made, seed)
    assert [r.prompt_ids for r in shuffled] == [r.prompt_ids for r in made]
    assert Counter(r.answer_ids for r in shuffled) == Counter(r.answer_ids for r in made)
    kept = sum(r.answer_ids[0] == 100 + k for r, k in zip(shuffled, offsets, strict=True))
    most = max(Counter(offsets).values())
    assert kept == max(0, 2 * most - len(offsets))


def test_shuffling_stays_within_the_class_and_depends_on_the_seed(tokenizer):
    made = tiny_training.rows(tokenizer, 40, styles=("symbolic", "worded"))
    shuffled = shuffled_answers(made, 3)
    for key, members in strata(made).items():
        before = Counter(made[i].answer_ids for i in members)
        assert Counter(shuffled[i].answer_ids for i in members) == before, key
    assert not any(a.answer_ids == b.answer_ids for a, b in zip(shuffled, made, strict=True))
    assert shuffled == shuffled_answers(made, 3) != shuffled_answers(made, 4)
    # Not one answer renamed to another throughout, which a model could learn.
    into: dict[tuple, set] = {}
    for a, b in zip(made, shuffled, strict=True):
        into.setdefault((a.style, a.item.cls, a.answer_ids), set()).add(b.answer_ids)
    assert sum(len(v) > 1 for v in into.values()) > 5
