"""Sets of random words, as many and as frequent as those of the classes, for control C2.

In: a tokenizer, an audited `Vocabulary`, a seed. Out: token ids by set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import numpy as np
from numpy.random import Generator

from ..errors import NotMeasurable
from .vocabulary import Entry, Vocabulary, single

_NEAREST = 40
"""Random words are drawn among this many nearest in rank."""


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
    forms = {_form(text) for text, ids in entry.variants if len(ids) == 1}
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
            if found and all(single(tokenizer, text) == (i,) for text, i in found):
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
