"""What a reader does with the page: links to a view, takes a chart along, finds the way."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from xml.etree import ElementTree

import axe
import chromium
import pytest
import report_case as case

from emergence.analysis import frames

pytestmark = pytest.mark.skipif(
    chromium.found() is None, reason=f"no browser here: none of {', '.join(chromium.NAMES)} is installed"
)

Opened = tuple[chromium.Page, Path]
CURRENT = "document.querySelector('nav [aria-current]')"


def _texts(browser: chromium.Page, selector: str) -> list[str]:
    found: list[str] = browser.js(f"[...document.querySelectorAll({selector!r})].map((n) => n.textContent)")
    return found


# Links


def test_a_link_opens_the_page_at_the_very_view(page: Opened) -> None:
    browser, path = page
    browser.ready(path)
    browser.js(
        "(() => { const [tokens] = document.querySelectorAll('#controls select');"
        " tokens.value = 'answer'; tokens.dispatchEvent(new Event('change', { bubbles: true }));"
        " const layer = document.querySelector('#growth-controls input'); layer.value = 2;"
        " layer.dispatchEvent(new Event('input', { bubbles: true })); })()"
    )
    address = browser.js("location.hash")
    assert address == "#growth?tokens=answer&quantity=own&prompts=symbolic&layer=2&step=100&run=0&prompt=0"
    shown = "document.getElementById('growth-grid').innerHTML"
    before = browser.js(shown)
    browser.ready(path)
    assert browser.js(shown) != before
    browser.ready(path, hash=address)
    assert browser.js(shown) == before
    assert abs(browser.js("document.getElementById('growth').getBoundingClientRect().top")) < 100
    browser.wait(f"{CURRENT}?.textContent === 'Over steps'")
    assert browser.js("document.querySelector('nav a[data-section=maps]').hash") == address.replace(
        "growth", "maps"
    )


def test_a_link_to_a_verdict_opens_its_evidence(page: Opened) -> None:
    browser, path = page
    browser.ready(path)
    rows = browser.js("[...document.querySelectorAll('tr.verdict')].map((r) => r.id)")
    browser.ready(path, hash=f"#{rows[4]}")
    open_ = browser.js("[...document.querySelectorAll('tr.evidence')].map((r) => !r.hidden)")
    assert open_ == [i == 4 for i in range(len(rows))]


def test_nonsense_in_the_address_changes_nothing(page: Opened) -> None:
    browser, path = page
    browser.ready(path)
    shown = "document.getElementById('map-grid').innerHTML"
    before = browser.js(shown)
    browser.ready(path, hash="#maps?tokens=%3Cimg%3E&layer=999&step=x&__proto__=1&constructor=2")
    assert browser.js(shown) == before
    assert browser.errors == []


@pytest.mark.parametrize("width", [400, 1280])
def test_sections_stay_at_hand_when_the_page_is_scrolled(page: Opened, width: int) -> None:
    browser, path = page
    browser.ready(path, width=width, hash="#training")
    browser.wait(f"{CURRENT}?.textContent === 'Training'")
    assert browser.js("document.querySelector('nav').getBoundingClientRect().top") == 0
    assert browser.js("scrollY") > 1000
    assert browser.js("document.documentElement.scrollWidth - window.innerWidth") <= 0
    box = browser.js(
        f"(() => {{ const b = {CURRENT}.getBoundingClientRect(); return [b.left, b.right]; }})()"
    )
    assert 0 <= box[0] < box[1] <= width


# Charts


def test_ticks_are_round_and_cover_the_values(page: Opened) -> None:
    browser, path = page
    browser.ready(path)
    for far, ticks in (
        (2.77, [0, 1, 2, 3]),
        (0.4, [0, 0.1, 0.2, 0.3, 0.4]),
        (0.05, [0, 0.01, 0.02, 0.03, 0.04, 0.05]),
    ):
        assert browser.js(f"roundTicks(0, {far})") == ticks
    assert browser.js("roundTicks(-0.04, 0.11)") == [-0.05, 0, 0.05, 0.1, 0.15]
    assert browser.js("[stepTicks(700), stepTicks(20), stepTicks(3), stepTicks(1)]") == [
        [0, 200, 400, 600], [0, 5, 10, 15, 20], [0, 1, 2, 3], [0, 1]
    ]  # fmt: skip
    loss = _texts(browser, "#training-grid .card:first-child svg text")
    assert loss == ["0", "1", "2", "3", "0", "20", "40", "60", "80", "100", "step"]


def test_each_arm_is_labelled_with_the_step_that_is_shown_of_it(page: Opened) -> None:
    """Arms have checkpoints of their own: what is drawn of each is the nearest to the chosen step."""
    browser, path = page
    browser.ready(path)
    browser.js("ARMS[1].steps = [0, 40, 60]; state.step = 100; drawAll(false); 0")
    legend = _texts(browser, "#profile-grid .card:first-child .legend span")
    assert legend == ["sft, step 100", "shuffled, step 60", "dual_reward, step 100", "base"]
    assert "shuffled, L3, step 60" in _texts(browser, "#confusion-grid h3")


def _taken(page: Opened, folder: Path, card: str, what: str) -> bytes:
    browser, path = page
    browser.ready(path)
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    browser.js(
        f"[...document.querySelectorAll('{card} .take button')]"
        f".find((b) => b.textContent === '{what}').click()"
    )
    for _ in range(200):
        if found := [p for p in folder.iterdir() if p.suffix == f".{what.lower()}"]:
            time.sleep(0.05)
            return found[0].read_bytes()
        time.sleep(0.05)
    raise AssertionError(f"no {what}: {list(folder.iterdir())}, {browser.errors}")


def test_the_numbers_of_a_chart_are_those_of_the_readings(page: Opened, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(_taken(page, tmp_path, "#map-grid .card", "CSV").decode())))
    own = frames.means(case.study().arm("sft"), "words", "add", "symbolic").own.mean(axis=0)
    assert [int(r["step"]) for r in rows[::6]] == [0, 50, 100]
    assert [float(r["own"]) for r in rows] == pytest.approx(own.reshape(-1).tolist(), abs=1e-4)


def test_text_of_a_prompt_is_one_field_of_the_table(page: Opened, tmp_path: Path) -> None:
    rows = list(csv.reader(io.StringIO(_taken(page, tmp_path, "#drill-take", "CSV").decode())))
    assert {len(row) for row in rows} == {6}
    assert len(rows) == 1 + 3 * 6


def test_a_picture_holds_title_legend_and_its_own_colours(page: Opened, tmp_path: Path) -> None:
    drawing = _taken(page, tmp_path, "#growth-grid .card", "SVG").decode()
    root = ElementTree.fromstring(drawing)
    texts = ["".join(t.itertext()) for t in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"sft at L3", "add", "subtract", "multiply", "step", "0 %"} <= set(texts)
    assert "var(" not in drawing
    assert not {"script", "foreignObject", "image"} & {node.tag.rpartition("}")[2] for node in root.iter()}


def test_a_picture_is_a_png_three_times_as_large(page: Opened, tmp_path: Path) -> None:
    data = _taken(page, tmp_path, "#growth-grid .card", "PNG")
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(data[16:20]) == 3 * 320
    assert len(set(data)) > 200, "it is not blank"


# Accessibility


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_page_is_clean_for_axe_core(page: Opened, width: int, dark: bool) -> None:
    browser, path = page
    browser.ready(path, width=width, dark=dark)
    assert axe.violations(browser) == []
    browser.js(
        "document.querySelectorAll('details').forEach((d) => { d.open = true; });"
        " document.querySelectorAll('.badge').forEach((b) => b.click())"
    )
    assert axe.violations(browser) == []


@pytest.mark.slow
def test_axe_core_would_see_a_fault(page: Opened) -> None:
    browser, path = page
    browser.ready(path)
    browser.js(
        "document.querySelector('h2').style.color = '#ddd'; document.querySelector('select').ariaLabel = '';"
    )
    assert {rule for rule, *_ in axe.violations(browser)} >= {"color-contrast"}
