"""What the page draws of interventions: shares by depth, placebos, one pair position by position.

In: a `Study`. Out: plain lists, empty where no claim is causal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..analysis import exchanges
from ..readings.effects import Effects
from ..readings.readings import Prompt, Study

Decode = Callable[[int], str]


def build(study: Study, decode: Decode) -> list[dict[str, Any]]:
    """One entry for each arm (or `base`) and class in which streams were exchanged."""
    first, found = study.runs[0], []
    for name in dict.fromkeys(["base", *(run.arm for run in study.runs)]):
        runs = study.arm(name)
        step = 0 if name == "base" else runs[0].steps[-1]
        effects = [run.effects[step] for run in runs if step in run.effects]
        for cls in first.classes if effects and not effects[0].refused else ():
            drawn = _of_class(effects, first.prompts, cls, decode)
            style = first.prompts[effects[0].pairs[0, 0]].style
            found.append({"arm": name, "step": step, "class": cls, "style": style, **drawn})
    return found


def _of_class(
    effects: Sequence[Effects], prompts: Sequence[Prompt], cls: str, decode: Decode
) -> dict[str, Any]:
    mine = exchanges.of_class(effects[0], prompts, cls)
    parts = {}
    for part in effects[0].gained:
        p = exchanges.profile(effects, part, mine)
        mean, placebo = p.share.mean(axis=0), p.placebo
        parts[part] = {
            "mean": _short(mean), "low": _short(p.share.min(axis=0)), "high": _short(p.share.max(axis=0)),
            "placebo": _short(placebo.mean(axis=1)),
            "placebo_low": _short(placebo.min(axis=1)), "placebo_high": _short(placebo.max(axis=1)),
        }  # fmt: skip
    return {"pairs": len(mine), "parts": parts, "map": _map(effects, prompts, cls, decode)}


def _map(
    effects: Sequence[Effects], prompts: Sequence[Prompt], cls: str, decode: Decode
) -> dict[str, Any] | None:
    """One pair, as shares of what there is to gain, `[layer][position]`, with both prompts' tokens."""
    for e in effects:
        for k, pair in enumerate(e.shown.tolist()):
            base, source = (prompts[i] for i in e.pairs[pair])
            if base.cls == cls and e.whole[pair] > 0:
                there = e.map_ids[k, 0] >= 0
                shares = e.maps[k][:, there] / e.whole[pair]
                return {
                    "base": base.text,
                    "source": source.text,
                    "layers": e.map_layers.tolist(),
                    "tokens": [[decode(int(i)) for i in ids[there]] for ids in e.map_ids[k]],
                    "share": [_short(row) for row in shares],
                }
    return None


def _short(values: np.ndarray) -> list[float | None]:
    return [float(f"{v:.4g}") if np.isfinite(v) else None for v in values]
