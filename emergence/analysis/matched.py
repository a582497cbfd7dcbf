"""Two arms where both are right equally often: what one holds more than the other, prompt by prompt.

In: masses and written answers of one seed of either arm, at all checkpoints. Out: a difference for each
prompt and cell whose mean is that of the masses at equal accuracy, with the noise of the accuracies in it.

The level a* is the lower of the two arms' last accuracies. The other arm is taken between the two
checkpoints on either side of a*, its masses interpolated in a line. How far between depends on accuracies,
which are means over the same prompts; to first order (the delta method) a prompt moves the interpolated mass
by its own mass, less the slope of mass over accuracy times what it adds to the difference of accuracies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from . import permutation


@dataclass(frozen=True)
class Side:
    """One seed of one arm. `mass` [step prompt cell] in [0, 1]; `right` [step prompt], 0 or 1."""

    mass: Float[np.ndarray, "step prompt cell"]
    right: Float[np.ndarray, "step prompt"]

    @property
    def accuracy(self) -> Float[np.ndarray, " step"]:
        """The share of right answers at each checkpoint."""
        return np.asarray(self.right.mean(axis=1))


@dataclass(frozen=True)
class Match:
    """One seed: the difference at equal accuracy."""

    difference: Float[np.ndarray, "prompt cell"]
    """The first arm's mass minus the other's; its mean over prompts is the difference at equal accuracy."""
    reach: float
    """No difference is larger than this."""
    accuracy: float
    between: tuple[int, int]
    """The checkpoints, as indices, that the arm with the higher last accuracy lies between."""
    other_is_higher: bool


def match(one: Side, other: Side) -> Match | None:
    """The difference of `one` and `other`; None where no two checkpoints lie on either side of a*."""
    higher_is_other = bool(other.accuracy[-1] >= one.accuracy[-1])
    low, high = (one, other) if higher_is_other else (other, one)
    level, path = float(low.accuracy[-1]), high.accuracy
    apart = path - level
    found = [t for t in range(len(path) - 1) if apart[t] * apart[t + 1] <= 0]
    if not found:
        return None
    t = found[-1]
    rise = path[t + 1] - path[t]
    share = 1.0 if rise == 0 else (level - path[t]) / rise
    mass, right = ((1 - share) * x[t] + share * x[t + 1] for x in (high.mass, high.right))
    slope = np.zeros(mass.shape[1]) if rise == 0 else (high.mass[t + 1] - high.mass[t]).mean(axis=0) / rise
    between = mass - slope * (right - low.right[-1])[:, None]
    difference = low.mass[-1] - between
    return Match(
        difference if higher_is_other else -difference,
        1.0 + float(np.abs(slope).max(initial=0.0)),
        level,
        (t, t + 1),
        higher_is_other,
    )


@dataclass(frozen=True)
class Chosen:
    """What the halves of the prompts chose for one another, in each deal."""

    cells: Int[np.ndarray, "deal half"]
    values: Float[np.ndarray, "seed prompt deal"]
    """Each prompt where the other half chose, with the sign that it has there."""
    sign: int
    """That of the recorded deal: 1 where the first arm holds more; 0 where its halves disagree."""


def choose(x: Float[np.ndarray, "seed prompt cell"], deals: Bool[np.ndarray, "deal prompt"]) -> Chosen:
    """Let each half choose the cell where its mean difference is largest, whichever its sign."""
    halves = np.stack([deals, ~deals], axis=1).astype(float)
    means = halves @ x.mean(axis=0) / halves.sum(axis=2, keepdims=True)  # [deal half cell]
    cells = np.abs(means).argmax(axis=2)
    signs = np.sign(np.take_along_axis(means, cells[:, :, None], axis=2)[..., 0])
    chooser = np.where(deals, 1, 0)
    cell = np.take_along_axis(cells, chooser, axis=1).T  # [prompt deal]
    sign = np.take_along_axis(signs, chooser, axis=1).T
    values = np.take_along_axis(x, np.broadcast_to(cell, (len(x), *cell.shape)), axis=2) * sign
    both = int(signs[0, 0]) if signs[0, 0] == signs[0, 1] else 0
    return Chosen(cells, values, both)


def p_there(x: Float[np.ndarray, "seed prompt cell"], m: int) -> Float[np.ndarray, " cell"]:
    """Two-sided max-T p of each cell: signs of whole prompts flipped, the same in all cells and seeds."""
    mean = x.mean(axis=0)
    size = np.sqrt((mean**2).mean(axis=0))
    scaled = np.divide(mean, size, out=np.zeros_like(mean), where=size > 0)
    null = np.abs(permutation.signs(len(mean), m) @ scaled).T / len(mean)
    return permutation.max_t(np.abs(scaled.mean(axis=0)), null)
