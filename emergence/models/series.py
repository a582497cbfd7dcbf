"""Models stage: a checkpoint that others trained, in the form that `adapters` proves applied.

In: a model and a `Saved`, of mlx-lm or of peft (LoRA, rsLoRA or DoRA, with patterns of ranks and alphas).
Out: a folder as training writes it. Nothing is guessed: a tensor that is missing, left over or of another
shape is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..errors import BrokenExperiment
from ..store.series import Saved
from ..wording import first_line, printable, some
from . import adapters
from .folders import read_json
from .tensors import MISFITS

_FACTOR = re.compile(r"(.+)\.(lora_A|lora_B|lora_magnitude_vector)(?:\.default)?(?:\.weight)?")
_NAMES = {"lora_A": "lora_a", "lora_B": "lora_b", "lora_magnitude_vector": "m"}


def write(model: Any, saved: Saved | None, step: int, like: Saved, folder: Path) -> dict[str, Any]:
    """Write a checkpoint into `folder` as training does, for this very model; return its settings.

    `saved` None writes the base model itself, as step 0 of a series of such adapters (`like`).

    Raises
    ------
    BrokenExperiment
        The files cannot be read, or a tensor is missing, left over, of another shape, or outside the blocks.
    """
    source = saved or like
    said = read_json(source.config)
    is_peft = "peft_type" in said
    tensors = adapters.read_tensors(source.weights)
    settings, given = _of_peft(source, said, tensors) if is_peft else (_of_mlx(source), tensors)
    base = adapters.base_hash(model)
    with adapters.restored(model):
        try:
            adapters.insert(model, settings)
        except MISFITS as error:
            why = first_line(error)
            raise BrokenExperiment(f"{source.config} fits no layers of this model: {why}") from None
        mx.eval(model.parameters())
        own = adapters.trained(model, settings)
        if saved is None:
            given = {n: mx.zeros_like(t) if n.endswith("lora_b") else t for n, t in own.items()}
        elif is_peft:
            given = _filled(source, given, own)
        adapters.check_complete(source.weights, given, own)
        model.load_weights(list(given.items()), strict=False)
        config = {**settings, "step": step, "base_hash": base}
        adapters.save_adapters(model, folder, config)
    return config


def _of_mlx(saved: Saved) -> dict[str, Any]:
    settings = adapters.settings_in(saved.config)
    kept = ("fine_tune_type", "num_layers", "lora_parameters")
    return {name: settings[name] for name in kept if name in settings}


def _of_peft(
    saved: Saved, said: Mapping[str, Any], tensors: Mapping[str, mx.array]
) -> tuple[dict[str, Any], dict[str, mx.array]]:
    """What peft's files say, as mlx-lm says it: factors transposed, their scale in the second one.

    mlx-lm has one rank and one scale for all layers. So each scale is multiplied into `lora_b`, and ranks
    that are smaller than the largest are filled up with zeros: the same function.
    """
    where = saved.config
    if said["peft_type"] != "LORA":
        raise BrokenExperiment(f"{where}: peft_type {said['peft_type']} is not supported; LORA is")
    for field, plain in (("bias", ("none", None)), ("modules_to_save", (None, []))):
        if said.get(field) not in plain:
            raise BrokenExperiment(
                f"{where}: {field}={said[field]!r} changes more than adapters of the blocks, and may move "
                "the lens; series without it are read"
            )
    factors: dict[str, dict[str, mx.array]] = {}
    for name, tensor in tensors.items():
        if not (found := _FACTOR.fullmatch(name.removeprefix("base_model.model."))):
            raise BrokenExperiment(f"{saved.weights}: {printable(name, 100)} is no factor of a LoRA layer")
        factors.setdefault(found[1], {})[_NAMES[found[2]]] = tensor
    incomplete = [path for path, some_ in factors.items() if not {"lora_a", "lora_b"} <= some_.keys()]
    if incomplete or not factors:
        raise BrokenExperiment(f"{saved.weights} lacks a factor of {some(incomplete) or 'every layer'}")
    rank = max(f["lora_a"].shape[0] for f in factors.values())
    given = {}
    for path, f in factors.items():
        r = f["lora_a"].shape[0]
        scale = _alpha(said, path) / (r**0.5 if said.get("use_rslora") else r)
        pad = [(0, 0), (0, rank - r)]
        given[f"{path}.lora_a"] = mx.pad(f["lora_a"].T, pad)
        given[f"{path}.lora_b"] = mx.pad(scale * f["lora_b"].T, pad[::-1])
        if "m" in f:
            given[f"{path}.m"] = f["m"].reshape(-1)
    keys = sorted({re.sub(r"^.*?\.\d+\.", "", path, count=1) for path in factors})
    settings = {
        "fine_tune_type": "dora" if said.get("use_dora") else "lora",
        "num_layers": -1,
        "lora_parameters": {"rank": rank, "scale": 1.0, "dropout": 0.0, "keys": keys},
    }
    return settings, given


def _alpha(said: Mapping[str, Any], path: str) -> float:
    """Peft's alpha of a layer: of the first pattern that its path ends in, else the one for all."""
    for pattern, alpha in (said.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", path):
            return float(alpha)
    return float(said["lora_alpha"])


def _filled(saved: Saved, given: dict[str, mx.array], own: Mapping[str, mx.array]) -> dict[str, mx.array]:
    """The tensors, and zeros for layers of other blocks that peft left alone and mlx-lm adapts as well."""
    here = {name.rpartition(".")[0] for name in given}
    filled = {
        name: mx.zeros_like(t) if name.endswith("lora_b") else t
        for name, t in own.items()
        if name.rpartition(".")[0] not in here
    }
    return {**filled, **{name: t.astype(own[name].dtype) if name in own else t for name, t in given.items()}}
