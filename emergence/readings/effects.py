"""What interventions on a checkpoint do to its answers, as arrays: what causal verdicts see. NumPy only.

In: what `intervening` kept beside the readings. Out: `Effects`, one a checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

USED, OPERATION = "used", "carries the operation"
CAUSAL = (USED, OPERATION)
"""The tests of a prediction that ask for interventions."""
STREAM, WORDS, MEANS = "stream", "words", "class means"
PARTS = (STREAM, WORDS, MEANS)
"""What of the stream is exchanged: all of it, the plane of the class words' logits, that of class means."""
PLACEBOS = 19
"""Placebos a place: an effect that beats them all has p = 1 / 20."""


_PLAIN = ("pairs", "whole", "left", "crossed", "crossed_whole", "shown", "map_layers", "maps", "map_ids")
_BY_PART = ("gained", "placebo")


@dataclass(frozen=True)
class Effects:
    """Log-odds after interventions at the last position, in nats; the layer is where the stream was changed.

    A pair is a base prompt and its source: the same operands under another class. Log-odds are of the token
    that the model itself says first after the source, against the one it says after the base prompt. What is
    gained is the change of the base prompt's log-odds; NaN stands where nothing was asked.
    """

    pairs: Int[np.ndarray, "pair two"]
    """Indices into the prompts: base and source."""
    whole: Float[np.ndarray, " pair"]
    """What there is to gain: log-odds on the source prompt, less those on the base prompt; 0 or more."""
    gained: Mapping[str, Float[np.ndarray, "layer pair"]]
    """By part: with the source's part of the stream in place of the base's."""
    placebo: Mapping[str, Float[np.ndarray, "layer draw pair"]]
    """By part: with a change of the same size, towards another prompt of the base's own class."""
    left: Float[np.ndarray, "layer pair"]
    """Mass that the lens still reads on the own class's words there, after the part `words` was exchanged."""
    crossed: Float[np.ndarray, "layer pair two"]
    """With the stream of a prompt of the source's class and other operands: log-odds gained by the answer to
    the base's operands under the source's class, and by that prompt's own answer."""
    crossed_whole: Float[np.ndarray, "pair two"]
    """What there is to gain of each: 0 where the model says one thing after two of the three prompts, NaN
    where there is no third."""
    shown: Int[np.ndarray, " map"]
    """Indices into the pairs of those whose every position was exchanged by itself; in one run of an arm."""
    map_layers: Int[np.ndarray, " row"]
    """The layers at which that was done."""
    maps: Float[np.ndarray, "map row position"]
    """Log-odds gained there; 0 where the streams are the same, NaN beyond the end of a prompt."""
    map_ids: Int[np.ndarray, "map two position"]
    """Tokens of the base prompt and its source; -1 beyond the end."""
    refused: str = ""
    """Why nothing was exchanged; empty where it was. Arrays then have no pairs."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Effects:
        """What `as_arrays` made."""
        found: dict[str, Any] = {name: arrays[name] for name in _PLAIN}
        for field in _BY_PART:
            found[field] = {n.partition(" ")[2]: a for n, a in arrays.items() if n.startswith(f"{field} ")}
        return cls(**found, refused=str(arrays["refused"]))

    def as_arrays(self) -> dict[str, np.ndarray]:
        """Every array by a name of its own, for one file."""
        found = {name: getattr(self, name) for name in _PLAIN}
        for field in _BY_PART:
            found |= {f"{field} {part}": a for part, a in getattr(self, field).items()}
        return found | {"refused": np.array(self.refused)}
