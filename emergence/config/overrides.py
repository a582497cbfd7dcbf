"""`-p training.lora.rank=8`: one field of a config, typed as YAML, put where its dotted name points.

In: a document that was read, names with values. Out: the document changed, and notices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import UsageError
from ..wording import dotted, printable
from . import document as yaml_strict
from . import fields, schema
from .document import Document, Path

_BY_CLASS = {"task_vocabulary", "test_prompts", "operands", "classifier_targets"}
_TEXTS = {("name",), ("model",), ("description",)}


def parse_override(text: str) -> tuple[str, str]:
    """`training.lora.rank=8` as name and value; raises `UsageError` where there is no `=`."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"-p {printable(text)}: write it as name=value, such as training.lora.rank=8")
    return name.strip(), value.strip()


def apply(document: Document, given: Mapping[str, object], as_text: Callable[[Path], bool]) -> list[str]:
    """Put each override where its name points; a text is read as YAML. Returns notices.

    Raises `UsageError` for every name that no config has, with the nearest one.
    """
    wrong, notices = [], []
    # What is said of one arm comes after what is said of all.
    for name, value in sorted(given.items(), key=lambda item: "training_methods" in item[0]):
        path, known = _path(name, document.data), fields.names(document.data)
        place = f"-p {printable(name)}"
        if path not in known:
            wrong.append(f"{place}: unknown parameter{fields.nearest(name, known)}")
            continue
        try:
            read = _value(place, value, path, as_text)
        except yaml_strict.Refused as error:
            wrong.append(str(error))
            continue
        _put(document, path, read, place)
        notices += _everywhere(document, path, read)
    if wrong:
        raise UsageError("\n".join(wrong))
    return notices


def _path(name: str, data: object) -> Path:
    parts = name.split(".")
    if schema.is_own(data):
        return tuple(parts)
    return tuple(
        schema.CLASS_NAMES.get(p, p) if i and parts[i - 1] in _BY_CLASS else p for i, p in enumerate(parts)
    )


def _value(place: str, value: object, path: Path, as_text: Callable[[Path], bool]) -> object:
    if not isinstance(value, str):
        return list(value) if isinstance(value, tuple) else value
    if path in _TEXTS:
        return value
    raw = value.encode("utf-8", "surrogatepass")
    document = yaml_strict.read(raw, place, lambda inner: as_text((*path, *inner)))
    if document.wrong:
        raise yaml_strict.Refused("\n".join(document.wrong))
    return document.data


def _put(document: Document, path: Path, value: object, place: str) -> None:
    section: Any = document.data
    for part in path[:-1]:
        if not isinstance(section.get(part), dict):
            section[part] = {}
        section = section[part]
    own = schema.is_own(document.data)
    for name in [k for k in section if schema.CLASS_NAMES.get(k) == path[-1] and not own]:
        del section[name]
    section[path[-1]] = value
    document.overridden[path] = place


def _everywhere(document: Document, path: Path, value: object) -> list[str]:
    """What is overridden for all arms counts for each: settings further in, in the file, give way."""
    training = document.data.get("training")
    inside = _further_in(path, training)
    if isinstance(value, dict):
        return [n for key in value if inside for n in _everywhere(document, (*path, str(key)), value[key])]
    notices = []
    for place, section in inside:
        for part in path[1:-1]:
            section = section.get(part) if isinstance(section, dict) else None
        if isinstance(section, dict) and path[-1] in section:
            own = printable(str(section.pop(path[-1])))
            notices.append(f"-p {dotted(path)}: in {place}, too, instead of its own {own}")
    return notices


def _further_in(path: Path, training: Any) -> list[tuple[str, Any]]:
    """The sections whose settings would otherwise beat the one at `path`, by what they are called."""
    if not isinstance(training, dict) or len(path) < 2 or path[1] == "training_methods":
        return []
    methods = training.get("training_methods")
    arms = methods.items() if isinstance(methods, dict) else ()
    named = [(f"the arm {printable(name)}", arm) for name, arm in arms]
    if path[:2] == ("parameters", "lora"):
        return [("training", training), *named]
    return named if path[0] == "training" else []
