"""The logits of some tokens alone: a model's own tail, its head cut down to these tokens' rows.

In: a `stream.Trunk`. Out: whether its head can be cut, and a context in which it is. So the readout goes by
blocks of the vocabulary, whatever the family does with its logits afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx
import mlx.nn as nn

from . import residual

_KINDS = (nn.Linear, nn.QuantizedLinear, nn.Embedding, nn.QuantizedEmbedding)
_BY_ROW = ("weight", "scales", "biases", "bias")


class Head:
    """The module whose rows are the logits' tokens, found by looking, not by name."""

    def __init__(self, trunk: residual.Trunk):
        self.trunk = trunk
        self._name: str | None = None

    def in_parts(self) -> bool:
        """Whether the logits of some tokens can be had alone, equal to what they are among all.

        Not where the head is adapted, the tail needs more than one stream, or logits depend on one another.
        """
        if self.trunk.whole:
            return False
        if self._name is None:
            self._name = next(filter(self._gives_logits, self._candidates()), "")
        return self._name in self._candidates()

    @contextmanager
    def only(self, ids: slice) -> Iterator[None]:
        """The head has these tokens' rows alone; the very arrays come back, also after an exception."""
        if not self._name:
            yield
            return
        with _cut(residual.at(self.trunk.model, self._name), ids):
            yield

    def _candidates(self) -> list[str]:
        named = self.trunk.model.named_modules()  # type: ignore[no-untyped-call]
        return [n for n, m in named if type(m) in _KINDS and len(m["weight"]) == self.trunk.vocab]

    def _gives_logits(self, name: str) -> bool:
        vocab, module = self.trunk.vocab, residual.at(self.trunk.model, name)
        few = mx.arange(min(4, vocab))
        with self.trunk.observe() as seen:
            self.trunk.model(few[None])
        state = self.trunk.pick(seen.states[-1], few)
        whole, parts = self.trunk.finish(state), []
        try:
            for ids in (slice(0, vocab // 3), slice(vocab // 3, vocab)):
                with _cut(module, ids):
                    parts.append(self.trunk.finish(state))
            found = mx.concatenate(parts, axis=-1)
            return found.shape == whole.shape and bool(mx.allclose(found, whole, 1e-4, 1e-5))
        except (RuntimeError, ValueError, TypeError, LookupError):
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
