"""Writes `folders.json` and `folders.npz`: what transformers and torch compute for tiny models of many types.

Run it in an environment with `requirements/peers.txt`, with `PYTHONPATH=tests/support`; names of cases or
types on the command line are tried alone, and nothing is written. Each case is a configuration saved by
transformers, the shapes of its tensors, and torch's logits over them. The weights themselves are not kept:
`folder_weights.tensor` draws each from its name alone, bit by bit the same everywhere.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import folder_weights
import numpy as np
import torch
import transformers
from folder_cases import CASES, COMMON, ROTATIONS
from safetensors import safe_open
from safetensors.numpy import save_file
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

HERE = Path(__file__).parent
EMBEDDING = r"(embed_tokens|wte|embeddings?|embed_in)\.weight$"


def configuration(model_type: str, changes: dict[str, Any]) -> Any:
    """transformers' configuration, with the sizes that types share; a type that also sees brings its own."""
    cls = CONFIG_MAPPING[model_type]
    shared = {} if "vision_config" in changes else COMMON
    return cls(**{k: v for k, v in shared.items() if k in cls.__dataclass_fields__} | changes)


def computed(model_type: str, changes: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray]:
    """The case as it is kept, and torch's logits [prompt, position, vocab] in float32."""
    changes = dict(changes)
    raw, extra = changes.pop("raw", {}), changes.pop("extra", {})
    sees = "vision_config" in changes
    auto = transformers.AutoModelForImageTextToText if sees else transformers.AutoModelForCausalLM
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        auto.from_config(configuration(model_type, changes)).save_pretrained(folder)
        with safe_open(folder / "model.safetensors", "np") as file:
            shapes = {key: list(file.get_slice(key).get_shape()) for key in sorted(file.keys())}
        table = next(shape for key, shape in shapes.items() if re.search(EMBEDDING, key))
        shapes |= {key: table if "head" in key else [4] for key in extra}
        saved = json.loads((folder / "config.json").read_text()) | raw
        saved = {k: v for k, v in saved.items() if k not in raw or v is not None}
        (folder / "config.json").write_text(json.dumps(saved))
        weights = {key: folder_weights.tensor(extra.get(key, key), shape) for key, shape in shapes.items()}
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        model = auto.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
        with torch.no_grad():
            logits = model(torch.tensor(folder_weights.TOKENS), use_cache=False).logits.float().numpy()
    if not np.isfinite(logits).all():
        raise ValueError("logits are not finite")
    saved.pop("transformers_version", None)
    return {"config": saved, "shapes": shapes, "drawn": extra}, logits.astype(np.float32)


def rotation(dims: int, length: int, parameters: dict[str, Any]) -> np.ndarray:
    """transformers' angles a position, and its gain at the end."""
    config = transformers.LlamaConfig(
        head_dim=dims, max_position_embeddings=length, rope_parameters=dict(parameters)
    )
    if parameters["rope_type"] == "default":
        turn = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding.compute_default_rope_parameters
    else:
        turn = ROPE_INIT_FUNCTIONS[parameters["rope_type"]]
    angles, gain = turn(config)
    return np.array([*angles.numpy(), gain], np.float32)


def main() -> None:
    """Compute every case, or those that are named."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    wanted = set(sys.argv[1:])
    cases, arrays = {}, {}
    for case, (model_type, changes) in CASES.items():
        if wanted and case not in wanted and model_type not in wanted:
            continue
        cases[case], arrays[case] = computed(model_type, changes)
        print(f"{case}: largest logit {np.abs(arrays[case]).max():.2f}", flush=True)
    if not wanted:
        arrays |= {f"rotation {name}": rotation(*given) for name, given in ROTATIONS.items()}
        lines = [f"{json.dumps(k)}: {json.dumps(v, sort_keys=True)}" for k, v in cases.items()]
        (HERE / "folders.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
        np.savez_compressed(HERE / "folders.npz", **arrays)


if __name__ == "__main__":
    main()
