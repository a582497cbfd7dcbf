"""What a sweep goes over: `--over KEY=A,B` or a `sweep.yaml`, to a list of cells.

In: texts, or a file with `over`, `include`, `exclude`. Out: a `Grid`, whose cells are the product of what
`over` lists, less those that match an entry of `exclude`, and those of `include` as they are.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import document
from ..config.schema import as_text
from ..errors import UsageError
from ..wording import did_you_mean, printable

MOST = 10_000
"""Cells of a sweep, at most."""
Settings = Mapping[str, Any]
"""A config value by dotted name, `model` among them."""
_SECTIONS = ("over", "include", "exclude")
_OUTSIDE_BRACKETS = re.compile(r",(?![^\[{]*[\]}])")


@dataclass(frozen=True)
class Grid:
    """What was asked for: values by dotted name, cells more and cells less."""

    over: Mapping[str, Sequence[Any]]
    include: Sequence[Settings] = ()
    exclude: Sequence[Settings] = ()
    file: Path | None = None
    """The `sweep.yaml`; None where it was typed."""

    def cells(self) -> list[dict[str, Any]]:
        """The settings of every cell, in the order in which they were written.

        Raises
        ------
        UsageError
            None is left, too many, one is named twice, or an entry of `exclude` matches none.
        """
        n = 1
        for name, values in self.over.items():
            n *= len(values)
            if n > MOST:
                raise UsageError(f"over {printable(name)}: more than {MOST} cells; make several sweeps of it")
        product = itertools.product(*self.over.values()) if self.over else ()
        made = [dict(zip(self.over, values, strict=True)) for values in product]
        for entry in self.exclude:
            left = [cell for cell in made if not _matches(cell, entry)]
            if len(left) == len(made):
                raise UsageError(f"exclude: no cell is {label(entry)}; drop it or correct it")
            made = left
        made += [dict(entry) for entry in self.include]
        if not made:
            raise UsageError("the sweep has no cell; name values with --over KEY=A,B or in a sweep.yaml")
        named = [tuple(sorted((k, str(v)) for k, v in cell.items())) for cell in made]
        if twice := next((i for i, cell in enumerate(named) if cell in named[:i]), None):
            raise UsageError(f"duplicate cell {label(made[twice])}: it is named twice; drop one")
        return made


def label(settings: Settings) -> str:
    """`model=a/b training.lora.rank=4`, as it is typed."""
    return " ".join(f"{printable(name)}={printable(str(value))}" for name, value in settings.items())


def over(texts: Sequence[str]) -> Grid:
    """The grid of `--over` options: `training.lora.rank=4,16`; a comma inside brackets splits nothing.

    Raises `UsageError` where one has no values, or two have one name.
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        name, equals, listed = text.partition("=")
        values = [value.strip() for value in _OUTSIDE_BRACKETS.split(listed)]
        if not equals or not name.strip() or not all(values):
            raise UsageError(
                f"--over {printable(text)}: write it as name=value,value, such as training.lora.rank=4,16"
            )
        if name.strip() in found:
            raise UsageError(f"--over {printable(name)} is given twice; write all values in one")
        found[name.strip()] = values
    return Grid(found)


def read(path: Path) -> Grid:
    """The grid in a `sweep.yaml`.

    Raises `UsageError`, a line for each problem: no such file, no YAML, an unknown section, a wrong shape.
    """
    name = printable(str(path), 300)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{name}: cannot be read ({error.strerror}); name a sweep.yaml") from None
    found = document.read(raw, name, _as_text)
    found.problems.refuse()
    data = found.data
    if not isinstance(data, dict) or not data.keys() & {"over", "include"}:
        raise UsageError(f"{name}: write `over:` with a list of values for each setting, or `include:`")
    for section in data:
        if section not in _SECTIONS:
            hint = did_you_mean(str(section), _SECTIONS)
            raise UsageError(f"{name}: unknown section {printable(str(section))}{hint}; known: {_SECTIONS}")
    values = data.get("over") or {}
    if not isinstance(values, dict) or not all(isinstance(v, list) and v for v in values.values()):
        raise UsageError(f"{name}: over: give each setting a list of values, such as `model: [a, b]`")
    for section in ("include", "exclude"):
        entries = data.get(section) or []
        if not isinstance(entries, list) or not all(isinstance(e, dict) and e for e in entries):
            raise UsageError(f"{name}: {section}: give a list of cells, such as `- {{model: a}}`")
    return Grid(values, data.get("include") or (), data.get("exclude") or (), path)


def _as_text(path: tuple[str | int, ...]) -> bool:
    """Whether a scalar stays as it was written: the model `1e5`; `path` begins with the section."""
    names = [part for part in path[1:] if isinstance(part, str) and not part.isdecimal()]
    return as_text(tuple(names[0].split("."))) if names else False


def _matches(cell: Settings, entry: Settings) -> bool:
    return all(name in cell and str(cell[name]) == str(value) for name, value in entry.items())
