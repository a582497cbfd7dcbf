"""The fields of the layout by their dotted names, and what is said where a value does not fit one.

In: the schema (`layout`), a problem that pydantic found. Out: names; one line each with place, value, remedy.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from ..tasks import task as tasks
from ..wording import did_you_mean, dotted, printable
from . import schema
from .document import Document, Path


def names(data: object) -> list[Path]:
    """Every name that a config may have; arms are those in `data`, or `*` where it has none."""
    return list(_fields(schema.Layout, data, (), _classes(data)))


def nearest(name: str, known: Sequence[Path]) -> str:
    """`; did you mean training.lora.rank?` for a name that is unknown, or known elsewhere."""
    spelled = sorted((dotted(p) for p in known), key=len)
    if same_end := next((n for n in spelled if n.endswith(f".{name}")), None):
        return f"; did you mean {same_end}?"
    if hint := did_you_mean(name, spelled):
        return hint
    ends = {n.rsplit(".", 1)[-1]: n for n in reversed(spelled)}
    near = difflib.get_close_matches(name.rsplit(".", 1)[-1][:100], list(ends), 1, 0.7)
    return f"; did you mean {ends[near[0]]}?" if near else "; docs/configuration.md lists them"


def explain(error: ValidationError, document: Document) -> Iterator[str]:
    """A line for each problem that the schema found: place, field, value, remedy."""
    for problem in error.errors(include_url=False):
        path = tuple(p for p in problem["loc"] if p != "[key]")
        yield f"{document.place(path)}: {dotted(path) or 'config'}: {_said(problem, path)}"


def _said(problem: Any, path: Path) -> str:
    value, kind, limits = problem["input"], problem["type"], problem.get("ctx", {})
    shown = printable(repr(value))
    match kind:
        case "missing":
            return "missing; add it"
        case "extra_forbidden":
            known = list(dict.fromkeys(str(p[-1]) for p in names({}) if _alike(p[:-1], path[:-1])))
            return f"unknown key{did_you_mean(str(path[-1]), known)}; known: {', '.join(known)}"
        case "literal_error":
            known = limits["expected"].replace(" or ", ", ").replace("'", "").split(", ")
            return f"unknown value {shown}{did_you_mean(str(value), known)}; known: {', '.join(known)}"
        case "value_error":
            return str(limits["error"])
        case "too_short":
            return f"{limits['actual_length']} given; at least {limits['min_length']} needed"
        case "too_long":
            return f"{limits['actual_length']} given; at most {limits['max_length']} allowed"
        case "string_pattern_mismatch":
            return f"{shown} may hold letters, digits, _ and . only (- in names, too); begin with a letter"
        case "dict_type" | "model_type" | "list_type" | "string_type":
            wanted = {"dict": "a section", "model": "a section", "list": "a list"}.get(kind[:-5], "a text")
            return f"{shown} is not {wanted}; write {_EXAMPLES[kind]}"
        case "string_unicode":
            return f"{shown} holds half of a surrogate pair; write the character itself"
        case "bool_type" | "bool_parsing":
            return f"{shown} is neither true nor false; write one"
        case "int_type" | "int_from_float" | "float_type":
            wanted = "whole number" if kind[0] == "i" else "number"
            return f"{shown} is not a {wanted}; write it in digits, without quotes"
    message = problem["msg"].removeprefix("Input ")
    return f"{shown} {message[:1].lower()}{message[1:]}"


_EXAMPLES = {
    "dict_type": "indented `key: value` lines below it",
    "model_type": "indented `key: value` lines below it",
    "list_type": "[one, two]",
    "string_type": "a word",
}


def _classes(data: Any) -> Sequence[str]:
    if not schema.is_own(data):
        return tasks.OPERATIONS
    vocabulary = data["parameters"].get("task_vocabulary")
    return list(vocabulary) if isinstance(vocabulary, dict) else ()


def _fields(model: type[BaseModel], data: object, path: Path, classes: Sequence[str]) -> Iterator[Path]:
    for name, info in model.model_fields.items():
        yield (*path, name)
        inner = data.get(name) if isinstance(data, dict) else None
        yield from _inside(info.annotation, inner, (*path, name), classes)


def _inside(annotation: Any, data: object, path: Path, classes: Sequence[str]) -> Iterator[Path]:
    origin = get_origin(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from _fields(annotation, data, path, classes)
    elif origin in (Annotated, Union, types.UnionType):
        for part in get_args(annotation)[: 1 if origin is Annotated else None]:
            yield from _inside(part, data, path, classes)
    elif origin is dict:
        value = get_args(annotation)[1]
        arms = isinstance(value, type) and issubclass(value, BaseModel)
        for key in (list(data) if isinstance(data, dict) and data else ["*"]) if arms else classes:
            inner = data.get(key) if isinstance(data, dict) else None
            yield (*path, key)
            yield from _inside(value, inner, (*path, key), classes)


def _alike(pattern: Path, path: Path) -> bool:
    """Whether a name of the schema (`*` for an arm) is that of a place in the file."""
    plain = tuple(p for p in path if not isinstance(p, int))
    return len(pattern) == len(plain) and all(a in ("*", b) for a, b in zip(pattern, plain, strict=True))
