"""Words, glyphs and answers as audited token ids, and the boundary between a prompt and its answer.

In: a tokenizer, the vocabulary as written, problems. Out: `Vocabulary`, `Row`s, random words for the control.

Ids, not strings: a word is every single-token variant of it (bare, after a space, capitalised), looked up
once. A word that has none is left out by name, never cut to its first piece. See docs/concepts.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.random import Generator

from ..errors import NotMeasurable, UsageError
from . import task as tasks

_WORD = re.compile(r"[^\W\d_]+")
_NEAREST = 40
"""Random words are drawn among this many nearest in rank."""


@dataclass(frozen=True)
class Row:
    """One problem in one style, as ids: what is trained on is `prompt_ids + answer_ids`."""

    item: tasks.Item
    style: str
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    """Ends with the end of text."""


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

    def _words(self, cls: str) -> list[Entry]:
        return [e for e in self.table if e.family == "words" and e.cls == cls]

    def __str__(self) -> str:
        """The audit as a plain table."""
        rows = [("class", "family", "word", "ids", "left out")]
        for e in self.table:
            ids = " ".join(
                f"{text!r}={ids[0]}" for text, ids in e.variants if ids[0] in e.ids and len(ids) == 1
            )
            rows.append((e.cls, e.family, e.word, ids, e.left_out))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        return "\n".join(
            "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[4]]).rstrip()
            for row in rows
        )


def encode_prompt(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Ids of a prompt for a base model: with the BOS if the tokenizer puts one, nothing after the text."""
    bare, full = _ids(tokenizer, text), _ids(tokenizer, text, special=True)
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[: start + len(bare)]
    raise NotMeasurable(
        f"the tokenizer rewrites {text!r} when it adds its special tokens; this is not supported"
    )


def encode_answer(tokenizer: Any, prompt: str, answer: str) -> tuple[int, ...]:
    """Ids of an answer as the model writes it after exactly `encode_prompt(prompt)`; no end of text.

    Taken from prompt and answer encoded together where the prompt's ids stay as they are; otherwise (a
    tokenizer that merges the prompt's last space with the answer) from the answer alone, less the space that
    SentencePiece puts before any text. Raises `NotMeasurable` where neither reads back as what was written.
    """
    before = _ids(tokenizer, prompt)
    joint = _ids(tokenizer, prompt + answer)
    together = joint[len(before) :] if joint[: len(before)] == before else ()
    alone = _ids(tokenizer, answer)
    one_by_one = tuple(i for c in answer for i in _ids(tokenizer, c)[-1:])
    for ids in (together, alone, alone[1:], one_by_one):
        if ids and _text(tokenizer, before + ids) == _text(tokenizer, before) + answer:
            return ids
    raise NotMeasurable(f"the tokenizer cannot write {answer!r} after {prompt!r}")


def end_of_text(tokenizer: Any) -> int:
    """The id that ends an answer; raises `NotMeasurable` where the tokenizer has none."""
    eos = getattr(tokenizer, "eos_token_id", None)
    if eos is None:
        raise NotMeasurable("the tokenizer names no end of text (eos_token); the answers could not be ended")
    return int(eos)


def rows(tokenizer: Any, problems: Iterable[tasks.Item], styles: Sequence[str]) -> tuple[Row, ...]:
    """Every problem in every style, a problem's styles next to one another."""
    eos = end_of_text(tokenizer)
    return tuple(
        Row(
            p,
            style,
            encode_prompt(tokenizer, p.prompt(style)),
            (*encode_answer(tokenizer, p.prompt(style), str(p.answer)), eos),
        )
        for p in problems
        for style in styles
    )


def boundary_report(tokenizer: Any, problems: Iterable[tasks.Item], styles: Sequence[str]) -> tuple[str, ...]:
    """A note for each style in which prompt and answer encoded together differ from one after the other.

    Nothing is wrong then: the suite trains and reads on the latter. But pretraining saw the former.
    """
    notes, problems = [], tuple(problems)
    for style in styles:
        odd = []
        for p in problems:
            prompt, answer = p.prompt(style), str(p.answer)
            apart = _ids(tokenizer, prompt) + encode_answer(tokenizer, prompt, answer)
            if _ids(tokenizer, prompt + answer) != apart:
                odd.append(prompt + answer)
        if odd:
            notes.append(
                f"style {style}: {len(odd)} of {len(problems)} prompts are cut otherwise if encoded together "
                f"with their answer, such as {odd[0]!r}; trained and read as encode(prompt) + encode(answer)"
            )
    return tuple(notes)


def audit(tokenizer: Any, vocabulary: Mapping[str, Sequence[str]]) -> Vocabulary:
    """The token sets of a vocabulary (class to words and glyphs as written).

    A class that is an operation has its own glyph in its glyphs even if not written. Raises `UsageError`,
    with all problems at once, for a class without a single-token word and for an id of two classes.
    """
    table = []
    for cls, written in vocabulary.items():
        glyph = tasks.GLYPHS.get(cls)
        names = dict.fromkeys([*written, glyph] if glyph else written)
        table += [_entry(tokenizer, cls, word) for word in names]
    wrong = [*_empty(vocabulary, table), *_shared(table)]
    if wrong:
        raise UsageError("\n".join(wrong))
    sets = {
        family: {cls: _union(e for e in table if (e.cls, e.family) == (cls, family)) for cls in vocabulary}
        for family in ("words", "glyphs")
    }
    return Vocabulary(sets["words"], sets["glyphs"], tuple(table))


def random_words(
    tokenizer: Any, vocabulary: Vocabulary, n_sets: int, seed: int
) -> dict[str, tuple[int, ...]]:
    """Sets of random words, as many and as frequent as those of the classes in turn, for control C2.

    In a BPE vocabulary an id is a rank of frequency, so each word of a class is replaced by a word of letters
    among the nearest in rank that has the same variants. No word is in two sets, in the vocabulary, or a form
    of one that is. Raises `NotMeasurable` where the tokenizer has too few words.
    """
    rng = np.random.default_rng([seed, 29])
    spellings = dict(sorted(_spellings(tokenizer).items()))
    ranks = np.array([sum(ids.values()) / len(ids) for ids in spellings.values()])
    taken = {e.word.lower() for e in vocabulary.table}
    classes = list(vocabulary.words)
    sets: dict[str, tuple[int, ...]] = {}
    for k in range(n_sets):
        ids: list[int] = []
        for e in vocabulary.table:
            if e.ids and (e.cls, e.family) == (classes[k % len(classes)], "words"):
                order = np.argsort(abs(ranks - sum(e.ids) / len(e.ids)), kind="stable")
                nearest = np.array([*spellings], dtype=object)[order]
                ids += _like(tokenizer, e, nearest, spellings, taken, rng)
        sets[f"random{k}"] = tuple(sorted(ids))
    return sets


def _like(
    tokenizer: Any,
    entry: Entry,
    nearest: Iterable[str],
    spellings: Mapping[str, Mapping[str, int]],
    taken: set[str],
    rng: Generator,
) -> list[int]:
    """Ids of a word like the entry's, of those nearest in rank; the word joins `taken`."""
    forms = {_form(text) for text, ids in entry.variants if len(ids) == 1 and ids[0] in entry.ids}
    # Whole words first; a vocabulary of a few hundred pieces has only fragments left.
    for least, wanted in ((3, forms), (2, forms), (1, set[str]())):
        stems = {w[:4] for w in taken} if least > 1 else set()
        free = (
            word
            for word in nearest
            if len(word) >= least
            and wanted <= spellings[word].keys()
            and word not in taken
            and word[:4] not in stems
        )
        near = list(islice(free, _NEAREST))
        for word in (near[i] for i in rng.permutation(len(near))):
            found = [(_spell(word, f), spellings[word][f]) for f in sorted(forms & spellings[word].keys())]
            if found and all(_single(tokenizer, text) == (i,) for text, i in found):
                taken.add(word)
                return [i for _, i in found]
    raise NotMeasurable(f"the tokenizer has too few words to match {entry.word!r} by frequency (control C2)")


def _spellings(tokenizer: Any) -> dict[str, dict[str, int]]:
    """Lower-case word to its single-token forms, read off the tokenizer's pieces."""
    found: dict[str, dict[str, int]] = {}
    for piece, i in tokenizer.get_vocab().items():
        text = re.sub("^[Ġ▁]", " ", piece)
        if re.fullmatch(" ?([a-z]+|[A-Z][a-z]*)", text):
            found.setdefault(text.strip().lower(), {})[_form(text)] = int(i)
    return found


def _form(text: str) -> str:
    return (" " if text.startswith(" ") else "") + ("W" if text.strip()[:1].isupper() else "w")


def _spell(word: str, form: str) -> str:
    return form.replace("w", word).replace("W", word.capitalize())


def _entry(tokenizer: Any, cls: str, word: str) -> Entry:
    family = "words" if any(c.isalpha() for c in word) else "glyphs"
    spelled = dict.fromkeys((word, f" {word}", word[:1].upper() + word[1:], f" {word[:1].upper()}{word[1:]}"))
    variants = tuple((text, _single(tokenizer, text)) for text in spelled)
    ids = tuple(sorted({ids[0] for _, ids in variants if len(ids) == 1}))
    pieces = " + ".join(repr(_text(tokenizer, [i])) for i in variants[0][1])
    reason = "" if ids else f"no variant is a single token; {word!r} is {pieces}"
    return Entry(word, cls, family, variants, ids, reason)


def _single(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Ids of `text` where a new line comes before it, so that SentencePiece adds no space of its own."""
    context = _ids(tokenizer, "\n")
    joint = _ids(tokenizer, "\n" + text)
    ids = joint[len(context) :] if joint[: len(context)] == context else _ids(tokenizer, text)
    # An unknown token is a single one, too, but it is not this word.
    if len(ids) == 1 and _text(tokenizer, ids).strip() != text.strip():
        return (*ids, *ids)
    return ids


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


def _ids(tokenizer: Any, text: str, *, special: bool = False) -> tuple[int, ...]:
    encoded = tokenizer.encode(text, add_special_tokens=special)
    return tuple(int(i) for i in getattr(encoded, "ids", encoded))


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids)))
