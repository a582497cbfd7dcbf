"""The tuned lens: an affine translator per layer reads an early stream in the output layer's terms.

In: a lens and token ids of the user's text. Out: a `TunedLens`, which reads as a `LogitLens` does; kept as
safetensors, for the weights that it was fitted on. A layer reads as unembed(h + W h + b), with W and b
trained to bring its distribution near the output layer's, in KL. Belrose et al. (2023), arXiv:2303.08112.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from ..backend.weights import weights_hash
from ..errors import BrokenExperiment, UsageError
from ..progress import SILENT, Progress
from .fitted import FittedLens
from .hooks import evaluating
from .logit_lens import LogitLens
from .places import Point
from .prompts import Tokens


class TunedLens(FittedLens):
    """A lens with a translator for every layer but the last.

    `weight` [layer, hidden, hidden] and `bias` [layer, hidden], float32, zero for a lens that is the logit
    lens. Bound to its weights, see `FittedLens`.
    """

    kind = "tuned lens"

    def __init__(
        self,
        model: nn.Module,
        weight: mx.array,
        bias: mx.array,
        base: str,
        tokenizer: Any = None,
        vocab_size: int | None = None,
    ):
        super().__init__(model, base, tokenizer, vocab_size)
        shape = (self.n_layers - 1, int(weight.shape[-1]))
        if tuple(weight.shape) != (*shape, shape[1]) or tuple(bias.shape) != shape:
            raise UsageError(f"translators of shape {tuple(weight.shape)} do not fit {self.n_layers} layers")
        self.weight, self.bias = weight, bias

    @classmethod
    def fit(
        cls,
        lens: LogitLens,
        tokens: Tokens,
        steps: int = 250,
        learning_rate: float = 1e-3,
        rows: int = 128,
        seed: int = 0,
        progress: Progress = SILENT,
    ) -> TunedLens:
        """Train on `tokens`: any text there is, as much as there is, as text or ids.

        Each step takes `rows` positions from some of the sequences, minimises KL(output layer || layer)
        there for every layer by Adam, its rate falling linearly to zero. The same seed and text give the
        same lens.

        Raises
        ------
        UsageError
            No tokens, or `steps`, `rows` or `learning_rate` not positive.
        BrokenExperiment
            The loss became NaN.
        """
        if steps < 1 or rows < 1 or not learning_rate > 0:
            raise UsageError(
                f"steps={steps}, rows={rows}, learning_rate={learning_rate}: all must be positive"
            )
        lens = cls._fits(lens)
        batches = _rows(lens, lens._prompts(tokens).ids, rows, np.random.default_rng(seed))
        schedule = optim.linear_schedule(learning_rate, 0.0, steps)
        translators: list[dict[str, mx.array]] = []
        optimizers = [optim.Adam(schedule) for _ in range(lens.n_layers - 1)]

        def loss(translator: dict[str, mx.array], hidden: mx.array, target: mx.array) -> mx.array:
            return _kl(target, lens.unembed(_translated(hidden, translator["weight"], translator["bias"])))

        with evaluating(lens.model), progress.task("tuned lens", steps, "step") as task:
            for _ in range(steps):
                states = next(batches)
                target = mx.stop_gradient(_log_softmax(lens.unembed(states[-1])))
                mx.eval(target)
                if not translators:
                    size = states[0].shape[-1]
                    translators = [
                        {"weight": mx.zeros((size, size)), "bias": mx.zeros(size)} for _ in optimizers
                    ]
                total = 0.0
                for layer, optimizer in enumerate(optimizers):
                    value, gradient = mx.value_and_grad(loss)(translators[layer], states[layer], target)
                    translators[layer] = optimizer.apply_gradients(gradient, translators[layer])
                    mx.eval(value, translators[layer], optimizer.state)
                    total += float(value)
                if not np.isfinite(total):
                    raise BrokenExperiment("the tuned lens diverged (its loss is NaN); lower learning_rate")
                task.advance(1, f"mean KL {total / len(optimizers):.3f}")
        weight, bias = (mx.stack([t[name] for t in translators]) for name in ("weight", "bias"))
        return cls(lens.model, weight, bias, weights_hash(lens.model), lens.tokenizer, lens.vocab_size)

    def save(self, path: Path | str) -> None:
        """Write the translators as safetensors, with the hash of the weights they belong to."""
        self._write(path, {"bias": self.bias, "weight": self.weight})

    @classmethod
    def load(cls, model: nn.Module, path: Path | str, tokenizer: Any = None) -> TunedLens:
        """Read what `save` wrote; raises UsageError where the file is none, or belongs to other weights."""
        (weight, bias), base, vocab_size = cls._read(path, ("weight", "bias"))
        return cls(model, weight, bias, base, tokenizer, vocab_size)

    def _translate(self, point: Point, stream: Any) -> Any:
        if not 0 <= point.layer < self.n_layers - 1 or not point.block:
            return stream
        return _translated(stream, self.weight[point.layer], self.bias[point.layer])


def _rows(
    lens: LogitLens, prompts: Sequence[Sequence[int]], rows: int, rng: np.random.Generator
) -> Iterator[list[mx.array]]:
    """Without end: streams of all layers at `rows` positions, each `[row, hidden]`."""
    needed = [Point(i) for i in range(lens.n_layers)]
    lengths = np.array([len(p) for p in prompts])
    while True:
        order = rng.permutation(len(prompts))
        enough = int(np.searchsorted(np.cumsum(lengths[order]), rows)) + 1
        parts = [s for _, s in lens._passes([prompts[i] for i in order[:enough]], "all", needed)]
        found = [mx.concatenate([part[p] for part in parts])[:, 0] for p in needed]
        chosen = mx.array(rng.permutation(found[0].shape[0])[:rows])
        yield [f[chosen] for f in found]


def _translated(stream: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
    return stream + stream @ weight.T + bias


def _log_softmax(logits: mx.array) -> mx.array:
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def _kl(target: mx.array, logits: mx.array) -> mx.array:
    """Mean KL(target || softmax(logits)) over rows; tokens that the model forbids carry nothing."""
    p = mx.exp(target)
    terms = mx.where(p > 0, p * (target - _log_softmax(logits)), 0.0)
    return terms.sum(-1).mean()
