"""The unembedding of a model for some tokens alone, its head cut down to these tokens' rows.

In: a `ResidualStream`. Out: an `Unembedding`: logits by blocks of the vocabulary, whatever the family does
with them afterwards (scale, soft-cap). For 1,024 places and 49,152 tokens a block of 30 MB is 7,324 tokens
wide.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from . import residual
from .hooks import at
from .residual import ResidualStream

_KINDS = (nn.Linear, nn.QuantizedLinear, nn.Embedding, nn.QuantizedEmbedding)
_BY_ROW = ("weight", "scales", "biases", "bias")


class Unembedding:
    """Logits of states. The head, whose rows are the tokens, is found by looking, not by name."""

    def __init__(self, stream: ResidualStream):
        self.stream = stream
        self._name: str | None = None

    def __call__(self, layers: list[Any], ids: slice | None = None) -> mx.array:
        """Logits `[layer, place, token]` of states at the same places, of the tokens `ids` if `in_parts`."""
        with self.only(ids or slice(None)):
            return self.stream.unembed_each(layers)

    def in_parts(self) -> bool:
        """Whether the logits of some tokens can be had alone, equal to what they are among all.

        Not where the head is adapted, the logits depend on more than one stream, or on one another.
        """
        if not self.stream.one_array:
            return False
        if self._name is None:
            self._name = next(filter(self._gives_logits, self._candidates()), "")
        return self._name in self._candidates()

    @contextmanager
    def only(self, ids: slice) -> Iterator[None]:
        """The head has these tokens' rows alone; the very arrays come back, also after an exception."""
        if not self._name or ids == slice(None):
            yield
            return
        with _cut(at(self.stream.model, self._name), ids):
            yield

    def _candidates(self) -> list[str]:
        named = self.stream.model.named_modules()  # type: ignore[no-untyped-call]
        return [n for n, m in named if type(m) in _KINDS and len(m["weight"]) == self.stream.vocab]

    def _gives_logits(self, name: str) -> bool:
        vocab, module = self.stream.vocab, at(self.stream.model, name)
        few = mx.arange(min(4, self.stream.n_ids))
        seen, _ = self.stream.look(few[None])
        state = self.stream.pick(seen.states[-1], few)
        whole, parts = self.stream.unembed(state), []
        try:
            for ids in (slice(0, vocab // 3), slice(vocab // 3, vocab)):
                with _cut(module, ids):
                    parts.append(self.stream.unembed(state))
            found = mx.concatenate(parts, axis=-1)
            return found.shape == whole.shape and bool(mx.allclose(found, whole, 1e-4, 1e-5))
        except residual.FAILURES:
            return False  # something else needs all of its rows


@contextmanager
def _cut(module: nn.Module, ids: slice) -> Iterator[None]:
    whole = {name: module[name] for name in _BY_ROW if name in module}
    try:
        for name, array in whole.items():
            module[name] = array[ids]
        yield
    finally:
        for name, array in whole.items():
            module[name] = array
