"""What a person is shown are the masses that verdicts rest on, of the prompts that they are judged on."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import synthetic
from synthetic import OPERATIONS, Plant

from emergence.analysis import frames, masses
from emergence.errors import BrokenExperiment
from emergence.readings.readings import EVALUATION, Readings

SMALL = {"n_layers": 4, "steps": (0, 50), "per_class": 24}
SHOWN = (synthetic.prompt("add", 7, 8, "symbolic", -1),)
STYLES = ("symbolic", "worded")


@pytest.fixture(scope="module", params=[False, True], ids=["no copies", "copies"])
def runs(request: pytest.FixtureRequest) -> tuple[Readings, ...]:
    """Two runs with words and answers planted; problems share tokens, prompts may contain their own."""
    plants = [Plant("sft", "words", 2, 0.3), Plant("sft", "answer", 3, 0.4)]
    made = synthetic.study(*plants, arms={"sft": 2}, copying=request.param, shown=SHOWN, **SMALL).runs
    assert len(made[0].answer_ids) < len(set(p.answer for p in made[0].prompts)), "tokens are shared"
    return made


def judged(run: Readings, cls: str, style: str, family: str, half: int = 1) -> list[int]:
    """Indices of the prompts that count, by the rules of SCIENCE and not by the code that is tested."""
    copied = {"answer": run.copied, "first": run.copied_first}.get(family)
    copied = np.zeros(len(run.prompts), bool) if copied is None else copied
    return [
        i for i, p in enumerate(run.prompts)
        if (p.cls, p.style, p.half) == (cls, style, half) and not copied[i]
    ]  # fmt: skip


@pytest.mark.parametrize("family", frames.FAMILIES)
def test_means_are_those_of_the_masses_that_verdicts_rest_on(runs: tuple[Readings, ...], family: str) -> None:
    for cls, style in itertools.product(OPERATIONS, STYLES):
        shown = frames.means(runs, family, cls, style)
        held = masses.from_readings(runs, style, family.replace("_", " "), cls)
        half = held.half == EVALUATION
        for layer in range(4):
            cells = np.flatnonzero(held.layer == layer)
            own, others = (m[:, :, half][..., cells].mean(axis=(2, 3)) for m in (held.own, held.others))
            np.testing.assert_allclose(shown.own[..., layer], own, rtol=1e-12)
            if family != "random_words":
                np.testing.assert_allclose(shown.other[..., layer], others, rtol=1e-12)
            if held.rest is not None:
                rest = held.rest[:, :, held.rest_half == EVALUATION][..., cells].mean(axis=(2, 3))
                np.testing.assert_allclose(shown.rest[..., layer], rest, rtol=1e-12)
        assert shown.n == int(half.sum()) == len(judged(runs[0], cls, style, family))


@pytest.mark.parametrize("family", ["words", "glyphs", "answer", "first"])
def test_means_equal_a_naive_reference(runs: tuple[Readings, ...], family: str) -> None:
    run = runs[1]
    log = {"words": run.words, "glyphs": run.glyphs, "answer": run.answers, "first": run.firsts}[family]
    log, right = log.astype(np.float64), {"answer": run.own_answer, "first": run.own_first}.get(family)
    for cls, style in itertools.product(OPERATIONS, STYLES):
        mine = judged(run, cls, style, family)
        both = mine + judged(run, cls, style, family, half=0)
        own, other = [], []
        for i in mine:
            column = run.classes.index(cls) if right is None else right[i]
            own.append(math.exp(log[1, 2, i, column]))
            if right is not None:
                mates = [right[j] for j in both if j != i]
                differ = [k for k in mates if k != column]
                # own minus each mate's, as if all of them had another token
                share = sum(len({right[a], right[b]}) > 1 for a, b in pairs(both))
                scale = len(pairs(both)) / share
                apart = sum(own[-1] - math.exp(log[1, 2, i, k]) for k in differ) / len(mates) * scale
                other.append(own[-1] - apart)
            else:
                rest = [math.exp(log[1, 2, i, k]) for k in range(len(run.classes)) if k != column]
                other.append(sum(rest) / len(rest))
        shown = frames.means([run], family, cls, style)
        assert shown.own[0, 1, 2] == pytest.approx(np.mean(own), rel=1e-6)
        assert shown.other[0, 1, 2] == pytest.approx(np.mean(other), rel=1e-6)


def pairs(indices: list[int]) -> list[tuple[int, int]]:
    return list(itertools.permutations(indices, 2))


@pytest.mark.parametrize(("selective", "apart"), [(True, 0.4), (False, 0.0)], ids=["classifier", "bias"])
def test_of_answers_a_classifier_keeps_all_of_its_mass_and_a_bias_none(selective: bool, apart: float) -> None:
    plant = Plant("sft", "answer", 3, 0.4, selective=selective)
    made = synthetic.readings(plant, copying=True, operations=("add", "multiply"), per_class=300, n_layers=5)
    for cls in ("add", "multiply"):
        shown = frames.means([made], "answer", cls, "symbolic")
        assert shown.own[0, -1, 3] > 0.03
        assert shown.own[0, -1, 3] - shown.other[0, -1, 3] == pytest.approx(apart, abs=0.03)
        assert np.isnan(shown.rest).all()


def test_means_are_of_the_evaluation_half_only(runs: tuple[Readings, ...]) -> None:
    run = runs[0]
    where = {h: [i for i, p in enumerate(run.prompts) if (p.cls, p.style, p.half) == ("add", "symbolic", h)]
             for h in (0, 1)}  # fmt: skip
    expected = {h: np.exp(run.words[:, :, where[h], 0]).mean(axis=2) for h in where}
    shown = frames.means([run], "words", "add", "symbolic").own[0]
    np.testing.assert_allclose(shown, expected[1], rtol=1e-5)
    assert not np.allclose(shown, expected[0], rtol=1e-5)


def test_readings_that_are_no_probabilities_are_not_shown_as_such() -> None:
    made = synthetic.readings(**SMALL)
    made.words[1, 2, 0, 0] = np.nan
    with pytest.raises(BrokenExperiment, match="sft seed 0: words are no log-probabilities"):
        frames.means([made], "words", "add", "symbolic")


def test_where_every_prompt_contains_its_answer_there_is_nothing_to_show() -> None:
    made = synthetic.readings(copying=True, **SMALL)
    made.copied[:] = True
    shown = frames.means([made], "answer", "add", "symbolic")
    assert shown.n == 0
    assert np.isnan(shown.own).all()
    assert frames.means([made], "words", "add", "symbolic").n == 12
    assert "answer" not in set(frames.strengths(synthetic.Study((made,))).family)


# Frames


def test_strengths_hold_the_means_of_every_run(runs: tuple[Readings, ...]) -> None:
    table = frames.strengths(synthetic.Study(runs))
    combinations = 2 * len(STYLES) * len(OPERATIONS) * len(frames.FAMILIES)
    assert len(table) == combinations * len(SMALL["steps"]) * SMALL["n_layers"]
    index = ["seed", "style", "class", "family", "step", "layer"]
    assert not table.duplicated(index).any()
    at = table.set_index(index).sort_index()
    for seed, style, cls, family in itertools.product((0, 1), STYLES, OPERATIONS, frames.FAMILIES):
        shown = frames.means(runs, family, cls, style)
        row = at.loc[seed, style, cls, family, 50, 2]
        expected = [shown.own[seed, 1, 2], shown.other[seed, 1, 2], shown.rest[seed, 1, 2], shown.n, 0.75]
        np.testing.assert_array_equal(row[["own", "other", "rest", "n", "depth"]].astype(float), expected)


@pytest.mark.parametrize("family", ["words", "glyphs", "answer", "first"])
def test_tidy_rows_average_to_the_means(runs: tuple[Readings, ...], family: str) -> None:
    rows = frames.tidy(runs[0])
    rows = rows[(rows["half"] == 1) & (rows["class"] == "multiply") & (rows["style"] == "worded")]
    shown = frames.means(runs[:1], family, "multiply", "worded")
    counted = rows.dropna(subset=f"other_{family}")
    for name, expected in ((family, shown.own), (f"other_{family}", shown.other)):
        averages = counted.groupby(["step", "layer"])[name].mean().to_numpy()
        np.testing.assert_allclose(averages.reshape(2, 4), expected[0], rtol=1e-5, atol=1e-7)


def test_other_is_empty_exactly_where_nothing_is_compared(runs: tuple[Readings, ...]) -> None:
    run = runs[0]
    shown_only = np.array([p.half < 0 for p in run.prompts])
    assert shown_only.sum() == 1
    copied = np.zeros_like(shown_only) if run.copied is None else run.copied
    first = np.zeros_like(shown_only) if run.copied_first is None else run.copied_first
    assert (run.copied is None) or (first != copied).any(), "what could be copied is known of each token"
    empty = {"words": shown_only, "glyphs": shown_only, "answer": shown_only | copied}
    empty["first"] = shown_only | first
    for family, expected in empty.items():
        assert (np.isnan(frames.other(run, family)) == expected).all()
        assert not np.isnan(frames.own(run, family)).any()
    assert np.isnan(frames.other(run, "random_words")).all()


def test_confusion_counts_every_evaluated_prompt_once_as_the_verdicts_do(runs: tuple[Readings, ...]) -> None:
    counts = frames.confusion(runs[0], "worded", half=None)
    of_class = [int(frames.chosen(runs[0], c, "worded", half=None).sum()) for c in OPERATIONS]
    assert (counts.sum(axis=3) == np.array(of_class)).all()
    words, truth = masses.class_masses(runs[:1], "worded", 1, 2)
    table = np.zeros((3, 3), dtype=int)
    np.add.at(table, (truth, words[0].argmax(axis=1)), 1)
    np.testing.assert_array_equal(counts[1, 2], table)
