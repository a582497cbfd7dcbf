"""How many prompts and seeds would decide a claim: from recorded readings, resampled.

In: the values of a part at the place where it was judged, by seed and prompt. Out: `Needs`. No distribution
is assumed: prompts and seeds are drawn anew from those that were read (a plasmode simulation), with an effect
planted where the recorded one could decide nothing, and judged by the same bounds as the verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import special

from . import intervals

SIMULATIONS, POWER = 120, 0.95
PROMPTS = (40, 60, 80, 100, 120, 140, 160, 200, 240, 320, 480, 640)
SEEDS = (3, 5, 8)
_SEED = 1909


@dataclass(frozen=True)
class Needs:
    """Prompts a class and seeds with which 95 of 100 studies like this one would decide."""

    prompts: int
    seeds: int

    def __str__(self) -> str:
        return f"about {self.prompts} prompts" + (f" and {self.seeds} seeds" if self.seeds > 1 else "")


def resampled(
    x: Float[np.ndarray, "seed prompt part"], seeds: int, prompts: int, studies: int = SIMULATIONS
) -> Float[np.ndarray, "part seed2 prompt2 study"]:
    """Studies of so many seeds and prompts, drawn with replacement from those that were read.

    What seeds differ by is widened by `sqrt(S / (S - 1))`: draws from a few seeds differ less than seeds do.
    """
    rng = np.random.default_rng([_SEED, seeds, prompts])
    if len(x) > 1:
        mean = x.mean(axis=(0, 1))
        own = x.mean(axis=1, keepdims=True)
        x = x + (np.sqrt(len(x) / (len(x) - 1)) - 1) * (own - mean)
    s = rng.integers(len(x), size=(seeds, 1, studies))
    n = rng.integers(x.shape[1], size=(1, prompts, studies))
    return np.moveaxis(x[s, n], 3, 0)


def planted(x: Float[np.ndarray, "seed prompt part"], mean: float) -> Float[np.ndarray, "seed prompt part"]:
    """The same readings with hits: so many prompts hold everything that the weakest part has this mean.

    Which prompts is drawn, and is the same in all seeds. A shift of every prompt would promise too much: a
    mean of 20 % is rarely 20 % in every prompt.
    """
    weakest = float(x.mean(axis=(0, 1)).min())
    share = min(1.0, max(0.0, (mean - weakest) / max(1 - weakest, 1e-9)))
    hit = np.random.default_rng(_SEED).permutation(x.shape[1]) < round(share * x.shape[1])
    return np.where(hit[None, :, None], 1.0, x)


def power_there(
    x: Float[np.ndarray, "seed prompt part"], bounds: Sequence[float], seeds: int, prompts: int
) -> float:
    """Share of studies in which the lower end of every part exceeds its bound."""
    found = [
        intervals.bootstrap(study).low > b
        for study, b in zip(resampled(x, seeds, prompts), bounds, strict=True)
    ]
    return float(np.all(found, axis=0).mean())


def power_gone(
    x: Float[np.ndarray, "seed prompt"],
    negligible: float,
    alpha: float,
    most: float,
    seeds: int,
    prompts: int,
) -> float:
    """Share of studies in which every seed's p of "at least `negligible`" is below `alpha`."""
    studies = resampled(x[..., None], seeds, prompts)[0]
    worst = np.max([intervals.p_at_least(study, negligible, most) for study in studies], axis=0)
    return float((worst < alpha).mean())


def needs(power: Callable[[int, int], float], seeds: Sequence[int]) -> Needs | None:
    """The fewest seeds, and then prompts, of the lists above that have the power; None where none has.

    `power` takes seeds and prompts; it grows with prompts, so the list of those is halved.
    """
    for s in seeds:
        low, high = 0, len(PROMPTS)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if power(s, PROMPTS[middle]) >= POWER else (middle + 1, high)
        if low < len(PROMPTS):
            return Needs(PROMPTS[low], s)
    return None


def needs_by_error(n: int, seeds: int, distance: float, se: float) -> Needs | None:
    """The same for a statistic whose error shrinks with the square root of prompts, such as an AUROC."""
    if distance <= 0:
        return None
    reach = special.ndtri((1 + intervals.LEVEL) / 2) + special.ndtri(POWER)
    wanted = n * (reach * se / distance) ** 2
    return next((Needs(p, seeds) for p in PROMPTS if p >= wanted), None)
