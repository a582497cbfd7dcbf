"""The residual stream of a model: seen in its own forward pass, read out by its own unembedding.

In: any mlx-lm model object. Out: the base of a `ResidualStream` (see `kinds.find` for the one of a model),
which hands out the state after every block of a real pass (`observe`), and the logits that the model itself
would give had its last block ended in a given state (`unembed`: final norm, head, logit scale, soft-cap,
whatever the family has).

No arithmetic of a family is written here. `observe` lets the model run and looks. `unembed` lets the model
run on one throw-away token and puts the given state in place of what the last block returns; MLX is lazy, so
what the blocks did is never computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, ClassVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..errors import BrokenExperiment, NotMeasurable
from ..wording import first_line
from . import states
from .difference import difference
from .hooks import Call, Hook, at, first_array, observed
from .states import handles, stream_of

FAILURES = (RuntimeError, ValueError, TypeError, LookupError, AttributeError)
"""What a model raises that cannot run as it was asked to."""


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


def some_tokens(n_ids: int) -> mx.array:
    """Three arbitrary prompts of five tokens, always the same: what a model is tried on."""
    return mx.array(np.random.default_rng(0).integers(0, n_ids, (3, 5)))


def require_numbers(model: nn.Module, logits: mx.array) -> None:
    """Raise BrokenExperiment where logits are NaN."""
    if mx.isnan(logits).any():
        raise BrokenExperiment(
            f"{model_type(model)}: the model's logits are NaN; its weights are damaged or have diverged"
        )


class _Enough(Exception):
    """All that was asked for has been seen: the rest of the pass is not run."""


@dataclass
class Seen:
    """The latest pass: the state after each block, and the stream before the first."""

    states: list[Any]
    before: mx.array | None
    middles: dict[int, mx.array]
    """By layer, the stream between attention and feed-forward part, where that was asked for."""
    last: int | None = None
    """The layer after which a pass ends; None lets the model run to its end."""

    def add(self, state: Any) -> None:
        """A block has ended in this state."""
        self.states.append(state)
        if self.last is not None and len(self.states) > self.last:
            raise _Enough

    def reset(self) -> None:
        """A new pass begins."""
        self.states.clear()
        self.middles.clear()
        self.before = None


class Streams(Sequence[mx.array]):
    """The streams `[batch, position, hidden]` after each block of the latest pass."""

    def __init__(self, seen: Seen):
        self._seen = seen

    def __len__(self) -> int:
        return len(self._seen.states)

    def __getitem__(self, layer: Any) -> Any:
        return stream_of(self._seen.states[layer])


class ResidualStream:
    """A model's residual stream; see the module. The kinds that there are: `kinds`.

    `n_layers` counts the blocks as they run: a model that runs its four blocks twice has eight layers.
    `vocab` is the number of its logits, `n_ids` that of the ids that its embedding has rows for. What `pick`
    gives and `unembed` takes is a *state* at some places: the stream `[place, 1, hidden]`, or all that a
    block returns (`one_array` is False then).
    """

    seen_as: ClassVar[str]
    """How the stream is observed, for a `Proof`."""
    one_array: ClassVar[bool] = True
    """Whether the unembedding depends on the stream alone."""
    is_editable = False
    """Whether it has been proven that the stream can be changed; see `edits`."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.n_layers = 0  # until a pass of the model has shown how often its blocks run
        seen, logits = self.look(zeros(1, 2))
        self.n_layers, self.vocab = len(seen.states), int(logits.shape[-1])
        self.n_ids = _embedding_rows(model) or self.vocab
        self._settle(seen)

    @property
    def calls_each_block_once(self) -> bool:
        """Whether each block is called once a pass, so that a hook on block 13 sees `L13`."""
        return self.n_layers == len(blocks(self.model))

    @property
    def starts_as_a_state(self) -> bool:
        """Whether the stream before the first block can be unembedded as those after the blocks are."""
        return True

    @contextmanager
    def observe(self, middles: Mapping[int, str] | None = None, last: int | None = None) -> Iterator[Seen]:
        """Holds the latest pass of the model inside: lazy, and the very arrays the model goes on with.

        `middles`: by block, the part whose input is held too (see `midpoint.find`). `last`: the `with` ends
        once the model has run that layer; it costs nothing to read early layers alone.
        """
        seen = Seen([], None, {}, last)
        hooks: list[tuple[nn.Module, Hook]] = [(m, partial(self._see, seen)) for m in self._sites()]
        hooks.append((self.model, partial(_begin, seen)))
        if middles:
            own = blocks(self.model)
            hooks += [(at(own[i], path), partial(_see_middle, seen)) for i, path in middles.items()]
        with suppress(_Enough), observed(hooks):
            yield seen

    def moved(self, tokens: mx.array, by: Sequence[mx.array]) -> mx.array:
        """The last block's stream, float32, in a pass that adds `by[i]` to the stream after block i.

        `by` holds float32 arrays `[batch, position, hidden]`, for the first blocks or for all; what is after
        them is computed in float32. Differentiable in `by`: that of a block reaches the last stream by every
        way that the model has.
        """
        last: list[mx.array] = []
        hook = partial(self._move, by, count(), last)
        with observed([(m, hook) for m in self._sites()]):
            self.model(tokens)
        return last[-1].astype(mx.float32)

    def look(self, tokens: mx.array) -> tuple[Seen, mx.array]:
        """One pass, observed, and its logits; raises NotMeasurable where the model cannot run."""
        try:
            with self.observe() as seen:
                logits = self.model(tokens)
        except FAILURES as error:
            reason = first_line(error)
            raise NotMeasurable(
                f"{model_type(self.model)}: its own forward pass fails here: {reason}"
            ) from error
        return seen, logits

    def pick(self, state: Any, index: mx.array) -> Any:
        """The part of a pass's state at flat indices `batch * length + position`, for `unembed`."""
        stream = stream_of(state)
        return stream.reshape(-1, 1, stream.shape[-1])[index]

    def unembed(self, state: Any) -> mx.array:
        """Logits `[place, 1, vocab]` of a state at some places."""
        swap = partial(self._swap, state, count(1))
        with observed([(m, swap) for m in self._sites()]):
            logits: mx.array = self.model(zeros(self._n_places(state), 1))
        return logits

    def unembed_each(self, layers: list[Any]) -> mx.array:
        """Logits `[layer, place, vocab]` of states at the same places, in one readout."""
        logits = self.unembed(mx.concatenate(layers))
        return logits.reshape(len(layers), -1, logits.shape[-1])

    def _sites(self) -> list[nn.Module]:
        """The modules at whose calls the stream is seen, and swapped."""
        return blocks(self.model)

    def _see(self, seen: Seen, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._enter(seen, args, kwargs)
        state = call(*args, **kwargs)
        seen.add(handles(state))
        return state

    def _enter(self, seen: Seen, args: tuple[Any, ...], kwargs: dict[str, Any]) -> mx.array:
        """The stream that a site is called with; a pass begins with the first site."""
        if self.n_layers and len(seen.states) == self.n_layers:
            seen.reset()
        stream: mx.array = handles(first_array(args, kwargs))
        if seen.before is None:
            seen.before = stream
        return stream

    def _swap(
        self, state: Any, calls: Iterator[int], call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Let the sites run, `next(calls)` counting from 1, but for where the state is put in."""
        raise NotImplementedError

    def _move(
        self,
        by: Sequence[mx.array],
        calls: Iterator[int],
        last: list[mx.array],
        call: Call,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Let the sites run, `next(calls)` counting from 0, and add `by` where a block has ended."""
        raise NotImplementedError

    def _settle(self, seen: Seen) -> None:
        """What a kind learns from the first pass, of two tokens."""

    def _n_places(self, state: Any) -> int:
        return int(state.shape[0])


def last_layer(stream: ResidualStream, last: Any, logits: mx.array) -> float:
    """How far the last state of a pass, its places rearranged as rows, is from the pass's own logits."""
    rows = logits.shape[0] * logits.shape[1]
    read = stream.unembed(states.as_float32(stream.pick(last, mx.arange(rows))))
    return difference(read, logits)


def dtype(seen: Seen) -> str:
    """Dtype of the residual stream, such as `float32`."""
    return str(stream_of(seen.states[-1]).dtype).removeprefix("mlx.core.")


def _embedding_rows(model: nn.Module) -> int:
    """Rows of the first embedding that is called with the ids themselves; 0 where none is.

    The ids 1, 0 are told from positions, which an embedding may be called with too.
    """
    rows: list[int] = []

    def note(module: nn.Module, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = first_array(args, kwargs)
        if not rows and given is not None and given.reshape(-1).tolist() == [1, 0]:
            rows.append(len(module["weight"]))
        return call(*args, **kwargs)

    every = model.modules()  # type: ignore[no-untyped-call]
    found = [m for m in every if isinstance(m, (nn.Embedding, nn.QuantizedEmbedding))]
    with observed([(m, partial(note, m)) for m in found]):
        model(mx.array([[1, 0]]))
    return rows[0] if rows else 0


def zeros(batch: int, length: int) -> mx.array:
    """As many tokens, all of id 0."""
    return mx.zeros((batch, length), dtype=mx.int32)


def _begin(seen: Seen, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    seen.reset()
    return call(*args, **kwargs)


def _see_middle(seen: Seen, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    seen.middles.setdefault(len(seen.states), handles(first_array(args, kwargs)))
    return call(*args, **kwargs)
