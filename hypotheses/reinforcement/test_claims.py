"""The table is the tests: one for each row of predictions.py and each class (`-m long`)."""

import pytest

pytestmark = pytest.mark.long


def test_claim(verdict):
    assert verdict.supported, verdict


def test_every_control_before_training_held(controls):
    assert controls
    for control in controls:
        assert control.passed, control
