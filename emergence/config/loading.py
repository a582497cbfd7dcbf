"""The door to `config.yaml`: a file, and `-p` overrides that beat it, to a `Config`.

    document ─ lazarus ─ overrides ─ schema ─ task, vocabulary, arms ─ settings
                           (all of them tell `problems`)

In: a path or a text. Out: a `Config` with every default filled in and every rule checked, or one `UsageError`
that tells all problems at once.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ..errors import UsageError
from ..wording import printable
from . import document as yaml
from . import lazarus, resolve, schema
from .overrides import apply, parse_override
from .settings import Arm, Config, LoRA

__all__ = ["Arm", "Config", "LoRA", "load", "narrowed", "parse", "parse_override"]

NONE: Mapping[str, object] = MappingProxyType({})


def load(path: pathlib.Path, overrides: Mapping[str, object] = NONE) -> Config:
    """The config in a file; `overrides` beat it: `{"training.lora.rank": "8"}`, their text is YAML.

    Raises `UsageError`, a line for each problem with file:line, field, value and remedy.
    """
    name = printable(str(path), 300)
    try:
        if not path.is_file():
            raise UsageError(f"{name}: no such file; name an existing config.yaml")
        with path.open("rb") as stream:
            raw = stream.read(yaml.LARGEST + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"{name}: cannot be read: {error}") from None
    return _settled(raw, name, overrides, path.parent)


def settled(path: pathlib.Path, overrides: Mapping[str, Any] = NONE) -> Config:
    """As `load` and then `narrowed`: among the overrides, `steps` and `seeds` are what those options say.

    `quick: True` puts what the file declares under `quick` before all others.
    """
    values = dict(overrides)
    steps, seeds = values.pop("steps", None), values.pop("seeds", None)
    return narrowed(load(path, values), steps, seeds)


def parse(text: str, overrides: Mapping[str, object] = NONE, name: str = "config") -> Config:
    """As `load`, from a text; it lies in no folder, so it can have no `examples`."""
    return _settled(text.encode("utf-8", "surrogatepass"), name, overrides, None)


def narrowed(config: Config, steps: str | None = None, seeds: int | None = None) -> Config:
    """Every arm with other checkpoints and seeds: `steps` is the last one, `300`, or all of them, `0,50,300`.

    One number keeps the checkpoints before it. `seeds` is how many, counted from 0. Raises `UsageError`.
    """
    arms = [_narrowed(arm, _steps(steps), seeds) for arm in config.arms]
    return config.model_copy(update={"arms": tuple(arms)})


def _settled(raw: bytes, name: str, overrides: Mapping[str, object], folder: pathlib.Path | None) -> Config:
    document = yaml.read(raw, name, schema.as_text)
    if not isinstance(document.data, dict):
        what = "empty" if document.data in (None, "") else "not a mapping"
        place = document.problems.place(())
        raise UsageError(f"{place}: the config is {what}; write name, model and parameters")
    lazarus.translate(document)
    given = dict(overrides)
    if given.pop("quick", False):
        given = {**_quick(document), **given}
    apply(document, given)
    return resolve.settle(document, folder)


def _quick(document: yaml.Document) -> Mapping[str, object]:
    """What the file itself says a quick look is; where it says nothing that is noticed, and it runs whole."""
    declared = document.data.get("quick")
    if isinstance(declared, dict) and declared:
        return {str(name): value for name, value in declared.items()}
    document.problems.notices.append(
        "--quick: this config declares no size for a quick look and runs whole; "
        "one is written `quick: {training.max_steps: 100, training.seeds: [0]}`"
    )
    return NONE


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
