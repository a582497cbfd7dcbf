"""What is asked, as one object: its classes, its splits, and all that other stages may ask about its items.

`Arithmetic` and `Examples` are tasks. A third one is a subclass with `draw`, `shortage` and `shown`; no stage
needs to know of it. Pure Python.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from ..errors import UsageError
from ..wording import quoted
from .item import Item

I = TypeVar("I", bound=Item)  # noqa: E741


@dataclass(frozen=True)
class Splits:
    """Train, validation and test items; no problem is in two of them. Raises `UsageError` otherwise."""

    train: tuple[Item, ...]
    valid: tuple[Item, ...]
    test: tuple[Item, ...]

    def __post_init__(self) -> None:
        keys = {name: {item.key for item in getattr(self, name)} for name in ("train", "valid", "test")}
        for one, other in (("train", "valid"), ("train", "test"), ("valid", "test")):
            if shared := sorted(keys[one] & keys[other]):
                raise UsageError(
                    f"{len(shared)} problems are in both {one} and {other}, such as {quoted(shared[0])}; "
                    "what is tested must not be trained on"
                )


@dataclass(frozen=True)
class Shown:
    """A prompt that is only shown, part of no split and of no statistic."""

    item: Item
    style: str
    text: str
    """As it was written: `7*8=` for the item whose prompt is `7 * 8 = `."""
    note: str = ""
    """How it is read otherwise than one might think; mostly empty."""


@dataclass(frozen=True, kw_only=True)
class Task(ABC, Generic[I]):
    """What is asked; counts are per class.

    A subclass may add fields. One that has a default decides no key while it stays at it: see `spec`.
    """

    name: ClassVar[str]
    """What `spec` calls this kind of task: `arithmetic`."""
    classes: tuple[str, ...]
    styles: tuple[str, ...] = ()
    """Trained on."""
    read_styles: tuple[str, ...] = ()
    """Read at every checkpoint."""
    num_train: int = 600
    num_valid: int = 30
    num_test: int = 60
    seed: int = 0

    @property
    def need(self) -> int:
        """How many items of a class the splits take together."""
        return self.num_train + self.num_valid + self.num_test

    @abstractmethod
    def draw(self, cls: str, count: int, banned: Collection[str]) -> Sequence[I]:
        """`count` items of a class, no two of one key and none of a banned one, in an order by the seed.

        The first ones must stay the same when more are drawn. `shortage` has been asked before.
        """

    @abstractmethod
    def shortage(self, cls: str, exclude: Iterable[Item] = ()) -> str:
        """Empty where a class has enough items outside `exclude`; otherwise what is wrong (no field)."""

    @abstractmethod
    def shown(self, prompt: str, cls: str, expected: str | None = None) -> Shown:
        """What a prompt asks that a config names to be shown, checked against class and expected answer.

        Raises `UsageError` where it is no prompt of this task, of another class, or answered otherwise.
        """

    @abstractmethod
    def place(self, cls: str) -> tuple[str, ...]:
        """The field of the config's `parameters` that `shortage` is about: `("operands", "add")`."""

    def split(self, exclude: Iterable[Item] = ()) -> Splits:
        """Balanced, seeded splits, classes interleaved; `exclude` (in any form) is in none of them.

        Test items come first from each class's draw, so that they stay the same when more are trained on.
        Raises `UsageError` where a class has too few items.
        """
        exclude = tuple(exclude)
        banned = {self.key(item) for item in exclude}
        drawn = []
        for cls in self.classes:
            if short := self.shortage(cls, exclude):
                raise UsageError(f"{'.'.join(self.place(cls))}: {short}")
            drawn.append(self.draw(cls, self.need, banned))
        parts, start = [], 0
        for size in (self.num_test, self.num_valid, self.num_train):
            each = [items[start : start + size] for items in drawn]
            parts.append(tuple(item for row in zip(*each, strict=True) for item in row))
            start += size
        test, valid, train = parts
        return Splits(train=train, valid=valid, test=test)

    def key(self, item: Item) -> str:
        """Equal for two items that are one problem, in whatever style: for `3 + 4` and `4 + 3`."""
        return item.key

    def answer(self, item: Item) -> str:
        """The checked answer as it is written after the prompt."""
        return item.answer

    def control_label(self, item: Item) -> int | None:
        """What a control task gives its labels to: the first operand, or None where there is none."""
        return item.control_label

    def counterfactual(self, item: I, cls: str) -> I | None:
        """The same operands under another class, or None where that is no item: `3 - 5` for `3 + 5`."""
        return None

    def reward(self, item: Item, text: str) -> float:
        """1.0 where the first line of `text`, without spaces around it, is the checked answer, else 0.0.

        `text` is what was written after the prompt, without the token that ends it: `56`, ` even`.
        """
        return float(says(text, self.answer(item)))

    @property
    def has_counterfactuals(self) -> bool:
        """Every item is asked under every class, its counterfactuals in the same split as it."""
        return False

    def glyphs(self, cls: str) -> tuple[str, ...]:
        """Signs that stand for a class in the prompts themselves: `+`. Reading them is copying."""
        return ()

    def warnings(self, tokenizer: Any, vocabulary: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
        """What makes the items easier or other than they look, a line each; told before training."""
        return ()

    def spec(self) -> dict[str, Any]:
        """Everything that decides items and prompts, as JSON values; fields at their defaults are left out.

        So a field that is added later does not change the hash of a task that does not use it. A field whose
        metadata has `spec` is said by what that makes of it: examples by the hash of their content.
        """
        found: dict[str, Any] = {"task": self.name}
        for f in fields(self):
            if (value := getattr(self, f.name)) != f.default:
                found[f.name] = f.metadata.get("spec", lambda plain: plain)(value)
        return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def says(text: str, answer: str) -> bool:
    """Whether the first line of what was written after a prompt is exactly the answer, but for spaces."""
    return text.partition("\n")[0].strip() == answer.strip()


def write_jsonl(path: Path, items: Iterable[Item]) -> None:
    """One item a line: `{"operation": "add", "a": 3, "b": 4, "answer": "7"}`, or an example as it was."""
    path.write_text("".join(map(line, items)), encoding="utf-8")


def content_hash(items: Iterable[Item]) -> str:
    """SHA-256, in hex, of the items in their order, as written to JSONL."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(line(item).encode())
    return digest.hexdigest()


def line(item: Item) -> str:
    """The item as a line of a JSONL file."""
    return json.dumps(item.row(), ensure_ascii=False) + "\n"
