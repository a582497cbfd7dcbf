"""Whatever is written is a config or clearly refused."""

import copy

import yaml
from configs import BASE
from hypothesis import example, given, settings
from hypothesis import strategies as st

from emergence.config import loading as config
from emergence.errors import UsageError


def valid_or_refused(parse) -> None:
    refusal = ""
    try:
        experiment = parse()
    except UsageError as error:
        refusal = str(error)
    else:
        assert experiment.task.classes
        assert all(arm.checkpoint_steps[0] == 0 < arm.checkpoint_steps[-1] for arm in experiment.arms)
        assert all(arm.checkpoint_steps[-1] <= arm.max_steps for arm in experiment.arms)
        assert len(experiment.vocabulary) == len(experiment.task.classes) >= 2
        return
    assert refusal.strip()
    assert all(line.isprintable() for line in refusal.split("\n"))


@given(st.one_of(st.text(max_size=200), st.text("abc:-[]{}&*!|>'\"%@`#,? \n\t0.e~\\", max_size=200)))
@example("? ")
@example("%YAML 9.9\n---\na")
@example("- - - ? - :")
@settings(deadline=None)
def test_any_text_is_an_experiment_or_refused(text):
    valid_or_refused(lambda: config.parse(text))


@given(raw=st.binary(max_size=300))
@settings(deadline=None)
def test_any_bytes_are_an_experiment_or_refused(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("bytes") / "config.yaml"
    path.write_bytes(raw)
    valid_or_refused(lambda: config.load(path))


ODD = ["add", "sft", "lora", "classified", "symbolic", [], {}, [0, 50], {"add": ["add"]}, [[[]]]]

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(ODD),
    st.lists(st.one_of(st.integers(-5, 200), st.text(max_size=3)), max_size=3),
)

PLACES = [
    "name",
    "model",
    "training",
    "parameters",
    "extra",
    "training.max_steps",
    "training.checkpoint_steps",
    "training.seeds",
    "training.lora",
    "training.lora.targets",
    "training.training_methods",
    "training.training_methods.sft",
    "training.training_methods.sft.method",
    "training.training_methods.sft.checkpoint_steps",
    "training.training_methods.sft.lora",
    "training.training_methods.classified.classifier_targets",
    "parameters.operations",
    "parameters.operands",
    "parameters.operands.add",
    "parameters.task_vocabulary",
    "parameters.task_vocabulary.add",
    "parameters.task_vocabulary.😀",
    "parameters.test_prompts",
    "parameters.test_prompts.add",
    "parameters.num_samples",
    "parameters.styles",
    "parameters.read_styles",
    "parameters.extra",
]


@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_structure_is_an_experiment_or_refused(changes):
    data = yaml.safe_load(BASE)
    for name, value in changes:
        path, section = name.split("."), data
        for part in path[:-1]:
            section = section.setdefault(part, {}) if isinstance(section, dict) else {}
        if isinstance(section, dict):
            section[path[-1]] = copy.deepcopy(value)  # a later change goes into it
    dumped = yaml.dump(data, Dumper=_NoAliases, allow_unicode=True)
    valid_or_refused(lambda: config.parse(dumped))


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


@given(st.text(max_size=30), st.one_of(VALUES, st.text(max_size=30)))
@settings(max_examples=40, deadline=None)
def test_any_override_is_followed_or_refused(name, value):
    valid_or_refused(lambda: config.parse(BASE, {name: value}))


@given(st.sampled_from(PLACES), st.one_of(VALUES, st.text(max_size=20)))
@settings(max_examples=50, deadline=None)
def test_any_value_of_a_known_parameter_is_followed_or_refused(name, value):
    valid_or_refused(lambda: config.parse(BASE, {name: value}))
