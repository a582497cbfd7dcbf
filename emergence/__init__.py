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
    from .lens.logit_lens import LogitLens
    from .lens.tuned_lens import TunedLens
    from .models.loading import load
    from .report.results import open_run
    from .verdicts.predictions import Prediction

__version__ = "0.1.0"
__all__ = ["LogitLens", "Prediction", "TunedLens", "load", "open_run"]

_HOME = {
    "LogitLens": "lens.logit_lens",
    "Prediction": "verdicts.predictions",
    "TunedLens": "lens.tuned_lens",
    "load": "models.loading",
    "open_run": "report.results",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'emergence' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
