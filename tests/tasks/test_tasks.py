"""Problems are right, splits share nothing, files are read back or refused."""

import json
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergence.errors import UsageError
from emergence.tasks import task as tasks
from emergence.tasks.task import OPERATIONS, STYLES, Problem, Splits


@dataclass
class Ranges:
    operations: tuple[str, ...] = ("add", "subtract", "multiply")
    operands: dict[str, tuple[int, int]] = field(default_factory=lambda: dict.fromkeys(OPERATIONS, (2, 40)))
    examples: tuple[tasks.Example, ...] = ()
    num_train: int = 100
    num_valid: int = 20
    num_test: int = 30
    seed: int = 0


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    operation = draw(st.sampled_from(OPERATIONS))
    a, b = draw(st.integers(0, 9999)), draw(st.integers(0, 9999))
    if operation == "subtract":
        a, b = max(a, b), min(a, b)
    if operation == "divide":
        a, b = a * (b + 1), b + 1
    return Problem(operation, a, b)


ORACLE = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b}


@given(problems())
def test_the_answer_is_what_the_symbolic_prompt_evaluates_to(problem):
    a, sign, b, equals = problem.prompt("symbolic").split()
    assert equals == "="
    assert problem.answer == ORACLE[sign](int(a), int(b))
    assert problem.answer >= 0


@given(problems(), st.sampled_from(STYLES))
def test_a_prompt_is_parsed_back_to_its_problem_and_style(problem, style):
    assert tasks.parse(problem.prompt(style)) == (problem, style)


@given(st.sampled_from(("add", "multiply")), st.integers(0, 9999), st.integers(0, 9999), st.integers(0, 9999))
def test_commuted_pairs_are_one_problem_and_others_are_not(operation, a, b, c):
    assert Problem(operation, a, b).key == Problem(operation, b, a).key
    assert (Problem(operation, a, b).key == Problem(operation, a, c).key) == (b == c)
    assert Problem("add", a, b).key != Problem("multiply", a, b).key
    assert Problem("subtract", a + b, b).key != Problem("subtract", a + b + 1, b).key


@pytest.mark.parametrize(
    "text", ["7*8=", " 7  *  8 =", "7 × 8 = ", "what is 7 TIMES 8 ?", "What is 7  times 8?"]
)
def test_spacing_and_capitals_do_not_matter_when_a_prompt_is_parsed(text):
    assert tasks.parse(text)[0] == Problem("multiply", 7, 8)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "7 * 8",
        "7 ^ 8 = ",
        "-7 + 8 = ",
        "7.5 + 8 = ",
        "7 + 8 = 15",
        "7 + 8 + 9 = ",
        "What is 7 apples 8? ",
        "The capital of France is",
        "٧ + ٨ = ",
        "7 + 8 = \x00",
        "7 + 8 = \u202e",
        "7 + 8 = 😀",
        "</script> = ",
        "9" * 5000 + " + 1 = ",
        "7 + 8 = " + " " * 5000,
        "3 - 5 = ",
        "7 / 2 = ",
        "7 / 0 = ",
        "1000000 + 1 = ",
    ],
)
def test_what_is_no_problem_is_refused_in_one_short_printable_line(text):
    with pytest.raises(UsageError) as refused:
        tasks.parse(text)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 220


@given(st.text(max_size=300))
def test_parsing_any_text_gives_a_problem_or_a_usage_error(text):
    try:
        problem, style = tasks.parse(text)
    except UsageError:
        return
    assert tasks.parse(problem.prompt(style)) == (problem, style)


@pytest.mark.parametrize(
    ("operation", "a", "b", "named"),
    [
        ("power", 2, 3, "power"),
        ("add", -1, 3, "between 0"),
        ("add", 10**7, 3, "between 0"),
        ("subtract", 3, 5, "negative"),
        ("divide", 3, 0, "whole"),
        ("divide", 7, 2, "whole"),
    ],
)
def test_a_problem_without_a_whole_answer_is_refused(operation, a, b, named):
    with pytest.raises(UsageError, match=named):
        Problem(operation, a, b)


def test_every_rank_of_a_range_is_a_different_problem_within_it():
    for operation in OPERATIONS:
        low, high = 3, 14
        total = tasks.distinct(operation, low, high)
        drawn = [
            tasks._unrank(operation, low, high, rank, swap=swap)
            for rank in range(total)
            for swap in (False, True)
        ]
        assert len({p.key for p in drawn}) == total
        inside = {
            (operation, a * b if operation == "divide" else a, b)
            for a in range(low, high + 1)
            for b in range(low, high + 1)
            if operation != "subtract" or a >= b
        }
        assert {p.key for p in drawn} == {Problem(*x).key for x in inside}


@given(
    seed=st.integers(0, 2**32 - 1),
    counts=st.tuples(*[st.integers(1, 40)] * 3),
    operations=st.lists(st.sampled_from(OPERATIONS), min_size=1, unique=True).map(tuple),
    exclude=st.lists(st.integers(0, 10**6), max_size=8),
)
@settings(max_examples=40, deadline=None)
def test_splits_are_disjoint_balanced_exact_and_free_of_what_is_excluded(seed, counts, operations, exclude):
    task = Ranges(operations, num_train=counts[0], num_valid=counts[1], num_test=counts[2], seed=seed)
    drawn = tasks.generate(task)
    drawn = [*drawn.train, *drawn.valid, *drawn.test]
    # Excluded are problems that would have been drawn, as they are or mirrored.
    exclude = [drawn[i % len(drawn)] for i in exclude]
    exclude = [Problem(p.operation, p.b, p.a) if p.operation in ("add", "multiply") else p for p in exclude]
    splits = tasks.generate(task, exclude)
    keys = [p.key for split in (splits.train, splits.valid, splits.test) for p in split]
    assert len(keys) == len(set(keys)) == sum(counts) * len(operations)
    assert not set(keys) & {p.key for p in exclude}
    for split, size in zip((splits.train, splits.valid, splits.test), counts, strict=True):
        assert Counter(p.operation for p in split) == dict.fromkeys(operations, size)
    for p in splits.train:
        low, high = task.operands[p.operation]
        assert low <= p.b <= high
        assert low <= (p.a // p.b if p.operation == "divide" else p.a) <= high


def test_the_same_seed_draws_the_same_problems_and_another_seed_others():
    assert tasks.generate(Ranges()) == tasks.generate(Ranges())
    assert tasks.generate(Ranges()).test != tasks.generate(Ranges(seed=1)).test


def test_the_draw_is_the_same_on_every_machine_and_version():
    digest = tasks.content_hash(tasks.generate(Ranges()).test)
    assert digest.startswith("9300d4ac84c549cc")


def test_test_problems_stay_when_more_are_trained_on_or_another_operation_joins():
    base = tasks.generate(Ranges())
    more = tasks.generate(Ranges(num_train=300))
    assert base.test == more.test
    assert base.valid == more.valid
    four = tasks.generate(Ranges(operations=OPERATIONS))
    assert [p for p in four.test if p.operation != "divide"] == list(base.test)


def test_both_orders_of_commuting_operands_occur_so_that_size_does_not_tell_the_operation():
    adds = [p for p in tasks.generate(Ranges()).train if p.operation == "add"]
    larger_first = sum(p.a > p.b for p in adds)
    assert 25 < larger_first < 75


def test_a_range_can_be_used_up_and_one_more_is_refused_with_the_numbers():
    total = tasks.distinct("add", 2, 40)
    full = {"operations": ("add",), "num_valid": 20, "num_test": 30}
    splits = tasks.generate(Ranges(num_train=total - 50, **full))
    assert len(splits.train) == total - 50
    with pytest.raises(UsageError, match=rf"operands.add: \[2, 40\] holds {total} .* {total + 1} "):
        tasks.generate(Ranges(num_train=total - 49, **full))
    with pytest.raises(UsageError, match=f"holds {total - 1} "):
        tasks.generate(Ranges(num_train=total - 50, **full), [Problem("add", 40, 2), Problem("add", 2, 40)])


def test_huge_ranges_are_drawn_from_without_being_listed():
    task = Ranges(operands=dict.fromkeys(OPERATIONS, (0, tasks.LARGEST)))
    assert len(tasks.generate(task).train) == 300


def test_splits_that_share_a_mirrored_problem_are_refused():
    one, mirrored = Problem("add", 3, 4), Problem("add", 4, 3)
    with pytest.raises(UsageError, match=r"both train and test, such as 3 \+ 4"):
        Splits((one,), (), (mirrored,))
    with pytest.raises(UsageError, match="both valid and test"):
        Splits((), (one,), (mirrored,))


def test_an_unknown_style_is_refused():
    with pytest.raises(UsageError, match="symbolic, worded"):
        Problem("add", 1, 2).prompt("roman")


@given(st.lists(problems(), max_size=20))
@settings(max_examples=30)
def test_jsonl_says_every_problem_and_its_answer(tmp_path_factory, listed):
    path = tmp_path_factory.mktemp("jsonl") / "test.jsonl"
    tasks.write_jsonl(path, listed)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [Problem(r["operation"], r["a"], r["b"]) for r in rows] == listed
    assert all(r.keys() == {"operation", "a", "b", "answer"} for r in rows)
    assert [r["answer"] for r in rows] == [str(p.answer) for p in listed]


def test_the_content_hash_tells_any_change_and_order():
    one, two = Problem("add", 3, 4), Problem("add", 4, 3)
    assert tasks.content_hash([one]) != tasks.content_hash([two])
    assert tasks.content_hash([one, two]) != tasks.content_hash([two, one])
    assert len(tasks.content_hash([])) == 64
