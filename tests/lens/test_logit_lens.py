"""The lens is the model: last layer = logits, every layer = the model's own unembedding of its own stream."""

from __future__ import annotations

import tracemalloc

import architectures
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny
from lens_case import PROMPTS, SETS, by_hand, same
from mlx.utils import tree_flatten
from scipy.special import log_softmax

from emergence.errors import NotMeasurable
from emergence.lens import logit_lens as lens_module
from emergence.lens.logit_lens import LogitLens


def test_the_last_layer_is_the_models_logits(model: nn.Module, lens: LogitLens) -> None:
    own = np.stack([np.array(model(mx.array([p]))[0, -1]) for p in PROMPTS])
    np.testing.assert_allclose(lens.logits(PROMPTS)[-1], own, atol=1e-5)


def test_every_layer_is_the_unembedding_of_its_own_stream(model: nn.Module, lens: LogitLens) -> None:
    found = lens.logits(PROMPTS)
    for i, prompt in enumerate(PROMPTS):
        np.testing.assert_allclose(found[:, i], by_hand(model, prompt)[:, -1], atol=1e-5)


def test_capture_changes_no_bit_and_is_undone(model: nn.Module, lens: LogitLens) -> None:
    tokens = mx.array([[5, 6, 7]])
    types = [type(b) for b in model.layers]
    before = model(tokens)
    with lens.capture() as streams:
        during = model(tokens)
        assert type(model.layers[0]) is not types[0]
    assert mx.array_equal(before, during)
    assert mx.array_equal(before, model(tokens))
    assert [type(b) for b in model.layers] == types
    assert len(streams) == 5
    assert streams[2].shape == (1, 3, 32)


def test_capture_is_undone_after_an_exception(model: nn.Module, lens: LogitLens) -> None:
    types = [type(m) for m in model.modules()]
    with pytest.raises(ZeroDivisionError), lens.capture():
        raise ZeroDivisionError
    with pytest.raises(ValueError, match="too many values"), lens.capture():
        model(mx.array([[[1, 2], [3, 4]]]))
    assert [type(m) for m in model.modules()] == types


def test_capture_holds_the_latest_pass(model: nn.Module, lens: LogitLens) -> None:
    with lens.capture() as streams:
        model(mx.array([[1, 2, 3, 4]]))
        model(mx.array([[1, 2]]))
    assert len(streams) == 5
    assert streams[0].shape[1] == 2


def test_another_model_of_the_same_type_is_not_observed(model: nn.Module, lens: LogitLens) -> None:
    other = tiny.model(seed=1)
    with lens.capture() as streams:
        other(mx.array([[1, 2, 3]]))
    assert len(streams) == 0


def test_a_loss_on_a_captured_layer_has_the_gradient_of_the_model_cut_there() -> None:
    model = tiny.model(n_layers=3)
    lens = LogitLens(model)
    tokens = mx.array([[5, 6, 7]])

    def by_lens(m: nn.Module) -> mx.array:
        with lens.capture() as streams:
            m(tokens)
        return nn.losses.cross_entropy(lens.unembed(streams[1][:, -1]), mx.array([9])).sum()

    def by_hand(m: nn.Module) -> mx.array:
        h = m.model.embed_tokens(tokens)
        for block in m.layers[:2]:
            h = block(h, "causal")
        logits = m.model.embed_tokens.as_linear(m.model.norm(h))[:, -1]
        return nn.losses.cross_entropy(logits, mx.array([9])).sum()

    found, right = (dict(tree_flatten(nn.value_and_grad(model, f)(model)[1])) for f in (by_lens, by_hand))
    assert found.keys() == right.keys()
    for name in right:
        assert mx.allclose(found[name], right[name], atol=1e-6), name
    assert mx.abs(right["model.layers.1.mlp.up_proj.weight"]).max() > 1e-3


def test_a_reading_is_the_statistics_of_the_logits(model: nn.Module, lens: LogitLens) -> None:
    found = lens.read(PROMPTS, SETS, top_k=3, token_ids=[7, 8])
    log_p = log_softmax(lens.logits(PROMPTS).astype(np.float64), axis=-1)
    np.testing.assert_allclose(
        np.exp(found.log_mass[..., 0]), np.exp(log_p[..., [1, 2, 3]]).sum(-1), atol=1e-6
    )
    np.testing.assert_allclose(found.log_probs, log_p[..., [7, 8]], atol=1e-4)
    np.testing.assert_array_equal(found.top_ids, np.argsort(-log_p, -1)[..., :3])
    np.testing.assert_allclose(found.entropy, -(np.exp(log_p) * log_p).sum(-1), atol=1e-4)
    kl = (np.exp(log_p[-1]) * (log_p[-1] - log_p)).sum(-1)
    np.testing.assert_allclose(found.kl, kl, atol=1e-4)
    previous = (np.exp(log_p[1:]) * (log_p[1:] - log_p[:-1])).sum(-1)
    np.testing.assert_allclose(found.kl_previous[1:], previous, atol=1e-4)
    assert np.isnan(found.kl_previous[0]).all()
    assert found.layers == ("L0", "L1", "L2", "L3", "L4")


@pytest.mark.parametrize("rows", [1, 3, 7])
def test_a_reading_does_not_depend_on_the_memory_it_may_take(
    lens: LogitLens, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = lens.read(PROMPTS, SETS, token_ids=[7])
    monkeypatch.setattr(lens_module, "LOGITS_BYTES", rows * 4 * lens.head_size)
    monkeypatch.setattr(lens_module, "FORWARD_TOKENS", 4)
    same(lens.read(PROMPTS, SETS, token_ids=[7]), whole)


def test_memory_does_not_grow_with_the_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    lens = LogitLens(tiny.model(vocab=20_000))
    monkeypatch.setattr(lens_module, "LOGITS_BYTES", 4_000_000)
    monkeypatch.setattr(lens_module, "FORWARD_TOKENS", 32)
    monkeypatch.setattr("emergence.lens.distribution._THREADS", 1)  # how many peaks coincide is chance

    def peak(prompts: int) -> int:
        tokens = np.random.default_rng(0).integers(0, 20_000, (prompts, 4)).tolist()
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        tracemalloc.start()
        lens.read(tokens, SETS)
        in_numpy = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return mx.get_peak_memory() - before + in_numpy

    few, many = peak(12), peak(120)
    assert many < 1.2 * few
    assert many < 120 * lens.n_layers * lens.head_size * 4 / 2


def test_a_reading_of_some_layers_is_that_part_of_the_whole(lens: LogitLens) -> None:
    whole = lens.read(PROMPTS, SETS)
    part = lens.read(PROMPTS, SETS, layers=[3, "L1", -1])
    assert part.layers == ("L3", "L1", "L4")
    for name in ("log_mass", "entropy", "kl", "kl_previous", "top_ids"):
        np.testing.assert_allclose(getattr(part, name), getattr(whole, name)[[3, 1, 4]], atol=1e-5)


def test_every_position_reads_as_the_prompt_that_ends_there(lens: LogitLens) -> None:
    found = lens.read(PROMPTS, SETS, positions="all")
    assert found.entropy.shape == (5, 5, 5)
    for i, prompt in enumerate(PROMPTS):
        for k in range(len(prompt)):
            alone = lens.read([prompt[: k + 1]], SETS)
            np.testing.assert_allclose(found.log_mass[:, i, k], alone.log_mass[:, 0], atol=1e-4)
            np.testing.assert_allclose(found.kl[:, i, k], alone.kl[:, 0], atol=1e-4)
        assert np.isnan(found.entropy[:, i, len(prompt) :]).all()
        assert (found.top_ids[:, i, len(prompt) :] == -1).all()


def test_positions_are_one_a_list_or_counted_from_the_end(lens: LogitLens) -> None:
    every = lens.read(PROMPTS[:1], SETS, positions="all")
    close(lens.read(PROMPTS[:1], SETS, positions=[2, -4]).entropy, every.entropy[:, :, [2, 0]])
    close(lens.read(PROMPTS[:1], SETS, positions=1).entropy, every.entropy[:, :, 1])
    close(lens.read(PROMPTS[:1], SETS, positions=-1).entropy, lens.read(PROMPTS[:1], SETS).entropy)


def test_the_embedding_row_is_the_unembedding_of_the_embedding(model: nn.Module, lens: LogitLens) -> None:
    found = lens.logits([[5, 6, 7]], layers=["embedding"])[0, 0]
    embedding = model.model.embed_tokens(mx.array([7]))
    np.testing.assert_allclose(found, lens.unembed(embedding)[0], atol=1e-5)
    reading = lens.read([[5, 6, 7]], layers=["embedding", 0, 1])
    assert np.isnan(reading.kl_previous[0]).all()
    assert (reading.kl_previous[1:] > 0).all()


def test_the_stream_after_attention_is_read_where_it_is(model: nn.Module, lens: LogitLens) -> None:
    found = lens.streams([[5, 6, 7]], layers=["L0.attn"])[0, 0]
    h, block = model.model.embed_tokens(mx.array([[5, 6, 7]])), model.layers[0]
    right = h + block.self_attn(block.input_layernorm(h), "causal")
    np.testing.assert_allclose(found, right[0, -1], atol=1e-5)


@pytest.mark.parametrize("name", ["cohere", "phi", "mamba", "gemma3n"])
def test_a_block_without_a_stream_after_attention_is_refused(name: str) -> None:
    with pytest.raises(NotMeasurable, match=rf"{name}.*L1\.attn"):
        LogitLens(architectures.build(name)).logits([[1, 2]], layers=["L1.attn"])


def test_each_pass_of_a_loop_is_a_layer() -> None:
    for name in ("nanbeige", "iquestloopcoder"):
        lens = LogitLens(architectures.build(name))
        assert lens.n_layers == 8
        found = lens.logits([[3, 1, 4]])
        assert len({row.tobytes() for row in found[:, 0]}) == 8


def close(found: np.ndarray, right: np.ndarray) -> None:
    np.testing.assert_allclose(found, right, atol=1e-4)
