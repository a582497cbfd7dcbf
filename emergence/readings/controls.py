"""Controls of the instrument itself, run on the real model before anything is trained.

A classifier of known place and strength is planted in the residual stream; a lens that does not find it
there, or finds it anywhere else, reads nothing that can be trusted. The controls that need runs (shuffled
answers, random words) are predictions of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np

from ..errors import BrokenExperiment, NotMeasurable
from ..lens.logit_lens import LogitLens
from ..lens.residual import Call, observed
from .reader import Plan
from .readings import STRENGTH

PROMPTS_PER_CLASS = 4
LENGTH = 8.0
"""Length of the planted vector, in lengths of the residual stream it is added to."""
ASCENT_STEPS, ASCENT_RATE = 100, 0.02
CERTAIN = 0.1
"""Nats of surprise at which the ascent stops: nine in ten of the mass."""
LEAK = 0.01


@dataclass(frozen=True)
class Control:
    """One control, whether it held, and the figures that show it (or why the family cannot have it)."""

    name: str
    passed: bool
    reason: str


def before_training(model: Any, lens: LogitLens, plan: Plan) -> tuple[Control, ...]:
    """Run every control that needs no training.

    Raises
    ------
    BrokenExperiment
        One of them failed: what follows would not be a measurement.
    """
    ran = (planted_classifier(model, lens, plan),)
    failed = [c for c in ran if not c.passed]
    if failed:
        raise BrokenExperiment("; ".join(f"control {c.name} failed: {c.reason}" for c in failed))
    return ran


def planted_classifier(model: Any, lens: LogitLens, plan: Plan) -> Control:
    """Plant each class's word at the middle block: the lens must find it there and nowhere else."""
    name = "planted classifier"
    layer = lens.n_layers // 2
    if layer + 1 >= lens.n_layers or lens.n_layers != len(model.layers) or lens.trunk.unrolled:
        return Control(name, True, "not run: no two blocks of this model follow one another as they stand")
    try:
        lens.streams(list(plan.prompt_ids[:1]), layers=[layer])
    except NotMeasurable as refused:
        return Control(name, True, f"not run: {refused}")
    style = next(iter(plan.words))
    at_layer, elsewhere = [], []
    for cls in plan.classes:
        chosen = [
            list(ids)
            for prompt, ids in zip(plan.prompts, plan.prompt_ids, strict=True)
            if prompt.cls == cls and prompt.style == style and prompt.half >= 0
        ][:PROMPTS_PER_CLASS]
        sets = {"own": plan.words[style][cls]}
        before = _mass(lens, chosen, sets)
        with planted(model, layer, _direction(lens, chosen, layer, sets["own"][0])):
            after = _mass(lens, chosen, sets)
        at_layer.append(after[layer].min())
        elsewhere.append(np.abs(np.delete(after - before, layer, axis=0)).max())
    low, leak = float(min(at_layer)), float(max(elsewhere))
    reason = f"mass at L{layer} >= {low:.3f} (> {STRENGTH}), change elsewhere <= {leak:.1e} (< {LEAK})"
    return Control(name, low > STRENGTH and leak < LEAK, reason)


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


def _direction(lens: LogitLens, prompts: Sequence[list[int]], layer: int, token: int) -> mx.array:
    """Unit vector that makes the tail say `token`, by ascent: the token's own embedding may not do it."""
    stream = mx.array(np.asarray(lens.streams(prompts, layers=[layer]))[0].mean(axis=0))
    size = LENGTH * mx.linalg.norm(stream)

    def surprise(direction: mx.array) -> mx.array:
        logits = lens.tail((stream + size * direction / mx.linalg.norm(direction))[None]).reshape(-1)
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


def _mass(lens: LogitLens, prompts: Sequence[list[int]], sets: dict[str, tuple[int, ...]]) -> np.ndarray:
    mass: np.ndarray = np.exp(lens.read(prompts, token_sets=sets, top_k=1).log_mass[:, :, 0])
    return mass
