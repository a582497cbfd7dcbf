"""Models stage: fields of a `config.json` by what they are for, across model types.

Tables only. Whether a type reads a field is looked up in its source (`architecture`); here stands what a
field that is not read means for the logits.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from typing import Any

WITHOUT_EFFECT = (
    "*dropout*", "*_pdrop", "initializer_*", "*_initializer_*", "use_cache", "*_token_id", "*_token_index",
    "output_router_logits", "*aux_loss*", "*_loss_*", "pretraining_tp", "*jitter_noise", "num_logits_to_keep",
    "residual_in_fp32", "time_step_min", "time_step_max", "time_step_floor", "w_init_variance_scale",
    "use_mamba_kernels", "use_mambapy", "chunk_size", "mamba_chunk_size", "vision_*", "audio_*",
    "projector_*", "multimodal_projector_*", "summary_*", "*_in_fp32", "reorder_and_upcast_attn",
    "max_position_embeddings", "is_decoder", "max_window_layers", "*mtp_*", "num_nextn_predict_layers",
    "linear_a_log_*", "linear_dt_*", "mamba_ssm_cache_dtype", "conv1d_width",
    "moe_shared_expert_overlap", "image_*", "spatial_merge_size", "mm_tokens_per_image",
    "use_sliding_window", "use_associative_scan", "time_step_scale",
)  # fmt: skip
"""Patterns of fields that no forward pass over text depends on: training, initial weights, caches, images.

`use_sliding_window` and `max_window_layers` say which layers a window is for; the windows are looked at
themselves.
"""
IN_SHAPES = (
    "vocab_size*", "intermediate_size", "*_intermediate_size", "num_key_value_heads", "num_local_experts",
    "n_routed_experts", "*_lora_rank", "n_inner", "*_bias", "bias", "head_dim", "expand", "mamba_expand",
)  # fmt: skip
"""Patterns of sizes and biases: another value gives the weights other shapes or names, that do not fit."""
WINDOWS = ("sliding_window", "attention_window_size")
CHOICES = ("index_topk",)
"""How many of the tokens before are looked at: mlx-lm chooses others, and all of a short prompt."""
ACTIVATIONS = ("hidden_act", "hidden_activation", "activation_function")
SETTLED_ELSEWHERE = {
    "rope_parameters", "rope_theta", "rope_scaling", "partial_rotary_factor", "rotary_pct",
    "rotary_emb_base", "rope_local_base_freq", "original_max_position_embeddings",
    "tie_word_embeddings", "text_config", "per_layer_config",
    *ACTIVATIONS,
}  # fmt: skip
"""Fields that `rope`, `weights` and the activation's own rule take care of."""

BARE: dict[str, tuple[Any, ...]] = {
    "attn_logit_softcapping": (None, 0), "final_logit_softcapping": (None, 0), "logit_scale": (None, 1),
    "logits_scaling": (None, 1), "embedding_multiplier": (None, 1), "residual_multiplier": (None, 1),
    "attention_multiplier": (None,), "clip_qkv": (None,), "alibi": (None, False),
    "parallel_attn": (None, False), "rope_scaling": (None,), "partial_rotary_factor": (None, 1),
    "rotary_pct": (None, 1), "per_layer_config": (None,),
}  # fmt: skip
"""For types that transformers does not know: a field that changes the function, and where it does not."""

_NOT_ONE: dict[str, Callable[[Any], bool]] = {"num_experts_per_tok": lambda n: n != 1}
"""The weight of a single expert is not normalised to one."""
MISREAD: dict[str, dict[str, Callable[[Any], bool]]] = {
    # It splits queries, keys and values as if there were one head of keys.
    "gpt_bigcode": {"multi_query": lambda on: on is True},
    # It normalises over all groups together.
    "mamba2": {"n_groups": lambda n: n == 1, "layer_norm_epsilon": lambda eps: eps == 1e-5},
    "granitemoehybrid": {"mamba_n_groups": lambda n: n == 1},
    # It scales neither values nor, by `key_multiplier`, keys.
    "falcon_h1": {"key_multiplier": lambda m: m == 1, "attention_in_multiplier": lambda m: m == 1},
    # The weights of the chosen experts are normalised over those, not over all.
    "jamba": {"num_experts_per_tok": lambda n: n == 1, "num_experts": lambda n: n == 1},
    "afmoe": _NOT_ONE,
    "deepseek_v3": _NOT_ONE,
    "exaone_moe": _NOT_ONE,
    "glm4_moe": _NOT_ONE,
    "glm4_moe_lite": _NOT_ONE,
    "nemotron_h": _NOT_ONE,
    # It scales the logits only where it has a head of its own.
    "minicpm3": {"tie_word_embeddings": lambda on: not on},
    # transformers always chooses two.
    "phimoe": {"num_experts_per_tok": lambda n: n == 2},
    "recurrent_gemma": {"model_type": lambda name: False},
}
"""mlx-lm type to fields that it reads and computes otherwise than transformers, each with the values for
which both agree. Found by changing every field of every type that both have (mlx-lm 0.32.2, transformers
5.23); the cases stand in `tests/models`.
"""
_LATENT = {"q_a_layernorm": 1e-6, "kv_a_layernorm": 1e-6}
EPSILONS = {"glm4_moe_lite": _LATENT, "minicpm3": _LATENT, "longcat_flash": _LATENT}
"""mlx-lm type to norms that have an epsilon of their own in transformers, whatever the configuration says."""


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a field's name is of one of the patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
