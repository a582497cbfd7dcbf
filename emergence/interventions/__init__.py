"""Changes of the residual stream at a layer and position, made on the real forward pass and undone."""

from typing import TYPE_CHECKING

from .._lazy import exports

if TYPE_CHECKING:
    from .bases import mean_difference_basis, probe_basis, random_basis, readout_basis
    from .patching import PatchReading, patch
    from .permuting import permuted
    from .rules import add, interchange, placebo, remove, replace

__all__ = [
    "PatchReading",
    "add",
    "interchange",
    "mean_difference_basis",
    "patch",
    "permuted",
    "placebo",
    "probe_basis",
    "random_basis",
    "readout_basis",
    "remove",
    "replace",
]
__getattr__ = exports(
    __name__,
    {
        "bases": "mean_difference_basis probe_basis random_basis readout_basis",
        "patching": "PatchReading patch",
        "permuting": "permuted",
        "rules": "add interchange placebo remove replace",
    },
)
