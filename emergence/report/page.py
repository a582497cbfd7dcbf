"""Verdicts and readings to what people see: `report.html`, figures, `verdicts.json`, tidy tables.

In: experiment, study, verdicts, provenance, training logs. Out: files in one folder. The page is one file
without any outside part; everything that came from a model or a config is text in it, never markup.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from ..analysis import DEALS
from ..errors import BrokenExperiment, UsageError
from ..readings.bands import BANDS
from ..readings.readings import Study
from ..store import files
from ..store.locks import locked
from ..verdicts.verdict import Verdict
from . import answers, payload, records, results, sources, tables
from .payload import Decode

PAGE, DATA = "report.html", "report.json"
_SCRIPTS = ("charts.js", "export.js", "page.js", "used.js", "links.js", "start.js")
_FINGERPRINT = ".fingerprint"
_PAIR = "verdicts_sha256"
"""In `report.json`: which `verdicts.json` it was written with."""
_LOCK = "report"

Notice = Callable[[str], None]
"""Tells, in one line, that another process writes into the folder and is waited for."""


def _silent(line: str) -> None:
    pass


def write(
    folder: Path,
    experiment: Any,
    study: Study,
    verdicts: Sequence[Verdict],
    provenance: Mapping[str, Any],
    train_logs: Mapping[tuple[str, int], Sequence[Mapping[str, Any]]],
    decode: Decode | None = None,
    notice: Notice = _silent,
) -> Path:
    """Write everything into `folder` and return the path of `report.html`; one process at a time does.

    Figures and Parquet files of unchanged readings are kept as they are.

    Parameters
    ----------
    experiment
        With `name`, `description`, `model` and `hash`.
    provenance
        Model, hashes, versions, config, seeds, device, time: nested mappings, shown as they are.
    train_logs
        `(arm, seed)` to the rows of its `train.jsonl`.
    decode
        Token id to text; without it the page shows ids.
    notice
        Called with one line while another process writes into `folder`.

    Raises
    ------
    UsageError, BrokenExperiment
        The folder may not be written, or the disk is full.
    """
    with files.explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    logs = {f"{arm}/{seed}": rows for (arm, seed), rows in train_logs.items()}
    content = results.document(experiment, verdicts, provenance) | {"description": experiment.description}
    data = payload.build(study, logs, decode)
    data["decoded"] = {str(i): decode(i) for v in verdicts for i in v.token_ids} if decode else {}
    with locked(folder / _LOCK, notice):
        for place in (folder, folder / "figures"):
            files.sweep(place, deep=False)  # what a job that was killed here left
        _write_json(folder / records.VERDICTS, content)
        _write_json(folder / DATA, data | {_PAIR: files.digest(folder / records.VERDICTS)})
        _write_heavy(folder, study, logs)
        return _render(folder, folder / PAGE)


def render(folder: Path, target: Path | None = None, notice: Notice = _silent) -> Path:
    """Draw the page again from `verdicts.json` and `report.json`; no model, no readings.

    It goes to `target`, or else to its place in `folder`, where a run that ends meanwhile waits for it.

    Raises
    ------
    UsageError
        There are no results in `folder`, they are of two runs, or the page cannot be written.
    BrokenExperiment
        They are damaged.
    """
    if target is not None:
        return _render(folder, target)
    results.read_verdicts(folder)  # no lock where there are no results
    with locked(folder / _LOCK, notice):
        return _render(folder, folder / PAGE)


def _render(folder: Path, path: Path) -> Path:
    info, verdicts = results.read_verdicts(folder)
    data = _read_data(folder)
    try:
        files.write_atomic(path, page(info, verdicts, data))
    except (OSError, UsageError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        reason = getattr(cause, "strerror", None) or cause
        raise UsageError(f"{path}: the page cannot be written ({reason}); name another file") from None
    return path


def _read_data(folder: Path) -> dict[str, Any]:
    """`report.json`, if it was written with the `verdicts.json` that is there."""
    try:
        data: dict[str, Any] = json.loads((folder / DATA).read_text(encoding="utf-8"))
        written_with = data.pop(_PAIR, None)
    except FileNotFoundError:
        raise UsageError(f"{folder / DATA}: there is no such file; run the experiment again") from None
    except (ValueError, AttributeError, TypeError) as error:
        raise BrokenExperiment(f"{folder / DATA}: damaged ({error}); run the experiment again") from None
    if written_with != files.digest(folder / records.VERDICTS):
        raise UsageError(
            f"{folder}: {records.VERDICTS} and {DATA} are of two runs: one was stopped while it wrote them,"
            " or writes them now; run the experiment again"
        )
    return data


def missing(folder: Path) -> list[str]:
    """Figures and tables that the last run wrote and that are no longer there."""
    mark = folder / _FINGERPRINT
    names = mark.read_text(encoding="utf-8").split("\n")[1:] if mark.exists() else []
    return [name for name in names if not (folder / name).exists()]


def page(info: Mapping[str, Any], verdicts: Sequence[Verdict], data: Mapping[str, Any]) -> str:
    """The whole HTML page as text."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=jinja2.PackageLoader("emergence.report", "templates"),
    )  # fmt: skip
    environment.filters |= {
        "number": tables.number,
        "interval": tables.interval,
        "visible": visible,
        "plain": sources.plain,
    }
    low, high = middle = BANDS["middle"]
    environment.globals |= {"badges": tables.BADGES, "whisker": whisker, "deals": DEALS}
    environment.globals["middle"] = f"{100 * low:.0f}–{100 * high:.0f}"
    script = "\n".join(asset(name) for name in _SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    ordered = sorted(verdicts, key=lambda v: not v.control)
    return environment.get_template("report.html.jinja").render(
        info=info,
        groups=[(key, list(rows)) for key, rows in groupby(ordered, key=lambda v: (v.prediction, v.claim))],
        answers=answers.answers(verdicts),
        classes=list(dict.fromkeys(v.cls for v in verdicts)),
        anchors={(v.prediction, v.cls): _anchor(v) for v in verdicts},
        summary=tables.counts(verdicts),
        counts={name: sum(v.outcome == name for v in verdicts) for name in tables.BADGES},
        made=sources.summary(info["provenance"]),
        decoded=data["decoded"],
        used=bool(data.get("exchanged")),
        style=Markup(asset("report.css")),
        script=Markup(script),
        script_hash=digest,
        data=Markup(
            payload.embed({**data, "middle": middle, "verdicts": list(map(payload.evidence, ordered))})
        ),
        created=datetime.fromisoformat(info["created"]).strftime("%Y-%m-%d %H:%M %Z"),
    )


def _anchor(v: Verdict) -> str:
    """The id of a verdict's row: letters, digits and dashes, whatever a class is called."""
    return f"verdict-{hashlib.sha256(f'{v.prediction}/{v.cls}'.encode()).hexdigest()[:8]}"


def visible(text: str) -> str:
    """A token with nothing hidden: spaces as `␣`, control and direction characters by their code."""
    shown = []
    for char in text:
        if char == " ":
            shown.append("␣")
        elif char.isprintable():
            shown.append(char)
        else:
            shown.append({"\n": "⏎", "\t": "⇥"}.get(char, f"⟨{ord(char):04X}⟩"))
    return "".join(shown)


def whisker(verdict: Verdict, rows: Sequence[Verdict], width: int = 180) -> dict[str, Any] | None:
    """Where estimate, interval, threshold and baseline fall, in px, on a line that a claim's rows share."""
    numbers = [x for v in rows for x in (v.estimate, v.low, v.high, v.threshold, v.baseline) if x is not None]
    if verdict.estimate is None or not numbers:
        return None
    low, high = min(0.0, *numbers), max(numbers)
    span = (high - low) or 1.0

    def at(value: float | None) -> float | None:
        return None if value is None else round(6 + (width - 12) * (value - low) / span, 1)

    marks = {k: at(getattr(verdict, k)) for k in ("estimate", "low", "high", "threshold", "baseline")}
    return marks | {"width": width, "zero": at(0.0)}


def asset(name: str) -> str:
    """A file of the page's templates, as text."""
    return (resources.files("emergence.report") / "templates" / name).read_text(encoding="utf-8")


def _write_json(path: Path, value: Any) -> None:
    files.write_atomic(
        path,
        json.dumps(
            value, allow_nan=False, ensure_ascii=False, indent=1 if path.name == records.VERDICTS else None
        ),
    )


def _write_heavy(folder: Path, study: Study, logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Figures and Parquet: seconds of work, so not done again for the same readings and code."""
    fingerprint = fingerprint_of(study, logs)
    mark = folder / _FINGERPRINT
    if mark.exists() and mark.read_text().startswith(f"{fingerprint}\n") and not missing(folder):
        return
    mark.unlink(missing_ok=True)
    from . import figures

    written = results.write_tidy(folder, study) + figures.write(folder / "figures", study, logs)
    names = [path.relative_to(folder).as_posix() for path in written]
    files.write_atomic(mark, "\n".join([fingerprint, *names]))


def fingerprint_of(study: Study, logs: Mapping[str, Any]) -> str:
    """A hash of everything that figures and tidy tables depend on, their code included."""
    digest = hashlib.blake2b(json.dumps(logs, sort_keys=True, default=str).encode())
    digest.update(files.source_hash(("analysis", "report", "readings", "verdicts")).encode())
    for run in study.runs:
        for name in (field.name for field in dataclasses.fields(run) if "hidden" not in field.name):
            value = getattr(run, name)
            digest.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return digest.hexdigest()
