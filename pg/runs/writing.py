"""The results of a run, written into its folder: the same files for a run of the train command, for
each program of a benchmark and for the best configuration of a sweep.

    metrics.parquet, params.safetensors, best.safetensors, summary.json
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pg.evaluation import Evaluation
from pg.reports import curves, statistics
from pg.runs import folders, parameters, results
from pg.runs.execution import Run


def write_results(
    folder: Path,
    run: Run,
    evaluations: Mapping[str, Evaluation],
    seeds: Sequence[int],
    draw: Callable[[Mapping[str, Any]], None] | None = None,
    seconds: Callable[[], Mapping[str, float]] = dict,
) -> dict[str, Any]:
    """Writes metrics, parameters and, last, the summary, which marks the run as finished.

    Args:
        folder: the folder of the run, which has its config.json and versions.json.
        run: the training of all seeds.
        evaluations: see `summarise`.
        seeds: of the run.
        draw: called with the summary before that is written, for the pictures of a finished run.
        seconds: returns the wall time of a command by parts, entries NAME_seconds of the summary;
            called once everything else is written.

    Returns:
        The summary.

    Raises:
        OSError: a file cannot be written.
    """
    summary = summarise(run, evaluations, seeds)
    results.write_metrics(folder, run.metrics, seeds)
    parameters.write_params(folder, run.states.params, run.states.normaliser)
    if run.best is not None:
        best = run.best
        parameters.write_params(folder, best.params, best.normaliser, name=parameters.BEST)
    if draw is not None:
        draw(summary)
    summary |= {f"{part}_seconds": value for part, value in seconds().items()}
    folders.write_json(folder / "summary.json", summary)
    return summary


def summarise(
    run: Run,
    evaluations: Mapping[str, Evaluation],
    seeds: Sequence[int],
) -> dict[str, Any]:
    """The content of summary.json.

    Args:
        run: the training of all seeds.
        evaluations: by how actions are chosen, "sampled" or "greedy", the returns [seeds,
            episodes]. The first is the final evaluation; others are listed beside it
            under their names, such as "best" for the best parameters. {}: the run was interrupted.
        seeds: of the run.

    Returns:
        The final evaluation over all seeds and, in `per_seed`, for each. With one seed,
        `standard_error` is over episodes; with several it is of the mean over seeds, and
        `interval` is that mean's bootstrap interval. Seeds that ended at a number that was not
        finite, or whose returns are not, are listed in `failed_seeds`, and left out of figures over
        all seeds. With `Config.diagnostics`, `noise_scale` is that of the last tenth of the
        training, and so is `explained_variance`, with a critic V.
    """
    frozen = results.failed_runs(run.metrics, run.on_nonfinite)
    scores = {name: results.final_scores(x) for name, x in evaluations.items()}
    left_out = {name: frozen | ~np.isfinite(x["mean"]) for name, x in scores.items()}
    failed = next(iter(left_out.values()), frozen)  # of the final evaluation, the first
    rows: list[dict[str, Any]] = []
    of_seeds = results.per_seed(run.metrics, on_nonfinite=run.on_nonfinite)
    for seed, row in zip(seeds, results.as_rows(of_seeds), strict=True):
        rows.append({"seed": seed, **row})
    for row, failure in zip(rows, results.first_failures(run.metrics), strict=True):
        if failure is not None:
            row |= {"not_finite_at": failure[0], "not_finite_in": results.causes(failure[1])}
    summary: dict[str, Any] = {}
    for actions, columns in scores.items():
        over_seeds = _over_seeds(columns, ~left_out[actions])
        is_final = not summary
        summary |= (over_seeds | {"actions": actions}) if is_final else {actions: over_seeds}
        for row, of_seed in zip(rows, results.as_rows(columns), strict=True):
            row |= of_seed if is_final else {actions: of_seed}
    if "best" in summary and run.best is not None:
        for row, update in zip(rows, run.best.update.tolist(), strict=True):
            row["best"]["update"] = update
    if "grad_variance" in run.metrics:  # of `Config.diagnostics`
        noise_scale = curves.final_noise_scale(run.metrics)
        summary["noise_scale"] = noise_scale if np.isfinite(noise_scale) else None
        explained = curves.final_explained_variance(run.metrics)
        if explained is not None:
            summary["explained_variance"] = explained if np.isfinite(explained) else None
    return summary | {
        "status": _status(run),
        "num_updates": run.metrics["env_steps"].shape[1],
        "env_steps": int(run.metrics["env_steps"].sum(dtype=np.int64)),
        "failed_seeds": [seed for seed, one in zip(seeds, failed, strict=True) if one],
        "compile_seconds": run.compile_seconds,
        "train_seconds": run.train_seconds,
        "per_seed": rows,
    }


def _status(run: Run) -> str:
    """The way in which the training of a run ended."""
    if run.signum:
        return "interrupted"
    if run.finished:
        return "finished"
    return "reached" if run.reached else "stopped"


def _over_seeds(scores: Mapping[str, np.ndarray], fine: np.ndarray) -> dict[str, Any]:
    """The final evaluation over the seeds that are `fine` [S]; {} if none is.

    scores: see `results.final_scores`.
    """
    if not fine.any():
        return {}
    if len(fine) == 1:
        return results.as_rows(scores)[0]
    means = scores["mean"][fine]
    mean = results.over_seeds(means)
    return {
        "mean": mean.value,
        "interval": [mean.low, mean.high],
        "standard_error": statistics.standard_error(means),
        "median_of_seeds": np.median(means),
        "min": scores["min"][fine].min(),
        "max": scores["max"][fine].max(),
        "episodes": int(scores["episodes"][fine].sum()),
    }
