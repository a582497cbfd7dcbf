"""Stage training, loss side: what an arm minimises and how well it does, in MLX.

In: the model with its adapters in, and a `Batch`. Out: losses that can be differentiated, and scores that
cannot. The `classified` objective follows the lazarus experiment's dual reward: the answer as in SFT, plus
a word read by the logit lens (nostalgebraist 2020) in the middle of the same forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from jaxtyping import Float, Int

from ..backend import numpy_ops
from ..config.settings import Arm
from ..errors import UsageError
from ..lens.hooks import evaluating
from ..lens.logit_lens import LogitLens
from ..tasks.encoding import Row
from ..tasks.vocabulary import single
from .batches import Batch, in_length_order

_SCORED_AT_ONCE = 64


@dataclass(frozen=True)
class Classifier:
    """The term that asks for the class word at `layer`, at the last token of the prompt.

    `targets`: token id of each class's word. `weight`: its share beside the answer loss (which has weight 1).
    """

    layer: int
    weight: float
    targets: Mapping[str, int]


def nearest_layer(depth: float, n_layers: int) -> int:
    """Return the block whose depth `(layer + 1) / n_layers` is nearest `depth`; the lower of two as near."""
    # Rounded, because 1/3 and 2/3 are not as far from 1/2 in floating point.
    return min(range(n_layers), key=lambda layer: round(abs((layer + 1) / n_layers - depth), 9))


def word_id(tokenizer: Any, word: str) -> int:
    """Return the id of a word that is one token, bare or after a space (as it would stand in a text).

    Raises `UsageError` for a word with neither: half a word names no class.
    """
    for text in (word, f" {word}"):
        if len(ids := single(tokenizer, text)) == 1:
            return ids[0]
    raise UsageError(
        f"classifier_targets: {word!r} is not one token here, bare or after a space; name another word"
    )


def classifier(arm: Arm, lens: LogitLens, classes: Sequence[str]) -> Classifier | None:
    """Return the classifier term of a `classified` arm for the model of `lens`, else None.

    Raises `UsageError` where no block up to its layer is trained: the term would have nothing to move.
    """
    if arm.method != "classified":
        return None
    layer = nearest_layer(arm.classifier_layer_pct, lens.n_layers)
    if 0 < arm.lora.num_layers < lens.n_layers - layer:
        raise UsageError(
            f"{arm.name}: classifier_layer_pct={arm.classifier_layer_pct} is L{layer}, below the"
            f" {arm.lora.num_layers} last blocks that lora.num_layers trains; train more blocks (-1: all)"
        )
    targets = {cls: word_id(lens.tokenizer, arm.classifier_targets.get(cls, cls)) for cls in classes}
    return Classifier(layer, arm.classifier_weight, targets)


def classifier_loss(
    logits: Float[mx.array, "row vocab"], classes: tuple[str, ...], classifier: Classifier
) -> Float[mx.array, ""]:
    """Return the mean cross-entropy (nats) of each row's class word."""
    targets = mx.array([classifier.targets[cls] for cls in classes])
    return numpy_ops.cross_entropy(logits.astype(mx.float32), targets).mean()


def answer_loss(
    logits: Float[mx.array, "token vocab"], target: Int[mx.array, " token"]
) -> Float[mx.array, ""]:
    """Return the mean cross-entropy (nats) over supervised tokens: answers and ends of text."""
    return numpy_ops.cross_entropy(logits.astype(mx.float32), target).mean()


def policy_loss(
    logits: Float[mx.array, "token vocab"], target: Int[mx.array, " token"], weight: Float[mx.array, " token"]
) -> Float[mx.array, ""]:
    """Return the weighted sum of the cross-entropies (nats) of sampled tokens.

    With advantages as weights its gradient is that of the expected reward, negated (Williams 1992), and of
    GRPO's loss where each sample is used for one update: the ratio of probabilities is 1 and is not clipped.
    """
    return (numpy_ops.cross_entropy(logits.astype(mx.float32), target) * weight).sum()


class Objective:
    """What a run minimises: the answer loss, and for `classified` the weighted classifier loss beside it.

    One forward pass serves both. MLX is lazy, so the pass's own logits are never computed: the model's
    unembedding is applied, by the lens, to the recorded residual streams at supervised positions alone (5 of
    a row's 12, for example), which gives the same logits there.
    """

    def __init__(self, lens: LogitLens, classifier: Classifier | None = None) -> None:
        self.lens, self.classifier = lens, classifier

    def read(self, model: Any, batch: Batch) -> tuple[mx.array, mx.array | None]:
        """Return logits [token, vocab] where supervised, and [row, vocab] of the classifier's layer."""
        with self.lens.capture() as states:
            model(mx.array(batch.tokens))
        answer = self._unembed(states[-1][mx.array(batch.row), mx.array(batch.position)])
        if self.classifier is None:
            return answer, None
        ends = states[self.classifier.layer][mx.arange(len(batch.last)), mx.array(batch.last)]
        return answer, self._unembed(ends)

    def _unembed(self, hidden: mx.array) -> mx.array:
        with numpy_ops.lazily():  # the lens stubs the blocks: nothing of what leads to them is to be computed
            return self.lens.unembed(hidden)

    def losses(self, model: Any, batch: Batch) -> tuple[mx.array, list[mx.array]]:
        """Return the loss to minimise, and its parts in nats: answer, and classifier where there is one.

        Of a share of a batch, each is what it adds to the mean over the whole batch.
        """
        logits, words = self.read(model, batch)
        if batch.weight is not None:
            named = logits[:, : self.lens.vocab_size]  # what was sampled from
            loss = policy_loss(named, mx.array(batch.target), mx.array(batch.weight))
            return loss, [loss]
        of_targets, of_rows = batch.shares
        parts = [of_targets * answer_loss(logits, mx.array(batch.target))]
        if self.classifier is None or words is None:
            return parts[0], parts
        parts.append(of_rows * classifier_loss(words, batch.classes, self.classifier))
        return parts[0] + self.classifier.weight * parts[1], parts


@dataclass(frozen=True)
class Score:
    """How well rows are answered: `loss` in nats per supervised token, the others shares of rows by class.

    `first`: the answer's first token is the likeliest one. `exact`: every token of the answer and its end is
    the likeliest one, given the true tokens before it; greedy decoding writes exactly the answer then.
    """

    loss: float
    first: dict[str, float]
    exact: dict[str, float]

    @property
    def mean_first(self) -> float:
        """Share of first tokens right, classes weighing the same."""
        return sum(self.first.values()) / len(self.first)

    @property
    def mean_exact(self) -> float:
        """Share of whole answers right, classes weighing the same."""
        return sum(self.exact.values()) / len(self.exact)

    def summary(self) -> dict[str, object]:
        """Return the columns of a line of `train.jsonl`."""
        return {
            "valid_loss": self.loss,
            "valid_accuracy": self.mean_first,
            "valid_exact": self.mean_exact,
            "valid_accuracy_by_class": self.first,
            "valid_exact_by_class": self.exact,
        }


def score_rows(objective: Objective, rows: Sequence[Row]) -> Score:
    """Score rows by the model of the objective's lens as it is, adapters included, in evaluation mode."""
    model = objective.lens.model
    # Not so for updates: what is computed while MLX traces a gradient is walked through again at
    # every block, which costs more than the faster exponential saves.
    with evaluating(model), numpy_ops.fast(model):
        batches = in_length_order(rows, _SCORED_AT_ONCE)
        return score(lambda batch: objective.read(model, batch)[0], batches)


def score(read: Callable[[Batch], mx.array], batches: Sequence[Batch]) -> Score:
    """Score rows: the loss over all their tokens, the shares class by class."""
    nats, n_tokens = 0.0, 0
    hits: dict[str, list[tuple[bool, bool]]] = {}
    for batch in batches:
        logits = read(batch)
        target = mx.array(batch.target)
        losses = numpy_ops.cross_entropy(logits.astype(mx.float32), target)
        right = mx.argmax(logits, axis=-1) == target
        mx.eval(losses, right)
        nats += float(np.asarray(losses, np.float64).sum())
        n_tokens += len(batch.target)
        by_token = np.asarray(right)
        for i, cls in enumerate(batch.classes):
            mine = by_token[batch.row == i]
            hits.setdefault(cls, []).append((bool(mine[0]), bool(mine.all())))
    shares = {cls: np.mean(np.array(h, float), axis=0) for cls, h in sorted(hits.items())}
    return Score(
        nats / n_tokens,
        {cls: float(s[0]) for cls, s in shares.items()},
        {cls: float(s[1]) for cls, s in shares.items()},
    )
