"""B: what the base model has before any training."""

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.prediction("B1")
def test_base_model_has_no_operation_word_classifier(verdict):
    assert verdict.supported, verdict


@pytest.mark.prediction("B2")
def test_base_model_has_no_answer_classifier_in_the_middle_band(verdict):
    assert verdict.supported, verdict


@pytest.mark.prediction("B3")
def test_operation_is_linearly_decodable_although_it_is_not_read_out(verdict):
    assert verdict.supported, verdict
