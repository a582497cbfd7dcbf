"""Stage training: one arm, one seed, from base model to checkpoints.

In: a model, tokenised rows, an arm of the config, a seed. Out: a folder with `checkpoints/0000050/`
(adapters that mlx-lm loads) and `train.jsonl` (a line a checkpoint). LoRA (Hu et al. 2021,
arXiv:2106.09685), DoRA (Liu et al. 2024, arXiv:2402.09353) or full fine-tuning of the blocks, by mlx-lm's
own layers and Adam as mlx-lm sets it.

The same seed makes the same bytes on the same machine: rows, first adapter weights and dropout are
functions of (seed, step), so a killed run that goes on from its last state ends as if it had never been
killed.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np

from ..backend import numpy_ops
from ..config.loading import Arm
from ..errors import BrokenExperiment, UsageError
from ..lens.logit_lens import LogitLens
from ..models import loading as models
from ..progress import SILENT, Progress
from ..store.files import sweep
from ..tasks import examples
from ..tasks.vocabulary import Row
from . import checkpoints, objectives
from .batches import Batch, Batches, collate, in_length_order, shuffled_answers
from .checkpoints import State
from .objectives import Classifier, Objective

# A state is also kept between far-apart checkpoints, when this many seconds have passed.
_KEEP_SECONDS = 60.0
# The mean loss over this many steps decides whether a run has diverged.
_RECENT = 10
_SCORED_AT_ONCE = 64
# Streams of random numbers that a seed is split into.
_ADAPTERS, _DROPOUT = 1, 2


def train(
    model: Any,
    tokenizer: Any,
    arm: Arm,
    seed: int,
    rows: Sequence[Row],
    valid: Sequence[Row],
    workdir: Path,
    progress: Progress = SILENT,
    lens: LogitLens | None = None,
) -> dict[str, Any]:
    """Train one run to its last checkpoint, going on from what an earlier call left in `workdir`.

    Updates after the last of `arm.checkpoint_steps` would change nothing that is ever read, so there are
    none.

    Parameters
    ----------
    model
        As loaded; it is given back exactly so, also after an exception.
    rows, valid
        Learned from; scored at each checkpoint, never learned from. Train and valid share no problem.
    workdir
        Nobody else writes there meanwhile; unfinished files of a killed call are removed first.
    lens
        Of this model, if there is one already: it need not be proven again.

    Returns
    -------
    dict
        JSON values: `steps`, `seconds` (of updates), `parameters` (trained), `final` (the last line of the
        log),
        `chance` (share of first tokens right by giving one answer always: see `_learned`), `learned`
        (accuracy above chance by two standard errors).

    Raises
    ------
    BrokenExperiment
        The loss became NaN, infinite or exploded, or the adapter changes the model before any training.
    UsageError
        A classifier target that is not one token, or a classifier layer below every trained block.
    KeyboardInterrupt
        Ctrl-C or SIGTERM, after the state has been kept; call again to go on.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    sweep(workdir)
    base = _logits(model, valid)
    identity = _identity(base, arm, seed, rows, valid)
    record = checkpoints.kept(workdir, identity, progress.line)
    if record is not None and "result" in record:
        return dict(record["result"])
    learned_from = shuffled_answers(rows, seed) if arm.method == "shuffled" else rows
    classifier = _classifier(arm, tokenizer, learned_from, len(model.layers))
    run = partial(
        _Run,
        model,
        arm,
        seed,
        Batches(learned_from, arm.batch_size, seed),
        in_length_order(valid, _SCORED_AT_ONCE),
        Objective(lens or LogitLens(model), classifier),
        workdir,
        identity,
        models.adapter_config(model, arm.fine_tune_type, arm.lora, 0),
        math.log(base.shape[-1]),
    )
    start = _number(seed, _ADAPTERS)
    with _generator(start), models.lora(model, arm.fine_tune_type, arm.lora, start):
        if not np.array_equal(base, _logits(model, valid)):
            raise BrokenExperiment(
                f"{arm.name}: {arm.fine_tune_type} layers change the model before any training"
                " (step 0 must be the base model to the bit); load it in float32, or use lora"
            )
        state = run(record).to_the_end(progress)
        parameters = sum(v.size for v in checkpoints.flat(model.trainable_parameters()).values())
    final = state.log[-1]
    result = {"steps": state.step, "seconds": state.seconds, "parameters": parameters, "final": final}
    result |= _learned(final["valid_accuracy"], learned_from, valid)
    checkpoints.write_result(workdir, result, state, identity)
    return result


def _logits(model: Any, rows: Sequence[Row]) -> np.ndarray:
    """Return the logits of a few rows: what the model *is*, for telling it from another to the bit."""
    model.eval()  # dropout would tell a model from itself
    with numpy_ops.fast(model):
        return np.array(model(mx.array(collate(rows[:4]).tokens)).astype(mx.float32))


def _identity(base: np.ndarray, arm: Arm, seed: int, rows: Sequence[Row], valid: Sequence[Row]) -> str:
    """Return a hash of all that decides the outcome: an interrupted run goes on only as itself."""
    ids = [[(r.prompt_ids, r.answer_ids) for r in part] for part in (rows, valid)]
    settings = arm.model_dump(mode="json", exclude={"name", "enabled", "seeds"})
    text = json.dumps([settings, seed, ids, importlib.metadata.version("mlx")], sort_keys=True)
    return hashlib.sha256(text.encode() + base.tobytes()).hexdigest()


def _classifier(arm: Arm, tokenizer: Any, rows: Sequence[Row], n_layers: int) -> Classifier | None:
    if arm.method != "classified":
        return None
    layer = objectives.nearest_layer(arm.classifier_layer_pct, n_layers)
    if 0 < arm.lora.num_layers < n_layers - layer:
        raise UsageError(
            f"{arm.name}: classifier_layer_pct={arm.classifier_layer_pct} is L{layer}, below the"
            f" {arm.lora.num_layers} last blocks that lora.num_layers trains; train more blocks (-1: all)"
        )
    words = {o: arm.classifier_targets.get(o, o) for o in sorted({r.item.cls for r in rows})}
    targets = {o: objectives.word_id(tokenizer, w) for o, w in words.items()}
    return Classifier(layer, arm.classifier_weight, targets)


def _number(*seeds: int) -> int:
    """Return 64 bits that depend on all of `seeds`, each combination having its own."""
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0])


@contextmanager
def _generator(seed: int) -> Iterator[None]:
    """Let mlx-lm's layers, which draw from MLX's global generator, draw from `seed`; then it is as it was."""
    high, low = (int(n) for n in np.array(mx.random.state[0]))  # type: ignore[index]
    mx.random.seed(seed)
    try:
        yield
    finally:
        mx.random.seed(high << 32 | low)


@contextmanager
def _stop_asked() -> Iterator[list[int]]:
    """Collect Ctrl-C and SIGTERM for the loop to end at a step; a second one ends at once."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _learned(accuracy: float, rows: Sequence[Row], valid: Sequence[Row]) -> dict[str, Any]:
    """Was the task learned? Accuracy against the best that can be said without solving it.

    That is the commonest first token: of the class where the prompt names the class (arithmetic, by its
    operator); of all rows where the class is what is asked for (examples of one's own, even or odd).
    """

    def named(r: Row) -> str:
        return "" if r.style == examples.STYLE else r.item.cls

    firsts: dict[str, Counter[int]] = {}
    for r in rows:
        firsts.setdefault(named(r), Counter())[r.answer_ids[0]] += 1
    hits = [r.answer_ids[0] == firsts[named(r)].most_common(1)[0][0] for r in valid]
    chance = sum(hits) / len(hits)
    margin = 2 * math.sqrt(max(chance * (1 - chance), 1 / len(hits)) / len(hits))
    return {"chance": chance, "learned": accuracy > chance + margin}


@dataclass
class _Run:
    """The loop, and what it needs at hand. `ignorance`: nats per token of knowing nothing."""

    model: Any
    arm: Arm
    seed: int
    batches: Batches
    valid: Sequence[Batch]
    objective: Objective
    workdir: Path
    identity: str
    adapter_config: Mapping[str, Any]
    ignorance: float
    record: Mapping[str, Any] | None

    def __post_init__(self) -> None:
        self.optimizer = optim.Adam(learning_rate=self.arm.learning_rate)
        self.optimizer.init(self.model.trainable_parameters())
        self.gradient = nn.value_and_grad(self.model, self.losses)  # type: ignore[attr-defined]
        self.state = State()
        if self.record is not None:
            self.state = checkpoints.restore(self.workdir, self.record, self.model, self.optimizer)

    def losses(self, batch: Batch) -> tuple[mx.array, list[mx.array]]:
        """Return the loss to minimise, and its parts."""
        return self.objective.losses(self.model, batch)

    def to_the_end(self, progress: Progress) -> State:
        """Train to the last checkpoint, keeping the state at each and when asked to stop."""
        steps = self.arm.checkpoint_steps
        kept = time.monotonic()
        label = f"train {self.arm.name} seed {self.seed}"
        with _stop_asked() as stop, progress.task(label, steps[-1], "step") as task:
            task.advance(self.state.step)
            while True:
                due = self.state.step in steps and self.state.step not in {e["step"] for e in self.state.log}
                if due:
                    self.checkpoint(progress)
                if due or stop or time.monotonic() - kept > _KEEP_SECONDS:
                    checkpoints.write_state(
                        self.workdir, self.model, self.optimizer, self.state, self.identity
                    )
                    kept = time.monotonic()
                if stop:
                    raise KeyboardInterrupt(
                        f"{label}: stopped at step {self.state.step}; run again to go on from there"
                    )
                if self.state.step == steps[-1]:
                    break
                loss = self.update()
                task.advance(1, f"loss {loss:.3f}")
        return self.state

    def update(self) -> float:
        """Make one optimizer update and return its answer loss in nats per token."""
        start = time.perf_counter()
        self.model.train()
        batch = self.batches[self.state.step]
        dropout = _generator(_number(self.seed, _DROPOUT, self.state.step))
        with dropout, numpy_ops.fast(self.model):
            with numpy_ops.lazily():
                (total, parts), gradients = self.gradient(batch)
            self.optimizer.update(self.model, gradients)
            mx.eval(total, parts, self.model.trainable_parameters(), self.optimizer.state)
        losses = [float(part.item()) for part in parts]
        self.state.step += 1
        self.state.losses.append(losses)
        self.state.seconds += time.perf_counter() - start
        self.check(float(total.item()))
        return losses[0]

    def check(self, total: float) -> None:
        """Raise where going on is pointless.

        That is: NaN or infinity; for a while answers worse than knowing nothing; or every token as likely as
        any other, which is what overflowing activations end in behind a norm.
        """
        recent = [losses[0] for losses in self.state.losses[-_RECENT:]]
        limit = max(self.ignorance, 1.5 * self.state.log[0]["valid_loss"])
        worse = len(recent) == _RECENT and sum(recent) / _RECENT > limit
        mute = len(recent) == _RECENT and all(abs(nats - self.ignorance) < 1e-3 for nats in recent)
        if not math.isfinite(total) or worse or mute:
            raise BrokenExperiment(
                f"{self.arm.name} seed {self.seed}: diverged at step {self.state.step}, loss {recent[-1]:.3g}"
                f" nats (knowing nothing: {self.ignorance:.3g}); lower"
                f" learning_rate={self.arm.learning_rate:g}"
            )

    def checkpoint(self, progress: Progress) -> None:
        """Write the adapters, score the model as it is, and add a line to the log."""
        state, arm = self.state, self.arm
        state.files |= checkpoints.write_checkpoint(self.workdir, state.step, self.model, self.adapter_config)
        self.model.eval()
        # Not so for updates: what is computed while MLX traces a gradient is walked through again at
        # every block, which costs more than the faster exponential saves.
        with numpy_ops.fast(self.model):
            score = objectives.score(lambda batch: self.objective.read(self.model, batch)[0], self.valid)
        if not math.isfinite(score.loss):
            raise BrokenExperiment(
                f"{arm.name} seed {self.seed}: validation loss {score.loss} at step {state.step}"
            )
        names = ("train_loss", "train_classifier_loss")
        train = {
            n: math.fsum(c) / len(c) for n, c in zip(names, zip(*state.losses, strict=True), strict=False)
        }
        state.log.append({"step": state.step, "train_loss": None, **train, **score.summary()})
        state.losses = []
        checkpoints.write_log(self.workdir, state)
        progress.line(
            f"{arm.name} seed {self.seed} step {state.step}: loss {score.loss:.3f}, held-out first token"
            f" {score.mean_first:.0%}, whole answer {score.mean_exact:.0%}"
        )
