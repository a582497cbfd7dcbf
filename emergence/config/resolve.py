"""From a document to the settings: fills in what it leaves open, and tells what only the whole shows wrong.

In: a document, translated and overridden. Out: a `Config` with its notices, or every problem at once.
"""

from __future__ import annotations

import os
import pathlib

from pydantic import ValidationError

from . import arms, schema, task, values, vocabulary
from .document import Document
from .problems import Problems
from .settings import Config

_HOME = ("~", "$HOME", "${HOME}")


def settle(document: Document, folder: pathlib.Path | None) -> Config:
    """The config in a document; `folder` is where it lies, and its `examples` with it.

    Raises `UsageError` with a line for each problem.
    """
    problems = document.problems
    try:
        file = schema.Layout.model_validate(document.data, context=values.classes(document.data))
    except ValidationError as error:
        problems.explain(error, schema.names(document.data))
    problems.refuse()
    return _config(file, problems, folder)


def _config(file: schema.Layout, problems: Problems, folder: pathlib.Path | None) -> Config:
    """The settings; every stage is asked before anything is refused."""
    parameters = file.parameters
    classes = task.classes(parameters, problems)
    made = task.make(parameters, classes, problems, folder)
    glyphs = {glyph: cls for cls in classes for glyph in made.glyphs(cls)} if made else {}
    words = vocabulary.resolve(parameters.task_vocabulary, classes, glyphs, problems)
    prompts = tuple(task.prompts(parameters, made, problems)) if made else ()
    trained = arms.resolve(file, words, problems, folder)
    if made:
        task.check_supply(made, prompts, problems)
    for name in ("name", "description", "model"):
        if bad := vocabulary.unprintable(getattr(file, name)):
            problems.say((name,), f"holds the character {bad}; write it without")
    model = _at_home(file.model, problems)
    problems.refuse()
    assert made, "there is a task where there is no problem"
    return Config(
        name=file.name,
        description=file.description,
        model=model,
        arms=trained,
        task=made,
        vocabulary=words,
        test_prompts=prompts,
        notices=tuple(problems.notices),
    )


def _at_home(model: str, problems: Problems) -> str:
    """A model's name, with the home folder where `~` or `$HOME` stands for it."""
    sign, slash, rest = model.partition("/")
    if sign not in _HOME:
        return model
    # The notice goes into results, so it does not say which folder that is.
    problems.note(("model",), f"{sign} is read as the home folder")
    return os.path.expanduser("~") + slash + rest
