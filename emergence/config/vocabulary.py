"""The words and glyphs of each class: sound ones, each in one class.

In: the lists of the valid file. Out: what is looked for, by class; problems and notices in `Problems`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..wording import quoted
from .problems import Path, Problems

_VOCABULARY: Path = ("parameters", "task_vocabulary")


def resolve(
    written: Mapping[str, Sequence[str]],
    classes: Sequence[str],
    glyphs: Mapping[str, str],
    problems: Problems,
) -> dict[str, tuple[str, ...]]:
    """The words of each class; `glyphs` of the task and their classes are taken already."""
    vocabulary = {cls: _words(cls, written[cls], problems) for cls in classes if cls in written}
    owner = dict(glyphs)
    for cls, words in vocabulary.items():
        for word in words:
            first = owner.setdefault(word.casefold(), cls)
            if first != cls:
                what = f"{quoted(word)} belongs to {first}, too; keep it in one class"
                problems.say((*_VOCABULARY, cls), what)
    return vocabulary


def unprintable(text: str) -> str:
    """`U+0007`, the first character that would act on a terminal instead of being shown; mostly empty."""
    return next((f"U+{ord(c):04X}" for c in text if not c.isprintable()), "")


def _words(cls: str, written: Sequence[str], problems: Problems) -> tuple[str, ...]:
    kept: list[str] = []
    for i, word in enumerate(written):
        path = (*_VOCABULARY, cls, i)
        if bad := unprintable(word):
            problems.say(path, f"{quoted(word)} holds the character {bad}; write it without")
        elif word != word.strip():
            problems.say(path, f"{quoted(word)} has a space around it; drop it, spaced variants are found")
        elif word.isnumeric():
            problems.note(path, f"{quoted(word)} left out: answers come from each problem")
        elif word in kept:
            problems.say(path, f"{quoted(word)} is given twice; drop one")
        else:
            kept.append(word)
    if not any(any(c.isalpha() for c in word) for word in kept):
        problems.say((*_VOCABULARY, cls), f"no word for the class {cls}; add one, such as {cls}")
    return tuple(kept)
