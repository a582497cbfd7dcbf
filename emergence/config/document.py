"""YAML as a person means it, or an error with the line: no guessing, nothing executed, nothing large.

In: the bytes of a file. Out: `Document`, plain dicts, lists and scalars with the line of each. Scalars are
those of YAML 1.2: `1e-4` is a number, `no` and `12:30` are words. `010` is refused, and so are duplicate
keys, aliases, tags, several documents, non-finite numbers and deep nesting. Of PyYAML only the event parser
is used, which builds no objects.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from ..wording import dotted, printable

LARGEST = 256 * 1024
"""Bytes; a config is a few thousand."""
DEEPEST = 20

Path = tuple[str | int, ...]

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
    """What was read; `wrong` holds every problem found after parsing, each one line with its place."""

    name: str
    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    overridden: dict[Path, str] = field(default_factory=dict)
    """Where a value comes from that is not the file's, such as `-p training.max_steps`."""

    def place(self, path: Path) -> str:
        """`config.yaml:12` for the nearest enclosing field that has a line."""
        for end in range(len(path), -1, -1):
            if place := self.overridden.get(path[:end]):
                return place
            if line := self.lines.get(path[:end]):
                return f"{self.name}:{line}"
        return self.name


class Refused(Exception):
    """The text is no YAML that is read here; the message is one line with its place."""


@dataclass
class _Open:
    """A mapping or list whose end has not been seen."""

    path: Path
    value: dict[str, Any] | list[Any]
    key: str | None = None


def read(raw: bytes, name: str, as_text: Callable[[Path], bool] = lambda path: False) -> Document:
    """The document in `raw`; scalars at paths where `as_text` holds stay the text that was written.

    Raises `Refused` where nothing can be read at all; problems of single fields are collected in `.wrong`.
    """
    if len(raw) > LARGEST:
        raise Refused(f"{name}: {len(raw)} bytes; a config has at most {LARGEST}: is this the right file?")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise Refused(f"{name}:{line}: byte {raw[error.start]:#04x} is not UTF-8; save it as UTF-8") from None
    document = Document(name)
    try:
        _Reader(document, as_text).run(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise Refused(
            f"{name}:{line}: the character U+{ord(text[error.position]):04X} is not allowed"
        ) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        hint = next((f"; {h}" for word, h in _HINTS if word in said), "")
        raise Refused(f"{name}:{mark.line + 1 if mark else 1}: no valid YAML: {said}{hint}") from None
    return document


class _Reader:
    """Builds the document from parser events with a stack of its own, so that depth costs no recursion."""

    def __init__(self, document: Document, as_text: Callable[[Path], bool]) -> None:
        self.document, self.as_text = document, as_text
        self.stack: list[_Open] = []
        self.documents = 0

    def run(self, text: str) -> None:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            line = event.start_mark.line + 1
            match event:
                case yaml.DocumentStartEvent():
                    self.documents += 1
                    if self.documents > 1:
                        self._refuse(line, "a second document begins with ---; keep one")
                case yaml.AliasEvent():
                    self._refuse(
                        line, f"alias *{event.anchor}; write the value out, or quote it if it is a word"
                    )
                case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                    self._open(event, line)
                case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                    self.stack.pop()
                case yaml.ScalarEvent():
                    self._scalar(event, line)

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
                twice = f"given twice, first in line {self.document.lines[path]}; drop one"
                self.document.wrong.append(f"{self.document.name}:{line}: {dotted(path)}: {twice}")
            self.document.lines[path] = line
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
        where = f"{self.document.name}:{line}: {dotted(path)}: {text}"
        if len(text) > 40 and _FLOAT.fullmatch(text):
            self.document.wrong.append(
                f"{where[:80]}... is a number of {len(text)} characters; write a shorter one"
            )
            return 0
        if _OCTAL.fullmatch(text):
            remedy = f'write {int(text)}, or "{text}" if it is a text'
            self.document.wrong.append(f"{where} has a leading zero; {remedy}")
            return int(text)
        if _INT.fullmatch(text):
            return int(text)
        if _NOT_FINITE.fullmatch(text) or (_FLOAT.fullmatch(text) and not math.isfinite(float(text))):
            self.document.wrong.append(f"{where} is not a finite number")
            return 0.0
        return float(text) if _FLOAT.fullmatch(text) else text

    def _put(self, value: Any, line: int) -> Path:
        path = self._next_path()
        self.document.lines.setdefault(path, line)
        if not self.stack:
            self.document.data = value
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
        raise Refused(f"{self.document.name}:{line}: {what}")
