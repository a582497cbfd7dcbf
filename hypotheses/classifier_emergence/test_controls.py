"""C: what must not be found, or nothing else counts."""

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.prediction("C1")
def test_shuffled_answers_make_no_answer_classifier(verdict):
    assert verdict.supported, verdict


@pytest.mark.prediction("C2")
def test_random_words_are_no_classifier(verdict):
    assert verdict.supported, verdict


def test_every_control_before_training_held(setting):
    assert setting.controls
    for control in setting.controls:
        assert control.passed, control
