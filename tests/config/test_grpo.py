"""An arm that learns by reward: what it adds to an arm, and that no other arm notices."""

from __future__ import annotations

from configs import edited

from emergence.config import loading as config
from emergence.config.settings import Arm

GRPO = "sft: {method: grpo, sft_steps: 40, reward: random, policy_learning_rate: 1e-4}"


def test_the_switch_is_a_checkpoint_and_the_rest_is_as_in_an_arm_sft():
    arm = config.parse(edited("sft: {method: sft}", GRPO)).arm("sft")
    assert arm.checkpoint_steps == (0, 40, 50, 100)
    assert (arm.method, arm.reward, arm.sft_steps, arm.group_size) == ("grpo", "random", 40, 8)
    assert [step for step in range(100) if arm.by_reward(step)] == list(range(40, 100))


def test_no_other_arm_has_a_part_in_its_hash():
    assert Arm(name="sft").spec() == {}
    assert not any(Arm(name="sft", method=m).by_reward(400) for m in ("sft", "shuffled", "classified"))
    told = config.parse(edited("sft: {method: sft}", "sft: {method: sft, group_size: 4}"))
    assert told.arm("sft").group_size == 8
    assert any("sft.group_size: not used here" in line for line in told.notices)


def test_a_control_of_an_arm_by_reward_is_plain_sft_with_permuted_answers():
    text = edited("sft: {method: sft}", GRPO).replace("    shuffled: {method: shuffled}\n", "")
    text = text.replace("    classified:\n      method: classified\n", "")
    control = config.parse(text).arm("shuffled")
    assert (control.method, control.reward, control.sft_steps) == ("shuffled", "verified", 300)
    assert not control.by_reward(99)
