"""Hosts that ssh reaches: real ones on loopback, and those that are not there; no engine, no scheduler."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sweeps
from places import ROOT

from emergence.cli.main import main

asyncssh = pytest.importorskip("asyncssh")

HOSTS = "Host one two\n  HostName 127.0.0.1\n  Port {port}\n  User somebody\n  IdentityFile {home}/.ssh/key\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return sweeps.experiment(tmp_path)


@pytest.fixture
def home(place: Path) -> Iterator[Path]:
    """A home whose ssh knows the hosts `one` and `two`; both are this machine."""
    home = place / "home"
    (home / ".ssh").mkdir(parents=True)
    key, host = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    key.write_private_key(home / ".ssh" / "key")
    (home / ".ssh" / "key").chmod(0o600)
    key.write_public_key(place / "authorized")
    host.write_private_key(place / "host_key")
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "support" / "ssh_server.py"), str(place)],
        cwd=place, env=sweeps.environment(),
    )  # fmt: skip
    port = sweeps.until(lambda: (place / "port").exists() and (place / "port").read_text())
    (home / ".ssh" / "config").write_text(HOSTS.format(port=port, home=home))
    public = host.export_public_key().decode()
    (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}")
    yield home
    server.terminate()
    server.wait()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_hosts_by_ssh_make_what_this_machine_makes_and_nothing_stays_there(place: Path, home: Path) -> None:
    arguments = ("sweep", sweeps.NAME, *sweeps.OVER, "--hosts", "one,two")
    head = sweeps.start(place, *arguments, HOME=str(home))
    (key,) = sweeps.until(lambda: head.poll() is not None or list(place.rglob("key.pem")))
    secret = key.read_text().splitlines()[1]
    sweeps.until(lambda: head.poll() is not None or sweeps.halfway(place))
    processes = sweeps.of(place)
    assert sum("dask_spec" in " ".join(p.cmdline()) for p in processes) >= 3, "a scheduler and two workers"
    assert not any(secret in " ".join(p.cmdline()) for p in processes)
    code, said = sweeps.ended(head)
    assert code == 0, said
    assert "2 workers" in said
    assert sweeps.there(place) == sweeps.reference(place)
    left = lambda: [p for p in sweeps.of(place) if "ssh_server" not in " ".join(p.cmdline())]  # noqa: E731
    sweeps.until(lambda: not left(), 150)


def _refused(arguments: tuple[str, ...], capsys: Any) -> str:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    told = str(capsys.readouterr().err)
    assert ended.value.code == 2, told
    return told


def test_what_cannot_be_swept_with_is_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    typed = ("sweep", sweeps.NAME, *sweeps.ONE)
    cases = {
        (*typed, "--hosts", "a", "--scheduler", "b"): "exclude one another",
        (*typed, "--scheduler", "nowhere.json"): "--scheduler nowhere.json: nobody answers",
        (*typed, "--hosts", "nowhere.invalid"): "--hosts nowhere.invalid: cannot be reached",
        (*typed, "--status"): "no such sweep was started",
        ("sweep", sweeps.NAME): "the sweep has no cell",
        ("sweep", sweeps.NAME, "sweep.yaml"): "sweep.yaml: cannot be read",
    }
    for arguments, said in cases.items():
        told = _refused(arguments, capsys)
        assert said in told
        assert told.count("\n") == 1, told
    monkeypatch.setitem(sys.modules, "distributed", None)
    told = _refused(typed, capsys)
    assert "distributed is not installed" in told
    assert told.endswith("pip install distributed asyncssh cryptography\n")
    assert told.count("\n") == 1


def test_a_host_that_has_no_emergence_is_named(
    place: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emergence.errors import UsageError
    from emergence.sweep import hosts

    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UsageError, match="--hosts two: /bin/false does not import emergence"):
        hosts.require(["two"])
