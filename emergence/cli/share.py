"""`emergence export`: a checkpoint as a folder to share. In: an experiment's name. Out: the folder's path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError
from .options import Folder, Key, Name, StoreOption, find, note

if TYPE_CHECKING:
    from ..models import Source
    from ..sharing import Chosen
    from ..store import Store

Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="The folder to write, which must not be there.")
]


def export(
    name: Name,
    out: Out = None,
    arm: Annotated[str | None, typer.Option(help="Which training [the first].")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Which seed of it [the first].")] = None,
    step: Annotated[int | None, typer.Option(metavar="N", help="Which checkpoint [the last].")] = None,
    base: Annotated[bool, typer.Option("--base", help="Write the base model too, in float32.")] = False,
    model: Annotated[
        str | None, typer.Option(metavar="DIR", help="The base model, where it is a folder elsewhere.")
    ] = None,
    key: Key = None,
    store: StoreOption = None,
    experiments_dir: Folder = None,
) -> None:
    """A checkpoint as a folder to share: adapters of mlx-lm and peft, a model card with the verdicts."""
    from .. import sharing

    one, kept = find(name, experiments_dir, store)
    chosen = sharing.choose(one.require_results(key), kept, arm, seed, step)
    folder = out or Path(f"{one.name}-{chosen.run.arm}-{chosen.run.seed}-{chosen.step}")
    made = sharing.write(chosen, _base_of(chosen, one.folder, model, kept), folder, base)
    if made.without_peft:
        note(f"note: no adapter for peft: {made.without_peft}")
    print(made.folder)


def _base_of(chosen: Chosen, experiment: Path, given: str | None, store: Store) -> Source:
    """The model given, else the one of the config or of the results, if results were made on that.

    Raises `UsageError` where only the name of a folder is known, and it is not the config's.
    """
    from .. import config, models
    from ..config.settings import shown_model

    shown = str(chosen.info["model"])
    names = [given] if given else [config.load(experiment / "config.yaml").model, shown]
    for name in names:
        if given or (shown_model(name) == shown and (name != shown or models.is_here(name))):
            return models.resolve(name, store)
    raise UsageError(f"this run was trained on {shown}, which is not here; name its folder with --model")
