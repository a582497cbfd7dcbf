"""What is written after a run says what was judged, and lets no token out of its cell."""

from __future__ import annotations

import html
import html.parser
import json
import re
import shutil
from pathlib import Path

import pytest
import report_case as case

from emergence.errors import BrokenExperiment, UsageError
from emergence.report import answers, tables
from emergence.report import page as report
from emergence.store import files


class _Text(html.parser.HTMLParser):
    """Elements and text of a page, as a browser's parser would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        assert not any(name in ("src", "href") and value and "//" in value for name, value in attrs)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _parsed(folder: Path) -> _Text:
    parser = _Text()
    parser.feed((folder / "report.html").read_text(encoding="utf-8"))
    return parser


# The page


def test_numbers_on_the_page_are_those_of_verdicts_json(written: Path) -> None:
    shown = {}
    for row in (written / "report.html").read_text(encoding="utf-8").split('<tr class="verdict ')[1:]:
        cells = re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)[:7]
        (key,) = re.findall(r'data-verdict="([^"]*)"', row)
        shown[key] = [html.unescape(re.sub(r"<[^>]*>", "", cell)).strip() for cell in cells]
    case.check_page(shown, json.loads((written / "verdicts.json").read_text(encoding="utf-8")))


def test_hostile_text_is_text_and_never_markup(written: Path) -> None:
    parsed = _parsed(written)
    assert "img" not in parsed.tags
    assert "b" in parsed.tags  # the page's own; the description's stays text:
    assert any("<b>They may.</b>" in text for text in parsed.text)
    assert parsed.tags.count("script") == 2
    source = (written / "report.html").read_text(encoding="utf-8")
    assert source.count("</script>") == 2
    embedded = source.split('id="data">')[1].split("</script>")[0]
    assert "<" not in embedded
    assert json.loads(embedded)["tokens"].count(case.HOSTILE) == 1
    assert "\u202e" not in "".join(t for t in parsed.text if not t.startswith("{"))


def test_page_is_one_file_that_asks_for_nothing_outside(written: Path) -> None:
    source = (written / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in source
    assert "@import" not in source
    assert "url(" not in source
    links = {word for word in source.replace('"', " ").split() if word.startswith(("http:", "https:"))}
    assert links <= {"http://www.w3.org/2000/svg;", "http://www.w3.org/2000/svg"}


def test_every_verdict_is_on_the_page_with_its_numbers_controls_first(written: Path) -> None:
    text = " ".join(" ".join(_parsed(written).text).split())
    for verdict in case.verdicts():
        assert tables.interval(verdict) in text
        assert verdict.claim in text
        assert verdict.reason in text
    text = text.partition("Select a verdict for its evidence")[2]
    assert text.index("shuffled answers: no classifier") < text.index(
        "no operation-word classifier in the base"
    )


def test_the_page_opens_with_an_answer_to_each_claim_and_every_link_leads_to_its_verdict(
    written: Path,
) -> None:
    source = (written / "report.html").read_text(encoding="utf-8")
    front = source.partition('<section id="answers">')[2].partition("</section>")[0]
    linked = re.findall(r'<a class="(\w+)" href="#([\w-]+)"', front)
    assert [outcome for outcome, _ in linked] == [
        v.outcome for a in answers.answers(case.verdicts()) for v in a.verdicts
    ]
    for outcome, anchor in linked:
        assert source.count(f'<tr class="verdict {outcome}" id="{anchor}"') == 1
    assert all(html.escape(a.sentence, quote=False) in front for a in answers.answers(case.verdicts()))
    assert source.index('<section id="answers">') < source.index('<section id="verdicts">')


def test_render_draws_the_same_page_from_what_was_kept(written: Path, tmp_path: Path) -> None:
    again = report.render(written, tmp_path / "again.html")
    assert again.read_bytes() == (written / "report.html").read_bytes()


def test_what_a_verdict_depends_on_is_named_as_it_is(written: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(written, copy)
    verdicts, data = (json.loads((copy / name).read_text("utf-8")) for name in ("verdicts.json", report.DATA))
    verdicts["verdicts"][0]["depends"] = "control C2 is undecided"
    (copy / "verdicts.json").write_text(json.dumps(verdicts), encoding="utf-8")
    data[report._PAIR] = files.digest(copy / "verdicts.json")
    (copy / report.DATA).write_text(json.dumps(data), encoding="utf-8")
    page = report.render(copy, tmp_path / "page.html")
    assert "Control C2 is undecided" in page.read_text(encoding="utf-8")


def test_nothing_stays_hidden_in_a_token() -> None:
    assert report.visible(" a\u202eb\n\x00") == "␣a⟨202E⟩b⏎⟨0000⟩"


def test_whisker_keeps_the_order_of_the_numbers_and_the_width() -> None:
    rows = case.verdicts()[4:7]
    marks = report.whisker(rows[1], rows)
    assert marks is not None
    assert marks["low"] < marks["estimate"] < marks["high"] < marks["threshold"]
    every = [report.whisker(v, rows) for v in rows]
    assert len({m["threshold"] for m in every if m}) == 1
    assert all(0 <= m[k] <= m["width"] for m in every if m for k in ("low", "high", "estimate", "threshold"))
    assert report.whisker(case.verdicts()[-1], case.verdicts()[-1:]) is None


# What is kept, and what is written again


def test_unchanged_readings_are_not_written_again_and_what_was_removed_is(
    tmp_path: Path, quick: None
) -> None:
    case.write(tmp_path)
    heavy = [tmp_path / "readings.parquet", tmp_path / "figures" / "training.svg", tmp_path / "strength.csv"]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in heavy}
    case.write(tmp_path, reason="Judged again.")
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in heavy} == before
    assert "Judged again." in (tmp_path / "report.html").read_text(encoding="utf-8")
    for path in heavy[1:]:
        path.unlink()
    assert sorted(report.missing(tmp_path)) == ["figures/training.svg", "strength.csv"]
    case.write(tmp_path)
    assert report.missing(tmp_path) == []
    assert heavy[2].read_bytes() == before[heavy[2]][1]


@pytest.mark.parametrize(
    "field", ["words", "answers", "entropy", "correct", "top_ids", "copied", "own_answer"]
)
def test_changed_readings_or_logs_are_written_again(field: str) -> None:
    same, changed = case.study(copying=True), case.study(copying=True)
    before = report.fingerprint_of(same, {})
    assert report.fingerprint_of(changed, {}) == before
    assert report.fingerprint_of(changed, {"sft/0": []}) != before
    values = getattr(changed.runs[1], field).reshape(-1)
    values[3] = not values[3] if values.dtype == bool else values[3] + 1
    assert report.fingerprint_of(changed, {}) != before


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file/results: cannot be a store \(Not a directory\)"):
        case.write(tmp_path / "file" / "results")


def test_a_page_that_cannot_be_drawn_says_what_to_do(written: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no results yet; run the experiment first"):
        report.render(tmp_path)
    assert list(tmp_path.iterdir()) == [], "no lock is left where there is nothing"
    (tmp_path / "verdicts.json").write_bytes((written / "verdicts.json").read_bytes())
    with pytest.raises(UsageError, match=r"report\.json: there is no such file; run the experiment again"):
        report.render(tmp_path)
    (tmp_path / "report.json").write_text("[1]")
    with pytest.raises(BrokenExperiment, match=r"report\.json: damaged"):
        report.render(tmp_path)
    with pytest.raises(UsageError, match=r"the page cannot be written .*; name another file"):
        report.render(written, tmp_path / "nowhere" / "page.html")
