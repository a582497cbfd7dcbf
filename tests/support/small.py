"""The experiments of `hypotheses/` that train, as they are, but on a tiny model and in seconds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import tiny
import yaml
from places import HYPOTHESES

SHORT = {"max_steps": 4, "checkpoint_steps": [0, 2, 4], "batch_size": 6, "learning_rate": 5e-3, "warmup": 0}
FEW = {"num_valid": 6, "num_test": 30, "lora": {"rank": 4, "alpha": 8}}
WORDS = {
    "parity": {"even": ["plus"], "odd": ["minus"]},
    "classifier_emergence": {"add": ["add", "plus"], "subtract": ["subtract"], "multiply": ["multiply"]},
}
WORDS["reinforcement"] = WORDS["classifier_emergence"]


def hypotheses(place: Path) -> Path:
    """A copy of `hypotheses/` in `place`, and a tiny model in `place/model` that all of it is about."""
    model = tiny.write_model(place / "model")
    shutil.copytree(
        HYPOTHESES, place / "hypotheses", ignore=shutil.ignore_patterns("__pycache__", "*INDINGS*", "gpt_oss")
    )
    (place / "conftest.py").write_text('pytest_plugins = ["emergence.fixtures"]\n')
    for path in (place / "hypotheses").glob("*/config.yaml"):
        path.write_text(yaml.safe_dump(shortened(yaml.safe_load(path.read_text()), path.parent.name, model)))
    return place / "hypotheses"


def shortened(config: dict[str, Any], name: str, model: Path) -> dict[str, Any]:
    """The config of the experiment `name` of `hypotheses/`, of another model and in seconds."""
    config["model"] = str(model)
    config["training"] |= SHORT
    for arm in config["training"]["training_methods"].values():
        for own in ("max_steps", "checkpoint_steps"):
            arm.pop(own, None)
        if arm["method"] == "grpo":
            arm["sft_steps"] = 2
    config["parameters"] |= FEW | {"num_samples": 60, "task_vocabulary": WORDS[name]}
    return config
