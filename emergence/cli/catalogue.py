"""Which experiments there are, and what is known of each. In: a folder of experiments, a store's root.

An experiment is a folder with `config.yaml` and `predictions.py`. Results lie under the name that the config
gives, which may differ from the folder's; the experiment is found by either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..report import records
from ..wording import did_you_mean, first_line, printable

FOLDER, CONFIG = "hypotheses", "config.yaml"


@dataclass(frozen=True)
class Listed:
    """One experiment's folder, and where its results are kept."""

    name: str
    """The folder's."""
    folder: Path
    home: Path
    """`experiments/<name>` in the store: a folder for each config and model, and the records of all runs."""

    @property
    def said(self) -> dict[str, Any]:
        """What `list` tells of it."""
        from .. import config

        try:
            description = config.load(self.folder / CONFIG).description
        except UsageError as error:
            description = f"(cannot be used: {first_line(error)})"
        there = self.results is not None
        return {
            "name": self.name, "description": description, "path": str(self.folder), "has_results": there,
        }  # fmt: skip

    def runs(self) -> list[dict[str, Any]]:
        """The records of its runs, oldest first."""
        return records.run_records(self.home)

    def known(self) -> list[Path]:
        """Every folder with results, the one judged last at the end."""
        return records.known(self.home.parent.parent, self.home.name)

    @property
    def results(self) -> Path | None:
        """The newest results; None where nothing was judged."""
        return records.newest(self.home)

    def require_results(self, key: str | None = None) -> Path:
        """The results of a config and model (`status --all` shows the keys), or the newest.

        Raises
        ------
        UsageError
            There are none, or none of that key.
        """
        there = {path.name: path for path in self.known()}
        if key is not None and (found := [path for name, path in there.items() if name.startswith(key)]):
            return found[-1]
        if key is not None and there:
            raise UsageError(f"{self.name}: no results {printable(key)!r}; there are: {', '.join(there)}")
        if newest := self.results:
            return newest
        raise UsageError(
            f"{self.name}: no results yet in {self.home}; `emergence run {self.name}` makes some"
        )

    def status(self, key: str | None = None) -> dict[str, Any]:
        """What `emergence status --json` prints; the keys are those of `lazarus experiment status`."""
        runs = self.runs()
        results = self.require_results(key) if self.results else None
        return {
            "name": self.name,
            "path": str(self.folder),
            "has_results": bool(results or runs),
            "latest_result": runs[-1] if runs else None,
            "verdicts": self._verdicts(results) if results else [],
        }

    def _verdicts(self, folder: Path) -> list[Mapping[str, Any]]:
        from ..report import results

        kept = (
            "prediction",
            "class",
            "outcome",
            "estimate",
            "low",
            "high",
            "threshold",
            "layer",
            "step",
            "reason",
        )
        return [{k: row[k] for k in kept} for row in (v.as_row() for v in results.read_verdicts(folder)[1])]


def root(given: Path | None = None) -> Path:
    """The folder of experiments: the one given, else `hypotheses` here or above.

    Raises
    ------
    UsageError
        There is none.
    """
    if given is not None:
        if not given.is_dir():
            raise UsageError(f"{given}: no such folder of experiments")
        return given
    here = Path.cwd()
    for place in (here, *here.parents):
        if (place / FOLDER).is_dir():
            return place / FOLDER
    raise UsageError(f"no folder {FOLDER!r} here or above {here}; name one with --experiments-dir")


def every(folder: Path, store: Path) -> Iterator[Listed]:
    """The experiments in a folder, by name."""
    for place in sorted(path.parent for path in folder.glob(f"*/{CONFIG}")):
        yield _listed(place, store)


def _listed(place: Path, store: Path) -> Listed:
    from ..config import loading as config

    name = place.resolve().name
    try:
        title = config.load(place / CONFIG).name
    except UsageError:  # whoever uses it is told
        title = name
    return Listed(name, place, store / "experiments" / title)


def distinct(names: Mapping[Path, str]) -> None:
    """Refuse experiments, by folder, of which two have one name: their results would lie in one place."""
    for name in names.values():
        if len(same := [str(folder) for folder in names if names[folder] == name]) > 1:
            raise UsageError(
                f"name: {name}: {' and '.join(same)} would overwrite each other's results; rename one"
            )


def find(name: str, folder: Path, store: Path) -> Listed:
    """One experiment by name, or by the path of its folder.

    Raises
    ------
    UsageError
        Unknown, or two experiments have it; says which there are.
    """
    known = {listed.name: listed for listed in every(folder, store)}
    found = known.get(name) or next((one for one in known.values() if one.home.name == name), None)
    if found:
        distinct({one.folder: one.home.name for one in known.values() if one.home == found.home})
        return found
    path = Path(name)
    if (path / CONFIG).is_file():
        return _listed(path, store)
    there = f"there are: {', '.join(known)}" if known else f"{folder} holds none"
    raise UsageError(f"unknown experiment {printable(name)!r}{did_you_mean(name, known)}; {there}")


def run_line(record: dict[str, Any]) -> str:
    """One run in a line: its record, when, how it ended and how long it took."""
    seconds = record.get("duration_seconds") or 0.0
    started = str(record.get("started_at", "unknown"))[:19]
    error = f": {str(record['error']).splitlines()[0]}" if record.get("error") else ""
    return f"{record['file']}  {started}  {record.get('status')} ({seconds:.1f} s){error}"
