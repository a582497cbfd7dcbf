"""A run that has learned enough stops at a checkpoint, and is what a longer one was there."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import trained
from tiny_training import arm, log, written

from emergence.experiment import Experiment
from emergence.readings import read_study
from emergence.readings.reader import _steps
from emergence.store import Store
from emergence.training import loop

LONG = {"max_steps": 6, "checkpoint_steps": (0, 2, 4, 6)}


@pytest.fixture
def learns(monkeypatch):
    """Every class is right in a sixth of the rows more at each step; `multiply` lags one step behind."""

    def install():
        score = loop.Trainer._score

        def rising(trainer):
            step = trainer._state.step
            exact = {cls: max(0, step - (cls == "multiply")) / 6 for cls in ("add", "multiply", "subtract")}
            return dataclasses.replace(score(trainer), exact=exact)

        monkeypatch.setattr(loop.Trainer, "_score", rising)

    return install


@pytest.mark.parametrize(("until", "last"), [(None, 6), (0.5, 4), (0.1, 2), (0.2, 4), (0.99, 6)])
def test_it_stops_at_the_first_checkpoint_where_every_class_is_right_often_enough(
    trainer, tmp_path, learns, until, last
):
    learns()
    trainer(tmp_path / "run", arm(until=until, **LONG)).run()
    assert [line["step"] for line in log(tmp_path / "run")] == [s for s in (0, 2, 4, 6) if s <= last]


def test_what_it_leaves_is_to_the_byte_what_a_longer_run_had_there(trainer, tmp_path, learns):
    learns()
    for name, until in (("short", 0.5), ("long", None)):
        trainer(tmp_path / name, arm(until=until, lr_schedule="cosine", **LONG)).run()
    short, long = written(tmp_path / "short"), written(tmp_path / "long")
    kept = [name for name in short if name.startswith("checkpoints/")]
    assert {name.split("/")[1] for name in kept} == {"0000000", "0000002", "0000004"}
    assert all(short[name] == long[name] for name in kept if name.endswith(".safetensors"))


def test_it_decides_the_key_only_where_it_is_asked_for():
    assert "until" not in arm().spec()
    assert arm(until=0.9).spec()["until"] == 0.9


def test_a_seed_that_stopped_early_is_read_as_it_stayed(trained_folder, tmp_path):
    folder = trained.copied(trained_folder, tmp_path / "tiny")
    experiment = Experiment(folder, store=Store(folder / "store"))
    shorter = experiment.config.arm("sft").model_copy(update={"checkpoint_steps": (0, 2), "max_steps": 2})
    runs = (experiment.runs[0], experiment.train(shorter, 1))
    assert [list(run.checkpoints) for run in runs] == [[0, 2, 4], [0, 2]]
    assert _steps(runs[1], runs) == [2, 4]
    study = read_study(experiment.lens, experiment.plan, runs, experiment.store, {"for": "this test"})
    long, short = study.arm("sft")
    assert long.steps == short.steps == (0, 2, 4)
    assert np.array_equal(short.words[2], short.words[1], equal_nan=True)
    assert not np.array_equal(long.words[2], long.words[1], equal_nan=True)
