"""Variants of the types in `folder_cases`: model type to the variant's name to the fields that it changes."""

from __future__ import annotations

from typing import Any

SLIDING, FULL, LINEAR = "sliding_attention", "full_attention", "linear_attention"


def rope(kind: str, base: float = 1e4, **more: Any) -> dict[str, Any]:
    """What transformers 5 calls `rope_parameters`."""
    return {"rope_type": kind, "rope_theta": base, **more}


def theta(base: float, **more: Any) -> dict[str, Any]:
    """Plain rotary positions of another base."""
    return {"rope_parameters": rope("default", base, **more)}


def older(base: float, scaling: dict[str, Any] | None = None) -> dict[str, Any]:
    """The same as transformers 4 wrote it: a base, and scaling in a field of its own."""
    parts = {k: v for k, v in (scaling or {}).items() if k != "rope_theta"}
    return {"raw": {"rope_parameters": None, "rope_theta": base} | ({"rope_scaling": parts} if parts else {})}


YARN = rope("yarn", factor=4.0, original_max_position_embeddings=16)
LLAMA3 = rope(
    "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16
)
STRETCHED = rope("linear", factor=4.0)
DYNAMIC = rope("dynamic", factor=2.0)
LONG = rope(
    "longrope",
    original_max_position_embeddings=16,
    short_factor=[1.0, 1.3, 1.7, 2.0],
    long_factor=[2.0, 4.0, 6.0, 8.0],
)
SHORT = {**LONG, "short_factor": [1.0, 1.3], "long_factor": [2.0, 4.0]}

TIED, UNTIED = {"tie_word_embeddings": True}, {"tie_word_embeddings": False}
OWN_HEAD = {"extra": {"lm_head.weight": "lm_head.weight"}}
SAME_HEAD = {"extra": {"lm_head.weight": "model.embed_tokens.weight"}}
WINDOW = {"sliding_window": 4}
QWEN_WINDOW = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
GELU = {"hidden_act": "gelu"}
TOP_1 = {"num_experts_per_tok": 1}
MULTIPLIERS = {
    "logits_scaling": 4.0,
    "residual_multiplier": 0.5,
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.2,
}

FLAT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
}

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "llama": {
        "theta": theta(5e5),
        "theta-older": older(5e5),
        "llama3": {"rope_parameters": LLAMA3},
        "llama3-older": older(2e4, LLAMA3),
        "linear": {"rope_parameters": STRETCHED},
        "dynamic": {"rope_parameters": DYNAMIC},
        "yarn": {"rope_parameters": YARN},
        "yarn-gain": {"rope_parameters": {**YARN, "attention_factor": 1.3}},
        "yarn-exact": {"rope_parameters": {**YARN, "truncate": False, "beta_fast": 2.0, "beta_slow": 0.5}},
        "yarn-mscale": {"rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 0.5}},
        "longrope": {"rope_parameters": LONG},
        "attention-bias": {"attention_bias": True},
        "mlp-bias": {"mlp_bias": True},
        "head-dim": {"head_dim": 16},
        "one-kv-head": {"num_key_value_heads": 1},
        "eps": {"rms_norm_eps": 0.1},
        "tied": TIED,
        "tie-not-said": {"raw": {"tie_word_embeddings": None}},
        "tied-own-head": TIED | OWN_HEAD,
        "tied-same-head": TIED | SAME_HEAD,
        "inv-freq": {"extra": {"model.layers.0.self_attn.rotary_emb.inv_freq": "inv_freq"}},
        "gelu": GELU,
        "gelu-tanh": {"hidden_act": "gelu_pytorch_tanh"},
        "relu": {"hidden_act": "relu"},
        "quick-gelu": {"hidden_act": "quick_gelu"},
    },
    "mistral": {"theta": theta(1e6), "window": WINDOW, "no-window": {"sliding_window": None}, "gelu": GELU},
    "ministral3": {"window": WINDOW},
    "mixtral": {
        "theta": theta(1e6),
        "yarn": {"rope_parameters": YARN},
        "window": WINDOW,
        "gelu": GELU,
        "top-1": TOP_1,
    },
    "qwen2": {
        "theta": theta(1e6),
        "tied": TIED,
        "tied-own-head": TIED | OWN_HEAD,
        "window": QWEN_WINDOW,
        "window-off": QWEN_WINDOW | {"use_sliding_window": False},
        "yarn": {"rope_parameters": YARN},
        "gelu": GELU,
    },
    "qwen3": {
        "theta": theta(1e6),
        "yarn": {"rope_parameters": YARN},
        "tied": TIED,
        "attention-bias": {"attention_bias": True},
        "head-dim": {"head_dim": 16},
        "window": QWEN_WINDOW,
    },
    "qwen2_moe": {
        "tied": TIED,
        "topk-norm": {"norm_topk_prob": True},
        "dense": {"mlp_only_layers": [0]},
        "no-bias": {"qkv_bias": False},
        "top-1": TOP_1,
    },
    "qwen3_moe": {
        "topk": {"norm_topk_prob": False},
        "dense": {"mlp_only_layers": [0]},
        "yarn": {"rope_parameters": YARN},
        "theta": theta(1e6),
    },
    "qwen3_next": {"theta": theta(1e6, partial_rotary_factor=0.5)},
    "gemma": {
        "gelu": GELU,
        "theta": theta(5e4),
        "head-dim": {"head_dim": 16},
        "bias": {"attention_bias": True},
    },
    "gemma2": {
        "own-head": OWN_HEAD,
        "window": WINDOW,
        "softcaps": {"attn_logit_softcapping": 3.0, "final_logit_softcapping": 2.0},
        "no-softcaps": {"attn_logit_softcapping": None, "final_logit_softcapping": None},
        "scalar": {"query_pre_attn_scalar": 32},
        "silu": {"hidden_activation": "silu"},
        "bidirectional": {"use_bidirectional_attention": True},
    },
    "gemma3_text": {
        "pattern": {"layer_types": [SLIDING, FULL], "num_hidden_layers": 2},
        "irregular": {"layer_types": [FULL, SLIDING, SLIDING], "num_hidden_layers": 3},
        "scaled": {
            "rope_parameters": {SLIDING: rope("default", 2e4), FULL: {**STRETCHED, "rope_theta": 5e5}}
        },
        "softcap": {"final_logit_softcapping": 2.0},
        "scalar": {"query_pre_attn_scalar": 32},
    },
    "gpt2": {
        "own-head": OWN_HEAD,
        "relu": {"activation_function": "relu"},
        "inner": {"n_inner": 64},
        "by-layer": {"scale_attn_by_inverse_layer_idx": True},
        "unscaled": {"scale_attn_weights": False},
        "eps": {"layer_norm_epsilon": 0.1},
    },
    "gpt_bigcode": {"gelu": {"activation_function": "gelu"}, "heads": {"multi_query": False}},
    "gpt_neox": {
        "sequential": {"use_parallel_residual": False},
        "gelu-new": {"hidden_act": "gelu_new"},
        "whole": theta(1e4, partial_rotary_factor=1.0),
        "half": theta(2e4, partial_rotary_factor=0.5),
        "no-bias": {"attention_bias": False},
        "tied": TIED,
    },
    "gptj": {"gelu": {"activation_function": "gelu"}},
    "phi": {
        "theta": theta(5e4, partial_rotary_factor=0.5),
        "qk-norm": {"qk_layernorm": True},
        "relu": {"hidden_act": "relu"},
    },
    "phi3": {
        "longrope": {"rope_parameters": LONG},
        "partial": theta(1e4, partial_rotary_factor=0.5),
        "window": WINDOW,
        "tied": TIED,
    },
    "phimoe": {
        "no-bias": {"attention_bias": False, "lm_head_bias": False},
        "window": WINDOW,
        "top-1": TOP_1,
    },
    "stablelm": {
        "qkv-bias": {"use_qkv_bias": True},
        "qk-norm": {"qk_layernorm": True},
        "parallel": {"use_parallel_residual": True},
        "linear": {"rope_parameters": {**STRETCHED, "partial_rotary_factor": 0.5}},
    },
    "starcoder2": {
        "no-bias": {"use_bias": False},
        "gelu": GELU,
        "window": WINDOW,
        "untied": UNTIED,
        "theta": theta(1e5),
    },
    "cohere": {
        "qk-norm": {"use_qk_norm": True},
        "scale": {"logit_scale": 0.5},
        "theta": theta(5e4),
        "untied": UNTIED,
    },
    "cohere2": {"theta": theta(2e4)},
    "granite": {
        "scaled": MULTIPLIERS,
        "bias": {"attention_bias": True},
        "linear": {"rope_parameters": STRETCHED},
    },
    "granitemoe": {"scaled": MULTIPLIERS},
    "granitemoehybrid": {"rope": {"position_embedding_type": "rope"}, "groups": {"mamba_n_groups": 2}},
    "olmo2": {"theta": theta(5e5), "bias": {"attention_bias": True}},
    "olmo3": {
        "yarn": {"rope_parameters": {SLIDING: rope("default"), FULL: YARN}},
        "yarn-older": older(1e4, YARN),
    },
    "olmoe": {"clip": {"clip_qkv": 0.5}, "topk": {"norm_topk_prob": True}},
    "nemotron": {"partial": theta(2e4, partial_rotary_factor=0.5), "silu": {"hidden_act": "silu"}},
    "nemotron_h": {"relu": {"mlp_hidden_act": "relu"}, "top-1": TOP_1},
    "smollm3": {
        "all-rope": {"no_rope_layers": [1, 1]},
        "interval": {"no_rope_layers": None, "no_rope_layer_interval": 2},
        "window": {"use_sliding_window": True, "sliding_window": 4, "layer_types": [SLIDING, FULL]},
    },
    "glm": {"whole": theta(2e4, partial_rotary_factor=1.0), "no-bias": {"attention_bias": False}},
    "glm4": {"whole": theta(2e4, partial_rotary_factor=1.0)},
    "glm4_moe": {"top-1": TOP_1},
    "glm4_moe_lite": {"top-1": TOP_1, "eps": {"rms_norm_eps": 0.1}},
    "afmoe": {"top-1": TOP_1},
    "exaone_moe": {"top-1": TOP_1},
    "exaone4": {"window-2": {"sliding_window": 2}},
    "deepseek_v2": {
        "plain": {"rope_parameters": rope("default")},
        "groups": {"n_group": 2, "topk_method": "group_limited_greedy"},
        "scaled": {"routed_scaling_factor": 2.5},
        "no-q-lora": {"q_lora_rank": None},
    },
    "deepseek_v3": {
        "yarn": {"rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}},
        "groups": {"n_group": 2},
        "halves": {"rope_interleave": False},
        "no-q-lora": {"q_lora_rank": None},
        "dense": {"first_k_dense_replace": 2},
        "top-1": TOP_1,
    },
    "deepseek_v32": {"few": {"index_topk": 4}},
    "dots1": {"window": {"layer_types": [SLIDING, FULL], "sliding_window": 4}},
    "falcon_h1": {
        "multipliers": {
            "lm_head_multiplier": 1.7,
            "embedding_multiplier": 0.6,
            "attention_out_multiplier": 1.4,
            "ssm_in_multiplier": 0.7,
            "ssm_out_multiplier": 1.3,
        },
        "key-multiplier": {"key_multiplier": 0.4},
        "attention-in": {"attention_in_multiplier": 1.6},
    },
    "jamba": {"dense": {"num_experts": 1, "num_experts_per_tok": 1}},
    "mamba": {"bias": {"use_bias": True, "use_conv_bias": False}, "gelu": GELU},
    "mamba2": {
        "limit": {"time_step_limit": (0.0, 0.6)},
        "groups": {"n_groups": 2},
        "bias": {"use_bias": True},
        "eps": {"layer_norm_epsilon": 0.1},
    },
    "minicpm3": {
        "yarn": {"rope_parameters": YARN},
        "longrope": {"rope_parameters": SHORT},
        "untied": UNTIED | {"rope_parameters": YARN},
    },
    "qwen2_vl": {"older": {"raw": {"text_config": None, "rope_theta": 5e4, "hidden_act": "silu", **FLAT}}},
    "seed_oss": {"bias": {"attention_out_bias": True}, "theta": theta(1e6)},
    "helium": {"theta": theta(2e4)},
    "hunyuan_v1_dense": {"theta": theta(2e4), "dynamic": {"rope_parameters": {**DYNAMIC, "alpha": 1000.0}}},
    "recurrent_gemma": {"softcap": {"logits_soft_cap": 2.0}},
}
