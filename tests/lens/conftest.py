"""A tiny llama of five layers, and a lens on it."""

from __future__ import annotations

import mlx.nn as nn
import pytest
import tiny

from emergence.lens.logit_lens import LogitLens


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return tiny.model(n_layers=5)


@pytest.fixture(scope="module")
def lens(model: nn.Module) -> LogitLens:
    return LogitLens(model)
