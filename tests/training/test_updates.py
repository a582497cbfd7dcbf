"""One update is Adam's own arithmetic on the gradient of the objective, at the rate of its step."""

from __future__ import annotations

import itertools

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten
from tiny_training import LORA, arm

from emergence.lens.logit_lens import LogitLens
from emergence.models import loading as models
from emergence.training.batches import collate
from emergence.training.checkpoints import flat
from emergence.training.objectives import Objective
from emergence.training.updates import FLOOR, Updates, rate

RATE = 1e-3
ARM = arm(learning_rate=RATE)


@pytest.fixture
def tuned(loaded):
    """The tiny model with LoRA layers, and its objective."""
    objective = Objective(LogitLens(loaded[0]))
    with models.lora(loaded[0], "lora", LORA, 3) as model:
        yield model, objective


def weights(model) -> dict[str, np.ndarray]:
    return {name: np.array(w, np.float64) for name, w in flat(model.trainable_parameters()).items()}


def test_the_first_update_moves_every_weight_by_the_same_step_whatever_its_gradient(tuned, data):
    model, objective = tuned
    before = weights(model)
    Updates(model, objective, ARM).make(0, collate(data[0][:8]), 0)
    after = weights(model)
    moved = np.concatenate([(after[k] - before[k]).ravel() for k in after if k.endswith("lora_b")])
    # m / sqrt(v) after one step without bias correction: (1 - b1) / sqrt(1 - b2).
    assert np.median(np.abs(moved)) == pytest.approx(RATE * 0.1 / np.sqrt(0.001), rel=1e-3)
    # lora_a has no gradient while lora_b is zero.
    assert all(np.array_equal(before[k], after[k]) for k in before if k.endswith("lora_a"))


ADAMS = {"uncorrected": (0.9, 0.999), "corrected": (0.9, 0.99)}


@pytest.mark.parametrize("adam", ADAMS)
@pytest.mark.parametrize("scheduled", [{}, {"lr_schedule": "cosine", "warmup": 2, "max_steps": 4}])
def test_four_updates_equal_a_float64_reference(tuned, data, adam, scheduled):
    """The reference takes gradients of the objective and does the rest by itself, as Kingma & Ba write it.

    Rates of the schedule are written out: half, all, all, and what half a cosine leaves at its middle.
    """
    model, objective = tuned
    (b1, b2), corrected = ADAMS[adam], adam == "corrected"
    shares = [0.5, 1, 1, (1 + FLOOR) / 2] if scheduled else [1, 1, 1, 1]
    updates = Updates(model, objective, arm(learning_rate=RATE, adam=adam, **scheduled))
    wanted, moved = weights(model), {}
    m, v = ({name: np.zeros_like(w) for name, w in wanted.items()} for _ in range(2))
    for step, share in enumerate(shares):
        batch = collate(data[0][8 * step : 8 * step + 8])
        for name, g in gradient(model, objective, batch).items():
            m[name] = b1 * m[name] + (1 - b1) * g
            v[name] = b2 * v[name] + (1 - b2) * g**2
            first = m[name] / (1 - b1 ** (step + 1)) if corrected else m[name]
            second = v[name] / (1 - b2 ** (step + 1)) if corrected else v[name]
            moved[name] = share * RATE * first / (np.sqrt(second) + 1e-8)
            wanted[name] -= moved[name]
        said, parts = updates.make(step, batch, 0)
        assert said == parts[0] > 0
        for name, weight in weights(model).items():
            # A weight whose gradient is rounding error moves by a whole step either way.
            assert np.median(np.abs(weight - wanted[name])) < 1e-3 * RATE, name
    assert np.median(np.abs(moved[name])) > 0.1 * RATE, "a bound of a thousandth of a step tells something"


def test_a_first_corrected_update_is_the_rate_itself_whatever_the_gradient(tuned, data):
    """Bias correction makes of m / sqrt(v) the gradient's sign; without it the step is threefold."""
    model, objective = tuned
    before = weights(model)
    Updates(model, objective, arm(learning_rate=RATE, adam="corrected")).make(0, collate(data[0][:8]), 0)
    after = weights(model)
    moved = np.concatenate([(after[k] - before[k]).ravel() for k in after if k.endswith("lora_b")])
    assert np.median(np.abs(moved)) == pytest.approx(RATE, rel=1e-3)


def gradient(model, objective, batch) -> dict[str, np.ndarray]:
    def loss(parameters):
        model.update(parameters)
        return objective.losses(model, batch)[0]

    before = model.trainable_parameters()
    grads = mx.grad(loss)(before)
    model.update(before)
    return {name: np.array(g, np.float64) for name, g in tree_flatten(grads)}


def test_only_what_is_trainable_has_moments_and_moves(tuned, data):
    model, objective = tuned
    frozen = {k: np.array(w) for k, w in tree_flatten(model.parameters()) if "lora" not in k}
    updates = Updates(model, objective, ARM)
    updates.make(0, collate(data[0][:8]), 0)
    assert all(
        np.array_equal(frozen[k], np.array(w)) for k, w in tree_flatten(model.parameters()) if k in frozen
    )
    moments = {k.rsplit(".", 1)[0] for k in flat(updates.optimizer.state) if k.endswith((".m", ".v"))}
    assert moments == set(weights(model))


# The rate of each update


@given(
    warmup=st.integers(0, 300),
    more=st.integers(1, 2000),
    largest=st.floats(1e-6, 1.0),
    schedule=st.sampled_from(["constant", "cosine"]),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_the_rate_is_that_of_mlx_s_own_schedules(warmup, more, largest, schedule, data):
    """MLX's line begins at 0 before the first update, its half cosine at the largest rate after the last one
    of the warm-up."""
    last = warmup + more
    fields = {"lr_schedule": schedule, "warmup": warmup, "max_steps": last, "checkpoint_steps": (0, last)}
    scheduled = arm(learning_rate=largest, **fields)
    line = optim.linear_schedule(0.0, largest, max(warmup, 1))
    wave = optim.cosine_decay(largest, more, end=FLOOR * largest) if schedule == "cosine" else None
    drawn = data.draw(st.lists(st.integers(0, last - 1), min_size=1, max_size=5))
    for step in {0, warmup, last - 1, max(warmup - 1, 0), *drawn}:
        if step < warmup:
            expected = float(line(mx.array(step + 1)))
        else:
            expected = float(wave(mx.array(step - warmup))) if wave else largest
        # MLX computes in float32, in which the cosine near the floor is rounded to 1e-7 of the largest.
        assert rate(scheduled, step) == pytest.approx(expected, rel=1e-4, abs=1e-6 * largest)


def test_the_rate_rises_in_a_line_is_there_once_and_falls_to_a_hundredth():
    made = arm(learning_rate=0.8, lr_schedule="cosine", warmup=4, max_steps=104, checkpoint_steps=(0, 104))
    rates = [rate(made, step) for step in range(104)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    assert rates[54] == pytest.approx(0.8 * 1.01 / 2), "the middle of what falls"
    assert all(a > b for a, b in itertools.pairwise(rates[4:]))
    assert 0.008 < rates[-1] < 0.0084, "the floor itself would be the rate of the update after the last"
    assert rate(made, 104) == pytest.approx(0.008)
    kept = arm(learning_rate=0.8, warmup=4, max_steps=104)
    assert [rate(kept, step) for step in (0, 3, 4, 50, 103)] == pytest.approx([0.2, 0.8, 0.8, 0.8, 0.8])
    assert {rate(arm(learning_rate=0.8), step) for step in range(6)} == {0.8}, "as it always was"


def test_the_optimizer_has_the_rate_of_the_step_that_it_is_told(tuned, data):
    """Not of how often it was called: a run that goes on in the middle begins there."""
    model, objective = tuned
    made = arm(learning_rate=RATE, lr_schedule="cosine", warmup=3, max_steps=9, checkpoint_steps=(0, 9))
    updates = Updates(model, objective, made)
    for step in (7, 1, 4):
        updates.make(step, collate(data[0][:8]), 0)
        assert updates.optimizer.learning_rate.item() == pytest.approx(rate(made, step), rel=1e-6)
