"""Help is whole, with examples; `-h`, `--version`, `python -m emergence`, completion by the shell."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from places import HYPOTHESES, ROOT, python_path

from emergence import __version__
from emergence.cli import main as cli
from emergence.cli.options import EXAMPLES

APP: Any = typer.main.get_command(cli.app)
VERBS = [n for n, c in APP.commands.items() if not hasattr(c, "commands")]
VERBS += [f"{n} {inner}" for n, c in APP.commands.items() for inner in getattr(c, "commands", ())]


def _said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_whole_help_with_examples_under_both_names(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, short, _ = _said(capsys, *verb.split(), "-h")
    assert code == 0
    assert short == _said(capsys, *verb.split(), "--help")[1]
    assert "..." not in re.sub(r"\[,\w+\.{3}\]|\{?keys\}?\.{3}|\]\.{3}", "", short)  # but for "one or more"
    assert all(f"\n    {example}\n" in short + "\n" for example in EXAMPLES[verb])


def test_the_list_of_verbs_cuts_no_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for where in ((), ("store",)):
        code, said, _ = _said(capsys, *where, "-h")
        assert code == 0
        assert "..." not in said.replace("[ARGS]...", "")
    whole = " ".join(_said(capsys, "-h")[1].split())
    assert "the verdicts come from pytest, as `pytest hypotheses -m slow` gives them." in whole


def test_no_verb_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert _said(capsys) == _said(capsys, "--help")
    code, _, said = _said(capsys, "store")
    assert code == 2
    assert said.startswith("Usage: emergence store")


@pytest.mark.parametrize("example", [line for lines in EXAMPLES.values() for line in lines])
def test_every_example_is_understood(example: str) -> None:
    command, words = APP, shlex.split(example)[1:]
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context("emergence", words)  # raises where a word or an option is not known


def test_examples_belong_to_verbs_that_there_are() -> None:
    assert set(EXAMPLES) == set(VERBS)


def _process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    known = {**os.environ, "PYTHONPATH": python_path(), **environment}
    command = [sys.executable, "-m", "emergence", *arguments]
    return subprocess.run(command, env=known, cwd=ROOT, capture_output=True, text=True)


def test_the_module_says_its_version() -> None:
    ran = _process("--version")
    assert (ran.returncode, ran.stdout) == (0, f"emergence {__version__}\n")


KNOWN = {path.parent.name for path in HYPOTHESES.glob("*/config.yaml")}


@pytest.mark.parametrize(
    ("typed", "expected"), [("emergence ", set(APP.commands)), ("emergence info ", KNOWN)]
)
def test_the_shell_completes_verbs_and_experiments(typed: str, expected: set[str]) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()))}
    ran = _process(_EMERGENCE_COMPLETE="complete_bash", **words)
    assert set(ran.stdout.split()) == expected, ran.stderr


def test_the_shell_is_told_what_to_source(tmp_path: Path) -> None:
    # The name of the shell is given: here none may be above this process to be detected.
    ran = _process("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    script = tmp_path / "completion.sh"
    script.write_text(ran.stdout)
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    assert "complete -o default -F _emergence_completion emergence" in ran.stdout
