"""Subspaces of the residual stream in which something is changed, as orthonormal rows.

None is optimised for an effect: a direction that is can act through a path that the model itself never uses
(Makelov et al. 2023, arXiv:2311.17030).
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from jaxtyping import Float, Shaped

from ..errors import UsageError
from ..lens.logit_lens import LogitLens
from .rules import Basis

_NEGLIGIBLE = 1e-6
"""A direction whose length beside the others is less than this share of the longest is none."""


def readout_basis(
    lens: LogitLens,
    stream: Float[np.ndarray, " hidden"],
    tokens: Sequence[int | Sequence[int]],
) -> Basis:
    """Directions that change the logits of these tokens, if the stream were unembedded as it is.

    The gradients of the logits less their mean over the tokens, at `stream`, such as a layer's mean. Several
    ids in place of one are a set: its logit is the logarithm of their summed exponentials.
    """
    sets = [mx.array([one] if isinstance(one, int) else list(one)) for one in tokens]

    def logit(h: mx.array, i: int) -> mx.array:
        z = lens.unembed(h[None])[0]
        found = mx.stack([mx.logsumexp(z[ids]) for ids in sets])
        return found[i] - found.mean() if len(sets) > 1 else found[i]

    at = mx.array(np.asarray(stream, np.float32))
    return _orthonormal(np.stack([np.array(mx.grad(logit)(at, i)) for i in range(len(sets))]))


def mean_difference_basis(
    streams: Float[np.ndarray, "prompt hidden"], labels: Sequence[str] | Shaped[np.ndarray, " prompt"]
) -> Basis:
    """Directions in which the means of the classes differ; one fewer than classes."""
    names = np.asarray(labels)
    means = np.stack([streams[names == name].mean(axis=0, dtype=np.float64) for name in np.unique(names)])
    if len(means) < 2:
        raise UsageError("labels: one class; the means of two at least can differ")
    return _orthonormal(means - means.mean(axis=0))


def probe_basis(weights: Float[np.ndarray, "class hidden"]) -> Basis:
    """The directions that a linear probe reads: its weights, less their mean over the classes."""
    rows = np.asarray(weights, np.float64)
    return _orthonormal(rows - rows.mean(axis=0) if len(rows) > 1 else rows)


def random_basis(k: int, hidden: int, draw: int = 0) -> Basis:
    """`k` directions of `hidden` dimensions at random: the control of every subspace."""
    if not 0 < k <= hidden:
        raise UsageError(f"k={k}: give 1 to {hidden}")
    return _orthonormal(np.random.default_rng([draw, 0xBA5E]).standard_normal((k, hidden)))


def _orthonormal(rows: np.ndarray) -> Basis:
    _, sizes, found = np.linalg.svd(np.asarray(rows, np.float64), full_matrices=False)
    if not sizes[0]:
        raise UsageError("these directions are all zero: they span nothing")
    kept: Basis = found[sizes > _NEGLIGIBLE * sizes[0]].astype(np.float32)
    return kept
