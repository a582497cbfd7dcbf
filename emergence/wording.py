"""How a message shows what people wrote: on one line, short, with nothing that a terminal would act on.

And how it shows our own signs where the terminal's encoding has none of them: `✓ 52 %` is `+ 52 %` in ASCII.
"""

from __future__ import annotations

import codecs
import difflib
import io
from collections.abc import Iterable, Sequence

_SUBSTITUTE = "emergence.substitute"
_PLAIN = dict(zip("✓✗–—−·…×→←↓↑≥≤≈▁▂▃▄▅▆▇█", "+x---.~x><v^><~:-=+*#%@", strict=True))
"""A sign of our own to its sign in ASCII. Blocks keep their order: more ink is more."""


def printable(text: str, longest: int = 60) -> str:
    """One short line of `text`: control characters, direction marks and lone surrogates escaped."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:longest])
    return shown + "..." * (len(text) > longest)


def quoted(text: str) -> str:
    """`printable`, between quotes."""
    return f"'{printable(text)}'"


def shown(value: object) -> str:
    """What Python writes for a value, as `printable`."""
    return printable(repr(value))


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, for a one-line error."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few of many names."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def dotted(path: Sequence[str | int]) -> str:
    """`training.checkpoint_steps[2]`: where a field is."""
    text = "".join(f"[{p}]" if isinstance(p, int) else f".{printable(p)}" for p in path)
    return text.removeprefix(".")


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.7) -> str:
    """`; did you mean rank?`, or nothing where nothing known is near."""
    near = difflib.get_close_matches(word[:100], list(known), 1, cutoff)
    return f"; did you mean {near[0]}?" if near else ""


def encodable(text: str, encoding: str | None) -> str:
    """`text` as a stream of this encoding can show it, cell by cell, so that columns stay in line.

    A character that the encoding lacks becomes a sign of ASCII: `✓` is `+`, `–` is `-`, and `█` is `@`; one
    that we do not use ourselves is `?` (`??` where it takes two cells). `None` counts as UTF-8.
    """
    codecs.register_error(_SUBSTITUTE, _substitute)
    encoding = encoding or "utf-8"
    return text.encode(encoding, _SUBSTITUTE).decode(encoding)


def substitute_unencodable(stream: object) -> None:
    """Let everything that is written to `stream` from now on pass as through `encodable`.

    For a door: `substitute_unencodable(sys.stdout)`. Without it a table with a `✓` is a `UnicodeEncodeError`
    where the terminal speaks Latin-1. A stream without an encoding, such as `io.StringIO`, is left alone.
    """
    codecs.register_error(_SUBSTITUTE, _substitute)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=_SUBSTITUTE)


def _substitute(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(char: str) -> str:
    if char in _PLAIN:
        return _PLAIN[char]
    if "\u2500" <= char <= "\u257f":  # what boxes are drawn with
        return {"─": "-", "━": "-", "│": "|", "┃": "|"}.get(char, "+")
    from rich.cells import cell_len  # as wide as the tables take it to be

    return "?" * cell_len(char)
