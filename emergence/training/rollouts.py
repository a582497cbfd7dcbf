"""Stage training, by reward: what the model writes after a prompt, what that is worth, and what it teaches.

In: rows, a lens on the model as it is. Out: `Rollouts`, their rewards and advantages, and weighted `Batch`es.
Tokens are drawn from the whole distribution at temperature 1, so what is scored is what was sampled from.
Group-relative advantages: DeepSeekMath (arXiv:2402.03300); without division by the group's spread or by the
length: Dr. GRPO (arXiv:2503.20783).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import numpy as np
from jaxtyping import Float, Int
from mlx.utils import tree_map
from mlx_lm.models.cache import make_prompt_cache

from ..backend import numpy_ops
from ..lens.hooks import evaluating
from ..lens.logit_lens import LogitLens
from ..tasks.encoding import Row, text_of
from ..tasks.item import Item
from ..tasks.task import says
from .batches import Batch, collate
from .randomness import PERMUTED

Ids = tuple[int, ...]
Reward = Callable[[Item, str], float]
AT_ONCE = 128
"""Completions that are written side by side."""
TOKENS = 512
"""Tokens of a batch that is learned from: memory is that of one."""


@dataclass(frozen=True)
class Written:
    """One completion. `ids` end with the end of text, or after the most tokens that there may be."""

    ids: Ids
    log_probs: tuple[float, ...]
    """Of each token, in nats, when it was drawn."""
    entropy: tuple[float, ...]
    """Of the distribution that each token was drawn from, in nats."""


Rollouts = list[list[Written]]
"""By prompt, then completion of its group."""


def exactly(item: Item, text: str) -> float:
    """The reward of a task that has none of its own: 1.0 for the checked answer."""
    return float(says(text, item.answer))


def sample(
    lens: LogitLens, rows: Sequence[Row], size: int, most: int, seed: int, at_once: int = AT_ONCE
) -> Rollouts:
    """Write `size` completions of at most `most` tokens after the prompt of each row.

    A token depends on `seed` and its place (row, completion, position) alone, not on what is written beside
    it: `at_once` only bounds memory. Each prompt is read once; its cache is then repeated for its group.
    """
    luck = np.random.default_rng(seed).random((len(rows), size, most))
    found: dict[int, list[Written]] = {}
    with evaluating(lens.model), numpy_ops.fast(lens.model):
        for part in _alike(rows, max(1, at_once // size)):
            written = _write(lens, [rows[i] for i in part], luck[part].reshape(-1, most))
            found |= {row: written[k * size : (k + 1) * size] for k, row in enumerate(part)}
    return [found[i] for i in range(len(rows))]


def _alike(rows: Sequence[Row], most: int) -> list[list[int]]:
    """Rows whose prompts are equally long, `most` at a time: padding would take part in some caches."""
    lengths: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        lengths.setdefault(len(row.prompt_ids), []).append(i)
    return [same[i : i + most] for same in lengths.values() for i in range(0, len(same), most)]


def _write(lens: LogitLens, rows: Sequence[Row], luck: Float[np.ndarray, "many token"]) -> list[Written]:
    """Completions of these rows' prompts, `len(luck) / len(rows)` of each; prompts are equally long."""
    model, end, most = lens.model, rows[0].answer_ids[-1], luck.shape[1]
    cache: list[Any] = make_prompt_cache(model)
    for layer in cache:
        if hasattr(layer, "step"):
            layer.step = len(rows[0].prompt_ids) + most  # else room for 256 positions a row
    logits = model(mx.array([row.prompt_ids for row in rows]), cache=cache)[:, -1]
    of_prompt = np.repeat(np.arange(len(rows)), len(luck) // len(rows))
    _pick(cache, of_prompt)
    logits, alive = logits[mx.array(of_prompt)], np.arange(len(luck))
    columns: list[list[tuple[int, float, float]]] = [[] for _ in luck]
    for position in range(most):
        named = np.array(logits[:, : lens.vocab_size].astype(mx.float32))
        ids, log_probs, entropy = draw(named, luck[alive, position])
        for k, *token in zip(alive, ids, log_probs, entropy, strict=True):
            columns[k].append((int(token[0]), float(token[1]), float(token[2])))
        on = np.flatnonzero(ids != end)
        if not len(on) or position == most - 1:
            break
        _pick(cache, on)
        alive = alive[on]
        logits = model(mx.array(ids[on][:, None]), cache=cache)[:, -1]
    return [Written(*(tuple(x) for x in zip(*tokens, strict=True))) for tokens in columns]  # type: ignore[arg-type]


def _pick(cache: list[Any], rows: Int[np.ndarray, " row"]) -> None:
    """Keep, or repeat, these rows of a cache."""
    index = mx.array(rows)
    for layer in cache:
        layer.state = tree_map(lambda x: x[index] if isinstance(x, mx.array) else x, layer.state)


def draw(
    logits: Float[np.ndarray, "row vocab"], luck: Float[np.ndarray, " row"]
) -> tuple[Int[np.ndarray, " row"], Float[np.ndarray, " row"], Float[np.ndarray, " row"]]:
    """Draw a token a row from softmax(logits), by inversion: `luck` is uniform in [0, 1).

    Returns ids, their log-probabilities and the entropy of each row, in nats.
    """
    z = np.maximum(logits - logits.max(axis=1, keepdims=True), -1e4)  # 0 * -inf would be no number
    p = np.exp(z)
    below = np.cumsum(p, axis=1, dtype=np.float64)
    total = below[:, -1]
    aim = luck * total
    ids = np.array([np.searchsorted(row, x, side="right") for row, x in zip(below, aim, strict=True)])
    ids = np.minimum(ids, z.shape[1] - 1)  # luck * total may be rounded up to total
    log_probs = z[np.arange(len(z)), ids] - np.log(total)
    p *= z
    return ids, log_probs, np.log(total) - p.sum(axis=1, dtype=np.float64) / total


def rewards(
    tokenizer: Any, rows: Sequence[Row], rollouts: Rollouts, reward: Reward
) -> Float[np.ndarray, "prompt completion"]:
    """What the task gives for each completion that is the answer's own ids and the end of text; else 0.

    A space more, another line, no end: to the task's reader that may be right, but no score of ours counts
    it, and a policy would learn it.
    """
    found = np.zeros((len(rows), len(rollouts[0])))
    for i, (row, group) in enumerate(zip(rows, rollouts, strict=True)):
        for k, written in enumerate(group):
            if written.ids == row.answer_ids:
                found[i, k] = reward(row.item, text_of(tokenizer, written.ids[:-1]))
    return found


def permuted(
    given: Float[np.ndarray, "prompt completion"], seed: int
) -> Float[np.ndarray, "prompt completion"]:
    """The same rewards in a random order within each group: as many ones, and no information."""
    return np.random.default_rng([seed, PERMUTED]).permuted(given, axis=1)


def silent(given: Float[np.ndarray, "prompt completion"]) -> np.ndarray:
    """By group, whether all rewards are the same: there is nothing to compare."""
    return np.asarray(np.ptp(given, axis=1) == 0)


def advantages(
    given: Float[np.ndarray, "prompt completion"], kind: str = "centred"
) -> Float[np.ndarray, "prompt completion"]:
    """Reward minus the group's mean, exactly 0 in a group of equal rewards; `positive`: the reward itself."""
    if kind == "positive":
        return given
    centred = given - given.mean(axis=1, keepdims=True)
    return np.where(silent(given)[:, None], 0.0, centred)


def weighted(
    rows: Sequence[Row], rollouts: Rollouts, weights: Float[np.ndarray, "prompt completion"]
) -> list[Batch]:
    """Completions as batches whose every token has the weight of its completion.

    A completion that a group has twice is run once, with both weights; what weighs nothing is not run.
    """
    found: dict[tuple[int, Ids], float] = {}
    for i, group in enumerate(rollouts):
        for k, written in enumerate(group):
            key = i, written.ids
            found[key] = found.get(key, 0.0) + float(weights[i, k])
    return _batches(rows, {key: weight for key, weight in found.items() if weight})


def _batches(rows: Sequence[Row], found: Mapping[tuple[int, Ids], float]) -> list[Batch]:
    """Batches of at most `TOKENS` tokens, those of like length together."""
    ordered = sorted(found, key=lambda key: (len(rows[key[0]].prompt_ids) + len(key[1]), key))
    parts: list[list[tuple[int, Ids]]] = []
    for key in ordered:
        width = len(rows[key[0]].prompt_ids) + len(key[1]) - 1
        if not parts or (len(parts[-1]) + 1) * width > TOKENS:
            parts.append([])
        parts[-1].append(key)
    return [_batch(rows, part, [found[key] for key in part]) for part in parts]


def _batch(rows: Sequence[Row], part: Sequence[tuple[int, Ids]], weights: Sequence[float]) -> Batch:
    batch = collate([replace(rows[i], answer_ids=ids) for i, ids in part])
    weight = np.repeat(np.array(weights, np.float32), [len(ids) for _, ids in part])
    return replace(batch, weight=weight)
