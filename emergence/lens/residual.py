"""Observes the residual stream of a model's own forward pass, and runs the model's own tail.

In: any mlx-lm model object. Out: the state after every block of a real pass, and the logits the model
itself would give if its last block had ended in a given state (final norm, head, logit scale, soft-cap:
whatever the family has).

Nothing is recomputed here: `observe` lets the model run and looks; `finish` lets the model run on
throw-away tokens and swaps the last block's output. MLX is lazy, so what the swap makes unreachable is
never evaluated.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..errors import NotMeasurable

Call = Callable[..., Any]
Hook = Callable[[Call, tuple[Any, ...], dict[str, Any]], Any]
"""`hook(call, args, kwargs)` stands in for a module's call; `call(*args, **kwargs)` is the real one."""


@contextmanager
def observed(hooks: Sequence[tuple[nn.Module, Hook]]) -> Iterator[None]:
    """Every call of these instances goes through their hook; other instances of their types are left alone.

    Python looks `__call__` up on the type, so each instance gets a subclass of its own type for the while;
    restored on exit, also after an exception. May be nested. An instance listed twice is hooked once.
    """
    before = {id(m): (m, type(m), hook) for m, hook in reversed(hooks)}
    try:
        for module, cls, hook in before.values():
            module.__class__ = _through(cls, hook)
        yield
    finally:
        for module, cls, _ in before.values():
            module.__class__ = cls


def _through(cls: type, hook: Hook) -> type:
    called = {"__call__": lambda self, *args, **kwargs: hook(partial(cls.__call__, self), args, kwargs)}
    return type(cls.__name__, (cls,), called | {"__module__": cls.__module__})


def model_type(model: nn.Module) -> str:
    """mlx-lm's name of the architecture, or the class's name."""
    return str(getattr(model, "model_type", None) or type(model).__name__)


def blocks(model: nn.Module) -> list[nn.Module]:
    """The model's blocks in order, where mlx-lm keeps them (`model.layers`), looked up anew each time.

    Raises
    ------
    NotMeasurable
        There are none, or they are not modules.
    """
    found = getattr(model, "layers", None)
    found = getattr(found, "layers", found)
    if not isinstance(found, list) or not found or not all(isinstance(b, nn.Module) for b in found):
        raise NotMeasurable(
            f"{model_type(model)}: it has no list of blocks called `layers`, so there is no stream to see"
        )
    return found


@dataclass
class Seen:
    """The latest pass: the state after each block, and the stream before the first."""

    states: list[Any]
    before: mx.array | None
    middles: dict[int, mx.array]
    """By layer, the stream between attention and feed-forward part, where that was asked for."""

    def reset(self) -> None:
        """A new pass begins."""
        self.states.clear()
        self.middles.clear()
        self.before = None


class Trunk:
    """Where a model's residual stream is seen, and how its tail is entered.

    Usually a block is a module that is called, its stream is the first thing it returns, and the tail
    depends on nothing else. Two exceptions are found by looking, not by name: a model that unrolls its
    blocks by hand shows its stream as the input of each block's first part (`unrolled`: that part, and the
    final norm); and a tail may depend on everything a block returns (`whole`: batch and position axis of
    each array in it).

    `n_layers` counts the blocks as they run, so a looped block counts once a pass.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.unrolled: tuple[str, str] | None = None
        self.whole: list[tuple[int, int]] | None = None
        self._idle = False
        self.n_layers = 0
        seen, logits = self._look(1, 2)
        if not seen.states:
            self.unrolled = _find_unrolled(model)
            seen, logits = self._look(1, 2)
        self.n_layers = len(seen.states)
        self.vocab = int(logits.shape[-1])
        self._idle = self._without_blocks(seen)

    @contextmanager
    def observe(self, middles: Mapping[int, str] | None = None) -> Iterator[Seen]:
        """Holds the latest pass of the model inside: lazy, and the very arrays the model goes on with.

        `middles`: by block, the part whose input is held too (see `midpoint.find`).
        """
        seen = Seen([], None, {})
        hooks: list[tuple[nn.Module, Hook]] = [(m, partial(self._see, seen)) for m in self._sites()]
        hooks.append((self.model, partial(_begin, seen)))
        if middles:
            own = blocks(self.model)
            hooks += [(at(own[i], path), partial(_see_middle, seen)) for i, path in middles.items()]
        with observed(hooks):
            yield seen

    def _see(self, seen: Seen, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.n_layers and len(seen.states) == self.n_layers:
            seen.reset()
        stream = handles(first_array(args, kwargs))
        if seen.before is None:
            seen.before = stream
        elif self.unrolled:
            seen.states.append(stream)
        state = call(*args, **kwargs)
        if not self.unrolled:
            seen.states.append(handles(state))
        return state

    def finish(self, state: Any) -> mx.array:
        """Logits `[row, 1, vocab]` of the tail on a stream `[row, 1, hidden]`, or on a whole state."""
        swap = partial(self._swap, state, count(1))
        with observed([(m, swap) for m in self._sites()]):
            logits: mx.array = self.model(_tokens(self._rows(state), 1))
        return logits

    def _swap(
        self, state: Any, calls: Iterator[int], call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Lets all blocks run but for what the last one ends in; none if the tail is the same without."""
        place = next(calls)
        if self._idle and not self.whole:
            return first_array(args, kwargs) if place < self.n_layers else handles(state)
        if self.unrolled and place > self.n_layers:
            return call(handles(state), *args[1:], **kwargs)
        own = call(*args, **kwargs)
        if self.unrolled or place < self.n_layers:
            return own
        return handles(state) if self.whole else _with_stream(own, handles(state))

    def pick(self, state: Any, index: mx.array) -> Any:
        """What `finish` takes, out of a state of a pass, at flat indices `batch * length + position`."""
        if self.whole:
            found, rebuild = _flatten(state)
            return rebuild([_pick(a, *axes, index) for a, axes in zip(found, self.whole, strict=True)])
        stream = stream_of(state)
        return stream.reshape(-1, 1, stream.shape[-1])[index]

    def _without_blocks(self, seen: Seen) -> bool:
        """Whether `finish` gives the same if no block is called: a fifth of a millisecond each is saved."""
        if self.unrolled or not all(isinstance(state, mx.array) for state in seen.states):
            return False
        state = self.pick(seen.states[-1], mx.arange(2))
        right = self.finish(state)
        try:
            self._idle = True
            found = self.finish(state)
            return found.shape == right.shape and bool(mx.array_equal(found, right, equal_nan=True))
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError):
            return False  # something looks at what the blocks left
        finally:
            self._idle = False

    def take_whole(self) -> None:
        """From now on the tail is given everything a block returns; two passes show its axes."""
        (a, _), (b, _) = self._look(2, 5), self._look(3, 7)
        first, second = _flatten(a.states[-1])[0], _flatten(b.states[-1])[0]
        self.whole = [_axes(model_type(self.model), x, y) for x, y in zip(first, second, strict=True)]

    def _look(self, batch: int, length: int) -> tuple[Seen, mx.array]:
        try:
            with self.observe() as seen:
                logits = self.model(_tokens(batch, length))
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            reason = str(error).splitlines()[0]
            raise NotMeasurable(
                f"{model_type(self.model)}: its own forward pass fails here: {reason}"
            ) from error
        return seen, logits

    def _rows(self, state: Any) -> int:
        return int(_flatten(state)[0][0].shape[self.whole[0][0]]) if self.whole else int(state.shape[0])

    def _sites(self) -> list[nn.Module]:
        if self.unrolled is None:
            return blocks(self.model)
        part, final = self.unrolled
        return [*(at(block, part) for block in blocks(self.model)), at(self.model, final)]


def _begin(seen: Seen, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    seen.reset()
    return call(*args, **kwargs)


def _see_middle(seen: Seen, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    seen.middles.setdefault(len(seen.states), handles(first_array(args, kwargs)))
    return call(*args, **kwargs)


def stream_of(state: Any) -> Any:
    """The residual stream in what a block returns: itself, or the first of a tuple."""
    return state[0] if isinstance(state, (tuple, list)) else state


def handles(state: Any) -> Any:
    """The same arrays behind new handles: `h += r` and `h[0] = x` change the handle they are given."""
    found, rebuild = _flatten(state)
    return rebuild([mx.reshape(a, a.shape) for a in found])


def _with_stream(state: Any, stream: mx.array) -> Any:
    return (stream, *state[1:]) if isinstance(state, (tuple, list)) else stream


def _tokens(batch: int, length: int) -> mx.array:
    return mx.zeros((batch, length), dtype=mx.int32)


def first_array(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first array that a module is called with."""
    return next((a for a in (*args, *kwargs.values()) if isinstance(a, mx.array)), None)


def at(module: nn.Module, path: str) -> nn.Module:
    """The module that `named_modules` calls by this path."""
    for name in path.split("."):
        module = module[int(name)] if isinstance(module, list) else getattr(module, name)
    return module


def _find_unrolled(model: nn.Module) -> tuple[str, str]:
    """The first part of a block that the model calls by itself, and the first module after all blocks."""
    calls: list[str] = []
    named = dict(model.named_modules())  # type: ignore[no-untyped-call]
    names = {id(m): n for n, m in named.items()}
    with observed([(m, partial(_note, calls, n)) for n, m in named.items()]):
        model(_tokens(1, 2))
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


def _flatten(state: Any) -> tuple[list[mx.array], Callable[[list[mx.array]], Any]]:
    """The arrays in a state, and how to put others in their place."""
    if isinstance(state, mx.array):
        return [state], lambda arrays: arrays[0]
    if isinstance(state, (tuple, list)):
        parts = list(enumerate(state))
    elif hasattr(state, "__dict__"):
        parts = list(vars(state).items())
    else:
        return [], lambda arrays: state
    flat = {key: _flatten(value) for key, value in parts}
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


def _axes(name: str, a: mx.array, b: mx.array) -> tuple[int, int]:
    """Batch and position axis of an array, from its shapes in passes of (2, 5) and (3, 7) tokens."""
    batch = [i for i, pair in enumerate(zip(a.shape, b.shape, strict=True)) if pair == (2, 3)]
    position = [i for i, pair in enumerate(zip(a.shape, b.shape, strict=True)) if pair == (5, 7)]
    if len(batch) != 1 or len(position) != 1:
        raise NotMeasurable(
            f"{name}: its tail depends on a state of shape {a.shape}, not one row a prompt and position"
        )
    return batch[0], position[0]


def _pick(array: mx.array, batch: int, position: int, index: mx.array) -> mx.array:
    """Rows at flat (batch, position) indices: they go to the batch axis, the position axis becomes 1 long."""
    order = [batch, position, *(i for i in range(array.ndim) if i not in (batch, position))]
    flat = array.transpose(order)
    flat = flat.reshape(-1, 1, *flat.shape[2:])[index]
    return flat.transpose([order.index(i) for i in range(array.ndim)])


def as_float32(state: Any) -> Any:
    """The state with its floating arrays in float32."""
    found, rebuild = _flatten(state)
    return rebuild([a.astype(mx.float32) if mx.issubdtype(a.dtype, mx.floating) else a for a in found])


def arrays(state: Any) -> list[mx.array]:
    """The arrays in a state."""
    return _flatten(state)[0]
