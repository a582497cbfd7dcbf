"""Reads a model's residual stream out through the model's own tail, layer by layer.

In: any mlx-lm model object, token ids. Out: logits, streams, or `LensReading`: NumPy arrays with axes [layer, prompt, ...].
The blocks are observed in the model's own forward pass, masks and all, and read out by the model's own final norm, head,
logit scale and soft-cap, so no code is specific to a family. nostalgebraist (2020), "interpreting GPT: the logit lens".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from . import readout, stream
from .errors import BrokenExperiment, NotMeasurable, UsageError

Tokens = Sequence[Sequence[int]]
_FORWARD_TOKENS = 1024
_LOGITS_BYTES = 48_000_000


class LogitLens:
    """A lens on a model, proven on two short prompts when it is made.

    The readout is in float32 whatever the model computes in: streams are cast to float32 before the tail, and MLX
    promotes norm and head to it; only a tail that casts by itself stays as it is. `vocab_size` (the tokenizer's) leaves
    rows that pad the head out of every distribution.

    Raises
    ------
    NotMeasurable
        The model's blocks cannot be seen, or its tail does not reproduce its logits.
    """

    def __init__(self, model: nn.Module, vocab_size: int | None = None):
        self.model = model
        with self.capture() as streams:
            logits = model(mx.array([[0, 1, 2]]))
        self.n_layers = len(streams)
        self.head_size = int(logits.shape[-1])
        self.vocab_size = vocab_size or self.head_size

    @contextmanager
    def capture(self) -> Iterator[list[mx.array]]:
        """Records each block's output `[batch, position, hidden]` in every pass of the model inside; the latest pass is held.

        Lazy and differentiable: the arrays are the very ones the model goes on with, so a loss may use them.
        """
        modules = stream.blocks(self.model)
        held: list[mx.array] = []

        def hook(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            state = call(*args, **kwargs)
            if len(held) == getattr(self, "n_layers", None):
                held.clear()
            held.append(stream.leaf(state))
            return state

        with stream.observed(modules, hook):
            yield held

    def tail(self, hidden: mx.array) -> mx.array:
        """Logits `[..., vocab]` the model would give if its last block ended in `hidden [..., hidden]`; differentiable."""
        rows = hidden.reshape(-1, 1, hidden.shape[-1])
        seen = 0

        def hook(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            nonlocal seen
            seen += 1
            state = call(*args, **kwargs)
            return stream.with_leaf(state, rows) if seen == self.n_layers else state

        with stream.observed(stream.blocks(self.model), hook):
            logits = self.model(mx.zeros(rows.shape[:2], dtype=mx.int32))
        return logits.reshape(*hidden.shape[:-1], -1)
