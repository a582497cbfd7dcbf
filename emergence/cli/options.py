"""What the verbs share: their options, exit codes, where they print, and how a help text ends.

In: what a person typed. Out: an experiment and its store. A verb is `@verb(app, "name")`: its docstring is
its help, uncut in the list of verbs too, and the examples of `EXAMPLES` stand below.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ..errors import EmergenceError
from ..store import Store, default_root
from . import catalogue

OK, VERDICT, USAGE, BROKEN, INTERRUPTED = 0, 1, 2, 3, 130
EXAMPLES = {
    "list": ("emergence list", "emergence list --json"),
    "info": ("emergence info classifier_emergence",),
    "new": ("emergence new my_claim", "emergence new my_arithmetic --from classifier_emergence"),
    "run": (
        "emergence run classifier_emergence --dry-run",
        "emergence run classifier_emergence --steps 500 --seeds 5",
        "emergence run parity -p training.lora.rank=8 --strict-verdicts",
        "emergence run classifier_emergence --launch hosts.json",
    ),
    "sweep": (
        "emergence sweep parity --over training.lora.rank=4,16,64 --seeds 3 --dry-run",
        "emergence sweep parity sweep.yaml --hosts mini-1,mini-2",
        "emergence sweep parity --status",
    ),
    "matrix": ("emergence matrix parity", "emergence matrix parity --html matrix.html"),
    "compare": ("emergence compare parity parity/3f2a",),
    "judge": ("emergence judge my-run --base smollm2-135m-instruct",),
    "status": ("emergence status classifier_emergence", "emergence status classifier_emergence --all"),
    "report": ("emergence report classifier_emergence --open",),
    "export": (
        "emergence export classifier_emergence -o my-share",
        "emergence export classifier_emergence --arm sft --seed 0 --base",
    ),
    "models": ("emergence models", "emergence models --check smollm2-135m-instruct"),
    "show": ('emergence show "7 * 8 = "', 'emergence show --chat "What is 7 times 8?"'),
    "store list": ("emergence store list",),
    "store verify": ("emergence store verify",),
    "store pack": ("emergence store pack 0123456789abcdef -o run.tar",),
    "store add": ("emergence store add run.tar",),
    "store remove": ("emergence store remove --state partial --older-than 30",),
}
"""By verb, what one may type; a test holds that each is understood."""
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def _names() -> list[str]:
    """Experiments by name, for the shell's completion: nothing where there are none."""
    try:
        folder = catalogue.root()
        return [one.name for one in catalogue.every(folder, default_root(folder))]
    except EmergenceError:
        return []


Name = Annotated[
    str,
    typer.Argument(
        help="The experiment: a folder's name in hypotheses/, or its path.", autocompletion=_names
    ),
]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="Another config.yaml.")]
Param = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        "-p",
        metavar="KEY=VALUE",
        help="One config value, such as training.lora.rank=8; beats the file. May be repeated.",
    ),
]
Model = Annotated[
    str | None, typer.Option(metavar="NAME", help="Embedded name, hub id or folder; default: the config's.")
]
Steps = Annotated[
    str | None, typer.Option(metavar="N[,N...]", help="The last step, or all checkpoint steps, of every arm.")
]
Seeds = Annotated[int | None, typer.Option(metavar="N", help="Number of seeds: 0 to N-1.")]
Quick = Annotated[bool, typer.Option("--quick", help="The size that the config declares under `quick`.")]
StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store", metavar="DIR", help="Where runs are kept [.emergence at the root of the repository]."
    ),
]
Folder = Annotated[
    Path | None, typer.Option("--experiments-dir", metavar="DIR", help="Folder of experiments [hypotheses].")
]
Key = Annotated[
    str | None,
    typer.Option("--key", help="Results of this config and model; `status --all` lists the keys."),
]
ReportTo = Annotated[
    str | None,
    typer.Option(metavar="NAME[,NAME...]", help="Hand the metrics to wandb, tensorboard, trackio or mlflow."),
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def group(said: str, **settings: Any) -> typer.Typer:
    """A set of verbs: plain help with `-h` too, errors as exceptions."""
    return typer.Typer(
        help=said, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
        context_settings=SETTINGS, **settings,
    )  # fmt: skip


def verb(to: typer.Typer, name: str, within: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a verb under `name`, in the set of verbs `within`."""
    examples = EXAMPLES.get(f"{within} {name}".strip(), ())
    epilog = "\n".join(["\b", "Examples:", *(f"  {line}" for line in examples)]) if examples else None

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        said = inspect.getdoc(function) or ""
        to.command(name, help=said, short_help=said.split("\n\n")[0].replace("\n", " "), epilog=epilog)(
            function
        )
        return function

    return register


def say(text: str, code: int) -> int:
    """One line on stderr; returns the exit code."""
    print(f"emergence: {text}", file=sys.stderr)
    return code


def note(text: str) -> None:
    """A line that is no result: on stderr."""
    print(text, file=sys.stderr)


def kept(given: Path | None) -> Store:
    """The store that was named, or the one of this repository."""
    return Store(given or default_root(Path.cwd()))


def console() -> Console:
    """Stdout; 100 columns where it is no terminal."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 100)


def print_json(value: Any) -> None:
    """For programs."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def find(name: str, experiments_dir: Path | None, store: Path | None) -> tuple[catalogue.Listed, Store]:
    """An experiment by its name, and the store that it keeps its runs in."""
    folder = catalogue.root(experiments_dir)
    there = Store(store or default_root(folder))
    return catalogue.find(name, folder, there.root), there


def settled(
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
