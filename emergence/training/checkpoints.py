"""Stage training, disk side: checkpoints that mlx-lm loads, and the state from which a killed run goes on.

In: the model's trainable arrays, the optimizer, the losses so far. Out: files that are whole or absent, each
with its hash in a record that is written last, so that a run never goes on from a damaged file. The same
arrays make the same bytes: names are sorted, and times are in the records only.
"""

from __future__ import annotations

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
from ..store.files import TEMPORARY, digest, explained, fingerprint, sync, sync_tree, write_atomic

CHECKPOINTS = "checkpoints"
STATE = "resume.json"
LOG = "train.jsonl"
RESULT = "result.json"


@dataclass
class State:
    """How far a run has come; with weights and optimizer beside it, all that the next step depends on.

    `step`: updates made. `losses`: an update's parts in nats, since the last checkpoint. `log`: a dict per
    checkpoint. `files`: SHA-256 of each file of each checkpoint. `seconds`: time spent in updates, which
    nothing else depends on. Of updates by reward: `rewards`, their figures since the last checkpoint;
    `quiet`, how many in a row have taught nothing; `collapsed`, the step at which those were too many.
    """

    step: int = 0
    losses: list[list[float]] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    rewards: list[dict[str, dict[str, float]]] = field(default_factory=list)
    quiet: int = 0
    collapsed: int | None = None


def flat(tree: Any) -> dict[str, mx.array]:
    """Return the arrays of a tree by their dotted path, sorted."""
    return dict(sorted(dict(tree_flatten(tree)).items()))


@dataclass(frozen=True)
class RunFolder:
    """The folder that one run writes to; `identity` is a hash of all that decides the run's outcome."""

    path: Path
    identity: str
    kernels: str = ""
    """What computes matrix products (`openblas.Status.name`): said where a state was made by others."""

    def record(self, say: Callable[[str], None]) -> dict[str, Any] | None:
        """Return what an earlier call left of this very run: with `result` in it where the run is finished.

        Another record is removed, and `say` is told why; the run starts anew and writes over what is there.
        It may be of another identity: other rows, settings or versions, or other kernels, as where a store is
        shared by hosts of several kinds. Or it may be damaged, or name a damaged file.
        """
        for name in (RESULT, STATE):
            path = self.path / name
            if path.exists():
                record, problem = _read_record(path)
                if not problem and record["identity"] == self.identity:
                    return record
                path.unlink()
                say(f"{problem or self._told_apart(path, record)}; this run starts over")
        return None

    def _told_apart(self, path: Path, record: Mapping[str, Any]) -> str:
        made = record.get("kernels", "")
        if made == self.kernels:
            return f"{path} is of another run, or was made where numbers round otherwise"
        return f"{path} was made with {made}, and here is {self.kernels}, which rounds otherwise"

    def write_checkpoint(self, step: int, model: Any, adapter_config: Mapping[str, Any]) -> dict[str, str]:
        """Write `checkpoints/<step>/`, both files or neither, and return their hashes.

        A checkpoint that is there already (its run was killed before the state was written) is never absent
        for a moment: its files are replaced one by one, by the same bytes.
        """
        folder = self.path / CHECKPOINTS / f"{step:07d}"
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
            return {f.relative_to(self.path).as_posix(): digest(f) for f in sorted(folder.iterdir())}

    def write_log(self, state: State) -> None:
        """Write `train.jsonl`: a line a checkpoint, whole at any moment."""
        write_atomic(self.path / LOG, "".join(json.dumps(line, sort_keys=True) + "\n" for line in state.log))

    def write_state(self, state: State, model: Any, optimizer: optim.Optimizer) -> None:
        """Write all that the next step depends on: the arrays, then the record that names their file."""
        name = f"resume-{state.step:07d}.safetensors"
        arrays = {f"weights.{k}": v for k, v in flat(model.trainable_parameters()).items()}
        arrays |= {f"optimizer.{k}": v for k, v in flat(optimizer.state).items()}
        write_atomic(self.path / name, lambda path: mx.save_safetensors(str(path), arrays))
        files = {**state.files, name: digest(self.path / name)}
        self._write(STATE, {"files": files, "arrays": name, "state": asdict(state)})
        _remove_arrays(self.path, name)

    def restore(self, record: Mapping[str, Any], model: Any, optimizer: optim.Optimizer) -> State:
        """Put weights and optimizer back as `write_state` saw them, and return the state beside them."""
        arrays: Any = mx.load(str(self.path / record["arrays"]))
        model.update(tree_unflatten(_under("weights.", arrays)))
        optimizer.state = tree_unflatten(_under("optimizer.", arrays))
        mx.eval(arrays)
        return State(**record["state"])

    def write_result(self, result: Mapping[str, Any], state: State) -> None:
        """Mark the run as finished, and remove its state, which is three times the adapters' size."""
        self._write(RESULT, {"files": {**state.files, LOG: digest(self.path / LOG)}, "result": result})
        (self.path / STATE).unlink(missing_ok=True)
        _remove_arrays(self.path)

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        record = {"identity": self.identity, "kernels": self.kernels, **content}
        text = json.dumps({"sha256": fingerprint(record), "record": record}, sort_keys=True, indent=2)
        write_atomic(self.path / name, text + "\n")


def _under(prefix: str, arrays: Mapping[str, mx.array]) -> list[tuple[str, mx.array]]:
    return [(name.removeprefix(prefix), a) for name, a in arrays.items() if name.startswith(prefix)]


def _remove_arrays(workdir: Path, keep: str = "") -> None:
    for path in workdir.glob("resume-*.safetensors"):
        if path.name != keep:
            path.unlink()


def _read_record(path: Path) -> tuple[dict[str, Any], str]:
    """Return a record, and what is wrong with it or a file that it names."""
    try:
        whole = json.loads(path.read_bytes())
        record: dict[str, Any] = whole["record"]
        sound = whole["sha256"] == fingerprint(record)
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        return {}, f"{path} is damaged"
    for name, sha256 in record["files"].items():
        file = path.parent / name
        if not file.is_file() or digest(file) != sha256:
            return {}, f"{file} is {'damaged' if file.exists() else 'gone'}"
    return record, ""
