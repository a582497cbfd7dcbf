"""A config of `lazarus experiment` is read as it is, with a notice for what is read otherwise."""

from configs import BASE, refused

from emergence.config import loading as config

LAZARUS = """\
name: classifier_emergence
description: "which way of training makes classifiers?"
model: meta-llama/Llama-3.2-1B
training:
  max_steps: 1000
  batch_size: 4
  learning_rate: 0.0002
  log_interval: 50
  eval_interval: 200
  checkpoint_steps:
    - 200
    - 500
    - 1000
  training_methods:
    sft_lora:
      enabled: true
      method: sft
      use_lora: true
      max_steps: 500
      lora: {rank: 16, alpha: 32.0, targets: [q_proj, k_proj, v_proj, o_proj]}
    sft_full: {enabled: false, method: sft, use_lora: false, learning_rate: 0.00005, batch_size: 2}
    dual_reward_lora:
      enabled: true
      method: dual_reward
      use_lora: true
      learning_rate: 0.0005
      max_steps: 500
      classifier_weight: 0.7
      classifier_layer_pct: 0.55
      lora: {rank: 32, alpha: 64.0, targets: [v_proj, o_proj]}
      classifier_targets: {multiply: "multiply", add: "add", subtract: "subtract"}
    grpo_lora: {enabled: false, method: grpo, use_lora: true, num_iterations: 200, group_size: 4}
parameters:
  num_samples: 5000
  seed: 42
  lora: {rank: 16, alpha: 32.0, dropout: 0.0, targets: [q_proj, k_proj, v_proj, o_proj]}
  task_vocabulary:
    multiplication: [multiply, times, product, "*", "56", "60", "81"]
    addition: [add, plus, sum, "+", "68", "55", "82"]
    subtraction: [subtract, minus, difference, "-", "37", "57"]
  test_prompts:
    multiplication:
      - {prompt: "7 * 8 = ", expected: "56"}
      - {prompt: "12 * 5 = ", expected: "60"}
    addition:
      - prompt: "23 + 45 = "
        expected: "68"
    subtraction:
      - "100 - 43 = "
      - "65 - 28 = "
"""


def test_a_lazarus_config_is_read_as_it_is():
    experiment = config.parse(LAZARUS)
    assert [(a.name, a.method) for a in experiment.arms] == [
        ("sft_lora", "sft"),
        ("dual_reward_lora", "classified"),
        ("shuffled", "shuffled"),
    ]
    sft, dual, _ = experiment.arms
    assert (sft.checkpoint_steps, sft.batch_size, sft.learning_rate) == ((0, 200, 500), 4, 0.0002)
    assert (dual.lora.rank, dual.lora.scale, dual.lora.targets) == (32, 2.0, ("v_proj", "o_proj"))
    assert (dual.classifier_layer_pct, dual.classifier_targets["subtract"]) == (0.55, "subtract")
    assert experiment.vocabulary == {
        "add": ("add", "plus", "sum", "+"),
        "subtract": ("subtract", "minus", "difference", "-"),
        "multiply": ("multiply", "times", "product", "*"),
    }
    assert [(t.item.cls, t.text, t.item.answer) for t in experiment.test_prompts] == [
        ("multiply", "7 * 8 = ", "56"),
        ("multiply", "12 * 5 = ", "60"),
        ("add", "23 + 45 = ", "68"),
        ("subtract", "100 - 43 = ", "57"),
        ("subtract", "65 - 28 = ", "37"),
    ]
    assert (experiment.task.num_train, experiment.task.seed) == (1666, 42)


def test_what_is_read_otherwise_than_lazarus_reads_it_is_noticed_with_its_line():
    notices = "\n".join(config.parse(LAZARUS).notices)
    for said in (
        "config:8: training.log_interval: not used here",
        "config:39: parameters.task_vocabulary.add[4]: '68' left out: answers come from each problem",
        "checkpoint_steps: 1000 left out: beyond this arm's max_steps=500",
        "a control was added: shuffled",
    ):
        assert said in notices
    assert "group_size" not in notices


def test_an_enabled_grpo_arm_is_one_and_what_it_says_that_means_nothing_here_is_noticed():
    text = LAZARUS.replace("grpo_lora: {enabled: false", "grpo_lora: {enabled: true")
    experiment = config.parse(text)
    assert (experiment.arm("grpo_lora").method, experiment.arm("grpo_lora").group_size) == ("grpo", 4)
    assert any("grpo_lora.num_iterations: not used here" in notice for notice in experiment.notices)


def test_unknown_top_level_keys_are_parameters_with_a_notice():
    experiment = config.parse(BASE + "seed: 7\nnum_valid: 12\nauthor: someone\n")
    assert (experiment.task.seed, experiment.task.num_valid) == (7, 12)
    notices = "\n".join(experiment.notices)
    assert "seed: read as parameters.seed" in notices
    assert "author: not used here" in notices
    assert refused(BASE + "num_valid: no\n") == [
        "config.yaml:17: parameters.num_valid: 'no' is not a whole number; write it in digits, without quotes"
    ]
