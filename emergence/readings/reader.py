"""Reads checkpoints with the lens. MLX ends here: NumPy from here on.

In: a lens on a model, checkpoints, prompts, token sets. Out: `Readings`, kept beside the run.

The base model is read once, as step 0 of every run; that step 0 *is* the base model is checked, not assumed.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BrokenExperiment
from ..lens.logit_lens import LogitLens
from ..models import loading as models
from ..progress import SILENT, Progress
from ..store.store import Store, write_atomic
from ..training.run import Run
from .plan import Plan
from .readings import Readings, Study

TOP_K = 5
BASE = "base.npz"


def read_study(
    lens: LogitLens,
    plan: Plan,
    runs: Sequence[Run],
    store: Store,
    spec: Mapping[str, Any],
    progress: Progress = SILENT,
) -> Study:
    """Every layer of every checkpoint of every run, and the base model once; what is kept is not read again.

    `spec` is all that decides a reading but the checkpoint.
    """
    kept = store.get_or_build("base", spec, lambda folder: read_base(lens, plan, folder, progress))
    base = load(kept.file(BASE))
    return Study(tuple(_readings(lens, plan, run, store, spec, base, progress) for run in runs))


def _readings(
    lens: LogitLens,
    plan: Plan,
    run: Run,
    store: Store,
    spec: Mapping[str, Any],
    base: Mapping[str, np.ndarray],
    progress: Progress,
) -> Readings:
    def build(folder: Path) -> None:
        read_run(lens, plan, run.checkpoints, folder, f"{run.arm} seed {run.seed}", progress)

    kept = store.get_or_build("readings", spec, build, parent=run.entry)
    each = {step: load(kept.file(file_of(step))) for step in run.checkpoints if step > 0}
    return assemble(run.arm, run.seed, plan, base, each)


def read(lens: LogitLens, plan: Plan) -> dict[str, np.ndarray]:
    """One checkpoint's arrays, axes [layer, prompt, ...] in the plan's order of prompts."""
    parts: dict[str, np.ndarray] = {}
    marked = [i for i, c in enumerate(plan.classes) if plan.glyphs[c]]
    for style, words in plan.words.items():
        where = np.array([i for i, p in enumerate(plan.prompts) if p.style == style])
        sets = {f"words {c}": words[c] for c in plan.classes}
        sets |= {f"glyphs {plan.classes[i]}": plan.glyphs[plan.classes[i]] for i in marked}
        sets |= {f"random {name}": ids for name, ids in plan.random_words.items()}
        sets |= {f"answer {i}": (i,) for i in plan.answer_ids}
        got = lens.read([plan.prompt_ids[i] for i in where], token_sets=sets, top_k=TOP_K)
        mass = got.log_mass
        cuts = np.cumsum([len(plan.classes), len(marked), len(plan.random_words)])
        words_, written, random_, answers = np.split(mass, cuts, axis=2)
        glyphs = np.full_like(words_, -np.inf)  # a class without glyphs has no mass on them
        glyphs[..., marked] = written
        found = {
            "words": words_,
            "glyphs": glyphs,
            "random_words": random_,
            "answers": answers,
            "top_ids": got.top_ids,
            "top_log_probs": got.top_log_probs,
            "entropy": got.entropy,
            "kl": got.kl,
        }
        for name, values in found.items():
            full = parts.setdefault(
                name, np.empty((values.shape[0], len(plan.prompts), *values.shape[2:]), values.dtype)
            )
            full[:, where] = values
    if not all(np.isfinite(parts[name]).all() for name in ("entropy", "kl", "top_log_probs")):
        raise BrokenExperiment(
            "the lens read NaN or infinity; the checkpoint has diverged or its weights are damaged"
        )
    return parts


def read_base(lens: LogitLens, plan: Plan, folder: Path, progress: Progress = SILENT) -> None:
    """The base model's arrays, and its residual streams at each prompt's last token, kept in `folder`."""
    with progress.task("read base model", 1, "checkpoint") as task:
        arrays = read(lens, plan)
        arrays["hidden"] = np.asarray(lens.streams(list(plan.prompt_ids)), dtype=np.float32)
        _save(folder / BASE, arrays)
        task.advance()


def read_run(
    lens: LogitLens,
    plan: Plan,
    checkpoints: Mapping[int, Path],
    folder: Path,
    label: str,
    progress: Progress = SILENT,
) -> None:
    """Every checkpoint after step 0, a file each in `folder`; what is there already is not read again."""
    later = [step for step in sorted(checkpoints) if step > 0]
    few = list(plan.prompt_ids[:4])
    base = np.asarray(lens.logits(few))
    with models.adapted(lens.model, checkpoints[0]):
        _require(
            np.array_equal(base, lens.logits(few)), checkpoints[0], "differs from the base model at step 0"
        )
    with progress.task(f"read {label}", len(later), "checkpoint") as task:
        for step in later:
            path = folder / file_of(step)
            if not _whole(path):
                with models.adapted(lens.model, checkpoints[step]):
                    applied = not np.array_equal(base, lens.logits(few))
                    _require(applied, checkpoints[step], "changes nothing: it is not applied")
                    _save(path, read(lens, plan))
            task.advance(1, f"step {step}")


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
    stacked = {name: np.stack([arrays[name] for arrays in each]) for name in base if name != "hidden"}
    own = np.array(plan.own_answer)
    right = np.array(plan.answer_ids)[own]
    return Readings(
        arm=arm,
        seed=seed,
        steps=(0, *sorted(later)),
        prompts=plan.prompts,
        classes=plan.classes,
        answer_ids=np.array(plan.answer_ids),
        own_answer=own,
        correct=stacked["top_ids"][:, -1, :, 0] == right[None],
        hidden=base["hidden"],
        token_sets=plan.token_sets,
        copied=np.array([i in ids for i, ids in zip(right, plan.prompt_ids, strict=True)]),
        **stacked,
    )


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
