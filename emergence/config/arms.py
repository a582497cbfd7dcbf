"""The arms of a config: each inherits what it does not say, and a control is always among them.

In: the valid file. Out: `settings.Arm`s; problems and notices in `Problems`.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import UsageError
from ..store import series
from ..wording import quoted, some
from . import schema, settings
from .problems import Path, Problems
from .settings import Arm, LoRA

_METHODS: Path = ("training", "training_methods")
_BY_REWARD = {
    "sft_steps",
    "group_size",
    "reward",
    "advantage",
    "policy_learning_rate",
    "max_new_tokens",
}
_INHERITED = {"learning_rate", "lr_schedule", "warmup", "adam", "batch_size", "max_steps", "seeds"}


def resolve(
    file: schema.Layout,
    vocabulary: Mapping[str, Sequence[str]],
    problems: Problems,
    folder: pathlib.Path | None,
) -> tuple[Arm, ...]:
    """The enabled arms, with the shuffled control."""
    training = file.training
    if late := [s for s in training.checkpoint_steps if s > training.max_steps]:
        problems.say(("training", "checkpoint_steps"), _beyond(late, training.max_steps))
    if not training.training_methods:
        return ()
    enabled = {name: arm for name, arm in training.training_methods.items() if arm.enabled}
    if not enabled:
        problems.say(_METHODS, "no arm is enabled; enable one")
    for name, arm in enabled.items():
        _check(name, arm, problems)
    arms = [
        _given(name, arm, problems, folder)
        if arm.method == "given"
        else _arm(name, arm, file, vocabulary, problems)
        for name, arm in enabled.items()
    ]
    if any(arm.method != "given" for arm in arms) and not any(arm.method == "shuffled" for arm in arms):
        arms.append(_control(arms, training, problems))
    return tuple(arms)


def _check(name: str, written: schema.Arm, problems: Problems) -> None:
    path = (*_METHODS, name)
    if name in settings.UNTRAINED:
        problems.say(path, f"{name} means {settings.UNTRAINED[name]}; choose another name")
    full = None if written.fine_tune_type is None else written.fine_tune_type == "full"
    if written.use_lora is not None and written.use_lora == full:
        use = str(written.use_lora).lower()
        problems.say(path, f"use_lora: {use} contradicts fine_tune_type: {written.fine_tune_type}; drop one")


def _control(arms: Sequence[Arm], training: schema.Training, problems: Problems) -> Arm:
    """Answers permuted, all else as in the arm that it controls: it runs whatever the file says."""
    model = next((arm for arm in arms if arm.method == "sft"), None)
    model = model or next(arm for arm in arms if arm.method != "given")
    name = "shuffled"
    while any(arm.name == name for arm in arms):
        name += "_control"
    disabled = any(arm.method == "shuffled" for arm in training.training_methods.values())
    why = "a control runs with every experiment, a disabled one, too" if disabled else "a control was added"
    problems.note(_METHODS, f"{why}: {name}, trained as {model.name} with the answers permuted")
    plain = {name: Arm.model_fields[name].default for name in _BY_REWARD}
    return model.model_copy(update={**plain, "name": name, "method": "shuffled", "classifier_targets": {}})


def _arm(
    name: str,
    written: schema.Arm,
    file: schema.Layout,
    vocabulary: Mapping[str, Sequence[str]],
    problems: Problems,
) -> Arm:
    training, path = file.training, (*_METHODS, name)
    given = training.model_dump(include=_INHERITED) | written.model_dump(
        include=_INHERITED, exclude_none=True
    )
    until = written.until or training.until
    if until and until.max_steps:
        given["max_steps"] = until.max_steps
    if given["warmup"] >= given["max_steps"]:
        long = (
            f"{given['warmup']} updates of max_steps={given['max_steps']}; the rate never arrives: lower it"
        )
        problems.say((*path, "warmup") if written.warmup is not None else ("training", "warmup"), long)
    classified = written.method in ("classified", "dual_reward")
    by_reward = written.method == "grpo"
    if by_reward:
        _check_rewarded(written, given["max_steps"], path, problems)
    steps = _steps(written, training, given["max_steps"], path, problems)
    if by_reward and steps[-1] <= written.sft_steps < given["max_steps"]:
        what = f"no checkpoint after sft_steps={written.sft_steps}; add {given['max_steps']}"
        problems.say((*path, "sft_steps"), f"{what} to checkpoint_steps")
    return Arm(
        name=name,
        method="classified" if classified else written.method,  # type: ignore[arg-type]
        fine_tune_type=written.fine_tune_type or ("full" if written.use_lora is False else "lora"),
        **given,
        until=until.accuracy if until and not by_reward else None,
        checkpoint_steps=tuple(sorted({*steps, written.sft_steps})) if by_reward else steps,
        lora=_lora(file.parameters.lora, training.lora, written.lora),
        classifier_weight=written.classifier_weight,
        classifier_layer_pct=written.classifier_layer_pct,
        classifier_targets=_targets(written, vocabulary, path, problems) if classified else {},
        **(written.model_dump(include=_BY_REWARD) if by_reward else {}),
    )


def _check_rewarded(written: schema.Arm, max_steps: int, path: Path, problems: Problems) -> None:
    if written.sft_steps >= max_steps:
        what = f"{written.sft_steps} leaves no update of max_steps={max_steps} to learn by reward; lower it"
        problems.say((*path, "sft_steps"), what)
    if written.until:
        what = "a grpo arm goes on to its last checkpoint, whatever it has learned; drop it"
        problems.say((*path, "until"), what)


def _given(name: str, written: schema.Arm, problems: Problems, folder: pathlib.Path | None) -> Arm:
    """An arm that others trained: its steps are those of the files, a folder for each seed."""
    path = (*_METHODS, name, "checkpoints")
    seeds = written.seeds or list(range(len(written.checkpoints or ())))
    places = [str((folder or pathlib.Path()) / os.path.expanduser(p)) for p in written.checkpoints or ()]
    if not places:
        problems.say((*_METHODS, name), "given needs checkpoints: the folder that the series lies in")
    elif len(places) != len(seeds):
        problems.say(path, f"{len(places)} folders for {len(seeds)} seeds; give one for each")
    steps: list[set[int]] = []
    content = []
    for place in places:
        try:
            found = series.find(pathlib.Path(place))
        except UsageError as error:
            problems.say(path, str(error))
            continue
        steps.append({0, *(saved.step for saved in found)})
        content.append(series.content(found))
    if any(other != steps[0] for other in steps):
        problems.say(path, "the seeds have checkpoints at other steps; leave out those that not all have")
    last = max(steps[0]) if steps else 0
    return Arm(
        name=name,
        method="given",
        max_steps=max(last, 1),
        checkpoint_steps=tuple(sorted(steps[0])) if steps else (0,),
        seeds=tuple(seeds),
        checkpoints=tuple(places),
        content=tuple(content),
    )


def _steps(
    written: schema.Arm, training: schema.Training, max_steps: int, path: Path, problems: Problems
) -> tuple[int, ...]:
    """The arm's checkpoints, step 0 among them; inherited ones beyond its `max_steps` are left out."""
    path, own = (*path, "checkpoint_steps"), written.checkpoint_steps
    given = training.checkpoint_steps if own is None else own
    late = [s for s in given if s > max_steps]
    steps = tuple(sorted({0, *given} - set(late)))
    told = late if own is not None else [s for s in given if s > training.max_steps]
    if late and own is not None:
        problems.say(path, _beyond(late, max_steps))
    elif late and max_steps < training.max_steps:
        problems.note(path, f"{some([*map(str, late)], 5)} left out: beyond this arm's max_steps={max_steps}")
    if steps == (0,) and not told:
        problems.say(path, f"no checkpoint after step 0 within max_steps={max_steps}; add {max_steps}")
    elif steps[-1] < max_steps and not late:
        problems.note(path, f"trained to {steps[-1]} of max_steps={max_steps}: nothing later is kept")
    return steps


def _beyond(late: Sequence[int], max_steps: int) -> str:
    verb, them = ("is", "it") if len(late) == 1 else ("are", "them")
    return f"{some([*map(str, late)], 5)} {verb} beyond max_steps={max_steps}; raise max_steps or drop {them}"


def _lora(*sections: schema.Lora) -> LoRA:
    """What the inner section leaves open is taken from the one further out."""
    given: dict[str, Any] = {}
    for section in sections:
        given |= section.model_dump(exclude_none=True)
    return LoRA(**given)


def _targets(
    written: schema.Arm, vocabulary: Mapping[str, Sequence[str]], path: Path, problems: Problems
) -> dict[str, str]:
    given = written.classifier_targets or {}
    targets = {cls: given.get(cls, cls) for cls in vocabulary}
    for cls, word in targets.items():
        if word not in vocabulary[cls]:
            what = f"{quoted(word)} is not in task_vocabulary.{cls}, so it would not be seen; add it there"
            problems.say((*path, "classifier_targets", cls), what)
    return targets
