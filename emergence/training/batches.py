"""Stage training, data side: which rows make up step `n`, as arrays.

In: tokenised rows (`vocabulary.Row`) and a seed. Out: `Batch`es, padded on the right to their own longest
row and no further, with every class in every batch. The batch of a step is a pure function of (rows, seed,
step), so a resumed run sees the same data although no generator's state is kept. Pure NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from ..tasks.encoding import Row

# The rows of this many batches are drawn at once, so that rows of like length can share a batch.
_WINDOW = 8


@dataclass(frozen=True)
class Batch:
    """Rows as one rectangle, and where in it something is learned.

    `tokens` [row, position] int32: prompt and answer without the end of text (nothing is predicted from it).
    `row`, `position`, `target` [token] int32: token `target` is to be predicted at `tokens[row, position]`.
    Targets are tokens of answers and ends of text alone: prompts and padding are never supervised.
    `last` [row] int32: position of each prompt's last token. `classes`: class of each row. `weight` [token]:
    what each token counts for in a sum, where its tokens were sampled; None where they are the right answers.
    `shares`: which part of a whole batch's targets, and of its rows, is here.
    """

    tokens: Int[np.ndarray, "row position"]
    row: Int[np.ndarray, " token"]
    position: Int[np.ndarray, " token"]
    target: Int[np.ndarray, " token"]
    last: Int[np.ndarray, " row"]
    classes: tuple[str, ...]
    weight: Float[np.ndarray, " token"] | None = None
    shares: tuple[float, float] = (1.0, 1.0)


def collate(rows: Sequence[Row]) -> Batch:
    """Put rows into one rectangle, as wide as the longest of them without its end of text."""
    inputs = [(*r.prompt_ids, *r.answer_ids[:-1]) for r in rows]
    tokens = np.zeros((len(rows), max(map(len, inputs))), np.int32)
    for line, ids in zip(tokens, inputs, strict=True):
        line[: len(ids)] = ids
    last = np.array([len(r.prompt_ids) - 1 for r in rows], np.int32)
    counts = [len(r.answer_ids) for r in rows]
    row = np.repeat(np.arange(len(rows), dtype=np.int32), counts)
    within = np.concatenate([np.arange(n, dtype=np.int32) for n in counts])
    target = np.concatenate([np.array(r.answer_ids, np.int32) for r in rows])
    return Batch(tokens, row, last[row] + within, target, last, tuple(r.item.cls for r in rows))


def _length(row: Row) -> int:
    return len(row.prompt_ids) + len(row.answer_ids)


def in_length_order(rows: Sequence[Row], size: int) -> list[Batch]:
    """Return all rows, sorted by length, in batches of `size`: for scoring, where their order is free."""
    ordered = sorted(rows, key=_length)
    return [collate(ordered[i : i + size]) for i in range(0, len(ordered), size)]


def strata(rows: Sequence[Row]) -> dict[tuple[str, str], list[int]]:
    """Return row indices by (style, class), sorted: classes change fastest, as in a batch."""
    found: dict[tuple[str, str], list[int]] = {}
    for i, r in enumerate(rows):
        found.setdefault((r.style, r.item.cls), []).append(i)
    return dict(sorted(found.items()))


class Batches:
    """An endless, seeded, stratified stream of batches over `rows`.

    The strata give their rows in turn, so in a batch no two of them differ by more than one row. Every row of
    a stratum is used once before any is used twice. The rows of eight batches are drawn at once, and a batch
    is filled with the short ones of *each* stratum, or with the long ones: that saves padding. (Sorting all
    rows by length would, too, but would leave batches without a class.)

    `share` is (rank, ranks): of each batch, the rows from number `rank` on in steps of `ranks`.
    """

    def __init__(
        self, rows: Sequence[Row], batch_size: int, seed: int, share: tuple[int, int] = (0, 1)
    ) -> None:
        self._rows, self._size, self._seed, self._share = rows, batch_size, seed, share
        self._strata = list(strata(rows).values())
        self._window: tuple[int, list[list[int]]] = (-1, [])
        self._epochs: dict[tuple[int, int], np.ndarray] = {}

    def __getitem__(self, step: int) -> Batch:
        """Return the batch that update `step` (counted from 0) learns from."""
        rows, (rank, ranks) = [self._rows[i] for i in self.indices(step)], self._share
        if ranks == 1:
            return collate(rows)
        mine = collate(rows[rank::ranks])
        n_targets = sum(len(row.answer_ids) for row in rows)
        return replace(mine, shares=(len(mine.target) / n_targets, len(mine.last) / len(rows)))

    def indices(self, step: int) -> list[int]:
        """Return the indices into `rows` of that batch."""
        window, offset = divmod(step, _WINDOW)
        if self._window[0] != window:
            self._window = (window, self._deal(window))
        return self._window[1][offset]

    def _draw(self, stratum: int, n: int) -> int:
        """Return the `n`-th row that a stratum deals: all its rows in one random order, then in another."""
        members = self._strata[stratum]
        epoch, i = divmod(n, len(members))
        if (stratum, epoch) not in self._epochs:
            self._epochs = {k: v for k, v in self._epochs.items() if k[0] != stratum or k[1] >= epoch - 1}
            rng = np.random.default_rng([self._seed, stratum, epoch])
            self._epochs[stratum, epoch] = rng.permutation(len(members))
        return members[int(self._epochs[stratum, epoch][i])]

    def _deal(self, window: int) -> list[list[int]]:
        """Return the rows of eight batches, those of like length together, the batches in a random order."""
        first = window * _WINDOW * self._size
        slots = range(first, first + _WINDOW * self._size)
        drawn: dict[int, list[int]] = {}
        for slot in slots:
            n, stratum = divmod(slot, len(self._strata))
            drawn.setdefault(stratum, []).append(self._draw(stratum, n))
        for queue in drawn.values():
            queue.sort(key=lambda i: _length(self._rows[i]), reverse=True)
        dealt = [drawn[slot % len(self._strata)].pop() for slot in slots]
        batches = [dealt[i : i + self._size] for i in range(0, len(dealt), self._size)]
        # Short batches first in every window would be a curriculum nobody asked for.
        order = np.random.default_rng([self._seed, window]).permutation(_WINDOW)
        return [batches[i] for i in order]


def shuffled_answers(rows: Sequence[Row], seed: int) -> tuple[Row, ...]:
    """Permute the answers within each class and style: the control that has nothing to learn.

    Prompts stay, and so do the answers of a class taken together: `3 + 4 = ` may be followed by the answer of
    `9 + 6 = `. No row keeps its own answer, except where more than half of a class share one answer; then as
    few rows as possible do. The row's `item` still holds the true answer.

    Rows whose prompts do not name their class are permuted over all classes of their style instead: there the
    class may settle the answer (even, odd), and within it nothing would change. Every class then has answers
    of all classes, in the shares that they have of all rows, to within one row more than classes times share:
    two where classes are of one size.
    """
    rng = np.random.default_rng([seed, 0x5EED])
    out = list(rows)
    named: list[list[int]] = []
    unnamed: dict[str, list[list[int]]] = {}
    for (style, _), members in strata(rows).items():
        by_class = all(rows[i].item.names_class for i in members)
        (named if by_class else unnamed.setdefault(style, [])).append(members)
    for groups in unnamed.values():
        for i, source in _across(groups, rng):
            out[i] = replace(rows[i], answer_ids=rows[source].answer_ids)
    for members in named:
        answers = np.array([rows[i].item.answer for i in members])
        for i, source in zip(members, _derangement(answers, rng), strict=True):
            out[i] = replace(rows[i], answer_ids=rows[members[source]].answer_ids)
    return tuple(out)


def _across(groups: Sequence[Sequence[int]], rng: np.random.Generator) -> list[tuple[int, int]]:
    """Return pairs (row, row whose answer it gets) that mix groups: each gets answers of all, in proportion.

    The answers are laid out on a line, each group's at even distances, and every group takes as long a piece
    of the line as it has rows. With 20 even and 10 odd rows, every third answer on the line is an odd one's.
    """
    spread = [
        ((rank + 0.5) / len(group), int(i))
        for group in groups
        for rank, i in enumerate(rng.permutation(group))
    ]
    takers = [int(i) for group in groups for i in rng.permutation(group)]
    return list(zip(takers, (i for _, i in sorted(spread)), strict=True))


def _derangement(answers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a random permutation after which as few positions as possible hold the value they had.

    A position that does is a conflict. Each swap removes one or two conflicts and adds none. Where a conflict
    has no swap left, every position of another value has been given the conflicting value already, so no
    permutation has fewer.
    """
    source = rng.permutation(len(answers))
    for i in np.flatnonzero(answers[source] == answers):
        if answers[source[i]] != answers[i]:
            continue
        mends = np.flatnonzero((answers[source] != answers[i]) & (answers != answers[source[i]]))
        if len(mends):
            j = rng.choice(mends)
            source[[i, j]] = source[[j, i]]
    return source
