"""Hosts that ssh reaches: asked, before anything starts, whether they can do a unit's work.

In: names as ssh knows them; user, port and key are those of `~/.ssh/config`. Out: nothing, or a `UsageError`
with a line for each host that cannot.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version

from ..errors import UsageError
from ..wording import first_line, printable

_WAIT = 15
"""Seconds that a host is given to answer."""
_ASKED = "import emergence, distributed; print(emergence.__version__, distributed.__version__)"


def require(hosts: Sequence[str]) -> None:
    """Refuse hosts that cannot be reached, or have no `emergence` where this one's Python is."""
    said = asyncio.run(_all(hosts))
    if wrong := [f"--hosts {printable(host)}: {why}" for host, why in zip(hosts, said, strict=True) if why]:
        raise UsageError("\n".join(wrong))


async def _all(hosts: Sequence[str]) -> list[str]:
    return await asyncio.gather(*(_wrong(host) for host in hosts))


async def _wrong(host: str) -> str:
    """Empty for a host that can do the work; otherwise why it cannot."""
    import asyncssh

    from .. import __version__

    try:
        async with asyncio.timeout(_WAIT), asyncssh.connect(host) as connection:
            told = await connection.run(f"{shlex.quote(sys.executable)} -c {shlex.quote(_ASKED)}")
    except (OSError, asyncssh.Error, TimeoutError) as error:
        reason = first_line(error) if str(error) else f"no answer in {_WAIT} s"
        return f"cannot be reached ({reason}); `ssh {printable(host)}` must work without a password"
    wanted, found = f"{__version__} {version('distributed')}", str(told.stdout).strip()
    if told.exit_status:
        return f"{sys.executable} does not import emergence and distributed there; install both at that path"
    if found != wanted:
        return f"has emergence and distributed {found}, this machine {wanted}; make them the same"
    return ""
