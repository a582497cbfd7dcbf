"""Verdicts and strengths for a terminal. In: verdicts, a `Study`. Out: rich renderables, and plain text.

Nothing is told by colour alone: every outcome has its sign and its word.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..analysis import frames
from ..readings.readings import Study
from ..verdicts.verdict import Verdict, is_share, undecided_controls

BADGES = {"supported": ("✓", "green"), "falsified": ("✗", "red"), "inconclusive": ("?", "yellow")}
BLOCKS = " ▁▂▃▄▅▆▇█"


def number(value: float | None, statistic: str = "") -> str:
    """A number as a person reads it: `52.3 %` for a share, `0.97` for the rest, a dash for none."""
    if value is None or math.isnan(value):
        return "–"
    if is_share(statistic):
        percent = 100 * value
        return "< 0.1 %" if 0 < percent < 0.05 else f"{percent:z.1f} %"
    return f"{value:.2f}" if value == 0 or 0.0995 <= abs(value) < 1000 else f"{value:.2g}"


def interval(verdict: Verdict) -> str:
    """`52.3 % [48.1, 56.0]`: the estimate and its 95 % interval."""
    text = number(verdict.estimate, verdict.statistic)
    if verdict.low is None or verdict.high is None:
        return text
    share = is_share(verdict.statistic)
    low, high = (f"{100 * end:z.1f}" if share else f"{end:z.2f}" for end in (verdict.low, verdict.high))
    return f"{text} [{low}, {high}]"


def counts(verdicts: Sequence[Verdict]) -> str:
    """`12 supported, 3 falsified, 1 inconclusive`."""
    numbers = {name: sum(v.outcome == name for v in verdicts) for name in BADGES}
    return ", ".join(f"{n} {name}" for name, n in numbers.items() if n) or "no verdicts"


_WIDTH = 100
_COLUMNS = ("verdict", "", "estimate [95 %]", "threshold", "layer", "step", "statistic")


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """A block a prediction, a row a class; fits 100 columns, where only the last column may be cut."""
    rows = [_row(verdict) for verdict in verdicts]
    widths = [max(map(cell_len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, name in enumerate(_COLUMNS[:-1]):
        table.add_column(name, justify="left" if i < 2 else "right", no_wrap=True, min_width=widths[i])
    # Were it wider than what is left, rich would take it from any column, the step's first.
    left = max(len(_COLUMNS[-1]), _WIDTH - sum(widths[:-1]) - 3 * (len(widths) - 1))
    table.add_column(_COLUMNS[-1], style="dim", no_wrap=True, overflow="ellipsis", max_width=left)
    for _, group in groupby(zip(verdicts, rows, strict=True), key=lambda pair: pair[0].prediction):
        table.add_section()
        for verdict, row in group:
            table.add_row(Text(row[0], style=BADGES[verdict.outcome][1]), *map(Text, row[1:]))
    return table


def _row(verdict: Verdict) -> tuple[str, ...]:
    sign, _ = BADGES[verdict.outcome]
    return (
        f"{verdict.prediction} {sign} {verdict.outcome}{' DEVIATED' * bool(verdict.deviated)}",
        verdict.cls,
        interval(verdict),
        number(verdict.threshold, verdict.statistic),
        "–" if verdict.layer is None else f"L{verdict.layer}",
        "–" if verdict.step is None else str(verdict.step),
        verdict.statistic,
    )


def verdict_report(verdicts: Sequence[Verdict]) -> RenderableType:
    """The claims in words, each followed by its rows, and the counts."""
    claims = Table.grid(padding=(0, 1))
    for prediction, claim in dict.fromkeys((v.prediction, v.claim) for v in verdicts):
        claims.add_row(Text(prediction, style="bold"), Text(claim))
    lines = [Text(line) for line in remarks(verdicts)]
    total = Text(counts(verdicts), style="bold")
    return Group(claims, Text(""), verdict_table(verdicts), Text(""), *lines, total)


def remarks(verdicts: Sequence[Verdict]) -> list[str]:
    """What to know about all verdicts: a table changed after training, controls that decide nothing."""
    lines = [f"DEVIATED: {why}" for why in dict.fromkeys(v.deviated for v in verdicts if v.deviated)]
    undecided: dict[str, list[str]] = {}
    for v in undecided_controls(verdicts):
        undecided.setdefault(v.prediction, []).append(v.cls)
    return lines + [f"control {p} is undecided: {', '.join(classes)}" for p, classes in undecided.items()]


def sparkline(values: Sequence[float], top: float) -> str:
    """One character a value, from 0 (blank) to `top` (full block); NaN is a dot."""
    signs = []
    for value in values:
        share = 0.0 if top <= 0 else min(1.0, max(0.0, value / top)) if not math.isnan(value) else math.nan
        signs.append("·" if math.isnan(share) else BLOCKS[math.ceil(share * (len(BLOCKS) - 1) - 0.25)])
    return "".join(signs)


def strength_table(study: Study, arm: str, family: str = "words", style: str | None = None) -> RenderableType:
    """Mean own-class mass of an arm, a sparkline over the layers for every step and class, with its peak.

    The mean is over the evaluation half and the seeds; `style` defaults to the first one that was read.
    """
    runs = study.arm(arm)
    if not runs:
        return Text(f"{arm}: no such arm was read")
    style = style or frames.styles(runs[0])[0]
    strengths = {c: frames.means(runs, family, c, style).own.mean(axis=0) for c in runs[0].classes}
    top = max((float(np.nanmax(s)) for s in strengths.values() if not np.isnan(s).all()), default=0.0)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), collapse_padding=True)
    table.add_column("step", justify="right", no_wrap=True)
    for cls in strengths:
        table.add_column(cls, no_wrap=True)
    for row, step in enumerate(runs[0].steps):
        cells = [Text(str(step))]
        for values in strengths.values():
            cells.append(_cell(values[row], top))
        table.add_row(*cells)
    seeds = f"{len(runs)} seed{'s' * (len(runs) > 1)}"
    scale = f"layers left to right, █ = {number(top, 'mass')}"
    caption = f"{arm}, {frames.TITLES[family]}, {style} prompts, {seeds}; {scale}"
    return Group(Text(caption, style="bold"), table)


def _cell(values: np.ndarray, top: float) -> Text:
    if np.isnan(values).all():
        return Text("–")
    best = int(np.nanargmax(values))
    folded = values if len(values) <= 24 else _fold(values, 15 if len(values) <= 60 else 20)
    return Text.assemble((sparkline(folded.tolist(), top), "cyan"), f" {100 * values[best]:4.1f} % L{best}")


def _fold(values: np.ndarray, n: int) -> np.ndarray:
    """At most `n` cells, each the maximum of the layers that it stands for."""
    return np.array([np.nanmax(part) for part in np.array_split(values, n)])


def summary(
    verdicts: Sequence[Verdict], study: Study, experiment: Any, width: int = 100, colour: bool = False
) -> list[str]:
    """What stands at the end of a run: verdicts, counts, and strength by layer and step of every arm.

    One sparkline table per arm: of operation words where the arm is taught them (`classified`), else answers.
    """
    lines = plain(verdict_report(verdicts), width, colour).splitlines()
    methods = {arm.name: arm.method for arm in experiment.arms}
    for arm in frames.arms(study):
        family = "words" if methods.get(arm) == "classified" else "answer"
        lines += ["", *plain(strength_table(study, arm, family), width, colour).splitlines()]
    return lines


def plain(renderable: RenderableType, width: int = 100, colour: bool = False) -> str:
    """The same as text without trailing blanks, for logs and files; with terminal colours where asked for."""
    buffer = io.StringIO()
    system: Any = "standard" if colour else None
    Console(
        file=buffer,
        width=width,
        color_system=system,
        force_terminal=colour,
        no_color=not colour,
        highlight=False,
    ).print(renderable)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())
