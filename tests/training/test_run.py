"""A finished run, read back from the store."""

from __future__ import annotations

import json

import mlx.core as mx
import pytest
from tiny_training import arm

from emergence.store.store import Store
from emergence.training.run import Run

# More digits than the folders' names would need, so that an order of names that is not that of steps shows.
STEPS = (0, 2, 10)


@pytest.fixture(scope="module")
def run(trainer, tmp_path_factory) -> Run:
    store = Store(tmp_path_factory.mktemp("store"))
    settings = arm(checkpoint_steps=STEPS, max_steps=10)
    return Run("sft", 3, store.get_or_build("runs", {"n": 1}, lambda folder: trainer(folder, settings).run()))


def test_its_checkpoints_are_those_of_the_arm_in_the_order_of_the_steps(run):
    assert tuple(run.checkpoints) == STEPS
    for step, folder in run.checkpoints.items():
        assert json.loads((folder / "adapter_config.json").read_text())["step"] == step
        assert mx.load(str(folder / "adapters.safetensors"))


def test_its_log_has_a_line_a_checkpoint_and_ends_as_the_result_says(run):
    assert [line["step"] for line in run.log] == list(STEPS)
    assert run.by_checkpoint[-1] == run.entry.info["final"]
