"""What a store holds, under `store`: one `Item` for each entry, half-built entry and damaged entry.

In: the root of a store. Out: items with size, age and what uses them. Reads only; hashes nothing.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import UsageError
from . import manifest as sealing

PARTIAL = ".partial"
CORRUPT = ".corrupt-"
_KEY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Item:
    """One line of `emergence store`: an entry, or what is left of one."""

    kind: str
    key: str
    path: Path
    state: str
    """`complete`, `partial` (a build was stopped; it goes on from there), `damaged` (its manifest cannot be
    read; moved aside when next asked for) or `corrupt` (was moved aside: never read, safe to remove)."""
    size: int
    """Bytes on disk, nested entries included."""
    created: datetime
    """When it was sealed; else when it last changed."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    used_by: tuple[str, ...] = ()
    """Nested entries as `kind/key`, and files under `experiments/` that name the key."""


def _results(root: Path) -> dict[str, bytes]:
    """Texts under `experiments/`, which name the runs that they rest on."""
    texts = {}
    for folder, _, names in os.walk(root / "experiments"):  # leaves out what vanishes meanwhile
        for path in (Path(folder, name) for name in names if name.endswith(".json")):
            with suppress(OSError):
                texts[path.relative_to(root).as_posix()] = path.read_bytes()
    return dict(sorted(texts.items()))


def _children(folder: Path) -> list[Path]:
    """What is in a folder, none if it is not one or somebody else removes it."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return sorted(folder.iterdir())
    return []


def _size(path: Path) -> int:
    """Bytes of an ordinary file; of a link none, nor of what a build has renamed meanwhile."""
    with suppress(FileNotFoundError, NotADirectoryError):
        status = os.lstat(path)
        return status.st_size if stat.S_ISREG(status.st_mode) else 0
    return 0


def _items(place: Path, results: Mapping[str, bytes]) -> Iterator[Item]:
    for path in (path for kind in _children(place) for path in _children(kind)):
        name, partial, _ = path.name.partition(PARTIAL)
        corrupt = path.name.startswith(CORRUPT)
        key = path.name.removeprefix(CORRUPT)[:16] if corrupt else name
        if not path.is_dir() or path.is_symlink() or not _KEY.fullmatch(key):
            continue
        nested = list(_items(path, results)) if path.name == key else []
        state = "corrupt" if corrupt else "partial" if partial else "complete"
        with suppress(FileNotFoundError):  # somebody else removes it
            yield _item(path, key, state, nested, results)
            yield from nested


def _item(path: Path, key: str, state: str, nested: list[Item], results: Mapping[str, bytes]) -> Item:
    manifest: dict[str, Any] = {}
    with suppress(sealing.Damaged, UsageError):
        manifest = sealing.read(path)
    if state == "complete" and not manifest:
        state = "damaged"
    found = [Path(at, name) for at, _, names in os.walk(path) for name in names]
    changed = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat()
    used = [f"{i.kind}/{i.key}" for i in nested if i.path.parent.parent == path and i.state == "complete"]
    used += [name for name, text in results.items() if key.encode() in text]
    return Item(
        kind=path.parent.name,
        key=key,
        path=path,
        state=state,
        size=sum(map(_size, found)),
        created=datetime.fromisoformat(manifest.get("created", changed)),
        spec=manifest.get("spec", {}),
        used_by=tuple(used),
    )


def items(root: Path) -> list[Item]:
    """Everything under `root`, nested entries included, oldest first."""
    return sorted(_items(root, _results(root)), key=lambda item: (item.created, item.key))
