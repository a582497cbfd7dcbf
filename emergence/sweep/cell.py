"""`python -m emergence.sweep.cell`: a process that trains and judges, one unit after another.

In: on stdin, a line of JSON a unit (`Sweep.spec`). Out: on stdout, a line of JSON an answer; everything else
that is said goes to the unit's log. The model stays loaded from one unit to the next. When stdin ends,
whoever asked is gone: training stops after its step, with its state kept, and the process ends.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..errors import EmergenceError
from ..experiment import Experiment
from ..progress import Lines
from ..store import Store
from ..wording import first_line

if TYPE_CHECKING:
    from ..lens import LogitLens

INTERRUPTED = 130


def main() -> None:
    """Answer until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what others print is no answer
    asked: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()
    loaded: dict[str, LogitLens] = {}
    try:
        while (line := asked.get()) is not None:
            answers.write(json.dumps(_answered(json.loads(line), loaded)) + "\n")
            answers.flush()
    except (KeyboardInterrupt, BrokenPipeError):
        os._exit(INTERRUPTED)  # not through threads that wait


def _listen(asked: queue.SimpleQueue[str | None]) -> None:
    for line in sys.stdin:
        asked.put(line)
    asked.put(None)
    os.kill(os.getpid(), signal.SIGTERM)  # ends the run that trains after its step, and else all at once


def _answered(spec: dict[str, Any], loaded: dict[str, LogitLens]) -> dict[str, Any]:
    start, began = time.monotonic(), datetime.now().astimezone()
    with _logged(Path(spec["log"])) as log:
        print(
            f"{began:%Y-%m-%d %H:%M:%S} {spec['kind']} {spec['arm']} {spec['seed']} {spec['overrides']}",
            file=log,
        )
        progress = Lines(log)  # type: ignore[arg-type]
        try:
            store = Store(spec["store"], progress.line)
            experiment = Experiment(Path(spec["folder"]), spec["overrides"], store, progress, loaded=loaded)
            if experiment.config.model not in loaded:
                loaded.clear()  # one model at a time is in memory
            said = _judged(experiment) if spec["kind"] == "judge" else _trained(experiment, spec)
            said["ok"] = True
        except KeyboardInterrupt:
            raise
        except Exception as error:
            if not isinstance(error, EmergenceError):
                traceback.print_exc(file=log)
            said = {"ok": False, "error": f"{type(error).__name__}: {first_line(error)}"}
            print(said["error"], file=log)
    return said | {"seconds": round(time.monotonic() - start, 3)}


class _logged:
    """stdout and stderr go to a file, behind what stands there."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = path.open("a", encoding="utf-8", buffering=1)

    def __enter__(self) -> TextIO:
        self._before = os.dup(2)
        for number in (1, 2):
            os.dup2(self._file.fileno(), number)
        return self._file

    def __exit__(self, *error: object) -> None:
        for number in (1, 2):
            os.dup2(self._before, number)
        os.close(self._before)
        self._file.close()


def _trained(experiment: Experiment, spec: dict[str, Any]) -> dict[str, Any]:
    """One run, as `emergence run` trains it; its key names this machine and is told, never guessed."""
    from .. import provenance

    arm, seed = experiment.config.arm(spec["arm"]), spec["seed"]
    provenance.require_space(experiment, [(arm, seed)])
    build, built = experiment.build(arm, seed), []

    def noted(folder: Path) -> dict[str, Any]:
        built.append(folder)
        return build(folder)

    # As `Experiment.train` does; of two sweeps that want one run, the one that waited has trained nothing.
    entry = experiment.store.get_or_build("runs", experiment.spec(arm, seed), noted)
    return {"key": entry.key, "cached": not built}


def _judged(experiment: Experiment) -> dict[str, Any]:
    """The verdicts of one cell, with its report; what is trained already is found in the store."""
    from .. import verdicts
    from ..report.records import VERDICTS

    found = experiment.verdicts
    folder = experiment.report().parent
    verdicts.require_controls(found)
    expected = verdicts.falsified(
        experiment.folder, experiment.config, experiment.source.hash, experiment.predictions
    )
    changed = [v for v in found if (v.outcome == "falsified") != ((v.prediction, v.cls) in expected)]
    outcomes = [v.outcome for v in found]
    return {
        "verdicts": (folder / VERDICTS).relative_to(experiment.store.root).as_posix(),
        "counts": {name: outcomes.count(name) for name in ("supported", "falsified", "inconclusive")},
        "changed": [f"{v.prediction}[{v.cls}]" for v in changed],
    }


if __name__ == "__main__":
    main()
