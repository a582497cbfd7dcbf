"""The real engine with real processes on a tiny model: nothing is lost, nothing is trained twice."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sweeps

from emergence.sweep.manifest import Manifest

pytest.importorskip("distributed")

CAMPAIGN = int(os.environ.get("EMERGENCE_KILLS", "20"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return sweeps.experiment(tmp_path)


def manifest(place: Path, store: str = ".emergence") -> Manifest:
    (found,) = (place / store / "sweeps").glob("*/sweep.json")
    return Manifest.read(found.parent)


def nothing_runs(place: Path) -> bool:
    """Whether every process of the sweep is gone; a cell ends its step first."""
    return bool(sweeps.until(lambda: not sweeps.of(place), 90))


def test_a_cell_killed_in_mid_training_ends_as_if_nothing_had_been(place: Path) -> None:
    head = sweeps.start(place, "sweep", sweeps.NAME, *sweeps.ONE, "--workers", "2")
    sweeps.until(lambda: sweeps.halfway(place))
    (victim, *_) = sweeps.until(lambda: sweeps.offspring(head.pid, sweeps.CELL))
    victim.send_signal(signal.SIGKILL)
    code, said = sweeps.ended(head)
    assert code == 0, said
    assert "its process was killed by signal 9" in said
    assert sweeps.there(place) == sweeps.reference(place, (4,))
    reached = manifest(place)
    assert {unit.state for unit in reached.units} == {"done"}
    assert {unit.key for unit in reached.units if unit.kind == "train"} == set(sweeps.there(place))
    assert nothing_runs(place)
    assert not list(place.rglob("*.pem"))


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_kills_at_random_times_leave_what_an_undisturbed_sweep_leaves(place: Path) -> None:
    """A worker, a cell, both, and the head, which is the scheduler too."""
    expected, rng, kills = sweeps.reference(place), random.Random(7), 0
    start = time.monotonic()
    code, said = sweeps.swept(place, *sweeps.OVER, "--store", "undisturbed")
    assert code == 0, said
    whole = time.monotonic() - start
    assert sweeps.there(place, "undisturbed") == expected
    for n in range(CAMPAIGN):
        store, victim = f"store{n}", ("worker", "cell", "both", "head")[n % 4]
        arguments = ("sweep", sweeps.NAME, *sweeps.OVER, "--workers", "2", "--store", store)
        head = sweeps.start(place, *arguments)
        end = time.monotonic() + rng.uniform(0.2, 0.8) * whole
        while time.monotonic() < end and head.poll() is None:
            time.sleep(0.05)
        kills += _kill(head, victim, rng)
        code, said = sweeps.ended(head)
        if victim == "head":
            assert nothing_runs(place)
            code, said = sweeps.ended(sweeps.start(place, *arguments))
        assert code == 0, (n, victim, said)
        assert sweeps.there(place, store) == expected, (n, victim)
        assert {unit.state for unit in manifest(place, store).units} == {"done"}
        assert nothing_runs(place)
        shutil.rmtree(place / store)
    assert kills >= 0.6 * CAMPAIGN, f"only {kills} of {CAMPAIGN} hit"


def _kill(head: subprocess.Popen[str], victim: str, rng: random.Random) -> bool:
    if victim == "head":
        head.kill()
        return head.wait() < 0
    words = {"worker": [sweeps.WORKER], "cell": [sweeps.CELL], "both": [sweeps.WORKER, sweeps.CELL]}
    found = [sweeps.offspring(head.pid, word) for word in words[victim]]
    chosen = [rng.choice(processes) for processes in found if processes]
    if victim == "both" and chosen:
        chosen[1:] = sweeps.offspring(chosen[0].pid, sweeps.CELL)
    for process in reversed(chosen):
        process.send_signal(signal.SIGKILL)
    return bool(chosen)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_sweep_keeps_its_states_and_the_same_line_goes_on(place: Path, number: int) -> None:
    head = sweeps.start(place, "sweep", sweeps.NAME, *sweeps.OVER, "--workers", "2")
    sweeps.until(lambda: sweeps.halfway(place))
    # Ctrl-C reaches every process of the terminal, SIGTERM one
    os.killpg(head.pid, number) if number == signal.SIGINT else head.send_signal(number)
    code, said = sweeps.ended(head)
    assert code == 130, said
    assert "Traceback" not in said
    assert said.rstrip().endswith("emergence: interrupted; states are kept, and the same line goes on")
    assert nothing_runs(place)
    assert list((place / ".emergence" / "runs").glob("*.partial/resume.json")), "a state is kept"
    assert "running" not in {unit.state for unit in manifest(place).units}
    code, said = sweeps.swept(place)
    assert code == 0, said
    assert sweeps.there(place) == sweeps.reference(place)


@pytest.mark.slow
def test_two_sweeps_at_once_train_nothing_twice(place: Path) -> None:
    one = sweeps.start(place, "sweep", sweeps.NAME, *sweeps.OVER, "--workers", "2")
    same = sweeps.start(place, "sweep", sweeps.NAME, *sweeps.OVER, "--workers", "2")
    other = sweeps.start(place, "sweep", sweeps.NAME, "--over", "parameters.lora.rank=4,3", "--workers", "2")
    said = [sweeps.ended(process) for process in (one, same, other)]
    assert [code for code, _ in said] == [0, 0, 0], said
    assert sweeps.there(place) == sweeps.reference(place, (2, 3, 4))
    trained = "\n".join(text for _, text in said).count("trained in")
    assert trained == 6, "three ranks, two arms"
    assert any("waiting for it to finish" in text for _, text in said[:2]), "one sweep of a kind at a time"


@pytest.mark.slow
def test_a_cell_that_always_fails_is_named_with_host_and_log_and_stops_no_other(place: Path) -> None:
    bad = Path(shutil.copytree(place / "model", place / "damaged"))
    weights = bad / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    code, said = sweeps.swept(place, "--over", f"model={place / 'model'},{bad}")
    assert code == 3, said
    assert said.count("try 2 of 3") == said.count("try 3 of 3") == 2, "two arms"
    reached = manifest(place)
    states = {(unit.cell, unit.label): unit.state for unit in reached.units}
    assert {state for (cell, _), state in states.items() if cell == 0} == {"done"}
    assert {state for (cell, _), state in states.items() if cell == 1} == {"failed"}
    failed = next(unit for unit in reached.failed if unit.kind == "train")
    assert failed.tries == 3
    assert failed.host
    assert reached.log(failed).read_text().count("BrokenExperiment") >= 3
    for text in (said, sweeps.ended(sweeps.start(place, "sweep", sweeps.NAME, "--status"))[1]):
        assert f"model=damaged, sft seed 0: failed on {failed.host}" in " ".join(text.split())
        assert str(reached.log(failed).relative_to(place)) in text.replace("\n", "")


@pytest.mark.slow
def test_nobody_without_the_key_speaks_to_the_scheduler(place: Path) -> None:
    import distributed
    import psutil

    head = sweeps.start(place, "sweep", sweeps.NAME, *sweeps.OVER, "--workers", "2")
    (key,) = sweeps.until(lambda: list(place.rglob("key.pem")))
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.parent.stat().st_mode & 0o777 == 0o700
    sweeps.until(lambda: sweeps.offspring(head.pid, sweeps.CELL))
    listening = [c.laddr for c in psutil.Process(head.pid).net_connections() if c.status == "LISTEN"]
    assert listening
    secret = "".join(key.read_text().splitlines()[1:3])
    for process in [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]:
        assert secret[:32] not in " ".join(process.cmdline())
    stranger = distributed.Security.temporary()
    for address in listening:
        assert address.ip == "127.0.0.1", "no other host is offered anything"
        for scheme, security in (("tcp", None), ("tls", stranger)):
            with pytest.raises((OSError, ValueError)):
                distributed.Client(f"{scheme}://{address.ip}:{address.port}", timeout=3, security=security)
    code, said = sweeps.ended(head)
    assert code == 0, said


@pytest.mark.slow
def test_a_scheduler_that_is_given_serves_and_its_death_is_one_line(place: Path) -> None:
    file = place / "scheduler.json"

    def dask(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments, "--scheduler-file", str(file), "--no-dashboard"],
            cwd=place, env=sweeps.environment(), stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def cluster() -> list[subprocess.Popen[str]]:
        file.unlink(missing_ok=True)
        scheduler = dask("scheduler", "--port", "0")
        sweeps.until(file.exists)
        return [scheduler, *(dask("worker", "--nthreads", "1", "--death-timeout", "10") for _ in range(2))]

    processes = cluster()
    arguments = ("sweep", sweeps.NAME, *sweeps.OVER, "--scheduler", str(file))
    head = sweeps.start(place, *arguments)
    sweeps.until(lambda: sweeps.halfway(place))
    processes[0].kill()
    code, said = sweeps.ended(head)
    assert code == 3, said
    assert said.rstrip().splitlines()[-1] == (
        "emergence: the scheduler is gone; states are kept, and the same line goes on"
    )
    for process in processes:
        process.wait(90)
    assert nothing_runs(place)
    processes = cluster()
    try:
        code, said = sweeps.ended(sweeps.start(place, *arguments))
        assert code == 0, said
        assert sweeps.there(place) == sweeps.reference(place)
    finally:
        for process in processes:
            process.terminate()
            process.wait(60)
    assert nothing_runs(place)
