"""The benchmark: rows of `suites` trained and evaluated, on few seeds in one program at a time.

The seeds of a program are a cell, whose folder is that of a run:

    OUT/ENV/LABEL/seeds-0-19/   config.json, versions.json, metrics.parquet, params.safetensors,
                                summary.json, with the final evaluation of sampled actions and,
                                under `greedy`, of the policy's mode; code/ of custom parts

The summary is written last, so that a cell that has one is finished. OUT/results.csv has a line per
seed.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pg import numerals
from pg.benchmarks.suites import TASKS, Row, Task
from pg.commands import cli
from pg.config import Config, Hyperparams, merge_env_params, own_parts
from pg.envs.adapters.hosts import HostError
from pg.envs.registry import environment_of
from pg.inputs import Optional, shown
from pg.runs import code, execution, files, folders, host_states, interrupts, results, writing

Settings = Callable[[Task, Row], tuple[Config, Hyperparams]]

# The expected shape of a cell's summary (see `inputs.misfit`).
SUMMARY: dict[str, Any] = {
    "failed_seeds": [int],
    "per_seed": [
        {
            "seed": int,
            "env_steps": int,
            "mean": folders.NUMBER,
            "greedy": {"mean": folders.NUMBER},
        }
    ],
}
# The expected shape of the file that a cell was before it was a folder.
FORMER_CELL: dict[str, Any] = {
    "env": str,
    "label": str,
    "seeds": [int],
    "episodes": int,
    "env_steps": [int],
    **folders.SETTINGS,
    **{name: [folders.NUMBER] for name in ("greedy", "sampled")},
}
# That of versions.json; its other entries are not read.
VERSIONED = ("jax", "jaxlib", "numpy")
VERSIONS: dict[str, Any] = {
    **{name: Optional(str) for name in ("pg", *VERSIONED)},
    "git_commit": Optional((str, None)),
    "git_dirty": Optional((bool, None)),
}
_COMMIT = 10  # digits of a commit in a table
_FILES = r"(config|versions|summary)\.json|metrics\.parquet|params\.safetensors"


class Result(NamedTuple):
    """A line of results.csv."""

    env: str
    label: str
    seed: int
    greedy: float  # mean return of the final evaluation; NaN if the seed diverged
    sampled: float
    env_steps: int
    # The versions of the program that ran it; "" where they were not recorded.
    pg: str = ""  # commit, with a + if files had changed since, or the version without git
    jax: str = ""
    jaxlib: str = ""
    numpy: str = ""


class Cell(NamedTuple):
    """The work of one program."""

    name: str  # of the environment
    label: str
    seeds: tuple[int, ...]  # consecutive
    episodes: int  # of the final evaluation, per seed
    config: Config
    hyperparams: Hyperparams
    allow_changed_code: bool = False  # results of custom files count, though it has changed

    def folder(self, out: Path) -> Path:
        """The folder of its results."""
        return out / self.name / self.label / f"seeds-{self.seeds[0]}-{self.seeds[-1]}"

    def difference(self, stored: "Stored") -> str | None:
        """A sentence on stored results of other settings or other code; newer fields have their
        defaults.
        None: they are results of this cell.
        """
        try:
            config, hyperparams = self._stored_settings(stored)
        except code.ChangedCodeError as error:
            return f"{error}; --redo runs these seeds again with it"
        except ValueError:  # a field or a name that no longer exists, or another part
            config, hyperparams = None, None
        settings = config, hyperparams, stored.episodes
        if settings == (self.config, self.hyperparams, self.episodes):
            return None
        return (
            f"{stored.path} was made with other settings: remove it, choose another --out, or "
            "--redo"
        )

    def _stored_settings(self, stored: "Stored") -> tuple[Config, Hyperparams]:
        """The stored settings, with the parts of this cell instead of the recorded ones.

        Raises ValueError if these are others, and as `folders.read_setup` does.
        """
        if stored.path.suffix == ".json":  # older cells have none
            return folders.stored_settings(stored.settings)
        parts = own_parts(self.config)
        return folders.read_setup(
            stored.path,
            parts.pop("env", None),
            parts=parts,
            allow_changed_code=self.allow_changed_code,
        )


class Stored(NamedTuple):
    """The results of a finished cell."""

    path: Path  # its folder, or the file that it was before cells were folders
    settings: Mapping[str, Any]  # see `folders.read_stored`
    episodes: int
    results: list[Result]

    @property
    def seeds(self) -> list[int]:
        """The seeds of the program."""
        return [result.seed for result in self.results]


def plan(
    rows: Iterable[tuple[Task, Row]],
    settings: Settings,
    out: Path,
    *,
    seeds: int | None = None,
    seeds_per_program: int = 20,
    episodes: int | None = None,
    redo: bool = False,
    allow_changed_code: bool = False,
) -> tuple[list[Cell], int]:
    """The cells that are still to run, and the number of rows that have every seed already.

    Args:
        rows: see `selection.select`.
        settings: of a row, such as `selection.settings`.
        out: the folder of all results.
        seeds: of each row; None: as its task has it.
        seeds_per_program: at most.
        episodes: of the final evaluation, per seed; None: as the task has it.
        redo: rows whose settings or code have changed are run again.
        allow_changed_code: results of custom files count, though it has changed.

    Raises:
        ValueError: settings that are not valid and, unless `redo`, results of other settings or
            other code.
    """
    cells, finished = [], 0
    for task, row in rows:
        own = merge_env_params(*settings(task, row))
        cell = Cell(task.name, row.label, (), episodes or task.episodes, *own, allow_changed_code)
        wanted, done = seeds or task.seeds, set()
        for stored in stored_cells(out / task.name / row.label):
            difference = cell.difference(stored)
            if difference is None:
                done |= set(stored.seeds)
                for change in code.changes(stored.settings.get("parts", {}), cell.config):
                    cli.say(f"{stored.path}: {change}")
            elif not redo:
                raise ValueError(difference)
        missing = [seed for seed in range(wanted) if seed not in done]
        finished += not missing
        cells += [cell._replace(seeds=group) for group in _groups(missing, seeds_per_program)]
    return cells, finished


def run(
    rows: Iterable[tuple[Task, Row]], settings: Settings, out: Path, **options: Any
) -> int | None:
    """Runs the cells of `plan(rows, settings, out, **options)` and prints progress. Returns the
    signal that ended it, or None once all are finished.
    """
    cells, finished = plan(rows, settings, out, **options)
    if finished:
        rows_there = numerals.counted(finished, "row")
        print(f"skipped, as finished in {out} with these settings: {rows_there}")
    done = 0  # cells
    signum = None
    try:
        check_environments(cells)
        check_own_parts(cells)
        for cell in cells:
            title = f"{done + 1}/{len(cells)} {cell.name} {cell.label}"
            signum = _run_and_report(cell, title, out)
            done += 1
            if signum is not None:
                break
    except KeyboardInterrupt as error:
        signum = interrupts.signal_of(error)
    if signum is not None:
        programs = numerals.counted(len(cells), "program")
        print(
            f"interrupted after {done} of {programs}: the finished ones are kept; the same "
            "command continues from there",
            flush=True,
        )
    return signum


def _run_and_report(cell: Cell, title: str, out: Path) -> int | None:
    """Runs a cell and prints its progress and its means. Returns and raises as `run_cell`, with the
    signal alone.
    """
    seeds = numerals.counted(len(cell.seeds), "seed")
    print(f"{title}: {seeds} from {cell.seeds[0]}; compiling ...", flush=True)
    progress = cli.Progress(cell.config.num_updates)
    try:
        lines, seconds, signum = run_cell(cell, out, progress)
    except HostError as error:
        mended = code.remark_on_mending(cell.config)
        kept = f"finished programs are kept: the same command continues with this one{mended}"
        raise HostError(f"{cell.name} {cell.label}: {error}").with_command(kept) from None
    except ValueError as error:  # errors that only the environment can find
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
        of_seeds = f"{diverged} of {numerals.counted(len(lines), 'seed')}"
        print(f"{title}: {of_seeds} diverged, and have no score", flush=True)
    return signum


def check_environments(cells: Iterable[Cell]) -> None:
    """Raises ValueError if an environment cannot be built, before any row is run: one sentence
    that names all such rows, and the missing packages.
    """
    rows: dict[str, list[str]] = {}
    for (name, label), cell in {(cell.name, cell.label): cell for cell in cells}.items():
        try:
            environment_of(cell.config.env)
        except ValueError as error:
            # without its name, in which rows that lack the same package differ
            reason = str(error).replace(f"env={cell.config.env!r}", "the environment")
            rows.setdefault(reason, []).append(f"{name} {label}")
    if rows:
        sentences = (f"{', '.join(names)}: {reason}" for reason, names in rows.items())
        raise ValueError("; ".join(sentences))


def check_own_parts(cells: Iterable[Cell]) -> None:
    """Raises ValueError if a custom part does not fit its row, before any is run."""
    rows = {(cell.name, cell.label): cell for cell in cells if own_parts(cell.config)}
    for (name, label), cell in rows.items():
        try:
            execution.check_update(cell.config, cell.hyperparams)
        except ValueError as error:
            raise ValueError(f"{name} {label}: {error}") from None


def run_cell(
    cell: Cell, out: Path, progress: cli.Progress
) -> tuple[list[Result], float, int | None]:
    """Trains and evaluates a cell, greedily and by sampling, and writes its folder.

    Results of other settings of the same row are then removed.

    Returns:
        The lines of its seeds, the seconds that compilation and training took, and the signal that
        came while the folder was written, if any.

    Raises:
        KeyboardInterrupt: after a signal, before anything is written.
    """
    with host_states.closing([cell.config]):
        run = execution.run(
            cell.config, cell.hyperparams, cell.seeds, progress, on_compiled=progress.begin
        )
        if run.signum:
            raise interrupts.Interrupted(run.signum)
        evaluations = {}
        for actions in ("sampled", "greedy"):
            evaluations[actions] = execution.evaluate_run(
                cell.config, run, cell.seeds, cell.episodes, greedy=actions == "greedy"
            )
    with interrupts.deferred("writing the results") as caught:
        lines = _write(cell, out, run, evaluations)
    return lines, run.compile_seconds + run.train_seconds, caught.signum


def _write(
    cell: Cell, out: Path, run: execution.Run, evaluations: Mapping[str, Any]
) -> list[Result]:
    """Writes the folder of a cell, and removes results of other settings of its row. Returns the
    lines of its seeds.
    """
    folder = cell.folder(out)
    files.make_folder(folder, within=out)
    files.remove(folder, r"summary\.json")  # without it a cell is not finished
    options = {
        "seed": cell.seeds[0],
        "seeds": len(cell.seeds),
        "eval_episodes": cell.episodes,
        "greedy": False,
        "command": "benchmark.py",
    }
    folders.write_setup(folder, cell.config, cell.hyperparams, options)
    writing.write_results(folder, run, evaluations, cell.seeds)
    for other in stored_cells(folder.parent):
        if cell.difference(other) is not None:
            _remove(other)
    return _read_cell(folder).results


def _remove(stored: Stored) -> None:
    """Removes the files of stored results, and their folder if nothing else is in it."""
    path = stored.path
    if path.suffix == ".json":
        files.remove(path.parent, rf"{re.escape(path.stem)}\.(npz|json)")
        return
    files.remove(path, r"summary\.json")  # first: without it the others are not a cell
    files.remove(path, _FILES)
    files.remove(path / "code", r".*\.py")
    files.remove_if_empty(path / "code")
    files.remove_if_empty(path)


def collect(out: Path) -> list[Result]:
    """A line per seed of all finished cells below `out`, in the order of the suites."""
    lines: list[Result] = []
    for row in sorted(out.glob("*/*")):
        cells = stored_cells(row)
        seeds = [seed for stored in cells for seed in stored.seeds]
        if twice := {seed for seed in seeds if seeds.count(seed) > 1}:
            raise ValueError(f"{row} has seed {min(twice)} twice: remove one of its folders")
        for stored in cells:
            lines += stored.results
    return in_order(lines)


def completed_by(lines: Sequence[Result], before: Sequence[Result]) -> list[Result]:
    """A table in which rows with fewer seeds than in an earlier table are replaced by those, as a
    whole.

    Args:
        lines: the new table.
        before: the earlier table.
    """
    new, old = _by_row(lines), _by_row(before)
    rows = {row: of_row for row, of_row in new.items() if len(of_row) >= len(old.get(row, ()))}
    return in_order(line for of_row in {**old, **rows}.values() for line in of_row)


def _by_row(lines: Iterable[Result]) -> dict[tuple[str, str], list[Result]]:
    """The lines of each environment and label."""
    rows: dict[tuple[str, str], list[Result]] = {}
    for line in lines:
        rows.setdefault((line.env, line.label), []).append(line)
    return rows


def remarks(out: Path) -> list[str]:
    """Sentences on rows whose seeds were run with several versions of custom code."""
    said = []
    for row in sorted(out.glob("*/*")):
        versions = set()
        for stored in stored_cells(row):
            parts = stored.settings.get("parts", {})
            versions.add(tuple(sorted((field, code.digest(x)) for field, x in parts.items())))
        if len(versions) > 1:
            said.append(
                f"{row.parent.name} {row.name}: its seeds are of {len(versions)} versions of your "
                "code, which pg compare treats separately"
            )
    return said


def stored_cells(row: Path) -> list[Stored]:
    """The finished cells in the folder of an environment and a label, by their first seed.

    Raises ValueError if one is corrupt.
    """
    cells = []
    for path in sorted(row.glob("seeds-*")):
        if path.suffix == ".json":
            cells.append(_read_former_cell(path))
        elif os.path.lexists(path / "summary.json"):
            cells.append(_read_cell(path))
    return sorted(cells, key=lambda stored: stored.seeds[0])


def stored_metrics(row: Path) -> list[dict[str, np.ndarray]]:
    """The metrics of the finished cells of a row, [seeds, updates] each.

    Raises ValueError if a cell was written before cells were folders: it has no metrics.
    """
    metrics = []
    for stored in stored_cells(row):
        if stored.path.suffix == ".json":
            raise ValueError("some of its seeds were run before metrics were kept")
        metrics.append(results.load_results(stored.path).metrics)
    return metrics


def _read_cell(folder: Path) -> Stored:
    """Raises ValueError if the folder is corrupt, or of other seeds than its name says."""
    label, env = folder.parent.name, folder.parent.parent.name
    settings = folders.read_stored(folder)
    episodes = settings.get("options", {}).get("eval_episodes")
    if episodes is None:
        raise ValueError(f"{folder / 'config.json'} is corrupt: options.eval_episodes is missing")
    try:
        summary = folders.read_json(folder / "summary.json", SUMMARY)
    except files.UnreadableError:
        raise
    except ValueError as error:
        raise ValueError(f"{error}; remove {folder} to run it again") from None
    lines, versions = [], _versions(folder)
    for row in summary["per_seed"]:
        scores = [row["greedy"]["mean"], row["mean"]]
        if row["seed"] in summary["failed_seeds"]:
            scores = [None, None]
        greedy, sampled = map(results.stored_number, scores)
        lines.append(Result(env, label, row["seed"], greedy, sampled, row["env_steps"], *versions))
    seeds = [line.seed for line in lines]
    if not seeds or folder.name != f"seeds-{seeds[0]}-{seeds[-1]}":
        raise ValueError(f"{folder} is corrupt: its summary is of other seeds")
    if seeds != list(range(seeds[0], seeds[0] + len(seeds))):
        raise ValueError(f"{folder} is corrupt: its seeds are not consecutive")
    return Stored(folder, settings, episodes, lines)


def _versions(folder: Path) -> tuple[str, ...]:
    """The last fields of a `Result`, as the folder of a run records them."""
    path = folder / "versions.json"
    if not os.path.lexists(path):
        return ()
    found = folders.read_json(path, VERSIONS)
    commit = found.get("git_commit")
    code_of = f"{commit[:_COMMIT]}{'+' * bool(found.get('git_dirty'))}" if commit else ""
    return (code_of or found.get("pg", ""), *(found.get(name, "") for name in VERSIONED))


def _read_former_cell(path: Path) -> Stored:
    """A cell in the old format of one file beside its learning curves: everything but these."""
    data = folders.read_json(path, FORMER_CELL)
    lengths = {len(data[name]) for name in ("seeds", "greedy", "sampled", "env_steps")}
    if lengths != {len(set(data["seeds"]))} or not data["seeds"]:
        raise ValueError(f"{path} is corrupt: it does not have one value for each of its seeds")
    label, env = path.parent.name, path.parent.parent.name
    if (data["env"], data["label"]) != (env, label):
        raise ValueError(
            f"{path} is of {shown(data['env'])} and {shown(data['label'])}, and so in the wrong "
            f"folder"
        )
    lines = []
    for i, seed in enumerate(data["seeds"]):
        greedy, sampled = (results.stored_number(data[name][i]) for name in ("greedy", "sampled"))
        lines.append(Result(env, label, seed, greedy, sampled, data["env_steps"][i]))
    return Stored(path, data, data["episodes"], lines)


def in_order(lines: Iterable[Result]) -> list[Result]:
    """Results in the order of the suites, of their rows and of seeds."""
    names = list(TASKS)

    def place(line: Result) -> tuple[int, str, int, str, int]:
        labels = [row.label for row in TASKS[line.env].rows] if line.env in TASKS else []
        env, label = (
            seq.index(x) if x in seq else len(seq)
            for x, seq in ((line.env, names), (line.label, labels))
        )
        return env, line.env, label, line.label, line.seed

    return sorted(lines, key=place)


def _groups(seeds: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """Runs of consecutive seeds, at most `size` long."""
    groups: list[tuple[int, ...]] = []
    for seed in seeds:
        if groups and groups[-1][-1] == seed - 1 and len(groups[-1]) < size:
            groups[-1] += (seed,)
        else:
            groups.append((seed,))
    return groups
