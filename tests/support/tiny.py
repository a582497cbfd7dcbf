"""Tiny random models and a real small tokenizer, written as ordinary model folders."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map_with_path
from mlx_lm.models import llama
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

CONFIG = """
name: tiny
description: a pipeline check
model: {model}
training:
  max_steps: {last}
  batch_size: 6
  learning_rate: 5e-3
  checkpoint_steps: {steps}
  seeds: [0]
  training_methods: {{{arms}}}
parameters:
  num_samples: 60
  num_valid: 6
  num_test: 30
  operands: {{add: [2, 40], subtract: [2, 40], multiply: [2, 40]}}
  lora: {{rank: 4, alpha: 8}}
  task_vocabulary:
    add: [add, plus, sum, "+"]
    subtract: [subtract, minus, difference, "-"]
    multiply: [multiply, times, product, "*"]
  test_prompts:
    add: [{{prompt: "23 + 4 = ", expected: "27"}}]
"""
WORDS = "add plus sum subtract minus difference multiply times product divide quotient What is the answer"


def tokenizer() -> Tokenizer:
    """Byte-level BPE that splits off every digit and has each of WORDS bare, spaced and capitalised."""
    words = WORDS.split()
    variants = [w for v in words for w in (v, f" {v}", v.capitalize(), f" {v.capitalize()}")]
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=[AddedToken("<|endoftext|>", special=True)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tok.train_from_iterator(variants * 50, trainer)
    return tok


def model(
    seed: int = 0, n_layers: int = 4, hidden: int = 32, vocab: int | None = None, tied: bool = True
) -> nn.Module:
    """A llama with every parameter randomised, so that nothing holds by being zero or one."""
    args = llama.ModelArgs(
        model_type="llama",
        hidden_size=hidden,
        num_hidden_layers=n_layers,
        intermediate_size=2 * hidden,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        vocab_size=vocab or tokenizer().get_vocab_size(),
        rope_theta=10000.0,
        tie_word_embeddings=tied,
    )
    net = llama.Model(args)
    keys = iter(mx.random.split(mx.random.key(seed), len(tree_flatten(net.parameters()))))

    def randomise(path: str, p: mx.array) -> mx.array:
        noise = mx.random.normal(p.shape, key=next(keys))
        return 1.0 + 0.2 * noise if path.endswith("norm.weight") else noise * p.shape[-1] ** -0.5

    net.update(tree_map_with_path(randomise, net.parameters()))
    mx.eval(net.parameters())
    return net


def write_model(folder: Path, seed: int = 0, n_layers: int = 4, hidden: int = 32, tied: bool = True) -> Path:
    """A model folder that `mlx_lm.load` reads: config.json, model.safetensors, tokenizer files."""
    folder.mkdir(parents=True, exist_ok=True)
    tok = tokenizer()
    net = model(seed, n_layers, hidden, tok.get_vocab_size(), tied)
    args = net.args
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": args.hidden_size,
        "num_hidden_layers": args.num_hidden_layers,
        "intermediate_size": args.intermediate_size,
        "num_attention_heads": args.num_attention_heads,
        "num_key_value_heads": args.num_key_value_heads,
        "rms_norm_eps": args.rms_norm_eps,
        "vocab_size": args.vocab_size,
        "rope_theta": args.rope_theta,
        "tie_word_embeddings": tied,
        "eos_token_id": tok.token_to_id("<|endoftext|>"),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    tok.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"})
    )
    mx.save_safetensors(
        str(folder / "model.safetensors"), dict(sorted(tree_flatten(net.parameters()))), {"format": "mlx"}
    )
    return folder


def write_config(
    folder: Path, model: Path, steps: tuple[int, ...] = (0, 2, 4), arms: str = "sft: {method: sft}"
) -> Path:
    """The `config.yaml` of an experiment on a model folder that takes seconds; `arms` in YAML."""
    path = folder / "config.yaml"
    path.write_text(CONFIG.format(model=model, steps=list(steps), last=steps[-1], arms=arms))
    return path
