"""Studies whose truth is known, made to attack the verdict rules; they share nothing with `synthetic`.

In: what is true (mean masses, the kind of noise, what seeds differ by). Out: a `Case`: a `Study`, and for
each class the `Truth` of the claim "there is a classifier" (or: the class can be decoded across forms).
The noise is of the recorded kind, see `tails`. Prompts about the same operands share a part of it, whatever
their class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from scipy import stats
from scipy.special import ndtri
from tails import NARROW, WIDE, Noise, masses

from emergence.readings.readings import Prompt, Readings, Study

CLASSES = ("add", "subtract", "multiply")
PRESENT, ABSENT = 0.10, 0.05
"""A claim is true where the smallest necessary part is above .10, false below .05, neither in between."""
GLYPH = {"add": "+", "subtract": "-", "multiply": "*"}
WORD = {"add": "plus", "subtract": "minus", "multiply": "times"}
APPLY: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
}
DIGITS, SETS, WIDTH = 10, 6, 24


@dataclass(frozen=True)
class Truth:
    """The population value of the smallest necessary part.

    "Own minus the largest other class" can be read as the mean of what the largest leaves (strict) or as what
    the largest mean leaves (lenient); a contrast can be against the worst or the mean counterfactual. A rule
    may follow either reading: to support is wrong where even the lenient value is at most .10, to falsify
    where even the strict one is at least .05. Example: strict .07, lenient .09: neither verdict may be given.
    """

    strict: float
    lenient: float

    @property
    def supported_is_wrong(self) -> bool:
        return self.lenient <= PRESENT + 1e-9

    @property
    def falsified_is_wrong(self) -> bool:
        return self.strict >= ABSENT - 1e-9


FALSE = Truth(0.0, 0.0)


@dataclass(frozen=True)
class Case:
    """A study and what is true in it, by class, in the population of prompts and seeds."""

    study: Study
    truth: Mapping[str, Truth]
    having: tuple[bool, ...] = ()
    """Which of the seeds have what was planted, where seeds are all or nothing."""


def together(*cases: Case) -> Study:
    """The runs of several arms as one study; their designs differ in arm and seeds alone."""
    return Study(tuple(run for c in cases for run in c.study.runs))


# What is the same in every world ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Design:
    """What is run and read."""

    arm: str = "base"
    seeds: int = 1
    steps: tuple[int, ...] = (0,)
    n: int | Mapping[str, tuple[int, int]] = 60
    """Prompts a class, halves alternating; or of each class by half, such as `{"add": (30, 5), ...}`."""
    styles: tuple[str, ...] = ("symbolic",)
    matched: bool = True
    """Every pair of operands is asked under every class, in the same half. Else sizes tell the class: mostly
    small operands for add, middling for subtract, large for multiply."""
    differ: float = 0.0
    """Relative standard deviation between seeds of the means that are new since step 0."""
    share: float = 1.0
    """Share of all seeds that has what is planted; the others have nothing."""
    rng: tuple[int, ...] = (0,)


BASE = Design()
SFT = Design("sft", 3, (0, 100))


def prompts(design: Design, rng: np.random.Generator) -> tuple[Prompt, ...]:
    """Held-out problems with operands 12 to 99 and 2 to 9, in every style, halves alternating by pair."""
    pairs = np.array([(a, b) for a in range(12, 100) for b in range(2, 10)])
    order = pairs[rng.permutation(len(pairs))]
    out: list[Prompt] = []
    for k, cls in enumerate(CLASSES):
        mine = order if design.matched else _mostly_of_third(order, k, rng)
        n = design.n
        counts = ((n + 1) // 2, n // 2) if isinstance(n, int) else n[cls]
        for half, count in enumerate(counts):
            chosen = mine[half::2][:count].tolist()
            out += [_prompt(cls, a, b, style, half) for a, b in chosen for style in design.styles]
    return tuple(out)


def third(a: np.ndarray) -> np.ndarray:
    """0, 1, 2: whether a first operand is among the small, the middling or the large ones."""
    return np.minimum((a - 12) * 3 // 88, 2)


def _mostly_of_third(order: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    first = rng.random(len(order)) < np.where(third(order[:, 0]) == k, 0.8, 0.1)
    return np.concatenate([order[first], order[~first]])


def _prompt(cls: str, a: int, b: int, style: str, half: int) -> Prompt:
    text = f"{a} {GLYPH[cls]} {b} = " if style == "symbolic" else f"{style}: what is {a} {WORD[cls]} {b} ?"
    values = {
        "text": text, "cls": cls, "a": a, "b": b, "answer": str(APPLY[cls](a, b)), "style": style,
        "half": half, "key": f"{cls} {a} {b}", "label": a % 3, "numbers": (a, b),
    }  # fmt: skip
    known = {f.name for f in fields(Prompt)}
    return Prompt(**{k: v for k, v in values.items() if k in known})


def operands(p: Prompt) -> tuple[int, int]:
    a, b = (int(t) for t in p.text.split() if t.isdigit())
    return a, b


@dataclass(frozen=True)
class World:
    """Prompts, their normal scores `[seed, step, layer, prompt]`, and what each seed has of the effect."""

    design: Design
    prompts: tuple[Prompt, ...]
    cls: np.ndarray
    z: np.ndarray
    factor: np.ndarray
    rng: np.random.Generator

    def levels(self, means: np.ndarray) -> np.ndarray:
        """`[step, layer, class]` to `[seed, step, layer, prompt]`; what is new since step 0 is the seed's."""
        here = means[None][..., self.cls]
        return here[:, :1] + (here - here[:, :1]) * self.factor[:, None, None, None]

    def little(self, columns: int) -> np.ndarray:
        """Masses next to nothing `[seed, step, layer, prompt, column]`, the same in every run at step 0."""
        x = 10 ** self.rng.uniform(-6, -3.5, (*self.z.shape, columns))
        x[:, 0] = x[:1, 0]
        return x


def world(design: Design, layers: int, noise: Noise) -> World:
    """What arms share (prompts, what is the prompts' own, step 0) comes from `design.rng` alone."""
    rng = np.random.default_rng([*design.rng, 17])
    items = prompts(design, rng)
    n = len(items)
    _, pair = np.unique([a * 10 + b for a, b in map(operands, items)], return_inverse=True)
    rest = max(0.0, 1 - noise.pair - noise.prompt - noise.layer)
    z = np.sqrt(noise.pair) * rng.standard_normal(n)[pair] + np.sqrt(noise.prompt) * rng.standard_normal(n)
    z = z + np.sqrt(noise.layer) * rng.standard_normal((layers, n))
    first = rng.standard_normal((layers, n))
    rng = np.random.default_rng([*design.rng, *design.arm.encode()])
    fresh = rng.standard_normal((design.seeds, len(design.steps), layers, n))
    fresh[:, 0] = first
    most = min(3.0, 1 / design.differ) if design.differ else 0.0
    factor = 1 + design.differ * np.clip(rng.standard_normal(design.seeds), -most, most)
    factor *= rng.random(design.seeds) < design.share
    cls = np.array([CLASSES.index(p.cls) for p in items])
    return World(design, items, cls, z + np.sqrt(rest) * fresh, factor, rng)


def study(w: World, **given: np.ndarray) -> Study:
    """Runs of the given masses `[seed, step, layer, prompt, column]`; all others are next to nothing."""
    columns = {"words": len(CLASSES), "glyphs": len(CLASSES), "random_words": SETS, "answers": DIGITS}
    log = {k: np.log(np.clip(given.get(k, w.little(c)), 1e-12, 1)) for k, c in columns.items()}
    seeds, steps, layers, n = shape = w.z.shape
    correct = given.get("correct", np.ones((seeds, steps, n), dtype=bool))
    same = {
        "arm": "sft" if w.design.arm == "base" else w.design.arm,
        "steps": w.design.steps, "prompts": w.prompts, "classes": CLASSES,
        "answer_ids": np.arange(DIGITS) + 400, "own_answer": last_digits(w),
        "first_ids": np.arange(DIGITS) + 400, "own_first": last_digits(w),
        "copied_first": given.get("copied"),
        "hidden": given.get("hidden", np.zeros((layers, n, 2))).astype(np.float32),
        "copied": given.get("copied"), "token_sets": _token_sets(),
        "top_ids": np.zeros((*shape[1:], 1), dtype=np.int64),
        "top_log_probs": np.full((*shape[1:], 1), -1, dtype=np.float32),
        "entropy": np.ones(shape[1:], dtype=np.float32), "kl": np.ones(shape[1:], dtype=np.float32),
    }  # fmt: skip
    runs = [{k: v[s].astype(np.float32) for k, v in log.items()} for s in range(seeds)]
    for s, run in enumerate(runs):
        run |= {"firsts": run["answers"], "exact": correct[s].astype(np.float32)}
        run["anywhere"] = run["words"][:, :, :, None].copy()
        run["anywhere"][1:-1] = np.nan
    return Study(tuple(Readings(seed=s, correct=correct[s], **runs[s], **same) for s in range(seeds)))


def _token_sets() -> dict[str, dict[str, tuple[int, ...]]]:
    named = {"words": CLASSES, "glyphs": CLASSES, "random_words": [f"random {i}" for i in range(SETS)]}
    return {f: {c: (100 * k + i,) for i, c in enumerate(v)} for k, (f, v) in enumerate(named.items(), 1)}


def last_digits(w: World) -> np.ndarray:
    """The answer axis is that of the digits: each prompt's own one is the last digit of its answer."""
    return np.array([int(p.answer[-1]) for p in w.prompts])


# Worlds: words ----------------------------------------------------------------------------------------------


WRONG = np.array([[0.30, 0.01, 0.42], [0.01, 0.30, 0.42], [0.01, 0.42, 0.30]])
"""Mean masses of words that are wrong on every prompt: .30 on the own one, .42 on another."""


def rows(own: float, other: float = 0.0, third: float = 0.0) -> np.ndarray:
    """Mean masses `[class, token]`: on the own word, on that of the next class, on that of the third."""
    return own * np.eye(3) + other * np.roll(np.eye(3), 1, axis=1) + third * np.roll(np.eye(3), 2, axis=1)


def words(
    means: Sequence[np.ndarray], design: Design = BASE, noise: Noise = WIDE, split: str = "shares"
) -> Case:
    """Words as `means` `[layer, class, token]` say; in an arm that is trained, at every step but the first.

    A prompt's mass is divided over the words in fixed shares (`shares`), all lies on one of them (`one
    word`), or each word has a mass of its own (`apart`, for narrow noise only). Truth: the best layer's
    smallest part, times the share of seeds that have it. Example: `rows(.30, .23)` is true of no class: .30
    on the own word is only .07 more than on another (neither); `WRONG` is false of `add`.
    """
    last = np.asarray(means, dtype=float)
    first = last if design.arm == "base" else last * 0
    by_step = np.stack([first, *[last] * (len(design.steps) - 1)])
    w = world(design, len(last), noise)
    if split == "apart":
        z = np.sqrt(0.5) * (w.z[..., None] + w.rng.standard_normal((*w.z.shape[2:], 3)))
        levels = np.stack([w.levels(by_step[..., k]) for k in range(3)], axis=-1)
        given = masses(noise.shape, levels, z)
        given = given / np.maximum(given.sum(axis=-1, keepdims=True), 1)
    else:
        total = masses(noise.shape, w.levels(by_step.sum(axis=-1)), w.z)[..., None]
        parts = (last / np.maximum(last.sum(axis=-1, keepdims=True), 1e-12))[:, w.cls]
        given = total * (_one_of(parts, w) if split == "one word" else parts)
    truth = {c: _truth_of_words(last * design.share, k, split) for k, c in enumerate(CLASSES)}
    return Case(study(w, words=given + w.little(3) / 10), truth, tuple((w.factor > 0).tolist()))


def _one_of(parts: np.ndarray, w: World) -> np.ndarray:
    """1 for one word of each reading, drawn with the probabilities `parts`; 0 for the others."""
    drawn = w.rng.random((*w.z.shape, 1))
    drawn[:, 0] = drawn[:1, 0]
    top = np.cumsum(parts, axis=-1)
    return ((drawn < top) & (drawn >= top - parts)).astype(float)


def _truth_of_words(last: np.ndarray, k: int, split: str) -> Truth:
    rest = [i for i in range(3) if i != k]
    own, others, elsewhere = last[:, k, k], last[:, k][:, rest], last[:, rest][:, :, k]
    largest = others.sum(axis=1) if split == "one word" else others.max(axis=1)
    if split == "apart":
        largest = largest + 0.04  # the larger of two masses of sd .07 is .04 above their mean
    strict = np.minimum(own - largest, own - elsewhere.max(axis=1))
    lenient = np.minimum(own - others.max(axis=1), own - elsewhere.mean(axis=1))
    return Truth(float(strict.max()), float(lenient.max()))


def words_by_size(design: Design, noise: Noise = WIDE) -> Case:
    """Words that say how large the operands are: "add" for small ones, "multiply" for large ones.

    Truth: false of every class: the same operands under another class read the same. Only where sizes differ
    by class (`matched=False`) does it look like a classifier.
    """
    w = world(design, 2, noise)
    of_size = third(np.array([operands(p)[0] for p in w.prompts]))
    total = masses(noise.shape, np.full(w.z.shape, 0.7), w.z)[..., None]
    given = total * np.where(np.arange(3) == of_size[:, None], 0.9, 0.05)
    if design.arm != "base":
        given[:, 0] = w.little(3)[:, 0]
    return Case(study(w, words=given), dict.fromkeys(CLASSES, FALSE))


def lucky_set(mass: float, design: Design = SFT, noise: Noise = WIDE) -> Case:
    """One random set holds `mass` at one layer, whichever the class. Truth: false of every class."""
    w = world(design, 4, noise)
    given = w.little(SETS)
    given[:, :, 1, :, 2] = masses(noise.shape, np.full(w.z[:, :, 1].shape, mass), w.z[:, :, 1])
    return Case(study(w, random_words=given), dict.fromkeys(CLASSES, FALSE))


# Worlds: answers --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Right:
    """Which answers are right: their share, and how it goes with the mass (correlation of normal scores)."""

    share: float = 1.0
    correlation: float = 0.0

    def drawn(self, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Right or not, for prompts whose mass has the normal scores `z`."""
        score = self.correlation * z + np.sqrt(1 - self.correlation**2) * rng.standard_normal(z.shape)
        return np.asarray(score > ndtri(1 - self.share)) if self.share < 1 else np.ones(z.shape, dtype=bool)

    @property
    def auroc(self) -> float:
        """How well the mass tells right from wrong, in the population."""
        rng = np.random.default_rng(5)
        z = rng.standard_normal(200_000)
        right = self.drawn(z, rng)
        return float(stats.mannwhitneyu(z[right], z[~right]).statistic / (right.sum() * (~right).sum()))


CERTAIN = Right()


def answers(
    own: Sequence[Sequence[float]],
    design: Design = SFT,
    noise: Noise = WIDE,
    bias: float = 0.0,
    right: Right = CERTAIN,
) -> Case:
    """The right last digit holds `own` `[step, layer]`; of the rest, `bias` lies on the digits 0 to 3 alike.

    Truth: what is new since step 0 at the best layer (in the base model: what is there), times the share of
    seeds. A preference for digits earns nothing: `own` 0 is false whatever the bias. Growth and correctness
    have truths of their own: `slope(own)`, `right.auroc`.
    """
    means = np.repeat(np.asarray(own, dtype=float)[..., None], 3, axis=-1)
    w = world(design, means.shape[1], noise)
    mass = masses(noise.shape, w.levels(means), w.z)
    given = (1 - mass[..., None]) * (np.where(np.arange(DIGITS) < 4, bias / 4, 0.0) + 1e-5)
    digit = last_digits(w)
    given[..., np.arange(len(digit)), digit] += mass
    correct = right.drawn(w.z[:, :, means[-1, :, 0].argmax()], w.rng)
    correct[:, 0] = correct[:1, 0]
    gained = means[-1] - (0 if design.arm == "base" else means[0])
    most = float(gained.max()) * design.share
    truth = dict.fromkeys(CLASSES, Truth(most - bias / 4, most))
    return Case(
        study(w, answers=np.minimum(given, 1), correct=correct), truth, tuple((w.factor > 0).tolist())
    )


def slope(own: Sequence[float], steps: Sequence[int]) -> float:
    """True least-squares slope of a mean mass, per 100 steps."""
    return float(100 * np.polyfit(steps, own, 1)[0])


def avoided_digits(mass: float, design: Design = BASE, noise: Noise = NARROW) -> Case:
    """A layer spreads `mass` evenly over the digits that do not stand in the prompt.

    Problems whose answer's digit does stand there are left out as copying. Truth: false of every class: the
    right digit holds no more than any other that is not in the prompt.
    """
    w = world(design, 3, noise)
    free = np.array([[str(d) not in p.text for d in range(DIGITS)] for p in w.prompts])
    total = masses(noise.shape, np.full(w.z.shape, mass), w.z)[..., None]
    given = total * free / free.sum(axis=1, keepdims=True) + 1e-6
    copied = ~free[np.arange(len(free)), last_digits(w)]
    return Case(study(w, answers=given, copied=copied), dict.fromkeys(CLASSES, FALSE))


# Worlds: streams --------------------------------------------------------------------------------------------


def streams(code: str, design: Design = BASE, strength: float = 3.0) -> Case:
    """Streams that hold the class in any form (`class`), the tokens of the prompt (`form`), or operands.

    `form` is what a network of permuted weights passes on: the glyph in one style, the word in another.
    Truth of "the class can be decoded across forms": `class` true; `form` and `operands` false.
    """
    w = world(design, 4, NARROW)
    form = np.array([design.styles.index(p.style) for p in w.prompts])
    codes = w.rng.standard_normal((len(design.styles), 3, WIDTH))
    of_prompt = {"class": codes[0, w.cls], "form": codes[form, w.cls], "operands": np.zeros((1, WIDTH))}[code]
    numbers = w.rng.standard_normal((2, 100, WIDTH))
    a, b = np.array([operands(p) for p in w.prompts]).T
    hidden = w.rng.standard_normal((4, len(form), WIDTH)) + numbers[0, a] + numbers[1, b]
    truth = Truth(1.0, 1.0) if code == "class" else FALSE
    return Case(study(w, hidden=hidden + strength * of_prompt), dict.fromkeys(CLASSES, truth))
