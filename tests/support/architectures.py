"""A tiny random model of every architecture that the installed mlx-lm has.

`COMMON` gives the fields that families share; `CASES` what a family needs besides. A type of a later mlx-lm
is tried with `COMMON` alone, so that it is either covered or fails by name.
"""

from __future__ import annotations

import copy
import importlib
import pkgutil
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx_lm.models
from mlx.utils import tree_flatten, tree_map_with_path

FULL, SLIDING = "full_attention", "sliding_attention"
LAYERS = 4
TYPES = [SLIDING, FULL, SLIDING, FULL]
ROPE = {"rope_theta": 1e4, "rope_type": "default", "type": "default"}
LLAMA4_ROPE = {
    "rope_theta": 1e4,
    "rope_type": "default",
    "llama_4_scaling_beta": 0.1,
    "original_max_position_embeddings": 64,
}

COMMON: dict[str, Any] = {
    # sizes
    **dict.fromkeys(("vocab_size", "num_vocab", "n_vocab"), 61),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "model_dim", "hidden_dim"), 32),
    **dict.fromkeys(
        ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "num_transformer_layers"), LAYERS
    ),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "swa_num_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "n_kv_heads", "num_kv_heads", "swa_num_key_value_heads"), 2),
    **dict.fromkeys(("head_dim", "v_head_dim", "swa_head_dim", "swa_v_head_dim", "mamba_head_dim"), 8),
    **dict.fromkeys(("intermediate_size", "ff_intermediate_size", "ffn_hidden_size", "n_inner"), 48),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "seq_length", "block_size"), 64),
    **dict.fromkeys(
        ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "layernorm_epsilon"), 1e-5
    ),
    **dict.fromkeys(("rope_theta", "rotary_emb_base", "swa_rope_theta"), 10000.0),
    "rope_parameters": ROPE,
    "tie_word_embeddings": False,
    "layer_types": TYPES,
    **dict.fromkeys(("sliding_window", "sliding_window_size", "window_size", "attention_window_size"), 4),
    # mixtures of experts
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 4),
    **dict.fromkeys(
        ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts"), 2
    ),
    **dict.fromkeys(
        ("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"), 16
    ),
    "moe_shared_expert_intermediate_size": 16,
    **dict.fromkeys(
        ("n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts"), 1
    ),
    **dict.fromkeys(
        ("n_group", "topk_group", "num_expert_group", "moe_layer_freq", "decoder_sparse_step"), 1
    ),
    **dict.fromkeys(("first_k_dense_replace", "num_dense_layers"), 1),
    "routed_scaling_factor": 1.5,
    "norm_topk_prob": True,
    "mlp_only_layers": [],
    # multi-head latent attention
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank"), 16),
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    **dict.fromkeys(("attention_bias", "mlp_bias", "bias", "use_bias", "qkv_bias"), False),
    # linear attention and state-space parts
    **dict.fromkeys(
        ("conv_kernel", "mamba_d_conv", "linear_conv_kernel_dim", "conv1d_width", "conv_L_cache"), 3
    ),
    **dict.fromkeys(("mamba_d_state", "ssm_state_size", "state_size"), 8),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "n_groups", "mamba_n_groups"), 2),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
    **dict.fromkeys(("use_conv_bias", "conv_bias", "mamba_conv_bias"), True),
    "time_step_limit": (0.001, 100.0),
    # scales and caps, none of them 1
    "embedding_multiplier": 3.0,
    "logits_scaling": 4.0,
    "logit_scale": 0.25,
    "attention_multiplier": 0.3,
    "residual_multiplier": 0.7,
    "final_logit_softcapping": 2.0,
    "logits_soft_cap": 2.0,
    "attn_logit_softcapping": 5.0,
    "query_pre_attn_scalar": 8.0,
}

ROPES = {FULL: ROPE, SLIDING: ROPE}
YARN = {
    "rope_type": "yarn",
    "type": "yarn",
    "factor": 2.0,
    "original_max_position_embeddings": 32,
    "mscale_all_dim": 1.0,
}
LINEAR_ATTENTION = {
    "kda_layers": [1, 2, 4],
    "full_attn_layers": [3],
    "num_heads": 4,
    "head_dim": 8,
    "short_conv_kernel_size": 3,
    "gate_lower_bound": -5.0,
}
INDEXER = {"index_n_heads": 2, "index_head_dim": 8, "index_topk": 4}
MAMBA = ["mamba", "attention", "mamba", "attention"]

CASES: dict[str, dict[str, Any]] = {
    "afm7": {"num_kv_reuse_layers": 2, "num_layers": 5},
    "apertus": {"post_norm": True, "qk_norm": True},
    "baichuan_m1": {"sliding_window_layers": [0, 2], "conv_window": 2},
    "bailing_hybrid": {"layer_group_size": 2, "group_norm_size": 2, "num_key_value_heads": 4},
    "bailing_moe_linear": {"layer_group_size": 2, "group_norm_size": 2, "num_key_value_heads": 4},
    "dbrx": {
        "ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 4, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
    },
    "deepseek_v2": {"rope_scaling": YARN},
    "deepseek_v32": INDEXER,
    "deepseek_v41": {**INDEXER, "compress_ratios": (0, 0, 0, 0), "o_groups": 2, "o_lora_rank": 8},
    "exaone4": {"rope_scaling": None, "sliding_window_pattern": "LG"},
    "exaone_moe": {"is_moe_layer": [False, True, True, True]},
    "falcon_h1": {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "tie_word_embeddings": True},
    "gemma3": {"sliding_window_pattern": 2},
    "gemma3_text": {"sliding_window_pattern": 2},
    "gemma3n": {
        "num_kv_shared_layers": 2,
        "vocab_size_per_layer_input": 61,
        "rope_local_base_freq": 1e4,
        "activation_sparsity_pattern": [0.5, 0.5, 0.0, 0.0],
        "hidden_size_per_layer_input": 8,
        "altup_num_inputs": 3,
        "altup_coef_clip": 100.0,
        "altup_correct_scale": True,
        "altup_active_idx": 0,
        "laurel_rank": 4,
    },
    **{
        name: {
            "global_head_dim": 16,
            "vocab_size_per_layer_input": 61,
            "hidden_size_per_layer_input": 8,
            "num_kv_shared_layers": 2,
            "rope_parameters": None,
        }
        for name in ("gemma4", "gemma4_text")
    },
    "glm4": {"partial_rotary_factor": 0.5},
    "glm4_moe": {"rope_scaling": None, "use_qk_norm": True, "partial_rotary_factor": 0.5},
    "glm_moe_dsa": {**INDEXER, "topk_method": "noaux_tc", "scoring_func": "sigmoid"},
    "gpt_neox": {"rotary_pct": 0.5},
    "gptj": {"rotary_dim": 4},
    "granitemoehybrid": {
        "layer_types": MAMBA,
        "mamba_expand": 1,
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
        "mamba_proj_bias": False,
    },
    "hunyuan": {
        "rope_scaling": {"type": "dynamic", "factor": 1.0, "alpha": 10.0},
        "use_mixed_mlp_moe": True,
        "use_qk_norm": True,
        "use_cla": True,
        "cla_share_factor": 2,
    },
    "jamba": {
        "attn_layer_offset": 1,
        "attn_layer_period": 2,
        "expert_layer_offset": 1,
        "expert_layer_period": 2,
        "mamba_expand": 2,
    },
    "kimi_k3": {
        "linear_attn_config": LINEAR_ATTENTION,
        "attn_res_block_size": 2,
        "activation_situ_beta": 1.0,
        "activation_situ_linear_beta": 1.0,
    },
    "kimi_linear": {"linear_attn_config": LINEAR_ATTENTION, "model_max_length": 64},
    **{
        name: {
            "block_dim": 32,
            "block_multiple_of": 8,
            "block_ffn_dim_multiplier": 1.0,
            "block_auto_adjust_ff_dim": True,
            "use_expert_bias": True,
            "full_attn_idxs": [1, 3],
            "layer_types": None,
        }
        for name in ("lfm2", "lfm2-vl", "lfm2_moe")
    },
    "lille-130m": {"n_embd": 64},
    "llama4": {
        "attention_chunk_size": 4,
        "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 2,
        "intermediate_size_mlp": 48,
        "rope_scaling": None,
        "use_qk_norm": True,
    },
    "llama4_text": {"intermediate_size_mlp": 48, "no_rope_layers": [1, 1, 0, 1], "use_qk_norm": True},
    **{
        name: {
            "attention_method": "MLA",
            "zero_expert_type": "identity",
            "zero_expert_num": 2,
            "expert_ffn_hidden_size": 16,
            "mla_scale_q_lora": True,
            "mla_scale_kv_lora": True,
            "ngram_vocab_size_ratio": 3,
        }
        for name in ("longcat_flash", "longcat_flash_ngram")
    },
    "mamba": {"time_step_rank": 2},
    "mamba2": {"time_step_rank": 2, "intermediate_size": 32},
    "mellum": {"rope_parameters": ROPES},
    "mimo_v2_flash": {
        "hybrid_layer_pattern": [1, 0, 1, 0],
        "moe_layer_freq": [0, 1, 1, 1],
        "add_swa_attention_sink_bias": True,
        "add_full_attention_sink_bias": False,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "partial_rotary_factor": 0.5,
    },
    "minicpm": {"dim_model_base": 8, "scale_depth": 1.4, "scale_emb": 3.0},
    "minicpm3": {
        "rope_scaling": {"short_factor": 1.0, "long_factor": 1.0},
        "dim_model_base": 8,
        "scale_depth": 1.4,
        "scale_emb": 3.0,
    },
    "minimax": {"rotary_dim": 4},
    "minimax_m3_vl": {
        "moe_layer_freq": [0, 1, 1, 1],
        "dense_intermediate_size": 48,
        "layer_types": [FULL, "sparse", FULL, "sparse"],
        "index_n_heads": 2,
        "index_head_dim": 8,
        "index_block_size": 2,
        "index_topk_blocks": 2,
    },
    "ministral3": {"rope_parameters": LLAMA4_ROPE},
    "mistral3": {"text_type": "ministral3", "rope_parameters": LLAMA4_ROPE},
    "mistral4": {"rope_parameters": LLAMA4_ROPE},
    "muse_spark": {
        "post_norm_eps": 1e-5,
        "layer_rope_theta": [1e4, 0.0, 1e4, 0.0],
        "output_multiplier": 0.5,
        "moe_hidden_size": 16,
        "num_shared_experts": 0,
    },
    "nanbeige": {"num_loops": 2},
    "nemotron": {"hidden_act": "relu2", "partial_rotary_factor": 0.5},
    "nemotron-nas": {
        "block_configs": [
            {"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 1.0}},
            {"attention": {"no_op": True}, "ffn": {"ffn_mult": 1.0}},
            {"attention": {"replace_with_linear": True}, "ffn": {"ffn_mult": 1.0}},
            {"attention": {"n_heads_in_group": 2}, "ffn": {"no_op": True}},
        ]
    },
    "nemotron_h": {
        "hybrid_override_pattern": ["M", "*", "-", "E"],
        "layer_types": None,
        "mamba_num_heads": 4,
        "mamba_proj_bias": False,
    },
    "olmo_hybrid": {"layer_types": None, "linear_allow_neg_eigval": True},
    "openelm": {
        "ffn_dim_divisor": 8,
        "num_query_heads": [4, 4, 4, 4],
        "num_kv_heads": [2, 2, 2, 2],
        "ffn_multipliers": [1.0, 1.5, 1.0, 1.5],
    },
    "phi": {"partial_rotary_factor": 0.5},
    "phi3small": {
        "dense_attention_every_n_layers": 2,
        "gegelu_limit": 20.0,
        "blocksparse_block_size": 32,
        "vocab_size": 100352,
    },
    "phixtral": {"rotary_dim": 4},
    "plamo": {"n_shared_head": 2, "num_attention_heads": 4},
    "prism_hadamard_qwen35": {
        "hidden_size": 128,
        "tensor_namespace": "mlx-vlm-qwen3_5",
        "quantization": {"bits": 2, "group_size": 128, "mode": "affine"},
        "modules": [{"path": "lm_head", "embedding": False, "block": 0, "dtype": "float16"}],
    },
    "qwen": {"kv_channels": 8},
    "qwen3_next": {"partial_rotary_factor": 0.5, "full_attention_interval": 2},
    "recurrent_gemma": {"block_types": ["recurrent", "recurrent", "attention"]},
    "rwkv7": dict.fromkeys(
        ("a_low_rank_dim", "v_low_rank_dim", "gate_low_rank_dim", "decay_low_rank_dim"), 8
    ),
    "solar_open": {"partial_rotary_factor": 0.5},
    "spark2_5": {"rope_parameters": ROPES},
    "stablelm": {"use_qkv_bias": True, "partial_rotary_factor": 0.5},
    "step3p5": {"num_attention_groups": 2, "moe_top_k": 2, "share_expert_dim": 16, "moe_layers_enum": "1,2"},
}


def types() -> list[str]:
    """Every module of `mlx_lm.models` that is an architecture."""
    return [m.name for m in pkgutil.iter_modules(mlx_lm.models.__path__) if m.name not in PARTS]


PARTS = {
    "activations", "base", "bitlinear_layers", "cache", "gated_delta", "mla", "pipeline", "rope_utils", "ssm",
    "switch_layers",
}  # fmt: skip


def build(name: str, seed: int = 0) -> nn.Module:
    """The architecture with every parameter random, in evaluation mode."""
    module = importlib.import_module(f"mlx_lm.models.{name}")
    config = copy.deepcopy({"model_type": name, **COMMON, **CASES.get(name, {})})
    config["text_config"] = copy.deepcopy(config) | {"model_type": config.get("text_type", name)}
    model = module.Model(module.ModelArgs.from_dict(config))
    model.eval()
    randomise(model, seed)
    return model


def randomise(model: nn.Module, seed: int) -> None:
    """Random floating parameters: about one for norms, about unit gain for matrices."""
    names = sorted(name for name, _ in tree_flatten(model.parameters()))
    keys = dict(zip(names, mx.random.split(mx.random.key(seed), len(names)), strict=True))

    def draw(name: str, p: mx.array) -> mx.array:
        if p.dtype == mx.uint32:
            return mx.random.randint(0, 2**31 - 1, p.shape, mx.uint32, key=keys[name])
        noise = mx.random.normal(p.shape, key=keys[name])
        if p.ndim < 2:
            return (1.0 + 0.2 * noise if "norm" in name and name.endswith("weight") else 0.2 * noise).astype(
                p.dtype
            )
        return (noise * p.shape[-1] ** -0.5).astype(p.dtype)

    model.update(tree_map_with_path(draw, model.parameters()))
    mx.eval(model.parameters())
