"""Real trainings that are killed, starved and raced: processes that a warm one forks, so one takes 0.3 s.

`tests/reliability/test_training_killed.py` runs `campaign.main(...)` in a process of its own. That process
imports MLX and never computes with it: a fork would not survive that.
"""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import faults
from mlx_lm.utils import load_model, load_tokenizer
from tiny_training import arm, rows

from emergence.config.settings import LoRA
from emergence.errors import BrokenExperiment
from emergence.lens.logit_lens import LogitLens
from emergence.progress import SILENT, Progress
from emergence.store import files
from emergence.store.store import Store
from emergence.training.loop import Trainer

SPEC = {"campaign": 1}
CHECKPOINTS = (0, 2, 5, 9, 10, 14)
# Dropout, so that a generator that is not restored shows.
ARM = arm(lora=LoRA(rank=4, alpha=8.0, dropout=0.1), checkpoint_steps=CHECKPOINTS, max_steps=14)


@cache
def data(model_folder: Path) -> tuple[Any, Any, Any]:
    """The tokenizer, rows to learn from, rows to score: read before the first fork."""
    tokenizer = load_tokenizer(model_folder)
    return tokenizer, rows(tokenizer, 20, 0), rows(tokenizer, 4, 1)


def train(
    model_folder: Path, root: Path, progress: Progress = SILENT, keep_seconds: float = 60.0
) -> dict[str, Any]:
    """What a main job does with an arm and a seed, on a tiny model."""
    tokenizer, learned_from, valid = data(model_folder)

    def build(workdir: Path) -> dict[str, Any]:
        trainer = Trainer(
            lens=LogitLens(load_model(model_folder)[0], tokenizer),
            arm=ARM,
            seed=7,
            rows=learned_from,
            valid=valid,
            workdir=workdir,
            progress=progress,
            keep_seconds=keep_seconds,
        )
        return trainer.run()

    return dict(Store(root).get_or_build("runs", SPEC, build).info)


def content(folder: Path) -> dict[str, str]:
    """Hash of every file of a run but the two that hold times."""
    timed = {"manifest.json", "result.json"}
    found = [p for p in folder.rglob("*") if p.is_file() and p.name not in timed]
    return {p.relative_to(folder).as_posix(): files.digest(p) for p in found}


def finished(root: Path) -> dict[str, str]:
    """Hashes of the checkpoints that are there, sealed or not yet."""
    while True:
        found = list(root.glob("runs/*/checkpoints/0*/*"))
        with suppress(FileNotFoundError):  # the run was renamed, being complete
            return {"/".join(p.parts[-3:]): files.digest(p) for p in found}


class Campaign:
    """One tiny model, what an undisturbed training makes of it, and processes that are disturbed."""

    def __init__(self, model_folder: Path, place: Path, seed: int) -> None:
        self.model, self.place, self.random = model_folder, place, random.Random(seed)
        # `resumed`: kills after a checkpoint was there; `stopped`, `full`: signals and full disks that hit
        self.kills, self.resumed, self.runs, self.stopped, self.full = 0, 0, 0, 0, 0
        start = time.monotonic()
        self.undisturbed(place / "reference")
        self.whole = time.monotonic() - start
        (self.run,) = (place / "reference" / "runs").glob("*[0-9a-f]")
        self.reference = content(self.run)
        assert set(finished(place / "reference").values()) <= set(self.reference.values())
        assert len(finished(place / "reference")) == 2 * len(CHECKPOINTS)

    def undisturbed(self, root: Path) -> None:
        child = faults._fork(lambda: train(self.model, root))
        assert faults._status(child) == 0, "an undisturbed training failed"

    def check_kept(self, root: Path, before: dict[str, str]) -> None:
        """No finished checkpoint is lost or changed, and what is complete is sound."""
        after = finished(root)
        assert before.items() <= after.items(), "a finished checkpoint was lost"
        assert after.items() <= finished(self.place / "reference").items(), (
            "a checkpoint is not what it must be"
        )
        for item in Store(root).entries():
            assert item.state in ("complete", "partial")
            assert item.state == "partial" or Store(root).verify(item) is None

    def check_end(self, root: Path) -> None:
        """Finish what was disturbed: bit for bit what was never disturbed."""
        self.undisturbed(root)
        (run,) = [i.path for i in Store(root).entries()]
        assert content(run) == self.reference, "a resumed run differs from one that was not killed"
        self.runs += 1

    def kill(self, root: Path) -> bool:
        """Kill -9 at a random instant of a training, its start and its sealing included."""
        keep = self.random.choice([0.0, 60.0])
        child = faults._fork(lambda: train(self.model, root, keep_seconds=keep))
        end = time.monotonic() + self.random.uniform(0, 0.9 * self.whole)
        before: dict[str, str] = {}
        while time.monotonic() < end:
            before = finished(root) if self.random.random() < 0.1 else before
            time.sleep(0.003)
        os.kill(child, signal.SIGKILL)
        killed = faults._status(child) == -signal.SIGKILL
        self.check_kept(root, before)
        self.resumed += killed and bool(before)
        self.kills += killed
        # other work on this machine comes and goes: aim anew
        self.whole *= 1.05 if killed else 0.85
        return killed

    def random_kills(self, n: int) -> None:
        while self.kills < n:
            root = self.place / f"kill{self.runs}"
            for _ in range(self.random.randint(1, 4)):
                if not self.kill(root):
                    break
            self.check_end(root)

    def operation_kills(self, n: int, power: bool) -> None:
        """Kill before a random operation on the disk; with `power`, what was not fsynced is lost."""
        for i in range(n):
            root = self.place / f"operation{power}{i}"
            root.mkdir()
            at = self.random.randint(1, 130)
            self.kills += faults.killed_at(root, at, lambda root=root: train(self.model, root), power)
            self.check_kept(root, {})
            self.check_end(root)

    def signals(self, n: int, number: int) -> None:
        """SIGTERM or Ctrl-C while it trains: it ends by itself, keeps the step it reached, and goes on."""
        for i in range(n):
            root = self.place / f"signal{number}.{i}"
            child = faults._fork(lambda root=root: self.until_interrupted(root))
            while not finished(root):
                time.sleep(0.003)
            time.sleep(self.random.uniform(0, 0.1 * self.whole))
            os.kill(child, number)
            status = faults._status(child)
            assert status in (0, 130), f"ended with {status}"
            if status == 130:
                assert list(root.glob("runs/*.partial/resume.json")), "what was reached was not kept"
                self.stopped += 1
                assert not list(root.rglob("*.holder")), "the lock's note was left"
            self.check_kept(root, {})
            self.check_end(root)

    def until_interrupted(self, root: Path) -> None:
        said = ""
        try:
            train(self.model, root)
        except KeyboardInterrupt as error:
            said = str(error)
        if said:
            assert "run again to go on from there" in said
            os._exit(130)

    def full_disk(self, n: int) -> None:
        """Disk full, as Python's writes see it and as MLX's see it: one line, and the run goes on after."""
        for i in range(n):
            root = self.place / f"full{i}"
            root.mkdir()
            starve = self.no_space_from(root) if i % 2 else limited_files(self.random.randint(500, 30_000))
            child = faults._fork(lambda root=root, starve=starve: self.starved(root, starve))
            status = faults._status(child)
            assert status in (0, errno.ENOSPC), f"ended with {status}"
            self.full += status == errno.ENOSPC
            self.check_kept(root, {})
            self.check_end(root)

    def no_space_from(self, root: Path) -> Any:
        return faults.failing(root, self.random.randint(1, 90), errno.ENOSPC, forever=True)

    def starved(self, root: Path, starve: Any) -> None:
        said = ""
        try:
            with starve:
                train(self.model, root)
        except BrokenExperiment as error:
            said = str(error)
        if said:
            assert "the disk is full" in said, said
            assert "\n" not in said
            os._exit(errno.ENOSPC)

    def flips(self, n: int) -> None:
        """A bit flipped in what a killed run left: noticed and made again, never gone on from."""
        done = 0
        while done < n:
            root = self.place / f"flip{done}"
            self.kill(root)
            left = [p for p in root.glob("runs/*.partial/**/*") if p.is_file() and ".tmp-" not in str(p)]
            if not any(p.name == "resume.json" for p in left):
                self.check_end(root)
                files.remove_tree(root)
                continue
            path, offset, bit = faults.random_place(left, self.random)
            faults.flip(path, offset, bit)
            self.check_end(root)
            done += 1

    def race(self) -> None:
        """Two at once: one trains, both have it."""
        log = self.place / "trained"

        class Said(Progress):
            def line(self, text: str) -> None:
                with log.open("a") as file:
                    file.write(text + "\n")

        root = self.place / "race"
        children = [faults._fork(lambda: train(self.model, root, progress=Said())) for _ in range(2)]
        assert [faults._status(child) for child in children] == [0, 0]
        assert len(log.read_text().splitlines()) == len(CHECKPOINTS), "trained more than once"
        self.check_end(root)


@contextmanager
def limited_files(n_bytes: int) -> Iterator[None]:
    """No file may grow beyond `n_bytes`: MLX's own writes fail halfway, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def main(model: str, place: str, seed: int, acts: dict[str, list[int]]) -> None:
    """Run the named acts and print what was done, as JSON."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    data(Path(model))
    campaign = Campaign(Path(model), Path(place), seed)
    done: dict[str, float] = {}
    for act, arguments in acts.items():
        start = time.monotonic()
        getattr(campaign, act)(*arguments)
        done[act] = round(time.monotonic() - start, 1)
    counts = ("kills", "resumed", "stopped", "full", "runs")
    print(json.dumps({name: getattr(campaign, name) for name in counts} | {"seconds": done}))
