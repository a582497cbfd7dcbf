"""The seal of a folder, under `store`: a manifest with every file's hash, which no changed byte gets past.

In: a folder. Out: its `manifest.json`, or `Damaged` with what differs. Only ordinary files can be sealed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import BrokenExperiment, UsageError
from . import files
from .files import fingerprint

SCHEMA = 1
"""Version of the manifest. `schema`, `seal` and how the seal is made stay the same in every version."""

MANIFEST = "manifest.json"

Stamp = tuple[int, int, int]
"""Size, time of change and inode: as git does, a file with the same stamp is not hashed again."""


class Damaged(Exception):
    """An entry is not what was sealed; the message says what differs."""


def _manifest_bytes(content: Mapping[str, Any]) -> bytes:
    """The one text of a manifest: any other byte, even a space, is damage."""
    sealed = {**content, "seal": fingerprint(content)}
    return (json.dumps(sealed, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def read(folder: Path) -> dict[str, Any]:
    """Return the manifest of `folder`.

    Raises
    ------
    Damaged
        It is missing, or one byte is not what was sealed. UsageError: it is of another schema version.
    """
    try:
        raw = (folder / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise Damaged(f"{MANIFEST} is missing") from None
    try:
        content = json.loads(raw)
        content.pop("seal")
        intact = _manifest_bytes(content) == raw
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        intact = False
    if not intact:
        raise Damaged(f"{MANIFEST} is not what was sealed")
    if content["schema"] != SCHEMA:
        raise UsageError(
            f"{folder}: has schema {content['schema']}, this version of emergence knows {SCHEMA};"
            " upgrade emergence, or choose another store with --store"
        )
    return {**content, "seal": json.loads(raw)["seal"]}


def _names(folder: Path) -> Iterator[str]:
    """Every file under `folder` but the manifest, as relative names with `/`."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(folders + names):
            path = Path(place, name)
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise BrokenExperiment(f"{path}: is a link or a device; an entry holds ordinary files only")
            if name in names and path != folder / MANIFEST:
                yield path.relative_to(folder).as_posix()


def stamp(path: Path) -> Stamp:
    """Tell whether a file may have changed, without reading it."""
    status = os.lstat(path)
    return status.st_size, status.st_mtime_ns, status.st_ino


def check(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Stamp]:
    """Hash every file; what is there beside them is not of the entry, and never read through it."""
    stamps = {}
    for name, sealed in manifest["files"].items():
        path = folder / name
        try:
            stamps[name] = stamp(path)
            if path.is_symlink() or not path.is_file():
                raise Damaged(f"{name} is not an ordinary file")
            if stamps[name][0] != sealed["size"]:
                raise Damaged(f"{name} has {stamps[name][0]} bytes instead of {sealed['size']}")
            if files.digest(path) != sealed["sha256"]:
                raise Damaged(f"{name} is not what was sealed (SHA-256)")
        except (FileNotFoundError, NotADirectoryError):
            raise Damaged(f"{name} is missing") from None
    return stamps


def seal(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the manifest of all files under `folder`, once they are on the disk."""
    listed = {
        name: {"sha256": files.digest(folder / name), "size": stamp(folder / name)[0]}
        for name in _names(folder)
    }
    # The manifest promises bytes that a power cut must not take back: they go to the disk first.
    files.sync_tree(folder)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = {**content, "schema": SCHEMA, "files": listed, "created": created}
    files.write_atomic(folder / MANIFEST, _manifest_bytes(manifest))
