"""What a page shows besides readings: verdicts of every outcome, logs, provenance, hostile token text.

The readings are those of `synthetic`, with words and answers that grow in two of the three arms.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import synthetic
from synthetic import OPERATIONS, OTHER_TOKENS, Plant

from emergence.readings.readings import Readings, Study
from emergence.report import figures, page
from emergence.verdicts.verdict import Verdict

HOSTILE = "</script><img src=x onerror=alert(1)>"
VOCABULARY = (HOSTILE, " plus", "\u202egnp", "'\"`${1}", "\x00\n", "&amp;")
ARMS = ("sft", "shuffled", "dual_reward")
SHOWN = (
    synthetic.prompt("add", 7, 8, "symbolic", -1, text=f"7 + 8 = {HOSTILE}"),
    synthetic.prompt("multiply", 45, 45, "symbolic", -1),
)
"""The config's `test_prompts`."""


def draw_little(folder: Path, study: Any, logs: Any) -> list[Path]:
    """One figure; ten take seconds, and `test_figures` draws them."""
    folder.mkdir(exist_ok=True)
    figures.write_atomic(folder / "training.svg", figures._figure(1, 1, 1.0, 1.0)[0].savefig)
    return [folder / "training.svg"]


def decode(token: int) -> str:
    return VOCABULARY[token] if token < OTHER_TOKENS else chr(token)


def study(
    seeds: int = 2,
    steps: tuple[int, ...] = (0, 50, 100),
    n_layers: int = 6,
    per_class: int = 8,
    peak: float = 0.6,
    **settings: Any,
) -> Study:
    """Words of the own class grow to `peak` at 2/3 of the depth, answers at the end; not where shuffled."""
    layers = np.arange(n_layers)
    bump = peak * np.exp(-0.5 * ((layers - 2 * n_layers // 3) / max(1.0, n_layers / 8)) ** 2)
    rising = 0.7 * ((layers + 1) / n_layers) ** 4
    plants = [
        Plant(arm, family, layer, float(mass[layer]), grows=True)
        for arm in ARMS if arm != "shuffled"
        for family, mass in (("words", bump), ("answer", rising))
        for layer in layers if mass[layer] > 0.01
    ]  # fmt: skip
    return synthetic.study(
        *plants, arms=dict.fromkeys(ARMS, seeds), steps=steps, n_layers=n_layers, per_class=per_class,
        shown=SHOWN, hidden=4, **settings,
    )  # fmt: skip


def run(arm: str, seed: int, steps: tuple[int, ...] = (0, 50, 100), **settings: Any) -> Readings:
    """One run of `study`."""
    return study(seed + 1, steps, **settings).arm(arm)[seed]


COMMON = {
    "class": "add", "claim": "an operation-word classifier emerges at some intermediate layer", "arm": "sft",
    "reason": "Mass 0.52 at L4 exceeds 0.10.", "style": "symbolic", "family": "words", "band": "intermediate",
    "statistic": "own-class mass",
}  # fmt: skip
MASS = [0.01, 0.02, 0.1, 0.4, 0.52]
PART = {"estimate": MASS, "low": [0.9 * m for m in MASS], "high": [1.1 * m for m in MASS]}
EMERGED = {
    "threshold": 0.1, "baseline": 0.02, "p": 0.0005, "p_adjusted": 0.004, "layer": 4, "step": 100,
    "onset": (0, 50), "n_prompts": 90, "n_seeds": 2, "token_ids": (1, 0),
    "details": {
        "kind": "classifier", "layers": [0, 1, 2, 3, 4], "strength": PART, "apart": PART, "auroc": 0.99,
        "confusion": [[28, 1, 1], [0, 30, 0], [2, 0, 28]], "note": HOSTILE,
    },
}  # fmt: skip
ABSENT = {
    "claim": "no operation-word classifier in the base model", "arm": "base", "threshold": 0.1,
    "estimate": 0.021, "low": 0.012, "high": 0.045, "p": 0.4, "p_adjusted": 1.0, "layer": 3, "step": 0,
}  # fmt: skip
PROBED = {
    "arm": "base", "statistic": "selectivity", "estimate": 0.4, "layer": 3,
    "details": {
        "layers": [1, 2, 3], "accuracy": [0.7, 0.95, 0.99], "control": [0.5, 0.52, 0.55],
        "unseen": {"operands": 0.9},
    },
}  # fmt: skip
TREND = {
    "claim": "strength grows with the training steps", "statistic": "growth of mass per 100 steps",
    "estimate": 0.101, "low": 0.09, "high": 0.12, "threshold": 0.0, "layer": 4, "step": 100,
}  # fmt: skip
CONTROL = {
    "claim": f"shuffled answers: no classifier {HOSTILE}", "arm": "shuffled", "control": True,
    "reason": "Only one seed was trained.",
}  # fmt: skip


def verdict(prediction: str, outcome: str, **fields: Any) -> Verdict:
    return Verdict.from_row(COMMON | {"prediction": prediction, "outcome": outcome} | fields)


def verdicts() -> list[Verdict]:
    """One of every outcome, with and without numbers, a control, and a hostile claim."""
    emerged = (
        ("supported", {"class": "add", "estimate": 0.523, "low": 0.481, "high": 0.56}),
        ("falsified", {"class": "subtract", "estimate": 0.061, "low": 0.04, "high": 0.082}),
        ("inconclusive", {"class": "multiply", "estimate": 0.11, "low": 0.07, "high": 0.15}),
    )
    return [
        *(verdict("B1", "supported", **ABSENT, **{"class": c}) for c in OPERATIONS),
        verdict("B3", "supported", **PROBED),
        *(verdict("E2", outcome, **EMERGED, **numbers) for outcome, numbers in emerged),
        verdict("E3", "supported", **TREND),
        verdict("C1", "inconclusive", **CONTROL),
    ]


def train_logs(seeds: int = 2) -> dict[tuple[str, int], list[dict[str, float]]]:
    def row(step: int) -> dict[str, float]:
        losses = {"train_loss": 3.0 - step / 50, "valid_loss": 3.1 - step / 60}
        return {"step": step, **losses, "valid_accuracy": step / 150, "seconds": step / 2}

    return {(arm, seed): [row(step) for step in (0, 50, 100)] for arm in ARMS for seed in range(seeds)}


def write(folder: Path, read: Study | None = None, reason: str = "", **settings: Any) -> Path:
    """What the main job does last: everything into `folder`; `reason` in place of every verdict's own."""
    judged = [dataclasses.replace(v, reason=reason or v.reason) for v in verdicts()]
    rest = {"provenance": PROVENANCE, "train_logs": train_logs(), "decode": decode} | settings
    return page.write(folder, EXPERIMENT, study() if read is None else read, judged, **rest)


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
    "controls": {"planted classifier": "mass at L3 at least 0.96"}, "predictions_version": 3, "device": "cpu",
    "versions": {"mlx": "0.32"}, "seeds": [0, 1], "nothing": None,
}  # fmt: skip


def check_page(shown: Mapping[str, Sequence[str]], document: Mapping[str, Any]) -> None:
    """Every row of the page says what `verdicts.json` does; `shown`: `ID/class` to the texts of its cells."""
    judged = {f"{v['prediction']}/{v['class']}": v for v in document["verdicts"]}
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
