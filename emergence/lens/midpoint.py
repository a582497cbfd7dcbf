"""Finds the point of a block between attention and feed-forward part, where the family has one.

In: a `ResidualStream`. Out: by block, the part of it whose input is that point. Found by numbers, not by
names: a part is called with a stream `u` that is not the block's input, and what the block still adds to `u`
is what a later part returns, up to a scale. A block that adds both at once (cohere, phi) has no such point,
nor has one of a single part (mamba).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from . import states
from .hooks import Call, first_array, observed
from .kinds import BlockStream
from .residual import ResidualStream, blocks
from .states import stream_of

Called = tuple[str, Any, Any]
"""A part's name, the first array it was given, and what it returned."""
_PARALLEL = {"float32": 1e-3}
"""Largest sine of the angle between what is added and what a part returned, by dtype of the stream; 3e-2 in
half precision, where adding rounds."""


def find(stream: ResidualStream) -> dict[int, str]:
    """By index in `model.layers`, the path of the part that is given the midpoint, if there is one.

    In a llama, `{0: "post_attention_layernorm", 1: ...}`.
    """
    if not isinstance(stream, BlockStream):
        return {}
    own = blocks(stream.model)
    calls: list[list[Called]] = [[] for _ in own]
    parts = [
        (part, partial(_note, calls[i], name)) for i, block in enumerate(own) for name, part in _parts(block)
    ]
    tokens = mx.array(np.random.default_rng(1).integers(0, stream.n_ids, (1, 4)))
    with observed(parts), stream.observe() as seen:
        stream.model(tokens)
    befores = [seen.before, *map(stream_of, seen.states)]
    mx.eval(seen.states, [states.arrays((u, out)) for of_block in calls for _, u, out in of_block])
    found = {i: _midpoint(calls[i], befores[i], stream_of(seen.states[i])) for i in range(len(own))}
    return {i: path for i, path in found.items() if path}


def _parts(block: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, part) for name, part in block.named_modules() if name]  # type: ignore[no-untyped-call]


def _note(calls: list[Called], name: str, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = states.handles(first_array(args, kwargs))
    place = len(calls)
    calls.append((name, given, None))
    returned = call(*args, **kwargs)
    calls[place] = (name, given, states.handles(returned))
    return returned


def _midpoint(calls: list[Called], before: mx.array, after: mx.array) -> str | None:
    start, end = _flat(before), _flat(after)
    seen = [(name, _flat(u), _flat(stream_of(out))) for name, u, out in calls]
    sine = _PARALLEL.get(str(after.dtype).removeprefix("mlx.core."), 3e-2)
    for place, (name, u, _) in enumerate(seen):
        if u is None or u.shape != end.shape or np.array_equal(u, start):
            continue
        rest = end - u
        if any(
            out is not None and out.shape == end.shape and _sine(rest, out) < sine
            for _, _, out in seen[place:]
        ):
            return name
    return None


def _flat(array: Any) -> Any:
    if not isinstance(array, mx.array) or not mx.issubdtype(array.dtype, mx.floating):
        return None
    return np.array(array.astype(mx.float32), dtype=np.float64).ravel()


def _sine(a: np.ndarray, b: np.ndarray) -> float:
    size = float(np.linalg.norm(b))
    if size == 0:
        return 1.0
    along = b / size
    return float(np.linalg.norm(a - (a @ along) * along) / (np.linalg.norm(a) or 1.0))
