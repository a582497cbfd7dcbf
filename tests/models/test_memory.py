"""Memory: the least of the machine's, the container's and the shell's."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from emergence.models import memory

PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def group(tmp_path: Path, membership: str, **limits: str) -> int:
    (tmp_path / "cgroup").write_text(membership)
    for name, limit in limits.items():
        place = tmp_path / "fs" / name.replace("__", "/")
        place.mkdir(parents=True, exist_ok=True)
        kind = "memory.limit_in_bytes" if name.startswith("memory") else "memory.max"
        (place / kind).write_text(limit)
    return memory.limit(tmp_path / "fs", tmp_path / "cgroup")


@pytest.mark.parametrize(
    ("membership", "limits", "expected"),
    [
        ("0::/jobs/one\n", {"jobs__one": "1000\n"}, 1000),
        ("0::/jobs/one\n", {"jobs__one": "max\n", "jobs": "2000\n"}, 2000),
        ("0::/jobs/one\n", {"jobs__one": "3000\n", "jobs": "2000\n"}, 2000),
        ("0::/\n", {}, None),
        ("5:cpu,memory:/job\n3:cpu:/other\n", {"memory__job": "4000\n"}, 4000),
        ("5:memory:/job\n", {"memory__job": "9223372036854771712\n"}, None),
        ("nonsense\n", {}, None),
    ],
)  # fmt: skip
def test_a_container_limits_what_its_group_and_those_above_allow(
    tmp_path: Path, membership: str, limits: dict[str, str], expected: int | None
) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    everything = PHYSICAL if soft == resource.RLIM_INFINITY else min(PHYSICAL, soft)
    assert group(tmp_path, membership, **limits) == (expected or everything)


def test_without_groups_the_machine_counts(tmp_path: Path) -> None:
    assert memory.limit(tmp_path / "none", tmp_path / "none") <= PHYSICAL


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v is not kept elsewhere")
def test_ulimit_counts() -> None:
    code = "from emergence.models import memory; print(memory.limit())"
    script = f"ulimit -v 4000000 && exec {sys.executable} -c '{code}'"
    told = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert int(told.stdout) == min(PHYSICAL, 4_000_000 * 1024)
