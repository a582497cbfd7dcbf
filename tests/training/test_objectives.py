"""What is minimised over a batch, and how well rows are answered."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
import tiny
import tiny_training
from mlx.utils import tree_flatten, tree_map
from tiny_training import CLASSES
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from emergence.errors import UsageError
from emergence.lens.logit_lens import LogitLens
from emergence.tasks.arithmetic import Problem
from emergence.tasks.encoding import Row, rows
from emergence.training import objectives
from emergence.training.batches import collate, in_length_order
from emergence.training.objectives import Classifier, Objective


@pytest.fixture(scope="module")
def model():
    return tiny.model()


@pytest.mark.parametrize(
    ("depth", "n_layers", "layer"), [(0.54, 24, 12), (0.54, 30, 15), (0.0, 4, 0), (1.0, 4, 3), (0.5, 3, 0)]
)
def test_the_classifier_layer_is_the_one_nearest_in_depth(depth, n_layers, layer):
    assert objectives.nearest_layer(depth, n_layers) == layer


def test_a_class_word_of_several_tokens_is_refused(tokenizer):
    assert tokenizer.decode([objectives.word_id(tokenizer, "multiply")]).strip() == "multiply"
    with pytest.raises(UsageError, match="'exponentiate' is not one token"):
        objectives.word_id(tokenizer, "exponentiate")


def test_a_word_that_the_tokenizer_does_not_know_is_no_target():
    """One `<unk>` is one token, but it is every unknown word's."""
    inner = Tokenizer(WordLevel({"<unk>": 0, "add": 1}, unk_token="<unk>"))
    inner.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
    assert objectives.word_id(tokenizer, "add") == 1
    with pytest.raises(UsageError, match="'zebra' is not one token here"):
        objectives.word_id(tokenizer, "zebra")


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
    made = tiny_training.rows(tokenizer, 3)
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
    batch = collate(tiny_training.rows(tokenizer, 2))
    targets = {o: objectives.word_id(tokenizer, o) for o in CLASSES}
    objective = Objective(LogitLens(model), Classifier(1, 0.7, targets))
    word = gradients(model, lambda m, b: objective.losses(m, b)[1][1], batch)
    answer = gradients(model, lambda m, b: objective.losses(m, b)[1][0], batch)
    for layer in range(4):
        name = f"model.layers.{layer}.mlp.down_proj.weight"
        assert (np.abs(word[name]).max() > 0) == (layer <= 1)
        assert np.abs(answer[name]).max() > 0


def test_the_gradient_is_that_of_the_models_own_logits(model, tokenizer):
    batch = collate(tiny_training.rows(tokenizer, 2))
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
    made = tiny_training.rows(tokenizer, 4)

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
