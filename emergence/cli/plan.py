"""What a run would do, before it does it: an experiment described, and its work counted.

In: an `Experiment`. Out: renderables for the terminal.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..progress import clock
from ..store import manifest as sealing
from ..store.manifest import Damaged
from ..store.store import Item, Store, key_of

if TYPE_CHECKING:
    from ..experiment import Experiment


def described(experiment: Experiment) -> RenderableType:
    """`emergence info`."""
    config = experiment.config
    facts = Table.grid(padding=(0, 2))
    task = config.task
    rows = {
        "model": config.model,
        "config": config.hash,
        "classes": ", ".join(task.classes),
        "problems": f"per class {task.num_train} train, {task.num_valid} validation, {task.num_test} test",
        "styles": f"trained on {', '.join(task.styles)}; read in {', '.join(task.read_styles)}",
        "words": "; ".join(f"{c}: {', '.join(words)}" for c, words in config.vocabulary.items()),
    }
    for name, value in rows.items():
        facts.add_row(Text(name, style="dim"), Text(value))
    arms = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("arm", "method", "tuning", "rate", "batch", "checkpoints", "seeds"):
        arms.add_column(column, header_style="dim")
    for arm in config.arms:
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
    for claim in experiment.predictions:
        said.add_row(Text(claim.id, style="bold"), Text(claim.claim))
    head = Group(Text(config.name, style="bold"), Text(config.description), Text(""))
    return Group(head, facts, Text(""), arms, Text(""), said)


def plan(experiment: Experiment) -> RenderableType:
    """`emergence run --dry-run`: what would be trained, for how long, and what is there already."""
    config = experiment.config
    states, speeds = run_states(experiment, kept_runs(experiment.store))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("arm", "seed", "steps", "state", "time"):
        table.add_column(column, header_style="dim")
    times: list[float | None] = []
    for (name, seed), state in states.items():
        arm = config.arm(name)
        steps, speed = arm.checkpoint_steps[-1], speeds.get(kind(arm.model_dump()))
        time = "–"
        if state != "cached":
            times.append(speed and steps * speed)
            time = "unknown" if speed is None else f"about {clock(steps * speed)}"
        table.add_row(name, str(seed), str(steps), state, time)
    judged = len(experiment.predictions) * len(config.task.classes)
    last = f"{len(states)} runs, {len(times)} to train{_altogether(times)}"
    head = Text(f"{config.name}: model {config.model}, config {config.hash}, store {experiment.store.root}")
    end = Text(f"{last}; {judged} verdicts. Nothing was trained.")
    told = [*_needs(experiment), *_interventions(experiment)]
    return Group(head, Text(""), table, Text(""), *map(Text, told), end)


def _interventions(experiment: Experiment) -> list[str]:
    """In how many checkpoints causal claims ask for interventions, and what one took in this store."""
    from ..readings.effects import CAUSAL

    arms = {p.arm for p in experiment.predictions if p.test in CAUSAL}
    checkpoints = sum(len(arm.seeds) for arm in experiment.config.arms if arm.name in arms)
    if not (checkpoints := checkpoints + ("base" in arms)):
        return []
    took = [
        info["seconds"]
        for item in experiment.store.entries()
        if item.kind == "effects" and item.state == "complete"
        for info in [_info(item)]
        if info.get("seconds")
    ]
    each = f"about {clock(statistics.median(took))} each here" if took else "their time is not known yet"
    return [f"interventions in {checkpoints} checkpoints; {each}"]


def _info(item: Item) -> dict[str, Any]:
    try:
        return dict(sealing.read(item.path).get("info") or {})
    except Damaged:  # somebody else removes it
        return {}


def _needs(experiment: Experiment) -> list[str]:
    """What an earlier run left undecided, and how many prompts and seeds would decide it."""
    from ..report import records, results

    if (place := records.latest(experiment.store.root, experiment.config.name)) is None:
        return []
    _, verdicts = results.read_verdicts(place)
    wanted: dict[tuple[int, int], list[str]] = {}
    for v in verdicts:
        if needs := v.details.get("needs"):
            wanted.setdefault((needs["prompts"], needs["seeds"]), []).append(f"{v.prediction}[{v.cls}]")
    return [
        f"undecided in the last run, and decided with about {prompts} prompts a class"
        f"{f' and {seeds} seeds' if seeds > 1 else ''}: {', '.join(names)}"
        for (prompts, seeds), names in sorted(wanted.items())
    ]


def _altogether(times: Sequence[float | None]) -> str:
    known = [seconds for seconds in times if seconds is not None]
    if len(known) < len(times):
        return "; how long is known once this model has been trained here in the same way"
    return f", about {clock(sum(known))} of training" if known else ""


_Kind = tuple[str, str]


def kind(arm: Mapping[str, Any]) -> _Kind:
    """What a step's time depends on most, after the model; an arm says what is not at its default."""
    return arm.get("method", "sft"), arm.get("fine_tune_type", "lora")


def kept_runs(store: Store) -> dict[str, Item]:
    """The runs of a store by key; of two with one key the complete one."""
    there = sorted(store.entries(), key=lambda item: item.state == "complete")
    return {item.key: item for item in there if item.kind == "runs"}


def run_states(
    experiment: Experiment, kept: Mapping[str, Item]
) -> tuple[dict[tuple[str, int], str], dict[_Kind, float]]:
    """`cached`, `interrupted` (goes on where it stopped) or `to train` for each arm and seed; `_speeds`.

    `kept` are the runs of the store by key.
    """
    config = experiment.config
    pairs = [(arm, seed) for arm in config.arms for seed in arm.seeds]
    if not is_here(config.model):
        return {(arm.name, seed): "to train, after a download" for arm, seed in pairs}, {}
    source = experiment.source
    words = {"complete": "cached", "partial": "interrupted, goes on"}
    states = {}
    for arm, seed in pairs:
        item = kept.get(key_of(experiment.spec(arm, seed)))
        states[arm.name, seed] = words.get(item.state if item else "", "to train")
    return states, _speeds(item for item in kept.values() if item.spec.get("model") == source.hash)


def is_here(model: str) -> bool:
    """Whether a look at the model downloads nothing."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    from ..models import EMBEDDED

    if model == EMBEDDED or Path(model).is_dir() or "/" not in model:
        return True
    repo, _, revision = model.partition("@")
    try:
        return isinstance(try_to_load_from_cache(repo, "config.json", revision=revision or None), str)
    except HFValidationError:  # no name for a download; a look at it says so
        return True


def _speeds(runs: Iterable[Item]) -> dict[_Kind, float]:
    """Seconds per step of each way to train: the median of what these runs took, from their manifests."""
    took: dict[_Kind, list[float]] = {}
    for item in runs:
        if item.state == "complete":
            told = _info(item)
            if told.get("steps") and told.get("seconds"):
                took.setdefault(kind(item.spec["arm"]), []).append(told["seconds"] / told["steps"])
    return {kind: statistics.median(seconds) for kind, seconds in took.items()}
