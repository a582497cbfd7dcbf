"""Random numbers that depend on seed, stream and step, and on nothing else."""

from __future__ import annotations

import itertools

import mlx.core as mx
import pytest

from emergence.training.randomness import ADAPTERS, DROPOUT, derived, drawing_from


def drawn() -> list[float]:
    return mx.random.uniform(shape=(4,)).tolist()


def test_every_combination_of_seed_stream_and_step_has_a_number_of_its_own():
    asked = [(s, ADAPTERS) for s in range(20)] + list(itertools.product(range(20), [DROPOUT], range(50)))
    numbers = {derived(*seeds) for seeds in asked}
    assert len(numbers) == len(asked)
    assert derived(1, 2) == derived(1, 2) != derived(2, 1)
    assert max(numbers) > 2**63, "half of the bits would do, and MLX takes 64"


def test_what_is_drawn_inside_depends_on_the_seed_alone_and_leaves_no_trace():
    mx.random.seed(5)
    undisturbed = [drawn(), drawn()]
    mx.random.seed(5)
    seen = [drawn()]
    with drawing_from(derived(3, DROPOUT, 7)):
        inside = drawn()
    seen.append(drawn())
    assert seen == undisturbed
    with drawing_from(derived(3, DROPOUT, 7)):
        assert drawn() == inside
    with drawing_from(derived(3, DROPOUT, 8)):
        assert drawn() != inside


def test_the_generator_comes_back_after_an_exception():
    mx.random.seed(5)
    undisturbed = drawn()
    mx.random.seed(5)
    with pytest.raises(ZeroDivisionError), drawing_from(1):
        raise ZeroDivisionError
    assert drawn() == undisturbed
