"""Models stage: the logits of a model held against those that transformers and torch compute.

In: a model's name. Out: the largest difference over all positions of a few prompts. torch is no dependency:
it runs in the interpreter that EMERGENCE_PEERS names (`requirements/peers.txt`), or in this one where it is
installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..backend.weights import parameters
from ..errors import BrokenExperiment, NotMeasurable
from ..store.store import Store
from ..wording import first_line
from . import folders, loading

TOLERANCE = 1e-3
"""Largest difference of two float32 logits that other orders of the same sums may make; seen: 3e-6 to 2e-4.
"""
_TEXTS = ("7 * 8 = 56", "The capital of France is Paris, and", "def add(a, b):\n    return a + b\n")
_QUANTISED = ("quantization", "quantization_config")


@dataclass(frozen=True)
class Agreement:
    """The largest difference of two logits over so many positions, and where both prefer one token."""

    positions: int
    largest: float
    same_first: int

    def __str__(self) -> str:
        return (
            f"transformers: largest difference {self.largest:.1e} over {self.positions} positions, "
            f"the same likeliest token at {self.same_first}"
        )


def transformers(name: str, store: Store | None = None) -> Agreement:
    """Compare the logits of a model at every position of three prompts.

    Raises
    ------
    NotMeasurable
        There is no torch, or transformers cannot read the folder.
    BrokenExperiment
        A difference is beyond `TOLERANCE`.
    """
    python = _interpreter()
    source = loading.resolve(name, store)
    model, tokenizer = loading.load(name, store=store)
    prompts = [tokenizer.encode(text) for text in _TEXTS]
    ours = [np.array(model(mx.array([ids])).astype(mx.float32))[0] for ids in prompts]
    with tempfile.TemporaryDirectory() as place:
        theirs = _logits(python, _readable(source.folder, model, Path(place)), prompts, Path(place))
    agreement = compared(ours, theirs)
    if not agreement.largest <= TOLERANCE:
        raise BrokenExperiment(f"{name} is not computed as transformers computes it: {agreement}")
    return agreement


def compared(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> Agreement:
    """Two lists of logits [position, vocab]; rows that only pad a vocabulary are left out."""
    pairs = [(a[:, : b.shape[1]], b[:, : a.shape[1]]) for a, b in zip(ours, theirs, strict=True)]
    return Agreement(
        positions=sum(len(a) for a, _ in pairs),
        largest=max(float(np.abs(a - b).max()) for a, b in pairs),
        same_first=sum(int((a.argmax(-1) == b.argmax(-1)).sum()) for a, b in pairs),
    )


def _interpreter() -> str:
    if python := os.environ.get("EMERGENCE_PEERS"):
        return python
    if importlib.util.find_spec("torch"):
        return sys.executable
    raise NotMeasurable(
        "there is no torch here to compare with: install requirements/peers.txt in an environment of its "
        "own, and let EMERGENCE_PEERS name its Python"
    )


def _readable(folder: Path, model: Any, place: Path) -> Path:
    """The folder itself, or the same weights in float32 where it is quantised as only mlx reads it."""
    config = folders.read_json(folder / "config.json")
    if "quantization" not in config:
        return folder
    if any(isinstance(m, nn.QuantizedLinear | nn.QuantizedEmbedding) for m in model.modules()):
        raise NotMeasurable(
            f"{folder} is quantised, and transformers does not read mlx's form of it; compare on a CPU"
        )
    return unquantised(config, model, place / "folder")


def unquantised(config: Mapping[str, Any], model: Any, folder: Path) -> Path:
    """Write a folder of a dequantised model's weights, under mlx-lm's names, and its configuration."""
    folder.mkdir()
    tensors = dict(sorted(parameters(model)))
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, {"format": "pt"})
    plain_config = {k: v for k, v in config.items() if k not in _QUANTISED}
    (folder / "config.json").write_text(json.dumps(plain_config), encoding="utf-8")
    return folder


def _logits(python: str, folder: Path, prompts: list[list[int]], place: Path) -> list[np.ndarray]:
    script, out = Path(__file__).with_name("reference.py"), place / "logits.npz"
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    try:
        ended = subprocess.run(
            [python, str(script), str(folder), str(out)],
            input=json.dumps(prompts),
            capture_output=True,
            text=True,
            env=environment,
        )
    except OSError as error:
        raise NotMeasurable(f"EMERGENCE_PEERS: {python} cannot be started: {first_line(error)}") from None
    if ended.returncode or not out.is_file():
        line = (ended.stderr.strip().splitlines() or ["it wrote no logits"])[-1]
        raise NotMeasurable(f"{folder}: transformers cannot compute it: {line[:300]}")
    with np.load(out) as arrays:
        return [arrays[str(number)] for number in range(len(prompts))]
