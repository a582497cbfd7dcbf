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
from . import DEALS, pairs

_FIELDS = {
    "words": "words",
    "words anywhere": "anywhere",
    "glyphs": "glyphs",
    "random words": "random_words",
}
_OF_ANSWERS = {
    "answer": ("answers", "own_answer", "copied"),
    "first": ("firsts", "own_first", "copied_first"),
}
"""Fields of the answers' last and first tokens: masses, the right one's index, what could be copied."""


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
    the share of the pairs whose tokens differ.
    """
    largest: Float[np.ndarray, "seed step prompt cell"]
    """On the same prompts: the largest mass of another class (of another answer; of another set)."""
    rest: Float[np.ndarray, "seed step other cell"] | None
    """The class's own tokens on the other classes' prompts; None for answers."""
    half: Int[np.ndarray, " prompt"]
    rest_half: Int[np.ndarray, " other"]
    deals: Bool[np.ndarray, "deal prompt"]
    """Which prompts choose a layer for the others, and the others for them, in each deal."""
    counterfactual: dict[str, Float[np.ndarray, "seed step pair cell"]]
    """By other class: the class's own tokens on the partners of its prompts; see `pairs`."""
    paired: dict[str, Int[np.ndarray, " pair"]]
    """By other class: which of the class's prompts have a partner."""
    columns: int = 1
    """How many masses a prompt has: classes, random sets, answers."""
    confounded: str = ""
    """Why a difference between classes could be one between operands."""
    matched: bool = False
    """Partners are the same problems under another class."""
    group: Int[np.ndarray, " both"] | None = None
    """Of matched prompts, own ones and then the others: one number a problem."""
    others_reach: float = 1.0
    """The largest value that `own - others` can have."""
    answers: Float[np.ndarray, "seed step cell prompt answer"] | None = None
    """Of the answer family: mass of every answer on every prompt of the class."""
    own_answer: Int[np.ndarray, " prompt"] | None = None
    """Index into the `answer` axis of the prompt's right token."""
    position: Int[np.ndarray, " cell"] | None = None
    """Of `words anywhere`, the position of each cell, from the end: -1 is the prompt's last token."""
    when: Int[np.ndarray, " cell"] | None = None
    """The step of each cell, where cells are layer × step."""
    copied: int = 0
    """Prompts left out because the right token stands before it: copying."""

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
            largest=self.largest[one],
            counterfactual={c: x[one] for c, x in self.counterfactual.items()},
            rest=None if self.rest is None else self.rest[one],
            answers=None if self.answers is None else self.answers[one],
        )

    def within(self, cells: Sequence[int]) -> Masses:
        """The same for some cells only, such as those of a band."""
        pick = np.asarray(cells, dtype=int)
        return replace(
            self,
            layer=self.layer[pick],
            position=None if self.position is None else self.position[pick],
            own=self.own[..., pick],
            others=self.others[..., pick],
            largest=self.largest[..., pick],
            counterfactual={c: x[..., pick] for c, x in self.counterfactual.items()},
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
            position=None if self.position is None else np.tile(self.position, later),
            when=np.repeat(np.asarray(self.steps[1:]), len(self.layer)),
            own=fold(self.own, 2),
            others=fold(self.others, 2),
            largest=fold(self.largest, 2),
            counterfactual={c: fold(x, 2) for c, x in self.counterfactual.items()},
            rest=None if self.rest is None else fold(self.rest, 2),
            answers=None if self.answers is None else fold(self.answers, 1),
        )

    def place(self, cell: int) -> str:
        """`L13`, or `L13 at position -3`, counted from the end of the prompt."""
        at = "" if self.position is None else f" at position {self.position[cell]}"
        return f"L{self.layer[cell]}{at}"

    @property
    def n(self) -> int:
        """Prompts of the class that are judged: all of both halves, by the layer that the other chose."""
        return len(self.half)


def _where(prompts: Sequence[Prompt], style: str, cls: str) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the class's prompts in this style, and of the other classes'; not those only shown."""
    usable = np.array([p.style == style and p.half in (SELECTION, EVALUATION) for p in prompts])
    own = np.array([p.cls == cls for p in prompts])
    return np.flatnonzero(usable & own), np.flatnonzero(usable & ~own)


def _without_copies(
    first: Readings, style: str, cls: str, family: str = "answer"
) -> Int[np.ndarray, " prompt"]:
    """Prompts that do not hold the token before it is to be said: mass on it would be copying."""
    mine, _ = _where(first.prompts, style, cls)
    copied = getattr(first, _OF_ANSWERS[family][2])
    return mine if copied is None else mine[~copied[mine]]


def _halves(prompts: Sequence[Prompt], index: np.ndarray) -> Int[np.ndarray, " n"]:
    return np.array([prompts[i].half for i in index], dtype=np.int64)


def _steps(runs: Sequence[Readings], index: np.ndarray, field: str = "words") -> tuple[int, ...]:
    """Indices into `steps` at which these prompts, all of one style, were read in every run."""
    if not len(index):
        return tuple(range(len(runs[0].steps)))
    if field == "anywhere":
        read = [~np.isnan(r.anywhere[:, 0, index[0], 0, 0]) for r in runs]
        return tuple(np.flatnonzero(np.all(read, axis=0)).tolist())
    return _read_at(runs, runs[0].prompts[index[0]].style)


def _read_at(runs: Sequence[Readings], style: str) -> tuple[int, ...]:
    """Indices into `steps` at which a style was read in every run."""
    return tuple(sorted(set.intersection(*(set(r.steps_of(style)) for r in runs))))


def _probabilities(
    runs: Sequence[Readings], field: str, index: np.ndarray
) -> Float[np.ndarray, "seed step layer n *k"]:
    steps = list(_steps(runs, index, field))
    log = np.stack([getattr(r, field)[steps][:, :, index] for r in runs])
    if np.isnan(log).any() or (log > 1e-3).any():
        run = next(r for r, x in zip(runs, log, strict=True) if np.isnan(x).any() or (x > 1e-3).any())
        raise BrokenExperiment(
            f"{run.arm} seed {run.seed}: {field} are no log-probabilities (NaN, or above 0); the run has "
            "diverged or its readings are damaged; remove them and read again"
        )
    return np.asarray(np.exp(log.astype(float)))


def _flat(x: Float[np.ndarray, "seed step layer n k"]) -> Float[np.ndarray, "seed step n cell"]:
    """A cell for every layer of every set."""
    moved = np.moveaxis(x, 2, 3)
    return np.ascontiguousarray(moved.reshape(*moved.shape[:3], -1))


def _of_answers(runs: Sequence[Readings], style: str, cls: str, family: str) -> Masses:
    """The mass on the answer's right token, against the answers of the class's other problems."""
    first, (field, index, _) = runs[0], _OF_ANSWERS[family]
    mine = _without_copies(first, style, cls, family)
    mass = _probabilities(runs, field, mine)
    own_answer = getattr(first, index)[mine].astype(np.int64)
    here = np.arange(len(mine)), own_answer
    own = mass[(..., *here)]
    without = mass.copy()
    without[(..., *here)] = 0.0
    others, alike = _of_other_answers(mass, own, own_answer)
    return Masses(
        family=family,
        steps=tuple(first.steps[i] for i in _steps(runs, mine)),
        layer=np.arange(first.n_layers),
        own=np.moveaxis(own, 2, 3),
        others=np.moveaxis(others, 2, 3),
        largest=np.moveaxis(without.max(axis=-1, initial=0.0), 2, 3),
        rest=None,
        half=_halves(first.prompts, mine),
        rest_half=np.zeros(0, dtype=np.int64),
        deals=pairs.deals(first.prompts, mine, DEALS),
        counterfactual={},
        paired={},
        columns=mass.shape[-1],
        others_reach=1 / (1 - alike) if alike < 1 else 1.0,
        answers=mass,
        own_answer=own_answer,
        copied=len(_where(first.prompts, style, cls)[0]) - len(mine),
    )


def _of_other_answers(
    mass: Float[np.ndarray, "seed step layer n answer"],
    own: Float[np.ndarray, "seed step layer n"],
    own_answer: Int[np.ndarray, " n"],
) -> tuple[Float[np.ndarray, "seed step layer n"], float]:
    """What a prompt holds on the answers of the other problems (see `Masses.others`); how many are alike."""
    n = len(own_answer)
    count = np.bincount(own_answer, minlength=mass.shape[-1]).astype(float)
    mean = (mass @ count - own) / max(n - 1, 1)
    alike = float((count * (count - 1)).sum() / max(n * (n - 1), 1))
    # Other problems often share the right token. A bias must come out as 0 and a pure classifier as
    # all of its mass, so the difference is put on the scale of those that do not share it.
    apart = (own - mean) / (1 - alike) if alike < 1 else np.zeros_like(mean)
    return own - apart, alike


def from_readings(runs: Sequence[Readings], style: str, family: str, cls: str) -> Masses:
    """Own-class mass and what it is compared with, for the runs of one arm.

    `family` is `words`, `words anywhere` (at every position), `glyphs`, `random words`, `answer` (its last
    token) or `first` (its first one).

    Raises
    ------
    BrokenExperiment
        A reading is NaN or no log-probability.
    """
    first = runs[0]
    if family in _OF_ANSWERS:
        return _of_answers(runs, style, cls, family)
    mine, rest = _where(first.prompts, style, cls)
    own = _probabilities(runs, _FIELDS[family], mine)
    elsewhere = _probabilities(runs, _FIELDS[family], rest)
    sets = own.shape[-1]
    others, largest = (own.sum(-1, keepdims=True) - own) / max(sets - 1, 1), _largest_other(own)
    if family != "random words":
        # A cell is a layer, or a layer at one position.
        k = first.classes.index(cls)
        mine_only = k if family == "words anywhere" else slice(k, k + 1)
        own, others, largest, elsewhere = (x[..., mine_only] for x in (own, others, largest, elsewhere))
    found = pairs.pair(first.prompts, mine, style)
    away = _flat(elsewhere)
    at = {c: np.searchsorted(rest, partner) for c, partner in found.partner.items()}
    return Masses(
        family=family,
        steps=tuple(first.steps[i] for i in _steps(runs, mine, _FIELDS[family])),
        layer=np.repeat(np.arange(first.n_layers), own.shape[-1]),
        own=_flat(own),
        others=_flat(others),
        largest=_flat(largest),
        rest=away,
        half=_halves(first.prompts, mine),
        rest_half=_halves(first.prompts, rest),
        deals=pairs.deals(first.prompts, mine, DEALS),
        counterfactual={c: away[:, :, i] for c, i in at.items()},
        paired=found.own,
        columns=sets,
        position=np.tile(np.arange(-own.shape[-1], 0), first.n_layers)
        if family == "words anywhere"
        else None,
        confounded=found.confounded,
        matched=found.matched,
        group=_groups(first.prompts, [*mine.tolist(), *rest.tolist()]) if found.matched else None,
    )


def _largest_other(mass: Float[np.ndarray, "*many set"]) -> Float[np.ndarray, "*many set"]:
    """For each set, the largest mass of another one; 0 where there is no other."""
    if mass.shape[-1] < 2:
        return np.zeros_like(mass)
    two = np.partition(mass, -2, axis=-1)[..., -2:]
    return np.where(mass >= two[..., 1:], two[..., :1], two[..., 1:])


def _groups(prompts: Sequence[Prompt], index: Sequence[int]) -> Int[np.ndarray, " n"]:
    """One number for all prompts about the same problem."""
    return np.asarray(np.unique([repr(pairs.problem(prompts[i])) for i in index], return_inverse=True)[1])


def class_masses(
    runs: Sequence[Readings], style: str, step: int, layer: int
) -> tuple[Float[np.ndarray, "seed prompt class"], Int[np.ndarray, " prompt"]]:
    """Word masses at a layer (as logarithms) of all prompts that are judged, and each prompt's true class.

    `step` is an index into the steps at which the style was read.
    """
    first = runs[0]
    step = _read_at(runs, style)[step]
    judged = [i for i, p in enumerate(first.prompts) if p.style == style and p.half >= 0]
    truth = np.array([first.classes.index(first.prompts[i].cls) for i in judged])
    return np.stack([r.words[step, layer][judged] for r in runs]), truth


def correct(runs: Sequence[Readings], style: str, cls: str, step: int) -> Bool[np.ndarray, "seed prompt"]:
    """Which prompts are answered right: those that `from_readings` holds for the answer family.

    `step` is an index into the steps at which the style was read.
    """
    mine, step = _without_copies(runs[0], style, cls), _read_at(runs, style)[step]
    return np.stack([r.correct[step, mine] for r in runs])


def written(
    runs: Sequence[Readings], style: str, cls: str, family: str
) -> Float[np.ndarray, "seed step prompt"]:
    """1 where the model, left to write, wrote exactly the right answer, else 0; NaN where it was not asked.

    Of the prompts and steps that `from_readings` has for the family.
    """
    first = runs[0]
    mine = (
        _without_copies(first, style, cls, family)
        if family in _OF_ANSWERS
        else _where(first.prompts, style, cls)[0]
    )
    steps = list(_steps(runs, mine))
    return np.stack([r.exact[steps][:, mine] for r in runs]).astype(float)


def exact(runs: Sequence[Readings], cls: str, step: int) -> float:
    """Share of the class's answers that the model, left to write, wrote exactly; NaN where none was asked.

    Over all seeds and the judged prompts of the trained styles; `step` is an index into `steps`.
    """
    mine = [i for i, p in enumerate(runs[0].prompts) if p.cls == cls and p.half >= 0]
    written = np.concatenate([r.exact[step, mine] for r in runs])
    written = written[~np.isnan(written)]
    return float(written.mean()) if len(written) else float("nan")
