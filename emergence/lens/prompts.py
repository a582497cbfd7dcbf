"""Prompts and token sets as people write them, as ids.

In: text, ids, or lists of them, and the tokenizer if there is one. Out: `Prompts` and sets of ids, or one
line that says what was given and what to give. Text becomes ids as everywhere in the suite
(`tasks.encoding`): with the BOS that the tokenizer puts in front and nothing after the text; a word is a
token only if it is one whole.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

from ..errors import UsageError
from ..tasks import encoding, vocabulary
from ..wording import shown
from .places import Array, is_whole, listed

Ids = Sequence[SupportsIndex] | Array
Tokens = str | Ids | Sequence[str | Ids]
"""A text, the ids of one prompt, or several of either."""
TokenSet = str | SupportsIndex | Collection[str | SupportsIndex] | Array
"""Words, ids, or both; a text is one word."""


@dataclass(frozen=True)
class Prompts:
    """What is fed: ids by prompt, and the text that each was given as (None: it was given as ids)."""

    ids: tuple[tuple[int, ...], ...]
    texts: tuple[str | None, ...]


def prompts(given: Tokens, tokenizer: Any, n_ids: int) -> Prompts:
    """What `given` means. `n_ids`: rows of the model's embedding.

    `"7 * 8 = "` and `[22, 1672]` are one prompt; `["7 * 8 = ", "1 + 1 = "]` and `[[22, 1672], [8]]` are two.

    Raises
    ------
    UsageError
        It is neither, holds no token, has ids that the model has no row for, or is text for a lens that has
        no tokenizer.
    """
    several = listed(given)
    if isinstance(given, (str, set, frozenset)) or several is None or any(map(is_whole, several)):
        several = [given]
    found = [_ids(one, tokenizer, f"prompt {i}") for i, one in enumerate(several)]
    empty = [i for i, ids in enumerate(found) if not ids]
    if not found or empty:
        raise UsageError(f"prompts without tokens: {empty or 'all'}; a lens needs at least one token")
    wrong = sorted({i for ids in found for i in ids if not 0 <= i < n_ids})
    if wrong:
        raise UsageError(f"token ids {wrong[:5]} are outside the vocabulary: the embedding has {n_ids} rows")
    return Prompts(tuple(found), tuple(one if isinstance(one, str) else None for one in several))


def token_sets(
    given: Mapping[str, TokenSet] | None, tokenizer: Any, vocab_size: int
) -> dict[str, tuple[int, ...]]:
    """Ids by name of the set: `{"eight": "8", "add": [" plus", 2704]}`.

    A word is exactly what is written, with its space if it has one: `"plus"` and `" plus"` are two tokens.

    Raises
    ------
    UsageError
        A set is empty, has an id twice or one that no token names, or a word that is not one token.
    """
    if given is not None and not isinstance(given, Mapping):
        raise UsageError(f"token_sets={shown(given)}: give a dict of names to words or ids")
    sets = {name: token_set(ids, tokenizer, vocab_size, name) for name, ids in (given or {}).items()}
    if empty := [name for name, ids in sets.items() if not ids]:
        raise UsageError(f"token sets without ids: {', '.join(empty)}; drop them or give them tokens")
    return sets


def token_set(given: TokenSet, tokenizer: Any, vocab_size: int, name: str) -> tuple[int, ...]:
    """The ids of one set; see `token_sets`. It may be empty here."""
    where = f"token set {name!r}"
    several = [given] if isinstance(given, str) or is_whole(given) else listed(given)
    if several is None:
        raise UsageError(f"{where}: {shown(given)}: give words or ids, or a list of them")
    ids = tuple(_word(one, tokenizer, where) if isinstance(one, str) else _id(one, where) for one in several)
    if wrong := [i for i in ids if not 0 <= i < vocab_size]:
        raise UsageError(f"{where}: ids {wrong[:5]} are outside the vocabulary of {vocab_size}")
    if len(set(ids)) < len(ids):
        raise UsageError(f"{where}: an id occurs twice, its mass would be counted twice")
    return ids


def encode(tokenizer: Any, text: str, chat: bool = False) -> tuple[int, ...]:
    """Ids of a text as a base model is given it, or inside the tokenizer's chat template.

    Raises
    ------
    UsageError
        `chat` is asked for and the tokenizer has no template.
    """
    if not chat:
        return encoding.encode_prompt(tokenizer, text)
    if not getattr(tokenizer, "chat_template", None):
        raise UsageError("the tokenizer has no chat template; leave out chat=True")
    messages = [{"role": "user", "content": text}]
    found = tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True)
    return tuple(int(i) for i in getattr(found, "input_ids", found))


def named_rows(tokenizer: Any) -> int:
    """How many rows of a head the tokenizer's tokens name: the largest id and those before it.

    Raises `UsageError` for what is no tokenizer.
    """
    if not hasattr(tokenizer, "get_vocab"):
        raise UsageError(
            f"tokenizer={shown(tokenizer)}: give the model's tokenizer, as emergence.load returns it "
            "(a number of rows is vocab_size=...)"
        )
    return int(max(tokenizer.get_vocab().values())) + 1


def _ids(given: Any, tokenizer: Any, where: str) -> tuple[int, ...]:
    if isinstance(given, str):
        return encode(_required(tokenizer, given, where), given)
    several = None if isinstance(given, (set, frozenset)) else listed(given)
    if several is None:
        raise UsageError(f"{where}: {shown(given)}: give a text, or a list of token ids")
    return tuple(_id(one, where) for one in several)


def _id(given: Any, where: str) -> int:
    if not is_whole(given):
        raise UsageError(f"{where}: {shown(given)} is no token id; ids are whole numbers such as 42")
    return int(given)


def _word(text: str, tokenizer: Any, where: str) -> int:
    ids = vocabulary.single(_required(tokenizer, text, where), text)
    if len(ids) != 1:
        pieces = " + ".join(repr(tokenizer.decode([i])) for i in ids)
        raise UsageError(
            f"{where}: {text!r} is not one token here ({pieces}); name another word, or give ids"
        )
    return ids[0]


def _required(tokenizer: Any, text: str, where: str) -> Any:
    if tokenizer is None:
        raise UsageError(
            f"{where}: {shown(text)} is text, and this lens has no tokenizer; "
            "make it LogitLens(model, tokenizer), or give ids"
        )
    return tokenizer
