"""`emergence new` writes a folder that can be looked at and run, or nothing at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import small
import tiny
import yaml
from places import HYPOTHESES, python_path

from emergence import config as configs
from emergence.cli import main as cli
from emergence.cli import new
from emergence.config.schema import Layout
from emergence.report import records
from emergence.verdicts import load_predictions

ORIGINAL = {"examples": "parity", "classifier_emergence": "classifier_emergence"}


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    return int(ended.value.code or 0)


@pytest.mark.parametrize("template", new.TEMPLATES)
def test_what_is_written_says_the_same_as_its_template_under_a_new_name(
    template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run("new", "mine", "--from", template) == 0
    made, origin = tmp_path / "hypotheses" / "mine", HYPOTHESES / ORIGINAL[template]
    text = (made / "config.yaml").read_text(encoding="utf-8")
    ours, theirs = yaml.safe_load(text), yaml.safe_load((origin / "config.yaml").read_text(encoding="utf-8"))
    assert ours == theirs | {"name": "mine"}
    assert configs.load(made / "config.yaml").name == "mine"
    table, before = (load_predictions(f / "predictions.py") for f in (made, origin))
    assert tuple(table) == tuple(before)
    assert table.version == 1
    assert not list(made.glob("*indings*"))
    assert (made / "test_mine.py").read_text() == (origin / "test_claims.py").read_text()
    said = Layout.model_json_schema()["$defs"]["Parameters"]["properties"]["num_test"]["description"]
    assert f"  # {said}\n  num_test:" in text
    assert (tmp_path / "conftest.py").read_text().endswith('pytest_plugins = ["emergence.fixtures"]\n')
    assert "emergence run mine --dry-run" in capsys.readouterr().out
    assert _run("info", "mine") == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["parity"], "hypotheses/parity: is there already"),
        (["a name"], "'a name': a name has letters"),
        (["../mine"], "'../mine': a name has letters"),
        (["mine", "--from", "exampels"], "--from exampels; did you mean examples?; there are: examples, "),
    ],
)
def test_what_cannot_be_written_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], says: str,
) -> None:  # fmt: skip
    (tmp_path / "hypotheses" / "parity").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert _run("new", *arguments) == 2
    assert says in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_conftest_of_ones_own_is_left_and_the_line_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conftest.py").write_text("import os\n")
    assert _run("new", "mine") == 0
    assert 'add     pytest_plugins = ["emergence.fixtures"] to conftest.py' in capsys.readouterr().out
    assert (tmp_path / "conftest.py").read_text() == "import os\n"


@pytest.mark.slow
@pytest.mark.parametrize("template", new.TEMPLATES)
def test_what_is_written_runs_to_verdicts(
    template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"my_{template}"
    assert _run("new", name, "--from", template) == 0
    path, model = tmp_path / "hypotheses" / name / "config.yaml", tiny.write_model(tmp_path / "model")
    path.write_text(
        yaml.safe_dump(small.shortened(yaml.safe_load(path.read_text()), ORIGINAL[template], model))
    )
    assert _run("run", name) in (0, 1)
    (record,) = records.run_records(tmp_path / ".emergence" / "experiments" / name)
    assert record["status"] == "success"


@pytest.mark.slow
def test_two_of_them_are_collected_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [_run("new", name) for name in ("one", "two")] == [0, 0]
    command = [sys.executable, "-m", "pytest", "hypotheses", "-m", "slow", "--collect-only", "-q"]
    ran = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": python_path()}, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "test_claim[one-P1-even]" in ran.stdout
    assert "test_claim[two-P1-even]" in ran.stdout
