"""Proves, with a model's own numbers, that what the lens reads is the model.

In: a `ResidualStream` and a few prompts. Out: a `Proof`, or a refusal with the architecture and what did not
hold. `verify` is run whenever a lens is made; `prove` adds what is good to know of a family.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import make_prompt_cache

from ..errors import NotMeasurable, UsageError
from ..wording import first_line
from . import kinds, midpoint
from .difference import difference, tolerance
from .hooks import evaluating
from .residual import ResidualStream, dtype, last_layer, model_type, require_numbers, some_tokens
from .states import as_float32

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
    """`blocks`, `unrolled` or `whole state`: how the stream is observed, see `kinds`."""

    @property
    def tolerance(self) -> float:
        """Largest difference that is accepted."""
        return tolerance(self.dtype)

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


def verify(stream: ResidualStream, prompts: Sequence[Sequence[int]] | None = None) -> Proof:
    """Measure what is required on the first tokens of the prompts (default: 3 arbitrary ones of 5 tokens).

    Raises
    ------
    NotMeasurable
        One of them does not hold.
    BrokenExperiment
        The model's logits are not numbers.
    """
    tokens, model = _rectangle(stream, prompts), stream.model
    with evaluating(model):
        plain = model(tokens)
        require_numbers(model, plain)
        seen, watched = stream.look(tokens)
        single, cut = model(tokens[:1]), model(tokens[:1, :-1])
        found = Proof(
            model_type=model_type(model),
            n_layers=stream.n_layers,
            dtype=dtype(seen),
            last_layer=last_layer(stream, seen.states[-1], plain),
            inert=difference(watched, plain),
            batched=difference(plain[:1], single),
            causal=difference(single[:, :-1], cut),
            seen=stream.seen_as,
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
    stream = kinds.find(model)
    found = verify(stream, prompts)
    tokens = _rectangle(stream, prompts)[:1]
    with evaluating(model):
        alone = model(tokens)
        longer = mx.concatenate([tokens, mx.zeros((1, 2), tokens.dtype)], axis=1)
        return replace(
            found,
            padded=difference(model(longer)[:, : tokens.shape[1]], alone),
            cached=_cached(stream, tokens, alone),
            midpoints=len(midpoint.find(stream)) * (stream.n_layers // len(model.layers)),
        )


def _cached(stream: ResidualStream, tokens: mx.array, alone: mx.array) -> float | str:
    """Read one token at a time; the reason where the family's cache does not allow it on this device."""
    rows = []
    try:
        cache = make_prompt_cache(stream.model)
        with stream.observe() as seen:
            for i in range(tokens.shape[1]):
                stream.model(tokens[:, i : i + 1], cache=cache)
                rows.append(stream.unembed(as_float32(stream.pick(seen.states[-1], mx.array([0])))))
        return difference(mx.concatenate(rows, axis=1), alone)
    except (TypeError, ValueError, AttributeError, RuntimeError, IndexError, NotImplementedError) as error:
        return f"{type(error).__name__}: {first_line(error)[:80]}"


def _rectangle(stream: ResidualStream, prompts: Sequence[Sequence[int]] | None) -> mx.array:
    if prompts is None:
        return some_tokens(stream.n_ids)
    length = min((len(p) for p in prompts), default=0)
    if length < 2:
        raise UsageError("a lens is proven on prompts of at least two tokens; give longer ones")
    return mx.array([list(p[:length]) for p in prompts])
