"""Stage training: one optimizer update, by Adam as mlx-lm sets it (Kingma & Ba 2015, no bias correction)."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

from ..backend import numpy_ops
from .batches import Batch
from .objectives import Objective
from .randomness import drawing_from


class Updates:
    """Adam on the trainable parameters of `model`, which are all that an update changes.

    `optimizer` holds the two moments of each of them: with the weights, the state of a training.
    """

    def __init__(self, model: Any, objective: Objective, learning_rate: float) -> None:
        self.model = model
        self.optimizer = optim.Adam(learning_rate=learning_rate)
        self.optimizer.init(model.trainable_parameters())
        self._gradient = nn.value_and_grad(  # type: ignore[attr-defined]
            model, lambda batch: objective.losses(model, batch)
        )

    def make(self, batch: Batch, seed: int) -> tuple[float, list[float]]:
        """Make one update from `batch`, with dropout drawn from `seed`.

        Returns the loss that was minimised and its parts in nats, as they were before the update.
        """
        self.model.train()
        with drawing_from(seed), numpy_ops.fast(self.model):
            with numpy_ops.lazily():
                (total, parts), gradients = self._gradient(batch)
            self.optimizer.update(self.model, gradients)
            mx.eval(total, parts, self.model.trainable_parameters(), self.optimizer.state)
        return float(total.item()), [float(part.item()) for part in parts]
