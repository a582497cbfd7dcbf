"""When a training is given up: ten losses of every kind."""

from __future__ import annotations

import math

import pytest

from emergence.training.divergence import Divergence

UNIFORM = math.log(1000)
CASES = {
    # losses of the answers, the loss minimised last, validation loss at step 0, diverged
    "falling": ([5.0 - i / 10 for i in range(20)], 3.0, 5.0, False),
    "NaN at once": ([math.nan], math.nan, 5.0, True),
    "infinite": ([5.0, math.inf], math.inf, 5.0, True),
    "a classifier term that is NaN": ([5.0], math.nan, 5.0, True),
    "too high, but of nine steps only": ([20.0] * 9, 20.0, 5.0, False),
    "too high for ten": ([1.0, *[20.0] * 10], 20.0, 5.0, True),
    "high long ago": ([*[20.0] * 10, *[1.0] * 10], 1.0, 5.0, False),
    "below 1.5 times a high start": ([20.0] * 10, 20.0, 14.0, False),
    "above it": ([20.0] * 10, 20.0, 13.0, True),
    "above the start, below a uniform guess": ([5.0] * 10, 5.0, 1.0, False),
    "a uniform guess for ten steps": ([UNIFORM + (-1) ** i * 9e-4 for i in range(10)], UNIFORM, 9.0, True),
    "near it": ([*[UNIFORM] * 9, UNIFORM - 0.01], UNIFORM, 9.0, False),
}


@pytest.mark.parametrize(("answers", "total", "start", "diverged"), CASES.values(), ids=CASES)
def test_a_training_is_given_up_where_its_losses_say_so(answers, total, start, diverged):
    assert Divergence(UNIFORM, start).at(total, answers) is diverged
