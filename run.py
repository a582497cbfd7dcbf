#!/usr/bin/env python3
"""The front door: `python3 run.py hypotheses [pytest options]` and `python3 run.py tests [pytest options]`.

Needs Python 3.11 or newer and nothing else, from any folder. The first call makes `.venv` beside this file
and installs the pinned and hashed packages of `requirements/`; a second one starts at once. An environment
that was left half-made is made again. `--cuda` takes the CUDA backend; all that follows goes to pytest.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  (before anything that an older Python cannot run)
    sys.exit("run.py: needs Python 3.11 or newer; this is " + sys.version.split()[0])

import contextlib
import csv
import difflib
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "emergence.json"
LOG = VENV / "install.log"
JOBS = {
    "hypotheses": ["-m", "slow", "--store", str(ROOT / ".emergence")],
    "tests": ["-n", "auto", "--maxprocesses", "4", "--dist", "loadfile"],  # `-n 0`: in one process
}
USAGE = "usage: python3 run.py [--cuda] hypotheses|tests [pytest options]"

# What pip says -> what a person can do about it; the first that matches.
REASONS = {
    r"No space left on device": "the disk is full; the packages need about 2 GB (10 GB with --cuda)",
    r"DO NOT MATCH THE HASHES": "a package is not what requirements/ pins; is the index to be trusted?",
    r"NewConnectionError|NameResolution|ConnectTimeout|Connection(Reset|Refused)?Error|Max retries|"
    r"ProxyError|Network is unreachable|Temporary failure in name resolution|SSLError|ReadTimeout": (
        "the package index cannot be reached; connect to the network once, or point PIP_INDEX_URL at a mirror"
    ),
    r"No matching distribution|Could not find a version": (
        "a package is not to be had for this Python and machine, or the package index cannot be reached; "
        "Python 3.11 to 3.14 on Linux (x86-64, aarch64) or macOS 14 (Apple silicon) have them all"
    ),
}


class Refused(Exception):
    """One line for the person who typed the command."""


def main(arguments: list[str]) -> None:
    """Prepare the environment, then become pytest."""
    job, options, cuda = _parse(arguments)
    requirements = _requirements(cuda)
    with _lock() as lock:
        if not _ready(requirements):
            lock(exclusive=True)
            if not _ready(requirements):  # another run.py may have made it while this one waited
                _prepare(requirements)
            lock(exclusive=False)
        command = [str(PYTHON), "-m", "pytest", str(ROOT / job), *JOBS[job], *options]
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "__PYVENV_LAUNCHER__")}
        os.execve(PYTHON, command, {**environment, "VIRTUAL_ENV": str(VENV)})


def _parse(arguments: list[str]) -> tuple[str, list[str], bool]:
    cuda = arguments[:1] == ["--cuda"]
    job, *options = arguments[cuda:] or [""]
    if job in ("-h", "--help"):
        print(f"{__doc__}\n{USAGE}")
        sys.exit()
    if job not in JOBS:
        near = difflib.get_close_matches(job, JOBS)
        raise Refused(
            f"{f'no job {job!r}' if job else 'no job given'}{f', {near[0]}?' if near else ''}; {USAGE}"
        )
    return job, [option for option in options if option != "--cuda"], cuda or "--cuda" in options


def _requirements(cuda: bool) -> Path:
    """The list of packages for this machine, or why there is none."""
    machine = f"{platform.system()} {platform.machine()}"
    if sys.platform == "darwin":
        if platform.machine() != "arm64":
            raise Refused("MLX on macOS needs Apple silicon; on Linux any x86-64 or aarch64 will do")
        if cuda:
            raise Refused("--cuda: macOS has no CUDA; leave it out, Metal is used")
        name = "metal"
    elif sys.platform == "linux":
        libc, version = platform.libc_ver()
        if libc == "glibc" and tuple(map(int, version.split(".")[:2])) < (2, 35):
            raise Refused(
                f"MLX needs glibc 2.35 or newer (Debian 12, Ubuntu 22.04); this system has {version}"
            )
        name = "cuda" if cuda else "cpu"
    else:
        raise Refused(f"{machine} has no MLX backend; use Linux, macOS, or WSL on Windows")
    return ROOT / "requirements" / f"{name}.txt"


@contextlib.contextmanager
def _lock() -> Iterator:
    """A lock on this folder, without a file: shared while pytest runs, exclusive while `.venv` is made."""
    import fcntl

    handle = os.open(ROOT, os.O_RDONLY)
    os.set_inheritable(handle, True)  # pytest goes on holding it

    def lock(exclusive: bool) -> None:
        mode = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        try:
            fcntl.flock(handle, fcntl.LOCK_UN)  # two that wait to exchange theirs would wait for ever
            fcntl.flock(handle, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another run.py is at work in this folder; waiting for it")
            fcntl.flock(handle, mode)
        except OSError:
            _say("this file system has no locks; start only one run.py at a time")

    lock(exclusive=False)
    try:
        yield lock
    finally:
        os.close(handle)


def _ready(requirements: Path) -> bool:
    """Whether `.venv` is complete: stamped for these requirements, every package there, no file cut short.

    One that run.py did not make (no stamp) is taken as it is if it has every package.
    """
    if not os.access(PYTHON, os.X_OK):
        return False
    wanted, found = _pinned(requirements), _installed()
    if not STAMP.exists():
        return found.keys() >= wanted.keys() | {"emergence-lm"}
    whole = all(name in found and _version(found[name]) == version for name, version in wanted.items())
    return whole and _stamp() == _wanted_stamp(requirements) and all(map(_intact, found.values()))


def _pinned(requirements: Path) -> dict[str, str]:
    """Name (normalised) -> version of each pinned package."""
    lines = re.findall(r"^([\w.-]+)==([^\s;]+)", requirements.read_text(encoding="utf-8"), re.MULTILINE)
    return {_normal(name): version for name, version in lines}


def _installed() -> dict[str, Path]:
    """Name (normalised) -> metadata folder of each installed package."""
    folders = VENV.glob("lib/python*/site-packages/*.dist-info")
    return {_normal(folder.name.split("-")[0]): folder for folder in folders}


def _version(metadata: Path) -> str:
    return metadata.name.removesuffix(".dist-info").split("-")[1]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _intact(metadata: Path) -> bool:
    """Whether every file of a package has the size that its RECORD promises: about 0.1 s for all packages."""
    try:
        with (metadata / "RECORD").open(newline="", encoding="utf-8") as file:
            rows = [(name, size) for name, _, size in csv.reader(file) if size]
        return all(os.stat(metadata.parent / name).st_size == int(size) for name, size in rows)
    except (OSError, ValueError):
        return False


def _wanted_stamp(requirements: Path) -> dict[str, str]:
    """What the environment depends on; the folder too, since an environment cannot be moved."""
    decides = [requirements.read_bytes(), sys.version.encode(), str(ROOT).encode()]
    return {
        "packages": hashlib.sha256(b"\0".join(decides)).hexdigest(),
        "project": hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest(),
    }


def _stamp() -> dict[str, str]:
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _prepare(requirements: Path) -> None:
    """Make the environment, or only what of it is missing; stamped last."""
    started, wanted = time.monotonic(), _wanted_stamp(requirements)
    for module, package in (("venv", "python3-venv"), ("ensurepip", "python3-venv")):
        if importlib.util.find_spec(module) is None:
            raise Refused(f"this Python has no `{module}`; on Debian and Ubuntu: sudo apt install {package}")
    found = _installed()
    kept = _stamp().get("packages") == wanted["packages"] and os.access(PYTHON, os.X_OK)
    if not (kept and all(map(_intact, found.values())) and found.keys() >= _pinned(requirements).keys()):
        _make(requirements)
    _say("installing emergence itself")
    _pip("--no-deps", "--no-build-isolation", "--no-index", "--editable", str(ROOT))
    _write(STAMP, wanted)
    _say(f"ready after {time.monotonic() - started:.0f} s\n")


def _make(requirements: Path) -> None:
    """A new environment with every pinned package."""
    if VENV.exists():
        _say(f"{VENV} is not complete; making it again")
    VENV.mkdir(exist_ok=True)
    _write(STAMP, {})  # from here on it counts as run.py's own, half-made
    for path in VENV.iterdir():
        if path != STAMP:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    _say(f"making {VENV} with Python {platform.python_version()}")
    made = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True)
    if made.returncode:
        raise Refused(f"`python3 -m venv` failed: {_last_line(made.stdout + made.stderr)}")
    count = len(_pinned(requirements))
    _say(f"installing {count} packages from {requirements.relative_to(ROOT)}")
    _pip(
        "--no-deps",
        "--require-hashes",
        "--only-binary",
        ":all:",
        "--requirement",
        str(requirements),
        count=count,
    )


def _pip(*arguments: str, count: int = 0) -> None:
    """`pip install`, its output in install.log; the reason in one line where it fails."""
    command = [
        str(PYTHON),
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        "--retries",
        "3",
    ]
    unwanted = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PYTHONPATH", "PYTHONHOME")
    environment = {k: v for k, v in os.environ.items() if k not in unwanted}
    done, output = 0, []
    with subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
    ) as process:
        for line in process.stdout:
            output.append(line)
            done += line.startswith("Collecting ")
            if count and sys.stderr.isatty():
                print(
                    f"\r  {min(done, count)} of {count}", end="\n" if done == count else "", file=sys.stderr
                )
    text = "".join(output)
    with LOG.open("a", encoding="utf-8") as file:
        file.write(text)
    if process.returncode:
        reason = next((why for pattern, why in REASONS.items() if re.search(pattern, text)), _last_line(text))
        raise Refused(f"{reason} (all that pip said: {LOG})")


def _write(path: Path, content: dict) -> None:
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    aside.replace(path)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1].strip()


def _say(text: str) -> None:
    print(f"run.py: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Refused as refused:
        _say(str(refused))
        sys.exit(2)
    except OSError as error:
        sys.exit(f"run.py: {error.filename or ROOT}: {error.strerror}; is the disk full or read-only?")
    except KeyboardInterrupt:
        sys.exit("\nrun.py: stopped; the next call goes on")
