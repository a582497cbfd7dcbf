"""`-p training.lora.rank=8`: one field of a config, and what is said where a field does not fit.

In: a document that has been read, dotted names with values. Out: the document changed; messages with did-you-mean.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from . import layout, yaml_strict
from .errors import UsageError
from .yaml_strict import Document, dotted, printable


def did_you_mean(word: str, known: Sequence[str], cutoff: float = 0.7) -> str:
    """`; did you mean rank?`, or nothing where nothing known is near."""
    near = difflib.get_close_matches(word[:100], known, 1, cutoff)
    return f"; did you mean {near[0]}?" if near else ""


def apply(
    document: Document, given: Mapping[str, object], as_text: Callable[[yaml_strict.Path], bool]
) -> list[str]:
    """Put each override where its dotted name points; text is read as YAML. Returns notices.

    Raises `UsageError` for every name that no config knows, with the nearest one.
    """
    wrong, notices = [], []
    for name, value in given.items():
        path = _path(name)
        known = list(_names(layout.Layout, document.data, ()))
        if path not in known:
            wrong.append(f"-p {printable(name)}: unknown parameter{_nearest(name, known)}")
            continue
        try:
            read = _value(name, value, path, as_text)
        except yaml_strict.Refused as error:
            wrong.append(str(error))
            continue
        _put(document, path, read, f"-p {printable(name)}")
        notices += _shadowed(document, path)
    if wrong:
        raise UsageError("\n".join(wrong))
    return notices


def explain(error: ValidationError, document: Document) -> Iterator[str]:
    """A line for each problem that the schema found: place, field, value, remedy."""
    for problem in error.errors(include_url=False):
        path = tuple(p for p in problem["loc"] if p != "[key]")
        yield f"{document.place(path)}: {dotted(path) or 'config'}: {_said(problem, path)}"


def _said(problem: Any, path: yaml_strict.Path) -> str:
    value, kind, limits = problem["input"], problem["type"], problem.get("ctx", {})
    shown = printable(repr(value))
    if kind == "missing":
        return "missing; add it"
    if kind == "extra_forbidden":
        known = [str(p[-1]) for p in _names(layout.Layout, {}, ()) if _alike(p[:-1], path[:-1])]
        return f"unknown key{did_you_mean(str(path[-1]), known)}; known: {', '.join(dict.fromkeys(known))}"
    if kind == "literal_error":
        known = limits["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        return f"unknown value {shown}{did_you_mean(str(value), known)}; known: {', '.join(known)}"
    if kind == "value_error":
        return str(limits["error"])
    if kind in ("too_short", "too_long"):
        bound = (
            f"at least {limits['min_length']}" if kind == "too_short" else f"at most {limits['max_length']}"
        )
        return f"{limits['actual_length']} given, {bound} needed"
    if kind == "string_pattern_mismatch":
        return f"{shown} may hold letters, digits, '_', '.' (and '-' in names) only, and begins with a letter or digit"
    message = (
        problem["msg"].removeprefix("Input ").replace("dictionary or instance of ", "mapping, a section ")
    )
    remedy = "; write it in digits, without quotes" if "_type" in kind and kind[:3] in ("int", "flo") else ""
    return f"{shown} {message[:1].lower()}{message[1:]}{remedy}"


def _path(name: str) -> yaml_strict.Path:
    parts = name.split(".")
    classes = {"task_vocabulary", "test_prompts", "operands", "classifier_targets"}
    return tuple(
        layout.CLASS_NAMES.get(p, p) if i and parts[i - 1] in classes else p for i, p in enumerate(parts)
    )


def _value(
    name: str, value: object, path: yaml_strict.Path, as_text: Callable[[yaml_strict.Path], bool]
) -> Any:
    if not isinstance(value, str):
        return list(value) if isinstance(value, tuple) else value
    if path in (("name",), ("model",), ("description",)):
        return value
    document = yaml_strict.read(
        value.encode("utf-8", "surrogatepass"),
        f"-p {printable(name)}",
        lambda inner: as_text((*path, *inner)),
    )
    if document.wrong:
        raise yaml_strict.Refused("\n".join(document.wrong))
    return document.data


def _put(document: Document, path: yaml_strict.Path, value: Any, place: str) -> None:
    section = document.data
    for part in path[:-1]:
        if not isinstance(section.get(part), dict):
            section[part] = {}
        section = section[part]
    for name in [k for k in section if layout.CLASS_NAMES.get(k) == path[-1]]:
        del section[name]
    section[path[-1]] = value
    document.overridden[path] = place


def _shadowed(document: Document, path: yaml_strict.Path) -> list[str]:
    """An arm's own setting beats `training.*`, also an overridden one: say so."""
    if len(path) < 2 or path[0] != "training" or path[1] in ("training_methods", "checkpoint_steps"):
        return []
    found = []
    for name, arm in (document.data["training"].get("training_methods") or {}).items():
        own: Any = arm
        for part in path[1:]:
            own = own.get(part) if isinstance(own, dict) else None
        if own is not None:
            found.append(
                f"-p {dotted(path)}: the arm {printable(name)} sets its own {dotted(path[1:])}, which counts"
            )
    return found


def _nearest(name: str, known: Sequence[yaml_strict.Path]) -> str:
    names = [dotted(p) for p in known]
    same_end = [n for n in names if n.endswith("." + name)]
    if same_end:
        return f"; did you mean {min(same_end, key=len)}?"
    if hint := did_you_mean(name, names):
        return hint
    last = name.rsplit(".", 1)[-1]
    ends = {str(p[-1]): dotted(p) for p in sorted(known, key=len, reverse=True)}
    near = difflib.get_close_matches(last[:100], list(ends), 1, 0.7)
    return f"; did you mean {ends[near[0]]}?" if near else "; docs/configuration.md lists them"


def _names(model: type[BaseModel], data: Any, path: yaml_strict.Path) -> Iterator[yaml_strict.Path]:
    """Every dotted name that a config may have; arms are those in `data`, or `*`."""
    for name, info in model.model_fields.items():
        here = (*path, name)
        yield here
        inner = data.get(name) if isinstance(data, dict) else None
        yield from _inside(info.annotation, inner, here)


def _inside(annotation: Any, data: Any, path: yaml_strict.Path) -> Iterator[yaml_strict.Path]:
    origin = get_origin(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from _names(annotation, data, path)
    elif origin in (Annotated, Union, types.UnionType):
        for part in get_args(annotation)[: 1 if origin is Annotated else None]:
            yield from _inside(part, data, path)
    elif origin is dict:
        value = get_args(annotation)[1]
        arms = isinstance(value, type) and issubclass(value, BaseModel)
        keys = (
            (list(data) if isinstance(data, dict) and data else ["*"])
            if arms
            else list(layout.tasks.OPERATIONS)
        )
        for key in keys:
            yield (*path, key)
            yield from _inside(value, data.get(key) if isinstance(data, dict) else None, (*path, key))


def _alike(pattern: yaml_strict.Path, path: yaml_strict.Path) -> bool:
    """Whether a name of the schema (`*` for an arm) is that of a place in the file."""
    plain = tuple(p for p in path if not isinstance(p, int))
    return len(pattern) == len(plain) and all(a in ("*", b) for a, b in zip(pattern, plain, strict=True))
