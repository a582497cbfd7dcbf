"""A message can be written to every terminal, and what it cannot show there keeps its place in the line."""

from __future__ import annotations

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from emergence import wording

ENCODINGS = ("ascii", "latin-1", "cp1252", "cp437", "utf-8")


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("✓ supported, ✗ falsified", "ascii", "+ supported, x falsified"),
        ("– 52 % · L4", "ascii", "- 52 % . L4"),
        ("– 52 % · L4", "latin-1", "- 52 % · L4"),
        ("– 52 % · L4", "cp1252", "– 52 % · L4"),
        ("│─┼ x", "latin-1", "|-+ x"),
        ("漢 = e\u0301", "ascii", "?? = e"),
        ("\udcff", "utf-8", "?"),
        ("✓", "utf-8", "✓"),
        ("✓", None, "✓"),
    ],
)
def test_signs_that_an_encoding_lacks_are_replaced_and_no_others(
    text: str, encoding: str | None, shown: str
) -> None:
    assert wording.encodable(text, encoding) == shown


def test_more_mass_has_another_sign_in_ascii_too() -> None:
    blocks = "· ▁▂▃▄▅▆▇█"
    assert wording.encodable(blocks, "ascii") == ". :-=+*#%@"
    assert len(set(wording.encodable(blocks, "ascii"))) == len(blocks)


@given(
    st.text(st.characters(exclude_categories=("Cs", "Cc", "Cf", "Mn", "Me", "Cn", "Mc"))),
    st.sampled_from(ENCODINGS),
)
def test_every_text_can_be_encoded_and_is_as_wide_as_before(text: str, encoding: str) -> None:
    shown = wording.encodable(text, encoding)
    shown.encode(encoding)
    assert cell_len(shown) == cell_len(text)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_stream_writes_what_encodable_says(encoding: str) -> None:
    text = "✓ 漢 ─ █ é"
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    if encoding != "utf-8":
        with pytest.raises(UnicodeEncodeError):
            stream.write(text)
    wording.substitute_unencodable(stream)
    stream.write(text)
    stream.flush()
    assert stream.buffer.getvalue().decode(encoding) == wording.encodable(text, encoding)  # type: ignore[attr-defined]


def test_a_stream_without_an_encoding_is_left_alone() -> None:
    stream = io.StringIO()
    wording.substitute_unencodable(stream)
    stream.write("✓")
    assert stream.getvalue() == "✓"
    assert sys.stdout is not stream


@given(st.text(max_size=200))
def test_what_is_shown_of_a_text_is_one_short_printable_line(text):
    for shown in (wording.printable(text), wording.quoted(text), wording.dotted((text, 3))):
        assert shown.isprintable()
        assert len(shown) < 10 * 60 + 20
