"""A model in training mode is read as in evaluation mode, and is given back as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny
from lens_case import PROMPTS, SETS, same
from mlx_lm.tuner.utils import linear_to_lora_layers

from emergence.errors import BrokenExperiment, UsageError
from emergence.lens.jacobian_lens import JacobianLens
from emergence.lens.logit_lens import LogitLens
from emergence.lens.proof import prove
from emergence.lens.tuned_lens import TunedLens


def dropping() -> nn.Module:
    """A model whose adapters drop half of their input when they train, and which do something."""
    model = tiny.model(n_layers=3)
    keys = {"self_attn.q_proj", "mlp.up_proj"}
    linear_to_lora_layers(model, 3, {"rank": 4, "scale": 2.0, "dropout": 0.5, "keys": keys})
    for i, module in enumerate(m for m in model.modules() if "lora_b" in m):
        module.lora_b = mx.random.normal(module.lora_b.shape, key=mx.random.key(i))
    model.train()
    model.layers[1].eval()  # modes are mixed
    return model


def modes(model: nn.Module) -> list[bool]:
    return [m.training for m in model.modules()]


def test_dropout_does_not_reach_a_reading() -> None:
    model = dropping()
    before = modes(model)
    assert len(set(before)) == 2
    tokens = mx.array([[1, 2, 3]])
    assert not mx.array_equal(model(tokens), model(tokens)), "the model does drop"
    lens = LogitLens(model)
    reading, logits, streams = lens.read(PROMPTS, SETS), lens.logits(PROMPTS), lens.streams(PROMPTS)
    assert modes(model) == before
    assert prove(model).inert == 0
    assert modes(model) == before
    model.eval()
    same(reading, LogitLens(model).read(PROMPTS, SETS))
    np.testing.assert_array_equal(logits, lens.logits(PROMPTS))
    np.testing.assert_array_equal(streams, lens.streams(PROMPTS))
    own = np.stack([np.array(model(mx.array([p]))[0, -1]) for p in PROMPTS])
    np.testing.assert_allclose(logits[-1], own, atol=1e-5)


CALLS: dict[str, tuple[Callable[[LogitLens], Any], type[Exception]]] = {
    "read": (lambda ln: ln.read(PROMPTS), BrokenExperiment),
    "logits": (lambda ln: ln.logits(PROMPTS), BrokenExperiment),
    "streams": (lambda ln: ln.streams(PROMPTS), BrokenExperiment),
    "verify": (lambda ln: ln.verify(), BrokenExperiment),
    "a new lens": (lambda ln: LogitLens(ln.model), BrokenExperiment),
    "a tuned lens": (lambda ln: TunedLens.fit(ln, PROMPTS, steps=1), BrokenExperiment),
    "a Jacobian lens": (lambda ln: JacobianLens.fit(ln, PROMPTS, skip_first=0), BrokenExperiment),
    "bad input": (lambda ln: ln.read(PROMPTS, positions=9), UsageError),
}


@pytest.mark.parametrize(("call", "error"), CALLS.values(), ids=CALLS)
def test_modes_come_back_after_an_exception(call: Callable[[LogitLens], Any], error: type[Exception]) -> None:
    model = dropping()
    lens, before = LogitLens(model), modes(model)
    model.layers[2].mlp.down_proj.weight = model.layers[2].mlp.down_proj.weight * float("nan")
    with pytest.raises(error) as caught:
        call(lens)
    assert modes(model) == before, "while the exception is still held"
    del caught


def test_a_lens_is_fitted_without_dropout() -> None:
    model = dropping()
    before = modes(model)
    weights = [TunedLens.fit(LogitLens(model), PROMPTS, steps=2, rows=8).weight for _ in range(2)]
    assert mx.array_equal(*weights)
    slopes = [JacobianLens.fit(LogitLens(model), PROMPTS, skip_first=0).jacobian for _ in range(2)]
    assert mx.array_equal(*slopes)
    assert modes(model) == before


def test_a_captured_pass_runs_in_the_models_own_mode() -> None:
    model = dropping()
    lens, tokens = LogitLens(model), mx.array([[1, 2, 3]])
    found = []
    for _ in range(2):
        with lens.capture() as streams:
            model(tokens)
        found.append(streams[-1])
    assert not mx.array_equal(*found)
