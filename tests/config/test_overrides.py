"""One field is set by its dotted name, beats the file, and is refused where no config has it."""

import copy
import re

import pytest
from configs import BASE, edited

from emergence.config import loading as config
from emergence.errors import UsageError


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
        ("parameters.operations", "[add, subtract]", lambda e: e.task.classes, ("add", "subtract")),
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


def test_wrong_overrides_are_told_with_everything_else_that_is_wrong():
    given = {"training.rank": "8", "training.lora.alpha": "[8", "training.lora.dropout": "1"}
    with pytest.raises(UsageError) as error:
        config.parse(edited("max_steps: 100", "max_steps: 0"), given, "config.yaml")
    said = str(error.value).split("\n")
    assert [line.split(": ")[0] for line in said] == [
        "-p training.rank",
        "-p training.lora.alpha:1",
        "config.yaml:4",
        "-p training.lora.dropout",
    ]


def test_an_override_of_the_whole_training_brings_its_own_arms():
    given = {"training": "{batch_size: 8, training_methods: {a: {batch_size: 4}, b: {}}}"}
    assert [(a.name, a.batch_size) for a in config.parse(BASE, given).arms] == [
        ("a", 4),
        ("b", 8),
        ("shuffled", 4),
    ]


def test_a_class_may_be_overridden_by_either_of_its_names():
    text = BASE.replace("    add: [", "    addition: [")
    for name in ("add", "addition"):
        given = {f"parameters.task_vocabulary.{name}": "[add, total]"}
        assert config.parse(text, given).vocabulary["add"] == ("add", "total")


def test_values_that_are_given_are_not_changed():
    given = {"training": {"training_methods": {"a": {"batch_size": 4}}}, "training.batch_size": 8}
    before = copy.deepcopy(given)
    assert [a.batch_size for a in config.parse(BASE, given).arms] == [8, 8]
    assert given == before
