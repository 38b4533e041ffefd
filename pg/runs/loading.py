"""Runs of every kind by their paths: folders of runs, of sweeps and of benchmarks, at once.

`load` makes one table of their metrics or of their final scores; `find` returns the runs
themselves, grouped by settings. Like `results`, it imports neither jax nor gymnax.
"""

import glob
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from pg.config import Config, Hyperparams
from pg.inputs import check_name, shown
from pg.runs import code, folders, results, sweeps
from pg.settings import own_files
from pg.settings.stored_params import FIELDS as STORED

if TYPE_CHECKING:
    import pyarrow

ENV_PARAM = "env_params."  # before the name of a parameter of the environment
_INFINITE = {"inf": float("inf"), "-inf": float("-inf")}  # as in strict JSON
_UNITED = "permissive"  # unifies int32 and int64; missing values are null


class Runs(NamedTuple):
    """The runs of one setting in a folder, one per seed."""

    folder: Path  # of the run, or of the sweep
    configuration: int | None  # its number in the sweep
    settings: dict[str, Any]  # by name, as in `flat_settings`
    seeds: list[int]
    metrics: dict[str, np.ndarray]  # [seeds, updates] each
    # mean return of each final evaluation, by how actions are chosen, "sampled" or "greedy":
    # [seeds], NaN of a seed that diverged; {} of runs that have not finished
    scores: dict[str, np.ndarray]
    is_fresh: bool = (
        False  # fresh seeds of a sweep's best configuration, which were not used to select it
    )

    @property
    def name(self) -> str:
        """The folder, and for a sweep the number of the configuration."""
        number = "" if self.configuration is None else f"#{self.configuration}"
        return f"{self.folder}{number}"


class Found(NamedTuple):
    """The runs at some paths."""

    runs: list[Runs]
    # folders of runs that have no metrics yet, and of sweeps without a finished configuration
    empty: list[Path]


def load(
    paths: str | Path | Iterable[str | Path],
    *more: str | Path,
    columns: Sequence[str] | None = None,
    per: Literal["update", "seed"] = "update",
) -> "pyarrow.Table":
    """Runs as one tidy table: a row per run, seed and update, with the metrics, or a row per run
    and seed, with the final scores.

    `load(...).to_pandas()` is a frame of pandas, `polars.from_arrow(load(...))` one of polars. A
    sweep is all of its configurations; the fresh seeds of its best one are the run SWEEP/best,
    which is a path of its own: `load([sweep, sweep / "best"])`.

    Args:
        paths: of folders as `find` takes them, or one path.
        more: further paths, so that `load(a, b)` is `load([a, b])`.
        columns: settings, and metrics or scores, to include besides the labels; None: all.
        per: "update" for the metrics of every update, "seed" for the scores of every seed.

    Returns:
        The labels `run` (its folder), `configuration` (its number, if a sweep is among them),
        `seed`, `update` (not per seed) and `total_env_steps`; then the settings, by the names of
        Config and Hyperparams, parameters of the environment as `env_params.NAME`; then, per
        update, the metrics. Per seed these are `sampled` and `greedy`, the mean return of its final
        evaluation with such actions, and `diverged`, True for a seed whose scores are NaN. Null if
        a run lacks a setting, a metric or an evaluation, as one that has not finished does.

    Raises:
        ValueError: as `find` does; there are no metrics; or there is no such column.
    """
    import pyarrow

    if per not in ("update", "seed"):
        raise ValueError(f"per must be 'update' or 'seed', got {shown(per)}")
    found = find([*_listed(paths), *more])
    if not found.runs:
        raise ValueError(_without_metrics(found.empty[0]))
    types = {name: _type(values) for name, values in _settings(found.runs).items()}
    is_swept = any(runs.configuration is not None for runs in found.runs)
    tables = [_per_update(runs) if per == "update" else _per_seed(runs) for runs in found.runs]
    labels = set(results.LABELS)
    values = dict.fromkeys(name for rows in tables for name in rows if name not in labels)
    for name in columns or ():
        check_name("column", name, [*types, *values])
    wanted = {*types, *values} if columns is None else set(columns)
    parts = []
    for runs, rows in zip(found.runs, tables, strict=True):
        num_rows = len(rows["seed"])

        def repeated(value: Any, kind: Any, num_rows: int = num_rows) -> Any:
            return pyarrow.repeat(pyarrow.scalar(value, kind), num_rows)

        part = {"run": repeated(str(runs.folder), pyarrow.string())}
        if is_swept:
            part["configuration"] = repeated(runs.configuration, pyarrow.int64())
        part |= {name: rows[name] for name in results.LABELS if name in rows}
        for name, kind in types.items():
            if name in wanted:
                part[name] = repeated(_as_kind(runs.settings.get(name), kind), kind)
        part |= {name: rows[name] for name in values if name in rows and name in wanted}
        parts.append(pyarrow.table(part))
    return pyarrow.concat_tables(parts, promote_options=_UNITED)


def _per_update(runs: Runs) -> dict[str, np.ndarray]:
    """The metrics of runs, a row per seed and update, after their labels."""
    return results.long_form(runs.metrics, seed=np.asarray(runs.seeds, np.int64))


def _per_seed(runs: Runs) -> dict[str, Any]:
    """The final scores of runs, a row per seed, after their labels."""
    import pyarrow

    num_seeds = len(runs.seeds)
    diverged = results.failed_runs(runs.metrics, runs.settings["on_nonfinite"])
    for scores in runs.scores.values():
        diverged = diverged | np.isnan(scores)
    rows = {
        "seed": np.asarray(runs.seeds, np.int64),
        "total_env_steps": runs.metrics["env_steps"].sum(axis=1, dtype=np.int64),
    }
    for actions in ("sampled", "greedy"):
        rows[actions] = runs.scores.get(actions, pyarrow.nulls(num_seeds, pyarrow.float64()))
    return {**rows, "diverged": diverged}


def find(paths: str | Path | Iterable[str | Path]) -> Found:
    """The runs at some paths, in their order, each folder once.

    Args:
        paths: each a folder of a run, a sweep (every configuration whose seeds are finished, on
            the seeds of the sweep), a search (each of its rungs or batches is a sweep), a folder
            above such folders, such as a benchmark's, or a glob of these. A single path need not be
            in a list.

    Raises:
        ValueError: a path does not exist, a glob matches no run, or a file is corrupt.
    """
    places: dict[Path, Path] = {}  # resolved, so that each counts once
    for path in _listed(paths):
        for place in _places(Path(path).expanduser()):
            places.setdefault(place.resolve(), place)
    if not places:
        raise ValueError("no path was given: give the folders of runs or of sweeps")
    runs, empty = [], []
    for place in places.values():
        found = []
        if _is_sweep(place):
            found = _of_sweep(place)
        elif results.has_metrics(place):
            found = [_of_run(place)]
        runs += found
        empty += [] if found else [place]
    return Found(runs, empty)


def _listed(paths: str | Path | Iterable[str | Path]) -> list[str | Path]:
    """One path, or several, as a list."""
    return [paths] if isinstance(paths, str | Path) else list(paths)


def _without_metrics(folder: Path) -> str:
    """The error for the folder of a run or a sweep without metrics."""
    if _is_sweep(folder):
        return f"no configuration of the sweep {folder} has finished all its seeds yet"
    return f"there are no metrics in {folder} yet"


def flat_settings(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run by name, plain values: those of Config, of Hyperparams,
    `env_params.NAME`, and the digest of a custom part, as `estimator_code`, and of initial
    parameters; lists as strings, "64 64".

    stored: config, hyperparams and the other entries, as in `folders.read_stored`; newer fields
    have their defaults.
    """
    defaults = folders.default_settings()
    config = {**defaults["config"], **stored["config"]}
    env_params = config.pop("env_params")
    hyperparams = {**defaults["hyperparams"], **stored["hyperparams"]}
    settings = {**config, **hyperparams}
    if stored.get("env_class"):
        settings["env_class"] = stored["env_class"]
    for field, part in _parts_of(stored):
        settings[f"{field}_code"] = code.digest(part)[: code.SHORT]
    for field in STORED:
        settings[field] = settings[field] and settings[field][: code.SHORT]
    # a run that ends at a return has no fixed length
    if (target := stored.get("options", {}).get("stop_at_return")) is not None:
        settings["stop_at_return"] = target
    settings |= {f"{ENV_PARAM}{name}": value for name, value in dict(env_params).items()}
    return {name: _plain(value) for name, value in settings.items()}


def _parts_of(stored: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The custom parts with their fields: for a run by field; for a sweep a list of those of all
    configurations, from which these settings select theirs.
    """
    parts = stored.get("parts", {})
    if isinstance(parts, Mapping):
        yield from parts.items()
        return
    for part in parts:
        if stored["config"].get(part["field"]) == part["name"]:
            yield part["field"], part


def _places(path: Path) -> list[Path]:
    """The folders of runs and of sweeps that a path stands for. Raises ValueError if there are
    none.
    """
    if not path.exists() and glob.has_magic(str(path)):
        matches = sorted(map(Path, glob.glob(str(path), recursive=True)))
        places = [place for match in matches if match.is_dir() for place in _below(match)]
        if not places:
            what = "no folder of a run or a sweep" if matches else "nothing"
            raise ValueError(f"{what} matches {path}")
        return places
    if not path.exists():
        raise ValueError(
            f"there is no folder {path}: give the one that pg train or pg sweep has printed"
        )
    places = _below(path) if path.is_dir() else []
    # its error says what the folder is instead of a run
    return places or [folders.run_folder(path)]


def _below(folder: Path) -> list[Path]:
    """The folder itself, if it holds a run or a sweep, or those below it that do."""
    if _is_sweep(folder) or os.path.lexists(folder / "config.json"):
        return [folder]
    places = []
    for above, names, inside in os.walk(folder):
        if "search.json" in inside and "best" in names:  # a sweep's
            names.remove("best")
        # versions.json too, as other programs also write a config.json
        if "sweep.json" in inside or {"config.json", "versions.json"} <= set(inside):
            places.append(Path(above))
            names.clear()
        names.sort()
    return places


def _is_sweep(folder: Path) -> bool:
    return os.path.lexists(folder / "sweep.json")


def _of_run(folder: Path) -> Runs:
    found = results.load_results(folder)
    is_search = os.path.lexists(folder.parent / "search.json")
    is_fresh = folder.name == "best" and (is_search or _is_sweep(folder.parent))
    settings = flat_settings(found.settings)
    scores = results.final_means(found)
    return Runs(folder, None, settings, found.seeds, found.metrics, scores, is_fresh)


def _of_sweep(folder: Path) -> list[Runs]:
    stored = sweeps.read_stored(folder)
    rows = sweeps.read_runs(folder)
    if not rows:
        return []
    means = np.where(sweeps.failed_runs(rows), np.nan, rows["mean"])
    actions = "greedy" if stored["greedy"] else "sampled"
    found = []
    for g, metrics in sweeps.read_metrics(folder).items():
        chosen = rows["configuration"] == g
        seeds = rows["seed"][chosen].tolist()
        if len(seeds) < stored["num_seeds"]:
            continue
        table = {**stored.get("presets", {}), **stored["table"]}
        values = {name: column[g] for name, column in table.items()}
        settings = flat_settings(_with_values(stored, values))
        found.append(Runs(folder, g, settings, seeds, metrics, {actions: means[chosen]}))
    return found


def _with_values(stored: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a sweep with the values of one configuration."""
    config, hyperparams = dict(stored["config"]), dict(stored["hyperparams"])
    env_params = dict(config.get("env_params", {}))
    for name, value in values.items():
        if name in Config.__dataclass_fields__:
            # a custom part is represented by its name, as for a run
            config[name] = value.rpartition(":")[2] if own_files.is_reference(value) else value
        elif name in Hyperparams._fields:
            hyperparams[name] = value
        else:
            env_params[name] = value
    return {**stored, "config": {**config, "env_params": env_params}, "hyperparams": hyperparams}


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return _INFINITE.get(value, value) if isinstance(value, str) else value


def _settings(runs: Iterable[Runs]) -> dict[str, list[Any]]:
    """The values of each setting that occurs in any of the runs."""
    values: dict[str, list[Any]] = {}
    for one in runs:
        for name, value in one.settings.items():
            values.setdefault(name, []).append(value)
    return values


def _as_kind(value: Any, kind: Any) -> Any:
    """The value for a column of a type; a string in a column of mixed types."""
    import pyarrow

    return str(value) if value is not None and kind == pyarrow.string() else value


def _type(values: Sequence[Any]) -> Any:
    """The type of a column that can hold all values: bool, int64, double or string."""
    import pyarrow

    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pyarrow.bool_()
    if kinds == {int}:
        return pyarrow.int64()
    if kinds and kinds <= {int, float}:
        return pyarrow.float64()
    return pyarrow.string()
