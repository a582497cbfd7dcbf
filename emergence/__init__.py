"""Test claims about what training does inside language models.

    model, tokenizer = emergence.load("smollm2-135m-instruct")
    lens = emergence.LogitLens(model)
    lens.read(tokens, token_sets={"add": ids})

Names load on first use: a pytest session that merely has the plugin installed never imports MLX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .lens import LogitLens
    from .models import load
    from .results import open_run
    from .tuned import TunedLens

__version__ = "0.1.0"
__all__ = ["LogitLens", "TunedLens", "load", "open_run"]

_HOME = {"LogitLens": "lens", "TunedLens": "tuned", "load": "models", "open_run": "results"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'emergence' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
