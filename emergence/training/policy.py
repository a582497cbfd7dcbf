"""Stage training, by reward: an update, what is logged of it, and whether learning has collapsed.

In: the rows of a step, the model with its adapters in. Out: one optimizer update on what the model itself
writes after their prompts (GRPO with one update a rollout, where the ratio of probabilities is 1), and
figures by class: reward, groups without signal, entropy, length, and the KL divergence from the start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_unflatten
from scipy.special import log_softmax

from ..backend import numpy_ops
from ..config.settings import Arm
from ..errors import BrokenExperiment, UsageError
from ..lens.hooks import evaluating
from ..lens.logit_lens import LogitLens
from ..progress import SILENT, Progress
from ..tasks import encoding
from ..tasks.encoding import Row
from ..tasks.task import Splits, Task
from . import rollouts
from .checkpoints import flat
from .learned import short
from .objectives import Objective
from .randomness import SAMPLES, START, derived
from .rollouts import Reward, Rollouts
from .updates import Updates

Figures = dict[str, dict[str, float]]
"""By figure, then class."""
STARTING_ROWS = 48
_QUIET_STEPS, _QUIET_ENTROPY, _QUIET_GROUPS, _DONE = 20, 0.05, 0.95, 0.95


@dataclass(frozen=True)
class Start:
    """What the rewards are before the first update by reward: means over prompts."""

    reward: float
    solved: float
    """The share of prompts of which at least one of `size` completions is rewarded: pass@8 for 8."""
    size: int
    prompts: int

    def __str__(self) -> str:
        return (
            f"mean reward {self.reward:.3f}, pass@{self.size} {self.solved:.2f} over {self.prompts} prompts"
        )


def start(lens: LogitLens, rows: Sequence[Row], arm: Arm, seed: int, reward: Reward) -> Start:
    """Sample as an update would, of the model as it is; nothing is learned."""
    size = arm.group_size
    written = rollouts.sample(lens, rows, size, arm.max_new_tokens, derived(seed, START))
    given = rollouts.rewards(lens.tokenizer, rows, written, reward)
    return Start(float(given.mean()), float((given > 0).any(axis=1).mean()), size, len(rows))


def starts(
    lens: LogitLens, arms: Iterable[Arm], splits: Splits, task: Task, progress: Progress = SILENT
) -> Iterator[tuple[Arm, Start]]:
    """Of each arm that learns by reward, what the answers of the model as it is would earn; told, too.

    Raises `UsageError` where a right answer is longer than `max_new_tokens`: it could not be written.
    """
    measured: dict[tuple[int, int], Start] = {}
    for arm in (arm for arm in arms if arm.method == "grpo"):
        key = arm.group_size, arm.max_new_tokens
        if key not in measured:
            every = encoding.rows(lens.tokenizer, splits.train, task.styles)
            if (longest := max(len(row.answer_ids) for row in every)) > arm.max_new_tokens:
                raise UsageError(
                    f"{arm.name}: max_new_tokens={arm.max_new_tokens} is less than the {longest} tokens that "
                    "an answer and its end take here; raise it"
                )
            measured[key] = start(lens, every[:STARTING_ROWS], arm, arm.seeds[0], task.reward)
        begins = f"; rewards begin after sft_steps={arm.sft_steps}" if arm.sft_steps else ""
        progress.line(f"{arm.name}: before training, {measured[key]}{begins}")
        yield arm, measured[key]


@dataclass(kw_only=True)
class Policy:
    """Updates by reward of one run, from step `arm.sft_steps` on; `began` is the checkpoint of that step."""

    lens: LogitLens
    objective: Objective
    updates: Updates
    arm: Arm
    seed: int
    reward: Reward
    began: Path
    _latest: tuple[Sequence[Row], Rollouts] | None = field(default=None, init=False, repr=False)

    def update(self, step: int, rows: Sequence[Row]) -> Figures:
        """Make the update after `step`, Adam's first where reward begins; return its figures.

        Raises `BrokenExperiment` where what is computed is no number.
        """
        arm, seed = self.arm, derived(self.seed, SAMPLES, step)
        if step == arm.sft_steps:
            self.updates.begin()
        written = rollouts.sample(self.lens, rows, arm.group_size, arm.max_new_tokens, seed)
        given = rollouts.rewards(self.lens.tokenizer, rows, written, self.reward)
        figures = _figures(rows, written, given)
        if arm.reward == "random":
            given = rollouts.permuted(given, seed)
        share = given.size * arm.max_new_tokens
        batches = rollouts.weighted(rows, written, rollouts.advantages(given, arm.advantage) / share)
        total = self.updates.make_of_sums(step, batches)
        if not math.isfinite(total) or not all(map(math.isfinite, figures["entropy"].values())):
            raise BrokenExperiment(
                f"{arm.name} seed {self.seed}: no number at step {step + 1}; lower "
                f"policy_learning_rate={short(arm.policy_learning_rate)}"
            )
        self._latest = rows, written
        return figures

    def divergence(self) -> dict[str, float]:
        """KL(now || where reward began) by class, a mean over the tokens of the latest completions, in nats.

        Exact at each token: over the whole vocabulary, given the tokens before it.
        """
        if self._latest is None:
            return {}
        rows, written = self._latest
        every = np.ones((len(written), len(written[0])))
        now: Mapping[str, mx.array] = flat(self.updates.model.trainable_parameters())
        then: dict[str, mx.array] = mx.load(str(self.began / "adapters.safetensors"))  # type: ignore[assignment]
        found: dict[str, list[tuple[float, float]]] = {}  # by class: nats, how often the token was written
        for batch in rollouts.weighted(rows, written, every):
            p, q = (self._log_probs(arrays, batch) for arrays in (now, then))
            kl = (np.exp(p) * (p - q)).sum(axis=1)
            for row, weight, nats in zip(batch.row, batch.weight, kl, strict=True):  # type: ignore[arg-type]
                found.setdefault(batch.classes[row], []).append((float(nats), float(weight)))
        self.lens.model.update(tree_unflatten(list(now.items())))
        nats_and_counts = {cls: np.array(x).T for cls, x in sorted(found.items())}
        return {cls: float(np.average(nats, weights=n)) for cls, (nats, n) in nats_and_counts.items()}

    def _log_probs(self, arrays: Mapping[str, mx.array], batch: Any) -> np.ndarray:
        model = self.lens.model
        model.update(tree_unflatten(list(arrays.items())))
        with evaluating(model), numpy_ops.fast(model):
            logits = self.objective.read(model, batch)[0][:, : self.lens.vocab_size]
        return np.asarray(log_softmax(np.array(logits.astype(mx.float32), dtype=np.float64), axis=1))


def _figures(rows: Sequence[Row], written: Rollouts, given: np.ndarray) -> Figures:
    figures: dict[str, dict[str, list[float]]] = {}
    silent = rollouts.silent(given)
    for row, group, values, equal in zip(rows, written, given, silent, strict=True):
        each = {
            "reward": float(values.mean()),
            "no_signal": float(equal),
            "entropy": float(np.mean([nats for w in group for nats in w.entropy])),
            "length": float(np.mean([len(w.ids) for w in group])),
        }
        for name, value in each.items():
            figures.setdefault(name, {}).setdefault(row.item.cls, []).append(value)
    return {
        name: {c: math.fsum(v) / len(v) for c, v in sorted(by_class.items())}
        for name, by_class in figures.items()
    }


def overall(by_class: Mapping[str, float]) -> float:
    """The mean over classes."""
    return math.fsum(by_class.values()) / len(by_class)


def summary(updates: Sequence[Figures], divergence: Mapping[str, float]) -> dict[str, Any]:
    """Columns of a line of `train.jsonl`: means over the updates since the last checkpoint, by class, too."""
    columns: dict[str, Any] = {}
    for name in updates[0] if updates else ():
        classes = sorted({cls for update in updates for cls in update[name]})
        by_class = {
            cls: float(np.mean([update[name][cls] for update in updates if cls in update[name]]))
            for cls in classes
        }
        columns |= {name: overall(by_class), f"{name}_by_class": by_class}
    if divergence:
        columns |= {"kl": overall(divergence), "kl_by_class": dict(divergence)}
    return columns


def quiet(figures: Figures) -> bool:
    """Whether a step teaches hardly anything: one answer whatever the luck, or groups all alike.

    Not where nearly every completion is right: then there is nothing left to learn.
    """
    alike = overall(figures["entropy"]) < _QUIET_ENTROPY or overall(figures["no_signal"]) >= _QUIET_GROUPS
    return alike and overall(figures["reward"]) < _DONE


def collapsed(steps: int) -> bool:
    """Whether so many quiet steps in a row are a collapse: told once, at the twentieth."""
    return steps == _QUIET_STEPS


def collapse_notice(label: str, step: int, figures: Figures, arm: Arm, say: Callable[[str], None]) -> None:
    """Say that nothing is learned any more, and what to change."""
    entropy, silent, reward = (overall(figures[name]) for name in ("entropy", "no_signal", "reward"))
    say(
        f"{label} step {step}: learning by reward has collapsed: entropy {entropy:.3f} nats, {silent:.0%} of "
        f"groups without signal, reward {reward:.3f}, for {_QUIET_STEPS} steps; lower "
        f"policy_learning_rate={short(arm.policy_learning_rate)}, or begin from a better start (sft_steps)"
    )
