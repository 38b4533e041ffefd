"""The tables in the folder of a sweep, in chunks of runs.

    metrics/000000-000127.parquet   a row per run and update
    runs/000000-000127.parquet      a row per run; written last, when the chunk is finished

Like `results`, it imports neither jax nor gymnax.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pg.inputs import Optional
from pg.reports import tables
from pg.runs import files, folders, results
from pg.runs.migrations import COLUMNS, migrated

# The expected shape of sweep.json (see `inputs.misfit`).
SWEEP: dict[str, Any] = {
    **folders.SETTINGS,
    "table": {...: list},
    "episodes": int,
    "greedy": bool,
    "exact": bool,
    "first_seed": int,
    "num_seeds": int,
    "presets": Optional({...: list}),
    "settings_of": Optional((str, None)),
}


def read_stored(folder: Path, name: str = "sweep.json") -> dict[str, Any]:
    """The content of sweep.json, or of a search.json, which is one too, under current names.

    Raises ValueError if the folder holds no sweep.
    """
    return migrated(folders.read_json(folder / name, SWEEP))


def chunk_files(folder: Path, kind: str) -> list[Path]:
    """The files of chunks, in order. kind: `runs` or `metrics`."""
    return files.named(folder / kind, r"\d{6,}-\d{6,}\.parquet")


def runs_of(path: Path) -> range:
    """The numbers of a chunk's runs, by the name of its file."""
    first, last = map(int, path.stem.split("-"))
    return range(first, last + 1)


def read_chunk(path: Path, **options: Any) -> dict[str, np.ndarray]:
    """A table of the sweep under current names. options: see `tables.read_parquet`."""
    columns = tables.read_parquet(path, **options)
    former = COLUMNS["sweep"]
    return {former.get(name, name): values for name, values in columns.items()}


def read_runs(folder: Path) -> dict[str, np.ndarray]:
    """The rows of all finished runs, in order; {} if there are none. Raises ValueError if some are
    missing.
    """
    paths = chunk_files(folder, "runs")
    if not paths:
        return {}
    rows = _joined([read_chunk(p, most_rows=len(runs_of(p)), texts=True) for p in paths])
    if "run" not in rows or not np.array_equal(rows["run"], np.arange(len(rows["run"]))):
        raise ValueError(f"{folder / 'runs'} lacks runs between others: remove the later files")
    return rows


def failed_runs(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    """bool [n]: runs without a score, because they diverged. rows: see `read_runs`."""
    failed = rows.get(
        "failed", ~rows["finite"]
    )  # in older tables, a run failed if it was not finite
    return failed | ~np.isfinite(rows["mean"])


def read_metrics(folder: Path, runs: range | None = None) -> dict[int, dict[str, np.ndarray]]:
    """The metrics of each configuration by name, [seeds, updates] each.

    Args:
        folder: of the sweep.
        runs: the runs to read; None: all finished ones.

    Raises:
        ValueError: a file is corrupt.
    """
    finished = {path.name for path in chunk_files(folder, "runs")}
    parts = []
    for path in chunk_files(folder, "metrics"):
        if path.name not in finished:
            continue
        numbers = runs_of(path)
        if runs is None:
            parts.append(read_chunk(path))
        elif numbers.start < runs.stop and runs.start < numbers.stop:
            part = read_chunk(path)
            wanted = (runs.start <= part["run"]) & (part["run"] < runs.stop)
            parts.append({name: values[wanted] for name, values in part.items()})
    rows = _joined(parts)
    if not rows:
        return {}
    rows = _in_order(rows, np.argsort(rows["configuration"], kind="stable"))
    configurations, starts = np.unique(rows["configuration"], return_index=True)
    ends = [*starts[1:], len(rows["configuration"])]
    found = {}
    for g, start, end in zip(configurations.tolist(), starts, ends, strict=True):
        part = {name: values[start:end] for name, values in rows.items()}
        found[g] = results.by_run(part, len(np.unique(part["run"])))
    return found


def _in_order(rows: Mapping[str, np.ndarray], order: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[order] for name, values in rows.items()}


def _joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The concatenation of tables; {} of none."""
    if not parts:
        return {}
    # a new column is only in later files
    names = [name for name in parts[0] if all(name in part for part in parts)]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}
