"""The page in a real headless Chromium: no error, no request, the drill-down and the keyboard work."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import chromium
import pytest
import report_case as case

from emergence.analysis import frames
from emergence.report import page as report
from emergence.report import tables

pytestmark = pytest.mark.skipif(
    chromium.found() is None, reason=f"no browser here: none of {', '.join(chromium.NAMES)} is installed"
)


def _open(page: tuple[chromium.Page, Path], **settings: object) -> chromium.Page:
    browser, path = page
    browser.ready(path, **settings)
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
    shown = browser.js(
        "[...document.querySelectorAll('#drill-controls select')[1].options].flatMap((option) => {"
        " const prompt = document.querySelectorAll('#drill-controls select')[1];"
        " prompt.value = option.value; prompt.dispatchEvent(new Event('change'));"
        " return [...document.querySelectorAll('#drill td')].map((c) => c.textContent); })"
    )
    assert browser.js("document.images.length") == 0
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
    shown = frames.means(case.study().arm("sft"), "words", "add", "symbolic")
    own, base, other, rest = (
        percent(means[:, step, 5].mean())
        for means, step in ((shown.own, 2), (shown.own, 0), (shown.other, 2), (shown.rest, 2))
    )
    tip = browser.js("document.getElementById('tip').textContent")
    assert tip.startswith(f"sft, add · L5 · step 100: {own}")
    assert f"base {base}, others {other}, elsewhere {rest}" in tip
    browser.js("document.querySelector('#map-grid svg').focus()")
    before = browser.js("document.getElementById('readout').textContent")
    browser.key("ArrowDown")
    after = browser.js("document.getElementById('readout').textContent")
    assert before != after
    assert "L4 · step 100" in after
    browser.key("Enter")
    assert browser.js("document.querySelector('#growth-controls output').textContent") == "L4"


def percent(value: float) -> str:
    """As the page shows a mass that travels as a whole number of 1/10,000."""
    return f"{100 * round(float(value), 4):.1f} %"


@pytest.mark.parametrize("quantity", ["apart", "elsewhere"])
def test_differences_on_the_map_are_those_of_the_masses(
    quantity: str, page: tuple[chromium.Page, Path]
) -> None:
    """The value in the readout is own mass minus that of the others here, or of the same words elsewhere."""
    browser = _open(page)
    choose(browser, "words", quantity, "worded")
    browser.js("document.querySelector('#map-grid svg').focus()")
    browser.key("ArrowDown")
    browser.key("ArrowUp")
    shown = frames.means(case.study().arm("sft"), "words", "add", "worded")
    against = {"apart": shown.other, "elsewhere": shown.rest}[quantity]
    readout = browser.js("document.getElementById('readout').textContent")
    assert "L3 · step 100: " in readout
    value = float(readout.split(": ")[1].split(" %")[0])
    assert value == pytest.approx(100 * (shown.own - against)[:, 2, 3].mean(), abs=0.1)


def choose(browser: chromium.Page, tokens: str, quantity: str, style: str) -> None:
    browser.js(
        "(() => { const [tokens, quantity, style] = document.querySelectorAll('#controls select');"
        f" for (const [s, v] of [[tokens, '{tokens}'], [quantity, '{quantity}'], [style, '{style}']])"
        " { s.value = v; s.dispatchEvent(new Event('change')); } })()"
    )


def test_every_choice_draws_without_errors(page: tuple[chromium.Page, Path]) -> None:
    browser = _open(page)
    quantities = ("own", "apart", "elsewhere", "entropy", "kl")
    for family, quantity in itertools.product(frames.FAMILIES, quantities):
        choose(browser, family, quantity, "worded")
        values = "[...document.querySelectorAll('#controls select')].map((s) => s.value)"
        assert browser.js(values) == [family, quantity, "worded"]
        assert browser.js("document.querySelector('main').innerHTML.includes('NaN')") is False
        undefined = quantity == {"answer": "elsewhere", "first": "elsewhere", "random_words": "apart"}.get(
            family
        )
        maps = 0 if undefined else 3 if quantity in ("entropy", "kl") else 9
        assert browser.js("document.querySelectorAll('#map-grid svg').length") == maps
        assert (
            browser.js("document.getElementById('map-grid').innerText.includes('not defined')") == undefined
        )
    assert browser.errors == []
