"""What cannot be meant, at the doors: one clear line, a non-zero exit, and nothing is started."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import tiny
from configs import BASE, parameters, refused
from wrong_configs import PROMPTS, UNREADABLE, WRONG

from emergence.cli import main as cli
from emergence.store.store import Store

PREDICTIONS = """
from emergence import Prediction
VERSION = 1
PREDICTIONS = (
    Prediction("E", "it emerges", "sft", "words", "intermediate", "symbolic", "classifier"),
)
"""
CONFIGS = {name: text for table in (UNREADABLE, WRONG) for name, (text, _) in table.items()} | {
    f"prompt: {name}": f"{BASE}  test_prompts:\n    add: [{text}]\n" for name, (text, _) in PROMPTS.items()
}


@pytest.fixture
def said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[Any, list[str]]]:
    """Run a verb beside a sound experiment: exit code, lines on stderr. Nothing may start pytest."""
    folder = tmp_path / "hypotheses" / "tiny"
    folder.mkdir(parents=True)
    tiny.write_config(folder, tmp_path / "model")
    (folder / "predictions.py").write_text(PREDICTIONS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pytest, "main", lambda *_, **__: pytest.fail("something was started"))

    def run(*arguments: str) -> tuple[Any, list[str]]:
        with pytest.raises(SystemExit) as caught:
            cli.main(list(arguments))
        return caught.value.code, capsys.readouterr().err.splitlines()

    return run


@pytest.mark.parametrize("row", CONFIGS)
def test_a_config_that_cannot_be_meant_starts_nothing(row: str, said: Any, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(CONFIGS[row], encoding="utf-8", errors="surrogatepass")
    code, lines = said("run", "tiny", "-c", "other.yaml")
    assert code == 2
    assert 1 <= len(lines) <= 3
    assert lines[0].startswith("emergence: other.yaml")
    assert all(line.isprintable() for line in lines)
    assert not (tmp_path / ".emergence").exists()


def edit(path: Path, **settings: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def weights(folder: Path, change: Callable[[dict[str, mx.array]], object]) -> None:
    arrays: Any = mx.load(str(folder / "model.safetensors"))
    change(arrays)
    mx.eval(arrays)
    mx.save_safetensors(str(folder / "model.safetensors"), arrays, {"format": "mlx"})


def cut(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])


def flipped(folder: Path) -> None:
    whole = bytearray((folder / "model.safetensors").read_bytes())
    whole[9] ^= 0x80
    (folder / "model.safetensors").write_bytes(whole)


NORM = "model.norm.weight"
MODELS: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "truncated": (cut, 3, "is truncated or padded"),
    "bit-flipped": (flipped, 3, "is not a readable safetensors file"),
    "of no model's type": (lambda f: edit(f / "config.json", model_type="cache"), 2, "it has no such type"),
    "of unknown type": (lambda f: edit(f / "config.json", model_type="unheard_of"), 2, "it has no such type"),
    "with NaN weights": (
        lambda f: weights(f, lambda w: w.update({NORM: w[NORM] * float("nan")})), 3, "holds NaN or infinity",
    ),
    "of wrong shapes": (
        lambda f: weights(f, lambda w: w.update({NORM: mx.ones((7,))})), 3, "do not fit together",
    ),
    "without a tensor": (lambda f: weights(f, lambda w: w.pop(NORM)), 3, "do not fit together"),
    "without a shard": (
        lambda f: (f / "model.safetensors").rename(f / "model-00001-of-00002.safetensors"), 3,
        "lacks model-00002-of-00002.safetensors",
    ),
    "without weights": (lambda f: (f / "model.safetensors").unlink(), 3, "holds no model"),
    "without a tokenizer": (lambda f: (f / "tokenizer.json").unlink(), 3, "holds no tokenizer"),
    "with code": (lambda f: edit(f / "config.json", auto_map={"AutoModel": "evil.Model"}), 2, "its own code"),
    "of pickles": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), 2, "weights as pickles",
    ),
    "of a broken config": (lambda f: (f / "config.json").write_text("{"), 3, "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("row", MODELS)
def test_a_model_that_cannot_be_used_is_one_line(row: str, said: Any, tmp_path: Path) -> None:
    folder = tiny.write_model(tmp_path / "model", n_layers=1, hidden=16)
    change, code, text = MODELS[row]
    change(folder)
    ended, lines = said("models", "--check", str(folder))
    assert ended == code
    assert len(lines) == 1
    assert text in lines[0]


@pytest.mark.parametrize(
    "name", ["", "nothing", "no such/model name", "../nowhere", "/nowhere/at all", "a\x1b[31m"]
)
def test_a_model_that_is_missing_starts_nothing(name: str, said: Any) -> None:
    for arguments in (
        ("run", "tiny", "--model", name),
        ("models", "--check", name),
        ("show", "7 * 8 =", "--model", name),
    ):
        code, lines = said(*arguments)
        assert code == 2
        assert len(lines) == 1
        assert lines[0].isprintable()


def loop(path: Path) -> None:
    path.symlink_to(path)


def file(path: Path) -> None:
    path.write_text("")


@pytest.mark.parametrize("make", [loop, file])
@pytest.mark.parametrize("verb", [("run", "tiny"), ("store", "list"), ("store", "verify")], ids=" ".join)
def test_a_store_that_cannot_be_one_is_one_line(
    verb: tuple[str, ...], make: Any, said: Any, tmp_path: Path
) -> None:
    tiny.write_model(tmp_path / "model", n_layers=1, hidden=16)
    make(tmp_path / "st")
    code, lines = said(*verb, "--store", "st")
    assert code == 2, lines
    assert len(lines) == 1
    assert "cannot be a store" in lines[0]


@pytest.mark.parametrize("name", ["a b", "ключ", "-x", "st\u202eore", "🙂"])
def test_a_store_of_an_odd_name_is_a_store(name: str, said: Any, tmp_path: Path) -> None:
    assert said("store", "list", f"--store={name}") == (0, [])
    Store(tmp_path / name).get_or_build("runs", {"n": 1}, lambda folder: None)
    assert said("store", "verify", f"--store={name}") == (0, [])


def test_operands_that_leave_no_problem_are_told() -> None:
    (line,) = refused(parameters("operands: {multiply: [0, 0]}"))
    assert "parameters.operands.multiply: [0, 0] holds 1 distinct problems, but" in line
