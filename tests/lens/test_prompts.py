"""Prompts, token sets, layers and positions as people write them: one meaning at every door, or one line."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jaxtyping
import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import tiny
from lens_case import PROMPTS
from tokenizers import processors
from tokenizers_small import FAMILIES
from transformers import PreTrainedTokenizerFast

from emergence.errors import UsageError
from emergence.lens.logit_lens import LogitLens
from emergence.tasks import encoding

TEXTS = ["7 * 8 = ", "What is 12 plus 3? "]
WITH_BOS = ["llama-3", "llama-2", "gemma-3"]
PADDED = 40
"""Rows of the head that no token names; their logits are made the largest."""


@cache
def tokenizer(family: str, ends: str = "") -> PreTrainedTokenizerFast:
    """A family's tokenizer; with `ends`, one that also puts this token after a text."""
    built = FAMILIES[family].build()
    special = {k: v for k, v in FAMILIES[family].settings.items() if str(k).endswith("_token") and v}
    if ends:
        bos = FAMILIES[family].bos
        ids = [(t, built.token_to_id(t)) for t in (bos, ends)]
        built.post_processor = processors.TemplateProcessing(single=f"{bos} $A {ends}", special_tokens=ids)
    names = {k: v for k, v in special.items() if isinstance(v, str)}
    return PreTrainedTokenizerFast(tokenizer_object=built, **names)


@cache
def padded_model(family: str) -> nn.Module:
    """An untied model with more rows than the tokenizer names; those have the largest logits everywhere."""
    named = max(tokenizer(family).get_vocab().values()) + 1
    model = tiny.model(vocab=named + PADDED, tied=False)
    model.lm_head.bias = mx.where(mx.arange(named + PADDED) < named, 0.0, 50.0)
    return model


@cache
def lens_of(family: str) -> LogitLens:
    return LogitLens(padded_model(family), tokenizer(family))


def by_hand(model: nn.Module, ids: tuple[int, ...], named: int) -> np.ndarray:
    """The model's own next-token probabilities over the named rows, float64."""
    z = np.array(model(mx.array([ids]))[0, -1], np.float64)[:named]
    p = np.exp(z - z.max())
    return p / p.sum()


@pytest.mark.parametrize("family", FAMILIES)
def test_text_is_fed_as_the_suite_encodes_it_and_is_kept(family: str) -> None:
    lens, tok = lens_of(family), tokenizer(family)
    ids = tuple(encoding.encode_prompt(tok, text) for text in TEXTS)
    reading = lens.read(TEXTS)
    assert reading.tokens == ids
    assert reading.texts == tuple(TEXTS)
    assert lens.read(ids).texts == (None, None)
    shown = repr(lens.read(TEXTS, {"eight": [5, 6]}))
    assert f"'7 * 8 = ' is {' '.join(map(str, ids[0]))}\n" in shown
    assert "token sets eight: 5 6" in shown
    assert (ids[0][0] == tok.bos_token_id) == (family in WITH_BOS)
    np.testing.assert_array_equal(lens.logits(TEXTS), lens.logits(ids))
    np.testing.assert_array_equal(lens.logits(TEXTS[0]), lens.logits(ids[:1]))
    np.testing.assert_array_equal(lens.streams(TEXTS), lens.streams(ids))
    assert lens.verify(TEXTS).last_layer < 1e-5
    assert lens.show(TEXTS[0]).ids == ids[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_word_is_its_own_token_and_its_mass_that_of_the_model(family: str) -> None:
    lens, tok = lens_of(family), tokenizer(family)
    sets = {"eight": "8", "words": [" plus", " times"], "ids": [5], "both": ["8", 5]}
    reading = lens.read(TEXTS[0], sets, token_ids="8")
    names = tok.backend_tokenizer
    eight = names.token_to_id("8")
    space = "▁" if names.token_to_id("▁") else "Ġ"
    plus, times = names.token_to_id(f"{space}plus"), names.token_to_id(f"{space}times")
    assert reading.sets == {"eight": (eight,), "words": (plus, times), "ids": (5,), "both": (eight, 5)}
    assert reading.token_ids == (eight,)
    p = by_hand(lens.model, reading.tokens[0], lens.vocab_size)
    np.testing.assert_allclose(np.exp(reading.log_mass[-1, 0, :2]), [p[eight], p[plus] + p[times]], rtol=1e-4)
    if family in WITH_BOS:
        assert tok.bos_token_id in tok.encode("8"), "the id that must not count"


def test_a_word_with_its_space_is_another_token() -> None:
    lens, names = lens_of("llama-3"), tokenizer("llama-3").backend_tokenizer
    sets = lens.read([1, 2], {"bare": "plus", "spaced": " plus"}).sets
    assert sets == {"bare": (names.token_to_id("plus"),), "spaced": (names.token_to_id("Ġplus"),)}


def test_nothing_is_read_after_an_end_of_text_that_the_tokenizer_adds() -> None:
    tok = tokenizer("llama-2", ends="</s>")
    lens = LogitLens(padded_model("llama-2"), tok)
    assert tok.encode(TEXTS[0])[-1] == tok.eos_token_id
    assert lens.read(TEXTS[0], {"eight": "8"}).tokens == (tuple(tok.encode(TEXTS[0])[:-1]),)
    assert lens.show(TEXTS[0]).ids == tuple(tok.encode(TEXTS[0])[:-1])


@pytest.mark.parametrize("family", WITH_BOS)
def test_a_text_that_brings_its_bos_gets_no_second_one(family: str) -> None:
    lens, tok = lens_of(family), tokenizer(family)
    tok.chat_template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    text = tok.apply_chat_template([{"role": "user", "content": "plus 8"}], tokenize=False)
    assert text.startswith(tok.bos_token)
    for ids in (lens.read(text).tokens[0], lens.show(text).ids, lens.show("plus 8", chat=True).ids):
        assert ids.count(tok.bos_token_id) == 1
        assert ids == lens.read(text).tokens[0]


def test_rows_that_no_token_names_are_in_no_distribution_at_any_door() -> None:
    model, tok = padded_model("smollm2"), tokenizer("smollm2")
    lens, bare = lens_of("smollm2"), LogitLens(model)
    named = lens.head_size - PADDED
    assert (lens.vocab_size, bare.vocab_size) == (named, named + PADDED)
    reading = lens.read(TEXTS, {"all": range(named)})
    np.testing.assert_allclose(reading.log_mass, 0, atol=1e-5)
    assert reading.top_ids.max() < named
    assert reading.left_out == PADDED
    assert bare.read(reading.tokens).top_ids.min() >= named
    shown = bare.show(TEXTS[0], tok)
    p = by_hand(model, shown.ids, named)
    assert shown.probabilities[-1, -1, 0] == pytest.approx(p.max(), rel=1e-4)
    np.testing.assert_array_equal(shown.probabilities, lens.show(TEXTS[0]).probabilities)
    assert bare.tokenizer is None, "a lens is not changed by what it shows"
    assert bare.vocab_size == named + PADDED


def test_the_lens_is_proven_once_and_a_tokenizer_may_name_more_than_the_head_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proven: list[int] = []
    real = LogitLens.verify
    monkeypatch.setattr(LogitLens, "verify", lambda self, *a: proven.append(1) or real(self, *a))
    small = tiny.model(vocab=300)
    lens = LogitLens(small, tokenizer("smollm2"))
    lens.show([5, 6])
    assert (len(proven), lens.vocab_size) == (1, 300)
    with pytest.raises(UsageError, match=r"token ids \[.*the embedding has 300 rows"):
        lens.read("plus times multiply")


SAME: dict[str, Any] = {
    "tuples": tuple(map(tuple, PROMPTS)),
    "NumPy integers": [[np.int64(i) for i in ids] for ids in PROMPTS],
    "arrays": [np.array(ids, np.int32) for ids in PROMPTS],
    "MLX arrays": [mx.array(ids) for ids in PROMPTS],
}


@pytest.mark.parametrize("given", SAME.values(), ids=SAME)
def test_ids_may_come_in_any_sequence(lens: LogitLens, given: Any) -> None:
    reading = lens.read(given)
    assert reading.tokens == tuple(map(tuple, PROMPTS))
    assert {type(i) for ids in reading.tokens for i in ids} == {int}


def test_one_prompt_may_be_a_flat_list_a_range_or_an_array(lens: LogitLens) -> None:
    right = lens.logits([[5, 6, 7]])
    for given in ([5, 6, 7], range(5, 8), np.arange(5, 8), mx.arange(5, 8), [range(5, 8)]):
        np.testing.assert_array_equal(lens.logits(given), right)
    np.testing.assert_array_equal(lens.logits(np.array([[5, 6], [7, 8]])), lens.logits([[5, 6], [7, 8]]))


def test_token_sets_may_be_ranges_sets_arrays_or_one_id(lens: LogitLens) -> None:
    given = {"a": range(3), "b": {7}, "c": np.array([4, 5]), "d": 9, "e": [np.int64(3)]}
    assert lens.read([1], given).sets == {"a": (0, 1, 2), "b": (7,), "c": (4, 5), "d": (9,), "e": (3,)}


@pytest.mark.parametrize("layers", [-1, 4, "L4", np.int64(4), [-1], ["L4"], range(4, 5), np.array([4])])
def test_one_layer_may_be_given_in_any_way(lens: LogitLens, layers: Any) -> None:
    np.testing.assert_array_equal(lens.logits(PROMPTS, layers), lens.logits(PROMPTS)[-1:])
    assert lens.read(PROMPTS, layers=layers).layers == ("L4",)


def test_positions_may_be_numpy_integers_and_arrays(lens: LogitLens) -> None:
    one, some = np.int64(-1), np.array([0, -1])
    np.testing.assert_array_equal(lens.read(PROMPTS, positions=one).kl, lens.read(PROMPTS, positions=-1).kl)
    np.testing.assert_array_equal(
        lens.read(PROMPTS, positions=some).kl, lens.read(PROMPTS, positions=[0, -1]).kl
    )


NO_TOKENIZER = r"is text, and this lens has no tokenizer; make it LogitLens\(model, tokenizer\)"
BAD: dict[str, tuple[Callable[[LogitLens], Any], str]] = {
    "id out of range": (lambda ln: ln.read([[1, 10_000]]), r"10000.*outside the vocabulary"),
    "negative id": (lambda ln: ln.read([[1, -1]]), r"-1.*outside the vocabulary"),
    "empty prompt": (lambda ln: ln.read([[1], []]), r"without tokens: \[1\]"),
    "no prompts": (lambda ln: ln.logits([]), "without tokens"),
    "text": (lambda ln: ln.logits("778"), f"prompt 0: '778' {NO_TOKENIZER}"),
    "texts": (lambda ln: ln.logits(["56"]), f"prompt 0: '56' {NO_TOKENIZER}"),
    "text to prove on": (lambda ln: ln.verify(["56"]), NO_TOKENIZER),
    "text to fit": (lambda ln: ln.streams("56"), NO_TOKENIZER),
    "text in a set": (lambda ln: ln.read([[1]], {"a": "56"}), f"token set 'a': '56' {NO_TOKENIZER}"),
    "texts in a set": (lambda ln: ln.read([[1]], {"a": ["5", "6"]}), NO_TOKENIZER),
    "text for ids": (lambda ln: ln.read([[1]], token_ids="56"), f"'token_ids': '56' {NO_TOKENIZER}"),
    "nothing": (lambda ln: ln.logits(None), "prompt 0: None: give a text, or a list of token ids"),
    "one number": (lambda ln: ln.logits(5), "prompt 0: 5: give a text, or a list"),
    "a float": (lambda ln: ln.logits(2.5), r"2\.5: give a text"),
    "floats": (lambda ln: ln.logits([[1, 2.0]]), r"prompt 0: 2\.0 is no token id; ids are whole numbers"),
    "an array of floats": (lambda ln: ln.logits(np.ones((1, 2))), r"prompt 0: 1\.0 is no token id"),
    "truths": (lambda ln: ln.logits([[True, False]]), "prompt 0: True is no token id"),
    "an array of truths": (lambda ln: ln.logits(np.array([[True]])), "True is no token id"),
    "nested too deep": (lambda ln: ln.logits([[[1, 2]]]), r"prompt 0: \[1, 2\] is no token id"),
    "ids and lists": (lambda ln: ln.logits([1, [2]]), r"prompt 0: \[2\] is no token id"),
    "a set of ids": (lambda ln: ln.logits({1, 2}), r"prompt 0: \{1, 2\}: give a text, or a list"),
    "a dict": (lambda ln: ln.logits({"a": [1]}), "give a text, or a list"),
    "bytes": (lambda ln: ln.logits(b"56"), "give a text, or a list"),
    "sets in a list": (lambda ln: ln.read([[1]], [[1]]), r"token_sets=\[\[1\]\]: give a dict"),
    "a set of nothing": (lambda ln: ln.read([[1]], {"a": None}), "'a': None: give words or ids"),
    "a set of floats": (lambda ln: ln.read([[1]], {"a": [1.0]}), r"'a': 1\.0 is no token id"),
    "a set of sets": (lambda ln: ln.read([[1]], {"a": [[1]]}), r"'a': \[1\] is no token id"),
    "empty set": (lambda ln: ln.read([[1]], {"add": []}), "without ids: add"),
    "duplicate in a set": (lambda ln: ln.read([[1]], {"add": [3, 3]}), "'add'.*twice"),
    "set out of range": (lambda ln: ln.read([[1]], {"add": [9999]}), "'add'.*outside"),
    "layer out of range": (lambda ln: ln.read([[1]], layers=[5]), "layer 5.*0 to 4"),
    "one layer out of range": (lambda ln: ln.read([[1]], layers=-6), "layer -6.*0 to 4"),
    "layer unknown": (lambda ln: ln.read([[1]], layers=["mlp3"]), "mlp3"),
    "layer of a float": (lambda ln: ln.read([[1]], layers=[1.0]), r"layer 1\.0"),
    "layer of a truth": (lambda ln: ln.read([[1]], layers=True), "layer True"),
    "layer twice": (lambda ln: ln.read([[1]], layers=[1, 1]), "once"),
    "layer by two names": (lambda ln: ln.read([[1]], layers=[-1, "L4"]), "once"),
    "no layer": (lambda ln: ln.read([[1]], layers=[]), "at least one"),
    "position out of range": (lambda ln: ln.read([[1, 2]], positions=2), "prompt 0 has 2 tokens"),
    "position unknown": (lambda ln: ln.read([[1, 2]], positions="first"), "first"),
    "no position": (lambda ln: ln.read([[1, 2]], positions=None), "positions=None: give 'last'"),
    "position of a float": (lambda ln: ln.read([[1, 2]], positions=[0.0]), r"positions=\[0\.0\]: give"),
    "position of a truth": (lambda ln: ln.read([[1, 2]], positions=True), "positions=True: give"),
    "top_k too large": (lambda ln: ln.read([[1]], top_k=10_000), "top_k=10000"),
    "top_k of a float": (lambda ln: ln.read([[1]], top_k=2.5), r"top_k=2\.5"),
    "top_k of a truth": (lambda ln: ln.read([[1]], top_k=True), "top_k=True"),
    "show without a tokenizer": (lambda ln: ln.show([1]), "show needs a tokenizer"),
    "vocabulary larger than the head": (lambda ln: LogitLens(ln.model, vocab_size=10_000), "10000.*rows"),
    "a number for a tokenizer": (lambda ln: LogitLens(ln.model, 300), "tokenizer=300.*vocab_size"),
    "one token to prove on": (lambda ln: ln.verify([[1]]), "at least two tokens"),
}


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As users have it: annotations are checked in these tests only, and would answer first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_clear_line(lens: LogitLens, call: Callable[[LogitLens], Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        call(lens)
    assert "\n" not in str(error.value)


WITH_TOKENIZER: dict[str, tuple[Callable[[LogitLens], Any], str]] = {
    "a word of several tokens": (
        lambda ln: ln.read("8", {"a": "garden river"}),
        r"token set 'a': 'garden river' is not one token here \(.*\+.*\); name another word, or give ids",
    ),
    "an empty word": (lambda ln: ln.read("8", {"a": ""}), "'' is not one token"),
    "a word twice": (lambda ln: ln.read("8", {"a": ["8", "8"]}), "'a'.*twice"),
    "an empty text": (lambda ln: ln.read(["8", ""]), r"without tokens: \[1\]"),
    "text among ids": (lambda ln: ln.read([["8", 1]]), "prompt 0: '8' is no token id"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("call", "message"), WITH_TOKENIZER.values(), ids=WITH_TOKENIZER)
def test_bad_text_is_one_clear_line(call: Callable[[LogitLens], Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        call(lens_of("smollm2"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("embedded", "head"), [(300, 366), (366, 300)])
def test_ids_are_held_to_the_rows_of_the_embedding_not_of_the_head(embedded: int, head: int) -> None:
    model = tiny.model(vocab=366, tied=False)
    model.model.embed_tokens.weight = model.model.embed_tokens.weight[:embedded]
    model.lm_head.weight = model.lm_head.weight[:head]
    lens = LogitLens(model)
    assert (lens.head_size, lens.stream.n_ids) == (head, embedded)
    own = np.array(model(mx.array([[1, embedded - 1]]))[0, -1])
    np.testing.assert_allclose(lens.logits([[1, embedded - 1]])[-1, 0], own, atol=1e-5)
    assert lens.read([[1, embedded - 1]]).top_ids.max() < head
    for call in (lens.read, lens.logits, lens.streams, lens.verify):
        with pytest.raises(UsageError, match=f"{embedded}.*the embedding has {embedded} rows"):
            call([[1, embedded]])
