"""Every update is measured, told to who tracks it, and kept; a tracker never decides how a run ends."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import python_path
from tiny_training import arm, log

from emergence.errors import UsageError
from emergence.progress import SILENT, Progress
from emergence.tracking import Tracked, numbers, parse, reporting

RECORDER = """
said = []
def init(**given): said.append(("init", given))
def log(values, step): said.append((step, values))
def finish(): said.append("finish")
"""


def test_every_update_is_told_and_kept(trainer, tmp_path: Path) -> None:
    told, run = [], tmp_path / "run"
    trainer(run, arm(), progress=Tracked(SILENT, [lambda *what: told.append(what)])).run()
    rows = log(run)
    losses = [loss for row in rows for loss in row.get("train_losses", ())]
    assert len(losses) == 6
    assert len(set(losses)) == 6  # none is another's
    updates = [what for what in told if "train_loss" in what[3]]
    assert [(*what[:3], what[3]["train_loss"]) for what in updates] == [
        ("sft", 3, step + 1, loss) for step, loss in enumerate(losses)
    ]
    for row, n in zip(rows[1:], (2, 4), strict=True):
        assert math.fsum(row["train_losses"]) / n == row["train_loss"]
    scored = {what[2]: what[3] for what in told if "valid_loss" in what[3]}
    assert {step: values["valid_loss"] for step, values in scored.items()} == {
        row["step"]: row["valid_loss"] for row in rows
    }
    assert scored[6]["valid_exact_by_class/add"] == rows[-1]["valid_exact_by_class"]["add"]
    result = json.loads((run / "result.json").read_text())["record"]["result"]
    assert "train_losses" not in result["final"]  # the manifest of a long run stays short


def test_only_numbers_are_told() -> None:
    values = {"loss": 1.5, "n": 2, "none": None, "each": [1.0], "name": "x", "by_class": {"add": 0.5}}
    assert dict(numbers(values)) == {"loss": 1.5, "n": 2.0, "by_class/add": 0.5}


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("wandbb", "--report-to wandbb; did you mean wandb?; there are: wandb, tensorboard, trackio, mlflow"),
        (
            "wandb",
            "--report-to wandb: it is not installed here; `pip install wandb`, or leave the option out",
        ),
    ],
)
def test_a_tracker_that_is_not_there_is_one_line(
    asked: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [p for p in sys.path if not (Path(p) / "wandb").exists()])
    with pytest.raises(UsageError) as refused:
        parse(asked)
    assert str(refused.value).startswith(says)


def test_each_run_is_a_run_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb.py").write_text(RECORDER)
    monkeypatch.syspath_prepend(str(tmp_path))
    with reporting("wandb", SILENT, "mine", tmp_path, {"model": "m"}) as told:
        for seed in (0, 1):
            told.metrics("sft", seed, 1, {"train_loss": 2.0, "by": {"add": 0.5}, "none": None})
    module = sys.modules.pop("wandb")
    begun = [("init", {"project": "mine", "name": f"sft seed {s}", "config": {"model": "m"}}) for s in (0, 1)]
    logged = (1, {"train_loss": 2.0, "by/add": 0.5})
    assert module.said == [begun[0], logged, "finish", begun[1], logged, "finish"]


def test_a_tracker_that_fails_is_told_of_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainer
) -> None:
    (tmp_path / "wandb.py").write_text(RECORDER + "def log(values, step): raise OSError('no network')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    lines = []

    class Told(Progress):
        def line(self, text: str) -> None:
            lines.append(text)

    with reporting("wandb", Told(), "mine", tmp_path, {}) as told:
        trainer(tmp_path / "run", arm(), progress=told).run()
    sys.modules.pop("wandb")
    assert [line for line in lines if "wandb" in line] == [
        "wandb: no network; nothing more is reported to it"
    ]
    assert log(tmp_path / "run")[-1]["step"] == 6


PACKAGES = {"mlflow": "mlflow-skinny"}
"""Where a smaller one will do."""
READ = {
    "tensorboard": """
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
found = EventAccumulator("trackers/tensorboard/sft-seed-0").Reload()
values = [(e.step, round(e.value, 4)) for e in found.Scalars("train_loss")]
""",
    "trackio": """
from trackio.sqlite_storage import SQLiteStorage
rows = SQLiteStorage.get_logs("mine", "sft seed 0")
values = [(r["step"], r["train_loss"]) for r in rows]
""",
    "mlflow": """
import mlflow
(run,) = mlflow.search_runs(experiment_names=["mine"], output_format="list")
found = mlflow.MlflowClient().get_metric_history(run.info.run_id, "train_loss")
values = [(m.step, m.value) for m in found]
""",
}
WRITE = """
import sys
from pathlib import Path
from emergence.progress import SILENT
from emergence.tracking import reporting
with reporting(sys.argv[1], SILENT, "mine", Path("trackers"), {"model": "m"}) as told:
    for step in (1, 2, 3):
        told.metrics("sft", 0, step, {"train_loss": 1 / step})
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", READ)
def test_the_real_tracker_reads_back_what_was_told(name: str, tmp_path: Path) -> None:
    """Each in a folder of its own, installed for this test; nothing leaves the machine."""
    packages, wanted = tmp_path / "packages", PACKAGES.get(name, name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--target",
        str(packages),
        wanted,
    ]
    got = subprocess.run(command, capture_output=True, text=True)
    if got.returncode:
        pytest.skip(f"{name} cannot be had here: {(got.stderr.strip().splitlines() or ['?'])[-1]}")
    environment = os.environ | {
        "HOME": str(tmp_path),
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_TRACKING_URI": f"file://{tmp_path}/mlruns",
        "PYTHONPATH": python_path(packages),
    }
    check = "assert [(s, round(v, 3)) for s, v in values] == [(1, 1.0), (2, 0.5), (3, 0.333)], values"
    for code in (WRITE, READ[name] + check):
        command = [sys.executable, "-c", code, name]
        ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
