"""Loading: a folder becomes the model that was written, in float32 on the CPU, and its tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny
from mlx.utils import tree_flatten
from model_folders import TOKENS, edit, refused, tensors, write
from small_adapters import Settings, checkpoint

from emergence.errors import BrokenExperiment, NotMeasurable
from emergence.models import loading as models
from emergence.models import memory


def test_a_local_folder_loads_and_computes_what_was_written(saved: Path) -> None:
    model, tokenizer = models.load(saved)
    np.testing.assert_allclose(model(TOKENS), tiny.model()(TOKENS), atol=1e-5)
    assert tokenizer.decode(tokenizer.encode("7 * 8 = ")) == "7 * 8 = "
    assert not model.training


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_half_precision_folders_compute_in_float32_on_the_cpu(saved: Path, dtype: mx.Dtype) -> None:
    write(saved, {k: v.astype(dtype) for k, v in tensors(saved).items()})
    model, _ = models.load(saved)
    assert {p.dtype for _, p in tree_flatten(model.parameters())} == {mx.float32}
    assert model(TOKENS).dtype == mx.float32
    reference = tiny.model()
    reference.update(nn.utils.tree_map(lambda p: p.astype(dtype).astype(mx.float32), reference.parameters()))
    np.testing.assert_allclose(model(TOKENS), reference(TOKENS), atol=1e-5)


@pytest.mark.parametrize("mode", ["affine", "mxfp4"])
def test_quantised_folders_are_dequantised_exactly(tmp_path: Path, mode: str) -> None:
    folder = tiny.write_model(tmp_path / "model", hidden=64)
    net = tiny.model(hidden=64)
    nn.quantize(net, group_size=32, bits=4, mode=mode)
    write(folder, dict(tree_flatten(net.parameters())))
    edit(folder / "config.json", quantization={"group_size": 32, "bits": 4, "mode": mode})
    model, _ = models.load(folder)
    packed = net.layers[1].self_attn.q_proj
    expected = mx.dequantize(packed.weight, packed.scales, packed.get("biases"), 32, 4, mode)
    assert type(model.layers[1].self_attn.q_proj) is nn.Linear
    assert model.layers[1].self_attn.q_proj.weight.dtype == mx.float32
    assert mx.array_equal(model.layers[1].self_attn.q_proj.weight, expected.astype(mx.float32))
    np.testing.assert_allclose(model(TOKENS), net(TOKENS), atol=2e-3 if mode == "affine" else 0.1)


def test_float16_scales_are_widened_before_the_product_not_after() -> None:
    layer = nn.Linear(64, 8, bias=False)
    net = nn.Sequential(layer.to_quantized(32, 4))
    net.set_dtype(mx.float16)
    packed = net.layers[0]
    codes = np.array(mx.dequantize(packed.weight, mx.ones((8, 2)), mx.zeros((8, 2)), 32, 4)).astype(
        np.float64
    )
    scales, biases = (np.repeat(np.array(x, dtype=np.float64), 32, 1) for x in (packed.scales, packed.biases))
    models._to_float32(net)
    np.testing.assert_allclose(net.layers[0].weight, codes * scales + biases, rtol=1e-6, atol=1e-7)


def test_an_adapter_is_applied_for_good(saved: Path, tmp_path: Path) -> None:
    base, _ = models.load(saved)
    logits = base(TOKENS)
    adapter = checkpoint(base, tmp_path / "adapter", "lora")
    model, _ = models.load(saved, adapter=adapter)
    assert float(mx.abs(model(TOKENS) - logits).max()) > 0.05
    with models.lora(model, "lora", Settings(), seed=0):  # can be trained further, from its own base
        config = models.adapter_config(model, "lora", Settings(), 0)
    assert config["base_hash"] not in (base.base_hash, None)


def test_the_hash_follows_weights_configuration_and_tokenizer_and_nothing_else(
    saved: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(saved, tmp_path / "elsewhere"))
    first = models.resolve(saved).hash
    (copy / "README.md").write_text("another text")
    (copy / "manifest.json").write_text("{}")
    assert models.resolve(copy).hash == first
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        other = Path(shutil.copytree(saved, tmp_path / f"changed-{name}"))
        content = (other / name).read_bytes()
        (other / name).write_bytes(content[:-2] + b"\n" + content[-2:] if name.endswith("json") else content)
        if not name.endswith("json"):
            weights = tensors(other)
            write(other, {**weights, "model.norm.weight": weights["model.norm.weight"] * 2})
        assert models.resolve(other).hash != first, name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(saved: Path, value: float) -> None:
    weights = tensors(saved)
    name = "model.layers.2.mlp.up_proj.weight"
    broken = np.array(weights[name])
    broken[3, 4] = value
    write(saved, {**weights, name: mx.array(broken)})
    assert f"{name} holds NaN or infinity" in refused(saved, BrokenExperiment)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "model")
    net = tiny.model(vocab=16)
    write(folder, dict(tree_flatten(net.parameters())))
    edit(folder / "config.json", vocab_size=16)
    assert "belongs to another model" in refused(folder, BrokenExperiment)


def test_a_model_beyond_this_machine_is_not_measurable(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "limit", lambda: 1000)
    assert "use a smaller model" in refused(saved, NotMeasurable)
