"""What a run leaves for other programs: `verdicts.json`, Parquet, CSV.

In: verdicts, a `Study`. Out: files, documented in docs/data.md; `open_run` reads them back as pandas frames
and xarray arrays; both libraries load when one is asked for, and not for the verdicts alone.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..analysis import frames
from ..config.settings import shown_model
from ..errors import BrokenExperiment, UsageError
from ..readings.readings import Study
from ..store.files import write_atomic
from ..verdicts.verdict import Verdict
from .records import VERDICTS, newest, plain

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

SCHEMA = 2
"""Of `verdicts.json`; raised when a field changes its meaning or goes. 2: `operation` has become `class`."""
READINGS, STRENGTH = "readings.parquet", "strength"


@dataclass(frozen=True)
class OpenRun:
    """The results of one experiment on one model, read from its folder."""

    folder: Path
    info: dict[str, Any]
    """Everything of `verdicts.json` but the verdicts: experiment, model, provenance, ..."""

    @functools.cached_property
    def verdicts(self) -> pd.DataFrame:
        """One row a verdict, the columns of `Verdict.as_row`."""
        import pandas as pd

        return pd.DataFrame([v.as_row() for v in read_verdicts(self.folder)[1]])

    @functools.cached_property
    def strength(self) -> pd.DataFrame:
        """Means over the evaluation half by arm, seed, style, class, family, step, layer."""
        return _parquet(self.folder / f"{STRENGTH}.parquet")

    @functools.cached_property
    def readings(self) -> pd.DataFrame:
        """One row a reading: arm, seed, step, layer, prompt."""
        return _parquet(self.folder / READINGS)

    def prompts(self) -> pd.DataFrame:
        """One row a prompt: text, class, style, half; the index is the `prompt` axis."""
        columns = ["prompt", "text", "class", "style", "half"]
        return self.readings[columns].drop_duplicates().set_index("prompt").sort_index()

    def array(self, arm: str, column: str = "words") -> xr.DataArray:
        """A column of `readings`, such as `words`, `answer` or `kl`, as `[seed, step, layer, prompt]`.

        `array.sel(step=300, layer=16)`; along `prompt` lie its text, class, style and half.

        Raises
        ------
        UsageError
            No such arm or column.
        """
        import xarray as xr

        if column not in self.readings.columns:
            raise UsageError(f"column {column!r} is none of {', '.join(self.readings.columns)}")
        rows = self.readings[self.readings["arm"] == arm]
        if rows.empty:
            raise UsageError(f"arm {arm!r} is none of {', '.join(self.readings['arm'].unique())}")
        axes = ("seed", "step", "layer", "prompt")
        rows = rows.sort_values(list(axes), kind="stable")
        labels: dict[str, Any] = {axis: sorted(rows[axis].unique().tolist()) for axis in axes}
        values = rows[column].to_numpy().reshape([len(labels[a]) for a in axes])
        prompts = self.prompts().loc[labels["prompt"]]
        labels |= {name: ("prompt", prompts[name].to_numpy()) for name in prompts.columns}
        return xr.DataArray(
            values, labels, axes, name=column, attrs={"arm": arm, "model": self.info["model"]}
        )


def open_run(folder: str | Path) -> OpenRun:
    """Open results: those in `folder`, or the latest ones of an experiment (`<store>/experiments/<name>`).

    Raises
    ------
    UsageError
        There are none.
    BrokenExperiment
        They are damaged.
    """
    folder = newest(Path(folder)) or Path(folder)
    return OpenRun(folder, read_verdicts(folder)[0])


def _parquet(path: Path) -> pd.DataFrame:
    import pandas as pd

    if not path.exists():
        raise UsageError(f"{path}: there is no such file; run the experiment first")
    return pd.read_parquet(path)


def document(experiment: Any, verdicts: Sequence[Verdict], provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `verdicts.json`."""
    return {
        "schema": SCHEMA,
        "experiment": experiment.name,
        "model": shown_model(experiment.model),
        "config_hash": experiment.hash,
        "predictions_version": plain(provenance.get("predictions_version")),
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "provenance": plain(provenance),
        "verdicts": [plain(v.as_row()) for v in verdicts],
    }


def read_verdicts(folder: Path) -> tuple[dict[str, Any], list[Verdict]]:
    """What stands in `verdicts.json`: everything else, and the verdicts.

    Raises
    ------
    UsageError
        No results yet, or a schema that this version does not read.
    BrokenExperiment
        The file is damaged.
    """
    path = folder / VERDICTS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (schema := content["schema"]) != SCHEMA:
            raise UsageError(
                f"{path}: schema {schema} is not {SCHEMA}, which this version reads; run the experiment again"
            )
        return content, [Verdict.from_row(row) for row in content.pop("verdicts")]
    except FileNotFoundError:
        raise UsageError(f"{folder}: no results yet; run the experiment first") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrokenExperiment(f"{path}: damaged ({error}); run the experiment again") from None


def write_tidy(folder: Path, study: Study) -> list[Path]:
    """`readings.parquet` (a row a reading), `strength.parquet` and `strength.csv` (means)."""
    strengths = frames.strengths(study)
    writers: dict[str, Callable[[Path], Any]] = {
        READINGS: functools.partial(_write_readings, study),
        f"{STRENGTH}.parquet": lambda path: strengths.to_parquet(path, compression="zstd", index=False),
        f"{STRENGTH}.csv": lambda path: strengths.to_csv(path, index=False, float_format="%.6g"),
    }
    for name, writer in writers.items():
        write_atomic(folder / name, writer)
    return [folder / name for name in writers]


def _write_readings(study: Study, path: Path) -> None:
    """A table a run, one after the other: all at once would need their memory at once."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer: pq.ParquetWriter | None = None
    try:
        for run in study.runs:
            table = pa.Table.from_pandas(frames.tidy(run), preserve_index=False)
            writer = writer or pq.ParquetWriter(path, _plain_schema(table.schema), compression="zstd")
            writer.write_table(table.cast(_plain_schema(table.schema)))
    finally:
        if writer is not None:
            writer.close()


def _plain_schema(schema: Any) -> Any:
    """Categories as strings: every run has its own, and one file needs one schema."""
    import pyarrow as pa

    fields = [pa.field(f.name, pa.string()) if pa.types.is_dictionary(f.type) else f for f in schema]
    return pa.schema(fields)
