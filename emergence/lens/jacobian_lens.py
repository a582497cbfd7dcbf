"""The Jacobian lens: what a layer's stream does, on average, to the stream that the output is read from.

In: a lens and the user's text. Out: a `JacobianLens`, which reads as a `LogitLens` does; kept as safetensors,
for the weights that it was fitted on. A layer reads as unembed(J h), where J is the mean over a corpus of the
Jacobian of the last block's stream in this layer's: no bias, no mean taken off. Gurnee et al. (2026),
"Verbalizable Representations Form a Global Workspace in Language Models", arXiv:2607.15495.

The estimator is the paper's. J sums what a position does to itself and to every later one, and averages that
over the positions of a prompt, then over prompts, each counting as much as any other. Left out are the first
positions of a prompt, which attention treats as a sink, and the last, after which nothing is predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from jaxtyping import Float

from ..backend import numpy_ops
from ..backend.weights import weights_hash
from ..errors import BrokenExperiment, NotMeasurable, UsageError
from ..progress import SILENT, Progress
from ..wording import first_line
from . import places
from .fitted import FittedLens
from .hooks import evaluating
from .logit_lens import LogitLens
from .places import Point
from .prompts import Tokens
from .residual import FAILURES, ResidualStream, zeros

TOKENS = 128
"""Tokens whose activations are held together; at least one prompt."""
ROWS = 1536
"""Rows (a token, and a direction of the output) that are pulled back together."""

_Pull = Callable[[ResidualStream, mx.array, mx.array, mx.array], list[mx.array]]


class JacobianLens(FittedLens):
    """A lens with an averaged Jacobian for every layer but the last, whose own is the identity.

    `jacobian` [layer, hidden, hidden], float32: entry [l, i, j] is the slope of component i of the last
    block's stream in component j of layer l's. Points that are no layer (`embedding`, `L13.attn`) are read as
    they are. Bound to its weights, see `FittedLens`.
    """

    kind = "Jacobian lens"

    def __init__(
        self,
        model: nn.Module,
        jacobian: mx.array,
        base: str,
        tokenizer: Any = None,
        vocab_size: int | None = None,
    ):
        super().__init__(model, base, tokenizer, vocab_size)
        size = int(jacobian.shape[-1])
        if tuple(jacobian.shape) != (self.n_layers - 1, size, size):
            raise UsageError(f"Jacobians of shape {tuple(jacobian.shape)} do not fit {self.n_layers} layers")
        self.jacobian = jacobian

    @classmethod
    def fit(
        cls,
        lens: LogitLens,
        tokens: Tokens,
        skip_first: int = 16,
        longest: int = 128,
        progress: Progress = SILENT,
    ) -> JacobianLens:
        """Average over `tokens`: text of the kind that the model was trained on, as text or ids.

        The first `skip_first` positions of a prompt and its last are left out, and what is beyond `longest`
        tokens is not read; both as in the reference code (anthropics/jacobian-lens), with which a hundred
        prompts of 128 tokens are said to be usable. Short prompts need a smaller `skip_first`.

        Exact, and the same text gives the same lens: for each component of the last stream one backward pass
        through the blocks, for all layers at once. That is 2 × hidden × (weights of the blocks) operations a
        token: 0.12 TFLOP for a hidden size of 576 and 30 layers, about one second of one core. Memory is
        that of `TOKENS` tokens' activations and of `ROWS` rows of one block's. Families with a product that
        MLX cannot do for many directions at once (`GatherMM`: mixtures of experts) run the blocks anew for
        each direction, which doubles that. Where a model rounds (the quantised keys and values of `afm7`),
        the derivative is zero.

        Raises
        ------
        UsageError
            No tokens, a prompt with no position left, or `skip_first` or `longest` out of range.
        NotMeasurable
            The logits depend on more than one stream, or the model has no derivative here.
        BrokenExperiment
            The Jacobian is not finite.
        """
        if skip_first < 0 or longest < skip_first + 2:
            raise UsageError(
                f"skip_first={skip_first}, longest={longest}: give 0 or more, and 2 tokens after them"
            )
        lens = cls._fits(lens)
        fed = [ids[:longest] for ids in lens._prompts(tokens).ids]
        short = [i for i, ids in enumerate(fed) if len(ids) < skip_first + 2]
        if short:
            raise UsageError(
                f"{len(short)} of {len(fed)} prompts have too few tokens (prompt {short[0]} has "
                f"{len(fed[short[0]])}): the first {skip_first} and the last are left out; "
                "give longer text or a smaller skip_first"
            )
        with evaluating(lens.model):
            jacobian = _averaged(lens, fed, skip_first, progress)
        if not np.isfinite(jacobian).all():
            raise BrokenExperiment("the Jacobian is not finite; the weights are damaged or have diverged")
        base = weights_hash(lens.model)
        return cls(lens.model, mx.array(jacobian), base, lens.tokenizer, lens.vocab_size)

    def save(self, path: Path | str) -> None:
        """Write the Jacobians as safetensors, with the hash of the weights they belong to."""
        self._write(path, {"jacobian": self.jacobian})

    @classmethod
    def load(cls, model: nn.Module, path: Path | str, tokenizer: Any = None) -> JacobianLens:
        """Read what `save` wrote; raises UsageError where the file is none, or belongs to other weights."""
        (jacobian,), base, vocab_size = cls._read(path, ("jacobian",))
        return cls(model, jacobian, base, tokenizer, vocab_size)

    def _translate(self, point: Point, stream: Any) -> Any:
        if not 0 <= point.layer < self.n_layers - 1 or not point.block:
            return stream
        return stream @ self.jacobian[point.layer].T


def _averaged(
    lens: LogitLens, prompts: Sequence[Sequence[int]], skip: int, progress: Progress
) -> Float[np.ndarray, "layer hidden hidden"]:
    """The Jacobians of all layers but the last.

    A prompt's last token is not fed: nothing that counts comes after it, and no token sees those after it.
    """
    size = lens.streams([[0]], layers=[-1]).shape[-1]
    found = np.zeros((lens.n_layers - 1, size, size), np.float32)
    if not len(found):
        return found
    batches = _batches([ids[:-1] for ids in prompts])
    pull, basis = _way(lens, size), np.eye(size, dtype=np.float32)
    with progress.task("Jacobian lens", len(batches) * size, "direction") as task:
        for batch in batches:
            ids = mx.array(batch)
            counts = np.arange(ids.shape[1]) >= skip
            weight = mx.array(np.tile(counts / (counts.sum() * len(prompts)), len(batch)), mx.float32)
            for rows in places.slices(size, max(1, ROWS // ids.size)):
                cotangents = mx.array(basis[rows, None] * counts[:, None])
                found[:, rows] += np.array(mx.stack(pull(lens.stream, ids, cotangents, weight)))
                task.advance(len(cotangents))
    return found


def _batches(prompts: list[Sequence[int]]) -> list[list[Sequence[int]]]:
    """Prompts of one length together, `TOKENS` tokens of them."""
    by_length: dict[int, list[Sequence[int]]] = {}
    for ids in prompts:
        by_length.setdefault(len(ids), []).append(ids)
    return [
        group[part]
        for length, group in by_length.items()
        for part in places.slices(len(group), max(1, TOKENS // length))
    ]


def _way(lens: LogitLens, size: int) -> _Pull:
    """The faster way that this model goes, tried on two tokens and two directions."""
    trial = lens.stream, zeros(1, 2), mx.ones((2, 2, size)), mx.ones(2)
    try:
        mx.eval(_together(*trial))
        return _together
    except FAILURES:
        pass  # such as "[Primitive::vmap] Not implemented for GatherMM."
    try:
        mx.eval(_repeated(*trial))
        return _repeated
    except FAILURES as error:
        raise NotMeasurable(
            f"{lens.proof.model_type}: it has no Jacobian here: {first_line(error)}"
        ) from error


def _together(
    stream: ResidualStream, ids: mx.array, cotangents: mx.array, weight: mx.array
) -> list[mx.array]:
    """By layer, rows `[direction, hidden]`: `cotangents` [direction, position, hidden], pulled back.

    The blocks run once for all directions. `weight` [prompt * position] sums the positions of the stream that
    the rows are the slopes in.
    """
    start = _standstill(stream, ids, cotangents.shape[-1])

    def one(cotangent: mx.array) -> list[mx.array]:
        last = mx.broadcast_to(cotangent, start[0].shape)
        _, slopes = mx.vjp(lambda *by: stream.moved(ids, by), start, [last])
        return [weight @ slope.reshape(-1, slope.shape[-1]) for slope in slopes]

    with numpy_ops.fast(stream.model), numpy_ops.lazily():
        return list(mx.vmap(one)(cotangents))


def _repeated(
    stream: ResidualStream, ids: mx.array, cotangents: mx.array, weight: mx.array
) -> list[mx.array]:
    """As `_together`, the prompts repeated for each direction; few at a time, for each has activations."""
    n, size = ids.shape[0], cotangents.shape[-1]
    parts = []
    for some in places.slices(len(cotangents), max(1, 2 * TOKENS // ids.size)):
        chosen = cotangents[some]
        fed = mx.tile(ids, (len(chosen), 1))
        start = _standstill(stream, fed, size)
        with numpy_ops.fast(stream.model), numpy_ops.lazily():
            _, slopes = mx.vjp(
                lambda *by, fed=fed: stream.moved(fed, by), start, [mx.repeat(chosen, n, axis=0)]
            )
        rows = [weight @ slope.reshape(len(chosen), -1, size) for slope in slopes]
        mx.eval(rows)
        parts.append(rows)
    return [mx.concatenate(list(layer)) for layer in zip(*parts, strict=True)]


def _standstill(stream: ResidualStream, ids: mx.array, size: int) -> list[mx.array]:
    return [mx.zeros((*ids.shape, size)) for _ in range(stream.n_layers - 1)]
