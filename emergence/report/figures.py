"""Figures as PNG and SVG files. In: a `Study`, training logs. Out: files in a folder.

Drawn on matplotlib's Agg canvas and never through pyplot: no display, window or global state is touched.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..analysis import exchanges, frames
from ..readings.bands import BANDS
from ..readings.effects import STREAM, Effects
from ..readings.readings import STRENGTH, Study
from ..store.files import write_atomic

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Okabe and Ito's, told apart by the colour-blind; lines also differ in dash."""
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
_GROWING = ("words", "answer")
"""Families whose mass training may raise: a row each."""


def _figure(
    rows: int, columns: int, width: float, height: float, bottom: float = 0.5
) -> tuple[Figure, np.ndarray]:
    """`rows` × `columns` axes of this size in inches; fixed margins, for layout engines take seconds."""
    left, right, top, across, between = 0.55, 0.15, 0.3, 0.4, 0.5
    total = (
        left + right + columns * width + (columns - 1) * across,
        bottom + top + rows * height + (rows - 1) * between,
    )
    figure = Figure(figsize=total)
    FigureCanvasAgg(figure)
    margins = {
        "left": left / total[0],
        "right": 1 - right / total[0],
        "bottom": bottom / total[1],
        "top": 1 - top / total[1],
    }
    spaces = {"wspace": across / width, "hspace": between / height}
    return figure, figure.subplots(rows, columns, squeeze=False, gridspec_kw=margins | spaces)


def _dress(axis: Axes, title: str, x: str, y: str) -> None:
    axis.set_title(title, fontsize=8)
    axis.set_xlabel(x, fontsize=7)
    axis.set_ylabel(y, fontsize=7)
    axis.tick_params(labelsize=6)


def _mass_axis(axis: Axes, title: str, x: str, y: str) -> None:
    """An axis of mass, 0 to 1, with the threshold on it."""
    axis.axhline(STRENGTH, color="0.3", lw=0.8, ls=":")
    axis.set_ylim(0, 1)
    _dress(axis, title, x, y)


def _band(axis: Axes, x: np.ndarray, per_seed: np.ndarray, k: int, **line: Any) -> None:
    """The mean over seeds of `per_seed[seed, x]` as line number `k`, their range as a ribbon."""
    colour, low, high = COLOURS[k % 6], per_seed.min(axis=0), per_seed.max(axis=0)
    axis.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
    axis.plot(x, per_seed.mean(axis=0), color=colour, ls=DASHES[k % 6], lw=1.2, **line)


def _legend(axis: Axes) -> None:
    if axis.get_legend_handles_labels()[0]:  # matplotlib warns of an empty legend
        axis.legend(fontsize=6)


def _strength(
    study: Study, arm: str, family: str, cls: str, style: str
) -> Float[np.ndarray, "seed step layer"]:
    return frames.means(study.arm(arm), family, cls, style).own


def heatmaps(study: Study, family: str, style: str) -> Figure:
    """Layers × steps of the mean own-class mass; a row an arm, a column a class, one colour scale."""
    arms, classes = frames.arms(study), study.runs[0].classes
    figure, axes = _figure(len(arms), len(classes), 2.2, 2.1, bottom=0.85)
    values = {(a, c): _strength(study, a, family, c, style).mean(axis=0) for a in arms for c in classes}
    top = max([STRENGTH, *(float(np.nanmax(v)) for v in values.values() if not np.isnan(v).all())])
    scale = {"origin": "lower", "aspect": "auto", "cmap": "viridis", "vmin": 0, "vmax": top}
    for (arm, cls), axis in zip(values, axes.flat, strict=True):
        image = axis.imshow(values[arm, cls].T, **scale)
        steps = study.arm(arm)[0].steps
        axis.set_xticks(range(len(steps)), [str(s) for s in steps])
        x, y = "step" if arm == arms[-1] else "", "layer" if cls == classes[0] else ""
        _dress(axis, f"{arm}: {cls}", x, y)
    bar = figure.add_axes((0.35, 0.2 / figure.get_figheight(), 0.3, 0.08 / figure.get_figheight()))
    figure.colorbar(image, cax=bar, orientation="horizontal")
    bar.set_title(f"mean mass, {frames.TITLES[family]}, {style} prompts", fontsize=6, pad=2)
    bar.tick_params(labelsize=5, pad=1, length=2)
    return figure


def profiles(study: Study, style: str) -> Figure:
    """Mass against depth at the last step, base model dashed, range over seeds, band and threshold drawn."""
    classes, n_layers = study.runs[0].classes, study.runs[0].n_layers
    figure, axes = _figure(len(_GROWING), len(classes), 2.7, 1.8)
    depth = (np.arange(n_layers) + 1) / n_layers
    for (family, cls), axis in zip(itertools.product(_GROWING, classes), axes.flat, strict=True):
        axis.axvspan(*BANDS["middle"], color="0.5", alpha=0.12, lw=0)
        x, y = "depth" if family == _GROWING[-1] else "", "mean mass" if cls == classes[0] else ""
        _mass_axis(axis, f"{cls}: {frames.TITLES[family]}", x, y)
        for k, arm in enumerate(frames.arms(study)):
            _band(axis, depth, _strength(study, arm, family, cls, style)[:, -1], k, label=arm)
        base = _strength(study, "base", family, cls, style)[0, 0]
        axis.plot(depth, base, color="0.4", lw=1, ls=(0, (1, 2)), label="base")
    _legend(axes[0, 0])
    return figure


def growth(study: Study, style: str) -> Figure:
    """Mass over steps at each class's strongest layer of the last step, range over seeds."""
    arms = frames.arms(study)
    figure, axes = _figure(len(_GROWING), len(arms), 2.7, 1.8)
    for (family, arm), axis in zip(itertools.product(_GROWING, arms), axes.flat, strict=True):
        x, y = "step" if family == _GROWING[-1] else "", "mean mass" if arm == arms[0] else ""
        _mass_axis(axis, f"{arm}: {frames.TITLES[family]}", x, y)
        for k, cls in enumerate(study.runs[0].classes):
            per_seed = _strength(study, arm, family, cls, style)[:, :, :-1]
            if per_seed.size and not np.isnan(per_seed).all():
                layer = int(np.nanargmax(per_seed[:, -1].mean(axis=0)))
                steps, label = np.array(study.arm(arm)[0].steps), f"{cls} L{layer}"
                _band(axis, steps, per_seed[:, :, layer], k, label=label, marker="o", ms=2.5)
        _legend(axis)
    return figure


def used(study: Study) -> Figure | None:
    """What exchanging the last token's stream carries, over depth, with its placebos; None without any."""
    arms = [a for a in ("base", *frames.arms(study)) if _effects(study, a)]
    if not arms:
        return None
    first = study.runs[0]
    figure, axes = _figure(1, len(first.classes), 2.7, 1.8)
    depth = (np.arange(first.n_layers) + 1) / first.n_layers
    for cls, axis in zip(first.classes, axes.flat, strict=True):
        axis.axvspan(*BANDS["middle"], color="0.5", alpha=0.12, lw=0)
        axis.axhline(0, color="0.3", lw=0.8)
        _dress(axis, f"{cls}: exchanged stream", "depth", "share carried" if cls == first.classes[0] else "")
        for k, arm in enumerate(arms):
            effects = _effects(study, arm)
            mine = exchanges.of_class(effects[0], first.prompts, cls)
            profile = exchanges.profile(effects, STREAM, mine)
            _band(axis, depth, profile.share, k, label=arm)
            held = profile.placebo
            axis.fill_between(depth, held.min(axis=1), held.max(axis=1), color="0.4", alpha=0.5, lw=0)
    _legend(axes[0, 0])
    return figure


def _effects(study: Study, arm: str) -> list[Effects]:
    """Those of the base model, or of an arm's last checkpoint, where a stream could be exchanged."""
    runs = study.arm(arm)
    step = 0 if arm == "base" else runs[0].steps[-1]
    return [r.effects[step] for r in runs if step in r.effects and not r.effects[step].refused]


def training(logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Training loss and validation accuracy at every checkpoint, a line a run, a colour an arm."""
    figure, axes = _figure(1, 2, 3.4, 2.0)
    arms = list(dict.fromkeys(name.split("/")[0] for name in logs))
    for axis, key in zip(axes[0], ("train_loss", "valid_accuracy"), strict=True):
        _dress(axis, key.replace("_", " "), "step", "")
        named: set[str] = set()
        for name, rows in logs.items():
            points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
            if points:
                arm = name.split("/")[0]
                k, label = arms.index(arm) % 6, "" if arm in named else arm
                axis.plot(*zip(*points, strict=True), color=COLOURS[k], ls=DASHES[k], lw=1, label=label)
                named.add(arm)
    _legend(axes[0, 0])
    return figure


def write(folder: Path, study: Study, logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Path]:
    """All figures, each as `.png` (150 dpi) and `.svg`, in `folder`; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    style = frames.styles(study.runs[0])[0]
    drawn = {
        "heatmap_words": heatmaps(study, "words", style),
        "heatmap_answers": heatmaps(study, "answer", style),
        "profiles": profiles(study, style),
        "growth": growth(study, style),
    }
    if (exchanged := used(study)) is not None:
        drawn["used"] = exchanged
    if any(logs.values()):
        drawn["training"] = training(logs)
    written = []
    with mpl.rc_context({"svg.hashsalt": "emergence", "svg.fonttype": "none"}):
        for name, figure in drawn.items():
            for kind, settings in (("png", {"dpi": 150}), ("svg", {"metadata": {"Date": None}})):
                path = folder / f"{name}.{kind}"
                write_atomic(path, functools.partial(figure.savefig, **settings))  # type: ignore[arg-type]
                written.append(path)
    return written
