"""A simulated study with everything that a report shows, hostile token text included."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from emergence.readings.readings import Prompt, Readings, Study
from emergence.verdicts.judging import Verdict

OPERATIONS = ("add", "subtract", "multiply")
HOSTILE = "</script><img src=x onerror=alert(1)>"
VOCABULARY = [HOSTILE, " plus", "\u202egnp", "'\"`${1}", "\x00\n", "&amp;", *[str(d) for d in range(10)]]


def decode(token: int) -> str:
    return VOCABULARY[token % len(VOCABULARY)]


def prompts(per_class: int = 8, styles: tuple[str, ...] = ("symbolic", "worded")) -> tuple[Prompt, ...]:
    made = []
    for style in styles:
        for i, operation in enumerate(OPERATIONS):
            for j in range(per_class):
                a, b = 3 + j, 4 + i
                text = f"{a} {'+-*'[i]} {b} = " if style == "symbolic" else f"What is {a} {operation} {b}? "
                made.append(Prompt(text, operation, a, b, str(a + b), style, j % 2))
    made.append(Prompt(f"7 + 8 = {HOSTILE}", "add", 7, 8, "15", styles[0], -1))
    made.append(Prompt("45 * 45 = ", "multiply", 45, 45, "2025", styles[0], -1))
    return tuple(made)


def run(
    arm: str,
    seed: int,
    steps: tuple[int, ...] = (0, 50, 100),
    n_layers: int = 6,
    per_class: int = 8,
    peak: float = 0.6,
    styles: tuple[str, ...] = ("symbolic", "worded"),
) -> Readings:
    """Words of the own class grow to `peak` at 2/3 of the depth with the steps; everything else is small."""
    rng = np.random.default_rng(seed + 1000 * len(arm))
    read = prompts(per_class, styles)
    n, s = len(read), len(steps)
    own = np.array([OPERATIONS.index(p.cls) for p in read])
    bump = np.exp(-0.5 * ((np.arange(n_layers) - 2 * n_layers / 3) / max(1.0, n_layers / 8)) ** 2)
    growth = np.array(steps) / max(1, steps[-1])

    def small(width: int) -> np.ndarray:
        return rng.uniform(0.001, 0.03, (s, n_layers, n, width)).astype(np.float32)

    words, answers = small(3), small(10) / 2
    planted = (peak * growth[:, None, None] * bump[None, :, None]) * rng.uniform(0.8, 1.0, (s, n_layers, n))
    np.put_along_axis(
        words, np.broadcast_to(own[None, None, :, None], (s, n_layers, n, 1)), 0.02 + planted[..., None], 3
    )
    own_answer = np.array([int(p.answer[0]) for p in read])
    rising = np.linspace(0, 1, n_layers)[None, :, None] ** 4 * growth[:, None, None] * 0.7
    shown = np.take_along_axis(answers, own_answer[None, None, :, None], 3)[..., 0] + rising
    np.put_along_axis(
        answers, np.broadcast_to(own_answer[None, None, :, None], (s, n_layers, n, 1)), shown[..., None], 3
    )
    top = rng.uniform(0.2, 0.9, (s, n_layers, n, 5)).astype(np.float32)
    return Readings(
        arm=arm,
        seed=seed,
        steps=steps,
        prompts=read,
        classes=OPERATIONS,
        words=np.log(words).astype(np.float32),
        glyphs=np.log(small(3)).astype(np.float32),
        random_words=np.log(small(6)).astype(np.float32),
        answers=np.log(answers).astype(np.float32),
        answer_ids=np.arange(10),
        own_answer=own_answer,
        top_ids=rng.integers(0, len(VOCABULARY), (s, n_layers, n, 5)),
        top_log_probs=np.log(-np.sort(-top, axis=3)).astype(np.float32),
        entropy=rng.uniform(0, 8, (s, n_layers, n)).astype(np.float32),
        kl=rng.uniform(0, 5, (s, n_layers, n)).astype(np.float32),
        correct=rng.uniform(size=(s, n)) < 0.5,
        hidden=rng.normal(size=(n_layers, n, 4)).astype(np.float32),
        token_sets={"words": {op: (i, 10 + i) for i, op in enumerate(OPERATIONS)}},
    )


def study(seeds: int = 2, **settings: object) -> Study:
    return Study(
        tuple(
            run(arm, seed, **settings) for arm in ("sft", "shuffled", "dual_reward") for seed in range(seeds)
        )  # type: ignore[arg-type]
    )


def verdicts() -> list[Verdict]:
    """One of every outcome, with and without numbers, a control, and a hostile claim."""

    def made(prediction: str, operation: str, outcome: str, **more: Any) -> Verdict:
        common = {
            "claim": "an operation-word classifier emerges at some intermediate layer",
            "reason": "Mass 0.52 at L4 exceeds 0.10.",
            "arm": "sft",
            "style": "symbolic",
            "family": "words",
            "band": "intermediate",
            "statistic": "own-class mass",
        }
        return Verdict(prediction, operation, outcome=outcome, **common | more)  # type: ignore[arg-type]

    base = {"claim": "no operation-word classifier in the base model", "arm": "base", "threshold": 0.1}
    numbers = {
        "estimate": 0.021,
        "low": 0.012,
        "high": 0.045,
        "p": 0.4,
        "p_adjusted": 1.0,
        "layer": 3,
        "step": 0,
    }
    there = {"threshold": 0.1, "baseline": 0.02, "p": 0.0005, "p_adjusted": 0.004, "layer": 4, "step": 100}
    more = {"onset": (0, 50), "n_prompts": 90, "n_seeds": 2, "token_ids": (1, 0)}
    mass = [0.01, 0.02, 0.1, 0.4, 0.52]
    part = {"estimate": mass, "low": [m * 0.9 for m in mass], "high": [m * 1.1 for m in mass]}
    details = {
        "details": {
            "kind": "classifier", "layers": [0, 1, 2, 3, 4], "strength": part, "apart": part, "auroc": 0.99,
            "confusion": [[28, 1, 1], [0, 30, 0], [2, 0, 28]], "note": HOSTILE,
        }
    }  # fmt: skip
    probed = {
        "layers": [1, 2, 3], "accuracy": [0.7, 0.95, 0.99], "control": [0.5, 0.52, 0.55],
        "unseen": {"operands": 0.9},
    }  # fmt: skip
    emerged = there | more | details
    trend = {"claim": "strength grows with the training steps", "statistic": "growth of mass per 100 steps"}
    control = {"claim": f"shuffled answers: no classifier {HOSTILE}", "arm": "shuffled", "control": True}
    return [
        *(made("B1", operation, "supported", **base, **numbers) for operation in OPERATIONS),
        made(
            "B3",
            "add",
            "supported",
            arm="base",
            statistic="selectivity",
            estimate=0.4,
            layer=3,
            details=probed,
        ),
        made("E2", "add", "supported", **emerged, estimate=0.523, low=0.481, high=0.56),
        made("E2", "subtract", "falsified", **emerged, estimate=0.061, low=0.04, high=0.082),
        made("E2", "multiply", "inconclusive", **emerged, estimate=0.11, low=0.07, high=0.15),
        made(
            "E3",
            "add",
            "supported",
            **trend,
            estimate=0.101,
            low=0.09,
            high=0.12,
            threshold=0.0,
            layer=4,
            step=100,
        ),
        made("C1", "add", "inconclusive", **control, reason="Only one seed was trained."),
    ]


def train_logs(seeds: int = 2) -> dict[tuple[str, int], list[dict[str, float]]]:
    return {
        (arm, seed): [
            {
                "step": s,
                "train_loss": 3.0 - s / 50,
                "valid_loss": 3.1 - s / 60,
                "valid_accuracy": s / 150,
                "seconds": s / 2,
            }
            for s in (0, 50, 100)
        ]
        for arm in ("sft", "shuffled", "dual_reward")
        for seed in range(seeds)
    }


EXPERIMENT = SimpleNamespace(
    name="classifier_emergence",
    description="Do task classifiers emerge? <b>They may.</b>",
    model="tiny/model",
    hash="0123456789ab",
    arms=(
        SimpleNamespace(name="sft", method="sft"),
        SimpleNamespace(name="shuffled", method="shuffled"),
        SimpleNamespace(name="dual_reward", method="classified"),
    ),
)
PROVENANCE = {
    "controls": {"planted classifier": "mass at L3 at least 0.96"},
    "predictions_version": 3,
    "device": "cpu",
    "versions": {"mlx": "0.32"},
    "seeds": [0, 1],
    "nothing": None,
}


def check_page(shown: Mapping[str, Sequence[str]], document: Mapping[str, Any]) -> None:
    """Every row of the page says what `verdicts.json` does; `shown`: `ID/class` to the texts of its cells."""
    judged = {f"{v['prediction']}/{v['operation']}": v for v in document["verdicts"]}
    assert shown.keys() == judged.keys()
    for key, (badge, operation, estimate, _, threshold, layer, step) in shown.items():
        v = judged[key]
        assert (badge.split()[-1], operation) == (v["outcome"], v["class"])
        assert layer == ("–" if v["layer"] is None else f"L{v['layer']}")
        assert step == ("–" if v["step"] is None else str(v["step"]))
        _same(estimate, [v["estimate"], v["low"], v["high"]])
        _same(threshold, [v["threshold"]])


def _same(text: str, values: Sequence[float | None]) -> None:
    """Numbers of a text, in percent where it says so, are these to the last digit shown."""
    known = [value for value in values if value is not None]
    told = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", text)]
    scale, digit = (100, 0.1) if "%" in text else (1, 0.01)
    assert told == pytest.approx([scale * value for value in known], abs=0.51 * digit), text
    assert bool(told) == (text != "–")
