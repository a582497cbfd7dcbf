"""The project as somebody else gets it: a wheel, an sdist, and an environment with what it declares.

Nothing is downloaded: the packages are those of this environment, linked one by one, so that a package that
is imported and not declared is missing there as it would be on a new machine.
"""

from __future__ import annotations

import importlib.metadata as installed
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from places import ROOT

DISTRIBUTION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_LEFT_OUT = shutil.ignore_patterns(
    ".*", "__pycache__", "build", "dist", "*.egg-info", "peers", "node_modules", "site"
)


def source(place: Path) -> Path:
    """A copy of the repository, without what a build must not find or leave in it."""
    return Path(shutil.copytree(ROOT, place / "source", ignore=_LEFT_OUT, symlinks=True))


def built(kind: str, tree: Path, place: Path) -> Path:
    """The wheel or sdist (`kind`) of a source tree, built by its own backend, without a network."""
    code = f"import sys; from setuptools import build_meta as b; print(b.build_{kind}(sys.argv[1]))"
    place.mkdir(exist_ok=True)
    ran = subprocess.run([sys.executable, "-c", code, str(place)], cwd=tree, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return place / ran.stdout.splitlines()[-1]


def needed(requirements: Iterable[str]) -> set[str]:
    """The names of these requirements and of all that they need in turn, on this machine."""
    found: set[str] = set()
    wanted = [Requirement(text) for text in requirements]
    while wanted:
        one = wanted.pop()
        name, extras = canonicalize_name(one.name), one.extras or {""}
        if one.marker and not any(one.marker.evaluate({"extra": extra}) for extra in ("", *one.extras)):
            continue
        if name in found and not one.extras:
            continue
        found.add(name)
        try:
            inner = [Requirement(text) for text in installed.requires(name) or ()]
        except installed.PackageNotFoundError:
            raise AssertionError(f"{name} is declared and not installed here; make .venv again") from None
        kept = [r for r in inner if not r.marker or any(r.marker.evaluate({"extra": e}) for e in extras)]
        for requirement in kept:
            requirement.marker = None
        wanted += kept
    return found


def environment(place: Path, wheel: Path, extras: Iterable[str] = ()) -> Path:
    """An environment with this wheel, what it declares, and `extras` (requirements); its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    (packages,) = place.glob("lib/python*/site-packages")
    for name in needed([*DISTRIBUTION["dependencies"], *extras]):
        files = installed.files(name) or []
        for top in {path.parts[0] for path in files} - {"..", "__pycache__"}:
            origin = Path(str(installed.distribution(name).locate_file(top)))
            if not (packages / top).exists():
                os.symlink(origin, packages / top)
    shutil.unpack_archive(wheel, packages, "zip")
    return place / "bin" / "python"


def clean() -> dict[str, str]:
    """The variables of this process, without those that would lead Python to other packages."""
    return {k: v for k, v in os.environ.items() if not re.match(r"PYTHON|PYTEST|VIRTUAL_ENV", k)}
