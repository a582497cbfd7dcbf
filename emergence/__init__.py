"""Test claims about what training does inside language models.

    model, tokenizer = emergence.load("smollm2-135m-instruct")
    lens = emergence.LogitLens(model, tokenizer)
    lens.read("7 * 8 = ", token_sets={"five": "5"})

Names load on first use: a pytest session that merely has the plugin installed never imports MLX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._lazy import exports

if TYPE_CHECKING:
    from .experiment import Experiment
    from .interventions import patch
    from .lens import Edit, JacobianLens, LogitLens, TunedLens
    from .models import load
    from .report import open_run
    from .verdicts import Prediction

__version__ = "0.1.0"
__all__ = [
    "Edit",
    "Experiment",
    "JacobianLens",
    "LogitLens",
    "Prediction",
    "TunedLens",
    "load",
    "open_run",
    "patch",
]
__getattr__ = exports(
    __name__,
    {
        "experiment": "Experiment",
        "interventions": "patch",
        "lens": "Edit JacobianLens LogitLens TunedLens",
        "models": "load",
        "report": "open_run",
        "verdicts": "Prediction",
    },
)
