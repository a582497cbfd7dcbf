"""How many prompts and seeds would decide a claim: from recorded readings, resampled.

In: the values of a part at the place where it was judged, by seed and prompt. Out: `Needs`. No distribution
is assumed: prompts and seeds are drawn anew from those that were read (a plasmode simulation), with an effect
planted where the recorded one could decide nothing, and judged by the same bounds as the verdict.
"""

from __future__ import annotations

import math
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
    x: Float[np.ndarray, "seed prompt part"],
    bounds: Sequence[float],
    least: Sequence[float],
    seeds: int,
    prompts: int,
) -> float:
    """Share of studies in which the lower end of every part exceeds its bound; no value is below `least`."""
    there = np.ones(SIMULATIONS, dtype=bool)
    for study, bound, lowest in zip(resampled(x, seeds, prompts), bounds, least, strict=True):
        there &= intervals.bootstrap(study).low > bound
        there[there] = intervals.surely_above(study.mean(axis=0)[:, there], bound, lowest)
    return float(there.mean())


def power_gone(
    cells: Sequence[tuple[Float[np.ndarray, "seed prompt"], float, float]],
    negligible: float,
    seeds: int,
    prompts: int,
) -> float:
    """Share of studies in which every seed's p of "at least `negligible`" is small enough, in every cell.

    A cell is its values, the error rate that p must be below, and the largest value that there can be. Where
    too few studies are left to have the power, no more cells are looked at.
    """
    there = np.ones(SIMULATIONS, dtype=bool)
    for x, alpha, most in cells:
        for study in resampled(x[..., None], seeds, prompts)[0]:
            there[there] = intervals.p_at_least(study[:, there], negligible, most) < alpha
            if there.mean() < POWER:
                return float(there.mean())
    return float(there.mean())


@dataclass(frozen=True)
class Spread:
    """The variance of a statistic that is no mean, such as an AUROC, in two parts."""

    noise: float
    """What prompts add, averaged over seeds."""
    between: float
    """The variance of the seeds' own values, divided by their number; the noise of prompts is in it too."""
    prompts: int
    seeds: int


def power_by_error(spread: Spread, tests: Sequence[tuple[float, float]], seeds: int, prompts: int) -> float:
    """Share of studies in which Student's t passes every test: a distance from its bound, and a level.

    For example, `(0.08, 0.975)` is a value that lies .08 above what the lower end of a 95 % interval must
    exceed. The t has Satterthwaite's degrees of freedom: with three seeds that differ there are two, and its
    97.5 % point is 4.3. Of several tests, the power is that of the hardest one.
    """
    noise = spread.noise * spread.prompts / prompts
    differ = max(spread.between - spread.noise, 0.0) * spread.seeds / seeds
    between = differ + noise if seeds > 1 else 0.0
    error, told = math.sqrt(noise + differ), math.sqrt(noise + between)
    df = (noise + between) ** 2 / (noise**2 / (prompts - 2) + between**2 / max(seeds - 1, 1))
    missed = [
        special.nctdtr(df, min(max(distance, 0.0) / error, 30.0), special.stdtrit(df, level) * told / error)
        for distance, level in tests
    ]
    return float(1 - max(missed))


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
    """The same for a statistic whose error shrinks with the square root of prompts, with so many seeds.

    `distance` is that from the bound which an end of its 95 % interval must pass.
    """
    spread, level = Spread(se**2, 0.0, n, seeds), (1 + intervals.LEVEL) / 2
    return needs(lambda s, k: power_by_error(spread, [(distance, level)], s, k), (seeds,)) if se else None
