"""A study: what is tried, and the folder in which its runs are kept; the same study finds the same
folder.

OUT/ENV/ESTIMATOR/<digest of what is tried>/
    sweep.json                  settings, points, seeds, width, versions
    metrics/000000-000127.parquet   a row per run and update
    runs/000000-000127.parquet      a row per run; written last: such a chunk is finished
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pg import envs
from pg.commands import cli
from pg.config import Config, Hyperparams, check_together, merge_env_params
from pg.fast.devices import Layout
from pg.inputs import Optional, check_name
from pg.reports import tables
from pg.runs import execution as runs
from pg.runs import files, folders, results
from pg.sweep.chunks import Chunk
from pg.sweep.points import Table, hyperparams_of
from pg.train import make_learner

# Columns of a row per run besides what the run is: those of `results.per_seed` that are needed.
RESULTS = ("env_steps", "finite", "mean", "standard_error", "min", "max")
WIDEST = 2**20  # runs side by side on a device, at most


@dataclass(frozen=True)
class Study:
    """What is tried: points × seeds on top of a setting, and how the final policies are
    evaluated.
    """

    config: Config
    hyperparams: Hyperparams
    # G values of each name: of a field of Config, of Hyperparams, or of a parameter of the
    # environment
    table: Table
    seeds: range
    episodes: int = 100
    greedy: bool = False
    exact: bool = False

    def __post_init__(self) -> None:
        """Brings points of one static setting together. Raises ValueError for a setting that is not
        valid.
        """
        config, hyperparams = merge_env_params(self.config, self.hyperparams)
        object.__setattr__(self, "config", config)
        object.__setattr__(self, "hyperparams", hyperparams)
        order = sorted(range(self.num_points), key=lambda g: self._first_like(g))
        object.__setattr__(
            self, "table", {name: [v[g] for g in order] for name, v in self.table.items()}
        )
        for config, points in self.programs():  # which checks every Config
            traced = self.traced(points)
            hyperparams_of(self.hyperparams, traced)
            for temperature in traced.get("temperature", [self.hyperparams.temperature]):
                check_together(config, self.hyperparams._replace(temperature=temperature))

    @property
    def num_points(self) -> int:
        """G."""
        return len(next(iter(self.table.values()), [0]))

    @property
    def actions(self) -> str:
        """How the final policies choose their actions."""
        return "greedy" if self.greedy else "sampled"

    @property
    def num_runs(self) -> int:
        """G · S."""
        return self.num_points * len(self.seeds)

    def programs(self) -> list[tuple[Config, range]]:
        """The static settings, each with its points: one compilation each."""
        groups: list[tuple[Config, range]] = []
        for g in range(self.num_points):
            if groups and self._static(g) == self._static(groups[-1][1][0]):
                groups[-1] = (groups[-1][0], range(groups[-1][1].start, g + 1))
            else:
                groups.append(
                    (dataclasses.replace(self.config, **self._static(g)), range(g, g + 1))
                )
        return groups

    def traced(self, points: range) -> Table:
        """The values at some points of all that needs no compilation of its own."""
        return {
            name: [v[g] for g in points] for name, v in self.table.items() if name not in _STATIC
        }

    def values(self, g: int) -> dict[str, Any]:
        """The values of a point by name."""
        return {name: v[g] for name, v in self.table.items()}

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON-able data."""
        own = {name: getattr(self, name) for name in ("table", "episodes", "greedy", "exact")}
        settings = {"config": self.config.to_json(), "hyperparams": self.hyperparams.scalars()}
        return {**settings, **own, "first_seed": self.seeds.start, "num_seeds": len(self.seeds)}

    def folder(self, out: Path) -> Path:
        """Where it is kept, below `out`."""
        text = json.dumps(folders.jsonable(self.to_json()), sort_keys=True)
        return (
            folders.parent(out, self.config)
            / f"sweep-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        )

    def _static(self, g: int) -> dict[str, Any]:
        return {name: v[g] for name, v in self.table.items() if name in _STATIC}

    def _first_like(self, g: int) -> int:
        return next(i for i in range(g + 1) if self._static(i) == self._static(g))


_STATIC = tuple(field.name for field in dataclasses.fields(Config))


def check_names(study: Study) -> None:
    """Raises ValueError, with the nearest valid names, for a name that is nothing which can be
    varied.
    """
    for config, points in study.programs():
        own = [name for name in study.traced(points) if name not in Hyperparams._fields]
        of_env = envs.parameters(config.env)
        known = [*Hyperparams().scalars(), *_STATIC, *of_env]
        listed = (
            f"sweep.py --help lists the settings, and the environment's own are {', '.join(of_env)}"
        )
        for name in own:
            check_name("setting to vary", name, known, listed)


def check(study: Study, where: Layout) -> None:
    """Raises ValueError for all that can be refused before the first update.

    A name that is nothing which can be varied; a value that a parameter of the environment cannot
    have; and what only the environment knows of a static setting, which would else be found when
    its turn to be compiled has come.
    """
    check_names(study)
    for config, points in study.programs():
        where.check(config)
        traced = study.traced(points)
        own = {name: values for name, values in traced.items() if name not in Hyperparams._fields}
        envs.check_parameters(config.env, own)
        for i in range(len(points)):
            merge_env_params(
                config,
                study.hyperparams._replace(env_params={name: x[i] for name, x in own.items()}),
            )
        if len(study.programs()) > 1:
            first = {name: values[:1] for name, values in traced.items()}
            h = jax.tree.map(
                lambda x: x[0], runs.broadcast(hyperparams_of(study.hyperparams, first), 1)
            )
            learner = make_learner(config, h)
            state = jax.eval_shape(learner.init, jax.random.key(0))
            jax.eval_shape(learner.step, state, jax.random.key(0))


def make(folder: Path) -> None:
    """Makes the folder, or finds it. Raises ValueError where it cannot be made."""
    try:
        for name in ("metrics", "runs", "checkpoints"):
            files.make_folder(folder / name, within=folder)
    except OSError as error:
        raise ValueError(f"cannot make the folder {folder}: {error.strerror}") from None


def start(study: Study, folder: Path) -> tuple[int, int | None]:
    """Runs finished in the folder, and the width they were run at if there are any.

    A chunk whose file is damaged is run again, with those after it. Raises ValueError where
    sweep.json is damaged, and where a file cannot be read for want of memory or by a fault of the
    disk: it may be sound, and is kept.
    """
    make(folder)
    for place in (folder, folder / "metrics", folder / "runs"):
        files.remove_leftovers(place)
    finished = _tables(folder, "runs")
    for i, path in enumerate(finished):
        try:
            _check_chunk(study, path)
        except files.UnreadableError:
            raise
        except ValueError as error:
            cli.say(
                f"{error.args[0].partition(', remove')[0]}: its runs, and those after them, "
                f"are run again"
            )
            for later in finished[i:]:
                later.unlink()
            break
    return len(read_runs(folder).get("run", ())), stored_width(folder)


def stored_width(folder: Path) -> int | None:
    """The width that a sweep was begun with; None: it is new."""
    path = folder / "sweep.json"
    if not os.path.lexists(path):
        return None
    width: int = folders.read_json(path, {"width": int})["width"]
    if not 1 <= width <= WIDEST:
        raise ValueError(f"{path} is damaged: width must be between 1 and {WIDEST}, got {width}")
    return width


def stored_versions(folder: Path) -> dict[str, Any]:
    """The software and the machine of a sweep's start, or of the last time that it went on."""
    return dict(
        folders.read_json(folder / "sweep.json", {"versions": Optional(folders.VERSIONS)}).get(
            "versions", {}
        )
    )


def write_setup(study: Study, folder: Path, width: int, versions: Mapping[str, Any]) -> None:
    """sweep.json. versions: as of `folders.environment`."""
    folders.write_json(
        folder / "sweep.json", {**study.to_json(), "width": width, "versions": versions}
    )


def write_chunk(study: Study, folder: Path, start: int, chunk: Chunk) -> None:
    """The two files of a chunk, whose first run is number `start` of all."""
    metrics = chunk.metrics
    labels = labelled(study, start, len(metrics["env_steps"]))
    run, setting = labels["run"], labels["setting"]
    varied = {name: [values[g] for g in setting] for name, values in study.table.items()}
    scores = results.per_seed(metrics, chunk.evaluation[study.actions])
    name = f"{run[0]:06}-{run[-1]:06}.parquet"
    tables.write_parquet(folder / "metrics" / name, results.long_form(metrics, **labels))
    tables.write_parquet(folder / "runs" / name, {**labels, **varied, **scores})


def _tables(folder: Path, kind: str) -> list[Path]:
    """The files of chunks, in order. kind: `runs` or `metrics`."""
    return files.named(folder / kind, r"\d{6,}-\d{6,}\.parquet")


def _num_runs(path: Path) -> int:
    """The runs of a chunk, by the name of its file."""
    first, last = path.stem.split("-")
    return int(last) - int(first) + 1


def _check_chunk(study: Study, path: Path) -> None:
    """Raises ValueError unless both files of a finished chunk are what `write_chunk` writes, by
    their heads.
    """
    first, count = int(path.stem.split("-")[0]), _num_runs(path)
    if not 1 <= count <= study.num_runs - first:
        raise ValueError(f"{path} is damaged, remove it: the sweep has {study.num_runs} runs")
    metrics = path.parents[1] / "metrics" / path.name
    longest = count * max(config.num_updates for config, _ in study.programs())
    wanted = ["run", "setting", "seed"]
    runs = tables.read_parquet(path, [*wanted, *study.table, *RESULTS], most_rows=count, texts=True)
    if not np.array_equal(runs["run"], first + np.arange(count)) or any(
        runs[x].dtype == object for x in RESULTS
    ):
        raise ValueError(f"{path} is damaged, remove it: its runs are others")
    tables.read_parquet(metrics, ["run"], most_rows=longest)


def labelled(study: Study, start: int, count: int) -> dict[str, Any]:
    """What the runs start, start + 1, ... are."""
    run = start + np.arange(count)
    return {
        "run": run,
        "setting": run // len(study.seeds),
        "seed": study.seeds.start + run % len(study.seeds),
    }


def read_runs(folder: Path) -> dict[str, np.ndarray]:
    """The rows of all finished runs, in order; {} if there are none. Raises ValueError where some
    are missing.
    """
    parts = [
        tables.read_parquet(path, most_rows=_num_runs(path), texts=True)
        for path in _tables(folder, "runs")
    ]
    if not parts:
        return {}
    if any(set(part) != set(parts[0]) for part in parts):
        raise ValueError(
            f"the files in {folder / 'runs'} have not the same columns: remove the folder"
        )
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if not np.array_equal(rows["run"], np.arange(len(rows["run"]))):
        raise ValueError(f"{folder / 'runs'} lacks runs between others: remove the later files")
    return rows


def read_metrics(folder: Path, setting: int) -> dict[str, np.ndarray]:
    """The metrics of a setting by name, [seeds, updates] each."""
    parts = []
    for path in _tables(folder, "metrics"):
        part = tables.read_parquet(path)
        chosen = part["setting"] == setting
        if chosen.any():
            parts.append({name: x[chosen] for name, x in part.items()})
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return results.by_run(rows, len(np.unique(rows["seed"])))
