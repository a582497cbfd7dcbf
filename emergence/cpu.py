"""What MLX's Linux CPU backend does slowly, done by NumPy instead: same formulas, same gradients.

In: a model, or logits. Out: the same numbers to float32 rounding. Used by the lens and by training; does
nothing on a GPU, where MLX's own kernels are the fast ones.

That backend computes `exp` one element at a time (8 to 17 ns each); NumPy's is vectorised (0.5 ns) and reads
MLX's memory without a copy. Measured gains and what was dropped: docs/performance.md.

NumPy needs values, so a function here ends MLX's laziness: what it depends on is computed at once. Where a
graph is built of which only a part is ever wanted, build it inside `lazily()`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from jaxtyping import Float, Int
from mlx_lm.models import activations

# Elements at a time: three float32 buffers of this size stay in the second-level cache.
_CHUNK = 1 << 16

_lazy: ContextVar[bool] = ContextVar("lazy", default=False)


@contextmanager
def fast(model: Any) -> Iterator[None]:
    """For the length of the `with`, the model's SwiGLU (Shazeer 2020, arXiv:2002.05202) is `swiglu` below.

    Swapped where the model's own code looks it up, so for every model of that family; put back exactly, also
    after an exception. May be nested. Nothing happens on a GPU, or for a family that has no SwiGLU.
    """
    if mx.default_device().type != mx.cpu:
        yield
        return
    names = {type(module).__module__ for module in model.modules()}
    found = [sys.modules[name] for name in names if name in sys.modules]
    swapped = [m for m in found if getattr(m, "swiglu", None) is activations.swiglu]
    try:
        for m in swapped:
            m.swiglu = swiglu  # type: ignore[attr-defined]
        yield
    finally:
        for m in swapped:
            m.swiglu = activations.swiglu  # type: ignore[attr-defined]


@contextmanager
def lazily() -> Iterator[None]:
    """Inside, nothing here computes: graphs are MLX's own, of which unused parts cost nothing."""
    token = _lazy.set(True)
    try:
        yield
    finally:
        _lazy.reset(token)


def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """`silu(gate) * x`, elementwise and differentiable: `gate / (1 + exp(-gate)) * x`.

    Differs from MLX's by at most 4 units in the last place. Other types than float32, and calls while MLX
    traces (`mx.compile`, `mx.vmap`), go to mlx-lm's own.
    """
    if _computes(gate, x) and gate.shape == x.shape:
        try:
            return cast(mx.array, _swiglu(gate, x))
        except ValueError as error:
            if "function transformations" not in str(error):
                raise
    return cast(mx.array, activations.swiglu(gate, x))


def cross_entropy(
    logits: Float[mx.array, "token vocab"], targets: Int[mx.array, " token"]
) -> Float[mx.array, " token"]:
    """`logsumexp(logits) - logits[target]` of each token, in nats, differentiable in `logits`.

    On the CPU by NumPy, a row at a time (a row of logits fits in cache); elsewhere `nn.losses.cross_entropy`.
    """
    if _computes(logits):
        return cast(mx.array, _cross_entropy(logits, targets))
    return nn.losses.cross_entropy(logits.astype(mx.float32), targets, reduction="none")


def _computes(*arrays: mx.array) -> bool:
    on_cpu = mx.default_device().type == mx.cpu
    return on_cpu and not _lazy.get() and all(a.dtype == mx.float32 for a in arrays)


def _flat(array: mx.array) -> np.ndarray:
    """The array's own memory as one row where it is contiguous, a copy where it is not."""
    return np.ascontiguousarray(np.array(array, copy=False)).reshape(-1)


@mx.custom_function
def _swiglu(gate: mx.array, x: mx.array) -> mx.array:
    g, u = _flat(gate), _flat(x)
    out, sigmoid = np.empty_like(g), np.empty(min(_CHUNK, g.size), np.float32)
    for part in _chunks(g.size):
        s = _sigmoid(g[part], sigmoid)
        np.multiply(g[part], s, out=s)
        np.multiply(s, u[part], out=out[part])
    return mx.array(out.reshape(gate.shape))


@_swiglu.vjp
def _swiglu_vjp(
    primals: tuple[mx.array, mx.array], cotangent: mx.array, _: mx.array
) -> tuple[mx.array, mx.array]:
    g, u, c = map(_flat, (*primals, cotangent))
    to_gate, to_x = np.empty_like(g), np.empty_like(g)
    buffers = np.empty((2, min(_CHUNK, g.size)), np.float32)
    for part in _chunks(g.size):
        s = _sigmoid(g[part], buffers[0])
        silu = np.multiply(g[part], s, out=buffers[1, : s.size])
        np.multiply(silu, c[part], out=to_x[part])
        slope = np.subtract(1, s, out=to_gate[part])  # silu' = s + silu (1 - s)
        slope *= silu
        slope += s
        slope *= c[part]
        slope *= u[part]
    shape = cotangent.shape
    return mx.array(to_gate.reshape(shape)), mx.array(to_x.reshape(shape))


def _chunks(size: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, size, _CHUNK))


def _sigmoid(z: np.ndarray, buffer: np.ndarray) -> np.ndarray:
    out = buffer[: z.size]
    np.negative(z, out=out)
    with np.errstate(over="ignore"):  # exp overflows to infinity, whose reciprocal is the right 0
        np.exp(out, out=out)
    out += 1
    np.reciprocal(out, out=out)
    return out


@mx.custom_function
def _cross_entropy(logits: mx.array, targets: mx.array) -> mx.array:
    z, ids = np.array(logits, copy=False), np.array(targets, copy=False)
    losses, e = np.empty(len(z), np.float32), np.empty(z.shape[-1], np.float32)
    for i, (row, target) in enumerate(zip(z, ids, strict=True)):
        top = row.max()
        np.subtract(row, top, out=e)
        np.exp(e, out=e)
        losses[i] = np.log(e.sum()) + (top - row[target])
    return mx.array(losses)


@_cross_entropy.vjp
def _cross_entropy_vjp(
    primals: tuple[mx.array, mx.array], cotangent: mx.array, losses: mx.array
) -> tuple[mx.array, mx.array]:
    z, ids, c, nats = (np.array(a, copy=False) for a in (*primals, cotangent, losses))
    slope = np.empty(z.shape, np.float32)
    for row, out, target, weight, loss in zip(z, slope, ids, c, nats, strict=True):
        np.subtract(row, row[target] + loss, out=out)  # log-probabilities
        np.exp(out, out=out)
        out *= weight
        out[target] -= weight
    return mx.array(slope), mx.zeros_like(primals[1])
