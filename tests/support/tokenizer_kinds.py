"""Kinds of tokenizers by what they do to a space before a number, for tests of the encoding and the audit.

`kind(name)` is one of KINDS as transformers loads it; those of `tokenizers_small` are among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import tiny
import tokenizers_small
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from emergence.tasks import vocabulary
from emergence.tasks.arithmetic import FORMS, GLYPHS
from emergence.tasks.vocabulary import Vocabulary

VOCABULARY = {
    "add": ("add", "plus", "sum", "+"),
    "subtract": ("subtract", "minus", "difference", "-"),
    "multiply": ("multiply", "times", "product", "*"),
}
BYTES = pre_tokenizers.ByteLevel.alphabet()
SIGNS = sorted({c for forms in FORMS.values() for form in forms.values() for c in form if c not in "{} "})
"""What prompts are written with, for tokenizers that write nothing else."""


def _corpus(repeat: int) -> list[str]:
    known = [
        w for words in VOCABULARY.values() for w in words if w.isalpha()
    ] + tokenizers_small.FILLER.split()
    lines = [v for w in known for v in (w, f" {w}", w.capitalize(), f" {w.capitalize()}")] * repeat
    lines += [f"{n}" for n in range(1000)] * 3 + [f" {n}" for n in range(1000)] * 3
    return lines + ["7 + 8 = ", "9 - 5 = ", "6 * 4 = ", "What is 7 times 8? "] * repeat


def _train(tok: Tokenizer, lines: list[str], alphabet: list[str], special: str, size: int) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[AddedToken(special, special=True)],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tok.train_from_iterator(lines, trainer)
    return tok


def _gpt2(prefix: bool = False) -> Tokenizer:
    """Spaces join digits: a number in a text is one piece with the space before it."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tok.decoder = decoders.ByteLevel()
    return _train(tok, _corpus(40), BYTES, "<|end|>", 3000)


def _unigram() -> Tokenizer:
    """As T5: `▁56` is a piece, `56` is not; a space is put before any text, an end after it."""
    words = ["What", "is", "by", "divided", *(w for ws in VOCABULARY.values() for w in ws)]
    words += [w.capitalize() for w in words] + tokenizers_small.FILLER.split()
    pieces = ["<unk>", "</s>", "▁", *"0123456789+-*=?/\n", *SIGNS, "▁=", *words, *(f"▁{w}" for w in words)]
    pieces += [f"▁{n}" for n in range(1000)]
    tok = Tokenizer(models.Unigram([(piece, -5.0) for piece in dict.fromkeys(pieces)], unk_id=0))
    tok.pre_tokenizer = pre_tokenizers.Metaspace()
    tok.decoder = decoders.Metaspace()
    tok.add_special_tokens([AddedToken("</s>", special=True)])
    tok.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", tok.token_to_id("</s>"))]
    )
    return tok


def _t5() -> Tokenizer:
    """Puts an end after every text, as well as a beginning before it."""
    tok = tokenizers_small.FAMILIES["llama-3"].build()
    ends = ("<|begin_of_text|>", "<|end_of_text|>")
    tok.post_processor = processors.TemplateProcessing(
        single=" $A ".join(ends), special_tokens=[(t, tok.token_to_id(t)) for t in ends]
    )
    return tok


def _merging() -> Tokenizer:
    """No pre-tokenizer at all: signs and spaces merge with what follows (`= 5` may be one piece)."""
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.Replace(" ", "▁")
    tok.decoder = decoders.Replace("▁", " ")
    lines = _corpus(10) + [
        f"{a} {s} {b} = {a + b}" for a in range(2, 40) for b in range(2, 12) for s in "+-*"
    ]
    return _train(tok, lines, [*dict.fromkeys(["▁", "\n", *"0123456789", *SIGNS])], "</s>", 1500)


KINDS = {
    "smollm: single digits, no BOS": (tiny.tokenizer, "<|endoftext|>"),
    "llama3: three digits, BOS": (tokenizers_small.FAMILIES["llama-3"].build, "<|end_of_text|>"),
    "qwen: single digits": (tokenizers_small.FAMILIES["qwen3"].build, "<|im_end|>"),
    "gpt2: spaces join digits": (_gpt2, "<|end|>"),
    "gpt2: a space before any text": (lambda: _gpt2(prefix=True), "<|end|>"),
    "llama2: dummy prefix, BOS": (tokenizers_small.FAMILIES["llama-2"].build, "</s>"),
    "gemma: no dummy prefix, BOS": (tokenizers_small.FAMILIES["gemma-3"].build, "<eos>"),
    "merging: spaces and signs join": (_merging, "</s>"),
    "t5: EOS after every text": (_t5, "<|end_of_text|>"),
    "unigram: numbers with their space, EOS": (_unigram, "</s>"),
}
JOINED = (
    "gpt2: spaces join digits",
    "gpt2: a space before any text",
    "unigram: numbers with their space, EOS",
)
"""Those that write a space and the number after it as one token."""


def audit(tokenizer: Any, words: Mapping[str, Sequence[str]]) -> Vocabulary:
    """The audit of a vocabulary whose classes may be operations, with their glyphs."""
    return vocabulary.audit(tokenizer, words, lambda cls: GLYPHS.get(cls, ""))


@cache
def kind(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a kind, with its end of text."""
    build, eos = KINDS[name]
    return PreTrainedTokenizerFast(tokenizer_object=build(), eos_token=eos)


def words() -> PreTrainedTokenizerFast:
    """Whole words between spaces: no space is a token, and none is kept."""
    known = ["<unk>", "</s>", *"+-*=", *map(str, range(3000))]
    tok = Tokenizer(models.WordLevel({w: i for i, w in enumerate(known)}, unk_token="<unk>"))
    tok.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tok, eos_token="</s>", unk_token="<unk>")
