"""The verbs `matrix` and `compare`. In: a store, an experiment, folders of results. Out: tables, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import RenderableType

from ..errors import UsageError
from ..store import Store
from ..store.files import write_atomic
from ..sweep import comparing, matrix, matrix_page
from ..sweep.matrix import Matrix
from .options import find


def found(text: str, experiments_dir: Path | None, store: Path | None) -> Path:
    """The results that `text` names: their folder, `NAME` for the newest, or `NAME/KEY`.

    Raises `UsageError` where there are none.
    """
    if Path(text).is_dir():
        return Path(text)
    name, _, key = text.partition("/")
    return find(name, experiments_dir, store)[0].require_results(key or None)


def collected(store: Store, experiment: str) -> Matrix:
    """Raises `UsageError` where there are no results."""
    return matrix.collect(store.root, experiment)


def document(made: Matrix) -> dict[str, Any]:
    """What `--json` prints."""
    return matrix.document(made)


def shown(made: Matrix) -> RenderableType:
    """For the terminal."""
    return matrix_page.shown(made)


def written(made: Matrix, store: Store, html: Path | None) -> Path:
    """JSON, Parquet, figures and page into `experiments/<name>/matrix`; the path of the page."""
    folder = store.folder("experiments", made.experiment, matrix.FOLDER)
    matrix.write(made, folder)
    matrix_page.write(made, folder)
    if html is None:
        return folder / matrix_page.PAGE
    target = html / matrix_page.PAGE if html.is_dir() else html
    try:
        write_atomic(target, matrix_page.page(made, linked=False))
    except (OSError, UsageError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        reason = getattr(cause, "strerror", None) or cause
        raise UsageError(f"{target}: the page cannot be written ({reason}); name another file") from None
    return target


def compared(a: Path, b: Path) -> RenderableType:
    """Two results side by side; raises `UsageError` where one is none."""
    return comparing.table(comparing.compare(a, b))
