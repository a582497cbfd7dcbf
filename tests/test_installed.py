"""What somebody gets who installs it: what the wheel holds, what it needs, and that it runs there."""

from __future__ import annotations

import ast
import email
import importlib.metadata
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import bare
import pytest
import tiny
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from places import ROOT

EXTRAS = bare.DISTRIBUTION["optional-dependencies"]
NEVER_DECLARED = {"torch", "gguf"}
"""Asked for by an option, in an environment of their own, and by name where they are missing."""
TEN_LINES = """
import numpy as np
import pytest

@pytest.mark.slow
def test_the_answer_is_not_read_out_in_the_first_half(lens, tokenizer):
    reading = lens.read("7 * 8 = ", token_sets={"answer": "5"})
    mass = np.exp(reading.log_mass[: lens.n_layers // 2, 0, 0])
    assert mass.max() < 0.10, mass
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bare.source(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def wheel(tree: Path) -> Path:
    return bare.built("wheel", tree, tree.parent / "dist")


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def _names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def test_what_is_imported_is_declared() -> None:
    found = {name for path in ROOT.glob("emergence/**/*.py") for name in _imported(path)}
    asked = found - sys.stdlib_module_names - {"emergence"} - NEVER_DECLARED
    homes = importlib.metadata.packages_distributions()
    declared = _names(bare.DISTRIBUTION["dependencies"])
    optional = {
        name for extra, listed in EXTRAS.items() if extra not in ("test", "dev") for name in _names(listed)
    }
    missing = {
        name: homes.get(name, ["(not installed)"])
        for name in asked
        if not (declared | optional) & set(map(canonicalize_name, homes.get(name, [name])))
    }
    assert not missing
    assert {"jinja2", "yaml", "mlx"} <= asked


def test_the_name_of_the_project_is_the_same_everywhere() -> None:
    name = bare.DISTRIBUTION["name"]
    own = [r for listed in EXTRAS.values() for r in listed if r.startswith("emergence")]
    assert own
    assert {Requirement(text).name for text in own} == {name}
    pages = [ROOT / "README.md", ROOT / "run.py", *ROOT.glob("docs/*.md"), *ROOT.glob("emergence/**/*.py")]
    for path in pages:
        asked = re.findall(r"pip install (emergence[\w-]*)", path.read_text(encoding="utf-8"))
        assert set(asked) <= {name}, path


def test_the_wheel_has_types_templates_and_no_findings_of_ours(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (place,) = (name for name in names if name.endswith("METADATA"))
        said = email.message_from_bytes(archive.read(place))
    assert said["Name"] == bare.DISTRIBUTION["name"]
    assert said["Version"] == importlib.import_module("emergence").__version__
    assert said.get_all("Project-URL") is None  # there is no public home, and none is invented
    assert "emergence/py.typed" in names
    there = {Path(name).parts[3:] for name in names if name.startswith("emergence/cli/templates/")}
    files = {"config.yaml", "predictions.py", "test_claims.py"}
    assert there == {("classifier_emergence", f) for f in files} | {
        ("examples", f) for f in files | {"examples.jsonl"}
    }
    assert not [n for n in names if not n.startswith(("emergence/", "emergence_lm-"))]


# In an environment with what is declared, and nothing else


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bare.environment(tmp_path_factory.mktemp("bare") / "env", wheel)


def _ran(python: Path, place: Path, *arguments: str) -> str:
    ran = subprocess.run(
        [str(python), *arguments], cwd=place, env=bare.clean(), capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Somebody's repository: a model, the line in conftest.py, and ten lines of a hypothesis."""
    tiny.write_model(tmp_path / "model")
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["emergence.fixtures"]\n')
    folder = tmp_path / "claims" / "early"
    folder.mkdir(parents=True)
    vocabulary = "{add: [add], subtract: [subtract]}"
    (folder / "config.yaml").write_text(
        f"name: early\nmodel: {tmp_path / 'model'}\nparameters: {{task_vocabulary: {vocabulary}}}\n"
    )
    (folder / "test_early.py").write_text(TEN_LINES)
    return tmp_path


def test_the_verbs_start_without_any_extra(python: Path, tmp_path: Path) -> None:
    assert "emergence" in _ran(python, tmp_path, "-m", "emergence", "--version")
    assert "emergence run mine" in _ran(python, tmp_path, "-m", "emergence", "new", "mine")
    assert "parity" in _ran(python, tmp_path, "-m", "emergence", "info", "mine")
    with pytest.raises(AssertionError, match="No module named 'hypothesis'"):  # it is bare
        _ran(python, tmp_path, "-c", "import hypothesis")


@pytest.mark.slow
def test_ten_lines_in_somebody_elses_repository_are_judged(python: Path, foreign: Path) -> None:
    said = _ran(python, foreign, "-m", "pytest", "claims", "-m", "slow", "-p", "no:cacheprovider")
    assert "1 passed" in said


@pytest.mark.slow
def test_a_clone_is_collected_with_what_is_declared(python: Path, tree: Path) -> None:
    said = _ran(python, tree, "-m", "pytest", "hypotheses", "-m", "slow", "--collect-only", "-q")
    assert "test_claim[classifier_emergence-B1-add]" in said
    said = _ran(python, tree, "-m", "pytest", "hypotheses/gpt_oss", "-m", "slow", "-p", "no:cacheprovider")
    assert re.search(r"SKIPPED \[\d+\]", said)
    assert "gpt_oss: not measured: openai/gpt-oss-20b is not here" in said


@pytest.mark.slow
def test_an_sdist_passes_its_own_tests(tree: Path, tmp_path: Path) -> None:
    with tarfile.open(bare.built("sdist", tree, tmp_path)) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.glob("emergence_lm-*/")
    tests = [
        "tests/test_tour.py",
        "tests/test_docs.py",
        "tests/cli/test_new.py",
        "tests/analysis/test_masses.py",
    ]
    environment = {**bare.clean(), "PYTHONPATH": str(unpacked)}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=unpacked, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for path in (p.relative_to(ROOT) for p in (ROOT / "tests").rglob("*") if p.is_file()):
        assert "__pycache__" in path.parts or (unpacked / path).exists(), path
