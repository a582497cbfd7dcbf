"""The page in a real headless Chromium: no error, no request, the drill-down and the keyboard work."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import chromium
import pytest
import report_case as case

from emergence.analysis import frames
from emergence.report import page as report
from emergence.report import payload, results, tables

pytestmark = pytest.mark.skipif(
    chromium.found() is None, reason=f"no browser here: none of {', '.join(chromium.NAMES)} is installed"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[chromium.Page, Path]]:
    folder = tmp_path_factory.mktemp("page")
    content = results.document(case.EXPERIMENT, case.verdicts(), case.PROVENANCE)
    content["description"] = case.EXPERIMENT.description
    logs = {f"{arm}/{seed}": rows for (arm, seed), rows in case.train_logs().items()}
    data = payload.build(case.study(), logs, case.decode) | {"decoded": {"0": case.HOSTILE, "1": " plus"}}
    path = folder / "report.html"
    (folder / "verdicts.json").write_text(json.dumps(content), encoding="utf-8")
    path.write_text(report.page(content, case.verdicts(), json.loads(json.dumps(data))), encoding="utf-8")
    executable = chromium.found()
    assert executable
    with chromium.browser(executable, tmp_path_factory.mktemp("profile")) as opened:
        yield opened, path


def _open(page: tuple[chromium.Page, Path], **settings: object) -> chromium.Page:
    browser, path = page
    browser.errors.clear()
    browser.requests.clear()
    browser.open(path, **settings)  # type: ignore[arg-type]
    assert browser.js("document.documentElement.dataset.ready") == "true"
    return browser


@pytest.mark.parametrize(
    "settings",
    [{}, {"dark": True}, {"width": 390, "height": 800}, {"media": "print", "width": 800}],
    ids=["light", "dark", "narrow", "print"],
)
def test_page_loads_without_errors_requests_or_sideways_scrolling(
    page: tuple[chromium.Page, Path], settings: dict[str, object]
) -> None:
    browser = _open(page, **settings)
    assert browser.js("document.documentElement.scrollWidth - window.innerWidth") <= 0
    assert browser.js("document.querySelectorAll('#map-grid svg').length") == 9
    assert browser.errors == []
    assert [r for r in browser.requests if not r.startswith(("file:", "data:"))] == []


def test_console_errors_would_be_seen(page: tuple[chromium.Page, Path]) -> None:
    browser = _open(page)
    browser.js("setTimeout(() => { throw new Error('planted'); }, 0), new Promise((r) => setTimeout(r, 50))")
    assert any("planted" in error for error in browser.errors)


def test_dark_and_light_differ(page: tuple[chromium.Page, Path]) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light, dark = _open(page).js(ground), _open(page, dark=True).js(ground)
    assert light == "rgb(251, 250, 247)"
    assert dark == "rgb(20, 22, 26)"


def test_hostile_tokens_are_shown_as_text(page: tuple[chromium.Page, Path]) -> None:
    browser = _open(page)
    assert browser.js("document.images.length") == 0
    assert browser.js("document.querySelectorAll('script').length") == 2
    shown = browser.js("[...document.querySelectorAll('#drill td')].map((c) => c.textContent)")
    assert report.visible(case.HOSTILE) in shown
    assert report.visible("\u202egnp") in shown
    assert browser.js("document.querySelector('.verdicts').textContent").count(case.HOSTILE) == 4


def test_drill_down_shows_what_the_readings_say(page: tuple[chromium.Page, Path]) -> None:
    browser = _open(page)
    browser.js(
        "(() => { const [run, prompt] = document.querySelectorAll('#drill-controls select');"
        " run.value = '3'; run.dispatchEvent(new Event('change'));"
        " prompt.value = '1'; prompt.dispatchEvent(new Event('change')); })()"
    )
    run = case.run("shuffled", 1)
    index = next(i for i, p in enumerate(run.prompts) if p.text == "45 * 45 = ")
    rows = browser.js(
        "[...document.querySelectorAll('#drill tbody tr')].map((r) => [...r.cells].map((c) => c.textContent))"
    )
    assert [row[0] for row in rows] == ["L5", "L4", "L3", "L2", "L1", "L0"]
    expected = [
        [report.visible(case.decode(int(t))) for t in run.top_ids[:, 5 - k, index, 0]] for k in range(6)
    ]
    assert [row[1:] for row in rows] == expected


def test_numbers_on_the_page_are_those_of_verdicts_json(page: tuple[chromium.Page, Path]) -> None:
    browser = _open(page)
    document = json.loads((page[1].parent / "verdicts.json").read_text(encoding="utf-8"))
    shown = browser.js(
        "Object.fromEntries([...document.querySelectorAll('tr.verdict')].map((row) =>"
        " [row.nextElementSibling.querySelector('[data-verdict]').dataset.verdict,"
        " [...row.cells].map((cell) => cell.textContent.trim())]))"
    )
    case.check_page(shown, document)
    drawn = browser.js("JSON.parse(document.getElementById('data').textContent).verdicts")
    for name in ("threshold", "layer", "step"):
        told = {(v["prediction"], v["class"]): v[name] for v in document["verdicts"]}
        assert {(v["prediction"], v["class"]): v[name] for v in drawn} == told


def test_verdict_opens_its_evidence_and_takes_the_reader_there(page: tuple[chromium.Page, Path]) -> None:
    browser = _open(page)
    texts = browser.js("[...document.querySelectorAll('tr.verdict')].map((r) => r.innerText)")
    ordered = sorted(case.verdicts(), key=lambda v: not v.control)
    assert len(texts) == len(ordered)
    for text, verdict in zip(texts, ordered, strict=True):
        assert verdict.outcome in text
        assert tables.interval(verdict) in text
    row = ordered.index(next(v for v in ordered if v.prediction == "E2"))
    hidden = f"document.querySelectorAll('tr.evidence')[{row}].hidden"
    assert browser.js(hidden) is True
    browser.js(f"document.querySelectorAll('.badge')[{row}].focus()")
    browser.key("Enter")
    assert browser.js(hidden) is False
    charts = f"document.querySelectorAll('tr.evidence')[{row}].querySelectorAll('.evidence-charts .card')"
    assert browser.js(f"[...{charts}].map((c) => c.querySelector('h3').textContent)") == [
        "By layer, with 95 % intervals",
        "Confusion of the judged prompts",
    ]
    assert browser.js("document.getElementById('probe').hidden") is False
    browser.js(f"document.querySelectorAll('tr.evidence')[{row}].querySelector('.goto').click()")
    assert browser.js("document.querySelector('#growth-controls output').textContent") == "L4"
    assert "L4, step 100" in browser.js("document.querySelector('#confusion-grid h3').textContent")


def test_heat_map_tells_its_value_on_hover_and_by_keyboard(page: tuple[chromium.Page, Path]) -> None:
    browser = _open(page)
    browser.hover("#map-grid svg rect:nth-child(18)")  # last step, last layer of sft, add
    runs = [case.run("sft", seed) for seed in (0, 1)]
    mean = np_mean([frames.strength(r, "words", "add", "symbolic")[2, 5] for r in runs])
    tip = browser.js("document.getElementById('tip').textContent")
    assert tip.startswith(f"sft, add · L5 · step 100: {100 * mean:.1f} %")
    assert "base 2.0 %" in tip
    browser.js("document.querySelector('#map-grid svg').focus()")
    before = browser.js("document.getElementById('readout').textContent")
    browser.key("ArrowDown")
    after = browser.js("document.getElementById('readout').textContent")
    assert before != after
    assert "L4 · step 100" in after
    browser.key("Enter")
    assert browser.js("document.querySelector('#growth-controls output').textContent") == "L4"


def np_mean(values: list[float]) -> float:
    return round(sum(float(v) for v in values) / len(values), 4)


def test_every_choice_draws_without_errors(page: tuple[chromium.Page, Path]) -> None:
    browser = _open(page)
    for family, quantity in itertools.product(frames.FAMILIES, ("own", "margin", "entropy", "kl")):
        browser.js(
            "(() => { const [tokens, quantity, style] = document.querySelectorAll('#controls select');"
            f" for (const [s, v] of [[tokens, '{family}'], [quantity, '{quantity}'], [style, 'worded']])"
            " { s.value = v; s.dispatchEvent(new Event('change')); } })()"
        )
        assert browser.js("document.querySelectorAll('#map-grid svg').length") in (3, 9)
        assert browser.js("document.querySelector('main').innerHTML.includes('NaN')") is False
    assert browser.errors == []
