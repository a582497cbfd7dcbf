"""O: what an objective with a classification term does."""

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.prediction("O1")
def test_classification_term_makes_an_operation_word_classifier(verdict):
    assert verdict.supported, verdict


@pytest.mark.prediction("O2")
def test_classifier_carries_over_to_a_style_that_was_not_trained_on(verdict):
    assert verdict.supported, verdict
