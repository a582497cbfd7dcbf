"""What is read, the same for every run: prompts with their halves, their ids, and the token sets.

In: a tokenizer, a vocabulary, a task with its test items. Out: a `Plan`. No MLX.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from ..tasks.encoding import encode_answer, encode_prompt
from ..tasks.item import Item
from ..tasks.random_words import random_words
from ..tasks.task import Shown, Task
from ..tasks.vocabulary import Vocabulary
from .effects import CAUSAL, USED
from .readings import Prompt, disjoint, separate

ANYWHERE = "words anywhere"
"""The family of operation words at every position."""
WRITTEN = "whole answers"
"""What the model writes, at every checkpoint."""
OF_ACCURACY = ("contrast", "accuracy gain", "no accuracy gain")
"""Tests of what the model writes."""
RANDOM_SETS = 20
"""Random word sets of control C2."""
PROBLEMS = 200
"""Problems whose prompts interventions exchange at most, half of them in each half. That a part is *not* used
takes about 150: of fewer, one in twenty could carry everything."""


class Pair(NamedTuple):
    """Prompts between which interventions exchange streams, as indices into the plan's prompts."""

    base: int
    source: int
    """The same operands under another class, with another first answer token."""
    other: int
    """Other operands under the source's class, with a first answer token of its own; -1: there is none."""


@dataclass(frozen=True)
class Plan:
    """What is read, the same for every run: prompts, their ids, and the token sets of each style."""

    prompts: tuple[Prompt, ...]
    prompt_ids: tuple[tuple[int, ...], ...]
    forced_ids: tuple[tuple[int, ...], ...]
    """The prompts with all of their answers but the last token, which is predicted at the end of it."""
    classes: tuple[str, ...]
    words: dict[str, dict[str, tuple[int, ...]]]
    """By style, then class: the style's own words are not in it."""
    glyphs: dict[str, tuple[int, ...]]
    random_words: dict[str, tuple[int, ...]]
    answer_ids: tuple[int, ...]
    """Last tokens of the answers, each once."""
    own_answer: tuple[int, ...]
    first_ids: tuple[int, ...]
    """First tokens of the answers, each once."""
    own_first: tuple[int, ...]
    trained: tuple[str, ...]
    """The styles that are trained on. They are read at every checkpoint, and the model is left to answer
    them at step 0 and at the last one."""
    longest: int
    """Tokens of the longest answer."""
    asked: dict[str, tuple[str, ...]]
    """By arm, what a claim about it needs beside the trained styles: other styles, and `ANYWHERE`, which are
    read at step 0 (all styles are) and at the arm's last checkpoint; and `WRITTEN`."""
    intervened: dict[str, tuple[tuple[str, str], ...]]
    """By arm of a causal claim, the parts of the stream and the bands of depth that are said to be used."""
    pairs: tuple[Pair, ...]
    """Empty where no claim is causal."""

    @property
    def written(self) -> tuple[int, ...]:
        """The prompts that the model answers in its own words."""
        return tuple(i for i, p in enumerate(self.prompts) if p.half >= 0 and p.style in self.trained)

    @property
    def token_sets(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """Ids by family and class; a word that counts in any style is a word."""
        words = {c: tuple(sorted({i for s in self.words.values() for i in s[c]})) for c in self.classes}
        return {"words": words, "glyphs": self.glyphs, "random_words": self.random_words}

    @property
    def asks_permuted(self) -> bool:
        """Some claim is about what the lens reads of permuted weights."""
        return "permuted" in self.asked

    @property
    def asks_anywhere(self) -> bool:
        """Some claim is about words at every position."""
        return any(ANYWHERE in needs for needs in self.asked.values())

    def of_arm(self, arm: str) -> tuple[tuple[str, ...], bool]:
        """The styles that are read at an arm's last checkpoint, and whether every position is."""
        asked = self.asked.get(arm, ())
        return tuple(s for s in self.words if s in self.trained or s in asked), ANYWHERE in asked

    def writes(self, arm: str) -> bool:
        """Whether the model answers in its own words at every checkpoint of an arm, not only at the last."""
        return WRITTEN in self.asked.get(arm, ())

    def spec(self) -> dict[str, Any]:
        """Everything that decides what is read of every arm, for the store's key."""
        found = dataclasses.asdict(self)
        for of_arms in ("asked", "intervened", "pairs"):
            del found[of_arms]
        return json.loads(json.dumps(found))  # type: ignore[no-any-return]


@runtime_checkable  # tests check types at run time
class Claim(Protocol):
    """What decides whether something is read: a prediction."""

    arm: str
    style: str
    family: str
    against: tuple[str, ...]
    test: str
    band: str


def make_plan(
    tokenizer: Any,
    vocabulary: Vocabulary,
    task: Task,
    test: Sequence[Item],
    shown: Iterable[Shown] = (),
    claims: Iterable[Any] = (),
) -> Plan:
    """Prompts of all styles with their halves, and every id that is looked at.

    A problem is in the same half in every style: no layer is chosen on a problem that it is judged on.

    Raises
    ------
    BrokenExperiment
        A problem is in both halves, or a token is counted in two sets.
    """
    claims = tuple(claims)
    made = _plan(tokenizer, vocabulary, task, test, shown, claims)
    disjoint(made.prompts)
    separate(made.token_sets)
    return made


def _asked(task: Task, claims: Iterable[Claim]) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for claim in claims:
        if claim.arm == "permuted" and claim.family == "stream":
            continue  # its streams are kept with the base model's
        needs = {claim.style} - {*task.styles} | ({ANYWHERE} if claim.family == ANYWHERE else set())
        needs |= {WRITTEN} if claim.test in OF_ACCURACY else set()
        for arm in (claim.arm, *claim.against):
            found.setdefault(arm, set()).update(needs)
    return {arm: tuple(sorted(needs)) for arm, needs in found.items()}


def _plan(
    tokenizer: Any,
    vocabulary: Vocabulary,
    task: Task,
    test: Sequence[Item],
    shown: Iterable[Shown],
    claims: Sequence[Claim],
) -> Plan:
    half = halves(test, task.seed)
    prompts = [
        _prompt(task, item, style, item.prompt(style), half[item])
        for style in task.read_styles
        for item in test
    ]
    prompts += [_prompt(task, s.item, s.style, s.text, half=-1) for s in shown]
    prompt_ids = tuple(encode_prompt(tokenizer, p.text) for p in prompts)
    answers = [encode_answer(tokenizer, p.text, p.answer) for p in prompts]
    firsts, lasts = [ids[0] for ids in answers], [ids[-1] for ids in answers]
    first_ids, answer_ids = sorted(set(firsts)), sorted(set(lasts))
    intervened = _intervened(claims)
    return Plan(
        prompts=tuple(prompts),
        prompt_ids=prompt_ids,
        forced_ids=tuple((*ids, *said[:-1]) for ids, said in zip(prompt_ids, answers, strict=True)),
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
        own_answer=tuple(answer_ids.index(i) for i in lasts),
        first_ids=tuple(first_ids),
        own_first=tuple(first_ids.index(i) for i in firsts),
        trained=tuple(task.styles or task.read_styles),
        longest=max(map(len, answers)),
        asked=_asked(task, claims),
        intervened=intervened,
        pairs=_pairs(prompts, prompt_ids, firsts, style_of(task)) if intervened else (),
    )


def style_of(task: Task) -> str:
    """The style in which streams are exchanged: the first that is trained on."""
    return (task.styles or task.read_styles)[0]


def _intervened(claims: Iterable[Claim]) -> dict[str, tuple[tuple[str, str], ...]]:
    found: dict[str, set[tuple[str, str]]] = {}
    for claim in claims:
        if claim.test in CAUSAL:
            parts = {(claim.family, claim.band)} if claim.test == USED else set()
            found.setdefault(claim.arm, set()).update(parts)
    return {arm: tuple(sorted(parts)) for arm, parts in found.items()}


def _pairs(
    prompts: Sequence[Prompt], ids: Sequence[Sequence[int]], firsts: Sequence[int], style: str
) -> tuple[Pair, ...]:
    """Of each prompt about some problems, one with the same operands whose answer begins otherwise.

    Classes take turns as the source. Prompts of a pair have as many tokens; so has the third.
    """
    where: dict[tuple[tuple[int, ...], str], int] = {}
    for i, p in enumerate(prompts):
        if p.style == style and p.half >= 0 and p.numbers:
            where[p.numbers, p.cls] = i
    classes = list(dict.fromkeys(cls for _, cls in where))
    numbers = dict.fromkeys(n for n, _ in where if all((n, c) in where for c in classes))
    chosen: list[tuple[int, ...]] = []
    for half in (0, 1):
        chosen += [n for n in numbers if prompts[where[n, classes[0]]].half == half][: PROBLEMS // 2]
    found: list[Pair] = []
    for k, cls in enumerate(classes):
        others = classes[:k] + classes[k + 1 :]
        for turn, n in enumerate(chosen):
            base, taken = where[n, cls], {firsts[where[n, cls]]}
            turned = others[turn % len(others) :] + others[: turn % len(others)]
            source = next((where[n, c] for c in turned if _fits(ids, firsts, base, where[n, c], taken)), None)
            if source is None:
                continue
            taken = {*taken, firsts[source]}
            after = (where[m, prompts[source].cls] for m in chosen[turn + 1 :] + chosen[:turn])
            alike = (i for i in after if prompts[i].half == prompts[base].half)
            other = next((i for i in alike if _fits(ids, firsts, base, i, taken)), -1)
            found.append(Pair(base, source, other))
    return tuple(found)


def _fits(
    ids: Sequence[Sequence[int]], firsts: Sequence[int], base: int, other: int, taken: set[int]
) -> bool:
    return len(ids[base]) == len(ids[other]) and firsts[other] not in taken


def _prompt(task: Task, item: Item, style: str, text: str, half: int) -> Prompt:
    key, label = task.key(item), task.control_label(item)
    return Prompt(text, item.cls, task.answer(item), style, half, key, label, item.numbers)


def halves(test: Sequence[Item], seed: int) -> dict[Item, int]:
    """Half of each test item: 0 and 1 dealt in turn within each class, in a random order by the seed.

    An item with the operands of one that has a half already goes there: `7 - 3` to `3 + 7`.
    """
    rng = np.random.default_rng([seed, 7])
    half: dict[Item, int] = {}
    of_problem: dict[Any, int] = {}
    for cls in dict.fromkeys(item.cls for item in test):
        members = [item for item in test if item.cls == cls]
        for rank, index in enumerate(rng.permutation(len(members))):
            item = members[index]
            half[item] = of_problem.setdefault(tuple(sorted(item.numbers)) or item.key, rank % 2)
    return half
