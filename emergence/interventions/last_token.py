"""The rest of a pass: what the model says once the stream of a prompt's last token is another.

In: a lens, prompts. Out: logits after a change at a block. Tokens before the last one never see it, so their
keys and values are computed once, and of the blocks only those after the change run (MLX computes nothing
that nobody asks for). Where a family keeps anything but keys and values, every pass is a whole one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from jaxtyping import Float, Int
from mlx_lm.models.cache import KVCache, make_prompt_cache

from ..backend import numpy_ops
from ..errors import BrokenExperiment
from ..lens.edits import Edit, changing, settled
from ..lens.hooks import evaluating
from ..lens.logit_lens import LogitLens
from ..lens.places import slices
from .rules import replace

TOGETHER = 1024
"""Tokens of one whole pass, at least one prompt."""
TOLERANCE = 1e-3
"""The most that a control may be off by, as a share of the largest logit."""
_PROVEN_ON = 4


@dataclass(frozen=True)
class _Batch:
    """Prompts of one length, with the keys and values of all their tokens but the last."""

    rows: tuple[int, ...]
    fed: mx.array
    cache: list[Any] | None


class LastToken:
    """Prompts whose last token's stream is to be changed; proven on a few of them when it is made.

    Raises
    ------
    NotMeasurable
        The stream of this family cannot be changed so that the model goes on from it.
    BrokenExperiment
        A stream put in place of itself changes what the model says, or another prompt's stream after the last
        block does not make the model say what it says there.
    """

    def __init__(self, lens: LogitLens, prompts: Sequence[Sequence[int]]):
        settled(lens.stream, [Edit(0, -1, lambda stream, prompts: stream)])
        asked = [list(ids) for ids in prompts]
        self.lens, self.n = lens, len(asked)
        self._batches = _batches(lens.model, asked, range(self.n), self._prove(asked))

    def _prove(self, asked: Sequence[list[int]]) -> bool:
        """The controls, on a few prompts of one length; whether a pass may begin at the last token."""
        few = [ids for ids in asked if len(ids) == len(asked[0])][:_PROVEN_ON]
        layers = (self.lens.n_layers - 1) // 2, self.lens.n_layers - 1
        there, end = (self.lens.streams(few, [layer])[0] for layer in layers)
        broken = ""
        for cached in (True, False):
            batches, whole = (_batches(self.lens.model, few, range(len(few)), c) for c in (cached, False))
            own = self._all(whole)  # the model's own words: a lens unembeds more finely than half precision
            if not _near(self._all(batches), own):
                continue
            if not _near(self._all(batches, layers[0], there), own):
                broken = f"a stream put in place of itself at L{layers[0]} changes what the model says"
            elif not _near(self._all(batches, layers[1], np.roll(end, 1, axis=0)), np.roll(own, 1, axis=0)):
                broken = (
                    "another prompt's stream after the last block does not make the model say what it says "
                    "there"
                )
            else:
                return cached
        raise BrokenExperiment(broken or "the model does not say the same twice")

    def logits(
        self,
        tokens: Int[np.ndarray, "prompt k"],
        layer: int | None = None,
        vectors: Float[np.ndarray, "prompt hidden"] | None = None,
    ) -> Float[np.ndarray, "prompt k"]:
        """Logits of some tokens of each prompt, with these vectors after block `layer` at its last token.

        Without a layer nothing is changed.
        """
        found = np.empty(tokens.shape, np.float32)
        for rows, z in self._passes(self._batches, layer, vectors):
            found[rows] = np.array(mx.take_along_axis(z, mx.array(tokens[rows]), axis=1).astype(mx.float32))
        return found

    def _all(
        self, batches: Sequence[_Batch], layer: int | None = None, vectors: np.ndarray | None = None
    ) -> Float[np.ndarray, "prompt vocab"]:
        return np.concatenate(
            [np.array(z.astype(mx.float32)) for _, z in self._passes(batches, layer, vectors)]
        )

    def _passes(
        self, batches: Sequence[_Batch], layer: int | None = None, vectors: np.ndarray | None = None
    ) -> Iterator[tuple[list[int], mx.array]]:
        """Logits `[prompt, vocab]` after each batch, with the prompts that they are of; not evaluated yet."""
        lens = self.lens
        edits = {} if vectors is None or layer is None else {layer: [Edit(layer, -1, replace(vectors))]}
        for batch in batches:
            cache = [copy.copy(c) for c in batch.cache] if batch.cache else None
            with (
                evaluating(lens.model),
                numpy_ops.fast(lens.model),
                numpy_ops.lazily(),
                changing(lens.stream, edits, batch.rows),
            ):
                z = lens.model(batch.fed, cache=cache)[:, -1]
            yield list(batch.rows), z


def _near(found: Float[np.ndarray, "prompt vocab"], wanted: Float[np.ndarray, "prompt vocab"]) -> bool:
    """Equal but for rounding; a token that a family never says (logit -inf) is to be so in both."""
    size = np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0)
    return bool(np.allclose(found, wanted, rtol=0, atol=TOLERANCE * size))


def _batches(model: Any, asked: Sequence[list[int]], which: Sequence[int], cached: bool) -> list[_Batch]:
    by_length: dict[int, list[int]] = {}
    for i in which:
        by_length.setdefault(len(asked[i]), []).append(i)
    found = []
    for length, members in by_length.items():
        for part in slices(len(members), max(1, TOGETHER // length)):
            tokens = mx.array([asked[i] for i in members[part]])
            cache = _keys_and_values(model, tokens[:, :-1]) if cached and length > 1 else None
            found.append(_Batch(tuple(members[part]), tokens if cache is None else tokens[:, -1:], cache))
    return found


def _keys_and_values(model: Any, tokens: mx.array) -> list[Any] | None:
    """The caches after these tokens; None where one of them is no plain one of keys and values."""
    caches = make_prompt_cache(model)
    if not all(type(c) is KVCache for c in caches):
        return None
    for c in caches:
        c.step = 1  # as long as what is in it: what a copy of it adds is then an array of its own
    with evaluating(model), numpy_ops.fast(model):
        model(tokens, cache=caches)
    if any(c.keys is None for c in caches):  # a model that keeps nothing
        return None
    mx.eval([a for c in caches for a in (c.keys, c.values)])
    return list(caches)
