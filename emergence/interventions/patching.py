"""Activation patching: one prompt's streams put into another's pass, a layer and position at a time.

In: a lens, prompts in pairs of one length, the tokens to look at. Out: a `PatchReading`. What a patch carries
is the share of the difference between the two prompts' logits that it brings over (Zhang & Nanda 2023,
arXiv:2309.16042): 0 where nothing depends on the place, 1 where all does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ..errors import UsageError
from ..lens.edits import Edit, Rule
from ..lens.logit_lens import LogitLens
from ..lens.places import Layers, points
from ..lens.prompts import Tokens, prompts
from .rules import replace


@dataclass(frozen=True)
class PatchReading:
    """What the model says after each patch, at the last position; logarithms of probabilities."""

    layers: tuple[str, ...]
    positions: tuple[int, ...]
    token_ids: Int[np.ndarray, "pair two"]
    """Of each pair, the token that speaks for the base prompt and the one that speaks for the source."""
    log_probs: Float[np.ndarray, "layer position pair two"]
    base: Float[np.ndarray, "pair two"]
    source: Float[np.ndarray, "pair two"]
    """Without a patch."""

    @property
    def carried(self) -> Float[np.ndarray, "layer position"]:
        """Share of the log-odds, source's token against base's, that the patch brings over; over all pairs.

        The ratio of sums, so that a pair whose two prompts hardly differ weighs hardly anything.
        """
        gained = _odds(self.log_probs) - _odds(self.base)
        return np.asarray(gained.sum(axis=-1) / (_odds(self.source) - _odds(self.base)).sum())

    @property
    def switched(self) -> Float[np.ndarray, "layer position"]:
        """Share of pairs in which the source's token becomes likelier than the base's."""
        return np.asarray((_odds(self.log_probs) > 0).mean(axis=-1))


def _odds(log_probs: np.ndarray) -> np.ndarray:
    return np.asarray(log_probs[..., 1] - log_probs[..., 0])


def patch(
    lens: LogitLens,
    base: Tokens,
    source: Tokens,
    token_ids: Int[np.ndarray, "pair two"] | Sequence[Sequence[int]],
    layers: Layers | None = None,
    positions: Sequence[int] = (-1,),
) -> PatchReading:
    """Put each source's stream into its base's pass, at every layer and position in turn.

    Parameters
    ----------
    token_ids
        Of each pair the base's own token and the source's own.
    layers
        All, if not named: `["L13", "L14"]`, `"embedding"`.

    Raises
    ------
    UsageError
        Prompts are not in pairs of one length, or a layer, position or token is none.
    NotMeasurable
        The stream of this family cannot be changed.
    """
    which = points(layers, lens.n_layers)
    before, after = (prompts(given, lens.tokenizer, lens.stream.n_ids).ids for given in (base, source))
    ids = np.asarray(token_ids, dtype=np.int64)
    if len(before) != len(after) or ids.shape != (len(before), 2):
        raise UsageError(
            f"{len(before)} base prompts, {len(after)} source prompts, token_ids of shape "
            f"{ids.shape}: give one source and two tokens a base prompt"
        )
    for one, other in zip(before, after, strict=True):
        if len(one) != len(other):
            raise UsageError(
                f"a base prompt of {len(one)} tokens with a source of {len(other)}; pair equal lengths"
            )
    streams = lens.streams(after, [str(p) for p in which], list(positions))
    found = np.empty((len(which), len(positions), *ids.shape), np.float32)
    for i, point in enumerate(which):
        for j, position in enumerate(positions):
            rule: Rule = replace(streams[i, :, j])
            with lens.patched([Edit(str(point), position, rule)]):
                found[i, j] = _said(lens, before, ids)
    return PatchReading(
        layers=tuple(map(str, which)),
        positions=tuple(positions),
        token_ids=ids,
        log_probs=found,
        base=_said(lens, before, ids),
        source=_said(lens, after, ids),
    )


def _said(lens: LogitLens, tokens: Sequence[Sequence[int]], ids: np.ndarray) -> np.ndarray:
    """Log-probabilities of each prompt's two tokens at the output layer."""
    known, where = np.unique(ids, return_inverse=True)
    read = lens.read(tokens, {str(i): (int(i),) for i in known}, top_k=0, layers=[-1], kl=False).log_mass[0]
    return np.asarray(np.take_along_axis(read, where.reshape(ids.shape), axis=1))
