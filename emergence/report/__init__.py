"""What a run says to people and programs: the page, its figures and tables, results as files. No MLX."""

from typing import TYPE_CHECKING

from .._lazy import exports

if TYPE_CHECKING:
    from .findings_page import write_findings
    from .page import render, write
    from .records import latest, mark_latest, place
    from .results import open_run, read_verdicts

__all__ = ["latest", "mark_latest", "open_run", "place", "read_verdicts", "render", "write", "write_findings"]
__getattr__ = exports(
    __name__,
    {
        "findings_page": "write_findings",
        "page": "render write",
        "records": "latest mark_latest place",
        "results": "open_run read_verdicts",
    },
)
