"""Stands between a module and whoever calls it, for the length of a `with`.

In: module instances, and a hook for each. Out: nothing that lasts: every module is as it was, also after an
exception.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn

Call = Callable[..., Any]
Hook = Callable[[Call, tuple[Any, ...], dict[str, Any]], Any]
"""`hook(call, args, kwargs)` stands in for a module's call; `call(*args, **kwargs)` is the real one."""


@contextmanager
def observed(hooks: Sequence[tuple[nn.Module, Hook]]) -> Iterator[None]:
    """Every call of these instances goes through their hook; other instances of their types are left alone.

    Python looks `__call__` up on the type, so each instance becomes one of a subclass of its own type. May be
    nested. An instance listed twice is hooked once, by its first hook.
    """
    before = {id(m): (m, type(m), hook) for m, hook in reversed(hooks)}
    try:
        for module, cls, hook in before.values():
            module.__class__ = _through(cls, hook)
        yield
    finally:
        for module, cls, _ in before.values():
            module.__class__ = cls


def _through(cls: type, hook: Hook) -> type:
    called = {"__call__": lambda self, *args, **kwargs: hook(partial(cls.__call__, self), args, kwargs)}
    return type(cls.__name__, (cls,), called | {"__module__": cls.__module__})


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model is in evaluation mode (no dropout); each module's own mode comes back afterwards.

    The flag alone is set: `model.eval()` would also quantise the layers of `nn.QQLinear`, with a loss.
    """
    training = [m for m in model.modules() if m.training]  # type: ignore[no-untyped-call]
    try:
        for module in training:
            module._training = False
        yield
    finally:
        for module in training:
            module._training = True


def first_array(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first array that a module is called with."""
    return next((a for a in (*args, *kwargs.values()) if isinstance(a, mx.array)), None)


def at(module: nn.Module, path: str) -> nn.Module:
    """The module that `named_modules` calls by this path, such as `model.layers.3.mlp`."""
    for name in path.split("."):
        module = module[int(name)] if isinstance(module, list) else getattr(module, name)
    return module
