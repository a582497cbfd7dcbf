"""Draws what a lens sees, the likeliest token in each cell: layers × positions, or layers × prompts.

In: a `LensReading`, and a tokenizer. Out: a `Drawing`: text for the terminal (rich), HTML for a notebook
(`drawing_html`), HTML, PNG and SVG as files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from ..errors import UsageError
from ..store.files import write_atomic
from ..wording import shown
from . import drawing_html
from .reading import named

if TYPE_CHECKING:
    from .reading import LensReading

_SHADES = 5
_WIDEST = 10
"""Characters of a token in the terminal."""
_GLYPH_INCHES, _ROW_INCHES = 0.085, 0.24


@dataclass(frozen=True)
class Statistic:
    """One number a cell, and how strongly it is coloured."""

    name: str
    values: np.ndarray
    """[layer, column]."""
    kind: str
    """`share` (of probability), `nats` or `rank`."""

    @property
    def colour(self) -> np.ndarray:
        """[layer, column], 0 to 1: a share itself, nats over their largest, ranks by logarithm."""
        values = np.nan_to_num(self.values.astype(float))
        if self.kind == "nats":
            values = values / max(values.max(), 1e-9)
        elif self.kind == "rank":
            values = 1 - np.log1p(values) / np.log1p(max(values.max(), 1.0))
        return np.asarray(values)

    def text(self, layer: int, column: int) -> str:
        """The number as it is shown: `42%`, `0.31`, `17`."""
        value = self.values[layer, column]
        if np.isnan(value):
            return "–"
        if self.kind == "share":
            return f"{value:.0%}" if value >= 0.005 or value == 0 else "<1%"
        return f"{value:.2f}" if self.kind == "nats" else f"{value:.0f}"


@dataclass(frozen=True)
class Drawing:
    """A grid of likeliest tokens; `print` it, let a notebook show it, or `save` it."""

    heads: tuple[str, ...]
    """By column, the token that was fed there, special ones included; or the prompt."""
    ids: tuple[int, ...]
    """By column, the id that was fed last."""
    layers: tuple[str, ...]
    tops: tuple[tuple[tuple[str, ...], ...], ...]
    """By layer and column, the likeliest tokens, the likeliest first."""
    probabilities: np.ndarray
    """[layer, column, k], theirs."""
    statistics: tuple[Statistic, ...]
    """What can be shown of a cell; the first one is, where nothing else is chosen."""
    caption: str

    def by(self, statistic: str) -> Drawing:
        """The same with another statistic first: `drawing.by("entropy")`; UsageError where there is none."""
        first = [s for s in self.statistics if s.name == statistic]
        if not first:
            names = ", ".join(s.name for s in self.statistics)
            raise UsageError(f"statistic {shown(statistic)} is none of {names}")
        rest = [s for s in self.statistics if s.name != statistic]
        return dataclasses.replace(self, statistics=(*first, *rest))

    def save(self, path: Path | str) -> Path:
        """Write it as `.html` (a page that needs nothing else), `.png` or `.svg`; UsageError for others."""
        path = Path(path)
        kind = path.suffix.lower()
        if kind == ".html":
            write_atomic(path, drawing_html.page(self))
        elif kind in (".png", ".svg"):
            write_atomic(path, lambda aside: self._figure(aside, kind[1:]))
        else:
            raise UsageError(f"{path}: give a name that ends in .html, .png or .svg")
        return path

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Group(Text(f"{self.caption}; {self.statistics[0].name}"), *self._tables(options.max_width))

    def __str__(self) -> str:
        console = Console(width=max(80, 16 * (len(self.heads) + 1)), color_system=None, force_terminal=False)
        with console.capture() as captured:
            console.print(self)
        return str(captured.get())

    def __repr__(self) -> str:
        return f"Drawing: {len(self.layers)} layers × {len(self.heads)}; {self.caption}"

    def _repr_html_(self) -> str:
        return drawing_html.fragment(self)

    def _tables(self, width: int) -> Iterator[Table]:
        """As many columns beside each other as the width has room for, the others below."""
        shown_cells = [[self._cell(i, j) for j in range(len(self.heads))] for i in range(len(self.layers))]
        heads = [_cut(head) for head in self.heads]
        first = max(map(len, self.layers)) + 1
        widths = [max(len(head), *(len(row[j]) for row in shown_cells)) + 2 for j, head in enumerate(heads)]
        start = 0
        while start < len(heads):
            end = start + 1
            while end < len(heads) and first + sum(widths[start : end + 1]) <= width:
                end += 1
            table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
            table.add_column("", no_wrap=True)
            for head in heads[start:end]:
                table.add_column(Text(head), no_wrap=True, justify="right")
            for i in range(len(self.layers))[::-1]:
                colour = self.statistics[0].colour[i]
                cells = [Text(shown_cells[i][j], style=_style(colour[j])) for j in range(start, end)]
                table.add_row(self.layers[i], *cells)
            yield table
            start = end

    def _cell(self, layer: int, column: int) -> str:
        return f"{_cut(self.tops[layer][column][0])} {self.statistics[0].text(layer, column):>4}"

    def _figure(self, path: Path, kind: str) -> None:
        import warnings

        from matplotlib.figure import Figure

        cells = [
            [" ".join(self._cell(i, j).split()) for j, _ in enumerate(r)] for i, r in enumerate(self.tops)
        ]
        widest = max(6, *(len(text) for row in cells for text in row)) + 2
        width = max(4.0, len(self.heads) * widest * _GLYPH_INCHES + 1.5)
        height = len(self.layers) * _ROW_INCHES + 1.2
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0.6 / width, 0.5 / height, 1 - 0.75 / width, 1 - 0.9 / height))
        shown_first = self.statistics[0]
        axes.imshow(shown_first.colour, aspect="auto", origin="lower", cmap="Greens", vmin=0, vmax=1.5)
        axes.set_xticks(range(len(self.heads)), [_plain(_cut(h)) for h in self.heads], fontsize=8)
        axes.set_yticks(range(len(self.layers)), self.layers, fontsize=7)
        axes.set_title(f"likeliest token, coloured by: {shown_first.name}", fontsize=9, loc="left")
        for i, row in enumerate(cells):
            for j, text in enumerate(row):
                axes.text(j, i, _plain(text), ha="center", va="center", fontsize=7)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # a box stands for it
            figure.savefig(path, format=kind, dpi=150)


def draw(reading: LensReading, tokenizer: Any, prompt: int = 0) -> Drawing:
    """The grid of one prompt's positions; of all prompts where each was read at one position."""
    if not reading.top_ids.shape[-1]:
        raise UsageError("a drawing names the likeliest tokens: read with top_k=1 or more")
    if not 0 <= prompt < len(reading.tokens):
        raise UsageError(f"prompt={prompt}: the reading has 0 to {len(reading.tokens) - 1}")
    many = reading.entropy.ndim == 3
    where = (slice(None), prompt) if many else (slice(None),)
    columns = len(reading.positions[prompt]) if many else len(reading.tokens)
    top_ids = reading.top_ids[where][:, :columns]
    texts = visible(top_ids.reshape(-1), tokenizer).reshape(top_ids.shape)
    if many:
        ids = tuple(reading.tokens[prompt][p] for p in reading.positions[prompt])
        heads = tuple(visible(np.array(ids), tokenizer).tolist())
    else:
        ids = tuple(t[p[0]] for t, p in zip(reading.tokens, reading.positions, strict=True))
        heads = tuple(
            " ".join(map(str, t)) if text is None else text
            for text, t in zip(reading.texts, reading.tokens, strict=True)
        )
    fed = np.array(reading.tokens[prompt])
    said = " ".join(f"{t}={i}" for t, i in zip(visible(fed, tokenizer), fed, strict=True))
    return Drawing(
        heads,
        ids,
        reading.layers,
        tuple(tuple(tuple(cell) for cell in row) for row in texts.tolist()),
        np.exp(reading.top_log_probs[where][:, :columns]),
        tuple(_statistics(reading, where, columns, tokenizer)),
        f"fed: {said}" if many or len(reading.tokens) == 1 else f"{columns} prompts",
    )


def visible(ids: np.ndarray, tokenizer: Any) -> np.ndarray:
    """The tokens' texts with white space made visible; ids where there is no tokenizer."""
    texts = named(ids, tokenizer)
    return np.array([_visible(str(t), int(i)) for t, i in zip(texts, ids, strict=True)], dtype=object)


def _statistics(reading: LensReading, where: Any, columns: int, tokenizer: Any) -> Iterator[Statistic]:
    yield Statistic(
        "probability of the likeliest", np.exp(reading.top_log_probs[where][:, :columns, 0]), "share"
    )
    for i, name in enumerate(reading.sets):
        yield Statistic(f"mass {name}", np.exp(reading.log_mass[where][:, :columns, i]), "share")
    tokens = visible(np.array(reading.token_ids, dtype=np.int64), tokenizer)
    for i, name in enumerate(tokens):
        yield Statistic(f"rank {name}", reading.ranks[where][:, :columns, i], "rank")
    yield Statistic("entropy", reading.entropy[where][:, :columns], "nats")
    for name, values in (("KL to the output", reading.kl), ("KL to the layer before", reading.kl_previous)):
        if not np.isnan(values).all():
            yield Statistic(name, values[where][:, :columns], "nats")


def _visible(text: str, token: int) -> str:
    text = text.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text) or f"<{token}>"


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


def _plain(text: str) -> str:
    """For Matplotlib, to which dollar signs are mathematics."""
    return text.replace("$", r"\$")


def _style(colour: float) -> str:
    shade = ("dim", "", "bold", "bold yellow", "bold green")
    return shade[min(_SHADES - 1, int(colour * _SHADES))]
