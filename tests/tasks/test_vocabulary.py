"""Ids, not strings: what counts for a class and begins an answer, in eight families of tokenizers."""

import re
from itertools import combinations

import pytest
import tiny
import tokenizers_small
from hypothesis import given, settings
from hypothesis import strategies as st
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

from emergence.errors import NotMeasurable, UsageError
from emergence.tasks import task as tasks
from emergence.tasks import vocabulary as tokens
from emergence.tasks.task import OPERATIONS, Problem

VOCABULARY = {
    "add": ("add", "plus", "sum", "+"),
    "subtract": ("subtract", "minus", "difference", "-"),
    "multiply": ("multiply", "times", "product", "*"),
}
BYTES = pre_tokenizers.ByteLevel.alphabet()


def _corpus(repeat: int) -> list[str]:
    known = [
        w for words in VOCABULARY.values() for w in words if w.isalpha()
    ] + tokenizers_small.FILLER.split()
    lines = [v for w in known for v in (w, f" {w}", w.capitalize(), f" {w.capitalize()}")] * repeat
    lines += [f"{n}" for n in range(1000)] * 3 + [f" {n}" for n in range(100)] * 3
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


def _gpt2() -> Tokenizer:
    """Spaces join digits: a number in a text is one piece with the space before it."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    return _train(tok, _corpus(40), BYTES, "<|end|>", 3000)


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
    return _train(tok, lines, [*"0123456789+-*/=?▁\n"], "</s>", 1500)


FAMILIES = {
    "smollm: single digits, no BOS": (tiny.tokenizer, "<|endoftext|>"),
    "llama3: three digits, BOS": (tokenizers_small.FAMILIES["llama-3"].build, "<|end_of_text|>"),
    "qwen: single digits": (tokenizers_small.FAMILIES["qwen3"].build, "<|im_end|>"),
    "gpt2: spaces join digits": (_gpt2, "<|end|>"),
    "llama2: dummy prefix, BOS": (tokenizers_small.FAMILIES["llama-2"].build, "</s>"),
    "gemma: no dummy prefix, BOS": (tokenizers_small.FAMILIES["gemma-3"].build, "<eos>"),
    "merging: spaces and signs join": (_merging, "</s>"),
    "t5: EOS after every text": (_t5, "<|end_of_text|>"),
}
_BUILT: dict[str, PreTrainedTokenizerFast] = {}


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def tokenizer(family):
    return _tokenizer(family)


def _tokenizer(family):
    if family not in _BUILT:
        build, eos = FAMILIES[family]
        _BUILT[family] = PreTrainedTokenizerFast(tokenizer_object=build(), eos_token=eos)
    return _BUILT[family]


def test_prompt_and_answer_read_back_as_what_was_written_for_every_family(tokenizer):
    for problem in (Problem("multiply", 37, 48), Problem("add", 2, 3), Problem("subtract", 100, 43)):
        for style in tasks.STYLES:
            text, answer = problem.prompt(style), str(problem.answer)
            ids = tokens.encode_prompt(tokenizer, text) + tokens.encode_answer(tokenizer, text, answer)
            assert tokenizer.decode(ids, skip_special_tokens=True) == text + answer


@given(family=st.sampled_from(list(FAMILIES)), a=st.integers(0, 999), b=st.integers(0, 999), data=st.data())
@settings(max_examples=80, deadline=None)
def test_the_answers_first_token_begins_the_answer(family, a, b, data):
    tokenizer = _tokenizer(family)
    problem = Problem(data.draw(st.sampled_from(("add", "multiply"))), a, b)
    text = problem.prompt(data.draw(st.sampled_from(tasks.STYLES)))
    answer = tokens.encode_answer(tokenizer, text, str(problem.answer))
    before = tokenizer.decode(tokens.encode_prompt(tokenizer, text), skip_special_tokens=True)
    after = tokenizer.decode(tokens.encode_prompt(tokenizer, text) + answer[:1], skip_special_tokens=True)
    first = after.removeprefix(before)
    assert first
    assert str(problem.answer).startswith(first)


@pytest.mark.parametrize(
    ("family", "first"),
    [
        ("smollm: single digits, no BOS", "1"),
        ("llama3: three digits, BOS", "177"),
        ("qwen: single digits", "1"),
        ("llama2: dummy prefix, BOS", "1"),
        ("gemma: no dummy prefix, BOS", "1"),
    ],
)
def test_an_answers_first_token_is_a_digit_or_a_group_of_digits_as_the_family_has_it(family, first):
    tokenizer = _tokenizer(family)
    prompt = Problem("multiply", 37, 48).prompt("symbolic")
    answer = tokens.encode_answer(tokenizer, prompt, "1776")
    assert tokenizer.convert_ids_to_tokens(answer[0]) == first


def test_a_prompt_begins_as_the_tokenizer_has_it_and_never_ends_the_text(family, tokenizer):
    ids = tokens.encode_prompt(tokenizer, "7 * 8 = ")
    own = tokenizer.encode("7 * 8 = ")
    assert ids == tuple(own[: len(ids)])
    assert ids[-1] != tokenizer.eos_token_id
    assert (ids[0] in tokenizer.convert_tokens_to_ids(["<|begin_of_text|>", "<s>", "<bos>"])) == (
        bool(re.search(", BOS|t5", family))
    )


def test_rows_end_with_the_end_of_text_and_hold_every_style(tokenizer):
    problems = tuple(Problem("add", a, 40) for a in range(2, 6))
    got = tokens.rows(tokenizer, problems, tasks.STYLES)
    assert [(r.item, r.style) for r in got] == [(p, s) for p in problems for s in tasks.STYLES]
    for r in got:
        assert r.answer_ids[-1] == tokenizer.eos_token_id
        assert r.answer_ids[:-1] == tokens.encode_answer(
            tokenizer, r.item.prompt(r.style), str(r.item.answer)
        )
        assert r.prompt_ids == tokens.encode_prompt(tokenizer, r.item.prompt(r.style))


def test_the_boundary_report_names_the_styles_whose_space_joins_the_answer():
    problems = [Problem("add", 20, 40), Problem("multiply", 7, 8)]
    assert tokens.boundary_report(_tokenizer("smollm: single digits, no BOS"), problems, tasks.STYLES) == ()
    assert tokens.boundary_report(_tokenizer("llama3: three digits, BOS"), problems, tasks.STYLES) == ()
    notes = tokens.boundary_report(_tokenizer("gpt2: spaces join digits"), problems, tasks.STYLES)
    assert [n.split(":")[0] for n in notes] == ["style symbolic", "style worded"]
    assert "2 of 2" in notes[0]
    assert "'20 + 40 = 60'" in notes[0]


def test_a_tokenizer_that_cannot_write_digits_is_not_measurable():
    raw = Tokenizer(models.WordLevel({"<unk>": 0, "=": 1, "+": 2}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")
    with pytest.raises(NotMeasurable, match="'56'"):
        tokens.encode_answer(tokenizer, "7 + 49 = ", "56")
    with pytest.raises(NotMeasurable, match="end of text"):
        tokens.rows(tokenizer, [Problem("add", 1, 2)], ["symbolic"])


def test_every_id_of_a_class_reads_as_one_of_its_words(tokenizer):
    vocabulary = tokens.audit(tokenizer, VOCABULARY)
    for sets in (vocabulary.words, vocabulary.glyphs):
        for cls, ids in sets.items():
            assert ids == tuple(sorted(set(ids)))
            read = {tokenizer.decode([i]).strip().lower() for i in ids}
            assert read <= set(VOCABULARY[cls])


def test_no_id_belongs_to_two_classes_or_families(tokenizer):
    vocabulary = tokens.audit(tokenizer, VOCABULARY)
    every = [set(ids) for sets in (vocabulary.words, vocabulary.glyphs) for ids in sets.values()]
    assert all(not one & other for one, other in combinations(every, 2))


@pytest.mark.parametrize("name", [n for n in FAMILIES if not n.startswith(("llama2", "merging"))])
def test_all_four_variants_of_a_word_are_found(name):
    entry = next(e for e in tokens.audit(_tokenizer(name), VOCABULARY).table if e.word == "product")
    assert [text for text, _ in entry.variants] == ["product", " product", "Product", " Product"]
    assert len(entry.ids) == 4
    assert entry.left_out == ""


def test_a_sentencepiece_word_begins_with_a_space_and_its_bare_form_is_another():
    tokenizer = _tokenizer("llama2: dummy prefix, BOS")
    entry = next(e for e in tokens.audit(tokenizer, VOCABULARY).table if e.word == "product")
    # Encoded by itself, "product" becomes the spaced piece: that must not pass for the bare one.
    assert sorted(tokenizer.convert_ids_to_tokens(entry.ids)) == ["▁Product", "▁product"]
    assert [len(ids) == 1 for _, ids in entry.variants] == [False, True, False, True]


def test_a_word_of_several_tokens_is_left_out_by_name_with_its_pieces():
    vocabulary = tokens.audit(tiny.tokenizer(), {"add": ("add", "augmentation"), "subtract": ("minus",)})
    entry = next(e for e in vocabulary.table if e.word == "augmentation")
    assert entry.ids == ()
    assert re.search("no variant is a single token; 'augmentation' is 'a", entry.left_out)
    assert "augmentation" in str(vocabulary)
    first_piece = tiny.tokenizer().encode("augmentation").ids[0]
    assert first_piece not in vocabulary.words["add"]


def test_a_word_is_never_found_inside_another():
    pieces = ["sum", "Ġsum", "Ġassume", "sums", "minus", "+", "-", "Ċ"]
    raw = Tokenizer(models.WordLevel({p: i for i, p in enumerate(pieces)}, unk_token="Ċ"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    assert tokens.audit(raw, {"add": ("sum",), "subtract": ("minus",)}).words["add"] == (0, 1)


def test_an_unknown_token_is_no_word():
    raw = Tokenizer(models.WordLevel({"<unk>": 0, "add": 1, "minus": 2, "+": 3, "-": 4}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")
    vocabulary = tokens.audit(tokenizer, {"add": ("add", "plus"), "subtract": ("minus",)})
    assert vocabulary.words == {"add": (1,), "subtract": (2,)}
    assert next(e for e in vocabulary.table if e.word == "plus").ids == ()


def test_a_class_without_a_single_token_word_and_a_shared_token_are_told_at_once():
    with pytest.raises(UsageError) as refused:
        tokens.audit(
            tiny.tokenizer(), {"add": ("augmentation",), "subtract": ("Minus",), "multiply": ("minus",)}
        )
    message = str(refused.value)
    assert "task_vocabulary.add: no word is one token" in message
    assert "'Minus' of subtract and 'minus' of multiply are the same token" in message


def test_a_glyph_counts_as_a_glyph_of_its_class_even_if_not_written():
    vocabulary = tokens.audit(tiny.tokenizer(), {"add": ("add",), "subtract": ("minus", "-")})
    assert vocabulary.glyphs["add"] == tuple(tiny.tokenizer().encode("+").ids)
    assert not set(vocabulary.glyphs["add"]) & set(vocabulary.words["add"])
    with pytest.raises(UsageError, match=r"'\+' of add and '\+' of subtract are the same token"):
        tokens.audit(tiny.tokenizer(), {"add": ("add",), "subtract": ("minus", "+")})


def _in_style(vocabulary, tokenizer, style):
    texts = [Problem(op, 8, 2).prompt(style) for op in OPERATIONS]
    return vocabulary.for_style(style, texts, [tokens.encode_prompt(tokenizer, t) for t in texts])


def test_words_of_a_styles_prompts_leave_the_set_with_all_their_variants(tokenizer):
    vocabulary = tokens.audit(tokenizer, VOCABULARY)
    symbolic, worded = (_in_style(vocabulary, tokenizer, style) for style in ("symbolic", "worded"))
    assert symbolic == vocabulary.words
    for cls, copied in (("add", "plus"), ("subtract", "minus"), ("multiply", "times")):
        gone = set(symbolic[cls]) - set(worded[cls])
        assert {tokenizer.decode([i]).strip().lower() for i in gone} <= {copied}
        prompt = Problem(cls, 8, 2).prompt("worded")
        assert not set(tokens.encode_prompt(tokenizer, prompt)) & {i for ids in worded.values() for i in ids}


def test_a_class_whose_words_all_stand_in_the_prompts_is_refused():
    vocabulary = tokens.audit(tiny.tokenizer(), {"add": ("plus",), "subtract": ("subtract",)})
    with pytest.raises(UsageError, match=r"add: every word stands in the worded prompts themselves \(plus\)"):
        _in_style(vocabulary, tiny.tokenizer(), "worded")


@pytest.mark.parametrize("text", ["the Plus sign", "a plus.", "PLUS"])
def test_a_word_leaves_the_set_whatever_its_capitals_in_one_prompt(text):
    vocabulary = tokens.audit(tiny.tokenizer(), {"add": ("plus", "sum"), "subtract": ("minus",)})
    left = vocabulary.for_style("own", ["What is", text], [])
    assert left == vocabulary.words | {"add": tokens.audit(tiny.tokenizer(), {"add": ("sum",)}).words["add"]}


def test_a_word_leaves_the_set_where_it_is_a_token_of_a_longer_word():
    tokenizer = tiny.tokenizer()
    vocabulary = tokens.audit(tokenizer, {"add": ("add", "sum"), "subtract": ("minus",)})
    text = "What is summary"
    ids = tokens.encode_prompt(tokenizer, text)
    assert set(ids) & set(vocabulary.words["add"]), "no token of the vocabulary in it: this tests nothing"
    left = vocabulary.for_style("own", [text], [ids])
    assert not set(ids) & set(left["add"])
    assert left["subtract"] == vocabulary.words["subtract"]


def test_the_table_prints_every_word_with_its_ids():
    vocabulary = tokens.audit(tiny.tokenizer(), VOCABULARY)
    lines = str(vocabulary).splitlines()
    assert len(lines) == 1 + sum(map(len, VOCABULARY.values()))
    assert lines[0].split() == ["class", "family", "word", "ids", "left", "out"]
    for e in vocabulary.table:
        assert any(e.word in line and all(f"={i}" in line for i in e.ids) for line in lines)


def test_random_words_have_no_id_in_common_with_each_other_or_with_the_vocabulary(tokenizer):
    vocabulary = tokens.audit(tokenizer, VOCABULARY)
    sets = tokens.random_words(tokenizer, vocabulary, 3, seed=0)
    every = [set(ids) for ids in sets.values()]
    every += [set(ids) for part in (vocabulary.words, vocabulary.glyphs) for ids in part.values()]
    assert all(not one & other for one, other in combinations(every, 2))
    for i in {i for ids in sets.values() for i in ids}:
        assert tokenizer.decode([i]).strip().isalpha()


def test_random_words_are_seeded():
    vocabulary = tokens.audit(tiny.tokenizer(), VOCABULARY)
    draws = [tokens.random_words(tiny.tokenizer(), vocabulary, 3, seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def _ranked() -> Tokenizer:
    """A vocabulary of 4000 made-up words, every one in all four variants, in order of frequency."""
    letters = [*"bcdfghjklmnprstvwz"]
    words = [
        a + v + b + w + c for a in letters for v in "aeiou" for b in letters[:9] for w in "ou" for c in "nrs"
    ]
    known = [w for ws in VOCABULARY.values() for w in ws if w.isalpha()]
    words = words[:2000] + known + words[2000:4000]
    pieces = [x for w in words for x in (w, f"Ġ{w}", w.capitalize(), f"Ġ{w.capitalize()}")]
    raw = Tokenizer(
        models.WordLevel({p: i for i, p in enumerate([*pieces, "+", "-", "*", "Ċ"])}, unk_token="Ċ")
    )
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return raw


def test_random_words_match_the_real_ones_in_frequency_and_variants():
    tokenizer = _ranked()
    vocabulary = tokens.audit(tokenizer, VOCABULARY)
    sets = tokens.random_words(tokenizer, vocabulary, 6, seed=3)
    for k, ids in enumerate(sets.values()):
        real = vocabulary.words[list(VOCABULARY)[k % 3]]
        assert len(ids) == len(real)
        # 6 sets of 3 words among the 40 nearest of 4 variants each: never further than a few hundred ids.
        assert max(min(abs(i - r) for r in real) for i in ids) < 400
        spaced = sum(tokenizer.id_to_token(i).startswith("Ġ") for i in ids)
        assert spaced == len(ids) // 2


def test_random_words_where_there_are_too_few_are_refused():
    raw = Tokenizer(models.WordLevel({"<unk>": 0, "add": 1, "minus": 2, "+": 3, "-": 4}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    vocabulary = tokens.audit(raw, {"add": ("add",), "subtract": ("minus",)})
    with pytest.raises(NotMeasurable, match="too few words to match 'add'"):
        tokens.random_words(raw, vocabulary, 1, 0)


def test_mlx_lms_wrapper_and_the_raw_tokenizer_give_the_same_ids():
    from mlx_lm.tokenizer_utils import TokenizerWrapper

    inner = _tokenizer("smollm: single digits, no BOS")
    wrapped, raw = TokenizerWrapper(inner), tiny.tokenizer()
    for text in ("7 * 8 = ", "What is 7 times 8? "):
        assert tokens.encode_prompt(wrapped, text) == tokens.encode_prompt(raw, text)
        assert tokens.encode_answer(wrapped, text, "56") == tokens.encode_answer(raw, text, "56")
    assert tokens.audit(wrapped, VOCABULARY).words == tokens.audit(raw, VOCABULARY).words
    assert tokens.end_of_text(wrapped) == inner.eos_token_id
    vocabulary = tokens.audit(wrapped, VOCABULARY)
    assert tokens.random_words(wrapped, vocabulary, 2, 0) == tokens.random_words(raw, vocabulary, 2, 0)


WORD = st.one_of(
    st.sampled_from([w for ws in VOCABULARY.values() for w in ws]), st.text(min_size=1, max_size=8)
)


@given(st.dictionaries(st.sampled_from(("add", "subtract", "joy")), st.lists(WORD, max_size=4), min_size=1))
@settings(max_examples=60, deadline=None)
def test_any_vocabulary_is_audited_or_refused(vocabulary):
    try:
        audited = tokens.audit(_tokenizer("smollm: single digits, no BOS"), vocabulary)
    except UsageError:
        return
    assert set(audited.words) == set(vocabulary)
    assert all(audited.words.values())
    assert str(audited)
