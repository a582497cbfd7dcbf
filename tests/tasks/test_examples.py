"""A task of one's own goes the whole way: its file, its splits, its classes, training, reading, verdicts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import tiny
from hypothesis import example, given, settings
from hypothesis import strategies as st
from places import ROOT
from tokenizer_kinds import kind

from emergence import Prediction, provenance
from emergence.analysis import frames
from emergence.config import loading as config
from emergence.errors import BrokenExperiment, UsageError
from emergence.experiment import Experiment
from emergence.models import loading as models
from emergence.readings.readings import Prompt, disjoint
from emergence.report import payload, tables
from emergence.store import Store
from emergence.tasks import examples
from emergence.tasks.arithmetic import Problem
from emergence.tasks.encoding import Row
from emergence.tasks.examples import Example, Examples
from emergence.tasks.task import line as line_of
from emergence.training.batches import shuffled_answers
from emergence.verdicts import Table

CONFIG = """
name: parity
model: {model}
training:
  max_steps: 4
  batch_size: 6
  learning_rate: 5e-3
  checkpoint_steps: [0, 4]
  seeds: [0]
  training_methods:
    sft: {{method: sft}}
    classified: {{method: classified, classifier_targets: {{even no: plus, odd: minus}}, max_steps: 4}}
parameters:
  examples: data/numbers.jsonl
  num_samples: 24
  num_valid: 4
  num_test: 12
  lora: {{rank: 4, alpha: 8}}
  task_vocabulary:
    even no: [plus, sum]
    odd: [minus, difference]
  test_prompts:
    odd: [What is 9, {{prompt: What is 901, expected: minus}}]
"""
CLASSES = {"even no": "plus", "odd": "minus"}
READ = {"arm": "base", "band": "intermediate", "style": "own"}
PREDICTIONS = (
    Prediction("W", "a word", **READ, family="words", test="no classifier"),
    Prediction("A", "an answer", **READ, family="answer", test="classifier"),
    Prediction("S", "a probe", **READ, family="stream", test="probe"),
    Prediction("T", "a trained word", "sft", "words", "intermediate", "own", "growth"),
)


def numbers(count: int = 60) -> list[dict[str, str]]:
    classes = list(CLASSES.items())
    return [
        {"class": classes[n % 2][0], "prompt": f"What is {n}", "answer": classes[n % 2][1]}
        for n in range(count)
    ]


def written(folder: Path, rows: list[dict[str, str]] | str, text: str = CONFIG) -> Path:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    lines = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "data" / "numbers.jsonl").write_text(lines)
    (folder / "config.yaml").write_text(text.format(model=folder / "model"))
    return folder / "config.yaml"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    tiny.write_model(folder / "model")
    written(folder, numbers(100), CONFIG.replace("num_test: 12", "num_test: 30"))
    made = Experiment(folder, store=Store(folder / "store"))
    made.predictions = Table(PREDICTIONS)
    return made


@pytest.fixture(scope="module")
def runs(experiment):
    return experiment.runs


@pytest.fixture(scope="module")
def study(experiment):
    return experiment.study


def test_every_arm_is_trained_and_read_on_the_prompts_as_they_are_written(experiment, study):
    assert [(r.arm, r.steps) for r in study.runs] == [(a, (0, 4)) for a in ("sft", "classified", "shuffled")]
    run = study.runs[0]
    assert run.classes == tuple(CLASSES)
    assert Counter((p.cls, p.style, p.half) for p in run.prompts) == {
        **{(c, "own", half): 15 for c in CLASSES for half in (0, 1)},
        ("odd", "own", -1): 2,
    }
    assert {p.text for p in run.prompts if p.half >= 0} < {row["prompt"] for row in numbers(100)}
    assert np.all(np.isneginf(run.glyphs)), "these classes have no glyphs"


def test_readings_agree_with_the_models_own_logits_in_float64(experiment, runs, study):
    with models.adapted(experiment.model, runs[0].checkpoints[4]):
        logits = np.array(experiment.model(mx.array([experiment.plan.prompt_ids[3]])))[0, -1].astype(
            np.float64
        )
    p = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    ids = list(experiment.vocabulary.words["odd"])
    assert np.exp(study.runs[0].words[1, -1, 3, 1]) == pytest.approx(p[ids].sum(), rel=1e-4)
    own = study.runs[0].own_answer[3]
    (first, *_) = experiment.tokenizer.encode(CLASSES[study.runs[0].prompts[3].cls])
    assert study.runs[0].answer_ids[own] == first


def test_what_a_run_was_trained_on_is_kept_with_it_and_reads_back(experiment, runs):
    for name in ("train", "test"):
        lines = (runs[0].entry.path / "data" / f"{name}.jsonl").read_text().splitlines()
        assert tuple(examples.parse(line) for line in lines) == getattr(experiment.splits, name)


def test_verdicts_come_a_class_each_and_say_what_cannot_be_judged(experiment, study):
    judged = {(v.prediction, v.cls): v for v in experiment.verdicts}
    assert set(judged) == {(p.id, cls) for p in PREDICTIONS for cls in CLASSES}
    for cls in CLASSES:
        assert judged["W", cls].n_prompts == 30
        assert judged["A", cls].outcome == judged["S", cls].outcome == "inconclusive"
        assert "have one answer" in judged["A", cls].reason
        assert "no control task" in judged["S", cls].reason


def test_what_the_report_shows_of_it_is_finite_and_named(experiment, study):
    judged = experiment.verdicts
    shown = json.dumps(payload.build(study, {}, str), allow_nan=False)
    assert "even no" in shown
    assert "even no" in "".join(tables.summary(judged, study, experiment.config))
    assert frames.tidy(study.runs[0])["glyphs"].eq(0).all()


def test_a_prompt_in_both_halves_is_refused_although_it_has_no_operands():
    halves = [Prompt(text, "odd", "1", "own", half, text) for half, text in enumerate(("one", "two"))]
    disjoint(halves)
    with pytest.raises(BrokenExperiment, match="both halves, such as 'one'"):
        disjoint([*halves, Prompt("One.", "odd", "1", "own", 1, "one")])


# Splits


def _task(found: list[Example], **counts: int) -> Examples:
    given = {"num_train": 8, "num_valid": 2, "num_test": 4} | counts
    return Examples(classes=tuple(CLASSES), examples=tuple(found), **given)


def _examples(count: int = 60) -> list[Example]:
    return [Example(r["class"], r["prompt"], r["answer"]) for r in numbers(count)]


@given(st.randoms(use_true_random=False), st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_splits_are_balanced_disjoint_and_the_same_whatever_the_order_of_the_file(random, seed):
    shuffled = _examples()
    random.shuffle(shuffled)
    shown = shuffled[:3]
    splits = _task(shuffled, seed=seed).split(exclude=shown)
    assert splits == _task(_examples(), seed=seed).split(exclude=shown)
    for part, size in ((splits.train, 8), (splits.valid, 2), (splits.test, 4)):
        assert Counter(e.cls for e in part) == dict.fromkeys(CLASSES, size)
        assert not set(part) & set(shown)
    assert len({e.key for part in (splits.train, splits.valid, splits.test) for e in part}) == 28


def test_test_prompts_stay_the_same_when_more_are_trained_on_and_differ_by_seed():
    assert _task(_examples()).split().test == _task(_examples(), num_train=20).split().test
    assert _task(_examples()).split().test != _task(_examples(), seed=1).split().test


def test_too_few_examples_are_refused_with_the_numbers():
    with pytest.raises(UsageError, match="examples: 13 examples of the class odd, but 14 a class are needed"):
        _task(_examples()[:-33]).split()


@given(st.builds(Example, st.just("a b"), *[st.text('xé 😀\n"\\\u2028', min_size=1).filter(str.strip)] * 2))
def test_an_example_reads_back_from_its_line(example):
    assert examples.parse(line_of(example)) == example


# The control


def _rows(sizes: list[int]) -> list[Row]:
    made = [Example(f"c{k}", f"{k} {i}", str(k)) for k, n in enumerate(sizes) for i in range(n)]
    return [Row(e, "own", (1, i), (100 + int(e.answer), 0)) for i, e in enumerate(made)]


@given(st.lists(st.integers(1, 30), min_size=2, max_size=5), st.integers(0, 9))
@example([3, 3, 3, 19], 0)
@settings(max_examples=60, deadline=None)
def test_shuffled_answers_say_nothing_of_the_class(sizes, seed):
    made = _rows(sizes)
    shuffled = shuffled_answers(made, seed)
    assert [r.prompt_ids for r in shuffled] == [r.prompt_ids for r in made]
    assert Counter(r.answer_ids for r in shuffled) == Counter(r.answer_ids for r in made)
    given_ = Counter(
        (a.item.cls, b.item.answer) for a, b in zip(shuffled, _given(shuffled, made), strict=True)
    )
    for c, n in enumerate(sizes):
        for d, m in enumerate(sizes):
            share = m / sum(sizes)
            assert abs(given_[f"c{c}", str(d)] - n * share) <= 1 + len(sizes) * share


def _given(shuffled, made):
    of = {r.answer_ids: r for r in made}
    return [of[r.answer_ids] for r in shuffled]


def test_two_classes_of_one_size_get_exactly_half_of_each_others_answers_at_random():
    made = _rows([20, 20])
    shuffled = shuffled_answers(made, 0)
    kept = [a == b for a, b in zip(made, shuffled, strict=True)]
    assert (sum(kept[:20]), sum(kept[20:])) == (10, 10)
    assert shuffled == shuffled_answers(made, 0) != shuffled_answers(made, 1)


# Twins and traps


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 7?", "what is  7"),
        ("Is it raining?", "Is it raining!"),
        ('He said "no".', "he said no"),
        ("«Bonjour», dit-il", "bonjour dit-il"),
        ("7, 8.", "7 8"),
        (" The number 48 is ", "The number 48 is"),
    ],
)
def test_prompts_that_differ_by_case_or_punctuation_only_are_one(tmp_path, one, other):
    assert Example("a", one, "x").key == Example("a", other, "y").key
    lines = [line_of(Example("odd", text, "minus")) for text in (one, other)]
    (tmp_path / "twins.jsonl").write_text("".join(lines))
    with pytest.raises(
        UsageError, match=r"^twins\.jsonl:2: prompt: .* (line 1 but for|stands in line 1).*drop one$"
    ):
        examples.load(tmp_path / "twins.jsonl", "twins.jsonl")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3 + 4 =", "3 - 4 ="),
        ("5! =", "5 ="),
        ("3.5 is", "35 is"),
        ("1,000 is", "1 000 is"),
        ("-5 is", "5 is"),
        ("won't", "wont"),
        ("a.b", "ab"),
        ("?", "!"),
        ("x² is", "x2 is"),
        ("(3)", "3"),
    ],
)
def test_signs_that_mean_something_tell_prompts_apart(one, other):
    assert Example("a", one, "x").key != Example("a", other, "x").key


def test_a_twin_with_another_class_or_answer_is_told_with_both(tmp_path):
    rows = [Example("odd", "What is 7", " minus"), Example("even no", "what is 7?", " plus")]
    (tmp_path / "n.jsonl").write_text("".join(map(line_of, rows)))
    told = "n.jsonl:2: prompt: 'what is 7?' is line 1 but for case or punctuation with class 'odd' and answer"
    with pytest.raises(UsageError, match=f"^{re.escape(told)} ' minus'; drop one$"):
        examples.load(tmp_path / "n.jsonl", "n.jsonl")


@given(st.text(min_size=1).filter(str.strip))
def test_the_key_of_any_prompt_is_the_key_of_its_key(text):
    key = examples.key(text)
    assert key
    assert examples.key(text.upper().lower()) == examples.key(examples.key(text.upper().lower()))


WORDS = {"even no": ("plus", "sum"), "odd": ("minus",)}


def test_answers_that_say_another_class_are_told():
    wrong = [Example("odd", "What is 11", " Plus"), Example("odd", "What is 13", "odd"), *_examples()]
    (line,) = examples.contradictions(wrong, WORDS)
    assert line.startswith(
        "'What is 11' has the class odd, but its answer ' Plus' speaks for even no (1 such)"
    )
    assert examples.contradictions(_examples(), WORDS) == ()


def test_one_label_against_all_others_of_its_answer_is_told_though_no_word_says_so():
    right = [Example("odd" if n % 2 else "even no", f"What is {n}", str(n % 2)) for n in range(60)]
    (line,) = examples.contradictions([*right, Example("odd", "What is 88", "0")], WORDS)
    assert "'What is 88' has the class odd, but its answer '0' speaks for even no (1 such)" in line
    spread = [Example("odd" if n % 2 else "even no", f"What is {n}", str(n % 3)) for n in range(90)]
    assert examples.contradictions(spread, WORDS) == ()


def test_a_token_that_gives_the_class_away_is_told_by_name():
    tokenizer = kind("smollm: single digits, no BOS")
    marked = [Example(c, f"{'+' if c == 'odd' else ''}{n}", "x") for n in range(20) for c in CLASSES]
    (line,) = examples.giveaways(tokenizer, [e for e in marked], "own")
    assert line.startswith("class odd: the token '+' stands in 20 of its 20 prompts and in those of no other")
    elsewhere = [*marked, Example("even no", "1+", "x")]
    assert examples.giveaways(tokenizer, elsewhere, "own") == ()
    rarer = [Example(e.cls, e.text.replace("+", ""), "x") if i < 6 else e for i, e in enumerate(marked)]
    assert examples.giveaways(tokenizer, rarer, "own") == ()


def test_an_operator_is_no_giveaway_as_arithmetic_names_its_class():
    items = [Problem(o, 40 + n, n) for o in ("add", "subtract") for n in range(20)]
    assert examples.giveaways(kind("smollm: single digits, no BOS"), items, "symbolic") == ()


def test_its_warnings_reach_whoever_runs_it(experiment):
    """Every prompt of the class odd holds the same word, and its answer is the other class's."""
    given = [Example("even no", f"It is {n}", "plus") for n in range(30)]
    given += [Example("odd", f"Odd one: {n}", "plus") for n in range(30, 60)]
    task = _task(given)
    told = task.warnings(experiment.tokenizer, experiment.config.vocabulary)
    assert any("has the class odd, but its answer 'plus' speaks for even no" in line for line in told)
    assert any("gives the class away" in line for line in told)
    assert set(provenance.notes(experiment)) >= set(
        experiment.config.task.warnings(experiment.tokenizer, experiment.config.vocabulary)
    )


# What the file and the config may say


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", r"numbers\.jsonl:61: not JSON"),
        ("[]", "needs exactly the keys class, prompt, answer"),
        ('{"class": "odd", "prompt": "x"}', "has 'class', 'prompt'"),
        ('{"class": "odd", "class": "odd", "prompt": "x", "answer": "y"}', "key is given twice"),
        ('{"class": "odd", "prompt": "x", "answer": 1}', "answer: 1 is not a text"),
        ('{"class": "odd", "prompt": " ", "answer": "y"}', "prompt: empty"),
        ('{"class": "odd", "prompt": "x", "answer": ""}', "answer: empty"),
        ('{"class": "odd", "prompt": "' + "x" * 5000 + '", "answer": "y"}', "prompt: 5000 characters"),
        ('{"class": "odd", "prompt": "\\ud800", "answer": "y"}', "no character"),
        ('{"class": "o[dd", "prompt": "x", "answer": "y"}', "cannot name a class"),
        ('{"class": "odd", "prompt": "What  is 7 ", "answer": "y"}', "jsonl:61: prompt: .* stands in line 8"),
        ('{"class": "od", "prompt": "x", "answer": "y"}', "no words for the class 'od' .*did you mean odd"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_told_with_file_and_line(tmp_path, line, says):
    lines = "".join(json.dumps(row) + "\n" for row in numbers())
    with pytest.raises(UsageError, match=says) as refused:
        config.load(written(tmp_path, lines + line + "\n"))
    assert len(str(refused.value).split("\n")) == 1


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("data/numbers", "data/none", r"none\.jsonl: cannot be read: No such file"),
        ("data/numbers.jsonl", "data", "cannot be read: Is a directory"),
        ("data/numbers", "../numbers", "leads out of the config's folder"),
        ("data/numbers.jsonl", "/etc/hostname", "leads out of the config's folder"),
        ("num_valid: 4", "num_valid: 40", "30 examples of the class even no, but 64 a class"),
        ("num_valid: 4", "num_valid: 6", "29 examples of the class odd, but 30 a class"),
        ("num_valid: 4", "styles: [symbolic]", "parameters.styles: is for arithmetic"),
        ("num_valid: 4", "operands: {{odd: [2, 3]}}", "parameters.operands: is for arithmetic"),
        ("num_valid: 4", "operations: [even no, odd]", "parameters.operations: is for arithmetic"),
        ("even no: [plus", "even: [plus", "no words for the class 'even no'"),
        ("odd: [minus, difference]", "odd: [plus]", "'plus' belongs to even no, too"),
        ("    odd: [minus, difference]\n", "", "write at least 2"),
        ("even no: [plus, sum]", "even/no: [plus]", "'even/no' cannot name a class"),
        ("odd: [What is 9,", "even no: [What is 9,", "class odd, answer 'minus'"),
        ("odd: [What is 9,", "odd: [What is 902,", "is no example, so its answer is not known"),
        ("plus, odd: minus", "plus, odd: minos", "'minos' is not in task_vocabulary.odd"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused_by_name(tmp_path, old, new, says):
    assert old in CONFIG
    with pytest.raises(UsageError, match=says) as refused:
        config.load(written(tmp_path, numbers(), CONFIG.replace(old, new)))
    assert all(line.isprintable() for line in str(refused.value).split("\n"))


def test_a_link_that_leads_out_of_the_folder_is_not_followed(tmp_path):
    path = written(tmp_path / "inside", numbers())
    outside = tmp_path / "numbers.jsonl"
    (tmp_path / "inside" / "data" / "numbers.jsonl").rename(outside)
    (tmp_path / "inside" / "data" / "numbers.jsonl").symlink_to(outside)
    with pytest.raises(UsageError, match="leads out"):
        config.load(path)


def test_a_text_that_lies_in_no_folder_has_no_examples():
    with pytest.raises(UsageError, match="lies beside a config file"):
        config.parse(CONFIG.format(model="m"))


def test_the_hash_is_that_of_the_examples_too(tmp_path):
    before = config.load(written(tmp_path, numbers()))
    assert config.load(written(tmp_path, numbers())).hash == before.hash
    changed = numbers()
    changed[0]["answer"] = "sum"
    assert config.load(written(tmp_path, changed)).hash != before.hash


def test_classes_of_ones_own_are_overridden_by_their_names(tmp_path):
    text = CONFIG.replace("even no", "addition").replace("odd", "add")
    rows = [row | {"class": {"even no": "addition", "odd": "add"}[row["class"]]} for row in numbers()]
    loaded = config.load(written(tmp_path, rows, text), {"parameters.task_vocabulary.add": "[minus]"})
    assert loaded.vocabulary == {"addition": ("plus", "sum"), "add": ("minus",)}


def test_the_parity_experiment_is_right_about_every_number():
    loaded = config.load(ROOT / "hypotheses" / "parity" / "config.yaml")
    assert len(loaded.task.examples) == 400
    for e in loaded.task.examples:
        assert e.answer == f" {e.cls}" == (" even", " odd")[int(e.text.split()[2]) % 2]


# The documentation


def _shown() -> dict[str, str]:
    page = (ROOT / "docs" / "extending.md").read_text()
    parts = page.split("## Your own prompts")[1].split("\n## ")[:2]
    blocks = [re.findall(r"```\w+\n(.*?)```", part, re.DOTALL) for part in parts]
    return dict(zip(("examples", "config", "predictions", "test", "conftest"), blocks[0], strict=True)) | {
        "lens": blocks[1][0]
    }


def test_the_documented_task_is_the_one_that_runs():
    shown = _shown()
    files = {
        path.name: path.read_text() for path in (ROOT / "hypotheses" / "parity").iterdir() if path.is_file()
    }
    assert files["examples.jsonl"].startswith(shown["examples"])
    assert shown["config"] == re.sub("^#.*\n", "", files["config.yaml"], flags=re.MULTILINE)
    assert shown["predictions"] == re.sub(
        r'^# fmt.*\n|^""".*\n\n', "", files["predictions.py"], flags=re.MULTILINE
    )
    assert shown["test"] in files["test_claims.py"]
    assert shown["conftest"] in (ROOT / "conftest.py").read_text()


def test_the_documented_claim_about_the_lens_runs(experiment):
    names: dict = {}
    exec(_shown()["lens"], names)
    (claim,) = (value for name, value in names.items() if name.startswith("test_"))
    claim(experiment.lens, experiment.tokenizer)


def test_a_folder_that_claims_nothing_of_training_needs_no_predictions(tmp_path):
    tiny.write_model(tmp_path / "model", n_layers=1, hidden=16)
    written(tmp_path, numbers())
    (tmp_path / "test_lens_alone.py").write_text(_shown()["lens"])
    (tmp_path / "conftest.py").write_text(_shown()["conftest"])
    command = [sys.executable, "-m", "pytest", str(tmp_path), "-m", "slow", "--collect-only", "-q"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (told.returncode, "1 test collected" in told.stdout) == (0, True), told.stdout + told.stderr
