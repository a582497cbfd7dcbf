"""Statistics of next-token distributions, a block of logits at a time. Second half of the lens.

In: logits of consecutive layers at one place. Out: what is kept of each: log-mass of token sets,
log-probabilities and ranks of tokens, top-k, entropy, KL. Two implementations of the same formulas: NumPy
for the CPU device (its exp is 30 times MLX's there, and it reads MLX's memory without a copy), lazy MLX for
a GPU. nostalgebraist (2020), "interpreting GPT: the logit lens".
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from jaxtyping import Float, Int

_THREADS = 4
"""At most; each holds the logits of one place at all layers some three times."""
_FLOOR = -1e30
"""Stands for a logit of minus infinity (a masked token), so that 0 * z is 0."""

Rows = dict[str, Any]
"""By field, arrays `[layer, ...]`: log_mass [set], log_probs and ranks [token], top_ids and top_log_probs
[k], entropy, kl, kl_previous; all but the ids and ranks in nats."""


@dataclass(frozen=True)
class Wanted:
    """What to keep of each distribution."""

    vocab: int
    """Ids from here on are padding of the head, not part of the distribution."""
    sets: tuple[Int[np.ndarray, " _"], ...] = ()
    tokens: Int[np.ndarray, " token"] = field(default_factory=lambda: np.zeros(0, np.int64))
    top_k: int = 5


class Kept(NamedTuple):
    """What KL needs of another layer: log-probabilities up to a constant, that constant, and the entropy."""

    shifted: Any
    log_sum: Any
    entropy: Any


def rows(
    logits: Float[np.ndarray, "layer vocab"],
    wanted: Wanted,
    before: Int[np.ndarray, " layer"],
    output: Kept | None = None,
    carried: Kept | None = None,
) -> tuple[Rows, list[Kept]]:
    """Statistics of some layers at one place, in float32 NumPy.

    `before[i]` is the row holding layer i's previous layer, -1 for `carried` (absent: its `kl_previous` is
    NaN). `output` is the output layer (None: it is the last row). Also returns the output layer and all
    rows as `Kept`.

    With s = z - max z, e = exp s, Z = log sum e and p = e / sum e: log p = s - Z; log-mass = log sum
    p[set]; entropy = Z - sum p s; KL(output || layer) = Z - sum p_output s - H_output; KL(layer ||
    previous) likewise; rank = number of tokens with a strictly larger logit. Adding a constant to z changes
    none of them.
    """
    z = logits[:, : wanted.vocab]
    out = _top(z, wanted.top_k)
    s = z - out.pop("max")
    e = np.exp(s)
    total = e.sum(-1)
    mean = np.einsum("lv,lv->l", e, s) / total
    if np.isnan(mean).any() and not np.isnan(total).any():
        np.maximum(s, _FLOOR, out=s)
        mean = np.einsum("lv,lv->l", e, s) / total
    log_sum = np.log(total)
    entropy = log_sum - mean
    kept = [Kept(s[i], log_sum[i], entropy[i]) for i in range(len(s))]
    output = output or kept[-1]
    p_output = e[-1] / total[-1] if output is kept[-1] else np.exp(output.shifted - output.log_sum)
    out["top_log_probs"] = np.take_along_axis(s, out["top_ids"], -1) - log_sum[:, None]
    out["log_mass"] = _masses(s, wanted) - log_sum[:, None]
    at = s[:, wanted.tokens]
    out["log_probs"] = at - log_sum[:, None]
    out["ranks"] = (
        np.stack([(s > a[:, None]).sum(-1) for a in at.T], -1) if at.size else np.zeros(at.shape, np.int64)
    )
    out["entropy"] = np.maximum(entropy, 0)
    out["kl"] = np.maximum(log_sum - np.einsum("lv,v->l", s, p_output) - output.entropy, 0)
    out["kl_previous"] = np.full(len(s), np.nan, np.float32)
    for i, j in enumerate(before):
        last = kept[j] if j >= 0 else carried
        if last is not None:
            cross = np.einsum("v,v->", e[i], last.shifted) / total[i]
            out["kl_previous"][i] = max(last.log_sum - cross - entropy[i], 0)
    return out, kept


def on_cpu(
    logits: mx.array,
    wanted: Wanted,
    before: Int[np.ndarray, " layer"],
    output: list[Kept] | None = None,
    carried: list[Kept] | None = None,
    keep: int = -1,
) -> tuple[Rows, list[Kept]]:
    """Statistics `[layer, item, ...]` of logits `[layer, item, vocab]`, item by item in NumPy; see `rows`.

    Also returns layer `keep`, to be `output` or `carried` for other layers of the same items. Items are
    shared out among threads: NumPy computes without the interpreter's lock.
    """
    z = np.array(logits.astype(mx.float32), copy=False)

    def item(i: int) -> tuple[Rows, Kept]:
        each, own = rows(
            z[:, i], wanted, before, output[i] if output else None, carried[i] if carried else None
        )
        return each, own[keep]._replace(shifted=own[keep].shifted.copy())

    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        done = list(pool.map(item, range(z.shape[1])))
    found = [each for each, _ in done]
    return {name: np.stack([each[name] for each in found], axis=1) for name in found[0]}, [k for _, k in done]


def on_gpu(
    logits: mx.array,
    wanted: Wanted,
    before: Int[np.ndarray, " layer"],
    output: Kept | None = None,
    carried: Kept | None = None,
    keep: int = -1,
) -> tuple[Rows, Kept]:
    """The same in MLX, all items at once: lazy, one evaluation at the end. Ties are in any order."""
    z = logits[..., : wanted.vocab].astype(mx.float32)
    s = mx.maximum(z - z.max(-1, keepdims=True), _FLOOR)
    e = mx.exp(s)
    total = e.sum(-1)
    mean, log_sum = (e * s).sum(-1) / total, mx.log(total)
    entropy = log_sum - mean
    kept = [Kept(s[i], log_sum[i], entropy[i]) for i in range(len(s))]
    output = output or kept[-1]
    p_output = mx.exp(output.shifted - output.log_sum[..., None])
    nothing = mx.full(log_sum.shape[1:], float("nan"))
    previous = []
    for i, j in enumerate(before):
        last = kept[j] if j >= 0 else carried
        cross = nothing if last is None else last.log_sum - (e[i] * last.shifted).sum(-1) / total[i]
        previous.append(mx.where(mx.isnan(cross), cross, mx.maximum(cross - entropy[i], 0)))
    top = mx.argpartition(-s, wanted.top_k - 1, axis=-1)[..., : wanted.top_k]
    top = mx.take_along_axis(top, mx.argsort(-mx.take_along_axis(s, top, -1), axis=-1), -1)
    log_p = [s[..., mx.array(ids)] - log_sum[..., None] for ids in wanted.sets]
    at = s[..., mx.array(wanted.tokens)]
    found = {
        "top_ids": top,
        "top_log_probs": mx.take_along_axis(s, top, -1) - log_sum[..., None],
        "log_mass": _stacked([mx.logsumexp(part, axis=-1) for part in log_p], log_sum),
        "log_probs": at - log_sum[..., None],
        "ranks": _stacked([(s > at[..., i : i + 1]).sum(-1) for i in range(at.shape[-1])], top),
        "entropy": mx.maximum(entropy, 0),
        "kl": mx.maximum(log_sum - (p_output * s).sum(-1) - output.entropy, 0),
        "kl_previous": mx.stack(previous),
    }
    mx.eval(found, kept[keep])
    return {name: np.array(value) for name, value in found.items()}, kept[keep]


def _stacked(parts: list[mx.array], like: mx.array) -> mx.array:
    """Stack along a new last axis, which may be empty."""
    return mx.stack(parts, axis=-1) if parts else mx.zeros((*like.shape[:2], 0), like.dtype)


def _masses(s: np.ndarray, wanted: Wanted) -> np.ndarray:
    """Logsumexp over each set, from its own largest member: tiny probabilities do not underflow."""
    found = np.empty((len(s), len(wanted.sets)), np.float32)
    for i, ids in enumerate(wanted.sets):
        part = s[:, ids]
        top = part.max(-1)
        found[:, i] = top + np.log(np.exp(part - top[:, None]).sum(-1))
    return found


def _top(z: np.ndarray, k: int, groups: int = 64) -> dict[str, np.ndarray]:
    """The k largest of each row, largest first, ties by id; and the largest as `max [layer, 1]`.

    A row is cut into interleaved groups; only the k groups with the largest maxima can hold one of the k
    largest.
    """
    n_layers, vocab = z.shape
    width = vocab // groups
    if width <= k:
        order = np.argsort(-z, -1, kind="stable")[:, :k]
        return {"top_ids": order, "max": z.max(-1, keepdims=True)}
    head = z[:, : width * groups].reshape(n_layers, groups, width)
    maxima = head.max(1)
    best = np.argpartition(-maxima, k - 1, -1)[:, :k]
    ids = (best[:, None, :] + width * np.arange(groups)[:, None]).reshape(n_layers, -1)
    rest = np.broadcast_to(np.arange(width * groups, vocab), (n_layers, vocab - width * groups))
    ids = np.sort(np.concatenate([ids, rest], -1), -1)
    values = np.take_along_axis(z, ids, -1)
    order = np.argsort(-values, -1, kind="stable")[:, :k]
    return {
        "top_ids": np.take_along_axis(ids, order, -1),
        "max": np.take_along_axis(values, order[:, :1], -1),
    }
