"""Stage training: when going on is pointless, because the loss has left the range of a model that learns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# The losses of this many steps decide: one bad batch is no divergence.
_RECENT = 10
# Nats around those of a uniform guess that no trained model keeps for ten steps.
_UNIFORM = 1e-3


@dataclass(frozen=True)
class Divergence:
    """The bounds of a training's loss, in nats per token.

    `uniform`: the loss of a model to which every token is as likely as any other, log(vocabulary).
    `start`: the validation loss at step 0.
    """

    uniform: float
    start: float

    def at(self, total: float, answers: Sequence[float]) -> bool:
        """Say whether a training has diverged, by the latest loss and the answer losses of all recent steps.

        It has where the loss is NaN or infinite, where the mean answer loss of ten steps is above both the
        uniform guess and 1.5 times the start, or where each of the ten *is* that of a uniform guess: a norm
        turns overflowing activations into that.
        """
        if not math.isfinite(total):
            return True
        recent = answers[-_RECENT:]
        if len(recent) < _RECENT:
            return False
        too_high = sum(recent) / _RECENT > max(self.uniform, 1.5 * self.start)
        return too_high or all(abs(nats - self.uniform) < _UNIFORM for nats in recent)
