"""What is understood only because configs of `lazarus experiment` (chrishayuk/chuk-mlx) say it.

In: a document as it was read. Out: the same document in our words, a notice for each change.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..wording import did_you_mean
from . import schema, values
from .document import Document
from .problems import Path, Problems

UNUSED = {
    "training": ("log_interval", "eval_interval", "gradient_accumulation_steps", "warmup_steps"),
    "method": ("num_iterations", "group_size", "log_interval", "eval_interval"),
}
"""Fields that mean nothing here; they are noticed, not refused."""


def translate(document: Document) -> None:
    """Move parameters from the top level to where they belong, and drop what nothing here reads."""
    data, problems = document.data, document.problems
    for key in [key for key in data if key not in schema.Layout.model_fields]:
        _move(data, key, problems)
    for path, section, names in _sections(data.get("training")):
        for name in [n for n in names if isinstance(section, dict) and n in section]:
            by_reward, enabled = section.get("method") == "grpo", section.get("enabled", True)
            if by_reward and name == "group_size":
                continue
            del section[name]
            if enabled or not by_reward:
                problems.note((*path, name), "not used here")
    others = values.classes(data).others
    for path, line in list(problems.lines.items()):
        problems.lines.setdefault(tuple(others.get(str(p), p) for p in path), line)


def _move(data: dict[str, Any], key: str, problems: Problems) -> None:
    """An unknown top-level key is a parameter, unless it looks like a slip of ours."""
    value, parameters = data.pop(key), data.get("parameters")
    if key in schema.Parameters.model_fields and isinstance(parameters, dict) and key not in parameters:
        parameters[key] = value
        problems.note((key,), f"read as parameters.{key}")
        for path, line in list(problems.lines.items()):
            if path[:1] == (key,):
                problems.lines.setdefault(("parameters", *path), line)
    elif hint := did_you_mean(key, schema.Layout.model_fields):
        problems.say((key,), f"unknown key{hint}")
    else:
        problems.note((key,), "not used here")


def _sections(training: Any) -> Iterator[tuple[Path, Any, tuple[str, ...]]]:
    """Where fields without a meaning may stand, and which."""
    yield ("training",), training, UNUSED["training"]
    methods = training.get("training_methods") if isinstance(training, dict) else None
    for name, arm in methods.items() if isinstance(methods, dict) else ():
        yield ("training", "training_methods", name), arm, UNUSED["method"]
