"""From a file to the settings: what it leaves open is filled in, what the whole shows to be wrong is told.

In: a document that was read, and overrides. Out: a `Config` with its notices, or every problem at once.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from ..errors import UsageError
from ..tasks import examples
from ..tasks import task as tasks
from ..tasks.examples import Example
from ..wording import did_you_mean, dotted, printable, quoted
from . import arms, fields, overrides, schema
from . import task as corpus
from .arms import Findings
from .document import Document, Path
from .settings import Config, Task, TestPrompt

_TEXTS = ("name", "model", "description", "examples", "task_vocabulary", "test_prompts")
_VOCABULARY: Path = ("parameters", "task_vocabulary")
_MOST = 30
"""Problems that are told in words; the rest is a number."""
_ALONE = "{} class; a classifier tells classes apart: write at least 2"
_ANYWHERE = (2, 99)
"""Operands of a class for which the config names none."""


def resolve(document: Document, given: Mapping[str, object], folder: pathlib.Path | None = None) -> Config:
    """The experiment in a document, after the overrides; raises `UsageError` with a line for each problem.

    `folder` is where the document lies, and its `examples` with it.
    """
    if not isinstance(document.data, dict):
        what = "empty" if document.data in (None, "") else "not a mapping"
        raise UsageError(f"{document.place(())}: the config is {what}; write name, model and parameters")
    if not schema.is_own(document.data):
        for path, line in list(document.lines.items()):
            document.lines.setdefault(tuple(schema.CLASS_NAMES.get(str(p), p) for p in path), line)
    notices = _top_level(document) + overrides.apply(document, given, as_text) + _without_meaning(document)
    wrong = list(document.wrong)
    try:
        context = schema.OWN if schema.is_own(document.data) else None
        file = schema.Layout.model_validate(document.data, context=context)
    except ValidationError as error:
        wrong += fields.explain(error, document)
    findings = Findings(document, notices, wrong)
    experiment = None if wrong else _experiment(file, findings, folder)
    if experiment is None or findings.wrong:
        raise UsageError("\n".join(_told(findings)))
    return experiment


def _told(findings: Findings) -> list[str]:
    lines = list(dict.fromkeys(findings.wrong))
    more = [f"{findings.document.name}: {len(lines) - _MOST} more problems"] if len(lines) > _MOST else []
    return lines[:_MOST] + more


def as_text(path: Path) -> bool:
    """Fields whose value is the text that was written: the word `no`, the answer 56, the name 1e5."""
    if path[:1] == ("parameters",):
        path = path[1:]
    if path[:1] in {(name,) for name in _TEXTS}:
        return True
    return path[:2] == ("training", "training_methods") and path[3:4] == ("classifier_targets",)


def _top_level(document: Document) -> list[str]:
    """Unknown top-level keys are parameters, as lazarus has it, unless they look like a slip of ours."""
    data, notices = document.data, []
    parameters = data.get("parameters")
    for key in [k for k in data if k not in schema.Layout.model_fields]:
        place = document.place((key,))
        if key in schema.Parameters.model_fields and isinstance(parameters, dict) and key not in parameters:
            parameters[key] = data[key]
            for path, line in list(document.lines.items()):
                if path[:1] == (key,):
                    document.lines.setdefault(("parameters", *path), line)
            notices.append(f"{place}: {key}: read as parameters.{key}")
        elif hint := did_you_mean(key, schema.Layout.model_fields):
            document.wrong.append(f"{place}: {printable(key)}: unknown key{hint}")
        else:
            notices.append(f"{place}: {printable(key)}: not used here")
        del data[key]
    return notices


def _without_meaning(document: Document) -> list[str]:
    """Take out what lazarus configs say and nothing here reads."""
    training = document.data.get("training")
    methods = training.get("training_methods") if isinstance(training, dict) else None
    sections: list[tuple[Path, Any, Sequence[str]]] = [(("training",), training, schema.UNUSED["training"])]
    for name, arm in methods.items() if isinstance(methods, dict) else ():
        sections.append((("training", "training_methods", name), arm, schema.UNUSED["method"]))
    notices = []
    for path, section, names in sections:
        for name in [n for n in names if isinstance(section, dict) and n in section]:
            del section[name]
            if section.get("method") != "grpo":
                where = (*path, name)
                notices.append(f"{document.place(where)}: {dotted(where)}: not used here")
    return notices


def _experiment(file: schema.Layout, findings: Findings, folder: pathlib.Path | None) -> Config:
    own = corpus.gather(file.parameters, findings, folder)
    classes = _operations(file.parameters, own, findings)
    written = file.parameters.task_vocabulary
    vocabulary = {cls: _words(cls, [*words], findings) for cls, words in written.items() if cls in classes}
    vocabulary = {cls: vocabulary[cls] for cls in classes if cls in vocabulary}
    _check_overlap(vocabulary, {} if own else {g: cls for cls, g in tasks.GLYPHS.items()}, findings)
    prompts = tuple(_prompts(file.parameters, classes, own, findings))
    for field in ("name", "description", "model"):
        if bad := _unprintable(getattr(file, field)):
            findings.say((field,), f"holds the character {bad}; write it without")
    return Config(
        name=file.name,
        description=file.description,
        model=file.model,
        arms=arms.resolve(file, vocabulary, findings),
        task=_task(file.parameters, classes, prompts, own, findings),
        vocabulary=vocabulary,
        test_prompts=prompts,
        notices=tuple(findings.notices),
    )


def _operations(p: schema.Parameters, own: Sequence[Example], findings: Findings) -> tuple[str, ...]:
    if p.examples is not None:
        if len(p.task_vocabulary) < 2:
            findings.say(_VOCABULARY, _ALONE.format(len(p.task_vocabulary)))
        return tuple(p.task_vocabulary)
    named = p.operations if p.operations is not None else list(p.task_vocabulary)
    for cls in p.task_vocabulary:
        if cls not in named:
            findings.note((*_VOCABULARY, cls), "left out: not among the operations")
    for cls in named:
        if cls not in p.task_vocabulary:
            findings.say(_VOCABULARY, f"no words for the class {cls}; add some, or drop it from operations")
    if len(named) < 2:
        findings.say(_VOCABULARY, _ALONE.format(len(named)))
    return tuple(op for op in tasks.OPERATIONS if op in named)


def _words(cls: str, written: Sequence[str], findings: Findings) -> tuple[str, ...]:
    kept: list[str] = []
    for i, word in enumerate(written):
        path = (*_VOCABULARY, cls, i)
        if bad := _unprintable(word):
            findings.say(path, f"{quoted(word)} holds the character {bad}; write it without")
        elif word != word.strip():
            findings.say(path, f"{quoted(word)} has a space around it; drop it, spaced variants are found")
        elif word.isnumeric():
            findings.note(path, f"{quoted(word)} left out: answers come from each problem")
        elif word in kept:
            findings.say(path, f"{quoted(word)} is given twice; drop one")
        else:
            kept.append(word)
    if not any(any(c.isalpha() for c in word) for word in kept):
        findings.say((*_VOCABULARY, cls), f"no word for the class {cls}; add one, such as {cls}")
    return tuple(kept)


def _check_overlap(
    vocabulary: Mapping[str, Sequence[str]], owner: dict[str, str], findings: Findings
) -> None:
    for cls, words in vocabulary.items():
        for word in words:
            first = owner.setdefault(word.casefold(), cls)
            if first != cls:
                what = f"{quoted(word)} belongs to {first}, too; keep it in one class"
                findings.say((*_VOCABULARY, cls), what)


def _task(
    p: schema.Parameters,
    classes: tuple[str, ...],
    prompts: Sequence[TestPrompt],
    own: tuple[Example, ...],
    findings: Findings,
) -> Task:
    ranges = {op: tuple(p.operands.get(op, _ANYWHERE)) for op in classes if p.examples is None}
    task = Task(
        classes=classes,
        operands=ranges,  # type: ignore[arg-type]
        examples=own,
        styles=tuple(p.styles) if p.examples is None else (examples.STYLE,),
        read_styles=tuple(p.read_styles) if p.examples is None else (examples.STYLE,),
        num_train=p.num_samples // max(len(classes), 1),
        num_valid=p.num_valid,
        num_test=p.num_test,
        seed=p.seed,
    )
    if unread := [style for style in task.styles if style not in task.read_styles]:
        findings.say(("parameters", "read_styles"), f"{unread[0]} is trained on but not read; add it")
    if task.num_train < 1:
        findings.say(("parameters", "num_samples"), f"{p.num_samples} is less than one a class; raise it")
    need = task.num_train + task.num_valid + task.num_test
    shown = {t.problem.key for t in prompts}
    for op in classes if own else ():
        free = sum(e.cls == op and e.key not in shown for e in own)
        if short := examples.shortage(op, free, need):
            findings.say(("parameters", "examples"), short)
    for op, (low, high) in task.operands.items():
        path = ("parameters", "operands", op)
        if op == "divide" and low == 0:
            findings.say(path, f"[{low}, {high}] holds the divisor 0; begin at 1")
        elif short := tasks.shortage(op, low, high, need, [t.problem for t in prompts]):
            findings.say(path, short)
    return task


def _prompts(
    p: schema.Parameters, classes: Sequence[str], own: Sequence[Example], findings: Findings
) -> Iterator[TestPrompt]:
    seen: set[str] = set()
    known = {e.key: e for e in own}
    for cls, written in p.test_prompts.items():
        if cls not in classes:
            findings.note(("parameters", "test_prompts", cls), "left out: not among the operations")
            continue
        for i, row in enumerate(written):
            path: Path = ("parameters", "test_prompts", cls, i)
            if row.prompt in seen:
                findings.say(path, f"{quoted(row.prompt)} is given twice; drop one")
            elif p.examples is not None:
                # Of a file that could not be read enough has been said.
                yield from corpus.shown(cls, row, path, known, findings) if known else ()
            elif shown := _prompt(cls, row, path, p.read_styles, findings):
                yield shown
            seen.add(row.prompt)


def _prompt(
    cls: str, row: schema.Prompt, path: Path, read_styles: Sequence[str], findings: Findings
) -> TestPrompt | None:
    text = quoted(row.prompt)
    try:
        problem, style = tasks.parse(row.prompt)
    except UsageError as error:
        findings.say(path, str(error))
        return None
    answer = str(problem.answer)
    if problem.cls != cls:
        findings.say(path, f"{text} is a problem to {problem.cls}, not to {cls}; move it there")
    elif row.expected is not None and row.expected.strip() != answer:
        findings.say(path, f"the answer of {text} is {answer}, not {quoted(row.expected)}")
    elif style not in read_styles:
        findings.say(path, f"{text} is {style}, which read_styles leaves out; add it there")
    else:
        if row.prompt != problem.prompt(style):
            findings.note(path, f"{text} is read as it is; what is trained on is {problem.prompt(style)!r}")
        return TestPrompt(cls=cls, prompt=row.prompt, expected=answer)
    return None


def _unprintable(text: str) -> str:
    return next((f"U+{ord(c):04X}" for c in text if not c.isprintable()), "")
