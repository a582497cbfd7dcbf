"""Shape annotations are checked in the tests: of arguments, of results and of the fields of a dataclass."""

import jaxtyping
import numpy as np
import pytest

from emergence.analysis import intervals, permutation


@pytest.mark.parametrize(
    "call",
    [
        lambda: intervals.upper(np.zeros((2, 2)), 0.05),
        lambda: permutation.max_t(np.zeros(3), np.zeros((3, 4), dtype=int)),
        lambda: intervals.Interval(*[np.zeros((2, 2))] * 5),
        lambda: intervals.Moments(2, *[np.zeros(n) for n in (3, 3, 3, 3, 4)]),
    ],
    ids=["argument", "dtype", "field", "fields that do not fit one another"],
)
def test_what_has_another_shape_than_it_says_is_an_error(call):
    with pytest.raises(jaxtyping.TypeCheckError):
        call()
