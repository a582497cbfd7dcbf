"""Reads checkpoints with the lens. MLX ends here: NumPy from here on.

In: a lens on a model, checkpoints, prompts, token sets. Out: `Readings`, kept beside the run.

The base model is read once, as step 0 of every run; that step 0 *is* the base model is checked, not assumed.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BrokenExperiment
from ..lens.logit_lens import LogitLens
from ..models import loading as models
from ..progress import SILENT, Progress
from ..store import store
from ..tasks import task as tasks
from ..tasks import vocabulary as tokens
from .readings import Prompt, Readings

TOP_K = 5
BASE = "base.npz"


@dataclass(frozen=True)
class Plan:
    """What is read, the same for every run: prompts, their ids, and the token sets of each style."""

    prompts: tuple[Prompt, ...]
    prompt_ids: tuple[tuple[int, ...], ...]
    classes: tuple[str, ...]
    words: dict[str, dict[str, tuple[int, ...]]]
    """By style, then class: the style's own words are not in it."""
    glyphs: dict[str, tuple[int, ...]]
    random_words: dict[str, tuple[int, ...]]
    answer_ids: tuple[int, ...]
    own_answer: tuple[int, ...]

    @property
    def token_sets(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """Ids by family and class; a word that counts in any style is a word."""
        words = {c: tuple(sorted({i for s in self.words.values() for i in s[c]})) for c in self.classes}
        return {"words": words, "glyphs": self.glyphs, "random_words": self.random_words}

    def spec(self) -> dict[str, Any]:
        """Everything that decides what is read, for the store's key."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[no-any-return]


def plan(
    tokenizer: Any,
    vocabulary: tokens.Vocabulary,
    test: Sequence[tasks.Item],
    shown: Sequence[Prompt],
    styles: Sequence[str],
    random_words: Mapping[str, tuple[int, ...]],
    seed: int,
) -> Plan:
    """Prompts of all styles with their halves, and every id that is looked at.

    A problem is in the same half in every style: no layer is chosen on a problem that it is judged on.
    """
    half = _halves(test, seed)
    prompts = [
        Prompt(p.prompt(style), p.cls, p.a, p.b, str(p.answer), style, half[p])
        for style in styles
        for p in test
    ]
    prompts += shown
    prompt_ids = tuple(tokens.encode_prompt(tokenizer, p.text) for p in prompts)
    firsts = [tokens.encode_answer(tokenizer, p.text, p.answer)[0] for p in prompts]
    answer_ids = sorted(set(firsts))
    return Plan(
        prompts=tuple(prompts),
        prompt_ids=prompt_ids,
        classes=tuple(vocabulary.words),
        words={
            style: vocabulary.for_style(
                style,
                [p.text for p in prompts if p.style == style],
                [ids for p, ids in zip(prompts, prompt_ids, strict=True) if p.style == style],
            )
            for style in dict.fromkeys(p.style for p in prompts)
        },
        glyphs=dict(vocabulary.glyphs),
        random_words=dict(random_words),
        answer_ids=tuple(answer_ids),
        own_answer=tuple(answer_ids.index(i) for i in firsts),
    )


def _halves(test: Sequence[tasks.Item], seed: int) -> dict[tasks.Item, int]:
    rng = np.random.default_rng([seed, 7])
    half = {}
    for cls in dict.fromkeys(p.cls for p in test):
        members = [p for p in test if p.cls == cls]
        for rank, index in enumerate(rng.permutation(len(members))):
            half[members[index]] = rank % 2
    return half


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
    model: Any,
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
    with models.adapted(model, checkpoints[0]):
        _require(
            np.array_equal(base, lens.logits(few)), checkpoints[0], "differs from the base model at step 0"
        )
    with progress.task(f"read {label}", len(later), "checkpoint") as task:
        for step in later:
            path = folder / file_of(step)
            if not _whole(path):
                with models.adapted(model, checkpoints[step]):
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
    store.write_atomic(path, buffer.getvalue())
