"""Content-addressed runs: complete or absent, whatever is killed, full, shared or flipped.

In: a kind, what decides the content (`spec`), and a function that builds it into a folder. Out: an `Entry`,
a sealed folder whose every byte was checked. Content addresses and checks on read follow Nix (Dolstra 2006,
"The Purely Functional Software Deployment Model") and git.

    <root>/<kind>/<key>/manifest.json     last to be written: without it, nothing is there
    <root>/<kind>/<key>/<kind>/<key>/     an entry nested in its parent, and gone with it
    <root>/<kind>/<key>.partial/          under construction; survives a kill, so that the build goes on
    <root>/<kind>/<key>.lock, .holder     the operating system's lock, and who says to hold it
    <root>/<kind>/.corrupt-<key>-<time>/  failed its hashes: moved here, never deleted, never read
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from . import files
from .errors import BrokenExperiment, UsageError
from .files import canonical, folder_atomic, write_atomic

__all__ = ["SCHEMA", "Entry", "Item", "Store", "canonical", "folder_atomic", "key_of", "write_atomic"]

SCHEMA = 1
"""Version of the manifest. `schema`, `seal` and how the seal is made stay the same in every version."""

MANIFEST = "manifest.json"
PARTIAL = ".partial"
_KIND = re.compile(r"[a-z][a-z0-9_-]{0,40}")
_KEY = re.compile(r"[0-9a-f]{16}")
_RETRY_S, _REMIND_S = 0.1, 60.0


class _Damaged(Exception):
    """An entry is not what was sealed; the message says what differs."""


def key_of(spec: Mapping[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of the canonical JSON of `spec`."""
    return hashlib.sha256(canonical(spec).encode()).hexdigest()[:16]


def _manifest_bytes(content: Mapping[str, Any]) -> bytes:
    """The one text of a manifest: any other byte, even a space, is damage."""
    sealed = {**content, "seal": hashlib.sha256(canonical(content).encode()).hexdigest()}
    return (json.dumps(sealed, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


@dataclass(frozen=True)
class Entry:
    """A complete, verified folder of the store."""

    path: Path
    key: str
    manifest: Mapping[str, Any]
    """`kind`, `spec`, `parent` (key), `files` {name: {sha256, size}}, `info`, `created`, `schema`, `seal`."""

    @property
    def info(self) -> Mapping[str, Any]:
        """What the build returned."""
        info: Mapping[str, Any] = self.manifest["info"]
        return info

    @property
    def size(self) -> int:
        """Bytes in its own files."""
        return sum(int(f["size"]) for f in self.manifest["files"].values())

    def file(self, name: str) -> Path:
        """Path of a sealed file; a file that was never sealed is refused."""
        if name not in self.manifest["files"]:
            raise BrokenExperiment(
                f"{self.path}: holds no file {name!r}, only {sorted(self.manifest['files'])}"
            )
        return self.path / name


@dataclass(frozen=True)
class Item:
    """One line of `emergence store`: an entry, or what is left of one."""

    kind: str
    key: str
    path: Path
    state: str
    """`complete`, `partial` (a build was stopped; it goes on from there) or `corrupt` (was moved aside)."""
    size: int
    """Bytes on disk, nested entries included."""
    created: datetime
    """When it was sealed; else when it last changed."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    used_by: tuple[str, ...] = ()
    """Nested entries as `kind/key`, and files under `experiments/` that name the key."""


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        raw = (folder / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise _Damaged(f"{MANIFEST} is missing") from None
    try:
        content = json.loads(raw)
        content.pop("seal")
        intact = _manifest_bytes(content) == raw
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        intact = False
    if not intact:
        raise _Damaged(f"{MANIFEST} is not what was sealed")
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


def _stamp(path: Path) -> tuple[int, int, int]:
    status = os.lstat(path)
    return status.st_size, status.st_mtime_ns, status.st_ino


def _check_files(folder: Path, manifest: Mapping[str, Any]) -> dict[str, tuple[int, int, int]]:
    """Hash every file; what is there beside them is not of the entry, and never read through it."""
    stamps = {}
    for name, sealed in manifest["files"].items():
        path = folder / name
        try:
            stamps[name] = _stamp(path)
            if path.is_symlink() or not path.is_file():
                raise _Damaged(f"{name} is not an ordinary file")
            if stamps[name][0] != sealed["size"]:
                raise _Damaged(f"{name} has {stamps[name][0]} bytes instead of {sealed['size']}")
            if files.digest(path) != sealed["sha256"]:
                raise _Damaged(f"{name} is not what was sealed (SHA-256)")
        except (FileNotFoundError, NotADirectoryError):
            raise _Damaged(f"{name} is missing") from None
    return stamps


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _age_text(seconds: float) -> str:
    # A clock that was set back must not show a negative age.
    seconds = max(0.0, seconds)
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


class Store:
    """Folders by content, under one root; used by any number of processes at once.

    Parameters
    ----------
    root
        Made when something is first built.
    notice
        Told in one line about waiting, damage and repairs; `notices` keeps the same lines.
    """

    def __init__(self, root: Path | str, notice: Callable[[str], None] | None = None) -> None:
        self.root = Path(root)
        self.notices: list[str] = []
        self._tell = notice
        self._verified: dict[Path, tuple[str, dict[str, tuple[int, int, int]]]] = {}

    def notice(self, text: str) -> None:
        """Keep a line, and tell it."""
        self.notices.append(text)
        if self._tell:
            self._tell(text)

    def folder(self, *parts: str) -> Path:
        """Make and return a plain folder under the root, such as `experiments/<name>/results`.

        Raises
        ------
        UsageError
            A part that would leave the store, or that a file system cannot hold; a read-only store.
        """
        for part in parts:
            if part in ("", ".", "..") or re.search(r"[/\\\x00-\x1f]", part) or len(os.fsencode(part)) > 200:
                raise UsageError(
                    f"{part!r} cannot be a folder of the store; use letters, digits, '-' and '_'"
                )
        path = self.root.joinpath(*parts)
        with files.explained(path):
            path.mkdir(parents=True, exist_ok=True)
        return path

    def require_space(self, n_bytes: int) -> None:
        """Raise BrokenExperiment unless `n_bytes` and a reserve of 5 % fit on the store's disk."""
        with files.explained(self.root):
            free = files.free_bytes(self.root)
        if free < n_bytes * 1.05:
            raise BrokenExperiment(
                f"{self.root}: needs {files.size_text(n_bytes)}, has {files.size_text(free)} free;"
                " free some space, or choose another place with --store"
            )

    def find(self, kind: str, spec: Mapping[str, Any], parent: Entry | None = None) -> Entry | None:
        """Return the verified entry, or None where it is absent or damaged (then with a notice)."""
        path = self._shelf(kind, parent) / key_of(spec)
        try:
            return self._open(path, kind, spec, parent)
        except _Damaged as damage:
            self.notice(f"{path}: {damage}; it will be built again when it is next needed")
            return None

    def get_or_build(
        self,
        kind: str,
        spec: Mapping[str, Any],
        build: Callable[[Path], Mapping[str, Any] | None],
        parent: Entry | None = None,
    ) -> Entry:
        """Return the entry of `spec`, built now if it is not there; of many callers one builds.

        Parameters
        ----------
        kind
            Folder it is kept in: `models`, `runs`, `readings`, ...
        spec
            All that decides the content, as JSON; its hash is the key. Written down: no path, no secret.
        build
            Fills the folder it is given and returns what to keep as `info`. After a kill or an exception the
            folder is kept, and the next call's `build` finds in it what was reached.
        parent
            Entry to nest it in: readings in their run.

        Raises
        ------
        UsageError
            The store cannot be written, or is of a newer version. BrokenExperiment: disk full or failing.
        """
        key = key_of(spec)
        shelf = self._shelf(kind, parent)
        with suppress(_Damaged):
            if entry := self._open(shelf / key, kind, spec, parent):
                return entry
        with files.explained(shelf):
            shelf.mkdir(parents=True, exist_ok=True)
        with self._locked(shelf / key):
            entry = self._look_again(shelf / key, kind, spec, parent)
            return entry or self._build(shelf / key, kind, spec, build, parent)

    def verify(self, item: Entry | Item) -> str | None:
        """Hash every file now, whatever was checked before; return what is wrong, or None."""
        try:
            _check_files(item.path, _read_manifest(item.path))
        except _Damaged as damage:
            return str(damage)
        return None

    def entries(self) -> list[Item]:
        """Everything in the store, nested entries included, oldest first."""
        from_results = self._results()
        return sorted(self._items(self.root, from_results), key=lambda item: (item.created, item.key))

    def remove(self, item: Entry | Item) -> None:
        """Remove an entry with all that is nested in it; waits while somebody builds it."""
        if self.root.absolute() not in item.path.absolute().parents:
            raise UsageError(f"{item.path}: is not in the store {self.root}")
        with (
            files.explained(item.path),
            self._locked(item.path.with_name(item.key)),
            suppress(FileNotFoundError),
        ):
            files.remove_tree(item.path)

    def _shelf(self, kind: str, parent: Entry | None) -> Path:
        if not _KIND.fullmatch(kind):
            raise UsageError(f"{kind!r} cannot be a kind of entry; use small letters, digits, '-' and '_'")
        return (parent.path if parent else self.root) / kind

    def _open(self, path: Path, kind: str, spec: Mapping[str, Any], parent: Entry | None) -> Entry | None:
        """Return the entry with every byte checked, None if nothing is there; `_Damaged` otherwise."""
        with files.explained(path):
            if not os.path.lexists(path):
                return None
            manifest = _read_manifest(path)
            expected = (kind, parent.key if parent else None, canonical(spec))
            if (manifest["kind"], manifest["parent"], canonical(manifest["spec"])) != expected:
                raise _Damaged("it was sealed for something else")
            self._verify_once(path, manifest)
        return Entry(path, path.name, manifest)

    def _verify_once(self, path: Path, manifest: Mapping[str, Any]) -> None:
        seal, stamps = self._verified.get(path, ("", {}))
        with suppress(OSError):
            if seal == manifest["seal"] and all(_stamp(path / n) == s for n, s in stamps.items()):
                return
        self._verified[path] = (manifest["seal"], _check_files(path, manifest))

    def _look_again(
        self, path: Path, kind: str, spec: Mapping[str, Any], parent: Entry | None
    ) -> Entry | None:
        """With the lock held: somebody else may have built it, and what is damaged moves out of the way."""
        try:
            return self._open(path, kind, spec, parent)
        except _Damaged as damage:
            aside = self._move_aside(path)
            self.notice(f"{path}: {damage}; moved to {aside.name}, building it again")
            return None

    def _move_aside(self, path: Path) -> Path:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        aside = path.with_name(f".corrupt-{path.name}-{stamp}")
        n = 1
        while os.path.lexists(aside):
            n += 1
            aside = path.with_name(f".corrupt-{path.name}-{stamp}-{n}")
        with files.explained(path):
            os.rename(path, aside)
            files.sync(path.parent)
        return aside

    def _build(
        self,
        path: Path,
        kind: str,
        spec: Mapping[str, Any],
        build: Callable[[Path], Mapping[str, Any] | None],
        parent: Entry | None,
    ) -> Entry:
        workdir = path.with_name(path.name + PARTIAL)
        with files.explained(workdir):
            if not self._sealed(workdir):
                workdir.mkdir(exist_ok=True)
                files.sweep(workdir)
                with files.explained(workdir, disk_only=True):
                    info = dict(build(workdir) or {})
                files.sweep(workdir)
                self._seal(
                    workdir, {"kind": kind, "spec": spec, "info": info, "parent": parent and parent.key}
                )
            os.rename(workdir, path)
            files.sync(path.parent)
        entry = self._open(path, kind, spec, parent)
        assert entry is not None
        return entry

    def _sealed(self, workdir: Path) -> bool:
        """A kill between manifest and rename leaves a finished folder; a damaged one starts from nothing."""
        if not os.path.lexists(workdir / MANIFEST):
            return False
        try:
            _check_files(workdir, _read_manifest(workdir))
        except _Damaged as damage:
            aside = self._move_aside(workdir)
            self.notice(f"{workdir}: {damage}; moved to {aside.name}, building it again")
            return False
        return True

    def _seal(self, workdir: Path, content: Mapping[str, Any]) -> None:
        sealed = {
            n: {"sha256": files.digest(workdir / n), "size": _stamp(workdir / n)[0]} for n in _names(workdir)
        }
        # The manifest promises bytes that a power cut must not take back: they go to the disk first.
        files.sync_tree(workdir)
        write_atomic(
            workdir / MANIFEST,
            _manifest_bytes({**content, "schema": SCHEMA, "files": sealed, "created": _now()}),
        )

    @contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        """Hold the operating system's lock on `path`: it ends with the process, so none is ever stale."""
        lock = FileLock(path.with_name(path.name + ".lock"))
        with files.explained(path):
            self._wait(lock, path)
        holder = path.with_name(path.name + ".holder")
        try:
            # Says who holds it, for those who wait; decides nothing.
            with suppress(OSError):
                me = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
                holder.write_text(json.dumps(me))
            yield
        finally:
            with suppress(OSError):
                holder.unlink(missing_ok=True)
            lock.release()

    def _wait(self, lock: FileLock, path: Path) -> None:
        told = -_REMIND_S
        while True:
            try:
                lock.acquire(timeout=0)
                return
            except Timeout:
                if time.monotonic() - told >= _REMIND_S:
                    told = time.monotonic()
                    self.notice(f"{path}: {self._holder(path)}; waiting for it to finish (Ctrl-C to give up)")
                time.sleep(_RETRY_S)

    def _holder(self, path: Path) -> str:
        try:
            who = json.loads(path.with_name(path.name + ".holder").read_bytes())
            held = _age_text(time.time() - who["since"])
            return f"process {who['pid']} on {who['host']} has held it for {held}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process holds it"

    def _results(self) -> dict[str, bytes]:
        """Texts under `experiments/`, which name the runs that they rest on."""
        texts = {}
        for path in sorted(self.root.glob("experiments/**/*.json")):
            with suppress(OSError):
                texts[path.relative_to(self.root).as_posix()] = path.read_bytes()
        return texts

    def _items(self, place: Path, results: Mapping[str, bytes]) -> Iterator[Item]:
        for path in sorted(place.glob("*/*")):
            name = path.name.removesuffix(PARTIAL)
            corrupt = path.name.startswith(".corrupt-")
            key = path.name.removeprefix(".corrupt-")[:16] if corrupt else name
            if not path.is_dir() or path.is_symlink() or not _KEY.fullmatch(key):
                continue
            nested = list(self._items(path, results)) if path.name == key else []
            yield self._item(
                path,
                key,
                "corrupt" if corrupt else "complete" if name == path.name else "partial",
                nested,
                results,
            )
            yield from nested

    def _item(
        self, path: Path, key: str, state: str, nested: list[Item], results: Mapping[str, bytes]
    ) -> Item:
        manifest: dict[str, Any] = {}
        with suppress(_Damaged, UsageError):
            manifest = _read_manifest(path)
        if state == "complete" and not manifest:
            state = "corrupt"
        found = [p for p in path.rglob("*") if p.is_file() and not p.is_symlink()]
        changed = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat()
        used = [f"{i.kind}/{i.key}" for i in nested if i.path.parent.parent == path and i.state == "complete"]
        used += [name for name, text in results.items() if key.encode() in text]
        return Item(
            kind=path.parent.name,
            key=key,
            path=path,
            state=state,
            size=sum(p.stat().st_size for p in found),
            created=datetime.fromisoformat(manifest.get("created", changed)),
            spec=manifest.get("spec", {}),
            used_by=tuple(used),
        )
