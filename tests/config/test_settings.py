"""What a config comes to is frozen; its hash tells every change of what it decides, and no other change."""

import dataclasses
import re
from itertools import combinations

import pytest
from configs import BASE
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from emergence.config import loading as config
from emergence.config.settings import Arm, Config, LoRA
from emergence.errors import UsageError
from emergence.tasks.arithmetic import Arithmetic


def test_everything_is_frozen():
    experiment = config.parse(BASE)
    for thing, name in ((experiment, "name"), (experiment.arms[0], "seeds"), (experiment.task, "seed")):
        with pytest.raises((ValueError, AttributeError), match=r"frozen|cannot assign"):
            setattr(thing, name, None)


def test_an_unknown_arm_is_told_with_the_nearest():
    with pytest.raises(
        UsageError, match=r"'classifed'; did you mean classified\?; .* sft, shuffled, classified"
    ):
        config.parse(BASE).arm("classifed")


def test_the_hash_does_not_tell_how_the_file_is_written():
    digest = config.parse(BASE).hash
    assert re.fullmatch("[0-9a-f]{12}", digest)
    assert config.parse("# a comment\n" + BASE).hash == digest
    assert config.parse(BASE + "log_dir: x\n").hash == digest
    assert config.parse(BASE, {"training.seeds": "[0, 1, 2]", "training.batch_size": 16}).hash == digest


TASK = {
    "classes": ("add", "subtract"),
    "styles": ("worded",),
    "read_styles": ("symbolic",),
    "num_train": 31,
    "num_valid": 31,
    "num_test": 61,
    "seed": 1,
    "operands": {"add": (2, 98)},
}


def other(value):
    """Another value of the same type."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return value + "x"
        case tuple():
            return (*value, *(value[:1] or ("x",)))
        case None:
            return 0.5
        case dict():
            return value | {"more": next(iter(value.values()), "more")}
        case LoRA():
            return LoRA(rank=value.rank + 2)
    raise TypeError(f"write another {type(value).__name__}")


def changed() -> dict[str, Config]:
    """The base config with one field changed, for every field of everything that is settled."""
    plain = config.parse(BASE + "  test_prompts:\n    add: ['7 + 8 = ']\n")
    arm, *rest = plain.arms
    found = {"nothing": plain}
    for name in Config.model_fields.keys() - {"arms", "task", "notices"}:
        found[name] = plain.model_copy(update={name: other(getattr(plain, name))})
    deciding = Arm.model_fields.keys() - {"checkpoints"}
    arms = {name: {name: other(getattr(arm, name))} for name in deciding}
    for name in LoRA.model_fields:
        arms[f"lora.{name}"] = {"lora": arm.lora.model_copy(update={name: other(getattr(arm.lora, name))})}
    for name, update in arms.items():
        found[f"arm.{name}"] = plain.model_copy(update={"arms": (arm.model_copy(update=update), *rest)})
    found["arms"] = plain.model_copy(update={"arms": tuple(rest)})
    for name, value in TASK.items():
        task = dataclasses.replace(plain.task, **{name: value})
        found[f"task.{name}"] = plain.model_copy(update={"task": task})
    return found


def test_every_field_has_its_part_in_the_hash():
    assert TASK.keys() == {field.name for field in dataclasses.fields(Arithmetic)}
    hashes = {name: c.hash for name, c in changed().items()}
    assert not [pair for pair in combinations(hashes, 2) if hashes[pair[0]] == hashes[pair[1]]]


def test_notices_and_where_a_series_lies_are_no_part_of_the_hash():
    plain = config.parse(BASE)
    arm, *rest = plain.arms
    moved = (arm.model_copy(update={"checkpoints": ("elsewhere",)}), *rest)
    assert plain.model_copy(update={"arms": moved}).hash == plain.hash
    assert plain.model_copy(update={"notices": ("something",)}).hash == plain.hash


GIVEN = st.fixed_dictionaries(
    {},
    optional={
        "training.lora.rank": st.sampled_from([8, 16]),
        "training.learning_rate": st.sampled_from([5e-4, 1e-3]),
        "training.seeds": st.sampled_from([[0], [0, 1, 2]]),
        "training.training_methods.sft.fine_tune_type": st.sampled_from(["lora", "full"]),
        "parameters.num_test": st.sampled_from([60, 61]),
        "parameters.read_styles": st.sampled_from([["symbolic"], ["symbolic", "worded"]]),
        "parameters.operands.add": st.sampled_from([[2, 99], [2, 98]]),
        "description": st.sampled_from(["", "a sentence"]),
    },
)


@given(GIVEN, GIVEN)
@effort(max_examples=40, deadline=None)
def test_two_hashes_are_equal_if_and_only_if_everything_settled_is(one, two):
    a, b = config.parse(BASE, one), config.parse(BASE, two)
    assert (a.hash == b.hash) == (a.model_dump(exclude={"notices"}) == b.model_dump(exclude={"notices"}))


class WiderLoRA(LoRA):
    bias: str = "none"


class WiderArm(Arm):
    lora: WiderLoRA = WiderLoRA()
    clip: float = 1.0


class WiderConfig(Config):
    arms: tuple[WiderArm, ...]
    license: str = "mit"


@dataclasses.dataclass(frozen=True, kw_only=True)
class WiderTask(Arithmetic):
    carries: bool = True


def wider(text: str, **arm: object) -> WiderConfig:
    """The config in a text, of a version that has four more options."""
    plain = config.parse(text)
    arms = tuple(WiderArm(**a.model_dump() | arm) for a in plain.arms)
    task = WiderTask(**{f.name: getattr(plain.task, f.name) for f in dataclasses.fields(plain.task)})
    return WiderConfig(**dict(plain) | {"arms": arms, "task": task})


@pytest.mark.parametrize("text", [BASE, BASE.replace("max_steps: 100", "lora: {rank: 4}\n  max_steps: 100")])
def test_an_option_that_is_added_changes_no_hash_while_it_is_at_its_default(text):
    plain, more = config.parse(text), wider(text)
    assert more.hash == plain.hash
    assert [a.spec() for a in more.arms] == [a.spec() for a in plain.arms]
    used = (
        wider(text, clip=2.0),
        wider(text, lora={"bias": "all"}),
        more.model_copy(update={"license": "none"}),
        more.model_copy(update={"task": dataclasses.replace(more.task, carries=False)}),
    )
    assert len({plain.hash, *(c.hash for c in used)}) == 5


DEFAULTS = {
    "method": "sft",
    "fine_tune_type": "lora",
    "learning_rate": 5e-4,
    "batch_size": 16,
    "max_steps": 300,
    "checkpoint_steps": (0, 25, 50, 100, 150, 200, 300),
    "seeds": (0, 1, 2),
    "classifier_weight": 0.7,
    "classifier_layer_pct": 0.54,
    "classifier_targets": {},
}
LORA = {
    "rank": 16,
    "alpha": 32.0,
    "dropout": 0.0,
    "targets": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "num_layers": -1,
}
COUNTS = {
    "styles": ("symbolic",),
    "read_styles": ("symbolic", "worded"),
    "num_train": 600,
    "num_valid": 30,
    "num_test": 60,
    "seed": 0,
}


def test_the_defaults_that_hashes_leave_out_stay_what_they_are():
    # Another default would give old keys and findings a new meaning. Change schema.py's default instead.
    arm = Arm(name="a")
    assert {name: getattr(arm, name) for name in DEFAULTS} == DEFAULTS
    assert {name: getattr(arm.lora, name) for name in LORA} == LORA
    assert {name: getattr(Arithmetic, name) for name in COUNTS} == COUNTS


def test_what_decides_a_run_is_neither_the_arms_name_nor_its_seeds():
    arm = Arm(name="a", seeds=(1,), lora=LoRA(rank=4), max_steps=10, checkpoint_steps=(0, 10))
    assert arm.spec() == {"max_steps": 10, "checkpoint_steps": [0, 10], "lora": {"rank": 4}}
    assert arm.model_copy(update={"name": "b", "seeds": (2,)}).spec() == arm.spec()
    assert Arm(name="a").spec() == {}


@pytest.mark.parametrize("folder", ["", "/home/alice/", "a::b/", "a[1]/b::c/", "home/alice: 3/"])
def test_what_is_shown_of_a_notice_is_without_the_folder(folder):
    notices = (f"{folder}config.yaml:4: model: a/b: c", "-p training.seeds: in the arm a/b, too")
    shown = config.parse(BASE).model_copy(update={"notices": notices}).public.notices
    assert shown == ("config.yaml:4: model: a/b: c", notices[1])
