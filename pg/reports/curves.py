"""Learning curves: one definition of a seed's curve and one of their mean.

The training of a seed is cut into K bins of equally many updates. The value of a bin is the mean
return of all episodes that ended in it, so that every episode counts once: a mean of the
updates' means would give more weight to the episodes of an update in which few ended, and these
are the long ones.

The mean over seeds is taken on a grid of environment steps that all seeds have, on which every
curve is interpolated linearly. So it is a mean over the same seeds everywhere; its interval is the
percentile bootstrap of whole curves, pointwise. Imports neither jax nor gymnax.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pg import numerals
from pg.inputs import count, shown
from pg.reports import statistics
from pg.reports.statistics import Estimate, Statistic

POINTS = 100  # of a curve that is drawn


class Curve(NamedTuple):
    """The mean of learning curves over seeds."""

    steps: np.ndarray  # [K] environment steps of a seed
    mean: Estimate  # [K] each


class ShortenedCurve(Curve):
    """A mean that ends at the last step that all seeds reached, which some went beyond."""


def seed_curves(
    metrics: Mapping[str, np.ndarray], points: int = POINTS
) -> tuple[np.ndarray, np.ndarray]:
    """The learning curve of each seed.

    Args:
        metrics: return, episodes and env_steps, [S, updates] each.
        points: of a curve, at most: K is `points`, or the number of updates where that is less.

    Returns:
        Environment steps at the end of each bin [S, K], and the mean return of the episodes that
        ended in it [S, K], NaN if none did, or if a return is not finite.
    """
    num_updates = metrics["env_steps"].shape[1]
    edges = np.linspace(0, num_updates, min(points, num_updates) + 1).astype(int)
    ends = np.unique(edges[1:])
    episodes = _between(metrics["episodes"], ends)
    ended = metrics["episodes"] > 0  # elsewhere the return is NaN
    total = _between(np.where(ended, metrics["return"] * metrics["episodes"], 0.0), ends)
    returns = np.where(episodes > 0, total / np.maximum(episodes, 1.0), np.nan)
    steps = np.cumsum(metrics["env_steps"], axis=1, dtype=np.int64)[:, ends - 1]
    return steps, np.where(np.isfinite(returns), returns, np.nan)


def evaluation_curve(metrics: Mapping[str, np.ndarray]) -> Curve:
    """The mean over seeds of the evaluations during training, which are at the same updates for
    all; steps are averages over seeds.

    metrics: eval_return and env_steps, [S, updates] each. Evaluations in which a return is not
    finite are left out.
    """
    returns = np.asarray(metrics["eval_return"], float)
    evaluated = np.isfinite(returns).all(axis=0)
    steps = np.cumsum(metrics["env_steps"], axis=1, dtype=np.int64).mean(axis=0)
    return Curve(steps[evaluated], statistics.mean_curve(returns[:, evaluated]))


def _between(x: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Sums of x [S, updates] over the updates before each end since the end before, [S, K].

    A number that is not finite only affects the sum of its own bin.
    """
    starts = np.concatenate([[0], ends[:-1]])
    return np.add.reduceat(np.asarray(x, float), starts, axis=1)


def mean_learning_curve(
    steps: Any, returns: Any, points: int = POINTS, statistic: Statistic = statistics.mean
) -> Curve:
    """The mean over seeds of learning curves, or another statistic, with its pointwise bootstrap
    interval; a `ShortenedCurve` if the seeds have different numbers of steps.

    Args:
        steps: environment steps so far, [S, K], or a sequence of S arrays.
        returns: values at these steps, of the same shapes; NaN where no episode had ended, which is
            left out.
        points: the number of points of the result.
        statistic: over seeds, as `statistics.iqm`.

    Raises:
        ValueError: a seed has no value at all, as a mean over the others would be biased upwards;
            or the seeds have no steps in common.
    """
    pairs = []
    for x, y in zip(steps, returns, strict=True):
        known = np.isfinite(y)
        pairs.append((np.asarray(x)[known], np.asarray(y)[known]))
    if without := sum(not len(x) for x, _ in pairs):
        raise ValueError(f"no episode ended in {without} of {numerals.counted(len(pairs), 'seed')}")
    grid, values = aligned(pairs, points)
    last_steps = {int(x[-1]) for x, _ in pairs}
    kind = Curve if len(last_steps) == 1 else ShortenedCurve
    if statistic is statistics.mean:  # a product with counts, which is faster
        return kind(grid, statistics.mean_curve(values))
    return kind(grid, statistics.curve(values, statistic))


def steps_to_threshold(steps: Any, returns: Any, threshold: float) -> np.ndarray:
    """Environment steps of each seed to the end of the first bin whose mean return is at least the
    threshold, [S]; infinite if there is none.

    Args:
        steps: environment steps so far, [S, K], as in `seed_curves`.
        returns: values at these steps, of the same shape; NaN where no episode had ended.
        threshold: a return.
    """
    steps = np.asarray(steps, float)
    reached = np.asarray(returns) >= threshold  # which NaN is not
    first = steps[np.arange(len(steps)), reached.argmax(axis=1)]
    return np.where(reached.any(axis=1), first, np.inf)


def aligned(
    curves: Sequence[tuple[np.ndarray, np.ndarray]], points: int = POINTS
) -> tuple[np.ndarray, np.ndarray]:
    """Curves (steps, values), interpolated at the same steps: steps [points], which all curves
    have, and [N, points].

    Raises ValueError for curves that have no steps in common, that have no points, or whose shapes
    differ.
    """
    points = count("points", points)
    for curve in curves:
        shapes = [np.shape(part) for part in curve] if isinstance(curve, tuple | list) else []
        if len(shapes) != 2 or len(shapes[0]) != 1 or shapes[0] != shapes[1]:
            got = f"arrays of shapes {shapes}" if shapes else shown(curve)
            raise ValueError(f"a curve must be a pair of steps [K] and values [K], got {got}")
    if not curves or not all(len(steps) for steps, _ in curves):
        raise ValueError(
            f"curves must have at least one point each, got {[len(steps) for steps, _ in curves]} "
            f"points"
        )
    begin, end = max(steps[0] for steps, _ in curves), min(steps[-1] for steps, _ in curves)
    if begin > end:
        raise ValueError(
            f"curves must have steps in common, and one begins at {begin}, where "
            f"another ended at {end}"
        )
    grid = np.linspace(begin, end, points)
    return grid, np.stack([np.interp(grid, steps, values) for steps, values in curves])


def gradient_quality(metrics: Mapping[str, np.ndarray], bins: int = 30) -> dict[str, np.ndarray]:
    """With `Config.diagnostics`, for bins of training: env_steps (a seed's, so far),
    noise_scale (in episodes, or in environments of a window), signal_to_noise (of one),
    explained_variance (with a critic V); [bins] each.

    metrics: [seeds, updates]. In each bin numerators and denominators are averaged over seeds
    and updates before they are divided: an estimate of a small signal is sometimes negative, and
    the ratio of a single update is meaningless. If noise hides the signal the noise scale is
    infinite; if every gradient is 0, as with rewards that are all equal, or nothing was measured, a
    ratio is NaN.
    """
    updates = metrics["env_steps"].shape[1]
    edges = np.unique(np.linspace(0, updates, bins + 1).astype(int))

    def binned(x: np.ndarray) -> np.ndarray:
        stretches = [x[:, begin:end] for begin, end in itertools.pairwise(edges)]
        return np.array(
            [np.nan if np.isnan(part).all() else np.nanmean(part) for part in stretches]
        )

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


def final_noise_scale(metrics: Mapping[str, np.ndarray]) -> float:
    """The noise scale of the last tenth of the training, as in `gradient_quality`."""
    return float(gradient_quality(metrics, bins=10)["noise_scale"][-1])


def final_explained_variance(metrics: Mapping[str, np.ndarray]) -> float | None:
    """The critic's explained variance in the last tenth of the training, as in `gradient_quality`;
    None without a V, NaN if there was nothing to explain.
    """
    if "explained_variance" not in metrics:
        return None
    return float(gradient_quality(metrics, bins=10)["explained_variance"][-1])
