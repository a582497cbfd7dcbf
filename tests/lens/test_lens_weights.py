"""The lens on every form of weights: the readout is float32, and as near the model as the model's own dtype
allows."""

from __future__ import annotations

from typing import Any

import architectures
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny
from mlx.utils import tree_flatten, tree_map, tree_unflatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from emergence.lens.logit_lens import LogitLens

PROMPTS = [[5, 6, 7, 8], [9, 10], [1, 2, 3, 4]]

TOLERANCE = {mx.float32: 1e-5, mx.float16: 1e-2, mx.bfloat16: 6e-2}
"""Largest difference in logits (whose spread is about one) between the readout and the model, by its
dtype."""

FORMS = {
    "float32": (mx.float32, None),
    "float16": (mx.float16, None),
    "bfloat16": (mx.bfloat16, None),
    "8 bits on float32": (mx.float32, 8),
    "4 bits on float32": (mx.float32, 4),
    "8 bits on bfloat16": (mx.bfloat16, 8),
    "4 bits on float16": (mx.float16, 4),
}


def _model(dtype: mx.Dtype, bits: int | None, tied: bool) -> nn.Module:
    model = tiny.model(hidden=64, tied=tied)
    model.set_dtype(dtype)
    if bits:
        nn.quantize(model, group_size=32, bits=bits)
    return model


def _agrees(model: nn.Module, dtype: mx.Dtype) -> LogitLens:
    lens = LogitLens(model)
    found = lens.logits(PROMPTS)
    assert found.dtype == np.float32
    for i, prompt in enumerate(PROMPTS):
        own = np.array(model(mx.array([prompt]))[0, -1].astype(mx.float32))
        np.testing.assert_allclose(found[-1, i], own, atol=TOLERANCE[dtype] * max(1.0, float(own.std())))
    return lens


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(("dtype", "bits"), FORMS.values(), ids=FORMS.keys())
def test_the_last_layer_is_the_logits_within_the_dtype(dtype: mx.Dtype, bits: int | None, tied: bool) -> None:
    _agrees(_model(dtype, bits, tied), dtype)


def test_the_readout_of_a_bfloat16_model_is_not_rounded_to_bfloat16() -> None:
    model = _model(mx.bfloat16, None, tied=True)
    found = LogitLens(model).logits(PROMPTS)
    rounded = np.array(mx.array(found).astype(mx.bfloat16).astype(mx.float32))
    assert (found != rounded).mean() > 0.9
    exact = _exact_last_layer(model)
    np.testing.assert_allclose(found[-1], exact, atol=2e-5)
    own = np.stack([np.array(model(mx.array([p]))[0, -1].astype(mx.float32)) for p in PROMPTS])
    assert np.abs(own - exact).max() > 1e-3


def _exact_last_layer(model: nn.Module) -> np.ndarray:
    """Final norm and head in float64, on the stream that the model has in bfloat16."""
    found = []
    for prompt in PROMPTS:
        h = model.model.embed_tokens(mx.array([prompt]))
        for block in model.layers:
            h = block(h, "causal")
        x = np.array(h[0, -1].astype(mx.float32), dtype=np.float64)
        gain, head = (
            np.array(w.astype(mx.float32), dtype=np.float64)
            for w in (model.model.norm.weight, model.model.embed_tokens.weight)
        )
        found.append(head @ (x / np.sqrt((x * x).mean() + 1e-5) * gain))
    return np.stack(found)


def test_a_head_with_a_bias_is_read_with_it() -> None:
    model = architectures.build("phi")
    assert mx.abs(model.lm_head.bias).max() > 0.1
    lens = _agrees(model, mx.float32)
    with_bias = lens.logits(PROMPTS)
    model.lm_head.bias = model.lm_head.bias + 1.0
    np.testing.assert_allclose(lens.logits(PROMPTS), with_bias + 1.0, atol=1e-5)


def _adapt(model: nn.Module, dora: bool, bits: int | None = None) -> nn.Module:
    """Puts mlx-lm's own layers in, with a B that is not zero, so that they do something."""
    keys = {"self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj"}
    config: dict[str, Any] = {"rank": 4, "scale": 2.0, "dropout": 0.0, "keys": keys}
    linear_to_lora_layers(model, len(model.layers), config, use_dora=dora)
    model.eval()
    key = mx.random.key(3)
    adapters = [
        (name, 0.3 * mx.random.normal(value.shape, key=key))
        for name, value in tree_flatten(model.parameters())
        if name.endswith("lora_b")
    ]
    model.update(tree_unflatten(adapters))
    return model


ADAPTERS = {"lora": (False, None), "dora": (True, None), "lora on 4 bits": (False, 4)}


@pytest.mark.parametrize(("dora", "bits"), ADAPTERS.values(), ids=ADAPTERS.keys())
def test_an_adapted_model_is_read_with_its_adapter(dora: bool, bits: int | None) -> None:
    model = _model(mx.float32, bits, tied=True)
    lens = LogitLens(model)
    before = lens.logits(PROMPTS)
    _adapt(model, dora)
    after = _agrees(model, mx.float32).logits(PROMPTS)
    np.testing.assert_array_equal(lens.logits(PROMPTS), after)
    assert np.abs(after - before).max(axis=(1, 2)).min() > 0.01


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_a_fused_adapter_reads_as_the_adapter(dora: bool) -> None:
    model = _adapt(_model(mx.float32, None, tied=True), dora)
    before = LogitLens(model).logits(PROMPTS)
    fused = [(name, part.fuse()) for name, part in model.named_modules() if hasattr(part, "fuse")]
    assert len(fused) == 12
    model.update_modules(tree_unflatten(fused))
    np.testing.assert_allclose(_agrees(model, mx.float32).logits(PROMPTS), before, atol=1e-4)


def test_statistics_of_a_half_precision_model_are_float32_and_sum_to_one() -> None:
    model = _model(mx.float16, None, tied=True)
    reading = LogitLens(model).read(PROMPTS, {"all": range(tiny.tokenizer().get_vocab_size())})
    assert reading.log_mass.dtype == np.float32
    np.testing.assert_allclose(reading.log_mass, 0, atol=1e-5)


def test_weights_are_as_they_were() -> None:
    model = _model(mx.float16, None, tied=True)
    before = tree_map(lambda p: mx.array(p), model.parameters())
    lens = LogitLens(model)
    lens.read(PROMPTS, {"a": [1]}, positions="all", layers=["embedding", "L1.attn", 2])
    for (name, old), (_, new) in zip(tree_flatten(before), tree_flatten(model.parameters()), strict=True):
        assert old.dtype == new.dtype, name
        assert mx.array_equal(old, new), name
