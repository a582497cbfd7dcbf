"""What several ranks make together is what one process makes alone, but for the rounding of sums."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import rank
from places import TESTS, python_path
from tiny_training import LORA, arm

from emergence.cli.launch import _free_port
from emergence.models import loading as models
from emergence.training import objectives
from emergence.training.batches import Batches
from emergence.training.checkpoints import flat
from emergence.training.objectives import Objective

HOSTS = [{"ssh": "127.0.0.1", "ips": ["127.0.0.1"]}] * 2


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_the_ranks_share_out_every_row_of_a_batch_once(data, ranks):
    whole = Batches(data[0], 11, 7)
    parts = [Batches(data[0], 11, 7, (rank, ranks)) for rank in range(ranks)]
    for step in range(9):

        def told(batch):
            return Counter(zip(batch.target.tolist(), batch.position.tolist(), strict=True))

        shared = [part[step] for part in parts]
        assert sum((told(batch) for batch in shared), Counter()) == told(whole[step])
        assert max(len(b.last) for b in shared) - min(len(b.last) for b in shared) <= 1
        assert np.sum([batch.shares for batch in shared], axis=0) == pytest.approx([1, 1])
        n_targets = [len(batch.target) for batch in shared]
        assert [b.shares[0] for b in shared] == pytest.approx(np.array(n_targets) / sum(n_targets))


@pytest.mark.parametrize("method", ["sft", "classified"])
@pytest.mark.parametrize("ranks", [2, 3])
def test_losses_and_gradients_of_the_shares_add_up_to_those_of_the_batch(lens, data, method, ranks):
    model, classes = lens.model, sorted({row.item.cls for row in data[0]})
    settings = {"classifier_layer_pct": 0.5, "classifier_weight": 0.7} if method == "classified" else {}
    objective = Objective(lens, objectives.classifier(arm(method, **settings), lens, classes))
    lengths = {len(row.answer_ids) for row in data[0]}
    assert len(lengths) > 1, "else the mean of means would do as well"

    def graded(batch):
        (total, parts), gradients = nn.value_and_grad(model, lambda b: objective.losses(model, b))(batch)
        numbers = [float(total.item()), *(float(part.item()) for part in parts)]
        return np.array(numbers), {k: np.array(g, np.float64) for k, g in flat(gradients).items()}

    with models.lora(model, "lora", LORA, 3):
        for module in model.modules():
            if "lora_b" in module:
                module.lora_b = mx.random.normal(module.lora_b.shape, key=mx.random.key(1)) * 0.02
        losses, gradients = graded(Batches(data[0], 11, 7)[2])
        shared = [graded(Batches(data[0], 11, 7, (rank, ranks))[2]) for rank in range(ranks)]
    assert sum(numbers for numbers, _ in shared) == pytest.approx(losses, abs=1e-5)
    assert max(np.abs(g).max() for g in gradients.values()) > 1e-3
    for name, gradient in gradients.items():
        assert sum(g[name] for _, g in shared) == pytest.approx(gradient, abs=1e-6), name


@pytest.fixture(scope="module")
def launched(folder, tmp_path_factory) -> Path:
    """The folder that two ranks have written to, started by `mlx.launch` as anybody would."""
    place = tmp_path_factory.mktemp("ranks")
    (place / "hosts.json").write_text(json.dumps(HOSTS))
    command = [
        str(Path(sys.executable).with_name("mlx.launch")), "--hostfile", str(place / "hosts.json"),
        "--starting-port", str(_free_port(2)), "--backend", "ring", "--",
        sys.executable, str(TESTS / "support" / "rank.py"), str(folder), str(place),
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": python_path(), "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout
        said = process.stdout.read()
    assert {p.name for p in place.glob("*.json")} >= {"rank0.json", "rank1.json"}, said.decode()
    return place


def test_two_ranks_equal_one_process_after_twenty_steps_and_differing_ones_are_refused(
    launched, folder, tmp_path
):
    first, second = (json.loads((launched / f"rank{n}.json").read_text()) for n in (0, 1))
    assert first["size"] == second["size"] == 2
    assert first["same"] == second["same"] == {"rank": 0}
    for logs, alone in zip(first["logs"], rank.trained(str(folder), tmp_path), strict=True):
        for ours, one in zip(logs, alone, strict=True):
            losses = [name for name, value in one.items() if name.endswith("loss") and value is not None]
            assert {name: ours[name] for name in losses} == pytest.approx(
                {name: one[name] for name in losses}, abs=1e-5
            )
        assert logs[-1]["valid_loss"] < logs[0]["valid_loss"] - 0.1, "something was learned"
    adapters = [
        mx.load(str(place / "sft" / "checkpoints" / "0000020" / "adapters.safetensors"))
        for place in (launched / "run", tmp_path)
    ]
    for name, array in adapters[1].items():
        assert np.array(adapters[0][name]) == pytest.approx(np.array(array), abs=1e-4), name

    assert second["files"] == [], "rank 0 alone writes"
    assert "sft/checkpoints/0000020/adapters.safetensors" in first["files"]

    for report in (first, second):
        weights, key = report["refused"]
        assert weights.startswith("rank 1 and rank 0 differ in their weights; nothing was trained")
        assert key.startswith("rank 1 and rank 0 differ in a key; nothing was trained")
