"""Stage training, disk side: checkpoints that mlx-lm loads, and the state from which a killed run goes on.

In: the model's trainable arrays, the optimizer, what has been counted so far. Out: files that are whole or
absent. The same arrays always make the same bytes: names are sorted, and times are kept out of every file
but the result.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_unflatten

from .adapters import save_adapters
from .errors import BrokenExperiment
from .files import TEMPORARY, explained, sync, sync_tree, write_atomic

STATE = "resume.safetensors"
LOG = "train.jsonl"
RESULT = "result.json"


@dataclass
class State:
    """How far a run has come; with weights and optimizer beside it, everything that the next step depends on.

    `step`: updates made. `losses`: an update's parts in nats, since the last checkpoint. `log`: a dict per
    checkpoint.
    `seconds`: time spent in updates, which nothing else depends on.
    """

    step: int = 0
    losses: list[list[float]] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


def flat(tree: Any) -> dict[str, mx.array]:
    """Return the arrays of a tree by their dotted path."""
    return dict(tree_flatten(tree))


def write_checkpoint(folder: Path, model: Any, adapter_config: Mapping[str, Any]) -> None:
    """Write `adapters.safetensors` and `adapter_config.json`, both or neither.

    A checkpoint that is there already (killed before its state was kept) is never gone for a moment: its
    files are replaced one by one, by the same bytes.
    """
    aside = folder.with_name(f"{TEMPORARY}{folder.name}")
    with explained(folder):
        save_adapters(model, aside, adapter_config)
        sync_tree(aside)
        if folder.exists():
            for file in aside.iterdir():
                os.replace(file, folder / file.name)
            aside.rmdir()
        else:
            os.rename(aside, folder)
        sync(folder.parent)


def write_log(workdir: Path, state: State) -> None:
    """Write `train.jsonl`: a line a checkpoint, whole at any moment."""
    write_atomic(workdir / LOG, "".join(json.dumps(line, sort_keys=True) + "\n" for line in state.log))


def write_state(workdir: Path, model: Any, optimizer: optim.Optimizer, state: State, identity: str) -> None:
    """Keep everything that the next step depends on, in one file and so at one moment."""
    arrays = {f"weights.{k}": v for k, v in flat(model.trainable_parameters()).items()}
    arrays |= {f"optimizer.{k}": v for k, v in flat(optimizer.state).items()}
    metadata = {"identity": identity, "state": json.dumps(asdict(state))}
    write_atomic(workdir / STATE, lambda path: mx.save_safetensors(str(path), arrays, metadata))


def read_state(workdir: Path, model: Any, optimizer: optim.Optimizer, identity: str) -> State | None:
    """Put weights and optimizer back as they were and say how far that was; None if there is nothing.

    A state of other rows, settings or versions is not gone on from: the run starts anew and overwrites it.

    Raises
    ------
    BrokenExperiment
        The file is damaged, or its arrays are not this model's.
    """
    path = workdir / STATE
    if not path.exists():
        return None
    try:
        arrays, metadata = cast(
            "tuple[dict[str, mx.array], dict[str, str]]", mx.load(str(path), return_metadata=True)
        )
        if metadata["identity"] != identity:
            return None
        state = State(**json.loads(metadata["state"]))
        mx.eval(arrays)
    except (RuntimeError, KeyError, ValueError, TypeError) as e:
        raise BrokenExperiment(f"{path}: cannot be read ({e}); delete it, and the run starts anew") from e
    weights = {k.removeprefix("weights."): v for k, v in arrays.items() if k.startswith("weights.")}
    expected = {k: v.shape for k, v in flat(model.trainable_parameters()).items()}
    if {k: v.shape for k, v in weights.items()} != expected:
        raise BrokenExperiment(
            f"{path}: its arrays are not those of this model; delete it, and the run starts anew"
        )
    model.update(tree_unflatten(list(weights.items())))
    optimizer.state = tree_unflatten(
        [(k.removeprefix("optimizer."), v) for k, v in arrays.items() if k.startswith("optimizer.")]
    )
    return state


def write_result(workdir: Path, result: Mapping[str, Any], identity: str) -> None:
    """Mark the run as finished; the state, three times the adapters' size, is then of no more use."""
    write_atomic(
        workdir / RESULT, json.dumps({"identity": identity, "result": result}, sort_keys=True, indent=2)
    )
    (workdir / STATE).unlink(missing_ok=True)


def read_result(workdir: Path, identity: str) -> dict[str, Any] | None:
    """Return what `write_result` kept, if it is of this very run."""
    try:
        kept = json.loads((workdir / RESULT).read_text())
        return dict(kept["result"]) if kept["identity"] == identity else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
