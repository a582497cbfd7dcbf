"""The door to `config.yaml`: a file, and `-p` overrides that beat it, to a `Config`.

In: a path or a text. Out: a `Config` with every default filled in and every rule checked, or one
`UsageError` that tells all problems at once. How its text is read: `yaml_strict`. What it may say: `layout`.
What it comes to: `resolver`, `arms`, `settings`. The config of `lazarus experiment` is read as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import UsageError
from ..wording import printable
from . import document as yaml_strict
from . import resolve
from .document import Document
from .overrides import parse_override
from .settings import Arm, Config, LoRA, Task, TestPrompt

__all__ = ["Arm", "Config", "LoRA", "Task", "TestPrompt", "load", "narrowed", "parse", "parse_override"]

NONE: Mapping[str, object] = MappingProxyType({})


def load(path: Path, overrides: Mapping[str, object] = NONE) -> Config:
    """The experiment that a file describes; overrides are dotted (`training.lora.rank`), their text is YAML.

    Raises `UsageError`, a line for each problem with file:line, field, value and remedy.
    """
    document = _read(path)
    return resolve.resolve(document, overrides, path.parent)


def parse(text: str, overrides: Mapping[str, object] = NONE, name: str = "config") -> Config:
    """As `load`, from a text; it lies in no folder, so it can have no `examples`."""
    try:
        document = yaml_strict.read(text.encode("utf-8", "surrogatepass"), name, resolve.as_text)
    except yaml_strict.Refused as error:
        raise UsageError(str(error)) from None
    return resolve.resolve(document, overrides)


def narrowed(experiment: Config, steps: str | None = None, seeds: int | None = None) -> Config:
    """Every arm with other checkpoints and seeds: `steps` is the last one, `300`, or all of them, `0,50,300`.

    One number keeps the checkpoints before it. `seeds` is how many, counted from 0. Raises `UsageError`.
    """
    arms = [_narrowed(arm, _steps(steps), seeds) for arm in experiment.arms]
    return experiment.model_copy(update={"arms": tuple(arms)})


def _narrowed(arm: Arm, steps: tuple[int, ...], seeds: int | None) -> Arm:
    update: dict[str, Any] = {}
    if steps:
        kept = steps if len(steps) > 1 else [*(s for s in arm.checkpoint_steps if s < steps[0]), *steps]
        update = {"checkpoint_steps": tuple(sorted({0, *kept})), "max_steps": max(kept)}
    if seeds is not None:
        if not 1 <= seeds <= 100:
            raise UsageError(f"--seeds {seeds}: name how many, 1 to 100")
        update["seeds"] = tuple(range(seeds))
    return arm.model_copy(update=update)


def _steps(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    words = [w.strip() for w in text.split(",")]
    if not all(w.isascii() and w.isdecimal() and len(w) <= 8 for w in words):
        raise UsageError(f"--steps {printable(text)}: write whole numbers, such as 300 or 0,50,300")
    steps = tuple(int(w) for w in words)
    if list(steps) != sorted(set(steps)) or steps[-1] == 0:
        raise UsageError(f"--steps {printable(text)}: the steps must ascend and go beyond 0")
    return steps


def _read(path: Path) -> Document:
    try:
        if not path.is_file():
            raise UsageError(f"{printable(str(path), 300)}: no such file; name an existing config.yaml")
        with path.open("rb") as stream:
            raw = stream.read(yaml_strict.LARGEST + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"{printable(str(path), 300)}: cannot be read: {error}") from None
    try:
        return yaml_strict.read(raw, printable(str(path), 300), resolve.as_text)
    except yaml_strict.Refused as error:
        raise UsageError(str(error)) from None
