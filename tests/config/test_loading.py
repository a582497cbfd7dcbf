"""A file is read as a person meant it, or refused; options narrow it."""

from pathlib import Path

import pytest
from configs import BASE
from places import ROOT

from emergence.config import loading as config
from emergence.errors import UsageError

OURS = ROOT / "hypotheses" / "classifier_emergence" / "config.yaml"


def test_the_shipped_config_is_read_without_a_problem():
    experiment = config.load(OURS)
    assert experiment.name == "classifier_emergence"
    assert experiment.model == "smollm2-135m-instruct"
    assert [a.method for a in experiment.arms] == ["sft", "shuffled", "classified"]
    assert experiment.task.classes == ("add", "subtract", "multiply")
    sft = experiment.arm("sft")
    assert (sft.batch_size, sft.learning_rate, sft.max_steps) == (16, 1e-3, 1200)
    assert all(arm.seeds == (0, 1, 2, 3, 4) for arm in experiment.arms), "the control has as many as SFT"
    assert (sft.warmup, sft.lr_schedule, sft.adam) == (30, "cosine", "corrected")
    assert experiment.task.matched
    assert sft.checkpoint_steps == (0, 100, 300, 700, 1200)
    assert (sft.lora.rank, sft.lora.alpha, sft.lora.scale, sft.lora.num_layers) == (16, 32.0, 2.0, -1)
    classified = experiment.arm("classified")
    assert (classified.max_steps, classified.checkpoint_steps) == (60, (0, 30, 60))
    assert (classified.classifier_weight, classified.classifier_layer_pct) == (0.7, 0.54)
    assert classified.classifier_targets == {op: op for op in experiment.task.classes}
    assert len(experiment.test_prompts) == 6
    splits = experiment.task.split([t.item for t in experiment.test_prompts])
    assert len(splits.test) == 600
    assert not {t.item.key for t in experiment.test_prompts} & {p.key for p in splits.train + splits.test}


def test_what_a_config_leaves_open_is_filled_in():
    arm = config.parse(BASE).arm("sft")
    assert arm.lora == config.LoRA()
    assert (arm.fine_tune_type, arm.batch_size, arm.seeds) == ("lora", 16, (0, 1, 2))
    task = config.parse(BASE).task
    assert (task.num_train, task.num_valid, task.num_test) == (30, 30, 60)
    assert task.operands == dict.fromkeys(("add", "subtract", "multiply"), (2, 99))
    assert (task.styles, task.read_styles) == (("symbolic",), ("symbolic", "worded"))


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"name: a\nmodel: \xff\xfe\n", ":2: byte 0xff is not UTF-8"),
        (BASE.encode("utf-16"), ":1: byte 0xff is not UTF-8"),
        (b"\x00" * 1000, "U\\+0000 is not allowed"),
        (bytes(300_000), "at most 262144"),
    ],
)
def test_bytes_that_are_no_text_are_refused(tmp_path, raw, said):
    path = tmp_path / "config.yaml"
    path.write_bytes(raw)
    with pytest.raises(UsageError, match=said):
        config.load(path)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + BASE.replace("\n", "\r\n").encode())
    assert config.load(path).hash == config.parse(BASE).hash


def test_a_file_that_is_missing_or_no_file_is_told(tmp_path):
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    for path in (tmp_path / "none.yaml", tmp_path, loop, tmp_path / "a\x00b", Path("/dev/null")):
        with pytest.raises(UsageError, match=r"no such file|cannot be read") as error:
            config.load(path)
        assert str(error.value).isprintable()


ODD = ["a[1]", "a::b", "a b", "[b]::c", "a: 1", "ключ", "-c", "~", "$HOME", "*"]


@pytest.mark.parametrize("name", ODD)
def test_a_config_lies_in_a_folder_of_any_name(name, tmp_path):
    path = tmp_path / name / "config.yaml"
    path.parent.mkdir()
    path.write_text(BASE.replace("num_samples: 90", "num_samples: 90\n  examples: own.jsonl"))
    with pytest.raises(UsageError) as error:
        config.load(path)
    assert f"{path.parent / 'own.jsonl'}: cannot be read" in str(error.value)
    path.write_text(BASE + "author: someone\n")
    loaded = config.load(path)
    assert loaded.hash == config.parse(BASE).hash
    assert loaded.notices == (f"{path}:17: author: not used here",)
    assert loaded.public.notices == ("config.yaml:17: author: not used here",)
    path.write_text(BASE + "training: {}\n")
    with pytest.raises(UsageError) as error:
        config.load(path)
    assert str(error.value).startswith(f"{path}:17: training: given twice")


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        ("75", (0, 50, 75)),
        ("50", (0, 50)),
        ("200", (0, 50, 100, 200)),
        ("10,20", (0, 10, 20)),
        ("0, 5", (0, 5)),
    ],
)
def test_steps_narrow_every_arm(steps, kept):
    for arm in config.narrowed(config.parse(BASE), steps).arms:
        assert arm.checkpoint_steps == kept
        assert arm.max_steps == kept[-1]


def test_seeds_narrow_every_arm():
    assert {a.seeds for a in config.narrowed(config.parse(BASE), seeds=2).arms} == {(0, 1)}
    assert config.narrowed(config.parse(BASE)) == config.parse(BASE)


@pytest.mark.parametrize(
    ("steps", "seeds"), [("", 1), ("x", 1), ("5,3", 1), ("0", 1), ("-3", 1), ("٣", 1), ("5", 0)]
)
def test_steps_and_seeds_that_mean_nothing_are_refused(steps, seeds):
    with pytest.raises(UsageError, match=r"--steps|--seeds"):
        config.narrowed(config.parse(BASE), steps, seeds)


def test_a_quick_look_is_what_the_config_declares(tmp_path):
    whole, quick = config.load(OURS), config.load(OURS, {"quick": True})
    assert (quick.arm("sft").max_steps, quick.arm("sft").seeds, quick.task.num_test) == (400, (0,), 180)
    assert quick.arm("classified").max_steps == whole.arm("classified").max_steps
    assert quick.hash != whole.hash
    file = tmp_path / "config.yaml"
    file.write_text(OURS.read_text().replace("sft.max_steps: 400", "sft.max_steps: 500"))
    assert config.load(file).hash == whole.hash, "what is not asked for decides nothing"
    beaten = config.load(file, {"quick": True, "parameters.num_test": "40"})
    assert beaten.task.num_test == 40, "what is said beside it beats it"
    file.write_text(OURS.read_text().replace("sft.max_steps: 400", "sft.max_stepz: 500"))
    with pytest.raises(UsageError, match="max_stepz: unknown parameter"):
        config.load(file, {"quick": True})


def test_a_config_without_a_quick_size_runs_whole_and_says_so():
    found = config.parse(BASE, {"quick": True})
    assert found.hash == config.parse(BASE).hash
    assert any("declares no size for a quick look and runs whole" in line for line in found.notices)
