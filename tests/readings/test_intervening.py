"""What interventions are read as, on a tiny model, against the model run by hand with another stream."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import tiny

from emergence.errors import UsageError
from emergence.experiment import Experiment
from emergence.interventions.last_token import LastToken
from emergence.lens.hooks import observed
from emergence.readings import intervening
from emergence.readings.effects import PLACEBOS, Effects
from emergence.readings.intervening import _Exchange, intervene, passes
from emergence.store import Store

CLAIMS = """
from emergence import Prediction

VERSION = 1
READ = {"style": "symbolic", "band": "at 54 %", "test": "used"}
PREDICTIONS = (
    Prediction("K1", "base", arm="base", **READ, family="stream"),
    Prediction("K2", "sft", arm="sft", **READ, family="class means"),
    Prediction("K3", "sft", arm="sft", **READ, family="words"),
    Prediction("K4", "sft", arm="sft", **READ | {"test": "carries the operation"}, family="stream"),
)
"""


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp("causal")
    tiny.write_config(folder, tiny.write_model(folder / "model"))
    (folder / "predictions.py").write_text(CLAIMS)
    overrides = {"parameters.operands": {"a": [2, 40], "b": [1, 9]}}
    return Experiment(folder, overrides, store=Store(folder / "store"))


@pytest.fixture(scope="module")
def effects(experiment: Experiment) -> Effects:
    asked = [("stream", "at 54 %"), ("class means", "at 54 %")]
    return intervene(experiment.lens, experiment.plan, asked, with_maps=True)


def test_pairs_have_the_same_operands_another_class_and_answers_that_begin_otherwise(
    experiment: Experiment,
) -> None:
    plan = experiment.plan
    assert len(plan.pairs) > 60
    for base, source, other in plan.pairs:
        one, two = plan.prompts[base], plan.prompts[source]
        assert one.numbers == two.numbers
        assert one.half == two.half
        assert one.cls != two.cls
        assert one.answer[0] != two.answer[0]
        assert len(plan.prompt_ids[base]) == len(plan.prompt_ids[source])
        if other >= 0:
            third = plan.prompts[other]
            assert third.cls == two.cls
            assert third.half == one.half
            assert third.numbers != one.numbers
            assert third.answer[0] not in {one.answer[0], two.answer[0]}


def test_what_is_gained_is_what_the_model_says_with_the_other_stream(
    experiment: Experiment, effects: Effects
) -> None:
    """By hand: the block's output at the last token is replaced in a whole pass of the model."""
    lens, plan, layer = experiment.lens, experiment.plan, 2
    for k in (0, 30, 60):
        base, source = (mx.array([plan.prompt_ids[i]]) for i in plan.pairs[k][:2])
        kept: list[mx.array] = []

        def keep(call, args, kwargs, kept=kept):
            kept.append(call(*args, **kwargs))
            return kept[-1]

        def put(call, args, kwargs, kept=kept):
            out = call(*args, **kwargs)
            return mx.concatenate([out[:, :-1], kept[0][:, -1:]], axis=1)

        with observed([(lens.model.layers[layer], keep)]):
            after_source = np.array(lens.model(source))[0, -1].astype(float)
        after_base = np.array(lens.model(base))[0, -1].astype(float)
        with observed([(lens.model.layers[layer], put)]):
            patched = np.array(lens.model(base))[0, -1].astype(float)
        own, theirs = after_base[: lens.vocab_size].argmax(), after_source[: lens.vocab_size].argmax()

        def odds(z, own=own, theirs=theirs):
            return z[theirs] - z[own]

        assert effects.whole[k] == pytest.approx(odds(after_source) - odds(after_base), abs=1e-4)
        gained = effects.gained["stream"][layer, k]
        assert gained == pytest.approx(odds(patched) - odds(after_base), abs=1e-4)


def test_the_last_layers_exchange_brings_over_all_there_is(effects: Effects) -> None:
    assert np.allclose(effects.gained["stream"][-1], effects.whole, atol=1e-4)


def test_a_map_has_every_position_of_one_pair_a_class(experiment: Experiment, effects: Effects) -> None:
    plan = experiment.plan
    assert [plan.prompts[plan.pairs[k].base].cls for k in effects.shown] == list(plan.classes)
    for k, found in zip(effects.shown, effects.maps, strict=True):
        base, source = (plan.prompt_ids[i] for i in plan.pairs[k][:2])
        same = [one == other for one, other in zip(base, source, strict=True)]
        before = same.index(False)
        assert not found[:, :before].any(), "what comes before the operator is the same in both"
        last = found[:, len(base) - 1]
        assert np.allclose(last, effects.gained["stream"][effects.map_layers, k], atol=1e-4)
        assert found[-1, : len(base) - 1] == pytest.approx(0, abs=1e-4), "the last block ends the others"


def test_the_class_means_differ_by_two_directions_and_carry_less_than_the_stream(effects: Effects) -> None:
    at = np.isfinite(effects.gained["class means"]).all(axis=1)
    assert at.sum() in (2, 3), "the layers of the band"
    assert not np.allclose(effects.gained["class means"][at], effects.gained["stream"][at])
    assert effects.placebo["class means"][at].shape[1] == PLACEBOS
    draws = effects.placebo["class means"][at]
    assert np.ptp(draws, axis=1).max() > 0, "no two placebos are the same"


def test_planes_are_made_of_the_other_half_and_placebos_of_the_own_class(
    experiment: Experiment, effects: Effects
) -> None:
    """By hand, in float64: what is exchanged, and what its placebos add, for two pairs of each half."""
    lens, plan, layer = experiment.lens, experiment.plan, 2
    exchange = _Exchange(lens, plan, lambda: None)
    members = sorted({i for pair in plan.pairs for i in pair if i >= 0})
    streams = dict(
        zip(members, lens.streams([list(plan.prompt_ids[i]) for i in members], [layer])[0], strict=True)
    )
    drawn = exchange._changed(layer, exchange._rules("class means", layer), 4)
    moved = exchange._changed(layer, exchange._rules("class means", layer))
    for half in (0, 1):
        known = [i for i in members if plan.prompts[i].half != half]
        means = [
            np.mean([streams[i] for i in known if plan.prompts[i].cls == c], axis=0, dtype=float)
            for c in plan.classes
        ]
        plane = np.linalg.qr(np.diff(means, axis=0).T)[0]
        for k in [k for k, pair in enumerate(plan.pairs) if plan.prompts[pair.base].half == half][::40]:
            base, source = (streams[i].astype(float) for i in plan.pairs[k][:2])
            change = plane @ (plane.T @ (source - base))
            assert np.allclose(moved[k] - base, change, atol=1e-4 * np.abs(change).max())
            placebo = drawn[k] - base
            assert np.linalg.norm(placebo) == pytest.approx(np.linalg.norm(change), rel=1e-3)
            own = [streams[i] for i in members if plan.prompts[i].cls == plan.prompts[plan.pairs[k].base].cls]
            pool = np.array(own, dtype=float)
            ways = (pool[:, None] - pool[None]).reshape(-1, pool.shape[1])
            ways -= ways @ plane @ plane.T
            sizes = np.linalg.norm(ways, axis=1) * np.linalg.norm(placebo)
            along = (ways @ placebo)[sizes > 0] / sizes[sizes > 0]
            assert along.max() == pytest.approx(1, abs=1e-3), "a difference within the class, off the plane"


def test_the_mass_that_an_exchange_leaves_is_that_of_the_lens(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some prompts at a time, for logits take gigabytes; with nothing exchanged the lens reads the same."""
    lens, plan, layer = experiment.lens, experiment.plan, 2
    monkeypatch.setattr(intervening, "AT_ONCE", 7)
    exchange = _Exchange(lens, plan, lambda: None)
    base = [pair.base for pair in plan.pairs]
    ids, style = [list(plan.prompt_ids[i]) for i in base], plan.prompts[base[0]].style
    mass = np.exp(lens.read(ids, plan.words[style], top_k=0, layers=[layer]).log_mass[0])
    own = [plan.classes.index(plan.prompts[i].cls) for i in base]
    found = exchange._left(exchange._at(layer, 0))
    assert found == pytest.approx(mass[np.arange(len(base)), own], rel=1e-3)


def test_a_pair_in_which_the_model_says_one_thing_twice_weighs_nothing_for_the_operation(
    experiment: Experiment, effects: Effects
) -> None:
    lens, plan = experiment.lens, experiment.plan
    z = lens.logits([list(ids) for ids in plan.prompt_ids], [-1])[0][:, : lens.vocab_size]
    said = z.argmax(axis=1)
    distinct = np.array([len({said[i] for i in pair}) == 3 for pair in plan.pairs])
    third = np.array([pair.other >= 0 for pair in plan.pairs])
    assert not effects.crossed[:, ~distinct & third].any()
    assert not effects.crossed_whole[~distinct & third].any()
    assert (effects.crossed_whole[distinct & third] > 0).all()
    assert effects.crossed[0, distinct & third].any()
    assert min((distinct & third).sum(), (~distinct & third).sum()) > 0


def test_a_pass_from_the_last_token_on_is_the_whole_pass(experiment: Experiment) -> None:
    lens = experiment.lens
    ids = [list(experiment.plan.prompt_ids[i]) for i in range(6)]
    tokens = np.tile(np.arange(lens.vocab_size), (6, 1))
    found = LastToken(lens, ids)
    assert all(batch.cache is not None for batch in found._batches)
    assert np.allclose(found.logits(tokens), lens.logits(ids)[-1][:, : lens.vocab_size], atol=1e-4)


def test_effects_are_kept_and_told_by_pass(experiment: Experiment, effects: Effects) -> None:
    told: list[None] = []
    asked = [("stream", "at 54 %")]
    intervene(experiment.lens, experiment.plan, asked, advance=lambda: told.append(None))
    assert len(told) == passes(asked, experiment.lens.n_layers)
    back = Effects.from_arrays(effects.as_arrays())
    assert set(back.gained) == {"stream", "class means"}
    assert np.array_equal(back.placebo["stream"], effects.placebo["stream"], equal_nan=True)


def test_claims_about_use_are_judged_like_any_other(experiment: Experiment) -> None:
    found = {v.prediction: v for v in experiment.verdicts}
    assert set(found) == {"K1", "K2", "K3", "K4"}
    last = experiment.study.runs[0].steps[-1]
    assert set(experiment.study.runs[0].effects) == {0, last}
    assert found["K2"].step in (None, last)
    kept = sorted(p.name for p in (experiment.store.root / "effects").iterdir() if p.is_dir())
    assert len(kept) == 1, "the base model's; those of runs lie with the runs"


def test_operands_that_are_not_matched_have_no_counterfactuals(tmp_path: Path) -> None:
    tiny.write_config(tmp_path, tiny.write_model(tmp_path / "model"))
    (tmp_path / "predictions.py").write_text(CLAIMS)
    with pytest.raises(UsageError, match="K1: needs every item under every class; ask matched operands"):
        _ = Experiment(tmp_path, store=Store(tmp_path / "store")).notices
