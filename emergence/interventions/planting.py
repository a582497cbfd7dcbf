"""A classifier of known place and strength, planted in a model: a lens must find it there and nowhere else.

In: a lens, prompts, a layer, a token. Out: the direction that says the token at that layer, and a context in
which the model's residual stream has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np

from ..lens.hooks import Call, observed
from ..lens.logit_lens import LogitLens

LENGTH = 8.0
"""Length of the planted vector, in lengths of the residual stream it is added to."""
ASCENT_STEPS, ASCENT_RATE = 100, 0.02
CERTAIN = 0.1
"""Nats of surprise at which the ascent stops: nine in ten of the mass."""


@contextmanager
def planted(model: Any, layer: int, direction: mx.array) -> Iterator[None]:
    """Add `direction` (unit, [hidden]) to the stream after block `layer`; the next block never sees it."""
    blocks = model.layers
    added: list[mx.array] = []

    def plant(stream: mx.array) -> mx.array:
        added[:] = [LENGTH * mx.linalg.norm(stream, axis=-1, keepdims=True) * direction]
        return stream + added[0]

    def pull(stream: mx.array) -> mx.array:
        return stream - added[0]

    def after(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = call(*args, **kwargs)
        return (plant(out[0]), *out[1:]) if isinstance(out, tuple) else plant(out)

    def before(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return call(pull(args[0]), *args[1:], **kwargs)

    with observed([(blocks[layer], after), (blocks[layer + 1], before)]):
        yield


def direction(lens: LogitLens, prompts: Sequence[list[int]], layer: int, token: int) -> mx.array:
    """Unit vector that is unembedded as `token`, by ascent: the token's own embedding may not do it."""
    stream = mx.array(np.asarray(lens.streams(prompts, layers=[layer]))[0].mean(axis=0))
    size = LENGTH * mx.linalg.norm(stream)

    def surprise(direction: mx.array) -> mx.array:
        logits = lens.unembed((stream + size * direction / mx.linalg.norm(direction))[None]).reshape(-1)
        return mx.logsumexp(logits) - logits[token]

    gradient = mx.value_and_grad(surprise)
    direction = -mx.grad(lambda d: surprise(stream + d))(mx.zeros_like(stream))
    direction = direction / mx.linalg.norm(direction)
    adam = optim.Adam(learning_rate=ASCENT_RATE)
    state = {"direction": direction}
    for _ in range(ASCENT_STEPS):
        value, step = gradient(state["direction"])
        state = adam.apply_gradients({"direction": step}, state)
        mx.eval(state, adam.state)
        if float(value) < CERTAIN:
            break
    found: mx.array = state["direction"]
    return found / mx.linalg.norm(found)
