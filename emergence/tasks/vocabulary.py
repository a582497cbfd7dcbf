"""Words and glyphs as audited token ids: what counts for a class.

In: a tokenizer, the vocabulary as written. Out: `Vocabulary`.

Ids, not strings: a word is every single-token variant of it (bare, after a space, capitalised), looked up
once. A word that has none is left out by name, never cut to its first piece. See docs/concepts.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError
from .encoding import ids_of, text_of

_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Entry:
    """What became of one word or glyph of the vocabulary."""

    word: str
    cls: str
    family: str
    """`words` or `glyphs`."""
    variants: tuple[tuple[str, tuple[int, ...]], ...]
    """Each way of writing it, with the ids it becomes; only those of one id count."""
    ids: tuple[int, ...]
    """Ids that count; empty where the word is left out."""
    left_out: str
    """Why it does not count; empty where it does."""


@dataclass(frozen=True)
class Vocabulary:
    """Audited token sets. No id belongs to two classes, nor to both families."""

    words: dict[str, tuple[int, ...]]
    glyphs: dict[str, tuple[int, ...]]
    table: tuple[Entry, ...]

    def for_style(
        self, style: str, texts: Iterable[str], prompt_ids: Iterable[Sequence[int]]
    ) -> dict[str, tuple[int, ...]]:
        """Ids by class, less the words that stand in the style's prompts: those would be copied.

        A word leaves the set of all its prompts, with all its variants, where one prompt holds it as a word
        (whatever its capitals) or as a token. Raises `UsageError` where that leaves a class without a word.
        """
        written = {w.lower() for text in texts for w in _WORD.findall(text)}
        seen = {i for ids in prompt_ids for i in ids}
        sets = {
            cls: _union(
                e
                for e in self._words(cls)
                if not set(e.word.lower().split()) & written and not set(e.ids) & seen
            )
            for cls in self.words
        }
        for cls, ids in sets.items():
            if not ids:
                raise UsageError(
                    f"parameters.task_vocabulary.{cls}: every word stands in the {style} prompts themselves "
                    f"({', '.join(e.word for e in self._words(cls))}); add another word"
                )
        return sets

    @property
    def left_out(self) -> tuple[str, ...]:
        """A line for each word that does not count, with the reason."""
        rows = (e for e in self.table if e.left_out)
        return tuple(f"{e.cls}: {e.word!r} is left out: {e.left_out}" for e in rows)

    def _words(self, cls: str) -> list[Entry]:
        return [e for e in self.table if e.family == "words" and e.cls == cls]

    def __str__(self) -> str:
        """The audit as a plain table."""
        rows = [("class", "family", "word", "ids", "left out")]
        for e in self.table:
            ids = " ".join(f"{text!r}={ids[0]}" for text, ids in e.variants if len(ids) == 1)
            rows.append((e.cls, e.family, e.word, ids, e.left_out))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        return "\n".join(
            "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[4]]).rstrip()
            for row in rows
        )


def audit(
    tokenizer: Any,
    vocabulary: Mapping[str, Sequence[str]],
    glyphs: Callable[[str], Iterable[str]],
) -> Vocabulary:
    """The token sets of a vocabulary (class to words and glyphs as written).

    `glyphs` (`Task.glyphs`) says those that a class has even if they are not written. Raises `UsageError`,
    with all problems at once, for a class without a single-token word and for an id of two classes.
    """
    table = []
    for cls, written in vocabulary.items():
        table += [_entry(tokenizer, cls, word) for word in dict.fromkeys([*written, *glyphs(cls)])]
    wrong = [*_empty(vocabulary, table), *_shared(table)]
    if wrong:
        raise UsageError("\n".join(wrong))
    sets = {
        family: {cls: _union(e for e in table if (e.cls, e.family) == (cls, family)) for cls in vocabulary}
        for family in ("words", "glyphs")
    }
    return Vocabulary(sets["words"], sets["glyphs"], tuple(table))


def single(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Ids of `text` where a new line comes before it, so that SentencePiece adds no space of its own."""
    context = ids_of(tokenizer, "\n")
    joint = ids_of(tokenizer, "\n" + text)
    ids = joint[len(context) :] if joint[: len(context)] == context else ids_of(tokenizer, text)
    # An unknown token is a single one, too, but it is not this word.
    if len(ids) == 1 and text_of(tokenizer, ids).strip() != text.strip():
        return (*ids, *ids)
    return ids


def _entry(tokenizer: Any, cls: str, word: str) -> Entry:
    family = "words" if any(c.isalpha() for c in word) else "glyphs"
    spelled = dict.fromkeys((word, f" {word}", word[:1].upper() + word[1:], f" {word[:1].upper()}{word[1:]}"))
    variants = tuple((text, single(tokenizer, text)) for text in spelled)
    ids = tuple(sorted({ids[0] for _, ids in variants if len(ids) == 1}))
    pieces = " + ".join(repr(text_of(tokenizer, [i])) for i in variants[0][1])
    reason = "" if ids else f"no variant is a single token; {word!r} is {pieces}"
    return Entry(word, cls, family, variants, ids, reason)


def _empty(vocabulary: Mapping[str, Sequence[str]], table: Sequence[Entry]) -> Iterator[str]:
    for cls in vocabulary:
        words = [e for e in table if e.cls == cls and e.family == "words"]
        if not any(e.ids for e in words):
            why = "; ".join(f"{e.word!r}: {e.left_out}" for e in words) or "it holds no word"
            yield f"parameters.task_vocabulary.{cls}: no word is one token here ({why}); add another word"


def _shared(table: Sequence[Entry]) -> Iterator[str]:
    owner: dict[int, Entry] = {}
    for e in table:
        for i in e.ids:
            first = owner.setdefault(i, e)
            if first.cls != e.cls:
                yield (
                    f"parameters.task_vocabulary: {first.word!r} of {first.cls} and {e.word!r} of {e.cls} "
                    f"are the same token {i}; a token can stand for one class only: take it out of one"
                )


def _union(entries: Iterable[Entry]) -> tuple[int, ...]:
    return tuple(sorted({i for e in entries for i in e.ids}))
