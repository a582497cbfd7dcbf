"""Models stage: the stored tensors of a folder, and what mlx-lm's renaming makes of them.

In: a folder that was checked, or the tensors before and after the renaming. Out: tensors by name, lazy; the
names of those that would not be used. A type's `sanitize` is called, never trusted: what it drops is found
by trying.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

import mlx.core as mx

from ..errors import BrokenExperiment
from ..wording import first_line
from . import folders

Tensors = dict[str, mx.array]

MISFITS = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError)
"""What mlx-lm raises where tensors and configuration do not fit together."""
_ADDS_NOTHING = re.compile(
    r"(inv_freq|masked_bias|attn\.bias|attention\.bias|position_ids|num_batches_tracked)$"
    r"|(^|\.)(vision|visual|audio|multi_modal_projector|embed_vision|embed_audio|mtp|image_newline)"
)
"""Tensors that no pass over text depends on: constants of older transformers, images, sound, drafting
heads.
"""
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out)\.weight$")
_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|embed_in|word_embeddings|embeddings?)\.weight$")


def read(folder: Path) -> Tensors:
    """Every tensor of a folder by name, from the files that its index names; lazy.

    Raises BrokenExperiment for a file that mlx cannot read.
    """
    tensors: Tensors = {}
    for path in folders.shards(folder):
        try:
            tensors |= cast(Tensors, mx.load(str(path)))
        except MISFITS as error:
            raise BrokenExperiment(f"{path} cannot be read: {first_line(error)}") from None
    return tensors


def heads(names: Iterable[str]) -> list[str]:
    """The names that are those of a head."""
    return [name for name in names if _HEAD.search(name)]


def embedding(tensors: Tensors) -> mx.array | None:
    """The embedding, under whatever name its family gives it."""
    return next((t for name, t in tensors.items() if _EMBEDDING.search(name)), None)


def own_heads(tensors: Tensors) -> list[str]:
    """Heads that are not the embedding once more."""
    table = embedding(tensors)
    return [name for name in heads(tensors) if table is None or not _equal(tensors[name], table)]


def _equal(one: mx.array, other: mx.array) -> bool:
    return one.shape == other.shape and bool(mx.array_equal(one, other).item())


def forms(tensors: Tensors) -> list[Tensors]:
    """The tensors under names with and without the first part, as transformers reads either."""
    first = {name.partition(".")[0] for name in tensors} - {"lm_head", "embed_out"}
    longer = {name if _HEAD.search(name) else f"model.{name}": t for name, t in tensors.items()}
    if len(first) > 1:
        return [tensors, longer]
    shorter = {name.removeprefix(f"{next(iter(first), '')}."): t for name, t in tensors.items()}
    return [tensors, longer, shorter]


def unused(
    stored: Tensors, renamed: Tensors, again: Callable[[Tensors], Tensors], layers: int | None
) -> list[str]:
    """Stored tensors that no tensor of the model is made of, and that would change what it computes.

    A tensor can be left out, and the outcome of `again` has the same names and shapes: it is not used. As
    many numbers before as after, but for those that add nothing, mean that all are used; otherwise groups
    of names that begin alike are tried, the last first. Layers from number `layers` on are for drafting.
    Heads are the caller's.
    """
    there = {id(t) for t in renamed.values()}
    moved = {name: t for name, t in stored.items() if id(t) not in there and not _HEAD.search(name)}
    harmless = {name for name in moved if _ADDS_NOTHING.search(name) or _beyond(name, layers)}
    lost = sum(t.size for t in stored.values()) - sum(t.size for t in renamed.values())
    spared = sum(stored[name].size for name in {*harmless, *heads(stored)} if id(stored[name]) not in there)
    if lost <= spared:
        return []
    shapes = {name: t.shape for name, t in renamed.items()}

    def idle(names: list[str]) -> bool:
        try:
            outcome = again({name: t for name, t in stored.items() if name not in set(names)})
        except MISFITS:
            return False
        return {name: t.shape for name, t in outcome.items()} == shapes

    def search(names: list[str], depth: int) -> list[str]:
        for group in reversed(_groups(names, depth)):
            if idle(group):
                return group
            if found := search(group, depth + 1) if len(group) > 1 else []:
                return found
        return []

    return search([name for name in moved if name not in harmless], 1)


def _groups(names: list[str], depth: int) -> list[list[str]]:
    """Names by their first `depth` parts; beyond the last part, one by one."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(".".join(name.split(".")[:depth]), []).append(name)
    return (
        list(groups.values())
        if depth <= max((n.count(".") for n in names), default=0)
        else [[n] for n in names]
    )


def _beyond(name: str, layers: int | None) -> bool:
    number = re.search(r"(^|\.)layers\.(\d+)\.", name)
    return layers is not None and number is not None and int(number[2]) >= layers


def stored_dtype(folder: Path, parameter: str) -> str | None:
    """The dtype that a file says for the tensor of this name, such as F8_E4M3."""
    for path in folders.shards(folder):
        for name, entry in folders.header(path).items():
            if name.endswith(parameter) or parameter.endswith(name):
                return str(entry["dtype"])
    return None
