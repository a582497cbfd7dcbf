"""A task of one's own is read and judged like the built-in one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny

from emergence import own, verdicts
from emergence.errors import UsageError
from emergence.lens import LogitLens
from emergence.models import load
from emergence.predictions import Prediction

TASK = """
name: parity
model: tiny
template: "What is {text} "
classes:
  even: {words: [add, plus], texts: ["2", "4", "6", "8", "10", "12", "14", "16", "18", "20", "22", "24"]}
  odd: {words: [minus], texts: ["1", "3", "5", "7", "9", "11", "13", "15", "17", "19", "21", "23"]}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "task.yaml"
    file.write_text(TASK)
    return file


def _claim(**more: object) -> Prediction:
    fields = {
        "arm": "base",
        "style": "own",
        "family": "words",
        "band": "intermediate",
        "test": "no classifier",
    }
    return Prediction("S1", "nothing there", **fields | more)  # type: ignore[arg-type]


def test_masses_are_those_of_the_lens_on_the_filled_template(path: Path, tmp_path: Path) -> None:
    model, tokenizer = load(tiny.write_model(tmp_path / "model"))
    lens = LogitLens(model)
    run = own.read(own.load(path), lens, tokenizer).runs[0]
    place = next(i for i, p in enumerate(run.prompts) if p.text == "What is 14 ")
    logits = lens.logits([tokenizer.encode("What is 14 ")])[2, 0].astype(np.float64)
    ids = list(run.token_sets["words"]["even"])
    expected = np.logaddexp.reduce(logits[ids]) - np.logaddexp.reduce(logits)
    assert run.words[0, 2, place, 0] == pytest.approx(expected, abs=1e-4)
    assert (run.steps, run.n_layers, len(run.prompts)) == ((0,), 4, 24)
    assert sum(p.half for p in run.prompts) == 12, "half of them choose layers, half are judged on"


def test_verdicts_come_a_class_each_and_the_same_every_time(path: Path, tmp_path: Path) -> None:
    model, tokenizer = load(tiny.write_model(tmp_path / "model"))
    study = own.read(own.load(path), LogitLens(model), tokenizer)
    judged = verdicts.judge([_claim()], study)
    assert [v.operation for v in judged] == ["even", "odd"]
    assert judged == verdicts.judge([_claim()], study)
    assert all(v.n_prompts == 6 for v in judged)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('template: "What is {text} "', "template: What", "has no {text}"),
        ("words: [minus]", "words: []", "classes.odd.words"),
        ("words: [minus]", "wrods: [minus]", "classes.odd.wrods"),
        ('"2", "4", "6", ', "", "classes.even.texts"),
        ("model: tiny", "", "model: Field required"),
        ('"23"', '" "', "one is blank"),
        ("name: parity", "name: [", "task.yaml"),
    ],
)
def test_a_task_that_cannot_be_meant_is_refused_with_its_place(
    path: Path, before: str, after: str, says: str
) -> None:
    assert before in TASK
    path.write_text(TASK.replace(before, after))
    with pytest.raises(UsageError) as caught:
        own.load(path)
    assert says in str(caught.value)


def test_a_text_that_says_its_own_class_is_copying_and_refused(path: Path, tmp_path: Path) -> None:
    model, tokenizer = load(tiny.write_model(tmp_path / "model"))
    path.write_text(TASK.replace('"2"', '"plus"'))
    with pytest.raises(UsageError, match="that is copying"):
        own.read(own.load(path), LogitLens(model), tokenizer)


@pytest.mark.parametrize(
    ("claim", "says"),
    [
        pytest.param(_claim(arm="sft"), "arm='base'", id="an arm"),
        pytest.param(_claim(style="symbolic"), "style='own'", id="a style"),
        pytest.param(_claim(test="probe"), "control task", id="a probe"),
    ],
)
def test_claims_that_such_a_task_cannot_answer_are_refused(path: Path, claim: Prediction, says: str) -> None:
    from emergence.store import Store

    with pytest.raises(UsageError, match=says):
        own.judge(path, [claim], Store(path.parent / "store"))
