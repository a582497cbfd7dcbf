"""Model folders under test: changed, damaged, and what is said about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from emergence.models import loading

ONE_LINE = "^[^\n]+$"
TOKENS = mx.array([[1, 2, 3, 4, 5]])


def edit(path: Path, **changes: Any) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def tensors(folder: Path) -> dict[str, mx.array]:
    """The tensors of the one weight file, in memory."""
    found = mx.load(str(folder / "model.safetensors"))
    mx.eval(found)
    return found


def write(folder: Path, weights: dict[str, mx.array], name: str = "model.safetensors") -> None:
    """A weight file with these tensors."""
    mx.save_safetensors(str(folder / name), weights, {"format": "mlx"})


def refused(folder: Path, kind: type[Exception]) -> str:
    """The one line with which loading the folder is refused."""
    with pytest.raises(kind, match=ONE_LINE) as error:
        loading.load(folder)
    return str(error.value)
