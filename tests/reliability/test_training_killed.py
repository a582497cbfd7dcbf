"""Training under kills, power cuts, signals, full disks, flipped bits and races: nothing lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from places import python_path

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("tiny") / "model", n_layers=2, hidden=16)


@pytest.fixture
def run(model: Path, tmp_path: Path):
    def campaign(seed: int, **acts: list) -> dict[str, Any]:
        code = "import campaign, json, sys; campaign.main(*json.loads(sys.argv[1]))"
        arguments = json.dumps([str(model), str(tmp_path), seed, acts])
        ran = subprocess.run(
            ["nice", "-n", "5", sys.executable, "-c", code, arguments],
            env=os.environ | {"PYTHONPATH": python_path()},
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        print(ran.stdout)
        return json.loads(ran.stdout.splitlines()[-1])

    return campaign


def test_training_survives_a_few_of_everything_bit_for_bit(run) -> None:
    done = run(1, random_kills=[1], signals=[1, 15], full_disk=[1], flips=[1], race=[])
    assert done["kills"] >= 1
    assert done["runs"] >= 4


@pytest.mark.slow
def test_two_hundred_kills_at_random_instants_of_a_training_change_nothing(run) -> None:
    done = run(2, random_kills=[200])
    assert done["kills"] >= 200
    assert done["resumed"] >= 50, "too few kills came after something was there to lose"


@pytest.mark.slow
@pytest.mark.parametrize("power", [False, True], ids=["kill", "power cut"])
def test_kills_and_power_cuts_before_operations_on_the_disk_change_nothing(run, power) -> None:
    assert run(3, operation_kills=[30, power])["kills"] >= 15


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 15], ids=["Ctrl-C", "SIGTERM"])
def test_signals_end_it_cleanly_with_what_was_reached_kept(run, number) -> None:
    assert run(4, signals=[20, number])["stopped"] >= 10


@pytest.mark.slow
def test_full_disks_are_one_line_each_and_lose_nothing(run) -> None:
    assert run(5, full_disk=[24])["full"] >= 12


@pytest.mark.slow
def test_bits_flipped_in_what_a_kill_left_are_never_gone_on_from(run) -> None:
    assert run(6, flips=[24])["runs"] >= 24


@pytest.mark.slow
def test_races_of_two_train_once_each(run, tmp_path) -> None:
    for seed in range(5):
        for old in [*tmp_path.iterdir()]:
            subprocess.run(["rm", "-rf", str(old)], check=True)
        run(seed, race=[])
