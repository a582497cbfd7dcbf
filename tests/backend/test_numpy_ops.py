"""The NumPy paths of the CPU backend equal MLX's own, values and gradients, and leave nothing behind."""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.models import activations, llama
from mlx_lm.models.activations import swiglu

from emergence.backend import numpy_ops as cpu

EPS = np.finfo(np.float32).eps

on_cpu = pytest.mark.skipif(mx.default_device().type != mx.cpu, reason="NumPy paths are for the CPU device")


def normal(seed: int, *shape: int, scale: float = 1.0) -> mx.array:
    return mx.array(np.random.default_rng(seed).standard_normal(shape) * scale, dtype=mx.float32)


def silu64(z: np.ndarray) -> np.ndarray:
    return z / (1 + np.exp(-z))


@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=3),
    st.floats(1e-3, 40.0),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_swiglu_is_within_four_ulp_of_float64(shape: list[int], scale: float, seed: int) -> None:
    gate, x = normal(seed, *shape, scale=scale), normal(seed + 1, *shape)
    want = silu64(np.array(gate, np.float64)) * np.array(x, np.float64)
    got = np.array(cpu.swiglu(gate, x), np.float64)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=4 * EPS, atol=1e-35)


@on_cpu
@pytest.mark.parametrize("size", [1, cpu._CHUNK - 1, cpu._CHUNK, cpu._CHUNK + 1, 2 * cpu._CHUNK + 7])
def test_chunks_cover_every_element_once(size: int) -> None:
    gate, x = normal(size, size), normal(1, size)
    got = np.array(cpu.swiglu(gate, x), np.float64)
    np.testing.assert_allclose(
        got, silu64(np.array(gate, np.float64)) * np.array(x, np.float64), rtol=4 * EPS
    )


def test_swiglu_is_finite_and_right_at_the_ends() -> None:
    z = mx.array([-1e30, -200.0, -88.8, -0.0, 0.0, 88.8, 200.0, 1e30])
    got = np.array(cpu.swiglu(z, mx.ones(8)))
    np.testing.assert_allclose(got, [0, 0, 0, 0, 0, 88.8, 200, 1e30], rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("turned", [False, True], ids=["contiguous", "transposed"])
def test_swiglu_gradients_equal_mlx_and_float64_differences(turned: bool) -> None:
    gate, x, weight = normal(0, 5, 9, scale=3), normal(1, 5, 9), normal(2, 5, 9)
    if turned:
        gate, x, weight = normal(0, 9, 5, scale=3).T, normal(1, 9, 5).T, normal(2, 5, 9)

    def loss(function, g, u):
        return (function(2 * g, u) * weight).sum()

    got = mx.grad(lambda g, u: loss(cpu.swiglu, g, u), (0, 1))(gate, x)
    want = mx.grad(lambda g, u: loss(activations.swiglu, g, u), (0, 1))(gate, x)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(np.array(a), np.array(b), rtol=2e-5, atol=2e-6)
    g, u, w, h = *(np.array(a, np.float64) for a in (gate, x, weight)), 1e-6
    slope = (silu64(2 * g + h) - silu64(2 * g - h)) / h * u * w
    np.testing.assert_allclose(np.array(got[0]), slope, rtol=1e-5, atol=1e-6)
    assert np.abs(slope).max() > 1


@given(st.integers(1, 6), st.integers(2, 300), st.floats(0.0, 30.0), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_cross_entropy_and_its_gradient_equal_float64(n: int, vocab: int, scale: float, seed: int) -> None:
    logits, weight = normal(seed, n, vocab, scale=scale), normal(seed + 1, n)
    targets = mx.array(np.random.default_rng(seed).integers(0, vocab, n), dtype=mx.int32)
    z, w, ids = np.array(logits, np.float64), np.array(weight, np.float64), np.array(targets)
    p = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    rows = np.arange(n)
    got = np.array(cpu.cross_entropy(logits, targets))
    np.testing.assert_allclose(got, -np.log(p[rows, ids]), rtol=1e-5, atol=4e-6 * (1 + scale))
    gradient = mx.grad(lambda a: (cpu.cross_entropy(a, targets) * weight).sum())(logits)
    p[rows, ids] -= 1
    np.testing.assert_allclose(np.array(gradient), p * w[:, None], rtol=1e-4, atol=2e-6 * (1 + scale))


def test_cross_entropy_does_not_change_with_a_shift_of_the_logits() -> None:
    logits, targets = normal(0, 4, 50), mx.array([0, 7, 49, 3])
    shifted = cpu.cross_entropy(logits + 512.0, targets)
    np.testing.assert_allclose(np.array(shifted), np.array(cpu.cross_entropy(logits, targets)), atol=2e-4)


def test_impossible_tokens_cost_nothing_and_get_no_gradient() -> None:
    logits = mx.array([[0.0, -np.inf, 1.0]])
    assert np.isfinite(cpu.cross_entropy(logits, mx.array([2])).item())
    gradient = mx.grad(lambda a: cpu.cross_entropy(a, mx.array([2])).sum())(logits)
    np.testing.assert_allclose(np.array(gradient)[0, 1], 0.0)
    assert cpu.cross_entropy(logits, mx.array([1])).item() == np.inf


@on_cpu
def test_lazy_cross_entropy_is_filled_in_at_the_end_and_nan_before() -> None:
    logits, weight, targets = normal(0, 6, 80, scale=4), normal(1, 6), mx.array([0, 7, 79, 3, 3, 1])

    def loss(z: mx.array) -> mx.array:
        return (cpu.cross_entropy(z * 2, targets) * weight).sum()

    value, gradient = mx.value_and_grad(loss)(logits)
    with cpu.lazily():
        early, _ = mx.value_and_grad(loss)(logits)
        assert np.isnan(early.item())
        with cpu.lazily():
            later, later_gradient = mx.value_and_grad(loss)(logits)
    assert later.item() == pytest.approx(value.item(), rel=1e-6)
    np.testing.assert_allclose(np.array(later_gradient), np.array(gradient), rtol=1e-5, atol=1e-6)
    assert cpu._pending.get() is None


@on_cpu
def test_lazily_computes_nothing_after_an_exception() -> None:
    def fails() -> None:
        with cpu.lazily():
            cpu.cross_entropy(normal(0, 2, 9), mx.array([0, 1]))
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fails()
    assert cpu._pending.get() is None


def forward_and_gradients(model: nn.Module) -> tuple[np.ndarray, list[np.ndarray]]:
    tokens = mx.array([[1, 2, 3, 4], [5, 6, 7, 8]])

    def loss(weights: dict) -> mx.array:
        model.update(weights)
        return (model(tokens) ** 2).mean()

    before = model.parameters()
    gradients = mx.grad(loss)(before)
    model.update(before)
    return np.array(model(tokens)), [np.array(v) for _, v in nn.utils.tree_flatten(gradients)]


@on_cpu
@pytest.mark.parametrize("way", [contextlib.nullcontext, cpu.lazily], ids=["NumPy", "lazy"])
def test_a_fast_model_gives_the_same_logits_and_gradients(way: Callable[[], AbstractContextManager]) -> None:
    model = tiny.model(vocab=64)
    logits, gradients = forward_and_gradients(model)
    with cpu.fast(model), way():
        fast_logits, fast_gradients = forward_and_gradients(model)
    np.testing.assert_allclose(fast_logits, logits, rtol=1e-5, atol=1e-5 * np.abs(logits).max())
    for a, b in zip(fast_gradients, gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * np.abs(b).max())


@on_cpu
def test_fast_is_undone_after_an_exception_and_when_nested(monkeypatch: pytest.MonkeyPatch) -> None:
    model, other, x = tiny.model(vocab=64), tiny.model(vocab=64, seed=1), normal(0, 3, 32)
    kinds, asked = [type(m) for m in model.modules()], []
    monkeypatch.setattr(cpu, "_swiglu", lambda gate, x: asked.append(1) or activations.swiglu(gate, x))

    def calls() -> int:
        asked.clear()
        model.layers[0].mlp(x)
        return len(asked)

    def fails() -> None:
        with cpu.fast(model):
            with cpu.fast(model):
                assert calls() == 1
            assert calls() == 1
            asked.clear()
            other.layers[0].mlp(x)
            assert not asked, "a model that was not asked for is another's"
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fails()
    assert calls() == 0
    assert [type(m) for m in model.modules()] == kinds
    assert llama.swiglu is activations.swiglu


class Gated(llama.MLP):
    """Calls it in a method of its own with keywords only, and in the one that it inherits."""

    def gated(self, *, x: mx.array, scale: float = 3.0) -> mx.array:
        return swiglu(x, x) * scale

    def __call__(self, x: mx.array) -> mx.array:
        return super().__call__(x) + self.gated(x=x).sum()


def test_methods_keep_their_defaults_and_what_they_inherit() -> None:
    x, mlp = normal(0, 2, 32), Gated(tiny.model().args)
    right = np.array(mlp(x))
    with cpu.fast(mlp):
        np.testing.assert_allclose(np.array(mlp(x)), right, rtol=1e-5)


def test_on_a_gpu_nothing_is_changed_and_mlx_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, gate, x = tiny.model(vocab=64), normal(0, 3, 4), normal(1, 3, 4)
    monkeypatch.setattr(cpu.mx, "default_device", lambda: type("Device", (), {"type": mx.gpu})())
    kinds = [type(m) for m in model.modules()]
    with cpu.fast(model):
        assert [type(m) for m in model.modules()] == kinds
    assert mx.array_equal(cpu.swiglu(gate, x), activations.swiglu(gate, x))


@on_cpu
def test_lazily_swiglu_asks_numpy_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, x = normal(0, 3, 4), normal(1, 3, 4)

    def computes(*arrays: mx.array) -> mx.array:
        raise AssertionError("NumPy was asked")

    monkeypatch.setattr(cpu, "_swiglu", computes)
    with cpu.lazily(), cpu.lazily():
        cpu.swiglu(gate, x)
    with pytest.raises(AssertionError, match="NumPy was asked"):
        cpu.swiglu(gate, x)


@on_cpu
def test_the_lazy_sigmoid_is_within_its_documented_error() -> None:
    z = np.concatenate(
        [np.linspace(-40, 40, 400_001), np.logspace(-30, 30, 1001), -np.logspace(-30, 30, 1001)]
    )
    z = z.astype(np.float32)
    got = np.array(cpu._rational_sigmoid(mx.array(z)), np.float64)
    with np.errstate(over="ignore"):
        want = 1 / (1 + np.exp(-z.astype(np.float64)))
    assert np.abs(got - want).max() < 2.1e-7
    assert np.abs(got - want)[np.abs(z) < 1].max() < 7e-8


@on_cpu
def test_lazy_swiglu_and_its_gradients_are_within_rounding_of_float64() -> None:
    gate, x, weight = normal(0, 40, 50, scale=4), normal(1, 40, 50), normal(2, 40, 50)
    with cpu.lazily():
        got = mx.grad(lambda g, u: (cpu.swiglu(g, u) * weight).sum(), (0, 1))(gate, x)
        value = np.array(cpu.swiglu(gate, x))
    g, u, w = (np.array(a, np.float64) for a in (gate, x, weight))
    s = 1 / (1 + np.exp(-g))
    np.testing.assert_allclose(value, g * s * u, atol=2e-6)
    np.testing.assert_allclose(np.array(got[0]), (s + g * s * (1 - s)) * u * w, atol=1e-5)
    np.testing.assert_allclose(np.array(got[1]), g * s * w, atol=4e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_other_types_go_to_mlx(dtype: str) -> None:
    gate, x = (normal(i, 4, 4).astype(getattr(mx, dtype)) for i in (0, 1))
    assert mx.array_equal(cpu.swiglu(gate, x), activations.swiglu(gate, x))


def test_a_compiled_function_may_hold_a_fast_activation() -> None:
    gate, x = normal(0, 3, 4), normal(1, 3, 4)
    targets = mx.array([1, 0, 3])
    losses = mx.compile(lambda z: cpu.cross_entropy(z, targets))(gate)
    np.testing.assert_allclose(np.array(losses), np.array(cpu.cross_entropy(gate, targets)), rtol=1e-5)
    compiled = mx.compile(lambda g, u: cpu.swiglu(g, u) + 1)
    np.testing.assert_allclose(
        np.array(compiled(gate, x)), np.array(activations.swiglu(gate, x) + 1), rtol=1e-6
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_freed_memory_is_kept_and_not_faulted_in_again() -> None:
    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            np.ones(1 << 20)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    if not cpu.keep_memory():
        pytest.skip("not glibc")
    faults()
    assert faults() < 2000  # 20 arrays of 8 MiB are 40960 pages
