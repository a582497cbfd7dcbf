"""Arrays to intervals: a mean over seeds and prompts, with what is known of its uncertainty.

In: masses as arrays, axes `seed prompt cell` (a cell is a layer, or a layer of one random set). Out: an
estimate with its 95 % interval for each cell. Seeds and prompts are *crossed*: every seed reads the same
prompts. So the bootstrap draws seeds first, then prompts within a class, the same ones for all seeds (the
pigeonhole bootstrap, Owen 2007, arXiv:0712.1111). That a mean is *small* is said by another bound, Gaffke's,
which few prompts with masses near 0 or 1 do not break.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import special

LEVEL = 0.95
ALPHA = 1 - LEVEL


@dataclass(frozen=True)
class Interval:
    """Estimates with their 95 % intervals, one a cell, in the unit of what was averaged."""

    estimate: Float[np.ndarray, " cell"]
    low: Float[np.ndarray, " cell"]
    high: Float[np.ndarray, " cell"]
    se: Float[np.ndarray, " cell"]
    df: Float[np.ndarray, " cell"]
    """Satterthwaite: near `seeds - 1` where seeds disagree, near `prompts - 1` where prompts do."""


def bootstrap(*strata: Float[np.ndarray, "seed _ cell"], level: float = LEVEL) -> Interval:
    """Hierarchical bootstrap interval of the sum of the strata's means: seeds first, then prompts.

    Each stratum is `[seed, prompt, cell]`, with its own number of prompts; a difference of two classes is
    `bootstrap(own, -other)`. For a mean, the bootstrap distribution has its cumulants in closed form: these
    are used, as if infinitely many draws were made (a test compares them with draws). Its variance is freed
    from the bias that few seeds and prompts give it; its skewness moves the interval (Hall 1992, second
    order). The width is Student's t with Satterthwaite's degrees of freedom, and never less than Student's t
    over the seeds' own means: the percentile interval of 3 seeds covers 75 % at best. With one seed the
    interval speaks of that run only.
    """
    m = moments(*strata)
    tail = (1 + level) / 2
    half = special.stdtrit(m.df, tail) * m.se
    if m.seeds > 1:
        half = np.maximum(half, special.stdtrit(m.seeds - 1, tail) * m.se_seeds)
    z = special.ndtri(tail)
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = np.where(m.se > 0, m.third / m.se**2, 0.0) * (1 + 2 * z**2) / 6
    shift = np.clip(shift, -half / 2, half / 2)
    return Interval(m.mean, m.mean + shift - half, m.mean + shift + half, m.se, m.df)


FEW_HITS = 10.0
"""Prompts' worth of mass, or of what is lacking to all of it, below which a share needs an exact end."""


@dataclass(frozen=True)
class Judged(Interval):
    """Intervals of values that have a smallest one, for "the mean exceeds a bound"; a cell is a deal."""

    values: Float[np.ndarray, "seed n cell"]
    least: float

    def exceed(self, bound: float) -> Bool[np.ndarray, " cell"]:
        """Whether the lower end exceeds `bound`, Gaffke's too."""
        there = self.low > bound
        there[there] = surely_above(self.values.mean(axis=0)[:, there], bound, self.least)
        return there


def judge(x: Float[np.ndarray, "seed _ cell"], least: float) -> Judged:
    """`bootstrap`, and a lower end that a few prompts cannot break; no value is below `least`.

    Some prompts in a hundred may be confidently wrong. Most small samples hold none of them, and an interval
    made of the sample's own spread is then too narrow by far: a margin of 13 % on 97 of 100 prompts and of
    -100 % on the others has a mean of 9.6 %, and of 60 such prompts there is none in one study of six. So the
    lower end is also no higher than Gaffke's bound at 5 %. That of the first cell, which is shown, is lowered
    to it. A share (`least` 0) that fewer than ten prompts hold, or lack, has Gaffke's ends at 2.5 %: the
    skewness that a sample shows says too little there.
    """
    found = bootstrap(x)
    low, high, values = found.low.copy(), found.high.copy(), x[..., 0].mean(axis=0)
    if low[0] > 0:
        low[0] = min(low[0], lower(values, ALPHA, least))
    if least == 0 and values.sum() < FEW_HITS:
        high[0] = max(high[0], upper(values, ALPHA / 2))
    if least == 0 and (1 - values).sum() < FEW_HITS:
        low[0] = min(low[0], lower(values, ALPHA / 2))
    return Judged(found.estimate, low, high, found.se, found.df, x, least)


@dataclass(frozen=True)
class Moments:
    """Cumulants of the sum of means over crossed seeds and prompts, one a cell."""

    seeds: int
    mean: Float[np.ndarray, " cell"]
    se: Float[np.ndarray, " cell"]
    se_seeds: Float[np.ndarray, " cell"]
    """What the seeds' means alone say."""
    df: Float[np.ndarray, " cell"]
    third: Float[np.ndarray, " cell"]
    """Third central moment over the draws of prompts; a few seeds have none worth estimating."""


def moments(*strata: Float[np.ndarray, "seed _ cell"]) -> Moments:
    """Mean, standard error (bias-corrected), degrees of freedom and third moment, for `bootstrap`."""
    seeds, cells = strata[0].shape[0], strata[0].shape[2]
    by_seed = sum((x.mean(axis=1) for x in strata), np.zeros((seeds, cells)))
    v_seed = by_seed.var(axis=0, ddof=1) / seeds if seeds > 1 else np.zeros(cells)
    v_prompt, v_both, denominator, third = (np.zeros(cells) for _ in range(4))
    for x in strata:
        n = x.shape[1]
        mean = x.mean(axis=0)
        v = mean.var(axis=0, ddof=1) / n if n > 1 else np.zeros(cells)
        v_prompt += v
        third += ((mean - mean.mean(axis=0)) ** 3).mean(axis=0) / n**2
        denominator += v**2 / max(n - 1, 1)
        if seeds > 1 and n > 1:
            rest = x - mean
            rest -= x.mean(axis=1, keepdims=True) - mean.mean(axis=0)
            v_both += np.einsum("spc,spc->c", rest, rest) / ((seeds - 1) * (n - 1)) / (seeds * n)
    denominator += v_seed**2 / max(seeds - 1, 1)
    # Noise of single (seed, prompt) pairs is in both: count it once.
    total = np.maximum(np.maximum(v_seed, v_prompt), v_seed + v_prompt - v_both)
    with np.errstate(divide="ignore", invalid="ignore"):
        df = np.where(denominator > 0, (v_seed + v_prompt) ** 2 / denominator, 1.0)
    mean = sum((x.mean(axis=(0, 1)) for x in strata), np.zeros(cells))
    return Moments(seeds, mean, np.sqrt(total), np.sqrt(v_seed), np.maximum(df, 1.0), third)


_NEWTON = 60
_PIECES, _ROUNDS = 8, 10
"""A bound is searched in so many pieces at once: the arrays are small, and each call costs the same."""


def p_at_least(
    x: Float[np.ndarray, "n cell"], mean: float | Float[np.ndarray, " cell"], most: float = 1.0
) -> Float[np.ndarray, " cell"]:
    """P-value of "the mean is at least `mean`", for values that never exceed `most`.

    Gaffke (2005): the probability that `sum_i E_i (x_i - mean) + E_0 (most - mean) >= 0` for independent
    exponential `E`, here by the saddlepoint (Barndorff-Nielsen). Of 60 prompts that all hold nothing, the p
    of a mean of 5 % is `0.95**60 = 0.046`: fewer say nothing, for one prompt in twenty could hold everything.
    No distribution is known that breaks it, and none has been proven not to (Learned-Miller and Thomas 2020).
    """
    a = np.concatenate([np.asarray(x, dtype=float), np.full((1, x.shape[1]), most)]) - mean
    p = np.where(a.max(axis=0) > 0, 1.0, 0.0)
    usable = (a.min(axis=0) < 0) & (a.max(axis=0) > 0)
    if usable.any():
        p[usable] = _saddlepoint(a[:, usable])
    return p


def _saddlepoint(a: Float[np.ndarray, "n cell"]) -> Float[np.ndarray, " cell"]:
    """P(sum of `E_i a_i` >= 0), where each cell has positive and negative `a`."""
    low, high = 1 / a.min(axis=0), 1 / a.max(axis=0)
    s = np.zeros(a.shape[1])
    for _ in range(_NEWTON):
        r = a / (1 - s * a)
        slope = r.sum(axis=0)
        high, low = np.where(slope > 0, s, high), np.where(slope > 0, low, s)
        after = s - slope / (r * r).sum(axis=0)
        after = np.where((after < low) | (after > high), (low + high) / 2, after)
        done = np.abs(after - s).max() <= 1e-10 * np.abs(after).max()
        s = after
        if done:
            break
    r = a / (1 - s * a)
    k, k2, k3 = -np.log1p(-s * a).sum(axis=0), (r**2).sum(axis=0), 2 * (r**3).sum(axis=0)
    w, u = np.sign(s) * np.sqrt(np.maximum(-2 * k, 0)), s * np.sqrt(k2)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = special.ndtr(-(w + np.log(u / w) / w))
    near = np.abs(w) < 1e-3  # the formula is 0 / 0 there; its limit
    return np.asarray(np.clip(np.where(near, 0.5 - k3 / (6 * np.sqrt(2 * np.pi) * k2**1.5), p), 0.0, 1.0))


def surely_above(x: Float[np.ndarray, "n cell"], bound: float, least: float) -> Bool[np.ndarray, " cell"]:
    """Whether Gaffke's lower bound at 5 % exceeds `bound`, for values that are never below `least`."""
    return p_at_least(-x, -bound, -least) <= ALPHA


def upper(x: Float[np.ndarray, " n"], alpha: float, most: float = 1.0) -> float:
    """The smallest mean that `p_at_least` refuses at `alpha`: an upper bound for values up to `most`."""
    same = np.broadcast_to(np.asarray(x, dtype=float)[:, None], (len(x), _PIECES))
    low, high = float(np.mean(x)), float(most)
    for _ in range(_ROUNDS):
        tried = np.linspace(low, high, _PIECES + 1)
        refused = p_at_least(same, tried[1:], most) <= alpha
        refused[-1] = True
        first = int(refused.argmax())
        low, high = tried[first], tried[first + 1]
    return float(high)


def lower(x: Float[np.ndarray, " n"], alpha: float, least: float = 0.0) -> float:
    """The mirror image of `upper`, for values that are never below `least`."""
    return -upper(-np.asarray(x, dtype=float), alpha, -least)


def excluded_share(seeds: int, alpha: float = ALPHA) -> float:
    """The share of seeds above which it is excluded that none of `seeds` has something: 0.63 for three."""
    return float(1 - alpha ** (1 / seeds))
