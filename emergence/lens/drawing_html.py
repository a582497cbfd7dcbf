"""A drawing as HTML: what is coloured can be chosen, a cell tells its likeliest tokens when pointed at.

In: a `Drawing`. Out: a fragment for a notebook, or a page. CSS alone (`:has` shows what is chosen), so that
it works where scripts are not run; nothing is loaded. Colours follow the notebook's theme, or the reader's.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .drawing import Drawing, Statistic

COLUMNS = 24
"""Columns that a notebook is given; a cell is some 700 bytes."""

_STYLE = """
.emergence-lens{font:13px/1.35 system-ui,sans-serif;color:inherit}
.emergence-lens fieldset{border:0;margin:0 0 .4em;padding:0;display:flex;flex-wrap:wrap;gap:.1em 1em}
.emergence-lens legend{float:left;padding:0;margin-right:1em;opacity:.75}
.emergence-lens label{cursor:pointer}
.emergence-lens table{border-collapse:separate;border-spacing:2px;margin:0;font-size:12px}
.emergence-lens caption{caption-side:bottom;text-align:left;padding-top:.4em;opacity:.75}
.emergence-lens th{font-weight:600;text-align:center;padding:1px 4px;white-space:pre;background:none}
.emergence-lens thead small{display:block;font-weight:400;opacity:.75}
.emergence-lens tbody th{text-align:right;position:sticky;left:0;z-index:1;background:var(--back)}
.emergence-lens td{position:relative;padding:1px 6px;text-align:center;white-space:pre;border-radius:3px;
background:color-mix(in srgb,#2f9e57 calc(var(--c,0)*72%),transparent);min-width:3.2em}
.emergence-lens thead td{background:none}
.emergence-lens td:is(:hover,:focus){outline:2px solid #2f9e57}
.emergence-lens td>i{display:none;font-style:normal;font-size:10px;opacity:.85;margin-left:.4em}
.emergence-lens td>div{display:none;position:absolute;z-index:9;left:0;top:100%;min-width:15em;
text-align:left;padding:.5em .7em;border:1px solid #8888;border-radius:4px;color:var(--text);
background:var(--back);box-shadow:0 2px 10px #0004;pointer-events:none}
.emergence-lens td:is(:hover,:focus)>div{display:block}
.emergence-lens tr:nth-last-child(-n+12)>td>div{top:auto;bottom:100%}
.emergence-lens tr:nth-child(-n+6)>td>div{top:100%;bottom:auto}
.emergence-lens td.right>div{left:auto;right:0}
.emergence-lens{--back:var(--jp-layout-color0,var(--vscode-editor-background,Canvas));
--text:var(--jp-ui-font-color1,var(--vscode-editor-foreground,CanvasText))}
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>:root{{color-scheme:light dark}}body{{margin:1.5em;background:Canvas;color:CanvasText}}</style>
</head><body>
{body}
</body></html>
"""


def page(drawing: Drawing) -> str:
    """A page that needs nothing else, with every column."""
    return _PAGE.format(title=_escape(drawing.caption), body=fragment(drawing, len(drawing.heads)))


def fragment(drawing: Drawing, columns: int = COLUMNS) -> str:
    """For a notebook. Each drawing is a form of its own, so that choices do not touch one another."""
    shown = min(columns, len(drawing.heads))
    left = f"; {len(drawing.heads) - shown} columns more" if shown < len(drawing.heads) else ""
    choices = "".join(
        f'<label><input type="radio" name="shown" value="{i}"{" checked" * (not i)}>{_escape(s.name)}</label>'
        for i, s in enumerate(drawing.statistics)
    )
    head = "".join(
        f'<th scope="col">{_escape(t)}<small>{i}</small></th>'
        for t, i in zip(drawing.heads[:shown], drawing.ids, strict=False)
    )
    colours = [s.colour for s in drawing.statistics]
    rows = "".join(
        f'<tr><th scope="row">{_escape(drawing.layers[i])}</th>'
        + "".join(_cell(drawing, [c[i, j] for c in colours], i, j, j >= shown - 3 > 2) for j in range(shown))
        + "</tr>"
        for i in range(len(drawing.layers))[::-1]
    )
    return (
        f'<form class="emergence-lens"><style>{_STYLE}{_chosen(drawing.statistics)}</style>'
        f"<fieldset><legend>coloured by</legend>{choices}</fieldset>"
        f"<table><caption>{_escape(drawing.caption)}{left}</caption>"
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></form>"
    )


def _chosen(statistics: tuple[Statistic, ...]) -> str:
    return "".join(
        f'.emergence-lens:has([value="{i}"]:checked) td{{--c:var(--c{i})}}'
        f'.emergence-lens:has([value="{i}"]:checked) td>i:nth-of-type({i + 1}){{display:inline}}'
        for i in range(len(statistics))
    )


def _cell(drawing: Drawing, colours: list[float], layer: int, column: int, right: bool) -> str:
    texts = [_escape(s.text(layer, column)) for s in drawing.statistics]
    colour = ";".join(f"--c{i}:{c:.2f}" for i, c in enumerate(colours))
    tops = drawing.tops[layer][column]
    likeliest = "\n".join(
        f"{p:6.1%}  {_escape(t)}" for t, p in zip(tops, drawing.probabilities[layer, column], strict=True)
    )
    others = "\n".join(
        f"{_escape(s.name)}  {text}" for s, text in zip(drawing.statistics[1:], texts[1:], strict=True)
    )
    side = ' class="right"' if right else ""
    where = f"{_escape(drawing.layers[layer])}, {_escape(drawing.heads[column])}"
    return (
        f'<td tabindex="0"{side} style="{colour}">{_escape(tops[0])}'
        + "".join(f"<i>{text}</i>" for text in texts)
        + f"<div><b>{where}</b>\n{likeliest}\n{others}</div></td>"
    )


def _escape(text: str) -> str:
    return html.escape(text, quote=True)
