"""Problems are right, splits share nothing, files are read back or refused."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emergence.errors import UsageError
from emergence.tasks import arithmetic, task
from emergence.tasks.arithmetic import OPERATIONS, STYLES, Arithmetic, Problem
from emergence.tasks.task import Splits


def ranges(classes: tuple[str, ...] = ("add", "subtract", "multiply"), **fields: object) -> Arithmetic:
    small = {
        "operands": dict.fromkeys(OPERATIONS, (2, 40)),
        "num_train": 100,
        "num_valid": 20,
        "num_test": 30,
    }
    return Arithmetic(classes=classes, **small | fields)


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
    assert problem.value == ORACLE[sign](int(a), int(b)) >= 0
    assert problem.answer == str(problem.value)


@given(problems(), st.sampled_from(STYLES))
def test_a_prompt_is_parsed_back_to_its_problem_and_style(problem, style):
    assert arithmetic.parse(problem.prompt(style)) == (problem, style)


def test_every_form_of_every_operation_is_parsed_back_and_is_no_other_form():
    """Operands that no commuting or swapping leaves as they are: a form that mixed them up would show."""
    written = {}
    for style in STYLES:
        for operation in OPERATIONS:
            problem = Problem(operation, 96, 8)
            written[problem.prompt(style)] = problem, style
    assert len(written) == len(STYLES) * len(OPERATIONS) == 28
    for text, (problem, style) in written.items():
        assert arithmetic.parse(text) == (problem, style)
        assert arithmetic.parse(text, [style]) == (problem, style)
        assert sorted(re.findall("[0-9]+", text)) == ["8", "96"]
        assert text[-1] in " =", "the answer begins where the prompt ends"
        assert not text[-2].isspace()


def _respaced(draw: st.DrawFn, text: str) -> str:
    """The text with other spaces between its words and signs, and other capitals."""
    parts = re.findall(r"[0-9]+|[^\W0-9]+|[^\w\s]", text)
    spaced = "".join(part + draw(st.sampled_from(["", " ", "  ", "\t"])) for part in parts)
    return spaced if draw(st.booleans()) else draw(st.sampled_from([str.upper, str.lower]))(spaced)


@given(problems(), st.sampled_from(STYLES), st.data())
def test_spacing_and_capitals_matter_in_no_form(problem, style, data):
    text = data.draw(st.composite(_respaced)(problem.prompt(style)))
    assert arithmetic.parse(text, [style]) == (problem, style)


@given(problems(), st.lists(st.sampled_from(STYLES), min_size=1, unique=True))
def test_a_form_that_is_read_to_the_letter_wins_over_one_that_is_read_loosely(problem, styles):
    """`7*8=` is tight where tight is read, and otherwise symbolic with other spaces, whatever comes first."""
    for style in styles:
        assert arithmetic.parse(problem.prompt(style), styles) == (problem, style)
    tight = problem.prompt("tight")
    if "symbolic" in styles and "tight" not in styles:
        assert arithmetic.parse(tight, styles) == (problem, "symbolic")
    if "tight" in styles and "symbolic" not in styles:
        assert arithmetic.parse(problem.prompt("symbolic"), styles) == (problem, "tight")


@given(problems(), st.sampled_from(STYLES), st.lists(st.sampled_from(STYLES), min_size=1, unique=True))
def test_a_prompt_is_parsed_in_none_of_the_styles_but_the_given_ones(problem, style, styles):
    alike = {"symbolic", "tight"}
    text = problem.prompt(style)
    if style in styles or (style in alike and alike & set(styles)):
        assert arithmetic.parse(text, styles)[1] in styles
    else:
        with pytest.raises(UsageError, match="is no arithmetic prompt; write it like"):
            arithmetic.parse(text, styles)


def test_the_forms_differ_in_what_names_the_operation():
    """A sign, a word, or only what happens: no form of the last two kinds has a sign."""
    signs = set("+-*/−×÷")
    with_signs = {style for style in STYLES if signs & set(Problem("divide", 96, 8).prompt(style))}
    assert with_signs == {"symbolic", "tight", "signs"}
    named = re.compile("add|plus|sum|subtract|minus|difference|multipl|times|product|divi|quotient", re.I)
    for style in STYLES:
        says = [named.search(Problem(op, 96, 8).prompt(style)) is not None for op in OPERATIONS]
        assert says == [style in ("worded", "command", "noun")] * 4, style


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
    assert arithmetic.parse(text)[0] == Problem("multiply", 7, 8)


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
        arithmetic.parse(text)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 220


@given(st.text(max_size=300))
def test_parsing_any_text_gives_a_problem_or_a_usage_error(text):
    try:
        problem, style = arithmetic.parse(text)
    except UsageError:
        return
    assert arithmetic.parse(problem.prompt(style)) == (problem, style)


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
        total = arithmetic.distinct(operation, low, high)
        drawn = [
            arithmetic._unrank(operation, low, high, rank, swap=swap)
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
    drawing = ranges(operations, num_train=counts[0], num_valid=counts[1], num_test=counts[2], seed=seed)
    drawn = drawing.split()
    drawn = [*drawn.train, *drawn.valid, *drawn.test]
    # Excluded are problems that would have been drawn, as they are or mirrored.
    exclude = [drawn[i % len(drawn)] for i in exclude]
    exclude = [Problem(p.operation, p.b, p.a) if p.operation in ("add", "multiply") else p for p in exclude]
    splits = drawing.split(exclude)
    keys = [p.key for split in (splits.train, splits.valid, splits.test) for p in split]
    assert len(keys) == len(set(keys)) == sum(counts) * len(operations)
    assert not set(keys) & {p.key for p in exclude}
    for split, size in zip((splits.train, splits.valid, splits.test), counts, strict=True):
        assert Counter(p.operation for p in split) == dict.fromkeys(operations, size)
    for p in splits.train:
        low, high = drawing.operands[p.operation]
        assert low <= p.b <= high
        assert low <= (p.a // p.b if p.operation == "divide" else p.a) <= high


def test_the_same_seed_draws_the_same_problems_and_another_seed_others():
    assert ranges().split() == ranges().split()
    assert ranges().split().test != ranges(seed=1).split().test


def test_the_draw_is_the_same_on_every_machine_and_version():
    digest = task.content_hash(ranges().split().test)
    assert digest.startswith("9300d4ac84c549cc")


def test_test_problems_stay_when_more_are_trained_on_or_another_operation_joins():
    base = ranges().split()
    more = ranges(num_train=300).split()
    assert base.test == more.test
    assert base.valid == more.valid
    four = ranges(OPERATIONS).split()
    assert [p for p in four.test if p.operation != "divide"] == list(base.test)


def test_both_orders_of_commuting_operands_occur_so_that_size_does_not_tell_the_operation():
    adds = [p for p in ranges().split().train if p.operation == "add"]
    larger_first = sum(p.a > p.b for p in adds)
    assert 25 < larger_first < 75


def test_a_range_can_be_used_up_and_one_more_is_refused_with_the_numbers():
    total = arithmetic.distinct("add", 2, 40)
    full = {"classes": ("add",), "num_valid": 20, "num_test": 30}
    splits = ranges(num_train=total - 50, **full).split()
    assert len(splits.train) == total - 50
    with pytest.raises(UsageError, match=rf"operands.add: \[2, 40\] holds {total} .* {total + 1} "):
        ranges(num_train=total - 49, **full).split()
    with pytest.raises(UsageError, match=f"holds {total - 1} "):
        ranges(num_train=total - 50, **full).split([Problem("add", 40, 2), Problem("add", 2, 40)])


def test_huge_ranges_are_drawn_from_without_being_listed():
    huge = ranges(operands=dict.fromkeys(OPERATIONS, (0, arithmetic.LARGEST)))
    assert len(huge.split().train) == 300


def test_splits_that_share_a_mirrored_problem_are_refused():
    one, mirrored = Problem("add", 3, 4), Problem("add", 4, 3)
    with pytest.raises(UsageError, match=r"both train and test, such as '3 \+ 4'"):
        Splits((one,), (), (mirrored,))
    with pytest.raises(UsageError, match="both valid and test"):
        Splits((), (one,), (mirrored,))


def test_an_unknown_style_is_refused():
    with pytest.raises(UsageError, match=f"unknown prompt style 'roman'; known: {', '.join(STYLES)}"):
        Problem("add", 1, 2).prompt("roman")


@given(st.lists(problems(), max_size=20))
@settings(max_examples=30)
def test_jsonl_says_every_problem_and_its_answer(tmp_path_factory, listed):
    path = tmp_path_factory.mktemp("jsonl") / "test.jsonl"
    task.write_jsonl(path, listed)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [Problem(r["operation"], r["a"], r["b"]) for r in rows] == listed
    assert all(r.keys() == {"operation", "a", "b", "answer"} for r in rows)
    assert [r["answer"] for r in rows] == [p.answer for p in listed]


def test_the_content_hash_tells_any_change_and_order():
    one, two = Problem("add", 3, 4), Problem("add", 4, 3)
    assert task.content_hash([one]) != task.content_hash([two])
    assert task.content_hash([one, two]) != task.content_hash([two, one])
    assert len(task.content_hash([])) == 64


# What other stages ask of the task


@given(problems(), st.sampled_from(OPERATIONS))
def test_a_counterfactual_has_the_same_operands_under_the_other_class_or_is_none(problem, cls):
    other = ranges(OPERATIONS).counterfactual(problem, cls)
    a, b = problem.numbers
    possible = {"subtract": a >= b, "divide": b > 0 and a % b == 0}.get(cls, True)
    assert (other is not None) == (possible and (cls == "divide" or a <= arithmetic.LARGEST))
    if other is not None:
        assert (other.cls, other.numbers) == (cls, problem.numbers)
        assert other.answer == str(int(ORACLE[arithmetic.GLYPHS[cls]](a, b)))


def test_a_counterfactual_under_an_unknown_class_is_refused():
    with pytest.raises(UsageError, match="unknown operation 'power'"):
        ranges().counterfactual(Problem("add", 1, 2), "power")


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        *[(text, 1.0) for text in ("56", " 56", "56\n", "56 \n7 * 9 = 63", "56\r\n")],
        *[(text, 0.0) for text in ("", "5", "560", "56.", "056", "56 7", "\n56", "5 6", "fifty-six", "٥٦")],
    ],
)
def test_only_the_checked_answer_alone_on_the_first_line_is_rewarded(text, reward):
    assert ranges().reward(Problem("multiply", 7, 8), text) == reward


@given(problems(), problems())
def test_the_answer_of_a_problem_earns_its_reward_and_no_other_answer_does(one, other):
    assert ranges().reward(one, one.answer) == 1.0
    assert ranges().reward(one, other.answer) == float(one.value == other.value)


@given(problems(), st.sampled_from(STYLES))
def test_a_shown_prompt_is_its_problem(problem, style):
    drawing = ranges(OPERATIONS, read_styles=STYLES)
    shown = drawing.shown(problem.prompt(style), problem.cls, problem.answer)
    assert (shown.item, shown.style, shown.text, shown.note) == (problem, style, problem.prompt(style), "")


@pytest.mark.parametrize(
    ("prompt", "cls", "expected", "says"),
    [
        ("7 * 8 = ", "add", None, "is a problem to multiply, not to add; move it there"),
        ("7 * 8 = ", "multiply", "54", "the answer of '7 [*] 8 = ' is 56, not '54'"),
        ("What is 7 times 8? ", "multiply", None, "is worded, which read_styles leaves out"),
        ("seven", "multiply", None, "no arithmetic prompt"),
    ],
)
def test_a_shown_prompt_that_cannot_be_meant_is_refused(prompt, cls, expected, says):
    with pytest.raises(UsageError, match=says):
        ranges(read_styles=("symbolic",)).shown(prompt, cls, expected)


def test_a_shown_prompt_that_is_written_otherwise_is_read_as_it_is_and_told():
    shown = ranges().shown("7*8=", "multiply")
    assert (shown.item, shown.text) == (Problem("multiply", 7, 8), "7*8=")
    assert shown.note == "'7*8=' is read as it is; what is trained on is '7 * 8 = '"


def test_a_shown_prompt_is_of_a_form_that_is_read_where_it_can_be():
    problem = Problem("multiply", 7, 8)
    loose = ranges(read_styles=("worded", "symbolic")).shown("7*8=", "multiply")
    assert (loose.style, loose.item) == ("symbolic", problem)
    exact = ranges(read_styles=("symbolic", "tight")).shown("7*8=", "multiply")
    assert (exact.style, exact.item, exact.note) == ("tight", problem, "")
    with pytest.raises(UsageError, match="is story, which read_styles leaves out"):
        ranges(("divide",)).shown("Ann shares 56 coins among 7 friends. Each of them has ", "divide")


def test_operands_are_those_named_or_the_usual_ones():
    drawing = Arithmetic(classes=("add", "multiply"), operands={"add": (5, 9), "divide": (1, 2)})
    assert drawing.operands == {"add": (5, 9), "multiply": arithmetic.ANYWHERE}


@pytest.mark.parametrize("fields", [{"classes": ("power",)}, {"styles": ("roman",)}, {"read_styles": ("x",)}])
def test_a_class_or_style_that_is_unknown_is_refused_when_the_task_is_made(fields):
    with pytest.raises(UsageError, match="unknown"):
        ranges(**{"classes": ("add",)} | fields)


def test_a_range_that_holds_the_divisor_zero_is_told():
    drawing = ranges(("divide",), operands={"divide": (0, 40)})
    assert "holds the divisor 0; begin at 1" in drawing.shortage("divide")
    with pytest.raises(UsageError, match=r"operands\.divide: \[0, 40\] holds the divisor 0"):
        drawing.split()


def test_what_decides_the_task_is_said_and_defaults_are_not():
    spec = Arithmetic(classes=("add",), operands={}, num_test=40).spec()
    assert spec == {"task": "arithmetic", "classes": ["add"], "operands": {"add": [2, 99]}, "num_test": 40}
    assert Arithmetic(classes=("add",), operands={}, styles=("worded",)).spec()["styles"] == ["worded"]
