"""Which checkpoint is meant, and all that is known of it. In: results, a store. Out: `Chosen`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BrokenExperiment, UsageError
from ..report import results
from ..store import Store
from ..store.manifest import Damaged, read
from ..training import Run
from ..verdicts import Verdict


@dataclass(frozen=True)
class Chosen:
    """One checkpoint of a run, the results that it is part of, and the verdicts in them."""

    run: Run
    step: int
    info: Mapping[str, Any]
    """What `verdicts.json` says beside the verdicts: experiment, model, provenance, ..."""
    verdicts: tuple[Verdict, ...]

    @property
    def checkpoint(self) -> Path:
        """Its folder in the store."""
        return self.run.checkpoints[self.step]

    @property
    def settings(self) -> Mapping[str, Any]:
        """The arm's settings, as the config had them."""
        arms = self.info["provenance"]["config"]["arms"]
        return next((arm for arm in arms if arm["name"] == self.run.arm), {})


def choose(
    results_folder: Path,
    store: Store,
    arm: str | None = None,
    seed: int | None = None,
    step: int | None = None,
) -> Chosen:
    """The run of an arm (the first) and a seed (the first), and its checkpoint (the last).

    Raises
    ------
    UsageError
        There is no such arm, seed or step; the message lists those that there are.
    BrokenExperiment
        The run is no longer in the store, or damaged.
    """
    info, verdicts = results.read_verdicts(results_folder)
    keys: dict[str, dict[int, str]] = {}
    for name, key in info["provenance"].get("runs", {}).items():
        of, _, number = name.rpartition(" seed ")
        keys.setdefault(of, {})[int(number)] = key
    if not keys:
        raise UsageError(f"{info['experiment']} trained nothing; there is no checkpoint to export")
    arm = _one_of("--arm", arm, list(keys))
    seed = _one_of("--seed", seed, list(keys[arm]))
    run = Run(arm, seed, _entry(store, keys[arm][seed], f"{arm} seed {seed}"))
    steps = list(run.checkpoints)
    return Chosen(run, _one_of("--step", steps[-1] if step is None else step, steps), info, tuple(verdicts))


def _one_of(option: str, value: Any, there: Sequence[Any]) -> Any:
    if value is None:
        return there[0]
    if value not in there:
        raise UsageError(f"{option} {value}: there is none; there are: {', '.join(map(str, there))}")
    return value


def _entry(store: Store, key: str, name: str) -> Any:
    """The run of a key, every byte of it checked."""
    try:
        spec = read(store.root / "runs" / key)["spec"]
    except Damaged as damage:
        raise BrokenExperiment(f"{name} ({key}) is not in {store.root}: {damage}; run again") from None
    entry = store.find("runs", spec)
    if entry is None:
        raise BrokenExperiment(f"{store.root / 'runs' / key} is damaged; run again, and it is trained anew")
    return entry
