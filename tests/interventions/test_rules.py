"""Rules do what their formulas say, in float64; placebos are as large and say nothing."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
import tiny

from emergence.errors import UsageError
from emergence.interventions import (
    add,
    interchange,
    mean_difference_basis,
    placebo,
    probe_basis,
    random_basis,
    readout_basis,
    remove,
    replace,
)
from emergence.lens.logit_lens import LogitLens

RNG = np.random.default_rng(0)
STREAM = RNG.standard_normal((4, 1, 32))
OTHER = RNG.standard_normal((6, 32))
PROMPTS = [5, 0, 3, 2]
BASIS = random_basis(3, 32, draw=1)


def made(rule, stream=STREAM):
    return np.array(rule(mx.array(stream.astype(np.float32)), PROMPTS)).astype(np.float64)


def test_each_rule_is_its_formula():
    v, p = OTHER[PROMPTS][:, None], BASIS.T.astype(float) @ BASIS.astype(float)
    mean = RNG.standard_normal(32)
    assert np.allclose(made(replace(OTHER)), v, atol=1e-6)
    assert np.allclose(made(interchange(OTHER, BASIS)), STREAM + (v - STREAM) @ p, atol=1e-5)
    assert np.allclose(made(interchange(OTHER, BASIS, 0.5)), STREAM + 0.5 * (v - STREAM) @ p, atol=1e-5)
    assert np.allclose(made(interchange(OTHER, strength=0.5)), (STREAM + v) / 2, atol=1e-6)
    assert np.allclose(made(remove(BASIS)), STREAM - STREAM @ p, atol=1e-5)
    assert np.allclose(made(remove(BASIS, mean)) @ p, (mean @ p)[None, None].repeat(4, 0), atol=1e-5)
    assert np.allclose(made(add(mean, 2.0)), STREAM + 2 * mean, atol=1e-5)


@pytest.mark.parametrize("kind", ["isotropic", "natural"])
def test_a_placebo_is_as_large_row_by_row_and_has_no_part_in_the_basis(kind):
    rule = interchange(OTHER, BASIS)
    real = made(rule) - STREAM
    draws = [made(placebo(rule, kind, d, pool=OTHER, basis=BASIS)) - STREAM for d in range(3)]
    for change in draws:
        assert np.allclose(np.linalg.norm(change, axis=-1), np.linalg.norm(real, axis=-1), rtol=1e-5)
        assert np.abs(change @ BASIS.T).max() < 1e-5
    assert not np.allclose(draws[0], draws[1])
    again = made(placebo(rule, kind, 0, pool=OTHER, basis=BASIS)) - STREAM
    assert np.array_equal(draws[0], again)


def test_a_prompts_placebo_is_the_same_in_whatever_batch_it_comes():
    rule = placebo(add(np.ones(32)), draw=2)
    whole = made(rule)
    alone = np.array(rule(mx.array(STREAM[2:3].astype(np.float32)), [PROMPTS[2]]))
    assert np.allclose(whole[2:3], alone, atol=1e-6)


def test_a_natural_placebo_lies_in_what_the_pool_spans():
    pool = np.zeros((5, 32))
    pool[:, :2] = RNG.standard_normal((5, 2))
    change = made(placebo(add(np.ones(32)), "natural", pool=pool)) - STREAM
    assert np.abs(change[..., 2:]).max() < 1e-5
    with pytest.raises(UsageError, match="needs a pool of two streams"):
        placebo(add(np.ones(32)), "natural")


def test_bases_are_orthonormal_and_span_what_they_say():
    labels = np.array(["a", "b", "c"] * 10)
    means = {"a": 0, "b": 1, "c": 2}
    streams = 0.01 * RNG.standard_normal((30, 32))
    streams[np.arange(30), [means[x] for x in labels]] += 3.0
    found = mean_difference_basis(streams, labels)
    assert found.shape == (2, 32)
    assert np.allclose(found @ found.T, np.eye(2), atol=1e-5)
    for one, other in (("a", "b"), ("b", "c")):
        difference = streams[labels == one].mean(0) - streams[labels == other].mean(0)
        inside = difference @ found.T @ found
        assert np.allclose(inside, difference, atol=1e-4)
    weights = RNG.standard_normal((3, 32))
    assert probe_basis(weights).shape == (2, 32)
    assert np.allclose((weights - weights.mean(0)) @ probe_basis(weights).T @ probe_basis(weights),
                       weights - weights.mean(0), atol=1e-4)  # fmt: skip
    with pytest.raises(UsageError, match="one class"):
        mean_difference_basis(streams, ["a"] * 30)
    with pytest.raises(UsageError, match="k=0: give 1 to 8"):
        random_basis(0, 8)


def test_the_readout_basis_is_where_the_logits_of_the_words_change():
    lens = LogitLens(tiny.model())
    stream, ids = lens.streams([[3, 1, 4]], [2])[0, 0], [11, 12, 13]
    basis = readout_basis(lens, stream, ids)
    assert basis.shape == (2, 32)

    def centred(h: np.ndarray) -> np.ndarray:
        z = np.array(lens.unembed(mx.array(h.astype(np.float32))[None]))[0, ids].astype(float)
        return z - z.mean()

    direction = RNG.standard_normal(32)
    outside = direction - direction @ basis.T @ basis
    step = 1e-2
    moved = np.abs(centred(stream + step * outside / np.linalg.norm(outside)) - centred(stream)).max()
    inside = np.abs(centred(stream + step * basis[0]) - centred(stream)).max()
    assert moved < 0.05 * inside
