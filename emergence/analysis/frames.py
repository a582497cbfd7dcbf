"""Readings as tidy tables. In: a `Study`. Out: arrays of means and pandas frames, one row an observation.

The numbers that a person sees (terminal, report, Parquet, CSV) all come from here, so that they agree.
Masses are probabilities in [0, 1]; `Readings` holds their natural logarithms.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from ..readings.readings import Readings, Study

FAMILIES = ("words", "answer", "glyphs", "random_words")
TITLES = {
    "words": "operation words",
    "answer": "the right answer's first token",
    "glyphs": "operator glyphs (copying; counts for no classifier)",
    "random_words": "frequency-matched random words (control)",
}
EVALUATION = 1
"""The half that verdicts are judged on, and therefore the half that is drawn."""


def arms(study: Study) -> tuple[str, ...]:
    """The names of the arms, in the order in which their runs come."""
    return tuple(dict.fromkeys(run.arm for run in study.runs))


def styles(readings: Readings) -> tuple[str, ...]:
    """The prompt styles that were read, in order of appearance."""
    return tuple(dict.fromkeys(p.style for p in readings.prompts))


def chosen(
    readings: Readings,
    cls: str | None = None,
    style: str | None = None,
    half: int | None = EVALUATION,
    family: str = "",
) -> Bool[np.ndarray, " prompt"]:
    """Which prompts are of this class, style and half (`None`: any; shown-only prompts never).

    For the family `answer` without those whose right first token stands in the prompt: that is copying.
    """
    copied = getattr(readings, "copied", None) if family == "answer" else None
    of_kind = np.array(
        [
            p.half >= 0
            and (half is None or p.half == half)
            and (cls is None or p.cls == cls)
            and (style is None or p.style == style)
            for p in readings.prompts
        ],
        dtype=bool,
    )
    return of_kind if copied is None else of_kind & ~copied


def _own_class(readings: Readings) -> Int[np.ndarray, " prompt"]:
    index = {name: i for i, name in enumerate(readings.classes)}
    return np.array([index.get(p.cls, -1) for p in readings.prompts], dtype=np.int64)


def _at(log_masses: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Each prompt's own column, as a probability."""
    return np.asarray(np.exp(np.take_along_axis(log_masses, index[None, None, :, None], axis=3)[..., 0]))


def own(readings: Readings, family: str) -> Float[np.ndarray, "step layer prompt"]:
    """The mass on each prompt's own class of `family`, in [0, 1].

    For `answer` the probability of the right answer's first token; for `random_words` the mean over the
    random sets. A shown-only prompt whose class is no class has NaN in `words` and `glyphs`.
    """
    if family == "answer":
        return _at(readings.answers, readings.own_answer)
    if family == "random_words":
        sets = np.exp(readings.random_words)
        return sets.mean(axis=3) if sets.shape[3] else np.full(sets.shape[:3], np.nan, np.float32)
    if family not in ("words", "glyphs"):
        raise ValueError(f"family: {family!r} is none of {', '.join(FAMILIES)}")
    index = _own_class(readings)
    masses: np.ndarray = readings.words if family == "words" else readings.glyphs
    return np.where(index < 0, np.float32(np.nan), _at(masses, np.maximum(index, 0)))


def other(readings: Readings, family: str) -> Float[np.ndarray, "step layer prompt"]:
    """What `own` is compared with: the mean mass on the other classes, or on other problems' answers.

    For `random_words` there is nothing to compare with: NaN.
    """
    mine = own(readings, family)
    if family == "random_words":
        return np.full_like(mine, np.nan)
    if family in ("words", "glyphs"):
        masses: np.ndarray = readings.words if family == "words" else readings.glyphs
        rest = max(1, masses.shape[3] - 1)
        return np.asarray((np.exp(masses).sum(axis=3) - mine) / rest)
    result = np.full_like(mine, np.nan)
    copied = getattr(readings, "copied", None)
    groups = np.array([f"{p.cls}\0{p.style}\0{p.half}" for p in readings.prompts])
    if copied is not None:
        groups[copied] = "copied"
    probabilities = np.exp(readings.answers)
    for group in set(groups.tolist()) - {"copied"}:
        members = np.flatnonzero(groups == group)
        counts = np.bincount(readings.own_answer[members], minlength=readings.answers.shape[3]).astype(
            np.float32
        )
        if len(members) > 1:
            everyone = probabilities[:, :, members] @ counts
            result[:, :, members] = (everyone - mine[:, :, members]) / (len(members) - 1)
    return result


def strength(
    readings: Readings, family: str, cls: str, style: str, half: int | None = EVALUATION
) -> Float[np.ndarray, "step layer"]:
    """Mean own-class mass over the prompts of one class and style; NaN where there is none."""
    mask = chosen(readings, cls, style, half, family)
    mine = own(readings, family)[:, :, mask]
    return mine.mean(axis=2) if mask.any() else np.full(mine.shape[:2], np.nan, np.float32)


def confusion(
    readings: Readings, style: str, half: int | None = EVALUATION
) -> Int[np.ndarray, "step layer class guess"]:
    """How many prompts of each class have the most operation-word mass on each class."""
    n = len(readings.classes)
    index, guess = _own_class(readings), readings.words.argmax(axis=3)
    mask = chosen(readings, None, style, half) & (index >= 0)
    counts = np.zeros((*guess.shape[:2], n, n), dtype=np.int64)
    for true in range(n):
        of_class = guess[:, :, mask & (index == true)]
        for g in range(n):
            counts[:, :, true, g] = (of_class == g).sum(axis=2)
    return counts


def _tidy_run(run: Readings, arm: str, steps: Iterator[int] | range) -> pd.DataFrame:
    picked = np.array(list(steps), dtype=np.int64)
    n_layers, n_prompts = run.n_layers, len(run.prompts)
    shape = (len(picked), n_layers, n_prompts)

    def along(values: np.ndarray, axis: int) -> np.ndarray:
        view = values.reshape([-1 if i == axis else 1 for i in range(3)])
        return np.broadcast_to(view, shape).reshape(-1)

    def category(values: list[str]) -> pd.Categorical:
        names = list(dict.fromkeys(values))
        codes = np.array([names.index(v) for v in values], dtype=np.int32)
        return pd.Categorical.from_codes(along(codes, 2), categories=names)

    size = int(np.prod(shape))
    columns: dict[str, object] = {
        "arm": pd.Categorical.from_codes(np.zeros(size, np.int8), categories=[arm]),
        "seed": np.full(size, run.seed, np.int32),
        "step": along(np.array(run.steps, np.int32)[picked], 0),
        "layer": along(np.arange(n_layers, dtype=np.int16), 1),
        "depth": along(((np.arange(n_layers) + 1) / n_layers).astype(np.float32), 1),
        "prompt": along(np.arange(n_prompts, dtype=np.int32), 2),
        "text": category([p.text for p in run.prompts]),
        "class": category([p.cls for p in run.prompts]),
        "style": category([p.style for p in run.prompts]),
        "half": along(np.array([p.half for p in run.prompts], np.int8), 2),
    }
    for family in FAMILIES:
        columns[family] = own(run, family)[picked].reshape(-1)
        if family != "random_words":
            columns[f"other_{family}"] = other(run, family)[picked].reshape(-1)
    columns["entropy"] = run.entropy[picked].reshape(-1)
    columns["kl"] = run.kl[picked].reshape(-1)
    columns["top_id"] = run.top_ids[picked][..., 0].reshape(-1).astype(np.int32)
    columns["top_probability"] = np.exp(run.top_log_probs[picked][..., 0]).reshape(-1)
    columns["correct"] = np.broadcast_to(run.correct[picked][:, None, :], shape).reshape(-1)
    return pd.DataFrame(columns)


def tidy(readings: Readings) -> pd.DataFrame:
    """One row a reading, (step, layer, prompt) of one run; the columns are documented in docs/data.md."""
    return _tidy_run(readings, readings.arm, range(len(readings.steps)))


def strengths(study: Study) -> pd.DataFrame:
    """One row per arm, seed, style, class, family, step, layer: mean mass over the evaluation half.

    Columns `own`, `other` (means over prompts), `n` (prompts).
    """
    rows: list[pd.DataFrame] = []
    for run in study.runs:
        layers, steps = np.arange(run.n_layers), np.array(run.steps)
        for family in FAMILIES:
            mine, rest = own(run, family), other(run, family)
            for style in styles(run):
                for cls in run.classes:
                    mask = chosen(run, cls, style, family=family)
                    if not mask.any():
                        continue
                    rows.append(
                        pd.DataFrame(
                            {
                                "arm": run.arm,
                                "seed": run.seed,
                                "style": style,
                                "class": cls,
                                "family": family,
                                "step": np.repeat(steps, len(layers)),
                                "layer": np.tile(layers, len(steps)),
                                "depth": np.tile((layers + 1) / run.n_layers, len(steps)),
                                "own": mine[:, :, mask].mean(axis=2).reshape(-1),
                                "other": rest[:, :, mask].mean(axis=2).reshape(-1),
                                "n": int(mask.sum()),
                            }
                        )
                    )
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()
