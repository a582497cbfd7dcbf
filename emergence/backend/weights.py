"""The parameters of a model, and their hash: it tells weights apart that bear one name."""

from __future__ import annotations

import hashlib
from typing import Any, cast

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten


def parameters(model: Any) -> list[tuple[str, mx.array]]:
    """Every parameter with its path, sorted by it."""
    return sorted(cast(list[tuple[str, mx.array]], tree_flatten(model.parameters())), key=lambda p: p[0])


def weights_hash(model: Any) -> str:
    """SHA-256 over the names, shapes, dtypes and bits of all parameters of a model."""
    whole = hashlib.sha256()
    for name, p in parameters(model):
        whole.update(f"{name} {p.shape} {p.dtype}\n".encode())
        whole.update(np.asarray(mx.contiguous(p).reshape(-1).view(mx.uint8)).data)
    return whole.hexdigest()
