"""Claims, how each is judged, what was decided: only here does a number become a decision. No MLX."""

from typing import TYPE_CHECKING

from .._lazy import exports

if TYPE_CHECKING:
    from .checking import check
    from .findings import falsified, record, recordable, same_version
    from .judging import judge
    from .predictions import Prediction, Table, load_predictions
    from .registration import Registration, mark, registered
    from .verdict import Verdict, require_controls

__all__ = [
    "Prediction",
    "Registration",
    "Table",
    "Verdict",
    "check",
    "falsified",
    "judge",
    "load_predictions",
    "mark",
    "record",
    "recordable",
    "registered",
    "require_controls",
    "same_version",
]
__getattr__ = exports(
    __name__,
    {
        "checking": "check",
        "findings": "falsified record recordable same_version",
        "judging": "judge",
        "predictions": "Prediction Table load_predictions",
        "registration": "Registration mark registered",
        "verdict": "Verdict require_controls",
    },
)
