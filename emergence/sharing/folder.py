"""The folder that is given away, whole or not there. In: a checkpoint. Out: `mlx/`, `peft/`, a card."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import BrokenExperiment, NotMeasurable, UsageError
from ..models import Source
from ..models.adapters import CONFIG, WEIGHTS
from ..models.folders import TOKENIZER, header, read_json, shards
from ..store import files
from ..wording import some
from . import peft
from .card import card
from .kept import Chosen

_WORDS = (
    *TOKENIZER,
    *(
        "tokenizer*.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "generation_config.json",
    ),
)
"""What is copied beside the weights."""


@dataclass(frozen=True)
class Made:
    """What was written, and why there is no `peft/` where there is none."""

    folder: Path
    without_peft: str


def write(chosen: Chosen, source: Source, folder: Path, with_base: bool = False) -> Made:
    """Write the checkpoint into `folder`, which must not be there; with `with_base` the base in float32 too.

    Raises
    ------
    UsageError
        `folder` is there, or cannot be made.
    BrokenExperiment
        `source` is not the model that the run was trained on, or the disk is full.
    NotMeasurable
        The base cannot be written so that transformers reads it.
    """
    trained_on = chosen.run.entry.manifest["spec"]["model"]
    if source.hash != trained_on:
        raise BrokenExperiment(
            f"{source.name} is not the model that this run was trained on ({source.hash[:12]}, not"
            f" {trained_on[:12]}); name that one with --model"
        )
    base, names = str(chosen.info["model"]), {name for path in shards(source.folder) for name in header(path)}
    with _whole(folder) as place:
        (place / "mlx").mkdir()
        for name in (WEIGHTS, CONFIG):
            shutil.copyfile(chosen.checkpoint / name, place / "mlx" / name)
        without = ""
        try:
            peft.convert(chosen.checkpoint, base if "/" in base else None, names, place / "peft")
        except NotMeasurable as why:
            without = str(why)
        if with_base:
            _write_base(source, names, place / "base")
        (place / "README.md").write_text(card(chosen, base, without, with_base), encoding="utf-8")
    return Made(folder, without)


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A place to write to that becomes `folder` at the end; what a kill left of an earlier one goes first."""
    if os.path.lexists(folder):
        raise UsageError(f"{folder} is there already; name another folder, or remove it")
    place = folder.with_name(f".{folder.name}.partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
    except OSError as error:
        raise UsageError(f"{folder} cannot be made ({error.strerror}); name another place") from None
    try:
        with files.explained(folder):
            yield place
            os.rename(place, folder)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _write_base(source: Source, names: set[str], folder: Path) -> None:
    """The model in float32 under the names of its own files, its configuration, its tokenizer."""
    import mlx.nn as nn

    from ..backend.weights import parameters
    from ..models import against, loading

    model, _ = loading.read(source.folder)
    if any(isinstance(m, nn.QuantizedLinear | nn.QuantizedEmbedding) for m in model.modules()):
        raise NotMeasurable(f"{source.name} stays quantised on this device; export --base on a CPU")
    packed = {n for n in names if n.endswith((".scales", ".biases"))}
    ours = {name for name, _ in parameters(model)}
    if ours != names - packed:
        raise NotMeasurable(
            f"{source.name}: mlx-lm renames {some(sorted(ours ^ (names - packed)))}; no --base"
        )
    settings = read_json(source.folder / "config.json") | {"torch_dtype": "float32"}
    against.unquantised(settings, model, folder)
    for path in sorted({path for pattern in _WORDS for path in source.folder.glob(pattern)}):
        shutil.copyfile(path, folder / path.name)
