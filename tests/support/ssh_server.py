"""An SSH server on loopback that needs no root: `python ssh_server.py FOLDER`.

In: a folder with `host_key` and `authorized`. Out: `port` in it, once it listens. It runs what it is asked as
a shell does, in that folder, and like sshd it ends no process when a connection closes.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import asyncssh


async def run(process: Any, folder: Path) -> None:
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.PIPE)
    command = process.command or "true"
    started = await asyncio.create_subprocess_shell(command, cwd=folder, start_new_session=True, **pipes)
    await process.redirect(stdin=started.stdin, stdout=started.stdout, stderr=started.stderr)
    process.exit(await started.wait())


async def serve(folder: Path) -> None:
    server = await asyncssh.listen(
        "127.0.0.1", 0, server_host_keys=[str(folder / "host_key")],
        authorized_client_keys=str(folder / "authorized"), process_factory=lambda p: run(p, folder),
    )  # fmt: skip
    (folder / "port.new").write_text(str(server.get_port()))
    (folder / "port.new").rename(folder / "port")
    await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
