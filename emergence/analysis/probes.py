"""Linear probes on the base model's residual streams: is the class there, although no word says so.

In: `Readings.hidden` of step 0. Out: accuracies per layer, each beside that of a control task (Hewitt & Liang
2019, arXiv:1909.03368): classes given at random to the first operand, the same one in training and test. A
probe that learns those by heart is a clever probe, not a telling one; selectivity is what the real task has
over that. Probes are trained on the selection half and judged on the evaluation half: no problem is in both.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from ..readings.readings import Prompt, Readings
from . import permutation

STRENGTH = 0.1
"""Inverse L2 penalty, on standardised features; fixed beforehand."""
CONTROLS = 4
"""Control tasks averaged."""
FOLDS = 3
_SEED = 1909


@dataclass(frozen=True)
class Probe:
    """Probes of one band, judged on the evaluation half of one style, for one class."""

    layers: tuple[int, ...]
    chosen: int
    """Index into `layers`, by cross-validation within the selection half."""
    selectivity: permutation.Interval
    """Per layer: balanced accuracy (this class or another) minus that of the control tasks; best 0.5."""
    accuracy: Float[np.ndarray, " layer"]
    """Balanced accuracy, one class against the rest; chance 0.5."""
    control: Float[np.ndarray, " layer"]
    """The control tasks' accuracy, put on the same scale (chance 0.5, best 1)."""
    p: float
    """Permutation p of the accuracy at the chosen layer."""
    n: int
    """Prompts of the class that it was judged on."""
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
    model = LogisticRegression(C=STRENGTH, tol=1e-3, max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # a probe stopped early is a weaker probe, no error
        return np.asarray(model.fit(x, y).predict(new))


def has_control(prompts: Sequence[Prompt]) -> bool:
    """Whether there is a control task: prompts of one's own have no operands to give labels to."""
    return any(p.a or p.b for p in prompts)


def control_types(prompts: Sequence[Prompt]) -> Int[np.ndarray, " prompt"]:
    """What a control task gives its labels to: the first operand, or its leading digit if few recur."""
    train = {p.a for p in prompts if p.half == 0}
    test = [p.a for p in prompts if p.half == 1]
    recur = sum(a in train for a in test) >= len(test) / 3
    return np.array([p.a if recur else int(str(abs(p.a))[0]) for p in prompts])


def control_labels(types: Int[np.ndarray, " prompt"], classes: int, index: int) -> Int[np.ndarray, " prompt"]:
    """Hewitt & Liang's control task: to each type a class at random, the same in training and test."""
    rng = np.random.default_rng([_SEED, index])
    known = np.unique(types)
    given = rng.permutation(len(known)) % classes  # each class to as many types: never constant
    return np.asarray(given[np.searchsorted(known, types)])


class Bench:
    """All probes of one base model and one style; the same fits serve every class."""

    def __init__(
        self,
        readings: Readings,
        style: str,
        layers: Sequence[int],
        permutations: int = permutation.PERMUTATIONS,
    ) -> None:
        self._all = readings
        self._permutations = permutations
        self.layers = tuple(layers)
        self.style = style
        usable = [i for i, p in enumerate(readings.prompts) if p.style == style and p.half in (0, 1)]
        self._prompts = [readings.prompts[i] for i in usable]
        self._x = readings.hidden[:, usable].astype(float)
        self._y = self._labels(self._prompts)
        self._train = np.array([p.half == 0 for p in self._prompts], dtype=bool)
        test, classes, types = ~self._train, len(readings.classes), control_types(self._prompts)
        tasks = [self._y, *(control_labels(types, classes, i) for i in range(CONTROLS))]
        read = np.stack([self._judge(layer, tasks) for layer in self.layers])
        self._predicted = read[:, 0]
        hits = np.mean([read[:, i] == tasks[i][test] for i in range(1, len(tasks))], axis=0)
        seen = np.isin(types[test], types[self._train])
        if (
            seen.any()
        ):  # an operand that training has not seen cannot be known by heart: it counts as the others do
            hits[:, ~seen] = hits[:, seen].mean(axis=1, keepdims=True)
        self._control_hits = hits
        self._selection = np.stack([self._cross_validated(layer) for layer in self.layers])

    def _labels(self, prompts: Sequence[Prompt]) -> Int[np.ndarray, " prompt"]:
        return np.array([self._all.classes.index(p.cls) for p in prompts])

    def _judge(self, layer: int, tasks: Sequence[np.ndarray]) -> Int[np.ndarray, "task test"]:
        a, b = rotated(self._x[layer][self._train], self._x[layer][~self._train])
        return np.stack([fit(a, y[self._train], b) for y in tasks])

    def _cross_validated(self, layer: int) -> Int[np.ndarray, " train"]:
        """What each prompt of the selection half is taken for by a probe trained on the rest of that half."""
        x, y = self._x[layer][self._train], self._y[self._train]
        out = np.empty(len(y), dtype=np.int64)
        for train, held in StratifiedKFold(FOLDS, shuffle=True, random_state=_SEED).split(x, y):
            a, b = rotated(x[train], x[held])
            out[held] = fit(a, y[train], b)
        return out

    def probe(self, cls: str) -> Probe:
        """The probes' evidence for one class."""
        k = self._all.classes.index(cls)
        truth = self._y[~self._train] == k
        hits = (self._predicted == k) == truth
        # Chance of the control accuracy is 1 / classes: put it on the scale of a balanced accuracy.
        n = len(self._all.classes)
        control = 0.5 + 0.5 * (n * self._control_hits - 1) / (n - 1)
        strata = [(0.5 * hits - share * control)[:, w].T[None] for share, w in _shares(truth)]
        chosen = int(_balanced(self._selection == k, self._y[self._train] == k).argmax())
        return Probe(
            layers=self.layers,
            chosen=chosen,
            selectivity=permutation.bootstrap(*strata),
            accuracy=_balanced(self._predicted == k, truth),
            control=control.mean(axis=1),
            p=_chance(self._predicted[chosen] == k, truth, self._permutations),
            n=int(truth.sum()),
            unseen=self._unseen(k, self.layers[chosen]),
        )

    def confusion(self, index: int) -> Int[np.ndarray, "class class"]:
        """Confusion table [true, read] of the probe at `layers[index]`, on the evaluation half."""
        classes = len(self._all.classes)
        table = np.zeros((classes, classes), dtype=np.int64)
        np.add.at(table, (self._y[~self._train], self._predicted[index]), 1)
        return table

    def _unseen(self, k: int, layer: int) -> dict[str, float]:
        """Held-out operands (no number of a test problem is in a training problem), and held-out styles."""
        found = {}
        numbers = sorted({n for p in self._prompts for n in (p.a, p.b)})
        low = set(np.random.default_rng(_SEED).permutation(numbers)[: len(numbers) // 2].tolist())
        train = np.array([p.a in low and p.b in low for p in self._prompts])
        test = np.array([p.a not in low and p.b not in low for p in self._prompts])
        if _enough(self._y[train]) and _enough(self._y[test]):
            x = self._x[layer]
            a, b = rotated(x[train], x[test])
            found["operands"] = _score(fit(a, self._y[train], b), self._y[test], k)
        for style in dict.fromkeys(p.style for p in self._all.prompts if p.style != self.style):
            other = [i for i, p in enumerate(self._all.prompts) if p.style == style and p.half == 1]
            if other:
                y = self._labels([self._all.prompts[i] for i in other])
                x = self._x[layer][self._train]
                a, b = rotated(x, self._all.hidden[layer, other].astype(float))
                found[style] = _score(fit(a, self._y[self._train], b), y, k)
        return found


def _enough(y: Int[np.ndarray, " n"]) -> bool:
    return len(y) > 0 and bool(np.bincount(y)[np.unique(y)].min() >= 3) and len(np.unique(y)) > 1


def _score(read: Int[np.ndarray, " n"], truth: Int[np.ndarray, " n"], k: int) -> float:
    return float(_balanced((read == k)[None], truth == k)[0])


def _shares(truth: Bool[np.ndarray, " n"]) -> list[tuple[float, Bool[np.ndarray, " n"]]]:
    """The two strata of a balanced accuracy, and the share of all prompts that is in each."""
    return [(float(w.mean()), w) for w in (truth, ~truth)]


def _balanced(
    read: Bool[np.ndarray, "layer n"], truth: Bool[np.ndarray, " n"]
) -> Float[np.ndarray, " layer"]:
    return np.asarray((read[:, truth].mean(axis=1) + (~read[:, ~truth]).mean(axis=1)) / 2)


def _chance(read: Bool[np.ndarray, " n"], truth: Bool[np.ndarray, " n"], permutations: int) -> float:
    """P over permuted labels of the evaluation half; the probe and what it said stay as they are."""
    shuffled = truth[permutation.permutations(len(truth), permutations)]
    null = (shuffled & read).sum(axis=1)
    return float(((null >= (truth & read).sum()).sum() + 1) / (len(null) + 1))
