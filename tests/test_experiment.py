"""The whole pipeline on a tiny random model: real training, real files, every stage once."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil

import mlx.core as mx
import numpy as np
import pytest
import tiny

from emergence import experiment
from emergence.config import loading as config
from emergence.errors import BrokenExperiment
from emergence.models import loading as models
from emergence.readings import controls, reader
from emergence.store.store import Store
from emergence.training import checkpoints
from emergence.verdicts import judging as verdicts

PREDICTIONS = (
    verdicts.Prediction(
        "P", "an answer classifier emerges", "sft", "answer", "intermediate", "symbolic", "classifier"
    ),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("experiment")


@pytest.fixture(scope="module")
def setting(folder):
    arms = "sft: {method: sft}, classified: {method: classified, classifier_layer_pct: 0.5, max_steps: 2}"
    settings = config.load(tiny.write_config(folder, tiny.write_model(folder / "model"), arms=arms))
    store = Store(folder / "store")
    return experiment.prepare(settings, PREDICTIONS, experiment.load(settings, store), store)


@pytest.fixture(scope="module")
def runs(setting):
    return experiment.train_all(setting)


@pytest.fixture(scope="module")
def study(setting, runs):
    return experiment.read(setting, runs)


def test_every_arm_is_trained_and_read_at_every_step_the_control_included(study):
    assert [(r.arm, r.steps) for r in study.runs] == [
        ("sft", (0, 2, 4)),
        ("classified", (0, 2)),
        ("shuffled", (0, 2, 4)),
    ]
    run = study.runs[0]
    assert run.words.shape == (3, 4, 2 * 30 + 1, 3)
    assert {p.half for p in run.prompts} == {0, 1, -1}


def test_a_problem_is_in_the_same_half_in_every_style(study):
    halves = {}
    for p in study.runs[0].prompts:
        if p.half >= 0:
            halves.setdefault((p.cls, p.a, p.b), set()).add(p.half)
    assert len(halves) == 30
    assert all(len(found) == 1 for found in halves.values())


def test_readings_agree_with_the_models_own_logits_in_float64(setting, runs, study):
    run, prompt = study.runs[0], 7
    with models.adapted(setting.model, runs[0].checkpoints[4]):
        logits = np.array(setting.model(mx.array([setting.plan.prompt_ids[prompt]])))[0, -1].astype(
            np.float64
        )
    log_p = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
    ids = list(setting.plan.words["symbolic"]["add"])
    assert run.words[2, -1, prompt, 0] == pytest.approx(np.log(np.exp(log_p[ids]).sum()), abs=1e-4)
    assert run.answers[2, -1, prompt] == pytest.approx(log_p[run.answer_ids], abs=1e-4)
    assert run.correct[2, prompt] == (log_p.argmax() == run.answer_ids[run.own_answer[prompt]])


def test_worded_prompts_do_not_count_their_own_words(setting):
    symbolic, worded = setting.plan.words["symbolic"], setting.plan.words["worded"]
    plus = setting.tokenizer.encode(" plus")[0]
    assert plus in symbolic["add"]
    assert plus not in worded["add"]


def test_a_second_call_trains_and_reads_nothing(setting, runs, study, monkeypatch):
    monkeypatch.setattr(experiment.training, "train", None)
    monkeypatch.setattr(experiment.reader, "read", None)
    again = experiment.read(setting, experiment.train_all(setting))
    for before, after in zip(study.runs, again.runs, strict=True):
        assert np.array_equal(before.words, after.words)
        assert np.array_equal(before.answers, after.answers)


def with_free(monkeypatch, n_bytes):
    usage = shutil.disk_usage(".")._replace(free=n_bytes)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


def test_too_little_space_for_all_that_is_missing_is_said_before_anything_is_trained(
    setting, runs, tmp_path, monkeypatch
):
    elsewhere = dataclasses.replace(setting, store=Store(tmp_path / "store"))
    sft, classified = (experiment._size(setting.model, setting.config.arm(n)) for n in ("sft", "classified"))
    monkeypatch.setattr(experiment.training, "train", None)
    with_free(monkeypatch, int(1.05 * (2 * sft + classified)) - 1)  # shuffled takes what sft does
    with pytest.raises(BrokenExperiment, match=r"needs .* kB, has .* kB free; free some space") as caught:
        experiment.train_all(elsewhere)
    assert "\n" not in str(caught.value)
    assert not elsewhere.store.root.exists()
    with_free(monkeypatch, 0)
    assert experiment.train_all(setting) == runs, "what is there needs no space"


def test_no_run_ever_needs_more_space_than_was_asked_for(setting, tmp_path, monkeypatch):
    remove, peaks = checkpoints._remove_arrays, []

    def measured(workdir, keep=""):  # the old state and the new one are both there
        kept = [mx.load(str(path)) for path in workdir.rglob("*.safetensors")]
        peaks.append(sum(array.nbytes for arrays in kept for array in arrays.values()))
        remove(workdir, keep)

    monkeypatch.setattr(checkpoints, "_remove_arrays", measured)
    arm = setting.config.arm("sft")
    experiment.train(dataclasses.replace(setting, store=Store(tmp_path)), arm, 0)
    asked = experiment._size(setting.model, arm)
    assert 0.95 * asked < max(peaks) <= 1.05 * asked


def test_every_prediction_is_judged_for_every_operation_and_the_report_is_written(setting, runs, study):
    judged = experiment.judge(setting, PREDICTIONS, study)
    assert [(v.prediction, v.cls) for v in judged] == [("P", o) for o in ("add", "subtract", "multiply")]
    page = experiment.publish(setting, PREDICTIONS, runs, study, judged)
    assert page.stat().st_size > 1000
    assert str(setting.source.folder) not in page.read_text()


def test_the_planted_classifier_is_found_at_its_layer_and_nowhere_else(setting):
    assert [c.passed for c in setting.controls] == [True]


def test_a_lens_that_swaps_two_layers_fails_the_planted_control(setting, monkeypatch):
    read = type(setting.lens).read

    def swapped(self, *args, **kwargs):
        reading = read(self, *args, **kwargs)
        mass = reading.log_mass.copy()
        mass[[1, 2]] = mass[[2, 1]]
        return dataclasses.replace(reading, log_mass=mass)

    monkeypatch.setattr(type(setting.lens), "read", swapped)
    with pytest.raises(BrokenExperiment, match="planted classifier"):
        controls.before_training(setting.model, setting.lens, setting.plan)


def test_planting_is_undone_after_an_exception(setting):
    ids = list(setting.plan.prompt_ids[:2])
    before = np.asarray(setting.lens.logits(ids))
    with contextlib.suppress(RuntimeError), controls.planted(setting.model, 1, mx.ones(32) / 32**0.5):
        raise RuntimeError
    assert np.array_equal(before, np.asarray(setting.lens.logits(ids)))


def test_an_adapter_that_is_not_applied_is_caught_by_name(setting, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(reader.models, "adapted", lambda model, path: contextlib.nullcontext())
    with pytest.raises(BrokenExperiment, match="not applied"):
        reader.read_run(setting.model, setting.lens, setting.plan, runs[0].checkpoints, tmp_path, "sft")


def test_a_first_checkpoint_that_is_not_the_base_model_is_caught_by_name(
    setting, runs, tmp_path, monkeypatch
):
    adapted = models.adapted
    wrong = runs[0].checkpoints[2]
    monkeypatch.setattr(reader.models, "adapted", lambda model, path: adapted(model, wrong))
    with pytest.raises(BrokenExperiment, match="base model at step 0"):
        reader.read_run(setting.model, setting.lens, setting.plan, runs[0].checkpoints, tmp_path, "sft")
