"""Readings to masses: what a class's own tokens hold, and what that is compared with.

In: the runs of one arm. Out: `Masses`, probabilities of one (arm, style, family, class) with axes
`seed step prompt cell`. A cell is a layer; for random words, a layer of one set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from ..errors import BrokenExperiment
from ..readings.readings import EVALUATION, SELECTION, Prompt, Readings

MIN_EVALUATED = 5
"""Prompts of a class in the evaluation half below which there is no interval worth the name."""
_FIELDS = {"words": "words", "glyphs": "glyphs", "random words": "random_words"}


@dataclass(frozen=True)
class Masses:
    """Probability masses of one (arm, style, family, class); axes `seed step prompt cell`."""

    family: str
    steps: tuple[int, ...]
    layer: Int[np.ndarray, " cell"]
    own: Float[np.ndarray, "seed step prompt cell"]
    """Own-class mass on the class's prompts."""
    others: Float[np.ndarray, "seed step prompt cell"]
    """On the same prompts: mean mass of the other classes (of other problems' answers; of other sets).

    For answers, `own - others` is own minus other, averaged over all pairs of different problems, divided by
    the share of the pairs whose first tokens differ.
    """
    rest: Float[np.ndarray, "seed step other cell"] | None
    """The class's own tokens on the other classes' prompts; None for answers."""
    half: Int[np.ndarray, " prompt"]
    rest_half: Int[np.ndarray, " other"]
    answers: Float[np.ndarray, "seed step cell prompt answer"] | None = None
    """Of the answer family: mass of every answer on every prompt of the class."""
    own_answer: Int[np.ndarray, " prompt"] | None = None
    """Index into the `answer` axis of the prompt's right first token."""
    when: Int[np.ndarray, " cell"] | None = None
    """The step of each cell, where cells are layer × step."""
    copied: int = 0
    """Prompts left out because their right first answer token stands in the prompt: copying."""

    @property
    def n_seeds(self) -> int:
        """How many runs."""
        return int(self.own.shape[0])

    def of_seed(self, index: int) -> Masses:
        """The same for one run alone."""
        one = slice(index, index + 1)
        return replace(
            self,
            own=self.own[one],
            others=self.others[one],
            rest=None if self.rest is None else self.rest[one],
            answers=None if self.answers is None else self.answers[one],
        )

    def within(self, cells: Sequence[int]) -> Masses:
        """The same for some cells only, such as those of a band."""
        pick = np.asarray(cells, dtype=int)
        return replace(
            self,
            layer=self.layer[pick],
            own=self.own[..., pick],
            others=self.others[..., pick],
            rest=None if self.rest is None else self.rest[..., pick],
            answers=None if self.answers is None else self.answers[:, :, pick],
        )

    def over_steps(self) -> Masses:
        """The same with a cell for every layer of every later checkpoint, for claims about any step.

        It has two steps left: the first one (for every cell), and all later ones side by side.
        """
        later = len(self.steps) - 1

        def fold(x: np.ndarray, axis: int) -> np.ndarray:
            first = np.concatenate([x[:, 0]] * later, axis=axis)
            return np.stack([first, np.concatenate([x[:, t + 1] for t in range(later)], axis=axis)], axis=1)

        return replace(
            self,
            steps=(self.steps[0], self.steps[-1]),
            layer=np.tile(self.layer, later),
            when=np.repeat(np.asarray(self.steps[1:]), len(self.layer)),
            own=fold(self.own, 2),
            others=fold(self.others, 2),
            rest=None if self.rest is None else fold(self.rest, 2),
            answers=None if self.answers is None else fold(self.answers, 1),
        )

    def evaluated(self) -> int:
        """Prompts of the class in the evaluation half."""
        return int((self.half == EVALUATION).sum())


def _where(prompts: Sequence[Prompt], style: str, cls: str) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the class's prompts in this style, and of the other classes'; not those only shown."""
    usable = np.array([p.style == style and p.half in (SELECTION, EVALUATION) for p in prompts])
    own = np.array([p.cls == cls for p in prompts])
    return np.flatnonzero(usable & own), np.flatnonzero(usable & ~own)


def _without_copies(first: Readings, style: str, cls: str) -> Int[np.ndarray, " prompt"]:
    """Prompts that do not contain their own answer's first token: mass on it would be copying."""
    mine, _ = _where(first.prompts, style, cls)
    return mine if first.copied is None else mine[~first.copied[mine]]


def _halves(prompts: Sequence[Prompt], index: np.ndarray) -> Int[np.ndarray, " n"]:
    return np.array([prompts[i].half for i in index], dtype=np.int64)


def _probabilities(
    runs: Sequence[Readings], field: str, index: np.ndarray
) -> Float[np.ndarray, "seed step layer n k"]:
    log = np.stack([getattr(r, field)[:, :, index] for r in runs])
    if np.isnan(log).any() or (log > 1e-3).any():
        run = next(r for r in runs if np.isnan(getattr(r, field)).any() or (getattr(r, field) > 1e-3).any())
        raise BrokenExperiment(
            f"{run.arm} seed {run.seed}: {field} are no log-probabilities (NaN, or above 0); the run has "
            "diverged or its readings are damaged; remove them and read again"
        )
    return np.asarray(np.exp(log.astype(float)))


def _flat(x: Float[np.ndarray, "seed step layer n k"]) -> Float[np.ndarray, "seed step n cell"]:
    """A cell for every layer of every set."""
    moved = np.moveaxis(x, 2, 3)
    return np.ascontiguousarray(moved.reshape(*moved.shape[:3], -1))


def _of_answers(runs: Sequence[Readings], style: str, cls: str) -> Masses:
    """The answer family: mass on the right first token, against the answers of the class's other problems."""
    first = runs[0]
    mine = _without_copies(first, style, cls)
    mass = _probabilities(runs, "answers", mine)
    own_answer = first.own_answer[mine].astype(np.int64)
    half = _halves(first.prompts, mine)
    own = mass[..., np.arange(len(mine)), own_answer]
    return Masses(
        family="answer",
        steps=first.steps,
        layer=np.arange(first.n_layers),
        own=np.moveaxis(own, 2, 3),
        others=np.moveaxis(_of_other_answers(mass, own, own_answer, half), 2, 3),
        rest=None,
        half=half,
        rest_half=np.zeros(0, dtype=np.int64),
        answers=mass,
        own_answer=own_answer,
        copied=len(_where(first.prompts, style, cls)[0]) - len(mine),
    )


def _of_other_answers(
    mass: Float[np.ndarray, "seed step layer n answer"],
    own: Float[np.ndarray, "seed step layer n"],
    own_answer: Int[np.ndarray, " n"],
    half: Int[np.ndarray, " n"],
) -> Float[np.ndarray, "seed step layer n"]:
    """What each prompt holds on the answers of the other problems of its half; see `Masses.others`."""
    others = np.zeros_like(own)
    for h in (SELECTION, EVALUATION):
        where = np.flatnonzero(half == h)
        count = np.bincount(own_answer[where], minlength=mass.shape[-1]).astype(float)
        mean = (mass[..., where, :] @ count - own[..., where]) / max(len(where) - 1, 1)
        alike = float((count * (count - 1)).sum() / max(len(where) * (len(where) - 1), 1))
        # Other problems often share the right first token. A bias must come out as 0 and a pure classifier as
        # all of its mass, so the difference is put on the scale of those that do not share it.
        apart = (own[..., where] - mean) / (1 - alike) if alike < 1 else np.zeros_like(mean)
        others[..., where] = own[..., where] - apart
    return others


def from_readings(runs: Sequence[Readings], style: str, family: str, cls: str) -> Masses:
    """Own-class mass and what it is compared with, for the runs of one arm.

    `family` is `words`, `glyphs`, `random words` or `answer`.

    Raises
    ------
    BrokenExperiment
        A reading is NaN or no log-probability.
    """
    first = runs[0]
    if family == "answer":
        return _of_answers(runs, style, cls)
    mine, rest = _where(first.prompts, style, cls)
    own = _probabilities(runs, _FIELDS[family], mine)
    elsewhere = _probabilities(runs, _FIELDS[family], rest)
    sets = own.shape[-1]
    others = (own.sum(-1, keepdims=True) - own) / max(sets - 1, 1)
    if family != "random words":
        k = first.classes.index(cls)
        own, others, elsewhere = own[..., k : k + 1], others[..., k : k + 1], elsewhere[..., k : k + 1]
    return Masses(
        family=family,
        steps=first.steps,
        layer=np.repeat(np.arange(first.n_layers), own.shape[-1]),
        own=_flat(own),
        others=_flat(others),
        rest=_flat(elsewhere),
        half=_halves(first.prompts, mine),
        rest_half=_halves(first.prompts, rest),
    )


def class_masses(
    runs: Sequence[Readings], style: str, step: int, layer: int
) -> tuple[Float[np.ndarray, "seed prompt class"], Int[np.ndarray, " prompt"]]:
    """Word masses of the evaluation half at a layer (as logarithms), and each prompt's true class.

    `step` is an index into `steps`.
    """
    first = runs[0]
    judged = [i for i, p in enumerate(first.prompts) if p.style == style and p.half == EVALUATION]
    truth = np.array([first.classes.index(first.prompts[i].cls) for i in judged])
    return np.stack([r.words[step, layer][judged] for r in runs]), truth


def correct(runs: Sequence[Readings], style: str, cls: str, step: int) -> Bool[np.ndarray, "seed prompt"]:
    """Which prompts are answered right: those that `from_readings` holds for the answer family."""
    mine = _without_copies(runs[0], style, cls)
    return np.stack([r.correct[step, mine] for r in runs])
