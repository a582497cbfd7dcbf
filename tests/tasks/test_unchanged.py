"""What the shipped experiments ask, and in which order, is what it was: a changed draw orphans every finding.

The values were computed before the tasks were rewritten, by the code that the recorded findings come from.
"""

from __future__ import annotations

import hashlib
import json

import pytest
from places import EXAMPLE, HYPOTHESES

from emergence.analysis import probes
from emergence.config import loading as config
from emergence.readings.plan import halves
from emergence.readings.readings import Prompt
from emergence.tasks.encoding import Row
from emergence.tasks.task import content_hash
from emergence.training.batches import Batches, shuffled_answers

DATA = {
    "classifier_emergence": {
        "train": "71eada20979a1572860af816aa40659b3f395c23baf463526645713f203a14a0",
        "valid": "bceb8cb1092c07dfd9d0d8fdf66c839ad02e789633af06a3d992d1f31d9fb429",
        "test": "98953f2139e2e383a98b09aaa9dcb74acb91ec3b121eb986d837ba909136b55d",
    },
    "parity": {
        "train": "18ee3451922fbb76f9888616a738b90441cf349de8624d52d6e4fc06eeb16642",
        "valid": "3fe47566765211f209b914cacafec4fea53be042e0de6368f96d4fc4158303ee",
        "test": "2f90eed1b33195137c482bf92848d6d26501b7619b814ef820aed867a7eacfa0",
    },
}
# As they were dealt before operands that two classes share went to one half, which moved one item: `MOVED`.
DEALT = {
    "classifier_emergence": (
        "100111101100011000101001101101011100111111000010110110101110110001011100010100001111001100001100"
        "001011111110011011101000000010000110010111011100100110011100010001000010010111011001"
    ),
    "parity": "00011111111000101010111001100000001110110110101111000100011100000111000111010100",
}
MOVED = {
    "classifier_emergence": {"37 * 39": "37 + 39", "7 - 5": "5 + 7", "25 * 40": "40 - 25"},
    "parity": {},
}
PROMPTS = {"classifier_emergence": "bfb07b55b98e816c", "parity": "627a0282a08cb4ab"}
CONTROL = {"types": "86a2e8b64674aef7", 0: "db743a51938c4160", 1: "6aeddc716f4aa887"}
SHUFFLED = {"classifier_emergence": "c7556ea5d8335254", "parity": "175e608fd8bd75a0"}
BATCHES = {"classifier_emergence": "502cf4b0b2ec022c", "parity": "c82788b90eec3bea"}


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _loaded(name):
    root = EXAMPLE if (EXAMPLE / name).is_dir() else HYPOTHESES
    loaded = config.load(root / name / "config.yaml")
    return loaded.task, loaded.task.split([shown.item for shown in loaded.test_prompts])


@pytest.fixture(scope="module", params=DATA)
def experiment(request):
    return request.param, *_loaded(request.param)


def _prompts(task, splits) -> list[Prompt]:
    half = halves(splits.test, task.seed)
    return [
        Prompt(i.prompt(style), i.cls, i.answer, style, half[i], task.key(i), task.control_label(i))
        for style in task.read_styles
        for i in splits.test
    ]


def test_the_splits_are_what_they_were(experiment):
    name, _, splits = experiment
    assert {part: content_hash(getattr(splits, part)) for part in DATA[name]} == DATA[name]


def test_the_halves_are_what_they_were_but_for_operands_that_another_class_has(experiment):
    name, task, splits = experiment
    half, dealt = halves(splits.test, task.seed), dict(zip(splits.test, map(int, DEALT[name]), strict=True))
    moved = {item: half[item] for item in splits.test if half[item] != dealt[item]}
    assert [item.key for item in moved] == list(MOVED[name])
    for item, to in moved.items():
        [mate] = [
            other for other in splits.test if sorted(other.numbers) == sorted(item.numbers) and other != item
        ]
        assert mate.key == MOVED[name][item.key]
        assert dealt[mate] == half[mate] == to


def test_the_prompts_are_what_they_were(experiment):
    name, task, splits = experiment
    dealt = [int(half) for half in DEALT[name]] * len(task.read_styles)
    made = zip(_prompts(task, splits), dealt, strict=True)
    assert _digest([[p.text, p.cls, p.answer, p.style, half] for p, half in made]) == PROMPTS[name]


def test_shuffled_answers_and_batches_are_what_they_were(experiment):
    name, task, splits = experiment
    rows = [Row(item, style, (1,), (i,)) for style in task.styles for i, item in enumerate(splits.train)]
    assert _digest([row.answer_ids[0] for row in shuffled_answers(rows, 0)]) == SHUFFLED[name]
    batches = Batches(rows, 16, 0)
    dealt = [[rows[i].answer_ids[0] for i in batches.indices(step)] for step in range(20)]
    assert _digest(dealt) == BATCHES[name]


def test_the_labels_of_the_control_tasks_are_what_they_were():
    prompts = _prompts(*_loaded("classifier_emergence"))
    for style in ("symbolic", "worded"):
        types = probes.control_types([p for p in prompts if p.style == style])
        assert _digest(types.tolist()) == CONTROL["types"]
        for index in (0, 1):
            assert _digest(probes.control_labels(types, 3, index).tolist()) == CONTROL[index]
    assert not probes.has_control(_prompts(*_loaded("parity")))
