"""FINDINGS.md says what findings.json holds, refutations first."""

from __future__ import annotations

import dataclasses

import pytest
from judged import HYPOTHESIS, LARGE, TABLE, judge
from places import HYPOTHESES
from synthetic import Plant

from emergence.config import loading
from emergence.report import findings_page
from emergence.verdicts import findings

EXPERIMENT = loading.load(HYPOTHESIS / "config.yaml")


@pytest.fixture(scope="module")
def judged():
    """E1 holds, E2 does not, B1 cannot be judged."""
    verdicts = judge(["E1", "E2"], Plant("sft", "answer", 5), steps=(0, 100), **LARGE)
    return [*verdicts.values(), *judge(["B1"], per_class=2).values()]


@pytest.fixture
def page(tmp_path, judged):
    content = findings.record(tmp_path, EXPERIMENT, "5" * 64, TABLE, judged)
    return findings_page.write_findings(tmp_path, content, EXPERIMENT.name).read_text()


def test_the_page_tells_refutations_first_in_words_and_figures(page):
    assert page.index("### Refuted") < page.index("### Supported") < page.index("### Undecided")
    assert "3 falsified, 3 supported, 3 inconclusive" in page
    refuted = "| E2 | SFT: an operation-word classifier emerges at some intermediate layer | ✗ 0 % [0, 2]"
    assert refuted in page
    assert "- **E1[multiply]** SFT: an answer classifier emerges at some intermediate layer" in page
    assert "First detected at step 100, not at step 0. (sft, symbolic prompts, 160 a class, 5 seeds)" in page


def test_a_finding_without_numbers_shows_its_sign_alone(page):
    assert "| B1 | base model: no operation-word classifier at any intermediate layer | ? | ? | ? |" in page


def test_a_figure_is_a_percentage_only_of_a_share(tmp_path, judged):
    first = judged[0]
    auroc = dataclasses.replace(
        first.effect, statistic="AUROC", estimate=0.7, low=0.62, high=0.78, onset=(None, 0)
    )
    rows = [dataclasses.replace(first, effect=auroc)]
    content = findings.record(tmp_path, EXPERIMENT, "5" * 64, TABLE, rows)
    page = findings_page.markdown(content, EXPERIMENT.name)
    assert "✓ 0.70 [0.62, 0.78] L5" in page
    assert "Detected from step 0 on." in page


def test_writing_twice_writes_the_same_bytes(tmp_path, judged):
    content = findings.record(tmp_path, EXPERIMENT, "5" * 64, TABLE, judged)
    first = findings_page.write_findings(tmp_path, content, EXPERIMENT.name).read_bytes()
    assert (
        findings_page.write_findings(tmp_path, findings.load(tmp_path), EXPERIMENT.name).read_bytes() == first
    )


@pytest.mark.parametrize("name", ["classifier_emergence", "parity"])
def test_the_pages_of_the_repository_say_what_its_findings_hold(name):
    place = HYPOTHESES / name
    experiment = loading.load(place / "config.yaml")
    page = findings_page.markdown(findings.load(place), experiment.name)
    assert (place / findings_page.FILE).read_text() == page
