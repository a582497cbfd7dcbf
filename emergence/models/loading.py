"""Models stage: a name becomes `(model, tokenizer)`.

In: the embedded model's name, a hub id (`owner/name`, or `owner/name@revision`) or a local folder. Out: an
mlx-lm model in evaluation mode and its tokenizer. On the CPU it computes in float32 whatever the file holds,
because only float32 products reach a BLAS there. No code of a model folder is ever run, and nothing is asked.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from huggingface_hub import errors as hub
from huggingface_hub import snapshot_download
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import dequantize_model, load_model, load_tokenizer

from ..backend import openblas
from ..errors import BrokenExperiment, NotMeasurable, UsageError
from ..store.store import Store
from . import folders, smollm2
from .adapters import adapted, adapter_config, apply, lora, parameters, save_adapters

__all__ = [
    "EMBEDDED",
    "Source",
    "adapted",
    "adapter_config",
    "load",
    "lora",
    "resolve",
    "save_adapters",
]

EMBEDDED = "smollm2-135m-instruct"
_CONVERSION = 1  # raise it when smollm2.convert writes something else
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tiktoken.model")
_MISFITS = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError)
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")


@dataclass(frozen=True)
class Source:
    """Where a model comes from.

    `revision` is the hub's commit (None for a folder); `hash` is the SHA-256 over the weights, the
    configuration and the tokenizer files.
    """

    name: str
    folder: Path
    revision: str | None
    hash: str


def load(
    name: str | Path, adapter: str | Path | None = None, *, store: Store | None = None
) -> tuple[Any, TokenizerWrapper]:
    """An mlx-lm model and its tokenizer, like `mlx_lm.load`; the checkpoint `adapter` is applied for good.

    Raises UsageError (no such name), NotMeasurable (not to be had here, refused), BrokenExperiment (damaged).
    """
    source = resolve(name, store)
    openblas.install()
    model, config = _model(source.folder)
    tokenizer = _tokenizer(source.folder, config, _rows(model))
    model.base_hash = source.hash
    if adapter is not None:
        apply(model, Path(adapter))
    return model, tokenizer


def resolve(name: str | Path, store: Store | None = None) -> Source:
    """The checked folder behind a name; the embedded model is converted into `store` once."""
    text, revision = str(name), None
    if text == EMBEDDED:
        folder = _embedded(store or Store(Path(".emergence")))
    elif text and Path(text).is_dir():
        folder = Path(text)
    elif _HUB_ID.fullmatch(text):
        folder = _download(*text.partition("@")[::2])
        revision = folder.name
    else:
        near = difflib.get_close_matches(text, [EMBEDDED], cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(
            f"model {text!r} is neither {EMBEDDED}, nor a folder here, nor a hub id owner/name{hint}"
        )
    folders.check(folder)
    return Source(text, folder, revision, folders.content_hash(folder))


def _embedded(store: Store) -> Path:
    spec = {"name": EMBEDDED, "gguf": smollm2.SHA256, "conversion": _CONVERSION}
    return store.get_or_build("models", spec, lambda folder: smollm2.convert(smollm2.find(), folder)).path


def _download(repo: str, revision: str) -> Path:
    """Snapshot of a hub repository: weights, JSON and tokenizer files of its top folder, nothing else."""
    try:
        return Path(
            snapshot_download(
                repo,
                revision=revision or None,
                allow_patterns=list(folders.PATTERNS),
                ignore_patterns=["*/*"],
            )
        )
    except hub.GatedRepoError:
        why = "is gated: accept its licence on its hub page, then run `hf auth login` or set HF_TOKEN"
    except hub.RevisionNotFoundError:
        why = f"has no revision {revision!r}; leave it out for the newest"
    except hub.RepositoryNotFoundError:
        why = "is not on the hub, or private: check the spelling, or run `hf auth login`"
    except (hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, hub.IncompleteSnapshotError):
        why = (
            "is not complete in the local cache and the hub cannot be reached (is HF_HUB_OFFLINE set?): "
            f"connect once, or use a local folder or {EMBEDDED}"
        )
    except (hub.HfHubHTTPError, hub.HFValidationError, OSError, ValueError) as error:
        why = f"cannot be downloaded: {folders.first_line(error)}"
    raise NotMeasurable(f"model {repo} {why}")


def _model(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The model, its weights finite and in memory, and its configuration."""
    try:
        loaded = load_model(folder, lazy=True, trust_remote_code=False)
        model: Any = loaded[0]
        if mx.default_device().type == mx.DeviceType.cpu:
            _to_float32(model)
        _check_memory(folder, model)
        mx.eval(model.parameters())
    except SystemExit:  # mlx-lm's olmo ends the program where its own package is missing
        raise NotMeasurable(f"{folder}: mlx-lm needs another package for this architecture") from None
    except _MISFITS as error:
        line = folders.first_line(error)
        if "not supported" in line:
            raise NotMeasurable(f"{folder}: mlx-lm cannot run it: {line}") from None
        raise BrokenExperiment(f"{folder}: weights and config.json do not fit together: {line}") from None
    if bad := _not_finite(model):
        raise BrokenExperiment(f"{folder}: {bad} holds NaN or infinity; copy or download the weights again")
    return model, loaded[1]


def _to_float32(model: Any) -> None:
    """Every weight as float32. Exact: scales are widened before the product, which is then rounded once."""
    model.set_dtype(mx.float32)
    # dequantize_model knows nothing of a second scale; such a model keeps its own slow path.
    if not any("global_scale" in module for module in model.modules()):
        dequantize_model(model)
    model.set_dtype(mx.float32)


def _check_memory(folder: Path, model: Any) -> None:
    needed = sum(p.nbytes for _, p in parameters(model))
    if needed > folders.memory_bytes():
        raise NotMeasurable(
            f"{folder} needs {needed / 2**30:.0f} GiB for its weights, this machine has "
            f"{folders.memory_bytes() / 2**30:.0f}; use a smaller model or a machine with more memory"
        )


def _not_finite(model: Any) -> str | None:
    """Name of the first parameter with a NaN or an infinity."""
    floating = [(k, p) for k, p in parameters(model) if mx.issubdtype(p.dtype, mx.floating)]
    finite = [mx.isfinite(p).all() for _, p in floating]
    mx.eval(finite)
    return next((name for (name, _), fine in zip(floating, finite, strict=True) if not fine.item()), None)


def _rows(model: Any) -> int:
    """Rows of the largest embedding: ids from there on have no vector."""
    tables = (m for m in model.modules() if isinstance(m, nn.Embedding | nn.QuantizedEmbedding))
    return int(max(table.weight.shape[0] for table in tables))


def _tokenizer(folder: Path, config: dict[str, Any], rows: int) -> TokenizerWrapper:
    """The folder's tokenizer; `config` says which ids end a text, `rows` how many ids have a vector."""
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise BrokenExperiment(f"{folder} holds no tokenizer ({', '.join(_TOKENIZER_FILES)}); copy one there")
    try:
        read: Any = load_tokenizer
        tokenizer: TokenizerWrapper = read(folder, {"trust_remote_code": False}, config.get("eos_token_id"))
        ids = tokenizer.encode("7 * 8 = 56. What is the answer?", add_special_tokens=False)
    except Exception as error:  # `tokenizers` raises bare Exception
        line = folders.first_line(error)
        raise BrokenExperiment(f"{folder}: its tokenizer cannot be read: {line}") from None
    if not ids or max(ids) >= rows:
        raise BrokenExperiment(
            f"{folder}: its tokenizer gives ids {ids[:5]}… for a model of {rows}; it belongs to another model"
        )
    return tokenizer
