"""Numbers with intervals, and statistics of scores, after Agarwal et al. 2021 (2108.13264).

`scores` is [N, M], N seeds on each of M environments, or [N], seeds on one environment. Every
interval, except that of pairs, is a stratified percentile bootstrap: the seeds are resampled with
replacement within each environment, independently of the other environments, and the environments
stay fixed. A single seed has no interval, as nothing is known of the spread between seeds: both
ends are NaN. With few seeds intervals are too narrow: none extends beyond the lowest and the
highest seed, which enclose the mean of a symmetric distribution with probability 1/2 for two seeds
and 3/4 for three. Nothing here imports jax.
"""

from collections.abc import Callable
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np

from pg import numerals

FEW_SEEDS = 5  # with fewer, reports say that intervals are too narrow
STANDARD_ERRORS = 1.96  # half the width of a normal interval of 95 %
Statistic = Callable[[np.ndarray], Any]  # scores [..., N, M] -> [...]


class Estimate(NamedTuple):
    """A number and the two ends of its interval, or three arrays of one shape.

    The confidence is 95 % unless another one was requested. Both ends are NaN if there is no
    interval.
    """

    value: Any
    low: Any
    high: Any

    @classmethod
    def from_error(cls, value: Any, standard_error: Any) -> "Estimate":
        """The normal interval, value ± 1.96 standard errors."""
        # there is no interval around what is not finite
        half = np.where(np.isfinite(value), STANDARD_ERRORS * standard_error, np.nan)[()]
        return cls(value, value - half, value + half)

    @classmethod
    def of_mean(cls, sample: np.ndarray) -> "Estimate":
        """The mean of a sample [n], n at least 1, with its normal interval; of a single value there
        is none.
        """
        with np.errstate(invalid="ignore"):  # inf - inf, whose NaN is the answer
            mean = sample.mean()
        return cls.from_error(mean, standard_error(sample))

    @property
    def standard_error(self) -> Any:
        """The standard error of the normal interval of 95 % that is as wide as this one."""
        return (self.high - self.low) / (2.0 * STANDARD_ERRORS)

    def __str__(self) -> str:
        """One number with its interval, or with the reason why it has none; arrays as `repr`."""
        if np.ndim(self.value):
            return repr(self)
        if not np.isnan(self.low):
            return numerals.interval(self.value, self.low, self.high)
        if not np.isfinite(self.value):
            return numerals.number(self.value)
        why = "which takes two seeds or more, one in each row of scores, or gradients that differ"
        return f"{numerals.number(self.value)} (no interval, {why})"


def standard_error(sample: Any) -> Any:
    """The standard error of the mean over the last axis, s / √n with the unbiased variance s².

    One value tells nothing of the spread: its standard error is NaN, without a warning, and so is
    that of values of which one is not finite.

    sample: an array of numpy or of jax, [..., n] -> [...].
    """
    n = sample.shape[-1]
    if n < 2:
        return np.nan * sample.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return sample.std(axis=-1, ddof=1) / n**0.5


def mean(scores: Any) -> np.ndarray:
    """Mean over all runs. scores: [..., N, M] -> [...]; [N] -> []."""
    return _checked(scores).mean(axis=(-2, -1))


def iqm(scores: Any) -> np.ndarray:
    """Interquartile mean: the mean of the middle half of all runs, pooled over seeds and
    environments.

    Of n runs the ⌊n/4⌋ lowest and the ⌊n/4⌋ highest are left out, whole runs and never fractions of
    one. This is `scipy.stats.trim_mean(scores, 0.25, axis=None)`, and so what rliable reports
    (2108.13264, section 4.3).
    scores: [..., N, M] -> [...]; [N] -> [].
    """
    scores = _checked(scores)
    pooled = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = pooled.shape[-1] // 4
    return pooled[..., cut : pooled.shape[-1] - cut].mean(axis=-1)


def bootstrap_interval(
    scores: Any,
    statistic: Statistic = iqm,
    *,
    seed: int = 0,
    repetitions: int = 2000,
    confidence: float = 0.95,
) -> Estimate:
    """A statistic of the scores with its stratified percentile bootstrap interval.

    Args:
        scores: [N, M] or [N]; for a single seed, N = 1, as in a transposed table, both ends are
            NaN.
        statistic: maps [..., N, M] to [...], as `iqm` and `mean` do.
        seed: of the resampling.
        repetitions: number of resamples.
        confidence: of the interval.

    Raises:
        ValueError: scores are empty or not finite, or the confidence is outside (0, 1).
    """
    scores = _table(scores)
    n, m = scores.shape
    _check_bootstrap(repetitions, confidence)
    drawn = np.random.default_rng(seed).integers(0, n, (repetitions, n, m))
    resampled = np.take_along_axis(scores[None], drawn, axis=1)  # [R, N, M]
    low, high = _interval(statistic(resampled), confidence, seeds=n)
    return Estimate(float(statistic(scores)), float(low), float(high))


def probability_of_improvement(
    x: Any,
    y: Any,
    *,
    paired: bool = False,
    seed: int = 0,
    repetitions: int = 2000,
    confidence: float = 0.95,
) -> Estimate:
    """P(X > Y) + ½ P(X = Y) for a run X of one method and a run Y of another, averaged over
    environments.

    For independent runs it is the Mann-Whitney statistic U / (N K) of each environment (2108.13264,
    section 4.3); the seeds of both methods are resampled. For pairs, such as runs that
    share their seed, it is the share of pairs in which X is above Y, so that the common effect of
    the seed cancels; the interval is Wilson's, for a share, as resampling would find no spread if
    every pair is won. If one method has a single seed, both ends of the interval are NaN.

    Args:
        x: scores [N, M] or [N].
        y: scores [K, M] or [K], in the same units per environment.
        paired: row i of x and row i of y are a pair, K = N.
        seed: of the resampling.
        repetitions: number of resamples.
        confidence: of the interval.

    Raises:
        ValueError: the numbers of environments or of pairs differ, or as in `bootstrap_interval`.
    """
    x, y = _table(x), _table(y)
    _check_bootstrap(repetitions, confidence)
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"x and y must have the same environments, got {x.shape[1]} and {y.shape[1]} columns"
        )
    if paired:
        if len(x) != len(y):
            raise ValueError(f"pairs need equally many runs, got {len(x)} and {len(y)}")
        won = (x > y) + 0.5 * (x == y)  # [N, M]
        return _share(won, confidence)
    above = (x[:, None] > y[None]) + 0.5 * (x[:, None] == y[None])  # [N, K, M]
    g = np.random.default_rng(seed)
    of_x, of_y = _counts(g, x, repetitions), _counts(g, y, repetitions)
    # Two contractions: the whole product [R, N, K, M] would not fit into memory.
    resampled = np.einsum("rmk,rmk->r", np.einsum("rmn,nkm->rmk", of_x, above), of_y) / above.size
    low, high = _interval(resampled, confidence, seeds=min(len(x), len(y)))
    return Estimate(float(above.mean()), float(low), float(high))


def performance_profile(
    scores: Any,
    thresholds: Any,
    *,
    seed: int = 0,
    repetitions: int = 2000,
    confidence: float = 0.95,
) -> Estimate:
    """Share of runs that score above each threshold τ, with pointwise intervals (2108.13264,
    equation 3).

    Each field of the result is [K], and does not increase with τ; for a single seed the ends of the
    intervals are NaN.

    Args:
        scores: [N, M] or [N].
        thresholds: [K].
        seed: of the resampling.
        repetitions: number of resamples.
        confidence: of the intervals.

    Raises:
        ValueError: thresholds are not a list of finite numbers, or as in `bootstrap_interval`.
    """
    scores, thresholds = _table(scores), np.asarray(thresholds, float)
    if thresholds.ndim != 1 or not np.isfinite(thresholds).all():
        raise ValueError(
            f"thresholds must be a list of finite numbers, got shape {thresholds.shape}"
        )
    _check_bootstrap(repetitions, confidence)
    above = (scores[..., None] > thresholds).astype(float)  # [N, M, K]
    counts = _counts(np.random.default_rng(seed), scores, repetitions)
    resampled = np.einsum("rmn,nmk->rk", counts, above, optimize=True) / scores.size
    return Estimate(above.mean(axis=(0, 1)), *_interval(resampled, confidence, seeds=len(scores)))


def mean_curve(
    curves: Any, *, seed: int = 0, repetitions: int = 2000, confidence: float = 0.95
) -> Estimate:
    """Mean over seeds at each point of learning curves, with pointwise intervals; whole curves are
    resampled.

    At each point the mean is over the seeds that have a value there; without one it is NaN, and
    with one there is no interval: both ends are NaN. Each field of the result is [K].

    Args:
        curves: [N, K], N seeds at the same K points; NaN if a seed has no value, as before its
            first episode has ended.
        seed: of the resampling.
        repetitions: number of resamples.
        confidence: of the intervals.

    Raises:
        ValueError: see `bootstrap_interval`, except for NaN.
    """
    curves = np.asarray(curves, float)
    known = ~np.isnan(curves)
    values = _table(np.where(known, curves, 0.0))
    known = known.reshape(values.shape)
    _check_bootstrap(repetitions, confidence)
    counts = _counts(np.random.default_rng(seed), values[:, :1], repetitions)[:, 0]  # [R, N]
    resampled = _quotient(counts @ values, counts @ known)
    mean = _quotient(values.sum(axis=0), known.sum(axis=0))
    ends = np.full((2, len(mean)), np.nan)
    for k, seeds in enumerate(known.sum(axis=0)):
        drawn = resampled[:, k]
        # without the resamples that contain none of the seeds with a value here
        some = drawn[~np.isnan(drawn)]
        if some.size:
            ends[:, k] = _interval(some, confidence, seeds=seeds)
    return Estimate(mean, *ends)


def curve(
    curves: Any,
    statistic: Statistic = iqm,
    *,
    seed: int = 0,
    repetitions: int = 2000,
    confidence: float = 0.95,
) -> Estimate:
    """A statistic over seeds at each point of learning curves, with pointwise intervals; whole
    curves are resampled. Each field of the result is [K].

    Args:
        curves: [N, K], N seeds at the same K points.
        statistic: see `bootstrap_interval`.
        seed: of the resampling.
        repetitions: number of resamples.
        confidence: of the intervals.

    Raises:
        ValueError: see `bootstrap_interval`.
    """
    values = _table(curves)
    n, points = values.shape
    _check_bootstrap(repetitions, confidence)
    drawn = np.random.default_rng(seed).integers(0, n, (repetitions, n))
    estimates = np.full((3, points), np.nan)
    for k, of_seeds in enumerate(values.T):  # all points at once might not fit into memory
        estimates[0, k] = statistic(of_seeds)
        resampled = statistic(of_seeds[drawn][..., None])
        estimates[1:, k] = _interval(resampled, confidence, seeds=n)
    return Estimate(*estimates)


def median_time(
    times: Any, *, seed: int = 0, repetitions: int = 2000, confidence: float = 0.95
) -> Estimate:
    """The median of times to an event, such as environment steps to a return, with its bootstrap
    interval.

    A censored time, where the event did not happen, counts as infinite: the median is infinite
    unless more than half of the runs reached it, and so may be an end of the interval. A mean of
    the others would be biased.

    Args:
        times: [N]; infinite if censored.
        seed: of the resampling.
        repetitions: number of resamples.
        confidence: of the interval.

    Raises:
        ValueError: there are no times, one is NaN, or as in `bootstrap_interval`.
    """
    times = np.asarray(times, float)
    if times.ndim != 1 or not len(times) or np.isnan(times).any():
        raise ValueError(f"times must be a list of numbers, none of them NaN, got {times!r}")
    _check_bootstrap(repetitions, confidence)
    drawn = np.random.default_rng(seed).integers(0, len(times), (repetitions, len(times)))
    low, high = _interval(np.median(times[drawn], axis=1), confidence, seeds=len(times))
    return Estimate(float(np.median(times)), float(low), float(high))


def normalise(scores: Any, low: Any, high: Any) -> np.ndarray:
    """(scores - low) / (high - low).

    Args:
        scores: [N, M] or [N].
        low: the scores that become 0, a random policy's, [M] or one number for all.
        high: the scores that become 1, the best known, [M] or one number for all.

    Raises:
        ValueError: `high` is not above `low`, or the shapes do not fit.
    """
    scores, low, high = (
        _checked(scores, columns=False),
        np.asarray(low, float),
        np.asarray(high, float),
    )
    if not (low < high).all():
        raise ValueError(
            f"high must be above low for every environment, got low={low} and high={high}"
        )
    for name, bound in (("low", low), ("high", high)):
        if bound.ndim and bound.shape != scores.shape[-1:]:
            raise ValueError(
                f"{name} must have one entry per environment, got {bound.shape} for {scores.shape}"
            )
    return (scores - low) / (high - low)


def _share(won: np.ndarray, confidence: float) -> Estimate:
    """The mean of 0, ½ and 1, [N, M], with Wilson's interval, which ties make wider than
    necessary.
    """
    share = float(won.mean())
    if len(won) < 2:
        return Estimate(share, np.nan, np.nan)
    z = NormalDist().inv_cdf((1.0 + confidence) / 2)
    shrunk = 1.0 + z**2 / won.size
    middle = (share + z**2 / (2 * won.size)) / shrunk
    half = z * np.sqrt(share * (1.0 - share) / won.size + (z / (2 * won.size)) ** 2) / shrunk
    return Estimate(share, max(0.0, float(middle - half)), min(1.0, float(middle + half)))


def _counts(g: np.random.Generator, scores: np.ndarray, repetitions: int) -> np.ndarray:
    """Counts of how often each seed of scores [N, M] is drawn in each environment, [R, M, N]; each
    row sums to N.
    """
    n, m = scores.shape
    return g.multinomial(n, np.full(n, 1.0 / n), size=(repetitions, m)).astype(float)


def _interval(resampled: np.ndarray, confidence: float, *, seeds: int) -> np.ndarray:
    """The percentiles of the resampled statistics [R, ...] that leave (1 - confidence)/2 on either
    side: [2, ...].

    NaN with fewer than two `seeds`: they would be a point, whatever the spread between seeds.
    """
    if seeds < 2:
        return np.full((2, *resampled.shape[1:]), np.nan)
    tail = (1.0 - confidence) / 2
    # nothing to interpolate between a number and infinity
    method: Literal["linear", "inverted_cdf"] = "linear"
    if not np.isfinite(resampled).all():
        method = "inverted_cdf"
    return np.quantile(resampled, [tail, 1.0 - tail], axis=0, method=method)


def _quotient(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient; NaN, without a warning, if the denominator is 0."""
    positive = denominator > 0
    return np.where(positive, numerator / np.where(positive, denominator, 1), np.nan)


def _check_bootstrap(repetitions: int, confidence: float) -> None:
    if repetitions < 1:
        raise ValueError(f"repetitions must be a whole number of at least 1, got {repetitions!r}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence!r}")


def _table(scores: Any) -> np.ndarray:
    """Scores [N, M]; seeds [N] on one environment become [N, 1]."""
    scores = _checked(scores)
    if scores.ndim != 2:
        raise ValueError(
            f"scores must be [seeds] or [seeds, environments], got shape {scores.shape}"
        )
    return scores


def _checked(scores: Any, *, columns: bool = True) -> np.ndarray:
    """Finite floats, not empty; with `columns`, seeds [N] on one environment become [N, 1]."""
    scores = np.asarray(scores, float)
    if not scores.ndim or not scores.size:
        raise ValueError(f"scores must hold at least one run, got shape {scores.shape}")
    if bad := int((~np.isfinite(scores)).sum()):
        are = numerals.agreeing(bad, "is", "are")
        raise ValueError(f"scores must be finite, and {bad} of {scores.size} {are} NaN or infinite")
    return scores[:, None] if columns and scores.ndim == 1 else scores
