"""Numbers become decisions as docs/concepts.md says: on simulated studies whose truth is known."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import pytest
from places import HYPOTHESES
from synthetic import ARMS, OPERATIONS, Plant, study

from emergence.analysis import evidence
from emergence.analysis import permutation as statistics
from emergence.config import loading as config
from emergence.errors import BrokenExperiment, UsageError
from emergence.report import tables
from emergence.verdicts import judging as verdicts
from emergence.verdicts import predictions, reach
from emergence.verdicts.predictions import Prediction

HYPOTHESIS = HYPOTHESES / "classifier_emergence"
TABLE = predictions.load_predictions(HYPOTHESIS / "predictions.py")
ROW = {p.id: p for p in TABLE}
SMALL = {"n_layers": 8, "steps": (0, 50, 100), "styles": ("symbolic",), "hidden": 2}


def judge(ids, *plants, **settings):
    """{(prediction, operation): verdict} on a small study."""
    rows = [ROW[i] if isinstance(i, str) else i for i in ids]
    found = verdicts.judge(rows, study(*plants, **(SMALL | settings)))
    return {(v.prediction, v.cls): v for v in found}


def outcomes(found, prediction):
    return {v.outcome for v in found.values() if v.prediction == prediction}


def kinds(found, prediction):
    return {v.details["kind"] for v in found.values() if v.prediction == prediction}


# The whole table ------------------------------------------------------------------------------------------


def test_all_thirteen_predictions_are_judged_as_planted():
    """A world like the prototype runs: answers late, no words under SFT, words where they are taught."""
    world = study(
        Plant("sft", "answer", 9, 0.5, grows=True),
        Plant("shuffled", "answer", 9, 0.9, selective=False),
        Plant("classified", "words", 6, 0.9),
        Plant("base", "words", 1, 0.06, selective=False),
        Plant("base", "hidden", 6, 3.0),
    )
    found = verdicts.judge(TABLE, world)
    assert [(v.prediction, v.cls) for v in found] == [(p.id, op) for p in TABLE for op in OPERATIONS]
    falsified = {v.prediction for v in found if v.outcome == "falsified"}
    undecided = {v.prediction for v in found if v.outcome == "inconclusive"}
    assert falsified == {"E2", "E4"}
    assert undecided <= {"E5"}  # 30 prompts seldom suffice for an AUROC
    for v in found:
        assert all(math.isfinite(x) for x in (v.estimate, v.low, v.high, v.p) if x is not None), v
        assert v.reason
        assert v.claim in str(v)


REPORTED = ["estimate", "low", "high", "p", "p_adjusted", "threshold", "baseline", "layer", "step"]


def test_every_verdict_has_effect_interval_n_p_threshold_baseline_place_and_ids():
    for v in empty():
        lacking = [name for name in REPORTED if getattr(v, name) is None]
        assert lacking == [], v
        assert (v.n_prompts > 0, v.n_seeds > 0) == (True, True)
        assert v.token_ids or v.family == "stream", "what a probe reads is no token"


def test_the_same_study_gives_the_same_verdicts():
    rows = [p for p in TABLE if p.id in ("B3", "E1", "E3", "E5", "C2")]
    plants = (Plant("sft", "answer", 5, grows=True), Plant("base", "hidden", 4, 1.0))
    twice = [verdicts.judge(rows, study(*plants, **SMALL)) for _ in range(2)]
    assert twice[0] == twice[1]


@functools.cache
def empty():
    return tuple(verdicts.judge(TABLE, study(n_layers=8, steps=(0, 50, 100))))


def test_what_cannot_be_measured_is_blocked_in_its_own_unit():
    """Two prompts a class are too few for anything; a threshold is shown as what it is a threshold of."""
    found = judge(["E1", "E2", "E3", "E5"], per_class=2)
    shown = {v.prediction: (v.statistic, tables.number(v.threshold, v.statistic)) for v in found.values()}
    assert {v.estimate for v in found.values()} == {None}
    assert shown == {
        "E1": ("own-answer mass", "10.0 %"),
        "E2": ("own-class mass", "10.0 %"),
        "E3": ("growth of mass per 100 steps", "0.0 %"),
        "E5": ("AUROC", "0.50"),
    }


def test_a_world_with_nothing_in_it_supports_no_emergence():
    found = {(v.prediction, v.cls): v for v in empty()}
    for p in TABLE:
        want = {"supported"} if p.test == "no classifier" else {"falsified", "inconclusive"}
        assert outcomes(found, p.id) <= want


# Place ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [0, 3, 6])
def test_a_planted_classifier_is_found_at_its_layer(layer):
    found = judge(["E1", "E2"], Plant("sft", "answer", layer), Plant("sft", "words", layer))
    assert {(v.outcome, v.layer) for v in found.values()} == {("supported", layer)}


def test_a_planted_classifier_is_found_nowhere_else():
    rest = dataclasses.replace(ROW["E2"], id="rest", band="middle")
    found = judge([rest, "E4"], Plant("sft", "words", 6), Plant("sft", "answer", 6))
    assert {v.outcome for v in found.values()} == {"falsified"}


def test_the_output_layer_counts_for_nothing():
    found = judge(["E1", "E2", "E6"], Plant("sft", "answer", 7, 0.9), Plant("sft", "words", 7, 0.9))
    assert {v.outcome for v in found.values()} == {"falsified"}


def test_a_word_classifier_in_the_middle_supports_e4_as_an_answer_classifier_does():
    for family in ("words", "answer"):
        found = judge(["E4"], Plant("sft", family, 5))
        assert {(v.outcome, v.family) for v in found.values()} == {("supported", family)}


def test_a_claim_about_one_family_or_another_is_refuted_only_where_both_are():
    """Words hold 10 % in the middle, neither more nor less for certain; answers hold nothing."""
    found = judge(["E4"], Plant("sft", "words", 4, 0.1), prompt_sd=0.09, seed_sd=0.02)
    assert outcomes(found, "E4") == {"inconclusive"}
    assert all("answer: no classifier" in v.reason for v in found.values())


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
    assert predictions.layers(band, n) == want


# What is no classifier ------------------------------------------------------------------------------------


def test_bias_is_called_bias():
    """40 % of all mass on every class's words, whichever the prompt: strong, and tells nothing."""
    found = judge(["E2", "B1"], Plant("base", "words", 5, 0.9, selective=False))
    assert kinds(found, "E2") == {"bias"}
    assert outcomes(found, "E2") == {"falsified"}
    assert outcomes(found, "B1") == {"supported"}
    assert all("bias" in v.reason for v in found.values())
    assert all(v.estimate > 0.2 for v in found.values())


def test_one_word_favoured_on_every_prompt_is_a_bias_too():
    """`multiply` everywhere beats the other words on multiplication prompts, and yet recognises nothing."""
    world = study(**SMALL, arms={"sft": 3})
    for r in world.runs:
        r.words[1:, 5, :, OPERATIONS.index("multiply")] = np.log(0.5)
        r.words[1:, 5] += 1e-3 * np.random.default_rng(r.seed).standard_normal(r.words[1:, 5].shape)
    found = verdicts.judge([ROW["E2"]], world)
    assert {v.outcome for v in found} == {"falsified"}
    assert found[2].details["kind"] == "bias"


def test_digit_bias_is_no_answer_classifier():
    found = judge(
        ["E1", "C1"],
        Plant("sft", "answer", 5, 0.99, selective=False),
        Plant("shuffled", "answer", 5, 0.99, False),
    )
    assert outcomes(found, "E1") == {"falsified"}
    assert outcomes(found, "C1") == {"supported"}


def _by_derangement(mass: np.ndarray, own: np.ndarray) -> float:
    """Own minus other answers over all pairs of problems, on the scale of the pairs that differ."""
    pairs = [(p, q) for p in range(len(own)) for q in range(len(own)) if p != q]
    told = [mass[p, own[p]] - mass[p, own[q]] for p, q in pairs]
    return float(np.sum(told) / np.sum([own[p] != own[q] for p, q in pairs]))


def test_answer_mass_is_compared_with_the_derangements_of_a_class():
    r = study(Plant("sft", "answer", 5), **SMALL, arms={"sft": 1}).runs[0]
    m = evidence.masses([r], "symbolic", "answer", "multiply")
    here = [i for i, p in enumerate(r.prompts) if p.cls == "multiply" and p.half == 1]
    mass = np.exp(r.answers[2, :, here].astype(float))
    for layer in (2, 5):
        got = (m.own - m.others)[0, 2, m.half == 1, layer].mean()
        assert got == pytest.approx(_by_derangement(mass[:, layer], r.own_answer[here]), abs=1e-6)
        assert got == pytest.approx(m.own[0, 2, m.half == 1, layer].mean(), abs=0.02 if layer == 5 else 2e-3)


def test_copying_is_called_copying():
    found = judge(["E2"], Plant("sft", "glyphs", 5, 0.8))
    assert kinds(found, "E2") == {"copying"}
    assert outcomes(found, "E2") == {"falsified"}
    assert all("copying" in v.reason for v in found.values())


def test_answers_that_stand_in_the_prompt_are_left_out_as_copying():
    world = study(Plant("sft", "answer", 5, 0.6), **SMALL, arms={"sft": 3})
    rng = np.random.default_rng(0)
    copied = rng.random(len(world.runs[0].prompts)) < 0.5
    runs = []
    for r in world.runs:
        answers = r.answers.copy()
        answers[1:, 5, np.flatnonzero(~copied), r.own_answer[~copied]] = np.log(
            1e-3
        )  # mass only where it is copied
        runs.append(dataclasses.replace(r, answers=answers, copied=copied))
    found = verdicts.judge([ROW["E1"]], type(world)(tuple(runs)))
    assert {v.outcome for v in found} == {"falsified"}
    assert all(v.n_prompts < 30 and v.details["copied"] > 0 for v in found)


def test_what_the_base_model_has_already_did_not_emerge():
    found = judge(["E1", "E2"], Plant("base", "answer", 5), Plant("base", "words", 5))
    assert {v.outcome for v in found.values()} == {"falsified"}
    assert kinds(found, "E1") == {"earlier"}


def test_growth_over_what_the_base_model_has_is_emergence():
    found = judge(["E1"], Plant("base", "answer", 5, 0.15), Plant("sft", "answer", 5, 0.4))
    assert outcomes(found, "E1") == {"supported"}
    assert all(0.1 < v.baseline < 0.2 for v in found.values())


def test_a_mass_that_is_neither_above_nor_below_the_threshold_is_inconclusive():
    found = judge(["E2", "B1"], Plant("base", "words", 5, 0.1), prompt_sd=0.08)
    assert outcomes(found, "B1") == {"inconclusive"}


# Steps and seeds ------------------------------------------------------------------------------------------


def test_onset_is_the_interval_between_checkpoints():
    found = judge(["E1"], Plant("sft", "answer", 5, from_step=2), steps=(0, 50, 100, 200))
    assert {v.onset for v in found.values()} == {(50, 100)}


def test_strength_that_falls_does_not_grow():
    world = study(Plant("sft", "answer", 5, 0.5, grows=True), **SMALL, arms={"sft": 3})
    backwards = [dataclasses.replace(r, answers=r.answers[::-1].copy()) for r in world.runs]
    found = verdicts.judge([ROW["E3"]], type(world)(tuple(backwards)))
    assert {v.outcome for v in found} == {"falsified"}


@pytest.mark.parametrize("prediction", ["E1", "E2", "E3", "E4", "E5", "E6", "O1"])
def test_one_seed_speaks_of_this_run_only(prediction):
    plants = [Plant(arm, family, 4, grows=True) for arm in ARMS for family in ("words", "answer")]
    found = judge([prediction], *plants, arms=dict.fromkeys(ARMS, 1))
    assert outcomes(found, prediction) == {"inconclusive"}
    assert all("speaks of this run only" in v.reason and v.estimate is not None for v in found.values())


def test_one_seed_that_lacks_it_is_no_replication():
    found = judge(["E6"], Plant("sft", "answer", 5, 0.6, seeds=(0, 1)))
    assert outcomes(found, "E6") == {"falsified"}
    assert all(v.details["seeds_clear"] == [True, True, False] for v in found.values())


# Nothing to go by -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 0.2])
def test_constant_readings_are_inconclusive_and_never_nan(value):
    world = study(**SMALL)
    for r in world.runs:
        for name in ("words", "glyphs", "random_words", "answers"):
            getattr(r, name)[:] = np.log(value) if value else -np.inf
        r.correct[:] = True
        r.hidden[:] = 1.0
    found = verdicts.judge([p for p in TABLE if p.style == "symbolic"], world)
    for v in found:
        assert v.outcome == "inconclusive", v
        numbers = (v.estimate, v.low, v.high, v.p, v.p_adjusted)
        assert all(math.isfinite(x) for x in numbers if x is not None), v


def test_tied_readings_are_never_nan():
    world = study(Plant("sft", "answer", 5), **SMALL)
    for r in world.runs:
        for name in ("words", "answers", "random_words", "glyphs"):
            getattr(r, name)[:] = np.round(getattr(r, name))
    for v in verdicts.judge([p for p in TABLE if p.style == "symbolic"], world):
        assert all(math.isfinite(x) for x in (v.estimate, v.low, v.high, v.p) if x is not None), v


def test_too_few_prompts_to_judge_on_are_inconclusive():
    found = judge(["E1", "B1", "B3"], Plant("sft", "answer", 5), per_class=8)
    assert {v.outcome for v in found.values()} == {"inconclusive"}


# Holm, premise, controls ----------------------------------------------------------------------------------


def test_p_is_adjusted_over_all_predictions_but_the_controls():
    found = empty()
    family = [v for v in found if v.p is not None and not v.control]
    assert len(family) > 27
    least = min(family, key=lambda v: v.p)
    assert least.p_adjusted == pytest.approx(min(1.0, least.p * len(family)))
    assert all(v.p_adjusted == v.p for v in found if v.control)


def test_decodability_means_nothing_where_its_premise_fails():
    found = judge(["B1", "B3"], Plant("base", "hidden", 4, 3.0), Plant("base", "words", 4, 0.5), hidden=24)
    assert outcomes(found, "B1") == {"falsified"}
    assert outcomes(found, "B3") == {"inconclusive"}
    assert "its premise B1 is falsified" in found["B3", "add"].reason


def test_a_failed_control_makes_every_verdict_an_error():
    found = list(
        judge(["E1", "C1", "C2"], Plant("shuffled", "answer", 5), Plant("sft", "random_words", 5)).values()
    )
    assert {v.prediction for v in verdicts.failed_controls(found)} == {"C1", "C2"}
    with pytest.raises(BrokenExperiment, match=r"control C1\[add\] failed"):
        verdicts.require_controls(found)


def test_shuffled_answers_are_looked_at_at_every_checkpoint():
    """A classifier that comes and goes is none at the end, and fails the control all the same."""
    world = study(Plant("shuffled", "answer", 5), **(SMALL | {"arms": {"shuffled": 2}}))
    for r in world.runs:
        r.answers[2] = r.answers[0]
    found = verdicts.judge([ROW["C1"]], world)
    assert {(v.outcome, v.layer, v.step) for v in found} == {("falsified", 5, 50)}


def test_controls_that_hold_stop_nothing():
    found = list(judge(["C1", "C2"], Plant("shuffled", "answer", 5, 0.99, selective=False)).values())
    assert verdicts.failed_controls(found) == []
    verdicts.require_controls(found)


# Broken on purpose ----------------------------------------------------------------------------------------


def test_layers_chosen_and_judged_on_the_same_prompts_are_caught():
    world = study(**SMALL)
    first = world.runs[0].prompts
    twice = (
        *first,
        *(dataclasses.replace(p, half=1 - p.half, a=p.b, b=p.a) for p in first if p.cls == "add"),
    )
    runs = (dataclasses.replace(world.runs[0], prompts=twice), *world.runs[1:])
    with pytest.raises(BrokenExperiment, match="chosen and judged on the same prompts: 60 problems"):
        verdicts.judge(TABLE, type(world)(runs))


def test_glyphs_counted_as_words_are_caught():
    sets = {"words": {"add": (1, 2), "multiply": (3,)}, "glyphs": {"add": (2,), "multiply": (9,)}}
    with pytest.raises(BrokenExperiment, match=r"glyphs are counted as words: token ids \[2\]"):
        evidence.separate(sets)
    with pytest.raises(BrokenExperiment, match="a word of both add and multiply"):
        evidence.separate({"words": {"add": (1,), "multiply": (1,)}})


@pytest.mark.parametrize("value", [np.nan, 0.7])
def test_readings_that_are_no_probabilities_are_an_error(value):
    world = study(**SMALL)
    world.runs[2].answers[1, 3, 7, 0] = value
    with pytest.raises(BrokenExperiment, match="sft seed 2: answers are no log-probabilities"):
        verdicts.judge([ROW["E1"]], world)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arm": "grpo"}, "arm 'grpo' was not run"),
        ({"style": "sung"}, "style 'sung' was not read"),
        ({"band": "upper"}, "band 'upper' is unknown"),
    ],
)
def test_a_prediction_about_what_was_not_run_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        judge([dataclasses.replace(ROW["E1"], **change)])


# Told before anything is trained --------------------------------------------------------------------------


def experiment(**overrides):
    return config.load(HYPOTHESIS / "config.yaml", {k.replace("__", "."): v for k, v in overrides.items()})


def test_the_default_config_can_judge_the_whole_table():
    assert predictions.check(TABLE, experiment()) == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arm": "grpo"}, "E1: arm 'grpo' is not in the config; it has base, sft"),
        ({"band": "upper"}, "E1: band 'upper' is unknown; known bands: intermediate, middle, at 54 %"),
        ({"style": "sung"}, "E1: style 'sung' is not read"),
        ({"family": "colours"}, "E1: family 'colours' is unknown"),
        ({"test": "vibes"}, "E1: test 'vibes' is unknown"),
        ({"premise": "B9"}, "E1: premise 'B9' is not in the table"),
        ({"untrained_style": True}, "E1: style 'symbolic' is trained on"),
        ({"test": "replication", "min_seeds": 1}, "E1: claims replication with min_seeds=1"),
    ],
)
def test_a_prediction_that_cannot_be_judged_is_told_before_training(change, message):
    with pytest.raises(UsageError) as error:
        predictions.check([dataclasses.replace(ROW["E1"], **change)], experiment())
    assert message in str(error.value)


def test_all_problems_are_told_at_once():
    rows = [dataclasses.replace(ROW["E1"], arm="x", band="y"), ROW["B1"], ROW["B1"]]
    with pytest.raises(UsageError, match=r"B1: .* 2 times.*arm 'x'.*band 'y'"):
        predictions.check(rows, experiment())


def test_one_class_is_no_classifier_question():
    task = experiment().task.model_copy(update={"classes": ("add",)})
    with pytest.raises(UsageError, match="operations: add; a classifier tells classes apart"):
        predictions.check(TABLE, experiment().model_copy(update={"task": task}))


def test_fewer_than_ten_prompts_a_class_are_refused():
    task = experiment().task.model_copy(update={"num_test": 9})
    with pytest.raises(UsageError, match="num_test=9 prompts a class; at least 10"):
        predictions.check(TABLE, experiment().model_copy(update={"task": task}))


def test_one_seed_where_replication_is_claimed_is_told_before_training():
    told = predictions.check(TABLE, config.narrowed(experiment(), None, 1))
    assert any(line.startswith("E6: will be inconclusive: it needs 3 seeds, arm sft has 1") for line in told)
    assert {line.split(":")[0] for line in told} == {"E1", "E2", "E3", "E4", "E5", "E6", "O1", "O2"}


def test_two_checkpoints_are_no_trend():
    told = predictions.check([ROW["E3"]], config.narrowed(experiment(), "0,50", None))
    assert len(told) == 1
    assert "a trend needs three checkpoints" in told[0]


def test_an_objective_elsewhere_is_told():
    arms = tuple(a.model_copy(update={"classifier_layer_pct": 0.25}) for a in experiment().arms)
    told = predictions.check([ROW["O1"]], experiment().model_copy(update={"arms": arms}))
    assert told == ("O1: looks at 54 % depth, arm classified puts its classification term at 25%",)


def many(count: int, **fields) -> list[Prediction]:
    """`count` claims like E1, each for three operations."""
    return [dataclasses.replace(ROW["E1"], id=f"X{i}", **fields) for i in range(count)]


def test_a_long_table_gets_the_permutations_that_it_needs_and_can_be_supported():
    """51 tests: with 4,999 permutations 51 / 5000 = 0.0102 would be the least p that there is."""
    assert predictions.check(many(17), experiment()) == ()
    found = judge(many(17), Plant("sft", "answer", 2, 0.6), n_layers=4, steps=(0, 100))
    assert {v.outcome for v in found.values()} == {"supported"}
    assert all(v.p_adjusted < 0.01 for v in found.values())


def test_a_table_of_the_usual_length_has_the_permutations_that_it_was_frozen_with():
    assert reach.permutations(TABLE, 3) == statistics.PERMUTATIONS == 4999
    assert reach.permutations([ROW["C1"]] * 900, 3) == 4999, "controls are adjusted for nothing"
    assert 200 / (reach.permutations([ROW["E1"]] * 200, 1) + 1) < 0.01


@pytest.mark.parametrize(
    ("rows", "changes", "told"),
    [
        (
            [ROW["E3"]],
            {"training__checkpoint_steps": [0, 100, 300]},
            "E3: will be inconclusive: p is 0.0046 at best, 0.014 after Holm over 3 tests, not below 0.01; "
            "add checkpoints or seeds",
        ),
        (
            [ROW["E1"]],
            {"parameters__num_test": 10},
            "E1: will be inconclusive: p is 0.0083 at best, 0.025 after Holm over 3 tests, not below 0.01; "
            "raise num_test",
        ),
        (
            [dataclasses.replace(ROW["B2"], alpha=1e-5)],
            {},
            "B2: can never be refuted: p is 2e-05 at best, 6e-05 after Holm over 3 tests, not below 1e-05; "
            "split the table",
        ),
    ],
)
def test_a_claim_whose_p_can_never_be_small_enough_is_told_before_training(rows, changes, told):
    assert predictions.check(rows, experiment(**changes)) == (told,)


def test_an_alpha_that_is_no_error_rate_is_refused():
    with pytest.raises(UsageError, match="E1: alpha=0 is no error rate"):
        predictions.check([dataclasses.replace(ROW["E1"], alpha=0.0)], experiment())


# The table ------------------------------------------------------------------------------------------------


def test_the_table_holds_the_thirteen_predictions():
    assert " ".join(p.id for p in TABLE) == "B1 B2 B3 E1 E2 E3 E4 E5 E6 C1 C2 O1 O2"


@pytest.mark.parametrize("field", ["threshold", "alpha", "band", "claim", "min_seeds"])
def test_every_field_of_a_prediction_is_in_the_hash(field):
    value = getattr(TABLE[0], field)
    changed = dataclasses.replace(TABLE[0], **{field: value + "x" if isinstance(value, str) else value + 1})
    assert predictions.Table((changed, *TABLE.rows[1:]), TABLE.version).hash != TABLE.hash


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
        predictions.load_predictions(path)


def test_a_prediction_of_ones_own_is_judged_like_the_rest():
    own = Prediction(
        "X1", "add words early", "sft", "words", "intermediate", "symbolic", "classifier", min_seeds=2
    )
    found = judge([own], Plant("sft", "words", 3, operations=("add",)))
    assert found["X1", "add"].supported
    assert found["X1", "multiply"].outcome == "falsified"
