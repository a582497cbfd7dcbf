"""Configurations: a folder that transformers writes is computed as torch computes it, or refused by field.

`folders.json` and `folders.npz` come from `make_folders.py`, which runs where torch is: configurations
saved by transformers, the shapes of their tensors, and torch's logits. Nothing here knows how mlx-lm or
this package reads them.
"""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import folder_weights
import mlx.core as mx
import mlx_lm.models
import numpy as np
import pytest
from folder_cases import CASES, TYPES
from model_folders import ONE_LINE, TOKENS, edit, refused
from safetensors.numpy import save_file

from emergence.errors import BrokenExperiment, EmergenceError, NotMeasurable
from emergence.models import architecture, configuration, loading
from emergence.models import folders as files
from emergence.models import loading as models

HERE = Path(__file__).parent
ATOL = 1e-4  # float32 logits of order 1 to 7 against torch's; seen: at most 3e-5

REFUSED = {
    "afmoe-top-1": "num_experts_per_tok 1",
    "bailing_hybrid": "group_norm_size",
    "bitnet": "weight_scale",
    "cohere-untied": "tie_word_embeddings",
    "deepseek_v2-plain": "rope_scaling null",
    "deepseek_v3-halves": "rope_interleave False",
    "deepseek_v3-top-1": "num_experts_per_tok 1",
    "deepseek_v32-few": "index_topk 4",
    "dots1-window": "sliding_window 4",
    "ernie4_5_moe": "e_score_correction_bias",
    "exaone_moe-top-1": "num_experts_per_tok 1",
    "falcon_h1-attention-in": "attention_in_multiplier 1.6",
    "falcon_h1-key-multiplier": "key_multiplier 0.4",
    "gemma-bias": "attention_bias True",
    "gemma2-bidirectional": "use_bidirectional_attention True",
    "gemma2-no-softcaps": "attn_logit_softcapping null, final_logit_softcapping null",
    "gemma2-own-head": "lm_head.weight",
    "gemma2-window": "sliding_window 4",
    "gemma3_text-irregular": "layer_types",
    "gemma3_text-softcap": "final_logit_softcapping 2.0",
    "glm4_moe-top-1": "num_experts_per_tok 1",
    "glm4_moe_lite-top-1": "num_experts_per_tok 1",
    "glm_moe_dsa": "index_topk 64",
    "gpt2-by-layer": "scale_attn_by_inverse_layer_idx True",
    "gpt2-inner": "n_inner 64",
    "gpt2-own-head": "lm_head.weight",
    "gpt2-unscaled": "scale_attn_weights False",
    "gpt_bigcode-heads": "multi_query False",
    "gpt_neox-no-bias": "attention_bias False",
    "gpt_oss": "experts.down_proj",
    "granitemoehybrid-groups": "mamba_n_groups 2",
    "jamba": "num_experts_per_tok 2",
    "kimi_linear": "layer_types",
    "llama-quick-gelu": "hidden_act quick_gelu",
    "llama4_text": "num_experts_per_tok 2",
    "longcat_flash": "mla_scale_q_lora",
    "mamba-gelu": "hidden_act gelu",
    "mamba2-eps": "layer_norm_epsilon 0.1",
    "mamba2-groups": "n_groups 2",
    "mimo_v2_flash": "sliding_window 6",
    "minicpm3": "tie_word_embeddings True",
    "minicpm3-longrope": "tie_word_embeddings True",
    "minicpm3-yarn": "tie_word_embeddings True",
    "minimax": "layer_types",
    "ministral3-window": "sliding_window 4",
    "mistral-window": "sliding_window 4",
    "mixtral-gelu": "hidden_act gelu",
    "mixtral-window": "sliding_window 4",
    "nanochat": "model.layers.0.mlp.fc1.weight",
    "nemotron-silu": "hidden_act silu",
    "nemotron_h-relu": "mlp_hidden_act relu",
    "nemotron_h-top-1": "num_experts_per_tok 1",
    "olmo": "another package",
    "olmo_hybrid": "model.layers.0.attention_layer_norm.weight",
    "olmoe-clip": "clip_qkv 0.5",
    "phi-qk-norm": "qk_layernorm True",
    "phi3-window": "sliding_window 4",
    "phimoe-no-bias": "lm_head.bias",
    "phimoe-top-1": "num_experts_per_tok 1",
    "phimoe-window": "sliding_window 4",
    "qwen2-window": "sliding_window 4",
    "qwen2_moe-dense": "mlp_only_layers [0]",
    "qwen2_moe-no-bias": "qkv_bias False",
    "qwen2_moe-topk-norm": "norm_topk_prob True",
    "qwen3-attention-bias": "attention_bias True",
    "qwen3-window": "sliding_window 4",
    "qwen3_5_text": "qwen3_5_text",
    "recurrent_gemma": "model_type recurrent_gemma",
    "recurrent_gemma-softcap": "model_type recurrent_gemma",
    "solar_open": "first_k_dense_replace",
    "starcoder2-no-bias": "use_bias False",
    "starcoder2-window": "sliding_window 4",
}
"""Case to what the refusal names: the field, with its value where it has one, or the tensor."""


@cache
def folders() -> dict[str, dict[str, Any]]:
    return json.loads((HERE / "folders.json").read_text())


@cache
def logits() -> Any:
    return np.load(HERE / "folders.npz")


def write(folder: Path, case: str, **changes: Any) -> Path:
    """The folder of a case, without a tokenizer; `changes` go over its configuration."""
    kept = folders()[case]
    (folder / "config.json").write_text(json.dumps(kept["config"] | changes))
    drawn = {n: folder_weights.tensor(kept["drawn"].get(n, n), s) for n, s in kept["shapes"].items()}
    save_file(drawn, folder / "model.safetensors", {"format": "pt"})
    return folder


def largest_difference(folder: Path, case: str) -> float:
    model, _ = loading.read(folder)
    ours = model(mx.array(folder_weights.TOKENS)).astype(mx.float32)
    return float(np.abs(np.array(ours) - logits()[case]).max())


@pytest.mark.parametrize("case", sorted(CASES))
def test_a_folder_is_computed_as_torch_computes_it_or_refused_by_field(case: str, tmp_path: Path) -> None:
    folder = write(tmp_path, case)
    if case not in REFUSED:
        assert largest_difference(folder, case) < ATOL
        return
    with pytest.raises(EmergenceError, match=ONE_LINE) as error:
        loading.read(folder)
    assert REFUSED[case] in str(error.value)


def test_the_table_is_broad_and_mostly_right() -> None:
    assert folders().keys() == CASES.keys() == {k for k in logits().files if " " not in k}
    assert REFUSED.keys() <= CASES.keys()
    assert len(CASES) >= 250
    assert len(CASES) - len(REFUSED) >= 180
    right = Counter(CASES[case][0] for case in CASES.keys() - REFUSED.keys())
    assert len(right) >= 65  # types
    assert len(TYPES) >= 80


@pytest.mark.parametrize(
    ("case", "field", "value"),
    [
        ("llama", "rope_parameters", {"rope_type": "default", "rope_theta": 3e4}),
        ("llama-gelu", "hidden_act", "silu"),
        ("qwen3", "rms_norm_eps", 0.3),
        ("gemma2", "query_pre_attn_scalar", 16),
        ("granite", "attention_multiplier", 0.1),
        ("gpt_neox", "use_parallel_residual", False),
        ("cohere", "logit_scale", 0.2),
    ],
)
def test_another_value_of_a_field_is_another_function(
    case: str, field: str, value: Any, tmp_path: Path
) -> None:
    """The table could not pass with the field ignored: the logits it holds are those of this value alone."""
    assert largest_difference(write(tmp_path, case, **{field: value}), case) > 20 * ATOL


# Which fields are read is looked up


def test_a_field_that_is_taken_and_never_used_is_not_read() -> None:
    mixtral = architecture.find({"model_type": "mixtral"})
    assert "rope_scaling" in mixtral.fields
    assert not mixtral.reads("rope_scaling")
    assert mixtral.reads("rope_theta")
    assert architecture.find({"model_type": "llama"}).reads("rope_scaling")


def test_a_new_field_of_an_architecture_is_read_as_soon_as_its_source_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (
        "from dataclasses import dataclass\nfrom .base import BaseModelArgs\nimport mlx.nn as nn\n"
        "@dataclass\nclass ModelArgs(BaseModelArgs):\n    model_type: str\n    tilt: float = 1.0\n"
        "    unused: int = 3\nclass Model(nn.Module):\n    def __init__(self, args):\n"
        "        super().__init__()\n        self.tilt = args.tilt\n"
    )
    (tmp_path / "tilted.py").write_text(source)
    monkeypatch.setattr(mlx_lm.models, "__path__", [*mlx_lm.models.__path__, str(tmp_path)])
    found = architecture.find({"model_type": "tilted"})
    assert (found.reads("tilt"), found.reads("unused"), found.reads("else")) == (True, False, False)


def test_another_activation_stays_in_the_model_that_asked_for_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    changed, own = write(tmp_path / "a", "llama-gelu"), write(tmp_path / "b", "llama")
    assert largest_difference(changed, "llama-gelu") < ATOL
    assert largest_difference(own, "llama") < ATOL
    assert largest_difference(changed, "llama-gelu") < ATOL


# Windows and tables of positions


@pytest.mark.parametrize(
    ("case", "changes", "longest"),
    [
        ("mistral", {"sliding_window": 4096}, 4096),
        ("mistral", {"sliding_window": None}, None),
        ("gemma2", {}, 4096),
        ("llama", {}, None),
        ("gpt2", {}, 64),
        ("qwen2", {"sliding_window": 32, "use_sliding_window": False}, None),
        ("phi3-longrope", {}, 4096),
        ("llama-dynamic", {}, 64),
        ("deepseek_v32", {}, 600),
    ],
)
def test_the_longest_prompt_that_is_computed_right_is_known(
    case: str, changes: dict[str, Any], longest: int | None, tmp_path: Path
) -> None:
    model, _ = loading.read(write(tmp_path, case, **changes))
    assert model.longest == longest


# Configurations as they are published

LIMITED = {
    "gemma-2-2b": 4096,
    "gpt2": 1024,
    "mistral-7b-v0.1": 4096,
    "nemotron-nano-9b": 131072,
    "phi-4-mini": 4096,
    "starcoder2-3b": 4096,
}
"""Model to the longest prompt, in tokens, that is computed right."""
ACTIVATED = {"gemma-2b": "gelu_approx", "pythia-160m": "gelu", "starcoder2-3b": "gelu_approx"}
"""Model to the activation that mlx-lm does not call by itself."""


@pytest.mark.parametrize("name", json.loads((HERE / "published.json").read_text()))
def test_a_published_configuration_is_taken(name: str) -> None:
    raw = json.loads((HERE / "published.json").read_text())[name]
    settled = configuration.settle(files.floats(raw))
    assert settled.theirs is not None
    assert settled.longest == LIMITED.get(name)
    assert settled.activation == ACTIVATED.get(name)


# Types that transformers does not know


@pytest.mark.parametrize(
    ("model_type", "field", "value"),
    [
        ("internlm2", "hidden_act", "gelu"),
        ("minicpm", "sliding_window", 16),
        ("plamo", "rope_scaling", {"type": "linear", "factor": 2.0}),
        ("internlm2", "partial_rotary_factor", 0.5),
        ("internlm2", "final_logit_softcapping", 30.0),
        ("mimo", "logit_scale", 0.5),
    ],
)
def test_a_type_that_transformers_does_not_know_is_refused_by_name(
    model_type: str, field: str, value: Any
) -> None:
    with pytest.raises(NotMeasurable, match=f"does not read {field}"):
        configuration.settle({"model_type": model_type, field: value})
    assert configuration.settle({"model_type": model_type, field: None}).theirs is None


def test_a_value_that_the_type_computes_is_no_reason_to_refuse() -> None:
    harmless = {
        "hidden_act": "silu",
        "sliding_window": 8192,
        "logit_scale": 1.0,
        "partial_rotary_factor": 1.0,
    }
    assert configuration.settle({"model_type": "internlm2", **harmless}).changes == {}


# What is said


def test_fields_that_transformers_refuses_are_told_with_its_reason(saved: Path) -> None:
    edit(saved / "config.json", num_attention_heads="four")
    said = refused(saved, BrokenExperiment)
    assert "config.json describes no llama" in said
    assert "num_attention_heads" in said


def test_a_bad_rope_is_not_blamed_on_the_tokenizer(saved: Path) -> None:
    for scaling in ({"type": "nonsense", "factor": 2.0}, {"rope_type": "yarn"}, {"type": "linear"}, 7):
        edit(saved / "config.json", rope_scaling=scaling)
        said = refused(saved, BrokenExperiment)
        assert "config.json" in said
        assert "tokenizer" not in said


def test_missing_fields_are_named(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    for name in ("hidden_size", "model_type"):
        (saved / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != name}))
        assert name in refused(saved, BrokenExperiment) or name == "hidden_size"
    (saved / "config.json").write_text(json.dumps(config))
    assert models.load(saved)[0](TOKENS).shape[-1] == config["vocab_size"]
