"""Changes of the residual stream, made while the model runs: what comes after is computed from them.

In: `Edit`s. Out: a context in which the model's blocks end in the changed streams. A change is made at the
block's output, so the lens sees it, and so does everything downstream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np

from ..errors import NotMeasurable, UsageError
from ..wording import shown
from . import places, states
from .hooks import Call, Hook, evaluating, first_array, observed
from .residual import ResidualStream, blocks, model_type, some_tokens

Rule = Callable[[mx.array, Sequence[int]], mx.array]
"""`rule(stream, prompts)` gives what stands in place of `stream [prompt, position, hidden]`; `prompts` are
the indices, among those given to the lens, of its rows."""


@dataclass(frozen=True)
class Edit:
    """One change: after a block (`13`, `"L13"`; `"embedding"` is before the first), at a position.

    `position` counts from the start, or from the end if it is negative; `"all"` changes every one. `rule`
    comes from `emergence.interventions`, or is a function of your own.
    """

    layer: int | str
    position: int | str
    rule: Rule


def settled(stream: ResidualStream, edits: Sequence[Edit]) -> dict[int, list[Edit]]:
    """The edits by layer (-1 is before the first block), in the order in which they were given.

    Raises
    ------
    UsageError
        There is no such layer, or a position that is neither a number nor "all".
    NotMeasurable
        The stream of this family cannot be changed so that the model goes on from it.
    """
    found: dict[int, list[Edit]] = {}
    for edit in edits:
        (point,) = places.points([edit.layer], stream.n_layers)
        if not point.block:
            raise UsageError(f"layer={shown(edit.layer)}: edits are made after a block; name L{point.layer}")
        if edit.position != "all" and not places.is_whole(edit.position):
            raise UsageError(f"position={shown(edit.position)}: give a number, or 'all'")
        found.setdefault(point.layer, []).append(edit)
    if found:
        require_editable(stream)
    return found


def require_editable(stream: ResidualStream) -> None:
    """Prove that what follows a block depends on its stream alone; raise `NotMeasurable` otherwise.

    Three prompts that are given the streams of three others at all positions of any layer must have the
    others' logits, to the last bit.
    """
    if stream.is_editable:
        return
    name = model_type(stream.model)
    if not (stream.one_array and stream.calls_each_block_once):
        raise NotMeasurable(f"{name}: its blocks pass on more than one stream, so none can be changed alone")
    base = some_tokens(stream.n_ids)
    source = (base + 1) % stream.n_ids
    with evaluating(stream.model):
        seen, own = stream.look(source)
        for layer, state in ((-1, seen.before), *enumerate(seen.states)):
            edit = Edit(layer, "all", partial(_given, states.stream_of(state)))
            with changing(stream, {layer: [edit]}, range(len(base))):
                found = stream.model(base)
            if not np.array_equal(np.array(found.astype(mx.float32)), np.array(own.astype(mx.float32))):
                raise NotMeasurable(
                    f"{name}: its blocks pass on more than the stream: with another prompt's stream at every "
                    "position it does not say what that prompt says"
                )
    stream.is_editable = True


def _given(streams: mx.array, stream: mx.array, prompts: Sequence[int]) -> mx.array:
    return streams[mx.array(list(prompts))]


@contextmanager
def changing(stream: ResidualStream, edits: dict[int, list[Edit]], batch: Sequence[int]) -> Iterator[None]:
    """Make the changes in the passes of the model inside, whose rows are the prompts of `batch`."""
    own = blocks(stream.model)
    hooks: list[tuple[Any, Hook]] = []
    if -1 in edits:  # first: of two hooks of one module the first counts
        hooks.append((own[0], partial(_before, edits, batch)))
    hooks += [(own[layer], partial(_after, some, batch)) for layer, some in edits.items() if layer >= 0]
    with observed(hooks):
        yield


def _after(
    edits: Sequence[Edit], batch: Sequence[int], call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    state = call(*args, **kwargs)
    return states.with_stream(state, _changed(states.stream_of(state), edits, batch))


def _before(
    edits: dict[int, list[Edit]],
    batch: Sequence[int],
    call: Call,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """The first block, given another stream; an edit after it is made here too, for a module has one hook."""
    given = first_array(args, kwargs)
    changed = _changed(given, edits[-1], batch)
    args = tuple(changed if a is given else a for a in args)
    kwargs = {name: changed if a is given else a for name, a in kwargs.items()}
    state = call(*args, **kwargs)
    return states.with_stream(state, _changed(states.stream_of(state), edits.get(0, ()), batch))


def _changed(stream: mx.array, edits: Sequence[Edit], batch: Sequence[int]) -> mx.array:
    length = stream.shape[1]
    for edit in edits:
        if edit.position == "all":
            stream = edit.rule(stream, batch).astype(stream.dtype)
            continue
        (at,) = places.positions(edit.position, length, batch[0])
        new = edit.rule(stream[:, at : at + 1], batch).astype(stream.dtype)
        parts = [part for part in (stream[:, :at], new, stream[:, at + 1 :]) if part.shape[1]]
        # Of one position nothing of the old stream is left: what it took to compute it then costs nothing.
        stream = parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=1)
    return stream
