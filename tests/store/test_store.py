"""The store: what it keeps, under which key, what it refuses, and what it says."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergence.errors import BrokenExperiment, UsageError
from emergence.store import files, locks
from emergence.store import manifest as sealing
from emergence.store.store import Entry, Store, canonical, key_of, write_atomic

SPEC = {"model": "abc", "rate": 5e-4, "steps": [0, 50], "seed": 0}


def fill(workdir: Path) -> dict[str, object]:
    (workdir / "checkpoints" / "0000050").mkdir(parents=True, exist_ok=True)
    (workdir / "checkpoints" / "0000050" / "adapters.safetensors").write_bytes(bytes(range(256)))
    (workdir / "train.jsonl").write_text('{"step": 0}\n')
    return {"loss": 0.5}


def never(workdir: Path) -> None:
    raise AssertionError("built although it is there")


def test_the_second_call_builds_nothing_and_returns_the_same_entry(tmp_path: Path) -> None:
    built = Store(tmp_path).get_or_build("runs", SPEC, fill)
    again = Store(tmp_path).get_or_build("runs", SPEC, never)
    assert again == built
    assert built.info == {"loss": 0.5}
    assert built.size == 256 + 12
    assert built.file("train.jsonl").read_text() == '{"step": 0}\n'
    assert sorted(built.manifest["files"]) == ["checkpoints/0000050/adapters.safetensors", "train.jsonl"]
    assert Store(tmp_path).find("runs", SPEC) == built
    assert Store(tmp_path).find("runs", SPEC | {"seed": 1}) is None


def test_an_entry_opens_where_the_store_was_moved_to(tmp_path: Path) -> None:
    Store(tmp_path / "here").get_or_build("runs", SPEC, fill)
    (tmp_path / "here").rename(tmp_path / "there")
    assert Store(tmp_path / "there").get_or_build("runs", SPEC, never).info == {"loss": 0.5}


def test_nested_entries_live_and_go_with_their_parent(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run = store.get_or_build("runs", SPEC, fill)
    other = store.get_or_build("runs", SPEC | {"seed": 1}, fill)
    reading = store.get_or_build("readings", {"lens": 1}, fill, parent=run)
    assert reading.path.parent.parent == run.path
    assert store.find("readings", {"lens": 1}, parent=run) == reading
    assert store.find("readings", {"lens": 1}, parent=other) is None
    assert store.verify(run) is None, "what is nested later does not break the parent's seal"
    store.remove(run)
    assert store.find("readings", {"lens": 1}, parent=run) is None
    with pytest.raises(BrokenExperiment, match="was removed while it was in use"):
        store.get_or_build("readings", {"lens": 1}, fill, parent=run)


def test_an_entry_copied_to_another_parent_is_not_taken_for_its_own(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run = store.get_or_build("runs", SPEC, fill)
    other = store.get_or_build("runs", SPEC | {"seed": 1}, fill)
    store.get_or_build("readings", {"lens": 1}, fill, parent=run)
    shutil.copytree(run.path / "readings", other.path / "readings")
    assert store.find("readings", {"lens": 1}, parent=other) is None
    assert "sealed for something else" in store.notices[-1]


# Keys

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=4), st.randoms())
def test_the_key_does_not_depend_on_the_order_of_a_spec_and_survives_json(spec: dict, random) -> None:
    names = list(spec)
    random.shuffle(names)
    assert key_of({name: spec[name] for name in names}) == key_of(spec)
    assert canonical(json.loads(canonical(spec))) == canonical(spec)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_two_floats_share_a_key_only_if_they_are_the_same_bits(a: float, b: float) -> None:
    same = a == b and math.copysign(1, a) == math.copysign(1, b)
    assert (key_of({"rate": a}) == key_of({"rate": b})) == same


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ({"rate": math.nan}, ValueError),
        ({"rate": math.inf}, ValueError),
        ({"rate": {"deep": [-math.inf]}}, ValueError),
        ({1: "one"}, TypeError),
        ({"a": {None: 1}}, TypeError),
        ({"path": Path("/home/me")}, TypeError),
        ({"set": {1, 2}}, TypeError),
    ],
    ids=["nan", "inf", "deep inf", "integer key", "null key", "path", "set"],
)
def test_a_spec_that_json_cannot_hold_exactly_is_refused(spec: dict, error: type, tmp_path: Path) -> None:
    with pytest.raises(error):
        Store(tmp_path).get_or_build("runs", spec, never)


def test_known_key_so_that_no_release_loses_old_runs_unawares() -> None:
    # printf '{"a":1.0,"b":[true,null,"\\u00e9"]}' | sha256sum
    assert key_of({"b": (True, None, "é"), "a": 1.0}) == "aaaaf1ebf800109f"


# Damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: (p / "train.jsonl").unlink(),
        lambda p: (p / "train.jsonl").write_text(""),
        lambda p: (p / "train.jsonl").write_text('{"step": 1}\n'),
        lambda p: (p / "manifest.json").unlink(),
        lambda p: (p / "manifest.json").write_text("{}"),
        lambda p: (p / "manifest.json").write_text("[" * 100_000),
        lambda p: (p / "manifest.json").write_bytes(b"\xff\x00"),
        lambda p: (p / "manifest.json").write_text((p / "manifest.json").read_text().replace("0.5", "0.6")),
        lambda p: (p / "manifest.json").write_text((p / "manifest.json").read_text() + " "),
        lambda p: (shutil.rmtree(p / "checkpoints"), (p / "checkpoints").write_text("")),
        lambda p: (
            (p / "train.jsonl").rename(p.parent / "t"),
            (p / "train.jsonl").symlink_to(p.parent / "t"),
        ),
        lambda p: (shutil.rmtree(p), p.write_text("")),
    ],
    ids=[
        *("file missing", "file empty", "same size", "no manifest", "empty manifest", "deep manifest"),
        *("binary manifest", "info changed", "space added", "folder became file", "file became link"),
        "entry became file",
    ],
)
def test_damage_is_moved_aside_by_name_built_again_and_said(damage, tmp_path: Path) -> None:
    path = Store(tmp_path).get_or_build("runs", SPEC, fill).path
    damage(path)
    told: list[str] = []
    store = Store(tmp_path, told.append)
    assert store.find("runs", SPEC) is None
    assert path.exists() or path.is_symlink(), "find changes nothing"
    rebuilt = store.get_or_build("runs", SPEC, fill)
    assert store.verify(rebuilt) is None
    (aside,) = path.parent.glob(".corrupt-*")
    assert aside.name.startswith(f".corrupt-{path.name}-")
    assert aside.name in told[-1]
    assert told == store.notices


def test_damage_twice_in_one_second_keeps_both(tmp_path: Path) -> None:
    for _ in range(3):
        path = Store(tmp_path).get_or_build("runs", SPEC, fill).path
        (path / "train.jsonl").unlink()
    Store(tmp_path).get_or_build("runs", SPEC, fill)
    assert len(list(path.parent.glob(".corrupt-*"))) == 3


def test_files_are_hashed_once_per_process_unless_they_were_touched(tmp_path: Path, monkeypatch) -> None:
    Store(tmp_path).get_or_build("runs", SPEC, fill)
    hashed: list[Path] = []
    real = files.digest
    monkeypatch.setattr(files, "digest", lambda path: hashed.append(path) or real(path))
    store = Store(tmp_path)
    entry = store.get_or_build("runs", SPEC, never)
    assert len(hashed) == 2
    store.get_or_build("runs", SPEC, never)
    assert len(hashed) == 2
    os.utime(entry.file("train.jsonl"), (1, 1))
    store.get_or_build("runs", SPEC, never)
    assert len(hashed) == 4


def test_a_newer_schema_is_refused_by_version_and_left_alone(tmp_path: Path) -> None:
    entry = Store(tmp_path).get_or_build("runs", SPEC, fill)
    content = {k: v for k, v in entry.manifest.items() if k != "seal"} | {"schema": 7}
    (entry.path / "manifest.json").write_bytes(sealing._manifest_bytes(content))
    for act in (Store(tmp_path).find, lambda k, s: Store(tmp_path).get_or_build(k, s, never)):
        with pytest.raises(UsageError, match="has schema 7, this version of emergence knows 1; upgrade"):
            act("runs", SPEC)
    assert entry.path.is_dir()
    assert not list(tmp_path.glob("runs/.corrupt-*"))


def test_a_file_that_was_never_sealed_is_not_handed_out(tmp_path: Path) -> None:
    entry = Store(tmp_path).get_or_build("runs", SPEC, fill)
    (entry.path / "checkpoints" / "0000099").mkdir()
    with pytest.raises(BrokenExperiment, match="holds no file 'checkpoints/0000099'"):
        entry.file("checkpoints/0000099")


# Builds that end badly


def test_a_build_that_raises_keeps_what_it_reached_and_seals_nothing(tmp_path: Path) -> None:
    def diverge(workdir: Path) -> None:
        fill(workdir)
        raise BrokenExperiment("loss is NaN at step 7")

    seen: list[str] = []

    def go_on(workdir: Path) -> dict[str, object]:
        seen.extend(sorted(p.name for p in workdir.iterdir()))
        return fill(workdir)

    store = Store(tmp_path)
    for error in (BrokenExperiment, BrokenExperiment):
        with pytest.raises(error, match="NaN at step 7"):
            store.get_or_build("runs", SPEC, diverge)
        assert store.find("runs", SPEC) is None
    assert [i.state for i in store.entries()] == ["partial"]
    store.get_or_build("runs", SPEC, go_on)
    assert seen == ["checkpoints", "train.jsonl"]
    assert [i.state for i in store.entries()] == ["complete"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_build_frees_the_lock(stop: type[BaseException], tmp_path: Path) -> None:
    def build(workdir: Path) -> None:
        raise stop

    store = Store(tmp_path)
    with pytest.raises(stop):
        store.get_or_build("runs", SPEC, build)
    assert not list(tmp_path.rglob("*.holder"))
    Store(tmp_path).get_or_build("runs", SPEC, fill)


def test_temporary_files_of_killed_writers_are_swept_and_never_sealed(tmp_path: Path) -> None:
    workdir = tmp_path / "runs" / f"{key_of(SPEC)}.partial"
    (workdir / ".tmp-abc").mkdir(parents=True)
    (workdir / ".tmp-abc" / "x").write_text("x")
    (workdir / "checkpoints").mkdir()
    (workdir / "checkpoints" / ".tmp-def.safetensors").write_text("x")
    entry = Store(tmp_path).get_or_build("runs", SPEC, fill)
    assert not list(entry.path.rglob(".tmp-*"))
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("make", [lambda p: p.symlink_to("."), lambda p: os.mkfifo(p)], ids=["loop", "fifo"])
def test_links_and_devices_are_not_sealed(make, tmp_path: Path) -> None:
    with pytest.raises(BrokenExperiment, match="is a link or a device"):
        Store(tmp_path).get_or_build("runs", SPEC, lambda w: make(w / "x"))


def test_what_only_the_build_may_not_read_is_not_blamed_on_the_store(tmp_path: Path) -> None:
    def build(workdir: Path) -> None:
        raise PermissionError(13, "Permission denied", "/models/gated")

    with pytest.raises(PermissionError):
        Store(tmp_path).get_or_build("runs", SPEC, build)


# Names and places

NAMES = ["a b", "-rf", "ünï", "💥", "a\nb", "'\"$(x)", "%2e%2e", "a" * 200, "con.", "\u202eabc"]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_of_stores_and_files_are_kept_as_they_are(name: str, tmp_path: Path) -> None:
    root = tmp_path / name
    entry = Store(root).get_or_build("runs", SPEC, lambda w: (w / name).write_text("x") and None)
    assert Store(root).get_or_build("runs", SPEC, never).file(name).read_text() == "x"
    assert Store(root).verify(entry) is None


def test_a_file_name_that_is_not_unicode_is_kept(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/runs/" + key_of(SPEC).encode() + b".partial/\xff\xfe"
    try:
        Store(tmp_path).get_or_build("runs", SPEC, lambda w: open(raw, "wb").close())
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    assert Store(tmp_path).get_or_build("runs", SPEC, never).size == 0


@pytest.mark.parametrize("part", ["..", ".", "", "a/b", "/etc", "a\x00b", "a\\b", "x" * 201])
def test_a_name_from_a_config_cannot_leave_the_store(part: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be a folder of the store"):
        Store(tmp_path).folder("experiments", part)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["", "..", "a/b", "Runs", ".x", "x" * 50])
def test_a_kind_cannot_leave_the_store(kind: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be a kind"):
        Store(tmp_path).find(kind, SPEC)


def _loop(path: Path) -> Path:
    path.symlink_to(path)
    return path


def _file(path: Path) -> Path:
    path.write_text("")
    return path


@pytest.mark.parametrize(
    "make", [_loop, _file, lambda p: _file(p) / "below"], ids=["link loop", "file", "under a file"]
)
def test_a_root_that_cannot_be_a_folder_is_one_line(make, tmp_path: Path) -> None:
    store = Store(make(tmp_path / "root"))
    for act in (
        lambda: store.get_or_build("runs", SPEC, never),
        lambda: store.folder("experiments", "x"),
    ):
        with pytest.raises(UsageError, match=r"cannot be a store \(.*--store") as caught:
            act()
        assert "\n" not in str(caught.value)


def test_without_a_home_the_store_works(tmp_path: Path) -> None:
    code = "from emergence.store.store import Store; Store('s').get_or_build('runs', {}, lambda w: {})"
    env = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME")}
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env | {"PYTHONPATH": os.getcwd()}, check=True
    )
    assert len(Store(tmp_path / "s").entries()) == 1


READ_ONLY = """
import os, sys
from pathlib import Path
from emergence.store import Store
from emergence.errors import UsageError
os.setgid(65534); os.setuid(65534)
store = Store(sys.argv[1])
entry = store.get_or_build("runs", {"a": 1}, None)
print(entry.file("x").read_text())
try:
    store.get_or_build("runs", {"a": 2}, None)
except UsageError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_store_one_may_only_read_gives_what_it_has_and_refuses_the_rest(tmp_path: Path) -> None:
    for folder in [tmp_path, *tmp_path.parents[:-2]]:
        folder.chmod(0o755)
    Store(tmp_path).get_or_build("runs", {"a": 1}, lambda w: (w / "x").write_text("kept") and None)
    ran = subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(tmp_path)], capture_output=True, text=True, timeout=20
    )
    assert ran.stdout.splitlines()[0] == "kept", ran.stderr
    assert "cannot be used (Permission denied); choose another place with --store" in ran.stdout


def test_too_little_space_is_said_before_anything_is_built(tmp_path: Path) -> None:
    store = Store(tmp_path / "not" / "yet" / "there")
    store.require_space(0)
    with pytest.raises(BrokenExperiment, match=r"needs 1000.0 TB, has .* free; free some space"):
        store.require_space(10**15)
    assert not store.root.exists()


# Locks


def test_those_who_wait_are_told_who_holds_the_lock_and_then_take_what_was_built(tmp_path: Path) -> None:
    started, finish = threading.Event(), threading.Event()

    def slow(workdir: Path) -> dict[str, object]:
        started.set()
        finish.wait(10)
        return fill(workdir)

    first = threading.Thread(target=lambda: Store(tmp_path).get_or_build("runs", SPEC, slow))
    first.start()
    started.wait(10)

    def told(line: str) -> None:
        lines.append(line)
        finish.set()

    lines: list[str] = []
    assert Store(tmp_path, told).get_or_build("runs", SPEC, never).info == {"loss": 0.5}
    first.join()
    assert f"process {os.getpid()} on " in lines[0]
    assert "has held it for 0 s; waiting for it to finish" in lines[0]
    assert len(lines) == 1


@pytest.mark.parametrize("text", ["", "{", '{"pid": 1}', '{"pid": 1, "host": "h", "since": 9e99}'])
def test_a_lock_left_behind_is_free_and_what_its_note_says_is_only_shown(text: str, tmp_path: Path) -> None:
    shelf = tmp_path / "runs"
    shelf.mkdir()
    (shelf / f"{key_of(SPEC)}.lock").write_text("stale")
    (shelf / f"{key_of(SPEC)}.holder").write_text(text)
    assert locks._holder(shelf / f"{key_of(SPEC)}.holder")
    Store(tmp_path).get_or_build("runs", SPEC, fill)


def test_a_clock_set_back_shows_no_negative_age() -> None:
    assert locks._age(-1e9) == "0 s"
    assert locks._age(3600) == "60 min"


# Inventory: the back end of `emergence store`


def test_the_inventory_says_what_there_is_how_big_how_old_and_what_uses_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    run = store.get_or_build("runs", SPEC, fill)
    reading = store.get_or_build("readings", {"lens": 1}, fill, parent=run)
    spare = store.get_or_build("runs", SPEC | {"seed": 1}, fill)
    results = store.folder("experiments", "classifier emergence", "results")
    (results / "run_1.json").write_text(json.dumps({"runs": [run.key]}))
    found = {i.key: i for i in store.entries()}
    assert set(found) == {run.key, reading.key, spare.key}
    assert found[run.key].used_by == (
        f"readings/{reading.key}",
        "experiments/classifier emergence/results/run_1.json",
    )
    assert found[spare.key].used_by == ()
    assert found[spare.key].spec["seed"] == 1
    assert abs((datetime.now(UTC) - found[run.key].created).total_seconds()) < 100
    assert found[run.key].size > found[reading.key].size > 268


def test_what_is_listed_can_be_verified_and_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    good, bad = (store.get_or_build("runs", SPEC | {"seed": n}, fill) for n in (1, 2))
    (bad.path / "train.jsonl").write_text("{}")
    assert {i.key: store.verify(i) for i in store.entries()} == {
        good.key: None,
        bad.key: "train.jsonl has 2 bytes instead of 12",
    }
    Store(tmp_path).get_or_build("runs", SPEC | {"seed": 2}, fill)
    (good.path / "manifest.json").write_text("{}")
    assert sorted(i.state for i in store.entries()) == ["complete", "corrupt", "damaged"]
    for item in store.entries():
        store.remove(item)
        store.remove(item)
    assert store.entries() == []


def test_nothing_outside_the_store_is_ever_removed(tmp_path: Path) -> None:
    mine = Store(tmp_path / "a").get_or_build("runs", SPEC, fill)
    with pytest.raises(UsageError, match="is not in the store"):
        Store(tmp_path / "b").remove(mine)
    sly = Entry(tmp_path / "b" / ".." / "a" / "runs" / mine.key, mine.key, mine.manifest)
    with pytest.raises(UsageError, match="is not in the store"):
        Store(tmp_path / "b").remove(sly)
    assert mine.path.is_dir()


# Single files


@settings(max_examples=20)
@given(st.binary(max_size=300))
def test_write_atomic_writes_what_it_is_given_and_leaves_nothing_else(tmp_path_factory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("w") / "f.json"
    write_atomic(path, "old")
    write_atomic(path, data)
    assert path.read_bytes() == data
    write_atomic(path, lambda aside: aside.write_bytes(data + b"!") and None)
    assert path.read_bytes() == data + b"!"
    assert [p.name for p in path.parent.iterdir()] == ["f.json"]


def test_a_writer_that_raises_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    def writer(aside: Path) -> None:
        assert aside.suffix == ".safetensors", "MLX adds its own suffix otherwise"
        aside.write_text("half")
        raise ValueError

    write_atomic(tmp_path / "a.safetensors", "old")
    with pytest.raises(ValueError):  # noqa: PT011 (a bare one is the point)
        write_atomic(tmp_path / "a.safetensors", writer)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.safetensors", "old")]


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 B"), (999, "999 B"), (1536, "1.5 kB"), (123_456, "123 kB"), (5 * 10**12, "5.0 TB")]
)
def test_sizes_are_readable(n: int, text: str) -> None:
    assert files.size_text(n) == text
