"""The verbs say one clear line and end with the right code, whatever they are given."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import report_case as case
import tiny
from places import python_path

from emergence.cli import catalogue
from emergence.cli import main as cli
from emergence.models import loading as models
from emergence.outcome import Outcome
from emergence.report import page as report
from emergence.report import payload, records, results
from emergence.store import files
from emergence.store.store import Store

CONFIG = """
name: parity
description: Is there a parity classifier?
model: smollm2-135m-instruct
training:
  max_steps: 4
  checkpoint_steps: [0, 4]
  seeds: [0]
  training_methods:
    sft: {method: sft}
parameters:
  num_samples: 60
  num_valid: 6
  num_test: 30
  operations: [add, subtract]
  operands: {add: [2, 60], subtract: [2, 60]}
  task_vocabulary:
    add: [add, plus]
    subtract: [subtract, minus]
"""
PREDICTIONS = """
from emergence import Prediction

VERSION = 1
PREDICTIONS = (
    Prediction("B1", "base model: nothing there", arm="base", style="symbolic", family="words",
               band="intermediate", test="no classifier"),
)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one experiment, and a store that is empty."""
    folder = tmp_path / "hypotheses" / "parity"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "predictions.py").write_text(PREDICTIONS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a verb: exit code, stdout, stderr."""

    def run(*arguments: str) -> SimpleNamespace:
        with pytest.raises(SystemExit) as caught:
            cli.main(list(arguments))
        told = capsys.readouterr()
        return SimpleNamespace(code=caught.value.code, out=told.out, err=told.err)

    return run


def _with_results(place: Path) -> Path:
    folder = records.place(place / ".emergence", "parity", "c" * 12, "e" * 12)
    folder.mkdir(parents=True)
    content = results.document(case.EXPERIMENT, case.verdicts(), case.PROVENANCE) | {"description": "d"}
    (folder / "verdicts.json").write_text(json.dumps(content))
    study = case.study(1, n_layers=3, per_class=2)
    data = payload.build(study, {}, case.decode) | {"decoded": {}}
    data[report._PAIR] = files.digest(folder / "verdicts.json")
    (folder / "report.json").write_text(json.dumps(data))
    records.mark_latest(folder)
    return folder


def _with_runs(folder: Path, *statuses: str) -> None:
    for i, status in enumerate(statuses):
        start, end = datetime(2026, 1, 1 + i), datetime(2026, 1, 1 + i, 0, 0, 5)
        error = "it broke\nbadly" if status == "failed" else None
        record = records.run_record("parity", status, start, end, {}, {"supported": 3}, {}, error)
        path = folder.parent / "results" / f"run_2026010{1 + i}_000000.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["list", "--frob"], "No such option: --frob"),
        (["info"], "Missing argument 'name'"),
        (["info", "party"], "unknown experiment 'party'; did you mean parity?; there are: parity"),
        (["info", "\x1b[31mred"], "unknown experiment"),
        (
            ["info", "parity", "-p", "training.lora.rnk=8"],
            "unknown parameter; did you mean training.lora.rank?",
        ),
        (["info", "parity", "-p", "rank"], "-p rank"),
        (["run", "parity", "-p", "training.lora.rank=0"], "rank"),
        (["run", "parity", "-c", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["run", "parity", "--steps", "ten"], "--steps ten"),
        (["run", "parity", "--seeds", "0"], "--seeds 0"),
        (["run", "parity", "--seeds", "many"], "Invalid value for '--seeds'"),
        (["run", "parity", "--model", "nonsense"], "model 'nonsense' is neither"),
        (["run", "parity", "--model", "../../no/folder", "--dry-run"], "model '../../no/folder' is neither"),
        (["status", "parity"], "parity: no results yet"),
        (["report", "parity"], "parity: no results yet"),
        (["models", "--check", "nonsense"], "model 'nonsense' is neither"),
        (["store", "remove", "0123"], "holds no 0123"),
        (["list", "--experiments-dir", "nowhere"], "nowhere: no such folder"),
    ],
    ids=lambda value: " ".join(value).replace("\x1b", "ESC") if isinstance(value, list) else "",
)
def test_what_cannot_be_meant_is_one_line_and_exit_2(
    place: Path, said: Any, arguments: list[str], says: str
) -> None:
    told = said(*arguments)
    assert told.code == 2
    assert says in told.err
    assert told.err.count("\n") == 1
    assert told.err.startswith("emergence: ")
    assert "\x1b" not in told.err
    assert not (place / ".emergence").exists(), "nothing may be made by a verb that failed"


def test_outside_any_project_the_line_says_where_it_looked(
    tmp_path: Path, monkeypatch: Any, said: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    told = said("list")
    assert (told.code, "no folder 'hypotheses' here or above" in told.err) == (2, True)


def test_list_and_info_say_what_the_config_says(place: Path, said: Any) -> None:
    listed = said("list")
    assert listed.code == 0
    assert "parity  none yet  Is there a parity classifier?" in listed.out
    told = json.loads(said("list", "--json").out)
    assert told == [
        {"name": "parity", "description": "Is there a parity classifier?",
         "path": str(place / "hypotheses" / "parity"), "has_results": False}
    ]  # fmt: skip
    info = said("info", "parity", "-p", "training.lora.rank=8")
    assert "lora, rank 8" in info.out
    assert "B1  base model: nothing there" in info.out
    as_json = json.loads(said("info", "parity", "--json", "-p", "training.max_steps=4").out)
    assert as_json["config"]["arms"][0]["max_steps"] == 4
    assert as_json["predictions"] == [{"id": "B1", "claim": "base model: nothing there", "arm": "base"}]


def test_a_broken_config_does_not_hide_the_other_experiments(place: Path, said: Any) -> None:
    other = place / "hypotheses" / "broken"
    other.mkdir()
    (other / "config.yaml").write_text("name: [")
    told = said("list")
    assert told.code == 0
    assert "parity" in told.out
    assert "cannot be used" in told.out


def test_an_experiment_is_found_from_a_folder_below_and_by_path(
    place: Path, monkeypatch: Any, said: Any
) -> None:
    monkeypatch.chdir(place / "hypotheses" / "parity")
    assert said("info", "parity").code == 0
    assert said("info", ".").code == 0
    assert catalogue.root() == place / "hypotheses"


def test_status_shows_the_latest_run_all_runs_and_json(place: Path, said: Any) -> None:
    folder = _with_results(place)
    _with_runs(folder, "failed", "success")
    told = said("status", "parity")
    assert told.code == 0
    assert "run_20260102_000000.json  2026-01-02T00:00:00  success (5.0 s)" in told.out
    assert "failed" not in told.out
    assert "E2 ✗ falsified" in told.out
    every = said("status", "parity", "--all")
    assert "failed (5.0 s): it broke" in every.out
    data = json.loads(said("status", "parity", "--all", "--json").out)
    assert data["latest_result"]["status"] == "success"
    assert [r["status"] for r in data["runs"]] == ["failed", "success"]
    assert len(data["verdicts"]) == len(case.verdicts())
    assert set(data["latest_result"]) >= {
        "experiment_name", "status", "started_at", "finished_at", "duration_seconds", "run_results",
        "eval_results", "config", "error",
    }  # fmt: skip


def test_status_json_without_results_says_so_in_json(place: Path, said: Any) -> None:
    told = said("status", "parity", "--json")
    assert told.code == 0
    assert json.loads(told.out)["has_results"] is False


def test_report_is_drawn_again_from_what_is_kept(place: Path, said: Any) -> None:
    folder = _with_results(place)
    told = said("report", "parity")
    page = folder.relative_to(place) / "report.html"
    assert (told.code, told.out.strip()) == (0, str(page))
    assert (folder / "report.html").read_text().count("</script>") == 2
    assert said("report", "parity", "--out", str(place / "x.html")).code == 0
    assert (place / "x.html").read_bytes() == (folder / "report.html").read_bytes()
    (folder / "verdicts.json").write_text("{")
    assert said("report", "parity").code == 3
    assert report.PAGE == "report.html"


def test_a_page_that_cannot_be_written_is_one_line(place: Path, said: Any) -> None:
    _with_results(place)
    (place / "file").write_text("")
    for out in ("nowhere/x.html", "file/x.html", "/proc/x.html"):
        told = said("report", "parity", "--out", out)
        assert told.code == 2
        assert told.err.startswith(f"emergence: {out}: the page cannot be written (")
        assert told.err.count("\n") == 1
    assert said("report", "parity", "--out", ".").out.strip() == "report.html"


def test_results_are_found_by_the_folder_and_by_the_name_in_the_config(place: Path, said: Any) -> None:
    _with_results(place)
    folder = place / "hypotheses" / "parity"
    folder.rename(folder.with_name("other_name"))
    for name in ("parity", "other_name", "hypotheses/other_name"):
        assert said("status", name).code == 0
    assert json.loads(said("list", "--json").out)[0]["has_results"] is True
    for twin in ("a", "b"):
        (place / "hypotheses" / twin).mkdir()
        (place / "hypotheses" / twin / "config.yaml").write_text(CONFIG.replace("parity", "twins"))
    for name in ("twins", "b"):
        told = said("status", name)
        assert (told.code, told.err.count("\n")) == (2, 1)
        assert "name: twins: " in told.err
        assert "hypotheses/a and " in told.err
        assert "hypotheses/b would overwrite each other's results; rename one" in told.err


def test_a_dry_run_asks_only_runs_of_the_same_model_and_method_how_long_it_takes(
    place: Path, said: Any
) -> None:
    model = tiny.write_model(place / "model", n_layers=1)
    store = Store(place / ".emergence")
    hash_ = models.resolve(model).hash

    def kept(model: str, method: str, seconds: float, n: int = 0) -> None:
        arm = {"method": method, "fine_tune_type": "lora"}
        spec = {"model": model, "arm": arm, "n": n}
        store.get_or_build("runs", spec, lambda folder: {"steps": 1, "seconds": seconds})

    kept("of another model", "sft", 1000.0)
    kept(hash_, "classified", 1000.0)
    told = said("run", "parity", "--model", str(model), "--dry-run").out
    assert told.count("unknown") == 2
    assert "2 runs, 2 to train; how long is known once" in " ".join(told.split())
    for n, seconds in enumerate((1.0, 15.0, 99.0)):
        kept(hash_, "sft", seconds, n)
    told = said("run", "parity", "--model", str(model), "--dry-run").out
    assert "about 1:00" in told
    assert told.count("unknown") == 1, "the shuffled control has not been trained"


@pytest.mark.parametrize(
    ("pytest_code", "told", "code"),
    [
        (0, {"passed": 3}, 0),
        (1, {"failed": ["a"], "passed": 2}, 1),
        (1, {"errors": [("BrokenExperiment", "NaN")], "failed": ["a"]}, 3),
        (1, {"errors": [("UsageError", "overlap")]}, 2),
        (1, {"errors": [("ZeroDivisionError", "a bug")]}, 3),
        (2, {}, 130),
        (2, {"errors": [("UsageError", "overlap")]}, 2),
        (3, {}, 3),
        (4, {}, 2),
        (5, {}, 2),
        (0, {"skipped": ["the lens refuses it"]}, 2),
        (0, {"skipped": ["one"], "passed": 1}, 0),
    ],
)  # fmt: skip
def test_exit_codes_tell_failed_usage_and_broken_apart(
    pytest_code: int, told: dict[str, Any], code: int
) -> None:
    ended = Outcome(datetime.now(), **told).ended(pytest_code)
    assert ended.code == code
    assert bool(ended.message) == (code != 0)


OUTCOMES = """
import pytest
from emergence.errors import BrokenExperiment

@pytest.fixture
def wrapped(experiment):
    try:
        raise BrokenExperiment("loss is NaN")
    except BrokenExperiment as e:
        pytest.fail(str(e), pytrace=False)

def test_passes(experiment): pass
def test_fails(experiment): assert False
@pytest.mark.xfail
def test_expected(experiment): assert False
def test_skips(experiment): pytest.skip("no such model")
def test_breaks(wrapped): pass
"""
PARENT = """
import json, sys
from pathlib import Path
import pytest
from emergence.plugin import OUTCOMES

class Watch:
    def pytest_unconfigure(self, config):
        (outcome,) = config.stash[OUTCOMES].values()
        Path("outcome.json").write_text(json.dumps(vars(outcome), default=str))

options = ["-q", "-p", "emergence.fixtures", "-p", "no:cacheprovider"]
sys.exit(pytest.main([*options, *sys.argv[1:]], plugins=[Watch()]))
"""


@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["one process", "xdist"])
def test_outcome_keeps_what_pytest_throws_away(place: Path, workers: list[str]) -> None:
    folder = place / "hypotheses" / "parity"
    (folder / "test_all.py").write_text(OUTCOMES)
    command = [sys.executable, "-c", PARENT, *workers, str(folder)]
    subprocess.run(
        command, cwd=place, env=os.environ | {"PYTHONPATH": python_path()}, check=False, capture_output=True
    )
    told = json.loads((place / "outcome.json").read_text())
    assert told["passed"] == 2  # an expected failure is as expected
    assert [name.split("::")[-1] for name in told["failed"]] == ["test_fails[parity]"]
    assert told["skipped"] == ["no such model"]
    assert told["errors"] == [["BrokenExperiment", "loss is NaN"]]


def test_settled_config_obeys_options_over_parameters_over_the_file(place: Path, said: Any) -> None:
    other = place / "other.yaml"
    other.write_text(CONFIG.replace("max_steps: 4", "max_steps: 8").replace("[0, 4]", "[0, 8]"))
    told = json.loads(
        said(
            "info", "parity", "-c", str(other), "-p", "training.batch_size=3", "-p", "model=a/b", "--json"
        ).out
    )
    assert [claim["id"] for claim in told["predictions"]] == ["B1"]
    assert told["config"]["model"] == "a/b"
    assert {(a["max_steps"], a["batch_size"]) for a in told["config"]["arms"]} == {(8, 3)}


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Path, str, str]:
    """A store of two runs, readings nested in the first, a result that names the second; and their keys."""
    store = Store(tmp_path / "st")

    def write(folder: Path) -> None:
        (folder / "x").write_text("x")

    first = store.get_or_build("runs", {"n": 1}, write)
    store.get_or_build("readings", {"n": 3}, write, parent=first)
    second = store.get_or_build("runs", {"n": 2}, write)
    (tmp_path / "st" / "experiments" / "parity").mkdir(parents=True)
    (tmp_path / "st" / "experiments" / "parity" / "verdicts.json").write_text(
        json.dumps({"runs": [second.key]})
    )
    return tmp_path / "st", first.key, second.key


def test_store_lists_what_is_kept_and_what_rests_on_it(kept: tuple[Path, str, str], said: Any) -> None:
    store, first, second = kept
    told = said("store", "list", "--store", str(store))
    rows = {line.split()[1]: line for line in told.out.splitlines()[1:]}
    assert rows[second].rstrip().endswith("experiments/parity/verdicts.json")
    assert rows[first].rstrip().endswith("–"), "readings nested in a run are no reason to keep it"
    assert said("store", "list", "--store", str(store / "none")).out.strip().endswith("nothing is kept")


def test_store_verify_finds_a_flipped_byte(kept: tuple[Path, str, str], said: Any) -> None:
    store, first, _ = kept
    assert said("store", "verify", "--store", str(store)).out == "3 entries, 0 damaged\n"
    (store / "runs" / first / "x").write_text("y")
    told = said("store", "verify", "--store", str(store))
    assert told.code == 3
    assert first in told.out
    assert told.out.endswith("3 entries, 1 damaged\n")


def test_store_removes_by_key_and_age_and_keeps_what_results_rest_on(
    kept: tuple[Path, str, str], said: Any
) -> None:
    store, first, second = kept
    at = ["--store", str(store)]
    assert said("store", "remove", *at).code == 2
    assert "used by experiments/parity" in said("store", "remove", second, "--yes", *at).err
    assert "nothing of that age" in said("store", "remove", "--older-than", "9", "--yes", *at).err
    assert "is none of complete" in said("store", "remove", "--state", "odd", *at).err
    assert said("store", "remove", first, "--yes", *at).code == 0
    assert [item.key for item in Store(store).entries()] == [second]
    assert said("store", "remove", second, "--force", "--yes", *at).code == 0
    assert Store(store).entries() == []


def test_store_remove_asks_and_a_no_removes_nothing(
    kept: tuple[Path, str, str], said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, first, _ = kept
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    told = said("store", "remove", first, "--store", str(store))
    assert told.code == 130
    assert "Remove 1 of them for good?" in told.out + told.err
    assert len(Store(store).entries()) == 3


def test_show_draws_every_layer_and_the_exact_tokens(tmp_path: Path, said: Any) -> None:
    model = tiny.write_model(tmp_path / "model", n_layers=2)
    told = said("show", "7 * 8 = ", "--model", str(model), "--store", str(tmp_path / "store"))
    assert told.code == 0
    assert all(part in told.out for part in ("L0", "L1", "*", "7", "8"))
    assert len(re.findall(r"\d+%|<1%", told.out)) == 2 * 8, "a number a cell, though nothing is coloured"


def test_show_saves_a_page_and_names_the_formats_there_are(tmp_path: Path, said: Any) -> None:
    model = tiny.write_model(tmp_path / "model", n_layers=2)
    command = ["show", "7 * 8 = ", "--model", str(model), "--store", str(tmp_path / "store"), "--save"]
    told = said(*command, str(tmp_path / "lens.html"))
    assert told.code == 0
    assert told.out.strip() == str(tmp_path / "lens.html")
    assert "<table>" in (tmp_path / "lens.html").read_text()
    told = said(*command, str(tmp_path / "lens.pdf"))
    assert told.code == 2
    assert "ends in .html, .png or .svg" in told.err


def test_show_refuses_an_empty_prompt_in_one_line(tmp_path: Path, said: Any) -> None:
    told = said("show", "", "--store", str(tmp_path / "store"))
    assert told.code == 2
    assert "the prompt is empty" in told.err
