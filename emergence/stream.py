"""Observes the residual stream of a model's own forward pass, and runs the model's own tail. First half of the lens.

In: any mlx-lm model object. Out: the state after every block of a real pass, and the logits the model itself would give
if its last block had ended in a given state (final norm, head, logit scale, soft-cap: whatever the family has).

Nothing is recomputed here: `observed` lets the model run and looks; the tail lets the model run on throw-away tokens and
swaps the last block's output. MLX is lazy, so what the swap makes unreachable is never evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from .errors import NotMeasurable

Hook = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""`hook(call, args, kwargs)` stands in for a module's call; `call(*args, **kwargs)` is the real one."""


@contextmanager
def observed(modules: Sequence[nn.Module], hook: Hook) -> Iterator[None]:
    """Every call of these instances goes through `hook`; other instances of their types are left alone.

    Python looks `__call__` up on the type, so each instance gets a subclass of its own type for the while;
    restored on exit, also after an exception. May be nested.
    """
    before = {id(m): (m, type(m)) for m in modules}
    try:
        for module, cls in before.values():
            module.__class__ = _through(cls, hook)
        yield
    finally:
        for module, cls in before.values():
            module.__class__ = cls


def _through(cls: type, hook: Hook) -> type:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return hook(lambda *a, **k: cls.__call__(self, *a, **k), args, kwargs)

    return type(cls.__name__, (cls,), {"__call__": call, "__module__": cls.__module__})


def blocks(model: nn.Module) -> list[nn.Module]:
    """The model's blocks in order, as mlx-lm names them (`model.layers`), looked up anew each time.

    Raises
    ------
    NotMeasurable
        The model has no `layers`, or they are not modules.
    """
    found = getattr(model, "layers", None)
    found = getattr(found, "layers", found)
    if not isinstance(found, list) or not found or not all(isinstance(b, nn.Module) for b in found):
        raise NotMeasurable(f"{model_type(model)}: the model has no list of blocks called `layers`; the lens cannot see it")
    return found


def model_type(model: nn.Module) -> str:
    """mlx-lm's name of the architecture, or the class name."""
    return str(getattr(model, "model_type", None) or type(model).__name__)


def leaf(state: Any) -> mx.array:
    """The residual stream in what a block returns: itself, or the first of a tuple."""
    return state[0] if isinstance(state, (tuple, list)) else state


def with_leaf(state: Any, stream: mx.array) -> Any:
    """What a block returned, with the residual stream replaced."""
    return (stream, *state[1:]) if isinstance(state, (tuple, list)) else stream
