"""Ids, not strings: what counts for a class, in every kind of tokenizer."""

import re
from itertools import combinations

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_kinds import KINDS, VOCABULARY, audit, kind
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from emergence.errors import UsageError
from emergence.tasks import encoding, vocabulary
from emergence.tasks.arithmetic import OPERATIONS, Problem


@pytest.fixture(params=KINDS)
def tokenizer(request):
    return kind(request.param)


def test_every_id_of_a_class_reads_as_one_of_its_words(tokenizer):
    audited = audit(tokenizer, VOCABULARY)
    for sets in (audited.words, audited.glyphs):
        for cls, ids in sets.items():
            assert ids == tuple(sorted(set(ids)))
            read = {tokenizer.decode([i]).strip().lower() for i in ids}
            assert read <= set(VOCABULARY[cls])


def test_no_id_belongs_to_two_classes_or_families(tokenizer):
    audited = audit(tokenizer, VOCABULARY)
    every = [set(ids) for sets in (audited.words, audited.glyphs) for ids in sets.values()]
    assert all(not one & other for one, other in combinations(every, 2))


@pytest.mark.parametrize(
    "name", [n for n in KINDS if not n.startswith(("llama2", "merging", "gpt2: a space"))]
)
def test_all_four_variants_of_a_word_are_found(name):
    entry = next(e for e in audit(kind(name), VOCABULARY).table if e.word == "product")
    assert [text for text, _ in entry.variants] == ["product", " product", "Product", " Product"]
    assert len(entry.ids) == 4
    assert entry.left_out == ""


def test_a_sentencepiece_word_begins_with_a_space_and_its_bare_form_is_another():
    tokenizer = kind("llama2: dummy prefix, BOS")
    entry = next(e for e in audit(tokenizer, VOCABULARY).table if e.word == "product")
    # Encoded by itself, "product" becomes the spaced piece: that must not pass for the bare one.
    assert sorted(tokenizer.convert_ids_to_tokens(entry.ids)) == ["▁Product", "▁product"]
    assert [len(ids) == 1 for _, ids in entry.variants] == [False, True, False, True]


def test_a_word_of_several_tokens_is_left_out_by_name_with_its_pieces():
    audited = audit(tiny.tokenizer(), {"add": ("add", "augmentation"), "subtract": ("minus",)})
    entry = next(e for e in audited.table if e.word == "augmentation")
    assert entry.ids == ()
    assert re.search("no variant is a single token; 'augmentation' is 'a", entry.left_out)
    assert "augmentation" in str(audited)
    first_piece = tiny.tokenizer().encode("augmentation").ids[0]
    assert first_piece not in audited.words["add"]


def test_a_word_is_never_found_inside_another():
    pieces = ["sum", "Ġsum", "Ġassume", "sums", "minus", "+", "-", "Ċ"]
    raw = Tokenizer(models.WordLevel({p: i for i, p in enumerate(pieces)}, unk_token="Ċ"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    assert audit(raw, {"add": ("sum",), "subtract": ("minus",)}).words["add"] == (0, 1)


def test_an_unknown_token_is_no_word():
    raw = Tokenizer(models.WordLevel({"<unk>": 0, "add": 1, "minus": 2, "+": 3, "-": 4}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")
    audited = audit(tokenizer, {"add": ("add", "plus"), "subtract": ("minus",)})
    assert audited.words == {"add": (1,), "subtract": (2,)}
    assert next(e for e in audited.table if e.word == "plus").ids == ()


def test_a_class_without_a_single_token_word_and_a_shared_token_are_told_at_once():
    with pytest.raises(UsageError) as refused:
        audit(tiny.tokenizer(), {"add": ("augmentation",), "subtract": ("Minus",), "multiply": ("minus",)})
    message = str(refused.value)
    assert "task_vocabulary.add: no word is one token" in message
    assert "'Minus' of subtract and 'minus' of multiply are the same token" in message


def test_glyphs_are_those_that_the_task_says_whatever_a_class_is_called():
    tokenizer, words = tiny.tokenizer(), {"add": ("add",), "subtract": ("minus", "-")}
    assert vocabulary.audit(tokenizer, words, lambda cls: ()).glyphs["add"] == ()
    marked = vocabulary.audit(tokenizer, words, lambda cls: "?" if cls == "add" else "")
    assert marked.glyphs == {c: tuple(tokenizer.encode(g).ids) for c, g in (("add", "?"), ("subtract", "-"))}


def test_a_glyph_counts_as_a_glyph_of_its_class_even_if_not_written():
    audited = audit(tiny.tokenizer(), {"add": ("add",), "subtract": ("minus", "-")})
    assert audited.glyphs["add"] == tuple(tiny.tokenizer().encode("+").ids)
    assert not set(audited.glyphs["add"]) & set(audited.words["add"])
    with pytest.raises(UsageError, match=r"'\+' of add and '\+' of subtract are the same token"):
        audit(tiny.tokenizer(), {"add": ("add",), "subtract": ("minus", "+")})


def _in_style(vocabulary, tokenizer, style):
    texts = [Problem(op, 8, 2).prompt(style) for op in OPERATIONS]
    return vocabulary.for_style(style, texts, [encoding.encode_prompt(tokenizer, t) for t in texts])


def test_words_of_a_styles_prompts_leave_the_set_with_all_their_variants(tokenizer):
    audited = audit(tokenizer, VOCABULARY)
    symbolic, worded = (_in_style(audited, tokenizer, style) for style in ("symbolic", "worded"))
    assert symbolic == audited.words
    for cls, copied in (("add", "plus"), ("subtract", "minus"), ("multiply", "times")):
        gone = set(symbolic[cls]) - set(worded[cls])
        assert {tokenizer.decode([i]).strip().lower() for i in gone} <= {copied}
        prompt = Problem(cls, 8, 2).prompt("worded")
        assert not set(encoding.encode_prompt(tokenizer, prompt)) & {
            i for ids in worded.values() for i in ids
        }


def test_a_class_whose_words_all_stand_in_the_prompts_is_refused():
    audited = audit(tiny.tokenizer(), {"add": ("plus",), "subtract": ("subtract",)})
    with pytest.raises(UsageError, match=r"add: every word stands in the worded prompts themselves \(plus\)"):
        _in_style(audited, tiny.tokenizer(), "worded")


@pytest.mark.parametrize("text", ["the Plus sign", "a plus.", "PLUS"])
def test_a_word_leaves_the_set_whatever_its_capitals_in_one_prompt(text):
    audited = audit(tiny.tokenizer(), {"add": ("plus", "sum"), "subtract": ("minus",)})
    left = audited.for_style("own", ["What is", text], [])
    assert left == audited.words | {"add": audit(tiny.tokenizer(), {"add": ("sum",)}).words["add"]}


def test_a_word_leaves_the_set_where_it_is_a_token_of_a_longer_word():
    tokenizer = tiny.tokenizer()
    audited = audit(tokenizer, {"add": ("add", "sum"), "subtract": ("minus",)})
    text = "What is summary"
    ids = encoding.encode_prompt(tokenizer, text)
    assert set(ids) & set(audited.words["add"]), "no token of the vocabulary in it: this tests nothing"
    left = audited.for_style("own", [text], [ids])
    assert not set(ids) & set(left["add"])
    assert left["subtract"] == audited.words["subtract"]


def test_the_table_prints_every_word_with_its_ids():
    audited = audit(tiny.tokenizer(), VOCABULARY)
    lines = str(audited).splitlines()
    assert len(lines) == 1 + sum(map(len, VOCABULARY.values()))
    assert lines[0].split() == ["class", "family", "word", "ids", "left", "out"]
    for e in audited.table:
        assert any(e.word in line and all(f"={i}" in line for i in e.ids) for line in lines)


WORD = st.one_of(
    st.sampled_from([w for ws in VOCABULARY.values() for w in ws]), st.text(min_size=1, max_size=8)
)


@given(st.dictionaries(st.sampled_from(("add", "subtract", "joy")), st.lists(WORD, max_size=4), min_size=1))
@settings(max_examples=60, deadline=None)
def test_any_vocabulary_is_audited_or_refused(written):
    try:
        audited = audit(kind("smollm: single digits, no BOS"), written)
    except UsageError:
        return
    assert set(audited.words) == set(written)
    assert all(audited.words.values())
    assert str(audited)
