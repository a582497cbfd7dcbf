"""What other programs read is what was judged and read, by name, or one line that says what is wrong."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import report_case as case

from emergence.analysis import frames
from emergence.errors import BrokenExperiment, UsageError
from emergence.report import records, results

# verdicts.json


def test_verdicts_json_has_every_field_and_comes_back_equal(written: Path) -> None:
    info, verdicts = results.read_verdicts(written)
    assert verdicts == case.verdicts()
    assert (info["schema"], info["experiment"], info["model"]) == (2, "classifier_emergence", "tiny/model")
    assert info["predictions_version"] == 3
    assert info["provenance"]["versions"] == {"mlx": "0.32"}


def test_what_is_not_finite_is_null_in_verdicts_json() -> None:
    verdict = case.verdict("B1", "inconclusive", estimate=float("nan"), details={"x": np.float32("inf")})
    row = results.document(case.EXPERIMENT, [verdict], {})["verdicts"][0]
    assert row["estimate"] is None
    assert row["details"] == {"x": None}
    json.dumps(row, allow_nan=False)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, UsageError, "no results yet"),
        ("{", BrokenExperiment, "damaged"),
        ("[]", BrokenExperiment, "damaged"),
        ("\x00", BrokenExperiment, "damaged"),
        ('{"schema": 2}', BrokenExperiment, "damaged"),
        ('{"schema": 2, "verdicts": [{"prediction": "E1"}]}', BrokenExperiment, "damaged"),
        ('{"schema": 1, "verdicts": []}', UsageError, "schema 1 is not 2"),
        ('{"schema": 99, "verdicts": []}', UsageError, "schema 99"),
    ],
    ids=["missing", "cut off", "no object", "zeros", "no verdicts", "half a row", "old", "new"],
)
def test_results_that_cannot_be_read_say_so_in_one_line(
    tmp_path: Path, content: str | None, error: type[Exception], message: str
) -> None:
    if content is not None:
        (tmp_path / "verdicts.json").write_text(content)
    with pytest.raises(error, match=message) as caught:
        results.open_run(tmp_path)
    assert "\n" not in str(caught.value)


# Tables


def test_open_run_gives_frames_and_arrays_with_named_axes(written: Path) -> None:
    opened, run = results.open_run(written), case.run("sft", 1)
    words = opened.array("sft", "words")
    assert words.dims == ("seed", "step", "layer", "prompt")
    np.testing.assert_array_equal(words.sel(seed=1).values, frames.own(run, "words"))
    np.testing.assert_array_equal(words.sel(seed=1, step=50).values, frames.own(run, "words")[1])
    assert words.sel(step=100, layer=4).dims == ("seed", "prompt")
    assert words["class"].values.tolist() == [p.cls for p in run.prompts]
    assert words.name, words.attrs == ("words", {"arm": "sft", "model": "tiny/model"})
    by_class = words.sel(seed=1).groupby("class").mean("prompt")
    here = [p.cls == "add" for p in run.prompts]
    np.testing.assert_allclose(by_class.sel({"class": "add"}), frames.own(run, "words")[..., here].mean(-1))
    np.testing.assert_array_equal(opened.array("sft", "correct").sel(seed=1, layer=0).values, run.correct)
    assert list(opened.prompts()["text"]) == [p.text for p in run.prompts]
    assert opened.verdicts["outcome"].tolist() == [v.outcome for v in case.verdicts()]
    with pytest.raises(UsageError, match="'grpo' is none of sft, shuffled, dual_reward"):
        opened.array("grpo")
    with pytest.raises(UsageError, match="'nonsense' is none of"):
        opened.array("sft", "nonsense")
    with pytest.raises(KeyError, match="step"):
        words.sel(step=7)


def test_an_experiments_folder_opens_its_latest_results(written: Path, tmp_path: Path) -> None:
    place = records.place(tmp_path, "parity", "a" * 12, "b" * 64)
    place.parent.mkdir(parents=True)
    place.symlink_to(written)
    assert results.open_run(place.parent).folder == place
    with pytest.raises(UsageError, match="no results yet"):
        results.open_run(tmp_path)


def test_tables_that_were_removed_are_one_line(written: Path, tmp_path: Path) -> None:
    (tmp_path / "verdicts.json").write_bytes((written / "verdicts.json").read_bytes())
    opened = results.open_run(tmp_path)
    assert len(opened.verdicts) == len(case.verdicts())
    for name in ("readings", "strength"):
        with pytest.raises(UsageError, match=rf"{name}\.parquet: there is no such file"):
            getattr(opened, name)


def test_csv_and_parquet_hold_the_same_means_as_the_readings(written: Path) -> None:
    strength = results.open_run(written).strength
    one = strength[
        (strength.arm == "shuffled") & (strength.seed == 0) & (strength.family == "words")
        & (strength["style"] == "symbolic") & (strength["class"] == "multiply")
    ]  # fmt: skip
    expected = frames.means([case.run("shuffled", 0)], "words", "multiply", "symbolic")
    for name in ("own", "other", "rest"):
        np.testing.assert_allclose(one[name].to_numpy().reshape(3, 6), getattr(expected, name)[0], rtol=1e-6)
    from_csv = pd.read_csv(written / "strength.csv")
    assert len(from_csv) == len(strength)
    np.testing.assert_allclose(from_csv.own, strength.own, rtol=1e-4)
    with (written / "strength.csv").open() as file:
        assert next(csv.reader(file))[:3] == ["arm", "seed", "style"]


# Doors that only look


@pytest.mark.parametrize(
    "program",
    [
        "from emergence.report import records; records.known(Path(sys.argv[1]), 'parity')",
        "from emergence.report import results, tables;"
        "tables.plain(tables.verdict_report(results.read_verdicts(Path(sys.argv[1]))[1]))",
        "from emergence.report import page; page.render(Path(sys.argv[1]), Path(sys.argv[2]))",
    ],
    ids=["list", "status", "report"],
)
def test_looking_at_results_loads_nothing_heavy(written: Path, tmp_path: Path, program: str) -> None:
    program = f"import sys; from pathlib import Path; {program}; print(*sys.modules)"
    command = [sys.executable, "-c", program, str(written), str(tmp_path / "page.html")]
    loaded = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert "emergence.report.records" in loaded
    heavy = {"mlx", "mlx_lm", "transformers", "scipy", "sklearn", "pandas", "xarray", "pyarrow", "matplotlib"}
    heavy |= {"numpy"} if ".known(" in program else set()
    assert loaded & heavy == set()
