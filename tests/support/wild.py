"""Studies of another make than `generators`: masses are drawn as words are, not looked up by quantile.

A *law* says what every reading would be: `law(rng, a, b, seeds)` gives masses `[seed, pair, class, layer,
word]` for the pairs of operands `a`, `b`. The truth of a claim is that of 20,000 pairs and many seeds drawn
from the same law; a study draws a few of each. The laws have what the recorded masses have and worse: a few
prompts that are confidently wrong, Student's t with two degrees of freedom, masses that are 0 or 1, operands
that decide, seeds that have it or not.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from generators import CLASSES, Case, Design, Truth, World, operands, prompts, study
from scipy.special import expit, softmax

Law = Callable[[np.random.Generator, np.ndarray, np.ndarray, int], np.ndarray]
PAIRS, SEEDS = 20_000, 60


@dataclass(frozen=True)
class Wild:
    """A law of words, read as a design says. Hashable, so that its truth is computed once."""

    law: Law
    seeds: int = 1
    arm: str = "base"
    n: int | tuple[tuple[int, int], ...] = 60
    """Prompts a class; or of each class by half."""

    def make(self, k: int) -> Case:
        """Study number `k`, and what is true of its class `add`."""
        n = self.n if isinstance(self.n, int) else dict(zip(CLASSES, self.n, strict=True))
        steps = (0,) if self.arm == "base" else (0, 100)
        design = Design(self.arm, self.seeds, steps, n, rng=(k, 991))
        return _case(self.law, design, self.truth)

    @functools.cached_property
    def truth(self) -> Truth:
        """The smallest part of a classifier of `add` at the best layer, in the population."""
        rng, many = np.random.default_rng(77), 1 if self.arm == "base" else SEEDS
        a, b = rng.integers(12, 100, PAIRS), rng.integers(2, 10, PAIRS)
        drawn = [_parts(self.law(rng, a, b, 1)) for _ in range(many)]
        return Truth(*(2 * [float(np.mean(drawn, axis=0).min(axis=0).max())]))


def _parts(x: np.ndarray) -> np.ndarray:
    """Means `[part, layer]` of strength, margin and the two counterfactuals of class 0."""
    own, other = x[:, :, 0, :, 0], x[:, :, 0, :, 1:].max(axis=-1)
    parts = [own, own - other, own - x[:, :, 1, :, 0], own - x[:, :, 2, :, 0]]
    return np.stack([p.mean(axis=(0, 1)) for p in parts])


def _case(law: Law, design: Design, truth: Truth) -> Case:
    rng = np.random.default_rng(design.rng)
    items = prompts(design, rng)
    pairs, index = np.unique([operands(p) for p in items], axis=0, return_inverse=True)
    cls = np.array([CLASSES.index(p.cls) for p in items])
    x = law(rng, *pairs.T, design.seeds)[:, index, cls]  # [seed prompt layer word]
    x = np.moveaxis(x, 1, 2)
    shape = (design.seeds, len(design.steps), *x.shape[1:3])
    w = World(design, items, cls, np.zeros(shape), np.ones(design.seeds), rng)
    given = w.little(3) / 10
    given[:, -1] = np.clip(x, 1e-9, 1)
    return Case(study(w, words=given), dict.fromkeys(CLASSES, truth))


def _spread(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Masses `[..., class, layer, word]` of an own and an other mass; the other is the next class's word."""
    third = np.full_like(own, 1e-6)
    rolled = [np.roll(np.stack([own, other, third], -1), k, axis=-1) for k in range(3)]
    return np.stack(rolled, axis=2)


def confidently_wrong(gap: float, share: float, layers: int = 2) -> Law:
    """Own word `gap` above another on most prompts; on a share of the pairs all mass lies on the other."""

    def law(rng: np.random.Generator, a: np.ndarray, b: np.ndarray, seeds: int) -> np.ndarray:
        jitter = 0.004 * rng.standard_normal((seeds, len(a), layers))
        wrong = (rng.random(len(a)) < share)[None, :, None]
        own = np.where(wrong, 0.0, 0.30 + gap + jitter)
        return _spread(own, np.where(wrong, 1.0, 0.30 + 0 * jitter))

    return law


def heavy(own: float, other: float, seed_sd: float = 0.0, layers: int = 3) -> Law:
    """Softmax of logits with Student's t of two degrees: of a pair, a prompt, a layer, a seed."""

    def law(rng: np.random.Generator, a: np.ndarray, b: np.ndarray, seeds: int) -> np.ndarray:
        n = len(a)
        noise = rng.standard_t(2, (1, n, 1, 1, 1)) + rng.standard_t(2, (seeds, n, 3, layers, 1))
        apart = rng.standard_t(2, (1, n, 3, layers, 3))
        shift = np.zeros((seeds, 1, 3, 1, 3))
        effect = np.clip(1 + seed_sd * rng.standard_t(3, seeds), 0, None)[:, None]
        eye = np.eye(3)
        shift[:, 0, :, 0, :] = (own * eye + other * np.roll(eye, 1, axis=1))[None] * effect[..., None]
        logits = noise + apart + shift - 2.0
        rest = np.zeros((*logits.shape[:-1], 1))
        return np.asarray(softmax(np.concatenate([logits, rest], axis=-1), axis=-1)[..., :3])

    return law


def hurdle(p: float, q: float = 0.0, layers: int = 3, share: float = 1.0) -> Law:
    """Everything or nothing: a pair's own word holds it all with chance `p`, another one with chance `q`.

    Only in a share of the seeds.
    """

    def law(rng: np.random.Generator, a: np.ndarray, b: np.ndarray, seeds: int) -> np.ndarray:
        u = rng.random((1, len(a), layers)) * 0.6 + rng.random((1, len(a), 1)) * 0.4
        u = u.argsort(axis=1).argsort(axis=1) / len(a) if len(a) == PAIRS else _uniform(u)
        has = (rng.random(seeds) < share)[:, None, None]
        return _spread((u < p) * has * 1.0, ((u >= p) & (u < p + q)) * has * 1.0)

    return law


def _uniform(u: np.ndarray) -> np.ndarray:
    """The distribution function of `.6 U + .4 V`."""
    return np.where(u < 0.4, u**2 / 0.48, np.where(u < 0.6, (u - 0.2) / 0.6, 1 - (1 - u) ** 2 / 0.48))


def by_operands(slope: float, level: float, selective: bool = True, layers: int = 2) -> Law:
    """The larger the first operand the more mass: on the own word, or on `plus` whatever the class."""

    def law(rng: np.random.Generator, a: np.ndarray, b: np.ndarray, seeds: int) -> np.ndarray:
        mass = expit(level + slope * (a - 55) / 25 + 0.7 * (b - 5))[None, :, None]
        mass = mass * rng.beta(20, 1, (seeds, len(a), layers))
        if selective:
            return _spread(mass, 0 * mass)
        return np.repeat(np.stack([mass, 0 * mass, 0 * mass], axis=-1)[:, :, None], 3, axis=2)

    return law


def lit_elsewhere(mass: float, there: float, layers: int = 2) -> Law:
    """The own word holds `mass` on its prompts, and `there` on the prompts of the third class too."""

    def law(rng: np.random.Generator, a: np.ndarray, b: np.ndarray, seeds: int) -> np.ndarray:
        x = np.full((seeds, len(a), 3, layers, 3), 1e-6)
        for k in range(3):
            x[:, :, k, :, k] = rng.beta(2 * mass, 2 - 2 * mass, (seeds, len(a), layers))
            x[:, :, k - 1, :, k] = rng.beta(2 * there, 2 - 2 * there, (seeds, len(a), layers))
        return x / np.maximum(x.sum(axis=-1, keepdims=True), 1)

    return law


def many_layers(p: float, layers: int = 24) -> Law:
    """The same small chance at each of many layers, drawn anew: the best of them is nothing special."""

    def law(rng: np.random.Generator, a: np.ndarray, b: np.ndarray, seeds: int) -> np.ndarray:
        u = rng.random((seeds, len(a), layers))
        return _spread((u < p) * 0.97, 0.0 * u)

    return law
