"""What a reading shows: tidy rows, a table, a picture."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from lens_case import PROMPTS, SETS
from transformers import PreTrainedTokenizerFast

from emergence.errors import UsageError
from emergence.lens.logit_lens import LogitLens


def test_tidy_rows_and_the_table_say_what_the_arrays_say(lens: LogitLens) -> None:
    found = lens.read(PROMPTS, SETS, positions="all", token_ids=[7])
    frame = found.to_pandas()
    assert len(frame) == 5 * sum(map(len, PROMPTS))
    row = frame[(frame["layer"] == "L2") & (frame["prompt"] == 3) & (frame["position"] == 4)].iloc[0]
    assert row["mass add"] == pytest.approx(np.exp(found.log_mass[2, 3, 4, 0]))
    assert row["rank 7"] == found.ranks[2, 3, 4, 0]
    assert row["token"] == 15
    assert "layer × prompt × position = 5 × 5 × 5" in repr(found)
    assert "rows more" in repr(found)


def test_a_drawing_has_the_fed_tokens_and_the_likeliest_and_is_escaped(lens: LogitLens) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tiny.tokenizer())
    drawing = lens.show("<b>2 & 3", tokenizer)
    assert drawing.ids == tuple(tokenizer.encode("<b>2 & 3"))
    reading = lens.read([drawing.ids], positions="all", top_k=1)
    assert tokenizer.decode([reading.top_ids[4, 0, 2, 0]]).strip() in drawing.tops[4][2]
    markup = drawing._repr_html_()
    assert "<b>" not in markup
    assert "&lt;" in markup
    assert "&amp;" in markup
    assert f"={drawing.ids[0]}" in str(drawing)
    assert "L4" in str(drawing)


def test_a_chat_template_is_used_when_asked_and_missed_when_absent(lens: LogitLens) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tiny.tokenizer())
    with pytest.raises(UsageError, match="no chat template"):
        lens.show("2", tokenizer, chat=True)
    tokenizer.chat_template = "answer {% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert lens.show("2", tokenizer, chat=True).ids == tuple(tokenizer.encode("answer 2"))
