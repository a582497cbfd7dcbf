"""Entries as one file, to carry them where no disk is shared, under `store`.

In: keys of a store. Out: a tar file of sealed entries as they are, each one's manifest last; and the way
back, on which every hash is verified before anything is put in place. A pack has one text: names in order, no
times, no owners. So any changed byte is damage, in a header and in padding too.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..wording import printable
from . import files
from . import manifest as sealing
from .locks import locked
from .manifest import MANIFEST, Damaged
from .store import Item, Store, key_of

_PLACE = re.compile(r"(?:[a-z][a-z0-9_-]{0,40}/[0-9a-f]{16}/)+")
"""Where an entry lies in a store: a kind and a key, once more for each entry that it is nested in."""
_CLASH = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
"""What the disk says of two members that cannot both be files of one folder."""


def pack(store: Store, keys: Sequence[str], target: Path) -> list[Item]:
    """Write the entries of these keys, with all that is nested in them, to the file `target`; return them.

    Raises
    ------
    UsageError
        A key is not there, or only begun; an entry is damaged; the file cannot be written.
    """
    items = store.entries()
    for key in keys:
        if not (states := [item.state for item in items if item.key == key]):
            raise UsageError(
                f"{store.root}: holds no {printable(key, 80)}; `emergence store list` shows the keys"
            )
        if "complete" not in states:
            raise UsageError(f"{store.root}: {key} is {states[0]}; only what is complete can be packed")
    named = {item.path for item in items if item.key in keys}
    packed = [item for item in items if item.state == "complete" and {item.path, *item.path.parents} & named]
    for item in packed:
        if damage := store.verify(item):
            raise UsageError(f"{item.path}: {damage}; nothing was packed")
    places = {item.path.relative_to(store.root).as_posix() + "/": item.path for item in packed}
    try:
        _written(target, places)
    except FileNotFoundError as error:
        gone = target.parent if not target.parent.is_dir() else error.filename
        raise UsageError(f"{gone}: is not there; nothing was packed") from None
    except OSError as error:
        raise UsageError(f"{target}: cannot be written ({error.strerror or error})") from None
    return packed


def add(store: Store, file: Path) -> tuple[list[str], list[str]]:
    """Put the entries of a pack into `store`; the places that are new, and those that were there already.

    Raises
    ------
    UsageError
        The file is no pack, or one byte of it has changed; or the run that a reading belongs to is not here.
        Nothing was added.
    BrokenExperiment
        The disk is full or failing.
    """
    shown = printable(str(file), 200)
    if not file.is_file():
        raise UsageError(f"{shown}: no such file; `emergence store pack` writes one")
    store.folder()
    store.require_space(file.stat().st_size)
    with locked(store.root / "add", store.notice), _staging(store.root) as staging:
        try:
            places = _unpacked(file, staging)
            for place, folder in places.items():
                _require_whole(place, folder)
                _require_parent(store, place, places)
            _require_pack(file, places)
        except (tarfile.TarError, Damaged, EOFError, ValueError, OverflowError) as error:
            said = printable(str(error), 200) or "it ends too early"
            raise UsageError(f"{shown}: {said}; nothing was added") from None
        return _placed(store, places)


@contextmanager
def _staging(root: Path) -> Iterator[Path]:
    """A folder under the root, on the same disk; what a killed call left is removed first."""
    files.sweep(root, deep=False)
    folder = root / f"{files.TEMPORARY}{secrets.token_hex(4)}"
    with files.explained(folder, disk_only=True):
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


# The file


def _written(target: Path, places: Mapping[str, Path]) -> None:
    aside = target.with_name(f"{files.TEMPORARY}{secrets.token_hex(4)}")
    try:
        with aside.open("xb") as stream:
            _write(stream, places)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, target)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def _write(stream: Any, places: Mapping[str, Path]) -> None:
    """The one text of a pack: entries by place, an outer one before what is nested in it."""
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for place, folder in sorted(places.items()):
            for name in [*sorted(sealing.read(folder)["files"]), MANIFEST]:
                member = tarfile.TarInfo(place + name)
                member.size = (folder / name).stat().st_size
                with (folder / name).open("rb") as content:
                    archive.addfile(member, content)


class _Hash:
    """A file that keeps the hash of what is written to it."""

    def __init__(self) -> None:
        self.hashed, self._n = hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.hashed.update(data)
        self._n += len(data)
        return len(data)

    def tell(self) -> int:
        return self._n


def _require_pack(file: Path, places: Mapping[str, Path]) -> None:
    expected = _Hash()
    _write(expected, places)
    if expected.hashed.hexdigest() != files.digest(file):
        raise Damaged("it is not what was packed")


def _unpacked(file: Path, staging: Path) -> dict[str, Path]:
    """Each entry's place, and the folder under `staging` that its files were written to."""
    places: dict[str, Path] = {}
    with tarfile.open(file, "r:") as archive:
        for member in archive:
            place = _PLACE.match(member.name)
            name = member.name[place.end() :] if place else ""
            if not member.isreg() or member.issparse():
                raise Damaged(f"{member.name} is not an ordinary file")
            if place is None or any(part in ("", ".", "..") for part in name.split("/")):
                raise Damaged(f"{member.name} does not belong in a store")
            folder = places.setdefault(place[0], staging / str(len(places)))
            content = archive.extractfile(member)
            assert content is not None
            try:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with content, (folder / name).open("xb") as out:
                    shutil.copyfileobj(content, out)
            except OSError as error:
                if error.errno not in _CLASH:
                    raise
                raise Damaged(f"{member.name} cannot be a file of an entry") from None
    if not places:
        raise Damaged("it holds no entry")
    return dict(sorted(places.items()))


def _require_whole(place: str, folder: Path) -> None:
    """Every byte is what was sealed, and the entry is what its place says."""
    manifest = sealing.read(folder)
    sealing.check(folder, manifest)
    *outer, kind, key = place.rstrip("/").split("/")
    said = manifest["kind"], key_of(manifest["spec"]), manifest["parent"]
    if said != (kind, key, outer[-1] if outer else None):
        raise Damaged(f"{place} was sealed for something else")


def _outer(place: str) -> str:
    return "".join(f"{part}/" for part in place.split("/")[:-3])


def _require_parent(store: Store, place: str, places: Mapping[str, Path]) -> None:
    outer = _outer(place)
    if outer and outer not in places and not (store.root / outer / MANIFEST).is_file():
        raise Damaged(f"{place} belongs to {outer}, which is not in {store.root}; add that first")


def _placed(store: Store, places: Mapping[str, Path]) -> tuple[list[str], list[str]]:
    """Put each entry into place, an outer one first; one that is there and sound stays as it is."""
    new: list[str] = []
    known: list[str] = []
    for place, folder in places.items():
        path = store.root / place.rstrip("/")
        path.parent.mkdir(parents=not _outer(place), exist_ok=True)
        (new if store.adopt(folder, path) else known).append(place.rstrip("/"))
    return new, known
