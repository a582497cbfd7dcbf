"""Statistics of distributions, against naive float64 and against what must hold of any distribution."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from emergence.lens import distribution as readout
from emergence.lens.distribution_gpu import on_gpu

VOCAB = 300
BEFORE = np.array([-1, 0, 1])


def _logits(seed: int, spread: float = 4.0, vocab: int = VOCAB, layers: int = 3) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(layers, vocab)) * spread).astype(np.float32)


def _wanted(seed: int, vocab: int = VOCAB, top_k: int = 5) -> readout.Wanted:
    ids = np.random.default_rng([seed, 1]).permutation(vocab)
    cut = np.sort(np.random.default_rng([seed, 2]).choice(np.arange(1, vocab), 3, replace=False))
    return readout.Wanted(vocab, tuple(np.split(ids, cut)), ids[:4], top_k)


def _read(
    logits: np.ndarray, wanted: readout.Wanted, width: int | None = None, on: Any = readout.on_cpu
) -> dict[str, np.ndarray]:
    def block(ids: slice) -> mx.array:
        return mx.array(logits[:, None, ids])

    found = on(block, wanted, BEFORE[: len(logits)], width)
    return {name: values[:, 0] for name, values in found.items()}


def _width(logits: np.ndarray) -> int:
    """Any that cuts the vocabulary."""
    return int(
        np.random.default_rng(np.frombuffer(logits.tobytes()[:8], np.uint32)).integers(1, logits.shape[-1])
    )


def _read_in_parts(logits: np.ndarray, wanted: readout.Wanted) -> dict[str, np.ndarray]:
    return _read(logits, wanted, _width(logits))


def _read_on_gpu(logits: np.ndarray, wanted: readout.Wanted) -> dict[str, np.ndarray]:
    return _read(logits, wanted, on=on_gpu)


def _read_on_gpu_in_parts(logits: np.ndarray, wanted: readout.Wanted) -> dict[str, np.ndarray]:
    return _read(logits, wanted, _width(logits), on_gpu)


IN = {
    "numpy": _read,
    "numpy in parts": _read_in_parts,
    "mlx": _read_on_gpu,
    "mlx in parts": _read_on_gpu_in_parts,
}


def _reference(logits: np.ndarray, wanted: readout.Wanted) -> dict[str, np.ndarray]:
    """Textbook formulas in float64, one row at a time."""
    z = logits[:, : wanted.vocab].astype(np.float64)
    log_p = z - logsumexp(z, axis=-1, keepdims=True)
    p = np.exp(log_p)

    def kl(a: int, b: int) -> float:
        return float(sum(p[a, v] * (log_p[a, v] - log_p[b, v]) for v in range(wanted.vocab)))

    order = np.argsort(-z, axis=-1, kind="stable")
    return {
        "log_mass": np.array(
            [[np.log(sum(np.exp(row[i]) for i in ids)) for ids in wanted.sets] for row in log_p]
        ),
        "log_probs": log_p[:, wanted.tokens],
        "ranks": np.array([[int((row > row[t]).sum()) for t in wanted.tokens] for row in z]),
        "top_ids": order[:, : wanted.top_k],
        "top_log_probs": np.take_along_axis(log_p, order[:, : wanted.top_k], -1),
        "entropy": np.array([-sum(p[i] * log_p[i]) for i in range(len(z))]),
        "kl": np.array([kl(len(z) - 1, i) for i in range(len(z))]),
        "kl_previous": np.array([np.nan] + [kl(i, i - 1) for i in range(1, len(z))]),
    }


seeds = st.integers(0, 10_000)
spreads = st.floats(0.01, 30.0)


@pytest.mark.parametrize("where", IN)
@settings(max_examples=30, deadline=None)
@given(seed=seeds, spread=spreads, vocab=st.sampled_from([40, 64, 300, 1000]), top_k=st.integers(1, 20))
def test_every_statistic_is_its_textbook_formula(
    where: str, seed: int, spread: float, vocab: int, top_k: int
) -> None:
    logits, wanted = _logits(seed, spread, vocab), _wanted(seed, vocab, top_k)
    found, right = IN[where](logits, wanted), _reference(logits, wanted)
    assert found.keys() == right.keys()
    for name in right:
        np.testing.assert_allclose(
            found[name], right[name], rtol=2e-5, atol=2e-5 * max(1.0, spread), err_msg=name
        )


@settings(max_examples=20, deadline=None)
@given(seeds, st.floats(-200, 200))
def test_a_shift_of_the_logits_changes_nothing(seed: int, shift: float) -> None:
    logits, wanted = _logits(seed), _wanted(seed)
    _same(_read(logits + np.float32(shift), wanted), _read(logits, wanted), 1e-3)


@settings(max_examples=20, deadline=None)
@given(seeds, st.floats(0.1, 10))
def test_scaled_logits_read_as_a_temperature(seed: int, scale: float) -> None:
    logits, wanted = _logits(seed, 1.0), _wanted(seed)
    found = _read(logits * np.float32(scale), wanted)
    log_p = _read(logits, wanted)["log_probs"].astype(np.float64)
    z = logits.astype(np.float64)
    constant = logsumexp(scale * z, -1) - scale * logsumexp(z, -1)
    np.testing.assert_allclose(found["log_probs"], scale * log_p - constant[:, None], atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_a_permuted_vocabulary_permutes_ids_and_nothing_else(seed: int) -> None:
    logits, wanted = _logits(seed), _wanted(seed)
    order = np.random.default_rng([seed, 3]).permutation(VOCAB)
    place = np.argsort(order)
    moved = readout.Wanted(
        VOCAB, tuple(place[ids] for ids in wanted.sets), place[wanted.tokens], wanted.top_k
    )
    found, right = _read(logits[:, order], moved), _read(logits, wanted)
    found["top_ids"] = order[found["top_ids"]]
    _same(found, right, 1e-4)


@settings(max_examples=20, deadline=None)
@given(seeds, spreads)
def test_sets_that_partition_the_vocabulary_sum_to_one(seed: int, spread: float) -> None:
    mass = np.exp(_read(_logits(seed, spread), _wanted(seed))["log_mass"])
    np.testing.assert_allclose(mass.sum(-1), 1, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(1, 30))
def test_rank_and_top_k_agree(seed: int, top_k: int) -> None:
    logits = _logits(seed)
    top = _read(logits, readout.Wanted(VOCAB, top_k=top_k))
    for layer in range(3):
        tokens = top["top_ids"][layer]
        own = _read(logits, readout.Wanted(VOCAB, tokens=tokens))
        np.testing.assert_array_equal(own["ranks"][layer], np.arange(top_k))
        np.testing.assert_allclose(own["log_probs"][layer], top["top_log_probs"][layer], atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_kl_is_not_negative_and_zero_to_itself(seed: int) -> None:
    logits = _logits(seed)
    found = _read(np.stack([logits[0], logits[2], logits[2]]), _wanted(seed))
    assert (found["kl"] >= 0).all()
    np.testing.assert_allclose(found["kl"][1:], 0, atol=1e-5)
    np.testing.assert_allclose(found["kl_previous"][2], 0, atol=1e-5)
    assert found["kl_previous"][1] > 0.1


@pytest.mark.parametrize("where", IN)
def test_a_forbidden_token_has_no_mass_and_breaks_nothing(where: str) -> None:
    logits = _logits(0)
    logits[:, 7] = -np.inf
    wanted = readout.Wanted(VOCAB, sets=(np.array([7]), np.array([7, 8])), tokens=np.array([7]))
    found = IN[where](logits, wanted)
    kept = np.delete(logits, 7, axis=1)
    right = _reference(kept, readout.Wanted(VOCAB - 1))
    for name in ("entropy", "kl", "kl_previous"):
        np.testing.assert_allclose(found[name], right[name], atol=1e-4)
    assert (found["log_mass"][:, 0] < -1e6).all()
    assert np.isfinite(found["log_mass"][:, 1]).all()
    assert (found["ranks"][:, 0] == VOCAB - 1).all()


def test_padded_ids_are_no_part_of_the_distribution() -> None:
    logits = _logits(0)
    logits[:, 200:] = 50.0
    found = _read(logits, readout.Wanted(200, sets=(np.arange(200),)))
    np.testing.assert_allclose(found["log_mass"], 0, atol=1e-6)
    assert (found["top_ids"] < 200).all()


@pytest.mark.parametrize("where", IN)
def test_layers_may_come_in_any_order_before_the_output(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, wanted = _logits(3, layers=4), _wanted(3)
    right = IN[where](logits[:3], wanted)["kl_previous"]
    monkeypatch.setitem(globals(), "BEFORE", np.array([2, -1, 1, 0]))  # rows hold layers 2, 0, 1 and 3
    found = IN[where](logits[[2, 0, 1, 3]], wanted)["kl_previous"]
    np.testing.assert_allclose(found[[1, 2, 0]], right, atol=1e-5)


def test_ties_of_the_top_go_by_id_wherever_the_vocabulary_is_cut() -> None:
    logits = np.zeros((3, VOCAB), np.float32)
    logits[:, [250, 40, 130]] = 2
    found = _read_in_parts(logits, readout.Wanted(VOCAB, top_k=5))
    np.testing.assert_array_equal(found["top_ids"], [[40, 130, 250, 0, 1]] * 3)


@pytest.mark.parametrize("tiny_mass", [-40.0, -80.0])
def test_the_mass_of_an_unlikely_set_does_not_underflow(tiny_mass: float) -> None:
    logits = np.zeros((1, VOCAB), np.float32)
    logits[0, 1:3] = tiny_mass
    found = _read(logits, readout.Wanted(VOCAB, sets=(np.array([1, 2]),)))["log_mass"][0, 0]
    right = tiny_mass + np.log(2) - np.log(VOCAB - 2 + 2 * np.exp(tiny_mass))
    assert found == pytest.approx(right, abs=1e-5)


def _same(found: dict[str, np.ndarray], right: dict[str, np.ndarray], atol: float) -> None:
    for name in right:
        np.testing.assert_allclose(found[name], right[name], atol=atol, err_msg=name)
