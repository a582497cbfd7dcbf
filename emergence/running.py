"""What the verbs do: settle a config, say what a run would do, start pytest, keep a record, look at models.

In: an experiment's folder and options. Out: renderables, an `Ended`, `results/run_*.json`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from . import config, outcome, predictions, records
from .catalogue import Listed
from .errors import UsageError
from .files import write_atomic
from .progress import clock
from .settings import Experiment
from .store import Store, key_of

if TYPE_CHECKING:
    from .predictions import Table as Claims


@dataclass(frozen=True)
class Ended:
    """Exit code, and one line for the person if there is something to say."""

    code: int
    message: str = ""


def settle(
    one: Listed,
    path: Path | None,
    params: Sequence[str],
    model: str | None,
    steps: str | None,
    seeds: int | None,
) -> tuple[Experiment, Claims]:
    """The config with every option applied, and the claims, checked against each other.

    Raises
    ------
    UsageError
        Whatever is wrong, before anything is loaded or trained.
    """
    given: dict[str, object] = dict(config.parse_override(p) for p in params)
    if model is not None:
        given["model"] = model
    experiment = config.narrowed(config.load(path or one.folder / "config.yaml", given), steps, seeds)
    claims = predictions.load_predictions(one.folder / "predictions.py")
    predictions.check(claims, experiment)
    return experiment, claims


def described(experiment: Experiment, claims: Claims) -> RenderableType:
    """`emergence info`."""
    facts = Table.grid(padding=(0, 2))
    task = experiment.task
    rows = {
        "model": experiment.model,
        "config": experiment.hash,
        "classes": ", ".join(task.operations),
        "problems": f"per class {task.num_train} train, {task.num_valid} validation, {task.num_test} test",
        "styles": f"trained on {', '.join(task.styles)}; read in {', '.join(task.read_styles)}",
        "words": "; ".join(f"{c}: {', '.join(words)}" for c, words in experiment.vocabulary.items()),
    }
    for name, value in rows.items():
        facts.add_row(Text(name, style="dim"), Text(value))
    arms = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("arm", "method", "tuning", "rate", "batch", "checkpoints", "seeds"):
        arms.add_column(column, header_style="dim")
    for arm in experiment.arms:
        tuning = (
            arm.fine_tune_type
            if arm.fine_tune_type == "full"
            else f"{arm.fine_tune_type}, rank {arm.lora.rank}"
        )
        steps, seeds = (" ".join(map(str, values)) for values in (arm.checkpoint_steps, arm.seeds))
        arms.add_row(
            arm.name, arm.method, tuning, f"{arm.learning_rate:g}", str(arm.batch_size), steps, seeds
        )
    said = Table.grid(padding=(0, 2))
    for claim in claims:
        said.add_row(Text(claim.id, style="bold"), Text(claim.claim))
    head = Group(Text(experiment.name, style="bold"), Text(experiment.description), Text(""))
    return Group(head, facts, Text(""), arms, Text(""), said)


def plan(experiment: Experiment, claims: Claims, store: Path) -> RenderableType:
    """`emergence run --dry-run`: what would be trained, for how long, and what is there already."""
    states, speed = _states(experiment, Store(store)), _seconds_per_step(Store(store))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("arm", "seed", "steps", "state", "time"):
        table.add_column(column, header_style="dim")
    total = 0.0
    for (name, seed), state in states.items():
        steps = experiment.arm(name).checkpoint_steps[-1]
        seconds = 0.0 if state == "cached" else steps * (speed or 0.0)
        total += seconds
        time = "–" if state == "cached" else f"about {clock(seconds)}" if speed else "unknown"
        table.add_row(name, str(seed), str(steps), state, time)
    todo = sum(state != "cached" for state in states.values())
    judged = len(claims) * len(experiment.task.operations)
    last = f"{len(states)} runs, {todo} to train"
    if todo:
        last += (
            f", about {clock(total)} of training"
            if speed
            else "; how long is known once a run has been trained here"
        )
    head = Text(f"{experiment.name}: model {experiment.model}, config {experiment.hash}, store {store}")
    return Group(head, Text(""), table, Text(""), Text(f"{last}; {judged} verdicts. Nothing was trained."))


def _states(experiment: Experiment, store: Store) -> dict[tuple[str, int], str]:
    """`cached`, `interrupted` (goes on where it stopped) or `to train` for every arm and seed."""
    pairs = [(arm, seed) for arm in experiment.arms for seed in arm.seeds]
    if not _is_here(experiment.model):
        return {(arm.name, seed): "to train, after a download" for arm, seed in pairs}
    from . import experiment as stages
    from . import models

    source = models.resolve(experiment.model, store)
    splits = stages.split(experiment)
    kept = {item.key: item.state for item in store.entries() if item.kind == "runs"}
    words = {"complete": "cached", "partial": "interrupted, goes on"}
    states = {}
    for arm, seed in pairs:
        key = key_of(stages.spec_of_run(experiment, source, splits, arm, seed))
        states[arm.name, seed] = words.get(kept.get(key, ""), "to train")
    return states


def _is_here(model: str) -> bool:
    """Whether a look at the model downloads nothing."""
    from huggingface_hub import try_to_load_from_cache

    from .models import EMBEDDED

    if model == EMBEDDED or Path(model).is_dir() or "/" not in model:
        return True
    repo, _, revision = model.partition("@")
    return isinstance(try_to_load_from_cache(repo, "config.json", revision=revision or None), str)


def _seconds_per_step(store: Store) -> float | None:
    """The median of what runs took here, from their manifests."""
    speeds = []
    for item in store.entries():
        if item.kind == "runs" and item.state == "complete":
            told = json.loads((item.path / "manifest.json").read_text(encoding="utf-8")).get("info") or {}
            if told.get("steps") and told.get("seconds"):
                speeds.append(told["seconds"] / told["steps"])
    return statistics.median(speeds) if speeds else None


def run(one: Listed, experiment: Experiment, flags: Sequence[str], store: Path) -> Ended:
    """Start pytest on the experiment's folder, and keep a record of how it ended.

    The record is written whatever happens, with the keys that `lazarus experiment status` reads.

    Raises
    ------
    NotMeasurable, UsageError
        The model cannot be had; nothing was started.
    """
    from . import models

    models.resolve(experiment.model, Store(store))  # a model that cannot be had is said here, in one line
    started = datetime.now()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "outcome.json"
        command = [
            sys.executable,
            "-m",
            "pytest",
            str(one.folder),
            "-m",
            "slow",
            "-p",
            "emergence.outcome",
            *flags,
        ]
        try:
            code = subprocess.run(
                command, env=os.environ | {outcome.VARIABLE: str(path)}, check=False
            ).returncode
        except KeyboardInterrupt:
            code = 2
        told = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    ended_ = ended(code, told)
    place = store / "experiments" / experiment.name
    record = _record(experiment, place, started, ended_, told)
    target = place / "results" / f"run_{started:%Y%m%d_%H%M%S}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, json.dumps(record, indent=2, ensure_ascii=False))
    return ended_


def ended(code: int, told: dict[str, Any]) -> Ended:
    """Pytest's exit code and what was recorded, as one of ours."""
    errors = told.get("errors", [])
    broken = [e for e in errors if e["kind"] != "UsageError"]
    if broken or code == 3:
        return Ended(3, broken[0]["message"] if broken else "pytest itself failed; see above")
    if errors:
        return Ended(2, errors[0]["message"])
    if code == 2:
        return Ended(130, "interrupted; run it again to go on where it stopped")
    if told.get("failed"):
        return Ended(1, f"{len(told['failed'])} verdicts failed or changed")
    if told.get("skipped") and not told.get("passed"):
        return Ended(2, told["skipped"][0])
    if code == 5:
        return Ended(2, "no slow tests in the experiment's folder; see docs/extending.md")
    return Ended({0: 0, 1: 3, 4: 2}.get(code, 3), "" if code == 0 else "see above")


def _record(
    experiment: Experiment, place: Path, started: datetime, ended: Ended, told: dict[str, Any]
) -> dict[str, Any]:
    status = {0: "success", 1: "success", 130: "interrupted"}.get(ended.code, "failed")
    judged: dict[str, Any] = {}
    produced: dict[str, Any] = {}
    if status == "success" and (place / records.VERDICTS).exists():
        from . import results

        info, verdicts = results.read_verdicts(place)
        judged = {
            outcome: sum(v.outcome == outcome for v in verdicts)
            for outcome in ("supported", "falsified", "inconclusive")
        }
        judged |= {f"{v.prediction}[{v.operation}]": v.outcome for v in verdicts}
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
        experiment.model_dump(mode="json"),
        error,
    )


def at_hand(store: Path) -> RenderableType:
    """Models that need no download."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    from .files import size_text
    from .models import EMBEDDED

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
    from . import models, proof

    if not name.strip():
        raise UsageError("--check: name a model")
    model, _ = models.load(name, store=Store(store))
    return f"{name}: the lens can serve it\n{proof.prove(model)}"
