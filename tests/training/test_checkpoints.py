"""What a run writes is whole or absent, and what is read back is what was written."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from tiny_training import LORA, arm

from emergence.lens.logit_lens import LogitLens
from emergence.models import loading as models
from emergence.training.batches import collate
from emergence.training.checkpoints import RunFolder, State, flat
from emergence.training.objectives import Objective
from emergence.training.updates import Updates

ARM = arm(learning_rate=1e-3)
STATE = State(
    step=3, losses=[[1.5], [0.1 + 0.2]], log=[{"step": 0, "valid_loss": 2.0, "train_loss": None}], seconds=0.1
)


@pytest.fixture(scope="module")
def objective(loaded):
    return Objective(LogitLens(loaded[0]))


@pytest.fixture
def tuned(loaded, objective, data):
    """The tiny model after two updates, and the updates themselves."""
    with models.lora(loaded[0], "lora", LORA, 3) as model:
        updates = Updates(model, objective, ARM)
        for step in (0, 1):
            updates.make(step, collate(data[0][8 * step : 8 * step + 8]), 0)
        yield model, updates


def arrays(model, optimizer) -> dict[str, np.ndarray]:
    return {
        k: np.array(v)
        for tree in (model.trainable_parameters(), optimizer.state)
        for k, v in flat(tree).items()
    }


def write(folder: RunFolder, model, updates, state: State = STATE) -> State:
    """A checkpoint, the log and the state, as a training writes them."""
    config = models.adapter_config(model, "lora", LORA, 0)
    state.files = folder.write_checkpoint(state.step, model, config)
    folder.write_log(state)
    folder.write_state(state, model, updates.optimizer)
    return state


def refused(said: str) -> None:
    raise AssertionError(said)


def test_a_state_comes_back_to_the_bit(tmp_path, tuned, loaded, objective, data):
    model, updates = tuned
    folder = RunFolder(tmp_path, "me")
    write(folder, model, updates)
    kept = arrays(model, updates.optimizer)
    updates.make(2, collate(data[0][16:24]), 0)
    assert any(not np.array_equal(v, kept[k]) for k, v in arrays(model, updates.optimizer).items())
    other = Updates(model, objective, ARM)
    record = RunFolder(tmp_path, "me").record(refused)
    assert record is not None
    assert "result" not in record
    assert folder.restore(record, model, other.optimizer) == STATE
    back = arrays(model, other.optimizer)
    assert back.keys() == kept.keys()
    assert all(np.array_equal(back[k], kept[k]) for k in kept)


def test_one_state_is_kept_and_none_beside_a_result(tmp_path, tuned):
    model, updates = tuned
    folder = RunFolder(tmp_path, "me")
    write(folder, model, updates)
    later = write(folder, model, updates, State(step=5, log=STATE.log))
    assert [p.name for p in tmp_path.glob("resume*safetensors")] == ["resume-0000005.safetensors"]
    folder.write_result({"steps": 5}, later)
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoints", "train.jsonl", "result.json"}
    record = folder.record(refused)
    assert record is not None
    assert record["result"] == {"steps": 5}


def test_what_another_run_left_is_removed_and_told_in_a_line(tmp_path, tuned):
    write(RunFolder(tmp_path, "me"), *tuned)
    said: list[str] = []
    assert RunFolder(tmp_path, "somebody else").record(said.append) is None
    assert len(said) == 1
    assert "is of another run" in said[0]
    assert not (tmp_path / "resume.json").exists()


def test_a_checkpoint_that_is_there_is_replaced_by_the_same_bytes(tmp_path, tuned):
    model, updates = tuned
    folder = RunFolder(tmp_path, "me")
    files = write(folder, model, updates).files
    assert set(files) == {
        f"checkpoints/0000003/{name}" for name in ("adapters.safetensors", "adapter_config.json")
    }
    (tmp_path / "checkpoints/0000003/adapters.safetensors").write_bytes(b"half of it")
    assert write(folder, model, updates).files == files
    saved = mx.load(str(tmp_path / "checkpoints/0000003/adapters.safetensors"))
    wanted = flat(model.trainable_parameters())
    assert saved.keys() == wanted.keys()
    assert all(np.array_equal(np.array(saved[k]), np.array(w)) for k, w in wanted.items())
    config = json.loads((tmp_path / "checkpoints/0000003/adapter_config.json").read_text())
    assert config["step"] == 3


@pytest.mark.parametrize(
    "file", ["resume.json", "resume-*.safetensors", "checkpoints/0000003/adapters.safetensors"]
)
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_damage_of_any_file_is_said_and_the_record_not_used(tmp_path, tuned, file, damage):
    (tmp_path / "run").mkdir()
    write(RunFolder(tmp_path / "run", "me"), *tuned)
    rng = random.Random(0)
    for i in range(4 if damage == "flipped" else 1):
        copy = tmp_path / f"copy{i}"
        shutil.copytree(tmp_path / "run", copy)
        [path] = copy.glob(file)
        harm(path, damage, rng)
        said: list[str] = []
        record = RunFolder(copy, "me").record(said.append)
        if damage == "gone" and file == "resume.json":
            assert (record, said) == (None, []), "there is nothing to go on from"
            continue
        assert record is None
        [line] = said
        assert line.endswith(f"{'gone' if damage == 'gone' else 'damaged'}; this run starts over")
        assert path.name in line
        assert not (copy / "resume.json").exists()


def harm(path: Path, damage: str, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[rng.randrange(len(content))] ^= 4
        path.write_bytes(content)
