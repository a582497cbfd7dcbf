"""What a GPU would run, run on MLX's CPU device: equal to NumPy, one evaluation a block, bounded memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import architectures
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny
from lens_case import PROMPTS, SETS, same

from emergence.lens import distribution, distribution_gpu
from emergence.lens import logit_lens as lens_module
from emergence.lens.hooks import observed
from emergence.lens.logit_lens import LogitLens

TOKENS = [7, 250, 40]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 3 places and of a part of the vocabulary."""
    monkeypatch.setattr(lens_module, "ROWS", 15)
    monkeypatch.setattr(lens_module, "LOGITS_BYTES", 4 * 15 * 90)


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The readout that a GPU gets."""
    with monkeypatch.context() as changed:
        changed.setattr(distribution, "on_cpu", distribution_gpu.on_gpu)
        yield


def quantised() -> nn.Module:
    model = tiny.model()
    nn.quantize(model, group_size=32, bits=8)
    return model


@pytest.mark.parametrize("name", ["llama", "quantised", "gemma2", "gpt_oss", "gemma3n"])
def test_the_readout_of_a_gpu_equals_that_of_numpy(
    name: str, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {"llama": tiny.model, "quantised": quantised}.get(name, lambda: architectures.build(name))
    lens = LogitLens(made())
    tokens = [i for i in TOKENS if i < lens.vocab_size]
    numpy = lens.read(PROMPTS, SETS, token_ids=tokens, positions="all")
    monkeypatch.setattr(distribution, "on_cpu", distribution_gpu.on_gpu)
    same(lens.read(PROMPTS, SETS, token_ids=tokens, positions="all"), numpy)
    assert lens.unembedding.in_parts() == (name != "gemma3n"), "the others are cut"


def test_a_pass_and_a_block_are_one_evaluation_each_whatever_the_layers(
    on_gpu: None, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = mx.eval, []
    monkeypatch.setattr(mx, "eval", lambda *given: calls.append(1) or plain(*given))

    def evaluations(n_layers: int) -> int:
        lens = LogitLens(tiny.model(n_layers=n_layers, vocab=300))
        assert lens.unembedding.in_parts()
        monkeypatch.setattr(lens_module, "ROWS", 3 * n_layers)
        monkeypatch.setattr(lens_module, "LOGITS_BYTES", 4 * 3 * n_layers * 100)
        calls.clear()
        lens.read([[5, 6, 7, 8]] * 6, SETS)
        return len(calls)

    assert evaluations(4) == evaluations(12) == 1 + 2 * 3  # a pass; 2 × 3 places, 3 × 100 tokens


@pytest.mark.parametrize("n_layers", [4, 40])
def test_a_block_asks_for_no_value_and_its_graph_has_as_many_operations_for_any_layers(
    n_layers: int, tmp_path: Path
) -> None:
    wanted = distribution.Wanted(300, (np.array([3, 150]),), np.array([7]), 5)
    before = np.arange(n_layers) - 1

    def block(z: mx.array, own: mx.array) -> Any:
        sums = distribution_gpu._nothing(z, wanted)
        return tuple(distribution_gpu._added(sums, z, 0, own, wanted, before))

    z, own = mx.random.normal((n_layers, 2, 300), key=mx.random.key(0)), mx.zeros((n_layers, 2, 1))
    drawn = io.StringIO()
    mx.export_to_dot(drawn, *block(z, own))
    operations = drawn.getvalue().count("[label")
    assert operations < 120, operations
    mx.export_function(str(tmp_path / "block"), block, z, own)  # raises where something needs a value
    for found, right in zip(mx.import_function(str(tmp_path / "block"))(z, own), block(z, own), strict=True):
        assert mx.array_equal(found, right, equal_nan=True)


def test_the_readout_holds_no_more_than_its_blocks_of_logits(
    on_gpu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lens = LogitLens(tiny.model(vocab=8_000))
    assert lens.unembedding.in_parts()
    size = 4 * 64 * 2_000
    monkeypatch.setattr(lens_module, "LOGITS_BYTES", size)
    monkeypatch.setattr(lens_module, "ROWS", 64)

    def peak(prompts: int) -> int:
        tokens = np.random.default_rng(0).integers(0, 8_000, (prompts, 2)).tolist()
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        lens.read(tokens, SETS, token_ids=[5, 7_000], top_k=100)
        return mx.get_peak_memory() - before

    few, many = peak(16), peak(96)
    assert few > 4 * size, "the peak is that of the readout"
    assert many < distribution_gpu.COPIES * size < 4 * 96 * lens.n_layers * 8_000 / 1.5
    assert many < 1.1 * few


def test_a_quantised_head_is_cut_and_stays_quantised(on_gpu: None, small_blocks: None) -> None:
    model = quantised()
    lens, head = LogitLens(model), model.model.embed_tokens
    assert lens.unembedding.in_parts()
    whole, seen, as_linear = head.weight, set(), type(head).as_linear

    def noted(self: Any, x: mx.array) -> mx.array:
        seen.add((self.weight.dtype, len(self.weight)))
        return as_linear(self, x)

    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(type(head), "as_linear", noted)
        lens.read(PROMPTS, SETS, layers=[0, 1], kl=False)  # so the model's own logits are not asked for
    assert {dtype for dtype, _ in seen} == {mx.uint32}
    assert min(rows for _, rows in seen) < lens.head_size / 2
    assert head.weight is whole


# What is asked for decides the cost


def test_without_kl_the_model_runs_up_to_the_last_layer_asked_for(lens: LogitLens) -> None:
    calls: list[int] = []
    lens.read(PROMPTS[:1], layers=["L1.attn"])  # looks once for where attention ends, and for the head

    def counted(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        calls.append(1)
        return call(*args, **kwargs)

    with observed([(block.mlp, counted) for block in lens.model.layers]):
        for reads, blocks in (
            (lambda: lens.read(PROMPTS[:1], SETS, layers=["L1"], kl=False), 2),
            (lambda: lens.read(PROMPTS[:1], SETS, layers=["L1.attn", "embedding"], kl=False), 2),
            (lambda: lens.read(PROMPTS[:1], SETS, layers=["L1"]), 5),
            (lambda: lens.logits(PROMPTS[:1], layers=[0, 2]), 3),
            (lambda: lens.streams(PROMPTS[:1], layers=[3]), 4),
        ):
            calls.clear()
            reads()
            assert len(calls) == blocks


@pytest.mark.parametrize("name", ["llama", "gemma3n", "mamba", "iquestloopcoder", "gpt_oss"])
def test_what_is_left_out_changes_nothing_of_the_rest(name: str) -> None:
    lens = LogitLens(architectures.build(name))
    whole = lens.read(PROMPTS, SETS)
    for layers in (None, [0], [1, 0]):
        part = lens.read(PROMPTS, SETS, top_k=0, kl=False, layers=layers)
        rows = [whole.layers.index(layer) for layer in part.layers]
        for field in ("log_mass", "entropy"):
            np.testing.assert_allclose(getattr(part, field), getattr(whole, field)[rows], atol=1e-5)
        assert part.top_ids.shape == (len(rows), len(PROMPTS), 0)
        assert np.isnan(part.kl).all()
        assert np.isnan(part.kl_previous).all()
