"""Reads checkpoints with the lens. MLX ends here: NumPy from here on.

In: a lens on a model, checkpoints, prompts, token sets. Out: `Readings`, kept beside the run.

The base model is read once, as step 0 of every run; that step 0 *is* the base model is checked, not assumed.
"""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BrokenExperiment
from ..interventions.permuting import permuted
from ..lens.logit_lens import LogitLens
from ..models import loading as models
from ..progress import SILENT, Progress
from ..store.store import Store, write_atomic
from ..tasks.task import says
from ..training.run import Run
from .effects import Effects
from .generation import generated
from .intervening import intervene, passes
from .plan import Plan
from .readings import Readings, Study

TOP_K = 5
BASE = "base.npz"
EFFECTS = "effects.npz"


def read_study(
    lens: LogitLens,
    plan: Plan,
    runs: Sequence[Run],
    store: Store,
    spec: Mapping[str, Any],
    progress: Progress = SILENT,
) -> Study:
    """Every layer of every checkpoint of every run, and the base model once; what is kept is not read again.

    `spec` is all that decides a reading but the checkpoint. Without runs the study has the base model alone.
    """
    of_base = {**spec, "anywhere": True} if plan.asks_anywhere else spec
    kept = store.get_or_build("base", of_base, lambda folder: read_base(lens, plan, folder, progress))
    base, without = load(kept.file(BASE)), None
    if plan.asks_permuted:
        other = {**of_base, "weights": "permuted"}
        kept = store.get_or_build("base", other, lambda folder: read_permuted(lens, plan, folder, progress))
        without = assemble("permuted", 0, plan, load(kept.file(BASE)), {})
    read = [_readings(lens, plan, run, _steps(run, runs), store, spec, base, progress) for run in runs]
    study = read or [assemble("base", 0, plan, base, {})]
    mapped = {run.arm: min(other.seed for other in runs if other.arm == run.arm) for run in runs}
    effects: list[dict[int, Effects]] = [{} for _ in study]
    if "base" in plan.intervened:
        at_base = _effects(lens, plan, "base", None, True, store, spec, progress)
        effects = [{0: at_base} for _ in study]
    for run, found, one in zip(runs, effects, study, strict=False):
        if run.arm in plan.intervened:
            first = run.seed == mapped[run.arm]
            found[one.steps[-1]] = _effects(lens, plan, run.arm, run, first, store, spec, progress)
    return Study(tuple(replace(s, effects=e) for s, e in zip(study, effects, strict=True)), without)


def _steps(run: Run, runs: Sequence[Run]) -> list[int]:
    """The checkpoints after step 0 of all seeds of an arm: one that stopped early stays as it is."""
    return sorted({step for other in runs if other.arm == run.arm for step in other.checkpoints} - {0})


def _readings(
    lens: LogitLens,
    plan: Plan,
    run: Run,
    steps: Sequence[int],
    store: Store,
    spec: Mapping[str, Any],
    base: Mapping[str, np.ndarray],
    progress: Progress,
) -> Readings:
    def build(folder: Path) -> None:
        read_run(lens, plan, run, folder, progress)

    asked = {**spec, "asked": plan.asked.get(run.arm, ())}
    kept = store.get_or_build("readings", asked, build, parent=run.entry)
    own = [step for step in run.checkpoints if step > 0]
    each = {step: load(kept.file(file_of(max(s for s in own if s <= step)))) for step in steps}
    switch = int(run.entry.info.get("switch", 0))
    return replace(assemble(run.arm, run.seed, plan, base, each), switch=switch)


def _effects(
    lens: LogitLens,
    plan: Plan,
    arm: str,
    run: Run | None,
    with_maps: bool,
    store: Store,
    spec: Mapping[str, Any],
    progress: Progress,
) -> Effects:
    """What interventions do to the last checkpoint of a run, or to the base model."""
    asked = plan.intervened[arm]

    def build(folder: Path) -> dict[str, Any]:
        start, name = time.monotonic(), f"{arm} seed {run.seed}" if run else "base model"
        with progress.task(f"intervene in {name}", passes(asked, lens.n_layers), "exchange") as task:
            if run is None:
                found = intervene(lens, plan, asked, with_maps, task.advance)
            else:
                with models.adapted(lens.model, run.checkpoints[max(run.checkpoints)]):
                    found = intervene(lens, plan, asked, with_maps, task.advance)
        _save(folder / EFFECTS, found.as_arrays())
        return {"seconds": time.monotonic() - start}

    of_arm = {**spec, "pairs": plan.pairs, "intervened": asked, "maps": with_maps}
    kept = store.get_or_build("effects", of_arm, build, parent=run.entry if run else None)
    return Effects.from_arrays(load(kept.file(EFFECTS)))


def read(
    lens: LogitLens, plan: Plan, styles: Sequence[str], moved: Callable[[int], None] = lambda prompts: None
) -> dict[str, np.ndarray]:
    """One checkpoint's arrays, axes [layer, prompt, ...] in the plan's order of prompts.

    Prompts of other styles have NaN, and -1 where there are ids. `moved` is told how many have been read.
    """
    parts: dict[str, np.ndarray] = {}
    read = np.zeros(len(plan.prompts), dtype=bool)
    for style in styles:
        for more in sorted({_more(plan, i) for i in range(len(plan.prompts))}):
            here = [i for i, p in enumerate(plan.prompts) if p.style == style and _more(plan, i) == more]
            read[here] = True
            for name, values in _read(lens, plan, style, here, more).items() if here else ():
                if name not in parts:
                    shape = (values.shape[0], len(plan.prompts), *values.shape[2:])
                    parts[name] = np.full(shape, -1 if values.dtype.kind == "i" else np.nan, values.dtype)
                parts[name][:, here] = values
            moved(len(here))
    if not all(np.isfinite(parts[name][:, read]).all() for name in ("entropy", "kl", "top_log_probs")):
        raise BrokenExperiment(
            "the lens read NaN or infinity; the checkpoint has diverged or its weights are damaged"
        )
    parts["correct"] = parts.pop("said")[-1] == np.array(plan.answer_ids)[list(plan.own_answer)]
    return parts


def _more(plan: Plan, prompt: int) -> int:
    """How many tokens of its answer follow a prompt before the last one."""
    return len(plan.forced_ids[prompt]) - len(plan.prompt_ids[prompt])


def _read(lens: LogitLens, plan: Plan, style: str, here: Sequence[int], more: int) -> dict[str, np.ndarray]:
    """The arrays of some prompts whose answers are of one length, from one pass over prompt and answer.

    The first place is the prompt's last token, the last one where the answer's last token is predicted.
    """
    marked = [i for i, c in enumerate(plan.classes) if plan.glyphs[c]]
    sets = {f"words {c}": plan.words[style][c] for c in plan.classes}
    sets |= {f"glyphs {plan.classes[i]}": plan.glyphs[plan.classes[i]] for i in marked}
    sets |= {f"random {name}": ids for name, ids in plan.random_words.items()}
    sets |= {f"first {i}": (i,) for i in plan.first_ids} | {f"last {i}": (i,) for i in plan.answer_ids}
    ids = [plan.forced_ids[i] for i in here]
    got = lens.read(ids, token_sets=sets, top_k=TOP_K, positions=[-1 - more, -1] if more else [-1])
    cuts = np.cumsum([len(plan.classes), len(marked), len(plan.random_words), len(plan.first_ids)])
    words, written, random_words, firsts, _ = np.split(got.log_mass[:, :, 0], cuts, axis=2)
    glyphs = np.full_like(words, -np.inf)  # a class without glyphs has no mass on them
    glyphs[..., marked] = written
    return {
        "words": words,
        "glyphs": glyphs,
        "random_words": random_words,
        "firsts": firsts,
        "answers": got.log_mass[:, :, -1, cuts[-1] :],
        "said": got.top_ids[:, :, -1, 0],
        "top_ids": got.top_ids[:, :, 0],
        "top_log_probs": got.top_log_probs[:, :, 0],
        "entropy": got.entropy[:, :, 0],
        "kl": got.kl[:, :, 0],
    }


def anywhere(lens: LogitLens, plan: Plan) -> np.ndarray:
    """Log-mass on words at every position that all prompts have: `[layer, prompt, position, class]`.

    Of the prompts that are judged, in the trained styles; NaN for the others.
    """
    shortest = min(len(plan.prompt_ids[i]) for i in plan.written) if plan.asks_anywhere else 0
    shape = (lens.n_layers, len(plan.prompts), shortest, len(plan.classes))
    found = np.full(shape, np.nan, np.float32)
    for style in plan.trained if shortest else ():
        here = [i for i in plan.written if plan.prompts[i].style == style]
        sets, ids = plan.words[style], [plan.prompt_ids[i] for i in here]
        positions = list(range(-shortest, 0))
        found[:, here] = lens.read(ids, token_sets=sets, top_k=0, positions=positions, kl=False).log_mass
    return found


def write(lens: LogitLens, plan: Plan) -> np.ndarray:
    """By prompt, 1.0 where the model writes exactly the right answer, else 0.0; NaN where it is not asked."""
    exact = np.full(len(plan.prompts), np.nan, np.float32)
    asked = [plan.prompt_ids[i] for i in plan.written]
    texts = generated(lens.model, lens.tokenizer, asked, plan.longest + 1)
    exact[list(plan.written)] = [
        says(t, plan.prompts[i].answer) for t, i in zip(texts, plan.written, strict=True)
    ]
    return exact


def read_base(lens: LogitLens, plan: Plan, folder: Path, progress: Progress = SILENT) -> None:
    """The base model's arrays, and its residual streams at each prompt's last token, kept in `folder`."""
    with progress.task("read base model", prompts_of(plan, tuple(plan.words), True), "prompt") as task:
        arrays = _whole_reading(lens, plan, task.advance)
        with permuted(lens.model):
            arrays["hidden_permuted"] = _streams(lens, plan)
        _save(folder / BASE, arrays)


def read_permuted(lens: LogitLens, plan: Plan, folder: Path, progress: Progress = SILENT) -> None:
    """The same of the base model with its weights permuted, where a claim asks for more than its streams."""
    total = prompts_of(plan, tuple(plan.words), True)
    with progress.task("read permuted weights", total, "prompt") as task, permuted(lens.model):
        _save(folder / BASE, _whole_reading(lens, plan, task.advance))


def _whole_reading(lens: LogitLens, plan: Plan, moved: Callable[[int], None]) -> dict[str, np.ndarray]:
    arrays = read(lens, plan, tuple(plan.words), moved)
    arrays["exact"] = write(lens, plan)
    moved(len(plan.written))
    return arrays | {"anywhere": anywhere(lens, plan), "hidden": _streams(lens, plan)}


def prompts_of(plan: Plan, styles: Sequence[str], written: bool) -> int:
    """How many prompts are read of one checkpoint, those whose answers the model writes once more."""
    return sum(p.style in styles for p in plan.prompts) + (len(plan.written) if written else 0)


def prompts_of_run(plan: Plan, arm: str, later: int) -> int:
    """`prompts_of` of all checkpoints after step 0 of a run."""
    if not later:
        return 0
    between = prompts_of(plan, plan.trained, plan.writes(arm))
    return (later - 1) * between + prompts_of(plan, plan.of_arm(arm)[0], True)


def _streams(lens: LogitLens, plan: Plan) -> np.ndarray:
    return np.asarray(lens.streams(list(plan.prompt_ids)), dtype=np.float32)


def read_run(lens: LogitLens, plan: Plan, run: Run, folder: Path, progress: Progress = SILENT) -> None:
    """Every checkpoint after step 0, a file each in `folder`; what is there already is not read again."""
    checkpoints, (styles, everywhere) = run.checkpoints, plan.of_arm(run.arm)
    later = [step for step in sorted(checkpoints) if step > 0]
    few = list(plan.prompt_ids[:4])
    base = np.asarray(lens.logits(few))
    with models.adapted(lens.model, checkpoints[0]):
        _require(
            np.array_equal(base, lens.logits(few)), checkpoints[0], "differs from the base model at step 0"
        )
    total = prompts_of_run(plan, run.arm, len(later))
    with progress.task(f"read {run.arm} seed {run.seed}", total, "prompt") as task:
        for step in later:
            path, last = folder / file_of(step), step == later[-1]
            written = last or plan.writes(run.arm)
            if _whole(path):
                task.advance(prompts_of(plan, styles if last else plan.trained, written), f"step {step}")
            else:
                with models.adapted(lens.model, checkpoints[step]):
                    applied = not np.array_equal(base, lens.logits(few))
                    _require(applied, checkpoints[step], "changes nothing: it is not applied")
                    moved = partial(task.advance, note=f"step {step}")
                    arrays = read(lens, plan, styles if last else plan.trained, moved)
                    if written:
                        arrays["exact"] = write(lens, plan)
                        moved(len(plan.written))
                    arrays |= {"anywhere": anywhere(lens, plan)} if last and everywhere else {}
                    _save(path, arrays)


def _require(holds: bool, checkpoint: Path, what: str) -> None:
    if not holds:
        raise BrokenExperiment(
            f"{checkpoint}: the adapter {what}; remove the run from the store and run again"
        )


def assemble(
    arm: str,
    seed: int,
    plan: Plan,
    base: Mapping[str, np.ndarray],
    later: Mapping[int, Mapping[str, np.ndarray]],
) -> Readings:
    """The `Readings` of a run, from the arrays of the base model and those of each later step."""
    each = [base, *(later[step] for step in sorted(later))]
    empty = {name: np.full_like(base[name], np.nan) for name in ("exact", "anywhere")}
    each = [empty | dict(arrays) for arrays in each]
    stacked: dict[str, Any] = {
        n: np.stack([arrays[n] for arrays in each]) for n in base if not n.startswith("hidden")
    }
    own, first = np.array(plan.own_answer), np.array(plan.own_first)
    return Readings(
        arm=arm,
        seed=seed,
        steps=(0, *sorted(later)),
        prompts=plan.prompts,
        classes=plan.classes,
        answer_ids=np.array(plan.answer_ids),
        own_answer=own,
        first_ids=np.array(plan.first_ids),
        own_first=first,
        hidden=base["hidden"],
        hidden_permuted=base.get("hidden_permuted"),
        token_sets=plan.token_sets,
        copied=_stands_in(np.array(plan.answer_ids)[own], plan.forced_ids),
        copied_first=_stands_in(np.array(plan.first_ids)[first], plan.prompt_ids),
        **stacked,
    )


def _stands_in(tokens: np.ndarray, before: Sequence[Sequence[int]]) -> np.ndarray:
    return np.array([token in ids for token, ids in zip(tokens, before, strict=True)])


def file_of(step: int) -> str:
    """Name of the file that holds a step's arrays."""
    return f"{step:07d}.npz"


def load(path: Path) -> dict[str, np.ndarray]:
    """Arrays by name; raises ValueError or `zipfile.BadZipFile` where the file is damaged."""
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _whole(path: Path) -> bool:
    """A file of an interrupted reading counts only if it opens and its checksums hold."""
    try:
        return bool(load(path))
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())
