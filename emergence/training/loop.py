"""Stage training: one arm, one seed, from base model to checkpoints.

In: a lens on a model, tokenised rows, an arm of the config, a seed. Out: a folder with `checkpoints/0000050/`
(adapters that mlx-lm loads) and `train.jsonl` (a line a checkpoint, with the losses of every update). LoRA
(Hu et al. 2021, arXiv:2106.09685), DoRA (Liu et al. 2024, arXiv:2402.09353) or full fine-tuning of the
blocks, by mlx-lm's own layers and Adam as mlx-lm sets it.

The same seed makes the same bytes on the same machine: rows, first adapter weights and dropout are
functions of (seed, step), so a killed run that goes on from its last state ends as if it had never been
killed.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from ..backend import numpy_ops, openblas
from ..config.settings import Arm
from ..errors import BrokenExperiment
from ..lens.logit_lens import LogitLens
from ..models import loading as models
from ..progress import SILENT, Progress
from ..store.files import sweep
from ..tasks.encoding import Row
from . import learned, objectives, policy
from .batches import Batches, collate, shuffled_answers
from .checkpoints import CHECKPOINTS, RunFolder, State, flat
from .divergence import Divergence
from .group import ALONE, Alone
from .learned import short
from .objectives import Objective
from .policy import Policy
from .randomness import ADAPTERS, DROPOUT, derived, drawing_from
from .rollouts import Reward, exactly
from .updates import Updates

LOSSES = ("train_loss", "train_classifier_loss")
OF_EACH_STEP = ("train_losses", "train_classifier_losses")
"""Columns of the log with a list each: what every update since the last checkpoint lost."""


@dataclass(kw_only=True, eq=False)
class Trainer:
    """Trains one run to its last checkpoint, going on from what an earlier call left in `workdir`.

    Updates after the last of `arm.checkpoint_steps` would change nothing that is ever read, so there are
    none; nor are there after a checkpoint at which `arm.until` is reached.

    Parameters
    ----------
    lens
        Of the model to train, with its tokenizer. `run` gives the model back exactly as it was, also after an
        exception.
    rows, valid
        Learned from; scored at each checkpoint, never learned from. Train and valid share no problem.
    workdir
        Nobody else writes there meanwhile; unfinished files of a killed call are removed first.
    reward
        Of an arm that learns by reward: what a text is worth as the answer of an item.
    keep_seconds
        The state is also written between far-apart checkpoints, when this many seconds have passed.
    group
        The processes that train it together, each of which calls `run`.
    """

    lens: LogitLens
    arm: Arm
    seed: int
    rows: Sequence[Row]
    valid: Sequence[Row]
    workdir: Path
    progress: Progress = SILENT
    reward: Reward = exactly
    keep_seconds: float = 60.0
    group: Alone = ALONE
    _uniform: float = field(init=False, repr=False)
    _folder: RunFolder = field(init=False, repr=False)
    _updates: Updates = field(init=False, repr=False)
    _state: State = field(init=False, repr=False)
    _written: float = field(init=False, repr=False)

    def run(self) -> dict[str, Any]:
        """Train, and write checkpoints and log.

        Returns
        -------
        dict
            JSON values: `steps`, `seconds` (of updates), `parameters` (how many are trained), `final` (the
            last line of the log), `chance` and `learned` (see `learned.learned`).

        Raises
        ------
        BrokenExperiment
            The loss became NaN, infinite or exploded; the task went worse at the end than at step 0 (not
            asked of a `shuffled` arm, or of random rewards); no answer is rewarded where reward begins; or
            the adapter changes the model before any training.
        UsageError
            A classifier target that is not one token, or a classifier layer below every trained block.
        KeyboardInterrupt
            Ctrl-C or SIGTERM, after the state has been written; call again to go on.
        """
        self.workdir.mkdir(parents=True, exist_ok=True)
        sweep(self.workdir)
        kernels, base = openblas.install().name, self._some_logits()
        self._uniform = math.log(base.shape[-1])
        self._folder = self.group.folder(self.workdir, self._identity(base, kernels), kernels)
        record = self.group.record(self._folder, self.progress.line)
        if record is not None and "result" in record:
            return dict(record["result"])
        objective, start = self._objective, derived(self.seed, ADAPTERS)
        tuning = models.lora(self._model, self.arm.fine_tune_type, self.arm.lora, start)
        with drawing_from(start), tuning:
            self._require_unchanged(base)
            self._updates = Updates(self._model, objective, self.arm, self.group)
            self._state = self._first_state(record)
            self.group.agree("the weights they start from", self._model)
            self._to_the_last_checkpoint()
            return self._finish()

    @property
    def _model(self) -> Any:
        return self.lens.model

    @property
    def _label(self) -> str:
        return f"{self.arm.name} seed {self.seed}"

    @cached_property
    def _learned_from(self) -> Sequence[Row]:
        return shuffled_answers(self.rows, self.seed) if self.arm.method == "shuffled" else self.rows

    @cached_property
    def _batches(self) -> Batches:
        share = self.group.rank, self.group.size
        return Batches(self._learned_from, self.arm.batch_size, self.seed, share)

    @cached_property
    def _objective(self) -> Objective:
        classes = sorted({row.item.cls for row in self._learned_from})
        return Objective(self.lens, objectives.classifier(self.arm, self.lens, classes))

    @cached_property
    def _policy(self) -> Policy:
        return Policy(
            lens=self.lens, objective=self._objective, updates=self._updates, arm=self.arm, seed=self.seed,
            reward=self.reward, began=self.workdir / CHECKPOINTS / f"{self.arm.sft_steps:07d}",
        )  # fmt: skip

    @cached_property
    def _adapter_config(self) -> Mapping[str, Any]:
        return models.adapter_config(self._model, self.arm.fine_tune_type, self.arm.lora, 0)

    def _some_logits(self) -> np.ndarray:
        """Return the logits of a few rows: what the model *is*, for telling it from another to the bit."""
        self._model.eval()  # dropout would tell a model from itself
        with numpy_ops.fast(self._model):
            tokens = mx.array(collate(self.valid[:4]).tokens)
            return np.array(self._model(tokens).astype(mx.float32))

    def _identity(self, base: np.ndarray, kernels: str) -> str:
        """Return a hash of all that decides the outcome: an interrupted run goes on only as itself.

        The kernels are in it, though not in the run's key: half a run of each would be nobody's bytes.
        """
        ids = [[(r.prompt_ids, r.answer_ids) for r in part] for part in (self.rows, self.valid)]
        text = json.dumps(
            [self.arm.spec(), self.seed, ids, importlib.metadata.version("mlx"), kernels, self.group.size],
            sort_keys=True,
        )
        return hashlib.sha256(text.encode() + base.tobytes()).hexdigest()

    def _require_unchanged(self, base: np.ndarray) -> None:
        if not np.array_equal(base, self._some_logits()):
            raise BrokenExperiment(
                f"{self.arm.name}: {self.arm.fine_tune_type} layers change the model before any training"
                " (step 0 must be the base model to the bit); load it in float32, or use lora"
            )

    def _first_state(self, record: Mapping[str, Any] | None) -> State:
        if record is None:
            return State()
        return self._folder.restore(record, self._model, self._updates.optimizer)

    def _to_the_last_checkpoint(self) -> None:
        """Train, writing the state at each checkpoint and when asked to stop."""
        last, label = self.arm.checkpoint_steps[-1], f"train {self._label}"
        self._written = time.monotonic()
        with self.group.stop_requests() as stop, self.progress.task(label, last, "step") as task:
            task.advance(self._state.step)
            self._write(stop)
            while self._state.step < last and not self._enough():
                task.advance(1, self._update())
                self._write(stop)

    def _enough(self) -> bool:
        """Say whether the state is a checkpoint at which the arm need not go on: see `Arm.until`."""
        log = self._state.log
        if self.arm.until is None or not log or log[-1]["step"] != self._state.step:
            return False
        return bool(min(log[-1]["valid_exact_by_class"].values()) >= self.arm.until)

    def _write(self, stop: Sequence[int]) -> None:
        """Write what is due after a step: checkpoint and state, at a request to `stop` the state alone."""
        state = self._state
        logged = {line["step"] for line in state.log}
        due = state.step in self.arm.checkpoint_steps and state.step not in logged
        if due:
            self._checkpoint()
        if due or stop or time.monotonic() - self._written > self.keep_seconds:
            self._folder.write_state(state, self._model, self._updates.optimizer)
            self._written = time.monotonic()
        if stop:
            raise KeyboardInterrupt(
                f"train {self._label}: stopped at step {state.step}; run again to go on from there"
            )

    def _update(self) -> str:
        """Make one update and say what to show of it; raise where the training has diverged."""
        start, state = time.perf_counter(), self._state
        if self.arm.by_reward(state.step):
            return self._update_by_reward()
        seed = derived(self.seed, DROPOUT, state.step, *self.group.stream())
        total, parts = self._updates.make(state.step, self._batches[state.step], seed)
        state.step += 1
        state.losses.append(parts)
        state.seconds += time.perf_counter() - start
        self._tell(dict(zip(LOSSES, parts, strict=False)))
        self._require_convergence(total)
        return f"loss {parts[0]:.3f}"

    def _update_by_reward(self) -> str:
        start, state = time.perf_counter(), self._state
        figures = self._policy.update(state.step, self._rows_of(state.step))
        state.step += 1
        state.rewards.append(figures)
        self._tell(figures)
        state.quiet = state.quiet + 1 if policy.quiet(figures) else 0
        if policy.collapsed(state.quiet) and state.collapsed is None:
            state.collapsed = state.step
            policy.collapse_notice(self._label, state.step, figures, self.arm, self.progress.line)
        state.seconds += time.perf_counter() - start
        return f"reward {policy.overall(figures['reward']):.3f}"

    def _rows_of(self, step: int) -> list[Row]:
        return [self._learned_from[i] for i in self._batches.indices(step)]

    def _of_rewards(self) -> dict[str, Any]:
        """Return the columns of a checkpoint of an arm that learns by reward; where it begins, the start."""
        state, arm = self._state, self.arm
        if not arm.by_reward(state.step):
            return {}
        if state.step > arm.sft_steps:
            found = policy.summary(state.rewards, self._policy.divergence())
            state.rewards = []
            return found
        some = [row for i in range(1 + policy.STARTING_ROWS // arm.batch_size) for row in self._rows_of(i)]
        start = policy.start(self.lens, some[: policy.STARTING_ROWS], arm, self.seed, self.reward)
        if not start.solved:
            raise BrokenExperiment(
                f"{self._label}: at step {state.step}, where it would begin to learn by reward, no completion"
                f" is rewarded ({start}); raise sft_steps={arm.sft_steps}"
            )
        self.progress.line(f"{self._label} step {state.step}: learns by reward from here on: {start}")
        return {"reward": start.reward, f"pass@{start.size}": start.solved}

    def _require_convergence(self, total: float) -> None:
        state = self._state
        answers = [parts[0] for parts in state.losses]
        if Divergence(self._uniform, state.log[0]["valid_loss"]).at(total, answers):
            raise BrokenExperiment(
                f"{self._label}: diverged at step {state.step}, loss {answers[-1]:.3g} nats (a uniform guess:"
                f" {self._uniform:.3g}); lower learning_rate={short(self.arm.learning_rate)}"
            )

    def _checkpoint(self) -> None:
        """Write the adapters, score the model as it is, and add a line to the log."""
        state, folder = self._state, self._folder
        state.files |= folder.write_checkpoint(state.step, self._model, self._adapter_config)
        score = self._score()
        if not math.isfinite(score.loss):
            raise BrokenExperiment(f"{self._label}: validation loss {score.loss} at step {state.step}")
        means = _means(state.losses) | self._of_rewards()
        state.log.append({"step": state.step, **means, **score.summary(), **_of_each_step(state.losses)})
        self._tell(score.summary())
        state.losses = []
        folder.write_log(state)
        self.progress.line(
            f"{self._label} step {state.step}: loss {score.loss:.3f}, held-out first token"
            f" {score.mean_first:.0%}, whole answer {score.mean_exact:.0%}"
        )

    def _tell(self, values: Mapping[str, Any]) -> None:
        """Hand figures to who tracks them."""
        self.progress.metrics(self.arm.name, self.seed, self._state.step, values)

    def _score(self) -> objectives.Score:
        """Score the held-out rows; of several ranks, whose last digits may differ, rank 0's score counts."""
        mine = objectives.score_rows(self._objective, self.valid)
        return objectives.Score(**self.group.same(asdict(mine)))

    def _finish(self) -> dict[str, Any]:
        """Judge the training as a whole, and mark the run as finished."""
        state = self._state
        if self.arm.method != "shuffled" and self.arm.reward != "random":
            self._require_no_worse()
        final = {k: v for k, v in state.log[-1].items() if k not in OF_EACH_STEP}
        parameters = sum(v.size for v in flat(self._model.trainable_parameters()).values())
        result = {"steps": state.step, "seconds": state.seconds, "parameters": parameters, "final": final}
        if self.arm.method == "grpo":
            result |= {"switch": self.arm.sft_steps, "collapsed": state.collapsed}
        result |= learned.learned(final["valid_accuracy"], self._learned_from, self.valid)
        self._folder.write_result(result, state)
        return result

    def _require_no_worse(self) -> None:
        name = "policy_learning_rate" if self.arm.method == "grpo" else "learning_rate"
        rate = getattr(self.arm, name)
        worse = learned.worse_than_step_0(self._state.log, Counter(row.item.cls for row in self.valid))
        if worse:
            raise BrokenExperiment(
                f"{self._label}: {'; '.join(worse)}: {name}={short(rate)} breaks this model; try"
                f" {short(rate / 5)}"
            )


def _means(losses: Sequence[Sequence[float]]) -> dict[str, float | None]:
    """Return the columns of the log that are means over updates; at step 0 there have been none."""
    columns = zip(LOSSES, zip(*losses, strict=True), strict=False)
    return {"train_loss": None} | {name: math.fsum(c) / len(c) for name, c in columns}


def _of_each_step(losses: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    """Return the losses of every update since the last checkpoint, in nats."""
    return {name: list(c) for name, c in zip(OF_EACH_STEP, zip(*losses, strict=True), strict=False)}
