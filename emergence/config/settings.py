"""What a config decides, with nothing left open: frozen, and the same for every stage that asks.

In: what `resolver` found in a file. Out: `Config`, `Arm`, `Task`, `LoRA`, `TestPrompt`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..errors import UsageError
from ..tasks import task as tasks
from ..tasks.examples import STYLE, Example
from ..wording import did_you_mean


def shown_model(name: str) -> str:
    """What results call a model: an embedded name or hub id as it is, a folder by its last part only.

    No path of a machine, which may tell of its owner, goes into a result.
    """
    return os.path.basename(os.path.abspath(name)) if Path(name).is_dir() else name


class _Settled(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LoRA(_Settled):
    """Low-rank adapters on the named layers of the last `num_layers` blocks (-1: of all)."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    num_layers: int = -1

    @property
    def scale(self) -> float:
        """What the update is multiplied by: mlx-lm's `scale`."""
        return self.alpha / self.rank


class Arm(_Settled):
    """One way to train; with a seed, a run."""

    name: str
    method: Literal["sft", "shuffled", "classified"] = "sft"
    fine_tune_type: Literal["lora", "dora", "full"] = "lora"
    learning_rate: float = 5e-4
    batch_size: int = 16
    max_steps: int = 300
    checkpoint_steps: tuple[int, ...] = (0, 25, 50, 100, 150, 200, 300)
    """Ascending, 0 first, none beyond `max_steps`."""
    seeds: tuple[int, ...] = (0, 1, 2)
    lora: LoRA = LoRA()
    classifier_weight: float = 0.7
    classifier_layer_pct: float = 0.54
    classifier_targets: dict[str, str] = {}
    """Class to the word that a `classified` arm is taught to read out at `classifier_layer_pct`."""


class Task(_Settled):
    """The problems: counts are per class."""

    classes: tuple[str, ...]
    """The classes; with `examples`, theirs."""
    operands: dict[str, tuple[int, int]]
    examples: tuple[Example, ...] = Field(default=(), exclude=True, repr=False)
    """Prompts of one's own instead of arithmetic; too many for a dump, but part of the hash."""
    styles: tuple[str, ...] = ("symbolic",)
    """Trained on."""
    read_styles: tuple[str, ...] = ("symbolic", "worded")
    """Read at every checkpoint."""
    num_train: int = 600
    num_valid: int = 30
    num_test: int = 60
    seed: int = 0


class TestPrompt(_Settled):
    """A prompt to show, as it was written, with its checked answer."""

    __test__: ClassVar[bool] = False

    cls: str
    prompt: str
    expected: str
    own: bool = Field(default=False, exclude=True)
    """It is no arithmetic."""

    @property
    def problem(self) -> tasks.Item:
        """What it asks."""
        if self.own:
            return Example(self.cls, self.prompt, self.expected)
        return tasks.parse(self.prompt)[0]

    @property
    def style(self) -> str:
        """How it asks."""
        return STYLE if self.own else tasks.parse(self.prompt)[1]


class Config(_Settled):
    """All that a config decides."""

    name: str
    description: str
    model: str
    arms: tuple[Arm, ...]
    """The enabled ones, a `shuffled` control always among them."""
    task: Task
    vocabulary: dict[str, tuple[str, ...]]
    """Class to words and glyphs as written, numbers left out."""
    test_prompts: tuple[TestPrompt, ...] = ()
    notices: tuple[str, ...] = ()
    """What was read otherwise than one might think, a line each."""

    def arm(self, name: str) -> Arm:
        """The arm of that name; raises `UsageError` with the known ones."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        hint = did_you_mean(name, [a.name for a in self.arms])
        raise UsageError(
            f"unknown arm {name!r}{hint}; this config has {', '.join(a.name for a in self.arms)}"
        )

    @property
    def public(self) -> Config:
        """The same as it may be shown: the model by `shown_model`, notices without the config's folder."""
        notices = tuple(re.sub(r"^[^:]*/", "", notice) for notice in self.notices)
        return self.model_copy(update={"model": shown_model(self.model), "notices": notices})

    @property
    def hash(self) -> str:
        """The first 12 hex digits of SHA-256 over all fields but the notices, as canonical JSON.

        A model folder counts by its name, wherever it lies.
        """
        fields = self.public.model_dump(mode="json", exclude={"notices"})
        if self.task.examples:
            fields["task"]["examples"] = tasks.content_hash(self.task.examples)
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:12]
