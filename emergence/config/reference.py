"""Makes `docs/configuration.md` from the schema: `python -m emergence.config.reference`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from ..tasks.arithmetic import OPERATIONS
from . import schema, values

_SECTIONS = (
    ("Layout", "The file", "Unknown keys here are taken as parameters, with a notice, as lazarus has it."),
    ("Training", "`training`", "What the arms have in common."),
    (
        "Arm",
        "`training.training_methods.<name>`",
        "One arm. `base` is taken: it means the model before training.",
    ),
    (
        "Until",
        "`until`",
        "In an arm or in `training`. A run that stops early counts as done, with the same bytes.",
    ),
    ("Lora", "`lora`", "In an arm, in `training` or in `parameters`; field by field, the innermost counts."),
    ("Parameters", "`parameters`", "The task, what is looked for, and what is shown."),
    ("Prompt", "`parameters.test_prompts.<class>[]`", "Each entry is this, or the prompt's text alone."),
)
EXAMPLE = """\
config.yaml:8: training.checkpoint_steps: 600 is beyond max_steps=500; raise max_steps or drop it
config.yaml:15: parameters.task_vocabulary.subtract: 'sum' belongs to add, too; keep it in one class"""
"""What a config with two mistakes is answered, as a test has it."""
_INTRODUCTION = f"""\
# Configuration

This page is made from the schema by `python -m emergence.config.reference`; a test compares the two.

A config is checked as a whole before anything is loaded or trained. Every problem is told at once, each in
a line with file and line, field, value and remedy, and the exit code is 2:

```
{EXAMPLE}
```

**Text is read as a person means it.** Scalars are those of YAML 1.2: `1e-4` is a number; `no`, `on` and
`12:30` are words (where true or false is asked for, `yes`, `no`, `on`, `off` are understood). A number with
a leading zero, a key given twice, an alias (`*name`), a tag (`!!python/...`), a second document, NaN and
infinity are refused. Vocabulary and prompts are the text that is written, with or without quotes; only
glyphs that mean something to YAML, such as `"*"` and `"-"`, need them. A file has at most 256 KiB, in
UTF-8.

**One field at a time**: `-p training.lora.rank=8` beats the file, `-p training.seeds=[0,1]` takes a list.
What is overridden in `training` counts for every arm, also one with a setting of its own in the file;
`-p training.training_methods.sft.lora.rank=8` is for one arm.

**Classes** are the operations {", ".join(f"`{op}`" for op in OPERATIONS)}. Understood as well:
{", ".join(f"`{n}`" for n in values.OTHER_NAMES)}.

**The control** is always there: if no enabled arm is `shuffled`, one is added that mirrors the first `sft`
arm.

**Configs of `lazarus experiment`** for this experiment are read as they are. Numbers in the vocabulary are
left out (answers come from each problem), fields without a meaning here are named in a notice.
"""


def configuration() -> str:
    """The page, as Markdown."""
    layout = schema.Layout.model_json_schema()
    parts = [_INTRODUCTION]
    for name, title, said in _SECTIONS:
        section = layout if name == "Layout" else layout["$defs"][name]
        parts.append("\n".join([f"## {title}\n", f"{said}\n", *_table(section)]) + "\n")
    return "\n".join(parts)


def _table(section: Mapping[str, Any]) -> Iterator[str]:
    yield "| field | value | if unset | meaning |"
    yield "| --- | --- | --- | --- |"
    for name, field in section["properties"].items():
        required = name in section.get("required", ())
        default = "required" if required else _default(field.get("default"))
        yield f"| `{name}` | {_kind(field)} | {default} | {field.get('description', '')} |"


def _default(value: object) -> str:
    if value is None or value == "" or isinstance(value, dict):
        return ""
    shown = str(value).lower() if isinstance(value, bool) else str(value).replace("'", "")
    return f"`{shown}`"


def _kind(field: Mapping[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "anyOf" in field:
        return _kind(next(part for part in field["anyOf"] if part.get("type") != "null"))
    if "allOf" in field or "$ref" in field:
        return "section"
    if "enum" in field:
        return ", ".join(f"`{v}`" for v in field["enum"])
    match field["type"]:
        case "array":
            return f"list{_bounds(field, 'minItems', 'maxItems', ' entries')}, each: {_kind(field['items'])}"
        case "object":
            by = "class" if "enum" in field.get("propertyNames", {}) else "name"
            inner = field.get("additionalProperties")
            what = "values" if inner is True else _kind(inner) if inner else "sections"
            return f"by {by}: {what}"
        case "string":
            return f"text{_bounds(field, 'minLength', 'maxLength', ' characters')}"
        case "integer" | "number" as kind:
            number = "whole number" if kind == "integer" else "number"
            return f"{number}{_bounds(field, 'minimum', 'maximum')}"
    return "true or false"


def _bounds(field: Mapping[str, Any], least: str, most: str, unit: str = "") -> str:
    low, high = field.get(least), field.get(most)
    if low is not None and high is not None:
        return f", {low}{unit}" if low == high else f", {low} to {high}{unit}"
    words = {"exclusiveMinimum": "above", least: "at least", most: "at most", "exclusiveMaximum": "below"}
    return "".join(f", {word} {field[key]}{unit}" for key, word in words.items() if key in field)


if __name__ == "__main__":
    sys.stdout.write(configuration())
