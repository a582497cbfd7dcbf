"""Tokenizers: what ends a text is found, and an id without a row is refused or told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import tiny
from model_folders import edit, refused, tensors, write
from tokenizers import AddedToken, Tokenizer

from emergence.errors import BrokenExperiment, NotMeasurable
from emergence.models import loading as models
from emergence.models import tokenizer as words


def settings(folder: Path, **changes: Any) -> None:
    """Replace tokenizer_config.json; a field that is None is left out."""
    content = {"tokenizer_class": "PreTrainedTokenizerFast", **changes}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({k: v for k, v in content.items() if v is not None})
    )


def without(folder: Path, name: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    config.pop(name, None)
    (folder / "config.json").write_text(json.dumps(config))


def add(folder: Path, *tokens: str) -> int:
    """Add special tokens to tokenizer.json, beyond the model's rows; the first one's id."""
    tok = Tokenizer.from_file(str(folder / "tokenizer.json"))
    first = tok.get_vocab_size()
    tok.add_special_tokens([AddedToken(token, special=True) for token in tokens])
    tok.save(str(folder / "tokenizer.json"))
    return first


# What ends a text


@pytest.mark.parametrize("ids", [0, [0], [0, 5]], ids=str)
@pytest.mark.parametrize("place", ["config.json", "generation_config.json"])
def test_an_end_of_text_that_only_a_configuration_names_is_found(saved: Path, place: str, ids: Any) -> None:
    settings(saved)
    without(saved, "eos_token_id")
    if place == "config.json":
        edit(saved / place, eos_token_id=ids)
    else:
        (saved / place).write_text(json.dumps({"eos_token_id": ids}))
    _, tokenizer = models.load(saved)
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|endoftext|>", 0)
    assert tokenizer.eos_token_ids == set(ids if isinstance(ids, list) else [ids])


def test_without_any_end_of_text_there_is_none(saved: Path) -> None:
    settings(saved)
    without(saved, "eos_token_id")
    assert models.load(saved)[1].eos_token_id is None


def test_the_tokenizer_s_own_end_of_text_stays(saved: Path) -> None:
    edit(saved / "config.json", eos_token_id=5)
    _, tokenizer = models.load(saved)
    assert tokenizer.eos_token == "<|endoftext|>"
    assert tokenizer.eos_token_ids == {0, 5}


# Ids without a row


def test_an_end_of_text_without_a_row_is_refused(saved: Path) -> None:
    first = add(saved, "<|im_end|>")
    settings(saved, eos_token="<|im_end|>")
    said = refused(saved, BrokenExperiment)
    assert f"eos_token <|im_end|> has id {first}" in said
    assert f"rows for {first} ids" in said


@pytest.mark.parametrize("kind", ["eos_token", "bos_token"])
def test_a_token_that_the_vocabulary_does_not_know_is_refused(saved: Path, kind: str) -> None:
    """transformers adds it as one more id, which the model has no row for."""
    settings(saved, **{"eos_token": "<|endoftext|>", kind: "<|unheard-of|>"})
    assert f"{kind} <|unheard-of|> has id" in refused(saved, BrokenExperiment)


def test_other_tokens_without_a_row_are_told_and_not_refused(saved: Path) -> None:
    first = add(saved, "<|im_start|>", "<|im_end|>")
    model, tokenizer = models.load(saved)
    (said,) = models.notices(model, tokenizer)
    assert "2 tokens that the model has no row for (<|im_start|>, <|im_end|>" in said
    assert f"from id {first} on" in said


def test_a_fitting_tokenizer_gives_no_notice(saved: Path) -> None:
    model, tokenizer = models.load(saved)
    assert models.notices(model, tokenizer) == []


def test_more_rows_than_tokens_are_no_matter(saved: Path) -> None:
    weights = tensors(saved)
    table = weights["model.embed_tokens.weight"]
    write(saved, {**weights, "model.embed_tokens.weight": mx.concatenate([table, table[:7]])})
    edit(saved / "config.json", vocab_size=len(table) + 7)
    model, tokenizer = models.load(saved)
    assert models.notices(model, tokenizer) == []


# BOS


@pytest.mark.parametrize(
    ("asked", "bos", "told"),
    [(True, "<|endoftext|>", True), (False, "<|endoftext|>", False), (True, None, False)],
)
def test_a_bos_that_is_asked_for_and_not_put_is_told(
    saved: Path, asked: bool, bos: str | None, told: bool
) -> None:
    settings(saved, eos_token="<|endoftext|>", bos_token=bos, add_bos_token=asked)
    tokenizer = models.load(saved)[1]
    said = words.notices(tokenizer, 10**6)
    assert any("add_bos_token" in line for line in said) == told


def test_a_bos_that_is_put_is_not_told(saved: Path) -> None:
    settings(saved, eos_token="<|endoftext|>", bos_token="<|endoftext|>", add_bos_token=True)
    content = json.loads((saved / "tokenizer.json").read_text())
    single = [
        {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ]
    special = {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}}
    content["post_processor"] = {
        "type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special,
    }  # fmt: skip
    (saved / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = models.load(saved)[1]
    assert tokenizer.encode("7")[0] == 0
    assert words.notices(tokenizer, 10**6) == []


# Other forms


@pytest.mark.parametrize(
    ("name", "kind"),
    [("tiktoken.model", "tiktoken"), ("qwen.tiktoken", "tiktoken"), ("tekken.json", "tekken")],
)
def test_a_tokenizer_of_another_form_alone_is_one_clear_line(saved: Path, name: str, kind: str) -> None:
    (saved / name).write_text("{}")
    assert models.load(saved)  # beside a tokenizer.json it is no matter
    (saved / "tokenizer.json").unlink()
    said = refused(saved, NotMeasurable)
    assert f"as {kind} alone ({name})" in said
    assert "use a conversion" in said


def test_no_tokenizer_at_all_is_told(tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    assert "holds no tokenizer" in refused(folder, BrokenExperiment)
