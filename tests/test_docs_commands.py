"""Every command and every example of the documentation is run on a tiny model; the slow ones, as they stand.

A command is a line of a `sh`, `bash` or `console` block or of an indented one, or inline code that begins
with a program and has an argument. One that no check here knows fails: it cannot be documented unchecked.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
import webbrowser
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import report_case
import small
import tiny
import typer.main

from emergence.cli import main as cli
from emergence.models import loading as models
from emergence.models.loading import EMBEDDED
from emergence.report import records

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SHELL = {"sh", "bash", "console", "indented"}
SHOWN = {"", "json", "yaml", "python"}
"""What other blocks hold: output, files (held against the real ones in tests/test_own_task.py), examples."""
PROGRAMS = {"emergence", "pytest", "python", "python3", "pip", "uv", "mlx_lm.generate", "ruff", "mypy"}
MAIN_JOB = "emergence run classifier_emergence -p training.lora.rank=8 --seeds 1"


def _blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    """(language, lines) of each fenced block, and of each indented one after an empty line."""
    fenced = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    for language, content in fenced.findall(text):
        yield language, content.splitlines()
    for content in re.findall(r"(?<=\n\n)(?: {4}.*\n)+", fenced.sub("", text)):
        yield "indented", [line[4:] for line in content.splitlines()]


def _commands() -> list[str]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = ("\n".join(block) for language, block in _blocks(text) if language in SHELL)
        lines = [line for block in blocks for line in block.replace("\\\n", "").splitlines()]
        found += [part for line in lines for part in line.split("  #")[0].split(" && ")]
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
        inline = re.findall(r"`([^`\n]+ [^`\n]+)`", prose)
        found += [code for code in inline if code.split()[0] in PROGRAMS]
    return list(dict.fromkeys(command.strip() for command in found if command.strip()))


COMMANDS = _commands()


def _words(command: str) -> list[str]:
    """Its words, without the environment variables before them, which something here must read."""
    words = shlex.split(command)
    while re.match(r"[A-Z_]+=", words[0]):
        name = words.pop(0).split("=")[0]
        sources = [*ROOT.glob("emergence/**/*.py"), *ROOT.glob("tests/**/*.py")]
        assert any(f'"{name}"' in path.read_text(encoding="utf-8") for path in sources), (
            f"nothing reads {name}"
        )
    return words


def _asks_pytest(command: str) -> list[str] | None:
    """Pytest's arguments, if the command ends in pytest."""
    if not any(name in command for name in ("pytest", "run.py")):
        return None
    program, *rest = _words(command)
    if program == "uv" and rest[:1] == ["run"]:
        program, *rest = rest[1:]
    if program == "python3" and rest[:1] == ["run.py"]:
        door = runpy.run_path(str(ROOT / "run.py"))
        job, options, _ = door["_parse"](rest[1:])
        return [job, *door["JOBS"][job], *options, *(["-n", "0"] if job == "tests" else [])]
    return rest if program == "pytest" else None


def test_every_block_is_a_command_or_something_known() -> None:
    assert len(COMMANDS) > 30
    for page in PAGES:
        for language, lines in _blocks(page.read_text(encoding="utf-8")):
            assert language in SHELL | SHOWN, f"{page.name}: what is a block of {language!r}?"
            hidden = [line for line in lines if line.split(" ")[0] in PROGRAMS]
            assert language in SHELL or not hidden, f"{page.name}: commands outside of a sh block: {hidden}"


@pytest.mark.parametrize(
    "command", ["frobnicate --all", "git clone x", "python3 setup.py", "pip frobnicate x"]
)
def test_a_command_that_nothing_checks_is_refused(command: str) -> None:
    with pytest.raises(AssertionError):
        _check_other(command)


# pytest


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """How pytest's own parser and collection ended for each of its commands: exit codes, and all it said."""
    place = tmp_path_factory.mktemp("collected")
    tiny.write_model(place / "path" / "to" / "a" / "folder")
    asked = {command: _located(args) for command in COMMANDS if (args := _asks_pytest(command)) is not None}
    (place / "asked.json").write_text(json.dumps(asked))
    code = (
        "import json, pytest; asked = json.load(open('asked.json'));"
        "more = ['--collect-only', '-p', 'no:cacheprovider', '-W', 'ignore:Not saving'];"
        "codes = {c: int(pytest.main([*a, *more])) for c, a in asked.items()};"
        "json.dump(codes, open('codes.json', 'w'))"
    )
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    ran = subprocess.run([sys.executable, "-c", code], cwd=place, env=alone, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return {"codes": json.loads((place / "codes.json").read_text()), "said": ran.stdout + ran.stderr}


def _located(arguments: list[str]) -> list[str]:
    """The same for any current folder; for all of `tests`, of which this is one, a single file stands."""
    paths = [str(ROOT / a) if (ROOT / a).exists() else a for a in arguments]
    return [str(ROOT / "tests" / "test_docs.py") if path == str(ROOT / "tests") else path for path in paths]


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if _asks_pytest(c) is not None])
def test_pytest_understands_it_and_finds_tests(collected: dict[str, Any], command: str) -> None:
    assert collected["codes"][command] == 0, collected["said"]


# emergence


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the documented main job has run: the experiments of this repository, on a tiny model."""
    place = tmp_path_factory.mktemp("home")
    small.hypotheses(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr("emergence.report.figures.write", report_case.draw_little)
        assert _main(MAIN_JOB) in (0, 1)
    for saved in sorted((place / ".emergence" / "runs").glob("*/checkpoints/*"))[1:3]:
        shutil.copytree(saved, place / "my-run" / f"checkpoint-{int(saved.name)}")
    return place


def _main(command: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(shlex.split(command)[1:])
    return int(ended.value.code or 0)


def _tiny(command: str) -> str:
    """The same of the tiny model in `model`."""
    if command.startswith("emergence show") and "--model" not in command:
        command += " --model model"
    example = "model" if "--check" in command else "classifier_emergence"
    command = command.replace(EMBEDDED, "model").replace(" NAME", f" {example}")
    (key, *_) = sorted(path.parent.name for path in Path(".emergence/runs").glob("*/manifest.json"))
    return command.replace(" KEY ", f" {key} ")


OURS = [c for c in COMMANDS if c.startswith("emergence ")]
BARE = [c for c in OURS if len(c.split()) == 2 and c != "emergence list"]
"""Only the name of a verb, in a sentence."""


@pytest.mark.parametrize("command", BARE)
def test_verbs_that_are_spoken_of_exist(command: str) -> None:
    group: Any = typer.main.get_command(cli.app)
    assert command.split()[1] in group.commands


APART = ("--get", "--against", "--report-to", "--launch", "--shared-store")
SWEPT = [c for c in OURS if c.startswith("emergence sweep ") and "--dry-run" not in c]
ELSEWHERE_RUN = [c for c in OURS if c in SWEPT or any(option in c for option in APART)]
"""What needs an index, torch, a tracker or several processes: tests of `tests/models`, `tests/training`,
`tests/cli` and `tests/sweep` run it."""


@pytest.mark.parametrize("command", ELSEWHERE_RUN)
def test_options_that_are_spoken_of_exist(command: str) -> None:
    group: Any = typer.main.get_command(cli.app)
    _, verb, *words = command.split()
    known = {name for option in group.commands[verb].params for name in option.opts}
    assert {word for word in words if word.startswith("--")} <= known


HERE = sorted((c for c in OURS if c not in (*BARE, *ELSEWHERE_RUN)), key=lambda c: " judge " in c)
"""Judging somebody's series comes last: its results are the latest then."""


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("command", HERE)
def test_verbs_do_as_documented(
    home: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.chdir(home)
    if command != MAIN_JOB:  # which has run before all others
        assert _main(_tiny(command)) == 0, capsys.readouterr().err
        assert capsys.readouterr().out
    assert bool(opened) == ("--open" in command)


def test_the_record_of_the_main_job_holds_its_config_and_no_path_of_this_machine(home: Path) -> None:
    (record,) = records.run_records(home / ".emergence" / "experiments" / "classifier_emergence")
    assert record["status"] == "success"
    assert record["config"]["model"] == "model"
    assert [arm["lora"]["rank"] for arm in record["config"]["arms"]] == [8, 8, 8]
    assert str(home) not in json.dumps(record)


# Everything else


def _check_other(command: str) -> None:
    program, *rest = _words(command)
    check = _CHECKS.get(Path(program).name)
    assert check, f"{command}: no check for commands of this kind; write one"
    check(rest)


def _check_python(words: list[str]) -> None:
    assert words[0] == "-m", "run a module, or run.py"
    assert importlib.util.find_spec(words[1])


def _check_pip(words: list[str]) -> None:
    assert words[0] == "install"
    named = [*PROJECT["dependency-groups"]["dev"], PROJECT["project"]["name"]]
    named += [d.split(">")[0] for d in PROJECT["project"]["optional-dependencies"]["sweep"]]
    for previous, word in itertools.pairwise(words):
        if previous in ("-r", "-e"):
            assert (ROOT / word).exists(), word
        else:
            assert word in ("-r", "-e", "--no-deps") or word in named, word


def _check_generate(words: list[str]) -> None:
    parser = importlib.import_module("mlx_lm.generate").setup_arg_parser()
    given = parser.parse_args(words)
    assert given.adapter_path.endswith("checkpoints/0000300")
    assert given.ignore_chat_template  # or mlx-lm puts the prompt into the model's chat template


def _check_tool(words: list[str]) -> None:
    assert set(words) <= {"format", "check", "."}
    assert {"ruff", "mypy"} <= {
        re.split(r"\W", d)[0] for d in PROJECT["project"]["optional-dependencies"]["dev"]
    }


_CHECKS = {
    "python": _check_python,
    "pip": _check_pip,
    "mlx_lm.generate": _check_generate,
    "ruff": _check_tool,
    "mypy": _check_tool,
}


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in OURS and _asks_pytest(c) is None])
def test_other_programs_are_given_what_there_is(command: str) -> None:
    _check_other(command)


# Examples in Python


def _examples(page: str) -> list[str]:
    text = next(p for p in PAGES if p.name == page).read_text(encoding="utf-8")
    return ["\n".join(lines) for language, lines in _blocks(text) if language == "python"]


LENS = [(page, code) for page in ("README.md", "api.md", "start.md") for code in _examples(page)]
ELSEWHERE = {"data.md": 1, "extending.md": 5, "upstream.md": 7}
"""Run by test_docs.py and test_upstream.py, and by tasks/test_examples.py but for the last one."""


def test_every_python_example_is_run() -> None:
    found = {page.name: len(_examples(page.name)) for page in PAGES if _examples(page.name)}
    assert found == ELSEWHERE | Counter(page for page, _ in LENS)


@pytest.mark.parametrize(
    "code", [code for _, code in LENS], ids=[f"{page}-{i}" for i, (page, _) in enumerate(LENS)]
)
def test_examples_of_the_lens_run(home: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    assert EMBEDDED in code
    names: dict[str, Any] = {}
    exec(code.replace(EMBEDDED, "model"), names)
    assert names["reading"].log_mass.shape[0] == 4


def test_the_documented_test_asserts_a_row_for_every_class(tmp_path: Path) -> None:
    folder = small.hypotheses(tmp_path) / "classifier_emergence"
    (folder / "test_named.py").write_text(_examples("extending.md")[-1], encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-q",
        "-m",
        "slow",
        str(folder / "test_named.py"),
    ]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr
    for cls in ("add", "subtract", "multiply"):
        assert f"::test_answer_classifier_emerges[classifier_emergence-E1-{cls}]" in told.stdout


@pytest.mark.slow
def test_what_needs_the_embedded_model_runs_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.hypotheses(tmp_path)
    monkeypatch.chdir(tmp_path)
    models.resolve(EMBEDDED)
    for command in (c for c in OURS if EMBEDDED in c or c.startswith("emergence show")):
        assert _main(command) == 0, command
    for _, code in LENS:
        exec(code, {})
