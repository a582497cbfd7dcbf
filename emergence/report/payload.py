"""What the report's page draws, as one JSON object. In: a `Study`, training logs. Out: plain lists.

Masses travel as whole numbers of 1/10,000 (`scale`), NaN as null, so that the default experiment stays far
below 3 MB. All is of the evaluation half, the one that verdicts are judged on, except the prompts shown.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..analysis import frames
from ..readings.readings import STRENGTH, Readings, Study
from ..verdicts.verdict import Verdict
from . import exchanged

SCALE = 10_000
DRILL_CELLS = 45_000
"""How many (run, prompt, step, layer) cells the drill-down may hold: about 0.6 MB."""

Decode = Callable[[int], str]


def build(
    study: Study, logs: Mapping[str, Sequence[Mapping[str, Any]]], decode: Decode | None = None
) -> dict[str, Any]:
    """The whole object; `decode` turns a token id into its text (default: `#id`)."""
    first = study.runs[0]
    return {
        "scale": SCALE,
        "threshold": STRENGTH,
        "classes": list(first.classes),
        "styles": list(frames.styles(first)),
        "families": [{"id": name, "title": frames.TITLES[name]} for name in frames.FAMILIES],
        "layers": first.n_layers,
        "arms": [_arm(study, name) for name in frames.arms(study)],
        "exchanged": exchanged.build(study, decode or (lambda token: f"#{token}")),
        "logs": {name: [dict(row) for row in rows] for name, rows in logs.items()},
        **_drill(study, decode or (lambda token: f"#{token}")),
    }


def embed(value: Any) -> str:
    """JSON that no token text can break out of, inside a `<script>` element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return (
        text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
        .replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    )  # fmt: skip


def evidence(verdict: Verdict) -> dict[str, Any]:
    """What the page draws of a verdict when it is opened: its arrays by layer and step, to five digits."""
    kept = ("threshold", "layer", "step", "prediction", "class", "statistic", "family", "style", "arm")
    row = verdict.as_row()
    return {name: row[name] for name in kept} | {"details": _short(verdict.details)}


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _short(v) for k, v in value.items()}
    return [_short(v) for v in value] if isinstance(value, list | tuple) else value


def _whole(values: np.ndarray, scale: int = SCALE) -> Any:
    """Nested lists of rounded `values * scale`, null where not finite."""
    finite = np.isfinite(values)
    whole = np.where(finite, np.rint(np.where(finite, values, 0) * scale), 0).astype(np.int64)
    if finite.all():
        return whole.tolist()
    mixed = whole.astype(object)
    mixed[~finite] = None
    return mixed.tolist()


def _arm(study: Study, name: str) -> dict[str, Any]:
    """One arm: `own` mass as `[class][seed][step][layer]`, others as `[class][step][layer]`, over seeds."""
    runs = study.arm(name)
    first = runs[0]
    styles = frames.styles(first)
    held = {
        family: {s: [frames.means(runs, family, c, s) for c in first.classes] for s in styles}
        for family in frames.FAMILIES
    }

    def each(draw: Callable[[frames.Means], np.ndarray]) -> dict[str, Any]:
        return {f: {s: [_whole(draw(m)) for m in held[f][s]] for s in styles} for f in held}

    def nats(values: Callable[[Readings], np.ndarray]) -> dict[str, Any]:
        judged = {s: frames.chosen(first, None, s) for s in styles}
        return {
            s: _whole(np.mean([_mean(values(r)[..., judged[s]]) for r in runs], axis=0), 100) for s in styles
        }

    return {
        "name": name,
        "seeds": [r.seed for r in runs],
        "steps": list(first.steps),
        "own": each(lambda m: m.own),
        "other": each(lambda m: m.other.mean(axis=0)),
        "rest": each(lambda m: m.rest.mean(axis=0)),
        "kl": nats(lambda r: r.kl),
        "entropy": nats(lambda r: r.entropy),
        "confusion": {s: np.sum([frames.confusion(r, s) for r in runs], axis=0).tolist() for s in styles},
        "correct": {
            s: [[_whole(_right(r, frames.chosen(r, c, s))) for r in runs] for c in first.classes]
            for s in styles
        },
    }


def _right(run: Readings, where: np.ndarray) -> np.ndarray:
    """Share of answers whose last token is right, by step; NaN where they were not read."""
    read = run.top_ids[:, 0, where, 0] >= 0
    return _mean(np.where(read, run.correct[:, where].astype(float), np.nan))


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over prompts, the last axis; NaN where there are none."""
    return values.mean(axis=-1) if values.shape[-1] else np.full(values.shape[:-1], np.nan)


def _drill(study: Study, decode: Decode) -> dict[str, Any]:
    """The top token of every cell for a few prompts: the config's own, then some of every class and style."""
    prompts = _drill_prompts(study)
    first = study.runs[0]
    texts: dict[str, int] = {}
    known: dict[int, int] = {}

    def index(token: int) -> int:
        if token not in known:  # a style that was not read at a step has none
            known[token] = texts.setdefault(decode(token) if token >= 0 else "", len(texts))
        return known[token]

    drills = [_drill_run(run, prompts, index) for run in study.runs]
    return {
        "tokens": list(texts),
        "prompts": [
            {"text": p.text, "class": p.cls, "style": p.style, "answer": p.answer, "half": p.half,
             "first": decode(int(first.first_ids[first.own_first[i]]))}
            for i, p in ((i, first.prompts[i]) for i in prompts)
        ],
        "drill": drills,
    }  # fmt: skip


def _drill_run(run: Readings, prompts: Sequence[int], index: Callable[[int], int]) -> dict[str, Any]:
    picked = np.array(prompts, dtype=np.int64)
    ids = run.top_ids[:, :, picked, 0]
    answer = frames.own(run, "first")[:, :, picked]
    words = frames.own(run, "words")[:, :, picked]
    return {
        "arm": run.arm,
        "seed": run.seed,
        "steps": list(run.steps),
        "top": np.vectorize(index, otypes=[np.int64])(ids).transpose(2, 0, 1).tolist(),
        "p": _whole(np.exp(run.top_log_probs[:, :, picked, 0]).transpose(2, 0, 1), 1000),
        "answer": _whole(answer.transpose(2, 0, 1), 1000),
        "words": _whole(words.transpose(2, 0, 1), 1000),
    }


def _drill_prompts(study: Study) -> list[int]:
    first = study.runs[0]
    cells = sum(len(run.steps) * run.n_layers for run in study.runs)
    budget = max(1, DRILL_CELLS // max(1, cells))
    shown = [i for i, p in enumerate(first.prompts) if p.half < 0][:budget]
    groups = [
        np.flatnonzero(frames.chosen(first, c, s)).tolist()
        for s in frames.styles(first)
        for c in first.classes
    ]
    most = max((len(g) for g in groups), default=0)
    in_turn = [g[rank] for rank in range(most) for g in groups if rank < len(g)]
    return shown + in_turn[: max(0, min(budget - len(shown), 3 * len(groups)))]
