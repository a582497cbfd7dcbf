"""The tuned lens: an affine translator per layer reads an early stream in the output layer's terms.

In: a lens and token ids of the user's text. Out: a `TunedLens`, which reads as a `LogitLens` does; kept as
safetensors. A layer reads as unembed(h + W h + b), with W and b trained to bring its distribution near the
output layer's, in KL. Belrose et al. (2023), arXiv:2303.08112.

What a translator has learned belongs to the very weights that it was fitted on: it is refused on any other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten

from ..errors import BrokenExperiment, UsageError
from ..progress import SILENT, Progress
from ..wording import first_line
from .hooks import evaluating
from .logit_lens import LogitLens
from .places import Point
from .prompts import Tokens

_FORMAT = "emergence tuned lens 1"


class TunedLens(LogitLens):
    """A lens with a translator for every layer but the last.

    `weight` [layer, hidden, hidden] and `bias` [layer, hidden], float32, zero for a lens that is the logit
    lens. Reading raises UsageError once the model's weights are not those that it was fitted on (another
    model, a later checkpoint, an adapter): fit it anew there.
    """

    def __init__(
        self,
        model: nn.Module,
        weight: mx.array,
        bias: mx.array,
        base: str,
        tokenizer: Any = None,
        vocab_size: int | None = None,
    ):
        super().__init__(model, tokenizer, vocab_size)
        self._require_one_array("a tuned lens")
        shape = (self.n_layers - 1, int(weight.shape[-1]))
        if tuple(weight.shape) != (*shape, shape[1]) or tuple(bias.shape) != shape:
            raise UsageError(f"translators of shape {tuple(weight.shape)} do not fit {self.n_layers} layers")
        self.weight, self.bias, self.base = weight, bias, base
        self._held: list[tuple[str, mx.array]] = []
        self._check_base()

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
        lens = LogitLens(lens.model, lens.tokenizer, lens.vocab_size)
        lens._require_one_array("a tuned lens")
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

    def save(self, path: Path) -> None:
        """Write the translators as safetensors, with the hash of the weights they belong to."""
        metadata = {"format": _FORMAT, "base": self.base, "vocab_size": str(self.vocab_size)}
        mx.save_safetensors(str(path), {"bias": self.bias, "weight": self.weight}, metadata)

    @classmethod
    def load(cls, model: nn.Module, path: Path, tokenizer: Any = None) -> TunedLens:
        """Read what `save` wrote; raises UsageError where the file is none, or belongs to other weights."""
        try:
            loaded: Any = mx.load(str(path), return_metadata=True)
        except (RuntimeError, ValueError, OSError) as error:
            raise UsageError(f"{path}: not a readable tuned lens: {first_line(error)}") from error
        arrays, metadata = loaded
        if metadata.get("format") != _FORMAT:
            raise UsageError(f"{path}: not a tuned lens (its format is {metadata.get('format')!r})")
        vocab_size = int(metadata["vocab_size"])
        return cls(model, arrays["weight"], arrays["bias"], metadata["base"], tokenizer, vocab_size)

    def _translate(self, point: Point, stream: Any) -> Any:
        if not 0 <= point.layer < self.n_layers - 1 or not point.block:
            return stream
        return _translated(stream, self.weight[point.layer], self.bias[point.layer])

    def _begin(self) -> None:
        self._check_base()

    def _check_base(self) -> None:
        """Hash the weights if any array is another than at the last look."""
        now = _parameters(self.model)
        if len(now) == len(self._held) and all(
            a is b and name == held for (name, a), (held, b) in zip(now, self._held, strict=True)
        ):
            return
        found = weights_hash(self.model)
        if found != self.base:
            raise UsageError(
                f"this tuned lens was fitted on weights {self.base[:12]}, the model has {found[:12]}; "
                "fit it anew on this model or checkpoint"
            )
        self._held = now


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over the names, shapes, dtypes and bits of all parameters of a model."""
    found = hashlib.sha256()
    for name, array in _parameters(model):
        found.update(f"{name} {array.shape} {array.dtype}\n".encode())
        found.update(np.array(array.reshape(-1).view(mx.uint8), copy=False).tobytes())
    return found.hexdigest()


def _parameters(model: nn.Module) -> list[tuple[str, mx.array]]:
    parameters: dict[str, Any] = model.parameters()  # type: ignore[no-untyped-call]
    return sorted(tree_flatten(parameters), key=lambda named: str(named[0]))  # type: ignore[arg-type]


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
