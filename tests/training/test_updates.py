"""One update is Adam's own arithmetic on the gradient of the objective."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from tiny_training import LORA

from emergence.lens.logit_lens import LogitLens
from emergence.models import loading as models
from emergence.training.batches import collate
from emergence.training.checkpoints import flat
from emergence.training.objectives import Objective
from emergence.training.updates import Updates

RATE = 1e-3


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
    Updates(model, objective, RATE).make(collate(data[0][:8]), 0)
    after = weights(model)
    moved = np.concatenate([(after[k] - before[k]).ravel() for k in after if k.endswith("lora_b")])
    # m / sqrt(v) after one step without bias correction: (1 - b1) / sqrt(1 - b2).
    assert np.median(np.abs(moved)) == pytest.approx(RATE * 0.1 / np.sqrt(0.001), rel=1e-3)
    # lora_a has no gradient while lora_b is zero.
    assert all(np.array_equal(before[k], after[k]) for k in before if k.endswith("lora_a"))


def test_three_updates_equal_a_float64_reference(tuned, data):
    """The reference takes gradients of the objective and does the rest by itself."""
    model, objective = tuned
    updates, batches = Updates(model, objective, RATE), [collate(data[0][i : i + 8]) for i in (0, 8, 16)]
    wanted = weights(model)
    m, v = ({name: np.zeros_like(w) for name, w in wanted.items()} for _ in range(2))
    for batch in batches:
        for name, g in gradient(model, objective, batch).items():
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.999 * v[name] + 0.001 * g**2
            wanted[name] -= RATE * m[name] / (np.sqrt(v[name]) + 1e-8)
        said, parts = updates.make(batch, 0)
        assert said == parts[0] > 0
        for name, weight in weights(model).items():
            # A weight whose gradient is rounding error moves by a whole step either way.
            assert np.median(np.abs(weight - wanted[name])) < 1e-3 * RATE, name
    assert np.median(np.abs(wanted[name])) > RATE, "a bound of a thousandth of a step tells something"


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
    updates = Updates(model, objective, RATE)
    updates.make(collate(data[0][:8]), 0)
    assert all(
        np.array_equal(frozen[k], np.array(w)) for k, w in tree_flatten(model.parameters()) if k in frozen
    )
    moments = {k.rsplit(".", 1)[0] for k in flat(updates.optimizer.state) if k.endswith((".m", ".v"))}
    assert moments == set(weights(model))
