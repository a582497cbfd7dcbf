"""`emergence models` and `emergence show`: models at hand, whether the lens serves one, one prompt read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from ..errors import UsageError
from ..store import Store
from .options import StoreOption, console, kept

if TYPE_CHECKING:
    from ..lens.drawing import Drawing


def at_hand(store: Store) -> RenderableType:
    """Models that need no download."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    from ..models import EMBEDDED
    from ..store.files import size_text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("model", "where", "size"):
        table.add_column(column, header_style="dim")
    kept = [item for item in store.entries() if item.kind == "models"]
    converted = next((item for item in kept if item.spec.get("name") == EMBEDDED), None)
    table.add_row(
        EMBEDDED,
        "embedded" if converted else "embedded, converted at first use",
        size_text(converted.size) if converted else "–",
    )
    for item in kept:
        if (name := item.spec.get("name")) not in (None, EMBEDDED):
            table.add_row(str(name), "fetched by --get", size_text(item.size))
    try:
        cached = sorted(scan_cache_dir().repos, key=lambda repo: repo.repo_id)
    except CacheNotFound:
        cached = []
    for repo in cached:
        if repo.repo_type == "model":
            table.add_row(repo.repo_id, "hub cache", size_text(repo.size_on_disk))
    return table


def terms(name: str) -> str:
    """The terms of a model that an explicit command fetches; UsageError for any other name."""
    from ..models import gemma3

    if name != gemma3.NAME:
        raise UsageError(
            f"--get {name}: only {gemma3.NAME}; a hub model is fetched where it is used, by its id"
        )
    return gemma3.TERMS


def fetched(name: str, store: Store) -> str:
    """Fetch a model whose terms were agreed to, convert it once, and prove it."""
    from ..models import gemma3

    entry = gemma3.get(store)
    proved = entry.info["tensors_equal_to_the_bit"]
    return f"{proved} tensors equal to the bit, kept in {entry.path}\n{proven(name, store)}"


def proven(name: str, store: Store, against: str | None = None) -> str:
    """Load a model and prove the lens on it: how far each promise is from exact, and from `against`.

    Raises
    ------
    NotMeasurable
        The model cannot be had, or the lens refuses it, and why.
    """
    from .. import models
    from ..lens import prove

    if not name.strip():
        raise UsageError("--check: name a model")
    if against not in (None, "transformers"):
        raise UsageError(f"--against {against}: only transformers can be compared with")
    with _loading(name):
        model, _ = models.load(name, store=store)
        said = f"{name}: the lens can serve it\n{prove(model)}"
    if against:
        from ..models import against as reference

        said += f"\n{reference.transformers(name, store)}"
    return said


def drawn(prompt: str, name: str, chat: bool, store: Store) -> Drawing:
    """One prompt through the lens of a model: layers × positions.

    Raises
    ------
    UsageError
        The prompt is empty, or the tokenizer has no template for `chat`.
    NotMeasurable
        The model cannot be had, or the lens refuses it.
    """
    from .. import models
    from ..lens import LogitLens

    if not prompt:
        raise UsageError("the prompt is empty; write one, such as '7 * 8 = '")
    with _loading(name):
        return LogitLens(*models.load(name, store=store)).show(prompt, chat=chat)


def _loading(name: str) -> Status:
    """Something moves on a terminal while a model loads; nothing is left of it."""
    return Console(stderr=True).status(f"loading {escape(name)}", spinner="line")


def models(
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
    place = kept(store)
    if get is not None:
        print(terms(get))
        if not yes and not sys.stdin.isatty():
            raise UsageError("--get asks whether you agree to these terms; --yes says so beforehand")
        if not yes:
            typer.confirm("Do you agree to them?", abort=True)
        print(fetched(get, place))
        return
    if check is None:
        console().print(at_hand(place))
        print("any model that mlx-lm loads is one `--model owner/name` or `--model FOLDER` away")
        return
    print(proven(check, place, against))


def show(
    prompt: Annotated[str, typer.Argument(help='Such as "7 * 8 = ".')],
    model: Annotated[
        str, typer.Option(metavar="NAME", help="Embedded name, hub id or folder.")
    ] = "smollm2-135m-instruct",
    chat: Annotated[bool, typer.Option("--chat", help="Put the prompt in the model's template.")] = False,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a .html, .png or .svg instead.")
    ] = None,
    store: StoreOption = None,
) -> None:
    """One prompt, layers × positions: the likeliest token in each cell, under the exact tokens fed."""
    drawing = drawn(prompt, model, chat, kept(store))
    if save is not None:
        print(drawing.save(save))
    else:
        console().print(drawing)
