"""What is asked: items with checked answers, their classes, and the tokens that stand for them."""

from typing import TYPE_CHECKING

from .._lazy import exports

if TYPE_CHECKING:
    from .encoding import boundary_report, rows
    from .task import Splits, Task, content_hash
    from .vocabulary import Vocabulary, audit

__all__ = ["Splits", "Task", "Vocabulary", "audit", "boundary_report", "content_hash", "rows"]
__getattr__ = exports(
    __name__,
    {
        "encoding": "boundary_report rows",
        "task": "Splits Task content_hash",
        "vocabulary": "Vocabulary audit",
    },
)
