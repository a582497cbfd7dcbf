"""The tour: plant a classifier, read it, judge claims, draw the report. `emergence/experiment.py` is next."""

import numpy as np
import pytest
import tiny

from emergence.experiment import Experiment
from emergence.interventions.planting import direction, planted
from emergence.store import Store

CLAIMS = """
from emergence import Prediction

VERSION = 1
READ = {"family": "words", "band": "intermediate", "style": "symbolic"}
PREDICTIONS = (
    Prediction("B", "base model: no word for the operation", arm="base", **READ, test="no classifier"),
    Prediction("E", "after training there is one", arm="sft", **READ, test="classifier"),
)
"""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """An experiment is a folder: what is asked and trained, and claims that are frozen before anything is."""
    folder = tmp_path_factory.mktemp("tour")
    tiny.write_config(folder, tiny.write_model(folder / "model"))
    (folder / "predictions.py").write_text(CLAIMS)
    return Experiment(folder, store=Store(folder / "store"))


def test_what_is_planted_at_a_layer_is_read_there_and_nowhere_else(experiment: Experiment) -> None:
    lens = experiment.lens
    reading = lens.read("7 * 8 = ", token_sets={"multiply": " multiply"})
    before = np.exp(reading.log_mass[:, 0, 0])  # by layer
    found = direction(lens, [list(reading.tokens[0])], layer=1, token=reading.sets["multiply"][0])
    with planted(lens.model, 1, found):
        after = np.exp(lens.read("7 * 8 = ", token_sets={"multiply": " multiply"}).log_mass[:, 0, 0])
    assert after[1] > 0.05 > 10 * before[1]  # a model of 32 dimensions cannot say it louder
    assert np.allclose(np.delete(after, 1), np.delete(before, 1), atol=1e-4)


def test_the_lens_reads_the_last_layer_as_the_model_itself_does(experiment: Experiment) -> None:
    import mlx.core as mx

    ids = experiment.plan.prompt_ids[0]
    own = np.array(experiment.model(mx.array([ids])))[0, -1]
    assert np.allclose(experiment.lens.logits([ids])[-1, 0], own, atol=1e-4)


def test_every_stage_follows_from_the_one_before_and_ends_in_a_verdict_and_a_page(
    experiment: Experiment,
) -> None:
    assert all(control.passed for control in experiment.controls)  # before anything is trained
    assert {(run.arm, run.seed) for run in experiment.runs} == {("sft", 0), ("shuffled", 0)}
    assert experiment.study.runs[0].words.shape[:2] == (3, 4)  # step, layer
    outcomes = {(v.prediction, v.cls): v.outcome for v in experiment.verdicts}
    assert len(outcomes) == 2 * 3, "one verdict for each claim and class"
    assert "supported" not in {outcomes["E", cls] for cls in experiment.config.task.classes}
    page = experiment.report()
    assert all(claim in page.read_text() for claim in ("no word for the operation", "after training"))
    assert page.parent == experiment.results
