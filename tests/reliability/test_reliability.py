"""The whole pipeline on a tiny model: what is written, what is never written, and two jobs at once."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from places import EXAMPLE, ROOT, TESTS, python_path

from emergence.errors import BrokenExperiment
from emergence.experiment import Experiment
from emergence.progress import Progress
from emergence.provenance import run_spec
from emergence.store import files
from emergence.store.store import Store, key_of

ARMS = "sft: {method: sft}, shuffled: {method: shuffled}, classified: {method: classified}"


def main(home: str) -> None:
    """A main job, in its own process; says what it trains, builds again or waits for."""
    folder = Path(home)

    class Said(Progress):
        def line(self, text: str) -> None:
            print(text)

    Experiment(folder, store=Store(folder / "store", print), progress=Said()).report()


def start(home: Path, **env: str) -> subprocess.Popen[str]:
    code = "import sys, test_reliability; test_reliability.main(sys.argv[1])"
    return subprocess.Popen(
        [sys.executable, "-c", code, str(home)],
        env=os.environ | {"PYTHONPATH": python_path(Path(__file__).parent)} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def make_home(folder: Path) -> Path:
    model = folder / "models" / "wonderland"
    tiny.write_model(model, n_layers=3, hidden=32)
    tiny.write_config(folder, model, arms=ARMS)
    shutil.copy(EXAMPLE / "classifier_emergence" / "predictions.py", folder)
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "home" / "alice_liddell")


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory) -> Iterator[tuple[Path, Experiment]]:
    """A home, and an experiment prepared in it by somebody with secrets in the environment."""
    home = make_home(tmp_path_factory.mktemp("home") / "alice_liddell")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**SECRETS, "HOME": str(home)}.items():
            patch.setenv(name, value)
        yield home, Experiment(home, store=Store(home / "store"))


SECRETS = {
    "HF_TOKEN": "hf_WeAreAllMadHere",
    "AWS_SECRET_ACCESS_KEY": "OffWithTheirHeads/42",
    "EMERGENCE_UNRELATED": "DownTheRabbitHole",
}


def revealing(root: Path, home: Path) -> list[str]:
    """Files that hold an environment variable of SECRETS, or where somebody's home is."""
    words = [*SECRETS.values(), str(home), home.name, str(home.parent)]
    found = [p for p in root.rglob("*") if p.is_file()]
    return [f"{p.relative_to(root)}: {w}" for p in found for w in words if w.encode() in p.read_bytes()]


def test_no_file_of_a_run_holds_the_environment_or_where_somebody_lives(lived_in) -> None:
    home, experiment = lived_in
    arm = experiment.config.arm("sft")
    run = experiment.train(arm, 0)
    assert run.entry.info["steps"] == 4
    assert revealing(home / "store", home) == []
    (home / "control").write_text(f"{home}/x {SECRETS['HF_TOKEN']}")
    assert len(revealing(home, home)) > 3, "the search itself works"

    # Another process asks the same store, and nothing is trained.
    there = Experiment(home, store=Store(home / "store"), loaded=experiment._loaded)
    assert there.train(arm, 0) == run


def test_a_run_that_diverges_is_a_broken_experiment_and_is_never_sealed(lived_in) -> None:
    experiment = lived_in[1]
    schedule = {"learning_rate": 1e30, "max_steps": 12, "checkpoint_steps": (0, 12)}
    arm = experiment.config.arm("sft").model_copy(update=schedule)
    with pytest.raises(BrokenExperiment, match=r"diverged at step \d+, loss") as caught:
        experiment.train(arm, 0)
    assert "\n" not in str(caught.value)
    spec = run_spec(experiment.config, experiment.source, experiment.splits, arm, 0)
    assert experiment.store.find("runs", spec) is None
    key = key_of(spec)
    assert [i.state for i in experiment.store.entries() if i.key == key] == ["partial"]


@pytest.mark.slow
def test_two_main_jobs_at_once_train_once_and_agree(home) -> None:
    jobs = [start(home, HOME=str(home), **SECRETS) for _ in range(2)]
    said = [job.communicate(timeout=600) for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], said
    trained = [line for out, _ in said for line in out.splitlines() if " step " in line]
    assert len(trained) == len(set(trained)) == 3 * 3, "three arms of three checkpoints, each trained once"
    assert not list(home.rglob(".corrupt-*"))
    assert not list(home.rglob("*.partial"))
    assert not list(home.rglob(".tmp-*"))
    assert json.loads((home / "store/experiments/tiny/verdicts.json").read_text())
    assert revealing(home / "store", home) == []
    store = Store(home / "store")
    assert all(store.verify(item) is None for item in store.entries())
    runs = [item for item in store.entries() if item.kind == "runs"]
    assert len(runs) == 3
    assert all(any("experiments/tiny" in user for user in item.used_by) for item in runs)


# What has just appeared in the store when the job is killed, in the order in which it appears.
STAGES = (
    "runs/*.partial/checkpoints/*",
    "runs/*.partial/resume.json",
    "runs/*/manifest.json",
    "base*",
    "runs/*/readings/*.partial/0*.npz",
    "runs/*/readings/*/manifest.json",
    "experiments/tiny",
)


@pytest.mark.slow
def test_a_main_job_killed_in_every_stage_ends_as_one_that_was_not(home, tmp_path) -> None:
    other = tmp_path / "home" / "undisturbed"
    shutil.copytree(home, other)
    tiny.write_config(other, other / "models" / "wonderland", arms=ARMS)
    jobs, generator = [], random.Random(5)
    for stage in STAGES:
        job = start(home)
        while job.poll() is None and not list((home / "store").glob(stage)):
            time.sleep(0.002)
        time.sleep(generator.uniform(0, 0.1))
        job.kill()
        jobs.append((job.communicate(), job.returncode))
    assert [code for _, code in jobs] == [-9] * len(STAGES), jobs
    for folder in (home, other):
        job = start(folder)
        said = job.communicate()
        assert job.returncode == 0, said
    assert verdicts_of(home) == verdicts_of(other)
    for kind in ("runs/*/checkpoints/*/*", "runs/*/readings/*/*.npz", "base/*/base.npz"):
        of = [
            {p.relative_to(h).as_posix(): files.digest(p) for p in h.glob(f"store/{kind}")}
            for h in (home, other)
        ]
        assert of[0] == of[1] != {}


def verdicts_of(home: Path) -> object:
    return json.loads((home / "store/experiments/tiny/verdicts.json").read_text())["verdicts"]


def test_every_promise_in_the_documentation_names_a_test_that_exists() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text()
    named = re.findall(r"`(test_\w+)`", text)
    defined = "\n".join(p.read_text() for p in TESTS.rglob("test_*.py"))
    missing = [n for n in named if f"def {n}(" not in defined and not [*TESTS.rglob(f"{n}.py")]]
    assert missing == []
    assert len(set(named)) > 60
    rows = re.findall(r"^\| (.+) \| (.+) \|$", text.split("## Figures")[0], re.MULTILINE)
    assert [row for row, test in rows if "`test_" not in test and test not in ("test", "---")] == []
