"""A partner is the same problem under another class, or any prompt, or none where operands tell the class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from synthetic import OPERATIONS, prompt, prompts

from emergence.analysis import pairs
from emergence.readings import operands


def of(items, cls="add"):
    return np.array([i for i, p in enumerate(items) if p.cls == cls])


def matched(n=40):
    """Every pair of operands is asked under every class, in the same half."""
    rng = np.random.default_rng(0)
    drawn = rng.permutation([(a, b) for a in range(2, 40) for b in range(2, a)])[:n].tolist()
    return [prompt(cls, a, b, "symbolic", i % 2) for cls in OPERATIONS for i, (a, b) in enumerate(drawn)]


def test_where_every_problem_is_asked_under_every_class_partners_have_the_same_operands():
    items = matched()
    found = pairs.pair(items, of(items), "symbolic")
    assert found.matched
    for cls in ("subtract", "multiply"):
        assert len(found.own[cls]) == 40
        for k, i in zip(found.own[cls], found.partner[cls], strict=True):
            assert items[i].cls == cls
            assert items[i].numbers == items[of(items)[k]].numbers


def test_without_operands_the_key_says_which_problem_it_is():
    items = [replace(p, key=f"{p.numbers}", numbers=()) for p in matched()]
    assert pairs.pair(items, of(items), "symbolic").matched


def test_operands_that_tell_nothing_let_any_prompt_of_the_same_half_be_a_partner():
    items = prompts(styles=("symbolic",))
    found = pairs.pair(items, of(items), "symbolic")
    assert (found.matched, found.confounded) == (False, "")
    for cls, partner in found.partner.items():
        assert len(set(partner.tolist())) == len(partner) == 60
        assert {items[i].cls for i in partner} == {cls}
        own = of(items)[found.own[cls]]
        assert [items[i].half for i in own] == [items[i].half for i in partner]


def ranges(low):
    """Operands of each class from another range."""
    rng = np.random.default_rng(1)
    return [
        prompt(cls, int(a), int(b), "symbolic", i % 2)
        for k, cls in enumerate(OPERATIONS)
        for i, (a, b) in enumerate(
            zip(rng.integers(2 + low * k, 40 + low * k, 60), rng.integers(2, 40, 60), strict=True)
        )
    ]


def test_operands_that_tell_the_class_leave_no_partner_and_say_so():
    items = ranges(20)
    found = pairs.pair(items, of(items), "symbolic")
    assert found.own == {}
    assert found.confounded.startswith("operands alone tell the class in ")
    assert "(chance 33%)" in found.confounded


def test_a_few_shared_problems_are_too_few_where_nothing_else_is_known_of_them():
    items = [
        replace(p, key=f"{i % 60 if i % 60 < 10 else i}", numbers=())
        for i, p in enumerate(prompts(styles=("symbolic",)))
    ]
    found = pairs.pair(items, of(items), "symbolic")
    assert found.confounded.startswith("only 10 prompts of add have the same problem under every other class")


@pytest.mark.parametrize("seed", range(4))
def test_operands_from_one_range_tell_the_class_by_chance_alone(seed):
    share, chance, p = operands.operands_tell(prompts(styles=("symbolic",), seed=seed))
    assert chance == pytest.approx(1 / 3)
    assert p > 0.01
    assert share < 0.45


def test_matched_operands_tell_the_class_of_the_other_half_by_chance_exactly():
    share, chance, _ = operands.operands_tell(matched(), apart=True)
    assert share == pytest.approx(chance) == pytest.approx(1 / 3)
    by_class = [replace(p, numbers=(p.numbers[0], 100 * OPERATIONS.index(p.cls))) for p in matched()]
    assert operands.operands_tell(by_class, apart=True)[0] == 1


def test_deals_depend_on_the_problems_and_not_on_their_order():
    items = matched()
    mine = of(items)
    forward = pairs.deals(items, mine, 12)
    backward = pairs.deals(items, mine[::-1], 12)
    np.testing.assert_array_equal(forward, backward[:, ::-1])
    for cls in ("subtract", "multiply"):
        np.testing.assert_array_equal(forward, pairs.deals(items, of(items, cls), 12))


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (25, 60), (60, 60), (450, 1200)])
def test_the_binomial_tail_is_scipys(hits, n):
    assert operands._binomial_tail(hits, n, 1 / 3) == pytest.approx(
        stats.binom.sf(hits - 1, n, 1 / 3), rel=1e-8
    )
