"""YAML as a person means it, or an error with the line: no guessing, nothing executed, nothing large.

In: the bytes of a file. Out: `Document`: plain dicts, lists and scalars; `Problems`, with the line of each.
Scalars are those of YAML 1.2: `1e-4` is a number, `no` and `12:30` are words. `010` is refused, and so are
duplicate keys, aliases, tags, several documents, non-finite numbers and deep nesting. Of PyYAML only the
event parser is used, which builds no objects.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import yaml

from ..errors import UsageError
from ..wording import printable
from .problems import Path, Problems

LARGEST = 256 * 1024
"""Bytes; a config is a few thousand."""
DEEPEST = 20
_LONGEST = 40
"""Characters of a number."""

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_OCTAL = re.compile(r"[-+]?0[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS = {"": None, "~": None, "null": None, "true": True, "True": True, "false": False, "False": False}
_HINTS = (
    ("alias", 'a glyph such as * needs quotes: "*"'),
    ("'\\t'", "indent with spaces, not tabs"),
    ("mapping values", "a text with a colon needs quotes"),
)


@dataclass
class Document:
    """What a text says, and what is to be said of it."""

    data: Any
    problems: Problems


@dataclass
class _Open:
    """A mapping or list whose end has not been seen."""

    path: Path
    value: dict[str, Any] | list[Any]
    key: str | None = None


def read(raw: bytes, name: str, as_text: Callable[[Path], bool] = lambda path: False) -> Document:
    """The document in `raw`, called `name`; where `as_text` holds, a scalar stays the text that was written.

    Raises `UsageError`, one line with its place, where nothing can be read at all; problems of single fields
    are collected.
    """
    if len(raw) > LARGEST:
        raise UsageError(f"{name}: {len(raw)} bytes; a config has at most {LARGEST}: is this the right file?")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        what = f"byte {raw[error.start]:#04x} is not UTF-8; save it as UTF-8"
        raise UsageError(f"{name}:{line}: {what}") from None
    problems = Problems(name)
    try:
        return Document(_Reader(problems, as_text).read(text), problems)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"the character U+{ord(text[error.position]):04X} is not allowed"
        raise UsageError(f"{name}:{line}: {what}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        hint = next((f"; {h}" for word, h in _HINTS if word in said), "")
        raise UsageError(f"{name}:{mark.line + 1 if mark else 1}: no valid YAML: {said}{hint}") from None


class _Reader:
    """Builds the document from parser events with a stack of its own, so that depth costs no recursion."""

    def __init__(self, problems: Problems, as_text: Callable[[Path], bool]) -> None:
        self.problems, self.as_text = problems, as_text
        self.data: Any = None
        self.stack: list[_Open] = []
        self.documents = 0

    def read(self, text: str) -> Any:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            line = event.start_mark.line + 1
            match event:
                case yaml.DocumentStartEvent():
                    self.documents += 1
                    if self.documents > 1:
                        self._refuse(line, "a second document begins with ---; keep one")
                case yaml.AliasEvent():
                    what = f"alias *{event.anchor}; write the value out, or quote it if it is a word"
                    self._refuse(line, what)
                case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                    self._open(event, line)
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    self.stack.pop()
                case yaml.ScalarEvent():
                    self._scalar(event, line)
        return self.data

    def _open(self, event: yaml.CollectionStartEvent, line: int) -> None:
        self._untagged(event, line)
        if self._expects_key():
            self._refuse(line, "a key must be a word, not a list or a mapping")
        if len(self.stack) >= DEEPEST:
            self._refuse(line, f"nested more than {DEEPEST} deep")
        value: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        path = self._put(value, line)
        self.stack.append(_Open(path, value))

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        self._untagged(event, line)
        if self._expects_key():
            top = self.stack[-1]
            top.key, path = event.value, (*top.path, event.value)
            if event.value in top.value:
                first = self.problems.lines[path]
                self.problems.say(path, f"given twice, first in line {first}; drop one", line)
            self.problems.lines.setdefault(path, line)
            return
        path = self._next_path()
        if event.implicit[0] and not self.as_text(path):
            self._put(self._typed(event.value, path, line), line)
        else:
            self._put(event.value, line)

    def _typed(self, text: str, path: Path, line: int) -> Any:
        """The value of an unquoted scalar."""
        if text in _WORDS:
            return _WORDS[text]
        if _INT.fullmatch(text) and len(text) <= _LONGEST:
            return int(text)
        if _NOT_FINITE.fullmatch(text):
            what = f"{text} is not a finite number"
        elif not _FLOAT.fullmatch(text):
            return text
        elif len(text) > _LONGEST:
            what = f"{text[:_LONGEST]}... is a number of {len(text)} characters; write a shorter one"
        elif _OCTAL.fullmatch(text):
            what = f'{text} has a leading zero; write {int(text)}, or "{text}" if it is a text'
        elif math.isfinite(number := float(text)):
            return number
        else:
            what = f"{text} is not a finite number"
        self.problems.say(path, what, line)
        return 0

    def _put(self, value: Any, line: int) -> Path:
        path = self._next_path()
        self.problems.lines.setdefault(path, line)
        if not self.stack:
            self.data = value
            return path
        top = self.stack[-1]
        if isinstance(top.value, list):
            top.value.append(value)
        else:
            top.value[str(top.key)] = value
            top.key = None
        return path

    def _next_path(self) -> Path:
        if not self.stack:
            return ()
        top = self.stack[-1]
        return (*top.path, len(top.value) if isinstance(top.value, list) else str(top.key))

    def _expects_key(self) -> bool:
        return bool(self.stack) and isinstance(self.stack[-1].value, dict) and self.stack[-1].key is None

    def _untagged(self, event: Any, line: int) -> None:
        if event.tag is not None and event.tag != "!":
            self._refuse(line, f"the tag {printable(event.tag)!r}; write the plain value")

    def _refuse(self, line: int, what: str) -> None:
        raise UsageError(f"{self.problems.name}:{line}: {what}")
