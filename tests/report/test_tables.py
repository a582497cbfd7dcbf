"""What a terminal shows says everything without colour, in 100 columns, in whatever encoding it has."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import report_case as case

from emergence import wording
from emergence.report import tables


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
    verdict = case.verdict(
        "B1", "supported", **{"class": "[red]add[/]"}, claim="[bold]claim", statistic="[i]mass"
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


@pytest.mark.parametrize(
    ("statistic", "text"), [("own-class mass", "0.0 % [0.0, 0.0]"), ("AUROC", "-0.0001 [0.00, 0.00]")]
)
def test_an_end_of_an_interval_that_rounds_to_nothing_has_no_sign(statistic: str, text: str) -> None:
    one = case.verdict("B1", "supported", statistic=statistic, estimate=-1e-4, low=-2e-4, high=-1e-5)
    assert tables.interval(one) == text


# Encodings


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_table_can_be_written_in_every_encoding(encoding: str) -> None:
    """In a process of its own, as a terminal has it: through `print` and through rich."""
    program = (
        "import sys; from rich.console import Console; import report_case as case;"
        "from emergence import wording; from emergence.report import tables;"
        "wording.substitute_unencodable(sys.stdout);"
        "report = tables.verdict_report(case.verdicts());"
        "print(tables.plain(report)); print('====');"
        "Console(width=100, highlight=False).print(report); print('====');"
        "print('\\n'.join(tables.summary(case.verdicts(), case.study(), case.EXPERIMENT)))"
    )
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)
    assert (ended.returncode, ended.stderr) == (0, b"")
    text = ended.stdout.decode(encoding)
    through_print, through_rich, summary = text.split("====\n")
    plain = tables.plain(tables.verdict_report(case.verdicts()))
    assert through_print == wording.encodable(plain, encoding) + "\n"
    sign = "✗" if encoding == "utf-8" else "x"
    for shown in (through_print, through_rich):
        assert f"E2 {sign} falsified" in shown
        assert "6.1 % [4.0, 8.2]" in shown
        assert max(map(len, shown.splitlines())) <= 100
    block = "█" if encoding == "utf-8" else "@"
    assert f"layers left to right, {block} = " in summary


def test_a_sparkline_in_ascii_grows_with_its_values() -> None:
    line = tables.sparkline([i / 8 for i in range(9)], 1.0)
    assert line == tables.BLOCKS
    assert wording.encodable(line, "ascii") == " :-=+*#%@"


@pytest.mark.parametrize("deviated", ["", "the table was changed"])
def test_a_long_statistic_takes_no_room_from_layer_and_step(deviated: str) -> None:
    rows = [
        case.verdict(
            f"E{i}", outcome, **{"class": "subtract"}, estimate=0.1, low=low, high=0.3, layer=28, step=700,
            statistic="gain of own-class mass over what else there is, since step 0", deviated=deviated,
        )
        for i, (outcome, low) in enumerate((("inconclusive", -0.25), ("supported", 0.05)))
    ]  # fmt: skip
    lines = tables.plain(tables.verdict_table(rows), 100).splitlines()
    assert "layer   step   statistic" in lines[0]
    assert max(map(len, lines)) <= 100
    assert all("L28" in line and "700" in line for line in lines if "E" in line[:2])
