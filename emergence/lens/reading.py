"""What a lens has read: arrays, the ids they belong to, and ways to look at them.

In: what `LogitLens.read` fills. Out: `LensReading`, of NumPy arrays; pandas, xarray and Matplotlib load when
they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from .drawing import Drawing

_SHOWN = 24
_TEXTS = 3
_LAST_AXIS = {
    "log_mass": ["set"],
    "log_probs": ["token"],
    "ranks": ["token"],
    "top_ids": ["k"],
    "top_log_probs": ["k"],
    "entropy": [],
    "kl": [],
    "kl_previous": [],
}
"""Arrays by name, and the axis that each has beside layer, prompt and position."""


@dataclass(frozen=True, repr=False)
class LensReading:
    """What the lens says at every (layer, prompt) or (layer, prompt, position).

    The position axis is there if positions were asked for as a list or as "all"; where a prompt has fewer
    of them than another, values are NaN and ids -1. Masses, probabilities (natural logarithms), entropy and
    KL are in nats, float32.
    """

    layers: tuple[str, ...]
    """`L13` is the stream after block 13, `L13.attn` the one between its attention and its feed-forward
    part, `embedding` the one before the first block."""
    texts: tuple[str | None, ...]
    """By prompt, the text that was given; None where ids were."""
    tokens: tuple[tuple[int, ...], ...]
    """By prompt, the ids that were fed: what the text became, with the BOS if the tokenizer puts one."""
    positions: tuple[tuple[int, ...], ...]
    """By prompt, the positions that were read, counted from 0."""
    sets: dict[str, tuple[int, ...]]
    """Ids by name of the token set: what its words became."""
    token_ids: tuple[int, ...]
    left_out: int
    """Rows that pad the head beyond the tokenizer's vocabulary: part of no distribution here."""
    log_mass: Float[np.ndarray, "layer prompt *position set"]
    top_ids: Int[np.ndarray, "layer prompt *position k"]
    top_log_probs: Float[np.ndarray, "layer prompt *position k"]
    entropy: Float[np.ndarray, "layer prompt *position"]
    kl: Float[np.ndarray, "layer prompt *position"]
    """KL(output layer || layer)."""
    kl_previous: Float[np.ndarray, "layer prompt *position"]
    """KL(layer || layer before it); NaN for the first."""
    log_probs: Float[np.ndarray, "layer prompt *position token"]
    """Of each of `token_ids`."""
    ranks: Int[np.ndarray, "layer prompt *position token"]
    """How many tokens are more likely than each of `token_ids`; 0 is the likeliest."""

    tokenizer: Any = field(default=None, compare=False)
    """The lens's, which names tokens wherever the reading is shown; None where the lens has none."""

    def to_pandas(self, tokenizer: Any = None) -> pd.DataFrame:
        """Tidy rows: one for each layer, prompt and position.

        A column for each set (`mass add`) and token (`p 42`, `rank 42`); masses and probabilities are
        plain, not logarithms. `top` is the likeliest token's text, or its id where no tokenizer is known.
        """
        import pandas as pd

        at = self._places()
        _, prompt, *slot = at
        position = self._padded(self.positions)[prompt, slot[0] if slot else 0]
        fed = self._padded(self.tokens)
        columns: dict[str, Any] = {
            "layer": np.array(self.layers, dtype=object)[at[0]],
            "prompt": prompt,
            "position": position,
            "token": fed[prompt, position],
        }
        if self.top_ids.shape[-1]:
            columns["top"] = named(self.top_ids[at][:, 0], tokenizer or self.tokenizer)
            columns["p top"] = np.exp(self.top_log_probs[at][:, 0])
        columns |= {name: getattr(self, name)[at] for name in ("entropy", "kl", "kl_previous")}
        columns |= _by_column("mass", self.sets, np.exp(self.log_mass[at]))
        columns |= _by_column("p", self.token_ids, np.exp(self.log_probs[at]))
        columns |= _by_column("rank", self.token_ids, self.ranks[at])
        return pd.DataFrame(columns)

    def to_xarray(self) -> xr.Dataset:
        """The same arrays, not copied, with labelled axes: `to_xarray().entropy.sel(layer="L13")`.

        Axes `layer`, `prompt`, `position` (if it is there), `set`, `token`, `k`; the coordinate `at` has the
        position of each prompt, counted from 0 (-1 where it has none), `fed` the id there, `text` the text.
        """
        import xarray as xr

        many = self.entropy.ndim == 3
        axes = ["layer", "prompt", *(["position"] if many else [])]
        at = self._padded(self.positions)
        fed = np.where(at < 0, -1, np.take_along_axis(self._padded(self.tokens), np.maximum(at, 0), 1))
        found = xr.Dataset(
            {name: ([*axes, *last], getattr(self, name)) for name, last in _LAST_AXIS.items()},
            coords={
                "layer": list(self.layers),
                "prompt": np.arange(len(self.tokens)),
                "set": list(self.sets),
                "token": np.array(self.token_ids, dtype=np.int64),
                "text": ("prompt", np.array(["" if t is None else t for t in self.texts], dtype=object)),
                "at": (axes[1:], at if many else at[:, 0]),
                "fed": (axes[1:], fed if many else fed[:, 0]),
            },
        )
        for name in set(_LAST_AXIS) - {"top_ids", "ranks"}:
            found[name].attrs["units"] = "nat"
        return found

    def show(self, tokenizer: Any = None, prompt: int = 0) -> Drawing:
        """Layers × positions of one prompt; layers × prompts where each was read at one position."""
        from .drawing import draw

        return draw(self, tokenizer or self.tokenizer, prompt)

    def _repr_html_(self) -> str:
        return self.show()._repr_html_()

    def _places(self) -> tuple[np.ndarray, ...]:
        """Indices of all layers, prompts and positions that were read, in that order."""
        there = self._padded(self.positions) >= 0
        every = np.broadcast_to(there, (len(self.layers), *there.shape))
        return np.nonzero(every if self.entropy.ndim == 3 else every[:, :, 0])

    @staticmethod
    def _padded(rows: tuple[tuple[int, ...], ...]) -> Int[np.ndarray, "prompt _"]:
        """Rows of different lengths as one array, -1 where there is nothing."""
        lengths = np.array([len(row) for row in rows])
        found = np.full((len(rows), lengths.max()), -1, np.int64)
        found[np.arange(lengths.max()) < lengths[:, None]] = np.concatenate(rows)
        return found

    def __repr__(self) -> str:
        axes = "layer × prompt" + (" × position" if self.entropy.ndim == 3 else "")
        sizes = " × ".join(map(str, self.entropy.shape))
        left = f"; {self.left_out} padded ids left out" if self.left_out else ""
        return "\n".join([f"LensReading: {axes} = {sizes}{left}", *self._became()])

    def __str__(self) -> str:
        frame = self.to_pandas().drop(columns="token")
        if "top" in frame and self.tokenizer is not None:
            frame["top"] = frame["top"].map(repr)  # a token may be a space
        rows = [[_cell(value) for value in row] for row in frame[:_SHOWN].itertuples(index=False)]
        table = [list(frame.columns), *rows]
        widths = [max(len(line[i]) for line in table) for i in range(len(frame.columns))]
        lines = [
            "  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in table
        ]
        more = [f"… {len(frame) - _SHOWN} rows more; `.to_pandas()` has all"] if len(frame) > _SHOWN else []
        return "\n".join([repr(self), *lines, *more])

    def _became(self) -> list[str]:
        """What texts became, the first few, and the token sets: `'7 * 8 = ' is 39 1672 216 40 446 216`."""
        fed = [
            f"{text!r} is {' '.join(map(str, ids))}"
            for text, ids in zip(self.texts, self.tokens, strict=True)
            if text is not None
        ]
        more = [f"… {len(fed) - _TEXTS} texts more"] if len(fed) > _TEXTS else []
        sets = "; ".join(f"{name}: {' '.join(map(str, ids[:8]))}" for name, ids in self.sets.items())
        return [*fed[:_TEXTS], *more, *([f"token sets {sets}"] if sets else [])]


def named(ids: Int[np.ndarray, " _"], tokenizer: Any) -> np.ndarray:
    """The tokens' texts, each decoded once; the ids themselves where there is no tokenizer."""
    if tokenizer is None:
        return ids
    known, where = np.unique(ids, return_inverse=True)
    texts = np.array([str(tokenizer.decode([int(i)])) for i in known], dtype=object)
    return np.asarray(texts[where.reshape(ids.shape)])


def _by_column(what: str, names: Iterable[Any], values: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{what} {name}": values[:, i] for i, name in enumerate(names)}


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)
