"""Proves, with a model's own numbers, that what the lens reads is the model. Run whenever a lens is made.

In: a `Trunk` and a few prompts. Out: a `Proof`, or a refusal that names the architecture and what did not
hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from .errors import BrokenExperiment, NotMeasurable, UsageError
from .stream import Trunk, as_float32, model_type, stream_of

TOLERANCE = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
"""Largest relative difference (see `difference`) by the dtype of the residual stream. The last layer is
read in float32 while the model rounds to its own dtype, and half-precision products depend on the shape of
the batch."""


@dataclass(frozen=True)
class Proof:
    """How far apart are two ways to the same logits, relative to their spread; each is checked against the
    tolerance.

    `last_layer`: the tail on the last block's stream, and the model. `inert`: with and without the lens
    looking. `batched`: a prompt among others, and alone. `causal`: a prompt, and the same with its end cut
    off.
    """

    model_type: str
    n_layers: int
    dtype: str
    last_layer: float
    inert: float
    batched: float
    causal: float


def verify(trunk: Trunk, prompts: Sequence[Sequence[int]] | None = None) -> Proof:
    """Measure every number of a `Proof` on the first tokens of the prompts (default: 3 arbitrary ones of 5
    tokens).

    A tail that needs more than the stream is found here: it is then given all that a block returns.

    Raises ------ NotMeasurable
        One of them does not hold.
    BrokenExperiment
        The model's logits are not numbers.
    """
    tokens = _rectangle(trunk, prompts)
    model, name = trunk.model, model_type(trunk.model)
    plain = model(tokens)
    with trunk.observe() as seen:
        watched = model(tokens)
    last = seen.states[-1]
    dtype = str(stream_of(last).dtype).removeprefix("mlx.core.")
    single, cut = model(tokens[:1]), model(tokens[:1, :-1])
    if mx.isnan(plain).any():
        raise BrokenExperiment(
            f"{name}: the model's logits are NaN; its weights are damaged or have diverged"
        )
    tolerance = TOLERANCE.get(dtype, TOLERANCE["bfloat16"])
    if (last_layer := _last_layer(trunk, last, plain)) > tolerance:
        trunk.take_whole()
        last_layer = _last_layer(trunk, last, plain)
    found = Proof(
        name,
        trunk.n_layers,
        dtype,
        last_layer,
        inert=difference(watched, plain),
        batched=difference(plain[:1], single),
        causal=difference(single[:, :-1], cut),
    )
    _require(found, tolerance)
    return found


def difference(found: mx.array, right: mx.array) -> float:
    """Root mean square of the difference over the standard deviation of `right`; infinite where only one is
    infinite.
    """
    a, b = (np.array(x.astype(mx.float32), dtype=np.float64) for x in (found, right))
    finite = np.isfinite(b)
    if not np.array_equal(np.isfinite(a), finite):
        return float("inf")
    spread = b[finite].std() or 1.0
    return float(np.sqrt(np.mean((a[finite] - b[finite]) ** 2)) / spread)


def _last_layer(trunk: Trunk, last: object, logits: mx.array) -> float:
    rows = logits.shape[0] * logits.shape[1]
    read = trunk.finish(as_float32(trunk.pick(last, mx.arange(rows))))
    return difference(read.reshape(logits.shape), logits)


def _rectangle(trunk: Trunk, prompts: Sequence[Sequence[int]] | None) -> mx.array:
    if prompts is None:
        return mx.array(np.random.default_rng(0).integers(0, trunk.vocab, (3, 5)))
    length = min((len(p) for p in prompts), default=0)
    if length < 2:
        raise UsageError("a lens is proven on prompts of at least two tokens; give longer ones")
    return mx.array([list(p[:length]) for p in prompts])


def _require(found: Proof, tolerance: float) -> None:
    meaning = {
        "last_layer": "its last layer, read out, is not its logits",
        "inert": "looking at it changes its logits",
        "batched": "a prompt reads differently alone and in a batch",
        "causal": "a token sees the tokens after it",
    }
    failed = [
        f"{text} ({getattr(found, key):.2g})"
        for key, text in meaning.items()
        if not getattr(found, key) <= tolerance
    ]
    if failed:
        raise NotMeasurable(
            f"{found.model_type}: {'; '.join(failed)}; relative differences above {tolerance:g} are refused"
        )
