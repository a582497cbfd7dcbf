"""What the page draws is what was judged, and no token gets out of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import report_case as case
import synthetic

from emergence.analysis import frames, masses
from emergence.readings.readings import EVALUATION
from emergence.report import payload


def arm(data: dict, name: str) -> dict:
    return next(one for one in data["arms"] if one["name"] == name)


def test_a_planted_classifier_stands_where_it_was_planted() -> None:
    data = payload.build(synthetic.study(synthetic.Plant("sft", "words", layer=5, mass=0.4)), {})
    sft = arm(data, "sft")
    last = np.array(sft["own"]["words"]["symbolic"][0]).mean(axis=0)[-1] / payload.SCALE
    assert last.argmax() == 5
    assert last[5] == pytest.approx(0.4, abs=0.08)
    counts = np.array(sft["confusion"]["symbolic"][-1][5])
    assert np.trace(counts) / counts.sum() > 0.9
    assert np.array(arm(data, "shuffled")["own"]["words"]["symbolic"]).max() / payload.SCALE < 0.1


@pytest.mark.parametrize("family", ["words", "answer", "glyphs"])
def test_strength_other_and_rest_by_layer_are_the_verdicts_own(family: str) -> None:
    """With copied prompts and shared first tokens, where another way of counting gives other numbers."""
    study = case.study(per_class=20, copying=True)
    data = payload.build(study, {})
    assert study.runs[0].copied.any()
    for style in ("symbolic", "worded"):
        for c, cls in enumerate(study.runs[0].classes):
            held = masses.from_readings(study.arm("sft"), style, family, cls)
            parts = {"own": held.own, "other": held.others.mean(axis=0)}
            judged = {
                name: part[..., held.half == EVALUATION, :].mean(axis=-2) for name, part in parts.items()
            }
            if held.rest is not None:
                judged["rest"] = held.rest[:, :, held.rest_half == EVALUATION].mean(axis=(0, 2))
            for name, expected in judged.items():
                drawn = np.array(arm(data, "sft")[name][family][style][c]) / payload.SCALE
                np.testing.assert_allclose(drawn, expected, atol=0.51 / payload.SCALE)


def test_what_there_is_nothing_of_is_null() -> None:
    study = case.study(per_class=4, copying=True)
    for run in study.runs:
        run.copied[:] = True
    sft = arm(payload.build(study, {}), "sft")
    empty = [
        sft["own"]["answer"],
        sft["other"]["answer"],
        sft["rest"]["answer"],
        sft["other"]["random_words"],
    ]
    for numbers in empty:
        assert {v for style in numbers.values() for v in np.array(style, dtype=object).reshape(-1)} == {None}
    assert None not in np.array(sft["rest"]["random_words"]["worded"], dtype=object)


def test_entropy_kl_and_accuracy_are_means_over_the_judged_prompts() -> None:
    study = case.study()
    runs = study.arm("dual_reward")
    drawn = arm(payload.build(study, {}), "dual_reward")
    judged = [i for i, p in enumerate(runs[0].prompts) if (p.style, p.half) == ("worded", 1)]
    for name in ("entropy", "kl"):
        expected = np.mean([getattr(r, name)[1, 2, judged] for r in runs])
        assert drawn[name]["worded"][1][2] / 100 == pytest.approx(expected, abs=0.0051)
    of_class = [i for i in judged if runs[0].prompts[i].cls == "subtract"]
    assert drawn["correct"]["worded"][1][0][2] == round(1e4 * float(runs[0].correct[2, of_class].mean()))


def test_the_drill_down_shows_the_configs_prompts_first_then_each_class_in_turn() -> None:
    study = case.study()
    data = payload.build(study, {}, case.decode)
    shown = [(p["class"], p["style"], p["half"]) for p in data["prompts"]]
    assert shown[:2] == [("add", "symbolic", -1), ("multiply", "symbolic", -1)]
    each = [(c, s, 1) for s in ("symbolic", "worded") for c in ("add", "subtract", "multiply")]
    assert shown[2:] == 3 * each
    run, index = study.runs[0], len(study.runs[0].prompts) - 2
    tokens = [[data["tokens"][t] for t in layers] for layers in data["drill"][0]["top"][0]]
    assert tokens == [[case.decode(int(t)) for t in layers] for layers in run.top_ids[:, :, index, 0]]
    answers = np.array(data["drill"][0]["answer"][0]) / 1000
    np.testing.assert_allclose(answers, frames.own(run, "answer")[:, :, index], atol=0.00051)


def test_the_default_experiment_stays_below_3_mb() -> None:
    settings = {"steps": (0, 25, 50, 100, 150, 200, 300), "n_layers": 30, "per_class": 60, "hidden": 4}
    study = synthetic.study(arms=dict.fromkeys(case.ARMS, 3), shown=case.SHOWN, **settings)
    data = payload.build(study, {}, case.decode)
    assert len(payload.embed(data).encode()) < 1_500_000
    assert len(data["prompts"]) >= 5


def test_embedded_json_has_nothing_that_ends_a_script_and_comes_back_equal() -> None:
    value = {"tokens": [case.HOSTILE, "<!--", "\u2028&amp;\u2029"], "n": None}
    text = payload.embed(value)
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text) == value


def test_the_evidence_of_a_verdict_is_short_and_finite() -> None:
    numbers = {"mass": (0.123456789, float("nan")), "layers": [1, 2]}
    drawn = payload.evidence(case.verdict("E2", "supported", layer=3, details=numbers))
    assert drawn["details"] == {"mass": [0.12346, None], "layers": [1, 2]}
    assert (drawn["prediction"], drawn["class"], drawn["layer"]) == ("E2", "add", 3)
