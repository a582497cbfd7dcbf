"""Content-addressed runs: complete or absent, whatever is killed, full, shared or flipped.

In: a kind, what decides the content (`spec`), and a function that builds it into a folder. Out: an `Entry`,
a sealed folder whose every byte was checked. Content addresses and checks on read follow Nix (Dolstra 2006,
"The Purely Functional Software Deployment Model") and git.

    <root>/<kind>/<key>/manifest.json     last to be written: without it, nothing is there
    <root>/<kind>/<key>/<kind>/<key>/     an entry nested in its parent, and gone with it
    <root>/<kind>/<key>.partial/          under construction; survives a kill, so that the build goes on
    <root>/<kind>/<key>.partial-<host>-<pid>/   the same in a store that hosts share: who builds, builds alone
    <root>/<kind>/<key>.lock, .holder     the operating system's lock, and who says to hold it
    <root>/<kind>/.corrupt-<key>-<time>/  failed its hashes: moved here, never deleted, never read
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import BrokenExperiment, UsageError
from . import files, inventory, partial
from . import manifest as sealing
from .files import canonical, fingerprint, write_atomic
from .inventory import CORRUPT, PARTIAL, Item
from .locks import LEASE, SHARED, is_shared, locked
from .manifest import SCHEMA, Damaged, Stamp

__all__ = ["SCHEMA", "Entry", "Item", "Store", "canonical", "default_root", "key_of", "write_atomic"]

_KIND = re.compile(r"[a-z][a-z0-9_-]{0,40}")
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST)


def key_of(spec: Mapping[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of the canonical JSON of `spec`."""
    return fingerprint(spec)[:16]


def default_root(start: Path) -> Path:
    """`.emergence/` at the root of the repository that `start` lies in, relative where that is below here.

    The root is the nearest folder that holds `.git`, `pyproject.toml` or `hypotheses/`, or else the current
    one: one store, from whatever folder of a repository pytest or a verb is started.
    """
    here, marks = start.resolve(), (".git", "pyproject.toml", "hypotheses")
    rooted = (p for p in (here, *here.parents) if any((p / mark).exists() for mark in marks))
    root = next(rooted, Path.cwd())
    return Path(os.path.relpath(root)) / ".emergence" if root == Path.cwd() else root / ".emergence"


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
        """Path of a sealed file; one that was never sealed, or was removed meanwhile, is refused."""
        if name not in self.manifest["files"]:
            raise BrokenExperiment(
                f"{self.path}: holds no file {name!r}, only {sorted(self.manifest['files'])}"
            )
        if not os.path.lexists(self.path / name):
            raise BrokenExperiment(f"{self.path}: was removed while it was in use; run again")
        return self.path / name


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
        self.tell = notice
        self._verified: dict[Path, tuple[str, dict[str, Stamp]]] = {}

    def notice(self, text: str) -> None:
        """Keep a line, and tell it."""
        self.notices.append(text)
        if self.tell:
            self.tell(text)

    def share(self) -> None:
        """Let locks hold between hosts, from now on and for every process that uses this store."""
        self.folder()
        if not (self.root / SHARED).exists():
            write_atomic(self.root / SHARED, "locks are leases: hosts share this store\n")

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
        except Damaged as damage:
            if os.path.lexists(path):  # else it was removed just now
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
        with suppress(Damaged):
            if entry := self._open(shelf / key, kind, spec, parent):
                return entry
        self._make(shelf, parent)
        with locked(shelf / key, self.notice):
            entry = self._look_again(shelf / key, kind, spec, parent)
            return entry or self._build(shelf / key, kind, spec, build, parent)

    def adopt(self, folder: Path, path: Path) -> bool:
        """Rename a sealed folder, whose bytes were checked, to the entry `path`; False if that is there."""
        with locked(path, self.notice), files.explained(path):
            if os.path.lexists(path):
                try:
                    sealing.check(path, sealing.read(path))
                    return False
                except Damaged as damage:
                    self.notice(f"{path}: {damage}; moved to {self._move_aside(path).name}, added again")
            files.sync_tree(folder)
            try:
                os.rename(folder, path)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
                return False
            files.sync(path.parent)
        return True

    def verify(self, item: Entry | Item) -> str | None:
        """Hash every file now, whatever was checked before; return what is wrong, or None."""
        try:
            with files.explained(item.path):
                sealing.check(item.path, sealing.read(item.path))
        except Damaged as damage:
            return str(damage)
        return None

    def entries(self) -> list[Item]:
        """Everything in the store, nested entries included, oldest first."""
        with files.explained(self.root), suppress(FileNotFoundError):
            os.scandir(self.root).close()  # a file or a link loop is no empty store
        return inventory.items(self.root)

    def remove(self, item: Entry | Item) -> None:
        """Remove an entry with all that is nested in it; waits while somebody builds there."""
        # abspath takes out `..`, which would lead out of the store again
        if Path(os.path.abspath(self.root)) not in Path(os.path.abspath(item.path)).parents:
            raise UsageError(f"{item.path}: is not in the store {self.root}")
        with ExitStack() as held, files.explained(item.path), suppress(FileNotFoundError):
            held.enter_context(locked(item.path.with_name(item.key), self.notice))
            # what is being built inside would lose the ground it stands on
            for lock in sorted([*item.path.glob("*/*.lock"), *item.path.glob(f"*/*{LEASE}")]):
                held.enter_context(locked(lock.with_suffix(""), self.notice))
            files.remove_tree(item.path)
            files.sweep(item.path.parent, deep=False)

    def _shelf(self, kind: str, parent: Entry | None) -> Path:
        if not _KIND.fullmatch(kind):
            raise UsageError(f"{kind!r} cannot be a kind of entry; use small letters, digits, '-' and '_'")
        return (parent.path if parent else self.root) / kind

    def _make(self, shelf: Path, parent: Entry | None) -> None:
        try:
            with files.explained(shelf):
                shelf.mkdir(parents=parent is None, exist_ok=True)
        except FileNotFoundError:
            raise BrokenExperiment(f"{shelf.parent}: was removed while it was in use; run again") from None

    def _open(self, path: Path, kind: str, spec: Mapping[str, Any], parent: Entry | None) -> Entry | None:
        """Return the entry with every byte checked, None if nothing is there; `Damaged` otherwise."""
        with files.explained(path):
            if not os.path.lexists(path):
                return None
            manifest = sealing.read(path)
            expected = (kind, parent.key if parent else None, canonical(spec))
            if (manifest["kind"], manifest["parent"], canonical(manifest["spec"])) != expected:
                raise Damaged("it was sealed for something else")
            self._verify_once(path, manifest)
        return Entry(path, path.name, manifest)

    def _verify_once(self, path: Path, manifest: Mapping[str, Any]) -> None:
        seal, stamps = self._verified.get(path, ("", {}))
        with suppress(OSError):
            if seal == manifest["seal"] and all(sealing.stamp(path / n) == s for n, s in stamps.items()):
                return
        self._verified[path] = (manifest["seal"], sealing.check(path, manifest))

    def _look_again(
        self, path: Path, kind: str, spec: Mapping[str, Any], parent: Entry | None
    ) -> Entry | None:
        """With the lock held: somebody else may have built it, and what is damaged moves out of the way."""
        try:
            return self._open(path, kind, spec, parent)
        except Damaged as damage:
            aside = self._move_aside(path)
            self.notice(f"{path}: {damage}; moved to {aside.name}, building it again")
            return None

    def _move_aside(self, path: Path) -> Path:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        aside = path.with_name(f"{CORRUPT}{path.name}-{stamp}")
        n = 1
        while os.path.lexists(aside):
            n += 1
            aside = path.with_name(f"{CORRUPT}{path.name}-{stamp}-{n}")
        with files.explained(path), suppress(FileNotFoundError):  # another host was first to move it
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
        if not is_shared(path):
            self._fill(path.with_name(path.name + PARTIAL), path, kind, spec, build, parent)
            return self._built(path, kind, spec, parent)
        # No lock excludes for certain between hosts. Nobody else writes in this folder; the rename decides.
        workdir = partial.take(path)
        try:
            self._fill(workdir, path, kind, spec, build, parent)
        except Exception:
            with suppress(Damaged):
                # It took our name, or even our folder; either way ours is not needed.
                if entry := self._open(path, kind, spec, parent):
                    partial.clear(path)
                    self.notice(f"{path}: another process finished it first; what it built is used")
                    return entry
            raise
        partial.clear(path)
        return self._built(path, kind, spec, parent)

    def _fill(
        self,
        workdir: Path,
        path: Path,
        kind: str,
        spec: Mapping[str, Any],
        build: Callable[[Path], Mapping[str, Any] | None],
        parent: Entry | None,
    ) -> None:
        """Build in `workdir`, going on from what is in it, and put it in place, unless one is there."""
        if not self._sealed(workdir):
            with files.explained(workdir):
                workdir.mkdir(exist_ok=True)
                files.sweep(workdir)
            with files.explained(workdir, disk_only=True):
                info = dict(build(workdir) or {})
            with files.explained(workdir):
                files.sweep(workdir)
                content = {"kind": kind, "spec": spec, "info": info, "parent": parent and parent.key}
                sealing.seal(workdir, content)
        with files.explained(path):
            os.rename(workdir, path)
            files.sync(path.parent)

    def _built(self, path: Path, kind: str, spec: Mapping[str, Any], parent: Entry | None) -> Entry:
        entry = self._open(path, kind, spec, parent)
        assert entry is not None
        return entry

    def _sealed(self, workdir: Path) -> bool:
        """A kill between manifest and rename leaves a finished folder; a damaged one starts from nothing."""
        if not os.path.lexists(workdir / sealing.MANIFEST):
            return False
        try:
            with files.explained(workdir):
                sealing.check(workdir, sealing.read(workdir))
        except Damaged as damage:
            aside = self._move_aside(workdir)
            self.notice(f"{workdir}: {damage}; moved to {aside.name}, building it again")
            return False
        return True
