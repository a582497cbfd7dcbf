"""The unembedding: the model's own, whole or by parts of the vocabulary, and put back afterwards."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import architectures
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny
from lens_case import PROMPTS, SETS, same
from mlx.utils import tree_flatten
from mlx_lm.tuner.lora import LoRAEmbedding
from scipy.special import log_softmax

from emergence.errors import NotMeasurable, UsageError
from emergence.lens import logit_lens as lens_module
from emergence.lens.hooks import observed
from emergence.lens.logit_lens import LogitLens
from emergence.lens.residual import ResidualStream
from emergence.lens.unembed import Unembedding


def test_the_unembedding_ignores_the_size_of_the_stream(lens: LogitLens) -> None:
    hidden = mx.random.normal((3, 32), key=mx.random.key(0)) * 10
    np.testing.assert_allclose(lens.unembed(hidden * 7), lens.unembed(hidden), atol=1e-4)


def test_the_unembedding_calls_no_block_where_it_is_the_same_without(
    model: nn.Module, lens: LogitLens, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, calls = mx.random.normal((3, 32), key=mx.random.key(1)), []

    def counted(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        calls.append(1)
        return call(*args, **kwargs)

    with observed([(block.mlp, counted) for block in model.layers]):
        quick = lens.unembed(hidden)
        assert not calls
        monkeypatch.setattr(lens.stream, "_skips_blocks", False)
        assert mx.array_equal(lens.unembed(hidden), quick)
        assert len(calls) == lens.n_layers


def test_a_head_that_cannot_be_cut_is_read_whole() -> None:
    model = tiny.model()
    lens = LogitLens(model)
    before, head = lens.read(PROMPTS, SETS), model.model.embed_tokens
    assert lens.unembedding.in_parts()
    model.model.embed_tokens = LoRAEmbedding.from_base(head, r=2)
    assert not lens.unembedding.in_parts()
    same(lens.read(PROMPTS, SETS), before)
    model.model.embed_tokens = head
    with suppress(InterruptedError), lens.unembedding.only(slice(0, 3)):
        assert model(mx.array([[1, 2]])).shape[-1] == 3
        raise InterruptedError
    assert model.model.embed_tokens["weight"] is head["weight"]
    assert model(mx.array([[1, 2]])).shape[-1] == lens.head_size


def test_logits_that_depend_on_one_another_are_read_whole() -> None:
    model = tiny.model()
    plain = type(model).__call__

    class Normalised(type(model)):  # type: ignore[misc]
        def __call__(self, *args: Any, **kwargs: Any) -> mx.array:
            return nn.log_softmax(plain(self, *args, **kwargs))

    model.__class__ = Normalised
    lens = LogitLens(model)
    assert not lens.unembedding.in_parts()
    np.testing.assert_allclose(
        np.exp(lens.read(PROMPTS, {"all": range(lens.head_size)}).log_mass), 1, atol=1e-5
    )


CUT = ["llama", "gemma2", "cohere", "granite", "minicpm", "phi"]


@pytest.mark.parametrize("name", CUT)
def test_a_reading_by_parts_of_the_vocabulary_is_that_of_the_whole(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tied and untied heads, one with bias, soft-caps and logit scales: all is the model's own."""
    model = architectures.build(name)
    lens = LogitLens(model)
    weights = dict(tree_flatten(model.parameters()))
    assert lens.unembedding.in_parts()
    prompts = [[3, 1, 4], [1, 5, 9]]
    with monkeypatch.context() as patch:
        patch.setattr(Unembedding, "in_parts", lambda self: False)
        whole = lens.read(prompts, SETS)
    monkeypatch.setattr(lens_module, "LOGITS_BYTES", 4 * 17 * len(prompts) * lens.n_layers)
    widths, real = [], ResidualStream.unembed

    def unembed(self: ResidualStream, state: Any) -> mx.array:
        logits = real(self, state)
        widths.append(logits.shape[-1])
        return logits

    monkeypatch.setattr(ResidualStream, "unembed", unembed)
    same(lens.read(prompts, SETS), whole)
    assert widths == [17, 17, 17, 10]
    assert all(dict(tree_flatten(model.parameters()))[n] is w for n, w in weights.items())


@pytest.mark.parametrize("name", ["gemma3n", "deepseek_v41", "kimi_k3"])
def test_logits_of_several_streams_are_read_and_the_one_stream_is_refused(name: str) -> None:
    model = architectures.build(name)
    lens = LogitLens(model)
    found = lens.read([[3, 1, 4], [1, 5], [9, 2, 6]], SETS, positions="all")
    log_p = log_softmax(np.array(model(mx.array([[3, 1, 4]]))[0]), axis=-1)
    np.testing.assert_allclose(found.top_log_probs[-1, 0, :, 0], log_p.max(-1), atol=1e-4)
    for call in (lambda: lens.streams([[1, 2]]), lambda: lens.unembed(mx.zeros((1, 32)))):
        with pytest.raises(NotMeasurable, match=rf"{name}.*more than one stream"):
            call()


def test_padded_rows_of_the_head_are_left_out_and_said_so(model: nn.Module) -> None:
    lens = LogitLens(model, vocab_size=300)
    found = lens.read(PROMPTS, {"all": range(300)})
    np.testing.assert_allclose(found.log_mass, 0, atol=1e-5)
    assert found.left_out == lens.head_size - 300
    assert "padded ids left out" in repr(found)
    with pytest.raises(UsageError, match="vocabulary of 300"):
        lens.read(PROMPTS, {"add": [301]})
