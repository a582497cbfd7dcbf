"""Tensors: every one that is stored is used, or known to add nothing, or named."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import tiny
from model_folders import TOKENS, edit, refused, tensors, write
from safetensors.numpy import save_file

from emergence.errors import BrokenExperiment, NotMeasurable
from emergence.models import loading as models
from emergence.models import tensors as stored
from emergence.models.weights import readable


def head(saved: Path, scale: float = 1.0) -> mx.array:
    """A head of its own, or the embedding where `scale` is 0."""
    table = tensors(saved)["model.embed_tokens.weight"]
    return table + scale * mx.random.normal(table.shape, key=mx.random.key(9))


# A head beside the embedding


@pytest.mark.parametrize("said", [True, False, None])
def test_a_head_that_is_stored_is_used_whatever_the_configuration_says(
    saved: Path, said: bool | None
) -> None:
    own = head(saved)
    write(saved, {**tensors(saved), "lm_head.weight": own})
    config = json.loads((saved / "config.json").read_text())
    config.pop("tie_word_embeddings")
    (saved / "config.json").write_text(
        json.dumps(config | ({} if said is None else {"tie_word_embeddings": said}))
    )
    model, _ = models.load(saved)
    hidden = tiny.model().model(TOKENS)
    np.testing.assert_allclose(model(TOKENS), hidden @ own.T, atol=1e-4)
    assert float(mx.abs(model(TOKENS) - tiny.model()(TOKENS)).max()) > 0.5


def test_the_embedding_once_more_is_no_head_of_its_own(saved: Path) -> None:
    write(saved, {**tensors(saved), "lm_head.weight": head(saved, 0.0)})
    np.testing.assert_allclose(models.load(saved)[0](TOKENS), tiny.model()(TOKENS), atol=1e-5)


def test_no_head_at_all_is_a_tied_one_unless_the_configuration_says_otherwise(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    config.pop("tie_word_embeddings")
    (saved / "config.json").write_text(json.dumps(config))
    np.testing.assert_allclose(models.load(saved)[0](TOKENS), tiny.model()(TOKENS), atol=1e-5)
    edit(saved / "config.json", tie_word_embeddings=False)
    assert "lm_head.weight" in refused(saved, BrokenExperiment)


# Tensors that nothing takes


def test_constants_of_older_files_are_left_out(saved: Path) -> None:
    extra = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": mx.ones((4,)) for i in range(4)}
    write(saved, {**tensors(saved), **extra})
    np.testing.assert_allclose(models.load(saved)[0](TOKENS), tiny.model()(TOKENS), atol=1e-5)


@pytest.mark.parametrize(
    "name", ["model.layers.1.mlp.extra.weight", "model.layers.9.mlp.up_proj.weight", "score.weight"]
)
def test_a_tensor_that_nothing_takes_is_named(saved: Path, name: str) -> None:
    write(saved, {**tensors(saved), name: mx.ones((3, 3))})
    assert name in refused(saved, BrokenExperiment)


def pairs(*names: str) -> dict[str, mx.array]:
    return {name: mx.full((2, 3), i) for i, name in enumerate(names)}


def test_what_a_renaming_drops_is_found_whatever_it_does() -> None:
    """One renaming drops by name, stacks experts, splits a matrix and renames; three numbers tell them
    apart.
    """
    given = pairs("a.0.x", "a.1.x", "a.0.gone", "b.w", "c.w", "gone.too", "a.inv_freq")

    def renaming(tensors: dict[str, mx.array]) -> dict[str, mx.array]:
        left, right = tensors["c.w"][:1], tensors["c.w"][1:]
        return {
            "a": mx.stack([tensors["a.0.x"], tensors["a.1.x"]]),
            "d": tensors["b.w"],
            "l": left,
            "r": right,
        }

    assert stored.unused(given, renaming(given), renaming, None) == ["gone.too"]
    given.pop("gone.too")
    assert stored.unused(given, renaming(given), renaming, None) == ["a.0.gone"]
    given.pop("a.0.gone")
    assert stored.unused(given, renaming(given), renaming, None) == []


def test_layers_for_drafting_and_images_are_left_out() -> None:
    given = pairs("model.layers.0.w", "model.layers.1.w", "model.layers.2.w", "vision_tower.w", "model.mtp.w")

    def renaming(tensors: dict[str, mx.array]) -> dict[str, mx.array]:
        return {k: v for k, v in tensors.items() if "layers.0" in k or "layers.1" in k}

    assert stored.unused(given, renaming(given), renaming, layers=2) == []
    assert stored.unused(given, renaming(given), renaming, layers=3) == ["model.layers.2.w"]


# Names with and without their first part


@pytest.mark.parametrize("prefix", ["", "model."])
def test_names_are_read_with_and_without_their_first_part(tmp_path: Path, prefix: str) -> None:
    """transformers saves a base model without the part that a whole one's names begin with, and reads
    either.
    """
    folder = tiny.write_model(tmp_path / "model")
    write(folder, {prefix + name.removeprefix("model."): t for name, t in tensors(folder).items()})
    np.testing.assert_allclose(models.load(folder)[0](TOKENS), tiny.model()(TOKENS), atol=1e-5)


# Whole numbers


@pytest.mark.parametrize(
    "name", ["model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight", "model.norm.weight"]
)
@pytest.mark.parametrize("dtype", [mx.uint8, mx.int8, mx.int32], ids=str)
def test_whole_numbers_where_weights_belong_are_refused_by_name(
    saved: Path, name: str, dtype: mx.Dtype
) -> None:
    weights = tensors(saved)
    write(saved, {**weights, name: (weights[name] * 100).astype(dtype)})
    said = refused(saved, NotMeasurable)
    assert name in said
    assert {mx.uint8: "U8", mx.int8: "I8", mx.int32: "I32"}[dtype] in said


def test_fp8_without_its_scales_is_refused_by_its_own_name(saved: Path) -> None:
    """mlx reads F8_E4M3 as bytes: written by hand, as numpy has no such type."""
    weights = {k: np.array(v) for k, v in tensors(saved).items()}
    name = "model.layers.0.self_attn.q_proj.weight"
    weights[name] = (np.abs(weights[name]) * 100).astype(np.uint8)
    path = saved / "model.safetensors"
    save_file(weights, path)
    content = path.read_bytes()
    assert content.count(b'"U8"') == 1
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].replace(b'"U8"', b'"F8_E4M3"')
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    said = refused(saved, NotMeasurable)
    assert f"{name} holds F8_E4M3" in said


# What is said


def test_lists_of_misfits_name_the_first_and_count_the_rest() -> None:
    message = "Received 5 parameters not in model: \na.weight,\nb.weight,\nc.weight,\nd.weight,\ne.weight."
    said = readable(ValueError(message))
    assert (
        said
        == "the files hold a.weight, b.weight, c.weight and 2 more, which the configured model does not have"
    )
    said = readable(ValueError("Missing 1 parameters: \nlm_head.weight."))
    assert said == "config.json asks for lm_head.weight, which the files do not hold"


def test_no_list_of_names_is_cut_off(saved: Path) -> None:
    write(
        saved, {**tensors(saved), **{f"model.layers.{i}.mlp.up_proj.bias": mx.ones((64,)) for i in range(4)}}
    )
    edit(saved / "config.json", num_hidden_layers=2)
    said = refused(saved, BrokenExperiment)
    assert not said.rstrip().endswith(":")
    assert "model.layers.0.mlp.up_proj.bias" in said
