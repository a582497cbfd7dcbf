"""Verdicts are told as soon as what they need is there, and a decision that was told stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import trained
from judged import LARGE, ROW, SMALL
from synthetic import Plant, study

from emergence.experiment import Experiment
from emergence.progress import Progress
from emergence.store import Store
from emergence.verdicts import judging

CLAIMS = """
from emergence import Prediction
VERSION = 1
READ = {"band": "intermediate", "style": "symbolic"}
PREDICTIONS = (
    Prediction("S", "an answer emerges", "sft", "answer", **READ, test="classifier"),
    Prediction("B", "no word in the base model", "base", "words", **READ, test="no classifier"),
    Prediction("Q", "on top of B", "base", "answer", **READ, test="no classifier", premise="B"),
    Prediction("G", "a gain", "sft", "answer", **READ, test="predicts correctness",
               against=("base", "shuffled")),
    Prediction("C", "shuffled", "shuffled", "answer", **READ, test="no classifier", control=True),
)
"""


class Heard(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def experiment(trained_folder: Path, tmp_path: Path) -> Experiment:
    folder = trained.copied(trained_folder, tmp_path / "tiny")
    (folder / "predictions.py").write_text(CLAIMS)
    return Experiment(folder, store=Store(tmp_path / "fresh"), progress=Heard())


def test_each_claim_is_told_once_when_its_arms_are_there(experiment: Experiment) -> None:
    assert experiment.runs
    heard = experiment.progress.lines  # type: ignore[attr-defined]
    judged = [line for line in heard if line[0] in "SBQGC" and line[1] == " "]
    classes = experiment.config.task.classes
    # The last arm is `shuffled`: what needs it is judged with all others, and told by them.
    assert [line.partition(":")[0] for line in judged] == [
        f"{p} {c}" for p in ("B", "Q", "S") for c in classes
    ]
    trained_first = next(i for i, line in enumerate(heard) if line.startswith("sft seed 0 step"))
    assert heard.index(judged[len(classes)]) < trained_first < heard.index(judged[-1])
    assert any(line.startswith("1 of 3 runs; about ") for line in heard)
    assert "3 of 3 runs; all are trained" in heard


def test_what_is_in_the_store_is_told_as_a_whole(trained_folder: Path, tmp_path: Path) -> None:
    folder = trained.copied(trained_folder, tmp_path / "tiny")
    again = Experiment(folder, store=Store(folder / "store"), progress=Heard())
    assert again.runs
    assert not [line for line in again.progress.lines if " runs; " in line]  # type: ignore[attr-defined]


def test_a_decision_that_was_told_does_not_change_when_the_rest_is_known() -> None:
    table = [ROW[name] for name in ("B1", "B2", "E1", "E2", "E4")]
    told = 0
    for seed in range(2):
        world = study(Plant("sft", "answer", 5, 0.5), rng_seed=seed, **(SMALL | LARGE))
        early = judging.judge(table, world, {"B1", "B2"}, advise=False)
        whole = {(v.prediction, v.cls): v for v in judging.judge(table, world, advise=False)}
        assert {v.prediction for v in early} == {"B1", "B2"}
        for v in early:
            later = whole[v.prediction, v.cls]
            assert v.outcome in ("inconclusive", later.outcome)
            assert (v.p_adjusted or 0) >= (later.p_adjusted or 0)
            told += v.outcome != "inconclusive"
    assert told, "some are decided early, else nothing is shown"
