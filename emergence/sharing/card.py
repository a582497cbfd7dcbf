"""The model card: what was trained, how to load it, what was found, where it comes from.

In: a checkpoint of a run. Out: Markdown. What a config or a model said is text in it, never markup.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..report import answers, sources, tables
from .kept import Chosen

_SIGNS = {name: sign for name, (sign, _) in tables.BADGES.items()}


def card(chosen: Chosen, base: str, without_peft: str, has_base: bool) -> str:
    """The text of `README.md`; `without_peft` is the reason why there is no `peft/`, or empty."""
    info, run = chosen.info, chosen.run
    name = f"{info['experiment']}, {run.arm}, seed {run.seed}, step {chosen.step}"
    parts = [
        _front(base, bool(without_peft)),
        f"# {_plain(name)}\n\n{_plain(info.get('description') or '')}",
        _loading(base, without_peft, has_base),
        _training(chosen),
        _verdicts(chosen),
        _provenance(chosen),
    ]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _plain(text: str) -> str:
    """Text that stays one cell of a table, and no markup."""
    for sign in "\\`*_[]<>|#":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


def _front(base: str, no_peft: bool) -> str:
    lines = [f"library_name: {'mlx' if no_peft else 'peft'}", "pipeline_tag: text-generation"]
    lines += [f"base_model: {json.dumps(base)}"] * ("/" in base)
    return "\n".join(["---", *lines, "tags: [emergence, mlx, lora, interpretability]", "---"])


def _loading(base: str, without_peft: str, has_base: bool) -> str:
    folder = "base" if has_base else base
    said = f"The base is {_plain(base)}" + (
        ", written out in `base/` in float32: transformers and mlx-lm load it." if has_base else "."
    )
    if not has_base and "/" not in base:
        said += (
            " It is no model of the hub: `--base` with the command that made this folder writes it out."
            " Below, `BASE` is that folder."
        )
        folder = "BASE"
    code = f'from mlx_lm import load\n\nmodel, tokenizer = load("{folder}", adapter_path="mlx")'
    blocks = [f"## To load it\n\n{said}", f"```python\n{code}\n```"]
    if without_peft:
        blocks.append(f"There is no adapter for peft: {_plain(without_peft)}.")
    else:
        code = (
            "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
            f'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{folder}"), "peft")'
        )
        blocks.append(f"```python\n{code}\n```")
    return "\n\n".join(blocks)


def _training(chosen: Chosen) -> str:
    row = next((r for r in chosen.run.log if r["step"] == chosen.step), {})
    lora = chosen.settings.get("lora") or {}
    known = {
        "method": chosen.settings.get("method"),
        "fine-tuning": chosen.settings.get("fine_tune_type"),
        "rank": lora.get("rank"),
        "alpha": lora.get("alpha"),
        "targets": ", ".join(lora.get("targets", ())),
        "learning rate": chosen.settings.get("learning_rate"),
        "batch size": chosen.settings.get("batch_size"),
        "updates so far": chosen.step,
        "validation loss": row.get("valid_loss"),
        "whole validation answers right": _percent(row.get("valid_exact")),
    }
    return "## Training\n\n" + _table(
        ("what", "value"),
        [
            (name, sources.plain(v) if isinstance(v, float) else str(v))
            for name, v in known.items()
            if v not in (None, "")
        ],
    )


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f} %"


def _verdicts(chosen: Chosen) -> str:
    """One row a claim, one column a class; all claims of the experiment, whichever arm they are about."""
    classes = list(dict.fromkeys(v.cls for v in chosen.verdicts))
    rows = []
    for answer in answers.answers(chosen.verdicts):
        of = {v.cls: f"{_SIGNS[v.outcome]} {v.outcome} {tables.interval(v)}" for v in answer.verdicts}
        rows.append(
            (answer.prediction, answer.claim, answer.verdicts[0].arm, *(of.get(c, "") for c in classes))
        )
    said = (
        f"The verdicts of the whole experiment, estimates with their 95 % intervals: "
        f"{tables.counts(chosen.verdicts)}. The column *arm* says which training a claim is about;"
        f" this is {_plain(chosen.run.arm)}, seed {chosen.run.seed} of it."
    )
    return f"## Verdicts\n\n{said}\n\n{_table(('id', 'claim', 'arm', *classes), rows)}"


def _provenance(chosen: Chosen) -> str:
    known = chosen.info["provenance"]
    rows = [*sources.summary(known), ("this run's key", chosen.run.entry.key)]
    rows += [(f"{k} data (SHA-256)", v) for k, v in chosen.run.entry.manifest["spec"]["data"].items()]
    if commit := (known.get("registration") or {}).get("head"):
        rows.append(("commit", commit))
    command = known.get("command")
    again = f"\n\n## To make it again\n\n    {command}\n" if command else ""
    return f"## Provenance\n\n{_table(('what', 'value'), rows)}{again}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    plain = [line if n == 1 else [_plain(cell) for cell in line] for n, line in enumerate(lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in plain)
