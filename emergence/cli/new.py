"""`emergence new`: a folder that runs, from one of the experiments that come with the package.

In: a name, a template, the folder of experiments. Out: the folder, and the next steps.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..errors import UsageError
from ..wording import did_you_mean, quoted
from .catalogue import CONFIG, FOLDER

TEMPLATES = {
    "examples": "prompts, classes and words of your own, in a file; minutes",
    "classifier_emergence": "arithmetic, with an objective and controls; an hour on two cores",
}
"""What there is to start from; each is an experiment of `hypotheses/`."""
_ORIGINALS = Path(__file__).parent / "templates"
_CONFTEST = 'pytest_plugins = ["emergence.fixtures"]'
_PREDICTIONS = (
    '''"""What is claimed: frozen before a run. A change raises VERSION and is a commit that says why."""'''
)


def write(name: str, template: str, experiments: Path) -> tuple[Path, list[str]]:
    """Write `experiments/name`, whole or not at all; return it with the next steps, a line each.

    Raises
    ------
    UsageError
        No such template, no name for an experiment, or the folder is there.
    """
    from ..config.schema import Layout

    if template not in TEMPLATES:
        known = ", ".join(TEMPLATES)
        raise UsageError(f"--from {template}{did_you_mean(template, TEMPLATES)}; there are: {known}")
    pattern = Layout.model_json_schema()["properties"]["name"]["pattern"]
    if not re.fullmatch(pattern, name) or len(name) > 64:
        raise UsageError(f"{quoted(name)}: a name has letters, digits, `_`, `-`, `.`; at most 64 of them")
    place = experiments / name
    if os.path.lexists(place):
        raise UsageError(f"{place}: is there already; choose another name, or remove it")
    experiments.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=experiments) as aside:
        made = Path(aside) / name
        made.mkdir()
        _copy(_ORIGINALS / template, made, name)
        made.rename(place)
    return place, _next_steps(place, _conftest(experiments.parent))


def _copy(origin: Path, made: Path, name: str) -> None:
    for path in sorted(origin.iterdir()):
        if path.suffix in (".py", ".yaml", ".jsonl"):  # findings are those of the original
            shutil.copyfile(path, made / path.name)
    # Two files of one name in folders that are no packages: pytest would refuse the second one.
    (made / "test_claims.py").rename(made / f"test_{re.sub(r'[^A-Za-z0-9_]', '_', name)}.py")
    config, predictions = made / CONFIG, made / "predictions.py"
    config.write_text(_config(config.read_text(encoding="utf-8"), name), encoding="utf-8")
    table = predictions.read_text(encoding="utf-8").split('"""', 2)[2]
    table = re.sub(r"(?m)^(# \d.*\n)?VERSION = .*$", "VERSION = 1", table)
    predictions.write_text(_PREDICTIONS + table, encoding="utf-8")


def _config(text: str, name: str) -> str:
    """The config under its new name, with what a field means above it where nothing is said of it yet."""
    from ..config.schema import Layout

    head = "# Every field, and what else there is, stands in docs/configuration.md of emergence.\n"
    body = re.sub(r"\A(#.*\n)+", "", text)
    body = re.sub(r"(?m)^name: .*$", f"name: {name}", body)
    lines, written = body.splitlines(), [head.rstrip()]
    meanings = dict(_meanings(yaml.compose(body), Layout.model_json_schema()))
    for number, line in enumerate(lines):
        said = number and lines[number - 1].lstrip().startswith("#")
        if number in meanings and not said:
            indent = line[: len(line) - len(line.lstrip())]
            written += textwrap.wrap(meanings[number], 100, initial_indent=f"{indent}# ",
                                     subsequent_indent=f"{indent}# ")  # fmt: skip
        written.append(line)
    return "\n".join(written) + "\n"


def _meanings(node: Any, schema: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """Line of each field of the file, `training` and `parameters`, and what the schema says of it."""
    parts = {"training": schema["$defs"]["Training"], "parameters": schema["$defs"]["Parameters"]}
    for key, value in node.value:
        if key.value not in parts:
            yield key.start_mark.line, schema["properties"][key.value]["description"]
            continue
        for inner, _ in value.value:
            if said := parts[key.value]["properties"][inner.value].get("description"):
                yield inner.start_mark.line, said


def _conftest(root: Path) -> list[str]:
    """Switch the fixtures on for pytest, or say which line does where a conftest.py is there."""
    path = root / "conftest.py"
    if not path.exists():
        path.write_text(f'"""Switches the fixtures of `emergence` on."""\n\n{_CONFTEST}\n', encoding="utf-8")
        return [f"wrote   {_short(path)}, which switches the fixtures on for pytest"]
    if "emergence.fixtures" in path.read_text(encoding="utf-8"):
        return []
    return [f"add     {_CONFTEST} to {_short(path)}, or pytest finds no fixtures"]


def _next_steps(place: Path, conftest: list[str]) -> list[str]:
    name, here = place.name, _short(place)
    return [
        f"wrote   {here}",
        *conftest,
        f"edit    {here / 'predictions.py'}: what you claim",
        f"edit    {here / CONFIG}: what is trained, asked and looked for",
        f"look    emergence run {name} --dry-run",
        f"run     emergence run {name}   (or: pytest {here} -m slow)",
    ]


def _short(path: Path) -> Path:
    """Seen from here, where it lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def folder(given: Path | None) -> Path:
    """The folder of experiments: the one given, `hypotheses` here or above, or a new one here."""
    if given is not None:
        return given
    here = Path.cwd()
    found = (place / FOLDER for place in (here, *here.parents) if (place / FOLDER).is_dir())
    return next(found, here / FOLDER)
