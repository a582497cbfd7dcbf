"""A task of one's own: prompts with their classes and answers, read from a file, drawn into balanced splits.

In: a JSONL file, a line an example: `{"class": "even", "prompt": "The number 48 is", "answer": " even"}`.
Out: `Example`s, which every stage takes as it takes an arithmetic `tasks.Problem`. Pure Python.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..wording import printable, quoted

STYLE = "own"
"""The one style such prompts are trained on and read in: as they are written."""
LARGEST = 32 * 2**20
"""Bytes of a file."""
LONGEST_PROMPT, LONGEST_ANSWER, LONGEST_CLASS = 4000, 200, 40
"""Characters."""
_KEYS = ("class", "prompt", "answer")
_CLASS = re.compile(r"[^\W_][\w -]*")
_MOST = 10
"""Problems of one file that are told in words; the rest is a number."""


@dataclass(frozen=True, order=True)
class Example:
    """A prompt of one's own, its class (`cls`) and the text that should follow.

    Raises `UsageError` where one of them is blank, too long or no text that can be written in UTF-8.
    """

    cls: str
    text: str
    answer: str
    """As written after the prompt, its leading space included."""

    def __post_init__(self) -> None:
        limits = (LONGEST_CLASS, LONGEST_PROMPT, LONGEST_ANSWER)
        for name, value, most in zip(_KEYS, (self.cls, self.text, self.answer), limits, strict=True):
            if not value.strip():
                raise UsageError(f"{name}: empty; write one")
            if len(value) > most:
                raise UsageError(f"{name}: {len(value)} characters; at most {most} are allowed, shorten it")
            if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value):
                raise UsageError(f"{name}: {quoted(value)} holds what is no character; write it without")
        if wrong := unnameable(self.cls):
            raise UsageError(f"class: {wrong}")

    a = b = 0
    """It has no operands."""

    @property
    def key(self) -> tuple[str, str]:
        """Equal where prompts differ in spacing only: they are one."""
        return key(self.text)

    def prompt(self, style: str) -> str:
        """The prompt as it is written."""
        if style != STYLE:
            raise UsageError(f"examples are asked in the style {STYLE} only, not in {style!r}")
        return self.text


def key(prompt: str) -> tuple[str, str]:
    """What `Example.key` is for a prompt."""
    return STYLE, " ".join(prompt.split())


def unnameable(cls: str) -> str:
    """Empty where `cls` may name a class; otherwise what is wrong."""
    if _CLASS.fullmatch(cls) and len(cls) <= LONGEST_CLASS:
        return ""
    return (
        f"{quoted(cls)} cannot name a class; begin with a letter or digit, then also spaces, _ and -, "
        f"{LONGEST_CLASS} characters at most"
    )


def load(path: Path, shown: str) -> tuple[Example, ...]:
    """The examples of a file, in its order; `shown` is what messages call it.

    Raises `UsageError` naming file and line of everything that is wrong with it.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(LARGEST + 1)
        text = raw.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        said = "not UTF-8" if isinstance(error, UnicodeDecodeError) else getattr(error, "strerror", None)
        raise UsageError(f"{shown}: cannot be read: {said or error}; name an existing JSONL file") from None
    if len(raw) > LARGEST:
        raise UsageError(f"{shown}: more than {LARGEST // 2**20} MiB; keep to fewer examples")
    wrong: list[str] = []
    found = tuple(_read(text, shown, wrong))
    if wrong:
        more = [f"{shown}: {len(wrong) - _MOST} more problems"] if len(wrong) > _MOST else []
        raise UsageError("\n".join(wrong[:_MOST] + more))
    return found


def _read(text: str, shown: str, wrong: list[str]) -> Iterator[Example]:
    first: dict[tuple[str, str], int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            example = parse(line)
        except (UsageError, RecursionError) as error:
            wrong.append(f"{shown}:{number}: {error}")
            continue
        before = first.setdefault(example.key, number)
        if before != number:
            wrong.append(
                f"{shown}:{number}: prompt: {quoted(example.text)} stands in line {before}; drop one"
            )
        else:
            yield example


def parse(line: str) -> Example:
    """The example in a line of JSON; raises `UsageError` saying what is wrong with it."""
    try:
        row = json.loads(line, object_pairs_hook=_once)
    except ValueError as error:
        raise UsageError(f'not JSON: {error}; write {{"class": ..., "prompt": ..., "answer": ...}}') from None
    if not isinstance(row, dict) or set(row) != set(_KEYS):
        raise UsageError(f"needs exactly the keys {', '.join(_KEYS)}; has {_told(row)}")
    if other := next((k for k in _KEYS if not isinstance(row[k], str)), None):
        raise UsageError(f"{other}: {printable(repr(row[other]))} is not a text; put it in quotes")
    return Example(row["class"], row["prompt"], row["answer"])


def line(example: Example) -> str:
    """The example as a line of the file that `parse` reads."""
    row = {"class": example.cls, "prompt": example.text, "answer": example.answer}
    return json.dumps(row, ensure_ascii=False) + "\n"


def draw(
    examples: Iterable[Example], cls: str, need: int, seed: int, banned: Collection[object]
) -> list[Example]:
    """`need` examples of a class, drawn at random: by the seed, whatever their order in the file.

    Raises `UsageError` with the numbers where there are fewer.
    """
    free = sorted(e for e in examples if e.cls == cls and e.key not in banned)
    if short := shortage(cls, len(free), need):
        raise UsageError(f"examples: {short}")
    random.Random(f"{seed}/{STYLE}/{cls}").shuffle(free)
    return free[:need]


def shortage(cls: str, free: int, need: int) -> str:
    """Empty where a class has the examples that are needed; otherwise what is wrong."""
    if free >= need:
        return ""
    return (
        f"{free} examples of the class {cls}, but {need} a class are needed for training, validation and "
        "test; write more or ask for fewer (num_samples, num_valid, num_test)"
    )


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise UsageError("a key is given twice; keep one")
    return row


def _told(row: object) -> str:
    return ", ".join(map(quoted, row)) or "none" if isinstance(row, dict) else printable(repr(row))
