"""What is wrong with a config, and what was read otherwise than one might think: a line each, with its place.

In: the path of a field and what to say of it, or what pydantic found. Out: notices, or one `UsageError` that
tells every problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from ..errors import UsageError
from ..wording import did_you_mean, dotted, printable

Path = tuple[str | int, ...]
"""Where a field is: `("training", "checkpoint_steps", 2)`."""

_MOST = 30
"""Problems that are told in words; the rest is a number."""


@dataclass
class Problems:
    """Collects what every stage has to say of one config."""

    name: str
    """What messages call the file."""
    lines: dict[Path, int] = field(default_factory=dict)
    """The line of each field."""
    overridden: dict[Path, str] = field(default_factory=dict)
    """Where a value comes from that is not the file's: `-p training.max_steps`."""
    wrong: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    _told: set[Path] = field(default_factory=set)

    def place(self, path: Path) -> str:
        """The override that a field comes from; else `config.yaml:12`, its line or its section's."""
        around = [path[:end] for end in range(len(path), -1, -1)]
        said = [self.overridden[p] for p in around if p in self.overridden]
        said += [f"{self.name}:{self.lines[p]}" for p in around if self.lines.get(p)]
        return said[0] if said else self.name

    def say(self, path: Path, what: str, line: int | None = None) -> None:
        """Tell a problem of a field, in its own line unless another is given."""
        self._told.add(path)
        self.wrong.append(self._line(path, what, line))

    def note(self, path: Path, what: str) -> None:
        """Tell something to know about a field."""
        self.notices.append(self._line(path, what))

    def explain(self, error: ValidationError, names: Sequence[Path]) -> None:
        """Tell what pydantic found of fields that nothing was told of; `names` are all that there may be."""
        told = set(self._told)
        for problem in error.errors(include_url=False):
            path = tuple(p for p in problem["loc"] if p != "[key]")
            section = tuple(p for p in path[:-1] if isinstance(p, str))
            if path not in told:
                self.say(path, _said(problem, [str(name[-1]) for name in names if name[:-1] == section]))

    def refuse(self) -> None:
        """Raise `UsageError` with a line for each problem, if there is any."""
        lines = list(dict.fromkeys(self.wrong))
        if len(lines) > _MOST:
            lines[_MOST:] = [f"{self.name}: {len(lines) - _MOST} more problems"]
        if lines:
            raise UsageError("\n".join(lines))

    def _line(self, path: Path, what: str, line: int | None = None) -> str:
        place = f"{self.name}:{line}" if line else self.place(path)
        return ": ".join(filter(None, (place, dotted(path), what)))


_SECTION, _LIST, _TEXT = (
    ("a section", "indented `key: value` lines below it"), ("a list", "[one, two]"), ("a text", "a word"),
)  # fmt: skip
_KINDS = {"dict_type": _SECTION, "model_type": _SECTION, "list_type": _LIST, "string_type": _TEXT}


def _said(problem: Any, known: Sequence[str]) -> str:
    """What is wrong with a value, and the remedy; `known` are the names that a section like its own holds."""
    value, kind, limits = problem["input"], problem["type"], problem.get("ctx", {})
    shown = printable(repr(value))
    match kind:
        case "missing":
            return "missing; add it"
        case "extra_forbidden":
            key = str(problem["loc"][-1])
            return f"unknown key{did_you_mean(key, known)}; known: {', '.join(known)}"
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
            wanted, example = _KINDS[kind]
            return f"{shown} is not {wanted}; write {example}"
        case "string_unicode":
            return f"{shown} holds half of a surrogate pair; write the character itself"
        case "bool_type" | "bool_parsing":
            return f"{shown} is neither true nor false; write one"
        case "int_type" | "int_from_float" | "float_type":
            wanted = "whole number" if kind[0] == "i" else "number"
            return f"{shown} is not a {wanted}; write it in digits, without quotes"
    message = problem["msg"].removeprefix("Input ")
    return f"{shown} {message[:1].lower()}{message[1:]}"
