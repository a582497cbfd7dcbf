"""The experiment, stage by stage: the one file that knows the order. Read it first.

    config ─ tasks ─ tokens ─ training ─ store ─ lens ─ readings ─ statistics ─ verdicts ─ report

`run` calls each stage once. The pytest fixtures of `plugin` are these same functions, one a fixture.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from . import blas, config, controls, models, reader, report, tasks, tokens, training, verdicts
from .errors import UsageError
from .lens import LogitLens
from .progress import SILENT, Progress
from .readings import Prompt, Study
from .store import Entry, Store
from .verdicts import Prediction, Verdict

RANDOM_SETS = 20
"""Random word sets of control C2."""


@dataclass(frozen=True)
class Setting:
    """Everything that is fixed before the first training step."""

    config: config.Experiment
    store: Store
    source: models.Source
    model: Any
    tokenizer: Any
    lens: LogitLens
    vocabulary: tokens.Vocabulary
    splits: tasks.Splits
    plan: reader.Plan
    controls: tuple[controls.Control, ...]


@dataclass(frozen=True)
class Run:
    """One arm, one seed: where its checkpoints and readings are."""

    arm: str
    seed: int
    entry: Entry
    readings: Entry

    @property
    def checkpoints(self) -> dict[int, Path]:
        """Step to checkpoint folder."""
        return {int(p.name): p for p in sorted((self.entry.path / "checkpoints").iterdir())}

    @property
    def log(self) -> list[dict[str, Any]]:
        """`train.jsonl`: a row per checkpoint with loss and accuracy."""
        lines = (self.entry.path / "train.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


def prepare(experiment: config.Experiment, predictions: Sequence[Prediction], store: Store) -> Setting:
    """Model, data, tokens and lens, each proven before anything is trained.

    Raises
    ------
    UsageError
        The predictions, vocabulary or prompts do not fit the config.
    NotMeasurable
        The model cannot be had, or the lens refuses its architecture.
    BrokenExperiment
        A control that needs no training has failed.
    """
    verdicts.check(predictions, experiment)
    source = models.resolve(experiment.model, store)
    model, tokenizer = models.load(experiment.model, store=store)
    vocabulary = tokens.audit(tokenizer, experiment.vocabulary)
    shown = _shown(experiment)
    splits = tasks.generate(experiment.task, exclude=[tasks.parse(p.prompt) for p in experiment.test_prompts])
    plan = reader.plan(
        tokenizer,
        vocabulary,
        splits.test,
        shown,
        experiment.task.read_styles,
        tokens.random_words(tokenizer, vocabulary, RANDOM_SETS, experiment.task.seed),
        experiment.task.seed,
    )
    lens = LogitLens(model)
    lens.verify([list(ids) for ids in plan.prompt_ids[:4]])
    proven = controls.before_training(model, lens, plan)
    return Setting(experiment, store, source, model, tokenizer, lens, vocabulary, splits, plan, proven)


def train(setting: Setting, arm: config.Arm, seed: int, progress: Progress = SILENT) -> Entry:
    """One run, from the store if it is there; what was interrupted goes on where it stopped."""
    rows = tokens.rows(setting.tokenizer, setting.splits.train, setting.config.task.styles)
    valid = tokens.rows(setting.tokenizer, setting.splits.valid, setting.config.task.styles)

    def build(workdir: Path) -> dict[str, Any]:
        for name in ("train", "valid", "test"):
            tasks.write_jsonl(workdir / "data" / f"{name}.jsonl", getattr(setting.splits, name))
        return training.train(setting.model, setting.tokenizer, arm, seed, rows, valid, workdir, progress)

    return setting.store.get_or_build("runs", run_spec(setting, arm, seed), build)


def run_spec(setting: Setting, arm: config.Arm, seed: int) -> dict[str, Any]:
    """Everything that decides a run's content; its hash is the run's key."""
    settings = arm.model_dump(mode="json", exclude={"name", "enabled", "seeds"})
    return {
        "model": setting.source.hash,
        "arm": settings,
        "seed": seed,
        "styles": list(setting.config.task.styles),
        "data": {
            name: tasks.content_hash(getattr(setting.splits, name)) for name in ("train", "valid", "test")
        },
        "code": _code("training", "adapters", "tokens", "cpu"),
        **environment(),
    }


def read(setting: Setting, trained: Sequence[tuple[str, int, Entry]], progress: Progress = SILENT) -> tuple[list[Run], Study]:
    """Every layer of every checkpoint of every run."""
    spec = {"plan": setting.plan.spec(), "code": _code("lens", "reader", "cpu"), **environment()}
    base = setting.store.get_or_build(
        "base",
        spec | {"model": setting.source.hash},
        lambda folder: reader.read_base(setting.lens, setting.plan, folder, progress),
    )
    arrays = reader.load_base(base.path)
    runs, readings = [], []
    for arm, seed, entry in trained:
        checkpoints = {int(p.name): p for p in sorted((entry.path / "checkpoints").iterdir())}
        label = f"{arm} seed {seed}"

        def build(folder: Path, checkpoints=checkpoints, label=label) -> None:  # type: ignore[no-untyped-def]
            reader.read_run(setting.model, setting.lens, setting.plan, checkpoints, folder, label, progress)

        kept = setting.store.get_or_build("readings", spec, build, parent=entry)
        runs.append(Run(arm, seed, entry, kept))
        readings.append(reader.assemble(arm, seed, setting.plan, arrays, kept.path))
    return runs, Study(tuple(readings))


def judge(setting: Setting, predictions: Sequence[Prediction], study: Study) -> list[Verdict]:
    """One verdict per prediction and operation; a failed control is `BrokenExperiment`."""
    return verdicts.judge(predictions, study)


def environment() -> dict[str, Any]:
    """What may change a result from one machine to another: versions, device, dtype, BLAS."""
    versions = {name: importlib.metadata.version(name) for name in ("emergence", "mlx", "mlx-lm", "numpy")}
    return {
        "versions": versions,
        "device": str(mx.default_device()),
        "machine": platform.machine(),
        "blas": blas.install().name,
    }


def _code(*modules: str) -> str:
    """A hash of the source of the stages that decide a result: edited code never meets an old cache."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for name in sorted(modules):
        path = folder / f"{name}.py"
        if path.exists():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _shown(experiment: config.Experiment) -> list[Prompt]:
    shown = []
    for p in experiment.test_prompts:
        problem = tasks.parse(p.prompt)
        shown.append(Prompt(p.prompt, p.operation, problem.a, problem.b, p.expected, "symbolic", -1))
    return shown
