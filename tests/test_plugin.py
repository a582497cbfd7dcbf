"""What a verdict becomes in pytest: real hooks on real verdicts; only the training is left out."""

from __future__ import annotations

import html
import json
import re
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import mlx.core
import numpy.fft
import pytest
import scipy.special
import scipy.stats
import small
from places import python_path

from emergence.config import loading as config
from emergence.report import records, results, tables
from emergence.verdicts import findings
from emergence.verdicts.predictions import load_predictions
from emergence.verdicts.verdict import Effect, Verdict

pytest_plugins = ["pytester"]
ONCE = (mlx.core, numpy.fft, scipy.special, scipy.stats)
"""A process loads these once: the runs within this one must find them there, and theirs are forgotten."""

CONFIG = """
name: small
model: smollm2-135m-instruct
training: {max_steps: 2, checkpoint_steps: [0, 2], training_methods: {sft: {method: sft}}}
parameters:
  operations: [add, subtract]
  num_samples: 40
  task_vocabulary: {add: [add], subtract: [subtract]}
"""
PREDICTIONS = """
from emergence import Prediction
VERSION = 1
PREDICTIONS = (
    Prediction("E", "it emerges", "sft", "words", "intermediate", "symbolic", "classifier"),
    Prediction("C", "it does not", "shuffled", "words", "intermediate", "symbolic", "no classifier",
               control=True),
)
"""
TESTS = """
import pytest

@pytest.mark.prediction("E")
def test_it_emerges(verdict):
    assert verdict.supported, verdict

@pytest.mark.prediction("C")
def test_control(verdict):
    assert verdict.supported, verdict
"""
OPERATIONS = ("add", "subtract")
CONFTEST = """
import json
from types import SimpleNamespace
import pytest
from emergence.verdicts import Verdict

pytest_plugins = ["emergence.fixtures"]

@pytest.fixture(scope="session")
def verdicts(experiment):
    experiment.source = SimpleNamespace(hash="weights")
    rows = json.loads((experiment.folder / "verdicts.json").read_text())
    return {(row["prediction"], row["class"]): Verdict.from_row(row) for row in rows}
"""


def verdict(prediction: str, operation: str, outcome: str) -> Verdict:
    return Verdict(
        prediction, operation, "a claim", outcome, f"{outcome} by 3.1 %", "sft", "symbolic", "intermediate",
        Effect("own-class mass", "words"), control=prediction == "C",
    )  # fmt: skip


@pytest.fixture
def folder(pytester):
    pytester.makeconftest(CONFTEST)
    pytester.makeini("[pytest]\nmarkers = slow")
    place = pytester.path / "small"
    place.mkdir()
    for name, text in {"config.yaml": CONFIG, "predictions.py": PREDICTIONS, "test_small.py": TESTS}.items():
        (place / name).write_text(text)
    return place


def judge(folder, add: str, subtract: str = "supported", control: str = "supported") -> list[Verdict]:
    rows = [verdict("E", "add", add), verdict("E", "subtract", subtract)]
    rows += [verdict("C", "add", control), verdict("C", "subtract", "supported")]
    (folder / "verdicts.json").write_text(json.dumps([v.as_row() for v in rows]))
    return rows


def record(folder, rows: list[Verdict], weights: str = "weights") -> None:
    settings, table = config.load(folder / "config.yaml"), load_predictions(folder / "predictions.py")
    findings.record(folder, settings, weights, table, rows)


def test_supported_passes_and_falsified_fails_with_the_evidence(pytester, folder):
    judge(folder, "falsified")
    result = pytester.runpytest_inprocess("small")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        ["*AssertionError: <E?add? falsified>", "*- verdict -*", "  falsified by 3.1 %"]
    )
    assert result.ret == 1


@pytest.mark.parametrize(
    ("outcome", "options", "code"),
    [
        pytest.param("falsified", [], 1, id="falsified"),
        pytest.param("supported", [], 0, id="supported", marks=pytest.mark.slow),
        pytest.param("inconclusive", [], 0, id="inconclusive", marks=pytest.mark.slow),
        pytest.param("inconclusive", ["--strict-verdicts"], 1, id="strict", marks=pytest.mark.slow),
    ],
)
def test_xdist_ends_as_one_process_does(pytester, folder, monkeypatch, outcome, options, code):
    judge(folder, outcome)
    monkeypatch.setenv("PYTHONPATH", python_path())
    result = pytester.runpytest_subprocess("small", "-n", "2", "-p", "no:cacheprovider", *options)
    assert result.ret == code
    lines = {"falsified": ["*AssertionError: <E?add? falsified>"], "inconclusive": ["*inconclusive*"]}
    result.stdout.fnmatch_lines(lines.get(outcome, ["*4 passed*"]))


def test_inconclusive_is_an_outcome_of_its_own_and_no_failure(pytester, folder):
    judge(folder, "inconclusive")
    result = pytester.runpytest_inprocess("small")
    result.stdout.fnmatch_lines(["*1 inconclusive*"])
    assert result.ret == 0


def test_inconclusive_fails_where_verdicts_are_strict(pytester, folder):
    judge(folder, "inconclusive")
    assert pytester.runpytest_inprocess("small", "--strict-verdicts").ret == 1


def test_a_refutation_on_record_is_expected(pytester, folder):
    record(folder, judge(folder, "falsified"))
    result = pytester.runpytest_inprocess("small")
    result.assert_outcomes(passed=3, xfailed=1)
    assert result.ret == 0


@pytest.mark.parametrize("now", ["supported", "inconclusive"])
def test_the_day_a_refutation_on_record_changes_the_suite_is_red(pytester, folder, now):
    record(folder, judge(folder, "falsified"))
    judge(folder, now)
    assert pytester.runpytest_inprocess("small").ret == 1


def test_a_refutation_is_not_expected_under_other_settings(pytester, folder):
    record(folder, judge(folder, "falsified"))
    assert pytester.runpytest_inprocess("small", "--seeds", "2").ret == 1


def test_a_refutation_is_not_expected_of_other_weights(pytester, folder):
    record(folder, judge(folder, "falsified"), weights="others")
    assert pytester.runpytest_inprocess("small").ret == 1


def test_recording_with_other_settings_is_refused_before_any_test(pytester, folder):
    record(folder, judge(folder, "falsified"))
    before = (folder / "findings.json").read_bytes()
    result = pytester.runpytest_inprocess("small", "--record-findings", "--seeds", "2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*is on record with arms.sft.seeds ?0, 1, 2?, not ?0, 1?; *run with what*"])
    assert (folder / "findings.json").read_bytes() == before
    assert pytester.runpytest_inprocess("small", "--record-findings").ret == 0


def test_predictions_that_changed_since_they_were_recorded_end_before_any_test(pytester, folder):
    record(folder, judge(folder, "falsified"))
    (folder / "predictions.py").write_text(PREDICTIONS.replace("it emerges", "it shows"))
    result = pytester.runpytest_inprocess("small")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*changed since version 1 was recorded*raise VERSION*"])


def test_a_failed_control_makes_every_other_verdict_an_error(pytester, folder):
    judge(folder, "supported", control="falsified")
    result = pytester.runpytest_inprocess("small")
    result.assert_outcomes(errors=2, failed=1, passed=1)
    result.stdout.fnmatch_lines(["*control C?add? failed*"])


def test_the_verdict_is_a_property_of_the_junit_report(pytester, folder):
    judged = judge(folder, "supported")
    pytester.runpytest_inprocess("small", "--junitxml=out.xml", "-o", "junit_family=xunit1")
    text = (pytester.path / "out.xml").read_text()
    assert text.count('<property name="verdict"') == 4
    found = [json.loads(p.get("value")) for p in ElementTree.fromstring(text).iter("property")]
    assert {(v["prediction"], v["class"]) for v in found} == {(p, o) for p in "EC" for o in OPERATIONS}
    wanted = judged[0].as_row().keys() - {"details"}
    assert all(v.keys() == wanted and v["statistic"] == "own-class mass" for v in found)


def test_a_config_that_cannot_be_meant_ends_in_one_line_before_any_test(pytester, folder):
    (folder / "config.yaml").write_text(CONFIG.replace("max_steps: 2", "max_steps: 1"))
    result = pytester.runpytest_inprocess("small")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stdout.str() + result.stderr.str()
    assert "checkpoint_steps" in text
    assert "Traceback" not in text


def test_one_config_is_not_given_to_two_experiments(pytester, folder):
    other = pytester.path / "other"
    other.mkdir()
    for file in folder.iterdir():
        (other / file.name.replace("test_small", "test_other")).write_text(file.read_text())
    judge(folder, "supported")
    result = pytester.runpytest_inprocess("--config", str(folder / "config.yaml"), "--import-mode=importlib")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--config is for one experiment*"])


def test_two_experiments_of_one_name_would_overwrite_each_other(pytester, folder):
    shutil.copytree(folder, pytester.path / "other")
    result = pytester.runpytest_inprocess("--import-mode=importlib")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*name: small: */other and */small would overwrite*rename one"])


def test_a_repository_that_uses_none_of_it_notices_nothing(pytester):
    pytester.makepyfile("""
        import pytest

        @pytest.mark.prediction("weather")
        def test_of_their_own():
            pass
    """)
    result = pytester.runpytest_inprocess("-W", "ignore")
    result.assert_outcomes(passed=1)
    assert "BLAS" not in result.stdout.str()


ALL = "def test_claim(verdict):\n    assert verdict.supported, verdict\n"


def test_the_table_is_the_tests(pytester, folder):
    judge(folder, "supported", subtract="falsified")
    (folder / "test_small.py").write_text(ALL)
    result = pytester.runpytest_inprocess("small", "-v")
    result.assert_outcomes(passed=3, failed=1)
    for id_ in ("small-E-add", "small-E-subtract", "small-C-add", "small-C-subtract"):
        assert f"::test_claim[{id_}]" in result.stdout.str()
    only = pytester.runpytest_inprocess("small", "-k", "E-add")
    only.assert_outcomes(passed=1, deselected=3)


def test_a_row_that_no_test_asserts_ends_the_session_before_any_test(pytester, folder):
    judge(folder, "supported")
    (folder / "test_small.py").write_text(TESTS.split('@pytest.mark.prediction("C")')[0])
    result = pytester.runpytest_inprocess("small")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*small/predictions.py: no test asserts C; add `def test_claim(verdict)*"])
    assert pytester.runpytest_inprocess("small/test_small.py").ret == 0  # one file


def test_a_mark_that_names_no_row_is_told_which_there_are(pytester, folder):
    judge(folder, "supported")
    (folder / "test_small.py").write_text(ALL + TESTS.replace('"E"', '"Z"'))
    result = pytester.runpytest_inprocess("small")
    result.stdout.fnmatch_lines(["*mark the test with prediction(ID), ID one of E, C; it has Z*"])
    assert result.ret == 1


def test_a_repository_that_did_not_ask_has_none_of_the_fixtures(pytester):
    pytester.makepyfile("def test_of_their_own(model, store, lens):\n    pass\n")
    result = pytester.runpytest_inprocess("-W", "ignore")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'model' not found*"])


def test_where_every_claim_is_left_out_the_last_line_says_how_to_run_them(pytester, folder):
    (folder / "test_small.py").write_text("import pytest\npytestmark = pytest.mark.slow\n" + ALL)
    result = pytester.runpytest_inprocess("small", "-m", "not slow")
    result.stdout.fnmatch_lines(["4 claims were left out: they train a model; `-m slow` runs them"])


def test_a_model_that_cannot_be_had_ends_the_session_in_one_line(pytester, folder):
    (folder / "test_small.py").write_text(ALL)
    result = pytester.runpytest_inprocess("small", "--model", "smollm2-135m-instrct")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*model 'smollm2-135m-instrct' is neither*"])


def test_every_run_leaves_a_record(pytester, folder):
    judge(folder, "falsified")
    pytester.runpytest_inprocess("small")
    (path,) = pytester.path.glob(".emergence/experiments/small/results/run_*.json")
    assert json.loads(path.read_text())["status"] == "success"


def test_options_of_the_host_stay_its_own(pytester, folder):
    pytester.makeconftest(
        CONFTEST
        + """
def pytest_addoption(parser):
    parser.addoption("--model", default="theirs")
"""
    )
    pytester.makepyfile("""
        def test_of_their_own(pytestconfig):
            assert pytestconfig.getoption("model") == "ours"
            assert pytestconfig.getoption("--model") == "ours"
    """)
    judge(folder, "supported")
    result = pytester.runpytest_inprocess("--model", "ours", "--emergence-model=a/b", "--steps=1")
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(["small: model a/b,*to step 1*"])
    asked = pytester.runpytest_inprocess("--help").stdout
    asked.fnmatch_lines(["*--emergence-steps*, --steps*N*"])  # argparse of 3.13 writes the value once
    asked.no_fnmatch_line("*--emergence-model*, --model*")


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """The experiments of this repository on a tiny model, and a store that one xdist run has filled."""
    place = tmp_path_factory.mktemp("short")
    small.hypotheses(place)
    return place


def _main_job(pytester, place: Path, *options: str):
    """`pytest hypotheses/parity -m slow`, in a process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("PYTHONPATH", python_path())
        command = (
            sys.executable,
            "-m",
            "pytest",
            "hypotheses/parity",
            "-m",
            "slow",
            "-p",
            "no:cacheprovider",
        )
        return pytester.run(*command, "--import-mode=importlib", *options)


@pytest.mark.slow
def test_xdist_ends_with_the_table_the_properties_and_the_exit_code_of_one_process(pytester, short):
    ran = _main_job(pytester, short, "-n", "2", "--junitxml=out.xml")
    assert ran.ret == 0, "nothing is judged false of a tiny model that learned nothing"
    folder = records.latest(short / ".emergence", "parity")
    _, judged = results.read_verdicts(folder)
    ran.stdout.fnmatch_lines(["=* parity =*", *tables.plain(tables.verdict_report(judged)).splitlines()[:5]])
    ran.stdout.fnmatch_lines(["step  even *", f"report: {folder.relative_to(short)}/report.html"])
    told = re.findall(r'name="verdict" value="([^"]*)"', (short / "out.xml").read_text())
    told = [json.loads(html.unescape(text)) for text in told]
    assert {(v["prediction"], v["class"]): v["estimate"] for v in told} == {
        (v.prediction, v.cls): v.estimate for v in judged
    }
    assert len(told) == len(judged) == 6
    ran.stdout.no_fnmatch_line("*Warning*")


def test_xdist_tells_a_wrong_option_in_one_line(pytester, short):
    ran = _main_job(pytester, short, "-n", "1", "--param", "training.lora.rnk=8")
    assert ran.ret == 1
    ran.stdout.fnmatch_lines(["-p training.lora.rnk: unknown parameter; did you mean training.lora.rank?"])
    ran.stdout.no_fnmatch_line("*INTERNALERROR*")
