"""The verbs of `emergence`, from `list` to `store`; `cli/options.py` has an example of each.

Exit codes: 0 all as expected, 1 a verdict failed or changed, 2 usage, 3 broken experiment. `run` is pytest
underneath: the same fixtures, the same verdicts.
"""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from .. import __version__, tracking
from ..errors import BrokenExperiment, EmergenceError, UsageError
from ..store import default_root
from ..wording import substitute_unencodable
from . import catalogue, models, share
from . import store as keeping
from .options import (
    BROKEN,
    INTERRUPTED,
    OK,
    USAGE,
    VERDICT,
    AsJson,
    Config,
    Folder,
    Key,
    Model,
    Name,
    Param,
    Quick,
    ReportTo,
    Seeds,
    Steps,
    StoreOption,
    console,
    find,
    group,
    note,
    print_json,
    say,
    settled,
    verb,
)  # fmt: skip

app = group("Test claims about what training does inside language models.")
app.add_typer(keeping.app, name="store")


def _version(asked: bool | None) -> None:
    if asked:
        print(f"emergence {__version__}")
        raise typer.Exit()


@app.callback()
def _whole(
    version: Annotated[
        bool | None,
        typer.Option("--version", is_eager=True, callback=_version, help="Say which version this is."),
    ] = None,
) -> None:
    """Test claims about what training does inside language models."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb; every error that a person can act on is one line on stderr and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        substitute_unencodable(stream)
    try:
        given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
        code = app(given, prog_name="emergence", standalone_mode=False)
        sys.stdout.flush()
    except BrokenExperiment as error:
        code = say(str(error), BROKEN)
    except EmergenceError as error:
        code = say(str(error), USAGE)
    except typer.TyperException as error:
        if "\n" in (said := error.format_message()):  # the help, where a set of verbs is named alone
            note(said)
            sys.exit(USAGE)
        code = say(f"{said.rstrip('.')}; see emergence --help", USAGE)
    except (KeyboardInterrupt, typer.Abort):
        code = say("interrupted; nothing was lost", INTERRUPTED)
    except (BrokenPipeError, SystemExit):
        # Who reads has read enough, as `head -1` has; typer and rich tell it by SystemExit. What is left in
        # the buffer goes nowhere, or Python would complain of it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = OK
    sys.exit(code if isinstance(code, int) else OK)


@verb(app, "list")
def list_(store: StoreOption = None, experiments_dir: Folder = None, as_json: AsJson = False) -> None:
    """Experiments, their claims and whether there are results."""
    folder = catalogue.root(experiments_dir)
    found = list(catalogue.every(folder, store or default_root(folder)))
    if as_json:
        print_json([one.said for one in found])
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("name", "results", "description"):
        table.add_column(column, header_style="dim", no_wrap=column != "description")
    for one in found:
        said = one.said
        table.add_row(Text(one.name), "yes" if said["has_results"] else "none yet", Text(said["description"]))
    console().print(table if found else f"no experiments in {folder}")


@verb(app, "info")
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

    one, kept = find(name, experiments_dir, store)
    experiment = settled(one, kept, config, param)
    if as_json:
        claims = [{"id": p.id, "claim": p.claim, "arm": p.arm} for p in experiment.predictions]
        said: dict[str, Any] = {"name": one.name, "description": experiment.config.description}
        said |= {"path": str(one.folder), "config": experiment.config.model_dump(mode="json")}
        print_json(said | {"predictions": claims, "has_results": one.results is not None})
        return
    console().print(plan.described(experiment))
    for notice in experiment.config.notices:
        print(f"note: {notice}")


@verb(app, "new")
def new(
    name: Annotated[str, typer.Argument(help="Of the experiment and its folder.")],
    template: Annotated[
        str,
        typer.Option(
            "--from", metavar="TEMPLATE", help="What to start from: examples, classifier_emergence."
        ),
    ] = "examples",
    experiments_dir: Folder = None,
) -> None:
    """Write a folder that runs: a config with comments, predictions, the test that asserts them.

    `examples` is a task of your own: prompts, classes and words in a file. `classifier_emergence` is the
    arithmetic of the main job. A folder that is there already is refused.
    """
    from . import new

    _, lines = new.write(name, template, new.folder(experiments_dir))
    print("\n".join(lines))


@verb(app, "run")
def run(
    name: Name,
    config: Config = None,
    param: Param = None,
    model: Model = None,
    steps: Steps = None,
    seeds: Seeds = None,
    quick: Quick = False,
    store: StoreOption = None,
    experiments_dir: Folder = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained and what is cached.")
    ] = False,
    strict_verdicts: Annotated[bool, typer.Option("--strict-verdicts", help="Inconclusive fails.")] = False,
    report_to: ReportTo = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    shared_store: Annotated[
        bool,
        typer.Option("--shared-store", help="Hosts share the store, from now on: locks that hold on NFS."),
    ] = False,
    launch: Annotated[
        Path | None, typer.Option(metavar="HOSTS.JSON", help="Train each run on several hosts together.")
    ] = None,
) -> int:
    """Train, read and judge; the verdicts come from pytest, as `pytest hypotheses -m slow` gives them."""
    from . import launch as together
    from . import plan, run

    one, kept = find(name, experiments_dir, store)
    hosts = together.hosts(launch) if launch else ()
    if shared_store:
        kept.share()
    experiment = settled(one, kept, config, param, model=model, steps=steps, seeds=seeds, quick=quick or None)
    experiment.ranks = len(hosts) or 1
    if dry_run:
        console().print(plan.plan(experiment))
        return OK
    if hosts and report_to:
        raise UsageError("--report-to hears nothing of what ranks train; leave it or --launch out")
    tracking.parse(report_to)
    options = {"config": config, "model": model, "steps": steps, "seeds": seeds, "store": kept.root}
    options["report-to"] = report_to
    flags = [f"--emergence-{key}={value}" for key, value in options.items() if value is not None]
    flags += [f"--emergence-param={p}" for p in param or []]
    if hosts:
        try:
            together.train(experiment, hosts)
        except KeyboardInterrupt:
            return say("interrupted; run it again to go on where it stopped", INTERRUPTED)
        flags.append(f"--emergence-ranks={experiment.ranks}")
    flags += ["--emergence-strict-verdicts"] * strict_verdicts + ["-q"] * quiet
    flags += ["--emergence-quick"] * quick
    ended = run.run(experiment, flags)
    return say(ended.message, ended.code) if ended.message else ended.code


@verb(app, "judge")
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

    one, kept = find(experiment, experiments_dir, store)
    overrides = dict(parse_override(p) for p in param or [])
    progress = for_stream(sys.stderr)  # type: ignore[arg-type]
    made, left = given(one.folder, base, checkpoints, arm, overrides, kept, progress)
    for line in made.notices:
        note(line)
    verdicts = made.verdicts
    console().print(tables.verdict_report(verdicts))
    if left:
        print(f"not measurable with this series alone: {', '.join(left)}")
    print(f"report: {made.report()}")
    return VERDICT if any(v.outcome == "falsified" for v in verdicts) else OK


@verb(app, "sweep")
def sweep(
    name: Name,
    file: Annotated[Path | None, typer.Argument(help="A sweep.yaml: over, include, exclude.")] = None,
    over: Annotated[
        list[str] | None, typer.Option("--over", metavar="KEY=A,B", help="Values of one setting, or models.")
    ] = None,
    seeds: Seeds = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Here, or on each host [cores or GPUs].")
    ] = None,
    hosts: Annotated[str | None, typer.Option(metavar="A,B", help="Hosts that ssh reaches.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="WHERE", help="Address or file of a Dask scheduler.")
    ] = None,
    retries: Annotated[int, typer.Option(min=0, metavar="N", help="Of a run that fails.")] = 2,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained and what is cached.")
    ] = False,
    status: Annotated[bool, typer.Option("--status", help="Say what was reached.")] = False,
    store: StoreOption = None,
    experiments_dir: Folder = None,
) -> int:
    """Train and judge every model with every setting, each run in a process of its own, on many machines.

    A finding on one model is an anecdote. What is there already is not trained again; a sweep that was
    stopped or killed goes on when the same line is typed.
    """
    from . import sweep as sweeping

    one, there = find(name, experiments_dir, store)
    named = file is not None or bool(over)
    made = sweeping.planned(one.folder, file, over or [], seeds, there) if named or not status else None
    if status:
        console().print(sweeping.shown(sweeping.status(one.home.name, there, made)))
        return OK
    assert made is not None
    if dry_run:
        console().print(sweeping.dry(made, workers))
        return OK
    try:
        code, reached = sweeping.run(made, workers, hosts, scheduler, retries)
    except KeyboardInterrupt:
        return say("interrupted; states are kept, and the same line goes on", INTERRUPTED)
    console().print(sweeping.shown(reached))
    return code


@verb(app, "matrix")
def matrix(
    name: Name,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the page here, too.")] = None,
    store: StoreOption = None,
    experiments_dir: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Models × predictions, from results that are there; trains and reads nothing."""
    from . import matrix as matrices

    one, there = find(name, experiments_dir, store)
    made = matrices.collected(there, one.home.name)
    if as_json:
        print_json(matrices.document(made))
        return
    console().print(matrices.shown(made))
    print(f"matrix: {matrices.written(made, there, html)}")


@verb(app, "compare")
def compare(
    a: Annotated[str, typer.Argument(help="A folder with verdicts.json, NAME (its newest) or NAME/KEY.")],
    b: Annotated[str, typer.Argument(help="The other one.")],
    store: StoreOption = None,
    experiments_dir: Folder = None,
) -> None:
    """Two results side by side, the rows that differ first."""
    from . import matrix as matrices

    a_b = (matrices.found(text, experiments_dir, store) for text in (a, b))
    console().print(matrices.compared(*a_b))


@verb(app, "status")
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

    one, _ = find(name, experiments_dir, store)
    if as_json:
        said = one.status(key)
        print_json(said | {"runs": one.runs()} if show_all else said)
        return
    runs = one.runs()
    folder = one.require_results(key) if one.results or not runs else None
    for record in runs if show_all else runs[-1:]:
        print(catalogue.run_line(record))
    if folder:
        content, verdicts = results.read_verdicts(folder)
        print(f"{content['experiment']} on {content['model']}, {content['created']}\n")
        console().print(tables.verdict_report(verdicts))
        print(f"report: {folder / 'report.html'}")
    for other in one.known() if show_all else ():
        print(f"results {other.name}{' (shown)' if other == folder else ''}")


@verb(app, "report")
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

    one, _ = find(name, experiments_dir, store)
    folder = one.require_results(key)
    target = out / pages.PAGE if out and out.is_dir() else out
    page = pages.render(folder, target, note)
    print(page)
    if gone := pages.missing(folder):
        again = f"`emergence run {one.name}` writes them again, and trains nothing"
        say(f"{', '.join(gone)}: no longer there; {again}", OK)
    if open_:
        webbrowser.open(page.resolve().as_uri())


verb(app, "export")(share.export)
verb(app, "models")(models.models)
verb(app, "show")(models.show)
