"""One rank of `emergence run --launch`: what `mlx.launch` starts on each host.

In: what to train, as JSON. Out: runs in the store of rank 0's host; a line of JSON on standard output that
says how this rank ended, since `mlx.launch` itself ends with 0 whatever became of its processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import tempfile
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BrokenExperiment, EmergenceError
from ..progress import SILENT, for_stream

if TYPE_CHECKING:
    from ..experiment import Experiment
    from ..training.group import Group


def main(argument: str) -> int:
    """Train every run that is missing, together with the other ranks; 0 if all are there."""
    from ..training.group import Group

    rank, code, message = -1, 0, ""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # standard output is for the line at the end
            given = json.loads(argument)
            group = Group(**given["waiting"])
            rank = group.rank
            _train(_experiment(given, group), group)
    except BrokenExperiment as error:
        code, message = 3, str(error)
    except EmergenceError as error:
        code, message = 2, str(error)
    except KeyboardInterrupt as error:
        code, message = 130, str(error)
    except Exception:
        traceback.print_exc()
        code, message = 1, f"rank {rank} on {socket.gethostname()} failed; see above"
    line = json.dumps({"rank": rank, "code": code, "message": message})
    os.write(1, f"{line}\n".encode())
    return code


def _experiment(given: dict[str, Any], group: Group) -> Experiment:
    from ..experiment import Experiment
    from ..store import Store

    progress = for_stream(sys.stderr) if group.rank == 0 else SILENT  # type: ignore[arg-type]
    store = Store(given["store"], progress.line)
    folder, file = Path(given["folder"]), Path(given["file"])
    return Experiment(folder, given["overrides"], store, progress, file=file, ranks=group.size)


def _train(experiment: Experiment, group: Group) -> None:
    """Every arm and seed in turn; nothing is trained before all ranks agree on what it is."""
    from .. import provenance
    from ..store.store import key_of

    wanted = [(arm, seed) for arm in experiment.config.arms if arm.method != "given" for seed in arm.seeds]
    keys = [key_of(experiment.spec(arm, seed)) for arm, seed in wanted]
    group.agree_on("what is trained (the keys of the runs)", " ".join(keys), patient=True)
    _ = experiment.controls
    if group.rank == 0:
        provenance.require_space(experiment, wanted)
    for arm, seed in wanted:
        if group.led(partial(experiment.train, arm, seed, group)):
            with tempfile.TemporaryDirectory() as scratch:
                experiment.build(arm, seed, group)(Path(scratch))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
