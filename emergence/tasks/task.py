"""Problems with verifiable answers, the styles they are asked in, and splits that share no problem.

In: operand ranges (or `Example`s of one's own), counts and a seed. Out: `Splits` of them, and JSONL files.
Pure Python.

Commuted pairs (`3 + 4`, `4 + 3`) are one problem: a suite that tests on the mirror image of what it trained
on measures memory. See docs/concepts.md.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Protocol, runtime_checkable

from ..errors import UsageError
from . import examples
from .examples import Example

OPERATIONS = ("add", "subtract", "multiply", "divide")
GLYPHS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}
STYLE_WORDS: dict[str, dict[str, str]] = {
    "symbolic": {},
    "worded": {"add": "plus", "subtract": "minus", "multiply": "times", "divide": "divided by"},
}
STYLES = tuple(STYLE_WORDS)
LARGEST = 999_999
"""No operand is larger: longer numbers test the tokenizer, not the arithmetic."""

_SYMBOLIC = re.compile(r"\s*([0-9]+)\s*([-+*/×÷−])\s*([0-9]+)\s*=\s*")
_WORDED = re.compile(r"\s*what\s+is\s+([0-9]+)\s+([a-z ]+?)\s+([0-9]+)\s*\?\s*", re.IGNORECASE)
_OPERATION_OF = {g: op for op, g in GLYPHS.items()} | {"×": "multiply", "÷": "divide", "−": "subtract"}
_OPERATION_OF |= {word: op for op, word in STYLE_WORDS["worded"].items()}


@runtime_checkable
class Ranges(Protocol):
    """What `generate` needs to know; `config.Task` has it. Counts are per class.

    Where there are `examples`, the classes are theirs, and operands mean nothing.
    """

    @property
    def classes(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def operands(self) -> Mapping[str, tuple[int, int]]: ...  # noqa: D102
    @property
    def examples(self) -> Sequence[Example]: ...  # noqa: D102
    @property
    def num_train(self) -> int: ...  # noqa: D102
    @property
    def num_valid(self) -> int: ...  # noqa: D102
    @property
    def num_test(self) -> int: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102


@dataclass(frozen=True, order=True)
class Problem:
    """`a operation b`, with a whole, non-negative answer.

    Raises `UsageError` for an unknown operation, a negative or too large operand, a negative difference, a
    division by zero or one that leaves a remainder.
    """

    operation: str
    a: int
    b: int

    def __post_init__(self) -> None:
        if self.operation not in OPERATIONS:
            raise UsageError(f"unknown operation {self.operation!r}; known: {', '.join(OPERATIONS)}")
        text = f"{self.a} {GLYPHS[self.operation]} {self.b}"
        limit = LARGEST**2 if self.operation == "divide" else LARGEST
        if not (0 <= self.a <= limit and 0 <= self.b <= LARGEST):
            raise UsageError(f"{text}: operands lie between 0 and {LARGEST}")
        if self.operation == "subtract" and self.a < self.b:
            raise UsageError(f"{text}: the difference is negative; put the larger number first")
        if self.operation == "divide" and (self.b == 0 or self.a % self.b):
            raise UsageError(f"{text}: the quotient is not a whole number")

    @property
    def cls(self) -> str:
        """The operation is what the classifier tells apart."""
        return self.operation

    @property
    def answer(self) -> int:
        """The result, checked to be whole and non-negative when the problem was made."""
        match self.operation:
            case "add":
                return self.a + self.b
            case "subtract":
                return self.a - self.b
            case "multiply":
                return self.a * self.b
            case _:
                return self.a // self.b

    @property
    def key(self) -> tuple[str, int, int]:
        """Equal for commuted pairs, so that `3 + 4` and `4 + 3` are one problem."""
        if self.operation in ("add", "multiply"):
            return self.operation, min(self.a, self.b), max(self.a, self.b)
        return self.operation, self.a, self.b

    def prompt(self, style: str) -> str:
        """The problem's text in a style, up to and including the space before the answer."""
        match style:
            case "symbolic":
                return f"{self.a} {GLYPHS[self.operation]} {self.b} = "
            case "worded":
                return f"What is {self.a} {STYLE_WORDS['worded'][self.operation]} {self.b}? "
            case _:
                raise UsageError(f"unknown prompt style {style!r}; known: {', '.join(STYLES)}")


Item = Problem | Example
"""What is asked: every stage takes either. Both have `cls`, `a`, `b`, `answer`, `key` and `prompt`."""


@dataclass(frozen=True)
class Splits:
    """Train, validation and test problems; no problem is in two of them. Raises `UsageError` otherwise."""

    train: tuple[Item, ...]
    valid: tuple[Item, ...]
    test: tuple[Item, ...]

    def __post_init__(self) -> None:
        keys = {name: {p.key for p in getattr(self, name)} for name in ("train", "valid", "test")}
        for one, other in (("train", "valid"), ("train", "test"), ("valid", "test")):
            if shared := sorted(keys[one] & keys[other]):
                raise UsageError(
                    f"{len(shared)} problems are in both {one} and {other}, such as {_named(shared[0])}; "
                    "what is tested must not be trained on"
                )


def parse(text: str) -> tuple[Problem, str]:
    """The problem that a prompt asks, and the style it is asked in. Spacing and capitals do not matter.

    Raises `UsageError` where the text is no arithmetic prompt of a known style.
    """
    for style, pattern in (("symbolic", _SYMBOLIC), ("worded", _WORDED)):
        if found := pattern.fullmatch(text[:200]):
            a, sign, b = found.groups()
            operation = _OPERATION_OF.get(" ".join(sign.lower().split()))
            if operation and len(text) <= 200 and max(len(a), len(b)) <= 12:
                return Problem(operation, int(a), int(b)), style
    known = " or ".join(repr(Problem("multiply", 7, 8).prompt(style)) for style in STYLES)
    raise UsageError(f"{_short(text)} is no arithmetic prompt; write it like {known}")


def distinct(operation: str, low: int, high: int) -> int:
    """How many problems a range of operands holds, commuted pairs counted once.

    For `divide` the range is that of the divisor and the quotient.
    """
    n = high - low + 1
    return n * n if operation == "divide" else n * (n + 1) // 2


def shortage(operation: str, low: int, high: int, need: int, exclude: Iterable[Item] = ()) -> str:
    """Empty where a range holds `need` distinct problems outside `exclude`; otherwise what is wrong."""
    inside = {p.key for p in exclude if isinstance(p, Problem) and _inside(p.key, operation, low, high)}
    free = distinct(operation, low, high) - len(inside)
    if free >= need:
        return ""
    return (
        f"[{low}, {high}] holds {free} distinct problems, but {need} a class are needed for training, "
        "validation and test; widen the range or ask for fewer"
    )


def generate(task: Ranges, exclude: Iterable[Item] = ()) -> Splits:
    """Balanced, seeded splits, classes interleaved; `exclude` (or its mirror image) is in none of them.

    Test problems are drawn first, so that they stay the same when more are trained on; each operation has its
    own generator, so that they stay the same when another operation joins. Raises `UsageError` where a range
    holds too few distinct problems, or a class too few examples.
    """
    exclude = tuple(exclude)
    banned = {p.key for p in exclude}
    sizes = (task.num_test, task.num_valid, task.num_train)
    need = sum(sizes)
    drawn: list[Sequence[Item]] = []
    for op in task.classes:
        if task.examples:
            drawn.append(examples.draw(task.examples, op, need, task.seed, banned))
        elif short := shortage(op, *task.operands[op], need, exclude):
            raise UsageError(f"operands.{op}: {short}")
        else:
            drawn.append(_draw(op, *task.operands[op], need, task.seed, banned))
    parts, start = [], 0
    for size in sizes:
        each = [problems[start : start + size] for problems in drawn]
        parts.append(tuple(p for row in zip(*each, strict=True) for p in row))
        start += size
    test, valid, train = parts
    return Splits(train=train, valid=valid, test=test)


def write_jsonl(path: Path, problems: Iterable[Item]) -> None:
    """One problem a line: `{"operation": "add", "a": 3, "b": 4, "answer": "7"}`, or an example as it was."""
    path.write_text("".join(_line(p) for p in problems), encoding="utf-8")


def content_hash(problems: Iterable[Item]) -> str:
    """SHA-256, in hex, of the problems in their order, as written to JSONL."""
    digest = hashlib.sha256()
    for p in problems:
        digest.update(_line(p).encode())
    return digest.hexdigest()


def _draw(
    operation: str, low: int, high: int, need: int, seed: int, banned: Collection[object]
) -> list[Problem]:
    # A string seeds by SHA-512: the same on every platform and not shifted by the other operations.
    rng = random.Random(f"{seed}/{operation}")
    total = distinct(operation, low, high)
    found: dict[tuple[str, int, int], Problem] = {}
    while len(found) < need:
        problem = _unrank(operation, low, high, rng.randrange(total), swap=rng.random() < 0.5)
        if problem.key not in banned:
            found.setdefault(problem.key, problem)
    return list(found.values())


def _unrank(operation: str, low: int, high: int, rank: int, *, swap: bool) -> Problem:
    if operation == "divide":
        divisor, quotient = (low + r for r in divmod(rank, high - low + 1))
        return Problem(operation, divisor * quotient, divisor)
    larger = (isqrt(8 * rank + 1) - 1) // 2
    smaller = rank - larger * (larger + 1) // 2
    pair = (
        (low + smaller, low + larger) if swap and operation != "subtract" else (low + larger, low + smaller)
    )
    return Problem(operation, *pair)


def _inside(key: tuple[str, int, int], operation: str, low: int, high: int) -> bool:
    name, a, b = key
    pair = (a // b, b) if name == "divide" else (a, b)
    return name == operation and all(low <= x <= high for x in pair)


def _named(key: tuple[str, int, int] | tuple[str, str]) -> str:
    if len(key) == 2:
        return _short(key[1])
    return f"{key[1]} {GLYPHS[key[0]]} {key[2]}"


def _line(p: Item) -> str:
    if isinstance(p, Example):
        return examples.line(p)
    return json.dumps({"operation": p.operation, "a": p.a, "b": p.b, "answer": str(p.answer)}) + "\n"


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
