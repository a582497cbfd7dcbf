"""One tiny model of two blocks, and rows for it."""

from __future__ import annotations

from pathlib import Path

import mlx_lm
import pytest
import tiny
import tiny_training

from emergence.lens.logit_lens import LogitLens
from emergence.training.loop import Trainer


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("tiny") / "model", n_layers=2)


@pytest.fixture(scope="session")
def loaded(folder):
    return mlx_lm.load(str(folder))


@pytest.fixture(scope="session")
def tokenizer(loaded):
    return loaded[1]


@pytest.fixture(scope="session")
def data(tokenizer):
    """Rows to learn from, rows to score."""
    return tiny_training.rows(tokenizer, 20, 0), tiny_training.rows(tokenizer, 6, 1)


@pytest.fixture(scope="session")
def lens(loaded):
    return LogitLens(*loaded)


@pytest.fixture(scope="session")
def trainer(lens, data):
    """A trainer of the tiny model, on the tiny rows and with seed 3 where nothing else is given."""

    def made(workdir: Path, arm=None, **given) -> Trainer:
        rows, valid = data
        common = {"seed": 3, "rows": rows, "valid": valid, "arm": arm or tiny_training.arm()}
        return Trainer(lens=lens, workdir=workdir, **common | given)

    return made
