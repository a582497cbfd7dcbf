"""The rest of a pass says what a whole pass with the same change says, in every family, or it is refused."""

from __future__ import annotations

from typing import Any

import architectures
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from emergence.errors import BrokenExperiment, NotMeasurable
from emergence.interventions import last_token
from emergence.interventions.last_token import LastToken
from emergence.interventions.rules import replace
from emergence.lens.edits import Edit, settled
from emergence.lens.logit_lens import LogitLens

PROMPTS = [
    [3, 1, 4, 1, 5, 9, 2],
    [9, 2, 6, 5, 3, 5, 8],
    [5, 8, 9, 7, 9, 3, 2],
    [2, 7, 1, 8, 2],
    [6, 6, 2, 6, 1],
]
WHOLE = {"gemma3_text": False, "gpt_oss": False, "lfm2": False, "mamba": False}
"""Families that keep more than keys and values: windows that turn, convolutions, states."""
OFTEN = {"qwen3": True, "gemma2": True, "cohere": True, "gpt2": True, **WHOLE}
"""With whether a pass may begin at the last token."""


def agrees(lens: LogitLens, within: float = 1e-5) -> LastToken:
    """Another prompt's stream at every prompt's end, against whole passes of the lens with the same edit."""
    rest, others = LastToken(lens, PROMPTS), np.roll(lens.streams(PROMPTS, [1])[0], 1, axis=0)
    tokens = np.tile(np.arange(lens.vocab_size), (len(PROMPTS), 1))
    plain = lens.logits(PROMPTS, [-1])[0][:, : lens.vocab_size]
    with lens.patched([Edit(1, -1, replace(others))]):
        wanted = lens.logits(PROMPTS, [-1])[0][:, : lens.vocab_size]
    said = np.isfinite(wanted)
    size = np.abs(wanted[said]).max()
    assert np.abs(plain[said] - wanted[said]).max() > 10 * within * size, "the change does nothing"
    assert np.allclose(rest.logits(tokens, 1, others), wanted, rtol=0, atol=within * size)
    assert np.allclose(rest.logits(tokens), plain, rtol=0, atol=within * size)
    return rest


@pytest.mark.parametrize("name", OFTEN)
def test_a_change_at_the_last_token_is_that_of_a_whole_pass(name: str) -> None:
    rest = agrees(LogitLens(architectures.build(name)))
    assert {batch.cache is not None for batch in rest._batches} == {OFTEN[name]}


@pytest.mark.parametrize("name", ["gemma3n", "rwkv7"])
def test_a_family_whose_stream_cannot_be_changed_is_refused_by_name(name: str) -> None:
    with pytest.raises(NotMeasurable, match=name):
        LastToken(LogitLens(architectures.build(name)), PROMPTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", architectures.types())
def test_it_is_in_every_family_or_the_family_is_refused_by_name(name: str) -> None:
    try:
        lens = LogitLens(architectures.build(name))
    except (NotMeasurable, ImportError, SystemExit) as refused:
        pytest.skip(f"the lens does not serve it: {refused}")
    try:
        settled(lens.stream, [Edit(0, -1, lambda stream, prompts: stream)])
    except NotMeasurable:
        with pytest.raises(NotMeasurable, match=name):
            LastToken(lens, PROMPTS)
    else:
        agrees(lens)


def _halved(model: nn.Module, dtype: mx.Dtype, bits: int) -> LogitLens:
    if bits:

        def whole_groups(path: str, module: Any) -> bool:
            return hasattr(module, "to_quantized") and module.weight.shape[-1] % 32 == 0

        nn.quantize(model, group_size=32, bits=bits, class_predicate=whole_groups)
    model.set_dtype(dtype)
    return LogitLens(model)


@pytest.mark.parametrize(
    ("dtype", "bits"), [(mx.bfloat16, 0), (mx.float16, 0), (mx.float32, 4), (mx.bfloat16, 8)], ids=str
)
def test_the_controls_hold_in_half_precision_and_of_quantised_weights(dtype: mx.Dtype, bits: int) -> None:
    """The lens unembeds in float32 what such a model rounds: held against it, half precision would fail."""
    agrees(_halved(architectures.build("qwen3"), dtype, bits), within=1e-5 if dtype == mx.float32 else 0.02)


@pytest.mark.parametrize(
    ("layer", "says"), [(1, "in place of itself at L1"), (3, "after the last block does not make")]
)
def test_a_change_that_goes_astray_ends_it(monkeypatch: pytest.MonkeyPatch, layer: int, says: str) -> None:
    def astray(stream, edits, batch):
        moved = {at: [Edit(at, -1, lambda h, prompts: h + 1.0)] for at in edits if at == layer}
        return changing(stream, {**edits, **moved}, batch)

    changing = last_token.changing
    monkeypatch.setattr(last_token, "changing", astray)
    with pytest.raises(BrokenExperiment, match=says):
        LastToken(LogitLens(architectures.build("qwen3")), PROMPTS)


def test_what_is_begun_at_the_last_token_is_given_up_where_it_says_something_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forgets(model: nn.Module, tokens: mx.array) -> Any:
        return kept(model, mx.zeros_like(tokens))

    kept = last_token._keys_and_values
    monkeypatch.setattr(last_token, "_keys_and_values", forgets)
    assert all(batch.cache is None for batch in agrees(LogitLens(architectures.build("qwen3")))._batches)
