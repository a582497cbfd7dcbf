"""Linear probes on the base model's residual streams: is the class there, in whatever form it is asked for.

In: `Readings.hidden` of step 0. Out: accuracies per layer, each beside that of a control task (Hewitt & Liang
2019, arXiv:1909.03368): classes given at random to the first operand, the same one in training and test. A
probe that learns those by heart has a large capacity and shows nothing; selectivity is what the real task has
over that. A probe is trained on the selection half of one form (`3 + 4 =`) and judged on the evaluation half
of the other forms (`What is 3 plus 4?`): in one form every network has the class, for the prompt says it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from ..readings.readings import EVALUATION, SELECTION, Prompt, Readings
from . import intervals, permutation

STRENGTH = 0.1
"""Inverse L2 penalty, on standardised features; fixed beforehand."""
CONTROLS = 4
"""Control tasks averaged."""
FOLDS = 3
"""Of the cross-validation that chooses a layer; a class needs as many prompts in the selection half."""
_SEED = 1909


@dataclass(frozen=True)
class Probes:
    """Probes of one base model and one style, fitted once at each layer; they serve every class."""

    readings: Readings
    style: str
    layers: tuple[int, ...]
    train_truth: Int[np.ndarray, " train"]
    """Index into `readings.classes`, on the selection half."""
    train_predicted: Int[np.ndarray, "layer train"]
    """What each prompt of the selection half is taken for by a probe trained on the rest of that half."""
    truth: Int[np.ndarray, " test"]
    """Index into `readings.classes`, of the evaluation half in the other forms."""
    predicted: Int[np.ndarray, "layer test"]
    """What each of these is taken for by the probe of the selection half."""
    problem: Int[np.ndarray, " test"]
    """A number for each problem: what is asked in two forms is one, and counts once."""
    form: tuple[str, ...]
    """The style of each of these."""
    control_hits: Float[np.ndarray, "layer test"]
    """Share of the control tasks whose label is read right; chance is 1 / classes."""
    own_form: Float[np.ndarray, " layer"]
    """Share that is right on the evaluation half in the form that was trained on."""

    def confusion(self, index: int) -> Int[np.ndarray, "class class"]:
        """Confusion table [true, read] of the probe at `layers[index]`, in the other forms."""
        classes = len(self.readings.classes)
        table = np.zeros((classes, classes), dtype=np.int64)
        np.add.at(table, (self.truth, self.predicted[index]), 1)
        return table


@dataclass(frozen=True)
class ProbeEvidence:
    """What the probes of one band say about one class, on the evaluation half of the other forms."""

    layers: tuple[int, ...]
    chosen: int
    """Index into `layers`, by cross-validation within the selection half."""
    selectivity: intervals.Interval
    """Per layer: balanced accuracy (this class or another) minus that of the control tasks; best 0.5."""
    accuracy: Float[np.ndarray, " layer"]
    """Balanced accuracy, one class against the rest; chance 0.5."""
    control: Float[np.ndarray, " layer"]
    """The control tasks' accuracy, put on the same scale (chance 0.5, best 1)."""
    p: float
    """Permutation p of the accuracy at the chosen layer."""
    n: int
    """Problems of the class that it was judged on."""
    unseen: dict[str, float]
    """Balanced accuracy at the chosen layer on operands, or a style, that the probe has never seen."""


def rotated(
    x: Float[np.ndarray, "train hidden"], new: Float[np.ndarray, "test hidden"]
) -> tuple[Float[np.ndarray, "train k"], Float[np.ndarray, "test k"]]:
    """Both standardised by `x`, in the coordinates that the rows of `x` span.

    An L2-penalised regression has its solution in that span: nothing changes but the time it takes.
    """
    spread = x.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    a, b = (x - x.mean(axis=0)) / scale, (new - x.mean(axis=0)) / scale
    if a.shape[1] > a.shape[0]:
        basis = np.linalg.svd(a, full_matrices=False)[2]
        a, b = a @ basis.T, b @ basis.T
    return a, b


def fit(
    x: Float[np.ndarray, "train k"], y: Int[np.ndarray, " train"], new: Float[np.ndarray, "test k"]
) -> Int[np.ndarray, " test"]:
    """Train a logistic probe on `x`, and say what it makes of `new`."""
    if len(np.unique(y)) < 2:
        return np.full(len(new), y[0])
    from sklearn.exceptions import ConvergenceWarning  # a second of imports: only where a probe is trained
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=STRENGTH, tol=1e-3, max_iter=300)
    with warnings.catch_warnings():
        # A probe that is stopped early is a weaker probe, no error.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(model.fit(x, y).predict(new))


def has_control(prompts: Sequence[Prompt]) -> bool:
    """Whether there is a control task: prompts of one's own have no operands to give labels to."""
    return bool(prompts) and all(p.label is not None for p in prompts)


def control_types(prompts: Sequence[Prompt]) -> Int[np.ndarray, " prompt"]:
    """What a control task gives its labels to: the first operand, or its leading digit if few recur.

    Raises `ValueError` where a prompt has no label: see `has_control`.
    """
    labels = [p.label for p in prompts if p.label is not None]
    if len(labels) < len(prompts):
        raise ValueError(f"{len(prompts) - len(labels)} prompts have no control label")
    train = {label for label, p in zip(labels, prompts, strict=True) if p.half == 0}
    test = [label for label, p in zip(labels, prompts, strict=True) if p.half == 1]
    recur = sum(label in train for label in test) >= len(test) / 3
    return np.array([label if recur else int(str(abs(label))[0]) for label in labels])


def control_labels(types: Int[np.ndarray, " prompt"], classes: int, index: int) -> Int[np.ndarray, " prompt"]:
    """Hewitt & Liang's control task: to each type a class at random, the same in training and test."""
    rng = np.random.default_rng([_SEED, index])
    known = np.unique(types)
    # Each class goes to as many types as the others: labels that are all the same would be no task.
    labels = rng.permutation(len(known)) % classes
    return np.asarray(labels[np.searchsorted(known, types)])


def other_forms(prompts: Sequence[Prompt], style: str) -> tuple[str, ...]:
    """The styles that a probe trained on `style` is judged in."""
    return tuple(dict.fromkeys(p.style for p in prompts if p.style != style and p.half == EVALUATION))


def fit_all(readings: Readings, style: str, layers: Sequence[int]) -> Probes:
    """Fit the probes and their control tasks at each layer.

    `readings` are of one run; raises ValueError where a class has fewer than `FOLDS` prompts in the selection
    half.
    """
    prompts = readings.prompts
    train, own = (_index(prompts, style, half) for half in (SELECTION, EVALUATION))
    test = [i for other in other_forms(prompts, style) for i in _index(prompts, other, EVALUATION)]
    index = [*train, *own, *test]
    truth, types = _truth(readings, index), control_types([prompts[i] for i in index])
    tasks = [truth, *(control_labels(types, len(readings.classes), i) for i in range(CONTROLS))]
    trained = np.arange(len(index)) < len(train)
    streams = [readings.hidden[layer, index].astype(float) for layer in layers]
    predicted = np.stack([_predict_tasks(x, tasks, trained) for x in streams])
    hits, k = _control_hits(predicted[:, 1:], tasks[1:], types, trained), len(own)
    judged = truth[len(train) :]
    return Probes(
        readings=readings,
        style=style,
        layers=tuple(layers),
        train_truth=truth[trained],
        train_predicted=np.stack([_cross_validated(x[trained], truth[trained]) for x in streams]),
        truth=judged[k:],
        predicted=predicted[:, 0, k:],
        problem=np.unique([f"{prompts[i].cls} {prompts[i].key}" for i in test], return_inverse=True)[1],
        form=tuple(prompts[i].style for i in test),
        control_hits=hits[:, k:],
        own_form=(predicted[:, 0, :k] == judged[:k]).mean(axis=1),
    )


def evaluate(probes: Probes, cls: str, permutations: int = permutation.PERMUTATIONS) -> ProbeEvidence:
    """The evidence that the probes give for one class; its p comes from so many permutations."""
    classes = probes.readings.classes
    k, n = classes.index(cls), len(classes)
    # A problem that is asked in several forms counts once: its forms are averaged.
    read, truth, hits = _by_problem(probes, probes.predicted == k)
    truth = truth == k
    right = np.where(truth, read, 1 - read)
    # Chance of the control accuracy is 1 / classes: put it on the scale of a balanced accuracy.
    control = 0.5 + 0.5 * (n * hits - 1) / (n - 1)
    strata = [(0.5 * right - share * control)[:, w].T[None] for share, w in _shares(truth)]
    chosen = int(_balanced(probes.train_predicted == k, probes.train_truth == k).argmax())
    return ProbeEvidence(
        layers=probes.layers,
        chosen=chosen,
        selectivity=intervals.bootstrap(*strata),
        accuracy=_balanced(read, truth),
        control=control.mean(axis=1),
        p=_chance(read[chosen], truth, permutations),
        n=int(truth.sum()),
        unseen=_unseen(probes, k, chosen),
    )


def _by_problem(
    probes: Probes, read: Bool[np.ndarray, "layer test"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share of its forms that are read as the class, truth and control hits, one a problem."""
    sums = np.eye(probes.problem.max() + 1)[probes.problem]
    count = sums.sum(axis=0)
    return (
        read @ sums / count,
        (probes.truth @ sums / count).round().astype(int),
        probes.control_hits @ sums / count,
    )


def _index(prompts: Sequence[Prompt], style: str, *halves: int) -> list[int]:
    return [i for i, p in enumerate(prompts) if p.style == style and p.half in halves]


def _truth(readings: Readings, index: Sequence[int]) -> Int[np.ndarray, " n"]:
    return np.array([readings.classes.index(readings.prompts[i].cls) for i in index], dtype=np.int64)


def _predict_tasks(
    x: Float[np.ndarray, "prompt hidden"], tasks: Sequence[np.ndarray], train: Bool[np.ndarray, " prompt"]
) -> Int[np.ndarray, "task test"]:
    a, b = rotated(x[train], x[~train])
    return np.stack([fit(a, labels[train], b) for labels in tasks])


def _control_hits(
    predicted: Int[np.ndarray, "layer task test"],
    tasks: Sequence[np.ndarray],
    types: Int[np.ndarray, " prompt"],
    train: Bool[np.ndarray, " prompt"],
) -> Float[np.ndarray, "layer test"]:
    """Share of the control tasks whose label is read right, for each prompt of the evaluation half."""
    hits = np.mean([predicted[:, i] == labels[~train] for i, labels in enumerate(tasks)], axis=0)
    seen = np.isin(types[~train], types[train])
    if seen.any():
        # An operand that training has not seen cannot be known by heart: it counts as the others do.
        hits[:, ~seen] = hits[:, seen].mean(axis=1, keepdims=True)
    return np.asarray(hits)


def _cross_validated(
    x: Float[np.ndarray, "train hidden"], y: Int[np.ndarray, " train"]
) -> Int[np.ndarray, " train"]:
    """What each prompt is taken for by a probe trained on the prompts of the other folds."""
    from sklearn.model_selection import StratifiedKFold

    predicted = np.empty(len(y), dtype=np.int64)
    for train, held in StratifiedKFold(FOLDS, shuffle=True, random_state=_SEED).split(x, y):
        a, b = rotated(x[train], x[held])
        predicted[held] = fit(a, y[train], b)
    return predicted


def _unseen(probes: Probes, k: int, chosen: int) -> dict[str, float]:
    """Balanced accuracy on held-out operands, and on each held-out style.

    For operands the probe is trained anew: no number of a test problem is in a training problem.
    """
    readings, prompts, scores = probes.readings, probes.readings.prompts, {}
    train, test = _unseen_operands(prompts, _index(prompts, probes.style, SELECTION, EVALUATION))
    known, truth = _truth(readings, train), _truth(readings, test)
    if _enough(known) and _enough(truth):
        streams = readings.hidden[probes.layers[chosen]]
        a, b = rotated(*(streams[index].astype(float) for index in (train, test)))
        scores["operands"] = _right(fit(a, known, b), truth, k)
    for style in dict.fromkeys(probes.form):
        here = np.array(probes.form) == style
        scores[style] = _right(probes.predicted[chosen, here], probes.truth[here], k)
    return scores


def _right(predicted: Int[np.ndarray, " n"], truth: Int[np.ndarray, " n"], k: int) -> float:
    return float(_balanced((predicted == k)[None], truth == k)[0])


def _unseen_operands(prompts: Sequence[Prompt], index: Sequence[int]) -> tuple[list[int], list[int]]:
    """Problems of half of all numbers, and problems of the other half; those that mix them are in neither."""
    operands = {i: set(prompts[i].numbers) for i in index if prompts[i].numbers}
    numbers = sorted(set().union(*operands.values()))
    half = set(np.random.default_rng(_SEED).permutation(numbers)[: len(numbers) // 2].tolist())
    return [i for i, n in operands.items() if n <= half], [i for i, n in operands.items() if not n & half]


def _enough(y: Int[np.ndarray, " n"]) -> bool:
    return len(y) > 0 and bool(np.bincount(y)[np.unique(y)].min() >= 3) and len(np.unique(y)) > 1


def _shares(truth: Bool[np.ndarray, " n"]) -> list[tuple[float, Bool[np.ndarray, " n"]]]:
    """The two strata of a balanced accuracy, and the share of all prompts that is in each."""
    return [(float(w.mean()), w) for w in (truth, ~truth)]


def _balanced(
    read: Float[np.ndarray, "layer n"] | Bool[np.ndarray, "layer n"], truth: Bool[np.ndarray, " n"]
) -> Float[np.ndarray, " layer"]:
    return np.asarray((read[:, truth].mean(axis=1) + (1 - read[:, ~truth]).mean(axis=1)) / 2)


def _chance(read: Float[np.ndarray, " n"], truth: Bool[np.ndarray, " n"], permutations: int) -> float:
    """P over permuted labels of the problems judged; the probe and what it said stay as they are."""
    shuffled = truth[permutation.permutations(len(truth), permutations)]
    null = shuffled @ read
    return float(((null >= truth @ read - 1e-9).sum() + 1) / (len(null) + 1))
