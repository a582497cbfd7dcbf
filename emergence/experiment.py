"""The one file that knows the order: fixtures, verbs and notebooks ask an `Experiment` for a stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import config, lens, models, provenance, readings, report, tasks, training, unfolding, verdicts
from .progress import SILENT, Progress
from .store import Store, default_root
from .tracking import Hook, Tracked

if TYPE_CHECKING:
    from .config import Arm, Config
    from .lens import LogitLens
    from .training.group import Group
    from .verdicts import Table, Verdict


class Experiment:
    """A folder of `hypotheses/`, its settings, a store. A stage is computed when first asked for, and once.

    `overrides` are config values by dotted name, and `steps` and `seeds` as the options of that name; `file`
    is another config than the folder's. Experiments that share `loaded` load a model once. `metrics` is
    called with (arm, seed, step, {name: value}) after each update and at checkpoints. `ranks` processes
    train each run together.
    """

    def __init__(
        self, folder: Path, overrides: Mapping[str, Any] | None = None, store: Store | None = None,
        progress: Progress = SILENT, *, file: Path | None = None, loaded: dict[str, LogitLens] | None = None,
        metrics: Hook | None = None,
        ranks: int = 1,
    ) -> None:  # fmt: skip
        self.folder, self.file = folder, file or folder / "config.yaml"
        self.progress = Tracked(progress, [metrics]) if metrics else progress
        self.store = store or Store(default_root(folder), progress.line)
        self.overrides, self._loaded = overrides or {}, {} if loaded is None else loaded
        self.ranks = ranks

    @cached_property
    def config(self) -> Config:
        """What the file and the overrides decide."""
        return config.settled(self.file, self.overrides)

    @cached_property
    def predictions(self) -> Table:
        """The pre-registered claims."""
        return verdicts.load_predictions(self.folder / "predictions.py")

    @cached_property
    def notices(self) -> tuple[str, ...]:
        """What to know before anything is trained; claims that cannot be judged are refused here."""
        return (*self.config.notices, *verdicts.check(self.predictions, self.config))

    @cached_property
    def splits(self) -> tasks.Splits:
        """Train, validation and test items: no problem is in two, and none that is only shown in any."""
        return self.config.task.split(shown.item for shown in self.config.test_prompts)

    @cached_property
    def source(self) -> models.Source:
        """Where the model's files are, and the hash of its weights."""
        return models.resolve(self.config.model, self.store)

    @cached_property
    def lens(self) -> LogitLens:
        """The model under a proven lens; the source that decides results is hashed before an edit."""
        provenance.hash_source()
        name = self.config.model
        if name not in self._loaded:
            with self.progress.task(f"load {Path(name).name}", 1, "model") as task:
                self._loaded[name] = lens.LogitLens(*models.load(self.source))
                task.advance()
        return self._loaded[name]

    model = property(lambda self: self.lens.model)
    tokenizer = property(lambda self: self.lens.tokenizer)
    registration = cached_property(provenance.registration)

    @cached_property
    def vocabulary(self) -> tasks.Vocabulary:
        """The token ids that stand for each class."""
        return tasks.audit(self.tokenizer, self.config.vocabulary, self.config.task.glyphs)

    @cached_property
    def plan(self) -> readings.Plan:
        """Which prompts are read, for which tokens; the claims have been checked."""
        _, task, shown = self.notices, self.config.task, self.config.test_prompts
        made = self.tokenizer, self.vocabulary, task, self.splits.test, shown, self.predictions
        return readings.make_plan(*made)

    @cached_property
    def controls(self) -> tuple[readings.Control, ...]:
        """The lens is proven on these prompts, and every control that needs no training has held."""
        by_reward = training.starts(self.lens, self.config.arms, self.splits, self.config.task, self.progress)
        return readings.before_training(self.lens, self.plan, by_reward)

    @cached_property
    def runs(self) -> tuple[training.Run, ...]:
        """Every arm and seed, trained or taken from the store; the controls have held before."""
        _ = self.controls
        return tuple(unfolding.runs(self))

    def spec(self, arm: Arm, seed: int) -> dict[str, Any]:
        """Everything that decides a run; its hash is the run's key."""
        return provenance.run_spec(self.config, self.source, self.splits, arm, seed, self.ranks)

    def build(self, arm: Arm, seed: int, group: Group | None = None) -> Callable[[Path], dict[str, Any]]:
        """What fills the folder of a run; each rank of a group calls it, with a folder of its own."""
        parts = self.lens, arm, seed, self.splits, self.config.task, self.progress
        return partial(training.build, *parts, ranks=self.ranks, group=group)

    def train(self, arm: Arm, seed: int, group: Group | None = None) -> training.Run:
        """One run, from the store if it is there; one that was interrupted goes on where it stopped."""
        spec, build = self.spec(arm, seed), self.build(arm, seed, group)
        return training.Run(arm.name, seed, self.store.get_or_build("runs", spec, build))

    @cached_property
    def study(self) -> readings.Study:
        """Every layer of every checkpoint of every run, read."""
        spec = provenance.reading_spec(self.plan, self.source)
        return readings.read_study(self.lens, self.plan, self.runs, self.store, spec, self.progress)

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One for each claim and class; `verdicts.require_controls` says whether they count."""
        return tuple(provenance.marked(self, verdicts.judge(self.predictions, self.study)))

    @cached_property
    def results(self) -> Path:
        """The folder of what this config finds of these weights."""
        return report.place(self.store.root, self.config.name, self.config.hash, self.source.hash)

    def report(self) -> Path:
        """Write page, verdicts and tidy readings; return the path of the page."""
        page = report.write(self.results, **provenance.reported(self))
        report.mark_latest(self.results)
        return page

    def record(self) -> Path:
        """Write the verdicts down as findings; refused where a control failed, or for other settings."""
        verdicts.require_controls(self.verdicts)
        return report.write_findings(self.folder, provenance.recorded(self), self.config.name)
