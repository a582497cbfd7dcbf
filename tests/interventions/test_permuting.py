"""A permuted network computes something else from the same numbers, and is itself again afterwards."""

from __future__ import annotations

import contextlib

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny
from mlx.utils import tree_flatten

from emergence.interventions.permuting import permuted

TOKENS = mx.array([[3, 1, 4, 1, 5]])


def arrays(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: np.array(a) for name, a in tree_flatten(model.parameters())}


@pytest.mark.parametrize("quantised", [False, True])
def test_rows_move_values_stay_and_everything_comes_back(quantised: bool) -> None:
    model = tiny.model(hidden=64)
    if quantised:
        nn.quantize(model, group_size=32, bits=8)
    before, logits = arrays(model), np.array(model(TOKENS))
    with permuted(model):
        during = arrays(model)
        moved = {name for name, a in during.items() if not np.array_equal(a, before[name])}
        other = np.array(model(TOKENS))
    kinds = {"weight", "scales", "biases"} if quantised else {"weight"}
    assert {name.rpartition(".")[2] for name in moved} == kinds
    assert all("layers." in name and "norm" not in name for name in moved), "of the blocks alone"
    assert len(moved) == len(kinds) * 7 * 4  # q, k, v, o, gate, up, down of four blocks
    for name in moved:
        rows = [sorted(map(bytes, a.reshape(len(a), -1))) for a in (before[name], during[name])]
        assert rows[0] == rows[1], "the same rows in another order"
    assert np.abs(other - logits).max() > 0.1
    assert all(np.array_equal(a, before[name]) for name, a in arrays(model).items())
    assert np.array_equal(np.array(model(TOKENS)), logits)


def test_it_comes_back_after_an_exception_and_is_the_same_each_time() -> None:
    model = tiny.model()
    before, seen = arrays(model), []
    for _ in range(2):
        with contextlib.suppress(RuntimeError), permuted(model):
            seen.append(arrays(model))
            raise RuntimeError
    assert all(np.array_equal(a, before[name]) for name, a in arrays(model).items())
    assert all(np.array_equal(a, seen[1][name]) for name, a in seen[0].items())
