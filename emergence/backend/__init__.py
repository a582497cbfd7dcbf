"""What MLX computes with: which backend, a fast BLAS, kernels by NumPy on the CPU."""

from typing import TYPE_CHECKING

from .._lazy import exports

if TYPE_CHECKING:
    from .installed import device, require
    from .openblas import install

__all__ = ["device", "install", "require"]
__getattr__ = exports(__name__, {"installed": "device require", "openblas": "install"})
