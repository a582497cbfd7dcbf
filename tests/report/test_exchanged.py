"""What interventions carried is drawn as it was measured, and only where there is something to draw."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import axe
import chromium
import numpy as np
import pytest
import report_case
from exchanged import N_LAYERS, Truth, study

from emergence.report import exchanged


@pytest.fixture(scope="module")
def made():
    found = study(Truth(share=0.6, placebo=0.1), 2)
    runs = []
    for run in found.runs:
        last = run.effects[run.steps[-1]]
        k = int(np.flatnonzero([run.prompts[i].cls == "add" for i in last.pairs[:, 0]])[0])
        maps = np.tile(last.whole[k] * np.array([0, 0.25, np.nan]), (1, 2, 1))
        ids = np.array([[[1, 2, -1], [1, 3, -1]]])
        drawn = replace(last, shown=np.array([k]), map_layers=np.array([3, 5]), maps=maps, map_ids=ids)
        runs.append(replace(run, effects={**run.effects, run.steps[-1]: drawn}))
    return replace(found, runs=tuple(runs))


def test_shares_are_ratios_of_sums_over_the_pairs_of_a_class(made) -> None:
    rows = exchanged.build(made, str)
    assert [(r["arm"], r["class"]) for r in rows][:4] == [
        ("base", "add"), ("base", "subtract"), ("base", "multiply"), ("sft", "add"),
    ]  # fmt: skip
    assert {r["style"] for r in rows} == {"symbolic"}, "what is readable is drawn in the style of the pairs"
    row, run = rows[3], made.runs[0]
    mine = [run.prompts[i].cls == "add" for i in run.effects[run.steps[-1]].pairs[:, 0]]
    by_seed = []
    for r in made.runs:
        e = r.effects[r.steps[-1]]
        by_seed.append(e.gained["stream"][6][mine].sum() / e.whole[mine].sum())
    drawn = row["parts"]["stream"]
    assert drawn["mean"][6] == pytest.approx(np.mean(by_seed), abs=1e-3)
    assert drawn["low"][6] == pytest.approx(min(by_seed), abs=1e-3)
    assert drawn["placebo_low"][6] < drawn["placebo"][6] < drawn["placebo_high"][6] < 0.3
    assert len(drawn["mean"]) == N_LAYERS


def test_a_map_has_the_tokens_of_both_prompts_and_nothing_beyond_their_end(made) -> None:
    drawn = next(r for r in exchanged.build(made, str) if r["arm"] == "sft" and r["class"] == "add")["map"]
    assert drawn["tokens"] == [["1", "2"], ["1", "3"]]
    assert drawn["share"] == [[0, 0.25], [0, 0.25]]
    assert drawn["layers"] == [3, 5]


def test_the_page_has_the_section_only_where_streams_were_exchanged(made, tmp_path: Path) -> None:
    page = report_case.write(tmp_path / "with", made, train_logs={})
    assert json.loads((page.parent / "report.json").read_text())["exchanged"]
    assert (page.parent / "figures" / "used.svg").exists()
    assert 'href="#used"' in page.read_text()
    bare = report_case.write(tmp_path / "without", train_logs={})
    assert 'href="#used"' not in bare.read_text()
    assert not (bare.parent / "figures" / "used.svg").exists()


@pytest.mark.slow
@pytest.mark.skipif(chromium.found() is None, reason="no browser here")
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
def test_the_section_is_drawn_and_clean_for_axe_core(
    made, tmp_path: Path, quick: None, page: tuple[chromium.Page, Path], width: int, dark: bool
) -> None:
    browser, own = page[0], report_case.write(tmp_path / "with", made)
    browser.ready(own, width=width, dark=dark, hash="#used")
    assert browser.js("document.querySelectorAll('#used svg.chart').length") == 6
    assert browser.js("document.querySelectorAll('#used .position-table').length") == 1
    assert browser.js("document.querySelectorAll('#used .card:not(:has(.take))').length") == 0
    assert browser.js("document.documentElement.scrollWidth - innerWidth") <= 0
    assert axe.violations(browser) == []
    assert browser.errors == []
