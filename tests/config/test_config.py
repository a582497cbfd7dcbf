"""A config means what a person meant: defaults, inheritance, lazarus files, overrides, the page about it."""

import re
from collections import Counter

import pytest
from configs import BASE, classified, edited, refused
from places import ROOT

from emergence.config import loading as config
from emergence.config import reference
from emergence.errors import UsageError
from emergence.tasks import task as tasks

OURS = ROOT / "hypotheses" / "classifier_emergence" / "config.yaml"


def test_the_shipped_config_is_read_without_a_problem():
    experiment = config.load(OURS)
    assert experiment.name == "classifier_emergence"
    assert experiment.model == "smollm2-135m-instruct"
    assert [a.method for a in experiment.arms] == ["sft", "shuffled", "classified"]
    assert experiment.task.operations == ("add", "subtract", "multiply")
    sft = experiment.arm("sft")
    assert (sft.batch_size, sft.learning_rate, sft.max_steps, sft.seeds) == (16, 5e-4, 300, (0, 1, 2))
    assert sft.checkpoint_steps == (0, 25, 50, 100, 150, 200, 300)
    assert (sft.lora.rank, sft.lora.alpha, sft.lora.scale, sft.lora.num_layers) == (16, 32.0, 2.0, -1)
    classified = experiment.arm("classified")
    assert (classified.max_steps, classified.checkpoint_steps) == (100, (0, 25, 50, 100))
    assert (classified.classifier_weight, classified.classifier_layer_pct) == (0.7, 0.54)
    assert classified.classifier_targets == {op: op for op in experiment.task.operations}
    assert len(experiment.test_prompts) == 9
    splits = tasks.generate(experiment.task, [t.problem for t in experiment.test_prompts])
    assert len(splits.test) == 180
    assert not {t.problem.key for t in experiment.test_prompts} & {p.key for p in splits.train + splits.test}


def test_always_giving_the_commonest_first_digit_is_no_success_with_the_shipped_operands():
    problems = tasks.generate(config.load(OURS).task).train
    for operation in config.load(OURS).task.operations:
        digits = Counter(str(p.answer)[0] for p in problems if p.cls == operation)
        assert max(digits.values()) / digits.total() < 0.3


def test_what_a_config_leaves_open_is_filled_in():
    arm = config.parse(BASE).arm("sft")
    assert arm.lora == config.LoRA()
    assert (arm.fine_tune_type, arm.batch_size, arm.seeds) == ("lora", 16, (0, 1, 2))
    task = config.parse(BASE).task
    assert (task.num_train, task.num_valid, task.num_test) == (30, 30, 60)
    assert task.operands == dict.fromkeys(("add", "subtract", "multiply"), (2, 99))
    assert (task.styles, task.read_styles) == (("symbolic",), ("symbolic", "worded"))


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


def test_everything_is_frozen():
    experiment = config.parse(BASE)
    for thing, name in ((experiment, "name"), (experiment.arms[0], "seeds"), (experiment.task, "seed")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(thing, name, None)


def test_an_unknown_arm_is_told_with_the_nearest():
    with pytest.raises(
        UsageError, match=r"'classifed'; did you mean classified\?; .* sft, shuffled, classified"
    ):
        config.parse(BASE).arm("classifed")


def test_the_hash_tells_every_change_that_matters_and_no_other():
    digest = config.parse(BASE).hash
    assert re.fullmatch("[0-9a-f]{12}", digest)
    assert config.parse("# a comment\n" + BASE).hash == digest
    assert config.parse(BASE + "log_dir: x\n").hash == digest
    changes = ({"training.max_steps": 101}, {"model": "b"}, {"parameters.seed": 1}, {"training.lora.rank": 2})
    hashes = {config.parse(BASE, change).hash for change in changes}
    assert len(hashes | {digest}) == 5


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
    assert [(t.cls, t.prompt, t.expected) for t in experiment.test_prompts] == [
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
        "task_vocabulary.add[4]: '68' left out: answers come from each problem",
        "checkpoint_steps: 1000 left out: beyond this arm's max_steps=500",
        "a control was added: shuffled",
    ):
        assert said in notices
    assert "group_size" not in notices


def test_an_enabled_grpo_arm_is_refused_by_name():
    text = LAZARUS.replace("grpo_lora: {enabled: false", "grpo_lora: {enabled: true")
    assert ["training_methods.grpo_lora.method: grpo is not supported" in x for x in refused(text)] == [True]


def test_unknown_top_level_keys_are_parameters_with_a_notice():
    experiment = config.parse(BASE + "seed: 7\nnum_valid: 12\nauthor: someone\n")
    assert (experiment.task.seed, experiment.task.num_valid) == (7, 12)
    notices = "\n".join(experiment.notices)
    assert "seed: read as parameters.seed" in notices
    assert "author: not used here" in notices
    assert refused(BASE + "num_valid: no\n") == [
        "config.yaml:17: parameters.num_valid: 'no' is not a whole number; write it in digits, without quotes"
    ]


def test_vocabulary_and_prompts_are_the_text_that_is_written():
    text = edited('add: [add, plus, "+"]', "add: [no, true, null, 1e5, 12:30, plus, +]")
    assert config.parse(text, {"training.training_methods.classified.enabled": "no"}).vocabulary["add"] == (
        "no", "true", "null", "1e5", "12:30", "plus", "+",
    )  # fmt: skip
    prompts = "  test_prompts:\n    add: [{prompt: 7 + 8 =, expected: 15}]\n"
    assert config.parse(BASE + prompts).test_prompts[0].expected == "15"


@pytest.mark.parametrize("written", ["yes", "on", "True", "true", "'yes'"])
def test_yes_and_on_are_true_where_true_or_false_is_asked_for(written):
    assert config.parse(edited("{method: sft}", f"{{enabled: {written}}}")).arm("sft")


@pytest.mark.parametrize(
    ("name", "value", "read", "expected"),
    [
        ("training.lora.rank", "8", lambda e: e.arm("sft").lora.rank, 8),
        ("training.lora.rank", 9, lambda e: e.arm("sft").lora.rank, 9),
        ("training.learning_rate", "1e-4", lambda e: e.arm("sft").learning_rate, 1e-4),
        ("training.seeds", "[3, 4]", lambda e: e.arm("sft").seeds, (3, 4)),
        ("training.seeds", (3, 4), lambda e: e.arm("sft").seeds, (3, 4)),
        ("training.training_methods.classified.enabled", "no", lambda e: len(e.arms), 2),
        ("training.training_methods.sft.lora.rank", "2", lambda e: e.arm("sft").lora.rank, 2),
        ("training.training_methods.sft.use_lora", "false", lambda e: e.arm("sft").fine_tune_type, "full"),
        ("parameters.operands.multiply", "[2, 30]", lambda e: e.task.operands["multiply"], (2, 30)),
        ("parameters.operands.multiplication", "[2, 30]", lambda e: e.task.operands["multiply"], (2, 30)),
        ("parameters.operations", "[add, subtract]", lambda e: e.task.operations, ("add", "subtract")),
        ("parameters.task_vocabulary.add", "[add, no, 12]", lambda e: e.vocabulary["add"], ("add", "no")),
        ("model", "1e5", lambda e: e.model, "1e5"),
        ("model", "C:\\models: mine", lambda e: e.model, "C:\\models: mine"),
        ("description", "", lambda e: e.description, ""),
    ],
)
def test_an_override_beats_the_file_and_is_typed_as_yaml(name, value, read, expected):
    assert read(config.parse(BASE, {name: value})) == expected


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("training.lora.rnk", "training.lora.rank"),
        ("rank", "training.lora.rank"),
        ("max_steps", "training.max_steps"),
        ("maxsteps", "training.max_steps"),
        ("trainng.max_steps", "training.max_steps"),
        ("training.training_methods.sftt.lora.rank", "training.training_methods.sft.lora.rank"),
        ("parameters.operands.multipl", "parameters.operands.multiply"),
    ],
)
def test_an_unknown_parameter_is_told_with_the_one_that_was_meant(name, meant):
    with pytest.raises(
        UsageError, match=rf"-p {re.escape(name)}: unknown parameter; did you mean {re.escape(meant)}\?"
    ):
        config.parse(BASE, {name: "8"})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("training.lora.rank", "0", "-p training.lora.rank: training.lora.rank: 0 should be greater"),
        ("training.lora.rank", "x", "'x' is not a whole number"),
        ("training.lora.rank", "010", "010 has a leading zero"),
        ("training.lora.rank", "[8", "-p training.lora.rank:1: no valid YAML"),
        ("training.lora.rank", "*a", "alias"),
        ("training.lora.rank", "!!python/name:os.system", "the tag"),
        ("training.lora.rank", float("nan"), "training.lora.rank: nan"),
        ("training.learning_rate", float("inf"), "finite"),
        ("training.max_steps", "10", "50, 100 are beyond max_steps=10"),
        ("model", "a\x1bb", r"holds the character U\+001B"),
        ("\x1b[31m", "8", r"-p \\x1b\[31m: unknown parameter; docs/configuration.md lists them"),
    ],
)
def test_a_wrong_override_is_told_by_its_name(name, value, said):
    with pytest.raises(UsageError, match=said) as error:
        config.parse(BASE, {name: value})
    assert all(line.isprintable() for line in str(error.value).split("\n"))


def test_an_override_for_all_arms_beats_what_an_arm_says_in_the_file():
    text = edited("{method: sft}", "{batch_size: 4, lora: {rank: 2, alpha: 3}}")
    experiment = config.parse(text, {"training.batch_size": 8, "training.lora.rank": "8"})
    assert [(a.batch_size, a.lora.rank) for a in experiment.arms] == [(8, 8)] * 3
    assert experiment.arm("sft").lora.alpha == 3.0
    assert "-p training.batch_size: in the arm sft, too, instead of its own 4" in experiment.notices
    for name in ("training.lora", "parameters.lora"):
        section = config.parse(text, {name: "{rank: 8}"}).arm("sft").lora
        assert (section.rank, section.alpha) == (8, 3.0)
    section = config.parse(text + "lora: {rank: 5}\n", {"parameters.lora.rank": "8"}).arm("sft").lora
    assert (section.rank, section.alpha) == (8, 3.0)


def test_an_override_for_one_arm_beats_one_for_all():
    one, all_arms = "training.training_methods.sft.lora.rank", "training.lora.rank"
    for given in ({one: 2, all_arms: 8}, {all_arms: 8, one: 2}):
        assert [a.lora.rank for a in config.parse(BASE, given).arms] == [2, 8, 8]


def test_an_override_is_written_as_name_and_value():
    assert config.parse_override("training.lora.rank=8") == ("training.lora.rank", "8")
    assert config.parse_override(" model = a=b ") == ("model", "a=b")
    for text in ("rank", "=8", ""):
        with pytest.raises(UsageError, match="write it as name=value"):
            config.parse_override(text)


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        ("75", (0, 50, 75)),
        ("50", (0, 50)),
        ("200", (0, 50, 100, 200)),
        ("10,20", (0, 10, 20)),
        ("0, 5", (0, 5)),
    ],
)
def test_steps_narrow_every_arm(steps, kept):
    for arm in config.narrowed(config.parse(BASE), steps).arms:
        assert arm.checkpoint_steps == kept
        assert arm.max_steps == kept[-1]


def test_seeds_narrow_every_arm():
    assert {a.seeds for a in config.narrowed(config.parse(BASE), seeds=2).arms} == {(0, 1)}
    assert config.narrowed(config.parse(BASE)) == config.parse(BASE)


@pytest.mark.parametrize(
    ("steps", "seeds"), [("", 1), ("x", 1), ("5,3", 1), ("0", 1), ("-3", 1), ("٣", 1), ("5", 0)]
)
def test_steps_and_seeds_that_mean_nothing_are_refused(steps, seeds):
    with pytest.raises(UsageError, match=r"--steps|--seeds"):
        config.narrowed(config.parse(BASE), steps, seeds)


def test_the_configuration_page_is_what_the_schema_says():
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == reference.configuration(), "python -m emergence.config.reference > docs/configuration.md"


def test_the_errors_on_the_configuration_page_are_those_one_gets():
    text = (
        "name: a\nmodel: b\n\n\n\ntraining:\n  max_steps: 500\n  checkpoint_steps: [0, 600]\n"
        "  training_methods:\n    sft: {method: sft}\nparameters:\n  num_samples: 90\n"
        "  task_vocabulary:\n    add: [add, sum]\n    subtract: [minus, sum]\n"
    )
    assert sorted(refused(text)) == sorted(reference.EXAMPLE.split("\n"))
