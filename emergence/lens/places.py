"""Where in a model a distribution is read: layers, and positions of a prompt.

In: layers and positions as people write them. Out: `Point`s, positions counted from 0, or one line that says
what to write.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple, SupportsIndex, TypeGuard

import mlx.core as mx
import numpy as np

from ..errors import UsageError
from ..wording import shown
from .residual import Seen

Array = np.ndarray | mx.array
Layers = SupportsIndex | str | Sequence[SupportsIndex | str] | Array
Positions = SupportsIndex | str | Sequence[SupportsIndex] | Array


class Point(NamedTuple):
    """A point of the residual stream: after a block, inside it after attention, or before the first (-1)."""

    layer: int
    block: bool = True

    @property
    def previous(self) -> Point:
        """The layer before."""
        return Point(self.layer - 1)

    def of(self, seen: Seen) -> Any:
        """The state at this point of a pass."""
        if self.layer < 0:
            return seen.before
        return seen.states[self.layer] if self.block else seen.middles[self.layer]

    def __str__(self) -> str:
        return "embedding" if self.layer < 0 else f"L{self.layer}" + ("" if self.block else ".attn")


@dataclass(frozen=True)
class Place:
    """One distribution: a prompt, and the slot on the position axis."""

    prompt: int
    slot: int


def points(layers: Layers | None, n_layers: int) -> list[Point]:
    """The points that are meant by `13`, `-1`, `"L13"`, `"L13.attn"`, `"embedding"`, several, or None (all).

    Raises `UsageError` for a layer that the model does not have, for none, and for one that is named twice.
    """
    if layers is None:
        return [Point(i) for i in range(n_layers)]
    several = listed(layers)
    found = [_point(layer, n_layers) for layer in ([layers] if several is None else several)]
    if not found or len(set(found)) < len(found):
        raise UsageError(f"layers={shown(layers)}: give each layer once, and at least one")
    return found


def with_neighbours(which: Sequence[Point], n_layers: int) -> list[Point]:
    """The points asked for and those that their KL is taken to, in the model's order."""
    before = {p.previous for p in which if p.layer > 0}
    return sorted({*which, *before, Point(n_layers - 1)})


def has_one_position(positions: Positions) -> bool:
    """Whether a reading has no position axis: `"last"`, or one number."""
    return positions == "last" if isinstance(positions, str) else is_whole(positions)


def positions(asked: Positions, length: int, prompt: int) -> tuple[int, ...]:
    """The positions of a prompt of this length, counted from 0: `-1` of 8 tokens is 7.

    Raises `UsageError` for a position that the prompt does not have.
    """
    if isinstance(asked, str) and asked in ("last", "all"):
        return tuple(range(length)) if asked == "all" else (length - 1,)
    several: list[Any] | None = [asked] if is_whole(asked) else listed(asked)
    if several is None or not all(map(is_whole, several)):
        raise UsageError(f"positions={shown(asked)}: give 'last', 'all', a number or a list of numbers")
    wrong = [p for p in several if not -length <= p < length]
    if wrong or not several:
        raise UsageError(
            f"positions={shown(asked)}: prompt {prompt} has {length} tokens, 0 to {length - 1} "
            f"(or -{length} to -1)"
        )
    return tuple(int(p) % length for p in several)


def slices(count: int, size: int) -> Iterator[slice]:
    """`count` things, `size` at a time."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether this is a whole number; True and 3.0 are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def listed(value: Any) -> list[Any] | None:
    """The elements of a list, tuple, range, set or array; None where it is none of these."""
    if isinstance(value, (mx.array, np.ndarray)):
        elements: Any = value.tolist()
        return list(elements) if value.ndim else None
    one = isinstance(value, (str, bytes, dict)) or not isinstance(value, Iterable)
    return None if one else list(value)


def _point(layer: Any, n_layers: int) -> Point:
    if isinstance(layer, str) and layer == "embedding":
        return Point(-1)
    name = re.fullmatch(r"L(\d+)(\.attn)?", layer) if isinstance(layer, str) else None
    index = int(name[1]) if name else layer
    if not is_whole(index) or not -n_layers <= index < n_layers:
        raise UsageError(
            f"layer {shown(layer)}: the model has 0 to {n_layers - 1}, "
            "as numbers or as 'L13', 'L13.attn' or 'embedding'"
        )
    return Point(int(index) % n_layers, block=not (name and name[2]))
