"""Proves, with a model's own numbers, that what the lens reads is the model.

In: a `Trunk` and a few prompts. Out: a `Proof`, or a refusal with the architecture and what did not hold.
`verify` is run whenever a lens is made; `prove` adds what is good to know of a family.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.models.cache import make_prompt_cache

from ..errors import BrokenExperiment, NotMeasurable, UsageError
from . import midpoint
from .residual import Trunk, as_float32, model_type, stream_of

TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
"""Largest relative difference (see `difference`), by the dtype of the residual stream: the last layer is
read in float32 while the model rounds to its own dtype, and half-precision products depend on the shape of
the batch."""

REQUIRED = {
    "last_layer": "its last layer, read out, is not its logits",
    "inert": "looking at it changes its logits",
    "batched": "a prompt reads differently alone and in a batch",
    "causal": "a token sees the tokens after it",
}


@dataclass(frozen=True)
class Proof:
    """How far apart two ways to the same logits are, relative to their spread.

    The first four are required to be within the tolerance: `last_layer`: the last layer read out, and the
    model; `inert`: the model with and without the lens looking; `batched`: a prompt among others, and
    alone; `causal`: a prompt, and the same with its end cut off. The others are measured by `prove` only:
    `padded`: with tokens after the end; `cached`: one token at a time with the family's cache (why not,
    where it fails); `midpoints`: blocks with a stream of their own after attention.
    """

    model_type: str
    n_layers: int
    dtype: str
    last_layer: float
    inert: float
    batched: float
    causal: float
    padded: float | None = None
    cached: float | str | None = None
    midpoints: int | None = None
    seen: str = "blocks"
    """`blocks`, `unrolled` or `whole state`: how the stream is observed, see `stream.Trunk`."""

    @property
    def tolerance(self) -> float:
        """Largest difference that is accepted."""
        return TOLERANCE.get(self.dtype, TOLERANCE["bfloat16"])

    def holds(self, name: str) -> bool:
        """Whether a difference was measured and is within the tolerance."""
        value = getattr(self, name)
        return isinstance(value, float) and value <= self.tolerance

    def __str__(self) -> str:
        names = [*REQUIRED, "padded", "cached"]
        lines = [f"{self.model_type}: {self.n_layers} layers, {self.dtype}, seen as {self.seen}"]
        for name in names:
            value = getattr(self, name)
            if value is not None:
                text = f"{value:.2g}" if isinstance(value, float) else value
                lines.append(f"  {name.replace('_', ' '):<10} {'ok' if self.holds(name) else 'no':<3} {text}")
        if self.midpoints is not None:
            lines.append(f"  midpoints  {self.midpoints} of {self.n_layers} layers")
        return "\n".join(lines)


def verify(trunk: Trunk, prompts: Sequence[Sequence[int]] | None = None) -> Proof:
    """Measure what is required on the first tokens of the prompts (default: 3 arbitrary ones of 5 tokens).

    A tail that needs more than the stream is found here: it is then given all that a block returns.

    Raises
    ------
    NotMeasurable
        One of them does not hold.
    BrokenExperiment
        The model's logits are not numbers.
    """
    tokens = _rectangle(trunk, prompts)
    model = trunk.model
    plain = model(tokens)
    with trunk.observe() as seen:
        watched = model(tokens)
    last = seen.states[-1]
    single, cut = model(tokens[:1]), model(tokens[:1, :-1])
    if mx.isnan(plain).any():
        raise BrokenExperiment(
            f"{model_type(model)}: the model's logits are NaN; its weights are damaged or have diverged"
        )
    last_layer = _last_layer(trunk, last, plain)
    dtype = str(stream_of(last).dtype).removeprefix("mlx.core.")
    if last_layer > TOLERANCE.get(dtype, TOLERANCE["bfloat16"]) and not trunk.whole and not trunk.unrolled:
        trunk.take_whole()
        last_layer = _last_layer(trunk, last, plain)
    found = Proof(
        model_type=model_type(model),
        n_layers=trunk.n_layers,
        dtype=dtype,
        last_layer=last_layer,
        inert=difference(watched, plain),
        batched=difference(plain[:1], single),
        causal=difference(single[:, :-1], cut),
        seen="unrolled" if trunk.unrolled else "whole state" if trunk.whole else "blocks",
    )
    failed = [
        f"{text} ({getattr(found, name):.2g})" for name, text in REQUIRED.items() if not found.holds(name)
    ]
    if failed:
        raise NotMeasurable(
            f"{found.model_type}: {'; '.join(failed)}; "
            f"relative differences above {found.tolerance:g} are refused"
        )
    return found


def prove(model: nn.Module, prompts: Sequence[Sequence[int]] | None = None) -> Proof:
    """Everything that a `Proof` holds, measured on one model; raises as `verify` does."""
    trunk = Trunk(model)
    found = verify(trunk, prompts)
    tokens = _rectangle(trunk, prompts)[:1]
    alone = model(tokens)
    padded = model(mx.concatenate([tokens, mx.zeros((1, 2), tokens.dtype)], axis=1))[:, : tokens.shape[1]]
    return replace(
        found,
        padded=difference(padded, alone),
        cached=_cached(trunk, tokens, alone),
        midpoints=len(midpoint.find(trunk)) * (trunk.n_layers // len(model.layers)),
    )


def difference(found: mx.array, right: mx.array) -> float:
    """Root mean square of the difference over the standard deviation of `right`.

    Infinite where only one of the two is finite.
    """
    a, b = (np.array(x.astype(mx.float32), dtype=np.float64) for x in (found, right))
    finite = np.isfinite(b)
    if not np.array_equal(np.isfinite(a), finite):
        return float("inf")
    spread = float(b[finite].std()) or 1.0
    return float(np.sqrt(np.mean((a[finite] - b[finite]) ** 2)) / spread)


def _last_layer(trunk: Trunk, last: Any, logits: mx.array) -> float:
    """The last state, its rows rearranged, through the tail: against the logits."""
    rows = logits.shape[0] * logits.shape[1]
    read = trunk.finish(as_float32(trunk.pick(last, mx.arange(rows))))
    return difference(read.reshape(logits.shape), logits) if read.size == logits.size else float("inf")


def _cached(trunk: Trunk, tokens: mx.array, alone: mx.array) -> float | str:
    """Read one token at a time; the reason where the family's cache does not allow it on this device."""
    rows = []
    try:
        cache = make_prompt_cache(trunk.model)
        with trunk.observe() as seen:
            for i in range(tokens.shape[1]):
                trunk.model(tokens[:, i : i + 1], cache=cache)
                rows.append(trunk.finish(as_float32(trunk.pick(seen.states[-1], mx.array([0])))))
        return difference(mx.concatenate(rows, axis=1), alone)
    except (TypeError, ValueError, AttributeError, RuntimeError, IndexError, NotImplementedError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"


def _rectangle(trunk: Trunk, prompts: Sequence[Sequence[int]] | None) -> mx.array:
    if prompts is None:
        return mx.array(np.random.default_rng(0).integers(0, trunk.vocab, (3, 5)))
    length = min((len(p) for p in prompts), default=0)
    if length < 2:
        raise UsageError("a lens is proven on prompts of at least two tokens; give longer ones")
    return mx.array([list(p[:length]) for p in prompts])
