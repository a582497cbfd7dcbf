"""Models stage: what a `config.json` says, as the implementation reads it: translated, or refused by field.

In: the parsed file. Out: the changes under which mlx-lm computes what transformers computes from it.
Reference are transformers' own configuration classes, which need no torch: what they make of the whole file
must equal what they make of the fields that mlx-lm reads. Which fields it reads is looked up in
`architecture`; rotary tables are settled in `rope`, because transformers 5 writes them where most of mlx-
lm's types never look.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from logging import ERROR
from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging

from ..errors import BrokenExperiment, NotMeasurable
from . import architecture, derived, rope
from .architecture import Architecture
from .fields import (
    ACTIVATIONS,
    BARE,
    CHOICES,
    IN_SHAPES,
    MISREAD,
    SETTLED_ELSEWHERE,
    WINDOWS,
    WITHOUT_EFFECT,
    matches,
)

_UNREAD = "mlx-lm's {type} does not read {fields}: its logits would not be this model's"
SHORTEST_WINDOW = 512
"""Tokens. A window that mlx-lm ignores changes nothing for shorter prompts; a smaller one is refused."""


@dataclass(frozen=True)
class Settled:
    """How one folder is loaded.

    `changes` go over its config.json; `theirs` is transformers' own reading of it, of the text part (None
    for a type that transformers does not know); `tied` whether it reads out with the embedding; `longest`
    is the longest prompt, in tokens, for which the implementation is the model's (None: any); `activation`
    takes the place of mlx-lm's own; `suspects` are unread fields that show in the shapes and names of the
    weights, and `nulls` fields without a value: what to name if the weights do not fit, or the model cannot
    be built or run.
    """

    raw: dict[str, Any]
    implementation: Architecture
    changes: dict[str, Any] = field(default_factory=dict)
    theirs: PreTrainedConfig | None = None
    tied: bool = False
    longest: int | None = None
    activation: str | None = None
    suspects: tuple[str, ...] = ()
    nulls: tuple[str, ...] = ()
    nested: bool = False


def settle(raw: dict[str, Any]) -> Settled:
    """Translate a configuration for mlx-lm.

    Raises
    ------
    NotMeasurable
        A field changes the function and mlx-lm does not read it: its name and its value.
    BrokenExperiment
        The file is no configuration of its model type.
    """
    implementation = architecture.find(raw)
    whole = _theirs(raw)
    if whole is None:
        _refuse_bare(raw, implementation)
        return Settled(raw, implementation)
    theirs = whole.get_text_config()
    nested, text = "text_config" in implementation.fields, raw.get("text_config")
    # Older files of a type that also sees have the text part at the top.
    reading = _Reading(text if isinstance(text, dict) else raw, theirs, implementation, nested)
    problems, suspects = reading.differences()
    if problems:
        raise NotMeasurable(_UNREAD.format(type=implementation.name, fields=", ".join(problems)))
    if misread := reading.misread():
        raise NotMeasurable(
            f"mlx-lm's {implementation.name} computes {', '.join(misread)} otherwise than transformers: "
            "its logits would not be this model's"
        )
    changes = reading.filled()
    return Settled(
        raw,
        implementation,
        changes=reading.outer(raw, changes) if nested and reading.text is not raw else changes,
        theirs=theirs,
        tied=bool(derived.said(whole, "tie_word_embeddings", False)),
        longest=reading.longest(),
        activation=reading.activation(),
        suspects=tuple(suspects),
        nulls=tuple(reading.nulls(changes)),
        nested=nested,
    )


def _theirs(raw: Mapping[str, Any]) -> PreTrainedConfig | None:
    """What transformers makes of a configuration, every default filled in; None for a type it has not."""
    name = raw["model_type"]
    if name not in CONFIG_MAPPING:
        return None
    try:
        return _read(CONFIG_MAPPING[name], raw)
    except Exception as error:  # its validators raise many kinds
        lines = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
        raise BrokenExperiment(f"config.json describes no {name}: {lines[:200]}") from None


def _read(cls: type[PreTrainedConfig], raw: Mapping[str, Any]) -> PreTrainedConfig:
    level = logging.get_verbosity()
    logging.set_verbosity(ERROR)  # it warns of fields that it does not know
    try:
        # a copy: transformers writes into what it is given
        own = {
            k: v
            for k, v in copy.deepcopy(dict(raw)).items()
            if k not in ("model_type", "transformers_version")
        }
        return cls.from_dict(own)
    finally:
        logging.set_verbosity(level)


@dataclass(frozen=True)
class _Reading:
    """One configuration as two implementations read it: transformers (`theirs`) and mlx-lm."""

    text: Mapping[str, Any]
    theirs: PreTrainedConfig
    implementation: Architecture
    nested: bool

    def differences(self) -> tuple[list[str], list[str]]:
        """Unread fields that change the function, and unread ones that show in the weights' shapes."""
        unread = self.unread()
        names = {s for name in unread for s in self.spellings(name)}
        assumed = self.assumed({k: v for k, v in self.text.items() if k not in names})
        problems, suspects = self.unread_windows() + self.unread_layers(), []
        for name in unread:
            value, other = derived.said(self.theirs, name), derived.said(assumed, name)
            if value == other or name in WINDOWS or self.follows(name):
                continue
            shown = f"{name} {_short(value)}"
            if matches(name, IN_SHAPES):
                suspects.append(shown)
            else:
                problems.append(f"{shown} (it computes {_short(other)})")
        return problems, suspects

    def reads(self, name: str) -> bool:
        return any(self.implementation.reads(s, self.nested) for s in self.spellings(name))

    def spellings(self, name: str) -> set[str]:
        """Every name of one field: `num_experts` is `num_local_experts` to Mixtral."""
        there = type(self.theirs).attribute_map
        return {name, there.get(name, name), *(k for k, v in there.items() if v == name)}

    def unread(self) -> list[str]:
        """Fields that transformers declares, that may change the function, and that mlx-lm does not read."""
        shared = PreTrainedConfig.__dataclass_fields__
        declared = [name for name in type(self.theirs).__dataclass_fields__ if name not in shared]
        return [
            name
            for name in declared
            if name not in SETTLED_ELSEWHERE and not matches(name, WITHOUT_EFFECT) and not self.reads(name)
        ]

    def assumed(self, read: Mapping[str, Any]) -> PreTrainedConfig:
        """What transformers makes of the fields that are read, the others left to their defaults."""
        try:
            return _read(type(self.theirs), read)
        except Exception:  # without the unread fields the rest need not make a model
            return type(self.theirs)()

    def follows(self, name: str) -> bool:
        """Whether an unread field says nothing that a field which is read does not say."""
        if name == "layer_types":
            period = derived.period(self.theirs)
            return period is not None and any(self.reads(n) for n in derived.PERIODS)
        if name == "head_dim":
            usual = derived.value("head_dim", self.theirs, explicit=False)
            return hasattr(self.theirs, "qk_rope_head_dim") or derived.said(self.theirs, "head_dim") in (
                None,
                usual,
            )
        return False

    def misread(self) -> list[str]:
        """Fields that mlx-lm reads, and computes as transformers does for other values only."""
        problems = []
        for name, right in MISREAD.get(self.implementation.name, {}).items():
            if not right(value := derived.said(self.theirs, name)):
                problems.append(f"{name} {_short(value)}")
        problems += [f"{name} {value}" for name, value in self.choices() if value < SHORTEST_WINDOW]
        if (
            (dims := derived.value("head_dim", self.theirs)) is not derived.NOTHING
            and isinstance(dims, int)
            and dims % 2
        ):
            problems.append(f"head_dim {dims}")
        return problems

    def nulls(self, changes: Mapping[str, Any]) -> list[str]:
        """Fields without a value that mlx-lm reads, and does not expect to be null."""
        given = {**self.text, **changes}
        return [
            f"{name} null"
            for name, parameter in self.implementation.fields.items()
            if given.get(name, 0) is None and self.reads(name)
            and (name == "rope_scaling" or "Optional" not in str(parameter.annotation))
            and not matches(name, WITHOUT_EFFECT)
        ]  # fmt: skip

    def windows(self) -> list[tuple[str, int]]:
        """Windows in use, in tokens, that mlx-lm does not apply."""
        by_layer = self.implementation.reads("layer_types", self.nested) and not hasattr(
            self.theirs, "layer_types"
        )
        names = [name for name in WINDOWS if by_layer or not self.reads(name)]
        if derived.said(self.theirs, "use_sliding_window", True) is False:
            names = []
        values = [(name, derived.said(self.theirs, name)) for name in names]
        return [(name, value) for name, value in values if isinstance(value, int)]

    def choices(self) -> list[tuple[str, int]]:
        """How many of the tokens before each are looked at, where mlx-lm chooses others than transformers."""
        values = [(name, derived.said(self.theirs, name)) for name in CHOICES]
        return [(name, value) for name, value in values if isinstance(value, int)]

    def unread_windows(self) -> list[str]:
        return [f"{name} {value}" for name, value in self.windows() if value < SHORTEST_WINDOW]

    def unread_layers(self) -> list[str]:
        """Fields that single layers have otherwise, where mlx-lm has no name for them."""
        layers = self.text.get("per_layer_config") or {}
        names = sorted({name for layer in layers.values() for name in layer})
        return [f"per_layer_config {name}" for name in names if not self.reads(f"global_{name}")]

    def longest(self) -> int | None:
        """Tokens up to which an unread window changes nothing and the table of positions does not end."""
        limits = [value for _, value in self.windows() + self.choices()]
        if not hasattr(self.theirs, "rope_parameters") and hasattr(self.theirs, "max_position_embeddings"):
            limits.append(self.theirs.max_position_embeddings)
        limits += [limit] if (limit := rope.limit(self.theirs)) else []
        return min((limit for limit in limits if isinstance(limit, int)), default=None)

    def activation(self) -> str | None:
        """The activation that replaces mlx-lm's own; None where that is right already."""
        own = self.implementation.activations
        for name in ACTIVATIONS:
            value = derived.said(self.theirs, name)
            wanted = architecture.same_activation(str(value))
            if not isinstance(value, str) or self.reads(name) or own == {wanted}:
                continue
            if self.implementation.simple and wanted in architecture.ACTIVATIONS:
                return wanted
            if value != derived.said(type(self.theirs)(), name):
                kind = self.implementation.name
                raise NotMeasurable(
                    f"mlx-lm's {kind} does not read {name} {value}: it has its own activation"
                )
        return None

    def filled(self) -> dict[str, Any]:
        """Fields that mlx-lm takes and the file leaves to a default, or spells otherwise."""
        taken = self.implementation.nested if self.nested else self.implementation.fields
        changes = {}
        for name in taken:
            if name in SETTLED_ELSEWHERE or name == "model_type":
                continue
            if name in WINDOWS and hasattr(self.theirs, name):
                changes[name] = derived.said(self.theirs, name)  # None where another field switches it off
            elif self.text.get(name) is not None:
                changes[name] = derived.translated(name, self.text[name], self.implementation)
            elif (found := derived.value(name, self.theirs)) is not derived.NOTHING:
                changes[name] = derived.translated(name, found, self.implementation)
            elif name in self.implementation.fields and self.needed(name):
                if name not in self.implementation.words:
                    changes[name] = None  # asked for, and never used
                elif name.endswith("_bias"):
                    changes[name] = False  # a bias that is stored all the same does not fit, and is named
        return changes | rope.flat(self.theirs, self.implementation, self.nested)

    def outer(self, raw: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
        """Changes of the text part, in its place, and what the whole repeats (Gemma 3: `vocab_size`)."""
        missing = [name for name in self.implementation.fields if raw.get(name) is None]
        repeated = {
            name: derived.said(self.theirs, name) for name in missing if name not in SETTLED_ELSEWHERE
        }
        given = {name: value for name, value in repeated.items() if value is not None}
        return {**given, "text_config": {**self.text, **changes}}

    def needed(self, name: str) -> bool:
        return self.implementation.fields[name].default is inspect.Parameter.empty


def _refuse_bare(raw: Mapping[str, Any], implementation: Architecture) -> None:
    """Refuse by the name alone, for a type of which transformers has no reading."""
    problems = [
        f"{name} {_short(raw[name])}"
        for name, harmless in BARE.items()
        if name in raw and raw[name] not in harmless and not implementation.reads(name)
    ]
    for name in ACTIVATIONS:
        wanted, own = architecture.same_activation(str(raw.get(name))), implementation.activations
        if (
            wanted in architecture.ACTIVATIONS
            and own
            and wanted not in own
            and not implementation.reads(name)
        ):
            problems.append(f"{name} {raw[name]}")
    window = raw.get("sliding_window")
    used = raw.get("use_sliding_window", True) and not implementation.reads("sliding_window")
    if used and isinstance(window, int) and window < SHORTEST_WINDOW:
        problems.append(f"sliding_window {window}")
    if problems:
        raise NotMeasurable(_UNREAD.format(type=implementation.name, fields=", ".join(problems)))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
