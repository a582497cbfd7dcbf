"""Statistics of next-token distributions, a block of logits at a time. Second half of the lens.

In: logits of consecutive layers at one place. Out: what is kept of each: log-mass of token sets,
log-probabilities and ranks of tokens, top-k, entropy, KL. Two implementations of the same formulas: NumPy
for the CPU device, here (its exp is 30 times MLX's there, and it reads MLX's memory without a copy), and
lazy MLX for a GPU (`distribution_gpu`). nostalgebraist (2020), "interpreting GPT: the logit lens".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np
from jaxtyping import Float, Int

from .places import slices

_THREADS = 4
"""At most; each holds one part of the logits of one place at all layers some three times."""
FLOOR = -1e30
"""Stands for a logit of minus infinity (a masked token), so that 0 * z is 0."""

Rows = dict[str, Any]
"""By field, arrays `[layer, ...]`: log_mass [set], log_probs and ranks [token], top_ids and top_log_probs
[k], entropy, kl, kl_previous; all but the ids and ranks in nats."""
Logits = Callable[[slice], mx.array]
"""Logits `[layer, item, ids]` of some tokens; what goes beyond these is padding."""


@dataclass(frozen=True)
class Wanted:
    """What to keep of each distribution."""

    vocab: int
    """Ids from here on are padding of the head, not part of the distribution."""
    sets: tuple[Int[np.ndarray, " _"], ...] = ()
    tokens: Int[np.ndarray, " token"] = field(default_factory=lambda: np.zeros(0, np.int64))
    top_k: int = 5
    kl: bool = True
    """Whether the KLs are taken; they are NaN otherwise."""

    @property
    def ids(self) -> Int[np.ndarray, " id"]:
        """Every id that is looked at by itself: the sets' one after the other, then the tokens."""
        return np.concatenate([*self.sets, self.tokens]).astype(np.int64)

    def parts(self, width: int | None) -> list[slice]:
        """The vocabulary in blocks of `width` ids, the last one shorter; None is all of it in one."""
        return list(slices(self.vocab, width or self.vocab))

    def parts_of_tokens(self, width: int | None) -> list[slice]:
        """The blocks that hold one of `tokens`, where there is more than one block.

        A rank counts the tokens of every block that beat one token, so that token's logit must be known
        before the first is counted: these blocks are computed twice.
        """
        every = self.parts(width)
        return [p for p in every if len(every) > 1 and inside(self.tokens, p).any()]


def inside(ids: Int[np.ndarray, " id"], part: slice) -> np.ndarray:
    """Which ids a block of the vocabulary holds."""
    return np.asarray((ids >= part.start) & (ids < part.stop))


def on_cpu(
    logits: Logits, wanted: Wanted, before: Int[np.ndarray, " layer"], width: int | None = None
) -> Rows:
    """Statistics `[layer, item, ...]`, from blocks of `width` tokens of the vocabulary (None: all in one).

    `before[i]` is the row that holds layer i's previous layer, -1 for none (its `kl_previous` is NaN); the
    last row is the output layer. In float32 NumPy, summed in float64. Items are shared out among threads:
    NumPy computes without the interpreter's lock.

    With s = z - max z, e = exp s, Z = log sum e and p = e / sum e: log p = s - Z; log-mass = log sum
    p[set]; entropy = Z - sum p s; KL(output || layer) = Z - sum p_output s - H_output; KL(layer ||
    previous) likewise; rank = number of tokens with a strictly larger logit. Adding a constant to z changes
    none of them. The largest logit so far stands for the maximum, and the sums move along with it (Milakov
    and Gimelshein 2018, arXiv:1805.02867).
    """
    items: list[_Item] = []
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        for z, part in _values(logits, wanted.parts_of_tokens(width)):
            items = items or [_Item(wanted, before) for _ in range(z.shape[1])]
            for i, item in enumerate(items):
                item.keep(z[:, i], part)
        for z, part in _values(logits, wanted.parts(width)):
            items = items or [_Item(wanted, before) for _ in range(z.shape[1])]
            for done in [pool.submit(item.add, z[:, i], part) for i, item in enumerate(items)]:
                done.result()
    found = [item.statistics() for item in items]
    return {name: np.stack([each[name] for each in found], axis=1) for name in found[0]}


def _values(logits: Logits, parts: Sequence[slice]) -> Iterator[tuple[np.ndarray, slice]]:
    for part in parts:
        z = np.array(logits(part).astype(mx.float32), copy=False)
        yield z[..., : part.stop - part.start], part


class _Item:
    """Running sums over the vocabulary of all layers at one place; axes [layer, ...]."""

    def __init__(self, wanted: Wanted, before: Int[np.ndarray, " layer"]) -> None:
        layers = len(before)
        self.wanted, self.before = wanted, before
        self.has_previous = before >= 0
        self.in_order = bool(np.array_equal(before[1:], np.arange(layers - 1)))
        self.ids = wanted.ids
        self.logits = np.empty((layers, len(self.ids)), np.float32)
        self.ranks = np.zeros((layers, len(wanted.tokens)), np.int64)
        self.max = np.full(layers, FLOOR, np.float32)
        self.total, self.mean, self.cross, self.cross_previous = np.zeros((4, layers))
        """Sums of e, e s, e_output s and e s_previous."""
        self.top_ids = np.zeros((layers, 0), np.int64)
        self.top = np.zeros((layers, 0), np.float32)

    def add(self, z: Float[np.ndarray, "layer ids"], part: slice) -> None:
        """Take in the logits of the tokens of a part; those of `wanted.tokens` are in it, or were kept."""
        self.keep(z, part)
        for i, own in enumerate(self.logits.T[len(self.ids) - len(self.wanted.tokens) :]):
            self.ranks[:, i] += (z > own[:, None]).sum(-1)
        highest = np.maximum(self.max, self._add_top(z, part.start))
        s = z - highest[:, None]
        e = np.exp(s)
        mean = np.einsum("lv,lv->l", e, s)
        if np.isnan(mean).any():  # 0 times the minus infinity of a masked token, or a NaN that stays one
            np.maximum(s, FLOOR, out=s)
            mean = np.einsum("lv,lv->l", e, s)
        down = self.max.astype(np.float64) - highest
        scale = np.exp(down)
        if self.wanted.kl:
            self.cross = scale[-1] * (self.cross + down * self.total[-1]) + np.einsum("lv,v->l", s, e[-1])
            older = down[self.before]  # what its previous layer's maximum moved by
            self.cross_previous = scale * (self.cross_previous + older * self.total) + self._previous(e, s)
        self.mean = scale * (self.mean + down * self.total) + mean
        self.total = scale * self.total + e.sum(-1)
        self.max = highest

    def keep(self, z: Float[np.ndarray, "layer ids"], part: slice) -> None:
        """Keep the logits of the ids that are looked at by themselves, where a part has them."""
        here = inside(self.ids, part)
        if here.any():
            self.logits[:, here] = z[:, self.ids[here] - part.start]

    def _previous(self, e: np.ndarray, s: np.ndarray) -> np.ndarray:
        if self.in_order:
            rest = np.einsum("lv,lv->l", e[1:], s[:-1])
            return np.concatenate([np.zeros(1, np.float32), rest])
        return np.array([np.einsum("v,v->", e[i], s[j]) for i, j in enumerate(self.before)])

    def _add_top(self, z: np.ndarray, first: int) -> np.ndarray:
        """Bring the k largest up to date, ties by id; returns each row's largest.

        Only columns that reach a row's k-th largest are sorted, some 0.1 % by the second part of a
        vocabulary: 1.1 ms for 30 layers × 49,152 tokens, of 4.4 ms that the statistics take; `argpartition`
        takes 3.4 ms.
        """
        k = self.wanted.top_k
        if not k:
            return np.asarray(z.max(-1))
        floor = self.top[:, -1:] if self.top.shape[-1] == k else _floor(z, k)
        columns = np.flatnonzero((~(z < floor)).any(0))  # a NaN is in, and shows
        ids = np.concatenate([self.top_ids, np.broadcast_to(columns + first, (len(z), len(columns)))], -1)
        values = np.concatenate([self.top, z[:, columns]], -1)
        order = np.argsort(-values, -1, kind="stable")[:, :k]
        self.top_ids = np.take_along_axis(ids, order, -1)
        self.top = np.take_along_axis(values, order, -1)
        return self.top[:, 0]

    def statistics(self) -> Rows:
        """All that was wanted, once the whole vocabulary was added."""
        log_sum = np.log(self.total)
        constant = log_sum + self.max
        entropy = log_sum - self.mean / self.total
        log_p = (np.maximum(self.logits, FLOOR) - constant[:, None]).astype(np.float32)
        sets = np.split(log_p, np.cumsum([len(ids) for ids in self.wanted.sets]), axis=-1)
        kl, kl_previous = self._divergences(log_sum, entropy)
        return {
            "top_ids": self.top_ids,
            "top_log_probs": (np.maximum(self.top, FLOOR) - constant[:, None]).astype(np.float32),
            "log_mass": _masses(sets[:-1], len(log_p)),
            "log_probs": sets[-1],
            "ranks": self.ranks,
            "entropy": np.maximum(entropy, 0).astype(np.float32),
            "kl": kl.astype(np.float32),
            "kl_previous": kl_previous.astype(np.float32),
        }

    def _divergences(self, log_sum: np.ndarray, entropy: np.ndarray) -> np.ndarray:
        """KL(output || layer) and KL(layer || previous), one below the other."""
        if not self.wanted.kl:
            return np.full((2, len(log_sum)), np.nan)
        output = self.cross / self.total[-1]
        previous = np.where(self.has_previous, self.cross_previous / self.total, np.nan)
        found = np.stack([log_sum - output - entropy[-1], log_sum[self.before] - previous - entropy])
        return np.asarray(np.maximum(found, 0))


def _masses(log_p: list[np.ndarray], layers: int) -> np.ndarray:
    """Logsumexp over each set, from its own largest member: tiny probabilities do not underflow."""
    found = np.empty((layers, len(log_p)), np.float32)
    for i, part in enumerate(log_p):
        top = part.max(-1)
        found[:, i] = top + np.log(np.exp(part - top[:, None]).sum(-1))
    return found


def _floor(z: np.ndarray, k: int) -> np.ndarray:
    """A number that each row's k largest reach: the k-th largest of the maxima of 16 k groups of columns."""
    groups = 16 * k
    width = z.shape[-1] // groups
    if not width:
        return np.full((len(z), 1), -np.inf, z.dtype)
    maxima = z[:, : width * groups].reshape(len(z), groups, width).max(-1)
    return np.partition(maxima, groups - k, -1)[:, groups - k, None]
