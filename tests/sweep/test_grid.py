"""What a sweep goes over, as typed and as a file; and what cannot be meant, in one clear line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sweeps
from trained import ARMS

from emergence.errors import UsageError
from emergence.store import Store
from emergence.sweep import grid
from emergence.sweep.plan import planned


def test_cells_are_the_product_in_the_order_that_was_written() -> None:
    cells = grid.over(["model=a,b", "training.lora.rank=4,16"]).cells()
    assert [(c["model"], c["training.lora.rank"]) for c in cells] == [
        ("a", "4"),
        ("a", "16"),
        ("b", "4"),
        ("b", "16"),
    ]


def test_a_comma_in_brackets_splits_nothing() -> None:
    (first, second) = grid.over(["training.checkpoint_steps=[0,2],[0,4]"]).cells()
    assert (first, second) == ({"training.checkpoint_steps": "[0,2]"}, {"training.checkpoint_steps": "[0,4]"})


def test_a_file_takes_cells_away_and_adds_some(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "over:\n  model: [a, 1e5]\n  training.lora.rank: [4, 16]\n"
        "exclude:\n  - {model: 1e5, training.lora.rank: 16}\ninclude:\n  - {model: c}\n"
    )
    cells = grid.read(file).cells()
    assert cells == [
        {"model": "a", "training.lora.rank": 4}, {"model": "a", "training.lora.rank": 16},
        {"model": "1e5", "training.lora.rank": 4}, {"model": "c"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["rank"], "write it as name=value,value"),
        (["rank=4,,8"], "write it as name=value,value"),
        (["rank=4", "rank=8"], "--over rank is given twice"),
        (["rank=4,4"], "duplicate cell rank=4: it is named twice; drop one"),
        ([], "the sweep has no cell"),
        ([f"a{n}=1,2,3,4,5,6,7,8,9,10" for n in range(5)], "more than 10000 cells"),
    ],
)
def test_what_is_typed_wrongly_is_one_line(texts: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said) as told:
        grid.over(texts).cells()
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "write `over:` with a list of values"),
        ("over: {model: a}\n", "give each setting a list of values"),
        ("over: {model: []}\n", "give each setting a list of values"),
        ("over: {model: [a]}\nexlude: []\n", "unknown section exlude; did you mean exclude"),
        ("over: {model: [a]}\nexclude: [b]\n", "exclude: give a list of cells"),
        ("over: {model: [a]}\nexclude: [{model: b}]\n", "no cell is model=b"),
        ("over: {model: [a]}\nover: {model: [b]}\n", "given twice"),
        ("over: [\n", "sweep.yaml"),
    ],
)
def test_a_file_that_cannot_be_meant_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=said) as told:
        grid.read(file).cells()
    assert "\n" not in str(told.value)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sweeps.experiment(tmp_path_factory.mktemp("sweep"))


def plan(place: Path, *texts: str, **options: Any) -> Any:
    folder = place / "hypotheses" / sweeps.NAME
    return planned(folder, grid.over(texts), Store(place / "store"), **options)


def test_a_run_that_several_cells_need_is_trained_once(tmp_path: Path) -> None:
    place = sweeps.experiment(tmp_path, arms=ARMS.replace("max_steps: 2", "max_steps: 60"))
    made = plan(place, "training.training_methods.classified.classifier_weight=0.1,0.3,0.7", seeds=2)
    runs = [unit for unit in made.units if unit.kind == "train"]
    assert sorted(unit.label for unit in runs) == sorted(
        ["sft seed 0", "sft seed 1", "shuffled seed 0", "shuffled seed 1"]
        + 3 * ["classified seed 0", "classified seed 1"]
    )
    judged = [unit for unit in made.units if unit.kind == "judge"]
    assert [len(unit.needs) for unit in judged] == [6, 6, 6]
    shared = set(judged[0].needs) & set(judged[1].needs)
    assert shared == {unit.id for unit in runs if unit.arm != "classified"}


def test_a_sweep_is_the_same_however_it_is_written(place: Path) -> None:
    ranks = plan(place, "parameters.lora.rank=2,4")
    assert ranks.hash == plan(place, "parameters.lora.rank=4,2").hash
    assert ranks.hash != plan(place, "parameters.lora.rank=2,8").hash
    assert ranks.hash != plan(place, "parameters.lora.rank=2,4", seeds=2).hash


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("training.lora.rnk=2,4", "unknown parameter; did you mean training.lora.rank?"),
        ("parameters.lora.rank=2,0", "cell parameters.lora.rank=0: "),
        ("model=nowhere", "neither smollm2-135m-instruct, nor a folder here"),
        ("parameters.lora.rank=4,04", "04"),
        ("name=a,b", "a sweep is of one experiment"),
    ],
)
def test_a_cell_that_cannot_be_meant_is_refused_before_anything_starts(
    text: str, said: str, place: Path
) -> None:
    with pytest.raises(UsageError) as told:
        plan(place, text)
    assert said in str(told.value)
    assert "\n" not in str(told.value)
    assert not (place / "store").exists()


def test_two_cells_that_come_to_the_same_are_refused(place: Path) -> None:
    with pytest.raises(UsageError, match=r"duplicate cell: .*=true comes to the same as .*=yes; drop one"):
        plan(place, "training.training_methods.sft.enabled=yes,true")
