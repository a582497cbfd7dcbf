"""Prompts and answers as ids, and the boundary between the two.

In: a tokenizer (of mlx-lm, transformers or tokenizers), items. Out: `Row`s, and notes on what is cut
otherwise than one might think. Every door that reads a prompt encodes it here: all read the same ids.

The space before an answer belongs to the prompt (`7 * 8 = ` and `56`) unless the tokenizer writes it with the
number: GPT-2 has ` 56` as one token and has hardly seen a space alone before a number. There the prompt ends
at `=`, and the answer begins with the space. That is a fact of the tokenizer, not of the answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import NotMeasurable
from .item import Item

# After these a tokenizer that puts a space before any text has put it already.
_CONTEXTS = ("=", "\n", ":", "(")


@dataclass(frozen=True)
class Row:
    """One item in one style, as ids: what is trained on is `prompt_ids + answer_ids`."""

    item: Item
    style: str
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    """Ends with the end of text."""


def encode_prompt(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Ids of a prompt for a base model: with the BOS if the tokenizer puts one, nothing after the text.

    Without the prompt's last space where the tokenizer writes that with the number after it; a text that
    begins with the BOS already, as chat templates write it, gets no second one. Raises `NotMeasurable` where
    the special tokens change how the text itself is cut.
    """
    text = before_space(tokenizer, text)
    bare, full = ids_of(tokenizer, text), ids_of(tokenizer, text, special=True)
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return bare if bare[:start] == full[:start] else full[: start + len(bare)]
    raise NotMeasurable(
        f"the tokenizer rewrites {text!r} when it adds its special tokens; this is not supported"
    )


def encode_answer(tokenizer: Any, prompt: str, answer: str) -> tuple[int, ...]:
    """Ids of an answer as the model writes it after exactly `encode_prompt(prompt)`; no end of text.

    Taken from prompt and answer encoded together where the prompt's ids stay as they are; otherwise (a
    tokenizer that merges the prompt's end with the answer) from the answer alone, or after a sign, less what
    the tokenizer puts before any text. Raises `NotMeasurable` where none reads back as what was written.
    """
    head = before_space(tokenizer, prompt)
    written = prompt[len(head) :] + answer
    before = ids_of(tokenizer, head)
    wanted = text_of(tokenizer, before) + written
    for ids in _written(tokenizer, head, written):
        if ids and text_of(tokenizer, before + ids) == wanted:
            return ids
    pieces = " + ".join(repr(text_of(tokenizer, [i])) for i in ids_of(tokenizer, written))
    raise NotMeasurable(
        f"the tokenizer cannot write {answer!r} after {prompt!r} (alone, it is {pieces}); end the prompt, or "
        "begin the answer, where the tokenizer cuts"
    )


def _written(tokenizer: Any, head: str, text: str) -> Iterator[tuple[int, ...]]:
    """Ways to write `text` after `head`, the likeliest first."""
    yield _tail(tokenizer, head, text)
    alone = ids_of(tokenizer, text)
    yield alone
    yield alone[1:]
    for context in _CONTEXTS:
        yield _tail(tokenizer, context, text)
    yield tuple(i for c in text for i in ids_of(tokenizer, c)[-1:])


def before_space(tokenizer: Any, text: str) -> str:
    """The text, without its last space where the tokenizer writes a space and a digit as one token.

    Tried with all ten digits after the text's last sign: the end of a prompt tells nothing of its answer.
    """
    head = text[:-1]
    if text != head + " " or not head or head[-1].isspace() or not _joins(tokenizer, head[-1]):
        return text
    return head


@lru_cache(maxsize=64)
def _joins(tokenizer: Any, sign: str) -> bool:
    """Whether a space after `sign` becomes one token with whatever digit follows it."""
    bare, spaced = ids_of(tokenizer, sign), ids_of(tokenizer, sign + " ")
    for digit in "0123456789":
        joint = ids_of(tokenizer, f"{sign} {digit}")
        apart = spaced != bare and joint[: len(spaced)] == spaced
        if apart or joint[: len(bare)] != bare:
            return False
    return True


def end_of_text(tokenizer: Any) -> int:
    """The id that ends an answer; raises `NotMeasurable` where neither tokenizer nor model names one.

    The tokenizer's `eos_token`; without one, the smallest of those in config.json or generation_config.json,
    which mlx-lm's tokenizer has as `eos_token_ids`.
    """
    eos = getattr(tokenizer, "eos_token_id", None)
    if eos is None:
        eos = min(getattr(tokenizer, "eos_token_ids", None) or (), default=None)
    if eos is None:
        raise NotMeasurable(
            "the tokenizer names no end of text (eos_token in tokenizer_config.json, eos_token_id in "
            "config.json); the answers could not be ended"
        )
    return int(eos)


def rows(tokenizer: Any, items: Iterable[Item], styles: Sequence[str]) -> tuple[Row, ...]:
    """Every item in every style, an item's styles next to one another."""
    eos = end_of_text(tokenizer)
    return tuple(
        Row(
            item,
            style,
            encode_prompt(tokenizer, item.prompt(style)),
            (*encode_answer(tokenizer, item.prompt(style), item.answer), eos),
        )
        for item in items
        for style in styles
    )


def boundary_report(tokenizer: Any, items: Iterable[Item], styles: Sequence[str]) -> tuple[str, ...]:
    """What to know about prompts and answers under this tokenizer, a line each.

    A BOS that is asked for and not put; a style whose prompts end before their last space; a style in which
    prompt and answer encoded together differ from one after the other (nothing is wrong then: the suite
    trains and reads on the latter, but pretraining saw the former); answers whose first token is a space.
    """
    notes, items = list(missing_bos(tokenizer)), tuple(items)
    for style in styles:
        written = [(item.prompt(style), item.answer) for item in items]
        heads = [before_space(tokenizer, prompt) for prompt, _ in written]
        moved = [i for i, head in enumerate(heads) if head != written[i][0]]
        if moved:
            prompt, answer = written[moved[0]]
            notes.append(
                f"style {style}: the tokenizer writes the space before a number with the number, so "
                f"{prompt!r} is read at {heads[moved[0]]!r}, and the answer is {' ' + answer!r}"
            )
        answers = [encode_answer(tokenizer, prompt, answer) for prompt, answer in written]
        odd = [
            prompt + answer
            for head, (prompt, answer), ids in zip(heads, written, answers, strict=True)
            if ids_of(tokenizer, prompt + answer) != ids_of(tokenizer, head) + ids
        ]
        if odd:
            notes.append(
                f"style {style}: {len(odd)} of {len(items)} prompts are cut otherwise if encoded together "
                f"with their answer, such as {odd[0]!r}; trained and read as encode(prompt) + encode(answer)"
            )
        blank = [i for i, ids in enumerate(answers) if not text_of(tokenizer, ids[:1]).strip()]
        if blank:
            notes.append(
                f"style {style}: {len(blank)} of {len(items)} answers begin with a token that is only space, "
                f"such as {written[blank[0]][1]!r}: their first token says nothing of them; put the space at "
                "the end of the prompt"
            )
    return tuple(notes)


def missing_bos(tokenizer: Any) -> tuple[str, ...]:
    """A line where the tokenizer's config asks for a beginning of text and prompts get none."""
    bos = getattr(tokenizer, "bos_token_id", None)
    if bos is None or bos in ids_of(tokenizer, "7", special=True):
        return ()
    # transformers drops the setting where there is a tokenizer.json, so the file itself is asked.
    folder = getattr(tokenizer, "name_or_path", "")
    path = Path(folder, "tokenizer_config.json")
    if not folder or not path.is_file() or not json.loads(path.read_text("utf-8")).get("add_bos_token"):
        return ()
    return (
        f"tokenizer_config.json says add_bos_token, but the tokenizer puts no {tokenizer.bos_token!r} before "
        "a prompt: the model is read without it, though it was probably trained with it",
    )


def ids_of(tokenizer: Any, text: str, *, special: bool = False) -> tuple[int, ...]:
    """Ids of a text as it stands; with `special`, those that the tokenizer puts around it, too."""
    encoded = tokenizer.encode(text, add_special_tokens=special)
    return tuple(int(i) for i in getattr(encoded, "ids", encoded))


def text_of(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of ids, every space as it is."""
    # transformers may "clean up" a space before a full stop; tokenizers knows no such thing.
    as_it_is = hasattr(tokenizer, "clean_up_tokenization_spaces")
    options = {"clean_up_tokenization_spaces": False} if as_it_is else {}
    return str(tokenizer.decode(list(ids), **options))


def _tail(tokenizer: Any, head: str, text: str) -> tuple[int, ...]:
    """Ids of `text` after `head`; none where the two are cut otherwise together."""
    before, joint = ids_of(tokenizer, head), ids_of(tokenizer, head + text)
    return joint[len(before) :] if joint[: len(before)] == before else ()
