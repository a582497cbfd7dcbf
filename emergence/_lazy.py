"""Names that a package hands out, each loaded when first used: a look costs no import of MLX or SciPy."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def exports(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__` (PEP 562); `homes` is module to the names it holds: `{"loading": "load"}`."""
    where = {name: module for module, listed in homes.items() for name in listed.split()}

    def get(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{where[name]}"), name)

    return get
