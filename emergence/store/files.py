"""Bytes to disk and back, under `store`: whole files or none, one hash a file, errors one can act on.

In: bytes, or a function that writes a file. Out: files that survive a power cut once the call returns.
The order (write aside, fsync, rename, fsync the folder) is the one of Pillai et al. 2014, "All File
Systems Are Not Created Equal", OSDI.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import BrokenExperiment, UsageError

TEMPORARY = ".tmp-"
"""What a file under construction is called at first; left behind only by a kill, swept by the next build."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM}
_BAD_PATH = {errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EEXIST}


def _check_keys(value: dict[Any, Any] | list[Any] | tuple[Any, ...]) -> None:
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                # json would write the integer 1 and the string "1" as one key
                raise TypeError(f"{name!r} is a key of type {type(name).__name__}; keys must be strings")
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, (dict, list, tuple)):
            _check_keys(inner)


def canonical(value: Mapping[str, Any]) -> str:
    """Write JSON in the one way that equal values share: sorted keys, no spaces, ASCII, shortest floats.

    Raises
    ------
    TypeError, ValueError
        For what JSON cannot hold exactly: NaN, infinities, keys that are not strings, other types.
    """
    _check_keys(dict(value))
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def fingerprint(value: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of `value`, in hex; raises as `canonical` does."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


@functools.cache
def source_hash(packages: Sequence[str]) -> str:
    """16 hex digits of a hash over the source of these packages of ours: edited code never meets old results.

    Taken once a process, so a file that is edited while a run trains changes no key.
    """
    here, hashed = Path(__file__).parent.parent, hashlib.sha256()
    for path in sorted(path for name in packages for path in (here / name).rglob("*.py")):
        hashed.update(path.relative_to(here).as_posix().encode() + b"\0" + path.read_bytes())
    return hashed.hexdigest()[:16]


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_text(n_bytes: int | float) -> str:
    """`1536` to `1.5 kB`: powers of 1000, as `df -H` and shops count."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" or n_bytes >= 100 else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def free_bytes(path: Path) -> int:
    """Free space for this user on the file system of `path`, which need not exist yet."""
    while True:
        try:
            return shutil.disk_usage(path).free
        except (FileNotFoundError, NotADirectoryError):
            if path == path.parent:
                raise
            path = path.parent


def explain(error: OSError | RuntimeError, path: Path) -> Exception:
    """What to raise instead: one line with the remedy where the disk is at fault, else `error` itself.

    MLX reports a full disk as `RuntimeError("[write] Unable to write ...")`, without a number.
    """
    if isinstance(error, RuntimeError):
        if not str(error).startswith(("[write]", "[save_safetensors]")):
            return error
        full = "Unable to write" in str(error)
        code, reason = (errno.ENOSPC if full else errno.EIO), str(error)
    else:
        code, reason = error.errno or 0, error.strerror or str(error)
    if code in _FULL:
        with suppress(OSError):
            reason = f"{reason}, {size_text(free_bytes(path))} free"
        return BrokenExperiment(
            f"{path}: the disk is full ({reason}); free some space, or choose another place with --store"
            " (finished work is kept and goes on from there)"
        )
    if code in _REFUSED:
        return UsageError(f"{path}: cannot be used ({reason}); choose another place with --store")
    if code in _BAD_PATH:
        return UsageError(f"{path}: cannot be a store ({reason}); choose another place with --store")
    if code == errno.EIO:
        return BrokenExperiment(f"{path}: {reason}; check the disk, or choose another place with --store")
    return error


@contextmanager
def explained(path: Path, disk_only: bool = False) -> Iterator[None]:
    """Turn a failure of the store's disk into one line; everything else passes as it is.

    `disk_only` is for code that opens other files too: what it may not read is not the store's fault.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        better = explain(error, path)
        if better is error or (disk_only and isinstance(better, UsageError)):
            raise
        raise better from error


def sync(path: Path) -> None:
    """Return when a file's bytes, or a folder's names, are on the disk and not only in its cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """`sync` every file and folder under `folder`, the innermost first."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(place, name))
        sync(Path(place))


def _aside(path: Path) -> Path:
    # The suffix stays: MLX and pandas choose the format by it.
    return path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}{path.suffix[-16:]}")


def write_atomic(path: Path, data: bytes | str | Callable[[Path], Any]) -> None:
    """Put a whole file at `path`, or leave what was there: never a part, whenever the process is killed.

    Parameters
    ----------
    path
        Its folder must exist. A file that is there is replaced.
    data
        The content (text as UTF-8), or a function that writes it to the path it is given.

    Raises
    ------
    BrokenExperiment
        The disk is full or failing. UsageError: it may not be written.
    """
    aside = _aside(path)
    try:
        with explained(path):
            if callable(data):
                data(aside)
            else:
                aside.write_bytes(data.encode() if isinstance(data, str) else data)
            sync(aside)
            os.replace(aside, path)
            sync(path.parent)
    finally:
        # also after Ctrl-C; a kill leaves the file to `sweep`
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def remove_tree(folder: Path) -> None:
    """Remove a folder so that a kill leaves it either there or gone, never there in part."""
    aside = _aside(folder)
    os.rename(folder, aside)
    shutil.rmtree(aside, ignore_errors=True)
    if aside.exists():
        shutil.rmtree(aside)


def sweep(folder: Path, deep: bool = True) -> None:
    """Remove what killed writers left in `folder`, and with `deep` under it."""
    for place, folders, names in os.walk(folder):
        for name in [n for n in folders if n.startswith(TEMPORARY)]:
            shutil.rmtree(Path(place, name), ignore_errors=True)
            folders.remove(name)
        for name in names:
            if name.startswith(TEMPORARY):
                with suppress(FileNotFoundError):
                    Path(place, name).unlink()
        if not deep:
            return
