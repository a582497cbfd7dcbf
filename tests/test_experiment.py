"""The whole pipeline on a tiny random model: real training, real files, every stage once."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil

import mlx.core as mx
import numpy as np
import pytest
import trained

from emergence.errors import BrokenExperiment
from emergence.experiment import Experiment
from emergence.interventions import planting
from emergence.models import loading as models
from emergence.provenance import size
from emergence.readings import controls, reader
from emergence.report import records
from emergence.store import Store
from emergence.training import checkpoints, loop

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def folder(trained_folder, tmp_path_factory):
    """A copy, since some tests write reports and train further runs."""
    return trained.copied(trained_folder, tmp_path_factory.mktemp("experiment") / "tiny")


@pytest.fixture(scope="module")
def experiment(folder):
    return trained.experiment(folder)


@pytest.fixture(scope="module")
def runs(experiment):
    return experiment.runs


@pytest.fixture(scope="module")
def study(experiment):
    return experiment.study


def elsewhere(experiment, root):
    """The same experiment with another store, on the same loaded model."""
    return Experiment(experiment.folder, store=Store(root), loaded=experiment._loaded)


def test_every_arm_is_trained_and_read_at_every_step_the_control_included(study):
    assert [(r.arm, r.steps) for r in study.runs] == list(trained.STEPS.items())
    run = study.runs[0]
    assert run.words.shape == (3, 4, 2 * 90 + 1, 3)
    assert {p.half for p in run.prompts} == {0, 1, -1}


def test_a_problem_is_in_the_same_half_in_every_style(study):
    halves = {}
    for p in study.runs[0].prompts:
        if p.half >= 0:
            halves.setdefault(p.key, set()).add(p.half)
    assert len(halves) == 90
    assert all(len(found) == 1 for found in halves.values())


def _log_p(model, ids):
    logits = np.array(model(mx.array([ids])))[0, -1].astype(np.float64)
    return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


def test_readings_agree_with_the_models_own_logits_in_float64(experiment, runs, study):
    run, plan = study.runs[0], experiment.plan
    prompt = next(i for i, p in enumerate(plan.prompts) if len(p.answer) == 2 and p.half >= 0)
    with models.adapted(experiment.model, runs[0].checkpoints[4]):
        log_p = _log_p(experiment.model, plan.prompt_ids[prompt])
        last = _log_p(experiment.model, plan.forced_ids[prompt])
    ids = list(plan.words["symbolic"]["add"])
    assert run.words[2, -1, prompt, 0] == pytest.approx(np.log(np.exp(log_p[ids]).sum()), abs=1e-4)
    assert run.firsts[2, -1, prompt] == pytest.approx(log_p[run.first_ids], abs=1e-4)
    assert run.answers[2, -1, prompt] == pytest.approx(last[run.answer_ids], abs=1e-4)
    assert run.correct[2, prompt] == (last.argmax() == run.answer_ids[run.own_answer[prompt]])


def test_answers_are_read_where_their_last_token_is_predicted(experiment, study):
    plan, tokenizer = experiment.plan, experiment.tokenizer
    for i, p in enumerate(plan.prompts):
        right = (plan.answer_ids[plan.own_answer[i]], plan.first_ids[plan.own_first[i]])
        assert tokenizer.decode([*plan.forced_ids[i], right[0]]) == p.text + p.answer
        assert plan.forced_ids[i][: len(plan.prompt_ids[i])] == plan.prompt_ids[i]
        assert tokenizer.decode([right[1]]).strip() == p.answer[0]
        assert study.runs[0].copied[i] == (right[0] in plan.forced_ids[i])


def test_what_the_model_writes_is_what_teacher_forcing_promises(experiment, runs, study):
    """An answer is written exactly where each of its tokens, and the end, is the likeliest one."""
    run, plan, tokenizer = study.runs[0], experiment.plan, experiment.tokenizer
    assert np.isnan(run.exact[1]).all()
    assert (np.isfinite(run.exact[2]) == np.isin(np.arange(len(plan.prompts)), plan.written)).all()
    with models.adapted(experiment.model, runs[0].checkpoints[4]):
        for i in plan.written[:20]:
            ids, said = list(plan.prompt_ids[i]), []
            while len(said) <= plan.longest and (not said or said[-1] != tokenizer.eos_token_id):
                said.append(int(_log_p(experiment.model, [*ids, *said]).argmax()))
            text = tokenizer.decode([t for t in said if t != tokenizer.eos_token_id])
            assert run.exact[2, i] == (text.split("\n")[0].strip() == plan.prompts[i].answer), i


def test_worded_prompts_do_not_count_their_own_words(experiment):
    symbolic, worded = experiment.plan.words["symbolic"], experiment.plan.words["worded"]
    plus = experiment.tokenizer.encode(" plus")[0]
    assert plus in symbolic["add"]
    assert plus not in worded["add"]


def test_a_second_call_trains_and_reads_nothing(experiment, runs, study, monkeypatch):
    monkeypatch.setattr(loop.Trainer, "run", None)
    monkeypatch.setattr(reader, "read", None)
    again = elsewhere(experiment, experiment.store.root).study
    for before, after in zip(study.runs, again.runs, strict=True):
        assert np.array_equal(before.words, after.words, equal_nan=True)
        assert np.array_equal(before.answers, after.answers, equal_nan=True)


def with_free(monkeypatch, n_bytes):
    usage = shutil.disk_usage(".")._replace(free=n_bytes)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


def test_too_little_space_for_all_that_is_missing_is_said_before_anything_is_trained(
    experiment, runs, tmp_path, monkeypatch
):
    empty = elsewhere(experiment, tmp_path / "store")
    sft, classified = (size(experiment.model, experiment.config.arm(n)) for n in ("sft", "classified"))
    monkeypatch.setattr(loop.Trainer, "run", None)
    with_free(monkeypatch, int(1.05 * (2 * sft + classified)) - 1)  # shuffled takes what sft does
    with pytest.raises(BrokenExperiment, match=r"needs .* kB, has .* kB free; free some space") as caught:
        _ = empty.runs
    assert "\n" not in str(caught.value)
    assert not empty.store.root.exists()
    with_free(monkeypatch, 0)
    assert elsewhere(experiment, experiment.store.root).runs == runs, "what is there needs no space"


def test_no_run_ever_needs_more_space_than_was_asked_for(experiment, tmp_path, monkeypatch):
    remove, peaks = checkpoints._remove_arrays, []

    def measured(workdir, keep=""):  # the old state and the new one are both there
        kept = [mx.load(str(path)) for path in workdir.rglob("*.safetensors")]
        peaks.append(sum(array.nbytes for arrays in kept for array in arrays.values()))
        remove(workdir, keep)

    monkeypatch.setattr(checkpoints, "_remove_arrays", measured)
    arm = experiment.config.arm("sft")
    elsewhere(experiment, tmp_path).train(arm, 0)
    asked = size(experiment.model, arm)
    assert 0.95 * asked < max(peaks) <= 1.05 * asked


def test_every_prediction_is_judged_for_every_class_and_the_report_is_written(experiment):
    judged = [(v.prediction, v.cls) for v in experiment.verdicts]
    assert judged == [("P", o) for o in ("add", "subtract", "multiply")]
    page = experiment.report()
    assert page.stat().st_size > 1000
    assert page.parent.name == f"{experiment.config.hash[:12]}-{experiment.source.hash[:12]}"
    assert str(experiment.source.folder) not in page.read_text()


def test_other_settings_leave_the_results_of_the_first_ones_alone(experiment):
    first = experiment.report().read_bytes()
    other = Experiment(
        experiment.folder, {"seeds": 1, "steps": "0,2"}, experiment.store, loaded=experiment._loaded
    )
    assert other.report().parent != experiment.results
    assert (experiment.results / "report.html").read_bytes() == first
    assert records.latest(experiment.store.root, "tiny") == other.results


def test_the_planted_classifier_is_found_at_its_layer_and_nowhere_else(experiment):
    held = {c.name: c.passed for c in experiment.controls}
    assert held == {"planted classifier": True, "leading digits": True}


def test_a_lens_that_swaps_two_layers_fails_the_planted_control(experiment, monkeypatch):
    read = type(experiment.lens).read

    def swapped(self, *args, **kwargs):
        reading = read(self, *args, **kwargs)
        mass = reading.log_mass.copy()
        mass[[1, 2]] = mass[[2, 1]]
        return dataclasses.replace(reading, log_mass=mass)

    monkeypatch.setattr(type(experiment.lens), "read", swapped)
    with pytest.raises(BrokenExperiment, match="planted classifier"):
        controls.before_training(experiment.lens, experiment.plan)


def test_planting_is_undone_after_an_exception(experiment):
    ids = list(experiment.plan.prompt_ids[:2])
    before = np.asarray(experiment.lens.logits(ids))
    with contextlib.suppress(RuntimeError), planting.planted(experiment.model, 1, mx.ones(32) / 32**0.5):
        raise RuntimeError
    assert np.array_equal(before, np.asarray(experiment.lens.logits(ids)))


def test_an_adapter_that_is_not_applied_is_caught_by_name(experiment, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(reader.models, "adapted", lambda model, path: contextlib.nullcontext())
    with pytest.raises(BrokenExperiment, match="not applied"):
        reader.read_run(experiment.lens, experiment.plan, runs[0], tmp_path)


def test_a_first_checkpoint_that_is_not_the_base_model_is_caught_by_name(
    experiment, runs, tmp_path, monkeypatch
):
    adapted = models.adapted
    wrong = runs[0].checkpoints[2]
    monkeypatch.setattr(reader.models, "adapted", lambda model, path: adapted(model, wrong))
    with pytest.raises(BrokenExperiment, match="base model at step 0"):
        reader.read_run(experiment.lens, experiment.plan, runs[0], tmp_path)
