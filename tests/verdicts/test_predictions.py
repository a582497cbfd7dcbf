"""The table: its bands, its hash, and what is told of one that cannot be read."""

from __future__ import annotations

import dataclasses
import importlib
import os
import subprocess
import sys

import pytest
from judged import TABLE
from places import python_path

from emergence import verdicts
from emergence.errors import UsageError
from emergence.readings.bands import layers
from emergence.verdicts import Prediction, Table, load_predictions, predictions
from emergence.verdicts.criteria import CRITERIA
from emergence.verdicts.predictions import TESTS


def test_the_table_holds_the_thirteen_predictions():
    assert " ".join(p.id for p in TABLE) == "B1 B2 B3 E1 E2 E3 E4 E5 E6 C1 C2 O1 O2"


@pytest.mark.parametrize(
    ("band", "n", "want"),
    [
        ("intermediate", 4, (0, 1, 2)),
        ("middle", 4, (0, 1, 2)),
        ("middle", 30, tuple(range(7, 22))),
        ("middle", 24, tuple(range(5, 18))),
        ("at 54 %", 30, (15, 16, 17)),
        ("at 54 %", 24, (11, 12, 13)),
        ("at 54 %", 2, (0,)),
        ("intermediate", 1, ()),
    ],
)
def test_bands_leave_the_output_layer_out(band, n, want):
    assert layers(band, n) == want


@pytest.mark.parametrize("field", ["threshold", "alpha", "band", "claim", "min_seeds"])
def test_every_field_of_a_prediction_is_in_the_hash(field):
    value = getattr(TABLE[0], field)
    changed = dataclasses.replace(TABLE[0], **{field: value + "x" if isinstance(value, str) else value + 1})
    assert Table((changed, *TABLE.rows[1:]), TABLE.version).hash != TABLE.hash


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no predictions"),
        ("VERSION = 1\n", "PREDICTIONS must be a tuple"),
        ("VERSION = 1\nPREDICTIONS = ()\n", "PREDICTIONS must be a tuple"),
        (
            "from emergence import Prediction\n"
            "PREDICTIONS = (Prediction('X', 'x', 'sft', 'words', 'middle', 'symbolic', 'classifier'),)\n",
            "VERSION must be a whole number",
        ),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line(tmp_path, text, message):
    path = tmp_path / "predictions.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_predictions(path)


Later = dataclasses.make_dataclass(
    "Later", [("dose", float, dataclasses.field(default=0.0))], bases=(Prediction,), frozen=True
)


def test_a_field_that_is_added_at_its_default_orphans_no_finding():
    """The shipped rows, as a version with one more field would hold them."""
    later = tuple(Later(**vars(p)) for p in TABLE)
    assert [p.hash for p in later] == [p.hash for p in TABLE]
    assert Table(later, TABLE.version).hash == TABLE.hash
    assert dataclasses.replace(later[0], dose=0.1).hash != TABLE[0].hash


def test_a_field_written_out_at_its_default_is_the_same_claim():
    needed = {f.name: getattr(TABLE[0], f.name) for f in dataclasses.fields(Prediction)[:7]}
    assert Prediction(**needed).hash == Prediction(**needed, alpha=0.01, min_seeds=1).hash


def test_defaults_are_part_of_what_was_frozen():
    """They are in no hash: with another default, tables that were recorded would mean something else."""
    defaults = {f.name: f.default for f in dataclasses.fields(Prediction)[7:]}
    assert defaults == {
        "threshold": 0.1, "negligible": 0.05, "alpha": 0.01, "emerges": False, "any_step": False,
        "min_seeds": 1, "control": False, "premise": "", "untrained_style": False, "min_accuracy": 0.0,
        "against": (),
    }  # fmt: skip


def test_a_band_is_in_the_hash_of_the_tables_that_name_it(monkeypatch):
    before = TABLE.hash
    monkeypatch.setitem(predictions.BANDS, "late", (0.75, 1.0))
    assert TABLE.hash == before
    monkeypatch.setitem(predictions.BANDS, "middle", (0.3, 0.7))
    assert TABLE.hash != before


def test_the_order_of_the_claims_is_in_the_hash():
    assert Table(TABLE.rows[::-1], TABLE.version).hash != TABLE.hash


def test_every_test_that_a_claim_may_name_has_a_criterion():
    assert tuple(CRITERIA) == TESTS


LIGHT = """
import sys
from emergence.verdicts import Prediction, Table, Verdict, load_predictions, require_controls
from emergence.verdicts import findings
heavy = {"mlx", "scipy", "sklearn", "pandas", "transformers"}
print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
"""


def test_reading_a_table_of_predictions_waits_for_no_statistics_package():
    environment = os.environ | {"PYTHONPATH": python_path()}
    said = subprocess.check_output([sys.executable, "-c", LIGHT], text=True, env=environment)
    assert said == "[]\n"


@pytest.mark.parametrize("name", verdicts.__all__)
def test_the_package_hands_out_its_public_names(name):
    for module in ("checking", "judging", "predictions", "verdict"):  # loading one hides no name
        importlib.import_module(f"emergence.verdicts.{module}")
    assert getattr(verdicts, name).__name__ == name


def test_a_name_that_the_package_has_not_is_told():
    with pytest.raises(AttributeError, match=r"module 'emergence\.verdicts' has no attribute 'Draft'"):
        verdicts.Draft  # noqa: B018
