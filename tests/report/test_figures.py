"""Figures for papers: whole files, the same bytes for the same readings, and the numbers that were judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import report_case as case
import synthetic

from emergence.analysis import frames
from emergence.report import figures

KINDS = ("growth", "heatmap_answers", "heatmap_words", "profiles", "training")
LOGS = {f"{arm}/{seed}": rows for (arm, seed), rows in case.train_logs().items()}


def test_figures_are_png_and_svg(tmp_path: Path) -> None:
    study = synthetic.study(arms={"sft": 2}, operations=("add", "multiply"), n_layers=4, per_class=4)
    written = figures.write(tmp_path / "figures", study, LOGS)
    names = sorted(p.name for p in (tmp_path / "figures").iterdir())
    assert names == sorted(p.name for p in written) == [f"{n}.{k}" for n in KINDS for k in ("png", "svg")]
    assert (tmp_path / "figures" / "growth.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "figures" / "growth.svg").read_text()[:600]
    again = figures.write(tmp_path / "again", study, LOGS)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written]


def test_heatmaps_draw_the_mean_strength_of_every_arm_and_class() -> None:
    study = case.study(per_class=20, copying=True)
    drawn = figures.heatmaps(study, "answer", "worded")
    axes = {axis.get_title(): axis for axis in drawn.axes}
    for arm in frames.arms(study):
        for cls in study.runs[0].classes:
            expected = frames.means(study.arm(arm), "answer", cls, "worded").own.mean(axis=0).T
            np.testing.assert_allclose(axes[f"{arm}: {cls}"].images[0].get_array(), expected)


def test_profiles_draw_the_last_step_and_the_base_model() -> None:
    study = case.study(per_class=20, copying=True)
    axis = next(
        a for a in figures.profiles(study, "symbolic").axes if a.get_title().startswith("add: the right")
    )
    lines = {line.get_label(): line.get_ydata() for line in axis.lines}
    shown = frames.means(study.arm("sft"), "answer", "add", "symbolic").own
    np.testing.assert_allclose(lines["sft"], shown[:, -1].mean(axis=0))
    np.testing.assert_allclose(lines["base"], shown[0, 0])


def test_growth_is_drawn_at_the_layer_that_is_strongest_at_the_end() -> None:
    study = synthetic.study(synthetic.Plant("sft", "words", 2, grows=True), arms={"sft": 2}, n_layers=5)
    axis = figures.growth(study, "symbolic").axes[0]
    line = next(line for line in axis.lines if line.get_label() == "add L2")
    shown = frames.means(study.arm("sft"), "words", "add", "symbolic").own[:, :, 2].mean(axis=0)
    np.testing.assert_allclose(line.get_ydata(), shown)
    np.testing.assert_array_equal(line.get_xdata(), study.runs[0].steps)


def test_a_line_of_training_is_a_run_and_what_was_not_logged_is_not_drawn() -> None:
    axes = figures.training(LOGS | {"sft/9": [{"step": 0, "train_loss": None}]}).axes
    assert [len(axis.lines) for axis in axes] == [len(LOGS), len(LOGS)]
    assert [t.get_text() for t in axes[0].get_legend().get_texts()] == list(case.ARMS)
    np.testing.assert_allclose(axes[1].lines[0].get_xydata(), [(0, 0), (50, 1 / 3), (100, 2 / 3)])


@pytest.mark.parametrize("n_layers", [1, 2])
def test_what_cannot_be_drawn_is_left_empty_and_no_error(n_layers: int) -> None:
    """One layer has no intermediate one; where every prompt contains its answer, no answer is drawn."""
    study = synthetic.study(arms={"sft": 1}, n_layers=n_layers, steps=(0, 5), per_class=4, copying=True)
    study.runs[0].copied[:] = True
    for drawn in (figures.heatmaps(study, "answer", "worded"), figures.profiles(study, "worded"),
                  figures.growth(study, "worded"), figures.training({"sft/0": []})):  # fmt: skip
        drawn.canvas.draw()
