"""The statistics themselves, by simulation: how often they err when the truth is known.

Quick versions run with every `pytest tests`; `-m slow` runs 1,000 simulations of every verdict's null.
A rate is refused where a binomial test says that it cannot be α (p < 0.001; the simulations are seeded).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from judged import ROW
from scipy import stats
from synthetic import BACKGROUND, Plant, _beta, study

from emergence.analysis import evidence, intervals, masses, permutation
from emergence.verdicts import judging
from emergence.verdicts.verdict import ENOUGH_DEALS

TINY = {
    "n_layers": 8,
    "steps": (0, 100),
    "styles": ("symbolic",),
    "operations": ("add", "multiply"),
    "hidden": 2,
}
JUST = 0.1 - BACKGROUND * np.exp(0.5**2 / 2)
"""Planted on top of the background, the mass is exactly at the threshold."""
INTERVAL = 0.025
"""Each end of a 95 % interval."""
QUICK, FULL = 3, 1000


def simulate(n: int, prediction: str, *plants: Plant, **settings: object) -> Counter[str]:
    """Outcomes of `n` independent studies for one operation: operations of one study share its seeds."""
    found: Counter[str] = Counter()
    for k in range(n):
        world = study(*plants, rng_seed=k, **(TINY | settings))
        found[judging.judge([ROW[prediction]], world, advise=False)[0].outcome] += 1
    return found


def refuse_above(alpha: float, errors: int, n: int) -> None:
    p = stats.binomtest(errors, n, alpha, alternative="greater").pvalue
    assert p > 1e-3, f"{errors} errors in {n}: more than α = {alpha}"


SFT, SHUFFLED, CLASSIFIED = {"arms": {"sft": 3}}, {"arms": {"shuffled": 3}}, {"arms": {"classified": 3}}
BASE = {"arms": {"sft": 1}, "seed_sd": 0.0}
DIFFER = {"seed_sd": 0.01}
WOBBLE = {"steps": (0, 50, 100, 150, 200), "wobble": 0.03}
BOTH_STYLES = {"styles": ("symbolic", "worded")}
GAINED = [Plant("base", "answer", 4, 0.3), Plant("sft", "answer", 4, 0.1)]
ONE_STYLE = Plant("classified", "words", 4, 0.9, styles=("symbolic",))


def bias(arm: str, family: str) -> Plant:
    return Plant(arm, family, 4, 0.95, selective=False)


def threshold(family: str) -> Plant:
    return Plant("sft", family, 4, 0.1)


# name: prediction, the wrong outcome, how often it may come out, what is true, how it is simulated
NULLS = {
    "B1 nothing there": ("B1", "falsified", 0.01, [], BASE),
    "B1 at the threshold, called absent": (
        "B1",
        "supported",
        INTERVAL,
        [Plant("base", "words", 4, 0.1)],
        BASE,
    ),
    "B1 at the threshold, called there": (
        "B1",
        "falsified",
        INTERVAL,
        [Plant("base", "words", 4, JUST)],
        BASE,
    ),
    "B1 bias": ("B1", "falsified", 0.01, [bias("base", "words")], BASE),
    "B2 digit bias": ("B2", "falsified", 0.01, [bias("base", "answer")], BASE),
    "B3 no code in the streams": ("B3", "supported", 0.01, [], BASE | {"hidden": 8}),
    "E1 digit bias": ("E1", "supported", 0.01, [bias("sft", "answer")], SFT),
    "E1 at the threshold, called there": (
        "E1",
        "supported",
        INTERVAL,
        [Plant("sft", "answer", 4, JUST)],
        SFT | DIFFER,
    ),
    "E1 at the threshold, called absent": ("E1", "falsified", INTERVAL, [threshold("answer")], SFT | DIFFER),
    "E1 gained as much as does not count": ("E1", "supported", INTERVAL, GAINED, SFT),
    "E2 bias": ("E2", "supported", 0.01, [bias("sft", "words")], SFT),
    "E2 copying": ("E2", "supported", 0.01, [Plant("sft", "glyphs", 4, 0.8)], SFT),
    "E2 at the threshold, seeds differ": (
        "E2",
        "supported",
        INTERVAL,
        [threshold("words")],
        SFT | {"seed_sd": 0.04},
    ),
    "E3 checkpoints differ, nothing grows": (
        "E3",
        "supported",
        0.01,
        [Plant("base", "answer", 4, 0.3)],
        SFT | WOBBLE,
    ),
    "E3 random walks": (
        "E3",
        "supported",
        INTERVAL,
        [Plant("base", "answer", 4, 0.3)],
        SFT | WOBBLE | {"walk": True},
    ),
    "E4 late only": ("E4", "supported", 0.01, [Plant("sft", "answer", 6), Plant("sft", "words", 6)], SFT),
    "E5 mass and correctness unrelated": ("E5", "supported", 0.01, [], SFT),
    "E6 noise between seeds": ("E6", "supported", INTERVAL, [threshold("answer")], SFT | {"seed_sd": 0.06}),
    "E6 a third of the seeds has it": (
        "E6",
        "supported",
        0.01,
        [Plant("sft", "answer", 4, 0.5, seeds=(1,))],
        SFT,
    ),
    "C1 shuffled answers": ("C1", "falsified", 0.01, [bias("shuffled", "answer")], SHUFFLED),
    "C2 random words": ("C2", "falsified", 0.01, [bias("sft", "random_words")], SFT),
    "O1 bias": ("O1", "supported", 0.01, [bias("classified", "words")], CLASSIFIED),
    "O2 the trained style only": ("O2", "supported", 0.01, [ONE_STYLE], CLASSIFIED | BOTH_STYLES),
}


@pytest.mark.parametrize("name", NULLS)
def test_false_positives_of_every_verdict_quickly(name):
    prediction, wrong, alpha, plants, settings = NULLS[name]
    found = simulate(QUICK, prediction, *plants, **settings)
    assert found[wrong] <= (alpha > 0.01), found


@pytest.mark.slow
@pytest.mark.parametrize("name", NULLS)
def test_false_positives_of_every_verdict_are_at_most_alpha(name, record_property):
    prediction, wrong, alpha, plants, settings = NULLS[name]
    found = simulate(FULL, prediction, *plants, **settings)
    record_property("outcomes", dict(found))
    print(f"{name}: {wrong} {found[wrong]} of {FULL}, α = {alpha}; {dict(found)}")
    refuse_above(alpha, found[wrong], FULL)


# Intervals: all simulations at once, one a cell -----------------------------------------------------------


def sample(seeds: int, seed_sd: float, mean: float, prompt_sd: float, n: int, sims: int, shared: float = 0.5):
    """Masses [seed, prompt, simulation] with this true mean."""
    rng = np.random.default_rng([seeds, n, int(1000 * mean)])
    z = np.sqrt(shared) * rng.standard_normal((1, n, sims))
    z = z + np.sqrt(1 - shared) * rng.standard_normal((seeds, n, sims))
    return _beta(np.full(z.shape, mean), prompt_sd, z) + seed_sd * rng.standard_normal((seeds, 1, sims))


COVERAGE = [
    (1, 0.0, 0.10, 0.06, 30, 3000),
    (1, 0.0, 0.30, 0.20, 30, 1000),
    (2, 0.05, 0.30, 0.20, 30, 1000),
    (3, 0.0, 0.10, 0.06, 30, 1000),
    (3, 0.01, 0.10, 0.06, 30, 1000),
    (3, 0.05, 0.10, 0.06, 30, 3000),
    (5, 0.02, 0.90, 0.08, 60, 500),
]


@pytest.mark.parametrize(("seeds", "seed_sd", "mean", "prompt_sd", "n", "sims"), COVERAGE)
def test_intervals_cover_the_truth_nearly_as_often_as_they_say(seeds, seed_sd, mean, prompt_sd, n, sims):
    got = intervals.bootstrap(sample(seeds, seed_sd, mean, prompt_sd, n, sims))
    misses = int((got.low > mean).sum()), int((got.high < mean).sum())
    refuse_above(0.06, sum(misses), sims)
    refuse_above(0.04, max(misses), sims)


def test_the_percentile_interval_of_three_seeds_would_not_cover():
    """Why the interval is no plain percentile: the same simulations refuse it."""
    x = sample(3, 0.05, 0.10, 0.06, 30, 600)
    plain = np.quantile(x.mean(axis=1), [0, 1], axis=0)  # the widest that resampling three seeds can give
    with pytest.raises(AssertionError, match="more than"):
        refuse_above(0.06, int(((plain[0] > 0.10) | (plain[1] < 0.10)).sum()), 600)


@pytest.mark.slow
def test_intervals_cover_over_the_whole_grid():
    worst = 1.0
    for seeds in (1, 2, 3, 5):
        for seed_sd in (0.0, 0.01, 0.05) if seeds > 1 else (0.0,):
            for mean, prompt_sd in ((0.10, 0.06), (0.30, 0.20), (0.15, 0.08), (0.90, 0.08)):
                got = intervals.bootstrap(sample(seeds, seed_sd, mean, prompt_sd, 30, 4000))
                cover = float(((got.low <= mean) & (got.high >= mean)).mean())
                print(f"{seeds} seeds (sd {seed_sd}), mean {mean} (sd {prompt_sd}): coverage {cover:.3f}")
                worst = min(worst, cover)
    assert worst > 0.93


# Power ----------------------------------------------------------------------------------------------------

POWER = {
    "E1": [Plant("sft", "answer", 4, 0.2)],
    "E2": [Plant("sft", "words", 4, 0.2)],
    "O1": [Plant("classified", "words", 4, 0.2)],
}


def _power(n: int, prediction: str) -> float:
    arm = SFT if prediction.startswith("E") else CLASSIFIED
    return simulate(n, prediction, *POWER[prediction], **arm)["supported"] / n


@pytest.mark.parametrize("prediction", POWER)
def test_a_mass_of_20_percent_is_found_with_60_prompts_quickly(prediction):
    assert _power(4, prediction) >= 3 / 4


@pytest.mark.slow
@pytest.mark.parametrize("prediction", POWER)
def test_a_mass_of_20_percent_is_found_with_60_prompts_95_times_in_100(prediction):
    power = _power(FULL, prediction)
    print(f"{prediction}: power {power:.3f}")
    assert power >= 0.95


@pytest.mark.slow
def test_seeds_only_noise_is_not_called_replication():
    """Seeds that hold 0 to 20 % by chance, around 8 %: some pass alone, all together hardly ever."""
    plant, sims = Plant("sft", "answer", 4, 0.08), 12
    found = simulate(sims, "E6", plant, arms={"sft": 3}, seed_sd=0.06, prompt_sd=0.03)
    refuse_above(INTERVAL, found["supported"], sims)
    alone = simulate(sims, "E1", plant, arms={"sft": 1}, seed_sd=0.06, prompt_sd=0.03)
    assert alone["inconclusive"] == sims


# The control of the controls: what the halves are for -----------------------------------------------------


def _false_alarms(sims: int, **how: bool) -> int:
    """How often the interval at the layers chosen among 29 lies above the truth, the same at all."""
    rng, errors = np.random.default_rng(9), 0
    world = study(n_layers=30, steps=(0,), styles=("symbolic",), hidden=2, arms={"sft": 1})
    m = masses.from_readings(world.runs, "symbolic", "words", "add").within(range(29))
    for _ in range(sims):
        own = _beta(np.full(m.own.shape, 0.10), 0.06, rng.standard_normal(m.own.shape))
        e = evidence.measure(replace(m, own=own), 0, False, **how)
        errors += int((e.judged["strength"].low > 0.10).sum()) >= ENOUGH_DEALS
    return errors


def test_layers_chosen_and_judged_on_the_same_prompts_would_be_caught_here():
    """The same simulation passes with the halves apart, and refuses a half that is judged where it chose."""
    sims = 50
    refuse_above(INTERVAL, _false_alarms(sims), sims)
    with pytest.raises(AssertionError, match="more than"):
        refuse_above(INTERVAL, _false_alarms(sims, apart=False), sims)


def test_permutation_p_values_are_uniform_under_the_null():
    rng = np.random.default_rng(3)
    labels, p, q = np.arange(24) < 8, [], []
    for _ in range(120):
        p.append(permutation.separation(rng.random((1, 4, 24)), labels, 199)[1].min())
        q.append(permutation.matching(rng.random((4, 16, 5)), rng.integers(5, size=16), 199).min())
    for values in (p, q):
        assert stats.kstest(values, "uniform").pvalue > 1e-3
        refuse_above(0.01, int((np.array(values) < 0.01).sum()), len(values))
