"""`emergence store list | verify | pack | add | remove`: what a store holds. In: a store. Out: lines."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ..errors import UsageError
from ..store import packing
from ..store.files import size_text
from ..store.inventory import Item
from ..store.store import Store
from .options import BROKEN, OK, StoreOption, Yes, console, group, kept, verb

app = group("Look at, check and clear what is kept.")
STATES = ("complete", "partial", "corrupt", "damaged")
_STYLES = {"corrupt": "red", "damaged": "red", "partial": "yellow"}


def _rests_on(item: Item) -> tuple[str, ...]:
    """Results that name the entry; what is nested in it goes with it and is no reason to keep it."""
    return tuple(name for name in item.used_by if name.startswith("experiments/"))


def listed(items: Sequence[Item]) -> Table:
    """One line an entry."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("kind", "key", "state", "size", "created", "used by"):
        table.add_column(column, header_style="dim", no_wrap=column != "used by", overflow="fold")
    for item in items:
        used = _rests_on(item)
        shown = ", ".join(used) if len(used) <= 2 else f"{used[0]} and {len(used) - 1} more"
        state = Text(item.state, style=_STYLES.get(item.state, ""))
        created = f"{item.created:%Y-%m-%d %H:%M}"
        table.add_row(item.kind, item.key, state, size_text(item.size), created, Text(shown or "–"))
    return table


def table(store: Store) -> RenderableType:
    """`emergence store list`."""
    items = store.entries()
    return listed(items) if items else Text(f"{store.root}: nothing is kept")


def verify(store: Store) -> tuple[list[str], bool]:
    """Hash everything; a line for each damaged entry and one with the counts, and whether all is sound."""
    items = store.entries()
    checked = {i.path: store.verify(i) for i in items if i.state in ("complete", "damaged")}
    there = {path: said for path, said in checked.items() if os.path.lexists(path)}  # not removed meanwhile
    found = {path: said for path, said in there.items() if said}
    aside = sum(item.state == "corrupt" for item in items)
    counts = f"{len(there)} entries, {len(found)} damaged" + (
        f"; {aside} corrupt ones moved aside before" if aside else ""
    )
    return [*(f"{path}: {problem}" for path, problem in found.items()), counts], not found


def choose(
    store: Store, keys: Sequence[str], older_than: int | None, state: str | None, force: bool
) -> list[Item]:
    """The entries that `remove` is asked for.

    Raises
    ------
    UsageError
        Nothing named, nothing found, or results rest on one and `force` is off.
    """
    if not keys and older_than is None and state is None:
        raise UsageError(
            "name keys, --older-than DAYS or --state STATE; `emergence store list` shows what there is"
        )
    if state is not None and state not in STATES:
        raise UsageError(f"--state {state!r} is none of {', '.join(STATES)}")
    items = store.entries()
    if unknown := [key for key in keys if all(item.key != key for item in items)]:
        raise UsageError(
            f"{store.root}: holds no {', '.join(unknown)}; `emergence store list` shows the keys"
        )
    before = datetime.now(UTC) - timedelta(days=older_than or 0)
    chosen = [
        item
        for item in items
        if (not keys or item.key in keys)
        and (state is None or item.state == state)
        and (older_than is None or item.created <= before)
    ]
    used = [item for item in chosen if _rests_on(item)]
    if used and not force:
        raise UsageError(f"{used[0].key} is used by {_rests_on(used[0])[0]}; --force removes it all the same")
    if not chosen:
        raise UsageError(f"{store.root}: nothing of that age and state")
    # An entry that lies in another chosen one goes with it.
    return [item for item in chosen if not any(other.path in item.path.parents for other in chosen)]


def remove(store: Store, items: Sequence[Item]) -> None:
    """Remove them for good."""
    for item in items:
        store.remove(item)


@verb(app, "list", "store")
def _list(store: StoreOption = None) -> None:
    """Everything that is kept, oldest first."""
    console().print(table(kept(store)))


@verb(app, "verify", "store")
def _verify(store: StoreOption = None) -> int:
    """Hash every file of every entry; exit 3 if one is damaged."""
    lines, sound = verify(kept(store))
    print("\n".join(lines))
    return OK if sound else BROKEN


@verb(app, "pack", "store")
def _pack(
    keys: Annotated[list[str], typer.Argument(help="Keys as `store list` shows them.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE", help="[KEY.tar]")] = None,
    store: StoreOption = None,
) -> None:
    """Write entries, and what is nested in them, to one file, for a store on another disk."""
    target = out or Path(f"{keys[0]}.tar")
    packed = packing.pack(kept(store), keys, target)
    print(f"packed {len(packed)} entries, {size_text(target.stat().st_size)}: {target}")


@verb(app, "add", "store")
def _add(
    file: Annotated[Path, typer.Argument(help="What `store pack` wrote.")], store: StoreOption = None
) -> None:
    """Put the entries of a pack into the store, once every hash in it was verified."""
    place = kept(store)
    new, known = packing.add(place, file)
    print(f"added {len(new)} entries to {place.root}" + (f"; {len(known)} were there" if known else ""))


@verb(app, "remove", "store")
def _remove(
    keys: Annotated[list[str] | None, typer.Argument(help="Keys as `store list` shows them.")] = None,
    older_than: Annotated[int | None, typer.Option(metavar="DAYS", min=0, help="Only older ones.")] = None,
    state: Annotated[str | None, typer.Option(help="Only partial, corrupt or damaged ones.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Even if results rest on it.")] = False,
    yes: Yes = False,
    store: StoreOption = None,
) -> None:
    """Remove entries, and what is nested in them, by key, age or state; asks first."""
    place = kept(store)
    chosen = choose(place, keys or [], older_than, state, force)
    console().print(listed(chosen))
    if not yes:
        typer.confirm(f"Remove {len(chosen)} of them for good?", abort=True)
    remove(place, chosen)
    print(f"removed {len(chosen)}")
