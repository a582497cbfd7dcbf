"""Figures as PNG and SVG files. In: a `Study`, training logs. Out: files in a folder.

Drawn on matplotlib's Agg canvas and never through pyplot: no display, window or global state is touched.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..analysis import frames
from ..readings.readings import STRENGTH, Study
from ..store.files import write_atomic
from ..verdicts.predictions import BANDS

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Okabe and Ito's, told apart by the colour-blind; lines also differ in dash."""
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))


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


def _mean(study: Study, arm: str, family: str, cls: str, style: str) -> np.ndarray:
    return np.stack([frames.strength(r, family, cls, style) for r in study.arm(arm)])


def heatmaps(study: Study, family: str, style: str) -> Figure:
    """Layers × steps of the mean own-class mass; a row an arm, a column a class, one colour scale."""
    arms, classes = frames.arms(study), study.runs[0].classes
    figure, axes = _figure(len(arms), len(classes), 2.2, 2.1, bottom=0.85)
    values = {(a, c): _mean(study, a, family, c, style).mean(axis=0) for a in arms for c in classes}
    top = max([STRENGTH, *(float(np.nanmax(v)) for v in values.values() if not np.isnan(v).all())])
    image = None
    for i, arm in enumerate(arms):
        steps = study.arm(arm)[0].steps
        for j, cls in enumerate(classes):
            axis: Axes = axes[i, j]
            image = axis.imshow(
                values[arm, cls].T, origin="lower", aspect="auto", cmap="viridis", vmin=0, vmax=top
            )
            axis.set_xticks(range(len(steps)), [str(s) for s in steps], fontsize=6)
            axis.set_title(f"{arm}: {cls}", fontsize=8)
            axis.set_ylabel("layer" if j == 0 else "", fontsize=7)
            axis.set_xlabel("step" if i == len(arms) - 1 else "", fontsize=7)
            axis.tick_params(labelsize=6)
    if image is not None:
        bar = figure.add_axes((0.35, 0.2 / figure.get_figheight(), 0.3, 0.08 / figure.get_figheight()))
        figure.colorbar(image, cax=bar, orientation="horizontal")
        bar.set_title(f"mean mass, {frames.TITLES[family]}, {style} prompts", fontsize=6, pad=2)
        bar.tick_params(labelsize=5, pad=1, length=2)
    return figure


def profiles(study: Study, style: str) -> Figure:
    """Mass against depth at the last step, base model dashed, range over seeds, band and threshold drawn."""
    classes, families = study.runs[0].classes, ("words", "answer")
    figure, axes = _figure(len(families), len(classes), 2.7, 1.8)
    depth = (np.arange(study.runs[0].n_layers) + 1) / study.runs[0].n_layers
    for i, family in enumerate(families):
        for j, cls in enumerate(classes):
            axis: Axes = axes[i, j]
            axis.axvspan(*BANDS["middle"], color="0.5", alpha=0.12, lw=0)
            axis.axhline(STRENGTH, color="0.3", lw=0.8, ls=":")
            for k, arm in enumerate(frames.arms(study)):
                per_seed = _mean(study, arm, family, cls, style)[:, -1]
                axis.fill_between(
                    depth, per_seed.min(axis=0), per_seed.max(axis=0), color=COLOURS[k % 6], alpha=0.2, lw=0
                )
                axis.plot(
                    depth, per_seed.mean(axis=0), color=COLOURS[k % 6], ls=DASHES[k % 6], lw=1.2, label=arm
                )
            base = _mean(study, "base", family, cls, style)[0, 0]
            axis.plot(depth, base, color="0.4", lw=1, ls=(0, (1, 2)), label="base")
            axis.set_ylim(0, 1)
            axis.set_title(f"{cls}: {frames.TITLES[family]}", fontsize=8)
            axis.set_ylabel("mean mass" if j == 0 else "", fontsize=7)
            axis.tick_params(labelsize=6)
            axis.set_xlabel("depth" if i else "", fontsize=7)
    axes[0, 0].legend(fontsize=6)
    return figure


def growth(study: Study, style: str) -> Figure:
    """Mass over steps at each class's strongest layer of the last step, range over seeds."""
    arms, families = frames.arms(study), ("words", "answer")
    figure, axes = _figure(len(families), len(arms), 2.7, 1.8)
    for i, family in enumerate(families):
        for j, arm in enumerate(arms):
            axis: Axes = axes[i, j]
            axis.axhline(STRENGTH, color="0.3", lw=0.8, ls=":")
            for k, cls in enumerate(study.runs[0].classes):
                per_seed = _mean(study, arm, family, cls, style)[:, :, :-1]
                if np.isnan(per_seed).all() or not per_seed.shape[2]:
                    continue
                layer = int(np.nanargmax(per_seed[:, -1].mean(axis=0)))
                line = per_seed[:, :, layer]
                steps = study.arm(arm)[0].steps
                axis.fill_between(
                    steps, line.min(axis=0), line.max(axis=0), color=COLOURS[k % 6], alpha=0.2, lw=0
                )
                label = f"{cls} L{layer}"
                axis.plot(
                    steps,
                    line.mean(axis=0),
                    color=COLOURS[k % 6],
                    ls=DASHES[k % 6],
                    marker="o",
                    ms=2.5,
                    lw=1.2,
                    label=label,
                )
            axis.set_ylim(0, 1)
            axis.set_title(f"{arm}: {frames.TITLES[family]}", fontsize=8)
            axis.set_ylabel("mean mass" if j == 0 else "", fontsize=7)
            axis.set_xlabel("step" if i else "", fontsize=7)
            axis.tick_params(labelsize=6)
            if len(axis.lines) > 1:  # more than the threshold: an empty legend is a warning
                axis.legend(fontsize=6)
    return figure


def training(logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Training loss and validation accuracy at every checkpoint, a line a run."""
    figure, axes = _figure(1, 2, 3.4, 2.0)
    arms = list(dict.fromkeys(name.split("/")[0] for name in logs))
    for axis, key in zip(axes[0], ("train_loss", "valid_accuracy"), strict=True):
        for name, rows in logs.items():
            arm = name.split("/")[0]
            k = arms.index(arm)
            points = [(r["step"], r[key]) for r in rows if r.get(key) is not None]
            label = arm if name == next(n for n in logs if n.split("/")[0] == arm) else None
            if points:
                axis.plot(
                    *zip(*points, strict=True), color=COLOURS[k % 6], ls=DASHES[k % 6], lw=1, label=label
                )
        axis.set_title(key.replace("_", " "), fontsize=8)
        axis.set_xlabel("step", fontsize=7)
        axis.tick_params(labelsize=6)
    axes[0, 0].legend(fontsize=6)
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
