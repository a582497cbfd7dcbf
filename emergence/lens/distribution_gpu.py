"""The statistics of `distribution` in lazy MLX, for a GPU.

In and out: as `distribution.on_cpu`, whose formulas these are, in float32. Written from the source of MLX's
backends and held against float64 on the CPU device; no GPU has run it yet.

Logits come by blocks of the vocabulary, and each block is one evaluation: nothing waits for the device in
between, whatever the number of layers. A block of b bytes of logits holds at most `COPIES` × b at its peak:
the logits, s, e, the previous layers' s and three products; four copies more (values, ids, what is sorted,
the order) for a top k beyond a hundredth of the block, which is sorted whole; and one where the head is
padded. To it come what is returned and, for a head in half precision, the block's rows of it in float32.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from jaxtyping import Float, Int

from .distribution import FLOOR, Logits, Rows, Wanted, inside

COPIES = 12
"""Blocks of logits that exist at a time, at most: 4.2 without KL and top k, 7 with, 10.6 for k = 100."""
_GROUP = 64
"""Columns of which the largest is taken first, for the top k: sorting all of a block's is what a GPU does for
`argpartition`."""


class _Sums(NamedTuple):
    """Running sums over the vocabulary, `[layer, item]` or `[layer, item, k]`; see `distribution._Item`."""

    max: mx.array
    total: mx.array
    mean: mx.array
    cross: mx.array
    cross_previous: mx.array
    top: mx.array
    top_ids: mx.array
    ranks: mx.array


def on_gpu(
    logits: Logits, wanted: Wanted, before: Int[np.ndarray, " layer"], width: int | None = None
) -> Rows:
    """As `distribution.on_cpu`; ties among the top k are in any order."""
    parts, early = wanted.parts(width), wanted.parts_of_tokens(width)
    kept: list[mx.array] = []
    for part in early:
        kept.append(_kept(_block(logits, part), wanted.tokens, part))
        mx.eval(kept[-1])
    own = _in_order(kept, wanted.tokens, early) if early else None
    kept, sums = [], None
    for part in parts:
        z = _block(logits, part)
        kept.append(_kept(z, wanted.ids, part))
        if own is None:  # all tokens are in this block, or there are none
            own = _kept(z, wanted.tokens, part)
        sums = _added(sums or _nothing(z, wanted), z, part.start, own, wanted, before)
        if part is not parts[-1]:
            mx.eval(sums, kept)
    assert sums is not None
    found = _statistics(sums, _in_order(kept, wanted.ids, parts), wanted, before)
    mx.eval(found)
    return {name: np.array(value) for name, value in found.items()}


def _block(logits: Logits, part: slice) -> Float[mx.array, "layer item ids"]:
    return logits(part)[..., : part.stop - part.start].astype(mx.float32)


def _kept(z: mx.array, ids: np.ndarray, part: slice) -> mx.array:
    return z[..., mx.array(ids[inside(ids, part)] - part.start)]


def _in_order(kept: list[mx.array], ids: np.ndarray, parts: list[slice]) -> mx.array:
    """What was kept of each block, its last axis in the order of `ids`."""
    order = np.concatenate([np.flatnonzero(inside(ids, part)) for part in parts])
    return mx.concatenate(kept, axis=-1)[..., mx.array(np.argsort(order))]


def _nothing(z: mx.array, wanted: Wanted) -> _Sums:
    zero, none = mx.zeros(z.shape[:-1]), mx.zeros((*z.shape[:-1], 0))
    ranks = mx.zeros((*z.shape[:-1], len(wanted.tokens)), mx.int32)
    return _Sums(zero + FLOOR, zero, zero, zero, zero, none, none.astype(mx.int32), ranks)


def _added(sums: _Sums, z: mx.array, first: int, own: mx.array, wanted: Wanted, before: np.ndarray) -> _Sums:
    """The sums with one more block; a graph of some thirty operations, whatever the number of layers."""
    highest = mx.maximum(sums.max, z.max(-1))
    s = mx.maximum(z - highest[..., None], FLOOR)
    e = mx.exp(s)
    down = sums.max - highest
    scale = mx.exp(down)
    cross, cross_previous = sums.cross, sums.cross_previous
    if wanted.kl:
        earlier = mx.array(np.maximum(before, 0))
        cross = scale[-1] * (cross + down * sums.total[-1]) + (s * e[-1]).sum(-1)
        cross_previous = scale * (cross_previous + down[earlier] * sums.total) + (e * s[earlier]).sum(-1)
    top, top_ids = _with_largest(sums, z, first, wanted.top_k)
    beaten = [(z > own[..., i : i + 1]).sum(-1) for i in range(len(wanted.tokens))]
    return _Sums(
        highest,
        scale * sums.total + e.sum(-1),
        scale * (sums.mean + down * sums.total) + (e * s).sum(-1),
        cross,
        cross_previous,
        top,
        top_ids,
        sums.ranks + mx.stack(beaten, axis=-1) if beaten else sums.ranks,
    )


def _with_largest(sums: _Sums, z: mx.array, first: int, k: int) -> tuple[mx.array, mx.array]:
    """Values and ids of the k largest so far: they lie in the k groups of columns with the largest maxima."""
    if not k:
        return sums.top, sums.top_ids
    groups = z.shape[-1] // _GROUP
    grouped = groups * _GROUP if groups > 2 * k else 0
    values, ids = [sums.top], [sums.top_ids]
    if grouped:
        by_group = z[..., :grouped].reshape(*z.shape[:-1], groups, _GROUP)
        best = mx.argsort(-by_group.max(-1), axis=-1)[..., :k, None]
        where = mx.broadcast_to(best, (*best.shape[:-1], _GROUP))
        values.append(mx.take_along_axis(by_group, where, axis=-2).flatten(-2))
        ids.append((where * _GROUP + mx.arange(_GROUP) + first).flatten(-2).astype(mx.int32))
    values.append(z[..., grouped:])
    ids.append(mx.broadcast_to(mx.arange(grouped, z.shape[-1]) + first, values[-1].shape).astype(mx.int32))
    value, number = mx.concatenate(values, axis=-1), mx.concatenate(ids, axis=-1)
    order = mx.argsort(-value, axis=-1)[..., :k]
    return mx.take_along_axis(value, order, -1), mx.take_along_axis(number, order, -1)


def _statistics(sums: _Sums, kept: mx.array, wanted: Wanted, before: np.ndarray) -> dict[str, mx.array]:
    log_sum = mx.log(sums.total)
    entropy = log_sum - sums.mean / sums.total
    kl = kl_previous = mx.full(log_sum.shape, float("nan"))
    if wanted.kl:
        kl = mx.maximum(log_sum - sums.cross / sums.total[-1] - entropy[-1], 0)
        found = log_sum[mx.array(np.maximum(before, 0))] - sums.cross_previous / sums.total - entropy
        kl_previous = mx.where(mx.array(before < 0)[:, None], kl_previous, mx.maximum(found, 0))
    log_p = _log_p(kept, sums, log_sum)
    ends = np.cumsum([0, *map(len, wanted.sets)]).tolist()
    masses = [mx.logsumexp(log_p[..., a:b], axis=-1) for a, b in pairwise(ends)]
    return {
        "top_ids": sums.top_ids,
        "top_log_probs": _log_p(sums.top, sums, log_sum),
        "log_mass": mx.stack(masses, axis=-1) if masses else log_p[..., :0],
        "log_probs": log_p[..., ends[-1] :],
        "ranks": sums.ranks,
        "entropy": mx.maximum(entropy, 0),
        "kl": kl,
        "kl_previous": kl_previous,
    }


def _log_p(z: mx.array, sums: _Sums, log_sum: mx.array) -> mx.array:
    return mx.maximum(z, FLOOR) - sums.max[..., None] - log_sum[..., None]
