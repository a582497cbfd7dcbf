"""Reads a model's residual stream out through the model's own unembedding, layer by layer.

In: any mlx-lm model object, prompts as text or ids. Out: logits, streams, or a `LensReading`: NumPy arrays,
axes [layer, prompt, ...]. The blocks are observed in the model's own forward pass, masks and all, and read
out by the model's own final norm, head, logit scale and soft-cap, so no code is specific to a family.
nostalgebraist (2020), "interpreting GPT: the logit lens".
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from jaxtyping import Float

from ..backend import numpy_ops
from ..errors import BrokenExperiment, NotMeasurable, UsageError
from . import distribution, drawing, kinds, midpoint, places, prompts, proof, residual, states
from .distribution_gpu import on_gpu
from .edits import Edit, changing, settled
from .hooks import evaluating
from .places import Layers, Place, Point, Positions
from .prompts import Ids, Prompts, Tokens, TokenSet
from .proof import Proof
from .reading import LensReading
from .residual import Streams
from .unembed import Unembedding

FORWARD_TOKENS = 512
"""Tokens that go through the model together; at least one prompt."""
LOGITS_BYTES = 30_000_000
"""Logits that exist at a time, at least one place's at all layers; glibc maps anew what is above 32 MB."""
ROWS = 1024
"""Rows of logits computed together where the vocabulary can be cut: the head is read once for each."""
_SHOWN = 5
"""Likeliest tokens of a cell that a drawing can tell."""


class LogitLens:
    """A lens on a model, proven on a few short prompts when it is made (`.proof`).

    With the model's tokenizer, prompts may be text and token sets words, and rows of the head that no token
    names are part of no distribution (a head of 151,936 rows for 151,669 tokens is padded). `vocab_size` says
    by itself how many rows count. Without either, prompts are ids and every row counts.

    The readout is in float32 whatever the model computes in: streams are cast to float32, and MLX promotes
    norm and head to it; only what an unembedding casts by itself stays so. A model in training mode is read
    in evaluation mode. Adapters may come and go under a lens: blocks are looked up anew.

    Raises
    ------
    NotMeasurable
        The model's blocks cannot be seen, or their stream does not reproduce its logits.
    BrokenExperiment
        The model computes NaN.
    UsageError
        `vocab_size` is more than the head has, or `tokenizer` is none.
    """

    def __init__(self, model: nn.Module, tokenizer: Any = None, vocab_size: int | None = None):
        named = None if tokenizer is None else prompts.named_rows(tokenizer)
        self.model, self.tokenizer = model, tokenizer
        self.stream = kinds.find(model)
        self.unembedding = Unembedding(self.stream)
        self.n_layers, self.head_size = self.stream.n_layers, self.stream.vocab
        if vocab_size is not None and not 0 < vocab_size <= self.head_size:
            raise UsageError(f"vocab_size={vocab_size}: the model's head has {self.head_size} rows")
        self.vocab_size = vocab_size or min(named or self.head_size, self.head_size)
        self._midpoints: dict[int, str] | None = None
        self._edits: dict[int, list[Edit]] = {}
        self.proof = self.verify()

    def verify(self, tokens: Tokens | None = None) -> Proof:
        """Prove the lens on these prompts; see `proof.verify`."""
        return proof.verify(self.stream, None if tokens is None else self._prompts(tokens).ids)

    @contextmanager
    def capture(self) -> Iterator[Streams]:
        """Records each block's stream `[batch, position, hidden]` in the latest pass of the model inside.

        Lazy and differentiable: the arrays are the very ones the model goes on with, so that a loss may use
        them. The model runs in the mode that it is in.
        """
        with self.stream.observe() as seen:
            yield Streams(seen)

    @contextmanager
    def patched(self, edits: Sequence[Edit]) -> Iterator[None]:
        """Whatever the lens reads inside is of the model with its stream changed; see `Edit`.

        `with lens.patched([Edit("L14", -1, replace(vectors))]): lens.read(prompts)`. May be nested: inner
        edits of a layer come after outer ones. The weights stay as they are.
        """
        before, found = self._edits, settled(self.stream, edits)
        self._edits = {i: [*before.get(i, ()), *found.get(i, ())] for i in {*before, *found}}
        try:
            yield
        finally:
            self._edits = before

    def unembed(self, hidden: mx.array) -> mx.array:
        """Logits `[..., vocab]` if the last block ended in `hidden [..., hidden]`; differentiable.

        The model's own final norm, head, logit scale and soft-cap, in the dtype that `hidden` and the model's
        weights promote to. Raises `NotMeasurable` where logits depend on more than one stream.
        """
        self._require_one_array("the unembedding of one stream")
        logits = self.stream.unembed(hidden.reshape(-1, 1, hidden.shape[-1]))
        return logits.reshape(*hidden.shape[:-1], -1)

    def logits(self, tokens: Tokens, layers: Layers | None = None) -> Float[np.ndarray, "layer prompt vocab"]:
        """Logits at the last position of each prompt, float32; the last layer's are the model's own."""
        which, fed = places.points(layers, self.n_layers), self._prompts(tokens).ids
        found = np.empty((len(which), len(fed), self.head_size), np.float32)
        at_once = max(1, LOGITS_BYTES // (4 * self.head_size))
        with evaluating(self.model):
            for here, at in self._passes(fed, "last", which):
                for row, point in enumerate(which):
                    for part in places.slices(len(here), at_once):
                        index = mx.arange(part.start, part.stop)
                        z = self.unembedding([self.stream.pick(at[point], index)])
                        found[row, [p.prompt for p in here[part]]] = np.array(z[0].astype(mx.float32))
        _require_numbers(found, which)
        return found

    def streams(
        self, tokens: Tokens, layers: Layers | None = None, positions: Positions = "last"
    ) -> Float[np.ndarray, "layer prompt *position hidden"]:
        """Residual streams, float32; at the last position of each prompt, or at those that are asked for.

        With several positions there is an axis for them, NaN where a prompt has fewer. Raises `NotMeasurable`
        where a layer has more than one stream.
        """
        self._require_one_array("its streams")
        which, fed = places.points(layers, self.n_layers), self._prompts(tokens).ids
        slots = max(len(places.positions(positions, len(ids), i)) for i, ids in enumerate(fed))
        with evaluating(self.model):
            parts = [
                (here, np.stack([np.array(at[i])[:, 0] for i in which]))
                for here, at in self._passes(fed, positions, which)
            ]
        found = np.full((len(which), len(fed), slots, parts[0][1].shape[-1]), np.nan, np.float32)
        for here, rows in parts:
            _require_numbers(rows, which)
            found[:, [p.prompt for p in here], [p.slot for p in here]] = rows
        return found[:, :, 0] if places.has_one_position(positions) else found

    def read(
        self,
        tokens: Tokens,
        token_sets: Mapping[str, TokenSet] | None = None,
        top_k: int = 5,
        layers: Layers | None = None,
        positions: Positions = "last",
        token_ids: TokenSet = (),
        kl: bool = True,
    ) -> LensReading:
        """Statistics of the distributions at every layer, prompt and position asked for; see `LensReading`.

        `lens.read("7 * 8 = ", {"eight": "8"}, layers=[-1])`. Prompts and sets are text or ids, see
        `prompts`; layers and positions one or several, see `places`.

        What is asked for decides the cost. The KLs need the output layer and each layer's previous one:
        `kl=False` leaves them out (they are NaN then), so that the model runs up to the last layer asked for
        and only these are unembedded. `top_k=0` keeps no tokens.

        Memory is bounded by one pass of `FORWARD_TOKENS` tokens, `LOGITS_BYTES` of logits and three times
        one place's share of them a thread (on a GPU `distribution_gpu.COPIES` times all of them); it does
        not grow with layers × prompts × vocabulary. Logits are taken by blocks of rows and of the
        vocabulary, for the few families whose head cannot be cut by blocks of rows, at least one place at
        all layers.
        """
        which, fed = places.points(layers, self.n_layers), self._prompts(tokens)
        sets = prompts.token_sets(token_sets, self.tokenizer, self.vocab_size)
        ids = prompts.token_set(token_ids, self.tokenizer, self.vocab_size, "token_ids")
        if not (places.is_whole(top_k) and 0 <= top_k <= self.vocab_size):
            raise UsageError(f"top_k={top_k}: give 0 to {self.vocab_size}")
        wanted = distribution.Wanted(
            self.vocab_size,
            tuple(np.array(members, dtype=np.int64) for members in sets.values()),
            np.array(ids, dtype=np.int64),
            int(top_k),
            kl,
        )
        slots = tuple(places.positions(positions, len(one), i) for i, one in enumerate(fed.ids))
        with evaluating(self.model):
            found = self._statistics(fed, positions, which, wanted, max(map(len, slots)))
        if places.has_one_position(positions):
            found = {name: values[:, :, 0] for name, values in found.items()}
        return LensReading(
            layers=tuple(map(str, which)),
            texts=fed.texts,
            tokens=fed.ids,
            positions=slots,
            sets=sets,
            token_ids=ids,
            left_out=self.head_size - self.vocab_size,
            tokenizer=self.tokenizer,
            **found,
        )

    def show(
        self,
        prompt: str | Ids,
        tokenizer: Any = None,
        layers: Layers | None = None,
        chat: bool = False,
        token_sets: Mapping[str, TokenSet] | None = None,
        token_ids: TokenSet = (),
    ) -> drawing.Drawing:
        """Layers × positions of one prompt, the likeliest tokens in each cell, under the exact tokens fed.

        `print` draws it in the terminal, a notebook as HTML, where masses of `token_sets` and ranks of
        `token_ids` can be chosen, too; `save` writes HTML, PNG or SVG. `chat` puts the text in the
        tokenizer's template. The tokenizer may be left out where the lens has one.
        """
        lens = self if tokenizer is None else self._with(tokenizer)
        if lens.tokenizer is None:
            raise UsageError("show needs a tokenizer to name tokens: lens.show(prompt, tokenizer)")
        if isinstance(prompt, str):
            prompt = prompts.encode(lens.tokenizer, prompt, chat)
        top_k = min(_SHOWN, lens.vocab_size)
        return lens.read([prompt], token_sets, top_k, layers, "all", token_ids).show()

    def _with(self, tokenizer: Any) -> LogitLens:
        """The same lens with a tokenizer; it is not proven again."""
        lens = copy.copy(self)
        lens.tokenizer = tokenizer
        lens.vocab_size = min(self.vocab_size, prompts.named_rows(tokenizer))
        return lens

    def _prompts(self, tokens: Tokens) -> Prompts:
        given = prompts.prompts(tokens, self.tokenizer, self.stream.n_ids)
        longest, most = max(map(len, given.ids)), getattr(self.model, "longest", None)
        if most is not None and longest > most:
            raise UsageError(
                f"a prompt of {longest} tokens: this model is computed right up to {most}; cut it"
            )
        return given

    def _begin(self) -> None:
        """Before each reading; for a lens that fits some weights only."""

    def _translate(self, point: Point, state: Any) -> Any:
        """What is unembedded for a state at a point, here the state itself."""
        return state

    def _passes(
        self, fed: Sequence[Sequence[int]], positions: Positions, needed: Sequence[Point]
    ) -> Iterator[tuple[list[Place], dict[Point, Any]]]:
        """Runs the model and yields the states at the places asked for.

        One evaluation a pass. Only equal lengths share a pass: then nothing depends on how a family treats
        padding.
        """
        self._begin()
        middles = self._middles(needed)
        if Point(-1) in needed and not self.stream.starts_as_a_state:
            self._require_one_array("the stream before the first block")
        by_length: dict[int, list[int]] = {}
        for i, ids in enumerate(fed):
            by_length.setdefault(len(ids), []).append(i)
        for length, members in by_length.items():
            slots = places.positions(positions, length, members[0])
            for part in places.slices(len(members), max(1, FORWARD_TOKENS // length)):
                batch = members[part]
                with (
                    numpy_ops.fast(self.model),
                    changing(self.stream, self._edits, batch),
                    self.stream.observe(middles, last=max(needed).layer) as seen,
                ):
                    self.model(mx.array([fed[i] for i in batch]))
                index = mx.array([b * length + p for b in range(len(batch)) for p in slots])
                at = {
                    p: self._translate(p, states.as_float32(self.stream.pick(p.of(seen), index)))
                    for p in needed
                }
                seen.reset()  # else the whole pass stays in memory while it is evaluated
                mx.eval(*(a for state in at.values() for a in states.arrays(state)))
                yield [Place(i, slot) for i in batch for slot in range(len(slots))], at

    def _statistics(
        self,
        fed: Prompts,
        positions: Positions,
        which: Sequence[Point],
        wanted: distribution.Wanted,
        n_slots: int,
    ) -> distribution.Rows:
        """Statistics `[layer, prompt, position, ...]`; NaN or -1 where a prompt has fewer positions."""
        found: distribution.Rows = {}
        needed = places.with_neighbours(which, self.n_layers) if wanted.kl else which
        for here, at in self._passes(fed.ids, positions, needed):
            for rows, group in self._blocks(here, at, which, wanted):
                _require_numbers(rows["entropy"], which)
                for name, values in rows.items():
                    if name not in found:
                        empty, kind = (-1, np.int64) if values.dtype.kind == "i" else (np.nan, np.float32)
                        shape = (len(which), len(fed.ids), n_slots, *values.shape[2:])
                        found[name] = np.full(shape, empty, kind)
                    found[name][:, [p.prompt for p in group], [p.slot for p in group]] = values
        return found

    def _blocks(
        self, here: list[Place], at: dict[Point, Any], which: Sequence[Point], wanted: distribution.Wanted
    ) -> Iterator[tuple[distribution.Rows, list[Place]]]:
        """Statistics `[layer, place, ...]` of `which` layers for a block of places at a time."""
        layers = sorted(at)
        before = np.array([layers.index(p.previous) if p.previous in at else -1 for p in layers])
        keep = [layers.index(layer) for layer in which]
        statistics = on_gpu if mx.default_device() == mx.gpu else distribution.on_cpu
        width = self.head_size
        if self.unembedding.in_parts():
            width = max(1, LOGITS_BYTES // (4 * min(ROWS, len(here) * len(layers))))
        for part in places.slices(len(here), max(1, LOGITS_BYTES // (4 * width * len(layers)))):
            index = mx.arange(part.start, part.stop)
            rows = [self.stream.pick(at[layer], index) for layer in layers]
            found = statistics(partial(self.unembedding, rows), wanted, before, width)
            yield {name: values[keep] for name, values in found.items()}, here[part]

    def _require_one_array(self, what: str) -> None:
        if not self.stream.one_array:
            raise NotMeasurable(
                f"{self.proof.model_type}: {what} cannot be had, its logits depend on more than one stream; "
                "use `logits` or `read`"
            )

    def _middles(self, needed: Sequence[Point]) -> dict[int, str]:
        layers = [p.layer for p in needed if not p.block]
        if not layers:
            return {}
        if self._midpoints is None:
            self._midpoints = midpoint.find(self.stream)
        n_blocks = len(residual.blocks(self.model))
        missing = [f"L{i}.attn" for i in layers if i % n_blocks not in self._midpoints]
        if missing:
            raise NotMeasurable(
                f"{self.proof.model_type}: {', '.join(missing)}: no distinct point after attention, "
                "the block adds attention and feed-forward part at once or has only one of them"
            )
        return self._midpoints


def _require_numbers(values: np.ndarray, which: Sequence[Point]) -> None:
    """Axis 0 of `values` is `which`."""
    bad = np.isnan(values).reshape(len(values), -1).any(1)
    if bad.any():
        first = min(point for point, nan in zip(which, bad, strict=True) if nan)
        raise BrokenExperiment(
            f"the lens reads NaN from {first} on; the weights are damaged or have diverged"
        )
