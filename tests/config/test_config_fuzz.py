"""Whatever is written is an experiment or clearly refused; YAML scalars are what they look like."""

import pytest
import yaml
from configs import BASE
from hypothesis import example, given, settings
from hypothesis import strategies as st

from emergence import wording
from emergence.config import document as yaml_strict
from emergence.config import loading as config
from emergence.errors import UsageError

SCALARS = {
    "1e-4": 1e-4,
    "5E-4": 5e-4,
    "+1.5": 1.5,
    ".5": 0.5,
    "-7": -7,
    "0": 0,
    "-0": 0,
    "no": "no",
    "on": "on",
    "Yes": "Yes",
    "12:30": "12:30",
    "1_000": "1_000",
    "0x1F": "0x1F",
    "0o17": "0o17",
    "2024-01-01": "2024-01-01",
    "true": True,
    "null": None,
    "~": None,
    "e5": "e5",
    "=": "=",
    "<<": "<<",
    "'010'": "010",
    '"1e-4"': "1e-4",
    "infinity": "infinity",
    "nan": "nan",
    "1.2.3": "1.2.3",
}


@pytest.mark.parametrize("written", SCALARS)
def test_a_scalar_is_what_a_person_means(written):
    read = yaml_strict.read(f"x: {written}\n".encode(), "f")
    assert read.wrong == []
    assert read.data == {"x": SCALARS[written]}
    assert type(read.data["x"]) is type(SCALARS[written])


@pytest.mark.parametrize(
    "written", ["010", "-007", "00", ".nan", ".inf", "-.INF", "1e999", "9" * 5000, "0" * 5000]
)
def test_a_number_that_is_not_clear_or_not_finite_is_refused_with_its_line(written):
    (wrong,) = yaml_strict.read(f"a: 1\nx: {written}\n".encode(), "f").wrong
    assert wrong.startswith("f:2: x: ")
    assert len(wrong) < 200


@given(
    st.one_of(st.integers(-(10**15), 10**15), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
)
def test_numbers_are_read_back_as_they_were_written(value):
    read = yaml_strict.read(f"x: {str(value).lower()}\n".encode(), "f")
    assert read.data == {"x": value}
    assert type(read.data["x"]) is type(value)


PLAIN = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(10**9), 10**9), st.text("abc xyz:#'\"\n\\é😀", max_size=8)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text("abkey", min_size=1, max_size=6), inner, max_size=4),
    ),
    max_leaves=20,
)


@given(PLAIN)
@settings(max_examples=50, deadline=None)
def test_what_pyyaml_writes_is_read_as_it_was(data):
    # An oracle that is not ours; texts that YAML 1.1 and 1.2 read differently are quoted by it.
    text = yaml.safe_dump(data, allow_unicode=True)
    if "&id" not in text:
        read = yaml_strict.read(text.encode(), "f")
        assert (read.data, read.wrong) == (data, [])


@given(PLAIN)
@settings(max_examples=50, deadline=None)
def test_every_value_has_its_line(data):
    read = yaml_strict.read(yaml.safe_dump({"top": data}, default_flow_style=False).encode(), "f")
    lines = yaml.safe_dump({"top": data}, default_flow_style=False).splitlines()
    for path, line in read.lines.items():
        if path and isinstance(path[-1], str) and "\n" not in path[-1] and path[-1].isalpha():
            assert path[-1] in lines[line - 1]


def valid_or_refused(parse) -> None:
    refusal = ""
    try:
        experiment = parse()
    except UsageError as error:
        refusal = str(error)
    else:
        assert experiment.arms
        assert all(arm.checkpoint_steps[0] == 0 < arm.checkpoint_steps[-1] for arm in experiment.arms)
        assert all(arm.checkpoint_steps[-1] <= arm.max_steps for arm in experiment.arms)
        assert len(experiment.vocabulary) == len(experiment.task.operations) >= 2
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
            section[path[-1]] = value
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


@given(st.text(max_size=200))
def test_what_is_shown_of_a_text_is_one_short_printable_line(text):
    for shown in (wording.printable(text), wording.quoted(text), wording.dotted((text, 3))):
        assert shown.isprintable()
        assert len(shown) < 10 * 60 + 20
