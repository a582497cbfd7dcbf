"""A real BLAS under MLX's Linux CPU backend.

In: the `libmlx.so` that is loaded. Out: the same library, its three matrix products pointed at OpenBLAS.

The `mlx-cpu` wheel brings the reference BLAS (about 6 GFLOP/s on one core). `scipy-openblas32` holds the fast
one under prefixed names, with the 32-bit integers that MLX passes. A dynamic library calls `cblas_sgemm`
through a slot that the loader filled in; we find the slots by symbol name in the loaded ELF image and fill
them again (System V ABI, chapter 5: dynamic linking). A self-test against NumPy decides whether they stay so.
"""

from __future__ import annotations

import ctypes
import importlib.util
import mmap
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

ROUTINES = ("cblas_sgemm", "cblas_dgemm", "cblas_cgemm")
_TIMEOUT = "OPENBLAS_THREAD_TIMEOUT"
_PT_DYNAMIC, _PT_GNU_RELRO = 2, 0x6474E552
_DT_PLTRELSZ, _DT_STRTAB, _DT_SYMTAB, _DT_RELA, _DT_RELASZ, _DT_JMPREL = 2, 5, 6, 7, 8, 23
_PROT_READ, _PROT_WRITE = 1, 2
_RELA = np.dtype([("offset", "<u8"), ("type", "<u4"), ("symbol", "<u4"), ("addend", "<i8")])

_original: dict[int, int] = {}
"""Address of each slot that we filled again -> what the loader had put there."""
_known: list[Status] = []
"""What the self-test has found in this process, so that it runs once."""


@dataclass(frozen=True)
class Status:
    """What computes MLX's matrix products, for the run header."""

    name: str
    """`OpenBLAS 0.3.x` with the kernels it chose (`OPENBLAS_CORETYPE` sets them), or `MLX's own`."""
    threads: int | None
    """Threads of OpenBLAS (`OPENBLAS_NUM_THREADS` sets them); None where it is not ours to know."""
    reason: str
    """Why OpenBLAS is not in use; empty where it is."""

    def __str__(self) -> str:
        if self.threads is None:
            return f"{self.name} ({self.reason})"
        return f"{self.name}, {self.threads} thread{'s' if self.threads != 1 else ''}"


def install() -> Status:
    """Point MLX's matrix products at OpenBLAS where that is possible and right; call it as often as you like.

    `EMERGENCE_BLAS=off` leaves MLX as it came, or takes OpenBLAS out again. Never raises for a machine
    without the means: it returns a `Status` that says why.
    """
    if os.environ.get("EMERGENCE_BLAS", "").lower() in ("off", "0", "no"):
        restore()
        return _own("EMERGENCE_BLAS=off")
    if not sys.platform.startswith("linux"):
        return _own(f"not needed on {sys.platform}")
    if mx.default_device().type != mx.cpu:
        return _own("not needed on a GPU")
    if not _known:
        _known.append(_fill_and_test())
    return _known[0]


def _fill_and_test() -> Status:
    library = _openblas()
    if library is None:
        return _own("scipy-openblas32 is not installed: slow; `pip install scipy-openblas32`")
    slots = _slots("libmlx.so")
    if set(slots.values()) != set(ROUTINES):
        return _own(f"libmlx.so has no slots for {', '.join(ROUTINES)}")
    if not _fill(slots, library):
        restore()
        return _own("the loader's slots are write-protected here")
    if not _agrees():
        restore()
        return _own("OpenBLAS failed the self-test against NumPy")
    return Status(_version(library), int(library.scipy_openblas_get_num_threads()), "")


def restore() -> None:
    """Put back what the loader had put in the slots."""
    for address, value in _original.items():
        _write(address, value)
    _original.clear()
    _known.clear()


def _own(reason: str) -> Status:
    return Status("MLX's own", None, reason)


def _openblas() -> ctypes.CDLL | None:
    spec = importlib.util.find_spec("scipy_openblas32")
    if spec is None or spec.origin is None:
        return None
    for path in sorted((Path(spec.origin).parent / "lib").glob("libscipy_openblas*.so*")):
        try:
            with _idle_threads_sleep():
                library = ctypes.CDLL(str(path))
        except OSError:
            continue
        if all(hasattr(library, f"scipy_{name}") for name in ROUTINES):
            return library
    return None


@contextmanager
def _idle_threads_sleep() -> Iterator[None]:
    """OpenBLAS loaded inside lets idle threads sleep, unless `OPENBLAS_THREAD_TIMEOUT` is set.

    By default they spin for 2^26 cycles after each product, on the cores that all other work needs: a
    reading took 1.5 times as long. They read the variable once, when the library is loaded.
    """
    if _TIMEOUT in os.environ:
        yield
        return
    os.environ[_TIMEOUT] = "4"  # the least: 2^4 cycles
    try:
        yield
    finally:
        del os.environ[_TIMEOUT]


def _version(library: ctypes.CDLL) -> str:
    for function in (library.scipy_openblas_get_config, library.scipy_openblas_get_corename):
        function.restype = ctypes.c_char_p
    name = " ".join(library.scipy_openblas_get_config().decode().split()[:2])
    return f"{name} ({library.scipy_openblas_get_corename().decode()} kernels)"


def _fill(slots: Mapping[int, str], library: ctypes.CDLL) -> bool:
    for address, name in slots.items():
        target = ctypes.cast(getattr(library, f"scipy_{name}"), ctypes.c_void_p).value
        before = ctypes.c_uint64.from_address(address).value
        if target is None or not _write(address, target):
            return False
        _original[address] = before
    return True


def _write(address: int, value: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    page = address - address % mmap.PAGESIZE
    read_only = any(start <= address < end for start, end in _relro("libmlx.so"))
    arguments = ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE)
    if read_only and libc.mprotect(*arguments, _PROT_READ | _PROT_WRITE) != 0:
        return False
    ctypes.c_uint64.from_address(address).value = value
    if read_only:
        libc.mprotect(*arguments, _PROT_READ)
    return True


def _agrees() -> bool:
    """Products in all three types, plain, transposed and batched, against NumPy in float64."""
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3, 65, 33)), rng.standard_normal((2, 3, 33, 47))
    cases = [(mx.float32, a, b), (mx.float64, a, b), (mx.complex64, a + 1j * a[::-1], b - 1j * b[::-1])]
    with mx.stream(mx.cpu):
        for dtype, x, y in cases:
            if dtype == mx.complex64:
                left, right = mx.array(x.astype(np.complex64)), mx.array(y.astype(np.complex64))
            else:
                left, right = mx.array(x, dtype=dtype), mx.array(y, dtype=dtype)
            straight = np.array(left @ right)
            turned = np.array(mx.swapaxes(right, -1, -2) @ mx.swapaxes(left, -1, -2))
            if not np.allclose(straight, x @ y, rtol=1e-4, atol=1e-4):
                return False
            if not np.allclose(turned.swapaxes(-1, -2), x @ y, rtol=1e-4, atol=1e-4):
                return False
    return True


class _Header(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("offset", ctypes.c_uint64),
        ("vaddr", ctypes.c_uint64),
        ("paddr", ctypes.c_uint64),
        ("filesz", ctypes.c_uint64),
        ("memsz", ctypes.c_uint64),
        ("align", ctypes.c_uint64),
    ]


class _Info(ctypes.Structure):
    _fields_ = [
        ("base", ctypes.c_uint64),
        ("name", ctypes.c_char_p),
        ("headers", ctypes.POINTER(_Header)),
        ("count", ctypes.c_uint16),
    ]


def _segments(library: str, kind: int) -> list[tuple[int, int, int]]:
    """(load address, start, size) of the segments of one kind in the loaded library of that file name."""
    found: list[tuple[int, int, int]] = []

    def visit(info: ctypes._Pointer[_Info], _size: int, _data: int | None) -> int:
        image = info.contents
        if os.path.basename(image.name or b"").decode(errors="replace") == library:
            headers = (image.headers[i] for i in range(image.count))
            found.extend((image.base, image.base + h.vaddr, h.memsz) for h in headers if h.type == kind)
        return 0

    callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Info), ctypes.c_size_t, ctypes.c_void_p)(visit)
    ctypes.CDLL(None).dl_iterate_phdr(callback, None)
    return found


def _relro(library: str) -> list[tuple[int, int]]:
    return [
        (start - start % mmap.PAGESIZE, start + size - (start + size) % mmap.PAGESIZE)
        for _, start, size in _segments(library, _PT_GNU_RELRO)
    ]


def _slots(library: str) -> dict[int, str]:
    """Address -> routine, for every relocation slot of the loaded library that names one of ROUTINES."""
    slots: dict[int, str] = {}
    for base, start, size in _segments(library, _PT_DYNAMIC):
        entries = np.frombuffer(ctypes.string_at(start, size), "<u8").reshape(-1, 2)
        tags = {int(tag): int(value) for tag, value in entries}
        for table, length in ((_DT_JMPREL, _DT_PLTRELSZ), (_DT_RELA, _DT_RELASZ)):
            if not {table, length, _DT_SYMTAB, _DT_STRTAB} <= tags.keys():
                continue
            # glibc has made these addresses absolute; other loaders leave them relative to the base
            where = {t: tags[t] + (base if tags[t] < base else 0) for t in (table, _DT_SYMTAB, _DT_STRTAB)}
            relocations = np.frombuffer(ctypes.string_at(where[table], tags[length]), _RELA)
            for entry in relocations[relocations["symbol"] > 0]:
                symbol = where[_DT_SYMTAB] + 24 * int(entry["symbol"])
                name = ctypes.string_at(where[_DT_STRTAB] + ctypes.c_uint32.from_address(symbol).value)
                if (decoded := name.decode(errors="replace")) in ROUTINES and entry["addend"] == 0:
                    slots[base + int(entry["offset"])] = decoded
    return slots
