"""A task of your own: your prompts, your classes, your words, read in a model and judged like any other.

In: a `task.yaml`. Out: a `Study` of that model (step 0 only: nothing is trained), and verdicts on claims
about it. The arm is `base`, the style `own`; the right answer is the class's first word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from . import models, reader, tokens, verdicts
from .errors import UsageError
from .lens import LogitLens
from .own_task import SLOT, Task, load
from .predictions import Prediction
from .readings import Prompt, Readings, Study
from .store import Store
from .verdicts import Verdict

__all__ = ["Task", "judge", "load", "read"]

STYLE = "own"
RANDOM_SETS = 20


def judge(path: Path, claims: Sequence[Prediction], store: Store, model: str | None = None) -> list[Verdict]:
    """One verdict per claim and class; `model` beats the task's own.

    Raises
    ------
    UsageError
        The task or a claim cannot mean what was written. NotMeasurable: the model cannot be had.
    """
    wrong = [c.id for c in claims if (c.arm, c.style) != ("base", STYLE)]
    if wrong:
        raise UsageError(f"{', '.join(wrong)}: a task of your own has arm='base' and style={STYLE!r} only")
    probing = [c.id for c in claims if c.test == "probe"]
    if probing:
        # Hewitt and Liang's control needs types that say nothing of the class; free texts have none.
        raise UsageError(
            f"{', '.join(probing)}: test='probe' needs a control task, which free texts do not have"
        )
    return verdicts.judge(claims, _read_once(path.resolve(), store.root, model))


@lru_cache(maxsize=8)
def _read_once(path: Path, root: Path, model: str | None) -> Study:
    task = load(path)
    loaded, tokenizer = models.load(model or task.model, store=Store(root))
    named = max(tokenizer.get_vocab().values()) + 1
    lens = LogitLens(loaded)
    return read(task, lens if named >= lens.head_size else LogitLens(loaded, named), tokenizer)


def read(task: Task, lens: LogitLens, tokenizer: Any) -> Study:
    """The readings of the model under the lens on every text of the task, as a `Study`.

    Raises
    ------
    UsageError
        A class has no single-token word, two share one, or a text contains a word of its own class.
    """
    vocabulary = tokens.audit(tokenizer, {name: c.words for name, c in task.classes.items()})
    prompts = _prompts(task)
    prompt_ids = tuple(tokens.encode_prompt(tokenizer, p.text) for p in prompts)
    _no_copying(prompts, prompt_ids, vocabulary.words)
    answers = {name: vocabulary.words[name][0] for name in task.classes}
    answer_ids = tuple(sorted(set(answers.values())))
    plan = reader.Plan(
        prompts=prompts,
        prompt_ids=prompt_ids,
        classes=tuple(task.classes),
        words={STYLE: vocabulary.words},
        glyphs=vocabulary.words,  # there are no glyphs; the lens refuses empty sets, see _assembled
        random_words=tokens.random_words(tokenizer, vocabulary, RANDOM_SETS, task.seed),
        answer_ids=answer_ids,
        own_answer=tuple(answer_ids.index(answers[p.operation]) for p in prompts),
    )
    return Study((_assembled(plan, lens, reader.read(lens, plan)),))


def _prompts(task: Task) -> tuple[Prompt, ...]:
    """Every text in the template, each class's split at random into selection and evaluation half."""
    rng = np.random.default_rng([task.seed, 11])
    made = []
    for name, c in task.classes.items():
        halves = rng.permutation(len(c.texts)) % 2
        for i, (text, half) in enumerate(zip(c.texts, halves, strict=True)):
            filled = task.template.replace(SLOT, text)
            made.append(Prompt(filled, name, i, 0, c.words[0], STYLE, int(half)))
    return tuple(made)


def _no_copying(
    prompts: Sequence[Prompt], prompt_ids: Sequence[Sequence[int]], words: Mapping[str, Sequence[int]]
) -> None:
    for prompt, ids in zip(prompts, prompt_ids, strict=True):
        if set(ids) & set(words[prompt.operation]):
            raise UsageError(
                f"{prompt.text!r}: contains a word of its own class {prompt.operation}; that is copying"
            )


def _assembled(plan: reader.Plan, lens: LogitLens, arrays: dict[str, np.ndarray]) -> Readings:
    stacked = {name: values[None] for name, values in arrays.items()}
    stacked["glyphs"] = np.full_like(stacked["glyphs"], -np.inf)
    own = np.array(plan.own_answer)
    return Readings(
        arm="base",
        seed=0,
        steps=(0,),
        prompts=plan.prompts,
        classes=plan.classes,
        answer_ids=np.array(plan.answer_ids),
        own_answer=own,
        correct=stacked["top_ids"][:, -1, :, 0] == np.array(plan.answer_ids)[own],
        hidden=np.asarray(lens.streams(list(plan.prompt_ids)), dtype=np.float32),
        token_sets={"words": plan.words[STYLE], "glyphs": {}, "random_words": plan.random_words},
        **stacked,
    )
