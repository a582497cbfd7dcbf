"""Provenance reads as a person would write it."""

from __future__ import annotations

import pytest
import report_case as case

from emergence.report import sources


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (32.0, "32"),
        (0.0005, "0.0005"),
        (1e-7, "0.0000001"),
        (0.54, "0.54"),
        (2.5e9, "2500000000"),
        (0.0, "0"),
    ],
)
def test_numbers_have_no_exponent_and_no_empty_digits(value: float, text: str) -> None:
    assert sources.plain(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (725.2, "12 min 5 s"), (12000.0, "3 h 20 min")]
)
def test_durations_are_in_their_own_units(seconds: float, text: str) -> None:
    assert sources.duration(seconds) == text


def test_main_facts_are_a_line_each() -> None:
    known = case.PROVENANCE | {
        "model": {"name": "tiny", "revision": None, "hash": "ab12"}, "training_seconds": 62.36,
        "device": "Device(cpu, 0)",
        "runs": {"sft seed 0": "k", "sft seed 1": "l", "dual_reward seed 0": "m"},
        "machine": "x86_64", "blas": "",
    }  # fmt: skip
    assert dict(sources.summary(known)) == {
        "model": "tiny",
        "weights (SHA-256)": "ab12",
        "runs": "sft, seeds 0, 1; dual_reward, seed 0",
        "training took": "1 min 2 s",
        "claims": "version 3 of the table",
        "computed on": "CPU, x86_64",
        "versions": "mlx 0.32",
    }
    assert sources.summary({}) == []
