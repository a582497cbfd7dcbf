"""A network that has learned nothing and has the statistics of one that has: the control of every probe.

In: a model. Out: a context in which the rows of every weight of its blocks stand in a random order. Each
matrix keeps its values, its spectrum and its size; what one layer writes is not what the next one reads. The
embedding, the final norm and the head stay: the prompt's tokens still come in as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np

from ..lens.residual import blocks

_BY_ROW = ("weight", "scales", "biases", "bias")
"""Arrays of a layer with a row for each output: those of a quantised one move together."""


@contextmanager
def permuted(model: Any, seed: int = 0) -> Iterator[None]:
    """Permute the rows of every weight matrix of the blocks; the model is itself again afterwards."""
    rng = np.random.default_rng([seed, 0x9E12])
    before: list[tuple[Any, dict[str, mx.array]]] = []
    try:
        for block in blocks(model):
            for _, module in block.named_modules():  # type: ignore[no-untyped-call]
                weight = module.get("weight")
                if isinstance(weight, mx.array) and weight.ndim > 1:
                    before.append((module, _permute(module, rng.permutation(weight.shape[-2]))))
        yield
    finally:
        for module, arrays in before:
            module.update(arrays)


def _permute(module: Any, order: np.ndarray) -> dict[str, mx.array]:
    """Permute the outputs of a layer; return its arrays as they were."""
    arrays = {name: module[name] for name in _BY_ROW if isinstance(module.get(name), mx.array)}
    index = mx.array(order)
    module.update({name: mx.take(a, index, axis=-1 if name == "bias" else -2) for name, a in arrays.items()})
    return arrays
