"""Simulated `Effects` with a truth that is known: what an exchange carries, and what its placebos do.

In: `Truth`. Out: a `Study` of an arm with effects, for the causal criterion. Nothing of a model is simulated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import synthetic

from emergence.readings.effects import PLACEBOS, Effects
from emergence.readings.readings import Study

PARTS = ("stream", "words", "class means")
N_LAYERS = 12


@dataclass(frozen=True)
class Truth:
    """Shares of the log-odds that an exchange and its placebos carry at the layers of the band, and noise."""

    share: float = 0.0
    placebo: float = 0.0
    layers: tuple[int, ...] = (5, 6, 7)
    """Where it carries; at the others nothing is."""
    noise: float = 0.06
    """Standard deviation over pairs of what is gained, in nats of a whole of about 4."""
    heavy: bool = False
    """Student's t with three degrees of freedom in place of a normal."""
    seed_sd: float = 0.0
    """What seeds differ by, in shares."""
    same: float = 0.0
    """Share of pairs in which the model says one thing after both prompts."""
    left: float = 0.0
    operation: float = 0.0
    answer: float = 0.0
    """What the stream of other operands carries of each."""
    all_or_nothing: int = -1
    """If not negative, only this many seeds carry anything."""


def study(truth: Truth, seeds: int = 3, per_class: int = 60, draw: int = 0, arm: str = "sft") -> Study:
    """Runs of one arm whose last checkpoint has effects, and the base model's at step 0."""
    made = synthetic.study(per_class=per_class, n_layers=N_LAYERS, arms={arm: seeds})
    runs = []
    for i, run in enumerate(made.runs):
        own = replace(truth, share=0.0) if 0 <= truth.all_or_nothing <= i else truth
        last = {run.steps[-1]: effects(own, run.prompts, [draw, i])}
        runs.append(replace(run, effects=last | {0: effects(truth, run.prompts, [draw, 99])}))
    return replace(made, runs=tuple(runs))


def effects(truth: Truth, prompts: tuple, seed: list[int]) -> Effects:
    """One checkpoint's."""
    rng = np.random.default_rng(seed)
    base = [i for i, p in enumerate(prompts) if p.style == "symbolic" and p.half >= 0]
    pairs = np.array([(i, i) for i in base])  # of the source nothing is judged
    n = len(pairs)
    whole = rng.gamma(4.0, 1.0, n) * (rng.random(n) >= truth.same)
    lift = truth.seed_sd * rng.standard_normal()

    def noise(*shape: int) -> np.ndarray:
        raw = rng.standard_t(3, shape) / np.sqrt(3) if truth.heavy else rng.standard_normal(shape)
        return 4 * truth.noise * raw * (whole > 0)

    where = np.isin(np.arange(N_LAYERS), truth.layers).astype(float)
    gained = {p: where[:, None] * (truth.share + lift) * whole + noise(N_LAYERS, n) for p in PARTS}
    held = where[:, None, None] * truth.placebo * whole + noise(N_LAYERS, PLACEBOS, n)
    both = np.array([truth.operation, truth.answer])
    crossed = where[:, None, None] * both * whole[:, None] + np.stack([noise(N_LAYERS, n) for _ in both], -1)
    return Effects(
        pairs=pairs,
        whole=whole,
        gained=gained,
        placebo={p: held for p in PARTS},
        left=np.full((N_LAYERS, n), truth.left),
        crossed=crossed,
        crossed_whole=np.stack([whole, whole], axis=1),
        shown=np.zeros(0, int),
        map_layers=np.zeros(0, int),
        maps=np.zeros((0, 0, 0)),
        map_ids=np.zeros((0, 2, 0), int),
    )
