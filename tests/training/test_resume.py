"""Whatever ends a run early, the next call makes of it what it would have been."""

from __future__ import annotations

import os
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from mlx.utils import tree_flatten
from tiny_training import Crash, Stop, arm, crash, written

from emergence.backend import openblas
from emergence.config.settings import Arm, LoRA
from emergence.progress import SILENT, Progress
from emergence.training.checkpoints import RunFolder

# Dropout, so that a generator that is not restored shows; a checkpoint apart from the stops, so that a loss
# that is not carried over shows.
ARM = arm(lora=LoRA(rank=4, alpha=8.0, dropout=0.1), checkpoint_steps=(0, 3, 12), max_steps=12)


@pytest.fixture(scope="module")
def go(trainer):
    def run(into: Path, progress: Progress = SILENT, arm: Arm = ARM, seed: int = 7) -> dict:
        return trainer(into, arm, seed=seed, progress=progress).run()

    return run


@pytest.fixture(scope="module")
def whole(go, tmp_path_factory):
    run = tmp_path_factory.mktemp("whole")
    go(run)
    return written(run)


SCHEDULED = ARM.model_copy(update={"lr_schedule": "cosine", "warmup": 5, "adam": "corrected"})
"""A rate and a correction that change with every update: one that begins anew shows in the weights."""


@pytest.fixture(scope="module")
def scheduled(go, tmp_path_factory):
    run = tmp_path_factory.mktemp("scheduled")
    go(run, arm=SCHEDULED)
    return written(run)


@pytest.mark.parametrize("at", [1, 4, 5, 13])
def test_a_run_that_crashed_anywhere_ends_as_if_it_had_not(go, whole, tmp_path, at):
    with pytest.raises(Crash):
        go(tmp_path, Stop(at, crash))
    go(tmp_path)
    assert written(tmp_path) == whole


@pytest.mark.parametrize("at", [1, 5, 13])
def test_so_does_one_whose_rate_and_correction_change_with_every_update(go, whole, scheduled, tmp_path, at):
    with pytest.raises(Crash):
        go(tmp_path, Stop(at, crash), SCHEDULED)
    go(tmp_path, arm=SCHEDULED)
    assert written(tmp_path) == scheduled
    last = "checkpoints/0000012/adapters.safetensors"
    assert scheduled[last] != whole[last], "they do change"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_ends_at_a_step_and_keeps_it(go, whole, tmp_path, number):
    handler = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt, match="stopped at step 7; run again to go on"):
        go(tmp_path, Stop(8, lambda: os.kill(os.getpid(), number)))
    assert signal.getsignal(number) is handler
    steps = Stop(0, None)
    result = go(tmp_path, steps)
    assert steps.n == -6, "one sign for the seven steps that are there, then the five that were not"
    assert result["steps"] == 12
    assert written(tmp_path) == whole


def test_a_second_ctrl_c_ends_at_once_and_loses_no_checkpoint(go, whole, tmp_path):
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, Stop(8, twice))
    assert (tmp_path / "checkpoints/0000003/adapters.safetensors").exists()
    go(tmp_path)
    assert written(tmp_path) == whole


def test_the_model_comes_back_from_an_interrupted_run_as_it_was(go, loaded, tmp_path):
    model = loaded[0]
    before = [(k, id(v)) for k, v in tree_flatten(model.parameters())]
    with pytest.raises(Crash):
        go(tmp_path, Stop(5, crash))
    assert [k for k, _ in before] == [k for k, _ in tree_flatten(model.parameters())]
    assert not model.trainable_parameters() or not any(
        "lora" in k for k, _ in tree_flatten(model.parameters())
    )


OTHERS = {
    "seed": {"seed": 8},
    "method": {"arm": ARM.model_copy(update={"method": "shuffled"})},
    "rate": {"arm": ARM.model_copy(update={"learning_rate": 6e-3})},
    "schedule": {"arm": ARM.model_copy(update={"lr_schedule": "cosine"})},
    "warm-up": {"arm": ARM.model_copy(update={"warmup": 2})},
    "Adam": {"arm": ARM.model_copy(update={"adam": "corrected"})},
    "adapter": {"arm": ARM.model_copy(update={"lora": LoRA(rank=4, alpha=9.0, dropout=0.1)})},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_a_state_of_another_seed_or_arm_is_not_gone_on_from(go, whole, tmp_path, other):
    with pytest.raises(Crash):
        go(tmp_path, Stop(6, crash), **other)
    go(tmp_path)
    assert written(tmp_path) == whole


def test_a_state_made_by_other_kernels_is_not_gone_on_from_and_both_are_named(
    go, whole, trainer, tmp_path, monkeypatch
):
    """Hosts that share a store may differ in them, and then one run has one key on both."""
    here = openblas.install().name
    monkeypatch.setenv("EMERGENCE_BLAS", "off")
    with pytest.raises(Crash):
        go(tmp_path, Stop(6, crash))
    monkeypatch.delenv("EMERGENCE_BLAS")
    if openblas.install().name == "MLX's own":
        pytest.skip("there is one kind of kernels here")
    told = Stop(0, None)
    go(tmp_path, told)
    assert told.said[0] == (
        f"{tmp_path / 'resume.json'} was made with MLX's own, and here is {here}, which rounds otherwise;"
        " this run starts over"
    )
    assert told.n == -13, "none of the steps that are there, then all"
    base = np.zeros(3)
    assert trainer(tmp_path)._identity(base, here) != trainer(tmp_path)._identity(base, "others")
    assert written(tmp_path) == whole


class Newer(Arm):
    option: float = 0.5


def test_a_new_option_at_its_default_orphans_no_state(go, whole, tmp_path):
    with pytest.raises(Crash):
        go(tmp_path / "run", Stop(6, crash))
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    steps = Stop(0, None)
    go(tmp_path / "run", steps, Newer(**dict(ARM)))
    assert steps.n == -10, "one sign for the three steps that are there, then the nine that were not"
    assert written(tmp_path / "run") == whole
    steps = Stop(0, None)
    go(tmp_path / "copy", steps, Newer(**dict(ARM), option=0.6))
    assert steps.n == -13, "none is there of an arm with that option"


def flip(path: Path, where: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(where * (len(content) - 1))] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize(
    "file", ["resume.json", "resume-*.safetensors", "checkpoints/0000003/adapters.safetensors"]
)
def test_a_flipped_bit_is_noticed_said_and_never_gone_on_from(go, whole, tmp_path, file):
    with pytest.raises(Crash):
        go(tmp_path / "run", Stop(6, crash))
    rng = random.Random(0)
    for i in range(4):
        copy = tmp_path / f"copy{i}"
        shutil.copytree(tmp_path / "run", copy)
        [path] = copy.glob(file)
        flip(path, rng.random())
        assert RunFolder(copy, "any").record((said := []).append) is None
        assert len(said) == 1
        assert path.name in said[0]
        assert "starts over" in said[0]
    told = Stop(0, None)
    [path] = (tmp_path / "run").glob(file)
    flip(path, 0.5)
    go(tmp_path / "run", told)
    assert "starts over" in told.said[0]
    assert written(tmp_path / "run") == whole


def test_a_finished_run_with_a_damaged_checkpoint_is_made_again(go, whole, tmp_path):
    go(tmp_path)
    flip(tmp_path / "checkpoints/0000012/adapters.safetensors", 0.7)
    go(tmp_path)
    assert written(tmp_path) == whole
