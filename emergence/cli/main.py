"""The verbs: `emergence list | info | run | status | report | models | store`.

Exit codes: 0 all as expected, 1 a verdict failed or changed, 2 usage, 3 broken experiment. `run` is pytest
underneath: the same fixtures, the same verdicts.
"""

from __future__ import annotations

import json
import sys
import webbrowser
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import BrokenExperiment, EmergenceError, UsageError
from ..store.locks import locked
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
StoreOption = Annotated[Path, typer.Option("--store", help="Where runs are kept.")]
Folder = Annotated[Path | None, typer.Option("--experiments-dir", help="Folder of experiments [hypotheses].")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
STORE = Path(".emergence")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb; every error that a person can act on is one line on stderr and an exit code."""
    try:
        code = app(list(sys.argv[1:] if arguments is None else arguments), standalone_mode=False)
    except BrokenExperiment as error:
        code = _say(str(error), BROKEN)
    except EmergenceError as error:
        code = _say(str(error), USAGE)
    except typer.TyperException as error:
        code = _say(f"{error.format_message().rstrip('.')}; see emergence --help", USAGE)
    except (KeyboardInterrupt, typer.Abort):
        code = _say("interrupted; nothing was lost", INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        code = OK
    sys.exit(code if isinstance(code, int) else OK)


def _say(text: str, code: int) -> int:
    print(f"emergence: {text}", file=sys.stderr)
    return code


def _note(text: str) -> None:
    print(text, file=sys.stderr)


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else 100)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


@app.command("list")
def list_(store: StoreOption = STORE, experiments_dir: Folder = None, as_json: AsJson = False) -> None:
    """Experiments, their claims and whether there are results."""
    folder = catalogue.root(experiments_dir)
    found = list(catalogue.every(folder, store))
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
    from ..config import loading as config

    try:
        description = config.load(one.folder / catalogue.CONFIG).description
    except UsageError as error:
        description = f"(cannot be used: {str(error).splitlines()[0]})"
    there = one.has_results
    return {"name": one.name, "description": description, "path": str(one.folder), "has_results": there}


@app.command()
def info(
    name: Name,
    config: Config = None,
    param: Param = None,
    store: StoreOption = STORE,
    experiments_dir: Folder = None,
    as_json: AsJson = False,
) -> None:
    """What an experiment claims, trains and reads."""
    from . import plan as planning

    one = catalogue.find(name, catalogue.root(experiments_dir), store)
    experiment, predictions = planning.settle(one, config, param or [], None, None, None)
    if as_json:
        claims = [{"id": p.id, "claim": p.claim, "arm": p.arm} for p in predictions]
        said: dict[str, Any] = {"name": one.name, "description": experiment.description}
        said["path"] = str(one.folder)
        said |= {"config": experiment.model_dump(mode="json"), "predictions": claims}
        _print_json(said | {"has_results": one.has_results})
        return
    _console().print(planning.described(experiment, predictions))
    for notice in experiment.notices:
        print(f"note: {notice}")


@app.command()
def run(
    name: Name,
    config: Config = None,
    param: Param = None,
    model: Model = None,
    steps: Steps = None,
    seeds: Seeds = None,
    store: StoreOption = STORE,
    experiments_dir: Folder = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained and what is cached.")
    ] = False,
    strict_verdicts: Annotated[bool, typer.Option("--strict-verdicts", help="Inconclusive fails.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> int:
    """Train, read and judge; the verdicts come from pytest, as `pytest hypotheses -m slow` gives them."""
    from . import plan as planning
    from . import run as running

    one = catalogue.find(name, catalogue.root(experiments_dir), store)
    experiment, predictions = planning.settle(one, config, param or [], model, steps, seeds)
    if dry_run:
        _console().print(planning.plan(experiment, predictions, store))
        return OK
    options = {"config": config, "model": model, "steps": steps, "seeds": seeds, "store": store}
    flags = [f"--emergence-{key}={value}" for key, value in options.items() if value is not None]
    flags += [f"--emergence-param={p}" for p in param or []]
    flags += ["--emergence-strict-verdicts"] * strict_verdicts + ["-q"] * quiet
    ended = running.run(one, experiment, flags, store)
    if ended.message:
        _say(ended.message, ended.code)
    return ended.code


@app.command()
def status(
    name: Name,
    show_all: Annotated[bool, typer.Option("--all", help="Every run, not just the latest.")] = False,
    as_json: AsJson = False,
    store: StoreOption = STORE,
    experiments_dir: Folder = None,
) -> None:
    """The latest run and its verdicts."""
    from ..report import results, tables

    one = catalogue.find(name, catalogue.root(experiments_dir), store)
    said = one.status()
    if as_json:
        _print_json(said | {"runs": one.runs()} if show_all else said)
        return
    if not said["has_results"]:
        raise UsageError(
            f"{one.name}: no results yet in {one.results}; `emergence run {one.name}` makes some"
        )
    for record in one.runs() if show_all else one.runs()[-1:]:
        print(_run_line(record))
    if one.has_results:
        content, verdicts = results.read_verdicts(one.results)
        print(f"{content['experiment']} on {content['model']}, {content['created']}\n")
        _console().print(tables.verdict_report(verdicts))
        print(f"report: {one.results / 'report.html'}")


def _run_line(record: dict[str, Any]) -> str:
    seconds = record.get("duration_seconds") or 0.0
    started = str(record.get("started_at", "unknown"))[:19]
    error = f": {str(record['error']).splitlines()[0]}" if record.get("error") else ""
    return f"{record['file']}  {started}  {record.get('status')} ({seconds:.1f} s){error}"


@app.command()
def report(
    name: Name,
    out: Annotated[Path | None, typer.Option(help="Write the page here instead.")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    store: StoreOption = STORE,
    experiments_dir: Folder = None,
) -> None:
    """Draw the report again from the results that are kept; trains and reads nothing."""
    from ..report import page as pages

    one = catalogue.find(name, catalogue.root(experiments_dir), store)
    if not one.has_results:
        raise UsageError(
            f"{one.name}: no results yet in {one.results}; `emergence run {one.name}` makes some"
        )
    target = out / pages.PAGE if out and out.is_dir() else out
    # A run that ends meanwhile writes the same page.
    with locked(one.results / "report", _note) if out is None else nullcontext():
        page = pages.render(one.results, target)
    print(page)
    if gone := pages.missing(one.results):
        again = f"`emergence run {one.name}` writes them again, and trains nothing"
        _say(f"{', '.join(gone)}: no longer there; {again}", OK)
    if open_:
        webbrowser.open(page.resolve().as_uri())


@app.command("models")
def models_(
    check: Annotated[
        str | None, typer.Option(metavar="NAME", help="Load it and prove the lens on it.")
    ] = None,
    store: StoreOption = STORE,
) -> None:
    """Models at hand; `--check NAME` says whether the lens can serve one, and how exactly."""
    from . import run as running

    if check is None:
        _console().print(running.at_hand(store))
        print("any model that mlx-lm loads is one `--model owner/name` or `--model FOLDER` away")
        return
    print(running.proven(check, store))


@app.command()
def show(
    prompt: str,
    model: Annotated[str, typer.Option(help="Embedded name, hub id or folder.")] = "smollm2-135m-instruct",
    chat: Annotated[bool, typer.Option("--chat", help="Put the prompt in the model's template.")] = False,
    store: StoreOption = STORE,
) -> None:
    """One prompt, layers × positions: the likeliest token in each cell, under the exact tokens fed."""
    from . import run as running

    _console().print(running.drawn(prompt, model, chat, store))


@store_app.command("list")
def store_list(store: StoreOption = STORE) -> None:
    """Everything that is kept, oldest first."""
    from . import store as keeping

    _console().print(keeping.table(store))


@store_app.command("verify")
def store_verify(store: StoreOption = STORE) -> int:
    """Hash every file of every entry; exit 3 if one is damaged."""
    from . import store as keeping

    lines, sound = keeping.verify(store)
    print("\n".join(lines))
    return OK if sound else BROKEN


@store_app.command("remove")
def store_remove(
    keys: Annotated[list[str] | None, typer.Argument(help="Keys as `store list` shows them.")] = None,
    older_than: Annotated[int | None, typer.Option(metavar="DAYS", min=0, help="Only older ones.")] = None,
    state: Annotated[str | None, typer.Option(help="Only partial, corrupt or damaged ones.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Even if results rest on it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    store: StoreOption = STORE,
) -> None:
    """Remove entries, and what is nested in them, by key, age or state; asks first."""
    from . import store as keeping

    chosen = keeping.choose(store, keys or [], older_than, state, force)
    _console().print(keeping.listed(chosen))
    if not yes:
        typer.confirm(f"Remove {len(chosen)} of them for good?", abort=True)
    keeping.remove(store, chosen)
    print(f"removed {len(chosen)}")
