"""Arithmetic with verifiable answers: problems, the styles they are asked in, and how they are drawn.

In: a range of operands for each operation, counts and a seed. Out: `Problem`s. The class is the operation.

Commuted pairs (`3 + 4`, `4 + 3`) are one problem: a suite that tests on the mirror image of what it trained
on measures memory. See docs/concepts.md.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any, ClassVar

from ..errors import UsageError
from ..wording import quoted
from .item import Item
from .task import Shown, Task

OPERATIONS = ("add", "subtract", "multiply", "divide")
GLYPHS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}
STYLE_WORDS: dict[str, dict[str, str]] = {
    "symbolic": {},
    "worded": {"add": "plus", "subtract": "minus", "multiply": "times", "divide": "divided by"},
}
STYLES = tuple(STYLE_WORDS)
LARGEST = 999_999
"""No operand is larger: longer numbers test the tokenizer, not the arithmetic."""
ANYWHERE = (2, 99)
"""Operands of a class for which none are named."""

_COMMUTING = ("add", "multiply")
_SYMBOLIC = re.compile(r"\s*([0-9]+)\s*([-+*/×÷−])\s*([0-9]+)\s*=\s*")
_WORDED = re.compile(r"\s*what\s+is\s+([0-9]+)\s+([a-z ]+?)\s+([0-9]+)\s*\?\s*", re.IGNORECASE)
_OPERATION_OF = {g: op for op, g in GLYPHS.items()} | {"×": "multiply", "÷": "divide", "−": "subtract"}
_OPERATION_OF |= {word: op for op, word in STYLE_WORDS["worded"].items()}


@dataclass(frozen=True, order=True)
class Problem:
    """`a operation b`, with a whole, non-negative answer: an item.

    Raises `UsageError` for an unknown operation, a negative or too large operand, a negative difference, a
    division by zero or one that leaves a remainder.
    """

    operation: str
    a: int
    b: int

    names_class: ClassVar[bool] = True
    """Every style writes the operator, as a glyph or a word."""

    def __post_init__(self) -> None:
        _known(self.operation)
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
    def value(self) -> int:
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
    def answer(self) -> str:
        """The result as it is written."""
        return str(self.value)

    @property
    def key(self) -> str:
        """`3 + 4`, also for `4 + 3`."""
        pair = sorted(self.numbers) if self.operation in _COMMUTING else self.numbers
        return f"{pair[0]} {GLYPHS[self.operation]} {pair[1]}"

    @property
    def numbers(self) -> tuple[int, ...]:
        """The operands."""
        return self.a, self.b

    @property
    def control_label(self) -> int:
        """The first operand."""
        return self.a

    def prompt(self, style: str) -> str:
        """The problem's text in a style, up to and including the space before the answer."""
        match style:
            case "symbolic":
                return f"{self.a} {GLYPHS[self.operation]} {self.b} = "
            case "worded":
                return f"What is {self.a} {STYLE_WORDS['worded'][self.operation]} {self.b}? "
            case _:
                raise UsageError(f"unknown prompt style {style!r}; known: {', '.join(STYLES)}")

    def row(self) -> dict[str, Any]:
        """What its line of a JSONL file says."""
        return {"operation": self.operation, "a": self.a, "b": self.b, "answer": self.answer}


@dataclass(frozen=True, kw_only=True)
class Arithmetic(Task[Problem]):
    """Problems of some operations, their operands drawn from a range each.

    Raises `UsageError` for an unknown operation or style.
    """

    name: ClassVar[str] = "arithmetic"
    operands: Mapping[str, tuple[int, int]]
    """Smallest and largest operand by class, both included; for `divide` those of divisor and quotient.
    A class that it does not name has `ANYWHERE`."""
    styles: tuple[str, ...] = ("symbolic",)
    read_styles: tuple[str, ...] = ("symbolic", "worded")

    def __post_init__(self) -> None:
        for cls in self.classes:
            _known(cls)
        for style in (*self.styles, *self.read_styles):
            if style not in STYLES:
                raise UsageError(f"unknown prompt style {style!r}; known: {', '.join(STYLES)}")
        ranges = {cls: tuple(self.operands.get(cls, ANYWHERE)) for cls in self.classes}
        object.__setattr__(self, "operands", ranges)

    def draw(self, cls: str, count: int, banned: Collection[str]) -> list[Problem]:
        """Problems of a class, drawn with a generator of its own: another class that joins changes none."""
        low, high = self.operands[cls]
        # A string seeds by SHA-512: the same on every platform and not shifted by the other operations.
        rng = random.Random(f"{self.seed}/{cls}")
        total = distinct(cls, low, high)
        found: dict[str, Problem] = {}
        while len(found) < count:
            problem = _unrank(cls, low, high, rng.randrange(total), swap=rng.random() < 0.5)
            if problem.key not in banned:
                found.setdefault(problem.key, problem)
        return list(found.values())

    def shortage(self, cls: str, exclude: Iterable[Item] = ()) -> str:
        """Empty where the range of a class can be drawn from and holds enough distinct problems."""
        low, high = self.operands[cls]
        if cls == "divide" and low == 0:
            return f"[{low}, {high}] holds the divisor 0; begin at 1"
        inside = {item.key for item in exclude if item.cls == cls and _inside(item, low, high)}
        free = distinct(cls, low, high) - len(inside)
        if free >= self.need:
            return ""
        return (
            f"[{low}, {high}] holds {free} distinct problems, but {self.need} a class are needed for "
            "training, validation and test; widen the range or ask for fewer"
        )

    def place(self, cls: str) -> tuple[str, ...]:
        """`operands.add`."""
        return "operands", cls

    def shown(self, prompt: str, cls: str, expected: str | None = None) -> Shown:
        """The problem that a prompt asks; its spacing and capitals do not matter, a note tells of them."""
        problem, style = parse(prompt)
        text = quoted(prompt)
        if problem.cls != cls:
            raise UsageError(f"{text} is a problem to {problem.cls}, not to {cls}; move it there")
        if expected is not None and expected.strip() != problem.answer:
            raise UsageError(f"the answer of {text} is {problem.answer}, not {quoted(expected)}")
        if style not in self.read_styles:
            raise UsageError(f"{text} is {style}, which read_styles leaves out; add it there")
        usual = problem.prompt(style)
        note = "" if prompt == usual else f"{text} is read as it is; what is trained on is {usual!r}"
        return Shown(problem, style, prompt, note)

    def counterfactual(self, item: Problem, cls: str) -> Problem | None:
        """`7 * 8` for `7 + 8`; None where the answer would be negative or not whole."""
        _known(cls)
        try:
            return Problem(cls, item.a, item.b)
        except UsageError:
            return None

    def glyphs(self, cls: str) -> tuple[str, ...]:
        """The operator."""
        return (GLYPHS[cls],)


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
    raise UsageError(f"{quoted(text)} is no arithmetic prompt; write it like {known}")


def distinct(operation: str, low: int, high: int) -> int:
    """How many problems a range of operands holds, commuted pairs counted once.

    For `divide` the range is that of the divisor and the quotient.
    """
    n = high - low + 1
    return n * n if operation == "divide" else n * (n + 1) // 2


def _known(operation: str) -> None:
    if operation not in OPERATIONS:
        raise UsageError(f"unknown operation {quoted(operation)}; known: {', '.join(OPERATIONS)}")


def _unrank(operation: str, low: int, high: int, rank: int, *, swap: bool) -> Problem:
    """The problem at a place in the list of all distinct ones of a range."""
    if operation == "divide":
        divisor, quotient = (low + r for r in divmod(rank, high - low + 1))
        return Problem(operation, divisor * quotient, divisor)
    larger = (isqrt(8 * rank + 1) - 1) // 2
    smaller = rank - larger * (larger + 1) // 2
    pair = (
        (low + smaller, low + larger) if swap and operation != "subtract" else (low + larger, low + smaller)
    )
    return Problem(operation, *pair)


def _inside(item: Item, low: int, high: int) -> bool:
    a, b = item.numbers
    return all(low <= x <= high for x in ((a // b, b) if item.cls == "divide" else (a, b)))
