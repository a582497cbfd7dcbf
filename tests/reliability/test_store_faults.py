"""The store under kills, power cuts, failing disks, races and flipped bytes: complete or absent."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faults
import mlx.core as mx
import numpy as np
import pytest
import tiny
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from emergence.errors import BrokenExperiment
from emergence.store import store as store_module
from emergence.store.store import Store, write_atomic

SPEC = {"seed": 0}
STEPS = 3
CONTENT = {f"checkpoints/{n}.bin": bytes([n]) * 500 for n in range(STEPS)} | {"log": b"0\n1\n2\n"}


@pytest.fixture
def disk() -> Iterator[Path]:
    """A folder in memory where there is one: thousands of fsyncs on a real disk take minutes."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def build(workdir: Path) -> dict[str, int]:
    """Goes on from what it finds, as training does; whole files only, so that what is there is right."""
    (workdir / "checkpoints").mkdir(exist_ok=True)
    for name, content in CONTENT.items():
        if not (workdir / name).exists():
            write_atomic(workdir / name, content)
    return {"files": len(CONTENT)}


def build_carelessly(workdir: Path) -> dict[str, int]:
    """As a builder that never heard of fsync."""
    (workdir / "checkpoints").mkdir(exist_ok=True)
    for name, content in CONTENT.items():
        (workdir / name).write_bytes(content)
    return {"files": len(CONTENT)}


def both(root: Path, how: Any = build) -> Store:
    """A run, and readings in it."""
    store = Store(root)
    run = store.get_or_build("runs", SPEC, how)
    store.get_or_build("readings", SPEC, how, parent=run)
    return store


def damage_and_rebuild(root: Path) -> Store:
    found = sorted(root.glob("runs/*/log"))
    if found and found[0].read_bytes() == CONTENT["log"]:
        faults.flip(found[0], 0, 0)
    return both(root)


def remove_and_rebuild(root: Path) -> Store:
    store = both(root)
    store.remove(store.get_or_build("runs", SPEC, build))
    return both(root)


def assert_whole(root: Path) -> None:
    """What a kill may leave: complete entries that verify, finished files that are right, and no damage."""
    for item in Store(root).entries():
        if item.state == "complete":
            assert Store(root).verify(item) is None
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix().split("/", 2)[-1]
        if ".partial/" in path.as_posix() and name in CONTENT:
            assert path.read_bytes() == CONTENT[name], "a finished file was lost"


def assert_recovers(root: Path, damaged: bool = False, how: Any = build) -> None:
    store = both(root, how)
    for item in store.entries():
        if item.state == "corrupt":
            assert damaged, f"a kill is no damage: {store.notices}"
            continue
        assert item.state == "complete"
        assert store.verify(item) is None
        names = {p.relative_to(item.path).as_posix(): p for p in item.path.rglob("*") if p.is_file()}
        for name, content in CONTENT.items():
            assert names[name].read_bytes() == content
        assert not [n for n in names if ".tmp-" in n and item.kind not in n.split("/")]


# Killed at every operation, one after the other


def operations(root: Path, work: Any) -> list[str]:
    root.mkdir()
    return faults.operations(root, lambda: work(root))


def kill_everywhere(
    disk: Path, work: Any, power: bool, stride: int, prepare: Any = None, how: Any = build
) -> int:
    """Kill `work` before operation 1, 1 + stride, ...; then kill the recovery as well; then recover."""
    damaged = work is damage_and_rebuild
    at = 1
    while True:
        root = disk / f"{at}"
        root.mkdir()
        if prepare:
            prepare(root)
        if not faults.killed_at(root, at, lambda root=root: work(root), power):
            assert_recovers(root, damaged, how)
            return at
        if how is build and not damaged:
            assert_whole(root)
        faults.killed_at(root, 1 + at * 7 % 23, lambda root=root: both(root, how), power)
        assert_recovers(root, damaged, how)
        at += stride


EVERY = [pytest.param(17, id="sample"), pytest.param(1, id="all", marks=pytest.mark.slow)]
POWER = pytest.mark.parametrize("power", [False, True], ids=["kill", "power cut"])


@pytest.mark.parametrize("stride", EVERY)
@POWER
def test_a_build_killed_before_any_of_its_operations_is_complete_or_absent(power, stride, disk) -> None:
    assert kill_everywhere(disk, both, power, stride) > 40


@pytest.mark.parametrize("stride", EVERY)
@POWER
@pytest.mark.parametrize("work", [damage_and_rebuild, remove_and_rebuild])
def test_a_repair_or_removal_killed_at_any_operation_recovers(work, power, stride, disk) -> None:
    assert kill_everywhere(disk, work, power, stride, prepare=both) > 20


@pytest.mark.parametrize("stride", EVERY)
def test_a_builder_that_never_syncs_nor_renames_is_safe_from_kills(stride, disk) -> None:
    def work(root: Path) -> Store:
        return both(root, build_carelessly)

    assert kill_everywhere(disk, work, False, stride, how=build_carelessly) > 30


def test_what_such_a_builder_wrote_is_safe_from_power_cuts_once_it_is_sealed(disk) -> None:
    def work(root: Path) -> None:
        Store(root).get_or_build("runs", SPEC, build_carelessly)

    names = operations(disk / "count", work)
    for at in range(len(names) - names[::-1].index("rename"), len(names) + 1):
        root = disk / f"{at}"
        root.mkdir()
        assert faults.killed_at(root, at, lambda root=root: work(root), power=True)
        assert_recovers(root)


def test_a_build_killed_between_seal_and_rename_is_only_renamed_unless_it_was_damaged(disk) -> None:
    def work(root: Path) -> None:
        Store(root).get_or_build("runs", SPEC, build)

    names = operations(disk / "count", work)
    renamed = len(names) - names[::-1].index("rename")
    for root in (disk / "sound", disk / "damaged"):
        root.mkdir()
        assert faults.killed_at(root, renamed, lambda root=root: work(root))
        assert [i.state for i in Store(root).entries()] == ["partial"]
    store = Store(disk / "sound")
    assert store.get_or_build("runs", SPEC, lambda w: pytest.fail("built although sealed")).info == {
        "files": 4
    }
    faults.flip(next((disk / "damaged").glob("runs/*.partial/log")), 0, 0)
    store = Store(disk / "damaged")
    store.get_or_build("runs", SPEC, build)
    assert "log is not what was sealed" in store.notices[0]
    assert_recovers(disk / "damaged", damaged=True)


def test_negative_control_a_store_without_fsync_does_not_survive_a_power_cut(disk, monkeypatch) -> None:
    monkeypatch.setattr(store_module.files, "sync", lambda path: None)
    monkeypatch.setattr(store_module.files, "sync_tree", lambda path: None)
    names = operations(disk / "count", both)
    root = disk / "root"
    root.mkdir()
    assert faults.killed_at(root, len(names), lambda: both(root), power=True)
    store = both(root)
    assert [i.state for i in store.entries()].count("corrupt") == 1
    assert "moved to .corrupt-" in store.notices[0]


def random_kills(disk: Path, n: int, seed: int) -> int:
    """The same at random instants: between two operations of ours, and inside the kernel's; `n` that hit."""
    generator = random.Random(seed)
    start = time.perf_counter()
    assert faults._status(faults._fork(lambda: both(disk / "timed"))) == 0
    whole = time.perf_counter() - start
    killed = missed = 0
    while killed < n:
        root = disk / f"{missed}"
        if faults.killed_after(generator.uniform(0, 0.8 * whole), lambda root=root: both(root)):
            killed += 1
            assert_whole(root)
            if generator.random() < 0.3:
                assert_recovers(root)
                missed += 1
        else:
            assert_recovers(root)
            missed += 1
    return missed


def test_builds_killed_at_random_instants_recover(disk) -> None:
    random_kills(disk, 6, seed=1)


@pytest.mark.slow
def test_two_thousand_builds_killed_at_random_instants_recover(disk) -> None:
    print("2000 kills;", random_kills(disk, 2000, seed=2), "stores")


# Disks that fail


def line_of(work: Any) -> str:
    try:
        work()
    except BrokenExperiment as error:
        return str(error)
    return ""


@pytest.mark.parametrize("stride", EVERY)
@pytest.mark.parametrize("forever", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
def test_an_operation_that_fails_is_one_line_and_the_store_goes_on(code, forever, stride, disk) -> None:
    names = operations(disk / "count", both)
    places = range(1, len(names) + 1, stride)
    raised = 0
    for at in places:
        root = disk / f"{at}"
        root.mkdir()
        with faults.failing(root, at, code, forever):
            said = line_of(lambda root=root: both(root))
        if said:
            raised += 1
            assert ("the disk is full" if code == errno.ENOSPC else "check the disk") in said
            assert "--store" in said
            assert "\n" not in said
        assert_whole(root)
        assert_recovers(root)
    # What may fail unheard is the note about who holds the lock, and tidying up.
    assert raised > (0.9 if forever else 0.5) * len(places)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is Linux's")
def test_a_full_disk_as_mlx_says_it_is_the_same_line(disk) -> None:
    def write(path: Path) -> None:
        path.symlink_to("/dev/full")
        mx.save_safetensors(str(path), {"a": mx.zeros(1000)})

    with pytest.raises(BrokenExperiment, match=r"the disk is full \(\[write\] Unable to write"):
        write_atomic(disk / "a.safetensors", write)
    assert not list(disk.iterdir())

    def build_full(workdir: Path) -> None:
        (workdir / "full.safetensors").symlink_to("/dev/full")
        mx.save_safetensors(str(workdir / "full.safetensors"), {"a": mx.zeros(1000)})

    with pytest.raises(BrokenExperiment, match="the disk is full"):
        Store(disk).get_or_build("runs", SPEC, build_full)


def test_other_runtime_errors_of_a_build_pass_as_they_are(disk) -> None:
    def wrong(workdir: Path) -> None:
        raise RuntimeError("[matmul] shapes do not match")

    with pytest.raises(RuntimeError, match="matmul"):
        Store(disk).get_or_build("runs", SPEC, wrong)


# Several processes

RACER = """
import sys, time
from pathlib import Path
from emergence.store import Store
def build(workdir):
    with open(sys.argv[2], "a") as log:
        log.write("built\\n")
    time.sleep(0.3)
    (workdir / "x").write_text("x")
store = Store(sys.argv[1])
entry = store.get_or_build("runs", {"a": 1}, build)
assert entry.file("x").read_text() == "x"
print("\\n".join(store.notices))
"""


def test_two_processes_build_once_and_the_one_that_waits_says_so(disk) -> None:
    command = [sys.executable, "-c", RACER, str(disk / "store"), str(disk / "log")]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [racer.communicate(timeout=30)[0] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0]
    assert (disk / "log").read_text() == "built\n"
    # One that starts after the other has finished has nothing to say; on a busy machine that happens.
    assert sum("waiting for it to finish" in text for text in said) <= 1


def test_when_the_builder_is_killed_the_one_that_waits_goes_on_from_what_it_left(disk) -> None:
    def first(workdir: Path) -> None:
        build(workdir)
        (disk / "reached").touch()
        time.sleep(30)

    def second(workdir: Path) -> dict[str, int]:
        assert {p.name for p in workdir.iterdir()} == {"checkpoints", "log"}
        return build(workdir)

    def told(line: str) -> None:
        assert f"process {builder} on " in line
        os.kill(builder, 9)

    builder = faults._fork(lambda: Store(disk / "s").get_or_build("runs", SPEC, first))
    while not (disk / "reached").exists():
        time.sleep(0.01)
    store = Store(disk / "s", told)
    store.get_or_build("runs", SPEC, second)
    assert faults._status(builder) == -9
    assert len(store.notices) == 1


def test_a_run_is_not_removed_under_those_who_read_it(disk) -> None:
    store = Store(disk / "s")
    run = store.get_or_build("runs", SPEC, build)

    def slow(workdir: Path) -> dict[str, int]:
        (disk / "reached").touch()
        while not (disk / "go").exists():
            time.sleep(0.01)
        return build(workdir)

    reader = faults._fork(lambda: Store(disk / "s").get_or_build("readings", SPEC, slow, parent=run))
    while not (disk / "reached").exists():
        time.sleep(0.01)
    Store(disk / "s", lambda line: (disk / "go").touch()).remove(run)
    assert faults._status(reader) == 0
    assert Store(disk / "s").entries() == []


def test_four_processes_that_find_the_same_damage_repair_it_once(disk) -> None:
    both(disk)
    faults.flip(next(disk.glob("runs/*/log")), 0, 0)
    children = [faults._fork(lambda: both(disk)) for _ in range(4)]
    assert [faults._status(child) for child in children] == [0] * 4
    assert len(list(disk.glob("runs/.corrupt-*"))) == 1
    assert_recovers(disk, damaged=True)


def wrestle(root: Path, seed: int, seconds: float) -> None:
    """Build, find, verify, list and remove at random beside others who do the same."""
    generator = random.Random(seed)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        store, spec = Store(root), {"seed": generator.randrange(3)}
        match generator.randrange(5):
            case 0 | 1:
                store.get_or_build("runs", spec, build)
            case 2:
                store.find("runs", spec)
            case 3:
                store.entries()
            case 4:
                for item in store.entries():
                    store.remove(item) if generator.random() < 0.5 else None
        assert all("waiting" in line for line in store.notices), store.notices


def test_processes_that_build_list_and_remove_at_random_never_disturb_each_other(disk) -> None:
    children = [faults._fork(lambda n=n: wrestle(disk, n, 0.8)) for n in range(4)]
    assert [faults._status(child) for child in children] == [0] * 4
    assert_whole(disk)
    assert_recovers(disk)


# Against a dictionary


class StoreIsADictionary(RuleBasedStateMachine):
    """Built, damaged, removed, interrupted, reopened: the store says what a dictionary says."""

    specs = Bundle("specs")

    @initialize(folder=st.builds(object))
    def start(self, folder: object) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        self.store = Store(self.root)
        self.model: dict[str, bytes] = {}
        self.reached: dict[str, bytes] = {}

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.folder.cleanup()

    @rule(target=specs, seed=st.integers(0, 3), rate=st.sampled_from([1e-4, 0.1, 1.0]))
    def spec(self, seed: int, rate: float) -> dict[str, Any]:
        return {"seed": seed, "rate": rate}

    @rule(spec=specs, content=st.binary(max_size=20))
    def build(self, spec: dict, content: bytes) -> None:
        key = store_module.key_of(spec)

        def fill(workdir: Path) -> dict[str, int]:
            left = workdir / "reached"
            assert (left.read_bytes() if left.exists() else None) == self.reached.pop(key, None)
            left.unlink(missing_ok=True)
            assert key not in self.model, "built although it is there"
            (workdir / "content").write_bytes(content)
            return {"n": len(content)}

        entry = self.store.get_or_build("runs", spec, fill)
        expected = self.model.setdefault(key, content)
        assert entry.file("content").read_bytes() == expected
        assert entry.info == {"n": len(expected)}

    @rule(spec=specs, content=st.binary(max_size=20), error=st.sampled_from([ValueError, KeyboardInterrupt]))
    def interrupt(self, spec: dict, content: bytes, error: type) -> None:
        key = store_module.key_of(spec)

        def fill(workdir: Path) -> None:
            write_atomic(workdir / "reached", content)
            self.reached[key] = content
            raise error

        try:
            self.store.get_or_build("runs", spec, fill)
        except error:
            assert key not in self.model
        else:
            assert key in self.model

    @rule(spec=specs)
    def find(self, spec: dict) -> None:
        entry, expected = self.store.find("runs", spec), self.model.get(store_module.key_of(spec))
        assert (entry and entry.file("content").read_bytes()) == expected

    @rule(spec=specs, at=st.integers(0, 10_000), bit=st.integers(0, 7))
    def damage(self, spec: dict, at: int, bit: int) -> None:
        key = store_module.key_of(spec)
        if key in self.model:
            paths = [p for p in sorted((self.root / "runs" / key).iterdir()) if p.stat().st_size]
            path = paths[at % len(paths)]
            faults.flip(path, at % path.stat().st_size, bit)
            del self.model[key]
            self.store = Store(self.root)

    @rule(spec=specs)
    def remove(self, spec: dict) -> None:
        key = store_module.key_of(spec)
        for item in self.store.entries():
            if item.key == key and item.state == "complete":
                self.store.remove(item)
                self.model.pop(key, None)

    @rule()
    def reopen(self) -> None:
        self.store = Store(self.root)

    @invariant()
    def the_inventory_is_the_dictionary(self) -> None:
        if not hasattr(self, "store"):
            return
        items = self.store.entries()
        sound = {i.key for i in items if i.state == "complete" and self.store.verify(i) is None}
        assert sound == set(self.model)
        assert {i.key for i in items if i.state == "partial"} == set(self.reached)


TestStoreIsADictionary = StoreIsADictionary.TestCase
TestStoreIsADictionary.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


# Flipped bytes


@pytest.fixture(scope="module")
def stocked(tmp_path_factory) -> Path:
    """A store with one file of every kind that emergence keeps."""
    root = tmp_path_factory.mktemp("stocked")
    store = Store(root)
    store.get_or_build(
        "models", {"model": "tiny"}, lambda w: tiny.write_model(w, n_layers=1, hidden=8) and None
    )

    def run(workdir: Path) -> dict[str, float]:
        folder = workdir / "checkpoints" / "0000050"
        folder.mkdir(parents=True)
        mx.save_safetensors(str(folder / "adapters.safetensors"), {"lora_a": mx.random.normal((8, 4))})
        (folder / "adapter_config.json").write_text(json.dumps({"rank": 4}))
        (workdir / "train.jsonl").write_text(json.dumps({"step": 0, "train_loss": 1.25}) + "\n")
        (workdir / "data").mkdir()
        (workdir / "data" / "train.jsonl").write_text(json.dumps({"operation": "add", "a": 1, "b": 2}) + "\n")
        return {"loss": 0.5}

    def readings(workdir: Path) -> None:
        np.savez(workdir / "readings.npz", words=np.random.default_rng(0).normal(size=(2, 3)))
        np.save(workdir / "hidden.npy", np.ones((4, 4), np.float32))
        (workdir / "prompts.json").write_text(json.dumps(["7 * 8 = "]))

    store.get_or_build("readings", {"lens": 1}, readings, parent=store.get_or_build("runs", SPEC, run))
    return root


def undetected_flips(root: Path, n: int, seed: int) -> Iterator[str]:
    generator = random.Random(seed)
    sealed = [i for i in Store(root).entries() if i.state == "complete"]
    places = [p for p in root.rglob("*") if p.is_file() and p.suffix != ".lock"]
    for _ in range(n):
        path, offset, bit = faults.random_place(places, generator)
        owners = [i for i in sealed if path.is_relative_to(i.path)]
        owner = max(owners, key=lambda i: len(i.path.parts), default=None)
        faults.flip(path, offset, bit)
        if owner is None or Store(root).verify(owner) is None:
            yield f"{path} at {offset}, bit {bit}"
        faults.flip(path, offset, bit)
    assert all(Store(root).verify(i) is None for i in sealed)


def test_a_flip_of_any_bit_in_five_hundred_places_of_every_kind_of_file_is_detected(stocked: Path) -> None:
    assert list(undetected_flips(stocked, 500, seed=3)) == []


@pytest.mark.slow
def test_a_flip_of_any_bit_in_fifty_thousand_places_is_detected(stocked: Path) -> None:
    assert list(undetected_flips(stocked, 50_000, seed=4)) == []


def test_every_bit_of_a_manifest_is_guarded(stocked: Path) -> None:
    (item,) = [i for i in Store(stocked).entries() if i.kind == "runs"]
    size = (item.path / "manifest.json").stat().st_size
    for offset in range(size):
        bit = offset % 8
        faults.flip(item.path / "manifest.json", offset, bit)
        assert Store(stocked).verify(item) == "manifest.json is not what was sealed", f"{offset}, {bit}"
        faults.flip(item.path / "manifest.json", offset, bit)
