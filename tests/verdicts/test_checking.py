"""What a table can never decide under a config is said before anything is trained."""

from __future__ import annotations

import dataclasses

import pytest
from judged import HYPOTHESIS, ROW, TABLE, judge
from synthetic import Plant

from emergence.analysis.permutation import PERMUTATIONS
from emergence.config import loading
from emergence.errors import UsageError
from emergence.verdicts import Prediction
from emergence.verdicts.checking import MOST_PERMUTATIONS, check, permutations


def config_with(**overrides):
    return loading.load(HYPOTHESIS / "config.yaml", {k.replace("__", "."): v for k, v in overrides.items()})


def enough(**overrides):
    """The default experiment with as many prompts and seeds as every row needs."""
    arms = {f"training__training_methods__{a}__seeds": [0, 1, 2, 3, 4] for a in ("sft", "classified")}
    return config_with(**{"parameters__num_test": 180, "parameters__num_samples": 900} | arms | overrides)


def test_with_enough_prompts_and_seeds_every_row_can_be_decided():
    assert check(TABLE, enough()) == ()


def said_of(told, claim: str, text: str) -> bool:
    """Whether a line says this of a claim; claims with one reason share a line."""
    return any(claim in line.partition(":")[0].split(", ") and text in line for line in told)


def test_what_few_prompts_and_seeds_can_never_show_is_told():
    told = check(TABLE, config_with())
    assert said_of(told, "B1", "can never be supported: 60 prompts that all hold nothing")
    assert said_of(told, "E2", "can never be falsified: 3 seeds that lack it leave it open")
    assert said_of(told, "C2", "can never be supported: 60 prompts")


def test_what_few_pairs_can_never_show_is_told_of_exchanges_too():
    used = dataclasses.replace(ROW["E1"], test="used", family="stream", emerges=False)
    matched = {"parameters__operands": {"a": [2, 99], "b": [1, 9]}}
    told = check([used], enough(parameters__num_test=60, **matched))
    assert said_of(told, "E1", "can never be falsified: 60 prompts that all hold nothing")
    assert check([used], enough(**matched)) == ()


def test_a_threshold_that_is_not_above_what_is_negligible_is_refused():
    claim = dataclasses.replace(ROW["E1"], threshold=0.05)
    with pytest.raises(UsageError, match=r"E1: threshold=0.05 is not above negligible=0.05"):
        check([claim], config_with())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arm": "grpo"}, "E1: arm 'grpo' is not in the config; it has base, permuted, sft"),
        ({"band": "upper"}, "E1: band 'upper' is unknown; known bands: intermediate, middle, at 54 %"),
        ({"style": "sung"}, "E1: style 'sung' is not read"),
        ({"family": "colours"}, "E1: family 'colours' is unknown"),
        (
            {"arm": "permuted", "test": "used", "family": "stream"},
            "E1: streams are exchanged in the base model",
        ),
        ({"test": "vibes"}, "E1: test 'vibes' is unknown"),
        ({"premise": "B9"}, "E1: premise 'B9' is not in the table"),
        ({"untrained_style": True}, "E1: style 'symbolic' is trained on"),
        ({"test": "replication", "min_seeds": 1}, "E1: claims replication with min_seeds=1"),
        ({"test": "contrast"}, "E1: a contrast is with one other arm: against=('sft',)"),
        ({"test": "contrast", "against": ("sft",)}, "E1: a contrast is with one other arm"),
        ({"test": "contrast", "against": ("base",)}, "E1: arm 'base' is not trained; `contrast` is of what"),
        ({"test": "accuracy gain", "arm": "base"}, "E1: arm 'base' is not trained; `accuracy gain`"),
        ({"test": "accuracy gain", "style": "worded"}, "E1: style 'worded' is not trained on; the model"),
        ({"test": "accuracy gain", "family": "words anywhere"}, "family 'words anywhere' is not read"),
        ({"against": ("base",)}, "E1: against=['base'] is for `predicts correctness` and `contrast`"),
    ],
)
def test_a_prediction_that_cannot_be_judged_is_told_before_training(change, message):
    with pytest.raises(UsageError) as error:
        check([dataclasses.replace(ROW["E1"], **change)], config_with())
    assert message in str(error.value)


def test_all_problems_are_told_at_once():
    rows = [dataclasses.replace(ROW["E1"], arm="x", band="y"), ROW["B1"], ROW["B1"]]
    with pytest.raises(UsageError, match=r"B1: .* 2 times.*arm 'x'.*band 'y'"):
        check(rows, config_with())


def test_one_class_is_no_classifier_question():
    task = dataclasses.replace(config_with().task, classes=("add",))
    with pytest.raises(UsageError, match="classes: add; a classifier tells classes apart"):
        check(TABLE, config_with().model_copy(update={"task": task}))


def test_fewer_than_thirty_prompts_a_class_are_refused():
    task = dataclasses.replace(config_with().task, num_test=29)
    with pytest.raises(UsageError, match="num_test=29 prompts a class; at least 30"):
        check(TABLE, config_with().model_copy(update={"task": task}))


def test_one_seed_where_replication_is_claimed_is_told_before_training():
    told = check(TABLE, loading.narrowed(config_with(), None, 1))
    lines = [line for line in told if "will be inconclusive: it needs 3 seeds" in line]
    assert [line.partition("; ")[0] for line in lines] == [
        f"{ids}: will be inconclusive: it needs 3 seeds, arm {arm} has 1"
        for ids, arm in (("E1, E2, E3, E4, E5, E6", "sft"), ("O1, O2", "classified"))
    ]


def test_two_checkpoints_are_no_trend():
    told = check([ROW["E3"]], loading.narrowed(config_with(), "0,50", None))
    assert any("a trend needs three checkpoints" in line for line in told)


def test_an_objective_elsewhere_is_told():
    arms = tuple(a.model_copy(update={"classifier_layer_pct": 0.25}) for a in enough().arms)
    told = check([ROW["O1"]], enough().model_copy(update={"arms": arms}))
    assert told == ("O1: looks at 54 % depth, arm classified puts its classification term at 25%",)


def many(count: int, **fields) -> list[Prediction]:
    """`count` claims like E1, each for three operations."""
    return [dataclasses.replace(ROW["E1"], id=f"X{i}", **fields) for i in range(count)]


@pytest.mark.slow
def test_a_long_table_gets_the_permutations_that_it_needs_and_can_be_supported():
    """102 tests: with 4,999 permutations 102 / 5000 = 0.0204 would be the least p that there is."""
    found = judge(many(17), Plant("sft", "answer", 2, 0.6), n_layers=4, steps=(0, 100))
    assert {v.outcome for v in found.values()} == {"supported"}
    assert all(v.p_adjusted < 0.01 for v in found.values())


def test_a_short_table_has_the_usual_number_of_permutations():
    assert permutations([ROW["E1"]], 3) == PERMUTATIONS == 4999
    assert permutations([ROW["C1"]] * 900, 3) == 4999, "controls are adjusted for nothing"
    assert 2 * 200 / (permutations([ROW["E1"]] * 200, 1) + 1) < 0.01


@pytest.mark.parametrize(
    ("rows", "changes", "told"),
    [
        (
            [ROW["E3"]],
            {
                "training__checkpoint_steps": [0, 100, 300],
                "training__training_methods__sft__seeds": [0, 1, 2],
            },
            "E3: will be inconclusive: p is 0.0046 at best, 0.014 after Holm over 6 tests, not below 0.01; "
            "add checkpoints or seeds",
        ),
        (
            [dataclasses.replace(ROW["B2"], alpha=1e-5)],
            {},
            "B2: can never be refuted: p is 2e-05 at best, 0.00012 after Holm over 6 tests, not below 1e-05; "
            "split the table",
        ),
        (
            [ROW["B1"]],
            {"parameters__num_test": 40},
            "B1: can never be supported: 40 prompts that all hold nothing give p = 0.18, 0.55 after Holm "
            "over 6 tests, not below 0.05; num_test=101 can",
        ),
    ],
)
def test_a_claim_whose_p_can_never_be_small_enough_is_told_before_training(rows, changes, told):
    assert told in check(rows, enough(**changes))


def test_an_alpha_that_is_no_error_rate_is_refused():
    with pytest.raises(UsageError, match="E1: alpha=0 is no error rate"):
        check([dataclasses.replace(ROW["E1"], alpha=0.0)], config_with())


def test_permutations_grow_with_the_table_up_to_what_memory_holds():
    assert permutations(many(17), 3) == 10_200
    assert permutations([dataclasses.replace(p, family="words or answer") for p in many(17)], 3) == 20_400
    assert permutations(many(900), 3) == MOST_PERMUTATIONS
