"""Results of a run, in its folder: written by the train command, by each program of a benchmark and
for the best configuration of a sweep, and read by everyone.

    metrics.parquet     a row per seed and update: seed, update, total_env_steps, then the metrics
    summary.json        the final evaluation, by seed and over seeds, steps, and seconds

Imports neither jax nor gymnax, so that results can be read without them.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pg import numerals
from pg.config import NONFINITE_CAUSES, OnNonfinite
from pg.reports import curves, statistics, tables
from pg.reports.curves import Curve
from pg.reports.statistics import Estimate, Statistic
from pg.runs import files, folders

if TYPE_CHECKING:
    from pg.evaluation import Evaluation

METRICS_PART = r"metrics-\d{8,}-\d{8,}\.parquet"  # the file names of metrics in checkpoints
# Columns that label a row of metrics; all other columns are metrics.
LABELS = ("run", "configuration", "seed", "update", "total_env_steps")
# Metrics of the evaluations during training, for runs that have any.
EVALUATED = ("eval_return", "eval_standard_error")
# The expected shape of summary.json (see `inputs.misfit`).
SUMMARY: dict[str, Any] = {"status": str, "num_updates": int}
# Number of failures of single seeds that the terminal lists.
_LISTED_FAILURES = 5
_OF_ENV = sum(1 << NONFINITE_CAUSES.index(name) for name in ("rewards", "observations"))
# not about a number: a step without a legal action
_MASKS = 1 << NONFINITE_CAUSES.index("action masks")
_STATISTICS = 1 << NONFINITE_CAUSES.index("running statistics")


class Results(NamedTuple):
    """The results in the folder of a run."""

    folder: Path
    settings: dict[str, Any]  # config, hyperparams and options, as in config.json
    seeds: list[int]
    metrics: dict[str, np.ndarray]  # [seeds, updates] each
    summary: dict[str, Any]  # {} for a run that has not ended

    def learning_curve(self, points: int = curves.POINTS) -> Curve:
        """The mean learning curve over the seeds, as in `curves.mean_learning_curve`."""
        return curves.mean_learning_curve(*curves.seed_curves(self.metrics, points), points)

    def evaluation_curve(self) -> Curve:
        """The mean over the seeds of the evaluations during training, as in
        `curves.evaluation_curve`.

        Raises ValueError if there were none.
        """
        if "eval_return" not in self.metrics:
            raise ValueError(f"{self.folder} was not evaluated during training: use --eval-every K")
        return curves.evaluation_curve(self.metrics)


def load_results(folder: Path | str) -> Results:
    """Reads the results of a run, of a program of a benchmark, or of a sweep's best configuration.

    Args:
        folder: the folder of the run, which may still be in progress, or that of the sweep, all of
            whose configurations `pg.load` reads.

    Returns:
        Metrics by name, [seeds, updates] each, the summary and the settings.

    Raises:
        ValueError: it is not such a folder, there are no metrics yet, or a file is corrupt.
    """
    folder = folders.run_folder(Path(folder).expanduser())
    settings = folders.read_stored(folder)
    rows = read_metrics(folder)
    if lacking := {"seed", "update"} - set(rows):
        raise ValueError(f"the metrics in {folder} are corrupt: there is no column {lacking.pop()}")
    seeds = np.unique(rows["seed"]).tolist()
    path = folder / "summary.json"
    summary = folders.read_json(path, SUMMARY) if os.path.lexists(path) else {}
    return Results(folder, settings, seeds, by_run(rows, len(seeds)), summary)


def by_run(rows: Mapping[str, np.ndarray], num_runs: int) -> dict[str, np.ndarray]:
    """Metrics [num_runs, updates] from rows in which each run has its updates in order.

    Raises ValueError if the runs have different numbers of rows.
    """
    num_rows = len(rows["update"])
    order = np.argsort(rows["update"], kind="stable")
    updates = rows["update"][order]
    num_updates = num_rows // max(num_runs, 1)
    if not np.array_equal(updates, np.repeat(np.arange(num_updates), num_runs)):
        raise ValueError("the metrics lack updates, or have some twice")
    names = [name for name in rows if name not in LABELS]
    return {name: rows[name][order].reshape(num_updates, num_runs).T for name in names}


def completed(parts: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """Metrics of consecutive updates, all with the evaluation columns that any of them has: NaN
    where there was no evaluation.
    """
    names = [name for name in EVALUATED if any(name in part for part in parts)]

    def one(part: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        shape = next(iter(part.values())).shape
        lacking = [name for name in names if name not in part]
        return {**part, **{name: np.full(shape, np.nan, np.float32) for name in lacking}}

    return [one(part) for part in parts]


def final_means(found: Results) -> dict[str, np.ndarray]:
    """The mean return of each final evaluation by how actions are chosen, "sampled" or "greedy":
    [seeds], NaN for a seed that diverged; {} for a run that has not finished.
    """
    summary = found.summary
    on_nonfinite = found.settings["config"].get("on_nonfinite", "stop")
    failed = failed_runs(found.metrics, on_nonfinite)
    was_evaluated = "actions" in summary or failed.all()
    if summary.get("status", "interrupted") == "interrupted" or not was_evaluated:
        return {}
    rows = {row["seed"]: row for row in summary.get("per_seed", ())}
    if set(rows) != set(found.seeds):
        raise ValueError(f"{found.folder / 'summary.json'} is corrupt: it is of other seeds")
    final = summary.get("actions", "sampled")
    scores = {}
    for actions in ("sampled", "greedy"):
        of_seeds = [rows[seed] for seed in found.seeds]
        if actions != final:
            of_seeds = [row.get(actions) for row in of_seeds]
        if all(of_seeds):
            means = np.array([stored_number(row.get("mean")) for row in of_seeds])
            scores[actions] = np.where(failed | ~np.isfinite(means), np.nan, means)
    return scores


def stored_number(stored: float | str | None) -> float:
    """A number from JSON, where null is NaN and infinity a string."""
    return np.nan if stored is None else float(stored)


def per_seed(
    metrics: Mapping[str, np.ndarray],
    evaluation: "Evaluation | None" = None,
    on_nonfinite: OnNonfinite = "stop",
) -> dict[str, np.ndarray]:
    """Columns with a row per run: env_steps, finite, failed, and those of the final evaluation.

    Args:
        metrics: [n, updates] each.
        evaluation: returns [n, episodes]; None: there was none.
        on_nonfinite: The setting of the runs.

    Returns:
        env_steps, finite (all numbers of all updates were), failed (see `failed_runs`), and, with
        an evaluation, mean, standard_error (of the mean over episodes), min, max, episodes:
        [n] each.
    """
    columns = {
        "env_steps": metrics["env_steps"].sum(axis=1, dtype=np.int64),
        "finite": (metrics["nonfinite"] == 0).all(axis=1),
        "failed": failed_runs(metrics, on_nonfinite),
    }
    return columns | ({} if evaluation is None else final_scores(evaluation))


def final_scores(evaluation: "Evaluation") -> dict[str, np.ndarray]:
    """mean, standard_error (of the mean over episodes; NaN for one episode), min, max and episodes
    of each run, [n].
    """
    returns = np.asarray(evaluation.returns, float)
    num_runs, episodes = returns.shape
    with np.errstate(invalid="ignore"):  # returns may be infinite
        mean = returns.mean(axis=1)
    return {
        "mean": mean,
        "standard_error": statistics.standard_error(returns),
        "min": returns.min(axis=1),
        "max": returns.max(axis=1),
        "episodes": np.full(num_runs, episodes),
    }


def as_rows(columns: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """The rows of columns, as plain numbers."""
    values = zip(*(x.tolist() for x in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in values]


def over_seeds(scores: np.ndarray, statistic: Statistic = statistics.mean) -> Estimate:
    """The mean of one score per seed, [S], or another statistic, with its interval; NaN without
    seeds, and without an interval if returns are not finite.
    """
    if not len(scores) or not np.isfinite(scores).all():
        mean = float(np.mean(scores)) if len(scores) else np.nan
        return Estimate(mean, np.nan, np.nan)
    return statistics.bootstrap_interval(scores, statistic)


def failed_runs(metrics: Mapping[str, Any], on_nonfinite: OnNonfinite = "stop") -> Any:
    """bool [n]: runs that are frozen at their end, or with `skip` have learned nothing, as every
    update was skipped.

    Args:
        metrics: [n, updates] each, of numpy or of jax; or of one run, [updates].
        on_nonfinite: The setting of the runs.
    """
    skipped = metrics["skipped"] > 0
    return skipped.all(axis=-1) if on_nonfinite == "skip" else skipped[..., -1]


def first_failures(metrics: Mapping[str, np.ndarray]) -> list[tuple[int, int] | None]:
    """By run the first update with a number that was not finite or a step without a legal action,
    and its bits in the metric `nonfinite`; None if there was none.

    metrics: [n, updates] each.
    """
    failures: list[tuple[int, int] | None] = []
    for bits in metrics["nonfinite"]:
        updates = np.flatnonzero(bits)
        failures.append((int(updates[0]), int(bits[updates[0]])) if len(updates) else None)
    return failures


def causes(bits: int) -> str:
    """The causes that are set in the metric `nonfinite`, in words."""
    return " and ".join(name for i, name in enumerate(NONFINITE_CAUSES) if bits >> i & 1)


def fault_of_runs(bits: np.ndarray) -> str:
    """The end of a sentence on runs whose last update was not applied, by its causes.

    bits: As in the metric `nonfinite`, [n]; 0: unknown.
    """
    if (bits == _MASKS).all():
        return "without a legal action"
    if (bits & ~_MASKS).all():
        return "not finite"
    return "stopped or skipped"


def _described(bits: int, update: int) -> str:
    """The causes that are set in the metric `nonfinite`, as the beginning of a sentence."""
    of_numbers = bits & ~_MASKS
    faults = [f"{causes(of_numbers)} not finite"] if of_numbers else []
    if bits & _MASKS:
        faults.append("no action was legal at a step")
    return f"{' and '.join(faults)} in update {update}"


def describe_failures(
    summary: Mapping[str, Any],
    metrics: Mapping[str, np.ndarray],
    on_nonfinite: OnNonfinite = "stop",
) -> list[str]:
    """Sentences on numbers that were not finite and on steps without a legal action, one per seed,
    the first few.

    Args:
        summary: Of the run.
        metrics: Its metrics, [seeds, updates] each.
        on_nonfinite: The setting of the run.
    """
    lines = []
    failures, skipped = first_failures(metrics), metrics["skipped"].sum(axis=1)
    for row, failure, number in zip(summary["per_seed"], failures, skipped, strict=True):
        is_failed = row["seed"] in summary["failed_seeds"]
        if failure is not None:
            update, bits = failure
            end = ", where it is frozen" if is_failed and on_nonfinite == "stop" else ""
            if on_nonfinite == "skip":
                end = f"; {_skipped(int(number), summary['num_updates'])}"
            lines.append(f"seed {row['seed']}: {_described(bits, update)}{end}")
        elif is_failed:
            lines.append(f"seed {row['seed']}: a return of the evaluation is not finite")
    if not lines:
        return []
    failed, seeds = len(summary["failed_seeds"]), len(summary["per_seed"])
    more = len(lines) - _LISTED_FAILURES
    found = [failure for failure in failures if failure is not None]
    remedies = []
    if any(bits & _MASKS for _, bits in found):
        remedies.append("an action mask must be True for at least one action until an episode ends")
    if any(bits & _OF_ENV for _, bits in found):
        remedies.append(
            "the environment returned a reward or an observation that is not finite: check it first"
        )
    if any(bits & _STATISTICS and not bits & _OF_ENV for _, bits in found):
        remedies.append(
            "the square of an observation or of a reward overflows in a running statistic: scale "
            "it in the environment"
        )
    of_values = _OF_ENV | _STATISTICS
    in_updates = [update for update, bits in found if bits != _MASKS and not bits & of_values]
    if any(update > 0 for update in in_updates):
        remedies.append("a smaller learning rate may help; --debug names the operation")
    elif in_updates:
        remedies.append(
            "in update 0 the cause is the estimator or a network or, if an update takes several "
            "steps, a large learning rate: --debug names the operation"
        )
    advice = "; ".join(remedies)
    if on_nonfinite == "stop":
        advice += ", --on-nonfinite skip continues"
    left_out = f"{failed} of {numerals.counted(seeds, 'seed')} left out of the evaluation; "
    return [
        *lines[:_LISTED_FAILURES],
        *([f"... and {more} more"] if more > 0 else []),
        f"{left_out if failed else ''}{advice}",
    ]


def _skipped(number: int, num_updates: int) -> str:
    """The updates that were skipped, in words."""
    if number == num_updates == 1:
        return "the only update was skipped, and nothing was learned"
    if number == num_updates:
        return f"all {num_updates} updates were skipped, and nothing was learned"
    were = numerals.agreeing(number, "was", "were")
    return f"{number} of {num_updates} updates {were} skipped"


def write_metrics(folder: Path, metrics: Mapping[str, np.ndarray], seeds: Sequence[int]) -> None:
    """Writes metrics.parquet in long form: seed, update, total_env_steps, then one column per
    metric.

    Args:
        folder: the folder of the run.
        metrics: [num_seeds, num_updates] each.
        seeds: of the rows of the metrics.
    """
    rows = long_form(metrics, seed=np.asarray(seeds))
    tables.write_parquet(folder / "metrics.parquet", rows)


def long_form(
    metrics: Mapping[str, np.ndarray], *, first: int = 0, before: Any = 0, **labels: np.ndarray
) -> dict[str, np.ndarray]:
    """Columns with a row per run and update: LABELS, then the metrics.

    Args:
        metrics: [n, num_updates] each.
        first: number of the first update.
        before: environment steps until then, [n].
        **labels: the other LABELS of each run, [n] each.
    """
    num_runs, num_updates = metrics["env_steps"].shape
    steps = np.cumsum(metrics["env_steps"], axis=1, dtype=np.int64) + np.reshape(before, (-1, 1))
    return {
        **{name: np.repeat(values, num_updates) for name, values in labels.items()},
        "update": np.tile(np.arange(first, first + num_updates), num_runs),
        "total_env_steps": steps.ravel(),
        **{name: np.asarray(x).ravel() for name, x in metrics.items()},
    }


def read_metrics(folder: Path) -> dict[str, np.ndarray]:
    """The columns of metrics.parquet, or, for a run that has not ended, those in its checkpoints. A
    run that is being resumed has no summary, and its metrics.parquet is outdated.

    Raises ValueError if there are none, if a file is corrupt, and if it has more rows than the run.
    """
    path, seeds = folder / "metrics.parquet", num_seeds(folder)
    most = None if seeds is None else seeds * _num_updates(folder)
    parts = _metrics_parts(folder)
    has_ended = os.path.lexists(folder / "summary.json")
    if os.path.lexists(path) and (has_ended or not parts):
        return tables.read_parquet(path, most_rows=most)
    if not parts:
        raise ValueError(f"there are no metrics in {folder} yet")
    stored = completed([tables.read_parquet(part, most_rows=most) for part in parts])
    for part, table in zip(parts, stored, strict=True):
        if set(table) != set(stored[0]):
            raise ValueError(
                f"{part} is corrupt, remove it: it has other columns than {parts[0].name}"
            )
    return {name: np.concatenate([table[name] for table in stored]) for name in stored[0]}


def has_metrics(folder: Path) -> bool:
    """True if `read_metrics` has something to read."""
    return os.path.lexists(folder / "metrics.parquet") or bool(_metrics_parts(folder))


def _metrics_parts(folder: Path) -> list[Path]:
    """The tables of metrics in the checkpoints of a run."""
    return files.named(folder / "checkpoints", METRICS_PART)


def num_seeds(folder: Path) -> int | None:
    """The seeds of the run in a folder, by its config.json; None if there is none."""
    if not os.path.lexists(folder / "config.json"):
        return None
    return int(folders.read_options(folder).get("seeds", 1))


def _num_updates(folder: Path) -> int:
    """The largest number of updates of the run in a folder; its environment object need not be
    known.
    """
    data = folders.read_json(
        folder / "config.json", {**folders.SETUP, "config": {"num_updates": int}}
    )
    return int(data["config"]["num_updates"])
