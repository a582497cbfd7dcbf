"""One run, from base model to checkpoints."""

from typing import TYPE_CHECKING

from .._lazy import exports

if TYPE_CHECKING:
    from .policy import starts
    from .run import Run, build

__all__ = ["Run", "build", "starts"]
__getattr__ = exports(__name__, {"policy": "starts", "run": "Run build"})
