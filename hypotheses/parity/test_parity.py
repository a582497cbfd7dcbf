"""P: even or odd, a task of one's own."""

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.prediction("P1")
def test_base_model_has_no_word_for_the_parity(verdict):
    assert verdict.supported, verdict


@pytest.mark.prediction("P2")
def test_a_word_for_the_parity_emerges(verdict):
    assert verdict.supported, verdict


@pytest.mark.prediction("P3")
def test_shuffled_answers_make_no_word_for_the_parity(verdict):
    assert verdict.supported, verdict
