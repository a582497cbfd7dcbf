"""Small adapters for tests: settings, and a checkpoint whose every trained array differs from the base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from emergence.models.adapters import adapter_config, lora, save_adapters

QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True)
class Settings:
    rank: int = 4
    scale: float = 2.0
    dropout: float = 0.0
    targets: tuple[str, ...] = QKVO
    num_layers: int = -1


def randomise(model: nn.Module, seed: int = 1) -> None:
    """Every trained array gets noise: zeros at the start would hide an adapter that is not applied."""
    trained = tree_flatten(model.trainable_parameters())
    keys = mx.random.split(mx.random.key(seed), len(trained))
    noisy = [(n, p + 0.1 * mx.random.normal(p.shape, key=k)) for (n, p), k in zip(trained, keys, strict=True)]
    model.load_weights(noisy, strict=False)


def checkpoint(
    model: nn.Module, folder: Path, kind: str, step: int = 10, settings: Settings | None = None
) -> Path:
    """A checkpoint folder of this kind, trained for `step` steps of noise."""
    settings = settings or Settings()
    with lora(model, kind, settings, seed=0):
        if step:
            randomise(model)
        save_adapters(model, folder, adapter_config(model, kind, settings, step))
    return folder
