"""What a reading shows: tidy rows, named axes, a table, a picture."""

from __future__ import annotations

import re
import xml.etree.ElementTree as xml
from pathlib import Path

import mlx.nn as nn
import numpy as np
import pytest
import tiny
from lens_case import PROMPTS, SETS
from rich.console import Console
from transformers import PreTrainedTokenizerFast

from emergence.errors import UsageError
from emergence.lens.logit_lens import LogitLens
from emergence.lens.reading import LensReading


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tiny.tokenizer())


@pytest.fixture(scope="module")
def speaking(model: nn.Module, tokenizer: PreTrainedTokenizerFast) -> LogitLens:
    return LogitLens(model, tokenizer)


def slowly(reading: LensReading) -> list[dict[str, object]]:
    """The tidy rows, one number at a time."""
    rows = []
    for i, layer in enumerate(reading.layers):
        for j, positions in enumerate(reading.positions):
            for k, position in enumerate(positions):
                at = (i, j, k) if reading.entropy.ndim == 3 else (i, j)
                row = {
                    "layer": layer,
                    "prompt": j,
                    "position": position,
                    "token": reading.tokens[j][position],
                }
                row |= {"top": reading.top_ids[at][0], "p top": np.exp(reading.top_log_probs[at][0])}
                row |= {name: getattr(reading, name)[at] for name in ("entropy", "kl", "kl_previous")}
                row |= {
                    f"mass {s}": np.exp(m) for s, m in zip(reading.sets, reading.log_mass[at], strict=True)
                }
                ids = reading.token_ids
                row |= {f"p {t}": np.exp(p) for t, p in zip(ids, reading.log_probs[at], strict=True)}
                row |= {f"rank {t}": r for t, r in zip(ids, reading.ranks[at], strict=True)}
                rows.append(row)
    return rows


@pytest.mark.parametrize("positions", ["last", "all", [0, -1], [-1, 0], 1])
def test_tidy_rows_say_what_the_arrays_say(lens: LogitLens, positions: object) -> None:
    found = lens.read(PROMPTS, SETS, positions=positions, token_ids=[7, 40], layers=[3, "L0"])
    frame, right = found.to_pandas(), slowly(found)
    assert list(frame.columns) == list(right[0])
    assert len(frame) == len(right)
    for name in frame.columns:
        np.testing.assert_array_equal(frame[name].to_numpy(), np.array([row[name] for row in right]))


def test_a_reading_is_told_in_a_few_lines_and_printed_as_a_table(
    speaking: LogitLens, tokenizer: PreTrainedTokenizerFast
) -> None:
    found = speaking.read(["2 plus 3", "2", "3", "4", "5"], {"two": "2"}, positions="all")
    assert "layer × prompt × position = 5 × 5 × 4" in repr(found)
    assert len(repr(found).splitlines()) == 6
    assert "… 2 texts more" in repr(found)
    assert "rows more" in str(found)
    top = found.to_pandas()["top"]
    assert top.iloc[0] == tokenizer.decode([int(found.top_ids[0, 0, 0, 0])])
    assert repr(top.iloc[0]) in str(found)
    assert "top" not in speaking.read("2", top_k=0).to_pandas()


def test_named_axes_hold_the_very_arrays_and_what_belongs_to_them(speaking: LogitLens) -> None:
    found = speaking.read(["2 plus 3", "4 "], SETS, positions=[-1, 0], token_ids=[7])
    named = found.to_xarray()
    assert named.log_mass.dims == ("layer", "prompt", "position", "set")
    assert named.log_mass.sel(layer="L2", set="other").shape == (2, 2)
    assert named.ranks.sel(token=7).dims == ("layer", "prompt", "position")
    assert np.shares_memory(named.entropy.values, found.entropy)
    assert named["at"].values.tolist() == [list(p) for p in found.positions]
    fed = [[t[p] for p in at] for t, at in zip(found.tokens, found.positions, strict=True)]
    assert named["fed"].values.tolist() == fed
    assert named["text"].values.tolist() == ["2 plus 3", "4 "]
    assert named.kl.attrs == {"units": "nat"}
    one = speaking.read([[5, 6, 7], [8]], SETS).to_xarray()
    assert one.entropy.dims == ("layer", "prompt")
    assert one["at"].values.tolist() == [2, 0]
    padded = speaking.read([[5, 6, 7], [8]], positions="all").to_xarray()
    assert padded["fed"].values.tolist() == [[5, 6, 7], [8, -1, -1]]


def test_a_drawing_has_the_fed_tokens_and_the_likeliest_and_is_escaped(
    lens: LogitLens, tokenizer: PreTrainedTokenizerFast
) -> None:
    drawing = lens.show("<b>2 & 3", tokenizer)
    assert drawing.ids == tuple(tokenizer.encode("<b>2 & 3"))
    reading = lens.read([drawing.ids], positions="all", top_k=1)
    assert tokenizer.decode([reading.top_ids[4, 0, 2, 0]]).strip() in drawing.tops[4][2][0]
    markup = drawing._repr_html_()
    assert "<b>2" not in markup
    assert "<b><" not in markup
    assert "&lt;" in markup
    assert "&amp;" in markup
    assert f"={drawing.ids[0]}" in str(drawing)
    assert "L4" in str(drawing)
    assert len(repr(drawing).splitlines()) == 1


def test_every_number_of_a_cell_is_in_the_page_and_the_first_in_the_terminal(speaking: LogitLens) -> None:
    drawing = speaking.show("2 plus 3", token_sets={"two": "2"}, token_ids=["3"])
    reading = speaking.read("2 plus 3", {"two": "2"}, positions="all", token_ids=["3"])
    names = [s.name for s in drawing.statistics]
    assert names[1:3] == ["mass two", "rank 3"]
    assert names[3:] == ["entropy", "KL to the output", "KL to the layer before"]
    page = drawing._repr_html_()
    xml.fromstring(
        re.sub(r"<style>.*?</style>|<input[^>]*>", "", page, flags=re.DOTALL).replace("class=right", "")
    )
    assert page.count('type="radio"') == len(names)
    cells = re.findall(r"<td tabindex.*?</td>", page, re.DOTALL)
    assert len(cells) == reading.entropy[:, 0].size
    first = cells[0]  # the last layer at the first position
    numbers = re.findall(r"<i>(.*?)</i>", first)
    assert numbers[2] == str(reading.ranks[4, 0, 0, 0])
    assert numbers[3] == f"{reading.entropy[4, 0, 0]:.2f}"
    assert re.findall(r"--c3:([\d.]+)", first) == [f"{reading.entropy[4, 0, 0] / reading.entropy.max():.2f}"]
    assert f"{np.exp(reading.top_log_probs[4, 0, 0, 4]):.1%}" in first
    lines = str(drawing.by("entropy")).splitlines()
    assert f"{reading.entropy[4, 0, 0]:.2f}" in lines[2]
    with pytest.raises(UsageError, match="'mass' is none of probability of the likeliest, mass two"):
        drawing.by("mass")


def test_a_narrow_terminal_puts_columns_below_one_another_and_loses_none(speaking: LogitLens) -> None:
    drawing = speaking.show("2 plus 3 plus 4 plus 5")

    def told(width: int) -> str:
        console = Console(width=width, color_system=None)
        with console.capture() as captured:
            console.print(drawing)
        return captured.get()

    wide, narrow = told(300), told(40)
    assert max(map(len, narrow.splitlines()[3:])) <= 40
    assert sorted(re.findall(r"\d+%|<1%", wide)) == sorted(re.findall(r"\d+%|<1%", narrow))
    assert len(re.findall(r"\d+%|<1%", wide)) == 5 * len(drawing.ids)


def test_a_drawing_is_saved_whole_in_three_formats_and_refuses_a_fourth(
    speaking: LogitLens, tmp_path: Path
) -> None:
    drawing = speaking.show("2 plus $3")
    page = drawing.save(tmp_path / "a.html").read_text()
    assert page.startswith("<!doctype html>")
    assert not re.search(r"https?://|<script", page)
    assert drawing.save(tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    xml.parse(drawing.by("entropy").save(str(tmp_path / "a.svg")))
    with pytest.raises(UsageError, match=r"a\.pdf: give a name that ends in \.html, \.png or \.svg"):
        drawing.save(tmp_path / "a.pdf")
    assert {p.name for p in tmp_path.iterdir()} == {"a.html", "a.png", "a.svg"}


def test_a_reading_shows_itself_by_prompts_or_by_positions(lens: LogitLens) -> None:
    by_prompt = lens.read([[5, 6, i] for i in range(30)])
    assert by_prompt.show().heads[:2] == ("5 6 0", "5 6 1")
    assert by_prompt.show().ids[:3] == (0, 1, 2)
    assert "6 columns more" in by_prompt._repr_html_()
    by_position = lens.read(PROMPTS, positions="all").show(prompt=1)
    assert by_position.heads == ("9", "10")
    assert by_position.tops[4][1][0] == str(lens.read([PROMPTS[1]]).top_ids[4, 0, 0])
    with pytest.raises(UsageError, match="prompt=9: the reading has 0 to 4"):
        lens.read(PROMPTS).show(prompt=9)
    with pytest.raises(UsageError, match="read with top_k=1 or more"):
        lens.read(PROMPTS, top_k=0).show()


def test_a_chat_template_is_used_when_asked_and_missed_when_absent(lens: LogitLens) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tiny.tokenizer())
    with pytest.raises(UsageError, match="no chat template"):
        lens.show("2", tokenizer, chat=True)
    tokenizer.chat_template = "answer {% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert lens.show("2", tokenizer, chat=True).ids == tuple(tokenizer.encode("answer 2"))
