"""Models stage: what is in a model folder, looked at before anything of it is used.

In: a folder that may come from anywhere. Out: its content hash, or one line saying why it is refused. Nothing
is executed and no weight is trusted: code (`model_file`, `auto_map`) and pickles are refused by name;
truncated and missing shards are found from the safetensors headers.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from ..errors import BrokenExperiment, NotMeasurable
from ..store.files import digest
from ..wording import first_line, some

WEIGHTS = "model*.safetensors"
TOKENIZER = ("tokenizer.model", "tiktoken.model", "*.tiktoken", "vocab.txt", "merges.txt", "*.jinja")
PATTERNS = ("*.json", WEIGHTS, *TOKENIZER)
"""The files of a folder that are downloaded, hashed and read; never code, never pickles."""

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_MAX_JSON = 200 << 20  # bytes; the largest tokenizer.json in use has 35 MB


def check(folder: Path) -> dict[str, Any]:
    """The folder's config.json, after everything that can be refused without reading a weight was looked at.

    Raises NotMeasurable for what is refused (code, pickles) and BrokenExperiment for what is damaged.
    """
    config: dict[str, Any] = floats(read_json(folder / "config.json"))
    _refuse_code(folder)
    for path in shards(folder):
        header(path)
    if not isinstance(config.get("model_type"), str) or not re.fullmatch(r"\w[\w.-]*", config["model_type"]):
        raise BrokenExperiment(
            f"{folder / 'config.json'}: model_type is {config.get('model_type')!r}, not a name"
        )
    return config


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file that need not be one; raises BrokenExperiment, one line."""
    try:
        if path.stat().st_size > _MAX_JSON:
            raise ValueError(f"larger than {_MAX_JSON >> 20} MB")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BrokenExperiment(f"{path.parent} holds no {path.name}; is it a model folder?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BrokenExperiment(f"{path} cannot be read: {first_line(error)}") from None
    if not isinstance(content, dict):
        raise BrokenExperiment(f"{path} holds {type(content).__name__}, not an object")
    return content


def floats(value: Any) -> Any:
    """JSON has no infinity; transformers writes it as {"__float__": "Infinity"}."""
    if isinstance(value, dict):
        return (
            float(value["__float__"])
            if value.keys() == {"__float__"}
            else {k: floats(v) for k, v in value.items()}
        )
    return [floats(v) for v in value] if isinstance(value, list) else value


def content_hash(folder: Path) -> str:
    """SHA-256 (hex) over names and contents of the files that decide what the model computes and reads.

    Raises BrokenExperiment for a file that is damaged, or a link to none.
    """
    files = {path.name: path for pattern in PATTERNS for path in folder.glob(pattern)}
    files.pop("manifest.json", None)  # the store's own note, with a date
    whole = hashlib.sha256()
    for name, path in sorted(files.items()):
        try:
            state = path.stat()
            found = _sha256(path.resolve(), state.st_size, state.st_mtime_ns)
        except FileNotFoundError:
            raise BrokenExperiment(f"{path} leads to no file; copy or download it again") from None
        whole.update(f"{name} {found}\n".encode())
    return whole.hexdigest()


@lru_cache(maxsize=256)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Hash of one file, once per process unless size or time changed."""
    found = digest(path)
    # The hub's cache names large files by their SHA-256: a damaged download shows here.
    if path.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", path.name) and path.name != found:
        raise BrokenExperiment(f"{path} is damaged (SHA-256 {found[:16]}…); delete it and download again")
    return found


def _refuse_code(folder: Path) -> None:
    for name in ("config.json", "tokenizer_config.json"):
        if not (folder / name).exists():
            continue
        for key in ("model_file", "auto_map"):
            if key in read_json(folder / name):
                raise NotMeasurable(
                    f"{folder / name} asks to run its own code ({key}), which is never done; "
                    "use a conversion of this model without it"
                )


def _refuse_pickles(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if names:
        raise NotMeasurable(
            f"{folder} holds its weights as pickles ({', '.join(names[:3])}), which can run code and are "
            "never loaded; use a conversion to safetensors"
        )


def shards(folder: Path) -> list[Path]:
    """The weight files of a folder, those that its index names; each tensor lies in one of them.

    An index of which no file is there is left over from another conversion, and says nothing. Raises
    NotMeasurable for pickles, BrokenExperiment for files that are missing and tensors that lie in two files.
    """
    there = sorted(folder.glob(WEIGHTS))
    if not there:
        _refuse_pickles(folder)
        raise BrokenExperiment(f"{folder} holds no {WEIGHTS}; copy or download the weights again")
    named = _indexed(folder)
    if any((folder / name).is_file() for name in named):
        _refuse_missing(folder, sorted(name for name in named if not (folder / name).is_file()))
        if strange := sorted(name for name in named if folder / name not in there):
            raise BrokenExperiment(
                f"{folder}: the index names {strange[0]}; weight files are called {WEIGHTS}"
            )
        return [folder / name for name in sorted(named)]
    _refuse_missing(folder, _missing_numbers([path.name for path in there]))
    _refuse_twice(there)
    return there


def _indexed(folder: Path) -> set[str]:
    """The files that `model.safetensors.index.json` names; none where there is no index."""
    if not (index := folder / "model.safetensors.index.json").exists():
        return set()
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
        raise BrokenExperiment(f"{index}: weight_map does not name a file for every tensor")
    if outside := sorted(name for name in set(table.values()) if name != Path(name).name):
        raise BrokenExperiment(f"{index}: weight_map names {outside[0]!r}, which is no file of this folder")
    return set(table.values())


def _missing_numbers(names: list[str]) -> list[str]:
    """Files that numbered ones beside them promise: model-00001-of-00003 to -00003; some count from zero."""
    missing = []
    sets: dict[tuple[str, str], set[str]] = {}
    for name in names:
        if numbers := re.fullmatch(r"(model.*)-(\d+)-of-(\d+)\.safetensors", name):
            sets.setdefault((numbers[1], numbers[3]), set()).add(numbers[2])
    for (stem, count), found in sets.items():
        first = 0 if any(int(number) == 0 for number in found) else 1
        width = len(next(iter(found)))
        wanted = {f"{i:0{width}d}" for i in range(first, first + min(int(count), 9999))}
        missing += [f"{stem}-{number}-of-{count}.safetensors" for number in sorted(wanted - found)]
    return missing


def _refuse_missing(folder: Path, missing: list[str]) -> None:
    if missing:
        raise BrokenExperiment(f"{folder} lacks {some(missing)}; copy or download it again")


def _refuse_twice(files: list[Path]) -> None:
    """Without an index nothing says which of two tensors of one name is the model's."""
    places: dict[str, str] = {}
    for path in files:
        for name in header(path):
            if name in places:
                raise BrokenExperiment(
                    f"{path.parent}: {name} lies in {places[name]} and in {path.name}, and no index says "
                    "which is the model's; move one of the files away"
                )
            places[name] = path.name


def header(path: Path) -> dict[str, dict[str, Any]]:
    """The tensors of a safetensors file, name to {dtype, shape, data_offsets}; they fill the file exactly.

    Format: 8 bytes of header length, a JSON object, the data. Raises BrokenExperiment for a damaged file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(size - 8, 100 << 20):
                raise ValueError("its header is longer than the file")
            table = json.loads(file.read(length))
        table.pop("__metadata__", None)
        spans = sorted(tuple(entry["data_offsets"]) for entry in table.values())
        ends = [0, *(end for _, end in spans)]
        if [start for start, _ in spans] != ends[:-1]:
            raise ValueError("its tensors overlap or leave gaps")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BrokenExperiment(f"{path} is not a readable safetensors file: {first_line(error)}") from None
    if ends[-1] != size - 8 - length:
        raise BrokenExperiment(
            f"{path} is truncated or padded: {size} bytes, its header promises {8 + length + ends[-1]}"
        )
    return cast(dict[str, dict[str, Any]], table)
