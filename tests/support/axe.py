"""axe-core, the accessibility checker, of the npm registry: fetched for a slow test, kept nowhere."""

from __future__ import annotations

import functools
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import chromium
import pytest

VERSION = "4.14.1"


@functools.cache
def source() -> str:
    """The script; skips the test, with the reason, where the registry cannot be reached."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run(
                ["npm", "pack", "--silent", f"axe-core@{VERSION}"],
                cwd=folder, check=True, capture_output=True, timeout=120,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"axe-core {VERSION} cannot be had from npm: {error}")
        with tarfile.open(Path(folder) / f"axe-core-{VERSION}.tgz") as packed:
            script = packed.extractfile("package/axe.min.js")
            assert script
            return script.read().decode()


def violations(page: chromium.Page) -> list[Any]:
    """Every rule that the open page breaks: id, how bad, where, why."""
    page.js(f"{source()};0")
    found: list[Any] = page.js(
        "axe.run(document).then((r) => r.violations.map((v) => [v.id, v.impact,"
        " v.nodes.slice(0, 3).map((n) => [n.target.join(' '), n.failureSummary])]))"
    )
    return found
