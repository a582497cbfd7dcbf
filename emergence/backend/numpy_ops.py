"""What MLX's Linux CPU backend does slowly, done by NumPy instead: same formulas, same gradients.

In: a model, or logits. Out: the same numbers to float32 rounding. Used by the lens and by training; does
nothing on a GPU, where MLX's own kernels are the fast ones.

That backend computes `exp` one element at a time (8 to 17 ns each); NumPy's is vectorised (0.5 ns) and reads
MLX's memory without a copy. Measured gains and what was dropped: docs/performance.md.

NumPy needs values, so SwiGLU by NumPy ends MLX's laziness: what it depends on is computed at once. Inside
`lazily()` it is a rational function in MLX's own lazy operations instead: for graphs of which a part is
thrown away, and for training, where MLX would walk the whole recorded graph again for every value.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeGuard, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from jaxtyping import Float, Int
from mlx_lm.models import activations

# Elements at a time: three float32 buffers of this size stay in the second-level cache.
_CHUNK = 1 << 16

# malloc.h of glibc.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

# sigmoid(x) = 1/2 + x P(x^2) / Q(x^2) for |x| <= _REACH, beyond which it is constant to float32 rounding. Our
# own least-squares fit, reweighted until the relative error of x P / Q was level (1.5e-8); all terms are
# positive, so nothing cancels. Largest error of the sigmoid in float32: 2e-7.
_REACH = 17.4
_P = (0.25, 0.008375292643904686, 5.498040627571754e-05, 8.200728984775196e-08, 1.3571951722191056e-11)
_Q = (1.0, 0.11683446913957596, 0.001622806303203106, 5.193205197429052e-06, 3.123651115544135e-09)

_pending: ContextVar[list[Callable[[], None]] | None] = ContextVar("pending", default=None)
"""None outside `lazily()`; inside, what is to be computed when it ends."""


@contextmanager
def fast(model: nn.Module) -> Iterator[None]:
    """For the length of the `with`, this model's SwiGLU (Shazeer 2020, arXiv:2002.05202) is `swiglu` below.

    Each module whose methods call mlx-lm's `swiglu` becomes, for the while, one of a subclass whose methods
    call ours; nothing of another package is changed, and other models are left alone. Put back exactly, also
    after an exception. May be nested. Nothing happens on a GPU.
    """
    if mx.default_device().type != mx.cpu:
        yield
        return
    keep_memory()
    modules = {id(m): (m, type(m)) for m in model.modules()}.values()  # type: ignore[no-untyped-call]
    faster = {cls: _with_our_swiglu(cls) for cls in {cls for _, cls in modules}}  # type: ignore[arg-type]
    changed = [(m, cls) for m, cls in modules if faster[cls] is not cls]
    try:
        for module, cls in changed:
            module.__class__ = faster[cls]
        yield
    finally:
        for module, cls in changed:
            module.__class__ = cls


@functools.lru_cache(maxsize=512)
def _with_our_swiglu(cls: type) -> type:
    """A subclass whose methods find ours under the name `swiglu`; the class itself where none uses it."""
    methods = {name: f for base in reversed(cls.__mro__) for name, f in vars(base).items()}
    ours = {name: _rebound(f) for name, f in methods.items() if _calls_swiglu(f)}
    return type(cls.__name__, (cls,), {**ours, "__module__": cls.__module__}) if ours else cls


def _calls_swiglu(f: object) -> TypeGuard[types.FunctionType]:
    return (
        isinstance(f, types.FunctionType)
        and "swiglu" in f.__code__.co_names
        and f.__globals__.get("swiglu") is activations.swiglu
    )


def _rebound(f: types.FunctionType) -> types.FunctionType:
    """The same function, but that the global name `swiglu` means ours in it."""
    found = types.FunctionType(
        f.__code__, f.__globals__ | {"swiglu": swiglu}, f.__name__, f.__defaults__, f.__closure__
    )
    found.__kwdefaults__ = f.__kwdefaults__
    return found


@contextmanager
def lazily() -> Iterator[None]:
    """Inside, nothing is computed: what nobody asks for costs nothing, and a gradient's graph stays small.

    `swiglu` has a sigmoid within 2e-7. `cross_entropy` gives losses and slopes that are NaN until the
    outermost `lazily()` ends, when NumPy fills them in: evaluate after it, not inside.
    """
    if _pending.get() is not None:
        yield
        return
    token = _pending.set([])
    try:
        yield
        for compute in _pending.get() or ():
            compute()
    finally:
        _pending.reset(token)


@functools.cache
def keep_memory() -> bool:
    """Let the C library keep what is freed, not hand it to the kernel; True where that worked (glibc).

    MLX frees every intermediate result; given back, each page comes back zeroed through a page fault,
    15,000 to 30,000 of them a training step. For the rest of the process; the peak does not change.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    settings = {_M_MMAP_THRESHOLD: 1 << 25, _M_TRIM_THRESHOLD: (1 << 31) - 1}
    return mallopt is not None and all(mallopt(option, value) == 1 for option, value in settings.items())


def swiglu(gate: mx.array, x: mx.array) -> mx.array:
    """`silu(gate) * x`, elementwise and differentiable: `gate / (1 + exp(-gate)) * x`.

    Within 4 units in the last place of the truth; inside `lazily()` its sigmoid is within 2e-7. Other types
    than float32, and calls while MLX traces (`mx.compile`, `mx.vmap`), go to mlx-lm's own.
    """
    if _computes(gate, x) and gate.shape == x.shape:
        if _pending.get() is not None:
            return cast(mx.array, _lazy_swiglu(gate, x))
        try:
            return cast(mx.array, _swiglu(gate, x))
        except ValueError as error:
            _only_tracing(error)
    return cast(mx.array, activations.swiglu(gate, x))


def cross_entropy(
    logits: Float[mx.array, "token vocab"], targets: Int[mx.array, " token"]
) -> Float[mx.array, " token"]:
    """`logsumexp(logits) - logits[target]` of each token, in nats, differentiable in `logits`.

    On the CPU by NumPy, a row at a time (a row of logits fits in cache); elsewhere `nn.losses.cross_entropy`.
    """
    if _computes(logits):
        if (pending := _pending.get()) is not None:
            return _later_cross_entropy(logits, targets, pending)
        try:
            return cast(mx.array, _cross_entropy(logits, targets))
        except ValueError as error:
            _only_tracing(error)
    return nn.losses.cross_entropy(logits.astype(mx.float32), targets, reduction="none")


def _computes(*arrays: mx.array) -> bool:
    on_cpu = mx.default_device().type == mx.cpu
    return on_cpu and all(a.dtype == mx.float32 for a in arrays)


def _only_tracing(error: ValueError) -> None:
    """`mx.compile` and `mx.vmap` have no values to give; any other error is one."""
    if "function transformations" not in str(error):
        raise error


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


def _rational_sigmoid(x: mx.array) -> mx.array:
    y = mx.clip(x, -_REACH, _REACH)
    u = y * y
    return 0.5 + y * _polynomial(_P, u) / _polynomial(_Q, u)


def _polynomial(terms: tuple[float, ...], u: mx.array) -> mx.array:
    value = terms[-1] * u + terms[-2]
    for term in terms[-3::-1]:
        value = value * u + term
    return value


def _lazy_forward(gate: mx.array, x: mx.array) -> mx.array:
    return gate * _rational_sigmoid(gate) * x


def _lazy_backward(gate: mx.array, x: mx.array, cotangent: mx.array) -> tuple[mx.array, mx.array]:
    s = _rational_sigmoid(gate)
    silu = gate * s
    return (s + silu * (1 - s)) * x * cotangent, silu * cotangent


@mx.custom_function
def _lazy_swiglu(gate: mx.array, x: mx.array) -> mx.array:
    return _lazy_forward(gate, x)


@_lazy_swiglu.vjp
def _lazy_swiglu_vjp(
    primals: tuple[mx.array, mx.array], cotangent: mx.array, _: mx.array
) -> tuple[mx.array, mx.array]:
    return _lazy_backward(*primals, cotangent)


@mx.custom_function
def _cross_entropy(logits: mx.array, targets: mx.array) -> mx.array:
    z, ids = np.array(logits, copy=False), np.array(targets, copy=False)
    losses = np.empty(len(z), np.float32)
    _fill(z, ids, losses, np.empty((1, z.shape[-1]), np.float32))
    return mx.array(losses)


@_cross_entropy.vjp
def _cross_entropy_vjp(
    primals: tuple[mx.array, mx.array], cotangent: mx.array, losses: mx.array
) -> tuple[mx.array, mx.array]:
    z, ids = (np.array(a, copy=False) for a in primals)
    slopes = np.empty(z.shape, np.float32)
    _fill(z, ids, np.empty(len(z), np.float32), slopes)
    return cotangent[:, None] * mx.array(slopes), mx.zeros_like(primals[1])


def _later_cross_entropy(logits: mx.array, targets: mx.array, pending: list[Callable[[], None]]) -> mx.array:
    losses, slopes = mx.full((len(logits),), mx.nan), mx.full(logits.shape, mx.nan)
    mx.eval(losses, slopes)

    def compute() -> None:
        z, ids, into_losses, into_slopes = (
            np.array(a, copy=False) for a in (logits, targets, losses, slopes)
        )
        _fill(z, ids, into_losses, into_slopes)

    pending.append(compute)

    @mx.custom_function
    def later(_: mx.array) -> mx.array:
        return losses

    @later.vjp
    def later_vjp(_: mx.array, cotangent: mx.array, __: mx.array) -> mx.array:
        return cotangent[:, None] * slopes

    return cast(mx.array, later(logits))


def _fill(
    z: Float[np.ndarray, "token vocab"],
    targets: Int[np.ndarray, " token"],
    losses: Float[np.ndarray, " token"],
    slopes: Float[np.ndarray, "rows vocab"],
) -> None:
    """Losses, and softmax - onehot in `slopes` (a single row: scratch). A row of logits stays in cache."""
    for i, (row, target) in enumerate(zip(z, targets, strict=True)):
        slope, top = slopes[i % len(slopes)], row.max()
        np.subtract(row, top, out=slope)
        np.exp(slope, out=slope)
        total = slope.sum()
        losses[i] = np.log(total) + (top - row[target])
        slope /= total
        slope[target] -= 1
