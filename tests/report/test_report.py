"""What is written after a run says what was judged, and lets no token out of its cell."""

from __future__ import annotations

import csv
import html.parser
import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import report_case as case
import synthetic

from emergence.analysis import frames
from emergence.errors import BrokenExperiment, UsageError
from emergence.report import page as report
from emergence.report import payload, results, tables
from emergence.verdicts.judging import Verdict


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    page = report.write(
        folder,
        case.EXPERIMENT,
        case.study(),
        case.verdicts(),
        case.PROVENANCE,
        case.train_logs(),
        case.decode,
    )
    assert page == folder / "report.html"
    return folder


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


# The numbers


@pytest.mark.parametrize("family", ["words", "answer", "glyphs"])
@pytest.mark.parametrize("style", ["symbolic", "worded"])
def test_own_and_other_mass_equal_a_naive_reference(family: str, style: str) -> None:
    run = case.run("sft", 0, n_layers=3, per_class=6)
    masses = {"words": run.words, "glyphs": run.glyphs, "answer": run.answers}[family].astype(np.float64)
    own, other = frames.own(run, family), frames.other(run, family)
    for i, prompt in enumerate(run.prompts):
        if prompt.half < 0 or prompt.style != style:
            continue
        column = run.own_answer[i] if family == "answer" else run.classes.index(prompt.cls)
        assert own[1, 2, i] == pytest.approx(math.exp(masses[1, 2, i, column]), rel=1e-5)
        if family == "answer":
            mates = [
                j for j, p in enumerate(run.prompts)
                if j != i and (p.cls, p.style, p.half) == (prompt.cls, style, prompt.half)
            ]  # fmt: skip
            rest = [math.exp(masses[1, 2, i, run.own_answer[j]]) for j in mates]
        else:
            rest = [math.exp(m) for k, m in enumerate(masses[1, 2, i]) if k != column]
        assert other[1, 2, i] == pytest.approx(sum(rest) / len(rest), rel=1e-4)


def test_strength_is_of_the_evaluation_half_only() -> None:
    run = case.run("sft", 0)
    where = [i for i, p in enumerate(run.prompts) if (p.cls, p.style, p.half) == ("add", "symbolic", 1)]
    expected = np.exp(run.words[:, :, where, 0]).mean(axis=2)
    np.testing.assert_allclose(frames.strength(run, "words", "add", "symbolic"), expected, rtol=1e-5)
    assert not np.allclose(frames.strength(run, "words", "add", "symbolic", half=0), expected, rtol=1e-5)


def test_a_planted_classifier_stands_where_it_was_planted_on_the_page() -> None:
    study = synthetic.study(synthetic.Plant("sft", "words", layer=5, mass=0.4))
    data = payload.build(study, {})
    sft = next(arm for arm in data["arms"] if arm["name"] == "sft")
    last = np.array(sft["own"]["words"]["symbolic"][0]).mean(axis=0)[-1] / payload.SCALE
    assert last.argmax() == 5
    assert last[5] == pytest.approx(0.4, abs=0.08)
    counts = np.array(sft["confusion"]["symbolic"][-1][5])
    assert np.trace(counts) / counts.sum() > 0.9
    shuffled = next(arm for arm in data["arms"] if arm["name"] == "shuffled")
    assert np.array(shuffled["own"]["words"]["symbolic"]).max() / payload.SCALE < 0.1


def test_confusion_counts_every_evaluated_prompt_once() -> None:
    run = case.run("sft", 0)
    counts = frames.confusion(run, "worded")
    of_class = [int(frames.chosen(run, c, "worded").sum()) for c in run.classes]
    assert (counts.sum(axis=3) == np.array(of_class)).all()


# verdicts.json and the tidy tables


def test_verdicts_json_has_every_field_and_comes_back_equal(written: Path) -> None:
    info, verdicts = results.read_verdicts(written)
    assert verdicts == case.verdicts()
    assert (info["schema"], info["experiment"], info["model"]) == (1, "classifier_emergence", "tiny/model")
    assert info["predictions_version"] == 3
    assert info["provenance"]["versions"] == {"mlx": "0.32"}


def test_what_is_not_finite_is_null_in_verdicts_json() -> None:
    said = ("B1", "add", "c", "inconclusive", "r", "base", "s", "words", "b", "mass")
    verdict = Verdict(*said, estimate=float("nan"), details={"x": np.float32("inf")})  # type: ignore[arg-type]
    row = results.document(case.EXPERIMENT, [verdict], {})["verdicts"][0]
    assert row["estimate"] is None
    assert row["details"] == {"x": None}
    json.dumps(row, allow_nan=False)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, UsageError, "no results yet"),
        ("{", BrokenExperiment, "damaged"),
        ("[]", BrokenExperiment, "damaged"),
        ('{"schema": 99, "verdicts": []}', UsageError, "schema 99"),
    ],
    ids=["missing", "cut off", "no object", "from the future"],
)
def test_results_that_cannot_be_read_say_so_in_one_line(
    tmp_path: Path, content: str | None, error: type[Exception], message: str
) -> None:
    if content is not None:
        (tmp_path / "verdicts.json").write_text(content)
    with pytest.raises(error, match=message) as caught:
        results.open_run(tmp_path)
    assert "\n" not in str(caught.value)


def test_open_run_gives_frames_and_arrays_with_named_axes(written: Path) -> None:
    opened, run = results.open_run(written), case.run("sft", 1)
    words = opened.array("sft", "words")
    assert words.axes == ("seed", "step", "layer", "prompt")
    np.testing.assert_array_equal(words.sel(seed=1).values, frames.own(run, "words"))
    np.testing.assert_array_equal(words.sel(seed=1, step=50).values, frames.own(run, "words")[1])
    assert words.sel(step=100, layer=4).axes == ("seed", "prompt")
    np.testing.assert_array_equal(opened.array("sft", "correct").sel(seed=1, layer=0).values, run.correct)
    assert list(opened.prompts()["text"]) == [p.text for p in run.prompts]
    assert opened.verdicts["outcome"].tolist() == [v.outcome for v in case.verdicts()]
    with pytest.raises(UsageError, match="'grpo' is none of sft, shuffled, dual_reward"):
        opened.array("grpo")
    with pytest.raises(UsageError, match="'nonsense' is none of"):
        opened.array("sft", "nonsense")
    with pytest.raises(UsageError, match=r"step=7 is none of \[0, 50, 100\]"):
        words.sel(step=7)


def test_csv_and_parquet_hold_the_same_means_as_the_readings(written: Path) -> None:
    strength = results.open_run(written).strength
    run = case.run("shuffled", 0)
    one = strength[
        (strength.arm == "shuffled") & (strength.seed == 0) & (strength.family == "words")
        & (strength["style"] == "symbolic") & (strength["class"] == "multiply")
    ]  # fmt: skip
    expected = frames.strength(run, "words", "multiply", "symbolic")
    np.testing.assert_allclose(one.own.to_numpy().reshape(3, 6), expected, rtol=1e-6)
    from_csv = pd.read_csv(written / "strength.csv")
    assert len(from_csv) == len(strength)
    np.testing.assert_allclose(from_csv.own, strength.own, rtol=1e-4)
    with (written / "strength.csv").open() as file:
        assert next(csv.reader(file))[:3] == ["arm", "seed", "style"]


def test_unchanged_readings_are_not_written_again_and_changed_ones_are(written: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in [written / "readings.parquet", *written.glob("figures/*")]}
    arguments = (
        case.EXPERIMENT,
        case.study(),
        case.verdicts(),
        case.PROVENANCE,
        case.train_logs(),
        case.decode,
    )
    report.write(written, *arguments)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    deleted = [written / "figures" / "growth.svg", written / "strength.csv"]
    contents = [path.read_bytes() for path in deleted]
    for path in deleted:
        path.unlink()
    assert sorted(report.missing(written)) == ["figures/growth.svg", "strength.csv"]
    report.write(written, *arguments)
    assert [path.read_bytes() for path in deleted] == contents
    same, changed = case.study(), case.study(peak=0.5)
    assert report.fingerprint_of(same, {}) == report.fingerprint_of(case.study(), {})
    assert report.fingerprint_of(changed, {}) != report.fingerprint_of(same, {})
    assert report.fingerprint_of(same, {"sft/0": []}) != report.fingerprint_of(same, {})


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
    assert text.index("shuffled answers: no classifier") < text.index(
        "no operation-word classifier in the base"
    )


def test_page_of_the_default_experiment_stays_below_3_mb() -> None:
    steps = (0, 25, 50, 100, 150, 200, 300)
    study = case.study(3, steps=steps, n_layers=30, per_class=60)
    data = payload.build(study, {}, case.decode)
    assert len(payload.embed(data).encode()) < 1_500_000
    assert len(data["prompts"]) >= 5


def test_figures_are_png_and_svg(written: Path) -> None:
    names = sorted(p.name for p in (written / "figures").iterdir())
    kinds = ("growth", "heatmap_answers", "heatmap_words", "profiles", "training")
    assert names == [f"{n}.{k}" for n in kinds for k in ("png", "svg")]
    assert (written / "figures" / "growth.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (written / "figures" / "growth.svg").read_text()[:600]


def test_render_draws_the_same_page_from_what_was_kept(written: Path, tmp_path: Path) -> None:
    again = report.render(written, tmp_path / "again.html")
    assert again.read_bytes() == (written / "report.html").read_bytes()


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


# The terminal


def test_verdict_table_fits_100_columns_and_says_everything_without_colour() -> None:
    text = tables.plain(tables.verdict_report(case.verdicts()), 100)
    assert max(map(len, text.splitlines())) <= 100
    assert "E2 ✗ falsified" in text
    assert "6.1 % [4.0, 8.2]" in text
    assert "6 supported, 1 falsified, 2 inconclusive" in text
    row = next(line for line in text.splitlines() if "E2 ✓" in line)
    expected = "E2 ✓ supported | add | 52.3 % [48.1, 56.0] | 10.0 % | L4 | 100 | own-class mass"
    assert " ".join(row.split()) == expected.replace(" |", "")


def test_text_in_square_brackets_is_no_markup_in_the_terminal() -> None:
    verdict = Verdict(
        "B1", "[red]add[/]", "[bold]claim", "supported", "r", "base", "s", "words", "b", "[i]mass"
    )
    text = tables.plain(tables.verdict_report([verdict]))
    assert "[bold]claim" in text
    assert "[red]add[/]" in text
    assert "[i]mass" in text


def test_strength_table_finds_the_peak_and_scales_to_it() -> None:
    study = case.study(seeds=2, n_layers=30, steps=(0, 50, 100))
    text = tables.plain(tables.strength_table(study, "sft", "words"))
    last = text.splitlines()[-1]
    assert last.strip().startswith("100")
    assert "L20" in last
    assert "█" in last
    assert max(map(len, text.splitlines())) <= 100
    assert "no such arm" in tables.plain(tables.strength_table(study, "grpo"))


def test_colours_are_added_only_where_they_are_asked_for() -> None:
    table = tables.verdict_table(case.verdicts())
    coloured = tables.plain(table, colour=True)
    assert "\x1b[31m" in coloured
    assert "\x1b" not in tables.plain(table)
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert [line.rstrip() for line in stripped.splitlines()] == tables.plain(table).splitlines()


def test_sparkline_of_known_values() -> None:
    assert tables.sparkline([0.0, 0.5, 1.0, float("nan"), 2.0], 1.0) == " ▄█·█"
    assert tables.sparkline([0.0, 0.0], 0.0) == "  "


def test_summary_names_every_arm_and_fits() -> None:
    lines = tables.summary(case.verdicts(), case.study(), case.EXPERIMENT)
    assert all(any(line.startswith(f"{arm.name},") for line in lines) for arm in case.EXPERIMENT.arms)
    assert max(map(len, lines)) <= 100
    assert any("dual_reward, operation words" in line for line in lines)


@pytest.mark.parametrize(
    ("value", "statistic", "text"),
    [
        (0.523, "own-class mass", "52.3 %"),
        (0.0004, "own-class mass", "< 0.1 %"),
        (-0.0001, "own-class mass", "0.0 %"),
        (0.0, "mass", "0.0 %"),
        (0.97, "AUROC", "0.97"),
        (0.0123, "slope", "0.012"),
        (1.0, "AUROC", "1.00"),
        (0.0123, "growth of mass per 100 steps", "1.2 %"),
        (None, "mass", "–"),
        (float("nan"), "mass", "–"),
    ],
)
def test_numbers_read_as_a_person_reads_them(value: float | None, statistic: str, text: str) -> None:
    assert tables.number(value, statistic) == text
