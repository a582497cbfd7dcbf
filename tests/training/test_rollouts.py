"""What is sampled is what is scored, a reward is the answer's alone, and the gradient is that of its mean."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import mlx.core as mx
import numpy as np
import pytest
import tiny_training
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.cache import KVCache
from scipy import stats

from emergence.backend import numpy_ops
from emergence.models import loading as models
from emergence.training import rollouts
from emergence.training.batches import collate
from emergence.training.objectives import Objective, policy_loss
from emergence.training.rollouts import Written
from emergence.training.updates import Updates

MOST = 6


@pytest.fixture(scope="module")
def mixed(tokenizer):
    """Rows of two styles: their prompts are of several lengths."""
    return tiny_training.rows(tokenizer, 3, 0, ("symbolic", "worded"))


@pytest.fixture(scope="module")
def sampled(lens, mixed):
    return rollouts.sample(lens, mixed, 8, MOST, seed=5)


def written(*ids: int) -> Written:
    return Written(ids, (0.0,) * len(ids), (0.0,) * len(ids))


def forced(lens, row, ids) -> np.ndarray:
    """Log-probabilities of `ids` after the prompt of `row`, from one pass without a cache, in float64."""
    tokens = mx.array([[*row.prompt_ids, *ids]])
    logits = np.array(lens.model(tokens)[0, len(row.prompt_ids) - 1 : -1], np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return logits[np.arange(len(ids)), list(ids)] - np.log(np.exp(logits).sum(axis=1))


def test_a_sampled_tokens_log_probability_is_that_of_the_whole_text_read_at_once(lens, mixed, sampled):
    lengths = {len(one.ids) for group in sampled for one in group}
    assert {len(row.prompt_ids) for row in mixed} != {len(mixed[0].prompt_ids)}, "prompts of several lengths"
    assert max(lengths) == MOST
    for row, group in zip(mixed, sampled, strict=True):
        for one in group:
            assert np.abs(forced(lens, row, one.ids) - one.log_probs).max() < 1e-4


def test_without_its_prompt_it_is_another(lens, mixed, sampled):
    bare = replace(mixed[0], prompt_ids=mixed[0].prompt_ids[-1:])
    off = [np.abs(forced(lens, bare, one.ids) - one.log_probs).max() for one in sampled[0]]
    assert min(off) > 1e-2


def test_an_end_of_text_ends_a_completion_and_is_part_of_it(lens, mixed):
    end = mixed[0].answer_ids[-1]
    many = rollouts.sample(lens, mixed[:1] * 60, 64, MOST, seed=1)
    ended = [one.ids for group in many for one in group if end in one.ids]
    assert len(ended) > 5
    assert all(ids.index(end) == len(ids) - 1 for ids in ended)
    for ids in ended[:5]:
        one = next(w for group in many for w in group if w.ids == ids)
        assert np.abs(forced(lens, mixed[0], ids) - one.log_probs).max() < 1e-4
    assert all(len(one.ids) == MOST for group in many for one in group if end not in one.ids)


def test_the_same_seed_writes_the_same_whatever_is_written_beside_it(lens, mixed, sampled):
    def ids(found):
        return [[one.ids for one in group] for group in found]

    assert ids(rollouts.sample(lens, mixed, 8, MOST, seed=5)) == ids(sampled)
    assert ids(rollouts.sample(lens, mixed, 8, MOST, seed=5, at_once=8)) == ids(sampled)
    assert ids(rollouts.sample(lens, mixed, 8, MOST, seed=6)) != ids(sampled)


def test_sampling_leaves_the_model_and_mlx_lms_caches_as_they_were(lens, mixed):
    before = [(name, id(a)) for name, a in tree_flatten(lens.model.parameters())]
    random, training = mx.random.state[0].tolist(), lens.model.training
    rollouts.sample(lens, mixed[:2], 2, 3, seed=0)
    assert [(name, id(a)) for name, a in tree_flatten(lens.model.parameters())] == before
    assert (mx.random.state[0].tolist(), lens.model.training) == (random, training)
    assert KVCache.step == 256


def test_tokens_are_drawn_as_often_as_softmax_says():
    logits = np.array([2.0, 1.0, 0.0, -1.0, -3.0, -40.0], np.float32)
    p = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum()
    luck = np.random.default_rng(0).random(20_000)
    ids, log_probs, entropy = rollouts.draw(np.tile(logits, (len(luck), 1)), luck)
    counts = np.bincount(ids, minlength=6)
    assert counts[5] == 0
    assert stats.chisquare(counts[:5], p[:5] / p[:5].sum() * len(luck)).pvalue > 0.001
    assert stats.chisquare(counts[:5], np.full(5, 0.2) * len(luck)).pvalue < 1e-9, "it could fail"
    assert np.allclose(log_probs, np.log(p)[ids], atol=1e-5)
    assert np.allclose(entropy, -(p * np.log(p)).sum(), atol=1e-5)


def test_the_largest_luck_there_is_draws_a_token_that_there_is():
    logits = np.zeros((3, 49_152), np.float32)
    ids, *_ = rollouts.draw(logits, np.array([0.0, np.nextafter(1, 0), 0.5]))
    assert ids.tolist() == [0, 49_151, 24_576]


@pytest.mark.parametrize("ending", [(), (0,), (1, 0)], ids=["no end", "another token", "two more"])
def test_a_reward_is_for_exactly_the_answer_and_the_end_of_text(tokenizer, data, ending):
    row = data[0][0]
    group = [written(*row.answer_ids), written(*row.answer_ids[:-1], *(i + 1 for i in ending))]
    asked = []
    found = rollouts.rewards(tokenizer, [row], [group], lambda item, text: asked.append((item, text)) or 0.5)
    assert found.tolist() == [[0.5, 0.0]]
    assert asked == [(row.item, row.item.answer)], "the task is asked for its own answer, once"


def test_an_advantage_is_the_reward_above_the_groups_mean_or_the_reward():
    given = np.array([[1.0, 0, 0, 0], [0.1, 0.1, 0.1, 0.1], [1, 1, 0, 0]])
    assert rollouts.advantages(given).tolist() == [
        [0.75, -0.25, -0.25, -0.25],
        [0.0] * 4,
        [0.5, 0.5, -0.5, -0.5],
    ]
    third = np.full((1, 3), 0.1)
    assert third.mean() != 0.1, "rounding"
    assert not rollouts.advantages(third).any()
    assert np.array_equal(rollouts.advantages(given, "positive"), given)
    assert np.allclose(rollouts.advantages(3 * given), 3 * rollouts.advantages(given)), "no division"


def test_permuted_rewards_are_the_same_ones_in_each_group_and_say_nothing_of_the_answer():
    given = np.tile([1.0, 0, 0, 0], (4000, 1))
    other = rollouts.permuted(given, 7)
    assert (other.sum(axis=1) == 1).all()
    assert stats.chisquare(other.sum(axis=0)).pvalue > 0.001
    assert np.array_equal(other, rollouts.permuted(given, 7))


def test_every_token_of_a_completion_has_the_same_weight_whatever_its_length(data):
    row = data[0][0]
    group = [written(1, 2), written(1, 2, 3, 4, 5)]
    (batch,) = rollouts.weighted([row], [group], np.array([[-0.5, -0.5]]))
    assert batch.weight.tolist() == [-0.5] * 7
    assert batch.target.tolist() == [1, 2, 1, 2, 3, 4, 5]


def test_what_is_written_twice_is_run_once_with_both_weights_and_nothing_that_weighs_nothing(data):
    row = data[0][0]
    group = [written(1, 2), written(1, 2), written(3, 4), written(5, 6)]
    (batch,) = rollouts.weighted([row], [group], np.array([[0.25, 0.5, 0.0, -0.75]]))
    assert batch.target.tolist() == [1, 2, 5, 6]
    assert batch.weight.tolist() == [0.75, 0.75, -0.75, -0.75]
    assert rollouts.weighted([row], [group], np.zeros((1, 4))) == []


def test_batches_hold_no_more_tokens_than_they_may_and_every_completion_once(mixed, lens):
    many = rollouts.sample(lens, mixed, 32, MOST, seed=2)
    batches = rollouts.weighted(mixed, many, np.ones((len(mixed), 32)))
    assert len(batches) > 1
    assert all(batch.tokens.size <= rollouts.TOKENS for batch in batches)
    assert sum(batch.weight.sum() for batch in batches) == sum(len(w.ids) for g in many for w in g)


def test_the_gradient_is_exactly_that_of_the_expected_reward():
    """A policy of two tokens from four: all 16 completions, all 256 groups of two, enumerated.

    Group by group the advantage is centred on a mean that includes one's own reward, so the expectation is
    (1 - 1/G) of the true gradient; the truth is by central differences in float64.
    """
    first, second = np.random.default_rng(0).normal(size=(2, 4, 4))
    first = first[0]
    answers = list(product(range(4), repeat=2))
    r = np.array([float(a in {(1, 2), (3, 3)}) for a in answers])

    def probabilities(x: np.ndarray) -> np.ndarray:
        a, b = x[:4], x[4:].reshape(4, 4)
        p = np.exp(a) / np.exp(a).sum()
        q = np.exp(b) / np.exp(b).sum(axis=1, keepdims=True)
        return np.array([p[i] * q[i, j] for i, j in answers])

    x = np.concatenate([first, second.ravel()])
    eye = np.eye(len(x)) * 1e-6
    truth = np.array([(probabilities(x + e) @ r - probabilities(x - e) @ r) / 2e-6 for e in eye])

    def gradient(adv: np.ndarray, ids: list[tuple[int, int]]) -> np.ndarray:
        def loss(a, b):
            logits = mx.concatenate([mx.stack([a, b[i]]) for i, _ in ids])
            return policy_loss(
                logits, mx.array(np.ravel(ids).astype(np.int32)), mx.array(np.repeat(adv, 2) / len(ids))
            )

        with numpy_ops.lazily():
            found = mx.grad(loss, argnums=(0, 1))(mx.array(first), mx.array(second))
        return -np.concatenate([np.array(g).ravel() for g in found])

    p, total = probabilities(x), np.zeros(len(x))
    for i, j in product(range(16), repeat=2):
        adv = rollouts.advantages(np.array([[r[i], r[j]]]))[0]
        if adv.any():
            total += p[i] * p[j] * gradient(adv.astype(np.float32), [answers[i], answers[j]])
    assert np.abs(truth).max() > 0.04
    assert np.abs(total - truth / 2).max() < 1e-6


@pytest.fixture
def tuned(lens):
    with models.lora(lens.model, "lora", tiny_training.LORA, 3) as model:
        yield model


def gradient(lens, model, batches) -> dict[str, np.ndarray]:
    """The gradient as one update sums it: Adam's first moment after it, without what scales it."""
    updates = Updates(model, Objective(lens), tiny_training.arm())
    before = dict(tree_flatten(model.trainable_parameters()))
    updates.make_of_sums(0, batches)
    model.update(tree_unflatten(list(before.items())))
    return {k: np.array(v) for k, v in tree_flatten(updates.optimizer.state) if k.endswith(".m")}


def test_equal_rewards_move_nothing_to_the_bit_alone_or_beside_others(lens, tuned, data):
    rows = data[0][:2]
    group = [written(1, 2), written(3, 4)]
    quiet = rollouts.advantages(np.array([[0.1, 0.1], [0.1, 0.1]]))
    assert rollouts.weighted(rows, [group, group], quiet) == []
    none = gradient(lens, tuned, [])
    assert all(not m.any() for m in none.values())
    heard = np.array([[0.5, -0.5], [0.0, 0.0]])
    both = gradient(lens, tuned, rollouts.weighted(rows, [group, group], heard))
    alone = gradient(lens, tuned, rollouts.weighted(rows[:1], [group], heard[:1]))
    assert any(m.any() for m in both.values())
    assert all(np.array_equal(both[k], alone[k]) for k in both)


def test_a_loss_whose_weights_are_zero_has_a_gradient_of_zero_to_the_bit(lens, tuned, data):
    batch = replace(collate(data[0][:2]), weight=np.zeros(len(collate(data[0][:2]).target), np.float32))
    assert all(not m.any() for m in gradient(lens, tuned, [batch]).values())


def test_what_is_scored_is_what_was_sampled_from_without_dropout(lens, data):
    """By the loss, -log p of what was sampled: with dropout it would be another, and another each time."""
    dropping = tiny_training.LORA.model_copy(update={"dropout": 0.5})
    with models.lora(lens.model, "lora", dropping, 3) as model:
        noisy = [(k, 0.1 * mx.random.normal(v.shape, key=mx.random.key(i))) for i, (k, v) in enumerate(
            tree_flatten(model.trainable_parameters()))]  # fmt: skip
        model.update(tree_unflatten(noisy))
        many = rollouts.sample(lens, data[0][:2], 4, MOST, seed=3)
        batches = rollouts.weighted(data[0][:2], many, np.ones((2, 4)))
        model.train()  # as updates of sft leave it
        loss = Updates(model, Objective(lens), tiny_training.arm()).make_of_sums(0, batches)
        model.eval()
    said = -sum(sum(one.log_probs) for group in many for one in group)
    assert loss == pytest.approx(said, abs=1e-3)


def test_scaled_rewards_scale_the_gradient_and_batches_add_up_to_one(lens, tuned, data, monkeypatch):
    rows, group = data[0][:3], [written(1, 2, 3), written(4, 5)]
    weights = np.array([[0.5, -0.5]] * 3)
    one = gradient(lens, tuned, rollouts.weighted(rows, [group] * 3, weights))
    three = gradient(lens, tuned, rollouts.weighted(rows, [group] * 3, 3 * weights))
    monkeypatch.setattr(rollouts, "TOKENS", 24)
    parts = rollouts.weighted(rows, [group] * 3, weights)
    assert len(parts) > 1
    summed = gradient(lens, tuned, parts)
    for name, m in one.items():
        assert np.allclose(three[name], 3 * m, atol=1e-6)
        assert np.allclose(summed[name], m, atol=1e-6)


def bandit(seed: int, steps: int, random: bool) -> float:
    """One prompt, four answers, one right: the probability of the right one after so many updates."""
    theta, m, v = np.zeros(4), np.zeros(4), np.zeros(4)
    rng = np.random.default_rng(seed)
    for t in range(1, steps + 1):
        ids, *_ = rollouts.draw(np.tile(theta, (16, 1)).astype(np.float32), rng.random(16))
        given = (ids == 2).astype(float)[None]
        if random:
            given = rollouts.permuted(given, int(rng.integers(2**32)))
        adv = rollouts.advantages(given)[0]
        p = np.exp(theta) / np.exp(theta).sum()
        g = (adv[:, None] * (np.eye(4)[ids] - p)).mean(axis=0)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        theta = theta + 0.15 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
    return float((np.exp(theta) / np.exp(theta).sum())[2])


def test_a_bandit_is_solved_by_its_rewards_and_wanders_without_a_drift_by_permuted_ones():
    assert bandit(0, 0, False) == 0.25
    assert min(bandit(seed, 30, False) for seed in range(5)) > 0.9
    wandered = [bandit(seed, 30, True) for seed in range(100)]
    assert np.mean(wandered) == pytest.approx(0.25, abs=3 * np.std(wandered) / 10)
    assert np.std(wandered) > 0.02, "single seeds do wander"
