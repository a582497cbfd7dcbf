"""The verbs: `emergence list | info | run | judge | status | report | models | store`.

Exit codes: 0 all as expected, 1 a verdict failed or changed, 2 usage, 3 broken experiment. `run` is pytest
underneath: the same fixtures, the same verdicts.
"""

from __future__ import annotations

import json
import os
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import BrokenExperiment, EmergenceError, UsageError
from ..store import Store, default_root
from ..wording import first_line, substitute_unencodable
from . import catalogue

OK, VERDICT, USAGE, BROKEN, INTERRUPTED = 0, 1, 2, 3, 130

app = typer.Typer(
    help="Test claims about what training does inside language models.",
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
)  # fmt: skip
store_app = typer.Typer(
    help="Look at, check and clear what is kept.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(store_app, name="store")

Name = Annotated[str, typer.Argument(help="The experiment: a folder's name in hypotheses/, or its path.")]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="Another config.yaml.")]
Param = Annotated[
    list[str] | None, typer.Option("--param", "-p", metavar="KEY=VALUE", help="One config value; beats -c.")
]
Model = Annotated[str | None, typer.Option(help="Embedded name, hub id or folder.")]
Steps = Annotated[str | None, typer.Option(metavar="N[,N...]", help="Last step, or all checkpoints.")]
Seeds = Annotated[int | None, typer.Option(help="Number of seeds.")]
StoreOption = Annotated[Path | None, typer.Option("--store", help="Where runs are kept [.emergence/].")]
Folder = Annotated[Path | None, typer.Option("--experiments-dir", help="Folder of experiments [hypotheses].")]
Key = Annotated[
    str | None, typer.Option("--key", help="Results of this config and model; `status --all` lists the keys.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb; every error that a person can act on is one line on stderr and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        substitute_unencodable(stream)
    try:
        code = app(list(sys.argv[1:] if arguments is None else arguments), standalone_mode=False)
        sys.stdout.flush()
    except BrokenExperiment as error:
        code = _say(str(error), BROKEN)
    except EmergenceError as error:
        code = _say(str(error), USAGE)
    except typer.TyperException as error:
        code = _say(f"{error.format_message().rstrip('.')}; see emergence --help", USAGE)
    except (KeyboardInterrupt, typer.Abort):
        code = _say("interrupted; nothing was lost", INTERRUPTED)
    except (BrokenPipeError, SystemExit):
        # Who reads has read enough, as `head -1` has; typer and rich tell it by SystemExit. What is left in
        # the buffer goes nowhere, or Python would complain of it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = OK
    sys.exit(code if isinstance(code, int) else OK)


def _say(text: str, code: int) -> int:
    print(f"emergence: {text}", file=sys.stderr)
    return code


def _note(text: str) -> None:
    print(text, file=sys.stderr)


def _store(given: Path | None) -> Store:
    return Store(given or default_root(Path.cwd()))


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else 100)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _find(name: str, experiments_dir: Path | None, store: Path | None) -> tuple[catalogue.Listed, Store]:
    """An experiment by its name, and the store that it keeps its runs in."""
    folder = catalogue.root(experiments_dir)
    kept = Store(store or default_root(folder))
    return catalogue.find(name, folder, kept.root), kept


def _settled(
    one: catalogue.Listed, store: Store, config: Path | None, param: list[str] | None, **options: Any
) -> Any:
    """The experiment with every option applied, config and claims checked; nothing is loaded."""
    from ..config import parse_override
    from ..experiment import Experiment

    overrides = dict(parse_override(p) for p in param or [])
    overrides |= {name: value for name, value in options.items() if value is not None}
    experiment = Experiment(one.folder, overrides, store, file=config)
    _ = experiment.notices
    return experiment


@app.command("list")
def list_(store: StoreOption = None, experiments_dir: Folder = None, as_json: AsJson = False) -> None:
    """Experiments, their claims and whether there are results."""
    folder = catalogue.root(experiments_dir)
    found = list(catalogue.every(folder, store or default_root(folder)))
    if as_json:
        _print_json([_listed(one) for one in found])
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("name", "results", "description"):
        table.add_column(column, header_style="dim", no_wrap=column != "description")
    for one in found:
        said = _listed(one)
        table.add_row(Text(one.name), "yes" if said["has_results"] else "none yet", Text(said["description"]))
    _console().print(table if found else f"no experiments in {folder}")


def _listed(one: catalogue.Listed) -> dict[str, Any]:
    from .. import config

    try:
        description = config.load(one.folder / catalogue.CONFIG).description
    except UsageError as error:
        description = f"(cannot be used: {first_line(error)})"
    there = one.results is not None
    return {"name": one.name, "description": description, "path": str(one.folder), "has_results": there}


@app.command()
def info(
    name: Name,
    config: Config = None,
    param: Param = None,
    store: StoreOption = None,
    experiments_dir: Folder = None,
    as_json: AsJson = False,
) -> None:
    """What an experiment claims, trains and reads."""
    from . import plan

    one, kept = _find(name, experiments_dir, store)
    experiment = _settled(one, kept, config, param)
    if as_json:
        claims = [{"id": p.id, "claim": p.claim, "arm": p.arm} for p in experiment.predictions]
        said: dict[str, Any] = {"name": one.name, "description": experiment.config.description}
        said |= {"path": str(one.folder), "config": experiment.config.model_dump(mode="json")}
        _print_json(said | {"predictions": claims, "has_results": one.results is not None})
        return
    _console().print(plan.described(experiment))
    for notice in experiment.config.notices:
        print(f"note: {notice}")


@app.command()
def run(
    name: Name,
    config: Config = None,
    param: Param = None,
    model: Model = None,
    steps: Steps = None,
    seeds: Seeds = None,
    store: StoreOption = None,
    experiments_dir: Folder = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained and what is cached.")
    ] = False,
    strict_verdicts: Annotated[bool, typer.Option("--strict-verdicts", help="Inconclusive fails.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> int:
    """Train, read and judge; the verdicts come from pytest, as `pytest hypotheses -m slow` gives them."""
    from . import plan, run

    one, kept = _find(name, experiments_dir, store)
    experiment = _settled(one, kept, config, param, model=model, steps=steps, seeds=seeds)
    if dry_run:
        _console().print(plan.plan(experiment))
        return OK
    options = {"config": config, "model": model, "steps": steps, "seeds": seeds, "store": kept.root}
    flags = [f"--emergence-{key}={value}" for key, value in options.items() if value is not None]
    flags += [f"--emergence-param={p}" for p in param or []]
    flags += ["--emergence-strict-verdicts"] * strict_verdicts + ["-q"] * quiet
    ended = run.run(experiment, flags)
    return _say(ended.message, ended.code) if ended.message else ended.code


@app.command()
def judge(
    checkpoints: Annotated[Path, typer.Argument(help="A series: adapters of mlx-lm or peft, by step.")],
    base: Annotated[str, typer.Option(help="The model that they were trained on.")],
    experiment: Annotated[
        str, typer.Option(help="Whose claims they are judged by.")
    ] = "classifier_emergence",
    arm: Annotated[str, typer.Option(help="The arm whose part they play in them.")] = "sft",
    param: Param = None,
    store: StoreOption = None,
    experiments_dir: Folder = None,
) -> int:
    """Judge checkpoints that somebody trained: a table of verdicts and a report; nothing is trained."""
    from ..config import parse_override
    from ..progress import for_stream
    from ..report import tables
    from .judge import given

    one, kept = _find(experiment, experiments_dir, store)
    overrides = dict(parse_override(p) for p in param or [])
    progress = for_stream(sys.stderr)  # type: ignore[arg-type]
    made, left = given(one.folder, base, checkpoints, arm, overrides, kept, progress)
    for line in made.notices:
        _note(line)
    verdicts = made.verdicts
    _console().print(tables.verdict_report(verdicts))
    if left:
        print(f"not measurable with this series alone: {', '.join(left)}")
    print(f"report: {made.report()}")
    return VERDICT if any(v.outcome == "falsified" for v in verdicts) else OK


@app.command()
def status(
    name: Name,
    key: Key = None,
    show_all: Annotated[
        bool, typer.Option("--all", help="Every run and all results, not just the latest.")
    ] = False,
    as_json: AsJson = False,
    store: StoreOption = None,
    experiments_dir: Folder = None,
) -> None:
    """The latest run and its verdicts."""
    from ..report import results, tables

    one, _ = _find(name, experiments_dir, store)
    if as_json:
        said = one.status(key)
        _print_json(said | {"runs": one.runs()} if show_all else said)
        return
    runs = one.runs()
    folder = one.require_results(key) if one.results or not runs else None
    for record in runs if show_all else runs[-1:]:
        print(_run_line(record))
    if folder:
        content, verdicts = results.read_verdicts(folder)
        print(f"{content['experiment']} on {content['model']}, {content['created']}\n")
        _console().print(tables.verdict_report(verdicts))
        print(f"report: {folder / 'report.html'}")
    for other in one.known() if show_all else ():
        print(f"results {other.name}{' (shown)' if other == folder else ''}")


def _run_line(record: dict[str, Any]) -> str:
    seconds = record.get("duration_seconds") or 0.0
    started = str(record.get("started_at", "unknown"))[:19]
    error = f": {str(record['error']).splitlines()[0]}" if record.get("error") else ""
    return f"{record['file']}  {started}  {record.get('status')} ({seconds:.1f} s){error}"


@app.command()
def report(
    name: Name,
    key: Key = None,
    out: Annotated[Path | None, typer.Option(help="Write the page here instead.")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    store: StoreOption = None,
    experiments_dir: Folder = None,
) -> None:
    """Draw the report again from the results that are kept; trains and reads nothing."""
    from ..report import page as pages

    one, _ = _find(name, experiments_dir, store)
    folder = one.require_results(key)
    target = out / pages.PAGE if out and out.is_dir() else out
    page = pages.render(folder, target, _note)
    print(page)
    if gone := pages.missing(folder):
        again = f"`emergence run {one.name}` writes them again, and trains nothing"
        _say(f"{', '.join(gone)}: no longer there; {again}", OK)
    if open_:
        webbrowser.open(page.resolve().as_uri())


@app.command("models")
def models_(
    check: Annotated[
        str | None, typer.Option(metavar="NAME", help="Load it and prove the lens on it.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="transformers", help="With --check: compare its logits with torch's."),
    ] = None,
    get: Annotated[
        str | None, typer.Option(metavar="gemma-3-270m", help="Show a model's terms, and fetch it.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --get: agree to the terms.")] = False,
    store: StoreOption = None,
) -> None:
    """Models at hand; `--check NAME` says whether the lens can serve one, and how exactly."""
    from . import models

    kept = _store(store)
    if get is not None:
        print(models.terms(get))
        if not yes and not sys.stdin.isatty():
            raise UsageError("--get asks whether you agree to these terms; --yes says so beforehand")
        if not yes:
            typer.confirm("Do you agree to them?", abort=True)
        print(models.fetched(get, kept))
        return
    if check is None:
        _console().print(models.at_hand(kept))
        print("any model that mlx-lm loads is one `--model owner/name` or `--model FOLDER` away")
        return
    print(models.proven(check, kept, against))


@app.command()
def show(
    prompt: str,
    model: Annotated[str, typer.Option(help="Embedded name, hub id or folder.")] = "smollm2-135m-instruct",
    chat: Annotated[bool, typer.Option("--chat", help="Put the prompt in the model's template.")] = False,
    store: StoreOption = None,
) -> None:
    """One prompt, layers × positions: the likeliest token in each cell, under the exact tokens fed."""
    from . import models

    _console().print(models.drawn(prompt, model, chat, _store(store)))


@store_app.command("list")
def store_list(store: StoreOption = None) -> None:
    """Everything that is kept, oldest first."""
    from . import store as keeping

    _console().print(keeping.table(_store(store)))


@store_app.command("verify")
def store_verify(store: StoreOption = None) -> int:
    """Hash every file of every entry; exit 3 if one is damaged."""
    from . import store as keeping

    lines, sound = keeping.verify(_store(store))
    print("\n".join(lines))
    return OK if sound else BROKEN


@store_app.command("remove")
def store_remove(
    keys: Annotated[list[str] | None, typer.Argument(help="Keys as `store list` shows them.")] = None,
    older_than: Annotated[int | None, typer.Option(metavar="DAYS", min=0, help="Only older ones.")] = None,
    state: Annotated[str | None, typer.Option(help="Only partial, corrupt or damaged ones.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Even if results rest on it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    store: StoreOption = None,
) -> None:
    """Remove entries, and what is nested in them, by key, age or state; asks first."""
    from . import store as keeping

    kept = _store(store)
    chosen = keeping.choose(kept, keys or [], older_than, state, force)
    _console().print(keeping.listed(chosen))
    if not yes:
        typer.confirm(f"Remove {len(chosen)} of them for good?", abort=True)
    keeping.remove(kept, chosen)
    print(f"removed {len(chosen)}")
