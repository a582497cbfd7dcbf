"""Stage training, disk side: checkpoints that mlx-lm loads, and the state from which a killed run goes on.

In: the model's trainable arrays, the optimizer, what has been counted so far. Out: files that are whole or
absent, each with its hash in the record that is written last, so a damaged one is noticed and never gone on
from. The same arrays make the same bytes: names are sorted, and times are in the records only.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_unflatten

from ..models.adapters import save_adapters
from ..store.files import TEMPORARY, canonical, digest, explained, sync, sync_tree, write_atomic

STATE = "resume.json"
LOG = "train.jsonl"
RESULT = "result.json"


@dataclass
class State:
    """How far a run has come; with weights and optimizer beside it, all that the next step depends on.

    `step`: updates made. `losses`: an update's parts in nats, since the last checkpoint. `log`: a dict per
    checkpoint. `files`: SHA-256 of each file of each checkpoint. `seconds`: time spent in updates, which
    nothing else depends on.
    """

    step: int = 0
    losses: list[list[float]] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def flat(tree: Any) -> dict[str, mx.array]:
    """Return the arrays of a tree by their dotted path, sorted."""
    return dict(sorted(dict(tree_flatten(tree)).items()))


def write_checkpoint(
    workdir: Path, step: int, model: Any, adapter_config: Mapping[str, Any]
) -> dict[str, str]:
    """Write `checkpoints/<step>/`, both files or neither, and return their hashes.

    A checkpoint that is there already (killed before its state was kept) is never gone for a moment: its
    files are replaced one by one, by the same bytes.
    """
    folder = workdir / "checkpoints" / f"{step:07d}"
    aside = folder.with_name(f"{TEMPORARY}{folder.name}")
    with explained(folder):
        save_adapters(model, aside, {**adapter_config, "step": step})
        sync_tree(aside)
        if folder.exists():
            for file in aside.iterdir():
                os.replace(file, folder / file.name)
            aside.rmdir()
        else:
            os.rename(aside, folder)
        sync(folder.parent)
        return {f.relative_to(workdir).as_posix(): digest(f) for f in sorted(folder.iterdir())}


def write_log(workdir: Path, state: State) -> None:
    """Write `train.jsonl`: a line a checkpoint, whole at any moment."""
    write_atomic(workdir / LOG, "".join(json.dumps(line, sort_keys=True) + "\n" for line in state.log))


def write_state(workdir: Path, model: Any, optimizer: optim.Optimizer, state: State, identity: str) -> None:
    """Keep all that the next step depends on; the record is written last and names its arrays."""
    name = f"resume-{state.step:07d}.safetensors"
    arrays = {f"weights.{k}": v for k, v in flat(model.trainable_parameters()).items()}
    arrays |= {f"optimizer.{k}": v for k, v in flat(optimizer.state).items()}
    write_atomic(workdir / name, lambda path: mx.save_safetensors(str(path), arrays))
    files = {**state.files, name: digest(workdir / name)}
    _write_record(
        workdir / STATE, {"identity": identity, "files": files, "arrays": name, "state": asdict(state)}
    )
    _remove_arrays(workdir, name)


def restore(workdir: Path, record: Mapping[str, Any], model: Any, optimizer: optim.Optimizer) -> State:
    """Put weights and optimizer back as `write_state` found them, and say how far that was."""
    arrays: Any = mx.load(str(workdir / record["arrays"]))
    weights = [(k.removeprefix("weights."), v) for k, v in arrays.items() if k.startswith("weights.")]
    moments = [(k.removeprefix("optimizer."), v) for k, v in arrays.items() if k.startswith("optimizer.")]
    model.update(tree_unflatten(weights))
    optimizer.state = tree_unflatten(moments)
    mx.eval(arrays)
    return State(**record["state"])


def write_result(workdir: Path, result: Mapping[str, Any], state: State, identity: str) -> None:
    """Mark the run as finished; the state, three times the adapters' size, is then of no more use."""
    files = {**state.files, LOG: digest(workdir / LOG)}
    _write_record(workdir / RESULT, {"identity": identity, "files": files, "result": result})
    (workdir / STATE).unlink(missing_ok=True)
    _remove_arrays(workdir)


def kept(workdir: Path, identity: str, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Return the record of what is there of this very run: with `result` where it is finished.

    What other rows, settings or versions left is nothing to go on from, nor is anything damaged, which is
    said: the run starts anew and writes over it.
    """
    for name in (RESULT, STATE):
        path = workdir / name
        if path.exists():
            record, problem = _read_record(path)
            if not problem and record["identity"] == identity:
                return record
            path.unlink()
            if problem:
                say(f"{problem}; this run starts over")
    return None


def _remove_arrays(workdir: Path, keep: str = "") -> None:
    for path in workdir.glob("resume-*.safetensors"):
        if path.name != keep:
            path.unlink()


def _hash(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(record).encode()).hexdigest()


def _write_record(path: Path, record: Mapping[str, Any]) -> None:
    write_atomic(
        path, json.dumps({"sha256": _hash(record), "record": record}, sort_keys=True, indent=2) + "\n"
    )


def _read_record(path: Path) -> tuple[dict[str, Any], str]:
    """Return a record, and what is wrong with it or a file that it names."""
    try:
        whole = json.loads(path.read_bytes())
        record: dict[str, Any] = whole["record"]
        sound = whole["sha256"] == _hash(record)
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        return {}, f"{path} is damaged"
    for name, sha256 in record["files"].items():
        file = path.parent / name
        if not file.is_file() or digest(file) != sha256:
            return {}, f"{file} is {'damaged' if file.exists() else 'gone'}"
    return record, ""
