"""At equal accuracy: the level, the line between two checkpoints, and the noise that the accuracies bring."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose

from emergence.analysis import intervals, matched
from emergence.analysis.matched import Side

STEPS = 5


def side(rng, accuracy, mass, n: int = 200, noise: float = 0.1) -> Side:
    """Prompts that are right with these probabilities, and hold these masses where they are not copied."""
    ease = rng.random(n)
    right = (ease < np.array(accuracy)[:, None]).astype(float)
    held = np.array(mass)[:, None, None] + noise * rng.standard_normal((len(mass), n, 3))
    return Side(np.clip(held, 0, 1), right)


def test_the_mean_difference_is_that_of_masses_interpolated_at_the_lower_last_accuracy():
    rng = np.random.default_rng(0)
    slow = side(rng, [0.1, 0.2, 0.3, 0.4, 0.5], [0.1, 0.2, 0.25, 0.3, 0.35])
    fast = side(rng, [0.1, 0.2, 0.3, 0.7, 0.9], [0.1, 0.3, 0.4, 0.5, 0.6])
    found = matched.match(slow, fast)
    level = slow.right[-1].mean()
    wanted = [
        slow.mass[-1, :, cell].mean() - np.interp(level, fast.accuracy, fast.mass[:, :, cell].mean(axis=1))
        for cell in range(3)
    ]
    assert_allclose(found.difference.mean(axis=0), wanted, atol=1e-12)
    assert (found.accuracy, found.between, found.other_is_higher) == (level, (2, 3), True)
    back = matched.match(fast, slow)
    assert_allclose(back.difference, -found.difference)
    assert np.abs(found.difference).max() <= found.reach


def test_of_several_crossings_the_last_counts_and_a_fall_is_one_too():
    mass = np.linspace(0, 0.8, STEPS)[:, None, None] * np.ones((STEPS, 10, 1))
    up_and_down = np.array([[0] * 10, [1] * 8 + [0] * 2, [1] * 2 + [0] * 8, [1] * 6 + [0] * 4, [1] * 10])
    high = Side(mass, up_and_down.astype(float))
    low = Side(mass, np.tile([1.0] * 4 + [0.0] * 6, (STEPS, 1)))
    assert matched.match(low, high).between == (2, 3)
    assert matched.match(low, high).difference.mean() == pytest.approx(0.8 - 0.5)


def test_arms_that_end_equal_are_compared_as_they_end():
    rng = np.random.default_rng(1)
    one = side(rng, [0.1, 0.3, 0.5, 0.5, 0.5], [0.1, 0.2, 0.3, 0.4, 0.5])
    other = Side(one.mass / 2, one.right)
    assert_allclose(matched.match(one, other).difference, one.mass[-1] / 2)


def test_without_checkpoints_on_either_side_there_is_no_match():
    rng = np.random.default_rng(2)
    low = side(rng, [0.1] * STEPS, [0.1] * STEPS)
    high = side(rng, [0.5, 0.6, 0.7, 0.8, 0.9], [0.1] * STEPS)
    assert matched.match(low, high) is None
    assert matched.match(high, low) is None


def test_the_interval_knows_how_noisy_the_accuracies_are():
    """Mass follows accuracy alone, in both arms alike: the true difference is 0.

    The spread of the estimate over many studies is the standard error that one study gives; masses alone,
    without the noise of the accuracy, would promise far too much.
    """
    rng, estimates, errors, naive = np.random.default_rng(3), [], [], []
    for _ in range(300):
        low = side(rng, [0.1, 0.2, 0.3], [0.1, 0.2, 0.3], 100, 0.02)
        high = side(rng, [0.1, 0.4, 0.9], [0.1, 0.4, 0.9], 100, 0.02)
        found = matched.match(low, high)
        if found is None or found.between != (0, 1):
            continue
        x = found.difference[None, :, :1]
        estimates.append(x.mean())
        errors.append(intervals.bootstrap(x).se[0])
        naive.append(0.02 * np.sqrt(2 / 100))
    assert len(estimates) > 250
    assert np.mean(errors) == pytest.approx(np.std(estimates), rel=0.15)
    assert np.mean(naive) < np.std(estimates) / 3
    assert abs(np.mean(estimates)) < np.std(estimates) / 3, "a bias of second order"


def test_each_half_judges_what_the_other_half_chose_and_with_its_sign():
    x = np.zeros((1, 8, 3))
    x[0, :4, 1], x[0, 4:, 1], x[0, :4, 2] = -0.5, -0.3, 0.4
    deals = np.array([[True] * 4 + [False] * 4])
    found = matched.choose(x, deals)
    assert found.cells.tolist() == [[1, 1]]
    assert found.sign == -1
    assert_allclose(found.values[0, :, 0], [0.5] * 4 + [0.3] * 4)
    x[0, 4:, 1] = 0.3
    assert matched.choose(x, deals).sign == 0
    assert_allclose(matched.choose(x, deals).values[0, :, 0], [-0.5] * 4 + [-0.3] * 4)


def test_the_p_is_the_share_of_all_signs_that_reach_as_far():
    x = np.random.default_rng(4).normal(0.3, 1, (2, 7, 2))
    mean = x.mean(axis=0)
    scaled = mean / np.sqrt((mean**2).mean(axis=0))
    every = np.array(list(product([-1, 1], repeat=7)))
    largest = np.abs(every @ scaled / 7).max(axis=1)
    exact = [(largest >= abs(s) - 1e-9).mean() for s in scaled.mean(axis=0)]
    assert_allclose(matched.p_there(x, 20_000), exact, atol=0.015)


def test_without_a_difference_the_p_is_small_as_seldom_as_it_says():
    rng = np.random.default_rng(5)
    small = [matched.p_there(rng.normal(0, 1, (1, 40, 5)), 199).min() <= 0.05 for _ in range(400)]
    assert 0.02 < np.mean(small) < 0.08
    there = matched.p_there(rng.normal(1, 1, (1, 40, 1)), 999)
    assert there[0] == 0.001
