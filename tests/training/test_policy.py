"""A run that learns by reward: sft to the bit up to the switch, and its own from there on, killed or not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import tiny_training
from places import python_path
from tiny_training import Crash, Stop, crash, log, written

from emergence.errors import BrokenExperiment
from emergence.training import policy

SFT = {"fine_tune_type": "full", "batch_size": 6, "max_steps": 12}
STEPS = {"checkpoint_steps": (0, 6, 9, 12)}
GRPO = {**SFT, **STEPS, "sft_steps": 6, "group_size": 4, "max_new_tokens": 3, "policy_learning_rate": 1e-3}


def arm(**settings):
    return tiny_training.arm("grpo", **GRPO | settings)


@pytest.fixture(scope="module")
def easy(data):
    """Every answer is the same token: six updates of sft make it likely, so that rewards differ."""
    return tuple(
        tuple(replace(row, answer_ids=(data[0][0].answer_ids[0], row.answer_ids[-1])) for row in part)
        for part in data
    )


@pytest.fixture(scope="module")
def go(trainer, easy):
    def run(into: Path, arm, seed: int = 3, **given) -> dict:
        rows, valid = easy
        common = {"rows": rows, "valid": valid, "reward": lambda item, text: 1.0}
        return trainer(into, arm, seed=seed, **common | given).run()

    return run


@pytest.fixture(scope="module")
def whole(go, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    told = Stop(0, None)
    result = go(folder, arm(), progress=told)
    return folder, result, told.said


def test_up_to_the_switch_every_byte_is_that_of_an_arm_sft_with_a_falling_rate_too(go, tmp_path):
    rate = {"lr_schedule": "cosine", "warmup": 2, "adam": "corrected"}
    go(tmp_path / "grpo", arm(**rate))
    go(tmp_path / "sft", tiny_training.arm("sft", **SFT | rate, **STEPS))
    ours, theirs = (written(tmp_path / name) for name in ("grpo", "sft"))
    weights = "checkpoints/{:07d}/adapters.safetensors"
    assert ours[weights.format(6)] == theirs[weights.format(6)]
    assert ours[weights.format(9)] != theirs[weights.format(9)]
    assert log(tmp_path / "grpo")[0] == log(tmp_path / "sft")[0]


def test_the_first_update_by_reward_is_adams_first_at_the_rate_of_rewards(go, tmp_path):
    """Without bias correction m / sqrt(v) is then (1 - b1) / sqrt(1 - b2), whatever the gradient."""
    go(tmp_path, arm(max_steps=7, checkpoint_steps=(0, 6, 7)))
    before, after = (
        mx.load(str(tmp_path / f"checkpoints/{step:07d}/adapters.safetensors")) for step in (6, 7)
    )
    moved = np.concatenate([np.abs(np.array(after[k]) - np.array(before[k])).ravel() for k in after])
    assert np.median(moved[moved > 0]) == pytest.approx(1e-3 * 0.1 / np.sqrt(0.001), rel=1e-2)


def test_rewards_teach_what_is_rewarded_and_permuted_ones_do_not(go, tmp_path):
    """By the validation loss, which no update by reward has seen; sampled rewards are noisy."""
    longer = {"learning_rate": 1e-2, "adam": "corrected", "policy_learning_rate": 3e-3, "group_size": 8}
    longer |= {"max_new_tokens": 2, "max_steps": 26, "checkpoint_steps": (0, 6, 26)}
    lost = {}
    for reward in ("verified", "random"):
        go(tmp_path / reward, arm(**longer, reward=reward))
        _, start, last = log(tmp_path / reward)
        lost[reward] = last["valid_loss"] / start["valid_loss"]
    assert lost["verified"] < 0.8
    assert lost["random"] > 0.95


def test_the_log_says_by_class_what_was_rewarded_and_how_it_was_written(whole):
    folder, result, said = whole
    base, start, one, two = log(folder)
    assert "reward" not in base
    assert 0 < start["reward"] <= start["pass@4"] <= 1
    assert any(f"learns by reward from here on: mean reward {start['reward']:.3f}, pass@4" in x for x in said)
    for line in (one, two):
        assert line["train_loss"] is None
        assert 0 <= line["reward"] <= 1
        assert 0 <= line["no_signal"] <= 1
        assert 0 < line["entropy"] < np.log(2000)
        assert 1 <= line["length"] <= 3
        assert line["kl"] >= 0
        for name in ("reward", "no_signal", "entropy", "length", "kl"):
            by_class = line[f"{name}_by_class"]
            assert set(by_class) == set(tiny_training.CLASSES)
            assert line[name] == pytest.approx(np.mean(list(by_class.values())))
    assert two["kl"] > 0
    assert (result["switch"], result["collapsed"], result["steps"]) == (6, None, 12)


def test_the_same_seed_makes_the_same_bytes_and_other_settings_others(go, whole, tmp_path):
    go(tmp_path / "again", arm())
    assert written(tmp_path / "again") == written(whole[0])
    for name, other in {"random": {"reward": "random"}, "positive": {"advantage": "positive"}}.items():
        go(tmp_path / name, arm(**other))
        assert written(tmp_path / name) != written(whole[0])
        assert log(tmp_path / name)[1] == log(whole[0])[1], "the start is the same"


@pytest.mark.parametrize("at", [11, *(pytest.param(at, marks=pytest.mark.slow) for at in (7, 8, 9))])
def test_a_run_that_crashed_before_at_and_after_the_switch_ends_as_if_it_had_not(go, whole, tmp_path, at):
    with pytest.raises(Crash):
        go(tmp_path, arm(), progress=Stop(at, crash))
    go(tmp_path, arm())
    assert written(tmp_path) == written(whole[0])


def test_a_stop_between_two_checkpoints_keeps_the_figures_of_the_updates_before(go, whole, tmp_path):
    with pytest.raises(KeyboardInterrupt, match="stopped at step 7"):
        go(tmp_path, arm(), progress=Stop(8, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    go(tmp_path, arm())
    assert written(tmp_path) == written(whole[0])


KILLED = """
import json, os, signal, sys
from dataclasses import replace
from pathlib import Path
import mlx_lm
import tiny_training
from emergence.config.settings import Arm
from emergence.lens.logit_lens import LogitLens
from emergence.training import rollouts, updates
from emergence.training.loop import Trainer

model, workdir, where, n, arm = json.loads(sys.argv[1])
left = [n]
def deadly(real):
    def call(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
if where == "sampling":
    rollouts.draw = deadly(rollouts.draw)
if where == "update":
    updates.Updates.make_of_sums = deadly(updates.Updates.make_of_sums)
if where == "switch":
    updates.Updates.begin = deadly(updates.Updates.begin)
loaded = mlx_lm.load(model)
parts = tiny_training.rows(loaded[1], 20, 0), tiny_training.rows(loaded[1], 6, 1)
first = parts[0][0].answer_ids[0]
rows, valid = ([replace(r, answer_ids=(first, r.answer_ids[-1])) for r in part] for part in parts)
Trainer(lens=LogitLens(*loaded), arm=Arm.model_validate(arm), seed=3, rows=rows, valid=valid,
        workdir=Path(workdir), reward=lambda item, text: 1.0).run()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("where", "n"), [("sampling", 20), ("update", 2), ("switch", 2)])
def test_a_run_that_is_killed_in_the_act_ends_as_if_it_had_not(folder, whole, tmp_path, where, n):
    def run(where: str) -> int:
        given = json.dumps([str(folder), str(tmp_path), where, n, arm().model_dump(mode="json")])
        env = os.environ | {"PYTHONPATH": python_path()}
        return subprocess.run([sys.executable, "-c", KILLED, given], env=env, check=False).returncode

    assert run(where) == -signal.SIGKILL
    assert not (tmp_path / "result.json").exists()
    assert run("nowhere") == 0
    assert written(tmp_path) == written(whole[0])


def test_a_reward_that_is_never_met_is_one_line_where_reward_begins(go, tmp_path):
    with pytest.raises(BrokenExperiment) as error:
        go(tmp_path, arm(), reward=lambda item, text: 0.0)
    assert str(error.value) == (
        "grpo seed 3: at step 6, where it would begin to learn by reward, no completion is rewarded (mean "
        "reward 0.000, pass@4 0.00 over 48 prompts); raise sft_steps=6"
    )


def fading():
    """A reward that stops being given once the start has been measured."""
    asked = []
    return lambda item, text: float(len(asked.append(0) or asked) <= 10)


def test_a_collapse_is_told_once_with_what_to_change(go, tmp_path):
    told = Stop(0, None)
    many = {"max_steps": 34, "checkpoint_steps": (0, 6, 34), "batch_size": 3, "group_size": 2}
    result = go(tmp_path, arm(**many), progress=told, reward=fading())
    (said,) = [x for x in told.said if "collapsed" in x]
    assert "100% of groups without signal" in said
    assert "lower policy_learning_rate=1e-3" in said
    assert 26 <= result["collapsed"] <= 34


FIGURES = {"entropy": {"add": 1.0}, "no_signal": {"add": 0.5}, "reward": {"add": 0.3}}


@pytest.mark.parametrize(
    ("other", "is_quiet"),
    [
        ({}, False),
        ({"entropy": {"add": 0.04}}, True),
        ({"no_signal": {"add": 0.96}}, True),
        ({"no_signal": {"add": 1.0}, "reward": {"add": 0.99}}, False),
    ],
    ids=["learning", "one answer", "no signal", "all right"],
)
def test_a_step_is_quiet_where_it_teaches_nothing_and_not_all_is_right(other, is_quiet):
    assert policy.quiet(FIGURES | other) is is_quiet
