"""What a table of predictions can decide under a config, said before anything is trained.

In: the predictions and a config. Out: one error with all problems, or notices about claims that will be
inconclusive. It also says how many permutations a table needs. A permutation p is never below
1 / (permutations + 1), nor far below one over the number of different orders; Holm's adjustment then
multiplies it by the number of confirmatory tests.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ..analysis import evidence, permutation
from ..analysis.intervals import ALPHA
from ..analysis.pairs import ENOUGH
from ..config.settings import UNTRAINED, Config
from ..errors import UsageError
from ..readings import plan
from ..readings.bands import AT_TARGET, BANDS, TARGET_DEPTH
from ..readings.effects import CAUSAL, MEANS, OPERATION, PARTS, STREAM
from .measurements import TRAINED, few_seeds
from .predictions import FAMILIES, TESTS, Prediction

SIDES = 2
"""Every claim has two p-values in Holm's family: that the effect is there, and that it is negligible."""
MOST_PERMUTATIONS = 49_999
"""More would fill a small machine's memory with their arrays: enough for 500 tests at 0.01."""


def check(predictions: Sequence[Prediction], config: Config) -> tuple[str, ...]:
    """Say, before anything is trained, which predictions cannot be judged under this config.

    Returns notices, a line each, about predictions that are inconclusive for certain: because of one seed
    where replication is claimed (a run with `--seeds 1` is allowed; it speaks of itself only), or of a p that
    can never be small enough.

    Raises
    ------
    UsageError
        All problems at once: unknown arm, band, family or test, a style that is not read, one class, fewer
        than 30 prompts a class, an id twice, a premise that is not in the table, replication with fewer than
        two seeds asked.
    """
    ids = [p.id for p in predictions]
    problems = [
        f"{i}: is in the table {ids.count(i)} times; give each its own id"
        for i in sorted({*ids})
        if ids.count(i) > 1
    ]
    problems += _task_problems(config)
    for p in predictions:
        problems += [f"{p.id}: {text}" for text in _problems(p, ids, config)]
    if problems:
        raise UsageError("; ".join(problems))
    undecidable = _undecidable(predictions, config)
    notices: dict[str, list[str]] = {}
    for p in predictions:
        lines = [*_notices(p, config)]
        lines += [] if any("inconclusive" in line for line in lines) else undecidable.get(p.id, [])
        for text in lines:
            notices.setdefault(text, []).append(p.id)
    return tuple(f"{', '.join(some)}: {text}" for text, some in notices.items())


def permutations(predictions: Sequence[Prediction], classes: int) -> int:
    """How many permutations let the smallest p pass Holm's adjustment; `MOST_PERMUTATIONS` at most.

    For example, 26 claims at alpha 0.01 are 52 tests and need 5,200: with 4,999 the smallest p would be
    52 / 5000 after Holm. A claim about one family or another counts twice, since its p is doubled for the
    choice.
    """
    confirmatory = [p for p in predictions if not p.control]
    alpha = min((p.alpha for p in confirmatory), default=1.0)
    tests = SIDES * classes * sum(len(p.families) for p in confirmatory)
    return min(MOST_PERMUTATIONS, max(permutation.PERMUTATIONS, math.floor(tests / alpha)))


def _task_problems(config: Config) -> Iterator[str]:
    task = config.task
    if len(task.classes) < 2:
        yield f"classes: {', '.join(task.classes)}; a classifier tells classes apart, name two at least"
    if task.num_test < ENOUGH:
        yield f"num_test={task.num_test} prompts a class; at least {ENOUGH} are needed"


def _problems(p: Prediction, ids: Sequence[str], config: Config) -> Iterator[str]:
    """What makes a prediction meaningless under this config."""
    arms, task = [*UNTRAINED, *(a.name for a in config.arms)], config.task
    for arm in (p.arm, *p.against):
        if arm not in arms:
            yield f"arm {arm!r} is not in the config; it has {', '.join(arms)}"
    if p.against and p.test not in ("predicts correctness", "contrast"):
        yield f"against={list(p.against)} is for `predicts correctness` and `contrast`; drop it"
    if p.test in plan.OF_ACCURACY:
        yield from _of_accuracy(p, config)
    if p.band not in (*BANDS, AT_TARGET):
        yield f"band {p.band!r} is unknown; known bands: {', '.join([*BANDS, AT_TARGET])}"
    if p.family not in FAMILIES:
        yield f"family {p.family!r} is unknown; known families: {', '.join(FAMILIES)}"
    if p.test not in TESTS:
        yield f"test {p.test!r} is unknown; known tests: {', '.join(TESTS)}"
    yield from _causal_problems(p, config)
    if p.style not in task.read_styles:
        yield f"style {p.style!r} is not read; add it to read_styles ({', '.join(task.read_styles)})"
    if p.untrained_style and p.style in task.styles:
        yield f"style {p.style!r} is trained on, and the claim is about one that is not; drop it from styles"
    if p.threshold <= p.negligible:
        yield (
            f"threshold={p.threshold:g} is not above negligible={p.negligible:g}: one truth could be within "
            "reach of both verdicts; keep a gap between them"
        )
    if not 0 < p.alpha < 1:
        yield f"alpha={p.alpha:g} is no error rate; it lies between 0 and 1, 0.01 by default"
    if p.premise and p.premise not in ids:
        yield f"premise {p.premise!r} is not in the table"
    if p.test == "replication" and p.min_seeds < 2:
        yield (
            f"claims replication with min_seeds={p.min_seeds}; one run replicates nothing, ask for 2 at least"
        )


def _causal_problems(p: Prediction, config: Config) -> Iterator[str]:
    """What an intervention cannot be made for; a part that only an intervention has."""
    if p.test not in CAUSAL:
        if p.family == MEANS:
            yield f"family {p.family!r} is for {' and '.join(f'`{test}`' for test in CAUSAL)}"
        return
    if p.arm == "permuted":
        yield "streams are exchanged in the base model and in trained arms; permuted weights are only read"
    if not config.task.has_counterfactuals:
        yield (
            "needs every item under every class; ask matched operands: `operands: {a: [2, 99], b: [1, 9]}`"
        )
    if p.family not in (PARTS if p.test != OPERATION else (STREAM,)):
        yield f"family {p.family!r} cannot be exchanged; name {' or '.join(PARTS)}"
    trained = plan.style_of(config.task)
    if p.style != trained:
        yield f"style {p.style!r}: streams are exchanged in the first trained style, {trained}"


def _of_accuracy(p: Prediction, config: Config) -> Iterator[str]:
    """What makes a claim about what the model writes meaningless: there is no path of an arm to look at."""
    asked = (p.arm, *p.against)
    if p.test == "contrast" and (len(p.against) != 1 or p.arm in p.against):
        yield f"a contrast is with one other arm: against=({p.against[0] if p.against else 'sft'!r},)"
    if untrained := [arm for arm in asked if arm in UNTRAINED]:
        yield f"arm {untrained[0]!r} is not trained; `{p.test}` is of what training does"
    if p.style not in config.task.styles:
        trained = ", ".join(config.task.styles)
        yield f"style {p.style!r} is not trained on; the model writes answers in {trained}"
    if p.family not in ("words", "answer"):
        yield f"family {p.family!r} is not read at every checkpoint; `{p.test}` is of words or answer"


def _notices(p: Prediction, config: Config) -> Iterator[str]:
    """Why a prediction will be inconclusive, or is about another layer than the one that is trained."""
    if p.arm in UNTRAINED:
        return
    arm = config.arm(p.arm)
    seeds, steps, depth = len(arm.seeds), arm.checkpoint_steps, arm.classifier_layer_pct
    if seeds < p.min_seeds:
        yield f"will be inconclusive: it needs {p.min_seeds} seeds, arm {p.arm} has {seeds}; add seeds"
    elif few_seeds(p, seeds) and p.test != "replication":
        yield (
            f"can never be {_gone(p)}: {seeds} seeds that lack it leave it open whether half of all seeds "
            f"have it; {TRAINED} seeds are needed"
        )
    if p.test == "contrast" and seeds >= p.min_seeds:
        shared = {*arm.seeds}.intersection(*(config.arm(other).seeds for other in p.against))
        if len(shared) < p.min_seeds:
            both = f"{p.arm} and {', '.join(p.against)} share {len(shared)}"
            yield f"will be inconclusive: it needs {p.min_seeds} seeds, arms {both}; give both the same"
    if p.test == "growth" and len(steps) < 3:
        yield f"will be inconclusive: a trend needs three checkpoints, arm {p.arm} has {steps}"
    if p.band == AT_TARGET and math.floor(depth * 100) != math.floor(TARGET_DEPTH * 100):
        yield f"looks at 54 % depth, arm {p.arm} puts its classification term at {depth:.0%}"


def _gone(p: Prediction) -> str:
    """What a claim is where the effect is shown to be negligible."""
    return "supported" if p.absence else "falsified"


def _undecidable(predictions: Sequence[Prediction], config: Config) -> dict[str, list[str]]:
    """For each claim that no data could decide, on one side or the other, the reason, by the claim's id.

    With 5 checkpoints of one seed the smallest p is 0.008, and with 12 tests in the family 0.0008 is needed.
    Every other test is taken to have its smallest p as well, which is the most favourable case. A control is
    adjusted for nothing.
    """
    classes = len(config.task.classes)
    m = permutations(predictions, classes)
    rows = [p for p in predictions if not p.control]
    there = [_smallest_p(p, config, m) for p in rows for _ in range(classes)]
    gone = [_smallest_absent(p, config) for p in rows for _ in range(classes)]
    adjusted = permutation.holm([*there, *gone])
    reasons: dict[str, list[str]] = {}
    for k, p in enumerate(rows):
        i, family = k * classes, 2 * len(there)
        if adjusted[i] >= p.alpha:
            what = "can never be refuted" if p.absence else "will be inconclusive"
            remedy = "split the table" if _orders(p, config) > m else _remedy(p)
            reasons[p.id] = [
                f"{what}: p is {there[i]:.2g} at best, {adjusted[i]:.2g} after Holm over {family} tests, "
                f"not below {p.alpha:g}; {remedy}"
            ]
        elif adjusted[len(there) + i] >= ALPHA and p.test in (
            "classifier",
            "no classifier",
            "replication",
            *CAUSAL,
        ):
            reasons[p.id] = [
                f"can never be {_gone(p)}: {_judged(p, config)} prompts that all hold nothing give p = "
                f"{gone[i]:.2g}, {adjusted[len(there) + i]:.2g} after Holm over {family} tests, not below "
                f"{ALPHA:.2g}; num_test={_needed(p, family)} can"
            ]
    for p in (p for p in predictions if p.control and p.test == "no classifier"):
        if _smallest_absent(p, config) >= ALPHA:
            reasons[p.id] = [
                f"can never be {_gone(p)}: {config.task.num_test} prompts that all hold nothing give p = "
                f"{_smallest_absent(p, config):.2g}, not below {ALPHA:.2g}; num_test={_needed(p, 1)} can"
            ]
    return reasons


def _smallest_absent(p: Prediction, config: Config) -> float:
    """The smallest p of "negligible": that of prompts which all hold nothing; see `intervals.p_at_least`."""
    return float((1 - p.negligible) ** _judged(p, config) / evidence.LIGHTEST)


def _judged(p: Prediction, config: Config) -> int:
    """Prompts of a class on which the claim is judged; streams are exchanged between the first of them."""
    return min(config.task.num_test, plan.PROBLEMS) if p.test in CAUSAL else config.task.num_test


def _needed(p: Prediction, tests: int) -> int:
    """Prompts a class that give so small a p, however many of the `tests` have it."""
    return math.ceil(math.log(ALPHA * evidence.LIGHTEST / tests) / math.log(1 - p.negligible))


def _smallest_p(p: Prediction, config: Config, m: int) -> float:
    """The smallest p of the claim for one class: over `m` permutations, or all orders if those are fewer."""
    return len(p.families) / min(m + 1, _orders(p, config))


def _orders(p: Prediction, config: Config) -> int:
    """In how many ways the labels of the prompts, or the checkpoints of a run, can be ordered."""
    judged, classes = config.task.num_test, len(config.task.classes)
    if p.test == "growth" and p.arm != "base":
        arm = config.arm(p.arm)
        return int(math.factorial(len(arm.checkpoint_steps)) ** len(arm.seeds))
    if p.test in plan.OF_ACCURACY:
        return int(2**judged)
    if p.test == "predicts correctness":
        return math.comb(judged, judged // 2)
    return math.factorial(judged) if p.family == "answer" else math.comb(judged * classes, judged)


def _remedy(p: Prediction) -> str:
    return "add checkpoints or seeds" if p.test == "growth" else "raise num_test"
