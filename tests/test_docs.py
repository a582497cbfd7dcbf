"""What the documentation says is so: links lead somewhere, tables name what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import report_case as case

from emergence.report import records, results

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")] + sorted((ROOT / "docs").glob("*.md"))
MINE = {page.name: page for page in PAGES if page.exists()}


def _blocks(page: str, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", MINE[page].read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


@pytest.mark.parametrize("name", MINE)
def test_every_link_between_pages_leads_somewhere(name: str) -> None:
    text = MINE[name].read_text(encoding="utf-8")
    targets = [
        t.split("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", text) if not t.startswith(("http", "#"))
    ]
    missing = [t for t in targets if t and not (MINE[name].parent / t).exists()]
    assert missing == []


def test_data_page_examples_run_on_real_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / ".emergence" / "experiments" / "classifier_emergence"
    folder.mkdir(parents=True)
    content = results.document(case.EXPERIMENT, case.verdicts(), case.PROVENANCE)
    (folder / records.VERDICTS).write_text(json.dumps(content))
    results.write_tidy(folder, case.study(2, steps=(0, 300), n_layers=17, per_class=2))
    (code,) = _blocks("data.md", "python")
    exec(code, {})


def test_files_and_columns_of_the_data_page_are_those_that_are_written() -> None:
    from emergence.analysis import frames

    text = MINE["data.md"].read_text(encoding="utf-8")
    documented = set(
        re.findall(r"`([a-z_]+)`", text.split("## `readings.parquet`")[1].split("## `strength.csv`")[0])
    )
    columns = set(frames.tidy(case.run("sft", 0, (0, 10), n_layers=2, per_class=2)).columns)
    assert columns == documented
    strength = set(re.findall(r"[a-z_]+", text.split("## `strength.csv`\n\n`")[1].split("`")[0]))
    assert strength == set(frames.strengths(case.study(1, n_layers=2, per_class=2)).columns)


def test_every_field_of_a_verdict_is_documented() -> None:
    text = MINE["data.md"].read_text(encoding="utf-8")
    assert [column for column in case.verdicts()[0].as_row() if f"`{column}`" not in text] == []


def test_names_of_the_api_page_exist() -> None:
    import importlib

    text = MINE["api.md"].read_text(encoding="utf-8")
    for dotted in re.findall(r"`(emergence\.[a-z_]+\.[A-Za-z_]+)", text):
        module, name = dotted.rsplit(".", 1)
        assert hasattr(importlib.import_module(module), name), dotted
