"""Prompts and answers as ids, and the boundary between them, in every kind of tokenizer."""

import itertools
import json
import re
from contextlib import nullcontext

import pytest
import tiny
import tokenizers_small
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.tokenizer_utils import load as load_tokenizer
from tokenizer_kinds import JOINED, KINDS, VOCABULARY, audit, kind, words
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from emergence.errors import NotMeasurable
from emergence.models import loading as models_loading
from emergence.tasks import encoding
from emergence.tasks.arithmetic import STYLES, Problem
from emergence.tasks.examples import Example
from emergence.tasks.random_words import random_words


@pytest.fixture(params=KINDS)
def family(request):
    return request.param


@pytest.fixture
def tokenizer(family):
    return kind(family)


def joined(family: str, text: str) -> bool:
    """Whether the space before an answer is a part of it. One kind has a piece `= `, but none `: `."""
    return text[-1] == " " and (family in JOINED or ("merging" in family and text[-2] not in "=?"))


def test_prompt_and_answer_read_back_as_what_was_written_for_every_family(tokenizer):
    asked = (("multiply", 37, 48), ("add", 2, 3), ("subtract", 100, 43), ("divide", 96, 8))
    for problem in itertools.starmap(Problem, asked):
        for style in STYLES:
            text, answer = problem.prompt(style), problem.answer
            ids = encoding.encode_prompt(tokenizer, text) + encoding.encode_answer(tokenizer, text, answer)
            # One kind puts a space before any text, and leaves it there when it decodes.
            assert tokenizer.decode(ids, skip_special_tokens=True).removeprefix(" ") == text + answer


@given(family=st.sampled_from(list(KINDS)), a=st.integers(0, 999), b=st.integers(0, 999), data=st.data())
@settings(max_examples=80, deadline=None)
def test_the_answers_first_token_begins_the_answer(family, a, b, data):
    tokenizer = kind(family)
    problem = Problem(data.draw(st.sampled_from(("add", "multiply"))), a, b)
    text = problem.prompt(data.draw(st.sampled_from(STYLES)))
    answer = encoding.encode_answer(tokenizer, text, problem.answer)
    before = tokenizer.decode(encoding.encode_prompt(tokenizer, text), skip_special_tokens=True)
    after = tokenizer.decode(encoding.encode_prompt(tokenizer, text) + answer[:1], skip_special_tokens=True)
    first = after.removeprefix(before)
    assert first.strip()
    assert problem.answer.startswith(first.removeprefix(" ") if joined(family, text) else first)


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
    tokenizer = kind(family)
    prompt = Problem("multiply", 37, 48).prompt("symbolic")
    answer = encoding.encode_answer(tokenizer, prompt, "1776")
    assert tokenizer.convert_ids_to_tokens(answer[0]) == first


def test_a_prompt_begins_as_the_tokenizer_has_it_and_never_ends_the_text(family, tokenizer):
    ids = encoding.encode_prompt(tokenizer, "7 * 8 = ")
    own = tokenizer.encode("7 * 8 = ")
    assert ids == tuple(own[: len(ids)])
    assert ids[-1] != tokenizer.eos_token_id
    assert (ids[0] in tokenizer.convert_tokens_to_ids(["<|begin_of_text|>", "<s>", "<bos>"])) == (
        bool(re.search(", BOS|t5", family))
    )


def test_a_text_that_begins_with_the_bos_gets_no_second_one(family, tokenizer):
    ids = encoding.encode_prompt(tokenizer, "7 * 8 = ")
    bos = tokenizer.decode(ids[:1]) if re.search(", BOS|t5", family) else ""
    assert encoding.encode_prompt(tokenizer, f"{bos}7 * 8 = ")[:2].count(ids[0]) == 1


def test_rows_end_with_the_end_of_text_and_hold_every_style(tokenizer):
    problems = tuple(Problem("add", a, 40) for a in range(2, 6))
    got = encoding.rows(tokenizer, problems, STYLES)
    assert [(r.item, r.style) for r in got] == [(p, s) for p in problems for s in STYLES]
    for r in got:
        assert r.answer_ids[-1] == tokenizer.eos_token_id
        assert r.answer_ids[:-1] == encoding.encode_answer(tokenizer, r.item.prompt(r.style), r.item.answer)
        assert r.prompt_ids == encoding.encode_prompt(tokenizer, r.item.prompt(r.style))


def test_the_boundary_report_names_the_styles_whose_space_joins_the_answer():
    problems = [Problem("add", 20, 40), Problem("multiply", 7, 8)]
    assert encoding.boundary_report(kind("smollm: single digits, no BOS"), problems, STYLES) == ()
    assert encoding.boundary_report(kind("llama3: three digits, BOS"), problems, STYLES) == ()
    notes = encoding.boundary_report(kind("gpt2: spaces join digits"), problems, STYLES)
    assert [n.split(":")[0] for n in notes] == [f"style {s}" for s in STYLES if s != "tight"]
    assert "'20 + 40 = ' is read at '20 + 40 =', and the answer is ' 60'" in notes[0]


def test_the_boundary_report_tells_of_spaces_on_the_wrong_side_of_ones_own_boundary():
    spaced = [Example("even", "The number 48 is ", "plus")]
    (note,) = encoding.boundary_report(kind("smollm: single digits, no BOS"), spaced, ("own",))
    assert "1 of 1 prompts are cut otherwise if encoded together with their answer" in note
    assert "such as 'The number 48 is plus'" in note
    number = [Example("even", "Twice 24 is", " 48")]
    (note,) = encoding.boundary_report(kind("smollm: single digits, no BOS"), number, ("own",))
    assert "1 of 1 answers begin with a token that is only space, such as ' 48'" in note
    assert encoding.boundary_report(kind("gpt2: spaces join digits"), number, ("own",)) == ()


def test_a_tokenizer_that_cannot_write_digits_is_not_measurable():
    raw = Tokenizer(models.WordLevel({"<unk>": 0, "=": 1, "+": 2}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")
    with pytest.raises(NotMeasurable, match="'56'"):
        encoding.encode_answer(tokenizer, "7 + 49 = ", "56")
    with pytest.raises(NotMeasurable, match="end of text"):
        encoding.rows(tokenizer, [Problem("add", 1, 2)], ["symbolic"])


def test_a_form_without_spaces_is_not_measurable_where_all_words_have_one_before_them():
    problem = Problem("multiply", 7, 8)
    for style in ("symbolic", "tight"):
        refused = pytest.raises(NotMeasurable, match=r"cannot write '56' after '7\*8='")
        with refused if style == "tight" else nullcontext():
            assert encoding.rows(words(), [problem], [style])


def test_a_number_that_is_written_with_its_space_is_read_so(family, tokenizer):
    """GPT-2 writes ` 56`: the prompt ends before the space, and the answer begins with it."""
    prompt, answer = "7 * 8 = ", "56"
    ids = encoding.encode_answer(tokenizer, prompt, answer)
    head = tokenizer.decode(encoding.encode_prompt(tokenizer, prompt), skip_special_tokens=True)
    assert head.endswith("=" if family in JOINED else "= ")
    together = tokenizer.encode(prompt + answer, add_special_tokens=False)
    assert together == [*tokenizer.encode(head, add_special_tokens=False), *ids] or "merging" in family


@given(family=st.sampled_from(list(KINDS)), a=st.integers(1, 99), b=st.integers(1, 99))
@settings(max_examples=60, deadline=None)
def test_where_a_prompt_ends_tells_nothing_of_its_answer(family, a, b):
    """Prompts of one form end in the same token, whatever the numbers: all are cut, or none is."""
    ends = {encoding.encode_prompt(kind(family), f"{n} * {m} = ")[-1] for n, m in ((a, b), (7, 8), (90, 9))}
    assert len(ends) == 1


def test_a_tokenizer_of_whole_words_answers_with_the_next_word():
    ids = encoding.encode_answer(words(), "7 * 8 = ", "56")
    assert encoding.encode_prompt(words(), "7 * 8 = ") + ids == tuple(words().encode("7 * 8 = 56"))


@pytest.mark.parametrize("text", ["7 * 8 =", "7 * 8 =  ", "7 * 8 =\n", "", " "])
def test_only_one_space_after_a_word_is_ever_left_to_the_answer(text, tokenizer):
    assert encoding.before_space(tokenizer, text) == text


@pytest.mark.parametrize("answer", [" even", "even", " 56", " 1", "."])
def test_answers_of_ones_own_read_back_whatever_they_begin_with(answer):
    tokenizer = kind("gpt2: a space before any text")
    for prompt in ("The number 48 is", "Is 48 even?", "It is:"):
        ids = encoding.encode_prompt(tokenizer, prompt) + encoding.encode_answer(tokenizer, prompt, answer)
        # The tokenizer puts one space before the whole text.
        assert tokenizer.decode(ids).removeprefix(" ") == prompt + answer


def test_a_tokenizer_that_cleans_up_spaces_can_write_a_full_stop_after_one():
    tidy = PreTrainedTokenizerFast(tokenizer_object=tiny.tokenizer(), clean_up_tokenization_spaces=True)
    ids = encoding.encode_answer(tidy, "It is", " .")
    assert encoding.text_of(tidy, encoding.encode_prompt(tidy, "It is") + ids) == "It is ."


def test_a_number_that_alone_begins_with_a_space_can_follow_a_space():
    """Only `56` is joined with its space, and a space is put before any text."""
    pieces = [*pre_tokenizers.ByteLevel.alphabet(), "56", "Ġ56"]
    raw = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, [("5", "6"), ("Ġ", "56")]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    raw.decoder = decoders.ByteLevel()
    assert raw.encode("56").tokens == ["Ġ56"]
    assert encoding.before_space(raw, "7 * 8 = ") == "7 * 8 = "
    assert encoding.encode_answer(raw, "7 * 8 = ", "56") == (raw.token_to_id("56"),)


def test_what_a_tokenizer_can_write_only_with_a_space_is_told_truly():
    """`▁even` is the only piece: it can follow `is`, but not an opening bracket."""
    raw = Tokenizer(models.WordLevel({"<unk>": 0, "▁even": 1, "▁is": 2, "▁(": 3}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")
    assert encoding.encode_answer(tokenizer, "is", " even") == (1,)
    with pytest.raises(NotMeasurable, match=r"cannot write 'even' after 'is \(' \(alone, it is 'even'\)"):
        encoding.encode_answer(tokenizer, "is (", "even")


def test_prompts_of_a_tokenizer_that_ends_every_text_do_not_end(family, tokenizer):
    ends = tokenizer.encode("7 * 8 = ")[-1] == tokenizer.eos_token_id
    assert ends == ("EOS" in family)
    assert tokenizer.eos_token_id not in encoding.encode_prompt(tokenizer, "7 * 8 = ")
    assert tokenizer.eos_token_id not in encoding.encode_answer(tokenizer, "7 * 8 = ", "56")


def test_the_end_of_text_may_be_named_by_the_models_own_files(tmp_path):
    """A tokenizer without eos_token: config.json and generation_config.json name the ids, mlx-lm has them."""
    folder = tiny.write_model(tmp_path, n_layers=1, hidden=16)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    config = json.loads((folder / "config.json").read_text())
    for named in (
        {"config.json": 7},
        {"config.json": [9, 7]},
        {"config.json": 3, "generation_config.json": [9, 7]},
    ):
        for name in ("config.json", "generation_config.json"):
            extra = {"eos_token_id": named[name]} if name in named else {}
            base = {k: v for k, v in config.items() if k != "eos_token_id"} if name == "config.json" else {}
            (folder / name).write_text(json.dumps(base | extra))
        tokenizer = models_loading.load(folder)[1]
        assert encoding.end_of_text(tokenizer) == 7


def test_a_tokenizer_whose_model_names_no_end_either_is_not_measurable():
    tokenizer = TokenizerWrapper(PreTrainedTokenizerFast(tokenizer_object=tiny.tokenizer()))
    with pytest.raises(NotMeasurable, match=r"eos_token_id in config\.json"):
        encoding.rows(tokenizer, [Problem("add", 1, 2)], ["symbolic"])


@pytest.mark.parametrize("family", ["llama-3", "smollm2"])
@pytest.mark.parametrize("asked", [True, False, None])
def test_a_beginning_of_text_that_is_asked_for_and_not_put_is_told(tmp_path, family, asked):
    """As DeepSeek-V3: its config says add_bos_token, the tokenizer that transformers makes puts none."""
    tokenizers_small.write(tmp_path, family)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings |= {"bos_token": "<|begin_of_text|>" if family == "llama-3" else "<|im_start|>"}
    settings |= {} if asked is None else {"add_bos_token": asked}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = load_tokenizer(tmp_path)
    notes = encoding.boundary_report(tokenizer, [Problem("add", 1, 2)], ["symbolic"])
    missing = bool(asked) and tokenizer.bos_token_id not in encoding.encode_prompt(tokenizer, "1 + 2 = ")
    assert [("add_bos_token" in note) for note in notes] == [True] * missing
    assert missing == (family == "smollm2" and asked is True)


def test_mlx_lms_wrapper_and_the_raw_tokenizer_give_the_same_ids():
    inner = kind("smollm: single digits, no BOS")
    wrapped, raw = TokenizerWrapper(inner), tiny.tokenizer()
    for text in ("7 * 8 = ", "What is 7 times 8? "):
        assert encoding.encode_prompt(wrapped, text) == encoding.encode_prompt(raw, text)
        assert encoding.encode_answer(wrapped, text, "56") == encoding.encode_answer(raw, text, "56")
    assert audit(wrapped, VOCABULARY).words == audit(raw, VOCABULARY).words
    assert encoding.end_of_text(wrapped) == inner.eos_token_id
    vocabulary = audit(wrapped, VOCABULARY)
    assert random_words(wrapped, vocabulary, 2, 0) == random_words(raw, vocabulary, 2, 0)
