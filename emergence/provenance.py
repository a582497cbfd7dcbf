"""What a result depends on, as plain values: the keys of what is kept, and where every number came from.

In: a prepared experiment. Out: the specs whose hashes are keys in the store, sizes, and the provenance that
every result carries. What is hashed and what is not is decided here and nowhere else.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from . import __version__, backend, models, tasks, verdicts
from .config import Said
from .store.files import source_hash
from .verdicts.registration import JUDGING

if TYPE_CHECKING:
    from .config import Arm, Config
    from .experiment import Experiment
    from .models import Source
    from .readings import Plan
    from .tasks import Splits
    from .training import Run
    from .verdicts import Registration, Verdict

TRAINING = ("training", "lens", "models", "tasks", "backend")
READING = ("readings", "interventions", "lens", "models", "tasks", "backend")
"""Packages whose source decides what is trained, and what is read."""


def hash_source() -> None:
    """Hash the source that decides results now: a file that is edited while a run trains changes no key."""
    for packages in (TRAINING, READING, JUDGING):
        source_hash(packages)


def environment() -> dict[str, Any]:
    """What may change a result from one kind of machine to another: versions, device, instruction set.

    The kernels that OpenBLAS chose are not in it: two hosts of a sweep may differ in them, and share a store.
    They stand in each run's manifest; that the same seed gives the same bytes is promised for one machine.
    """
    others = {name: importlib.metadata.version(name) for name in ("mlx", "mlx-lm", "numpy")}
    versions = {"emergence": __version__, **others}
    return {"versions": versions, "device": backend.device(), "machine": platform.machine()}


def run_spec(
    config: Config, source: Source, splits: Splits, arm: Arm, seed: int, ranks: int = 1
) -> dict[str, Any]:
    """Everything that decides a run's content; its hash is the run's key. Needs no loaded model.

    Sums over several `ranks` round otherwise than one process does. What is given is not trained by any.
    """
    together = {"ranks": ranks} if ranks > 1 and arm.method != "given" else {}
    return {
        "model": source.hash,
        "arm": arm.spec() | ({"content": arm.content[arm.seeds.index(seed)]} if arm.content else {}),
        "seed": seed,
        "styles": list(config.task.styles),
        "data": {name: tasks.content_hash(getattr(splits, name)) for name in ("train", "valid", "test")},
        "code": source_hash(TRAINING),
        **together,
        **environment(),
    }


def reading_spec(plan: Plan, source: Source) -> dict[str, Any]:
    """Everything that decides a reading but the checkpoint: a reading is nested in its run."""
    return {"plan": plan.spec(), "model": source.hash, "code": source_hash(READING), **environment()}


def require_space(experiment: Experiment, wanted: Sequence[tuple[Arm, int]]) -> list[tuple[Arm, int]]:
    """The runs that are not there yet; raises `BrokenExperiment` unless they fit on the store's disk."""
    missing = [
        (arm, seed)
        for arm, seed in wanted
        if experiment.store.find("runs", experiment.spec(arm, seed)) is None
    ]
    experiment.store.require_space(sum(size(experiment.model, arm) for arm, _ in missing))
    return missing


def size(model: Any, arm: Arm) -> int:
    """Bytes of an arm's checkpoints, and of the state that an interrupted run goes on from.

    A state is weights and Adam's two moments; the old one goes when the new one is there.
    """
    from .training import checkpoints

    with models.lora(model, arm.fine_tune_type, arm.lora):
        trained = sum(p.nbytes for p in checkpoints.flat(model.trainable_parameters()).values())
    return trained * (len(arm.checkpoint_steps) + 2 * 3)


def began(runs: Sequence[Run]) -> datetime | None:
    """When the first of these runs began to train, from their manifests; None where there is no run."""
    return min(
        (
            datetime.fromisoformat(entry.manifest["created"]) - timedelta(seconds=entry.info["seconds"])
            for entry in (run.entry for run in runs)
        ),
        default=None,
    )


def registration(experiment: Experiment) -> Registration:
    """Whether the table of claims was fixed before the first run began, as far as git knows."""
    first, config = began(experiment.runs), experiment.config
    return verdicts.registered(experiment.folder, experiment.predictions, config.hash, first)


def marked(experiment: Experiment, judged: Sequence[Verdict]) -> Sequence[Verdict]:
    """The verdicts; DEVIATED where the table of claims was changed after training began."""
    return verdicts.mark(judged, experiment.registration)


def recorded(experiment: Experiment) -> dict[str, Any]:
    """The verdicts as `verdicts.record` writes them down."""
    return verdicts.record(
        folder=experiment.folder,
        config=experiment.config,
        weights=experiment.source.hash,
        table=experiment.predictions,
        verdicts=experiment.verdicts,
        registration=experiment.registration,
    )


def notes(experiment: Experiment) -> tuple[str, ...]:
    """What to know about this model and its tokens before a number is used, a line each."""
    tokenizer, styles = experiment.tokenizer, experiment.config.task.read_styles
    said = (
        *models.notices(experiment.model, tokenizer),
        *experiment.vocabulary.left_out,
        *experiment.config.task.warnings(tokenizer, experiment.config.vocabulary),
        *tasks.boundary_report(tokenizer, experiment.splits.test, styles),
    )
    return tuple(dict.fromkeys(said))


def reported(experiment: Experiment) -> dict[str, Any]:
    """What `report.write` is told, by the names of its parameters."""
    return {
        "experiment": experiment.config.public,
        "study": experiment.study,
        "verdicts": experiment.verdicts,
        "provenance": provenance(experiment),
        "train_logs": {(run.arm, run.seed): run.by_checkpoint for run in experiment.runs},
        "decode": lambda token: str(experiment.tokenizer.decode([token])),
        "notice": experiment.store.notice,
    }


def command(experiment: Experiment) -> str | None:
    """The line that makes the results again; None for checkpoints that were given in the call itself."""
    words = ["emergence", "run", experiment.folder.resolve().name]
    if experiment.file != experiment.folder / "config.yaml":
        words += ["-c", experiment.file.name]
    for name, value in experiment.overrides.items():
        if isinstance(value, Mapping | Said):
            return None
        text = value if isinstance(value, str) else json.dumps(value)
        text = os.path.basename(text) if os.path.isabs(text) else text  # no path of this machine
        if name == "model":
            words += ["--model", experiment.config.public.model]
        else:
            words += [f"--{name}", text] if name in ("steps", "seeds") else ["-p", f"{name}={text}"]
    return shlex.join(words)


def provenance(experiment: Experiment) -> dict[str, Any]:
    """Where every number came from: model, data, runs, tokens, versions, device. No path of this machine."""
    config, runs = experiment.config, experiment.runs
    return {
        "model": {
            "name": config.public.model,
            "revision": experiment.source.revision,
            "hash": experiment.source.hash,
        },
        "command": command(experiment),
        "config_hash": config.hash,
        "config": config.public.model_dump(mode="json"),
        "predictions_version": experiment.predictions.version,
        "registration": experiment.registration.as_dict(),
        "seeds": sorted({run.seed for run in runs}),
        "runs": {f"{run.arm} seed {run.seed}": run.entry.key for run in runs},
        "training_seconds": sum(run.entry.info["seconds"] for run in runs),
        "controls": {c.name: c.reason for c in experiment.controls},
        "tokens": [dataclasses.asdict(row) for row in experiment.vocabulary.table],
        "blas": backend.install().name,
        "ranks": experiment.ranks,
        **environment(),
    }
