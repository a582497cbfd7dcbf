"""Checkpoints of others: each does what its own tool says, or is refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import tiny

import emergence
from emergence.errors import BrokenExperiment, UsageError
from emergence.models.adapters import adapted
from emergence.models.series import write
from emergence.store import series

IDS = mx.array([[3, 1, 4, 1, 5]])
RNG = np.random.default_rng(0)
PLAIN = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", "modules_to_save": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("series") / "model")


@pytest.fixture
def model(folder: Path) -> Any:
    return emergence.load(folder)[0]


def factors(ranks: dict[str, int], seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A and B of some layers, as peft has them: `[rank, in]` and `[out, rank]`."""
    rng, widths = np.random.default_rng(seed), {"q_proj": 32, "v_proj": 16}
    return {
        path: (
            rng.standard_normal((r, 32)).astype(np.float32),
            0.1 * rng.standard_normal((widths[path.split(".")[-1]], r)).astype(np.float32),
        )
        for path, r in ranks.items()
    }


EVERYWHERE = {f"model.layers.{i}.self_attn.{name}": 4 for i in range(4) for name in ("q_proj", "v_proj")}


def peft(place: Path, ranks: dict[str, int] = EVERYWHERE, seed: int = 0, **config: Any) -> Path:
    """A checkpoint as peft writes it."""
    place.mkdir(parents=True)
    tensors = {}
    for path, (a, b) in factors(ranks, seed).items():
        tensors[f"base_model.model.{path}.lora_A.weight"] = mx.array(a)
        tensors[f"base_model.model.{path}.lora_B.weight"] = mx.array(b)
    mx.save_safetensors(str(place / "adapter_model.safetensors"), tensors)
    (place / "adapter_config.json").write_text(json.dumps(PLAIN | config))
    return place


def logits_of_sum(model: Any, ranks: dict[str, int], scale: Any, seed: int = 0) -> np.ndarray:
    """What the model says where `scale(path) * B A` is added to its weights."""
    named = dict(model.named_modules())
    before = {path: named[path].weight for path in ranks}
    try:
        for path, (a, b) in factors(ranks, seed).items():
            named[path].weight = before[path] + mx.array(scale(path) * (b @ a))
        return np.array(model(IDS))[0]
    finally:
        for path, weight in before.items():
            named[path].weight = weight


def logits_of(model: Any, checkpoint: Path) -> np.ndarray:
    with adapted(model, checkpoint):
        return np.array(model(IDS))[0]


FEW = {"model.layers.1.self_attn.q_proj": 4, "model.layers.2.self_attn.q_proj": 4}
MIXED = EVERYWHERE | {"model.layers.1.self_attn.q_proj": 2, "model.layers.3.self_attn.v_proj": 7}


@pytest.mark.parametrize(
    ("ranks", "config", "scale"),
    [
        (EVERYWHERE, {}, lambda path: 8 / 4),
        (EVERYWHERE, {"use_rslora": True}, lambda path: 8 / 4**0.5),
        (FEW, {}, lambda path: 8 / 4),
        (MIXED, {}, lambda path: 8 / MIXED[path]),
        (
            EVERYWHERE,
            {"alpha_pattern": {"layers.1.self_attn.q_proj": 32, "v_proj": 2}},
            lambda path: (32 if "1.self_attn.q" in path else 2 if path.endswith("v_proj") else 8) / 4,
        ),
    ],
    ids=["lora", "rslora", "some layers", "ranks", "alphas"],
)
def test_peft_does_to_the_model_what_its_factors_say(model, tmp_path, ranks, config, scale):
    (saved,) = series.find(peft(tmp_path / "run" / "checkpoint-7", ranks, **config).parent)
    write(model, saved, 7, saved, tmp_path / "out")
    found, right = logits_of(model, tmp_path / "out"), logits_of_sum(model, ranks, scale)
    assert np.abs(found - right).max() < 1e-4
    assert np.abs(right - np.array(model(IDS))[0]).max() > 0.1, "the adapter says something"


def test_step_0_of_a_series_is_the_base_model_to_the_bit(model, tmp_path):
    (saved,) = series.find(peft(tmp_path / "run" / "checkpoint-7").parent)
    write(model, None, 0, saved, tmp_path / "out")
    assert np.array_equal(logits_of(model, tmp_path / "out"), np.array(model(IDS))[0])


def damaged(place: Path, change: Any) -> Path:
    tensors = dict(mx.load(str(place / "adapter_model.safetensors")))
    mx.save_safetensors(str(place / "adapter_model.safetensors"), change(tensors))
    return place


def without(name: str) -> Any:
    return lambda tensors: {k: v for k, v in tensors.items() if name not in k}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("layers.2.self_attn.q_proj.lora_B"), "lacks a factor of model.layers.2.self_attn.q_proj"),
        (without("lora"), "lacks a factor of every layer"),
        (lambda t: t | {"base_model.model.lm_head.weight": mx.zeros((2, 2))}, "is no factor of a LoRA layer"),
        (
            lambda t: {
                k: mx.zeros((4, 16)) if "layers.0.self_attn.q_proj.lora_A" in k else v for k, v in t.items()
            },
            r"of shape \(16, 4\), not \(32, 4\)",
        ),
        (lambda t: {k: v * float("nan") for k, v in t.items()}, "hold NaN or infinity"),
        (lambda t: {k.replace("q_proj", "z_proj"): v for k, v in t.items()}, "z_proj"),
    ],
    ids=["missing", "none", "head", "shape", "nan", "name"],
)
def test_what_does_not_fit_is_refused_by_name(model, tmp_path, change, message):
    place = damaged(peft(tmp_path / "run" / "checkpoint-7"), change)
    (saved,) = series.find(place.parent)
    with pytest.raises(BrokenExperiment, match=message):
        write(model, saved, 7, saved, tmp_path / "out")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type IA3 is not supported"),
        ({"bias": "all"}, "bias='all' changes more"),
        ({"modules_to_save": ["embed_tokens"]}, r"modules_to_save=\['embed_tokens'\] changes more"),
    ],
)
def test_what_moves_more_than_the_blocks_is_refused(model, tmp_path, config, message):
    (saved,) = series.find(peft(tmp_path / "run" / "checkpoint-7", **config).parent)
    with pytest.raises(BrokenExperiment, match=message):
        write(model, saved, 7, saved, tmp_path / "out")


def test_a_file_that_was_cut_is_refused(model, tmp_path):
    place = peft(tmp_path / "run" / "checkpoint-7")
    weights = place / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (saved,) = series.find(place.parent)
    with pytest.raises(BrokenExperiment, match="cannot be read"):
        write(model, saved, 7, saved, tmp_path / "out")


def test_steps_come_from_names_and_ascend(tmp_path):
    for seed, name in enumerate(("checkpoint-100", "checkpoint-9", "step_20", "notes")):
        peft(tmp_path / name, seed=seed)
    (tmp_path / "README.md").write_text("")
    assert [saved.step for saved in series.find(tmp_path)] == [9, 20, 100]


def test_mlx_lms_own_files_are_a_series(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    for step in (200, 100):
        mx.save_safetensors(
            str(tmp_path / f"{step:07d}_adapters.safetensors"), {"a": mx.array([float(step)])}
        )
    mx.save_safetensors(str(tmp_path / "adapters.safetensors"), {"a": mx.array([200.0])})
    assert [saved.step for saved in series.find(tmp_path)] == [100, 200]


def twice(place: Path) -> None:
    peft(place / "checkpoint-1", seed=1)
    shutil.copytree(place / "checkpoint-1", place / "checkpoint-2")


def one_step(place: Path) -> None:
    peft(place / "checkpoint-1", seed=1)
    peft(place / "step-1", seed=2)


def no_weights(place: Path) -> None:
    peft(place / "checkpoint-1")
    (place / "checkpoint-1" / "adapter_model.safetensors").unlink()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (twice, "steps 1 and 2 are the same bytes, so one of them is not what its name says"),
        (
            one_step,
            "checkpoint-1/adapter_model.safetensors and step-1/adapter_model.safetensors are both step 1",
        ),
        (no_weights, "holds 0 of adapters.safetensors and adapter_model.safetensors; one is needed"),
        (lambda place: place.mkdir(), "holds no checkpoint"),
        (lambda place: None, "no such folder"),
    ],
    ids=["bytes", "step", "weights", "empty", "gone"],
)
def test_a_series_that_contradicts_itself_is_refused(tmp_path, make, message):
    make(tmp_path / "run")
    with pytest.raises(UsageError, match=message):
        series.find(tmp_path / "run")
