"""What is looked at while another process builds, publishes or removes it may be gone at the next call."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny

from emergence.cli import catalogue
from emergence.cli import plan as planning
from emergence.cli import store as keeping
from emergence.errors import BrokenExperiment
from emergence.models import loading as models
from emergence.report import page as report
from emergence.report import records
from emergence.store import files, inventory, store
from emergence.store.store import Store

LOOKS = ((os, "stat"), (os, "lstat"), (os, "listdir"), (os, "scandir"), (io, "open"))


@contextmanager
def vanishing(root: Path, at: int, act: Callable[[], object]) -> Iterator[list[int]]:
    """Before the look number `at` at anything under `root`, another process does `act`."""
    count = [0]

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def look(path: Any = ".", *more: Any, **named: Any) -> Any:
            if not isinstance(path, int) and os.path.abspath(os.fsdecode(path)).startswith(str(root)):
                count[0] += 1
                if count[0] == at:
                    patch.undo()
                    act()
            return real(path, *more, **named)

        return look

    with pytest.MonkeyPatch.context() as patch:
        for module, name in LOOKS:
            patch.setattr(module, name, wrap(getattr(module, name)))
        yield count


def everywhere(
    place: Path, prepare: Callable[[Path], object], act: Callable[[Path], object], look: Callable[[Path], Any]
) -> list[Any]:
    """What `look` gives where `act` comes before its first, second, ... look at a store; at last never."""
    given: list[Any] = []
    while True:
        root = place / str(len(given))
        prepare(root)
        with vanishing(root, len(given) + 1, lambda root=root: act(root)) as count:
            given.append(look(root))
        if count[0] < len(given):
            return given


def fill(folder: Path) -> None:
    (folder / "part").write_text("content")


def stocked(root: Path) -> None:
    """One run with readings, one that is being built, results that name the first."""
    made = Store(root)
    run = made.get_or_build("runs", {"n": 1}, fill)
    made.get_or_build("readings", {"n": 1}, fill, parent=run)
    partial = root / "runs" / f"{'0' * 16}.partial"
    partial.mkdir()
    (partial / ".tmp-1").write_text("half")
    results = made.folder("experiments", "tiny", "results")
    (results / "run_1.json").write_text(json.dumps({"run": run.key}))


def goes_on(root: Path) -> None:
    partial = root / "runs" / f"{'0' * 16}.partial"
    (partial / ".tmp-1").rename(partial / "weights")


def run_removed(root: Path) -> None:
    (run,) = root.glob("runs/*[0-9a-f]")
    files.remove_tree(run)


def all_removed(root: Path) -> None:
    shutil.rmtree(root)


def results_removed(root: Path) -> None:
    shutil.rmtree(root / "experiments")


@pytest.mark.parametrize("act", [goes_on, run_removed, all_removed, results_removed])
def test_a_store_is_listed_whatever_vanishes_meanwhile_and_what_stays_is_on_the_list(act, tmp_path) -> None:
    listed = everywhere(tmp_path, stocked, act, inventory.items)
    assert len(listed) > 20
    counts = {len(items) for items in listed}
    if act in (goes_on, results_removed):
        assert counts == {3}
    if act is run_removed:
        assert all(any(item.state == "partial" for item in items) for items in listed)


def test_what_is_removed_while_it_is_verified_is_no_damage(tmp_path) -> None:
    def verified(root: Path) -> tuple[list[str], bool]:
        items = Store(root).entries()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(inventory, "items", lambda root: items)
            run_removed(root)
            return keeping.verify(Store(root))

    stocked(tmp_path)
    assert verified(tmp_path) == (["0 entries, 0 damaged"], True)


def test_what_a_run_took_is_read_from_those_that_are_still_there(tmp_path) -> None:
    def timed(root: Path) -> None:
        for n, seconds in ((1, 5.0), (2, 10.0)):
            info = {"steps": 10, "seconds": seconds}
            spec = {"n": n, "arm": {"method": "sft", "fine_tune_type": "lora"}}
            Store(root).get_or_build("runs", spec, lambda folder, info=info: info)

    def second_removed(root: Path) -> None:
        arm = {"method": "sft", "fine_tune_type": "lora"}
        files.remove_tree(root / "runs" / store.key_of({"n": 2, "arm": arm}))

    def speed(root: Path) -> float:
        return planning._speeds(Store(root).entries())["sft", "lora"]

    assert set(everywhere(tmp_path, timed, second_removed, speed)) == {0.5, 0.75}


def test_records_of_runs_are_read_whatever_is_removed_meanwhile(tmp_path) -> None:
    def recorded(root: Path) -> None:
        (root / "results").mkdir(parents=True)
        for n in (1, 2):
            (root / "results" / f"run_{n}.json").write_text('{"status": "success"}')

    given = everywhere(
        tmp_path, recorded, lambda root: (root / "results" / "run_2.json").unlink(), records.run_records
    )
    assert {len(found) for found in given} == {1, 2}


@pytest.mark.parametrize("text", ["[1]", "3", "{", "\x00"])
def test_a_record_that_is_no_object_is_said_to_be_damaged(text, tmp_path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "run_1.json").write_text(text)
    assert [r["status"] for r in records.run_records(tmp_path)] == ["damaged"]


def test_experiments_are_found_whatever_is_removed_meanwhile(tmp_path) -> None:
    def written(root: Path) -> None:
        for name in ("a", "b"):
            (root / name).mkdir(parents=True)
            (root / name / catalogue.CONFIG).write_text("")

    given = everywhere(
        tmp_path,
        written,
        lambda root: shutil.rmtree(root / "b"),
        lambda root: list(catalogue.every(root, tmp_path)),
    )
    assert {len(found) for found in given} <= {1, 2}


def test_free_space_is_asked_of_what_is_left_of_a_path(tmp_path) -> None:
    given = everywhere(
        tmp_path / "x", lambda root: (root / "a" / "b").mkdir(parents=True), all_removed,
        lambda root: files.free_bytes(root / "a" / "b"),
    )  # fmt: skip
    assert all(n > 0 for n in given)
    real = shutil.disk_usage
    (tmp_path / "there").mkdir()

    def usage(path: Path) -> Any:
        shutil.rmtree(tmp_path / "there", ignore_errors=True)
        return real(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "disk_usage", usage)
        assert files.free_bytes(tmp_path / "there") > 0


def test_a_run_that_is_removed_while_it_is_read_is_one_line(tmp_path) -> None:
    run = Store(tmp_path).get_or_build("runs", {"n": 1}, fill)
    run_removed(tmp_path)
    with pytest.raises(BrokenExperiment, match=r"was removed while it was in use; run again$"):
        run.file("part")


@pytest.mark.parametrize("text", ["{", "[1]", "\x00", "3"])
def test_data_of_a_page_that_are_damaged_are_one_line(text, tmp_path) -> None:
    import report_case as case

    from emergence.report import results

    content = results.document(case.EXPERIMENT, case.verdicts(), case.PROVENANCE)
    (tmp_path / records.VERDICTS).write_text(json.dumps(content))
    (tmp_path / report.DATA).write_text(text)
    with pytest.raises(BrokenExperiment, match=r"report\.json: damaged \(.*\); run the experiment again$"):
        report.render(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_link_of_a_model_folder_that_leads_nowhere_is_one_line(name, tmp_path) -> None:
    folder = tiny.write_model(tmp_path / "model", n_layers=1)
    (folder / name).unlink()
    (folder / name).symlink_to(tmp_path / "blob")
    with pytest.raises(BrokenExperiment, match=name) as caught:
        models.resolve(folder)
    assert "\n" not in str(caught.value)
