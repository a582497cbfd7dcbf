"""E: what LoRA SFT on verifiable arithmetic does."""

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.prediction("E1")
def test_answer_classifier_emerges(verdict):
    assert verdict.supported, verdict


@pytest.mark.prediction("E2")
def test_operation_word_classifier_emerges(verdict):
    assert verdict.supported, verdict


@pytest.mark.prediction("E3")
def test_strength_grows_with_training(verdict):
    assert verdict.supported, verdict


@pytest.mark.prediction("E4")
def test_classifier_sits_in_the_middle_band(verdict):
    assert verdict.supported, verdict


@pytest.mark.prediction("E5")
def test_strength_predicts_correctness_prompt_by_prompt(verdict):
    assert verdict.supported, verdict


@pytest.mark.prediction("E6")
def test_emergence_replicates_over_seeds(verdict):
    assert verdict.supported, verdict
