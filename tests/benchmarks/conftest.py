"""What every measurement needs: the embedded model as a float32 folder, and what it was measured on."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from emergence import LogitLens, load
from emergence.backend import openblas as blas
from emergence.models import loading as models
from emergence.store.store import Store


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model in float32: the file that ours and every peer load."""
    folder = tmp_path_factory.mktemp("model")
    source = models.resolve(models.EMBEDDED, Store(tmp_path_factory.mktemp("store"))).folder
    model, _ = load(source)
    weights = dict(sorted(tree_flatten(model.parameters())))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})
    settings = json.loads((source / "config.json").read_text())
    settings.pop("quantization")
    (folder / "config.json").write_text(json.dumps(settings | {"torch_dtype": "float32"}))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(source / name, folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(model_folder: Path) -> Any:
    return load(model_folder)[1]


@pytest.fixture(scope="session")
def lens(model_folder: Path) -> LogitLens:
    return LogitLens(load(model_folder)[0])


@pytest.fixture(autouse=True)
def measured_on(benchmark: Any) -> None:
    """Device, BLAS, threads and versions, into `--benchmark-json`."""
    packages = ("mlx", "mlx-lm", "numpy", "scipy-openblas32")
    benchmark.extra_info |= {
        "device": str(mx.default_device()),
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "blas": str(blas.install()),
        "threads": {n: os.environ[n] for n in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS") if n in os.environ},
        "kernels": os.environ.get("OPENBLAS_CORETYPE", "chosen by OpenBLAS"),
        "load": os.getloadavg()[0],
        "versions": {p: importlib.metadata.version(p) for p in packages if _has(p)},
    }


def _has(package: str) -> bool:
    try:
        return bool(importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return False
