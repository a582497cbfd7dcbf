"""MLX's products through OpenBLAS: right, reversible, and harmless where it cannot be had."""

from __future__ import annotations

import ctypes
import importlib.util
import mmap
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from emergence.backend import openblas as blas


@pytest.fixture
def fresh() -> Iterator[None]:
    """Start from MLX as it came; leave whatever was installed before."""
    before = bool(blas._original)
    blas.restore()
    yield
    blas.restore()
    if before:
        blas.install()


@pytest.fixture
def openblas(fresh: None) -> blas.Status:
    status = blas.install()
    if status.threads is None:
        assert (
            not sys.platform.startswith("linux") or mx.default_device().type != mx.cpu or not blas._openblas()
        )
        pytest.skip(f"this machine keeps MLX's own: {status.reason}")
    return status


def slot_values() -> dict[int, int]:
    return {a: ctypes.c_uint64.from_address(a).value for a in blas._slots("libmlx.so")}


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 2e-6), ("float64", 1e-13), ("complex64", 4e-6)], ids=str
)
@pytest.mark.parametrize("turned", [False, True], ids=["straight", "transposed"])
def test_products_equal_numpy_in_float64(
    openblas: blas.Status, dtype: str, tolerance: float, turned: bool
) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((4, 70, 300)), rng.standard_normal((4, 300, 41))
    if dtype == "complex64":
        a, b = a + 1j * a[::-1], b - 2j * b[::-1]
    with mx.stream(mx.cpu):
        kind = getattr(mx, dtype)
        numpy_kind = np.dtype(dtype)
        x, y = mx.array(a.astype(numpy_kind), dtype=kind), mx.array(b.astype(numpy_kind), dtype=kind)
        got = np.array(mx.swapaxes(mx.swapaxes(y, 1, 2) @ mx.swapaxes(x, 1, 2), 1, 2) if turned else x @ y)
    want = a @ b
    assert np.abs(got - want).max() <= tolerance * np.abs(want).max()


def test_the_status_names_the_library_and_its_threads(openblas: blas.Status) -> None:
    assert re.fullmatch(r"OpenBLAS \d+\.\d+[\d.]* \(\w+ kernels\), \d+ threads?", str(openblas))


def test_install_twice_is_install_once_and_restore_is_exact(fresh: None) -> None:
    loader = slot_values()
    first = blas.install()
    after = slot_values()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blas, "_agrees", lambda: pytest.fail("the self-test ran twice"))
        assert blas.install() == first
    assert slot_values() == after
    assert (first.threads is None) == (after == loader)
    blas.restore()
    assert slot_values() == loader


def test_the_switch_takes_it_out_again(openblas: blas.Status, monkeypatch: pytest.MonkeyPatch) -> None:
    filled = slot_values()
    monkeypatch.setenv("EMERGENCE_BLAS", "off")
    status = blas.install()
    assert (status.threads, status.reason) == (None, "EMERGENCE_BLAS=off")
    assert not set(slot_values().values()) & set(filled.values())


def test_a_library_that_computes_wrongly_does_not_stay(
    openblas: blas.Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    blas.restore()
    loader = slot_values()
    no_op = ctypes.CFUNCTYPE(None)(lambda: None)

    class Wrong(ctypes.CDLL):
        scipy_cblas_sgemm = scipy_cblas_dgemm = scipy_cblas_cgemm = no_op

    monkeypatch.setattr(blas, "_openblas", lambda: Wrong(None))
    assert "self-test" in blas.install().reason
    assert slot_values() == loader


@pytest.mark.skipif(importlib.util.find_spec("scipy_openblas32") is None, reason="no OpenBLAS to load")
@pytest.mark.parametrize("own", [None, "20"], ids=["not set", "set by the user"])
@pytest.mark.parametrize("fails", [False, True], ids=["loads", "fails"])
def test_openblas_is_loaded_with_threads_that_sleep_and_nothing_of_it_stays(
    own: str | None, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENBLAS_THREAD_TIMEOUT", raising=False)
    if own:
        monkeypatch.setenv("OPENBLAS_THREAD_TIMEOUT", own)
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_char_p
    seen, load = [], ctypes.CDLL

    def loaded(path: str) -> ctypes.CDLL:
        seen.append(libc.getenv(b"OPENBLAS_THREAD_TIMEOUT"))  # as the library itself asks for it
        if fails:
            raise OSError("not a library")
        return load(path)

    monkeypatch.setattr(ctypes, "CDLL", loaded)
    assert (blas._openblas() is None) == fails
    assert set(seen) == {(own or "4").encode()}
    assert os.environ.get("OPENBLAS_THREAD_TIMEOUT") == own
    assert libc.getenv(b"OPENBLAS_THREAD_TIMEOUT") == (own.encode() if own else None)


@pytest.mark.parametrize(
    ("where", "value", "reason"),
    [
        ("emergence.backend.openblas._openblas", lambda: None, "scipy-openblas32 is not installed"),
        ("emergence.backend.openblas._slots", lambda library: {}, "no slots"),
        ("sys.platform", "darwin", "not needed on darwin"),
        ("emergence.backend.openblas._fill", lambda slots, library: False, "write-protected"),
    ],
    ids=["no wheel", "no slots", "macOS", "protected"],
)
def test_without_the_means_nothing_happens_and_the_reason_is_given(
    fresh: None, monkeypatch: pytest.MonkeyPatch, where: str, value: object, reason: str
) -> None:
    if sys.platform != "linux" and where != "sys.platform":
        pytest.skip("only Linux gets as far")
    loader = slot_values() if sys.platform == "linux" else {}
    monkeypatch.setattr(where, value)
    status = blas.install()
    assert reason in status.reason
    assert status.threads is None
    monkeypatch.undo()
    assert (slot_values() if sys.platform == "linux" else {}) == loader


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_slot_in_a_read_only_page_is_written_and_protected_again(monkeypatch: pytest.MonkeyPatch) -> None:
    page = mmap.mmap(-1, mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    libc = ctypes.CDLL(None)
    libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), blas._PROT_READ)
    monkeypatch.setattr(blas, "_relro", lambda library: [(address, address + mmap.PAGESIZE)])
    assert blas._write(address + 8, 0xABCDEF)
    assert ctypes.c_uint64.from_address(address + 8).value == 0xABCDEF
    assert _permissions(address).startswith("r-")
    libc.mprotect(
        ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), blas._PROT_READ | blas._PROT_WRITE
    )


def _permissions(address: int) -> str:
    for line in Path("/proc/self/maps").read_text().splitlines():
        bounds, flags = line.split()[:2]
        start, end = (int(part, 16) for part in bounds.split("-"))
        if start <= address < end:
            return flags
    raise LookupError(hex(address))
