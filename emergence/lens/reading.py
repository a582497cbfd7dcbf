"""What a lens has read: arrays with named axes, the ids they belong to, tidy rows, a readable table.

In: what `LogitLens.read` fills. Out: `LensReading`; NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 24
_TEXTS = 3


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

    def to_pandas(self, tokenizer: Any = None) -> pd.DataFrame:
        """Tidy rows: one for each layer, prompt and position.

        A column for each set (`mass add`) and token (`p 42`, `rank 42`); masses and probabilities are
        plain, not logarithms. `top` is the likeliest id, or its text given a tokenizer.
        """
        import pandas as pd

        return pd.DataFrame(self._rows(tokenizer))

    def _rows(self, tokenizer: Any = None) -> list[dict[str, Any]]:
        many = self.entropy.ndim == 3
        rows = []
        for i, layer in enumerate(self.layers):
            for j, positions in enumerate(self.positions):
                for k, position in enumerate(positions):
                    at = (i, j, k) if many else (i, j)
                    top = int(self.top_ids[at][0])
                    rows.append(
                        {
                            "layer": layer,
                            "prompt": j,
                            "position": position,
                            "token": self.tokens[j][position],
                            "top": top if tokenizer is None else tokenizer.decode([top]),
                            "p top": float(np.exp(self.top_log_probs[at][0])),
                            "entropy": float(self.entropy[at]),
                            "kl": float(self.kl[at]),
                            "kl_previous": float(self.kl_previous[at]),
                            **{
                                f"mass {s}": float(np.exp(m))
                                for s, m in zip(self.sets, self.log_mass[at], strict=True)
                            },
                            **{
                                f"p {t}": float(np.exp(p))
                                for t, p in zip(self.token_ids, self.log_probs[at], strict=True)
                            },
                            **{
                                f"rank {t}": int(r)
                                for t, r in zip(self.token_ids, self.ranks[at], strict=True)
                            },
                        }
                    )
        return rows

    def __repr__(self) -> str:
        axes = "layer × prompt" + (" × position" if self.entropy.ndim == 3 else "")
        sizes = " × ".join(map(str, self.entropy.shape))
        left = f"; {self.left_out} padded ids left out" if self.left_out else ""
        rows = self._rows()
        columns = [c for c in rows[0] if c not in ("token",)] if rows else []
        table = [columns] + [[_cell(row[c]) for c in columns] for row in rows[:_SHOWN]]
        widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
        lines = [
            "  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in table
        ]
        more = [f"… {len(rows) - _SHOWN} rows more; `.to_pandas()` has all"] if len(rows) > _SHOWN else []
        return "\n".join([f"LensReading: {axes} = {sizes}{left}", *self._became(), *lines, *more])

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


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
