"""`emergence run --launch`: hosts that cannot be meant, and two ranks on this machine whatever ends them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from places import python_path

from emergence.cli import launch
from emergence.cli import main as cli
from emergence.errors import UsageError
from emergence.experiment import Experiment
from emergence.store import Store

LOOPBACK = [{"ssh": "127.0.0.1", "ips": ["127.0.0.1"]}] * 2
PREDICTIONS = """
from emergence import Prediction
VERSION = 1
PREDICTIONS = (
    Prediction("E", "it emerges", "sft", "words", "intermediate", "symbolic", "classifier"),
)
"""
TESTS = """
def test_it_emerges(verdict):
    assert verdict.outcome
"""
LAST = 60

WRONG = {
    "missing": (None, "No such file"),
    "no JSON": ("ssh: a", "is no JSON"),
    "no list": ('"a"', "should be"),
    "no address": ('[{"ssh": "a"}, {"ssh": "b"}]', "should be"),
    "no name": ('[{"ips": ["1.2.3.4"]}, {"ips": ["1.2.3.4"]}]', "should be"),
    "an option of ssh": ('[{"ssh": "-oProxyCommand=touch x", "ips": ["1.2.3.4"]}, "b"]', "should be"),
    "one host": (json.dumps(LOOPBACK[:1]), "names 1 host"),
    "another backend": (json.dumps({"backend": "nccl", "hosts": LOOPBACK}), "backend 'nccl'"),
    "unreachable": (json.dumps([{"ssh": "127.0.0.9", "ips": ["127.0.0.9"]}] * 2), "127.0.0.9"),
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment of a tiny model, and a file of two ranks on this machine."""
    folder = tmp_path / "hypotheses" / "tiny"
    folder.mkdir(parents=True)
    model = tiny.write_model(tmp_path / "model", n_layers=2, hidden=16)
    tiny.write_config(folder, model, (0, 2, LAST))
    (folder / "predictions.py").write_text(PREDICTIONS)
    (folder / "test_tiny.py").write_text(f"import pytest\npytestmark = pytest.mark.slow\n{TESTS}")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    (tmp_path / "hosts.json").write_text(json.dumps(LOOPBACK))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", python_path())
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    return tmp_path


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG)
def test_hosts_that_cannot_be_meant_are_one_line_and_start_nothing(home, capsys, text, said):
    path = home / "hosts.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "tiny", "--launch", "hosts.json"])
    told = capsys.readouterr()
    assert ended.value.code == 2
    (line,) = told.err.splitlines()
    assert line.startswith("emergence: --launch hosts.json: ")
    assert said in line
    assert not list(home.glob(".emergence/runs/*"))


def test_what_several_ranks_train_has_a_key_of_its_own_and_is_never_trained_by_one_process(home):
    folder, store = home / "hypotheses" / "tiny", Store(home / "store")
    alone, together = (Experiment(folder, store=store, ranks=n) for n in (1, 2))
    arm = alone.config.arms[0]
    assert "ranks" not in alone.spec(arm, 0), "the key of one process is what it was"
    assert together.spec(arm, 0) == alone.spec(arm, 0) | {"ranks": 2}
    with pytest.raises(
        UsageError, match=r"holds no run of 2 ranks; `emergence run NAME --launch hosts.json`"
    ):
        together.train(arm, 0)


GRPO = ["-p", "training.training_methods.sft.method=grpo", "-p", "training.training_methods.sft.sft_steps=2"]
OTHERWISE = {
    "a tracker": (["--report-to", "tensorboard"], "--report-to hears nothing"),
    "a batch of one row": (
        ["-p", "training.batch_size=1"],
        "batch_size=1 cannot be shared out among 2 ranks",
    ),
    "by reward": (GRPO, "learns by reward, which one process"),
}


@pytest.mark.parametrize(("words", "said"), OTHERWISE.values(), ids=OTHERWISE)
def test_what_ranks_cannot_do_is_one_line_and_starts_nothing(home, capsys, words, said):
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "tiny", "--launch", "hosts.json", *words])
    told = capsys.readouterr()
    assert ended.value.code == 2
    assert said in told.err
    assert len(told.err.splitlines()) == 1
    assert not list(home.glob(".emergence/runs/*"))


# Real runs of two ranks


def started(home: Path, **settings: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from emergence.cli.main import main; main()"]
    command += ["run", "tiny", "-q", "--launch", "hosts.json"]
    return subprocess.Popen(command, cwd=home, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, **settings)


def ranks_of(process: int) -> dict[int, int]:
    """Process ids of the ranks that it started, by rank."""
    found = {}
    for place in Path("/proc").iterdir():
        with contextlib.suppress(OSError, StopIteration):
            words = (place / "cmdline").read_bytes().split(b"\0")
            if b"emergence.cli.rank" not in words or b"mlx.launch" in b" ".join(words[:3]):
                continue
            settings = (place / "environ").read_bytes().split(b"\0")
            rank = next(s for s in settings if s.startswith(b"MLX_RANK="))
            if os.getsid(int(place.name)) == launcher(process):
                found[int(rank.removeprefix(b"MLX_RANK="))] = int(place.name)
    return found


def launcher(process: int) -> int | None:
    """Process id of the `mlx.launch` that it started, which leads a session of its own."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return next((int(child) for child in children if os.getsid(int(child)) == int(child)), None)


def training(home: Path, process: subprocess.Popen[bytes]) -> None:
    """Return when a first checkpoint is there, and so every rank is at work."""
    for _ in range(12000):
        if list(home.glob(".emergence/runs/*.partial/checkpoints/0000002")):
            return
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)
    raise TimeoutError


def ended(home: Path, act: Callable[[subprocess.Popen[bytes]], object]) -> tuple[int, str]:
    """Start it, `act` while it trains; exit code and what it said. None of its processes is left."""
    with started(home) as process:
        try:
            training(home, process)
            session = launcher(process.pid)
            act(process)
            said = process.communicate(timeout=240)[1].decode()
        finally:
            process.kill()
    assert not [p for p in Path("/proc").iterdir() if p.name.isdigit() and in_session(p, session)]
    return process.returncode, said


def in_session(place: Path, session: int | None) -> bool:
    with contextlib.suppress(OSError):
        return os.getsid(int(place.name)) == session and b"State:\tZ" not in (place / "status").read_bytes()
    return False


def kept(home: Path) -> dict[str, bytes]:
    """All that a run keeps but its manifest, which holds times."""
    return {
        path.relative_to(home / ".emergence").as_posix(): path.read_bytes()
        for path in sorted(home.glob(".emergence/runs/*/**/*"))
        if path.suffix in (".safetensors", ".jsonl")
    }


def finished(home: Path) -> dict[str, bytes]:
    with started(home) as process:
        said = process.communicate(timeout=240)[1].decode()
    assert process.returncode == 0, said
    assert not list(home.glob(".emergence/runs/*.partial"))
    return kept(home)


def kill_rank(process: subprocess.Popen[bytes]) -> None:
    os.kill(ranks_of(process.pid)[1], signal.SIGKILL)


ENDS: dict[str, tuple[Callable[[subprocess.Popen[bytes]], object], int, str]] = {
    "a rank killed": (kill_rank, 3, "rank 1 exited with code -9"),
    "SIGTERM": (lambda p: p.terminate(), 130, "interrupted; run it again to go on where it stopped"),
    "Ctrl-C": (
        lambda p: p.send_signal(signal.SIGINT),
        130,
        "interrupted; run it again to go on where it stopped",
    ),
}


@pytest.fixture(scope="module")
def undisturbed() -> list[dict[str, bytes]]:
    """What an undisturbed run of two ranks keeps; filled by the first test that makes one."""
    return []


@pytest.mark.slow
@pytest.mark.parametrize(("act", "code", "line"), ENDS.values(), ids=ENDS)
def test_whatever_ends_one_rank_ends_all_and_the_same_line_goes_on_to_the_same_bytes(
    home, undisturbed, act, code, line
):
    if not undisturbed:
        undisturbed.append(finished(home))
        (home / ".emergence").rename(home / "whole")
    told = ended(home, act)
    assert told[0] == code, told[1]
    assert line in told[1].splitlines()[-1]
    assert "Traceback" not in told[1]
    assert not list(home.glob(".emergence/runs/*/manifest.json"))
    (state,) = home.glob(".emergence/runs/*.partial/resume.json")
    step = json.loads(state.read_text())["record"]["state"]["step"]
    assert step < LAST
    assert step >= 2 or code == 3, "a step that was asked to be the last is kept"
    assert finished(home) == undisturbed[0]
    assert sum(name.endswith(f"{LAST:07d}/adapters.safetensors") for name in undisturbed[0]) == 2


@pytest.mark.slow
def test_ranks_that_hang_are_ended_and_started_again(home, capfd):
    """Rank 1 is paused, which no signal but SIGKILL ends; the other one waits two seconds for it."""
    experiment = Experiment(home / "hypotheses" / "tiny", store=Store(home / ".emergence"), ranks=2)
    paused = []

    def pause() -> None:
        while not list(home.glob(".emergence/runs/*.partial/checkpoints/0000002")):
            time.sleep(0.05)
        paused.append(ranks_of(os.getpid())[1])
        os.kill(paused[0], signal.SIGSTOP)

    thread = threading.Thread(target=pause)
    thread.start()
    launch.train(experiment, launch.hosts(home / "hosts.json"), {"at_least": 2.0})
    thread.join()
    said = capfd.readouterr().err
    assert re.search(r"rank 0: no answer from the others in \d+ s; all ranks end here", said)
    assert "the ranks hung; started again, from the last state" in said
    assert not Path(f"/proc/{paused[0]}").exists()
    arms = experiment.config.arms
    assert all(experiment.store.find("runs", experiment.spec(arm, 0)) for arm in arms)
    assert kept(home)


@pytest.mark.slow
def test_ranks_of_other_settings_are_refused_before_step_1(home, monkeypatch):
    """The second rank is started with another learning rate."""
    folder = home / "hypotheses" / "tiny"
    experiment = Experiment(folder, store=Store(home / ".emergence"), ranks=2)
    real = home / "python"
    other = home / "other" / "tiny"
    other.mkdir(parents=True)
    for path in folder.iterdir():
        (other / path.name).write_text(path.read_text().replace("5e-3", "4e-3"))
    real.write_text(
        f'#!/bin/sh\nargument="$3"\nif [ "$MLX_RANK" = 1 ]; then\n'
        f'argument=$(printf %s "$3" | sed s,{folder},{other},g); fi\n'
        f'exec {sys.executable} "$1" "$2" "$argument"\n'
    )
    real.chmod(0o755)
    (home / "mlx.launch").symlink_to(Path(sys.executable).with_name("mlx.launch"))
    monkeypatch.setattr(sys, "executable", str(real))
    with pytest.raises(UsageError, match="rank 1 and rank 0 differ in what is trained"):
        launch.train(experiment, launch.hosts(home / "hosts.json"))
    assert not list(home.glob(".emergence/runs/*"))


@pytest.mark.slow
def test_ranks_whose_starter_is_killed_end_by_themselves(home, monkeypatch):
    """They hear nothing any more; six seconds stand for the minute that they wait."""
    (home / "sitecustomize.py").write_text(
        "import os\nif 'MLX_RANK' in os.environ:\n"
        "    from emergence.training import group\n    group._SILENCE_S = 6.0\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(home), os.environ["PYTHONPATH"]]))
    tiny.write_config(home / "hypotheses" / "tiny", home / "model", (0, 2, 4000))
    with started(home) as process:
        training(home, process)
        session = launcher(process.pid)
        process.kill()
        for _ in range(600):
            left = [p for p in Path("/proc").iterdir() if p.name.isdigit() and in_session(p, session)]
            if not left:
                break
            time.sleep(0.1)
    assert not left
    (state,) = home.glob(".emergence/runs/*.partial/resume.json")
    assert 2 <= json.loads(state.read_text())["record"]["state"]["step"] < 4000


def test_a_store_is_shared_by_a_word_on_the_command_line(home, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "tiny", "--shared-store", "--dry-run", "--launch", "hosts.json"])
    assert ended.value.code == 0, capsys.readouterr().err
    assert (home / ".emergence" / ".shared-store").exists()


@pytest.mark.slow
def test_pytest_knows_the_word_too(home):
    words = ["-m", "pytest", "hypotheses", "-m", "slow", "--collect-only", "--shared-store"]
    words += ["-p", "emergence.plugin", "-p", "emergence.fixtures"]
    told = subprocess.run([sys.executable, *words], cwd=home, capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr
    assert (home / ".emergence" / ".shared-store").exists()
