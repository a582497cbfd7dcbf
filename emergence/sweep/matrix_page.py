"""The matrix for people: a table for the terminal, a figure, a page in the look of the report.

In: a `Matrix`. Out: a renderable, `matrix.png` and `.svg`, `matrix.html`. No outcome is told by colour alone.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..report.page import asset
from ..report.tables import BADGES, interval, number
from ..store.files import write_atomic
from ..verdicts import Verdict
from .matrix import Line, Matrix, Row

PAGE = "matrix.html"
_FILL = {"supported": "#009E73", "falsified": "#D55E00", "inconclusive": "#D9D6CE", "": "#FFFFFF"}
"""Of Okabe and Ito: told apart by the colour-blind, and each cell has its sign."""


def hover(row: Row, verdict: Verdict) -> str:
    """`52.3 % [48.1, 56.0], threshold 10.0 %, own-class mass, L15 (53 % depth), step 700, sft: why`."""
    parts = [f"{verdict.prediction}[{verdict.cls}] {verdict.outcome}", interval(verdict)]
    if verdict.threshold is not None:
        parts.append(f"threshold {number(verdict.threshold, verdict.statistic)}")
    parts.append(verdict.statistic)
    if verdict.layer is not None:
        depth = row.depth(verdict)
        parts.append(f"L{verdict.layer}" + (f" ({100 * depth:.0f} % depth)" if depth is not None else ""))
    if verdict.step is not None:
        parts.append(f"step {verdict.step}")
    return f"{', '.join([*parts, verdict.arm])}: {verdict.reason}"


def over_models(line: Line) -> str:
    """`supported in 4 of 6 models, mean 12.1 % [8.0, 16.2]`."""
    text = f"supported in {line.supported} of {line.n} model{'s' * (line.n != 1)}"
    if line.mean is None:
        return text
    low, high = (number(end, line.statistic) for end in (line.mean.low, line.mean.high))
    spread = number(line.mean.tau, line.statistic)
    return (
        f"{text}; mean {number(line.mean.estimate, line.statistic)} [{low}, {high}], between models {spread}"
    )


def shown(matrix: Matrix) -> RenderableType:
    """A row a model and setting, a column a prediction, a sign a class; below it the models as one."""
    predictions = dict.fromkeys(p for p, _ in matrix.columns)
    classes = list(dict.fromkeys(c for _, c in matrix.columns))
    with_settings = any(row.settings for row in matrix.rows)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("model", *(["settings"] * with_settings), *predictions):
        table.add_column(Text(name), header_style="dim", no_wrap=True)
    stable = {row.model: matrix.stable(row.model) for row in matrix.rows}
    if any(stable.values()):
        table.add_column("stable over settings", header_style="dim")
    for row in matrix.rows:
        cells = [_signs(row, p, classes) for p in predictions]
        same = stable[row.model]
        last = [f"{same[0]} of {same[1]}"] if same else [""] * any(stable.values())
        table.add_row(Text(row.model), *([Text(row.settings)] * with_settings), *cells, *last)
    facts = Table.grid(padding=(0, 2))
    for line in matrix.lines:
        named = f"{line.prediction} {line.cls} {line.settings}".strip()
        facts.add_row(Text(named, style="bold"), Text(over_models(line)))
    key = f"signs in the order {', '.join(classes)}: ✓ supported, ✗ falsified, ? inconclusive, · not judged"
    notes = [Text(f"left out: {line}") for line in matrix.left_out]
    return Group(table, Text(key, style="dim"), Text(""), facts, Text(""), *notes, Text(matrix.standing))


def _signs(row: Row, prediction: str, classes: list[str]) -> Text:
    found = [row.verdicts.get((prediction, cls)) for cls in classes]
    return Text.assemble(*(BADGES[v.outcome] if v else ("·", "dim") for v in found))


def page(matrix: Matrix, linked: bool) -> str:
    """The page as text; `linked`: it lies in the experiment's folder, beside the reports of its rows."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=jinja2.PackageLoader("emergence.report", "templates"),
    )  # fmt: skip
    environment.filters |= {"number": number, "over_models": over_models}
    outcomes: list[str] = [v.outcome for row in matrix.rows for v in row.verdicts.values()]
    classes = {p: [c for q, c in matrix.columns if q == p] for p, _ in matrix.columns}
    return environment.get_template("matrix.html.jinja").render(
        matrix=matrix,
        classes=classes,
        counts={name: outcomes.count(name) for name in BADGES},
        badges=BADGES,
        hover=hover,
        linked=linked,
        style=Markup(asset("report.css")),
    )


def write(matrix: Matrix, folder: Path) -> list[Path]:
    """`matrix.html`, `matrix.png` (150 dpi) and `matrix.svg` in `folder`."""
    import matplotlib as mpl

    write_atomic(folder / PAGE, page(matrix, linked=True))
    drawn = figure(matrix)
    kinds: Mapping[str, Any] = {"png": {"dpi": 150}, "svg": {"metadata": {"Date": None}}}
    with mpl.rc_context({"svg.hashsalt": "emergence", "svg.fonttype": "none"}):
        for kind, settings in kinds.items():
            write_atomic(folder / f"matrix.{kind}", functools.partial(drawn.savefig, **settings))
    return [folder / PAGE, *(folder / f"matrix.{kind}" for kind in kinds)]


def figure(matrix: Matrix) -> Any:
    """A square a verdict, filled and signed; rows are models, columns predictions by class."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    side, labels, top = 0.34, 0.075, 1.0
    names = [f"{row.model} {row.settings}".strip() for row in matrix.rows]
    left = 0.3 + labels * max(map(len, names))
    width, height = len(matrix.columns) * side, len(matrix.rows) * side
    size = (left + width + 0.2, top + height + 0.3)
    made = Figure(figsize=size)
    FigureCanvasAgg(made)
    axes = made.add_axes((left / size[0], 0.3 / size[1], width / size[0], height / size[1]))
    for y, row in enumerate(matrix.rows):
        for x, column in enumerate(matrix.columns):
            outcome = row.verdicts[column].outcome if column in row.verdicts else ""
            axes.add_patch(_square(x, y, _FILL[outcome]))
            sign = BADGES[outcome][0] if outcome else "·"
            dark = outcome in ("supported", "falsified")
            axes.text(
                x + 0.5, y + 0.5, sign, ha="center", va="center", fontsize=9, color="w" if dark else "0.25"
            )
    axes.set_xlim(0, len(matrix.columns))
    axes.set_ylim(len(matrix.rows), 0)
    axes.set_xticks([x + 0.5 for x in range(len(matrix.columns))], [f"{p} {c}" for p, c in matrix.columns])
    axes.set_yticks([y + 0.5 for y in range(len(names))], names)
    axes.tick_params(length=0, labelsize=7)
    axes.xaxis.tick_top()
    for label in axes.get_xticklabels():
        label.set_rotation(90)
    for spine in axes.spines.values():
        spine.set_visible(False)
    legend = ", ".join(f"{sign} {name}" for name, (sign, _) in BADGES.items())
    made.text(
        left / size[0],
        0.1 / size[1],
        f"{legend}; {matrix.standing.partition(':')[0]}",
        fontsize=6,
        color="0.3",
    )
    return made


def _square(x: int, y: int, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x + 0.04, y + 0.04), 0.92, 0.92, facecolor=colour, edgecolor="none")
