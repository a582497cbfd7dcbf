"""Checkpoints that others trained, by the steps that their names say; nothing of them is loaded here.

In: a folder of adapters, of mlx-lm (`0000100_adapters.safetensors` beside one `adapter_config.json`, or a
folder a step) or of peft (`checkpoint-100/`). Out: `Saved`s, ascending.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..errors import UsageError
from ..wording import printable
from .files import digest

CONFIG = "adapter_config.json"
WEIGHTS = ("adapters.safetensors", "adapter_model.safetensors")
"""mlx-lm's name and peft's."""
_NUMBERED = re.compile(r"(\d+)_adapters\.safetensors")
_FOLDER = re.compile(r"(?:.*[^0-9])?(\d+)")


@dataclass(frozen=True)
class Saved:
    """One checkpoint as it lies on disk."""

    step: int
    weights: Path
    config: Path

    @cached_property
    def sha256(self) -> str:
        """Of the weights alone."""
        return digest(self.weights)

    @property
    def content(self) -> str:
        """Of weights and settings."""
        return hashlib.sha256(f"{self.step} {self.sha256} {digest(self.config)}".encode()).hexdigest()


def find(folder: Path) -> tuple[Saved, ...]:
    """The checkpoints in a folder, in the order of the steps.

    Raises
    ------
    UsageError
        There is no such folder, no checkpoint in it, one without its files, two of one step, or two of the
        same bytes.
    """
    shown = printable(str(folder), 200)
    if not folder.is_dir():
        raise UsageError(f"{shown}: no such folder; name the one that the checkpoints lie in")
    found = sorted([*_numbered(folder), *_folders(folder)], key=lambda saved: saved.step)
    if not found:
        raise UsageError(
            f"{shown} holds no checkpoint: no 0000100_adapters.safetensors beside an {CONFIG}, and no folder "
            "such as checkpoint-100 with one"
        )
    for one, other in itertools.pairwise(found):
        if one.step == other.step:
            names = " and ".join(saved.weights.relative_to(folder).as_posix() for saved in (one, other))
            raise UsageError(f"{shown}: {names} are both step {one.step}; keep one")
    first: dict[str, int] = {}
    for saved in found:
        if (step := first.setdefault(saved.sha256, saved.step)) != saved.step:
            raise UsageError(
                f"{shown}: steps {step} and {saved.step} are the same bytes, so one of them is not what its "
                "name says; leave it out"
            )
    return tuple(found)


def content(found: Iterable[Saved]) -> str:
    """SHA-256 over all checkpoints of a series and their steps."""
    return hashlib.sha256(" ".join(saved.content for saved in found).encode()).hexdigest()


def _numbered(folder: Path) -> list[Saved]:
    config = folder / CONFIG
    names = ((path, _NUMBERED.fullmatch(path.name)) for path in sorted(folder.iterdir()))
    return [Saved(int(name[1]), path, config) for path, name in names if name and config.is_file()]


def _folders(folder: Path) -> list[Saved]:
    found = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        config, name = place / CONFIG, _FOLDER.fullmatch(place.name)
        if name is None or not config.is_file():
            continue
        files = [place / file for file in WEIGHTS if (place / file).is_file()]
        if len(files) != 1:
            raise UsageError(
                f"{printable(str(place), 200)} holds {len(files)} of {' and '.join(WEIGHTS)}; one is needed"
            )
        found.append(Saved(int(name[1]), files[0], config))
    return found
