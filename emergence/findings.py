"""What was found, written down: verdicts of a model that are expected from now on, refutations included.

In: verdicts, and an explicit wish to record them. Out: `findings.json` beside the experiment, and
`FINDINGS.md` made from it. A falsified prediction that is written down is expected: its test is
xfail(strict), so that the day it changes, the suite turns red. Findings hold for one model under one config
and one version of the predictions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import UsageError
from .files import write_atomic
from .predictions import Prediction, Table, load_predictions
from .settings import Experiment, shown_model
from .verdicts import Verdict, is_share

SCHEMA = 1
_KEPT = (
    "outcome", "reason", "statistic", "estimate", "low", "high", "threshold", "baseline", "p", "p_adjusted",
    "layer", "step", "onset", "n_prompts", "n_seeds", "claim", "arm", "style", "family", "band",
)  # fmt: skip
_DIGITS = 6


def load(folder: Path) -> dict[str, Any]:
    """`findings.json` of an experiment's folder; without the file, no models.

    Raises
    ------
    UsageError
        The file is no findings file, or of another schema.
    """
    path = folder / "findings.json"
    if not path.exists():
        return {"schema": SCHEMA, "models": {}}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path}: not JSON ({error}); restore it, or remove it and record again") from None
    if (
        not isinstance(found, dict)
        or found.get("schema") != SCHEMA
        or not isinstance(found.get("models"), dict)
    ):
        raise UsageError(f"{path}: not a findings file of schema {SCHEMA}; remove it and record again")
    return found


def record(
    folder: Path, experiment: Experiment, predictions: Sequence[Prediction], judged: Sequence[Verdict]
) -> Path:
    """Write the verdicts of this model down, other models' stay; returns the path of findings.json.

    Raises
    ------
    UsageError
        The predictions differ from those of a finding of the same version.
    """
    table = _table(folder, predictions)
    found = load(folder)
    _same_version(folder, found, table)
    name = shown_model(experiment.model)
    found["models"][name] = {
        "config": experiment.hash,
        "predictions_version": table.version,
        "predictions_hash": table.hash,
        "findings": {f"{v.prediction}[{v.operation}]": _kept(v) for v in judged},
    }
    found["models"] = dict(sorted(found["models"].items()))
    path = folder / "findings.json"
    write_atomic(path, json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_atomic(folder / "FINDINGS.md", markdown(found, experiment.name))
    return path


def falsified(folder: Path, experiment: Experiment) -> dict[tuple[str, str], str]:
    """(prediction, operation) to the reason, for what is written down as falsified and hence expected.

    Nothing is expected of another model, under another config, or of predictions with another version.

    Raises
    ------
    UsageError
        The predictions have changed since they were recorded, and their version has not.
    """
    found = load(folder)
    if not found["models"]:
        return {}
    table = load_predictions(folder / "predictions.py")
    _same_version(folder, found, table)
    entry = found["models"].get(shown_model(experiment.model))
    if not entry or entry["config"] != experiment.hash or entry["predictions_version"] != table.version:
        return {}
    return {
        _key(name): f"written down as falsified: {kept['reason']}"
        for name, kept in entry["findings"].items()
        if kept["outcome"] == "falsified"
    }


def expected(verdict: Verdict, findings: Mapping[tuple[str, str], str]) -> bool:
    """Whether this verdict is a refutation that `falsified` has on record."""
    return verdict.outcome == "falsified" and (verdict.prediction, verdict.operation) in findings


def _table(folder: Path, predictions: Sequence[Prediction]) -> Table:
    if isinstance(predictions, Table):
        return predictions
    return load_predictions(folder / "predictions.py")


def _same_version(folder: Path, found: Mapping[str, Any], table: Table) -> None:
    for name, entry in found["models"].items():
        if entry["predictions_version"] == table.version and entry["predictions_hash"] != table.hash:
            raise UsageError(
                f"{folder / 'predictions.py'}: the predictions have changed since version {table.version} "
                f"was recorded for {name}; raise VERSION, say why in the commit, and record again"
            )


def _kept(v: Verdict) -> dict[str, Any]:
    kept = {name: _rounded(getattr(v, name)) for name in _KEPT}
    kept["kind"] = v.details.get("kind")
    return kept


def _rounded(value: Any) -> Any:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def _key(name: str) -> tuple[str, str]:
    prediction, _, operation = name.removesuffix("]").partition("[")
    return prediction, operation


# FINDINGS.md ------------------------------------------------------------------------------------------------

_SECTIONS = (
    (
        "falsified",
        "Refuted",
        "These claims are false of this model. They stay in the table, and stay refuted.",
    ),
    ("supported", "Supported", "These claims held."),
    ("inconclusive", "Undecided", "The evidence decides nothing here, either way."),
)
_SIGNS = {"supported": "✓", "falsified": "✗", "inconclusive": "?"}


def markdown(found: Mapping[str, Any], experiment: str) -> str:
    """`FINDINGS.md`: what was found, in words and figures, refutations first."""
    lines = [
        f"# What was found: {experiment}",
        "",
        "Made from `findings.json` by `--record-findings`; do not edit. Figures are of held-out prompts, "
        "brackets are 95 % intervals.",
    ]
    for name, entry in found["models"].items():
        lines += ["", f"## {name}", "", *_overview(entry)]
        for outcome, title, intro in _SECTIONS:
            rows = {k: v for k, v in entry["findings"].items() if v["outcome"] == outcome}
            if rows:
                lines += [
                    "",
                    f"### {title}",
                    "",
                    intro,
                    "",
                    *(line for k, v in rows.items() for line in _told(k, v)),
                ]
    return "\n".join(lines) + "\n"


def _overview(entry: Mapping[str, Any]) -> list[str]:
    cells: dict[str, dict[str, str]] = {}
    claims: dict[str, str] = {}
    for name, kept in entry["findings"].items():
        prediction, operation = _key(name)
        claims[prediction] = kept["claim"]
        cells.setdefault(prediction, {})[operation] = f"{_SIGNS[kept['outcome']]} {_figure(kept)}".strip()
    operations = list(dict.fromkeys(_key(name)[1] for name in entry["findings"]))
    counts = ", ".join(
        f"{sum(v['outcome'] == outcome for v in entry['findings'].values())} {outcome}"
        for outcome, *_ in _SECTIONS
    )
    head = ["", "claim", *operations]
    return [
        f"{counts}. Config `{entry['config']}`, predictions version {entry['predictions_version']}.",
        "",
        f"| {' | '.join(head)} |",
        f"|{' --- |' * len(head)}",
        *(
            f"| {p} | {claims[p]} | {' | '.join(row.get(o, '') for o in operations)} |"
            for p, row in cells.items()
        ),
    ]


def _figure(kept: Mapping[str, Any]) -> str:
    """`42 % [38, 46] L24`, or a plain number where the statistic is no mass."""
    if kept["estimate"] is None:
        return ""
    share = is_share(kept["statistic"])
    numbers = [f"{100 * kept[k]:.0f}" if share else f"{kept[k]:.2f}" for k in ("estimate", "low", "high")]
    layer = "" if kept["layer"] is None else f" L{kept['layer']}"
    return f"{numbers[0]}{' %' * share} [{numbers[1]}, {numbers[2]}]{layer}"


def _told(name: str, kept: Mapping[str, Any]) -> list[str]:
    onset = ""
    if kept["onset"]:
        before, this = kept["onset"]
        onset = (
            f" It emerged between steps {before} and {this}."
            if before is not None
            else f" There at step {this}."
        )
    seeds = f"{kept['n_seeds']} seed{'s' * (kept['n_seeds'] != 1)}"
    judged = f"{kept['arm']}, {kept['style']} prompts, {kept['n_prompts']} a class, {seeds}"
    return [
        f"- **{name}** {kept['claim']}  ",
        f"  {kept['reason'][:1].upper()}{kept['reason'][1:]}.{onset} ({judged})",
    ]
