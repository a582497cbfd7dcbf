"""Each control, broken on purpose, is caught by name: through the stages that the main job calls.

What can be known before training is refused before training, at every door.
"""

from __future__ import annotations

import contextlib
import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny

from emergence.cli import main as cli
from emergence.errors import BrokenExperiment, NotMeasurable, UsageError
from emergence.experiment import Experiment
from emergence.lens.hooks import observed
from emergence.lens.residual import ResidualStream
from emergence.readings import plan as planning
from emergence.readings import reader
from emergence.store import Store
from emergence.tasks.arithmetic import Arithmetic, Problem
from emergence.verdicts import Prediction, Table, Verdict, require_controls

pytest_plugins = ["pytester"]

CONFIG = """
name: small
model: {model}
training:
  max_steps: 2
  batch_size: 6
  checkpoint_steps: [0, 2]
  seeds: {seeds}
  training_methods:
    sft: {{method: sft}}
parameters:
  operations: [{operations}]
  num_samples: 24
  num_valid: 4
  num_test: {num_test}
  lora: {{rank: 2, alpha: 4}}
  task_vocabulary: {{add: [add, plus, sum], multiply: [multiply, times, product]}}
"""
GIVEN = {"seeds": "[0]", "operations": "add, multiply", "num_test": 60}
READ = {"band": "intermediate", "style": "symbolic"}
PREDICTIONS = (
    Prediction("B", "no word", arm="base", family="words", **READ, test="no classifier"),
    Prediction(
        "C", "no answer", arm="shuffled", family="answer", **READ, test="no classifier", control=True,
        any_step=True, emerges=True,
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """An experiment on a tiny model, trained."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "config.yaml").write_text(CONFIG.format(model=tiny.write_model(folder / "model"), **GIVEN))
    first = again(SimpleNamespace(folder=folder, store=Store(folder / "store"), _loaded={}))
    assert first.runs
    return first


def again(world: Any, loaded: dict[str, Any] | None = None) -> Experiment:
    """The same experiment with every stage to come; the model stays loaded unless told otherwise."""
    new = Experiment(world.folder, store=world.store, loaded=world._loaded if loaded is None else loaded)
    new.predictions = Table(PREDICTIONS)
    return new


def judged(world: Any) -> tuple[Verdict, ...]:
    """From the trained runs to verdicts that may be used."""
    found = again(world).verdicts
    require_controls(found)
    return found


def leaked(patch: pytest.MonkeyPatch) -> None:
    draw = Arithmetic.draw

    def drawn_twice(*arguments: Any) -> list[Problem]:
        problems = draw(*arguments)
        return [*problems[:-1], problems[0]]  # the first is tested, the last is trained on

    patch.setattr(Arithmetic, "draw", drawn_twice)


def glyphs_as_words(patch: pytest.MonkeyPatch) -> None:
    plan = planning._plan

    def planned(*arguments: Any) -> planning.Plan:
        made = plan(*arguments)
        words = {s: {c: ids + made.glyphs[c] for c, ids in sets.items()} for s, sets in made.words.items()}
        return dataclasses.replace(made, words=words)

    patch.setattr(planning, "_plan", planned)


def one_half_for_both(patch: pytest.MonkeyPatch) -> None:
    plan = planning._plan

    def planned(*arguments: Any) -> planning.Plan:
        made = plan(*arguments)
        twice = [dataclasses.replace(p, half=1 - p.half) for p in made.prompts if p.half >= 0]
        return dataclasses.replace(made, prompts=(*made.prompts, *twice))

    patch.setattr(planning, "_plan", planned)


def no_mask(patch: pytest.MonkeyPatch) -> None:
    """What the published version did: the lens runs the blocks itself, `layer(h, mask=None)`."""
    observe = ResidualStream.observe

    @contextlib.contextmanager
    def unmasked(self: ResidualStream, middles: Any = None) -> Any:
        bare = [(b, lambda call, args, kwargs: call(args[0], None, **kwargs)) for b in self.model.layers]
        with observe(self, middles) as seen, observed(bare):
            yield seen

    patch.setattr(ResidualStream, "observe", unmasked)


BEFORE_TRAINING = {
    "answers leaked into the training set": (leaked, UsageError, "problems are in both train and test"),
    "glyphs counted as words": (glyphs_as_words, BrokenExperiment, "glyphs are counted as words"),
    "layers chosen and judged on the same prompts": (
        one_half_for_both,
        BrokenExperiment,
        "layers would be chosen and judged on the same prompts",
    ),
}


@pytest.mark.parametrize(("broken", "kind", "says"), BEFORE_TRAINING.values(), ids=BEFORE_TRAINING)
def test_what_can_be_known_before_training_is_refused_there(world, monkeypatch, broken, kind, says):
    broken(monkeypatch)
    with pytest.raises(kind, match=says):
        _ = again(world).controls


def test_a_lens_without_the_mask_is_refused_when_the_model_is_loaded(world, monkeypatch):
    no_mask(monkeypatch)
    with pytest.raises(NotMeasurable, match="its last layer, read out, is not its logits"):
        _ = again(world, loaded={}).lens


def test_an_adapter_that_is_not_applied_ends_the_main_job(world, monkeypatch):
    monkeypatch.setattr(reader.models, "adapted", lambda model, path: contextlib.nullcontext())
    with pytest.raises(BrokenExperiment, match="changes nothing: it is not applied"):
        judged(world)


def test_answers_leaked_into_the_shuffled_arm_fail_its_control(world, monkeypatch, tmp_path):
    """An arm that was given the right answers reads them out inside: nothing of the run counts."""
    read = reader.read_study

    def knowing(*arguments: Any) -> Any:
        study = read(*arguments)
        for run in (r for r in study.runs if r.arm == "shuffled"):
            run.answers[1:, 2] = np.log(1e-3)
            run.answers[1:, 2, np.arange(len(run.prompts)), run.own_answer] = np.log(
                np.random.default_rng(0).uniform(0.4, 0.6, len(run.prompts))
            )
        return study

    assert judged(world)
    monkeypatch.setattr(reader, "read_study", knowing)
    with pytest.raises(BrokenExperiment, match=r"control C\[add\] failed: .*No verdict of this run counts"):
        judged(world)
    there = sorted(world.folder.iterdir())
    with pytest.raises(BrokenExperiment, match=r"control C\[add\] failed"):
        again(world).record()
    assert sorted(world.folder.iterdir()) == there


# Bad input, at the doors ----------------------------------------------------------------------------------

TABLE = """
from emergence import Prediction
VERSION = 1
PREDICTIONS = (
    Prediction("E", "it emerges", {arm!r}, "words", {band!r}, "symbolic", {test!r}, min_seeds={min_seeds}),
)
"""
CLAIM = {"arm": "sft", "band": "intermediate", "test": "classifier", "min_seeds": 1}
TESTS = """
import pytest

@pytest.mark.slow
@pytest.mark.prediction("E")
def test_it_emerges(verdict):
    assert verdict.supported, verdict
"""
BAD = {
    "one class": ({"operations": "add"}, {}, "parameters.operations: 1 given; at least 2 needed"),
    "nine prompts": ({"num_test": 9}, {}, "parameters.num_test: 9 should be greater than or equal to 10"),
    "unknown arm": (
        {},
        {"arm": "grpo"},
        "E: arm 'grpo' is not in the config; it has base, permuted, sft, shuffled",
    ),
    "unknown band": ({}, {"band": "upper"}, "E: band 'upper' is unknown; known bands: intermediate"),
    "one replicates": ({}, {"test": "replication"}, "E: claims replication with min_seeds=1; one run"),
}


@pytest.fixture
def door(pytester):
    """Write an experiment; give back how `emergence run` and pytest end: exit code and what was said."""

    def ask(through: str, given: dict[str, Any], claim: dict[str, Any], capsys: Any) -> tuple[int, str]:
        pytester.makeconftest('pytest_plugins = ["emergence.fixtures"]')
        folder = pytester.mkdir("hypotheses") / "small"
        folder.mkdir()
        (folder / "config.yaml").write_text(CONFIG.format(model="smollm2-135m-instruct", **(GIVEN | given)))
        (folder / "predictions.py").write_text(TABLE.format(**(CLAIM | claim)))
        (folder / "test_small.py").write_text(TESTS)
        if through != "emergence run":
            collect = ["--collect-only"] * (through == "collection")
            result = pytester.runpytest_inprocess("hypotheses", "-m", "slow", *collect)
            return int(result.ret), result.stdout.str() + result.stderr.str()
        with pytest.raises(SystemExit) as ended:
            cli.main(["run", "small"])
        return ended.value.code, capsys.readouterr().err

    return ask


@pytest.mark.parametrize("through", ["emergence run", "pytest"])
@pytest.mark.parametrize(("given", "claim", "says"), BAD.values(), ids=BAD)
def test_bad_input_is_told_at_the_door_and_nothing_is_trained(
    door, pytester, capsys, through, given, claim, says
):
    code, said = door(through, given, claim, capsys)
    assert code == {"emergence run": 2, "pytest": 4}[through]
    assert says in said
    assert "Traceback" not in said
    assert not (pytester.path / ".emergence").exists()


def test_one_seed_where_replication_is_claimed_is_told_before_training(door, pytester, capsys):
    """It may be run, and speaks of itself only."""
    code, said = door("collection", {}, {"test": "replication", "min_seeds": 3}, capsys)
    assert code == 0
    assert "E: will be inconclusive: it needs 3 seeds, arm sft has 1; add seeds" in said
    assert not (pytester.path / ".emergence").exists()
