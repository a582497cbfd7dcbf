"""Readings of every checkpoint as arrays: what the statistics, the verdicts and the report see. NumPy only.

In: what `reader` kept beside the runs. Out: `Readings`, one a run, and the `Study` of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from ..errors import BrokenExperiment
from ..wording import quoted

SELECTION, EVALUATION = 0, 1
"""Halves of the test prompts: layers are chosen on one, and judged on the other."""
STRENGTH = 0.10
"""The own-class mass above which a layer says something: the threshold of predictions about mass."""


@dataclass(frozen=True)
class Prompt:
    """One prompt that was read, with what is known of its problem."""

    text: str
    cls: str
    answer: str
    style: str
    half: int
    """0: selection half (layers are chosen on it); 1: evaluation half (judged on it);
    -1: shown only, such as the config's `test_prompts`, and part of no statistic."""
    key: str
    """The same for the same problem in every style, and for commuted pairs: `7 * 8`."""
    label: int | None = None
    """What a control task gives its labels to: the first operand; None where there is none."""
    numbers: tuple[int, ...] = ()
    """The operands; empty where there are none."""


@dataclass(frozen=True)
class Readings:
    """What the lens says at every (step, layer, prompt) of one run, at the prompt's last token.

    All masses are natural logarithms of probabilities, float32.
    """

    arm: str
    seed: int
    steps: tuple[int, ...]
    prompts: tuple[Prompt, ...]
    classes: tuple[str, ...]
    words: Float[np.ndarray, "step layer prompt class"]
    """Log-mass on each class's words, without those that stand in the prompts of the style (`plus`)."""
    glyphs: Float[np.ndarray, "step layer prompt class"]
    """Log-mass on each class's glyphs (`+`), which stand in the prompts: copying, no classifier."""
    random_words: Float[np.ndarray, "step layer prompt set"]
    """Log-mass on frequency-matched random word sets."""
    answers: Float[np.ndarray, "step layer prompt answer"]
    """Log-probability of each distinct first answer token of the problems read."""
    answer_ids: Int[np.ndarray, " answer"]
    own_answer: Int[np.ndarray, " prompt"]
    """Index into the `answer` axis of the prompt's right first token."""
    top_ids: Int[np.ndarray, "step layer prompt k"]
    top_log_probs: Float[np.ndarray, "step layer prompt k"]
    entropy: Float[np.ndarray, "step layer prompt"]
    """In nats."""
    kl: Float[np.ndarray, "step layer prompt"]
    """KL(output layer || layer), in nats."""
    correct: Bool[np.ndarray, "step prompt"]
    """The model's most likely next token is the right answer's first token."""
    hidden: Float[np.ndarray, "layer prompt hidden"]
    """Residual streams of step 0 (the base model), for probes."""
    token_sets: dict[str, dict[str, tuple[int, ...]]]
    """Ids used, by `words` / `glyphs` / `random_words`, then class (random: set name)."""
    copied: Bool[np.ndarray, " prompt"] | None = None
    """The right answer's first token stands in the prompt: copying, left out of the answer family."""

    @property
    def n_layers(self) -> int:
        """Blocks of the model; the last one is the output layer."""
        return int(self.words.shape[1])


@dataclass(frozen=True)
class Study:
    """The readings of all runs of one experiment on one model; prompts and sets are the same in all."""

    runs: tuple[Readings, ...]

    def arm(self, name: str) -> tuple[Readings, ...]:
        """The runs of an arm, by seed; `base` is step 0 of the first run."""
        if name == "base":
            return self.runs[:1]
        return tuple(sorted((r for r in self.runs if r.arm == name), key=lambda r: r.seed))


def disjoint(prompts: Sequence[Prompt]) -> None:
    """Refuse readings whose layers would be chosen on problems that they are judged on.

    Raises
    ------
    BrokenExperiment
        A problem (commuted pairs are one) is in both halves of a style.
    """
    halves: dict[tuple[str, str], set[int]] = {}
    for p in prompts:
        if p.half in (SELECTION, EVALUATION):
            halves.setdefault((p.style, p.key), set()).add(p.half)
    both = [quoted(key) for (_, key), found in halves.items() if len(found) > 1]
    if both:
        raise BrokenExperiment(
            f"layers would be chosen and judged on the same prompts: {len(both)} problems are in both "
            f"halves, such as {both[0]}; give each problem one half"
        )


def separate(token_sets: dict[str, dict[str, tuple[int, ...]]]) -> None:
    """Refuse token sets that count one token twice.

    Raises
    ------
    BrokenExperiment
        Glyphs are counted as words, or two classes share a token.
    """
    words = [(c, i) for c, ids in token_sets.get("words", {}).items() for i in ids]
    glyphs = {i for ids in token_sets.get("glyphs", {}).values() for i in ids}
    if shared := sorted({i for _, i in words} & glyphs):
        raise BrokenExperiment(
            f"glyphs are counted as words: token ids {shared} are in both families; that is copying"
        )
    owner: dict[int, str] = {}
    for c, i in words:
        if owner.setdefault(i, c) != c:
            raise BrokenExperiment(
                f"token id {i} is a word of both {owner[i]} and {c}; classes must not overlap"
            )
