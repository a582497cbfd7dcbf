"""Readings of every checkpoint as arrays: what the statistics, the verdicts and the report see. NumPy only.

In: what `reader` kept beside the runs. Out: `Readings`, one a run, and the `Study` of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from ..errors import BrokenExperiment
from ..wording import quoted
from .effects import Effects

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
    """What the lens says at every (step, layer, prompt) of one run.

    At the prompt's last token, but for `answers` and `correct`, which are about the answer's last token.
    Styles that are not trained on are read at step 0 and, where a claim asks for it, at the last one; NaN
    (ids: -1) stands elsewhere.

    All masses are natural logarithms of probabilities, float32.
    """

    arm: str
    seed: int
    steps: tuple[int, ...]
    prompts: tuple[Prompt, ...]
    classes: tuple[str, ...]
    words: Float[np.ndarray, "step layer prompt class"]
    """Log-mass on each class's words, without those that stand in the prompts of the style (`plus`)."""
    anywhere: Float[np.ndarray, "step layer prompt position class"]
    """The same at every position, of the trained styles, where a claim asks for it; NaN elsewhere.

    Positions count from the end: the last is the prompt's last token, the first is the earliest that the
    prompts of all lengths have.
    """
    glyphs: Float[np.ndarray, "step layer prompt class"]
    """Log-mass on each class's glyphs (`+`), which stand in the prompts: copying, no classifier."""
    random_words: Float[np.ndarray, "step layer prompt set"]
    """Log-mass on frequency-matched random word sets."""
    answers: Float[np.ndarray, "step layer prompt answer"]
    """Log-probability of each distinct last answer token of the problems read, where it is predicted: after
    the prompt and all that comes before it in the right answer."""
    answer_ids: Int[np.ndarray, " answer"]
    own_answer: Int[np.ndarray, " prompt"]
    """Index into the `answer` axis of the prompt's right last token."""
    firsts: Float[np.ndarray, "step layer prompt first"]
    """Log-probability of each distinct first answer token, at the prompt's last token."""
    first_ids: Int[np.ndarray, " first"]
    own_first: Int[np.ndarray, " prompt"]
    top_ids: Int[np.ndarray, "step layer prompt k"]
    top_log_probs: Float[np.ndarray, "step layer prompt k"]
    entropy: Float[np.ndarray, "step layer prompt"]
    """In nats."""
    kl: Float[np.ndarray, "step layer prompt"]
    """KL(output layer || layer), in nats."""
    correct: Bool[np.ndarray, "step prompt"]
    """The model's most likely token is the right answer's last one, after all that comes before it."""
    exact: Float[np.ndarray, "step prompt"]
    """1 where the model, left to write, wrote exactly the right answer, 0 where it did not; NaN where it was
    not asked to: in styles that were not trained on and, unless a claim is about it, between step 0 and the
    last checkpoint."""
    hidden: Float[np.ndarray, "layer prompt hidden"]
    """Residual streams of step 0 (the base model), for probes."""
    token_sets: dict[str, dict[str, tuple[int, ...]]]
    """Ids used, by `words` / `glyphs` / `random_words`, then class (random: set name)."""
    hidden_permuted: Float[np.ndarray, "layer prompt hidden"] | None = None
    """The same of the base model with the rows of its blocks' weights permuted: a probe's control."""
    copied: Bool[np.ndarray, " prompt"] | None = None
    """The right answer's last token stands before it, in prompt or answer: it could be copied, and is left
    out of the answer family."""
    switch: int = 0
    """The step from which on the run learned by reward; 0 where it did not, or from the base model on."""
    copied_first: Bool[np.ndarray, " prompt"] | None = None
    """The same of its first token."""
    effects: Mapping[int, Effects] = field(default_factory=dict)
    """By step, what interventions do: at step 0 and at the last one, where a causal claim asks for it."""

    @property
    def n_layers(self) -> int:
        """Blocks of the model; the last one is the output layer."""
        return int(self.words.shape[1])

    def steps_of(self, style: str) -> tuple[int, ...]:
        """Indices into `steps` where prompts of this style were read."""
        first = next(i for i, p in enumerate(self.prompts) if p.style == style)
        return tuple(i for i in range(len(self.steps)) if self.top_ids[i, 0, first, 0] >= 0)


@dataclass(frozen=True)
class Study:
    """The readings of all runs of one experiment on one model; prompts and sets are the same in all."""

    runs: tuple[Readings, ...]
    permuted: Readings | None = None
    """What the lens reads of the base model with its weights permuted, where a claim asks for it."""

    def arm(self, name: str) -> tuple[Readings, ...]:
        """The runs of an arm, by seed; `base` is step 0 of the first run, `permuted` its weights permuted."""
        if name == "base":
            return self.runs[:1]
        if name == "permuted" and self.permuted:
            return (self.permuted,)
        if name == "permuted":
            first = self.runs[0]
            assert first.hidden_permuted is not None
            return (replace(first, arm=name, hidden=first.hidden_permuted),)
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
