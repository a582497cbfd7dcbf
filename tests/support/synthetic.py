"""Simulated `Readings` and `Study` with a truth that is known: planted mass, bias, copying, seed noise.

`study(Plant("sft", "answer", layer=9, mass=0.4))` is a study in which exactly that holds. What is not planted
is background: every token set holds about 0.1 % of the probability, whichever the prompt. The only simulator
of readings, and the only place where the tests make a `Prompt` of an arithmetic problem.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, ndtr

from emergence.readings.readings import Prompt, Readings, Study

OPERATIONS = ("add", "subtract", "multiply")
SYMBOL = {"add": "+", "subtract": "-", "multiply": "*"}
WORD = {"add": "plus", "subtract": "minus", "multiply": "times"}
APPLY = {"add": lambda a, b: a + b, "subtract": lambda a, b: a - b, "multiply": lambda a, b: a * b}
ARMS = {"sft": 3, "shuffled": 1, "classified": 2}
STEPS = (0, 50, 100, 200)
BACKGROUND = 1e-3
OTHER_TOKENS = 6
"""Ids below this are likeliest tokens that are no answer; an answer's id is `ord` of its first character."""


@dataclass(frozen=True)
class Plant:
    """One truth about an arm: `family` holds `mass` at `layer` from checkpoint `from_step` on."""

    arm: str
    """An arm's name; `base` plants it in step 0 and all after, in every arm."""
    family: str
    """`words`, `glyphs`, `answer`, `random_words`, or `hidden` (a linear code of size `mass`)."""
    layer: int
    mass: float = 0.4
    selective: bool = True
    """False plants a *bias*: the same mass whichever the prompt."""
    operations: tuple[str, ...] = OPERATIONS
    styles: tuple[str, ...] = ("symbolic", "worded")
    from_step: int = 1
    """Index into `steps`."""
    grows: bool = False
    """Rises in proportion to the step, up to `mass` at the last one."""
    seeds: tuple[int, ...] | None = None
    """Only these seeds have it; None: all."""


def prompt(operation: str, a: int, b: int, style: str, half: int, text: str = "") -> Prompt:
    """A problem as a prompt; `text` in place of the style's own words. `half` -1 is only shown."""
    symbolic = f"{a} {SYMBOL[operation]} {b} = "
    text = text or (symbolic if style == "symbolic" else f"What is {a} {WORD[operation]} {b}? ")
    answer, key = str(APPLY[operation](a, b)), f"{a} {SYMBOL[operation]} {b}"
    return Prompt(text, operation, answer, style, half, key, a, (a, b))


def prompts(
    per_class: int = 60, styles=("symbolic", "worded"), operations=OPERATIONS, seed: int = 0
) -> tuple[Prompt, ...]:
    """`per_class` distinct problems a class, each in every style, halves alternating by problem."""
    rng = np.random.default_rng(seed)
    out = []
    for op in operations:
        pairs = [(a, b) for a in range(2, 60) for b in range(2, a + 1)]
        chosen = [pairs[i] for i in rng.permutation(len(pairs))[:per_class]]
        out += [prompt(op, a, b, style, i % 2) for i, (a, b) in enumerate(chosen) for style in styles]
    return tuple(out)


def _beta(mean: np.ndarray, sd: float, z: np.ndarray) -> np.ndarray:
    """Beta variates with this mean and standard deviation (or the largest one that the mean allows)."""
    mean = np.clip(mean, 1e-4, 1 - 1e-4)
    size = np.maximum(mean * (1 - mean) / max(sd, 1e-9) ** 2 - 1, 0.2)
    return betaincinv(mean * size, (1 - mean) * size, ndtr(z))


@dataclass(frozen=True)
class _World:
    """What all runs share: prompts and the prompts' own effects."""

    prompts: tuple[Prompt, ...]
    operations: tuple[str, ...]
    steps: tuple[int, ...]
    n_layers: int
    prompt_sd: float
    seed_sd: float
    wobble: float
    walk: bool
    shared: float
    """Share of the prompt noise (as a correlation) that all seeds have in common."""
    effect: np.ndarray
    answer_ids: np.ndarray
    own: np.ndarray
    copied: np.ndarray | None
    copied_first: np.ndarray | None


def _masks(world: _World, plant: Plant) -> np.ndarray:
    return np.array([p.cls in plant.operations and p.style in plant.styles for p in world.prompts])


def _amounts(world: _World, plant: Plant, rng: np.random.Generator, seed_z: float) -> np.ndarray:
    """Mass that the plant puts at its layer, [step prompt]: 0 before it begins."""
    n = len(world.prompts)
    z = np.sqrt(world.shared) * world.effect + np.sqrt(1 - world.shared) * rng.standard_normal(n)
    z = z + np.zeros((len(world.steps), 1))
    level = np.full((len(world.steps), 1), plant.mass + world.seed_sd * seed_z)
    if plant.grows:
        level = level * (np.array(world.steps) / max(world.steps[-1], 1))[:, None]
    noise = world.wobble * rng.standard_normal((len(world.steps), 1))
    level[1:] += np.cumsum(noise, axis=0)[1:] if world.walk else noise[1:]
    amount = _beta(level, world.prompt_sd, z) * _masks(world, plant)
    first = 0 if plant.arm == "base" else plant.from_step
    amount[:first] = 0.0
    return amount


def _apply(world: _World, plant: Plant, arrays: dict[str, np.ndarray], amount: np.ndarray) -> None:
    target = arrays[plant.family]
    everyone = np.arange(len(world.prompts))
    if plant.family == "answer":
        frequency = np.bincount(world.own, minlength=len(world.answer_ids)) / len(world.own)
        columns = [(world.own, 1.0)] if plant.selective else [(k, f) for k, f in enumerate(frequency)]
    else:
        where = np.array([world.operations.index(p.cls) for p in world.prompts])
        share = 1.0 / target.shape[-1]
        columns = [(where, 1.0)] if plant.selective else [(k, share) for k in range(target.shape[-1])]
    for column, share in columns:
        target[:, plant.layer, everyone, column] += amount * share


def _run(
    world: _World, arm: str, seed: int, plants: tuple[Plant, ...], hidden: np.ndarray, rng_seed: int
) -> Readings:
    rng = np.random.default_rng([rng_seed, *arm.encode(), seed])
    n, s, layers = len(world.prompts), len(world.steps), world.n_layers
    widths = {
        "words": len(world.operations),
        "glyphs": len(world.operations),
        "random_words": 6,
        "answer": len(world.answer_ids),
    }
    arrays = {
        k: BACKGROUND * np.exp(0.5 * rng.standard_normal((s, layers, n, w), dtype=np.float32).astype(float))
        for k, w in widths.items()
    }
    for a in arrays.values():  # step 0 is the base model: the same in every run
        base = np.random.default_rng([rng_seed, a.shape[-1]])
        a[0] = BACKGROUND * np.exp(0.5 * base.standard_normal(a.shape[1:]))
    best = np.zeros((s, n))
    for i, plant in enumerate(plants):
        if (
            plant.family == "hidden"
            or plant.arm not in (arm, "base")
            or (plant.seeds and seed not in plant.seeds)
        ):
            continue
        source = np.random.default_rng([rng_seed, 77, i]) if plant.arm == "base" and not world.wobble else rng
        amount = _amounts(world, plant, source, source.standard_normal())
        _apply(world, plant, arrays, amount)
        if plant.family == "answer" and plant.selective:
            best = np.maximum(best, amount)
    chance = 0.1 + 0.8 * best / np.maximum(best.max(), 0.3)
    correct = rng.random((s, n)) < chance
    correct[0] = np.random.default_rng([rng_seed, 5]).random(n) < chance[0]
    log = {k: np.log(np.minimum(v, 1.0)).astype(np.float32) for k, v in arrays.items()}
    top_ids, top_log_probs, entropy, kl = _likeliest(
        world, np.random.default_rng([rng_seed, 9, *arm.encode(), seed])
    )
    return Readings(
        arm=arm, seed=seed, steps=world.steps, prompts=world.prompts, classes=world.operations,
        words=log["words"], glyphs=log["glyphs"], random_words=log["random_words"], answers=log["answer"],
        answer_ids=world.answer_ids, own_answer=world.own, top_ids=top_ids, top_log_probs=top_log_probs,
        entropy=entropy, kl=kl, correct=correct, hidden=hidden, copied=world.copied,
        firsts=log["answer"][..., ::-1], first_ids=world.answer_ids[::-1],
        own_first=len(world.answer_ids) - 1 - world.own, copied_first=world.copied_first,
        exact=_asked(world, correct), anywhere=_asked(world, log["words"][:, :, :, None], axis=2),
        token_sets={
            "words": {op: (100 + 2 * i, 101 + 2 * i) for i, op in enumerate(world.operations)},
            "glyphs": {op: (200 + i,) for i, op in enumerate(world.operations)},
            "random_words": {f"random {i}": (300 + 2 * i, 301 + 2 * i) for i in range(6)},
        },
    )  # fmt: skip


def _asked(world: _World, values: np.ndarray, axis: int = 1) -> np.ndarray:
    """The values of what is only read at the first and last step, in the style that is trained on."""
    found = values.astype(np.float32)
    found[1:-1] = np.nan
    untrained = np.array([p.style != "symbolic" for p in world.prompts])
    found[(slice(None),) * axis + (untrained,)] = np.nan
    return found


def _likeliest(world: _World, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """What no verdict asks for: the five likeliest tokens and their log-probabilities, entropy, KL."""
    shape = (len(world.steps), world.n_layers, len(world.prompts))
    ids = rng.choice(np.concatenate([np.arange(OTHER_TOKENS), world.answer_ids]), (*shape, 5))
    shares = rng.random((*shape, 1), dtype=np.float32) * np.float32([0.5, 0.2, 0.15, 0.1, 0.05])
    depth = np.linspace(1, 0, world.n_layers, dtype=np.float32)[:, None]
    entropy, kl = (6 * depth * rng.random(shape, dtype=np.float32) for _ in range(2))
    return ids, np.log(shares + np.float32(1e-6)), entropy, kl


def _hidden(world: _World, plants: tuple[Plant, ...], width: int, rng: np.random.Generator) -> np.ndarray:
    """Streams of the base model: noise, the operands (so that a control task is learnt), plants."""
    n = len(world.prompts)
    streams = rng.standard_normal((world.n_layers, n, width))
    operands = rng.standard_normal((100, width))
    streams += operands[[p.label for p in world.prompts]] * 0.3
    codes = {op: rng.standard_normal(width) for op in world.operations}
    for plant in plants:
        if plant.family == "hidden":
            code = np.stack([codes[p.cls] for p in world.prompts]) * plant.mass / np.sqrt(width / 24)
            streams[plant.layer] += code * _masks(world, plant)[:, None]
    return streams.astype(np.float32)


def study(
    *plants: Plant,
    arms: Mapping[str, int] = ARMS,
    n_layers: int = 12,
    steps: tuple[int, ...] = STEPS,
    per_class: int = 60,
    styles: tuple[str, ...] = ("symbolic", "worded"),
    operations: tuple[str, ...] = OPERATIONS,
    prompt_sd: float = 0.06,
    seed_sd: float = 0.005,
    wobble: float = 0.0,
    walk: bool = False,
    shared: float = 0.5,
    hidden: int = 24,
    shown: tuple[Prompt, ...] = (),
    copying: bool = False,
    rng_seed: int = 0,
) -> Study:
    """A study in which exactly the plants are true.

    `prompt_sd`, `seed_sd` and `wobble` are the standard deviations of planted mass between prompts, seeds and
    checkpoints; with `walk`, what a checkpoint adds stays. `shown` prompts are read after the generated ones.
    With `copying` the prompts that contain their own answer's first character are known as copied; of the
    family `first`, which is the answers' in another order, those that contain its last one.
    """
    rng = np.random.default_rng([rng_seed, 1])
    items = prompts(per_class, styles, operations, rng_seed) + shown
    effect_of = {}  # a problem has one effect, in whatever style it is asked
    for p in items:
        effect_of.setdefault(p.key, rng.standard_normal())
    answer_ids, own = np.unique([ord(p.answer[0]) for p in items], return_inverse=True)
    world = _World(
        items, tuple(operations), tuple(steps), n_layers, prompt_sd, seed_sd, wobble, walk, shared,
        np.array([effect_of[p.key] for p in items]),
        answer_ids.astype(np.int64), own.astype(np.int64),
        np.array([p.answer[0] in p.text for p in items]) if copying else None,
        np.array([p.answer[-1] in p.text for p in items]) if copying else None,
    )  # fmt: skip
    streams = _hidden(world, plants, hidden, rng)
    runs = [_run(world, arm, seed, plants, streams, rng_seed) for arm, k in arms.items() for seed in range(k)]
    return Study(tuple(runs))


def readings(*plants: Plant, **settings: object) -> Readings:
    """One run of arm `sft`, as `study` makes it."""
    return study(*plants, arms={"sft": 1}, **settings).runs[0]
