"""What a `task.yaml` may say: a task of one's own, before any model is loaded. In: a file. Out: a `Task`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from . import yaml_strict
from .errors import UsageError

FILE = "task.yaml"
SLOT = "{text}"

Texts = Annotated[tuple[str, ...], Field(min_length=1)]


class Class(BaseModel):
    """The words that name a class, and texts of which it is the right one."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    words: Texts
    texts: Annotated[tuple[str, ...], Field(min_length=10)]


class Task(BaseModel):
    """What a `task.yaml` may say."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    description: str = ""
    model: str
    template: str = SLOT
    """What a text is put into; the model's next token is what is read."""
    seed: int = 0
    classes: Annotated[dict[str, Class], Field(min_length=2)]


def load(path: Path) -> Task:
    """The task that a file describes.

    Raises
    ------
    UsageError
        Whatever is wrong with it, a line for each problem.
    """
    try:
        document = yaml_strict.read(path.read_bytes(), str(path), lambda place: place[:1] != ("seed",))
        task = Task.model_validate(document.data)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except yaml_strict.Refused as error:
        raise UsageError(str(error)) from None
    except ValidationError as error:
        told = (f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UsageError("\n".join(told)) from None
    if blank := [name for name, c in task.classes.items() if not all(t.strip() for t in c.texts)]:
        raise UsageError(f"{path}: classes.{blank[0]}.texts: one is blank; take it out")
    if SLOT not in task.template:
        raise UsageError(f"{path}: template: {task.template!r} has no {SLOT}, where a text is put")
    return task
