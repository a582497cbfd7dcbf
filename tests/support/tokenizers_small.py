"""Small tokenizers in the files of the families that are met on the hub: trained here, shaped as those are.

Each is what its family does to arithmetic: how many digits a token holds, whether a BOS is put first, whether
a space belongs to the word after it. Only the vocabulary is small.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

WORDS = "add plus sum subtract minus difference multiply times product divide What is the answer Over"
FILLER = "the and house garden river mountain window summer paper stone music"
_EVERY = f"{WORDS} {FILLER}".split()
TEXTS = [f"{v} {v.capitalize()} What is 12 {v} 345? {v} 7 * 8 = 56" for v in _EVERY] * 20
TEXTS += [v for word in _EVERY for v in (word, word.capitalize())] * 20
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class Family:
    """What a family's files say, and what follows for `177` and for a prompt's beginning."""

    build: Callable[[], Tokenizer]
    settings: dict[str, object]
    digits: int
    bos: str | None
    """The token put before a prompt; None where none is."""


def _byte_level(digits: int, specials: list[str], bos: str | None, normal: bool = False) -> Tokenizer:
    tok = Tokenizer(models.BPE(ignore_merges=digits > 1))
    if normal:
        tok.normalizer = normalizers.NFC()
    split = Regex(rf"{_WORD}|\p{{N}}{{1,{digits}}}|{_REST}")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(split, "isolated"), byte_level])
    tok.decoder = decoders.ByteLevel()
    numbers = [str(n) for n in range(1000)] if digits > 1 else []
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        special_tokens=[AddedToken(s, special=True) for s in specials],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tok.train_from_iterator([*TEXTS, *numbers * 9], trainer)
    steps = [processors.ByteLevel(trim_offsets=False)]
    if bos:
        steps.append(
            processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, tok.token_to_id(bos))])
        )
    tok.post_processor = processors.Sequence(steps)
    return tok


def _sentencepiece(specials: list[str], bos: str, dummy_prefix: bool) -> Tokenizer:
    """BPE over characters with bytes to fall back on, a space written as ▁ at the front of a word."""
    tok = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    space = normalizers.Replace(" ", "▁")
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), space]) if dummy_prefix else space
    # SentencePiece learns no piece that crosses a word, and none of several digits; so it learns from such.
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("▁", "merged_with_next"), pre_tokenizers.Digits(individual_digits=True)]
    )
    bytes_ = [AddedToken(f"<0x{byte:02X}>", special=False, normalized=False) for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        special_tokens=[*(AddedToken(s, special=True) for s in specials), *bytes_],
        initial_alphabet=list("0123456789▁"),
        show_progress=False,
    )
    tok.train_from_iterator(TEXTS, trainer)
    content = json.loads(tok.to_str())
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] in specials]
    content["pre_tokenizer"] = None
    tok = Tokenizer.from_str(json.dumps(content))
    strip = [decoders.Strip(" ", 1, 0)] if dummy_prefix else []
    tok.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    tok.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tok.token_to_id(bos))]
    )
    return tok


FAMILIES = {
    "smollm2": Family(
        lambda: _byte_level(1, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], None),
        {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"},
        digits=1,
        bos=None,
    ),
    "llama-3": Family(
        lambda: _byte_level(3, ["<|begin_of_text|>", "<|end_of_text|>"], "<|begin_of_text|>"),
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|begin_of_text|>",
            "eos_token": "<|end_of_text|>",
        },
        digits=3,
        bos="<|begin_of_text|>",
    ),
    "qwen3": Family(
        lambda: _byte_level(1, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], None, normal=True),
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "add_bos_token": False,
            "bos_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
        },
        digits=1,
        bos=None,
    ),
    "gpt-oss": Family(
        lambda: _byte_level(3, ["<|startoftext|>", "<|endoftext|>", "<|return|>"], None),
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|startoftext|>",
            "eos_token": "<|return|>",
            "pad_token": "<|endoftext|>",
        },
        digits=3,
        bos=None,
    ),
    "llama-2": Family(
        lambda: _sentencepiece(["<unk>", "<s>", "</s>"], "<s>", dummy_prefix=True),
        {
            "tokenizer_class": "LlamaTokenizer",
            "add_bos_token": True,
            "add_eos_token": False,
            "legacy": False,
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
        },
        digits=1,
        bos="<s>",
    ),
    "gemma-3": Family(
        lambda: _sentencepiece(["<pad>", "<eos>", "<bos>", "<unk>"], "<bos>", dummy_prefix=False),
        {
            "tokenizer_class": "GemmaTokenizer",
            "add_bos_token": True,
            "add_eos_token": False,
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
        },
        digits=1,
        bos="<bos>",
    ),
}


def write(folder: Path, family: str) -> Tokenizer:
    """Put a family's `tokenizer.json` and `tokenizer_config.json` into `folder`; the tokenizer as built."""
    built = FAMILIES[family].build()
    folder.mkdir(parents=True, exist_ok=True)
    built.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(FAMILIES[family].settings))
    return built
