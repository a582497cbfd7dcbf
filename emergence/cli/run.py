"""What the verbs do: start pytest and keep a record of how it ended, look at models.

In: a settled experiment, pytest's flags. Out: an `Ended`, `results/run_*.json`, renderables.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from ..config.settings import Config
from ..errors import UsageError
from ..report import records
from ..store.files import write_atomic
from ..store.store import Store
from . import outcome
from .catalogue import Listed


@dataclass(frozen=True)
class Ended:
    """Exit code, and one line for the person if there is something to say."""

    code: int
    message: str = ""


def run(one: Listed, experiment: Config, flags: Sequence[str], store: Path) -> Ended:
    """Start pytest on the experiment's folder, and keep a record of how it ended.

    The record is written whatever happens, with the keys that `lazarus experiment status` reads.

    Raises
    ------
    NotMeasurable, UsageError
        The model cannot be had, or nothing can be kept in the store; nothing was started.
    """
    from ..models import loading as models

    models.resolve(experiment.model, Store(store))  # a model that cannot be had is said here, in one line
    kept = Store(store).folder("experiments", experiment.name, "results")  # and so is a store
    started = datetime.now()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "outcome.json"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-m",
            "slow",
            "-p",
            "emergence.cli.outcome",
            *flags,
            str(one.folder),
        ]
        environment = os.environ | {outcome.VARIABLE: str(path)}
        code = _until_it_ends(command, environment)
        told = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    ended_ = ended(code, told)
    place = store / "experiments" / experiment.name
    record = _record(experiment, place, started, ended_, told)
    write_atomic(kept / f"run_{started:%Y%m%d_%H%M%S}.json", json.dumps(record, indent=2, ensure_ascii=False))
    return ended_


def _until_it_ends(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run pytest, which keeps what was reached when it is stopped; a signal for us is one for it."""
    tests: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        if not tests:
            early.append(number)
        elif number != signal.SIGINT or not _typed():
            tests[0].send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        tests.append(subprocess.Popen(command, env=environment))
        for number in early:
            tests[0].send_signal(number)
        return tests[0].wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _typed() -> bool:
    """Whether Ctrl-C comes from our terminal, which sends it to pytest too: two would cut it short."""
    try:
        with open("/dev/tty") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:
        return False


def ended(code: int, told: dict[str, Any]) -> Ended:
    """Pytest's exit code and what was recorded, as one of ours."""
    errors = told.get("errors", [])
    broken = [e for e in errors if e["kind"] != "UsageError"]
    if broken or code == 3:
        return Ended(3, broken[0]["message"] if broken else "pytest itself failed; see above")
    if errors:
        return Ended(2, errors[0]["message"])
    if code in (2, -signal.SIGINT, -signal.SIGTERM):
        return Ended(130, "interrupted; run it again to go on where it stopped")
    if told.get("failed"):
        return Ended(1, f"{len(told['failed'])} verdicts failed or changed")
    if told.get("skipped") and not told.get("passed"):
        return Ended(2, told["skipped"][0])
    if code == 5:
        return Ended(2, "no slow tests in the experiment's folder; see docs/extending.md")
    return Ended({0: 0, 1: 3, 4: 2}.get(code, 3), "" if code == 0 else "see above")


def _record(
    experiment: Config, place: Path, started: datetime, ended: Ended, told: dict[str, Any]
) -> dict[str, Any]:
    status = {0: "success", 1: "success", 130: "interrupted"}.get(ended.code, "failed")
    judged: dict[str, Any] = {}
    produced: dict[str, Any] = {}
    if status == "success" and (place / records.VERDICTS).exists():
        from ..report import results

        info, verdicts = results.read_verdicts(place)
        judged = {
            outcome: sum(v.outcome == outcome for v in verdicts)
            for outcome in ("supported", "falsified", "inconclusive")
        }
        judged |= {f"{v.prediction}[{v.cls}]": v.outcome for v in verdicts}
        judged |= {"failed_tests": told.get("failed", [])}
        produced = {"report": str(place / "report.html"), "runs": info["provenance"].get("runs", {})}
    error = None if status == "success" else ended.message or "failed"
    return records.run_record(
        experiment.name,
        status,
        started,
        datetime.now(),
        produced,
        judged,
        experiment.public.model_dump(mode="json"),
        error,
    )


def at_hand(store: Path) -> RenderableType:
    """Models that need no download."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    from ..models.loading import EMBEDDED
    from ..store.files import size_text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("model", "where", "size"):
        table.add_column(column, header_style="dim")
    converted = next(
        (i for i in Store(store).entries() if i.kind == "models" and i.spec.get("name") == EMBEDDED), None
    )
    table.add_row(
        EMBEDDED,
        "embedded" if converted else "embedded, converted at first use",
        size_text(converted.size) if converted else "–",
    )
    try:
        cached = sorted(scan_cache_dir().repos, key=lambda repo: repo.repo_id)
    except CacheNotFound:
        cached = []
    for repo in cached:
        if repo.repo_type == "model":
            table.add_row(repo.repo_id, "hub cache", size_text(repo.size_on_disk))
    return table


def proven(name: str, store: Path) -> str:
    """Load a model and prove the lens on it: how far each promise is from exact.

    Raises
    ------
    NotMeasurable
        The model cannot be had, or the lens refuses it, and why.
    """
    from ..lens import proof
    from ..models import loading as models

    if not name.strip():
        raise UsageError("--check: name a model")
    model, _ = models.load(name, store=Store(store))
    return f"{name}: the lens can serve it\n{proof.prove(model)}"


def drawn(prompt: str, name: str, chat: bool, store: Path) -> RenderableType:
    """One prompt through the lens of a model: layers × positions.

    Raises
    ------
    UsageError
        The prompt is empty, or the tokenizer has no template for `chat`.
    NotMeasurable
        The model cannot be had, or the lens refuses it.
    """
    from ..lens import logit_lens as lens
    from ..models import loading as models

    if not prompt:
        raise UsageError("the prompt is empty; write one, such as '7 * 8 = '")
    model, tokenizer = models.load(name, store=Store(store))
    return lens.LogitLens(model).show(prompt, tokenizer, chat=chat)
