"""Stage training: one optimizer update, by MLX's Adam (Kingma & Ba 2015), and the rate of each update.

As mlx-lm sets it, Adam has no bias correction: the rate of update t is in effect `1 / sqrt(1 - 0.999^t)`
times as large, 10 at the tenth and 3 at the hundredth. `corrected` has none of that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_map

from ..backend import numpy_ops
from ..config.settings import Arm
from ..lens.hooks import evaluating
from .batches import Batch
from .group import ALONE, Alone
from .objectives import Objective
from .randomness import drawing_from

FLOOR = 0.01
"""What a cosine schedule goes down to, as a share of the largest rate."""
_ADAM: dict[str, dict[str, Any]] = {
    "uncorrected": {},
    "corrected": {"betas": [0.9, 0.99], "bias_correction": True},
}


def rate(arm: Arm, step: int) -> float:
    """Return the learning rate of an update, the first of which is step 0: a function of nothing else.

    It rises in a line over `warmup` updates to `learning_rate`. Then it stays, or falls along half a cosine
    to `FLOOR` of it at `max_steps`. An update by reward has a constant rate of its own.
    """
    if arm.by_reward(step):
        return arm.policy_learning_rate
    if step < arm.warmup:
        return arm.learning_rate * (step + 1) / arm.warmup
    if arm.lr_schedule == "constant":
        return arm.learning_rate
    done = (step - arm.warmup) / (arm.max_steps - arm.warmup)
    return arm.learning_rate * (FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * done)) / 2)


class Updates:
    """Adam on the trainable parameters of `model`, which are all that an update changes.

    `optimizer` holds the two moments of each of them: with the weights, the state of a training.
    """

    def __init__(self, model: Any, objective: Objective, arm: Arm, group: Alone = ALONE) -> None:
        self.model, self.arm, self.group = model, arm, group
        self.begin()
        self._gradient = nn.value_and_grad(  # type: ignore[attr-defined]
            model, lambda batch: objective.losses(model, batch)
        )

    def begin(self) -> None:
        """Forget all moments: the next update is Adam's first."""
        self.optimizer = optim.Adam(learning_rate=self.arm.learning_rate, **_ADAM[self.arm.adam])
        self.optimizer.init(self.model.trainable_parameters())

    def make(self, step: int, batch: Batch, seed: int) -> tuple[float, list[float]]:
        """Make update `step`, counted from 0, from `batch`, with dropout drawn from `seed`.

        Returns the loss that was minimised and its parts in nats, as they were before the update.
        """
        self.model.train()
        self.optimizer.learning_rate = rate(self.arm, step)  # type: ignore[assignment]
        with drawing_from(seed), numpy_ops.fast(self.model):
            with numpy_ops.lazily():
                (total, parts), gradients = self._gradient(batch)
            total, parts, gradients = self.group.summed((total, parts, gradients))
            self.optimizer.update(self.model, gradients)
            mx.eval(total, parts, self.model.trainable_parameters(), self.optimizer.state)
        return float(total.item()), [float(part.item()) for part in parts]

    def make_of_sums(self, step: int, batches: Sequence[Batch]) -> float:
        """Make update `step` from the sum of the losses of `batches`, without dropout; return the sum.

        The gradient is summed batch by batch, so memory is that of one. Without batches it is zero.
        """
        total, summed = 0.0, tree_map(mx.zeros_like, self.model.trainable_parameters())
        self.optimizer.learning_rate = rate(self.arm, step)  # type: ignore[assignment]
        with evaluating(self.model), numpy_ops.fast(self.model):
            for batch in batches:
                with numpy_ops.lazily():
                    (loss, _), gradient = self._gradient(batch)
                summed = tree_map(mx.add, summed, gradient)
                mx.eval(loss, summed)
                total += float(loss.item())
            self.optimizer.update(self.model, summed)
            mx.eval(self.model.trainable_parameters(), self.optimizer.state)
        return total
