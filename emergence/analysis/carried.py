"""Effects to shares: how much of the difference between two prompts an exchange carries, beyond placebos.

In: `Effects` of the seeds of an arm, some of their pairs. Out: `Carried`. A share is a ratio of sums over
pairs, so that pairs whose prompts hardly differ weigh hardly anything. Each pair's part in it, linearised,
has the share as its mean: intervals come from the same bootstrap as all others. Layers are chosen on one half
of the pairs and judged on the other, in each of 40 deals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from ..readings.effects import Effects
from . import intervals, permutation

USABLE = 20
"""Pairs of a class in which the model says something else after the source: fewer decide nothing."""

ALL = 1.0
"""The share of a pair that carries everything: bounds for few pairs take no pair to carry less than -1, nor
more than 1, but where one was seen that does."""


def linearised(
    gained: Float[np.ndarray, "... pair"], whole: Float[np.ndarray, " pair"]
) -> Float[np.ndarray, "... pair"]:
    """Each pair's part in `sum(gained) / sum(whole)`, which is their mean: the ratio plus its influence."""
    share = gained.sum(axis=-1, keepdims=True) / whole.sum()
    return np.asarray(share + (gained - share * whole) / whole.mean())


@dataclass(frozen=True)
class Carried:
    """One kind of exchange in one arm, for the pairs of one class, at the layers of a band."""

    layer: Int[np.ndarray, " layer"]
    net: Float[np.ndarray, "layer seed pair"]
    """Each pair's part in the share, less that of what it is held against."""
    flipped: Float[np.ndarray, "layer seed pair"]
    """What each pair gains beyond it, on the scale of the share: where nothing is carried, of either sign."""
    share: Float[np.ndarray, " layer"]
    """What is carried, before anything is taken from it."""
    placebo: Float[np.ndarray, "layer draw"]
    """What each placebo carries; no draws where the exchange is held against another one."""
    deals: Bool[np.ndarray, "deal pair"]

    @cached_property
    def chosen(self) -> Int[np.ndarray, "deal half"]:
        """The layer (an index) with most, beyond what it is held against, on each half of the pairs."""
        by_pair = self.net.mean(axis=1)  # [layer pair]
        weights = np.stack([self.deals, ~self.deals], axis=1).astype(float)  # [deal half pair]
        return np.asarray((weights @ by_pair.T / weights.sum(axis=2, keepdims=True)).argmax(axis=2))

    @cached_property
    def judged(self) -> Float[np.ndarray, "seed pair deal"]:
        """Each pair at the layer that the other half chose."""
        where = np.where(self.deals, self.chosen[:, [1]], self.chosen[:, [0]])  # [deal pair]
        pair = np.arange(self.net.shape[2])
        return np.moveaxis(self.net[where, :, pair[None]], (0, 1, 2), (2, 1, 0))

    @cached_property
    def interval(self) -> intervals.Judged:
        """Of the net share, a cell a deal."""
        return intervals.judge(self.judged, min(-ALL, float(self.judged.min())))

    def p_there(self, m: int = permutation.PERMUTATIONS) -> float:
        """P of "nothing is carried" at the chosen layers: signs flipped pair by pair, max-T over layers."""
        x = self.flipped.mean(axis=1)  # [layer pair]: the same flips for all seeds
        size = np.sqrt((x**2).sum(axis=1))
        x = x / np.where(size > 0, size, np.inf)[:, None]
        signs = np.random.default_rng([x.shape[1], 17]).choice([-1.0, 1.0], size=(m, x.shape[1]))
        p = permutation.max_t(x.sum(axis=1), x @ signs.T)
        return float(p[self.chosen[0]].max())

    def gone(self, negligible: float) -> tuple[float, int, int]:
        """P of "at least `negligible` is carried" where that is least sure: p, layer (an index), seed.

        Student's t over pairs, in each layer and seed, and Gaffke's p: all must be small. Where one pair in
        twenty carries everything, most small samples hold none that does, and their t is sure of nothing.
        """
        found = [intervals.bootstrap(self.net[:, [s]].transpose(1, 2, 0)) for s in range(self.net.shape[1])]
        p = np.array([_p_least(x, negligible) for x in found])  # [seed layer]
        few = [self._p_few(s, negligible) for s in range(self.net.shape[1])]
        p = np.maximum(p, np.array(few))
        seed, layer = np.unravel_index(int(p.argmax()), p.shape)
        return float(p.max()), int(layer), int(seed)

    def _p_few(self, seed: int, negligible: float) -> Float[np.ndarray, " layer"]:
        x = self.net[:, seed].T
        return intervals.p_at_least(x, negligible, max(ALL, float(x.max())))

    def of_seed(self, seed: int, layer: int) -> intervals.Interval:
        """The net share of one seed at one layer."""
        return intervals.bootstrap(self.net[[layer], seed].T[None])

    @property
    def beaten_by(self) -> int:
        """How many placebos carry as much as the exchange, at the layers that the halves chose."""
        cells = self.chosen[0]
        if not self.placebo.shape[1]:
            return 0
        return int((self.placebo[cells].mean(axis=0) >= self.share[cells].mean()).sum())


def _p_least(x: intervals.Interval, bound: float) -> np.ndarray:
    from scipy import special

    reach = np.where(x.se > 0, x.se, 1e-9)
    return np.asarray(special.stdtr(x.df, (x.estimate - bound) / reach))


def usable(effects: Sequence[Effects], mine: Int[np.ndarray, " pair"], crossed: bool = False) -> int:
    """Pairs in which the model says different things after base and source, in the seed with the fewest.

    With `crossed`, different things after all three prompts.
    """
    whole = [e.crossed_whole[mine].min(axis=1) if crossed else e.whole[mine] for e in effects]
    return min(int((w > 0).sum()) for w in whole)


def of_part(
    effects: Sequence[Effects],
    part: str,
    mine: Int[np.ndarray, " pair"],
    layer: Sequence[int],
    deals: Bool[np.ndarray, "deal pair"],
) -> Carried:
    """What the exchange of a part carries, less what its placebos carry on average."""
    at = np.array(layer)
    nets, flips, shares, placebos = [], [], [], []
    for e in effects:
        whole = e.whole[mine].astype(float)
        real = e.gained[part][at][:, mine].astype(float)
        held = e.placebo[part][at][:, :, mine].astype(float)
        nets.append(linearised(real, whole) - linearised(held, whole).mean(axis=1))
        flips.append((real - held.mean(axis=1)) / whole.mean())
        shares.append(real.sum(axis=1) / whole.sum())
        placebos.append(held.sum(axis=2) / whole.sum())
    stacked = np.stack(nets, axis=1), np.stack(flips, axis=1)
    return Carried(at, *stacked, np.mean(shares, axis=0), np.mean(placebos, axis=0), deals)


def of_operation(
    effects: Sequence[Effects],
    mine: Int[np.ndarray, " pair"],
    layer: Sequence[int],
    deals: Bool[np.ndarray, "deal pair"],
) -> Carried:
    """What the stream of other operands carries of its class, less what it carries of its own answer."""
    at = np.array(layer)
    nets, flips, shares = [], [], []
    for e in effects:
        whole = e.crossed_whole[mine].astype(float)
        both = e.crossed[at][:, mine].astype(float)  # [layer pair two]
        parts = [linearised(both[..., k], whole[:, k]) for k in (0, 1)]
        nets.append(parts[0] - parts[1])
        flips.append(both[..., 0] / whole[:, 0].mean() - both[..., 1] / whole[:, 1].mean())
        shares.append(both[..., 0].sum(axis=1) / whole[:, 0].sum())
    stacked = np.stack(nets, axis=1), np.stack(flips, axis=1)
    return Carried(at, *stacked, np.mean(shares, axis=0), np.zeros((len(at), 0)), deals)
