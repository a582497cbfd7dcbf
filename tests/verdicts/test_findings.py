"""Findings are written down on request only, stay, and are expected from then on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from judged import HYPOTHESIS, LARGE, TABLE, judge
from places import HYPOTHESES
from synthetic import Plant

from emergence.config import loading
from emergence.errors import UsageError
from emergence.verdicts import Table, findings, load_predictions

EXPERIMENT = loading.load(HYPOTHESIS / "config.yaml")
WEIGHTS = "5" * 64


@pytest.fixture
def folder(tmp_path):
    shutil.copy(HYPOTHESIS / "predictions.py", tmp_path)
    return tmp_path


def table(folder: Path) -> Table:
    return load_predictions(folder / "predictions.py")


@pytest.fixture(scope="module")
def judged():
    """E1 holds, E2 does not; nothing else is asked."""
    return list(judge(["E1", "E2"], Plant("sft", "answer", 5), steps=(0, 100), **LARGE).values())


def test_nothing_is_expected_where_nothing_was_recorded(folder):
    assert findings.falsified(folder, EXPERIMENT, WEIGHTS, table(folder)) == {}
    assert list(folder.iterdir()) == [folder / "predictions.py"]


def test_a_recorded_refutation_is_expected_from_then_on(folder, judged):
    findings.record(folder, EXPERIMENT, WEIGHTS, TABLE, judged)
    known = findings.falsified(folder, EXPERIMENT, WEIGHTS, table(folder))
    assert set(known) == {("E2", op) for op in EXPERIMENT.task.classes}
    assert all(text.startswith("written down as falsified: no classifier") for text in known.values())


@pytest.mark.parametrize("change", [{"model": "another"}, {"description": "another config"}])
def test_findings_hold_for_their_model_and_config_only(folder, judged, change):
    findings.record(folder, EXPERIMENT, WEIGHTS, TABLE, judged)
    assert findings.falsified(folder, EXPERIMENT.model_copy(update=change), WEIGHTS, table(folder)) == {}
    assert findings.falsified(folder, EXPERIMENT, "6" * 64, table(folder)) == {}


@pytest.mark.parametrize(
    ("options", "weights", "says"),
    [
        (
            ("20", None),
            WEIGHTS,
            "on record with arms.sft.max_steps 300, not 20; arms.sft.checkpoint_steps [0, 25",
        ),
        ((None, 1), WEIGHTS, "on record with arms.sft.seeds [0, 1, 2], not [0]; arms.classified.seeds"),
        ((None, None), "6" * 64, "on record with weights 555555555555, not 666666666666; run with what"),
    ],
)
def test_a_record_is_not_replaced_by_what_was_measured_otherwise(folder, judged, options, weights, says):
    shutil.copy(HYPOTHESIS / "config.yaml", folder)
    findings.record(folder, EXPERIMENT, WEIGHTS, TABLE, judged)
    path = folder / "findings.json"
    before = path.read_bytes()
    other = loading.narrowed(EXPERIMENT, *options)
    for attempt in (findings.recordable, lambda *a: findings.record(*a, TABLE, judged)):
        with pytest.raises(UsageError) as refused:
            attempt(folder, other, weights)
        assert says in str(refused.value)
        assert "or remove smollm2-135m-instruct from the file" in str(refused.value)
    assert path.read_bytes() == before
    findings.recordable(folder, EXPERIMENT)


def test_a_record_under_a_config_that_is_gone_is_told_by_its_hash(folder, judged):
    findings.record(folder, EXPERIMENT, WEIGHTS, TABLE, judged)
    with pytest.raises(UsageError, match=f"on record with config {EXPERIMENT.hash}, not [0-9a-f]{{12}}; run"):
        findings.recordable(folder, loading.narrowed(EXPERIMENT, None, 1))


def test_another_models_findings_stay(folder, judged):
    findings.record(folder, EXPERIMENT, WEIGHTS, TABLE, judged)
    other = EXPERIMENT.model_copy(update={"model": "org/other"})
    findings.record(folder, other, "6" * 64, TABLE, judged)
    assert set(findings.load(folder)["models"]) == {EXPERIMENT.model, "org/other"}
    assert findings.falsified(folder, EXPERIMENT, WEIGHTS, table(folder))


def test_recording_twice_writes_the_same_bytes(folder, judged):
    content = findings.record(folder, EXPERIMENT, WEIGHTS, TABLE, judged)
    before = (folder / "findings.json").read_bytes()
    assert findings.record(folder, EXPERIMENT, WEIGHTS, TABLE, judged) == content
    assert (folder / "findings.json").read_bytes() == before
    assert list(folder.glob("*INDINGS*")) == [], "the page is the report's to write"


def _edit(folder: Path, old: str, new: str) -> Table:
    path = folder / "predictions.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return table(folder)


def test_predictions_that_changed_without_a_new_version_are_refused(folder, judged):
    findings.record(folder, EXPERIMENT, WEIGHTS, TABLE, judged)
    before = (folder / "findings.json").read_bytes()
    changed = _edit(folder, "threshold=0.25", "threshold=0.15")
    with pytest.raises(UsageError, match=r"have changed since version 2 was recorded.*raise VERSION"):
        findings.record(folder, EXPERIMENT, WEIGHTS, changed, judged)
    with pytest.raises(UsageError, match="raise VERSION"):
        findings.falsified(folder, EXPERIMENT, WEIGHTS, table(folder))
    assert (folder / "findings.json").read_bytes() == before


def test_predictions_with_a_new_version_expect_nothing_until_recorded(folder, judged):
    findings.record(folder, EXPERIMENT, WEIGHTS, TABLE, judged)
    _edit(folder, "threshold=0.25", "threshold=0.15")
    changed = _edit(folder, "VERSION = 2", "VERSION = 3")
    assert findings.falsified(folder, EXPERIMENT, WEIGHTS, table(folder)) == {}
    findings.record(folder, EXPERIMENT, WEIGHTS, changed, judged)
    assert findings.falsified(folder, EXPERIMENT, WEIGHTS, table(folder))


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 99, "models": {}}', '{"schema": 2}'])
def test_a_damaged_findings_file_is_one_line(folder, text):
    (folder / "findings.json").write_text(text)
    with pytest.raises(UsageError, match=r"findings\.json: not"):
        findings.falsified(folder, EXPERIMENT, WEIGHTS, table(folder))


def test_findings_json_has_the_evidence_and_no_nan(folder, judged):
    content = findings.record(folder, EXPERIMENT, WEIGHTS, TABLE, judged)
    text = (folder / "findings.json").read_text()
    assert json.loads(text) == json.loads(json.dumps(content)) == findings.load(folder)
    entry = content["models"][EXPERIMENT.model]
    assert entry["predictions_version"] == TABLE.version
    kept = entry["findings"]["E1[add]"]
    verdict = judged[0]
    assert kept["outcome"] == "supported"
    assert kept["estimate"] == pytest.approx(verdict.estimate, rel=1e-5)
    assert (kept["low"] < kept["estimate"] < kept["high"], kept["layer"], kept["n_seeds"]) == (True, 5, 5)
    assert "NaN" not in text


def test_a_model_folder_goes_by_its_last_part(tmp_path):
    experiment = EXPERIMENT.model_copy(update={"model": str(tmp_path)})
    elsewhere = EXPERIMENT.model_copy(update={"model": f"{tmp_path}/../{tmp_path.name}/"})
    assert experiment.public.model == elsewhere.public.model == tmp_path.name
    assert experiment.hash == elsewhere.hash == experiment.public.hash != EXPERIMENT.hash
    assert EXPERIMENT.public.model == EXPERIMENT.model
    noted = EXPERIMENT.model_copy(update={"notices": ("/home/alice/config.yaml:4: a/b: c", "a: b/c")})
    assert noted.public.notices == ("config.yaml:4: a/b: c", "a: b/c")


@pytest.mark.parametrize("name", ["classifier_emergence", "parity"])
def test_the_findings_of_the_repository_are_of_its_configs_and_predictions_or_of_earlier_ones(name):
    place = HYPOTHESES / name
    content, experiment = findings.load(place), loading.load(place / "config.yaml")
    claims = table(place)
    findings.same_version(place, claims)
    entry = content["models"][experiment.model]
    assert entry["predictions_version"] <= claims.version
    if entry["predictions_version"] == claims.version:
        assert entry["config"] == experiment.hash
        findings.recordable(place, experiment, entry["weights"])


@pytest.mark.parametrize(
    ("name", "claim"), [("E1[add]", ("E1", "add")), ("own-2[even [zero]]", ("own-2", "even [zero]"))]
)
def test_the_name_of_a_finding_is_its_claim_and_class(name, claim):
    assert findings.claim_and_class(name) == claim
