"""Models stage: how much memory this process may have.

Out: bytes, the least of what the machine has and of what a container (cgroup) and the shell (`ulimit -v`)
allow.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def limit(cgroups: Path = _CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes that this process may hold at most."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    limits = [physical, *([soft] if soft != resource.RLIM_INFINITY else []), *_cgroup(cgroups, membership)]
    return min(limit for limit in limits if limit > 0)


def _cgroup(cgroups: Path, membership: Path) -> list[int]:
    """The limits of the process's own group and of all above it, versions 1 and 2; none outside Linux."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "memory" not in controllers.split(","):
            continue
        root, name = (cgroups / "memory", "memory.limit_in_bytes") if controllers else (cgroups, "memory.max")
        group = root / path.lstrip("/")
        for place in (group, *group.parents):
            if place == root.parent:
                break
            try:
                found.append(int((place / name).read_text(encoding="utf-8")))
            except (OSError, ValueError):  # no such file here, or "max"
                continue
    return found
