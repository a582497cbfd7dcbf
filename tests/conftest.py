"""What all tests share: shape annotations, which are checked here alone, and one trained experiment."""

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

_hook = install_import_hook("emergence", "beartype.beartype")


@pytest.fixture(scope="session")
def trained_folder(tmp_path_factory) -> Path:
    """The folder of a tiny experiment, trained and read by the worker that asks first; see `trained.py`."""
    import trained

    base = tmp_path_factory.getbasetemp()
    return trained.made_once(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)
