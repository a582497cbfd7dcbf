"""Stage training, its outcome: whether the task was learned, and whether training broke the model.

In: lines of the log (`train.jsonl`) and the rows behind them. Out: figures and sentences. Both questions are
put to held-out rows, and both allow for two standard errors.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..tasks.encoding import Row

# Chance moves the loss of a training that does nothing by less than this share.
_LOSS_MARGIN = 0.1


def learned(accuracy: float, rows: Sequence[Row], valid: Sequence[Row]) -> dict[str, Any]:
    """Compare the held-out first-token `accuracy` with the best that can be said without solving the task.

    Returns `chance` (a share) and `learned` (accuracy above it by two standard errors).
    """
    floor = chance(rows, valid)
    return {"chance": floor, "learned": accuracy > floor + 2 * math.sqrt(_variance(floor, len(valid)))}


def chance(rows: Sequence[Row], valid: Sequence[Row]) -> float:
    """Return the share of `valid` that begins with the commonest first token of `rows`.

    That is the commonest token of the row's class where the prompt names the class (arithmetic, by its
    operator), and of all rows where the class is what is asked for (examples of one's own, even or odd).
    """

    def named(r: Row) -> str:
        return r.item.cls if r.item.names_class else ""

    firsts: dict[str, Counter[int]] = {}
    for r in rows:
        firsts.setdefault(named(r), Counter())[r.answer_ids[0]] += 1
    return sum(r.answer_ids[0] == firsts[named(r)].most_common(1)[0][0] for r in valid) / len(valid)


def worse_than_step_0(log: Sequence[Mapping[str, Any]], rows_by_class: Mapping[str, int]) -> list[str]:
    """Tell in what a training has ended below its own step 0; empty where in nothing.

    Parameters
    ----------
    log
        The lines of `train.jsonl`, the first of step 0.
    rows_by_class
        How many held-out rows of each class were scored.

    Returns
    -------
    list of str
        One sentence for each of: share of first tokens right, share of whole answers right, if it fell by
        more than two standard errors of the difference; validation loss, if it rose by more than a tenth
        while neither share rose by two standard errors. (A model that has become right more often and is
        surer where it is wrong has a higher loss, too, and is not broken.)
    """
    first, last = log[0], log[-1]
    steps = f"at step {first['step']}", f"at step {last['step']}"
    shares = {"held-out first token": "valid_accuracy", "held-out whole answer": "valid_exact"}
    moved = {what: _movement(first, last, name, rows_by_class) for what, name in shares.items()}
    worse = [
        f"{what} {100 * first[name]:.0f} % {steps[0]}, {100 * last[name]:.0f} % {steps[1]}"
        for what, name in shares.items()
        if moved[what] < -2
    ]
    before, after = first["valid_loss"], last["valid_loss"]
    if after > (1 + _LOSS_MARGIN) * before and max(moved.values()) <= 2:
        worse.append(f"validation loss {before:.3g} nats {steps[0]}, {after:.3g} {steps[1]}")
    return worse


def _movement(
    first: Mapping[str, Any], last: Mapping[str, Any], name: str, rows_by_class: Mapping[str, int]
) -> float:
    """Return the change of a share, a mean over classes, in standard errors of the difference.

    The two scores are taken as independent. They are of the same rows, which makes the true standard error
    smaller, so a training is called broken too seldom rather than too often.
    """
    shares = [line[f"{name}_by_class"] for line in (first, last)]
    variance = sum(_variance(share[cls], n) for share in shares for cls, n in rows_by_class.items())
    return float((last[name] - first[name]) * len(rows_by_class) / math.sqrt(variance))


def _variance(share: float, n: int) -> float:
    """Return that of a share among `n` rows; all right or all wrong counts as one row off, not as certain."""
    return max(share * (1 - share), 1 / n) / n


def short(number: float) -> str:
    """Write a learning rate as people do: `5e-4`, `1e-3`, `3.5e-5`."""
    return np.format_float_scientific(number, precision=2, trim="-", exp_digits=1)
