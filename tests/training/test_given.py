"""A series that others trained goes through the pipeline like a run of one's own; nothing is trained."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import trained
import yaml

from emergence import config
from emergence.errors import UsageError
from emergence.experiment import Experiment
from emergence.store import Store
from emergence.training import loop


def write_config(folder, **arm):
    text = yaml.safe_load((folder / "config.yaml").read_text())
    text["training"]["training_methods"] = {"sft": {"method": "given", **arm}}
    (folder / "config.yaml").write_text(yaml.safe_dump(text))


@pytest.fixture
def theirs(trained_folder, tmp_path):
    """An experiment whose arm is the exported checkpoints of another one's run."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name in ("config.yaml", "predictions.py"):
        shutil.copy(trained_folder / name, folder)
    own = trained.experiment(trained_folder)
    for step, place in own.runs[0].checkpoints.items():
        if step:
            shutil.copytree(place, folder / "published" / f"checkpoint-{step}")
    write_config(folder, checkpoints="published")
    return folder, own


@pytest.mark.usefixtures("quick")
def test_it_reads_as_the_run_that_it_was_copied_from(theirs, tmp_path, monkeypatch):
    folder, own = theirs
    run = own.runs[0]
    monkeypatch.setattr(loop.Trainer, "run", None)  # nothing is trained
    given = Experiment(folder, store=Store(tmp_path / "other"))
    (taken,) = given.runs
    assert list(taken.checkpoints) == list(run.checkpoints) == [0, 2, 4]
    assert [line["valid_exact"] for line in taken.log] == [line["valid_exact"] for line in run.log]
    assert taken.log[-1]["valid_loss"] == pytest.approx(run.log[-1]["valid_loss"], rel=1e-6)
    (mine, *_), (read,) = (e.study.arm("sft") for e in (own, given))
    assert np.allclose(mine.words, read.words, atol=1e-5, equal_nan=True)
    assert {v.prediction for v in given.verdicts} == {"P"}
    assert given.report().exists()
    assert str(tmp_path) not in given.report().read_text(), "no path of this machine is in the page"


def test_where_the_series_lies_decides_no_key_and_what_it_holds_does(theirs):
    folder, _ = theirs
    before = config.load(folder / "config.yaml")
    shutil.move(folder / "published", folder / "elsewhere")
    write_config(folder, checkpoints=["elsewhere"])
    moved = config.load(folder / "config.yaml")
    assert before.arm("sft").spec() == moved.arm("sft").spec()
    shutil.rmtree(folder / "elsewhere" / "checkpoint-4")
    assert config.load(folder / "config.yaml").arm("sft").spec() != before.arm("sft").spec()


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({}, "given needs checkpoints: the folder that the series lies in"),
        ({"checkpoints": "nowhere"}, "no such folder"),
        ({"checkpoints": ["published"], "seeds": [0, 1]}, "1 folders for 2 seeds; give one for each"),
        ({"checkpoints": ["published", "shorter"]}, "the seeds have checkpoints at other steps"),
    ],
    ids=["none", "gone", "seeds", "steps"],
)
def test_what_cannot_be_taken_is_told_before_anything_is_loaded(theirs, arm, message):
    folder, _ = theirs
    shutil.copytree(folder / "published" / "checkpoint-4", folder / "shorter" / "checkpoint-4")
    write_config(folder, **arm)
    with pytest.raises(UsageError, match=message):
        config.load(folder / "config.yaml")
