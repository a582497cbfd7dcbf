"""Two results side by side: which claims came out otherwise.

In: two folders with `verdicts.json`. Out: `Pair`s, and a table whose first rows are those that differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..report import read_verdicts
from ..report.tables import BADGES, interval
from ..verdicts import Verdict
from .matrix import Column, differences


@dataclass(frozen=True)
class Pair:
    """One claim and class in two results; None where one of them has not judged it."""

    column: Column
    claim: str
    a: Verdict | None
    b: Verdict | None

    @property
    def differs(self) -> bool:
        """Whether the outcome is another one, or one is missing."""
        return self.a is None or self.b is None or self.a.outcome != self.b.outcome


@dataclass(frozen=True)
class Comparison:
    """Two results."""

    names: tuple[str, str]
    """Model, settings where they differ, and when each was judged."""
    pairs: tuple[Pair, ...]
    """Those that differ first, in the order of the table of claims."""
    notice: str
    """Empty, or why the two are not judged by the same table."""


def compare(a: Path, b: Path) -> Comparison:
    """Raises `UsageError` where a folder holds no results, `BrokenExperiment` where they are damaged."""
    (first, ours), (second, theirs) = read_verdicts(a), read_verdicts(b)
    left, right = ({(v.prediction, v.cls): v for v in found} for found in (ours, theirs))
    pairs = []
    for column in dict.fromkeys([*left, *right]):
        claim = (left.get(column) or right[column]).claim
        pairs.append(Pair(column, claim, left.get(column), right.get(column)))
    labels = differences([first["provenance"]["config"], second["provenance"]["config"]])
    said = [_name(info, label) for info, label in zip((first, second), labels, strict=True)]
    versions = [info["predictions_version"] for info in (first, second)]
    notice = "" if versions[0] == versions[1] else f"judged by versions {versions[0]} and {versions[1]}"
    return Comparison((said[0], said[1]), tuple(sorted(pairs, key=lambda p: not p.differs)), notice)


def _name(info: dict[str, Any], label: str) -> str:
    return f"{info['experiment']} on {info['model']}{f', {label}' if label else ''}, {info['created']}"


def table(compared: Comparison) -> RenderableType:
    """A row a claim and class."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("", "claim", "class", "A", "B"):
        made.add_column(name, header_style="dim", no_wrap=True)
    for pair in compared.pairs:
        mark = Text("≠", style="bold") if pair.differs else Text("")
        made.add_row(mark, Text(pair.column[0]), Text(pair.column[1]), _verdict(pair.a), _verdict(pair.b))
    n = sum(pair.differs for pair in compared.pairs)
    notes = [Text(compared.notice)] if compared.notice else []
    end = Text(f"{n} of {len(compared.pairs)} came out otherwise", style="bold")
    names = (Text(f"{side} {name}") for side, name in zip("AB", compared.names, strict=True))
    return Group(*names, Text(""), made, Text(""), *notes, end)


def _verdict(verdict: Verdict | None) -> Text:
    if verdict is None:
        return Text("not judged", style="dim")
    sign, style = BADGES[verdict.outcome]
    return Text.assemble((f"{sign} {verdict.outcome}", style), f"  {interval(verdict)}")
