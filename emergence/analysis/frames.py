"""Readings as tidy tables: the numbers that the terminal, the page, the figures and the files show.

In: a `Study`. Out: means over the prompts that verdicts are judged on, and pandas frames of one row an
observation. Masses come from `masses.from_readings`, as those of the verdicts do: what one sees was judged.
They are probabilities in [0, 1], `Readings` holds their logarithms. Pandas loads when a frame is made.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ..readings.readings import EVALUATION, Readings, Study
from .masses import Masses, from_readings

if TYPE_CHECKING:
    import pandas as pd

FAMILIES = ("words", "answer", "first", "glyphs", "random_words")
TITLES = {
    "words": "operation words",
    "answer": "the right answer's last token",
    "first": "the right answer's first token (sizes give much of it away)",
    "glyphs": "operator glyphs (copying; counts for no classifier)",
    "random_words": "frequency-matched random words (control)",
}


@dataclass(frozen=True)
class Means:
    """`Masses` of one (arm, style, family, class) by layer: means over the prompts of the evaluation half.

    NaN stands where there is nothing to take the mean of.
    """

    own: Float[np.ndarray, "seed step layer"]
    """Strength: own-class mass on the class's prompts."""
    other: Float[np.ndarray, "seed step layer"]
    """On the same prompts: `Masses.others`, the mass of the other classes or of other problems' answers.
    Random word sets are all alike: there is no other."""
    rest: Float[np.ndarray, "seed step layer"]
    """The class's own tokens on the other classes' prompts; for answers there are none."""
    n: int
    """Prompts; in the family `answer` without those that contain their own answer, for that is copying."""


def means(runs: Sequence[Readings], family: str, cls: str, style: str) -> Means:
    """What the runs of one arm hold on a class's own tokens, and what that is compared with.

    Raises
    ------
    BrokenExperiment
        A reading is NaN or no log-probability.
    """
    held = _masses(runs, family, cls, style)
    judged, elsewhere = held.half == EVALUATION, held.rest_half == EVALUATION
    own = _by_layer(runs[0], held, held.own[:, :, judged])
    nothing = np.full_like(own, np.nan)
    return Means(
        own=own,
        other=nothing if family == "random_words" else _by_layer(runs[0], held, held.others[:, :, judged]),
        rest=nothing if held.rest is None else _by_layer(runs[0], held, held.rest[:, :, elsewhere]),
        n=int(judged.sum()),
    )


def _masses(runs: Sequence[Readings], family: str, cls: str, style: str) -> Masses:
    return from_readings(runs, style, family.replace("_", " "), cls)


def _by_layer(first: Readings, held: Masses, mass: Float[np.ndarray, "seed step prompt cell"]) -> np.ndarray:
    """The mean over prompts and, of random words, over the sets that a layer has a cell for.

    All steps of the run have a place; NaN stands where the style was not read.
    """
    layers = len(np.unique(held.layer))
    found = np.full((len(mass), len(first.steps), layers), np.nan)
    if mass.size:
        read = [first.steps.index(step) for step in held.steps]
        found[:, read] = mass.reshape(*mass.shape[:3], layers, -1).mean(axis=(2, 4))
    return found


def arms(study: Study) -> tuple[str, ...]:
    """The names of the arms, in the order in which their runs come."""
    return tuple(dict.fromkeys(run.arm for run in study.runs))


def styles(readings: Readings) -> tuple[str, ...]:
    """The prompt styles that were read, in order of appearance."""
    return tuple(dict.fromkeys(p.style for p in readings.prompts))


def chosen(
    readings: Readings, cls: str | None = None, style: str | None = None, half: int | None = EVALUATION
) -> Bool[np.ndarray, " prompt"]:
    """Which prompts are of this class, style and half (`None`: any); those only shown are in no half."""
    return np.array(
        [
            p.half >= 0
            and (half is None or p.half == half)
            and (cls is None or p.cls == cls)
            and (style is None or p.style == style)
            for p in readings.prompts
        ],
        dtype=bool,
    )


def own(readings: Readings, family: str) -> Float[np.ndarray, "step layer prompt"]:
    """The mass on each prompt's own class of `family`, in [0, 1], of every prompt that was read.

    For `answer` the probability of the right answer's last token, for `first` of its first one; for
    `random_words` the mean over the random sets. A shown-only prompt whose class is no class has NaN in
    `words` and `glyphs`.
    """
    if family == "answer":
        return _at(readings.answers, readings.own_answer)
    if family == "first":
        return _at(readings.firsts, readings.own_first)
    if family == "random_words":
        sets = np.exp(readings.random_words)
        return sets.mean(axis=3) if sets.shape[3] else np.full(sets.shape[:3], np.nan, np.float32)
    if family not in FAMILIES:
        raise ValueError(f"family: {family!r} is none of {', '.join(FAMILIES)}")
    index = _own_class(readings)
    log_masses: np.ndarray = readings.words if family == "words" else readings.glyphs
    return np.where(index < 0, np.float32(np.nan), _at(log_masses, np.maximum(index, 0)))


def _own_class(readings: Readings) -> Int[np.ndarray, " prompt"]:
    index = {name: i for i, name in enumerate(readings.classes)}
    return np.array([index.get(p.cls, -1) for p in readings.prompts], dtype=np.int64)


def _at(log_masses: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Each prompt's own column, as a probability."""
    return np.asarray(np.exp(np.take_along_axis(log_masses, index[None, None, :, None], axis=3)[..., 0]))


def other(readings: Readings, family: str) -> Float[np.ndarray, "step layer prompt"]:
    """What `own` is compared with on the same prompt: `Masses.others`.

    NaN for prompts that are only shown, for those whose answer's token could be copied, and
    everywhere for `random_words`.
    """
    result = np.full((len(readings.steps), readings.n_layers, len(readings.prompts)), np.nan, np.float32)
    if family == "random_words":
        return result
    copied = {"answer": readings.copied, "first": readings.copied_first}.get(family)
    counted = np.ones(len(readings.prompts), dtype=bool) if copied is None else ~copied
    for style in styles(readings):
        for cls in readings.classes:
            where = chosen(readings, cls, style, half=None) & counted
            held = _masses([readings], family, cls, style)
            read = [readings.steps.index(step) for step in held.steps]
            result[np.ix_(read, range(readings.n_layers), where.nonzero()[0])] = np.moveaxis(
                held.others[0], 1, 2
            )
    return result


def confusion(
    readings: Readings, style: str, half: int | None = EVALUATION
) -> Int[np.ndarray, "step layer class guess"]:
    """How many prompts of each class have the most operation-word mass on each class; 0 where not read."""
    n = len(readings.classes)
    unread = np.isnan(readings.words).any(axis=3)
    index, guess = _own_class(readings), np.where(unread, -1, readings.words.argmax(axis=3))
    mask = chosen(readings, None, style, half) & (index >= 0)
    counts = np.zeros((*guess.shape[:2], n, n), dtype=np.int64)
    for true in range(n):
        of_class = guess[:, :, mask & (index == true)]
        for g in range(n):
            counts[:, :, true, g] = (of_class == g).sum(axis=2)
    return counts


def tidy(readings: Readings) -> pd.DataFrame:
    """One row a reading, (step, layer, prompt) of one run; the columns are documented in docs/data.md."""
    import pandas as pd

    run, prompts = readings, readings.prompts
    shape = (len(run.steps), run.n_layers, len(prompts))

    def along(values: np.ndarray, axis: int) -> np.ndarray:
        view = values.reshape([-1 if i == axis else 1 for i in range(3)])
        return np.broadcast_to(view, shape).reshape(-1)

    def category(values: list[str]) -> pd.Categorical:
        names = list(dict.fromkeys(values))
        codes = np.array([names.index(v) for v in values], dtype=np.int32)
        return pd.Categorical.from_codes(along(codes, 2), categories=names)

    size = int(np.prod(shape))
    columns: dict[str, Any] = {
        "arm": pd.Categorical.from_codes(np.zeros(size, np.int8), categories=[run.arm]),
        "seed": np.full(size, run.seed, np.int32),
        "step": along(np.array(run.steps, np.int32), 0),
        "layer": along(np.arange(run.n_layers, dtype=np.int16), 1),
        "depth": along(_depth(run).astype(np.float32), 1),
        "prompt": along(np.arange(len(prompts), dtype=np.int32), 2),
        "text": category([p.text for p in prompts]),
        "class": category([p.cls for p in prompts]),
        "style": category([p.style for p in prompts]),
        "half": along(np.array([p.half for p in prompts], np.int8), 2),
    }
    for family in FAMILIES:
        columns[family] = own(run, family).reshape(-1)
        if family != "random_words":
            columns[f"other_{family}"] = other(run, family).reshape(-1)
    columns["entropy"] = run.entropy.reshape(-1)
    columns["kl"] = run.kl.reshape(-1)
    columns["top_id"] = run.top_ids[..., 0].reshape(-1).astype(np.int32)
    columns["top_probability"] = np.exp(run.top_log_probs[..., 0]).reshape(-1)
    columns["exact"] = np.broadcast_to(run.exact[:, None, :], shape).reshape(-1)
    columns["correct"] = np.broadcast_to(run.correct[:, None, :], shape).reshape(-1)
    return pd.DataFrame(columns)


def _depth(readings: Readings) -> Float[np.ndarray, " layer"]:
    return (np.arange(readings.n_layers) + 1) / readings.n_layers


def strengths(study: Study) -> pd.DataFrame:
    """`Means` as columns, one row per arm, seed, style, class, family, step, layer that has prompts."""
    import pandas as pd

    return pd.concat([pd.DataFrame(columns) for columns in _strengths(study)], ignore_index=True)


def _strengths(study: Study) -> Iterator[dict[str, Any]]:
    """The columns of one arm, style, class and family after the other."""
    for arm in arms(study):
        runs = study.arm(arm)
        axes = [run.seed for run in runs], runs[0].steps, range(runs[0].n_layers)
        seed, step, layer = (axis.reshape(-1) for axis in np.meshgrid(*axes, indexing="ij"))
        depth = _depth(runs[0])[layer]
        for style, cls, family in itertools.product(styles(runs[0]), runs[0].classes, FAMILIES):
            held = means(runs, family, cls, style)
            if held.n:
                yield {
                    "arm": arm, "seed": seed, "style": style, "class": cls, "family": family, "step": step,
                    "layer": layer, "depth": depth, "own": held.own.reshape(-1),
                    "other": held.other.reshape(-1), "rest": held.rest.reshape(-1), "n": held.n,
                }  # fmt: skip
