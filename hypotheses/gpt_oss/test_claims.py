"""The table is the tests: one for each row of predictions.py and each class."""

import pytest

from emergence.models import is_here

HERE = is_here("openai/gpt-oss-20b")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "not config.getoption('--emergence-model') and not HERE",
        reason="openai/gpt-oss-20b is not here: `hf download openai/gpt-oss-20b` (13 GB), or --model",
    ),
]


def test_claim(verdict):
    assert verdict.supported, verdict


def test_every_control_before_training_held(controls):
    assert controls
    for control in controls:
        assert control.passed, control
