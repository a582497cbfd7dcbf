"""Which rows make up a batch, and what is minimised over them."""

from __future__ import annotations

import random
from collections import Counter

import mlx.core as mx
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten, tree_map

from emergence.errors import UsageError
from emergence.lens.logit_lens import LogitLens
from emergence.tasks.task import Problem
from emergence.tasks.vocabulary import Row, rows
from emergence.training import objectives
from emergence.training.batches import Batches, collate, in_length_order, shuffled_answers, strata
from emergence.training.objectives import Classifier, Objective

CLASSES = ("add", "multiply", "subtract")


def problems(n: int, seed: int = 0, high: int = 60) -> list[Problem]:
    rng = random.Random(seed)
    return [Problem(o, rng.randint(20, high), rng.randint(1, 20)) for o in CLASSES for _ in range(n)]


@pytest.fixture(scope="module")
def tokenizer():
    return _Tokenizer()


class _Tokenizer:
    """The tiny tokenizer with the few names of mlx-lm's wrapper that are used here."""

    def __init__(self) -> None:
        self.inner = tiny.tokenizer()
        self.eos_token_id = self.inner.token_to_id("<|endoftext|>")

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return self.inner.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, ids: list[int]) -> str:
        return self.inner.decode(ids)


@pytest.fixture(scope="module")
def model():
    return tiny.model()


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
    made = rows(tokenizer, problems(30), ("symbolic",))
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
    made = rows(tokenizer, problems(40), ("symbolic", "worded"))
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


@pytest.mark.parametrize(
    ("depth", "n_layers", "layer"), [(0.54, 24, 12), (0.54, 30, 15), (0.0, 4, 0), (1.0, 4, 3), (0.5, 3, 0)]
)
def test_the_classifier_layer_is_the_one_nearest_in_depth(depth, n_layers, layer):
    assert objectives.nearest_layer(depth, n_layers) == layer


def test_a_class_word_of_several_tokens_is_refused(tokenizer):
    assert tokenizer.decode([objectives.word_id(tokenizer, "multiply")]).strip() == "multiply"
    with pytest.raises(UsageError, match="'exponentiate' is not one token"):
        objectives.word_id(tokenizer, "exponentiate")


def naive_log_softmax(logits: mx.array) -> np.ndarray:
    x = np.asarray(logits, np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_the_answer_loss_equals_a_row_by_row_reference_without_padding(model, tokenizer):
    made = rows(
        tokenizer,
        [Problem("add", 7, 1), Problem("multiply", 123, 45), Problem("subtract", 20, 8)],
        ("symbolic",),
    )
    total, parts = Objective(LogitLens(model)).losses(model, collate(made))
    nats = []
    for r in made:
        whole = (*r.prompt_ids, *r.answer_ids)
        logs = naive_log_softmax(model(mx.array([whole]))[0])
        nats += [-logs[i - 1, whole[i]] for i in range(len(r.prompt_ids), len(whole))]
    assert total.item() == pytest.approx(np.mean(nats), rel=1e-5)
    assert len(parts) == 1


def test_the_classifier_term_is_the_lens_at_its_layer_and_the_prompts_end(model, tokenizer):
    made = rows(tokenizer, problems(3), ("symbolic",))
    targets = {o: objectives.word_id(tokenizer, o) for o in CLASSES}
    total, (answer, word) = Objective(LogitLens(model), Classifier(1, 0.7, targets)).losses(
        model, collate(made)
    )
    lens = LogitLens(model)
    nats = []
    for r in made:
        logits = np.asarray(lens.logits([list(r.prompt_ids)]))[1, 0]
        nats.append(-naive_log_softmax(mx.array(logits))[targets[r.item.cls]])
    assert word.item() == pytest.approx(np.mean(nats), rel=1e-5)
    assert total.item() == pytest.approx(answer.item() + 0.7 * word.item(), rel=1e-6)


def gradients(model, objective, batch):
    _, grads = mx.value_and_grad(lambda p: _with(model, p, objective, batch))(model.trainable_parameters())
    return {k: np.asarray(v) for k, v in tree_flatten(grads)}


def _with(model, parameters, objective, batch):
    before = tree_map(lambda x: x, model.parameters())
    model.update(parameters)
    try:
        return objective(model, batch)
    finally:
        model.update(before)


def test_the_classifier_term_teaches_nothing_above_its_layer(model, tokenizer):
    batch = collate(rows(tokenizer, problems(2), ("symbolic",)))
    targets = {o: objectives.word_id(tokenizer, o) for o in CLASSES}
    objective = Objective(LogitLens(model), Classifier(1, 0.7, targets))
    word = gradients(model, lambda m, b: objective.losses(m, b)[1][1], batch)
    answer = gradients(model, lambda m, b: objective.losses(m, b)[1][0], batch)
    for layer in range(4):
        name = f"model.layers.{layer}.mlp.down_proj.weight"
        assert (np.abs(word[name]).max() > 0) == (layer <= 1)
        assert np.abs(answer[name]).max() > 0


def test_the_gradient_is_that_of_the_models_own_logits(model, tokenizer):
    batch = collate(rows(tokenizer, problems(2), ("symbolic",)))
    objective = Objective(LogitLens(model))

    def whole(m, b):
        logits = m(mx.array(b.tokens))[mx.array(b.row), mx.array(b.position)]
        return objectives.answer_loss(logits, mx.array(b.target))

    ours, theirs = (
        gradients(model, lambda m, b: objective.losses(m, b)[0], batch),
        gradients(model, whole, batch),
    )
    for name, g in ours.items():
        assert np.allclose(g, theirs[name], rtol=1e-4, atol=1e-6), name


def test_scores_equal_what_greedy_decoding_writes(model, tokenizer):
    asked = problems(4)
    made = rows(tokenizer, asked, ("symbolic",))

    def greedy(r: Row) -> tuple[int, ...]:
        ids = list(r.prompt_ids)
        for _ in r.answer_ids:
            ids.append(int(mx.argmax(model(mx.array([ids]))[0, -1])))
        return tuple(ids[len(r.prompt_ids) :])

    # A third of the rows asks for what the model says anyway: neither share is trivially 0 or 1.
    def asked_for(i: int, r: Row) -> tuple[int, ...]:
        """What the model says; its end after a wrong start; or the true answer."""
        said = list(r.answer_ids)
        for n in range(len(said)):
            ids = [*r.prompt_ids, *said[:n]]
            if i % 3 == 0 or (i % 3 == 1 and n > 0):
                said[n] = int(mx.argmax(model(mx.array([ids]))[0, -1]))
        return tuple(said)

    made = [Row(r.item, r.style, r.prompt_ids, asked_for(i, r)) for i, r in enumerate(made)]
    objective = Objective(LogitLens(model))
    score = objectives.score(lambda b: objective.read(model, b)[0], in_length_order(made, 5))
    for o in CLASSES:
        mine = [r for r in made if r.item.cls == o]
        assert score.exact[o] == np.mean([greedy(r) == r.answer_ids for r in mine])
        assert score.first[o] == np.mean([greedy(r)[0] == r.answer_ids[0] for r in mine])
    assert 0 < score.mean_exact < 1
    assert score.loss == pytest.approx(objective.losses(model, collate(made))[0].item(), rel=1e-5)
