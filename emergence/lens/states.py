"""What a block returns, whatever its form: an array, or arrays inside tuples and objects.

In: such a state. Out: its arrays, and states of the same form with other arrays in them. Most blocks return
the residual stream `[batch, position, hidden]`; some a tuple that begins with it; `gemma3n` four streams at
once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx


def arrays(state: Any) -> list[mx.array]:
    """The arrays in a state."""
    return flatten(state)[0]


def stream_of(state: Any) -> Any:
    """The residual stream in what a block returns: itself, or the first of a tuple."""
    return state[0] if isinstance(state, (tuple, list)) else state


def with_stream(state: Any, stream: mx.array) -> Any:
    """What a block would return had it ended in `stream`: `(h, cache)` becomes `(stream, cache)`."""
    return (stream, *state[1:]) if isinstance(state, (tuple, list)) else stream


def handles(state: Any) -> Any:
    """The same arrays behind new handles: `h += r` and `h[0] = x` change the handle they are given."""
    found, rebuild = flatten(state)
    return rebuild([mx.reshape(a, a.shape) for a in found])


def as_float32(state: Any) -> Any:
    """The state with its floating arrays in float32."""
    found, rebuild = flatten(state)
    return rebuild([a.astype(mx.float32) if mx.issubdtype(a.dtype, mx.floating) else a for a in found])


def flatten(state: Any) -> tuple[list[mx.array], Callable[[list[mx.array]], Any]]:
    """The arrays in a state, and the function that puts others in their places."""
    if isinstance(state, mx.array):
        return [state], lambda arrays: arrays[0]
    if isinstance(state, (tuple, list)):
        parts = list(enumerate(state))
    elif hasattr(state, "__dict__"):
        parts = list(vars(state).items())
    else:
        return [], lambda arrays: state
    flat = {key: flatten(value) for key, value in parts}
    return [a for found, _ in flat.values() for a in found], partial(_rebuild, state, flat)


def _rebuild(state: Any, flat: dict[Any, Any], arrays: list[mx.array]) -> Any:
    rest, new = list(arrays), {}
    for key, (found, back) in flat.items():
        new[key], rest = back(rest[: len(found)]), rest[len(found) :]
    if isinstance(state, (tuple, list)):
        return type(state)(new.values())
    changed = copy.copy(state)
    vars(changed).update(new)
    return changed


def axes(a: mx.array, b: mx.array) -> tuple[int, int] | None:
    """Batch and position axis of an array, from its shapes in passes of (2, 5) and (3, 7) tokens.

    Shapes `(4, 2, 5, 32)` and `(4, 3, 7, 32)` give `(1, 2)`; None where either axis is not found.
    """
    pairs = list(zip(a.shape, b.shape, strict=True))
    batch = [i for i, pair in enumerate(pairs) if pair == (2, 3)]
    position = [i for i, pair in enumerate(pairs) if pair == (5, 7)]
    return (batch[0], position[0]) if len(batch) == len(position) == 1 else None


def pick(array: mx.array, batch: int, position: int, index: mx.array) -> mx.array:
    """Rows at flat (batch, position) indices: they go to the batch axis, the position axis becomes 1 long."""
    order = [batch, position, *(i for i in range(array.ndim) if i not in (batch, position))]
    flat = array.transpose(order)
    flat = flat.reshape(-1, 1, *flat.shape[2:])[index]
    return flat.transpose([order.index(i) for i in range(array.ndim)])
