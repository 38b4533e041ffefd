"""What came of a run, in its folder, and the way back.

metrics.parquet     one row per seed and update      summary.json    final evaluation, per seed and over seeds
params.safetensors  final parameters, no pickle      curve.png, curve.svg
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pg import folders, nonfinite
from pg.evaluate import Evaluation
from pg.runs import Run

_NORMALISER = "normaliser/"  # what running statistics are stored under
POINTS = 100  # of a curve that is drawn or kept


def summarise(run: Run, evaluation: Evaluation | None, seeds: Sequence[int], *, greedy: bool) -> dict[str, Any]:
    """What summary.json says: the final evaluation over all seeds and for each, steps, and seconds.

    With one seed, standard_error is over episodes; with several, of the mean over seeds. Seeds that ended at a number
    that was not finite are listed, and left out of what is over all seeds.
    """
    steps = run.metrics["env_steps"].sum(axis=1, dtype=np.int64)
    ended = nonfinite.failed(run.metrics)
    per_seed: list[dict[str, Any]] = [
        {"seed": seed, "env_steps": int(steps[i]), "finite": failure is None}
        | ({} if failure is None else {"not_finite_at": failure[0], "not_finite_in": failure[1]})
        for i, (seed, failure) in enumerate(zip(seeds, nonfinite.first_failures(run.metrics), strict=True))
    ]
    summary: dict[str, Any] = {
        "status": "interrupted" if run.signum else "finished" if run.finished else "stopped",
        "num_updates": run.metrics["env_steps"].shape[1],
        "env_steps": int(steps.sum()),
        "failed_seeds": [seed for seed, one in zip(seeds, ended, strict=True) if one],
        "compile_seconds": run.compile_seconds,
        "train_seconds": run.train_seconds,
    }
    if evaluation is None:
        return summary | {"per_seed": per_seed}
    parts = [Evaluation(*(x[i] for x in evaluation)).summary() for i in range(len(seeds))]
    total = _over_seeds(parts, np.asarray(evaluation.returns), ~ended)
    actions = "greedy" if greedy else "sampled"
    return (
        total | {"actions": actions} | summary | {"per_seed": [a | b for a, b in zip(per_seed, parts, strict=True)]}
    )


def _over_seeds(parts: Sequence[Mapping[str, Any]], returns: np.ndarray, fine: np.ndarray) -> dict[str, Any]:
    """The final evaluation over the seeds that are `fine` [S]; {} if none is. returns: [S, episodes]."""
    if not fine.any():
        return {}
    if len(parts) == 1:
        return dict(parts[0])
    means = np.array([part["mean"] for part in parts])[fine]
    return {
        "mean": means.mean(),
        "standard_error": means.std(ddof=1) / len(means) ** 0.5 if len(means) > 1 else np.nan,
        "median_of_seeds": np.median(means),
        "min": returns[fine].min(),
        "max": returns[fine].max(),
        "episodes": parts[0]["episodes"] * len(means),
    }


def failures(summary: Mapping[str, Any]) -> list[str]:
    """What to say of numbers that were not finite, a line per seed, the first few."""
    lines = [
        f"seed {one['seed']}: {one['not_finite_in']} not finite in update {one['not_finite_at']}"
        + (", where it stands still" if one["seed"] in summary["failed_seeds"] else "")
        for one in summary["per_seed"]
        if not one["finite"]
    ]
    if not lines:
        return []
    failed, seeds = len(summary["failed_seeds"]), len(summary["per_seed"])
    more = [f"... and {len(lines) - 5} more"] if len(lines) > 5 else []
    advice = "a smaller learning rate may help; --debug names the operation, --on-nonfinite skip goes on"
    return [*lines[:5], *more, f"{failed} of {seeds} seed(s) left out of the evaluation; {advice}"]


def write_metrics(folder: Path, metrics: Mapping[str, np.ndarray], first_seed: int) -> None:
    """metrics.parquet, long form: seed, update, total_env_steps, then one column per metric.

    metrics: arrays [num_seeds, num_updates].
    """
    seeds = np.arange(first_seed, first_seed + len(metrics["env_steps"]))
    write_table(folder / "metrics.parquet", long_form(metrics, seed=seeds))


def long_form(
    metrics: Mapping[str, np.ndarray], *, first: int = 0, before: Any = 0, **runs: np.ndarray
) -> dict[str, np.ndarray]:
    """Columns with a row per run and update: what the runs are, [n] each, then metrics [n, num_updates].

    first: number of the first update; before: environment steps until then, [n].
    """
    num_runs, num_updates = metrics["env_steps"].shape
    steps = np.cumsum(metrics["env_steps"], axis=1, dtype=np.int64) + np.reshape(before, (-1, 1))
    return {
        **{name: np.repeat(values, num_updates) for name, values in runs.items()},
        "update": np.tile(np.arange(first, first + num_updates), num_runs),
        "total_env_steps": steps.ravel(),
        **{name: np.asarray(x).ravel() for name, x in metrics.items()},
    }


def read_metrics(folder: Path) -> dict[str, np.ndarray]:
    """The columns of metrics.parquet, or, of a run that has not ended, of what its checkpoints have."""
    path = folder / "metrics.parquet"
    if path.exists():
        return read_table(path)
    parts = [read_table(part) for part in sorted((folder / "checkpoints").glob("metrics-*.parquet"))]
    if not parts:
        raise ValueError(f"there are no metrics in {folder} yet")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def write_table(path: Path, columns: Mapping[str, Any]) -> None:
    """A parquet file of columns of one length."""
    import pyarrow
    import pyarrow.parquet as parquet

    folders.replace(path, lambda temporary: parquet.write_table(pyarrow.table(dict(columns)), temporary))


def read_table(path: Path, columns: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The columns of a parquet file, all unless some are named. Raises ValueError for a damaged file."""
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        table = parquet.read_table(path, columns=None if columns is None else list(columns))
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is damaged, remove it: {error}") from None
    return {name: table[name].to_numpy() for name in table.column_names}


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, aligned to be read as it stands; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    texts = [f"| {' | '.join(cell.ljust(w) for cell, w in zip(row, widths, strict=True))} |" for row in rows]
    return "\n".join([texts[0], f"| {' | '.join('-' * w for w in widths)} |", *texts[1:]])


def insert(path: Path, text: str, marks: tuple[str, str]) -> None:
    """Replaces what stands between the two marks of a file. Raises ValueError where they are not, once each."""
    check_marks(path, marks)
    before, rest = path.read_text().split(marks[0])
    whole = "\n".join([before + marks[0], text, marks[1] + rest.split(marks[1])[1]])
    folders.replace(path, lambda temporary: temporary.write_bytes(whole.encode()))


def check_marks(path: Path, marks: tuple[str, str]) -> None:
    """Raises ValueError unless a file has both marks, once each and in order."""
    text = path.read_text() if path.is_file() else ""
    if [text.count(mark) for mark in marks] != [1, 1] or text.index(marks[0]) > text.index(marks[1]):
        raise ValueError(f"{path} needs one line {marks[0]} and below it one line {marks[1]}")


def curve(metrics: Mapping[str, np.ndarray], points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Learning curves of at most `points` points: environment steps so far [S, K], and the mean return of the
    episodes that ended since the point before [S, K], NaN where none did.

    metrics: return, episodes and env_steps, [S, G].
    """
    num_updates = metrics["env_steps"].shape[1]
    ends = np.unique(np.linspace(0, num_updates, min(points, num_updates) + 1).astype(int)[1:])
    total = np.where(metrics["episodes"] > 0, metrics["return"] * metrics["episodes"], 0.0)
    summed, episodes = (
        np.diff(np.cumsum(x, axis=1, dtype=float)[:, ends - 1], axis=1, prepend=0.0)
        for x in (total, metrics["episodes"])
    )
    returns = np.where(episodes > 0, summed / np.maximum(episodes, 1.0), np.nan)
    steps = np.cumsum(metrics["env_steps"], axis=1, dtype=np.int64)[:, ends - 1]
    return steps, returns.astype(np.float32)


def aligned(curves: Sequence[tuple[np.ndarray, np.ndarray]], points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Curves (steps, values), read off at the same steps: steps [points], which all curves have, and [N, points].

    Raises ValueError for curves that have no steps in common, or of which one has no points.
    """
    if not curves or not all(len(steps) for steps, _ in curves):
        raise ValueError(
            f"curves must have at least one point each, got {[len(steps) for steps, _ in curves]} points"
        )
    begin, end = max(steps[0] for steps, _ in curves), min(steps[-1] for steps, _ in curves)
    if begin > end:
        raise ValueError(f"curves must have steps in common, and one begins at {begin}, where another ended at {end}")
    grid = np.linspace(begin, end, points)
    return grid, np.stack([np.interp(grid, steps, values) for steps, values in curves])


def gradient_quality(metrics: Mapping[str, np.ndarray], bins: int = 30) -> dict[str, np.ndarray]:
    """With `Config.diagnostics`, of stretches of training: env_steps (a seed's, so far), noise_scale (in episodes, or
    in environments of a window), signal_to_noise (of one), explained_variance (with a critic V); [bins] each.

    metrics: [seeds, updates]. Of each stretch numerators and denominators are averaged over seeds and updates before
    they are divided: a signal that is small is negative at times, and no ratio of one update means anything. Where
    noise hides the signal the noise scale is infinite; where every gradient is 0, as of rewards that are all equal,
    or nothing was measured, a ratio is NaN.
    """
    updates = metrics["env_steps"].shape[1]
    edges = np.unique(np.linspace(0, updates, bins + 1).astype(int))

    def binned(x: np.ndarray) -> np.ndarray:
        stretches = [x[:, begin:end] for begin, end in itertools.pairwise(edges)]
        return np.array([np.nan if np.isnan(part).all() else np.nanmean(part) for part in stretches])

    noise, signal = binned(metrics["grad_variance"]), binned(metrics["grad_squared_norm"])
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 is NaN, as it should be
        ratio, inverse = noise / signal, signal / noise
    hidden = (signal <= 0) & (noise > 0)
    found = {
        "env_steps": np.cumsum(metrics["env_steps"], axis=1).mean(axis=0)[edges[1:] - 1],
        "noise_scale": np.where(hidden, np.inf, ratio),
        "signal_to_noise": inverse,
    }
    if "explained_variance" in metrics:
        found["explained_variance"] = binned(metrics["explained_variance"])
    return found


def write_params(folder: Path, params: Any, normaliser: Any = ()) -> None:
    """params.safetensors: each leaf under its path in the tree, as `policy/params/torso/Dense_0/kernel`.

    normaliser: `state.normaliser`, which a policy that sees standardised observations needs; under `normaliser/`.
    """
    import safetensors.numpy

    data = safetensors.numpy.save(leaves(params, normaliser))
    folders.replace(folder / "params.safetensors", lambda path: path.write_bytes(data))


def leaves(params: Any, normaliser: Any = ()) -> dict[str, np.ndarray]:
    """What `write_params` writes, by name."""
    trees = (("", params), (_NORMALISER, normaliser))
    found = {start + _path(path): leaf for start, tree in trees for path, leaf in jax.tree.leaves_with_path(tree)}
    return {name: np.ascontiguousarray(leaf) for name, leaf in found.items()}


def read_params(folder: Path, like: Any) -> Any:
    """The parameters of a run, in the tree of `like` (arrays or `jax.eval_shape`'s).

    Raises ValueError naming the leaf where file and tree differ. With several seeds every leaf has a first axis.
    """
    found = read_leaves(folder)
    return _restored(folder, {n: x for n, x in found.items() if not n.startswith(_NORMALISER)}, like)


def read_normaliser(folder: Path, like: Any) -> Any:
    """The running statistics of a run, in the tree of `like`, as `read_params` reads the parameters."""
    found, skip = read_leaves(folder), len(_NORMALISER)
    return _restored(folder, {n[skip:]: x for n, x in found.items() if n.startswith(_NORMALISER)}, like)


def read_leaves(folder: Path) -> dict[str, np.ndarray]:
    """All arrays of params.safetensors, by name. Raises ValueError where it is missing or damaged."""
    import safetensors.numpy

    path = folder / "params.safetensors"
    try:
        return safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} is missing or damaged: {str(error).splitlines()[0]}") from None


def _restored(folder: Path, leaves: Mapping[str, np.ndarray], like: Any) -> Any:
    wanted = {_path(path): leaf for path, leaf in jax.tree.leaves_with_path(like)}
    if odd := sorted(set(wanted) ^ set(leaves)):
        raise ValueError(f"{folder} holds the parameters of another network: {', '.join(odd)}")
    for name, leaf in sorted(wanted.items(), reverse=True):
        found = leaves[name]
        if found.shape[found.ndim - leaf.ndim :] != leaf.shape or found.dtype != leaf.dtype:
            shape = f"{found.dtype}{list(found.shape)}"
            raise ValueError(f"{folder}: {name} is {shape}, where {leaf.dtype}{list(leaf.shape)} was expected")
    return jax.tree.unflatten(jax.tree.structure(like), [jnp.asarray(leaves[name]) for name in wanted])


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
