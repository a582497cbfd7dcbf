"""`emergence judge`: one line from somebody's folder to a table and a report."""

from __future__ import annotations

import shutil

import pytest
import trained

from emergence.cli.main import main

CLAIMS = """
from emergence import Prediction
VERSION = 1
READ = {"family": "answer", "band": "intermediate", "style": "symbolic"}
PREDICTIONS = (
    Prediction("B", "no answer in the base model", "base", **READ, test="no classifier"),
    Prediction("P", "an answer emerges", "sft", **READ, test="classifier"),
    Prediction("G", "a gain", "sft", **READ, test="predicts correctness", against=("shuffled",)),
    Prediction("O", "another arm", "classified", **READ, test="classifier"),
)
"""


@pytest.fixture(scope="module")
def place(trained_folder, tmp_path_factory):
    """A folder with an experiment that has trained nothing, and somebody's series."""
    place = tmp_path_factory.mktemp("judge")
    folder = place / "hypotheses" / "tiny"
    folder.mkdir(parents=True)
    shutil.copy(trained_folder / "config.yaml", folder)
    (folder / "predictions.py").write_text(CLAIMS)
    run = trained.experiment(trained_folder).runs[0]
    for step in (2, 4):
        shutil.copytree(run.checkpoints[step], place / "theirs" / f"step-{step}")
    return place


@pytest.fixture
def series(place, trained_folder, monkeypatch):
    monkeypatch.chdir(place)
    return trained_folder / "model"


def judge(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["judge", *map(str, arguments), "--experiment", "tiny", "--store", "store"])
    return ended.value.code


@pytest.mark.usefixtures("quick")
def test_a_series_is_judged_by_the_claims_that_speak_of_it(series, capsys):
    assert judge("theirs", "--base", series) == 0
    told = capsys.readouterr().out
    assert "B ? inconclusive" in told
    assert "P ? inconclusive" in told
    assert "not measurable with this series alone: G, O" in told
    assert "report.html" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("nowhere", "--base", "{base}"),
            "emergence: CHECKPOINTS: training.training_methods.sft.checkpoints: ",
        ),
        (("theirs", "--base", "[]"), "'[]' is neither"),
        (("theirs", "--base", "no model"), "'no model' is neither"),
        (("theirs", "--base", "{base}", "--arm", "dpo"), "--arm dpo: no claim of tiny is about it alone"),
        (("theirs",), "Missing option '--base'"),
    ],
    ids=["folder", "list", "base", "arm", "none"],
)
def test_bad_input_is_one_line(series, capsys, arguments, message):
    code = judge(*(a.format(base=series) for a in arguments))
    told = capsys.readouterr().err.strip().splitlines()
    assert code in (2, 3)
    assert message in told[-1]
    assert "Traceback" not in "".join(told)
