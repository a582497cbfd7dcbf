"""Reads a model's residual stream out through the model's own tail, layer by layer.

In: any mlx-lm model object, token ids. Out: logits, streams, or a `LensReading`: NumPy arrays, axes [layer,
prompt, ...]. The blocks are observed in the model's own forward pass, masks and all, and read out by the
model's own final norm, head, logit scale and soft-cap, so no code is specific to a family. nostalgebraist
(2020), "interpreting GPT: the logit lens".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from jaxtyping import Float

from ..backend import numpy_ops
from ..errors import BrokenExperiment, NotMeasurable, UsageError
from . import distribution, midpoint, proof, residual
from .drawing import Drawing, draw
from .proof import Proof, prove
from .reading import LensReading
from .unembed import Head

Tokens = Sequence[Sequence[int]]
__all__ = ["LensReading", "LogitLens", "Proof", "prove"]

Layers = Sequence[int | str]
Positions = str | int | Sequence[int]
FORWARD_TOKENS = 512
"""Tokens that go through the model together; at least one prompt."""
LOGITS_BYTES = 30_000_000
"""Logits that exist at a time, at least one place's at all layers; glibc maps anew what is above 32 MB."""
ROWS = 1024
"""Rows of logits computed together where the vocabulary can be cut: the head is read once for each."""


class LogitLens:
    """A lens on a model, proven on a few short prompts when it is made (`.proof`).

    The readout is in float32 whatever the model computes in: streams are cast to float32 before the tail,
    and MLX promotes norm and head to it; only what a tail casts by itself stays so. `vocab_size` (the
    tokenizer's) leaves rows that pad the head out of every distribution. Adapters may come and go under a
    lens: blocks are looked up anew.

    Raises
    ------
    NotMeasurable
        The model's blocks cannot be seen, or its tail does not reproduce its logits.
    BrokenExperiment
        The model computes NaN.
    """

    def __init__(self, model: nn.Module, vocab_size: int | None = None):
        self.model = model
        self.trunk = residual.Trunk(model)
        self.n_layers = self.trunk.n_layers
        self.head_size = self.trunk.vocab
        self.head = Head(self.trunk)
        if vocab_size is not None and not 0 < vocab_size <= self.head_size:
            raise UsageError(f"vocab_size={vocab_size}: the model's head has {self.head_size} rows")
        self.vocab_size = vocab_size or self.head_size
        self._midpoints: dict[int, str] | None = None
        self.proof = self.verify()

    def verify(self, tokens: Tokens | None = None) -> Proof:
        """Prove the lens on these prompts; see `proof.verify`."""
        return proof.verify(self.trunk, tokens)

    @contextmanager
    def capture(self) -> Iterator[Streams]:
        """Records each block's stream `[batch, position, hidden]` in the latest pass of the model inside.

        Lazy and differentiable: the arrays are the very ones the model goes on with, so that a loss may use
        them.
        """
        with self.trunk.observe() as seen:
            yield Streams(seen)

    def tail(self, hidden: mx.array) -> mx.array:
        """Logits `[..., vocab]` if the last block ended in `hidden [..., hidden]`; differentiable.

        The model's own final norm, head, logit scale and soft-cap, in the dtype that `hidden` and the
        model's weights promote to.
        """
        self._require_plain("a tail of one stream")
        logits = self.trunk.finish(hidden.reshape(-1, 1, hidden.shape[-1]))
        return logits.reshape(*hidden.shape[:-1], -1)

    def logits(self, tokens: Tokens, layers: Layers | None = None) -> Float[np.ndarray, "layer prompt vocab"]:
        """Logits at the last position of each prompt, float32; the last layer's are the model's own."""
        which, prompts = self._points(layers), self._prompts(tokens)
        found = np.empty((len(which), len(prompts), self.head_size), np.float32)
        at_once = max(1, LOGITS_BYTES // (4 * self.head_size))
        for places, states in self._passes(prompts, "last", which):
            for row, point in enumerate(which):
                for part in _slices(len(places), at_once):
                    index = mx.arange(part.start, part.stop)
                    z = self._finish([self.trunk.pick(states[point], index)])
                    found[row, [p.prompt for p in places[part]]] = np.array(z[0].astype(mx.float32))
        _require_numbers(found, which)
        return found

    def streams(
        self, tokens: Tokens, layers: Layers | None = None
    ) -> Float[np.ndarray, "layer prompt hidden"]:
        """Residual streams at the last position of each prompt, float32."""
        self._require_plain("its streams")
        which, prompts = self._points(layers), self._prompts(tokens)
        parts = [
            (places, np.stack([np.array(states[i])[:, 0] for i in which]))
            for places, states in self._passes(prompts, "last", which)
        ]
        found = np.empty((len(which), len(prompts), parts[0][1].shape[-1]), np.float32)
        for places, rows in parts:
            found[:, [p.prompt for p in places]] = rows
        _require_numbers(found, which)
        return found

    def read(
        self,
        tokens: Tokens,
        token_sets: Mapping[str, Sequence[int]] | None = None,
        top_k: int = 5,
        layers: Layers | None = None,
        positions: Positions = "last",
        token_ids: Sequence[int] = (),
    ) -> LensReading:
        """Statistics of the distributions at every layer, prompt and position asked for; see `LensReading`.

        Memory is bounded by one pass of `FORWARD_TOKENS` tokens, `LOGITS_BYTES` of logits and three times
        one place's share of them a thread; it does not grow with layers × prompts × vocabulary. On the CPU
        logits are taken by blocks of rows and of the vocabulary; on a GPU, with `token_ids` (whose ranks
        need all tokens at once), and for the few families whose head cannot be cut, by blocks of rows, at
        least one place at all layers.
        """
        which = self._points(layers)
        prompts = self._prompts(tokens)
        sets = {name: tuple(int(i) for i in ids) for name, ids in (token_sets or {}).items()}
        self._check_ids(sets, token_ids, top_k)
        wanted = distribution.Wanted(
            self.vocab_size,
            tuple(np.array(ids, dtype=np.int64) for ids in sets.values()),
            np.array(token_ids, dtype=np.int64),
            top_k,
        )
        at = [_positions(positions, len(ids), i) for i, ids in enumerate(prompts)]
        needed = self._with_neighbours(which)
        parts: dict[str, np.ndarray] = {}
        for places, states in self._passes(prompts, positions, needed):
            for rows, group in self._statistics(places, states, which, wanted):
                _require_numbers(rows["entropy"], which)
                for name, values in rows.items():
                    if name not in parts:
                        empty = -1 if values.dtype.kind == "i" else np.nan
                        shape = (len(which), len(prompts), max(map(len, at)), *values.shape[2:])
                        parts[name] = np.full(shape, empty, np.int64 if empty == -1 else np.float32)
                    parts[name][:, [p.prompt for p in group], [p.slot for p in group]] = values
        if positions == "last" or isinstance(positions, int):
            parts = {name: values[:, :, 0] for name, values in parts.items()}
        return LensReading(
            layers=tuple(map(str, which)),
            tokens=prompts,
            positions=tuple(at),
            sets=sets,
            token_ids=tuple(int(i) for i in token_ids),
            left_out=self.head_size - self.vocab_size,
            **parts,
        )

    def show(
        self, prompt: str | Sequence[int], tokenizer: Any, layers: Layers | None = None, chat: bool = False
    ) -> Drawing:
        """Layers × positions of one prompt, the likeliest token in each cell, under the exact tokens fed.

        `print` draws it in the terminal, a notebook as HTML. `chat` puts the prompt in the tokenizer's
        template.
        """
        return draw(self, prompt, tokenizer, layers, chat)

    def _begin(self) -> None:
        """Before each reading; for a lens that fits some weights only."""

    def _translate(self, point: Point, state: Any) -> Any:
        """What goes through the tail for a state at a point, here the state itself."""
        return state

    def _passes(
        self, prompts: Tokens, positions: Positions, needed: Sequence[Point]
    ) -> Iterator[tuple[list[Place], dict[Point, Any]]]:
        """Runs the model and yields the states at the places asked for.

        One evaluation a pass. Only equal lengths share a pass: then nothing depends on how a family treats
        padding.
        """
        self._begin()
        middles = self._middles(needed)
        if Point(-1) in needed and self.trunk.whole and len(self.trunk.whole) > 1:
            self._require_plain("the stream before the first block")
        by_length: dict[int, list[int]] = {}
        for i, ids in enumerate(prompts):
            by_length.setdefault(len(ids), []).append(i)
        for length, members in by_length.items():
            slots = _positions(positions, length, members[0])
            for part in _slices(len(members), max(1, FORWARD_TOKENS // length)):
                batch = members[part]
                with numpy_ops.fast(self.model), self.trunk.observe(middles) as seen:
                    self.model(mx.array([prompts[i] for i in batch]))
                index = mx.array([b * length + p for b in range(len(batch)) for p in slots])
                states = {
                    p: self._translate(p, residual.as_float32(self.trunk.pick(p.of(seen), index)))
                    for p in needed
                }
                seen.reset()  # else the whole pass stays in memory while it is evaluated
                mx.eval(*(a for s in states.values() for a in residual.arrays(s)))
                yield [Place(i, slot) for i in batch for slot in range(len(slots))], states

    def _statistics(
        self,
        places: list[Place],
        states: dict[Point, Any],
        which: Sequence[Point],
        wanted: distribution.Wanted,
    ) -> Iterator[tuple[distribution.Rows, list[Place]]]:
        """Statistics `[layer, place, ...]` of `which` layers for a block of places at a time."""
        layers = sorted(states)
        before = np.array([layers.index(p.previous) if p.previous in states else -1 for p in layers])
        keep = [layers.index(layer) for layer in which]
        on_gpu = mx.default_device() == mx.gpu
        statistics = distribution.on_gpu if on_gpu else distribution.on_cpu
        width = self.head_size
        if not on_gpu and not len(wanted.tokens) and self.head.in_parts():
            width = max(1, LOGITS_BYTES // (4 * min(ROWS, len(places) * len(layers))))
        for part in _slices(len(places), max(1, LOGITS_BYTES // (4 * width * len(layers)))):
            index = mx.arange(part.start, part.stop)
            rows = [self.trunk.pick(states[layer], index) for layer in layers]
            logits = (self._finish(rows, ids) for ids in _slices(self.vocab_size, width))
            found = statistics(logits, wanted, before)
            yield {name: values[keep] for name, values in found.items()}, places[part]

    def _finish(self, states: list[Any], ids: slice | None = None) -> mx.array:
        """Logits `[layer, place, ids]` of states at the same places."""
        if self.trunk.whole:
            return mx.stack([self.trunk.finish(state)[:, 0] for state in states])
        with self.head.only(ids) if ids else nullcontext():
            logits = self.trunk.finish(mx.concatenate(states))
        return logits.reshape(len(states), -1, logits.shape[-1])

    def _require_plain(self, what: str) -> None:
        if self.trunk.whole:
            raise NotMeasurable(
                f"{self.proof.model_type}: {what} cannot be had, its tail depends on more than one stream; "
                "use `logits` or `read`"
            )

    def _points(self, layers: Layers | None) -> list[Point]:
        if layers is None:
            return [Point(i) for i in range(self.n_layers)]
        if not len(layers) or len(set(layers)) < len(layers):
            raise UsageError(f"layers={list(layers)}: give each layer once, and at least one")
        return [self._point(layer) for layer in layers]

    def _point(self, layer: int | str) -> Point:
        if layer == "embedding":
            return Point(-1)
        name = re.fullmatch(r"L(\d+)(\.attn)?", layer) if isinstance(layer, str) else None
        index = int(name[1]) if name else layer
        if isinstance(index, str) or not -self.n_layers <= index < self.n_layers:
            raise UsageError(
                f"layer {layer!r}: the model has 0 to {self.n_layers - 1}, "
                "as numbers or as 'L13', 'L13.attn' or 'embedding'"
            )
        return Point(index % self.n_layers, block=not (name and name[2]))

    def _with_neighbours(self, which: Sequence[Point]) -> list[Point]:
        """The points asked for and what their KL is taken to, in the model's order."""
        before = {p.previous for p in which if p.layer > 0}
        return sorted({*which, *before, Point(self.n_layers - 1)})

    def _middles(self, needed: Sequence[Point]) -> dict[int, str]:
        layers = [p.layer for p in needed if not p.block]
        if not layers:
            return {}
        if self._midpoints is None:
            self._midpoints = midpoint.find(self.trunk)
        n_blocks = len(residual.blocks(self.model))
        missing = [f"L{i}.attn" for i in layers if i % n_blocks not in self._midpoints]
        if missing:
            raise NotMeasurable(
                f"{self.proof.model_type}: {', '.join(missing)}: no distinct point after attention, "
                "the block adds attention and feed-forward part at once or has only one of them"
            )
        return self._midpoints

    def _prompts(self, tokens: Tokens) -> tuple[tuple[int, ...], ...]:
        prompts = tuple(tuple(int(i) for i in ids) for ids in tokens)
        empty = [i for i, ids in enumerate(prompts) if not ids]
        if not prompts or empty:
            raise UsageError(f"prompts without tokens: {empty or 'all'}; a lens needs at least one token")
        wrong = sorted({i for ids in prompts for i in ids if not 0 <= i < self.head_size})
        if wrong:
            raise UsageError(f"token ids {wrong[:5]} are outside the vocabulary of {self.head_size}")
        return prompts

    def _check_ids(self, sets: Mapping[str, tuple[int, ...]], token_ids: Sequence[int], top_k: int) -> None:
        for name, ids in {**sets, "token_ids": tuple(token_ids)}.items():
            wrong = [i for i in ids if not 0 <= i < self.vocab_size]
            if wrong:
                raise UsageError(
                    f"token set {name!r}: ids {wrong[:5]} are outside the vocabulary of {self.vocab_size}"
                )
            if len(set(ids)) < len(ids):
                raise UsageError(f"token set {name!r}: an id occurs twice, its mass would be counted twice")
        if empty := [name for name, ids in sets.items() if not ids]:
            raise UsageError(f"token sets without ids: {', '.join(empty)}; drop them or give them tokens")
        if not 0 < top_k <= self.vocab_size:
            raise UsageError(f"top_k={top_k}: give 1 to {self.vocab_size}")


class Point(NamedTuple):
    """A point of the residual stream: after a block, inside it after attention, or before the first (-1)."""

    layer: int
    block: bool = True

    @property
    def previous(self) -> Point:
        """The layer before."""
        return Point(self.layer - 1)

    def of(self, seen: residual.Seen) -> Any:
        """The state at this point of a pass."""
        if self.layer < 0:
            return seen.before
        return seen.states[self.layer] if self.block else seen.middles[self.layer]

    def __str__(self) -> str:
        return "embedding" if self.layer < 0 else f"L{self.layer}" + ("" if self.block else ".attn")


@dataclass(frozen=True)
class Place:
    """One distribution: a prompt, and the slot on the position axis."""

    prompt: int
    slot: int


class Streams(Sequence[mx.array]):
    """The blocks' streams `[batch, position, hidden]` of the latest pass."""

    def __init__(self, seen: residual.Seen):
        self._seen = seen

    def __len__(self) -> int:
        return len(self._seen.states)

    def __getitem__(self, layer: Any) -> Any:
        return residual.stream_of(self._seen.states[layer])


def _positions(positions: Positions, length: int, prompt: int) -> tuple[int, ...]:
    if isinstance(positions, str):
        if positions not in ("last", "all"):
            raise UsageError(f"positions={positions!r}: give 'last', 'all', a number or a list of numbers")
        return tuple(range(length)) if positions == "all" else (length - 1,)
    asked = (positions,) if isinstance(positions, int) else tuple(positions)
    wrong = [p for p in asked if not -length <= p < length]
    if wrong or not asked:
        raise UsageError(
            f"positions={list(asked)}: prompt {prompt} has {length} tokens, 0 to {length - 1} "
            f"(or -{length} to -1)"
        )
    return tuple(p % length for p in asked)


def _slices(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _require_numbers(values: np.ndarray, which: Sequence[Point]) -> None:
    """Axis 0 of `values` is `which`."""
    bad = np.isnan(values).reshape(len(values), -1).any(1)
    if bad.any():
        first = min(point for point, nan in zip(which, bad, strict=True) if nan)
        raise BrokenExperiment(
            f"the lens reads NaN from {first} on; the weights are damaged or have diverged"
        )
