"""The configurations of `make_folders`: case to (model type, fields of its configuration).

Among the fields, `raw` are changes to the file after it was saved (a value, or None to take the field out),
and `extra` are tensors to store besides, each with the name that its values are drawn from.
"""

from __future__ import annotations

from typing import Any

from folder_variants import FULL, LINEAR, SLIDING, VARIANTS, YARN, rope, theta

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
COMMON: dict[str, Any] = SIZES | {
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "moe_intermediate_size": 16,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "shared_expert_intermediate_size": 16,
    "n_shared_experts": 1,
    "num_shared_experts": 1,
    "pad_token_id": None,
}
"""Sizes that types share; each is given to the types that declare it."""

MLA = dict(
    q_lora_rank=16,
    kv_lora_rank=16,
    qk_rope_head_dim=4,
    qk_nope_head_dim=8,
    v_head_dim=8,
    num_key_value_heads=4,
    first_k_dense_replace=1,
    n_group=1,
    topk_group=1,
    head_dim=4,
)
GROUPS = dict(n_group=1, topk_group=1)
DELTA = dict(linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8, linear_value_head_dim=8)
EYES = dict(
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    image_size=28,
    patch_size=14,
)

TYPES: dict[str, dict[str, Any]] = {
    "afmoe": dict(layer_types=[SLIDING, FULL], sliding_window=6, num_dense_layers=1),
    "apertus": {},
    "bailing_hybrid": {},
    "bitnet": {},
    "cohere": {},
    "cohere2": dict(num_hidden_layers=4, sliding_window=6),
    "deepseek_v2": dict(**MLA, rope_parameters={**YARN, "mscale": 0.7, "mscale_all_dim": 0.7}),
    "deepseek_v3": MLA,
    "deepseek_v32": dict(**MLA, index_n_heads=2, index_head_dim=8, index_topk=600),
    "dots1": GROUPS,
    "ernie4_5": {},
    "ernie4_5_moe": dict(moe_num_experts=4, moe_k=2, moe_num_shared_experts=1),
    "exaone4": dict(num_hidden_layers=4, sliding_window=6),
    "exaone_moe": dict(num_hidden_layers=4, sliding_window=6),
    "falcon_h1": dict(mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8, mamba_chunk_size=4),
    "falcon_mamba": dict(state_size=8),
    "gemma": {},
    "gemma2": {},
    "gemma3_text": dict(num_hidden_layers=6, sliding_window=6),
    "gemma4_text": dict(
        num_hidden_layers=6,
        sliding_window=600,
        vocab_size_per_layer_input=64,
        hidden_size_per_layer_input=8,
        per_layer_config={"5": {"head_dim": 16}},
    ),
    "glm": {},
    "glm4": {},
    "glm4_moe": GROUPS,
    "glm4_moe_lite": MLA,
    "glm_moe_dsa": dict(**MLA, index_n_heads=2, index_head_dim=8, index_topk=64),
    "gpt2": {},
    "gpt_bigcode": {},
    "gpt_neox": dict(intermediate_size=128),
    "gpt_oss": dict(sliding_window=6),
    "gptj": dict(rotary_dim=4),
    "granite": {},
    "granitemoe": {},
    "granitemoehybrid": dict(
        mamba_n_heads=8,
        mamba_d_head=8,
        mamba_d_state=8,
        shared_intermediate_size=16,
        layer_types=["mamba", "attention"],
    ),
    "helium": {},
    "hunyuan_v1_dense": {},
    "internlm3": {},
    "iquestcoder": {},
    "jamba": dict(
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        mamba_d_state=8,
        mamba_dt_rank=4,
    ),
    "kimi_linear": dict(
        layer_types=[LINEAR, FULL],
        num_key_value_heads=4,
        kv_lora_rank=16,
        qk_rope_head_dim=4,
        qk_nope_head_dim=8,
        v_head_dim=8,
    ),
    "laguna": {},
    "lfm2": dict(layer_types=["conv", FULL]),
    "lfm2_moe": dict(layer_types=["conv", FULL], num_dense_layers=1),
    "llama": {},
    "llama4_text": dict(intermediate_size_mlp=48),
    "longcat_flash": dict(
        **MLA, num_layers=1, ffn_hidden_size=48, expert_ffn_hidden_size=16, moe_topk=2, zero_expert_num=1
    ),
    "mamba": dict(state_size=8),
    "mamba2": dict(num_heads=8, head_dim=8, state_size=8, chunk_size=4, n_groups=1),
    "mellum": dict(layer_types=[SLIDING, FULL], sliding_window=6),
    "mimo_v2_flash": dict(layer_types=[SLIDING, FULL], sliding_window=6),
    "minicpm3": MLA,
    "minimax": dict(layer_types=[LINEAR, FULL]),
    "minimax_m2": {},
    "ministral3": {},
    "mistral": {},
    "mixtral": {},
    "nanochat": {},
    "nemotron": {},
    "nemotron_h": dict(
        **GROUPS,
        mamba_num_heads=4,
        mamba_head_dim=8,
        ssm_state_size=8,
        n_groups=1,
        moe_shared_expert_intermediate_size=16,
    ),
    "olmo": {},
    "olmo2": {},
    "olmo3": dict(layer_types=[SLIDING, FULL], sliding_window=6),
    "olmo_hybrid": {},
    "olmoe": {},
    "phi": theta(1e4, partial_rotary_factor=0.5),
    "phi3": {},
    "phimoe": dict(attention_bias=True, lm_head_bias=True),
    "qwen2": {},
    "qwen2_moe": {},
    "qwen3": {},
    "qwen3_5_text": DELTA,
    "qwen3_moe": {},
    "qwen3_next": dict(**DELTA, layer_types=[LINEAR, FULL]),
    "recurrent_gemma": dict(
        num_hidden_layers=3, num_key_value_heads=1, lru_width=32, attention_window_size=6
    ),
    "seed_oss": {},
    "smollm3": dict(no_rope_layers=[1, 0]),
    "solar_open": GROUPS,
    "stablelm": {},
    "starcoder2": {},
    # Types that also see: their text part is read, the rest is left out.
    "gemma3": dict(
        text_config=SIZES | {"num_hidden_layers": 6, "sliding_window": 6, "pad_token_id": 0},
        vision_config=EYES,
        mm_tokens_per_image=4,
    ),
    "mistral3": dict(
        text_config=SIZES | {"model_type": "mistral"} | theta(5e4),
        vision_config=EYES | {"model_type": "pixtral", "head_dim": 8},
    ),
    "qwen2_vl": dict(
        text_config=SIZES | theta(5e4, mrope_section=[1, 1, 2]),
        vision_config=dict(embed_dim=16, hidden_size=32, depth=1, num_heads=2, mlp_ratio=1),
    ),
    "qwen3_vl": dict(
        text_config=SIZES | theta(5e4, mrope_section=[2, 1, 1]),
        vision_config=dict(
            hidden_size=16,
            out_hidden_size=32,
            intermediate_size=16,
            depth=1,
            num_heads=2,
            num_position_embeddings=4,
            deepstack_visual_indexes=[0],
        ),
    ),
}
"""Every type that transformers and mlx-lm both have and that can be made small."""

CASES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, changes) for name, changes in TYPES.items()} | {
    f"{name}-{variant}": (name, TYPES[name] | changes)
    for name, variants in VARIANTS.items()
    for variant, changes in variants.items()
}

ROTATIONS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "plain": (64, 4096, rope("default", 1e5)),
    "gemma-3": (256, 131072, rope("linear", 1e6, factor=8.0)),
    "llama-3.2": (
        64,
        131072,
        rope(
            "llama3",
            5e5,
            factor=32.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=8192,
        ),
    ),
    "gpt-oss": (
        64,
        131072,
        rope(
            "yarn",
            1.5e5,
            factor=32.0,
            beta_fast=32.0,
            beta_slow=1.0,
            truncate=False,
            original_max_position_embeddings=4096,
        ),
    ),
    "qwen-3": (128, 131072, rope("yarn", 1e6, factor=4.0, original_max_position_embeddings=32768)),
    "deepseek-v3": (
        64,
        163840,
        rope(
            "yarn",
            1e4,
            factor=40.0,
            beta_fast=32,
            beta_slow=1,
            mscale=1.0,
            mscale_all_dim=0.7,
            original_max_position_embeddings=4096,
        ),
    ),
    "phi-3.5": (
        96,
        131072,
        rope(
            "longrope",
            1e4,
            original_max_position_embeddings=4096,
            short_factor=[1.0 + 0.05 * i for i in range(48)],
            long_factor=[1.0 + 1.3 * i for i in range(48)],
        ),
    ),
}
"""Rotary tables of published sizes: dimensions of a head, longest prompt, `rope_parameters`."""
