"""Readings to evidence: is there a classifier in these cells, with every number that the answer needs.

In: the runs of one arm. Out: `Masses` (own-class mass and what it is compared with), `Evidence` (intervals
per cell, the cell chosen on the selection half, p-values from the evaluation half). A cell is a layer; for
random words, a layer of one set. The rules are those of `docs/concepts.md`; where a number becomes a decision
is `verdicts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from ..errors import BrokenExperiment
from ..readings.readings import Prompt, Readings
from . import permutation

SELECTION, EVALUATION = 0, 1
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

    For answers, `own - others` is the mean over derangements of own minus other, divided by the share of
    pairs of problems whose first tokens differ.
    """
    rest: Float[np.ndarray, "seed step other cell"] | None
    """The class's own tokens on the other classes' prompts; None for answers."""
    half: Int[np.ndarray, " prompt"]
    rest_half: Int[np.ndarray, " other"]
    answers: Float[np.ndarray, "seed step cell prompt answer"] | None = None
    own_answer: Int[np.ndarray, " prompt"] | None = None
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
    usable = np.array([p.style == style and p.half in (SELECTION, EVALUATION) for p in prompts])
    own = np.array([p.cls == cls for p in prompts])
    return np.flatnonzero(usable & own), np.flatnonzero(usable & ~own)


def _halves(prompts: Sequence[Prompt], index: np.ndarray) -> Int[np.ndarray, " n"]:
    return np.array([prompts[i].half for i in index], dtype=np.int64)


def _masses(
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


def masses(runs: Sequence[Readings], style: str, family: str, cls: str) -> Masses:
    """Own-class mass and what it is compared with, for the runs of one arm.

    Raises
    ------
    BrokenExperiment
        A reading is NaN or no log-probability.
    """
    first = runs[0]
    mine, rest = _where(first.prompts, style, cls)
    if family == "answer":
        return _answers(runs, _kept(first, style, cls), len(mine))
    all_own = _masses(runs, _FIELDS[family], mine)
    all_rest = _masses(runs, _FIELDS[family], rest)
    sets = all_own.shape[-1]
    own, others, elsewhere = all_own, (all_own.sum(-1, keepdims=True) - all_own) / max(sets - 1, 1), all_rest
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


def _flat(x: Float[np.ndarray, "seed step layer n k"]) -> Float[np.ndarray, "seed step n cell"]:
    moved = np.moveaxis(x, 2, 3)
    return np.ascontiguousarray(moved.reshape(*moved.shape[:3], -1))


def _kept(first: Readings, style: str, cls: str) -> np.ndarray:
    """Prompts that do not contain their own answer's first token: mass on it would be copying."""
    mine, _ = _where(first.prompts, style, cls)
    copied = first.copied
    return mine if copied is None else mine[~copied[mine]]


def _answers(runs: Sequence[Readings], kept: np.ndarray, all_: int) -> Masses:
    """The answer family: mass on the right first token, against the answers of the class's other problems."""
    first = runs[0]
    mass = _masses(runs, "answers", kept)
    own_answer = first.own_answer[kept].astype(np.int64)
    half = _halves(first.prompts, kept)
    own = mass[..., np.arange(len(kept)), own_answer]
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
    return Masses(
        family="answer",
        steps=first.steps,
        layer=np.arange(first.n_layers),
        own=np.moveaxis(own, 2, 3),
        others=np.moveaxis(others, 2, 3),
        rest=None,
        half=half,
        rest_half=np.zeros(0, dtype=np.int64),
        answers=mass,
        own_answer=own_answer,
        copied=all_ - len(kept),
    )


@dataclass(frozen=True)
class Evidence:
    """What the evaluation half says about every cell, and which cell the selection half chose."""

    masses: Masses
    step: int
    """Index into `masses.steps`."""
    parts: dict[str, permutation.Interval]
    """`strength` (mean own-class mass), and what tells the classes apart: `apart` (own minus others on the
    same prompts), `elsewhere` (own tokens here minus on other classes' prompts),
    `gain` (the growth of that since step 0)."""
    chosen: int
    """Cell where the weakest of the parts is largest, on the selection half."""
    strongest: int
    """Cell with most own-class mass, on the selection half."""
    ceiling: Float[np.ndarray, " cell"]
    """Upper end of the part that looked smallest on the selection half: a classifier cannot exceed it."""

    def clear(self, cell: int, bounds: Mapping[str, float]) -> bool:
        """Every interval of the cell lies above its bound: where a classifier's must."""
        return all(bool(part.low[cell] > bounds[name]) for name, part in self.parts.items())

    def absent(self, negligible: float) -> bool:
        """At every cell some part of a classifier is negligible (an intersection-union test)."""
        return bool((self.ceiling < negligible).all())

    def constant(self, cell: int) -> bool:
        """Every prompt of the evaluation half reads the same there: no interval can be given."""
        values = self.masses.own[:, self.step, self.masses.half == EVALUATION, cell]
        return bool(np.ptp(values) == 0)

    def p(self, permutations: int) -> tuple[Float[np.ndarray, " cell"], Float[np.ndarray, " cell"] | None]:
        """Max-T permutation p of each cell, and the one-vs-rest AUROC (None for answers)."""
        m, here = self.masses, self.masses.half == EVALUATION
        if m.answers is not None and m.own_answer is not None:
            mean = m.answers[:, self.step].mean(axis=0)[:, here]
            return permutation.matching(mean, m.own_answer[here], permutations), None
        assert m.rest is not None
        own, rest = m.own[:, self.step][:, here], m.rest[:, self.step][:, m.rest_half == EVALUATION]
        scores = np.moveaxis(np.concatenate([own, rest], axis=1), 1, 2)
        labels = np.arange(scores.shape[-1]) < own.shape[1]
        area, p = permutation.separation(scores, labels, permutations)
        return p, area


Parts = dict[str, tuple[Float[np.ndarray, "seed _ cell"], ...]]


def _parts(m: Masses, step: int, half: int, emerges: bool) -> Parts:
    """The strata whose means add up to each part, on one half."""

    def at(t: int) -> Parts:
        own, others = m.own[:, t][:, m.half == half], m.others[:, t][:, m.half == half]
        found: Parts = {"strength": (own,), "apart": (own - others,)}
        if m.rest is not None:
            found["elsewhere"] = (own, -m.rest[:, t][:, m.rest_half == half])
        return found

    now = at(step)
    if emerges:
        name = "apart" if m.rest is None else "elsewhere"
        now["gain"] = tuple(a - b for a, b in zip(now[name], at(0)[name], strict=True))
    return now


def measure(
    m: Masses, step: int, emerges: bool, select: int = SELECTION, level: float = permutation.LEVEL
) -> Evidence:
    """Choose the cell on the selection half, give every cell's intervals on the evaluation half.

    `select` is the half that chooses; it is a parameter so that a test can break it on purpose.
    """
    means = {k: sum(x.mean(axis=(0, 1)) for x in v) for k, v in _parts(m, step, select, emerges).items()}
    stacked = np.stack([np.asarray(v) for v in means.values()])
    judged = _parts(m, step, EVALUATION, emerges)
    parts = {name: permutation.bootstrap(*strata, level=level) for name, strata in judged.items()}
    highs = np.stack([part.high for part in parts.values()])
    return Evidence(
        masses=m,
        step=step,
        parts=parts,
        chosen=int(stacked.min(axis=0).argmax()),
        strongest=int(stacked[0].argmax()),
        ceiling=np.take_along_axis(highs, stacked.argmin(axis=0)[None], 0)[0],
    )


def present(evidence: Evidence, bounds: Mapping[str, float], alpha: float, permutations: int) -> bool:
    """Whether there is a classifier at the chosen cell, p not adjusted for other predictions."""
    if not evidence.clear(evidence.chosen, bounds) or evidence.constant(evidence.chosen):
        return False
    return bool(evidence.p(permutations)[0][evidence.chosen] < alpha)


def class_masses(
    runs: Sequence[Readings], style: str, step: int, layer: int
) -> tuple[np.ndarray, np.ndarray]:
    """Word masses [seed, prompt, class] of the evaluation half at a layer, and true classes [prompt]."""
    first = runs[0]
    keep = [i for i, p in enumerate(first.prompts) if p.style == style and p.half == EVALUATION]
    truth = np.array([first.classes.index(first.prompts[i].cls) for i in keep])
    return np.stack([r.words[step, layer][keep] for r in runs]), truth


def correct(runs: Sequence[Readings], style: str, cls: str, step: int) -> Bool[np.ndarray, "seed prompt"]:
    """Which of the prompts that `masses` holds for the answer family are answered right."""
    mine = _kept(runs[0], style, cls)
    return np.stack([r.correct[step, mine] for r in runs])


def disjoint(prompts: Sequence[Prompt]) -> None:
    """Refuse readings whose layers would be chosen on problems that they are judged on.

    Raises
    ------
    BrokenExperiment
        A problem (commuted pairs are one) is in both halves of a style (without operands: a prompt).
    """
    halves: dict[tuple[object, ...], set[int]] = {}
    for p in prompts:
        if p.half in (SELECTION, EVALUATION):
            pair = tuple(sorted((p.a, p.b))) if p.cls in ("add", "multiply") else (p.a, p.b)
            problem = pair if any(pair) else p.text
            halves.setdefault((p.style, p.cls, problem), set()).add(p.half)
    both = [f"{k[1]}{k[2]}" for k, found in halves.items() if len(found) > 1]
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
