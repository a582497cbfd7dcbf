"""Models stage: a name becomes a checked folder.

In: the embedded model's name, a hub id (`owner/name`, or `owner/name@revision`) or a local folder. Out: a
`Source`. Downloads take weights, JSON and tokenizer files, never code and never pickles.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import errors as hub
from huggingface_hub import snapshot_download

from ..errors import NotMeasurable, UsageError
from ..store.store import Store, default_root
from ..wording import did_you_mean, first_line
from . import folders, gemma3, smollm2

EMBEDDED = "smollm2-135m-instruct"
_CONVERSION = 1  # raise it when smollm2.convert writes something else
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")
_FILES = (".json", ".safetensors", ".gguf", ".bin", ".pt", ".pth", ".npz", ".yaml", ".yml", ".txt", ".model")


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


def resolve(name: str | Path, store: Store | None = None) -> Source:
    """The checked folder behind a name; the embedded model is converted into `store` once.

    `~` and `$HOME` mean what they mean to a shell. Raises UsageError (no such name), NotMeasurable (not to be
    had here, refused), BrokenExperiment (damaged).
    """
    text, revision = str(name), None
    require_known(text)
    store = store or Store(default_root(Path.cwd()))
    if text == EMBEDDED:
        folder = _embedded(store)
    elif text == gemma3.NAME:
        folder = _fetched(store)
    elif _local(text).is_dir():
        folder = _local(text)
    else:
        folder = _download(*text.partition("@")[::2])
        revision = folder.name
    folders.check(folder)
    return Source(text, folder, revision, folders.content_hash(folder))


def require_known(name: str) -> None:
    """Refuse, without any download, a name that can be no model's; raises `UsageError`."""
    if name in (EMBEDDED, gemma3.NAME) or (name and _local(name).is_dir()):
        return
    if _local(name).suffix.lower() in _FILES or _local(name).is_file():
        raise UsageError(f"model {name!r} names a file; name the folder that it lies in")
    if not _HUB_ID.fullmatch(name):
        hint = did_you_mean(name, [EMBEDDED, gemma3.NAME], cutoff=0.5)
        raise UsageError(
            f"model {name!r} is neither {EMBEDDED}, nor a folder here, nor a hub id owner/name{hint}"
        )


def is_here(name: str) -> bool:
    """Whether a model can be had without a download: embedded, a folder, or all of it in the hub's cache."""
    if name == EMBEDDED or _local(name).is_dir():
        return True
    repo, _, revision = name.partition("@")
    try:
        snapshot_download(repo, revision=revision or None, local_files_only=True)
    except (hub.HfHubHTTPError, hub.HFValidationError, OSError, ValueError):
        return False
    return True


def _local(name: str) -> Path:
    return Path(os.path.expandvars(os.path.expanduser(name)))


def _embedded(store: Store) -> Path:
    spec = {"name": EMBEDDED, "gguf": smollm2.SHA256, "conversion": _CONVERSION}
    return store.get_or_build("models", spec, lambda folder: smollm2.convert(smollm2.find(), folder)).path


def _fetched(store: Store) -> Path:
    if (entry := store.find("models", gemma3.SPEC)) is None:
        raise NotMeasurable(
            f"model {gemma3.NAME} is not here: `emergence models --get {gemma3.NAME}` shows its terms and "
            "fetches it"
        )
    return entry.path


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
        why = f"cannot be downloaded: {first_line(error)}"
    first = repo.partition("/")[0]
    here = (
        f"; the folder {first}/ is here, and has no {repo.partition('/')[2]}" if Path(first).is_dir() else ""
    )
    raise NotMeasurable(f"model {repo} {why}{here}")
