"""Exactly one MLX backend, told in one line before anything is imported that needs it.

In: what is installed. Out: nothing, or a `UsageError`. On Linux `mlx` has no backend of its own, and all of
them bring the same library: two at once overwrite one another.
"""

from __future__ import annotations

import importlib
from importlib import metadata

from ..errors import UsageError
from ..wording import first_line

BACKENDS = ("mlx-cpu", "mlx-cuda-12", "mlx-cuda-13", "mlx-metal")


def require() -> None:
    """Return where MLX can be used.

    Raises
    ------
    UsageError
        No backend is installed, or more than one.
    """
    found = [name for name in BACKENDS if _installed(name)]
    if len(found) > 1:
        raise UsageError(
            f"{' and '.join(found)} are both installed and overwrite one another; uninstall all but one, "
            "then install that one again"
        )
    try:
        importlib.import_module("mlx.core")
    except ImportError as error:
        reason = first_line(error)
        raise UsageError(
            f"MLX cannot be loaded ({reason}); install one backend: mlx-cpu, or run python3 run.py"
        ) from None


def _installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def device() -> str:
    """What MLX computes on: `Device(cpu, 0)`, `Device(gpu, 0)`."""
    import mlx.core as mx

    return str(mx.default_device())
