"""Models stage: which layers of a model an adapter may change, named as mlx-lm names them.

In: a model and the `targets` of a config. Out: paths within a block, and the settings that mlx-lm reads. What
lies outside the blocks (embedding, final norm, head) is the lens: it is never a target.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlx.nn as nn
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear
from mlx_lm.tuner.dora import DoRALinear
from mlx_lm.tuner.lora import LoRALinear, LoRASwitchLinear

from ..errors import UsageError

if TYPE_CHECKING:
    from ..config import LoRA

LAYERS = (LoRALinear, DoRALinear, LoRASwitchLinear)
"""mlx-lm's adapted layers."""
_LINEAR = (nn.Linear, nn.QuantizedLinear, SwitchLinear, QuantizedSwitchLinear)
_EMBEDDING = (nn.Embedding, nn.QuantizedEmbedding)


def settings_of(model: Any, fine_tune_type: str, lora: LoRA) -> dict[str, Any]:
    """The settings as mlx-lm reads them, with `targets` resolved to paths within a block."""
    if fine_tune_type not in ("lora", "dora", "full"):
        raise UsageError(f"fine_tune_type {fine_tune_type!r} is none of lora, dora, full")
    settings: dict[str, Any] = {"fine_tune_type": fine_tune_type, "num_layers": lora.num_layers}
    if fine_tune_type == "full":
        if any(isinstance(m, nn.QuantizedLinear) for block in model.layers for m in block.modules()):
            raise UsageError(
                "fine_tune_type full cannot train quantised weights; use lora, or an unquantised model"
            )
        return settings
    keys = _keys(model, lora.targets)
    return {
        **settings,
        "lora_parameters": {"rank": lora.rank, "scale": lora.scale, "dropout": lora.dropout, "keys": keys},
    }


def _keys(model: Any, targets: tuple[str, ...]) -> list[str]:
    """Paths within a block of the linear layers that the targets name; each target must name one."""
    paths = {path for block in model.layers for path in linear_paths(block)}
    outside = outside_blocks(model)
    problems, keys = [], set()
    for target in targets:
        found = {path for path in paths if path == target or path.endswith(f".{target}")}
        if not found and any(path == target or path.endswith(f".{target}") for path in outside):
            problems.append(f"{target} is outside the blocks; to train it would move the lens")
        elif not found:
            problems.append(f"no block has a linear layer {target}")
        keys |= found
    if problems or not keys:
        names = sorted({path.rsplit(".", 1)[-1] for path in paths})
        raise UsageError(f"lora.targets: {'; '.join(problems) or 'empty'}; choose from {', '.join(names)}")
    return sorted(keys)


def linear_paths(block: Any) -> set[str]:
    """Paths of a block's linear layers; one that is adapted already counts under its own name."""
    adapted = {path for path, m in block.named_modules() if isinstance(m, LAYERS)}
    linear = {path for path, m in block.named_modules() if isinstance(m, _LINEAR)}
    return adapted | {path for path in linear if path.rpartition(".")[0] not in adapted}


def block_paths(model: Any) -> list[str]:
    """Paths of the blocks in the model's tree, wherever the family keeps them."""
    blocks = {id(block) for block in model.layers}
    return [path for path, module in model.named_modules() if id(module) in blocks]


def outside_blocks(model: Any) -> set[str]:
    """Paths of embeddings and linear layers that lie outside the blocks."""
    inside = tuple(f"{path}." for path in block_paths(model))
    return {
        path
        for path, m in model.named_modules()
        if isinstance(m, (*_LINEAR, *_EMBEDDING)) and not path.startswith(inside)
    }
