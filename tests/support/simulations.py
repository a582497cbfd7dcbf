"""Many studies of one truth, judged: how often a rule errs, and when that is too often.

In: a prediction, a function from a number to a `generators.Case`. Out: verdicts, counts, a refusal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from unittest import mock

import jaxtyping
import numpy as np
import pytest
from generators import Case, Design, answers, operands
from scipy import stats
from tails import Noise

from emergence.readings.readings import Study
from emergence.verdicts import judging
from emergence.verdicts.criteria import classifier
from emergence.verdicts.predictions import Prediction

ALPHA = 0.05
"""The most that a study may err in, whatever the claim; a table's own α is smaller."""
UNLIKELY = 1e-3
"""A rate is refused where so many errors, or more, would be less likely than this if the rate were α."""
FULL = 1000
Make = Callable[[int], Case]


def claim(test: str = "classifier", arm: str = "base", family: str = "words", **fields: object) -> Prediction:
    """A prediction with the thresholds of the package, unless others are given."""
    values = {"band": "intermediate", "style": "symbolic", **fields}
    return Prediction("X", "a claim", arm=arm, family=family, test=test, **values)


IS = claim("classifier", "sft")
EMERGES = claim("classifier", "sft", "answer", emerges=True)
NONE = claim("no classifier")
GROWS = claim("growth", "sft", "answer", threshold=0.0)
PREDICTS = claim("predicts correctness", "sft", "answer", threshold=0.50, negligible=0.60)
REPLICATES = claim("replication", "sft", "answer", emerges=True, min_seeds=3)
DECODABLE = claim("probe", "base", "stream", band="middle", threshold=0.20, negligible=0.20)

gives_way = pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="the rules of the first edition give way here"
)


@contextmanager
def only_decided() -> Iterator[None]:
    """What takes most of the time and decides nothing; the first study of each simulation has it all.

    Shape annotations are not checked; what is printed of a claim but its outcome and interval is left out.
    """
    jaxtyping.config.update("jaxtyping_disable", True)
    unused = {"_kind": lambda *_: "unclear", "_details": lambda *_: {}, "_confusion": lambda *_: {}}
    try:
        with mock.patch.multiple(classifier, **unused):
            yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def verdicts(p: Prediction, make: Make, sims: int) -> Iterator[tuple[judging.Verdict, Case]]:
    """The verdict for the class `add` in each of `sims` studies, with the case: classes share operands."""
    for k in range(sims):
        case = make(k)
        if k == 0:
            verdict = judging.judge([p], case.study, advise=False)[0]
        else:
            with only_decided():
                verdict = judging.judge([p], case.study, advise=False)[0]
        yield verdict, case


def outcomes(p: Prediction, make: Make, sims: int) -> Counter[str]:
    """How often each outcome comes out."""
    return Counter(v.outcome for v, _ in verdicts(p, make, sims))


def most_errors(sims: int, alpha: float = ALPHA) -> int:
    """The largest number of errors that is not refused: 72 of 1,000 at α = .05."""
    return int(stats.binom.isf(UNLIKELY, sims, alpha))


def refuse(errors: int, sims: int, what: str) -> None:
    """Fail where the errors are more than α explains."""
    assert errors <= most_errors(sims), f"{what} in {errors} of {sims} studies: more than α = {ALPHA}"


def redeal(given: Study, deal: int) -> Study:
    """The same readings, prompts in another order, with the pairs of operands dealt anew into two halves.

    The order changes too, so that a rule with deals of its own deals anew. `deal` numbers the deals.
    """
    old, rng = given.runs[0].prompts, np.random.default_rng([deal, 40])
    pairs = sorted({operands(p) for p in old})
    half = {pairs[i]: k % 2 for k, i in enumerate(rng.permutation(len(pairs)))}
    order = rng.permutation(len(old))
    new = tuple(replace(old[i], half=half[operands(old[i])]) for i in order)
    runs = []
    for run in given.runs:
        arrays = {f.name: getattr(run, f.name) for f in fields(run)}
        moved = {
            name: x.take(order, axis=x.shape.index(len(old)))
            for name, x in arrays.items()
            if isinstance(x, np.ndarray) and len(old) in x.shape
        }
        runs.append(replace(run, prompts=new, **moved))
    return Study(tuple(runs))


def two_layers_that_grow(k: int) -> Case:
    """Answers whose mass grows from .10 to .22 at two layers: halves differ in the layer they choose."""
    steps = (0, 100, 200, 300)
    own = [[0, 0.1 + 0.12 * s / 300, 0.1 + 0.12 * s / 300, 0] for s in steps]
    return answers(own, Design("sft", 3, steps, differ=0.2, rng=(k,)), Noise(prompt=0.1, layer=0.3))


def stands_in(p: Prediction, case: Case, deals: int) -> tuple[str, int]:
    """A verdict, and in how many deals of the pairs into halves it comes out."""
    with only_decided():
        stated = judging.judge([p], case.study, advise=False)[0].outcome
        others = [judging.judge([p], redeal(case.study, d), advise=False)[0].outcome for d in range(deals)]
    return stated, others.count(stated)
