"""Rotary tables: equal to those that transformers computes, and put where a model has others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from folder_cases import ROTATIONS
from folder_variants import rope as parameters
from mlx_lm.models import llama
from transformers import LlamaConfig

from emergence.errors import NotMeasurable
from emergence.models import architecture, rope

KEPT = Path(__file__).parent / "folders.npz"


def config(dims: int, length: int, rotation: dict[str, Any], **more: Any) -> LlamaConfig:
    return LlamaConfig(head_dim=dims, max_position_embeddings=length, rope_parameters=dict(rotation), **more)


@pytest.mark.parametrize("name", ROTATIONS)
def test_angles_and_gain_are_those_of_transformers(name: str) -> None:
    dims, length, rotation = ROTATIONS[name]
    freqs, gain = rope.expected(config(dims, length, rotation), rotation, dims)
    kept = np.load(KEPT)[f"rotation {name}"]  # angles a position, and the gain; float32, by torch
    np.testing.assert_allclose(1 / freqs, kept[:-1], rtol=3e-6)
    assert gain == pytest.approx(kept[-1], rel=1e-6)


def test_gpt_oss_needs_a_table_that_mlx_lm_does_not_make() -> None:
    """Without rounding YaRN's range (`truncate: false`) one pair of dimensions turns 76 % further."""
    dims, length, rotation = ROTATIONS["gpt-oss"]
    exact, _ = rope.expected(config(dims, length, rotation), rotation, dims)
    rounded = {**rotation, "truncate": True}
    other, _ = rope.expected(config(dims, length, rounded), rounded, dims)
    assert np.abs(exact / other - 1).max() == pytest.approx(0.76, abs=0.01)


@pytest.mark.parametrize("traditional", [False, True])
@pytest.mark.parametrize("offset", [0, 5])
def test_a_rotation_turns_pairs_by_position_times_angle(traditional: bool, offset: int) -> None:
    freqs, gain, dims = np.array([1.0, 3.0, 50.0]), 1.3, 6
    turn = rope.Rotation(dims, freqs, gain, traditional)
    x = np.random.default_rng(0).normal(size=(1, 2, 4, 8)).astype(np.float32)
    first, second = (slice(0, dims, 2), slice(1, dims, 2)) if traditional else (slice(0, 3), slice(3, 6))
    angle = (np.arange(4) + offset)[:, None] / freqs
    expected = x.copy()
    expected[..., first] = gain * (x[..., first] * np.cos(angle) - x[..., second] * np.sin(angle))
    expected[..., second] = gain * (x[..., first] * np.sin(angle) + x[..., second] * np.cos(angle))
    np.testing.assert_allclose(turn(mx.array(x), offset=offset), expected, atol=1e-5)


def model(**changes: Any) -> Any:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 32, "num_attention_heads": 4}
    return llama.Model(
        llama.ModelArgs.from_dict(
            {"model_type": "llama", "rms_norm_eps": 1e-5, "vocab_size": 64, **sizes, **changes}
        )
    )


def test_a_right_module_stays_and_a_wrong_one_is_replaced() -> None:
    kind = architecture.find({"model_type": "llama"})
    theirs = config(8, 64, parameters("default", 5e5))
    right, wrong = model(rope_theta=5e5), model()
    for one in (right, wrong):
        rope.settle(one, theirs, kind)
    assert {type(layer.self_attn.rope) for layer in right.layers} == {nn.RoPE}
    assert {type(layer.self_attn.rope) for layer in wrong.layers} == {rope.Rotation}
    x = mx.random.normal((1, 4, 9, 8), key=mx.random.key(0))
    np.testing.assert_allclose(
        wrong.layers[1].self_attn.rope(x), right.layers[1].self_attn.rope(x), atol=1e-5
    )
    assert float(mx.abs(model().layers[0].self_attn.rope(x) - right.layers[0].self_attn.rope(x)).max()) > 0.1


def test_layers_of_two_kinds_get_two_tables() -> None:
    kinds = ["sliding_attention", "full_attention"]
    theirs = config(8, 64, parameters("default"), layer_types=kinds, num_hidden_layers=2)
    theirs.rope_parameters = dict(
        zip(kinds, (parameters("default", 2e4), parameters("linear", 1e6, factor=8.0)), strict=True)
    )
    built = model(rope_theta=2e4)
    rope.settle(built, theirs, architecture.find({"model_type": "llama"}))
    local, full = (layer.self_attn.rope for layer in built.layers)
    assert type(local) is nn.RoPE
    np.testing.assert_allclose(np.array(full._freqs), 8 * 1e6 ** (np.arange(0, 8, 2) / 8), rtol=1e-5)


def test_a_scaling_of_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(NotMeasurable, match=r"rope_scaling of type 'spiral'"):
        rope.expected(config(8, 64, parameters("default")), parameters("spiral"), 8)
