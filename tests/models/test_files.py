"""Files of a model folder: nothing in it is trusted, and what is damaged is named."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import tiny
from mlx.utils import tree_flatten
from model_folders import TOKENS, edit, refused, tensors, write

from emergence.errors import BrokenExperiment, EmergenceError, NotMeasurable
from emergence.models import folders
from emergence.models import loading as models


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("key", ["model_file", "auto_map"])
def test_a_folder_that_wants_to_run_its_own_code_is_refused(saved: Path, name: str, key: str) -> None:
    (saved / "evil.py").write_text("raise SystemExit('code of a model saved was run')")
    edit(saved / name, **{key: "evil.py" if key == "model_file" else {"AutoModel": "evil.Model"}})
    assert f"run its own code ({key})" in refused(saved, NotMeasurable)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickles_are_refused_by_name(saved: Path, name: str) -> None:
    (saved / "model.safetensors").rename(saved / name)
    assert name in refused(saved, NotMeasurable)


def test_nothing_is_asked_on_standard_input(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on standard input"))
    edit(saved / "config.json", model_type="no_such_model", auto_map={"AutoConfig": "x.Y"})
    refused(saved, NotMeasurable)


def test_a_truncated_weight_file_is_refused(saved: Path) -> None:
    content = (saved / "model.safetensors").read_bytes()
    for length in (0, 5, 100, len(content) // 2, len(content) - 1):
        (saved / "model.safetensors").write_bytes(content[:length])
        assert "model.safetensors" in refused(saved, BrokenExperiment)


def test_a_weight_file_with_bytes_after_the_end_is_refused(saved: Path) -> None:
    with (saved / "model.safetensors").open("ab") as file:
        file.write(b"x")
    assert "truncated or padded" in refused(saved, BrokenExperiment)


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{",
        b'{"a": 1}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": ["0", "4"]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}',
        b"[" * 50_000,
        b"\xff\xfe",
    ],
)
def test_a_malformed_header_is_one_clear_line(saved: Path, header: bytes) -> None:
    (saved / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 8)
    assert "model.safetensors" in refused(saved, BrokenExperiment)


def test_flipped_header_bits_load_the_same_weights_or_nothing(saved: Path) -> None:
    path = saved / "model.safetensors"
    content, expected = path.read_bytes(), tensors(saved)
    length = struct.unpack("<Q", content[:8])[0]
    rng = np.random.default_rng(0)
    silent = 0
    for position in rng.integers(0, 8 + length, 60):
        flipped = bytearray(content)
        flipped[position] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        try:
            folders.check(saved)
            model, _ = models.read(saved)
        except EmergenceError:
            continue
        found = dict(tree_flatten(model.parameters()))
        silent += not all(mx.array_equal(expected[k], found[k]).item() for k in expected)
    assert silent == 0


@pytest.mark.parametrize(
    "change",
    [
        {"model.layers.0.mlp.up_proj.weight": mx.ones((3, 3))},
        {"model.layers.0.mlp.up_proj.weight": None},
        {"model.layers.9.mlp.up_proj.weight": mx.ones((64, 32))},
    ],
    ids=["wrong shape", "missing", "extra"],
)
def test_weights_that_do_not_fit_the_configuration_are_refused(saved: Path, change: dict) -> None:
    weights = {k: v for k, v in {**tensors(saved), **change}.items() if v is not None}
    write(saved, weights)
    assert "do not fit together" in refused(saved, BrokenExperiment)


@pytest.mark.parametrize(
    "change",
    [
        {"num_attention_heads": 0},
        {"num_attention_heads": "four"},
        {"hidden_size": 33},
        {"num_hidden_layers": -1},
        {"num_key_value_heads": None, "head_dim": 7},
        {"vocab_size": 10**7},
        {"rope_scaling": {"type": "nonsense"}},
    ],
    ids=str,
)
def test_a_configuration_that_makes_no_model_is_one_clear_line(saved: Path, change: dict) -> None:
    edit(saved / "config.json", **change)
    refused(saved, BrokenExperiment)


@pytest.mark.parametrize("model_type", ["no_such_model", "mamba.nothing"])
def test_an_unknown_architecture_is_not_measurable(saved: Path, model_type: str) -> None:
    edit(saved / "config.json", model_type=model_type)
    assert f"cannot run model_type {model_type}" in refused(saved, NotMeasurable)


def test_an_architecture_that_ends_the_program_is_not_measurable(saved: Path) -> None:
    edit(saved / "config.json", model_type="olmo")
    assert "needs another package" in refused(saved, NotMeasurable)


@pytest.mark.parametrize("model_type", [None, 3, "", "../../evil", "a b"])
def test_a_model_type_that_is_no_name_is_refused(saved: Path, model_type: object) -> None:
    edit(saved / "config.json", model_type=model_type)
    assert "not a name" in refused(saved, BrokenExperiment)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000], ids=repr)
def test_broken_json_files_are_one_clear_line(saved: Path, name: str, content: bytes) -> None:
    (saved / name).write_bytes(content)
    assert len(refused(saved, BrokenExperiment)) < 600


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_missing_files_are_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    assert name.split(".")[0] in refused(saved, BrokenExperiment)


def split(folder: Path, *names: str) -> None:
    """The one weight file becomes several of these names."""
    weights = sorted(tensors(folder).items())
    for i, name in enumerate(names):
        write(folder, dict(weights[i :: len(names)]), name)
    (folder / "model.safetensors").unlink()


def index(folder: Path, *names: str) -> None:
    """An index that names these files."""
    table = {f"tensor {i}": name for i, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))


def same(folder: Path) -> bool:
    return bool(mx.allclose(models.load(folder)[0](TOKENS), tiny.model()(TOKENS), atol=1e-5).item())


def others(folder: Path) -> dict[str, mx.array]:
    """Other weights under the same names: whoever reads them computes something else."""
    return {k: v * 1.5 for k, v in tensors(folder).items()}


def test_missing_shards_are_named_with_and_without_an_index(saved: Path) -> None:
    split(saved, *(f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)))
    assert same(saved)
    (saved / "model-00002-of-00003.safetensors").rename(saved / "away.safetensors")
    assert "lacks model-00002-of-00003.safetensors" in refused(saved, BrokenExperiment)
    index(saved, "model-00001-of-00003.safetensors", "model-gone.safetensors")
    assert "lacks model-gone.safetensors" in refused(saved, BrokenExperiment)
    (saved / "model.safetensors.index.json").write_text('{"weight_map": [1]}')
    assert "weight_map" in refused(saved, BrokenExperiment)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("indexed", [False, True])
def test_shards_counted_from_zero_or_one_load(saved: Path, first: int, indexed: bool) -> None:
    names = [f"model-0000{first + i}-of-00003.safetensors" for i in range(3)]
    split(saved, *names)
    if indexed:
        index(saved, *names)
    assert same(saved)
    (saved / names[1]).unlink()
    assert f"lacks {names[1]}" in refused(saved, BrokenExperiment)


STRAYS = ["model-ema.safetensors", "model.fp16.safetensors", "model_old.safetensors"]


@pytest.mark.parametrize("stray", STRAYS)
def test_a_tensor_in_two_files_is_refused_by_name(saved: Path, stray: str) -> None:
    write(saved, others(saved), stray)
    said = refused(saved, BrokenExperiment)
    assert stray in said
    assert "model.safetensors" in said
    assert "model.embed_tokens.weight" in said


@pytest.mark.parametrize("stray", [*STRAYS, "model.safetensors", "model-00003-of-00003.safetensors"])
def test_what_the_index_names_is_read_and_nothing_else(saved: Path, stray: str) -> None:
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    changed = others(saved)
    split(saved, *names)
    index(saved, *names)
    write(saved, changed, stray)
    assert same(saved)
    (saved / stray).write_bytes(b"not a weight file at all")
    assert same(saved)


def test_an_index_of_which_no_file_is_there_says_nothing(saved: Path) -> None:
    index(saved, "model-00001-of-00004.safetensors", "model-00004-of-00004.safetensors")
    assert same(saved)


@pytest.mark.parametrize("name", ["../model.safetensors", "sub/model.safetensors", "/etc/passwd"])
def test_an_index_names_files_of_its_own_folder_alone(saved: Path, name: str) -> None:
    index(saved, "model.safetensors", name)
    assert "no file of this folder" in refused(saved, BrokenExperiment)
