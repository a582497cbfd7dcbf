"""Findings to `FINDINGS.md`: what was found, in words and figures, refutations first.

In: the content of `findings.json`. Out: Markdown for people, beside the experiment's predictions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..store.files import write_atomic
from ..verdicts.findings import claim_and_class
from ..verdicts.verdict import is_share
from .tables import BADGES

FILE = "FINDINGS.md"
_SECTIONS = {
    "falsified": (
        "Refuted",
        "These claims are false of this model. They stay in the table, and stay refuted.",
    ),
    "supported": ("Supported", "These claims held."),
    "inconclusive": ("Undecided", "The evidence decides nothing here, either way."),
}


def write_findings(folder: Path, content: Mapping[str, Any], experiment: str) -> Path:
    """Write the page beside `findings.json`, whose content it tells; returns its path."""
    write_atomic(folder / FILE, markdown(content, experiment))
    return folder / FILE


def markdown(content: Mapping[str, Any], experiment: str) -> str:
    """The page as text; `content` is what `findings.load` gives, `experiment` its name."""
    lines = [
        f"# What was found: {experiment}",
        "",
        "Made from `findings.json` by `--record-findings`; do not edit. Figures are of held-out prompts, "
        "brackets are 95 % intervals.",
    ]
    for name, entry in content["models"].items():
        lines += ["", f"## {name}", "", *_overview(entry)]
        for outcome, (title, intro) in _SECTIONS.items():
            findings = {k: v for k, v in entry["findings"].items() if v["outcome"] == outcome}
            if findings:
                lines += ["", f"### {title}", "", intro, ""]
                lines += [line for k, v in findings.items() for line in _item(k, v)]
    return "\n".join(lines) + "\n"


def _overview(entry: Mapping[str, Any]) -> list[str]:
    """Counts, and a table with a row a claim and a column a class."""
    cells: dict[str, dict[str, str]] = {}
    claims: dict[str, str] = {}
    outcomes = [finding["outcome"] for finding in entry["findings"].values()]
    for name, finding in entry["findings"].items():
        prediction, cls = claim_and_class(name)
        claims[prediction] = finding["claim"]
        sign, _ = BADGES[finding["outcome"]]
        deviated = " DEVIATED" * bool(finding.get("deviated"))
        cells.setdefault(prediction, {})[cls] = f"{sign} {_figure(finding)}{deviated}".strip()
    classes = list(dict.fromkeys(cls for row in cells.values() for cls in row))
    counts = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in _SECTIONS)
    head = ["id", "claim", *classes]
    return [
        f"{counts}. Config `{entry['config']}`, predictions version {entry['predictions_version']}.",
        *_registered(entry),
        "",
        f"| {' | '.join(head)} |",
        f"|{' --- |' * len(head)}",
        *(
            f"| {p} | {claims[p]} | {' | '.join(row.get(cls, '') for cls in classes)} |"
            for p, row in cells.items()
        ),
    ]


def _registered(entry: Mapping[str, Any]) -> list[str]:
    """By what the verdicts were judged, and since when that has been fixed."""
    lines = []
    if entry["predictions_version"] == 1:
        lines.append(
            "Version 1 of the predictions was written after prototype runs, whose results were known."
        )
    if known := entry.get("registration"):
        table = known["git"] or f"commit `{known['commit'][:12]}` of {known['committed']}"
        dirty = ", with uncommitted changes in the repository" if known["dirty"] else ""
        lines.append(
            f"Table `{known['predictions'][:12]}` ({table}{dirty}), judged by `{known['judging']}`, training "
            f"began {known['began'] or 'at a time that is not known'}."
        )
        if known["deviated"]:
            lines.append(f"**DEVIATED**: {known['deviated']}.")
    return ["", *lines] if lines else []


def _figure(finding: Mapping[str, Any]) -> str:
    """`42 % [38, 46] L24`, or a plain number where the statistic is no mass."""
    if finding["estimate"] is None:
        return ""
    share = is_share(finding["statistic"])
    values = [finding[name] for name in ("estimate", "low", "high")]
    numbers = [f"{100 * x:z.0f}" if share else f"{x:z.2f}" for x in values]
    layer = "" if finding["layer"] is None else f" L{finding['layer']}"
    return f"{numbers[0]}{' %' * share} [{numbers[1]}, {numbers[2]}]{layer}"


def _item(name: str, finding: Mapping[str, Any]) -> list[str]:
    """One finding in words: the claim, and the sentence that decided."""
    onset = ""
    if finding["onset"]:
        before, this = finding["onset"]
        onset = f" First detected at step {this}, not at step {before}."
        if before is None:
            onset = f" Detected from step {this} on."
    seeds = f"{finding['n_seeds']} seed{'s' * (finding['n_seeds'] != 1)}"
    judged = f"{finding['arm']}, {finding['style']} prompts, {finding['n_prompts']} a class, {seeds}"
    depends = f" {finding['depends'][:1].upper()}{finding['depends'][1:]}." if finding.get("depends") else ""
    deviated = f" **DEVIATED**: {finding['deviated']}." if finding.get("deviated") else ""
    return [
        f"- **{name}** {finding['claim']}  ",
        f"  {finding['reason'][:1].upper()}{finding['reason'][1:]}.{onset}{depends}{deviated} ({judged})",
    ]
