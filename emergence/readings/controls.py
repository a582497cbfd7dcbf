"""Controls of the instrument itself, run on the real model before anything is trained.

A classifier of known place and strength is planted in the residual stream; a lens that does not find it
there, or finds it anywhere else, reads nothing that can be trusted. The controls that need runs (shuffled
answers, random words) are predictions of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..config.settings import Arm
from ..errors import BrokenExperiment, NotMeasurable
from ..interventions.planting import direction, planted
from ..lens.logit_lens import LogitLens
from ..training.policy import Start
from .operands import operands_tell
from .plan import Plan
from .readings import STRENGTH, Prompt

PROMPTS_PER_CLASS = 4
LEAK = 0.01


@dataclass(frozen=True)
class Control:
    """One control, whether it held, and the figures that show it (or why the family cannot have it)."""

    name: str
    passed: bool
    reason: str


def before_training(
    lens: LogitLens, plan: Plan, by_reward: Iterable[tuple[Arm, Start]] = ()
) -> tuple[Control, ...]:
    """Prove the lens on the prompts that will be read, and run every control that needs no training.

    `by_reward`: the arms that learn by reward, with what the base model's answers would earn.

    Raises
    ------
    BrokenExperiment
        One of them failed: what follows would not be a measurement.
    """
    lens.verify([list(ids) for ids in plan.prompt_ids[:4]])
    of_data = (*operands_only(plan), *leading_digits(plan))
    ran = (planted_classifier(lens, plan), *of_data, *(_rewarded(*arm) for arm in by_reward))
    failed = [c for c in ran if not c.passed]
    if failed:
        raise BrokenExperiment("; ".join(f"control {c.name} failed: {c.reason}" for c in failed))
    return ran


def _rewarded(arm: Arm, start: Start) -> Control:
    """An arm that begins with rewards must have some; one that is taught before may get them later."""
    lacking = "" if start.solved or arm.sft_steps else "; nothing to learn from: raise sft_steps=0"
    return Control(f"rewards of {arm.name}", not lacking, f"before training, {start}{lacking}")


def planted_classifier(lens: LogitLens, plan: Plan) -> Control:
    """Plant each class's word at the middle block: the lens must find it there and nowhere else."""
    name = "planted classifier"
    layer = lens.n_layers // 2
    if layer + 1 >= lens.n_layers or not lens.stream.calls_each_block_once:
        return Control(name, True, "not run: no two blocks of this model follow one another as they stand")
    try:
        lens.streams(list(plan.prompt_ids[:1]), layers=[layer])
    except NotMeasurable as refused:
        return Control(name, True, f"not run: {refused}")
    style = next(iter(plan.words))
    at_layer, elsewhere = [], []
    for cls in plan.classes:
        chosen = [
            list(ids)
            for prompt, ids in zip(plan.prompts, plan.prompt_ids, strict=True)
            if prompt.cls == cls and prompt.style == style and prompt.half >= 0
        ][:PROMPTS_PER_CLASS]
        sets = {"own": plan.words[style][cls]}
        before = _mass(lens, chosen, sets)
        with planted(lens.model, layer, direction(lens, chosen, layer, sets["own"][0])):
            after = _mass(lens, chosen, sets)
        at_layer.append(after[layer].min())
        elsewhere.append(np.abs(np.delete(after - before, layer, axis=0)).max())
    low, leak = float(min(at_layer)), float(max(elsewhere))
    reason = f"mass at L{layer} >= {low:.3f} (> {STRENGTH}), change elsewhere <= {leak:.1e} (< {LEAK})"
    return Control(name, low > STRENGTH and leak < LEAK, reason)


def operands_only(plan: Plan) -> tuple[Control, ...]:
    """Where operands are matched, guess the class from them alone: no better than by chance.

    The nearest pairs of one half guess for the other half. Where each class has operands of its own there is
    nothing to hold: verdicts then put no difference between classes down to the class.
    """
    prompts = [p for p in plan.prompts if p.half >= 0 and p.style == next(iter(plan.words))]
    problems = {cls: {p.numbers for p in prompts if p.cls == cls} for cls in plan.classes}
    if not prompts or not all(p.numbers for p in prompts) or len(set(map(frozenset, problems.values()))) > 1:
        return ()
    accuracy, chance, _ = operands_tell(prompts, apart=True)
    reason = f"operands alone tell the class in {accuracy:.0%} of prompts (chance {chance:.0%}, at most +5)"
    return (Control("operands only", accuracy <= chance + 0.05, reason),)


def leading_digits(plan: Plan) -> tuple[Control, ...]:
    """What a table of leading digits and lengths knows of the answer's first token; it cannot fail.

    By class, the operands' leading digits and lengths tell how large the answer is. The table is made of one
    half of the prompts and looked up for the other: what a model says first is no sign of calculation where
    it says no more than this.
    """
    style = next(iter(plan.words))
    here = [i for i, p in enumerate(plan.prompts) if p.half >= 0 and p.style == style and p.numbers]
    if not here:
        return ()
    known: dict[tuple[int, str, tuple[str, ...]], list[int]] = {}
    for i in here:
        known.setdefault((plan.prompts[i].half, *_sizes(plan.prompts[i])), []).append(plan.own_first[i])
    shares: dict[str, list[float]] = {cls: [] for cls in plan.classes}
    for i in here:
        found = known.get((1 - plan.prompts[i].half, *_sizes(plan.prompts[i])), [])
        right = found.count(plan.own_first[i]) / len(found) if found else 0.0
        shares[plan.prompts[i].cls].append(right)
    by_class = ", ".join(f"{cls} {np.mean(own):.0%}" for cls, own in shares.items() if own)
    return (Control("leading digits", True, f"a table of them has the answer's first token: {by_class}"),)


def _sizes(p: Prompt) -> tuple[str, tuple[str, ...]]:
    """The class, and of each operand its first digit and how many follow."""
    return p.cls, tuple(str(n)[0] + "0" * (len(str(n)) - 1) for n in p.numbers)


def _mass(lens: LogitLens, prompts: Sequence[list[int]], sets: dict[str, tuple[int, ...]]) -> np.ndarray:
    mass: np.ndarray = np.exp(lens.read(prompts, token_sets=sets, top_k=0, kl=False).log_mass[:, :, 0])
    return mass
