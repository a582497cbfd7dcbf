"""The examples that a config names, in place of arithmetic: found beside it, and checked against it.

In: the valid file, and its folder. Out: `Example`s; problems in `Findings`.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping

from ..errors import UsageError
from ..tasks import examples
from ..tasks.examples import Example
from ..wording import did_you_mean, printable, quoted
from . import schema
from .arms import Findings
from .document import Path
from .settings import TestPrompt

_EXAMPLES: Path = ("parameters", "examples")
_ARITHMETIC = ("operations", "operands", "styles", "read_styles")


def gather(p: schema.Parameters, findings: Findings, folder: pathlib.Path | None) -> tuple[Example, ...]:
    """What the file of examples holds; nothing where the task is arithmetic."""
    if p.examples is None:
        return ()
    for name in _ARITHMETIC:
        if name in p.model_fields_set:
            findings.say(("parameters", name), f"is for arithmetic, not for {quoted(p.examples)}; drop it")
    name = quoted(p.examples)
    if folder is None:
        findings.say(_EXAMPLES, f"{name} lies beside a config file, and this config is none")
        return ()
    if "\0" in p.examples or not (folder / p.examples).resolve().is_relative_to(folder.resolve()):
        findings.say(_EXAMPLES, f"{name} leads out of the config's folder; put the file beside the config")
        return ()
    try:
        found = examples.load(folder / p.examples, printable(str(folder / p.examples), 300))
    except UsageError as error:
        findings.wrong += str(error).split("\n")
        return ()
    if not found:
        findings.say(_EXAMPLES, f"{name} holds no example; write some")
    for cls in sorted({e.cls for e in found} - p.task_vocabulary.keys()):
        hint = did_you_mean(cls, p.task_vocabulary)
        what = f"no words for the class {quoted(cls)} of {name}{hint or '; add some'}"
        findings.say(("parameters", "task_vocabulary"), what)
    return found


def shown(
    cls: str, row: schema.Prompt, path: Path, known: Mapping[tuple[str, str], Example], findings: Findings
) -> Iterator[TestPrompt]:
    """A prompt to show; one that is an example needs no expected answer. Nothing where it is wrong."""
    text, example = quoted(row.prompt), known.get(examples.key(row.prompt))
    expected = row.expected if row.expected is not None or example is None else example.answer
    if expected is None:
        findings.say(path, f"{text} is no example, so its answer is not known; write it as `expected`")
        return
    if example and (example.cls, example.answer) != (cls, expected):
        is_ = f"class {example.cls}, answer {quoted(example.answer)}"
        findings.say(path, f"{text} is an example ({is_}); write the same here")
        return
    try:
        Example(cls, row.prompt, expected)
    except UsageError as error:
        findings.say(path, str(error))
    else:
        yield TestPrompt(cls=cls, prompt=row.prompt, expected=expected, own=True)
