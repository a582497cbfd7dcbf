"""What a value of a `config.yaml` may be: types with their ranges, and the names of classes.

In: plain values of a YAML file. Out: types that `schema` gives its fields. A value that is refused says
why, and what to write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ..tasks import arithmetic
from ..tasks.examples import unnameable
from ..wording import did_you_mean, quoted

OTHER_NAMES = {
    "addition": "add",
    "subtraction": "subtract",
    "multiplication": "multiply",
    "division": "divide",
}
"""Other names of the operations that are understood wherever a class is named."""

MATCHED = ("a", "b")
"""Names of operands that are asked under every class."""
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
_TARGET = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*$"


@dataclass(frozen=True)
class Classes:
    """What the classes of a config may be called: the context of its validation."""

    known: tuple[str, ...]
    others: Mapping[str, str]
    """Other names of them."""
    wrong: Callable[[str], str]
    """Empty for a name that a class may have, otherwise what is wrong with it."""


def classes(data: Any) -> Classes:
    """The operations, or any names where a config asks for examples of its own."""
    parameters = data.get("parameters") if isinstance(data, dict) else None
    if not isinstance(parameters, dict) or parameters.get("examples") is None:
        return Classes(arithmetic.OPERATIONS, OTHER_NAMES, _no_operation)
    vocabulary = parameters.get("task_vocabulary")
    return Classes(tuple(vocabulary) if isinstance(vocabulary, dict) else (), {}, unnameable)


def _no_operation(cls: str) -> str:
    known = arithmetic.OPERATIONS
    hint = f"{quoted(cls)}{did_you_mean(cls, known)}; known: {', '.join(known)}"
    return "" if cls in known else f"unknown operation {hint}"


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _usual(value: object, info: Any) -> object:
    return info.context.others.get(value, value) if isinstance(value, str) else value


def _known(cls: str, info: Any) -> str:
    if wrong := info.context.wrong(cls):
        raise ValueError(wrong)
    return cls


def _operand(name: str, info: Any) -> str:
    return name if name in MATCHED else _known(name, info)


def _renamed(value: object, info: Any) -> object:
    if not isinstance(value, dict):
        return value
    names = [_usual(key, info) for key in value]
    if twice := next((n for n in names if names.count(n) > 1), None):
        raise ValueError(f"the class {twice} is given twice under two names; keep one")
    return dict(zip(names, value.values(), strict=True))


def one_or_more(value: object) -> object:
    """A text is a list of one."""
    return [value] if isinstance(value, str) else _listed(value)


def _flag(value: object) -> object:
    words = {"yes": True, "on": True, "no": False, "off": False}
    return words.get(value.lower(), value) if isinstance(value, str) else value


def distinct(values: list[Any]) -> list[Any]:
    """The values; raises where one is given twice."""
    if twice := next((v for v in values if values.count(v) > 1), None):
        raise ValueError(f"{twice!r} is given twice; drop one")
    return values


def _ordered(steps: list[int]) -> list[int]:
    distinct(steps)
    if steps != sorted(steps):
        raise ValueError(f"the steps must ascend; write {sorted(steps)}")
    return steps


def _range(pair: list[int]) -> list[int]:
    if pair[0] > pair[1]:
        raise ValueError(f"the lower end is above the upper one; write [{pair[1]}, {pair[0]}]")
    return pair


def some(number: int | None) -> int | None:
    """The number of blocks; raises where it is 0."""
    if number == 0:
        raise ValueError("0 blocks would train nothing; write -1 for all of them")
    return number


def _several(number: int) -> int:
    if number < 2:
        raise ValueError(f"a group of {number} has nothing to compare a reward with; 8 is usual, 2 the least")
    return number


def _not_the_tail(target: str) -> str:
    if any(part in target.lower() for part in ("embed", "lm_head", "wte", "norm")):
        raise ValueError(
            "an adapter on the embedding, a norm or the head would move the lens; name layers of blocks"
        )
    return target


Flag = Annotated[bool, BeforeValidator(_flag)]
Rate = Annotated[float, Field(gt=0, le=1)]
Schedule = Literal["constant", "cosine"]
Warmup = Annotated[int, Field(ge=0, le=10_000_000)]
Adam = Literal["uncorrected", "corrected"]
Group = Annotated[int, Field(le=1024), AfterValidator(_several)]
Batch = Annotated[int, Field(ge=1, le=4096)]
Steps = Annotated[int, Field(ge=1, le=10_000_000)]
Step = Annotated[int, Field(ge=0, le=10_000_000)]
StepList = Annotated[
    list[Step], Field(min_length=1, max_length=1000), AfterValidator(_ordered), BeforeValidator(_listed)
]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
SeedList = Annotated[
    list[Seed], Field(min_length=1, max_length=100), AfterValidator(distinct), BeforeValidator(_listed)
]
Class = Annotated[
    str,
    BeforeValidator(_usual),
    AfterValidator(_known),
    Field(json_schema_extra={"enum": list(arithmetic.OPERATIONS)}),
]
Style = Literal[arithmetic.STYLES]  # type: ignore[valid-type]
Operand = Annotated[int, Field(ge=0, le=arithmetic.LARGEST)]
OperandRange = Annotated[
    list[Operand], Field(min_length=2, max_length=2), AfterValidator(_range), BeforeValidator(_listed)
]
OperandName = Annotated[
    str,
    BeforeValidator(_usual),
    AfterValidator(_operand),
    Field(json_schema_extra={"enum": [*MATCHED, *arithmetic.OPERATIONS]}),
]
Target = Annotated[str, Field(pattern=_TARGET, max_length=100), AfterValidator(_not_the_tail)]
Name = Annotated[str, Field(pattern=_NAME, max_length=64)]
Folder = Annotated[str, Field(min_length=1, max_length=500)]
Word = Annotated[str, Field(min_length=1, max_length=40)]
ByClass = BeforeValidator(_renamed)
