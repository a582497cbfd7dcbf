"""Models stage: a name becomes `(model, tokenizer)`.

In: the embedded model's name, a hub id (`owner/name`, or `owner/name@revision`) or a local folder. Out: an
mlx-lm model in evaluation mode and its tokenizer. On the CPU it computes in float32 whatever the file holds,
because only float32 products reach a BLAS there. No code of a model folder is ever run, and nothing is asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import dequantize_model

from ..backend import openblas
from ..backend.weights import parameters
from ..errors import BrokenExperiment, NotMeasurable
from ..store.store import Store
from ..wording import first_line
from . import configuration, folders, memory, tokenizer, weights
from .adapters import adapted, adapter_config, apply, lora, save_adapters
from .names import EMBEDDED, Source, resolve

__all__ = [
    "EMBEDDED",
    "Source",
    "adapted",
    "adapter_config",
    "load",
    "lora",
    "notices",
    "resolve",
    "save_adapters",
]


def load(
    name: str | Path | Source, adapter: str | Path | None = None, *, store: Store | None = None
) -> tuple[Any, TokenizerWrapper]:
    """An mlx-lm model and its tokenizer, like `mlx_lm.load`; the checkpoint `adapter` is applied for good.

    `name` may be what `resolve` made of one. `model.longest` is the longest prompt, in tokens, that is
    computed right (None: any).
    Raises UsageError (no such name), NotMeasurable (not to be had here, refused), BrokenExperiment (damaged).
    """
    source = name if isinstance(name, Source) else resolve(name, store)
    openblas.install()
    model, config = read(source.folder)
    words = tokenizer.load(source.folder, config, rows(model))
    model.base_hash = source.hash
    if adapter is not None:
        apply(model, Path(adapter))
    return model, words


def read(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The model of a folder, its weights finite and in memory, and its configuration."""
    settled = configuration.settle(folders.check(folder))
    model, config = weights.load(folder, settled)
    if mx.default_device().type == mx.DeviceType.cpu:
        _to_float32(model)
    _check_memory(folder, model)
    try:
        mx.eval(model.parameters())
    except RuntimeError as error:  # lazy until here: a file that went away, memory that is not there
        raise BrokenExperiment(f"{folder}: its weights cannot be read: {first_line(error)}") from None
    if bad := _not_finite(model):
        raise BrokenExperiment(f"{folder}: {bad} holds NaN or infinity; copy or download the weights again")
    weights.run_once(folder, settled, model)
    return model, config


def notices(model: Any, words: TokenizerWrapper) -> list[str]:
    """What a person should know before this model is measured, a sentence each."""
    lines = tokenizer.notices(words, rows(model))
    if (longest := getattr(model, "longest", None)) is not None:
        lines.append(f"prompts of more than {longest} tokens are not computed as transformers does")
    return lines


def rows(model: Any) -> int:
    """Rows of the largest embedding: ids from there on have no vector."""
    tables = (m for m in model.modules() if isinstance(m, nn.Embedding | nn.QuantizedEmbedding))
    return int(max(table.weight.shape[0] for table in tables))


def _to_float32(model: Any) -> None:
    """Every weight as float32. Exact: scales are widened before the product, which is then rounded once."""
    model.set_dtype(mx.float32)
    # dequantize_model knows nothing of a second scale; such a model keeps its own slow path.
    if not any("global_scale" in module for module in model.modules()):
        dequantize_model(model)
    model.set_dtype(mx.float32)


def _check_memory(folder: Path, model: Any) -> None:
    needed, allowed = sum(p.nbytes for _, p in parameters(model)), memory.limit()
    if needed > allowed:
        raise NotMeasurable(
            f"{folder} needs {needed / 2**30:.0f} GiB for its weights, and this process may have "
            f"{allowed / 2**30:.0f} (the machine's memory, or a limit of its container or `ulimit -v`); "
            "use a smaller model or a larger limit"
        )


def _not_finite(model: Any) -> str | None:
    """Name of the first parameter with a NaN or an infinity."""
    floating = [(k, p) for k, p in parameters(model) if mx.issubdtype(p.dtype, mx.floating)]
    # A finite sum has finite terms, and costs a tenth; one that overflows asks each term.
    sums = [p.sum() for _, p in floating]
    mx.eval(sums)
    floating = [pair for pair, total in zip(floating, sums, strict=True) if not mx.isfinite(total).item()]
    finite = [mx.isfinite(p).all() for _, p in floating]
    return next((name for (name, _), fine in zip(floating, finite, strict=True) if not fine.item()), None)
