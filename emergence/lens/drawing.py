"""Draws what a lens sees in one prompt: layers × positions, the likeliest token in each cell.

In: a `LensReading` of one prompt, and a tokenizer. Out: a `Drawing` for the terminal (rich) and for a
notebook (HTML, escaped).
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from .reading import LensReading

_SHADES = 5


@dataclass(frozen=True)
class Drawing:
    """A grid of likeliest tokens; `print` it, or let a notebook show it."""

    fed: tuple[str, ...]
    """The exact tokens that were fed, special ones included."""
    ids: tuple[int, ...]
    layers: tuple[str, ...]
    tops: tuple[tuple[str, ...], ...]
    """By layer, then position."""
    probabilities: np.ndarray
    """[layer, position], of the likeliest token."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(title=self._caption(), title_justify="left", show_lines=False, pad_edge=False)
        table.add_column("", no_wrap=True)
        for token in self.fed:
            table.add_column(Text(token), no_wrap=True, overflow="ellipsis", max_width=14)
        for i in range(len(self.layers))[::-1]:
            cells = [
                Text(t, style=_style(float(p)))
                for t, p in zip(self.tops[i], self.probabilities[i], strict=True)
            ]
            table.add_row(self.layers[i], *cells)
        yield table

    def __str__(self) -> str:
        console = Console(width=max(80, 16 * (len(self.fed) + 1)), color_system=None, force_terminal=False)
        with console.capture() as captured:
            console.print(self)
        return str(captured.get())

    def _repr_html_(self) -> str:
        head = "".join(
            f"<th>{_escape(t)}<br><small>{i}</small></th>" for t, i in zip(self.fed, self.ids, strict=True)
        )
        body = "".join(
            f"<tr><th>{_escape(self.layers[i])}</th>"
            + "".join(
                f'<td title="{p:.1%}" style="background:rgba(46,125,50,{0.75 * p:.2f})">{_escape(t)}</td>'
                for t, p in zip(self.tops[i], self.probabilities[i], strict=True)
            )
            + "</tr>"
            for i in range(len(self.layers))[::-1]
        )
        return f"<table><caption>{_escape(self._caption())}</caption><tr><th></th>{head}</tr>{body}</table>"

    def _caption(self) -> str:
        return f"fed: {' '.join(f'{t}={i}' for t, i in zip(self.fed, self.ids, strict=True))}"


def draw(reading: LensReading, tokenizer: Any) -> Drawing:
    """The grid of a reading of one prompt at every position; the tokenizer names the tokens."""
    ids = reading.tokens[0]
    tops = tuple(tuple(_name(tokenizer, int(i)) for i in row) for row in reading.top_ids[:, 0, :, 0])
    probabilities = np.exp(reading.top_log_probs[:, 0, :, 0])
    return Drawing(tuple(_name(tokenizer, i) for i in ids), ids, reading.layers, tops, probabilities)


def _name(tokenizer: Any, token: int) -> str:
    """The token's text with white space made visible."""
    text = str(tokenizer.decode([token]))
    text = text.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text) or f"<{token}>"


def _escape(text: str) -> str:
    return html.escape(text, quote=True)


def _style(p: float) -> str:
    shade = ("dim", "", "bold", "bold yellow", "bold green")
    return shade[min(_SHADES - 1, int(p * _SHADES))]
