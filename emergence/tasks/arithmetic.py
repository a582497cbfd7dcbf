"""Arithmetic with verifiable answers: problems, the styles they are asked in, and how they are drawn.

In: a range of operands for each operation, counts and a seed. Out: `Problem`s. The class is the operation.

Commuted pairs (`3 + 4`, `4 + 3`) are one problem: a suite that tests on the mirror image of what it trained
on measures memory. See docs/concepts.md.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from math import isqrt
from typing import Any, ClassVar

from ..errors import UsageError
from ..wording import quoted
from .item import Item
from .task import Shown, Task

OPERATIONS = ("add", "subtract", "multiply", "divide")
GLYPHS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}

# A form more is a line for each operation. Each ends where the answer begins.
FORMS: dict[str, dict[str, str]] = {
    "symbolic": {op: f"{{a}} {glyph} {{b}} = " for op, glyph in GLYPHS.items()},
    "tight": {op: f"{{a}}{glyph}{{b}}=" for op, glyph in GLYPHS.items()},
    "signs": {
        "add": "{a} + {b}: ",
        "subtract": "{a} − {b}: ",
        "multiply": "{a} × {b}: ",
        "divide": "{a} ÷ {b}: ",
    },
    "worded": {
        "add": "What is {a} plus {b}? ",
        "subtract": "What is {a} minus {b}? ",
        "multiply": "What is {a} times {b}? ",
        "divide": "What is {a} divided by {b}? ",
    },
    "command": {
        "add": "Add {a} and {b}: ",
        "subtract": "Subtract {b} from {a}: ",
        "multiply": "Multiply {a} by {b}: ",
        "divide": "Divide {a} by {b}: ",
    },
    "noun": {
        "add": "The sum of {a} and {b} is ",
        "subtract": "The difference of {a} and {b} is ",
        "multiply": "The product of {a} and {b} is ",
        "divide": "The quotient of {a} and {b} is ",
    },
    "story": {
        "add": "Ann has {a} coins and finds {b} more. Now she has ",
        "subtract": "Ann has {a} coins and loses {b} of them. Now she has ",
        "multiply": "Ann has {a} bags with {b} coins in each. Altogether she has ",
        "divide": "Ann shares {a} coins among {b} friends. Each of them has ",
    },
}
"""How a problem is asked: by style, then operation. The first three name the operation by a sign, the next
three by a word, the last by what happens."""
STYLES = tuple(FORMS)
LARGEST = 999_999
"""No operand is larger: longer numbers test the tokenizer, not the arithmetic."""
ANYWHERE = (2, 99)
"""Operands of a class for which none are named."""
MOST_PAIRS = 1_000_000
"""Matched operands are drawn from a list of all pairs."""

_COMMUTING = ("add", "multiply")
_SIGNS = {sign: f"[{pair}]" for pair in ("*×", "−-", "/÷") for sign in pair}
"""Signs that are read as one where a prompt is spelled otherwise than usual."""


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
        if style not in FORMS:
            raise UsageError(f"unknown prompt style {style!r}; known: {', '.join(STYLES)}")
        return FORMS[style][self.operation].format(a=self.a, b=self.b)

    def row(self) -> dict[str, Any]:
        """What its line of a JSONL file says."""
        return {"operation": self.operation, "a": self.a, "b": self.b, "answer": self.answer}


@dataclass(frozen=True, kw_only=True)
class Arithmetic(Task[Problem]):
    """Problems of some operations, their operands drawn from a range each, or matched over all of them.

    Raises `UsageError` for an unknown operation or style.
    """

    name: ClassVar[str] = "arithmetic"
    operands: Mapping[str, tuple[int, int]]
    """Smallest and largest operand by class, both included; for `divide` those of divisor and quotient.
    A class that it does not name has `ANYWHERE`. Of matched operands, the ranges of `a` and `b`."""
    styles: tuple[str, ...] = ("symbolic",)
    read_styles: tuple[str, ...] = ("symbolic", "worded")

    def __post_init__(self) -> None:
        for cls in self.classes:
            _known(cls)
        for style in (*self.styles, *self.read_styles):
            if style not in STYLES:
                raise UsageError(f"unknown prompt style {style!r}; known: {', '.join(STYLES)}")
        named = ("a", "b") if self.matched else self.classes
        ranges = {name: tuple(self.operands.get(name, ANYWHERE)) for name in named}
        object.__setattr__(self, "operands", ranges)

    @property
    def matched(self) -> bool:
        """Every pair of operands is asked under every class, in one split: operands say nothing of it."""
        return "a" in self.operands or "b" in self.operands

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """All pairs with a whole, non-negative answer under every class, in a random order by the seed.

        Of `(3, 4)` and `(4, 3)` the one with the larger number first. Raises `UsageError` where the ranges
        hold more than `MOST_PAIRS`.
        """
        (a_low, a_high), (b_low, b_high) = self.operands["a"], self.operands["b"]
        if (size := (a_high - a_low + 1) * (b_high - b_low + 1)) > MOST_PAIRS:
            raise UsageError(f"a and b hold {size} pairs, more than {MOST_PAIRS}; narrow their ranges")
        every = itertools.product(range(a_low, a_high + 1), range(b_low, b_high + 1))
        found = {tuple(sorted(pair)): pair for pair in sorted(every) if self._whole(*pair)}
        drawn = sorted(found.values())
        random.Random(f"{self.seed}/pairs").shuffle(drawn)
        return tuple(drawn)

    def _whole(self, a: int, b: int) -> bool:
        return ("subtract" not in self.classes or a >= b) and (
            "divide" not in self.classes or (b > 0 == a % b)
        )

    def draw(self, cls: str, count: int, banned: Collection[str]) -> list[Problem]:
        """Problems of a class, drawn with a generator of its own: another class that joins changes none."""
        if self.matched:
            return [Problem(cls, a, b) for a, b in itertools.islice(self._free(banned), count)]
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

    def _free(self, banned: Collection[str]) -> Iterator[tuple[int, int]]:
        """The pairs none of whose problems is banned."""
        for a, b in self.pairs:
            if not any(Problem(cls, a, b).key in banned for cls in self.classes):
                yield a, b

    def shortage(self, cls: str, exclude: Iterable[Item] = ()) -> str:
        """Empty where the range of a class can be drawn from and holds enough distinct problems."""
        if self.matched:
            return self._shortage_of_pairs({item.key for item in exclude})
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

    def _shortage_of_pairs(self, banned: Collection[str]) -> str:
        try:
            free = sum(1 for _ in itertools.islice(self._free(banned), self.need))
        except UsageError as error:
            return str(error)
        if free == self.need:
            return ""
        a, b = (list(self.operands[name]) for name in ("a", "b"))
        return (
            f"a in {a} with b in {b} are {free} pairs with a whole answer under every class, but {self.need} "
            "are needed for training, validation and test; widen the ranges or ask for fewer"
        )

    def place(self, cls: str) -> tuple[str, ...]:
        """`operands.add`; of matched operands, `operands`."""
        return ("operands",) if self.matched else ("operands", cls)

    def shown(self, prompt: str, cls: str, expected: str | None = None) -> Shown:
        """The problem that a prompt asks; its spacing and capitals do not matter, a note tells of them."""
        text = quoted(prompt)
        try:
            problem, style = parse(prompt, self.read_styles)
        except UsageError:
            problem, style = parse(prompt)
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

    @property
    def has_counterfactuals(self) -> bool:
        """Operands are matched."""
        return self.matched

    def glyphs(self, cls: str) -> tuple[str, ...]:
        """The operator."""
        return (GLYPHS[cls],)


def parse(text: str, styles: Sequence[str] = STYLES) -> tuple[Problem, str]:
    """The problem that a prompt asks, and which of `styles` it is asked in.

    Spacing, capitals and the sign (`×` for `*`) do not matter, but a prompt that is in one of the styles to
    the letter is in that one. Raises `UsageError` where the text is no arithmetic prompt in any of them.
    """
    for style, operation, pattern in _patterns() if len(text) <= 200 else ():
        found = pattern.fullmatch(text) if style in styles else None
        if found and max(map(len, found.groups())) <= 12:
            return Problem(operation, int(found["a"]), int(found["b"])), style
    known = " or ".join(repr(Problem("multiply", 7, 8).prompt(style)) for style in styles[:2])
    raise UsageError(f"{quoted(text)} is no arithmetic prompt; write it like {known}")


@cache
def _patterns() -> tuple[tuple[str, str, re.Pattern[str]], ...]:
    """Of each form, a pattern that takes it however it is spaced: first as it is written, then loosely."""
    exact, loose = [], []
    for style, forms in FORMS.items():
        for operation, form in forms.items():
            exact.append((style, operation, re.compile(_numbers(re.escape(form)))))
            words = (_SIGNS.get(w, re.escape(w)) for w in re.findall(r"\{a\}|\{b\}|\w+|[^\w\s]", form))
            spaced = r"\s*".join(words).replace(r"\{", "{").replace(r"\}", "}")
            pattern = re.compile(rf"\s*{_numbers(spaced)}\s*", re.IGNORECASE)
            loose.append((style, operation, pattern))
    return (*exact, *loose)


def _numbers(pattern: str) -> str:
    for name in ("a", "b"):
        for written in (f"\\{{{name}\\}}", f"{{{name}}}"):
            pattern = pattern.replace(written, f"(?P<{name}>[0-9]+)")
    return pattern


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
