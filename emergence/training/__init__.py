"""One run, from base model to checkpoints."""

from typing import TYPE_CHECKING

from .._lazy import exports

if TYPE_CHECKING:
    from .run import Run, build

__all__ = ["Run", "build"]
__getattr__ = exports(__name__, {"run": "Run build"})
