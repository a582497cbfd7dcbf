"""An arm inherits what it does not say, and a control is always among the arms."""

import pytest
from configs import BASE, classified, edited

from emergence.config import loading as config


def test_the_innermost_lora_setting_counts_field_by_field():
    text = edited("{method: sft}", "{lora: {rank: 4}}") + "  lora: {rank: 64, alpha: 8}\n"
    arms = config.parse(text.replace("training:\n", "training:\n  lora: {rank: 32}\n"))
    assert (arms.arm("sft").lora.rank, arms.arm("sft").lora.alpha) == (4, 8.0)
    assert (arms.arm("shuffled").lora.rank, arms.arm("shuffled").lora.alpha) == (32, 8.0)


def test_step_zero_is_always_kept_and_inherited_steps_end_with_the_arm():
    experiment = config.parse(
        edited("checkpoint_steps: [0, 50, 100]", "checkpoint_steps: [50, 100]").replace(
            "method: classified\n", "method: classified\n      max_steps: 60\n"
        )
    )
    assert experiment.arm("sft").checkpoint_steps == (0, 50, 100)
    assert experiment.arm("classified").checkpoint_steps == (0, 50)
    assert any("100 left out: beyond this arm's max_steps=60" in n for n in experiment.notices)


def test_a_control_is_added_where_none_is_enabled():
    for text in (
        edited("    shuffled: {method: shuffled}\n", ""),
        edited("{method: shuffled}", "{method: shuffled, enabled: false}"),
    ):
        experiment = config.parse(text)
        control = next(a for a in experiment.arms if a.method == "shuffled")
        sft = experiment.arm("sft")
        assert control == sft.model_copy(update={"name": "shuffled", "method": "shuffled"})
        assert any("control" in n for n in experiment.notices)
    taken = BASE.replace("{method: shuffled}", "{method: sft}")
    assert [a.name for a in config.parse(taken).arms if a.method == "shuffled"] == ["shuffled_control"]
    assert not any("control" in n for n in config.parse(BASE).notices)


def test_disabled_arms_are_left_out():
    experiment = config.parse(classified("enabled: no"))
    assert [a.name for a in experiment.arms] == ["sft", "shuffled"]


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ("use_lora: false", "full"),
        ("use_lora: yes", "lora"),
        ("fine_tune_type: dora", "dora"),
        ("use_lora: true, fine_tune_type: dora", "dora"),
        ("use_lora: false, fine_tune_type: full", "full"),
    ],
)
def test_use_lora_and_fine_tune_type_say_the_same(written, kind):
    assert config.parse(edited("{method: sft}", f"{{{written}}}")).arm("sft").fine_tune_type == kind


@pytest.mark.parametrize("written", ["yes", "on", "True", "true", "'yes'"])
def test_yes_and_on_are_true_where_true_or_false_is_asked_for(written):
    assert config.parse(edited("{method: sft}", f"{{enabled: {written}}}")).arm("sft")


def test_an_arm_has_the_schedule_of_the_training_but_for_what_it_says_itself():
    text = BASE.replace("training:\n", "training:\n  lr_schedule: cosine\n  warmup: 20\n  adam: corrected\n")
    text = text.replace("{method: sft}", "{method: sft, lr_schedule: constant, warmup: 0, adam: uncorrected}")
    arms = {arm.name: (arm.lr_schedule, arm.warmup, arm.adam) for arm in config.parse(text).arms}
    assert arms["classified"] == arms["shuffled"] == ("cosine", 20, "corrected")
    assert arms["sft"] == ("constant", 0, "uncorrected"), "a warm-up of 0 is said too"
    assert {(a.lr_schedule, a.warmup, a.adam) for a in config.parse(BASE).arms} == {arms["sft"]}


def test_a_warm_up_may_take_all_updates_but_one():
    assert config.parse(edited("{method: sft}", "{method: sft, warmup: 99}")).arm("sft").warmup == 99
