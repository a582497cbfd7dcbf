"""A task of one's own: prompts with their classes and answers, read from a file, drawn into balanced splits.

In: a JSONL file, a line an example: `{"class": "even", "prompt": "The number 48 is", "answer": " even"}`.
Out: `Examples`, a task whose items are `Example`s. Pure Python.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from ..errors import UsageError
from ..wording import printable, quoted
from .encoding import encode_prompt, text_of
from .item import Item
from .task import Shown, Task, content_hash

LARGEST = 32 * 2**20
"""Bytes of a file."""
LONGEST_PROMPT, LONGEST_ANSWER, LONGEST_CLASS = 4000, 200, 40
"""Characters."""
_STYLE = "own"
"""The one style such prompts are trained on and read in: as they are written."""
_KEYS = ("class", "prompt", "answer")
_CLASS = re.compile(r"[^\W_][\w -]*")
_MOST = 10
"""Problems of one file that are told in words; the rest is a number."""
# Marks that end or quote a phrase. Not those inside a word or number (3.5, don't), nor 5!, + and the like.
_MARKS = re.compile(r'[.,;:?…"“”«»]+(?!\w)|(?<!\d)!+(?!\w)|(?<!\w)["“«¿¡]+')


@dataclass(frozen=True, order=True)
class Example:
    """A prompt of one's own, its class (`cls`) and the text that should follow: an item.

    Raises `UsageError` where one of them is blank, too long or no text that can be written in UTF-8.
    """

    cls: str
    text: str
    answer: str
    """As written after the prompt, its leading space included."""

    names_class: ClassVar[bool] = False
    """The class may be what is asked for."""
    numbers: ClassVar[tuple[int, ...]] = ()
    control_label: ClassVar[None] = None

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

    @cached_property
    def key(self) -> str:
        """Equal where prompts differ in spacing, case or punctuation only: they are one."""
        return key(self.text)

    def prompt(self, style: str) -> str:
        """The prompt as it is written."""
        if style != _STYLE:
            raise UsageError(f"examples are asked in the style {_STYLE} only, not in {style!r}")
        return self.text

    def row(self) -> dict[str, Any]:
        """What its line of a JSONL file says, the file that `parse` reads."""
        return {"class": self.cls, "prompt": self.text, "answer": self.answer}


@dataclass(frozen=True, kw_only=True)
class Examples(Task[Example]):
    """Prompts of one's own, asked in one style: as they are written."""

    name: ClassVar[str] = "examples"
    examples: tuple[Example, ...] = field(repr=False, metadata={"spec": content_hash})
    styles: tuple[str, ...] = field(default=(_STYLE,), init=False)
    read_styles: tuple[str, ...] = field(default=(_STYLE,), init=False)

    def draw(self, cls: str, count: int, banned: Collection[str]) -> list[Example]:
        """Examples of a class, drawn by the seed, whatever their order in the file."""
        free = sorted(e for e in self.examples if e.cls == cls and e.key not in banned)
        random.Random(f"{self.seed}/{_STYLE}/{cls}").shuffle(free)
        return free[:count]

    def shortage(self, cls: str, exclude: Iterable[Item] = ()) -> str:
        """Empty where there are enough examples of a class."""
        banned = {item.key for item in exclude}
        free = sum(e.cls == cls and e.key not in banned for e in self.examples)
        if free >= self.need:
            return ""
        return (
            f"{free} examples of the class {cls}, but {self.need} a class are needed for training, "
            "validation and test; write more or ask for fewer (num_samples, num_valid, num_test)"
        )

    def warnings(self, tokenizer: Any, vocabulary: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
        """Answers that speak for another class, and tokens that give a class away."""
        return (*contradictions(self.examples, vocabulary), *giveaways(tokenizer, self.examples, _STYLE))

    def place(self, cls: str) -> tuple[str, ...]:
        """`examples`."""
        return ("examples",)

    def shown(self, prompt: str, cls: str, expected: str | None = None) -> Shown:
        """The prompt as an item; one that is an example needs no expected answer, and may have no other."""
        known = self._by_key.get(key(prompt))
        if expected is None and known is None:
            raise UsageError(
                f"{quoted(prompt)} is no example, so its answer is not known; write it as `expected`"
            )
        answer = known.answer if known and expected is None else expected or ""
        if known and (known.cls, known.answer) != (cls, answer):
            is_ = f"class {known.cls}, answer {quoted(known.answer)}"
            raise UsageError(f"{quoted(prompt)} is an example ({is_}); write the same here")
        return Shown(Example(cls, prompt, answer), _STYLE, prompt)

    @cached_property
    def _by_key(self) -> dict[str, Example]:
        return {e.key: e for e in self.examples}


def key(prompt: str) -> str:
    """What `Example.key` is for a prompt: `what is 7` for `What  is 7?`."""
    text = " ".join(prompt.split())
    return " ".join(_MARKS.sub("", text).casefold().split()) or text


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
    first: dict[str, tuple[int, Example]] = {}
    for number, written in enumerate(text.split("\n"), 1):
        if not written.strip():
            continue
        try:
            example = parse(written)
        except (UsageError, RecursionError) as error:
            wrong.append(f"{shown}:{number}: {error}")
            continue
        before, twin = first.setdefault(example.key, (number, example))
        if before != number:
            wrong.append(f"{shown}:{number}: prompt: {_twin(example, twin, before)}")
        else:
            yield example


def _twin(example: Example, twin: Example, number: int) -> str:
    """What is wrong with a prompt that is the one in line `number`, with the class or answer it has there."""
    one = " ".join(example.text.split()) == " ".join(twin.text.split())
    stands = f"stands in line {number}" if one else f"is line {number} but for case or punctuation"
    there = [
        f"{name} {quoted(old)}"
        for name, old, new in (("class", twin.cls, example.cls), ("answer", twin.answer, example.answer))
        if old != new
    ]
    other = f" with {' and '.join(there)}" if there else ""
    return f"{quoted(example.text)} {stands}{other}; drop one"


def parse(written: str) -> Example:
    """The example in a line of JSON; raises `UsageError` saying what is wrong with it."""
    try:
        row = json.loads(written, object_pairs_hook=_once)
    except ValueError as error:
        raise UsageError(f'not JSON: {error}; write {{"class": ..., "prompt": ..., "answer": ...}}') from None
    if not isinstance(row, dict) or set(row) != set(_KEYS):
        raise UsageError(f"needs exactly the keys {', '.join(_KEYS)}; has {_told(row)}")
    if other := next((k for k in _KEYS if not isinstance(row[k], str)), None):
        raise UsageError(f"{other}: {printable(repr(row[other]))} is not a text; put it in quotes")
    return Example(row["class"], row["prompt"], row["answer"])


def contradictions(examples: Iterable[Example], vocabulary: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """A line for each class and answer that speaks for another class: the class odd, answered ` even`.

    An answer speaks for a class if it is its name or one of its words in the vocabulary, or if 19 of 20
    examples with that answer, and at least 20, are of that class. Capitals do not matter.
    """
    said: dict[str, set[str]] = {}
    for cls, words in vocabulary.items():
        for word in (cls, *words):
            said.setdefault(word.strip().casefold(), set()).add(cls)
    given: dict[str, dict[str, list[Example]]] = {}
    for e in examples:
        given.setdefault(e.answer.strip().casefold(), {}).setdefault(e.cls, []).append(e)
    lines = []
    for answer, by_class in given.items():
        speaks = said.get(answer) or _usual(by_class)
        for cls, found in by_class.items():
            if speaks and cls not in speaks:
                lines.append(
                    f"{quoted(found[0].text)} has the class {cls}, but its answer {quoted(found[0].answer)} "
                    f"speaks for {' and '.join(sorted(speaks))} ({len(found)} such); correct one of the two"
                )
    return tuple(lines)


def _usual(by_class: Mapping[str, Sequence[Example]]) -> set[str]:
    sizes = {cls: len(found) for cls, found in by_class.items()}
    most = max(sizes, key=lambda cls: sizes[cls])
    return {most} if sizes[most] >= max(20, 0.95 * sum(sizes.values())) else set()


def giveaways(tokenizer: Any, items: Iterable[Item], style: str) -> tuple[str, ...]:
    """A line for each token that gives a class away: nine in ten of its prompts hold it, and no other's do.

    Whoever reads that token tells the class without doing the task. Items whose prompts name their class, as
    arithmetic does by its operator, are not asked.
    """
    holding: dict[str, Counter[int]] = {}
    sizes: Counter[str] = Counter()
    for item in items:
        if not item.names_class:
            ids = encode_prompt(tokenizer, item.prompt(style))
            holding.setdefault(item.cls, Counter()).update(set(ids))
            sizes[item.cls] += 1
    return tuple(
        f"class {cls}: the token {quoted(text_of(tokenizer, [token]))} stands in {count} of its {sizes[cls]} "
        "prompts and in those of no other class; it gives the class away: write it into the others, too"
        for cls, counts in holding.items()
        for token, count in counts.most_common()
        if count >= 0.9 * sizes[cls] and len(sizes) > 1
        if not any(token in others for other, others in holding.items() if other != cls)
    )


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise UsageError("a key is given twice; keep one")
    return row


def _told(row: object) -> str:
    return ", ".join(map(quoted, row)) or "none" if isinstance(row, dict) else printable(repr(row))
