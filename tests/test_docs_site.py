"""The documentation as a site: pages have a place, links lead somewhere, search works from a disk.

What needs Zensical runs where `EMERGENCE_DOCS` names a Python that has what `requirements/docs.txt` pins.
"""

from __future__ import annotations

import base64
import json
import os
import re
import runpy
import subprocess
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import axe
import chromium
import pytest
from places import ROOT

DOCS = os.environ.get("EMERGENCE_DOCS", "")
needs_docs = pytest.mark.skipif(not DOCS, reason="EMERGENCE_DOCS names no Python with requirements/docs.txt")
needs_browser = pytest.mark.skipif(
    chromium.found() is None, reason=f"no browser here: none of {', '.join(chromium.NAMES)} is installed"
)
CONFIG = tomllib.loads((ROOT / "docs" / "site" / "zensical.toml").read_text(encoding="utf-8"))["project"]
BUILD: Any = runpy.run_path(str(ROOT / "docs" / "site" / "build.py"))


def _places(entries: Any) -> Iterator[str]:
    for entry in entries:
        for value in entry.values():
            yield from [value] if isinstance(value, str) else _places(value)


def test_the_navigation_leads_to_pages_that_there_are() -> None:
    assert set(_places(CONFIG["nav"])) <= {p.name for p in (ROOT / "docs").glob("*.md")}


def test_a_notebook_becomes_a_page_with_its_text_code_and_outputs(tmp_path: Path) -> None:
    drawn = {"data": {"image/png": base64.b64encode(b"png").decode(), "text/plain": ["<Figure>"]}}
    printed = {"output_type": "stream", "text": ["7\n", "8\n"]}
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "words"]},
        {"cell_type": "code", "source": ["print(7)"], "outputs": [printed, drawn]},
    ]
    (tmp_path / "tour.ipynb").write_text(json.dumps({"cells": cells}))
    assert BUILD["_of_notebook"](tmp_path / "tour.ipynb") == (
        "# Title\nwords\n\n```python\nprint(7)\n```\n\n```text\n7\n8\n```\n\n"
        "![What the code above draws](tour-1-1.png)\n"
    )
    assert (tmp_path / "tour-1-1.png").read_bytes() == b"png"


def test_the_reference_holds_every_public_name_of_every_package() -> None:
    import ast
    import importlib

    for source in sorted(ROOT.glob("emergence/*/__init__.py")):
        listed = BUILD["_public"](ast.parse(source.read_text(encoding="utf-8")))
        package = importlib.import_module(f"emergence.{source.parent.name}")
        own = [
            name
            for name in getattr(package, "__all__", ())
            if not isinstance(getattr(package, name), (int, str))
        ]
        constants = {"DEALS", "UNTRAINED"}
        assert {name for name, _ in listed} >= set(own) - constants, source
        for name, module in listed:
            assert hasattr(importlib.import_module(f"{package.__name__}.{module}"), name)


@pytest.fixture(scope="module")
def site() -> Path:
    """Built anew, with nothing that is not pinned."""
    built = subprocess.run([DOCS, "docs/site/build.py"], cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    assert "No issues found" in built.stdout + built.stderr
    return ROOT / "build" / "site"


class _Parts(HTMLParser):
    """Ids of a page, what it links to, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        self.ids |= {value for key in ("id", "name") if (value := said.get(key))}
        if tag == "a" and said.get("href"):
            self.links.append(str(said["href"]))
        self.loads += [str(said[key]) for key in ("src",) if said.get(key)]
        if tag == "link" and "stylesheet" in str(said.get("rel")):
            self.loads.append(str(said["href"]))


@needs_docs
@pytest.mark.slow
def test_every_link_of_the_site_leads_somewhere_and_nothing_comes_from_outside(site: Path) -> None:
    nav = (site / "index.html").read_text(encoding="utf-8")
    for source in [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("*.ipynb")]:
        assert f'href="{source.stem}.html"' in nav.replace('href="./', 'href="'), f"no way to {source.name}"
    pages = {p: _Parts(p.read_text(encoding="utf-8")) for p in site.rglob("*.html") if p.name != "404.html"}
    assert len(pages) > 25
    broken = []
    for page, parts in pages.items():
        for link in parts.links:
            path, _, mark = unquote(link).partition("#")
            if re.match(r"[a-z]+:", path):
                continue
            target = (page.parent / path).resolve() if path else page
            ids = pages[target].ids if target in pages else set()
            if not target.exists() or (mark and target in pages and mark not in ids):
                broken.append((page.name, link))
        assert [load for load in parts.loads if re.match(r"https?:|//", load)] == []
    assert broken == []


@needs_docs
@needs_browser
@pytest.mark.slow
def test_search_finds_a_class_from_a_disk_without_a_request_to_anywhere(site: Path, tmp_path: Path) -> None:
    host = "[...document.querySelectorAll('*')].find((e) => e.shadowRoot)"
    with chromium.browser(str(chromium.found()), tmp_path) as page:
        page.open(site / "index.html")
        page.wait("document.querySelector('.md-search__button')")
        page.js("document.querySelector('.md-search__button').click()")
        page.wait(f"{host} && {host}.shadowRoot.querySelector('input')")
        page.js(f"{host}.shadowRoot.querySelector('input').focus()")
        page.call("Input.insertText", text="TunedLens")
        page.wait(f"{host}.shadowRoot.querySelector('[role=option]')")
        found = page.js(f"{host}.shadowRoot.querySelector('[role=option]').href")
        assert found.partition("#")[2].startswith("emergence.lens.tuned_lens.TunedLens")
        assert page.errors == []
        assert [r for r in page.requests if not r.startswith(("file:", "data:", "about:"))] == []


@needs_docs
@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (400, False)])
def test_every_page_is_clean_for_axe_core(site: Path, tmp_path: Path, width: int, dark: bool) -> None:
    found = {}
    with chromium.browser(str(chromium.found()), tmp_path) as page:
        for path in sorted(p for p in site.rglob("*.html") if p.name != "404.html"):
            page.open(path, width=width, dark=dark)
            if broken := axe.violations(page):
                found[path.name] = broken
            assert page.js("document.documentElement.scrollWidth - innerWidth") <= 0, path
    assert found == {}
