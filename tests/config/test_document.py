"""YAML scalars are what they look like; what cannot be read is refused in one line with its place."""

import re

import pytest
import yaml
from configs import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from wrong_configs import UNREADABLE

from emergence.config import document

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
    read = document.read(f"x: {written}\n".encode(), "f")
    assert read.problems.wrong == []
    assert read.data == {"x": SCALARS[written]}
    assert type(read.data["x"]) is type(SCALARS[written])


@pytest.mark.parametrize(
    "written", ["010", "-007", "00", ".nan", ".inf", "-.INF", "1e999", "9" * 5000, "0" * 5000]
)
def test_a_number_that_is_not_clear_or_not_finite_is_refused_with_its_line(written):
    (wrong,) = document.read(f"a: 1\nx: {written}\n".encode(), "f").problems.wrong
    assert wrong.startswith("f:2: x: ")
    assert len(wrong) < 200


@given(
    st.one_of(st.integers(-(10**15), 10**15), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
)
def test_numbers_are_read_back_as_they_were_written(value):
    read = document.read(f"x: {str(value).lower()}\n".encode(), "f")
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
        read = document.read(text.encode(), "f")
        assert (read.data, read.problems.wrong) == (data, [])


@given(PLAIN)
@settings(max_examples=50, deadline=None)
def test_every_value_has_its_line(data):
    read = document.read(yaml.safe_dump({"top": data}, default_flow_style=False).encode(), "f")
    lines = yaml.safe_dump({"top": data}, default_flow_style=False).splitlines()
    for path, line in read.problems.lines.items():
        if path and isinstance(path[-1], str) and "\n" not in path[-1] and path[-1].isalpha():
            assert path[-1] in lines[line - 1]


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_is_refused_in_one_line(case):
    text, said = UNREADABLE[case]
    (line,) = refused(text)
    assert re.search(said, line), line
