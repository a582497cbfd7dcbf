"""One arm, one seed, from a model to checkpoints."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from mlx.utils import tree_flatten
from tiny_training import arm, log, written

from emergence.config.settings import LoRA
from emergence.errors import BrokenExperiment, UsageError
from emergence.models import loading as models
from emergence.progress import Progress
from emergence.tasks import encoding
from emergence.tasks.arithmetic import Problem
from emergence.tasks.examples import Example


@pytest.fixture
def train(trainer, tmp_path):
    def run(into: str, arm, **given) -> Path:
        trainer(tmp_path / into, arm, **given).run()
        return tmp_path / into

    return run


def tensors(run: Path, step: int) -> dict[str, np.ndarray]:
    return {
        k: np.array(v) for k, v in mx.load(str(run / f"checkpoints/{step:07d}/adapters.safetensors")).items()
    }


@pytest.mark.parametrize(
    ("method", "kind"),
    [("sft", "lora"), ("sft", "dora"), ("sft", "full"), ("shuffled", "lora"), ("classified", "lora")],
)
def test_each_arm_leaves_checkpoints_at_exactly_its_steps_and_the_model_as_it_was(
    train, loaded, method, kind
):
    model, _ = loaded
    before = {k: np.array(v) for k, v in tree_flatten(model.parameters())}
    run = train("run", arm(method, fine_tune_type=kind))
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["0000000", "0000002", "0000006"]
    after = {k: np.array(v) for k, v in tree_flatten(model.parameters())}
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[k], after[k]) for k in before)
    lines = log(run)
    assert [line["step"] for line in lines] == [0, 2, 6]
    assert lines[-1]["valid_loss"] < lines[0]["valid_loss"]
    assert ("train_classifier_loss" in lines[-1]) == (method == "classified")
    assert {p.name for p in run.iterdir()} == {"checkpoints", "train.jsonl", "result.json"}


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_checkpoints_load_with_mlx_lm_and_step_zero_is_the_base_model_to_the_bit(train, loaded, folder, kind):
    run = train("run", arm(fine_tune_type=kind))
    prompt = mx.array([loaded[1].encode("7 * 8 = ")])
    base = np.array(loaded[0](prompt))

    def logits(step: int) -> np.ndarray:
        tuned, _ = mlx_lm.load(str(folder), adapter_path=str(run / f"checkpoints/{step:07d}"))
        return np.array(tuned(prompt))

    assert np.array_equal(logits(0), base)
    assert np.abs(logits(2) - base).max() > 1e-3
    assert np.abs(logits(6) - logits(2)).max() > 1e-3
    with models.adapted(loaded[0], run / "checkpoints/0000006"):
        assert np.allclose(np.array(loaded[0](prompt)), logits(6), atol=1e-5)


def test_the_same_seed_makes_the_same_bytes_whatever_was_drawn_before(train):
    same = arm(lora=LoRA(rank=4, alpha=8.0, dropout=0.2))
    first = written(train("first", same))
    mx.random.seed(99)
    np.random.default_rng().random()
    assert written(train("again", same)) == first
    other = written(train("other", same, seed=4))
    assert (
        other["checkpoints/0000000/adapters.safetensors"] != first["checkpoints/0000000/adapters.safetensors"]
    )
    assert other["train.jsonl"] != first["train.jsonl"]


def test_dropout_is_on_while_it_trains_and_off_while_it_scores(train):
    with_, without = (train(f"{d}", arm(lora=LoRA(rank=4, alpha=8.0, dropout=d))) for d in (0.5, 0.0))
    assert any(not np.array_equal(v, tensors(without, 6)[k]) for k, v in tensors(with_, 6).items())
    assert log(with_)[0] == log(without)[0]


def test_training_leaves_the_global_generator_alone(train):
    mx.random.seed(5)
    undisturbed = mx.random.uniform(shape=(4,)).tolist()
    mx.random.seed(5)
    train("run", arm(lora=LoRA(rank=4, alpha=8.0, dropout=0.2)))
    assert mx.random.uniform(shape=(4,)).tolist() == undisturbed


def test_arms_of_one_seed_start_alike_and_part_with_their_objective(train):
    runs = {m: train(m, arm(m)) for m in ("sft", "shuffled", "classified")}
    starts = [tensors(run, 0) for run in runs.values()]
    ends = [tensors(run, 6) for run in runs.values()]
    for name in starts[0]:
        assert all(np.array_equal(s[name], starts[0][name]) for s in starts)
    name = "model.layers.0.self_attn.q_proj.lora_b"
    assert not np.array_equal(ends[0][name], ends[1][name])
    assert not np.array_equal(ends[0][name], ends[2][name])


def test_num_layers_trains_only_the_last_blocks(train):
    run = train("run", arm(lora=LoRA(rank=4, alpha=8.0, num_layers=1)))
    assert {k.split(".")[2] for k in tensors(run, 6)} == {"1"}


def test_a_classifier_layer_below_every_trained_block_is_refused(train):
    late = arm("classified", lora=LoRA(rank=4, num_layers=1), classifier_layer_pct=0.5)
    with pytest.raises(UsageError, match=r"is L0, below the 1 last blocks .* train more blocks"):
        train("run", late)


def test_the_classifier_targets_of_the_config_are_what_is_taught(train):
    named = arm(
        "classified", classifier_targets={"add": "sum", "multiply": "product", "subtract": "difference"}
    )
    default, chosen = tensors(train("default", arm("classified")), 6), tensors(train("chosen", named), 6)
    assert any(not np.array_equal(default[k], chosen[k]) for k in default)


BY_HEART = [Problem("add", a, 3) for a in (20, 40, 60)]
BY_HEART += [Problem("subtract", a, 3) for a in (30, 50, 90)]
BY_HEART += [Problem("multiply", 11, b) for b in (2, 4, 6)]


@pytest.fixture(scope="module")
def by_heart(trainer, loaded, tmp_path_factory):
    """A run that has learned nine answers by heart: what it returned, its rows and its last checkpoint."""
    run, rows = tmp_path_factory.mktemp("heart"), encoding.rows(loaded[1], BY_HEART, ("symbolic",))
    quick = arm(fine_tune_type="full", learning_rate=3e-3, checkpoint_steps=(0, 40), max_steps=40)
    result = trainer(run, quick, seed=0, rows=rows, valid=rows).run()
    return result, rows, run / "checkpoints/0000040"


@pytest.mark.parametrize(
    ("kind", "rate"),
    [("lora", float("inf")), ("full", 1e5), ("lora", 250.0)],
    ids=["NaN", "uniform", "worse"],
)
def test_divergence_is_a_broken_experiment_with_step_and_loss(
    trainer, loaded, by_heart, tmp_path, kind, rate
):
    _, rows, checkpoint = by_heart
    wild = arm(fine_tune_type=kind, checkpoint_steps=(0, 60), max_steps=60)
    wild = wild.model_copy(update={"learning_rate": rate})
    said = r"sft seed 3: diverged at step \d+, loss (nan|\d).*; lower learning_rate="
    with models.adapted(loaded[0], checkpoint), pytest.raises(BrokenExperiment, match=said):
        trainer(tmp_path, wild, rows=rows, valid=rows).run()
    assert (tmp_path / "checkpoints/0000000").is_dir()


BROKEN = (
    r"^sft seed 3: held-out first token 100 % at step 0, \d+ % at step 20;"
    r" held-out whole answer 100 % at step 0, \d+ % at step 20;"
    r" validation loss \d\.\d+ nats at step 0, \d\.\d+ at step 20:"
    r" learning_rate=2e-2 breaks this model; try 4e-3$"
)


@pytest.mark.parametrize("method", ["sft", "classified"])
def test_a_training_that_ends_below_its_own_step_0_is_broken_and_stays_so(
    trainer, loaded, by_heart, tmp_path, method
):
    """The rate is absurd, yet no loss is NaN or above that of a uniform guess: nothing else would tell."""
    _, rows, checkpoint = by_heart
    absurd = arm(method, learning_rate=0.02, checkpoint_steps=(0, 20), max_steps=20)
    lines: list[str] = []

    class Said(Progress):
        def line(self, text: str) -> None:
            lines.append(text)

    def train(arm, into: Path) -> dict:
        with models.adapted(loaded[0], checkpoint):
            return trainer(into, arm, rows=rows, valid=rows, progress=Said()).run()

    with pytest.raises(BrokenExperiment, match=BROKEN.replace("sft", method)):
        train(absurd, tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()
    lines.clear()
    with pytest.raises(BrokenExperiment, match=BROKEN.replace("sft", method)):
        train(absurd, tmp_path / "run")
    assert lines == [], "a second call judges what is there, and trains nothing"
    good = absurd.model_copy(update={"learning_rate": 1e-4})
    assert train(good, tmp_path / "good")["learned"], "the model is not to blame"


def test_shuffled_answers_may_make_a_model_worse(trainer, loaded, by_heart, tmp_path):
    _, rows, checkpoint = by_heart
    absurd = arm("shuffled", learning_rate=0.02, checkpoint_steps=(0, 20), max_steps=20)
    with models.adapted(loaded[0], checkpoint):
        result = trainer(tmp_path, absurd, rows=rows, valid=rows).run()
    first, last = log(tmp_path)
    assert last["valid_accuracy"] < first["valid_accuracy"] == 1
    assert result["learned"] is False


def test_what_was_not_learned_is_information_not_an_error(trainer, by_heart, tmp_path):
    learned, rows, _ = by_heart
    idle = trainer(tmp_path, arm(learning_rate=1e-9), seed=0, rows=rows, valid=rows).run()
    assert idle["learned"] is False
    assert learned["learned"] is True
    assert learned["final"]["valid_exact"] == 1
    assert learned["chance"] == idle["chance"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("rate", "learned"), [(3e-3, True), (1e-9, False)])
def test_a_task_whose_classes_have_one_answer_each_can_be_learned(trainer, loaded, tmp_path, rate, learned):
    """Even or odd is right half of the time for nothing; knowing the class would be knowing the answer."""
    asked = [
        Example(("even", "odd")[n % 2], f"What is {n}", (" plus", " minus")[n % 2]) for n in range(20, 40)
    ]
    rows = encoding.rows(loaded[1], asked, ("own",))
    settings = arm(fine_tune_type="full", learning_rate=rate, checkpoint_steps=(0, 60), max_steps=60)
    told = trainer(tmp_path, settings, seed=0, rows=rows, valid=rows).run()
    assert (told["chance"], told["learned"]) == (0.5, learned), told["final"]


def test_a_finished_run_is_not_trained_again(train, tmp_path):
    run = train("run", arm())
    stamps = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    train("run", arm())
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == stamps


def test_progress_tells_every_step_and_the_log_their_mean_since_the_last_checkpoint(train):
    lines, losses = [], []

    class Told(Progress):
        @contextmanager
        def task(self, label, total, unit="step"):
            assert (label, total) == ("train sft seed 3", 6)
            yield self

        def advance(self, n: int = 1, note: str = "") -> None:
            losses.extend([float(note.removeprefix("loss "))] if note else [])

        def line(self, text: str) -> None:
            lines.append(text)

    run = train("run", arm(), progress=Told())
    assert [line.split(":")[0] for line in lines] == [f"sft seed 3 step {s}" for s in (0, 2, 6)]
    assert "held-out first token" in lines[0]
    kept = log(run)
    assert kept[0]["train_loss"] is None
    assert kept[1]["train_loss"] == pytest.approx(np.mean(losses[:2]), abs=1e-3)
    assert kept[2]["train_loss"] == pytest.approx(np.mean(losses[2:]), abs=1e-3)
