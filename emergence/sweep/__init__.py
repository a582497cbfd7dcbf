"""Many runs on many machines: cells over models, settings, arms and seeds; the engine; the matrix.

    grid ─ plan ─ running ─ engine (Dask) ─ worker ─ cell   a line that is typed, to runs in processes
                     └ manifest                            what was reached, for the same line to go on
    matrix ─ pooling ─ matrix_page                         results that are there, models × predictions

A cell is one model with some settings. The engine queues, places and restarts; it knows nothing of training.
"""

from typing import TYPE_CHECKING

from .._lazy import exports

if TYPE_CHECKING:
    from .grid import Grid, over, read
    from .manifest import Manifest
    from .matrix import Matrix, collect
    from .plan import Sweep, planned
    from .running import run

__all__ = ["Grid", "Manifest", "Matrix", "Sweep", "collect", "over", "planned", "read", "run"]
__getattr__ = exports(
    __name__,
    {
        "grid": "Grid over read",
        "manifest": "Manifest",
        "matrix": "Matrix collect",
        "plan": "Sweep planned",
        "running": "run",
    },
)
