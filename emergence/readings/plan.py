"""What is read, the same for every run: prompts with their halves, their ids, and the token sets.

In: a tokenizer, a vocabulary, a task with its test items. Out: a `Plan`. No MLX.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..tasks.encoding import encode_answer, encode_prompt
from ..tasks.item import Item
from ..tasks.random_words import random_words
from ..tasks.task import Shown, Task
from ..tasks.vocabulary import Vocabulary
from .readings import Prompt, disjoint, separate

RANDOM_SETS = 20
"""Random word sets of control C2."""


@dataclass(frozen=True)
class Plan:
    """What is read, the same for every run: prompts, their ids, and the token sets of each style."""

    prompts: tuple[Prompt, ...]
    prompt_ids: tuple[tuple[int, ...], ...]
    classes: tuple[str, ...]
    words: dict[str, dict[str, tuple[int, ...]]]
    """By style, then class: the style's own words are not in it."""
    glyphs: dict[str, tuple[int, ...]]
    random_words: dict[str, tuple[int, ...]]
    answer_ids: tuple[int, ...]
    own_answer: tuple[int, ...]

    @property
    def token_sets(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """Ids by family and class; a word that counts in any style is a word."""
        words = {c: tuple(sorted({i for s in self.words.values() for i in s[c]})) for c in self.classes}
        return {"words": words, "glyphs": self.glyphs, "random_words": self.random_words}

    def spec(self) -> dict[str, Any]:
        """Everything that decides what is read, for the store's key."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[no-any-return]


def make_plan(
    tokenizer: Any, vocabulary: Vocabulary, task: Task, test: Sequence[Item], shown: Iterable[Shown] = ()
) -> Plan:
    """Prompts of all styles with their halves, and every id that is looked at.

    A problem is in the same half in every style: no layer is chosen on a problem that it is judged on.

    Raises
    ------
    BrokenExperiment
        A problem is in both halves, or a token is counted in two sets.
    """
    made = _plan(tokenizer, vocabulary, task, test, shown)
    disjoint(made.prompts)
    separate(made.token_sets)
    return made


def _plan(
    tokenizer: Any, vocabulary: Vocabulary, task: Task, test: Sequence[Item], shown: Iterable[Shown]
) -> Plan:
    half = halves(test, task.seed)
    prompts = [
        _prompt(task, item, style, item.prompt(style), half[item])
        for style in task.read_styles
        for item in test
    ]
    prompts += [_prompt(task, s.item, s.style, s.text, half=-1) for s in shown]
    prompt_ids = tuple(encode_prompt(tokenizer, p.text) for p in prompts)
    firsts = [encode_answer(tokenizer, p.text, p.answer)[0] for p in prompts]
    answer_ids = sorted(set(firsts))
    return Plan(
        prompts=tuple(prompts),
        prompt_ids=prompt_ids,
        classes=tuple(vocabulary.words),
        words={
            style: vocabulary.for_style(
                style,
                [p.text for p in prompts if p.style == style],
                [ids for p, ids in zip(prompts, prompt_ids, strict=True) if p.style == style],
            )
            for style in dict.fromkeys(p.style for p in prompts)
        },
        glyphs=dict(vocabulary.glyphs),
        random_words=random_words(tokenizer, vocabulary, RANDOM_SETS, task.seed),
        answer_ids=tuple(answer_ids),
        own_answer=tuple(answer_ids.index(i) for i in firsts),
    )


def _prompt(task: Task, item: Item, style: str, text: str, half: int) -> Prompt:
    key, label = task.key(item), task.control_label(item)
    return Prompt(text, item.cls, task.answer(item), style, half, key, label, item.numbers)


def halves(test: Sequence[Item], seed: int) -> dict[Item, int]:
    """Half of each test item: 0 and 1 dealt in turn within each class, in a random order by the seed."""
    rng = np.random.default_rng([seed, 7])
    half = {}
    for cls in dict.fromkeys(item.cls for item in test):
        members = [item for item in test if item.cls == cls]
        for rank, index in enumerate(rng.permutation(len(members))):
            half[members[index]] = rank % 2
    return half
