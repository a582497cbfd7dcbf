"""The task that a config asks for, as an object: arithmetic, or examples of its own, found beside it.

In: the valid file, and its folder. Out: a `tasks.Task`, the prompts to show; problems in `Problems`.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

from ..errors import UsageError
from ..tasks import examples
from ..tasks.arithmetic import OPERATIONS, Arithmetic
from ..tasks.examples import Example, Examples
from ..tasks.task import Shown, Task
from ..wording import did_you_mean, printable, quoted
from . import schema, values
from .problems import Path, Problems

_EXAMPLES: Path = ("parameters", "examples")
_VOCABULARY: Path = ("parameters", "task_vocabulary")
_PROMPTS: Path = ("parameters", "test_prompts")
_ARITHMETIC = ("operations", "operands", "styles", "read_styles")


def classes(p: schema.Parameters, problems: Problems) -> tuple[str, ...]:
    """What is told apart: operations in their usual order, or whatever the vocabulary names."""
    arithmetic = p.examples is None
    named = p.operations if arithmetic and p.operations is not None else list(p.task_vocabulary)
    for cls in p.task_vocabulary:
        if cls not in named:
            problems.note((*_VOCABULARY, cls), "left out: not among the operations")
    for cls in named:
        if cls not in p.task_vocabulary:
            problems.say(_VOCABULARY, f"no words for the class {cls}; add some, or drop it from operations")
    if len(named) < 2:
        alone = f"{len(named)} class; a classifier tells classes apart: write at least 2"
        problems.say(_VOCABULARY, alone)
    return tuple((op for op in OPERATIONS if op in named) if arithmetic else named)


def make(
    p: schema.Parameters, classes: tuple[str, ...], problems: Problems, folder: pathlib.Path | None
) -> Task[Any] | None:
    """The task; None where its examples cannot be read, which is told."""
    counts: dict[str, Any] = {
        "num_train": p.num_samples // max(len(classes), 1),
        "num_valid": p.num_valid,
        "num_test": p.num_test,
        "seed": p.seed,
    }
    if not counts["num_train"]:
        problems.say(("parameters", "num_samples"), f"{p.num_samples} is less than one a class; raise it")
    if p.examples is not None:
        found = _examples(p, p.examples, problems, folder)
        return Examples(classes=classes, examples=found, **counts) if found else None
    if unread := [style for style in p.styles if style not in p.read_styles]:
        problems.say(("parameters", "read_styles"), f"{unread[0]} is trained on but not read; add it")
    if (matched := set(p.operands) & set(values.MATCHED)) and len(matched) < len(p.operands):
        other = next(name for name in p.operands if name not in matched)
        alone = f"is for operands by class, and {min(matched)} for pairs under every class; drop one of them"
        problems.say(("parameters", "operands", other), alone)
        return None
    operands = {cls: (low, high) for cls, (low, high) in p.operands.items()}
    styles, read = tuple(p.styles), tuple(p.read_styles)
    return Arithmetic(classes=classes, operands=operands, styles=styles, read_styles=read, **counts)


def prompts(p: schema.Parameters, task: Task[Any], problems: Problems) -> Iterator[Shown]:
    """The prompts to show, each checked."""
    for cls, rows in p.test_prompts.items():
        if cls not in task.classes:
            problems.note((*_PROMPTS, cls), "left out: not among the operations")
            continue
        for i, row in enumerate(rows):
            path = (*_PROMPTS, cls, i)
            if any(row.prompt == before.prompt for before in rows[:i]):
                problems.say(path, f"{quoted(row.prompt)} is given twice; drop one")
                continue
            try:
                shown = task.shown(row.prompt, cls, row.expected)
            except UsageError as error:
                problems.say(path, str(error))
                continue
            if shown.note:
                problems.note(path, shown.note)
            yield shown


def check_supply(task: Task[Any], prompts: tuple[Shown, ...], problems: Problems) -> None:
    """Tell of each class with too few items for its splits, beside the prompts that are shown."""
    for cls in task.classes:
        if short := task.shortage(cls, [shown.item for shown in prompts]):
            problems.say(("parameters", *task.place(cls)), short)


def _examples(
    p: schema.Parameters, written: str, problems: Problems, folder: pathlib.Path | None
) -> tuple[Example, ...]:
    """What the file of examples holds; nothing where something is wrong with it."""
    name = quoted(written)
    for field in _ARITHMETIC:
        if field in p.model_fields_set:
            problems.say(("parameters", field), f"is for arithmetic, not for {name}; drop it")
    if folder is None:
        problems.say(_EXAMPLES, f"{name} lies beside a config file, and this config is none")
        return ()
    if "\0" in written or not (folder / written).resolve().is_relative_to(folder.resolve()):
        problems.say(_EXAMPLES, f"{name} leads out of the config's folder; put the file beside the config")
        return ()
    try:
        found = examples.load(folder / written, printable(str(folder / written), 300))
    except UsageError as error:
        problems.wrong += str(error).split("\n")
        return ()
    if not found:
        problems.say(_EXAMPLES, f"{name} holds no example; write some")
    for cls in sorted({e.cls for e in found} - p.task_vocabulary.keys()):
        hint = did_you_mean(cls, p.task_vocabulary) or "; add some"
        problems.say(_VOCABULARY, f"no words for the class {quoted(cls)} of {name}{hint}")
    return found
