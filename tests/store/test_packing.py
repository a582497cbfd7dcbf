"""Entries as one file: what comes out is what went in, and a file that is anything else adds nothing."""

from __future__ import annotations

import hashlib
import io
import os
import random
import tarfile
from pathlib import Path

import pytest

from emergence.cli import main as cli
from emergence.errors import UsageError
from emergence.store import packing
from emergence.store.store import Store, key_of

SPEC = {"seed": 0}
READING = {"lens": 1}


def fill(workdir: Path) -> dict[str, object]:
    (workdir / "checkpoints" / "0000050").mkdir(parents=True)
    (workdir / "checkpoints" / "0000050" / "adapters.safetensors").write_bytes(bytes(range(256)) * 3)
    (workdir / "train.jsonl").write_text('{"step": 0}\n')
    return {"loss": 0.5}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two runs; the first has a reading."""
    made = Store(tmp_path / "from")
    run = made.get_or_build("runs", SPEC, fill)
    made.get_or_build("readings", READING, fill, parent=run)
    made.get_or_build("runs", {"seed": 1}, fill)
    return made


@pytest.fixture
def packed(store: Store, tmp_path: Path) -> Path:
    packing.pack(store, [key_of(SPEC)], tmp_path / "run.tar")
    return tmp_path / "run.tar"


def content(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def left(root: Path) -> set[str]:
    """What is in a store but its locks."""
    return {name for name in content(root) if not name.endswith(".lock")}


def test_what_is_packed_and_added_is_there_byte_by_byte_with_what_is_nested_in_it(store, packed, tmp_path):
    other = Store(tmp_path / "to")
    new, known = packing.add(other, packed)
    run, reading = (
        f"runs/{key_of(SPEC)}",
        f"runs/{key_of(SPEC)}/readings/{key_of(READING)}",
    )
    assert (new, known) == ([run, reading], [])
    entry = other.find("runs", SPEC)
    assert entry is not None
    assert other.find("readings", READING, parent=entry)
    here = content(store.root)
    assert {n: b for n, b in content(other.root).items() if not n.endswith(".lock")} == {
        name: data for name, data in here.items() if name.startswith(run + "/") and ".lock" not in name
    }
    assert packing.add(other, packed) == ([], [run, reading]), "a second time it changes nothing"


def test_equal_entries_make_equal_packs_and_a_pack_looks_like_this_for_ever(store, packed, tmp_path):
    packing.pack(store, [key_of(SPEC)], tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == packed.read_bytes()
    with tarfile.open(packed) as archive:
        names = archive.getnames()
        assert {m.mtime for m in archive} == {0}
    run = f"runs/{key_of(SPEC)}"
    assert names[:3] == [
        f"{run}/checkpoints/0000050/adapters.safetensors",
        f"{run}/train.jsonl",
        f"{run}/manifest.json",
    ]
    assert names[-1] == f"{run}/readings/{key_of(READING)}/manifest.json"
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("runs/0123456789abcdef/manifest.json")
        member.size = 2
        archive.addfile(member, io.BytesIO(b"{}"))
    assert hashlib.sha256(stream.getvalue()).hexdigest().startswith("5767d06f6517"), (
        "this Python writes tar otherwise than the one that packed"
    )


def test_a_reading_alone_needs_its_run(store, packed, tmp_path):
    packing.pack(store, [key_of(READING)], tmp_path / "reading.tar")
    other = Store(tmp_path / "to")
    with pytest.raises(UsageError, match=r"belongs to runs/.*, which is not in .*; add that first"):
        packing.add(other, tmp_path / "reading.tar")
    packing.add(other, packed)
    assert packing.add(other, tmp_path / "reading.tar")[0] == []


def test_any_flipped_bit_of_a_pack_is_refused_and_leaves_nothing(packed, tmp_path):
    whole, rng = packed.read_bytes(), random.Random(0)
    other = Store(tmp_path / "to")
    places = [*range(0, 512, 37), *(rng.randrange(len(whole)) for _ in range(60)), len(whole) - 1]
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << rng.randrange(8)
        packed.write_bytes(flipped)
        with pytest.raises(UsageError) as error:
            packing.add(other, packed)
        assert len(str(error.value).splitlines()) == 1
        assert not left(other.root), place
    packed.write_bytes(whole)
    assert packing.add(other, packed)[0], "the file itself was good"


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_pack_is_refused_and_leaves_nothing(packed, tmp_path, share):
    whole = packed.read_bytes()
    packed.write_bytes(whole[: int(share * len(whole))])
    other = Store(tmp_path / "to")
    with pytest.raises(UsageError, match="nothing was added"):
        packing.add(other, packed)
    assert not left(other.root)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


RUN = "runs/0123456789abcdef"
EVIL = {
    "climbs out": member(f"{RUN}/../../../out"),
    "absolute": member("/tmp/out"),
    "no place of a store": member("out"),
    "in a folder of results": member("experiments/a/verdicts.json"),
    "a link": member(f"{RUN}/a", tarfile.SYMTYPE, "/etc/passwd"),
    "a hard link": member(f"{RUN}/a", tarfile.LNKTYPE, f"{RUN}/manifest.json"),
    "a device": member(f"{RUN}/a", tarfile.CHRTYPE),
    "a pipe": member(f"{RUN}/a", tarfile.FIFOTYPE),
    "a name too long": member(f"{RUN}/{'a' * 300}"),
    "no manifest": member(f"{RUN}/a"),
    "a file beside the sealed ones": member(f"runs/{key_of(SPEC)}/other"),
    "a file twice": member(f"runs/{key_of(SPEC)}/train.jsonl"),
    "a file in a file": member(f"runs/{key_of(SPEC)}/train.jsonl/a"),
    "an entry under another key": member(f"{RUN}/manifest.json"),
}


@pytest.mark.parametrize("evil", EVIL.values(), ids=EVIL)
def test_a_pack_with_a_member_that_no_store_holds_is_one_line_and_leaves_nothing(packed, tmp_path, evil):
    with tarfile.open(packed, "a") as archive:
        archive.addfile(evil)
    before = content(tmp_path)
    with pytest.raises(UsageError) as error:
        packing.add(Store(tmp_path / "to"), packed)
    (line,) = str(error.value).splitlines()
    assert line.startswith(str(packed))
    assert line.endswith("nothing was added")
    after = {name: data for name, data in content(tmp_path).items() if name != "to/add.lock"}
    assert after == before


def test_an_entry_under_a_key_that_is_not_its_own_is_refused(store, packed, tmp_path):
    run, other = f"runs/{key_of(SPEC)}", f"runs/{key_of({'seed': 5})}"
    places = {f"{other}/": store.root / run}
    with (tmp_path / "moved.tar").open("wb") as stream:
        packing._write(stream, places)
    with pytest.raises(UsageError, match="was sealed for something else; nothing was added"):
        packing.add(Store(tmp_path / "to"), tmp_path / "moved.tar")


def test_a_damaged_entry_is_never_packed_and_is_replaced_by_what_is_added(store, packed, tmp_path):
    other = Store(tmp_path / "to")
    packing.add(other, packed)
    log = other.root / "runs" / key_of(SPEC) / "train.jsonl"
    log.write_text("{}")
    with pytest.raises(UsageError, match=r"train.jsonl has 2 bytes instead of 12; nothing was packed"):
        packing.pack(other, [key_of(SPEC)], tmp_path / "damaged.tar")
    assert not (tmp_path / "damaged.tar").exists()
    assert packing.add(other, packed)[0] == [
        f"runs/{key_of(SPEC)}",
        f"runs/{key_of(SPEC)}/readings/{key_of(READING)}",
    ]
    assert "moved to .corrupt-" in other.notices[-1]
    assert [item.state for item in other.entries()].count("corrupt") == 1
    assert log.read_text() == '{"step": 0}\n'


def test_the_verbs_say_what_was_packed_and_added_and_refuse_in_one_line(store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["store", *words])
        told = capsys.readouterr()
        return ended.value.code, (told.out + told.err).strip()

    key = key_of(SPEC)
    assert run("pack", key, "--store", "from") == (
        0,
        f"packed 2 entries, {os.path.getsize(f'{key}.tar') / 1000:.1f} kB: {key}.tar",
    )
    assert run("add", f"{key}.tar", "--store", "to") == (0, "added 2 entries to to")
    assert run("add", f"{key}.tar", "--store", "to") == (0, "added 0 entries to to; 2 were there")
    assert run("pack", key, key_of({"seed": 1}), "-o", "both.tar", "--store", "from")[0] == 0
    (tmp_path / "from" / "runs" / f"{'a' * 16}.partial").mkdir()
    refused = {
        ("pack", "feed", "--store", "from"): "holds no feed",
        ("pack", "a" * 16, "--store", "from"): "is partial; only what is complete can be packed",
        ("pack", key, "-o", "no/such/place.tar", "--store", "from"): "no/such: is not there",
        ("pack", key, "-o", "from", "--store", "from"): "cannot be written",
        ("add", "nothing.tar", "--store", "to"): "no such file",
        ("add", "from", "--store", "to"): "no such file",
    }
    for words, line in refused.items():
        code, said = run(*words)
        assert code == 2, said
        assert len(said.splitlines()) == 1
        assert line in said
