"""What was found, written down: verdicts of a model that are expected from now on, refutations included.

In: verdicts, and an explicit wish to record them. Out: `findings.json` beside the experiment, and
`FINDINGS.md` made from it. A falsified prediction that is written down is expected: its test is
xfail(strict), so that the day it changes, the suite turns red. A record belongs to one model, its weights,
one config and one version of the predictions: it is expected of nothing else, and nothing else replaces it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import loading as config
from ..config.settings import Config, shown_model
from ..errors import UsageError
from ..store.files import write_atomic
from .judging import Verdict, is_share
from .predictions import Table

SCHEMA = 2
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


def same_version(folder: Path, table: Table) -> None:
    """Refuse predictions that have changed since they were recorded.

    Raises
    ------
    UsageError
        Their version has not changed with them.
    """
    for name, entry in load(folder)["models"].items():
        if entry["predictions_version"] == table.version and entry["predictions_hash"] != table.hash:
            raise UsageError(
                f"{folder / 'predictions.py'}: the predictions have changed since version {table.version} "
                f"was recorded for {name}; raise VERSION, say why in the commit, and record again"
            )


def recordable(folder: Path, experiment: Config, weights: str | None = None) -> None:
    """Refuse, before anything is trained, what `record` would refuse; `weights` may not be known yet.

    Raises
    ------
    UsageError
        What is on record was measured with other settings or weights: they, and what to do, in one line.
    """
    found, name = load(folder), shown_model(experiment.model)
    if name in found["models"] and (
        other := _differences(folder, found["models"][name], experiment, weights)
    ):
        raise UsageError(
            f"{folder / 'findings.json'}: {name} is on record with {_listed(other)}; "
            f"run with what is on record, or remove {name} from the file to record it anew"
        )


def record(folder: Path, experiment: Config, weights: str, table: Table, judged: Sequence[Verdict]) -> Path:
    """Write the verdicts of this model down, other models' stay; returns the path of findings.json.

    `weights` is the hash of the model that was measured (`models.Source.hash`).

    Raises
    ------
    UsageError
        As `same_version` and `recordable`.
    """
    same_version(folder, table)
    recordable(folder, experiment, weights)
    found = load(folder)
    found["models"][shown_model(experiment.model)] = {
        "weights": weights,
        "config": experiment.hash,
        "predictions_version": table.version,
        "predictions_hash": table.hash,
        "findings": {f"{v.prediction}[{v.cls}]": _kept(v) for v in judged},
    }
    found["models"] = dict(sorted(found["models"].items()))
    path = folder / "findings.json"
    write_atomic(path, json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_atomic(folder / "FINDINGS.md", markdown(found, experiment.name))
    return path


def falsified(folder: Path, experiment: Config, weights: str, table: Table) -> dict[tuple[str, str], str]:
    """(prediction, class) to the reason, for what is written down as falsified and hence expected.

    Nothing is expected of other weights, under another config, or of predictions with another version.

    Raises
    ------
    UsageError
        The predictions have changed since they were recorded, and their version has not.
    """
    entry = load(folder)["models"].get(shown_model(experiment.model))
    if not entry:
        return {}
    same_version(folder, table)
    of_this = {"weights": weights, "config": experiment.hash, "predictions_version": table.version}
    if any(entry[k] != v for k, v in of_this.items()):
        return {}
    return {
        _key(name): f"written down as falsified: {kept['reason']}"
        for name, kept in entry["findings"].items()
        if kept["outcome"] == "falsified"
    }


def _differences(
    folder: Path, entry: Mapping[str, Any], experiment: Config, weights: str | None
) -> list[str]:
    """What a record was measured with and this run is not, as `max_steps 300, not 20`."""
    found = []
    if weights not in (None, entry["weights"]):
        found.append(f"weights {entry['weights'][:12]}, not {str(weights)[:12]}")
    if experiment.hash == entry["config"]:
        return found
    try:
        written = config.load(folder / "config.yaml", {"model": experiment.model})
    except UsageError:
        written = experiment
    if written.hash != entry["config"]:
        return [*found, f"config {entry['config']}, not {experiment.hash}"]
    before, now = _flat(written.model_dump(mode="json")), _flat(experiment.model_dump(mode="json"))
    named = [k for k in dict.fromkeys([*before, *now]) if before.get(k) != now.get(k)]
    return [*found, *(f"{k} {before.get(k)}, not {now.get(k)}" for k in named)]


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested settings by their dotted path; arms go by their names."""
    if isinstance(value, list) and value and isinstance(value[0], dict) and "name" in value[0]:
        value = {row["name"]: row for row in value}
    if not isinstance(value, dict):
        return {path: value}
    return {
        k: v for name, inner in value.items() for k, v in _flat(inner, f"{path}.{name}".strip(".")).items()
    }


def _listed(parts: Sequence[str]) -> str:
    return "; ".join(parts[:3]) + (f"; and {len(parts) - 3} more" if len(parts) > 3 else "")


def _kept(v: Verdict) -> dict[str, Any]:
    kept = {name: _rounded(getattr(v, name)) for name in _KEPT}
    kept["kind"] = v.details.get("kind")
    return kept


def _rounded(value: Any) -> Any:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def _key(name: str) -> tuple[str, str]:
    prediction, _, cls = name.removesuffix("]").partition("[")
    return prediction, cls


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
        prediction, cls = _key(name)
        claims[prediction] = kept["claim"]
        cells.setdefault(prediction, {})[cls] = f"{_SIGNS[kept['outcome']]} {_figure(kept)}".strip()
    classes = list(dict.fromkeys(_key(name)[1] for name in entry["findings"]))
    counts = ", ".join(
        f"{sum(v['outcome'] == outcome for v in entry['findings'].values())} {outcome}"
        for outcome, *_ in _SECTIONS
    )
    head = ["", "claim", *classes]
    return [
        f"{counts}. Config `{entry['config']}`, predictions version {entry['predictions_version']}.",
        "",
        f"| {' | '.join(head)} |",
        f"|{' --- |' * len(head)}",
        *(
            f"| {p} | {claims[p]} | {' | '.join(row.get(o, '') for o in classes)} |"
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
