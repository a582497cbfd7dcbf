"""mlx-lm's adapters as peft's. In: a checkpoint, the tensor names of the base. Out: a folder for peft.

mlx-lm computes `x W.T + scale (x A) B` with A [in, rank] and B [rank, out]; peft has both transposed, and
`scale` as `lora_alpha / r`. Hu et al. 2021 (arXiv:2106.09685); DoRA: Liu et al. 2024 (arXiv:2402.09353).
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import mlx.core as mx

from ..errors import NotMeasurable
from ..models.adapters import WEIGHTS, settings_in
from ..wording import some

_NAMES = {"lora_a": "lora_A.weight", "lora_b": "lora_B.weight", "m": "lora_magnitude_vector"}


def convert(checkpoint: Path, base: str | None, names: Collection[str], folder: Path) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` into `folder`.

    `base` is the model's name for `base_model_name_or_path`; `names` are the tensors of the base's own files,
    which transformers knows: every adapted layer must be one of them.

    Raises
    ------
    NotMeasurable
        Peft has no such adapter: whole blocks were trained, experts, or layers with other names.
    """
    settings = settings_in(checkpoint / "adapter_config.json")
    kind = settings.get("fine_tune_type", "lora")
    if kind == "full":
        raise NotMeasurable("the blocks themselves were trained (full), which is no adapter")
    tensors: dict[str, mx.array] = cast(Any, mx.load(str(checkpoint / WEIGHTS)))
    paths = {name.rpartition(".")[0] for name in tensors}
    if any(t.ndim > 2 for t in tensors.values()):
        raise NotMeasurable("experts were adapted, and mlx-lm stacks them where peft does not")
    if foreign := sorted(path for path in paths if f"{path}.weight" not in names):
        raise NotMeasurable(f"the base's files call {some(foreign)} otherwise than mlx-lm")
    layers = settings["lora_parameters"]
    given = {}
    for name, tensor in tensors.items():
        path, _, factor = name.rpartition(".")
        given[f"base_model.model.{path}.{_NAMES[factor]}"] = mx.contiguous(tensor.T)
    folder.mkdir()
    mx.save_safetensors(
        str(folder / "adapter_model.safetensors"), dict(sorted(given.items())), {"format": "pt"}
    )
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": layers["rank"],
        "lora_alpha": layers["scale"] * layers["rank"],
        "lora_dropout": layers["dropout"],
        "target_modules": _targets(paths, names),
        "use_dora": kind == "dora",
        "bias": "none",
        "inference_mode": True,
    }
    text = json.dumps(config, indent=2, sort_keys=True)
    (folder / "adapter_config.json").write_text(f"{text}\n", encoding="utf-8")


def _targets(paths: Collection[str], names: Collection[str]) -> list[str]:
    """`self_attn.q_proj` and its like where each names adapted layers only; else every layer by its path."""
    ends = sorted({path.split(".", 3)[-1] for path in paths})
    layers = {name.removesuffix(".weight") for name in names if name.endswith(".weight")}
    reached = {path for path in layers if path.endswith(tuple(f".{end}" for end in ends))}
    return ends if reached == set(paths) else sorted(paths)
