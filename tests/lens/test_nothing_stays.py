"""A reading leaves nothing behind: mlx-lm is as it was, and the next model reads as if it came first."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import architectures
import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.models.switch_layers import SwiGLU

from emergence.errors import EmergenceError
from emergence.lens.logit_lens import LogitLens

PROMPTS = [[3, 1, 4, 1, 5], [2, 7], [1, 8, 2, 8, 1]]
OTHER_ACTIVATIONS = ["gpt_oss", "apertus", "minimax_m3_vl"]
"""These have modules of `mlx_lm.models.activations` itself, where SwiGLU is defined."""
FEW = ["llama", "qwen3_moe", "mamba", *OTHER_ACTIVATIONS, "gemma3n", "iquestloopcoder"]
"""What the three leave patched shows in those before them, which are read again after them."""
_COPIED = "__slotnames__"
"""What Python itself notes on a class of which an instance is copied."""


@pytest.fixture(autouse=True)
def _no_compiler() -> Iterator[None]:
    mx.disable_compile()
    yield
    mx.enable_compile()


def everything() -> dict[tuple[str, ...], Any]:
    """Every attribute of every module of `mlx_lm.models` and `mlx.nn`, and of their classes, by name."""
    found: dict[tuple[str, ...], Any] = {}
    for name, module in sorted(sys.modules.items()):
        if isinstance(module, types.ModuleType) and name.startswith(("mlx_lm.models", "mlx.nn")):
            for attribute, value in vars(module).items():
                found[name, attribute] = value
                if isinstance(value, type):
                    own = {inner: one for inner, one in vars(value).items() if inner != _COPIED}
                    found |= {(name, attribute, inner): one for inner, one in own.items()}
    return found


def bits(lens: LogitLens) -> tuple[bytes, ...]:
    """A reading, and the model's own logits without a lens."""
    reading = lens.read(PROMPTS, {"set": [1, 2, 3]})
    alone = lens.model(mx.array(PROMPTS[:1])).astype(mx.float32)
    found = (reading.log_mass, reading.entropy, reading.kl, np.array(alone))
    return tuple(a.tobytes() for a in found)


def read_in_two_orders(names: list[str]) -> None:
    for name in names:
        importlib.import_module(f"mlx_lm.models.{name}")
    before, lenses, kinds, first = everything(), {}, {}, {}
    for name in names:
        model = architectures.build(name)
        kinds[name] = [type(m) for m in model.modules()]
        try:
            lenses[name] = LogitLens(model)
        except EmergenceError:
            continue
        first[name] = bits(lenses[name])
    for name in reversed(lenses):
        assert bits(lenses[name]) == first[name], f"{name} reads otherwise after other models"
        assert [type(m) for m in lenses[name].model.modules()] == kinds[name]
    after = everything()
    assert [key for key in after if key not in before or after[key] is not before[key]] == []
    assert before.keys() == after.keys()


def test_models_read_the_same_in_both_orders_and_nothing_stays_patched() -> None:
    read_in_two_orders(FEW)


@pytest.mark.slow
def test_every_architecture_reads_the_same_in_both_orders_and_nothing_stays_patched() -> None:
    skipped = ("olmo", *(() if mx.metal.is_available() else ("bitnet", "muse_spark")))
    names = [name for name in architectures.types() if name not in skipped]
    assert len(names) >= 120
    read_in_two_orders(names)


@pytest.mark.parametrize("name", OTHER_ACTIVATIONS)
def test_the_activation_of_plain_models_works_and_compiles_after_a_reading(name: str) -> None:
    LogitLens(architectures.build(name)).read(PROMPTS)
    x, gate = (mx.random.normal((2, 32), key=mx.random.key(i)).astype(mx.float16) for i in (0, 1))
    right = np.array(gate * mx.sigmoid(gate) * x)
    mx.enable_compile()
    for call in (SwiGLU(), mx.compile(SwiGLU())):
        np.testing.assert_allclose(np.array(call(x, gate)), right, atol=1e-2)
