"""How a message shows what people wrote: on one line, short, with nothing that a terminal would act on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def printable(text: str, longest: int = 60) -> str:
    """One short line of `text`: control characters, direction marks and lone surrogates escaped."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:longest])
    return shown + "..." * (len(text) > longest)


def quoted(text: str) -> str:
    """`printable`, between quotes."""
    return f"'{printable(text)}'"


def dotted(path: Sequence[str | int]) -> str:
    """`training.checkpoint_steps[2]`: where a field is."""
    text = "".join(f"[{p}]" if isinstance(p, int) else f".{printable(p)}" for p in path)
    return text.removeprefix(".")


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.7) -> str:
    """`; did you mean rank?`, or nothing where nothing known is near."""
    near = difflib.get_close_matches(word[:100], list(known), 1, cutoff)
    return f"; did you mean {near[0]}?" if near else ""
