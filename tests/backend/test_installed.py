"""Two MLX backends, or none, are told in one line."""

import sys

import pytest

from emergence.backend import installed as backend
from emergence.errors import UsageError


def test_one_backend_is_enough():
    backend.require()


def test_two_backends_are_refused_by_name(tmp_path, monkeypatch):
    for name in ("mlx-cpu", "mlx-cuda-12"):
        info = tmp_path / f"{name.replace('-', '_')}-0.32.4.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.32.4\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="mlx-cpu and mlx-cuda-12 are both installed"):
        backend.require()


def test_no_backend_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlx.core", None)
    with pytest.raises(UsageError, match="install one backend"):
        backend.require()
