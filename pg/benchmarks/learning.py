"""The benchmark: cells of `suites` to files, files to one tidy table, the table to a report and to
figures.

A cell is one program: a row of the table on a few seeds, trained side by side. What comes of it is

    OUT/ENV/LABEL/seeds-0-19.json   settings, returns and steps per seed, seconds, versions
    OUT/ENV/LABEL/seeds-0-19.npz    learning curves: seeds [S], steps [S, K], returns [S, K]

and the JSON is written last, so that a cell whose JSON is there is finished. OUT/results.csv has a
line per seed.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pg import nonfinite, numerals
from pg.benchmarks.suites import TASKS, Row, Task, row_of
from pg.commands import cli
from pg.config import Config, Hyperparams, merge_env_params
from pg.inputs import shown
from pg.reports import plots, statistics
from pg.reports.statistics import Estimate
from pg.runs import execution, files, folders, results
from pg.runs.interrupts import Interrupted

# name of the environment, label -> settings
Settings = Callable[[str, str], tuple[Config, Hyperparams]]

COLUMNS = ("env", "label", "seed", "greedy", "sampled", "env_steps")
# The expected shape of a cell's file, as of `inputs.misfit`.
CELL: dict[str, Any] = {
    **{"env": str, "label": str, "seeds": [int], "episodes": int, "env_steps": [int]},
    **folders.SETTINGS,
    **{name: [folders.NUMBER] for name in ("greedy", "sampled")},
}
# Errors of an archive that is damaged, or was made to mislead.
_BAD_ARCHIVE = (
    EOFError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)
MARKS = ("<!-- results -->", "<!-- end of results -->")
HEADER = (
    "environment",
    "label",
    "steps",
    "seeds",
    "greedy [95 %]",
    "sampled ± s.e.",
    "reached",
    "bar",
    "published",
)


class Cell(NamedTuple):
    """The work of one program."""

    name: str  # of the environment
    label: str
    seeds: tuple[int, ...]  # consecutive
    episodes: int  # of the final evaluation, per seed
    config: Config
    hyperparams: Hyperparams

    def file(self, out: Path) -> Path:
        """The file that it is kept in."""
        return out / self.name / self.label / f"seeds-{self.seeds[0]}-{self.seeds[-1]}.json"

    def matches(self, stored: Mapping[str, Any]) -> bool:
        """True where a file holds the results of these settings; fields that are newer than it
        count as default.
        """
        try:
            there = folders.stored_settings(stored)
        except ValueError:  # a field or a name that is no more
            return False
        return (*there, stored["episodes"]) == (self.config, self.hyperparams, self.episodes)


class Result(NamedTuple):
    """A line of the tidy table."""

    env: str
    label: str
    seed: int
    greedy: float  # mean return of the final evaluation
    sampled: float
    env_steps: int


def plan(
    rows: Iterable[tuple[Task, Row]],
    settings: Settings,
    out: Path,
    *,
    seeds: int | None = None,
    seeds_per_program: int = 20,
    episodes: int | None = None,
    redo: bool = False,
) -> tuple[list[Cell], int]:
    """The cells that are still to run, and the number of rows that have every seed already.

    seeds, episodes: of each row; None: as its task has it. redo: rows whose settings have changed
    are run again.
    Raises ValueError for settings that are not valid, and, unless `redo`, for a file with other
    settings.
    """
    cells, finished = [], 0
    for task, row in rows:
        own = merge_env_params(*settings(task.name, row.label))
        cell = Cell(task.name, row.label, (), episodes or task.episodes, *own)
        wanted, done = seeds or task.seeds, set()
        for path, stored in _files(out / task.name / row.label):
            if cell.matches(stored):
                done |= set(stored["seeds"])
            elif not redo:
                raise ValueError(
                    f"{path} was made with other settings: remove it, choose another "
                    f"--out, or --redo"
                )
        missing = [seed for seed in range(wanted) if seed not in done]
        finished += not missing
        cells += [cell._replace(seeds=group) for group in _groups(missing, seeds_per_program)]
    return cells, finished


def run(rows: Iterable[tuple[Task, Row]], settings: Settings, out: Path, **options: Any) -> bool:
    """Runs the cells of `plan(rows, settings, out, **options)` and says how it goes. False after
    Ctrl-C.
    """
    cells, finished = plan(rows, settings, out, **options)
    if finished:
        print(f"skipped, as they are finished in {out} with these settings: {finished} row(s)")
    for i, cell in enumerate(cells):
        title = f"{i + 1}/{len(cells)} {cell.name} {cell.label}"
        print(f"{title}: {len(cell.seeds)} seeds from {cell.seeds[0]}; compiling ...", flush=True)
        progress = cli.Progress(cell.config.num_updates)
        try:
            lines, seconds = run_cell(cell, out, progress)
        except KeyboardInterrupt:
            print(
                f"interrupted: {i} of {len(cells)} programs are finished; the same command goes "
                f"on from here"
            )
            return False
        except ValueError as error:  # what only the environment knows
            raise ValueError(f"{cell.name} {cell.label}: {error}") from None
        finally:
            progress.close()
        means = (
            f"{name} {numerals.fixed(np.mean([getattr(x, name) for x in lines]))}"
            for name in ("greedy", "sampled")
        )
        steps = sum(line.env_steps for line in lines)
        print(f"{title}: {', '.join(means)}; {steps:,} steps in {seconds:.0f} s", flush=True)
        if diverged := sum(not np.isfinite(line.greedy) for line in lines):
            print(
                f"{title}: {diverged} of {len(lines)} seeds diverged, and have no score", flush=True
            )
    return True


def run_cell(cell: Cell, out: Path, on_chunk: execution.OnChunk) -> tuple[list[Result], float]:
    """Trains and evaluates a cell, greedily and by sampling, and writes its two files. Its lines,
    and seconds.

    A seed that ended at a number which was not finite has no score: its policy is that of before.
    Files of other settings in the cell's folder are removed then. Raises KeyboardInterrupt after
    Ctrl-C, before anything is written.
    """
    done = execution.run(cell.config, cell.hyperparams, cell.seeds, on_chunk)
    if done.signum:
        raise Interrupted(done.signum)
    returns = {
        name: execution.evaluate_run(
            cell.config, done, cell.seeds, cell.episodes, greedy=name == "greedy"
        ).returns
        for name in ("greedy", "sampled")
    }
    failed = nonfinite.failed(done.metrics)
    scores = {
        name: np.where(failed, np.nan, np.asarray(x, float).mean(axis=1))
        for name, x in returns.items()
    }
    data = {
        "env": cell.name,
        "label": cell.label,
        "seeds": cell.seeds,
        "episodes": cell.episodes,
        "config": cell.config.to_json(),
        "hyperparams": cell.hyperparams.scalars(),
        **scores,
        "env_steps": done.metrics["env_steps"].sum(axis=1, dtype=np.int64),
        "compile_seconds": done.compile_seconds,
        "train_seconds": done.train_seconds,
        "versions": folders.environment(),
    }
    path = cell.file(out)
    files.make_folder(path.parent, within=out)
    buffer = io.BytesIO()
    steps, learned = results.curve(done.metrics)
    np.savez_compressed(buffer, seeds=cell.seeds, steps=steps, returns=learned)
    files.replace(path.with_suffix(".npz"), lambda file: file.write(buffer.getvalue()))
    folders.write_json(path, data)
    for other, stored in _files(path.parent):
        if not cell.matches(stored):
            files.remove(other.parent, rf"{re.escape(other.stem)}\.(npz|json)")
    return _tidy(folders.read_json(path, CELL)), done.compile_seconds + done.train_seconds


def collect(out: Path) -> list[Result]:
    """A line per seed of all that is finished below `out`, in the order of the suites."""
    return _ordered(
        line for path in sorted(out.glob("*/*")) for _, data in _files(path) for line in _tidy(data)
    )


def write_csv(path: Path, lines: Sequence[Result]) -> None:
    """The tidy table as CSV."""
    results.write_csv(path, COLUMNS, lines)


def read_csv(path: Path) -> list[Result]:
    """The tidy table that `write_csv` wrote. Raises ValueError for a file that is none."""
    return results.read_csv(path, Result)


def report(lines: Sequence[Result], *, published: bool = True) -> str:
    """A table in Markdown, aligned to be read as it stands: a line per environment and label, the
    best ones first.

    Greedy mean over seeds with its 95 % bootstrap interval; sampled mean ± standard error; the most
    steps of a seed.
    """
    ranked = _ranked(lines)
    body = [_cells(task, group) for task, group in ranked]
    for i in range(len(ranked) - 1, 0, -1):  # what was published is said once
        if ranked[i][0].name == ranked[i - 1][0].name:
            body[i] = (*body[i][:-1], "")
    return results.markdown([row if published else row[:-1] for row in [HEADER, *body]])


def draw(lines: Sequence[Result], out: Path) -> list[Path]:
    """Draws what there is: learning curves, and with two environments or more, profiles and
    intervals. The files.
    """
    drawn = []
    if panels := _panels(lines, out):
        drawn.append(out / "curves.png")
        best = {name: TASKS[name].best for name in panels if name in TASKS}
        plots.learning_curves(panels, drawn[-1], best=best)
    names, scores = normalised(lines)
    if len(names) > 1:
        title = f"{len(names)} environments; score 0: random policy, 1: best published"
        thresholds = np.linspace(min(0.0, *(s.min() for s in scores.values())), 1.1, 200)
        profiles = {
            label: statistics.performance_profile(s, thresholds) for label, s in scores.items()
        }
        intervals = {label: statistics.bootstrap_interval(s) for label, s in scores.items()}
        plots.performance_profiles(thresholds, profiles, out / "profiles.png", title=title)
        plots.intervals(
            intervals,
            out / "intervals.png",
            title=title,
            xlabel="interquartile mean of normalised scores",
        )
        drawn += [out / "profiles.png", out / "intervals.png"]
    return drawn


def normalised(lines: Sequence[Result]) -> tuple[list[str], dict[str, np.ndarray]]:
    """Environments that the labels share, and each label's normalised greedy returns [N, M] on
    them.

    The labels are those that were run on more than half of the environments that have a scale; on
    fewer, too little would be left in common. As many seeds count as every row has; rows of less
    than half the most are left out.
    """
    returns: dict[str, dict[str, np.ndarray]] = {}
    ranked = _ranked(lines)
    most = max((len(group) for _, group in ranked), default=0)
    for task, group in ranked:
        if 2 * len(group) < most:
            continue
        scores = np.array([line.greedy for line in group])
        if task.normalisable and task.best is not None and np.isfinite(scores).all():
            scaled = statistics.normalise(scores, task.floor, task.best)
            returns.setdefault(group[0].label, {})[task.name] = scaled
    covered = {name for names in returns.values() for name in names}
    broad = {label: names for label, names in returns.items() if 2 * len(names) > len(covered)}
    shared = [name for name in TASKS if broad and all(name in names for names in broad.values())]
    if not shared:
        return [], {}
    fewest = {label: min(len(names[name]) for name in shared) for label, names in broad.items()}
    return shared, {
        label: np.stack([names[name][: fewest[label]] for name in shared], axis=1)
        for label, names in broad.items()
    }


def _panels(
    lines: Sequence[Result], out: Path
) -> dict[str, dict[str, tuple[np.ndarray, Estimate]]]:
    """The curves of each environment and label: steps [K], and the mean return over seeds with its
    interval, [K] each.
    """
    panels: dict[str, dict[str, tuple[np.ndarray, Estimate]]] = {}
    for task, group in _ranked(lines):
        label, steps, returns = group[0].label, [], []
        for path, stored in _files(out / task.name / label):
            curves = _curves(path.with_suffix(".npz"), stored["seeds"])
            steps += list(curves["steps"])
            returns += list(curves["returns"])
        seen = [np.isfinite(y) for y in returns]
        if not seen or not all(map(np.any, seen)):  # a mean over the other seeds would flatter
            continue
        try:
            grid, values = results.aligned(
                [(x[s], y[s]) for x, y, s in zip(steps, returns, seen, strict=True)]
            )
        except ValueError as error:
            print(f"{task.name} {label}: no learning curve is drawn, as {error}")
            continue
        panels.setdefault(task.name, {})[label] = (grid, statistics.mean_curve(values))
    return panels


def _cells(task: Task, group: Sequence[Result]) -> tuple[str, ...]:
    """A line of the report."""
    row = row_of(task.name, group[0].label)
    bar, steps = row.bar if row else None, max(line.env_steps for line in group)
    greedy, sampled = (
        np.array([getattr(line, name) for line in group]) for name in ("greedy", "sampled")
    )
    reached = goal = "—"
    if row and bar:
        scores = greedy if bar.actions == "greedy" else sampled
        above = int((scores >= bar.score).sum())
        enough = (
            scores.mean() >= bar.score
            if bar.share is None
            else above >= bar.share * len(scores) - 1e-9
        )
        reached = f"{above}/{len(scores)}"
        if len(group) < task.seeds:
            verdict = f"open (of {task.seeds} seeds)"
        elif steps > row.steps:
            verdict = "✗ (more steps)"
        else:
            verdict = "✓" if enough else "✗"
        goal = (
            f"{bar}{' (sampled)' * (bar.actions == 'sampled')}, {numerals.short(row.steps, 6)} "
            f"steps: {verdict}"
        )
    best = "none" if task.best is None else f"{numerals.fixed(task.best)}: {task.source}"
    label, seeds = f"`{group[0].label}`", str(len(group))
    return (
        task.name,
        label,
        f"{steps:,}",
        seeds,
        _interval(greedy),
        _error(sampled),
        reached,
        goal,
        best,
    )


def _interval(scores: np.ndarray) -> str:
    """Mean and interval of the scores [N] of one row."""
    if bad := int((~np.isfinite(scores)).sum()):
        return f"not a number in {bad} of {len(scores)} seeds"
    value, low, high = statistics.bootstrap_interval(scores, statistics.mean)
    if np.isnan(low):
        return f"{numerals.fixed(value)} (no interval)"
    return f"{numerals.fixed(value)} [{numerals.fixed(low, value)}, {numerals.fixed(high, value)}]"


def _error(scores: np.ndarray) -> str:
    """Mean ± standard error of the scores [N] of one row."""
    if not np.isfinite(scores).all():
        return "—"
    value = scores.mean()
    if len(scores) < 2:
        return f"{numerals.fixed(value)} ± —"
    return (
        f"{numerals.fixed(value)} ± "
        f"{numerals.fixed(scores.std(ddof=1) / len(scores) ** 0.5, value)}"
    )


def _ranked(lines: Sequence[Result]) -> list[tuple[Task, list[Result]]]:
    """The lines of each environment and label; environments as in the suites, labels by their
    greedy mean.
    """
    groups: dict[tuple[str, str], list[Result]] = {}
    for line in _ordered(lines):
        groups.setdefault((line.env, line.label), []).append(line)
    order = list(dict.fromkeys(env for env, _ in groups))

    def rank(item: tuple[tuple[str, str], list[Result]]) -> tuple[int, float]:
        score = float(np.mean([line.greedy for line in item[1]]))
        return order.index(item[0][0]), -score if np.isfinite(score) else np.inf

    unknown = Task("", (), 0.0, None, "none")
    return [
        (TASKS.get(env, unknown._replace(name=env)), g)
        for (env, _), g in sorted(groups.items(), key=rank)
    ]


def _ordered(lines: Iterable[Result]) -> list[Result]:
    names = list(TASKS)

    def place(line: Result) -> tuple[int, str, int, str, int]:
        labels = [row.label for row in TASKS[line.env].rows] if line.env in TASKS else []
        env, label = (
            seq.index(x) if x in seq else len(seq)
            for x, seq in ((line.env, names), (line.label, labels))
        )
        return env, line.env, label, line.label, line.seed

    return sorted(lines, key=place)


def _tidy(data: Mapping[str, Any]) -> list[Result]:
    """The lines of a stored cell; what was not a number is null there."""
    greedy, sampled = (
        [np.nan if x is None else float(x) for x in data[name]] for name in ("greedy", "sampled")
    )
    columns = zip(data["seeds"], greedy, sampled, data["env_steps"], strict=True)
    return [Result(data["env"], data["label"], *values) for values in columns]


def _files(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The stored cells of a folder, by their first seed. Raises ValueError where one is damaged."""
    found = []
    for path in sorted(folder.glob("seeds-*.json")):
        data = folders.read_json(path, CELL)
        lengths = {len(data[name]) for name in ("seeds", "greedy", "sampled", "env_steps")}
        if lengths != {len(set(data["seeds"]))} or not data["seeds"]:
            raise ValueError(f"{path} is damaged: it has not one value for each of its seeds")
        if (data["env"], data["label"]) != (folder.parent.name, folder.name):
            raise ValueError(
                f"{path} is of {shown(data['env'])} and {shown(data['label'])}, and so in the "
                f"wrong folder"
            )
        found.append((path, data))
    return sorted(found, key=lambda item: item[1]["seeds"][0])


def _curves(path: Path, seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """The learning curves of a stored cell: steps and returns, [S, K]. Raises ValueError where they
    are others.
    """
    most, data = len(seeds) * results.POINTS, files.read_bytes(path)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = {
                name: _array(archive, f"{name}.npy", most) for name in ("seeds", "steps", "returns")
            }
    except _BAD_ARCHIVE:
        raise ValueError(
            f"{path} is damaged: remove it, and {path.with_suffix('.json').name}"
        ) from None
    shapes = {found[name].shape for name in ("steps", "returns")}
    if (
        found["seeds"].tolist() != list(seeds)
        or len(shapes) > 1
        or found["steps"].shape[:1] != (len(seeds),)
    ):
        raise ValueError(f"{path} is damaged: its curves are not those of the seeds beside it")
    return found


def _array(archive: zipfile.ZipFile, name: str, most: int) -> np.ndarray:
    """An array of an .npz file with at most `most` numbers. Raises ValueError for another one."""
    with archive.open(name) as file:
        data = io.BytesIO(file.read(8 * most + 1024))
    if np.lib.format.read_magic(data) != (1, 0):
        raise ValueError(name)
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(data)
    if dtype.kind not in "iuf":
        raise ValueError(name)
    return np.frombuffer(data.read(), dtype).reshape(shape, order="F" if fortran else "C")


def _groups(seeds: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """Runs of consecutive seeds, at most `size` long."""
    groups: list[tuple[int, ...]] = []
    for seed in seeds:
        if groups and groups[-1][-1] == seed - 1 and len(groups[-1]) < size:
            groups[-1] += (seed,)
        else:
            groups.append((seed,))
    return groups
