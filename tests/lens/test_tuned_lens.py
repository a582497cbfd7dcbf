"""The tuned lens: nearer the output than the logit lens on text it has not seen, and bound to its weights."""

from __future__ import annotations

from pathlib import Path

import architectures
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny

from emergence.backend.weights import weights_hash
from emergence.errors import NotMeasurable, UsageError
from emergence.lens.logit_lens import LogitLens
from emergence.lens.tuned_lens import TunedLens

RNG = np.random.default_rng(0)
TEXT = [RNG.integers(0, 366, n).tolist() for n in (9, 12, 9, 16, 5, 20, 12, 9)]
UNSEEN = [RNG.integers(0, 366, 10).tolist() for _ in range(8)]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return tiny.model(n_layers=3)


@pytest.fixture(scope="module")
def tuned(model: nn.Module) -> TunedLens:
    return TunedLens.fit(LogitLens(model), TEXT, steps=30, learning_rate=5e-3, rows=48)


def test_it_is_nearer_the_output_at_every_layer_on_unseen_text(model: nn.Module, tuned: TunedLens) -> None:
    before = LogitLens(model).read(UNSEEN, positions="all").kl.mean((1, 2))
    after = tuned.read(UNSEEN, positions="all").kl.mean((1, 2))
    assert (after[:-1] < 0.9 * before[:-1]).all(), (before, after)
    np.testing.assert_allclose(after[-1], before[-1], atol=1e-6)


def test_translators_of_zero_are_the_logit_lens(model: nn.Module) -> None:
    zero = TunedLens(model, mx.zeros((2, 32, 32)), mx.zeros((2, 32)), weights_hash(model))
    np.testing.assert_array_equal(zero.logits(UNSEEN), LogitLens(model).logits(UNSEEN))


def test_a_layer_reads_as_its_translated_stream_unembedded(model: nn.Module, tuned: TunedLens) -> None:
    lens = LogitLens(model)
    h = lens.streams(UNSEEN, layers=[1])[0].astype(np.float64)
    moved = h + h @ np.array(tuned.weight[1]).T.astype(np.float64) + np.array(tuned.bias[1])
    right = lens.unembed(mx.array(moved.astype(np.float32)))
    np.testing.assert_allclose(tuned.logits(UNSEEN, layers=[1])[0], right, atol=1e-4)


def test_the_same_seed_and_text_give_the_same_lens(model: nn.Module) -> None:
    a, b = (TunedLens.fit(LogitLens(model), TEXT, steps=2, rows=16) for _ in range(2))
    assert mx.array_equal(a.weight, b.weight)
    assert not mx.array_equal(a.weight, mx.zeros_like(a.weight))


def test_what_is_saved_is_loaded(model: nn.Module, tuned: TunedLens, tmp_path: Path) -> None:
    tuned.save(tmp_path / "lens.safetensors")
    again = TunedLens.load(model, tmp_path / "lens.safetensors")
    np.testing.assert_array_equal(again.logits(UNSEEN), tuned.logits(UNSEEN))


def test_it_is_refused_on_another_model_and_on_a_later_checkpoint(tuned: TunedLens, tmp_path: Path) -> None:
    path = tmp_path / "lens.safetensors"
    tuned.save(path)
    with pytest.raises(UsageError, match="fit it anew"):
        TunedLens.load(tiny.model(seed=1, n_layers=3), path)
    later = tiny.model(n_layers=3)
    assert TunedLens.load(later, path).base == weights_hash(later)
    later.layers[0].mlp.up_proj.weight = later.layers[0].mlp.up_proj.weight + 1e-6
    with pytest.raises(UsageError, match="fit it anew"):
        TunedLens.load(later, path)


def test_it_stops_reading_when_the_weights_change_under_it_and_goes_on_when_they_are_back(
    tuned: TunedLens,
) -> None:
    part = tuned.model.layers[1].mlp.down_proj
    before = part.weight
    right = tuned.logits(UNSEEN)
    part.weight = before * 1.001
    with pytest.raises(UsageError, match="fit it anew"):
        tuned.read(UNSEEN)
    part.weight = before
    np.testing.assert_array_equal(tuned.logits(UNSEEN), right)


def test_other_files_and_shapes_are_refused(model: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a readable tuned lens"):
        TunedLens.load(model, tmp_path / "none.safetensors")
    mx.save_safetensors(str(tmp_path / "x.safetensors"), {"weight": mx.zeros(3)})
    with pytest.raises(UsageError, match="not a tuned lens"):
        TunedLens.load(model, tmp_path / "x.safetensors")
    with pytest.raises(UsageError, match="do not fit 3 layers"):
        TunedLens(model, mx.zeros((4, 32, 32)), mx.zeros((4, 32)), weights_hash(model))
    with pytest.raises(UsageError, match="positive"):
        TunedLens.fit(LogitLens(model), TEXT, steps=0)


def test_a_family_without_one_stream_is_refused() -> None:
    with pytest.raises(NotMeasurable, match=r"gemma3n.*tuned lens"):
        TunedLens.fit(LogitLens(architectures.build("gemma3n")), TEXT[:1], steps=1)
