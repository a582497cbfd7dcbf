"""What a config decides, with nothing left open: frozen, and the same for every stage that asks.

In: what `resolve` makes of a file. Out: `Config`, `Arm`, `LoRA`. The task is an object of `tasks`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, InstanceOf, PlainSerializer

from ..errors import UsageError
from ..tasks.task import Shown, Task
from ..wording import did_you_mean


def shown_model(name: str) -> str:
    """What results call a model: an embedded name or hub id as it is, a folder by its last part only.

    No path of a machine, which may tell of its owner, goes into a result.
    """
    return os.path.basename(os.path.abspath(name)) if Path(name).is_dir() else name


_FOLDER = re.compile(r"^.*?/(?=[^/]+:[0-9]+: )")
"""In front of `config.yaml:12: `."""


class _Settled(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


UNTRAINED = {
    "base": "the model before training",
    "permuted": "the model before training with its weights permuted",
}
"""Arms that there always are, and that no config names."""


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
    method: Literal["sft", "shuffled", "classified", "grpo", "given"] = "sft"
    fine_tune_type: Literal["lora", "dora", "full"] = "lora"
    learning_rate: float = 5e-4
    lr_schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = 0
    """Updates in which the rate rises in a line; it is less than `max_steps`."""
    adam: Literal["uncorrected", "corrected"] = "uncorrected"
    batch_size: int = 16
    max_steps: int = 300
    until: float | None = None
    """The share of whole validation answers, right in every class, at which a run stops at a checkpoint."""
    checkpoint_steps: tuple[int, ...] = (0, 25, 50, 100, 150, 200, 300)
    """Ascending, 0 first, none beyond `max_steps`."""
    seeds: tuple[int, ...] = (0, 1, 2)
    lora: LoRA = LoRA()
    classifier_weight: float = 0.7
    classifier_layer_pct: float = 0.54
    classifier_targets: dict[str, str] = {}
    """Class to the word that a `classified` arm is taught to read out at `classifier_layer_pct`."""

    sft_steps: int = 300
    """Of `grpo`: updates before the first one by reward, less than `max_steps` and a checkpoint."""
    group_size: int = 8
    """Of `grpo`: completions of each of a step's `batch_size` prompts."""
    reward: Literal["verified", "random"] = "verified"
    advantage: Literal["centred", "positive"] = "centred"
    policy_learning_rate: float = 5e-5
    max_new_tokens: int = 6

    checkpoints: tuple[str, ...] = ()
    """Of `given`: the folder of each seed's series. Where it lies decides nothing; `content` does."""
    content: tuple[str, ...] = ()
    """Of `given`: SHA-256 of each seed's series."""

    def by_reward(self, step: int) -> bool:
        """Whether the update after `step` learns by reward."""
        return self.method == "grpo" and step >= self.sft_steps

    def series(self, seed: int) -> str:
        """The folder of a seed's series."""
        return self.checkpoints[self.seeds.index(seed)]

    def spec(self) -> dict[str, Any]:
        """What decides a run beside its seed, as JSON values, less what is at its default.

        So a setting that is added later changes no key of a run that does not use it.
        """
        return self.model_dump(mode="json", exclude_defaults=True, exclude={"name", "seeds", "checkpoints"})


def _task(task: Task[Any]) -> dict[str, Any]:
    """The fields of a task, but for those that are too many to be shown."""
    return {f.name: getattr(task, f.name) for f in dataclasses.fields(task) if f.repr}


def _prompt(shown: Shown) -> dict[str, str]:
    return {"class": shown.item.cls, "prompt": shown.text, "expected": shown.item.answer}


class Config(_Settled):
    """All that a config decides."""

    name: str
    description: str
    model: str
    arms: tuple[Arm, ...]
    """The enabled ones, a `shuffled` control always among them."""
    task: Annotated[InstanceOf[Task[Any]], PlainSerializer(_task)]
    vocabulary: dict[str, tuple[str, ...]]
    """Class to words and glyphs as written, numbers left out."""
    test_prompts: tuple[Annotated[InstanceOf[Shown], PlainSerializer(_prompt)], ...] = ()
    """Shown in the report; in no split and no statistic."""
    notices: tuple[str, ...] = ()
    """What was read otherwise than one might think, a line each."""

    def arm(self, name: str) -> Arm:
        """The arm of that name; raises `UsageError` with the known ones."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        names = [arm.name for arm in self.arms]
        hint = did_you_mean(name, names)
        raise UsageError(f"unknown arm {name!r}{hint}; this config has {', '.join(names)}")

    @property
    def public(self) -> Config:
        """The same as it may be shown: the model by `shown_model`, notices without the config's folder."""
        notices = tuple(_FOLDER.sub("", notice) for notice in self.notices)
        arms = tuple(
            arm.model_copy(
                update={"checkpoints": tuple(os.path.basename(folder) for folder in arm.checkpoints)}
            )
            for arm in self.arms
        )
        shown = {"model": shown_model(self.model), "notices": notices, "arms": arms}
        return self.model_copy(update=shown)

    def spec(self) -> dict[str, Any]:
        """All fields but the notices, as JSON values, less what is at its default.

        A model folder counts by its name, wherever it lies; examples by the hash of their content.
        """
        apart = {"arms", "task", "notices"}
        fields = self.public.model_dump(mode="json", exclude_defaults=True, exclude=apart)
        arms = [{"name": arm.name, "seeds": list(arm.seeds)} | arm.spec() for arm in self.arms]
        return fields | {"arms": arms, "task": self.task.spec()}

    @property
    def hash(self) -> str:
        """The first 12 hex digits of SHA-256 over `spec`, as canonical JSON.

        A field that is added later, at its default, does not change it. Hence a default never changes.
        """
        return hashlib.sha256(json.dumps(self.spec(), sort_keys=True).encode()).hexdigest()[:12]
