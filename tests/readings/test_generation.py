"""What a model writes is what its own logits say token by token, in a batch and one at a time."""

from __future__ import annotations

import random

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
import tiny

from emergence.lens.logit_lens import LogitLens
from emergence.readings import generation, reader
from emergence.readings.generation import generated
from emergence.readings.plan import make_plan
from emergence.tasks.arithmetic import STYLES, Arithmetic, Problem
from emergence.tasks.encoding import encode_prompt
from emergence.tasks.vocabulary import audit

MOST = 7


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return mlx_lm.load(str(tiny.write_model(tmp_path_factory.mktemp("tiny"), n_layers=2)))


@pytest.fixture(scope="module")
def prompts(loaded) -> list[tuple[int, ...]]:
    """Of many lengths: in a batch the shorter ones are padded."""
    rng = random.Random(0)
    problems = [Problem("add", rng.randint(0, 9999), rng.randint(0, 9)) for _ in range(6)]
    ids = [encode_prompt(loaded[1], p.prompt(style)) for p in problems for style in STYLES]
    assert len({len(i) for i in ids}) > 10
    return ids


def by_hand(model, ids, most: int, ends: set[int]) -> list[int]:
    """The likeliest token, one after the other, each from a pass over all before it."""
    said: list[int] = []
    while len(said) < most:
        likeliest = int(np.array(model(mx.array([[*ids, *said]])))[0, -1].argmax())
        if likeliest in ends:
            break
        said.append(likeliest)
    return said


def ending(tokenizer, ends: set[int]):
    """A tokenizer for which other tokens end the text."""
    made = mlx_lm.tokenizer_utils.TokenizerWrapper(tokenizer._tokenizer, eos_token_ids=sorted(ends))
    assert set(made.eos_token_ids) == ends
    return made


@pytest.fixture(scope="module")
def ends(loaded, prompts) -> set[int]:
    """The end of text, and two tokens that the model comes to in some of its texts and not in others."""
    said = [by_hand(loaded[0], ids, MOST, set()) for ids in prompts]
    common = sorted({t for text in said for t in text}, key=lambda t: sum(t in text for text in said))
    found = {t for t in common if 2 <= sum(t in text for text in said) <= len(said) // 2}
    chosen = set(sorted(found, key=lambda t: -sum(t in text for text in said))[:2])
    stops = {min((text.index(t) for t in chosen if t in text), default=MOST) for text in said}
    assert len(stops) > 2, "some end early, some late, some not at all"
    return chosen | {loaded[1].eos_token_id}


def test_what_is_generated_is_a_greedy_loop_by_hand(loaded, prompts, ends):
    model, tokenizer = loaded[0], ending(loaded[1], ends)
    texts = generated(model, tokenizer, prompts, MOST)
    said = [by_hand(model, ids, MOST, ends) for ids in prompts]
    assert len({len(s) for s in said}) > 2
    assert len({tuple(s) for s in said}) > len(said) // 2, "texts differ"
    assert texts == [tokenizer.decode(s) for s in said]


def test_one_prompt_at_a_time_writes_what_a_batch_writes(loaded, prompts, ends, monkeypatch):
    model, tokenizer = loaded[0], ending(loaded[1], ends)
    together = generated(model, tokenizer, prompts, MOST)

    def refuse(*_, **__):
        raise ValueError("RotatingKVCache does not yet support batching")

    monkeypatch.setattr(generation, "batch_generate", refuse)
    assert generated(model, tokenizer, prompts, MOST) == together


def test_batches_come_back_in_the_order_of_the_prompts(loaded, prompts, ends, monkeypatch):
    """Whatever ends first, and however many are asked at once."""
    model, tokenizer = loaded[0], ending(loaded[1], ends)
    whole = generated(model, tokenizer, prompts, MOST)
    monkeypatch.setattr(generation, "_AT_ONCE", 5)
    assert generated(model, tokenizer, prompts, MOST) == whole
    assert generated(model, tokenizer, prompts[::-1], MOST) == whole[::-1]
    assert generated(model, tokenizer, [], MOST) == []


def test_a_tokenizer_of_transformers_writes_the_same_as_mlx_lms_own(loaded, prompts):
    assert generated(loaded[0], loaded[1]._tokenizer, prompts[:8], MOST) == generated(
        loaded[0], loaded[1], prompts[:8], MOST
    )


def test_generation_leaves_the_model_in_the_mode_that_it_was_in(loaded, prompts):
    model = loaded[0]
    model.train()
    try:
        generated(model, loaded[1], prompts[:2], 2)
        assert all(module.training for module in model.modules())
    finally:
        model.eval()


# What is made of it


@pytest.mark.parametrize(
    ("text", "right"),
    [("56", 1), (" 56", 1), ("56\n7 * 9 = 63", 1), ("561", 0), ("56.", 0), ("", 0), ("-56", 0), ("\n56", 0)],
)
def test_an_answer_is_written_exactly_or_not_at_all(loaded, monkeypatch, text, right):
    """Asked are the judged prompts of the trained style: one of four styles, and none that is only shown."""
    drawing = Arithmetic(
        classes=("add", "multiply"), operands={}, num_train=1, num_valid=1, num_test=4, read_styles=STYLES[:4]
    )
    words = audit(loaded[1], {"add": ("plus", "sum"), "multiply": ("times", "product")}, drawing.glyphs)
    shown = [drawing.shown("7 * 8 = ", "multiply")]
    plan = make_plan(loaded[1], words, drawing, drawing.split([shown[0].item]).test, shown)
    asked = [i for i, p in enumerate(plan.prompts) if p.style == "symbolic" and p.half >= 0]
    assert len(asked) == 8 < len(plan.prompts) == 33
    told = {}

    def written(model, tokenizer, ids, most):
        told.update(ids=list(ids), most=most)
        return [text.replace("56", plan.prompts[i].answer) for i in asked[:-1]] + ["no number"]

    monkeypatch.setattr(reader, "generated", written)
    exact = reader.write(LogitLens(*loaded), plan)
    assert told["ids"] == [plan.prompt_ids[i] for i in asked]
    digits = max(len(p.answer) for p in plan.prompts)
    assert told["most"] == digits + 1, "one token more than the longest answer, to see it go on"
    assert exact[asked].tolist() == [right] * 7 + [0]
    assert np.isnan(np.delete(exact, asked)).all()
