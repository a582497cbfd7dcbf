"""The kinds of residual streams: blocks that are called or unrolled, and states of several streams.

In: a model. Out: its `ResidualStream`, chosen by what the model's forward pass does, never by its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..errors import NotMeasurable
from . import states
from .difference import tolerance
from .hooks import Call, at, evaluating, first_array, observed
from .residual import (
    FAILURES,
    ResidualStream,
    Seen,
    blocks,
    dtype,
    last_layer,
    model_type,
    require_numbers,
    some_tokens,
    zeros,
)
from .states import handles


def find(model: nn.Module) -> ResidualStream:
    """The kind of stream that a model has, told by what its forward pass does, never by its name.

    Raises
    ------
    NotMeasurable
        The model has no blocks, calls none of them, or its forward pass fails.
    BrokenExperiment
        Its logits are NaN.
    """
    with evaluating(model):
        ordinary = BlockStream(model)
        if not ordinary.n_layers:
            return UnrolledStream(model)
        return ordinary if ordinary.decides_the_logits() else WholeStateStream(model)


class BlockStream(ResidualStream):
    """The usual model: blocks are called, and the stream is the first thing that each returns."""

    seen_as = "blocks"

    def __init__(self, model: nn.Module):
        self._skips_blocks = False
        super().__init__(model)

    def decides_the_logits(self) -> bool:
        """Whether the last block's stream, unembedded, is what the model says."""
        seen, logits = self.look(some_tokens(self.n_ids))
        require_numbers(self.model, logits)
        return last_layer(self, seen.states[-1], logits) <= tolerance(dtype(seen))

    def _swap(
        self, state: Any, calls: Iterator[int], call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        is_last = next(calls) >= self.n_layers
        if self._skips_blocks:
            return handles(state) if is_last else first_array(args, kwargs)
        own = call(*args, **kwargs)
        return states.with_stream(own, handles(state)) if is_last else own

    def _move(
        self,
        by: Sequence[mx.array],
        calls: Iterator[int],
        last: list[mx.array],
        call: Call,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        own = call(*args, **kwargs)
        if (layer := next(calls)) < len(by):
            own = states.with_stream(own, states.stream_of(own).astype(mx.float32) + by[layer])
        last.append(states.stream_of(own))
        return own

    def _settle(self, seen: Seen) -> None:
        plain = all(isinstance(state, mx.array) for state in seen.states)
        self._skips_blocks = bool(seen.states) and plain and self._is_same_without_blocks(seen)

    def _is_same_without_blocks(self, seen: Seen) -> bool:
        """Whether `unembed` gives the same if no block is called: that saves 0.2 ms a block."""
        state = self.pick(seen.states[-1], mx.arange(2))
        right = self.unembed(state)
        try:
            self._skips_blocks = True
            found = self.unembed(state)
            return found.shape == right.shape and bool(mx.array_equal(found, right, equal_nan=True))
        except FAILURES:
            return False  # something looks at what the blocks left behind
        finally:
            self._skips_blocks = False


class UnrolledStream(ResidualStream):
    """A model that runs the parts of its blocks by itself: the stream is what each first part is given.

    So block i's stream is seen where block i + 1 begins, and the last one's at the final norm.
    """

    seen_as = "unrolled"

    def __init__(self, model: nn.Module):
        self._first_part, self._final = _unrolled_parts(model)
        super().__init__(model)

    @property
    def calls_each_block_once(self) -> bool:
        """A block itself is never called."""
        return False

    def _sites(self) -> list[nn.Module]:
        return [*(at(block, self._first_part) for block in blocks(self.model)), at(self.model, self._final)]

    def _see(self, seen: Seen, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        begins = seen.before is None or len(seen.states) == self.n_layers > 0
        stream = self._enter(seen, args, kwargs)
        if not begins:
            seen.add(stream)
        return call(*args, **kwargs)

    def _swap(
        self, state: Any, calls: Iterator[int], call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        is_final = next(calls) > self.n_layers
        return call(handles(state), *args[1:], **kwargs) if is_final else call(*args, **kwargs)

    def _move(
        self,
        by: Sequence[mx.array],
        calls: Iterator[int],
        last: list[mx.array],
        call: Call,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        stream = first_array(args, kwargs)
        if 0 < (begun := next(calls)) <= len(by):
            stream += by[begun - 1]  # in place: the model goes on with the very handle that it passes here
        last.append(handles(stream))
        return call(*args, **kwargs)


class WholeStateStream(ResidualStream):
    """A model whose logits depend on all that a block returns, such as the four streams of `gemma3n`.

    Two passes of different sizes show which axis of each array counts prompts, and which positions.
    """

    seen_as = "whole state"
    one_array = False

    def __init__(self, model: nn.Module):
        super().__init__(model)
        sizes = [self.look(zeros(*size))[0].states[-1] for size in ((2, 5), (3, 7))]
        self._axes = [self._two_axes(a, b) for a, b in zip(*map(states.arrays, sizes), strict=True)]

    @property
    def starts_as_a_state(self) -> bool:
        """Before the first block one array is seen; it is a state where a state is one array."""
        return len(self._axes) == 1

    def pick(self, state: Any, index: mx.array) -> Any:
        """As `ResidualStream.pick`, of every array in the state."""
        found, rebuild = states.flatten(state)
        return rebuild([states.pick(a, *axes, index) for a, axes in zip(found, self._axes, strict=True)])

    def unembed_each(self, layers: list[Any]) -> mx.array:
        """As `ResidualStream.unembed_each`, a layer at a time."""
        return mx.stack([self.unembed(state)[:, 0] for state in layers])

    def _two_axes(self, a: mx.array, b: mx.array) -> tuple[int, int]:
        found = states.axes(a, b)
        if found is None:
            raise NotMeasurable(
                f"{model_type(self.model)}: its unembedding depends on a state of shape {a.shape}, "
                "not one row a prompt and position"
            )
        return found

    def _swap(
        self, state: Any, calls: Iterator[int], call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        is_last = next(calls) >= self.n_layers
        own = call(*args, **kwargs)
        return handles(state) if is_last else own

    def _n_places(self, state: Any) -> int:
        return int(states.arrays(state)[0].shape[self._axes[0][0]])


def _unrolled_parts(model: nn.Module) -> tuple[str, str]:
    """The first part of a block that the model calls by itself, and the first module after all blocks."""
    calls: list[str] = []
    named = dict(model.named_modules())  # type: ignore[no-untyped-call]
    names = {id(m): n for n, m in named.items()}
    with observed([(m, partial(_note, calls, n)) for n, m in named.items()]):
        model(zeros(1, 2))
    own = [names[id(b)] + "." for b in blocks(model) if id(b) in names]
    inside = [i for i, name in enumerate(calls) if any(name.startswith(prefix) for prefix in own)]
    if not inside or inside[-1] + 1 == len(calls):
        raise NotMeasurable(
            f"{model_type(model)}: its forward pass calls none of its blocks, so there is no stream to see"
        )
    first = next(calls[inside[0]].removeprefix(p) for p in own if calls[inside[0]].startswith(p))
    return first, calls[inside[-1] + 1]


def _note(calls: list[str], name: str, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    calls.append(name)
    return call(*args, **kwargs)
