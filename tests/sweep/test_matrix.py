"""The matrix tells what stands in `verdicts.json`, and nothing else; two results are compared."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from report_case import HOSTILE, verdict

from emergence.cli.main import main
from emergence.errors import UsageError
from emergence.report import records, results
from emergence.report.tables import plain
from emergence.sweep import comparing, matrix, matrix_page
from emergence.sweep.pooling import pooled, variance
from emergence.verdicts.verdict import Verdict

NAME = "classifier_emergence"
BEGAN = "2026-11-01T12:00:00+00:00"


def arms(rank: int) -> list[dict[str, Any]]:
    return [
        {"name": name, "lora": {"rank": rank, "alpha": 8.0}, "seeds": [0, 1]} for name in ("sft", "shuffled")
    ]


def kept(
    store: Path, n: int, verdicts: list[Verdict], rank: int = 4, version: int = 3, model: str = ""
) -> Path:
    """Results as a run writes them: model `n` with a LoRA rank."""
    folder = records.place(store, NAME, f"{rank:012x}", f"{n:012x}")
    folder.mkdir(parents=True)
    experiment = SimpleNamespace(name=NAME, model=model or f"owner/model-{n}", hash=f"{rank:012x}")
    provenance = {
        "predictions_version": version,
        "config": {"name": NAME, "model": experiment.model, "arms": arms(rank)},
        "registration": {"began": BEGAN},
    }  # fmt: skip
    content = results.document(experiment, verdicts, provenance)
    (folder / "verdicts.json").write_text(json.dumps(content))
    (folder / "report.json").write_text(json.dumps({"layers": 10 + n}))
    return folder


def judged(n: int, outcome: str = "supported") -> list[Verdict]:
    """Two claims about two classes; the numbers tell the model."""
    numbers = {"estimate": 0.3 + n / 100, "low": 0.2 + n / 200, "high": 0.4 + n / 50, "threshold": 0.1}
    return [
        verdict("E1", outcome, **numbers, **{"class": "add", "layer": 5, "step": 100}),
        verdict("E1", "falsified", **numbers, **{"class": "subtract"}),
        verdict("C1", "inconclusive", **{"class": "add", "statistic": "AUROC"}),
    ]


def test_every_number_is_one_of_a_verdicts_json(tmp_path: Path) -> None:
    for n in range(3):
        kept(tmp_path, n, judged(n, "supported" if n else "inconclusive"))
    made = matrix.collect(tmp_path, NAME)
    written = matrix.write(made, tmp_path)
    document, table = json.loads(written[0].read_text()), pd.read_parquet(written[1])
    assert len(table) == 9
    for row in document["rows"]:
        source = json.loads((tmp_path / "experiments" / NAME / row["results"] / "verdicts.json").read_text())
        assert source["model"] == row["model"]
        for told, own in zip(row["verdicts"], source["verdicts"], strict=True):
            assert {k: own[k] for k in told if k != "depth"} == {
                k: v for k, v in told.items() if k != "depth"
            }
        layers = 10 + int(row["model"][-1])
        assert row["verdicts"][0]["depth"] == pytest.approx(6 / layers)
        same = table[table["model"] == row["model"]]
        assert same["estimate"].dropna().tolist() == [v["estimate"] for v in row["verdicts"] if v["estimate"]]


def test_five_models_have_a_mean_and_four_have_none(tmp_path: Path) -> None:
    for n in range(4):
        kept(tmp_path, n, judged(n))
    lines = {(line.prediction, line.cls): line for line in matrix.collect(tmp_path, NAME).lines}
    assert lines["E1", "add"].mean is None
    assert (lines["E1", "add"].supported, lines["E1", "add"].n) == (4, 4)
    kept(tmp_path, 4, judged(4, "inconclusive"))
    lines = {(line.prediction, line.cls): line for line in matrix.collect(tmp_path, NAME).lines}
    rows = [judged(n)[0] for n in range(5)]
    assert lines["E1", "add"].mean == pooled(
        [v.estimate for v in rows], [variance(v.low, v.high) for v in rows]
    )
    assert lines["E1", "add"].supported == 4
    assert lines["C1", "add"].mean is None, "there is no interval"


def test_models_that_were_decided_by_two_statistics_have_no_mean(tmp_path: Path) -> None:
    for n in range(6):
        row = verdict("E1", "supported", estimate=0.3, low=0.2, high=0.4, statistic="AUROC" if n else "mass")
        kept(tmp_path, n, [row])
    (line,) = matrix.collect(tmp_path, NAME).lines
    assert (line.mean, line.supported) == (None, 6)


def test_settings_are_named_where_they_differ_and_stability_is_counted(tmp_path: Path) -> None:
    for rank, outcome in ((16, "supported"), (4, "inconclusive")):
        kept(tmp_path, 0, judged(0, outcome), rank)
    kept(tmp_path, 1, judged(1), 4)
    made = matrix.collect(tmp_path, NAME)
    assert [(row.model, row.settings) for row in made.rows] == [
        ("owner/model-0", "lora.rank=4"), ("owner/model-0", "lora.rank=16"), ("owner/model-1", "lora.rank=4"),
    ]  # fmt: skip
    assert made.stable("owner/model-0") == (2, 3)
    assert made.stable("owner/model-1") is None
    text = plain(matrix_page.shown(made), 200)
    assert re.search(r"owner/model-0 +lora.rank=16 +✓✗ +\?· +2 of 3", text)
    assert "E1 add lora.rank=4  " in text


def test_only_one_version_of_the_claims_is_shown(tmp_path: Path) -> None:
    old, new = kept(tmp_path, 0, judged(0), version=2), kept(tmp_path, 1, judged(1), version=3)
    made = matrix.collect(tmp_path, NAME)
    assert [row.place for row in made.rows] == [new.name]
    assert made.left_out == (f"{old.name}: of version 2 of the predictions, not 3",)


@pytest.mark.parametrize(
    ("when", "registered"),
    [("2026-10-31T12:00:00+00:00", True), ("2026-11-02T12:00:00+00:00", False), (None, False)],
)
def test_a_matrix_is_exploratory_unless_its_file_was_committed_before(
    when: str | None, registered: bool, tmp_path: Path
) -> None:
    place = kept(tmp_path, 0, judged(0))
    sweep = {
        "experiment": NAME, "hash": "0" * 12, "created": BEGAN, "cells": [], "schema": 1,
        "committed": when and ["a" * 40, when],
        "units": [{"id": "judge-0", "kind": "judge", "label": "verdicts", "cell": 0, "steps": 0, "needs": [],
                   "verdicts": f"experiments/{NAME}/{place.name}/verdicts.json"}],
    }  # fmt: skip
    (tmp_path / "sweeps" / ("0" * 12)).mkdir(parents=True)
    (tmp_path / "sweeps" / ("0" * 12) / "sweep.json").write_text(json.dumps(sweep))
    made = matrix.collect(tmp_path, NAME)
    assert made.standing.startswith("registered" if registered else "exploratory")
    kept(tmp_path, 1, judged(1))
    assert matrix.collect(tmp_path, NAME).standing.startswith("exploratory"), (
        "the sweep did not name this one"
    )


def test_the_page_has_every_verdict_with_its_interval_and_depth_and_runs_nothing(tmp_path: Path) -> None:
    kept(tmp_path, 0, [*judged(0), verdict("X", "supported", claim=HOSTILE, reason=HOSTILE)], model=HOSTILE)
    made = matrix.collect(tmp_path, NAME)
    page = matrix_page.page(made, linked=True)
    assert (
        "E1[add] supported, 30.0 % [20.0, 40.0], threshold 10.0 %, own-class mass, L5 (60 % depth), step 100"
        in page
    )
    assert f'href="../{made.rows[0].place}/report.html"' in page
    assert "<script" not in page
    assert "<img" not in page
    assert page.count('tabindex="0"') == 4
    paths = matrix_page.write(made, tmp_path)
    assert [path.name for path in paths] == ["matrix.html", "matrix.png", "matrix.svg"]
    assert paths[1].read_bytes()[:4] == b"\x89PNG"
    assert "✓" in paths[2].read_text()


def test_two_results_are_compared_with_the_rows_that_differ_first(tmp_path: Path) -> None:
    a = kept(tmp_path, 0, judged(0))
    b = kept(tmp_path, 1, [*judged(1)[1:], verdict("E1", "falsified"), verdict("N", "supported")], 16, 2)
    found = comparing.compare(a, b)
    assert [(pair.column, pair.differs) for pair in found.pairs] == [
        (("E1", "add"), True), (("N", "add"), True), (("E1", "subtract"), False), (("C1", "add"), False),
    ]  # fmt: skip
    text = plain(comparing.table(found), 200)
    assert "2 of 4 came out otherwise" in text
    assert "judged by versions 3 and 2" in text
    assert re.search(r"N +add +not judged +✓ supported", text)
    assert "lora.rank=4" in text.splitlines()[0]
    assert "lora.rank=16" in text.splitlines()[1]


def test_a_sweep_file_is_registered_as_git_knows_it(tmp_path: Path) -> None:
    from emergence.verdicts import registration

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    file = tmp_path / "sweep.yaml"
    file.write_text("over: {model: [a]}\n")
    assert registration.committed(file) is None, "no repository"
    git("init")
    assert registration.committed(file) is None, "not committed"
    git("add", ".")
    git("commit", "-m", "a")
    commit, when = registration.committed(file) or ("", "")
    assert re.fullmatch("[0-9a-f]{40}", commit)
    assert when[:2] == "20"
    file.write_text("over: {model: [b]}\n")
    assert registration.committed(file) is None, "changed since"


def test_what_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="no results yet"):
        matrix.collect(tmp_path, NAME)
    (tmp_path / "hypotheses" / NAME).mkdir(parents=True)
    (tmp_path / "hypotheses" / NAME / "config.yaml").write_text(f"name: {NAME}\n")
    monkeypatch.chdir(tmp_path)
    kept(tmp_path / ".emergence", 0, judged(0))
    cases = {
        ("matrix", "nobody"): "unknown experiment",
        ("matrix", NAME, "--html", "nowhere/x.html"): "nowhere/x.html: the page cannot be written",
        ("compare", NAME, f"{NAME}/abc"): "no results 'abc'",
    }
    for arguments, said in cases.items():
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        told = capsys.readouterr().err
        assert (ended.value.code, told.count("\n")) == (2, 1), told
        assert said in told
    for arguments in (
        ("matrix", NAME, "--html", "x.html"),
        ("matrix", NAME, "--json"),
        ("compare", NAME, NAME),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert not ended.value.code
    assert (tmp_path / "x.html").is_file()
