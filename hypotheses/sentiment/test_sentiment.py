"""S: a task of one's own, `task.yaml` beside this file; docs/extending.md explains it line by line."""

from pathlib import Path

import pytest

from emergence import own
from emergence.predictions import Prediction

CLAIM = Prediction("S1", "base model: no word of the sentiment is read out in the middle band", arm="base",
                   style="own", family="words", band="middle", test="no classifier")  # fmt: skip


@pytest.mark.slow
def test_no_word_of_the_sentiment_is_read_out_in_the_middle_band(store, pytestconfig):
    task = Path(__file__).with_name("task.yaml")
    for verdict in own.judge(task, [CLAIM], store, pytestconfig.getoption("model")):
        assert verdict.outcome != "falsified", verdict
