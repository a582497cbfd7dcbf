"""`-p training.lora.rank=8`: one field of a config, typed as YAML, put where its dotted name points.

In: a document that was read, names with values. Out: the document changed; problems and notices in it.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError
from ..wording import did_you_mean, dotted, printable
from . import document as yaml
from . import schema, values
from .document import Document
from .problems import Path

_BY_CLASS = {"task_vocabulary", "test_prompts", "operands", "classifier_targets"}
_TEXTS = {("name",), ("model",), ("description",)}


@dataclass(frozen=True)
class Said:
    """A value that another option than `-p` gave, such as `--base`: messages name it."""

    option: str
    value: object


def parse_override(text: str) -> tuple[str, str]:
    """`training.lora.rank=8` as name and value; raises `UsageError` where there is no `=`."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"-p {printable(text)}: write it as name=value, such as training.lora.rank=8")
    return name.strip(), value.strip()


def apply(document: Document, given: Mapping[str, object]) -> None:
    """Put each override where its name points; a text is read as YAML.

    A name that no config has is a problem, told with the nearest one.
    """
    problems = document.problems
    # What is said of one arm comes after what is said of all.
    for name, value in sorted(given.items(), key=lambda item: "training_methods" in item[0]):
        place, path = f"-p {printable(name)}", _path(name, document.data)
        if isinstance(value, Said):
            place, value = value.option, value.value
        known = schema.names(document.data)
        if path not in known:
            problems.wrong.append(f"{place}: unknown parameter{_nearest(name, known)}")
            continue
        try:
            read = _value(place, value, path)
        except UsageError as error:
            problems.wrong += str(error).split("\n")
            continue
        _put(document, path, read)
        problems.overridden[path] = place
        if len(path) > 1:  # all of `training` brings its own arms
            problems.notices += _give_way(document.data, path, read)


def _nearest(name: str, known: Sequence[Path]) -> str:
    """`; did you mean training.lora.rank?` for a name that is unknown, or known elsewhere."""
    spelled = sorted((dotted(p) for p in known), key=len)
    if same_end := next((n for n in spelled if n.endswith(f".{name}")), None):
        return f"; did you mean {same_end}?"
    if hint := did_you_mean(name, spelled):
        return hint
    ends = {n.rsplit(".", 1)[-1]: n for n in reversed(spelled)}
    near = difflib.get_close_matches(name.rsplit(".", 1)[-1][:100], list(ends), 1, 0.7)
    return f"; did you mean {ends[near[0]]}?" if near else "; docs/configuration.md lists them"


def _path(name: str, data: object) -> Path:
    parts, others = name.split("."), values.classes(data).others
    return tuple(others.get(p, p) if i and parts[i - 1] in _BY_CLASS else p for i, p in enumerate(parts))


def _value(place: str, value: object, path: Path) -> object:
    if not isinstance(value, str):
        # Another override may go into it; the caller's value stays as it is.
        return list(value) if isinstance(value, tuple) else copy.deepcopy(value)
    if path in _TEXTS:
        return value
    raw = value.encode("utf-8", "surrogatepass")
    document = yaml.read(raw, place, lambda inner: schema.as_text((*path, *inner)))
    document.problems.refuse()
    return document.data


def _put(document: Document, path: Path, value: object) -> None:
    section: Any = document.data
    for part in path[:-1]:
        if not isinstance(section.get(part), dict):
            section[part] = {}
        section = section[part]
    others = values.classes(document.data).others
    for name in [k for k in section if others.get(k) == path[-1]]:
        del section[name]
    section[path[-1]] = value


def _give_way(data: Any, path: Path, value: object) -> Iterator[str]:
    """What is overridden for all arms counts for each: the same setting further in gives way."""
    if isinstance(value, dict):
        for key in value:
            yield from _give_way(data, (*path, str(key)), value[key])
        return
    for section in _further_in(path, data):
        inner = _at(data, (*section, *path[1:-1]))
        if path[-1] in inner:
            place = f"the arm {printable(section[-1])}" if len(section) > 1 else "training"
            own = printable(str(inner.pop(path[-1])))
            yield f"-p {dotted(path)}: in {place}, too, instead of its own {own}"


def _further_in(path: Path, data: Any) -> list[tuple[str, ...]]:
    """The sections whose settings would beat the one at `path`."""
    methods = ("training", "training_methods")
    arms: list[tuple[str, ...]] = [(*methods, name) for name in _at(data, methods)]
    if path[:2] == ("parameters", "lora"):
        return [("training",), *arms]
    return arms if path[:1] == ("training",) and path[:2] != methods else []


def _at(data: Any, path: Path) -> dict[str, Any]:
    """The section at a place; empty where there is none."""
    for part in path:
        data = data.get(part) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}
