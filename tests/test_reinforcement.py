"""`hypotheses/reinforcement`, small: from the base model to verdicts, with what is told before training."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tiny
from places import ROOT, python_path
from tiny_training import Stop

from emergence.errors import BrokenExperiment, UsageError
from emergence.experiment import Experiment
from emergence.store import Store

FOLDER = ROOT / "hypotheses" / "reinforcement"
GRPO = "method: grpo, sft_steps: {sft}, policy_learning_rate: 1e-3, max_new_tokens: 5, fine_tune_type: full"
ARMS = (
    "sft: {method: sft, fine_tune_type: full}, grpo: {%s}, grpo_random: {%s, reward: random},"
    " grpo_positive: {%s, advantage: positive}"
)


def experiment(
    folder: Path, sft: int = 20, steps=(0, 20, 24, 28), told: Stop | None = None, **changed
) -> Experiment:
    """The folder's claims and its arms on the tiny model, its weights trained in full: it learns at all."""
    shutil.copy(FOLDER / "predictions.py", folder)
    arm = GRPO.format(sft=sft)
    path = tiny.write_config(
        folder, tiny.write_model(folder / "model", n_layers=3), steps, ARMS % (arm, arm, arm)
    )
    text = path.read_text().replace("num_samples: 60\n", "num_samples: 60\n  read_styles: [symbolic]\n")
    for old, new in changed.items():
        text = text.replace(old, new)
    path.write_text(text)
    return Experiment(folder, store=Store(folder / "store"), progress=told or Stop(0, None))


def test_it_is_in_no_job_and_asked_for_by_its_own_mark():
    mark = runpy.run_path(str(FOLDER / "test_claims.py"))["pytestmark"]
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]
    assert mark.name == "long"
    assert "not slow and not long" in settings["addopts"]
    assert any(text.startswith("long:") for text in settings["markers"])


def test_every_claim_can_be_judged_as_the_folder_stands():
    notices = Experiment(FOLDER).notices
    assert not [line for line in notices if "will be inconclusive" in line]
    assert any("R4, R1, R2, R5: can never be falsified: 3 seeds" in line for line in notices)


def test_a_reward_that_the_base_model_never_earns_is_one_line_before_anything_is_trained(tmp_path):
    told = Stop(0, None)
    made = experiment(tmp_path, sft=0, told=told)
    with pytest.raises(BrokenExperiment) as error:
        made.controls  # noqa: B018
    for arm in ("grpo", "grpo_random", "grpo_positive"):
        assert (
            f"control rewards of {arm} failed: before training, mean reward 0.000, pass@8 0.00 over 48 "
            "prompts; nothing to learn from: raise sft_steps=0"
        ) in str(error.value)
    assert not list(made.store.entries())
    assert told.said[0] == "grpo: before training, mean reward 0.000, pass@8 0.00 over 48 prompts"


def test_after_an_sft_phase_it_is_told_and_allowed(tmp_path):
    told = Stop(0, None)
    made = experiment(tmp_path, told=told)
    controls = {c.name: c for c in made.controls}
    assert controls["rewards of grpo"].passed
    assert [arm.name for arm in made.config.arms if made.plan.writes(arm.name)] == [
        "sft", "grpo", "grpo_random", "grpo_positive"
    ]  # fmt: skip
    assert any("over 48 prompts; rewards begin after sft_steps=20" in line for line in told.said)


def test_an_answer_that_is_longer_than_what_may_be_written_is_refused_before_training(tmp_path):
    made = experiment(tmp_path, **{"max_new_tokens: 5": "max_new_tokens: 2"})
    with pytest.raises(
        UsageError, match=r"grpo: max_new_tokens=2 is less than the \d tokens that an answer and"
    ):
        made.controls  # noqa: B018


@pytest.mark.slow
def test_it_runs_from_the_base_model_to_verdicts_and_a_page(tmp_path):
    told = Stop(0, None)
    better = {"batch_size: 6": "batch_size: 16", "5e-3": "5e-3\n  adam: corrected"}
    folder = tmp_path / "hypotheses" / "reinforcement"
    folder.mkdir(parents=True)
    made = experiment(folder, sft=150, steps=(0, 100, 150, 160, 170), told=told, **better)
    assert {run.arm for run in made.runs} == {"sft", "grpo", "grpo_random", "grpo_positive", "shuffled"}
    at_150 = {
        run.arm: (run.checkpoints[150] / "adapters.safetensors").read_bytes()
        for run in made.runs
        if run.arm != "shuffled"
    }
    assert len(set(at_150.values())) == 1, "all begin with rewards where sft is"
    readings = {run.arm: run for run in made.study.runs}
    asked = [p.half >= 0 for p in readings["sft"].prompts]
    for arm in ("sft", "grpo", "grpo_random", "grpo_positive"):
        assert not np.isnan(readings[arm].exact[:, asked]).any()
        assert readings[arm].switch == (0 if arm == "sft" else 150)
    assert np.isnan(readings["shuffled"].exact[1:-1]).all()
    verdicts = {(v.prediction, v.cls): v for v in made.verdicts}
    assert {p for p, _ in verdicts} == {"R0", "R1", "R2", "R4", "R5"}
    assert all("needs 3 seeds" in verdicts["R4", cls].reason for cls in made.config.task.classes)
    assert any("learns by reward from here on: mean reward" in line for line in told.said)
    assert made.report().is_file()
    line = made.runs[1].log[-1]
    assert {"reward", "no_signal", "entropy", "length", "kl", "reward_by_class"} <= {*line}
    shutil.copy(FOLDER / "test_claims.py", folder)
    door = "import sys; from emergence.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", door, "run", "reinforcement", "--store", str(folder / "store")]
    env = os.environ | {"PYTHONPATH": python_path()}
    ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "15 inconclusive" in ran.stdout or "inconclusive" in ran.stdout
    assert "to train" not in ran.stdout
