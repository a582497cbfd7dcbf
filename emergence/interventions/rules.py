"""What stands in place of a residual stream: rules for `Edit`, and the placebos that they are held against.

In: vectors and bases. Out: `rule(stream [prompt, position, hidden], prompts)`. Interchange interventions are
those of Geiger et al. (2021, arXiv:2106.02997); a change of the same size that says nothing is the control,
for any damage moves the answers (Makelov et al. 2023, arXiv:2311.17030).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import mlx.core as mx
import numpy as np
from jaxtyping import Float

from ..errors import UsageError
from ..lens.edits import Rule

Vectors = Float[np.ndarray, "prompt *position hidden"]
Basis = Float[np.ndarray, "k hidden"]
"""Orthonormal rows."""


def replace(vectors: Vectors) -> Rule:
    """The stream becomes these vectors, one a prompt, or one a prompt and position."""
    return interchange(vectors)


def interchange(vectors: Vectors, basis: Basis | None = None, strength: float = 1.0) -> Rule:
    """The stream's part in the subspace becomes that of other streams; without a basis all of it does.

    `h + strength * P (v - h)`, with `P` the projection on the rows of `basis`.
    """

    def rule(stream: mx.array, prompts: Sequence[int]) -> mx.array:
        wanted = _of(vectors, prompts, stream)
        if basis is None and strength == 1:
            return mx.broadcast_to(wanted, stream.shape)
        return stream + strength * _projected(wanted - stream, basis)

    return rule


def remove(basis: Basis, mean: Float[np.ndarray, " hidden"] | None = None) -> Rule:
    """The stream's part in the subspace becomes that of `mean`, or nothing: `h - P (h - mean)`."""

    def rule(stream: mx.array, prompts: Sequence[int]) -> mx.array:
        centre = 0.0 if mean is None else mx.array(mean)
        return stream - _projected(stream - centre, basis)

    return rule


def add(vector: Float[np.ndarray, " hidden"], strength: float = 1.0) -> Rule:
    """The same vector is added to every stream: steering."""
    return lambda stream, prompts: stream + strength * mx.array(vector).astype(stream.dtype)


def placebo(
    rule: Rule,
    kind: Literal["isotropic", "natural"] = "isotropic",
    draw: int = 0,
    pool: Float[np.ndarray, "n hidden"] | None = None,
    basis: Basis | None = None,
) -> Rule:
    """A change as large as that of `rule`, row by row, in a direction that says nothing.

    Where two streams of the pool are the same there is no direction, and nothing is changed.

    Parameters
    ----------
    kind
        `isotropic`: a random direction. `natural`: the difference of two streams of `pool`, such as those of
        prompts of one class.
    draw
        Which placebo; the same number gives the same one.
    basis
        Directions that it must not have a part in: those of the rule.
    """
    if kind == "natural" and (pool is None or len(pool) < 2):
        raise UsageError("placebo(kind='natural') needs a pool of two streams at least: give pool=streams")

    def matched(stream: mx.array, prompts: Sequence[int]) -> mx.array:
        change = rule(stream, prompts) - stream
        direction = mx.array(_directions(kind, draw, pool, prompts, stream.shape[1:])).astype(stream.dtype)
        if basis is not None:
            direction = direction - _projected(direction, basis)
        size = mx.linalg.norm(direction, axis=-1, keepdims=True)
        scale = mx.where(size > 0, mx.linalg.norm(change, axis=-1, keepdims=True) / size, 0.0)
        return stream + direction * scale.astype(stream.dtype)

    return matched


def _directions(
    kind: str, draw: int, pool: np.ndarray | None, prompts: Sequence[int], shape: Sequence[int]
) -> np.ndarray:
    """One direction a prompt and position, the same for a prompt in whatever batch it comes."""
    found = np.empty((len(prompts), *shape), np.float32)
    for row, prompt in enumerate(prompts):
        rng = np.random.default_rng([draw, prompt, 0x91A])
        if kind == "isotropic" or pool is None:
            found[row] = rng.standard_normal(shape)
        else:
            one, other = np.array([rng.choice(len(pool), 2, replace=False) for _ in range(shape[0])]).T
            found[row] = pool[one] - pool[other]
    return found


def _of(vectors: Any, prompts: Sequence[int], stream: mx.array) -> mx.array:
    given = np.asarray(vectors)
    if given.ndim not in (2, 3) or given.shape[-1] != stream.shape[-1]:
        raise UsageError(
            f"vectors of shape {given.shape}: one of {stream.shape[-1]} numbers a prompt is needed"
        )
    if max(prompts) >= len(given):
        raise UsageError(f"{len(given)} vectors for {max(prompts) + 1} prompts; give one a prompt")
    rows = given[list(prompts)]
    return mx.array(rows if given.ndim == 3 else rows[:, None]).astype(stream.dtype)


def _projected(x: mx.array, basis: Any) -> mx.array:
    if basis is None:
        return x
    rows = mx.array(np.asarray(basis)).astype(x.dtype)
    return (x @ rows.T) @ rows
