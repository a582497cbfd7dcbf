"""A change of the stream is what everything after it is computed from, and nothing stays of it."""

from __future__ import annotations

from collections.abc import Iterator

import architectures
import mlx.core as mx
import numpy as np
import pytest
import tiny

from emergence.errors import NotMeasurable, UsageError
from emergence.interventions import replace
from emergence.lens.edits import Edit
from emergence.lens.logit_lens import LogitLens

BASE, SOURCE = (
    [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3], [5, 8, 9, 7, 9]],
    [[2, 7, 1, 8, 2], [1, 4, 1, 4, 2], [3, 1, 6, 2, 2]],
)
OFTEN = [
    "llama",
    "gemma2",
    "gpt2",
    "mamba",
    "qwen3_moe",
    "phi3",
    "cohere",
    "gpt_oss",
    "gemma3n",
    "recurrent_gemma",
]
"""Families of every kind; `-m slow` takes all that the lens serves."""
REFUSED = {
    "afm7", "deepseek_v41", "gemma3n", "gemma4", "gemma4_text", "hunyuan", "iquestloopcoder", "kimi_k3",
    "nanbeige", "rwkv7", "talkie",
}  # fmt: skip
"""More than one stream goes from block to block, or keys and values of one block are used by another."""


@pytest.fixture(autouse=True, scope="module")
def _no_compiler() -> Iterator[None]:
    mx.disable_compile()
    yield
    mx.enable_compile()


@pytest.fixture(scope="module")
def lens() -> LogitLens:
    return LogitLens(tiny.model())


def identities(lens: LogitLens) -> None:
    """Three that hold to the last bit, or the family is refused by name."""
    own, other = lens.logits(BASE), lens.logits(SOURCE)
    layers = sorted({0, lens.n_layers // 2, lens.n_layers - 1})
    mine = lens.streams(BASE, layers, "all")
    theirs = lens.streams(SOURCE, layers, "all")
    for i, layer in enumerate(layers):
        with lens.patched([Edit(layer, -1, replace(mine[i, :, -1]))]):
            assert np.array_equal(lens.logits(BASE), own), f"{layer}: a patch by itself"
        with lens.patched([Edit(layer, "all", replace(theirs[i]))]):
            assert np.array_equal(lens.logits(BASE)[-1], other[-1]), f"{layer}: all positions"
    with lens.patched([Edit(-1, -1, replace(theirs[-1][:, -1]))]):
        assert np.array_equal(lens.logits(BASE)[-1], other[-1]), (
            "the last layer's patch is the other's logits"
        )
    assert np.array_equal(lens.logits(BASE), own), "nothing stays"


def served(name: str) -> LogitLens:
    try:
        return LogitLens(architectures.build(name))
    except (NotMeasurable, ImportError, SystemExit) as refused:
        pytest.skip(f"the lens does not serve it: {refused}")


def check(name: str) -> None:
    lens = served(name)
    if name not in REFUSED:
        identities(lens)
        return
    with pytest.raises(NotMeasurable, match=name):
        identities(lens)


@pytest.mark.parametrize("name", [name for name in OFTEN if name in architectures.types()])
def test_the_identities_hold_to_the_last_bit_or_the_family_is_refused_by_name(name: str) -> None:
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", architectures.types())
def test_they_do_for_every_family(name: str) -> None:
    check(name)


def test_what_comes_before_a_change_is_as_it_was_and_what_comes_after_is_not(lens: LogitLens) -> None:
    own = lens.logits(BASE)
    with lens.patched([Edit("L1", -2, replace(np.ones((3, 32), np.float32)))]):
        changed = lens.logits(BASE)
    assert np.array_equal(changed[:2], own[:2]), (
        "L1 is changed at another position: the last one reads the same"
    )
    assert not np.array_equal(changed[2], own[2])


def test_the_lens_sees_the_changed_stream_and_the_model_goes_on_from_it(lens: LogitLens) -> None:
    vectors = np.random.default_rng(0).standard_normal((3, 32)).astype(np.float32)
    with lens.patched([Edit(1, -1, replace(vectors))]):
        assert np.array_equal(lens.streams(BASE, [1])[0], vectors)
        found = lens.logits(BASE)[-1]
    ids = mx.array(BASE)
    h = lens.model.model.embed_tokens(ids)
    mask = mx.triu(mx.full((5, 5), -1e9), k=1)
    for i, block in enumerate(lens.model.layers):
        h = block(h, mask)
        if i == 1:
            h = mx.concatenate([h[:, :-1], mx.array(vectors)[:, None]], axis=1)
    by_hand = lens.model.model.embed_tokens.as_linear(lens.model.model.norm(h))[:, -1]
    assert np.allclose(found, np.array(by_hand), atol=1e-4)


def test_prompts_of_several_lengths_get_their_own_vectors(lens: LogitLens) -> None:
    ragged = [[3, 1, 4], [9, 2, 6, 5, 3], [5, 8], [2, 7, 1]]
    vectors = np.arange(4, dtype=np.float32)[:, None] * np.ones((1, 32), np.float32)
    with lens.patched([Edit(2, -1, replace(vectors))]):
        assert np.array_equal(lens.streams(ragged, [2])[0], vectors)


def test_edits_nest_and_go_with_their_with(lens: LogitLens) -> None:
    own = lens.logits(BASE)

    def shift(by: float) -> Edit:
        return Edit(1, -1, lambda stream, prompts: stream + by)

    with lens.patched([shift(1.0)]):
        once = lens.streams(BASE, [1])
        with lens.patched([shift(2.0), shift(3.0)]):
            assert np.allclose(lens.streams(BASE, [1]), once + 5.0, atol=1e-5)
        assert np.array_equal(lens.streams(BASE, [1]), once)
    with pytest.raises(RuntimeError), lens.patched([shift(1.0)]):
        raise RuntimeError
    assert np.array_equal(lens.logits(BASE), own)


def test_an_edit_before_the_first_block_and_one_after_it_are_both_made(lens: LogitLens) -> None:
    vectors = np.ones((3, 32), np.float32)
    with lens.patched([Edit("embedding", -1, replace(vectors)), Edit(0, 0, replace(2 * vectors))]):
        first = lens.streams(BASE, [0], "all")[0]
        assert np.array_equal(first[:, 0], 2 * vectors)
        before = lens.streams(BASE, ["embedding"])[0]
    with lens.patched([Edit("embedding", -1, replace(vectors))]):
        assert np.array_equal(lens.streams(BASE, [0], "all")[0][:, -1], first[:, -1])
    assert before.shape == vectors.shape


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Edit(9, -1, replace(np.ones((3, 32)))), "9"),
        (Edit("L1.attn", -1, replace(np.ones((3, 32)))), "edits are made after a block; name L1"),
        (Edit(1, "last", replace(np.ones((3, 32)))), "position='last': give a number, or 'all'"),
        (Edit(1, 7, replace(np.ones((3, 32)))), "prompt 0 has 5 tokens"),
        (Edit(1, -1, replace(np.ones((2, 32)))), "2 vectors for 3 prompts; give one a prompt"),
        (Edit(1, -1, replace(np.ones((3, 8)))), r"vectors of shape \(3, 8\): one of 32 numbers a prompt"),
    ],
    ids=["layer", "midpoint", "word", "beyond", "few", "narrow"],
)
def test_what_cannot_be_meant_is_told_in_one_line(lens: LogitLens, edit: Edit, message: str) -> None:
    own = lens.logits(BASE)
    with pytest.raises(UsageError, match=message), lens.patched([edit]):
        lens.logits(BASE)
    assert np.array_equal(lens.logits(BASE), own)
