"""Whatever ends a run early, the next call makes of it what it would have been."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlx_lm
import pytest
import tiny
from mlx.utils import tree_flatten
from places import python_path
from test_training import arm, problems, written

from emergence.config.loading import LoRA
from emergence.progress import SILENT, Progress
from emergence.tasks import vocabulary as tokens
from emergence.training import checkpoints
from emergence.training import loop as training

# Dropout, so that a generator that is not restored shows; a checkpoint apart from the stops, so that a loss
# that is not carried over shows.
ARM = arm(lora=LoRA(rank=4, alpha=8.0, dropout=0.1), checkpoint_steps=(0, 3, 12), max_steps=12)


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    folder = tiny.write_model(tmp_path_factory.mktemp("tiny") / "model", n_layers=2)
    model, tokenizer = mlx_lm.load(str(folder))
    rows, valid = (tokens.rows(tokenizer, problems(n, s), ("symbolic",)) for n, s in ((20, 0), (4, 1)))
    return folder, model, tokenizer, rows, valid


@pytest.fixture(scope="module")
def whole(setting, tmp_path_factory):
    run = tmp_path_factory.mktemp("whole")
    go(setting, run)
    return written(run)


def go(setting, run: Path, progress: Progress = SILENT, arm=ARM, seed: int = 7) -> dict:
    _, model, tokenizer, rows, valid = setting
    return training.train(model, tokenizer, arm, seed, rows, valid, run, progress)


class Stop(Progress):
    """Does something at the `n`-th sign of progress; tells what was said."""

    def __init__(self, n: int, what) -> None:
        self.n, self.what, self.said = n, what, []

    def task(self, label, total, unit="step"):
        from contextlib import nullcontext

        return nullcontext(self)

    def advance(self, n: int = 1, note: str = "") -> None:
        self.n -= 1
        if self.n == 0:
            self.what()

    def line(self, text: str) -> None:
        self.said.append(text)


class Crash(Exception):
    pass


def crash() -> None:
    raise Crash


@pytest.mark.parametrize("at", [1, 4, 5, 13])
def test_a_run_that_crashed_anywhere_ends_as_if_it_had_not(setting, whole, tmp_path, at):
    with pytest.raises(Crash):
        go(setting, tmp_path, Stop(at, crash))
    go(setting, tmp_path)
    assert written(tmp_path) == whole


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_ends_at_a_step_and_keeps_it(setting, whole, tmp_path, number):
    handler = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt, match="stopped at step 7; run again to go on"):
        go(setting, tmp_path, Stop(8, lambda: os.kill(os.getpid(), number)))
    assert signal.getsignal(number) is handler
    steps = Stop(0, None)
    result = go(setting, tmp_path, steps)
    assert steps.n == -6, "one sign for the seven steps that are there, then the five that were not"
    assert result["steps"] == 12
    assert written(tmp_path) == whole


def test_a_second_ctrl_c_ends_at_once_and_loses_no_checkpoint(setting, whole, tmp_path):
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        go(setting, tmp_path, Stop(8, twice))
    assert (tmp_path / "checkpoints/0000003/adapters.safetensors").exists()
    go(setting, tmp_path)
    assert written(tmp_path) == whole


def test_the_model_comes_back_from_an_interrupted_run_as_it_was(setting, tmp_path):
    model = setting[1]
    before = [(k, id(v)) for k, v in tree_flatten(model.parameters())]
    with pytest.raises(Crash):
        go(setting, tmp_path, Stop(5, crash))
    assert [k for k, _ in before] == [k for k, _ in tree_flatten(model.parameters())]
    assert not model.trainable_parameters() or not any(
        "lora" in k for k, _ in tree_flatten(model.parameters())
    )


def test_a_state_of_another_seed_or_arm_is_not_gone_on_from(setting, whole, tmp_path):
    with pytest.raises(Crash):
        go(setting, tmp_path, Stop(6, crash), seed=8)
    go(setting, tmp_path)
    assert written(tmp_path) == whole


def flip(path: Path, where: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(where * (len(content) - 1))] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    "file", ["resume.json", "resume-*.safetensors", "checkpoints/0000003/adapters.safetensors"]
)
def test_a_flipped_bit_is_noticed_said_and_never_gone_on_from(setting, whole, tmp_path, file):
    with pytest.raises(Crash):
        go(setting, tmp_path / "run", Stop(6, crash))
    rng = random.Random(0)
    for i in range(4):
        copy = tmp_path / f"copy{i}"
        shutil.copytree(tmp_path / "run", copy)
        [path] = copy.glob(file)
        flip(path, rng.random())
        record = checkpoints.kept(copy, "any", (said := []).append)
        assert record is None
        assert len(said) == 1
        assert path.name in said[0]
        assert "starts over" in said[0]
    told = Stop(0, None)
    [path] = (tmp_path / "run").glob(file)
    flip(path, 0.5)
    go(setting, tmp_path / "run", told)
    assert "starts over" in told.said[0]
    assert written(tmp_path / "run") == whole


def test_a_finished_run_with_a_damaged_checkpoint_is_made_again(setting, whole, tmp_path):
    go(setting, tmp_path)
    flip(tmp_path / "checkpoints/0000012/adapters.safetensors", 0.7)
    go(setting, tmp_path)
    assert written(tmp_path) == whole


KILLED = """
import sys
from pathlib import Path
import mlx_lm
from emergence import tokens, training
from test_resume import ARM
from test_training import problems
model, tokenizer = mlx_lm.load(sys.argv[1])
rows, valid = (tokens.rows(tokenizer, problems(n, s), ("symbolic",)) for n, s in ((20, 0), (4, 1)))
print("ready", flush=True)
while True:
    training.train(model, tokenizer, ARM, 7, rows, valid, Path(sys.argv[2]))
    if len(sys.argv) > 3: break
"""


def kill_campaign(setting, run: Path, kills: int, rng: random.Random) -> None:
    """Kill -9 a training process again and again, at random moments, until it has finished in spite of it."""
    env = os.environ | {"PYTHONPATH": python_path(Path(__file__).parent)}
    command = [sys.executable, "-c", KILLED, str(setting[0]), str(run), "once"]
    for _ in range(kills):
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.5))
            seen = {p.name for p in run.glob("checkpoints/0*")}
            process.kill()
        kept = {p.name for p in run.glob("checkpoints/0*")}
        assert seen <= kept, "a finished checkpoint was lost"
        for folder in run.glob("checkpoints/0*"):
            assert {p.name for p in folder.iterdir()} == {"adapters.safetensors", "adapter_config.json"}
            json.loads((folder / "adapter_config.json").read_text())


def test_kill_9_at_random_moments_changes_nothing(setting, whole, tmp_path):
    kill_campaign(setting, tmp_path, 2, random.Random(1))
    go(setting, tmp_path)
    assert written(tmp_path) == whole


@pytest.mark.slow
def test_two_hundred_kills_change_nothing(setting, whole, tmp_path):
    rng = random.Random(2)
    for i in range(40):
        run = tmp_path / str(i)
        kill_campaign(setting, run, 5, rng)
        go(setting, run)
        assert written(run) == whole
