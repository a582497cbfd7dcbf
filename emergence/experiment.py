"""The experiment, stage by stage: the one file that knows the order. Read it first.

    config ─ tasks ─ tokens ─ training ─ store ─ lens ─ readings ─ statistics ─ verdicts ─ report

`run` calls each stage once. The pytest fixtures of `plugin` are these same functions, one a fixture.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from .analysis import evidence
from .backend import openblas
from .config import loading as config
from .lens.logit_lens import LogitLens
from .models import loading as models
from .progress import SILENT, Progress
from .readings import controls, reader
from .readings.readings import Prompt, Readings, Study
from .report import page as report
from .store.locks import locked
from .store.store import Entry, Store
from .tasks import task as tasks
from .tasks import vocabulary as tokens
from .training import checkpoints
from .training import loop as training
from .verdicts import findings
from .verdicts import judging as verdicts
from .verdicts.judging import Prediction, Verdict

RANDOM_SETS = 20
"""Random word sets of control C2."""

_READING = ("readings", "lens", "models", "tasks", "backend")
_TRAINING = ("training", "lens", "models", "tasks", "backend")
"""Packages whose source decides what is read, and what is trained."""


@dataclass(frozen=True)
class Instrument:
    """A model and a lens that has proven itself on it."""

    source: models.Source
    model: Any
    tokenizer: Any
    lens: LogitLens


@dataclass(frozen=True)
class Setting:
    """Everything that is fixed before the first training step."""

    config: config.Config
    store: Store
    source: models.Source
    model: Any
    tokenizer: Any
    lens: LogitLens
    vocabulary: tokens.Vocabulary
    splits: tasks.Splits
    plan: reader.Plan
    controls: tuple[controls.Control, ...]
    notes: tuple[str, ...]
    """What to know about the tokens, a line each."""


@dataclass(frozen=True)
class Run:
    """One arm, one seed, trained: its entry in the store."""

    arm: str
    seed: int
    entry: Entry

    @property
    def checkpoints(self) -> dict[int, Path]:
        """Step to checkpoint folder."""
        names = {
            name.split("/")[1] for name in self.entry.manifest["files"] if name.startswith("checkpoints/")
        }
        return {int(name): self.entry.path / "checkpoints" / name for name in sorted(names)}

    @property
    def log(self) -> list[dict[str, Any]]:
        """`train.jsonl`: a row per checkpoint with loss and accuracy."""
        return [json.loads(line) for line in self.entry.file("train.jsonl").read_text().splitlines()]


def run(
    experiment: config.Config,
    predictions: Sequence[Prediction],
    store: Store,
    progress: Progress = SILENT,
) -> list[Verdict]:
    """The whole of it, in order."""
    instrument = load(experiment, store)
    setting = prepare(experiment, predictions, instrument, store)
    runs = train_all(setting, progress)
    study = read(setting, runs, progress)
    judged = judge(setting, predictions, study)
    publish(setting, predictions, runs, study, judged)
    return judged


def load(experiment: config.Config, store: Store) -> Instrument:
    """The model, and a lens on it.

    Raises
    ------
    NotMeasurable
        The model cannot be had, or the lens refuses its architecture.
    """
    _code(*_TRAINING), _code(*_READING)
    source = models.resolve(experiment.model, store)
    model, tokenizer = models.load(experiment.model, store=store)
    # Rows of the head that no token of the tokenizer names are padding, and no part of any distribution.
    named = max(tokenizer.get_vocab().values()) + 1
    lens = LogitLens(model)
    if named < lens.head_size:
        lens = LogitLens(model, named)
    return Instrument(source, model, tokenizer, lens)


def prepare(
    experiment: config.Config, predictions: Sequence[Prediction], instrument: Instrument, store: Store
) -> Setting:
    """Data, tokens and lens, each proven before anything is trained.

    Raises
    ------
    UsageError
        The predictions, vocabulary or prompts do not fit the config or the tokenizer.
    BrokenExperiment
        A control that needs no training has failed.
    """
    verdicts.check(predictions, experiment)
    model, tokenizer, lens = instrument.model, instrument.tokenizer, instrument.lens
    vocabulary = tokens.audit(tokenizer, experiment.vocabulary)
    shown = _shown(experiment)
    splits = split(experiment)
    random_words = tokens.random_words(tokenizer, vocabulary, RANDOM_SETS, experiment.task.seed)
    styles = experiment.task.read_styles
    plan = reader.plan(tokenizer, vocabulary, splits.test, shown, styles, random_words, experiment.task.seed)
    evidence.disjoint(plan.prompts)
    evidence.separate(plan.token_sets)
    lens.verify([list(ids) for ids in plan.prompt_ids[:4]])
    proven = controls.before_training(model, lens, plan)
    left_out = (
        f"{row.cls}: {row.word!r} is left out: {row.left_out}" for row in vocabulary.table if row.left_out
    )
    notes = (*left_out, *tokens.boundary_report(tokenizer, splits.test, styles))
    return Setting(
        experiment, store, instrument.source, model, tokenizer, lens, vocabulary, splits, plan, proven, notes
    )


def train_all(setting: Setting, progress: Progress = SILENT) -> list[Run]:
    """Every arm × seed of the config."""
    pairs = [(arm, seed) for arm in setting.config.arms for seed in arm.seeds]
    missing = [arm for arm, seed in pairs if setting.store.find("runs", run_spec(setting, arm, seed)) is None]
    setting.store.require_space(sum(_size(setting.model, arm) for arm in missing))
    return [Run(arm.name, seed, train(setting, arm, seed, progress)) for arm, seed in pairs]


def train(setting: Setting, arm: config.Arm, seed: int, progress: Progress = SILENT) -> Entry:
    """One run, from the store if it is there; what was interrupted goes on where it stopped."""

    def build(workdir: Path) -> dict[str, Any]:
        rows, valid = (
            tokens.rows(setting.tokenizer, part, setting.config.task.styles)
            for part in (setting.splits.train, setting.splits.valid)
        )
        (workdir / "data").mkdir(exist_ok=True)
        for name in ("train", "valid", "test"):
            tasks.write_jsonl(workdir / "data" / f"{name}.jsonl", getattr(setting.splits, name))
        trained = training.train(
            setting.model, setting.tokenizer, arm, seed, rows, valid, workdir, progress, setting.lens
        )
        return trained | {"threads": openblas.install().threads}

    return setting.store.get_or_build("runs", run_spec(setting, arm, seed), build)


def spec_of_run(
    experiment: config.Config, source: models.Source, splits: tasks.Splits, arm: config.Arm, seed: int
) -> dict[str, Any]:
    """Everything that decides a run's content; its hash is the run's key. Needs no loaded model."""
    settings = arm.model_dump(mode="json", exclude={"name", "enabled", "seeds"})
    return {
        "model": source.hash,
        "arm": settings,
        "seed": seed,
        "styles": list(experiment.task.styles),
        "data": {name: tasks.content_hash(getattr(splits, name)) for name in ("train", "valid", "test")},
        "code": _code(*_TRAINING),
        **environment(),
    }


def run_spec(setting: Setting, arm: config.Arm, seed: int) -> dict[str, Any]:
    """`spec_of_run` of a prepared experiment."""
    return spec_of_run(setting.config, setting.source, setting.splits, arm, seed)


def split(experiment: config.Config) -> tasks.Splits:
    """The experiment's problems; the prompts that are shown are in none of the splits."""
    return tasks.generate(experiment.task, exclude=[p.problem for p in experiment.test_prompts])


def read(setting: Setting, runs: Sequence[Run], progress: Progress = SILENT) -> Study:
    """Every layer of every checkpoint of every run; the base model once."""
    spec = {"plan": setting.plan.spec(), "code": _code(*_READING), **environment()}
    base = setting.store.get_or_build(
        "base",
        spec | {"model": setting.source.hash},
        lambda folder: reader.read_base(setting.lens, setting.plan, folder, progress),
    )
    arrays = reader.load(base.file(reader.BASE))
    return Study(tuple(_read_run(setting, run, spec, arrays, progress) for run in runs))


def _read_run(setting: Setting, run: Run, spec: Any, base: Any, progress: Progress) -> Readings:
    def build(folder: Path) -> None:
        label = f"{run.arm} seed {run.seed}"
        reader.read_run(setting.model, setting.lens, setting.plan, run.checkpoints, folder, label, progress)

    kept = setting.store.get_or_build("readings", spec, build, parent=run.entry)
    each = {step: reader.load(kept.file(reader.file_of(step))) for step in run.checkpoints if step > 0}
    return reader.assemble(run.arm, run.seed, setting.plan, base, each)


def judge(setting: Setting, predictions: Sequence[Prediction], study: Study) -> list[Verdict]:
    """One verdict per prediction and class; whoever uses one first asks `verdicts.require_controls`."""
    return verdicts.judge(predictions, study)


def publish(
    setting: Setting,
    predictions: Sequence[Prediction],
    runs: Sequence[Run],
    study: Study,
    judged: Sequence[Verdict],
) -> Path:
    """Write the report, the verdicts and the tidy readings; return the path of the page."""
    folder = setting.store.folder("experiments", setting.config.name)
    logs = {(run.arm, run.seed): run.log for run in runs}
    origin = provenance(setting, predictions, runs)

    def decode(token: int) -> str:
        return str(setting.tokenizer.decode([token]))

    # Two main jobs, or two workers of one, may end at the same time.
    with locked(folder / "report", setting.store.notice):
        return report.write(folder, setting.config.public, study, judged, origin, logs, decode)


def record(folder: Path, setting: Setting, predictions: verdicts.Table, judged: Sequence[Verdict]) -> None:
    """Write the verdicts down in the experiment's `findings.json` and `FINDINGS.md`.

    Raises
    ------
    BrokenExperiment
        A control has failed: nothing of this run is a finding.
    UsageError
        What is on record was measured with other settings or weights.
    """
    verdicts.require_controls(judged)
    findings.record(folder, setting.config, setting.source.hash, predictions, judged)


def provenance(setting: Setting, predictions: Sequence[Prediction], runs: Sequence[Run]) -> dict[str, Any]:
    """Where every number came from: model, data, runs, tokens, versions, device."""
    source, public = setting.source, setting.config.public
    return {
        "model": {"name": public.model, "revision": source.revision, "hash": source.hash},
        "config_hash": setting.config.hash,
        "config": public.model_dump(mode="json"),
        "predictions_version": getattr(predictions, "version", None),
        "seeds": sorted({run.seed for run in runs}),
        "runs": {f"{run.arm} seed {run.seed}": run.entry.key for run in runs},
        "training_seconds": sum(run.entry.info["seconds"] for run in runs),
        "controls": {c.name: c.reason for c in setting.controls},
        "tokens": [dataclasses.asdict(row) for row in setting.vocabulary.table],
        **environment(),
    }


def environment() -> dict[str, Any]:
    """What may change a result from one machine to another: versions, device, dtype, BLAS."""
    versions = {name: importlib.metadata.version(name) for name in ("emergence", "mlx", "mlx-lm", "numpy")}
    return {
        "versions": versions,
        "device": str(mx.default_device()),
        "machine": platform.machine(),
        "blas": openblas.install().name,
    }


def _size(model: Any, arm: config.Arm) -> int:
    """Bytes of an arm's checkpoints, and of the state that an interrupted run goes on from.

    A state is weights and Adam's two moments; the old one goes when the new one is there.
    """
    with models.lora(model, arm.fine_tune_type, arm.lora):
        trained = sum(p.nbytes for p in checkpoints.flat(model.trainable_parameters()).values())
    return trained * (len(arm.checkpoint_steps) + 2 * 3)


@functools.cache
def _code(*packages: str) -> str:
    """A hash of the source of the stages that decide a result: edited code never meets an old cache.

    Taken once, when the model is loaded: a file that is edited while a run trains does not change its key.
    """
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(path for name in packages for path in (folder / name).glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _shown(experiment: config.Config) -> list[Prompt]:
    return [
        Prompt(p.prompt, p.cls, p.problem.a, p.problem.b, p.expected, p.style, -1)
        for p in experiment.test_prompts
    ]
