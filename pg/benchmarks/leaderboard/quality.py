"""The quality of estimates, per environment step and per second, with intervals from independent
repetitions.

cos(N): the expected cosine of an estimate from N episodes to ∇J. Up to the number of
estimates it is measured, on the means of N / N₀ of them; beyond, it is extrapolated:

    cos(N) = a / √(‖E g‖² + N₀ tr Σ / N),  a = E g·∇J / ‖∇J‖

the limit of a cosine in many dimensions. A biased estimator stays below a / ‖E g‖; if its mean is
along ∇J that is 1, and ‖E g‖ is a, which has one dimension of noise instead of all.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pg import numerals
from pg.benchmarks.combinations import combination_of
from pg.benchmarks.leaderboard.gradients import GradientEstimates, Reference
from pg.config import part_name
from pg.reports.statistics import Estimate

RESOLVED = 0.7  # smallest expected cosine to ∇J of a usable reference
REPETITIONS = 8  # parts of the estimates, each evaluated separately
LEAST_ESTIMATES = 2 * REPETITIONS  # of an estimator: a variance needs two in each part
RESAMPLED = 1000


class Quality(NamedTuple):
    """The quality of one estimator at one snapshot of a problem."""

    problem: str
    snapshot: str
    estimator: str
    seed: int
    num_episodes: int  # N₀ of one estimate
    steps_per_episode: float  # of the environment
    seconds_per_episode: float  # rollout and gradient
    reference_cosine: float  # expected, of the reference itself to ∇J
    variance: Estimate  # tr Σ of one episode
    snr: Estimate  # ‖E g‖² / tr Σ of one episode
    cosine: Estimate  # of one estimate of N₀ episodes
    # environment steps for an expected cosine of 0.5 and 0.9; NaN without a reference
    steps_for_0_5: Estimate
    steps_for_0_9: Estimate
    counted_episodes: int  # of the largest estimates whose cosine was measured, not extrapolated


class CurvePoint(NamedTuple):
    """The expected cosine of one estimator at a number of episodes."""

    problem: str
    snapshot: str
    estimator: str
    seed: int
    episodes: int
    steps: float
    seconds: float
    cosine: Estimate


class Repetitions(NamedTuple):
    """Statistics of R repetitions, with cosines at M numbers of episodes: 1, 2, 4, ... times N₀."""

    size: np.ndarray  # episodes, [M]
    cosine: np.ndarray  # [R, M]
    along: np.ndarray  # a, [R]
    signal: np.ndarray  # ‖E g‖², unbiased, [R]
    noise: np.ndarray  # tr Σ of one episode, [R]


def per_repetition(
    estimates: GradientEstimates, reference: Reference, repetitions: int = REPETITIONS
) -> Repetitions:
    """The statistics of the estimates in equal parts.

    Args:
        estimates: K of one estimator.
        reference: the gradient to compare with, and its own cosine.
        repetitions: number of parts.

    Raises:
        ValueError: there are fewer than two estimates in a part, or some are not finite.
    """
    g = np.asarray(estimates.gradients, float)
    if bad := int((~np.isfinite(g).all(axis=1)).sum()):
        are = numerals.agreeing(bad, "is", "are")
        raise ValueError(f"estimates must be finite, and {bad} of {len(g)} {are} not")
    each = len(g) // repetitions
    if each < 2:
        raise ValueError(
            f"{repetitions} repetitions need at least {2 * repetitions} estimates, got {len(g)}"
        )
    # Divided by the reference's own cosine, as its noise lowers every cosine to it by that factor.
    direction = reference.gradient / np.linalg.norm(reference.gradient) / reference.cosine
    g = g[: each * repetitions].reshape(repetitions, each, -1)
    mean = g.mean(axis=1)
    spread = ((g - mean[:, None]) ** 2).sum(axis=(1, 2)) / (each - 1)
    sizes = 2 ** np.arange(int(np.log2(each)) + 1)
    cosine = np.stack([_cosines(g, direction, int(m)) for m in sizes], axis=1)
    signal = (mean**2).sum(axis=1) - spread / each
    return Repetitions(
        sizes * estimates.num_episodes,
        cosine,
        mean @ direction,
        signal,
        spread * estimates.num_episodes,
    )


def counted_episodes(num_episodes: int, num_estimates: int) -> int:
    """Episodes of the largest means of estimates whose cosine is measured.

    Args:
        num_episodes: of one estimate.
        num_estimates: all of them.
    """
    each = num_estimates // REPETITIONS
    return num_episodes * 2 ** int(np.log2(max(each, 1)))


def budget(repetitions: Repetitions, level: float, *, parallel: bool) -> float:
    """Episodes for an expected cosine of `level`; infinite if it is never reached.

    Interpolated linearly in log N where the measured mean curve crosses the level; else
    extrapolated.

    Args:
        repetitions: statistics of an estimator.
        level: of the cosine.
        parallel: the mean of the estimates is along ∇J.
    """
    curve = repetitions.cosine.mean(axis=0)
    size = repetitions.size
    above = curve >= level
    if above.any():
        i = int(above.argmax())
        if i == 0:
            return float(size[0]) * min(1.0, (level / curve[0]) ** 2)
        share = (level - curve[i - 1]) / (curve[i] - curve[i - 1])
        return float(size[i - 1] * (size[i] / size[i - 1]) ** share)
    along = repetitions.along.mean()
    signal = along**2 if parallel else max(repetitions.signal.mean(), along**2)
    missing = (along / level) ** 2 - signal
    if along <= 0 or missing <= 0:
        return float("inf")
    return max(float(repetitions.noise.mean() / missing), float(size[-1]))


def assess(
    problem: str,
    snapshot: str,
    estimator: Any,
    seed: int,
    estimates: GradientEstimates,
    reference: Reference,
) -> tuple[Quality, list[CurvePoint]]:
    """The quality of estimates and their curve, with intervals by resampling the repetitions.

    Args:
        problem: name of the problem.
        snapshot: name of the snapshot.
        estimator: its name, also of a combination, or its function.
        seed: of the estimates.
        estimates: of ∇J.
        reference: the gradient to compare with.
    """
    resolved = reference.cosine >= RESOLVED
    repetitions = per_repetition(
        estimates, reference if resolved else reference._replace(cosine=1.0)
    )
    name, parallel = part_name(estimator), combination_of(estimator).facts.parallel
    steps = estimates.steps / estimates.num_episodes
    seconds = estimates.seconds / estimates.num_episodes

    def steps_for(level: float) -> Estimate:
        def episodes(some: Repetitions) -> float:
            return budget(some, level, parallel=parallel) if resolved else math.nan

        return Estimate(*(steps * x for x in _resampled(repetitions, episodes)))

    def cosine_at(index: int) -> Estimate:
        return _resampled(repetitions, lambda some: some.cosine[:, index].mean())

    quality = Quality(
        problem=problem,
        snapshot=snapshot,
        estimator=name,
        seed=seed,
        num_episodes=estimates.num_episodes,
        steps_per_episode=steps,
        seconds_per_episode=seconds,
        reference_cosine=reference.cosine,
        variance=_resampled(repetitions, lambda some: some.noise.mean()),
        snr=_resampled(repetitions, lambda some: some.signal.mean() / some.noise.mean()),
        cosine=cosine_at(0),
        steps_for_0_5=steps_for(0.5),
        steps_for_0_9=steps_for(0.9),
        counted_episodes=int(repetitions.size[-1]),
    )
    curve = [
        CurvePoint(problem, snapshot, name, seed, int(n), n * steps, n * seconds, cosine_at(i))
        for i, n in enumerate(repetitions.size)
    ]
    return quality, curve


def _cosines(g: np.ndarray, direction: np.ndarray, size: int) -> np.ndarray:
    """The mean cosine of means of successive estimates, [R]; 0 for a mean of 0.

    Args:
        g: estimates, [R, K, P].
        direction: to which the cosine is taken, [P].
        size: estimates of a mean.
    """
    means = g[:, : g.shape[1] // size * size].reshape(len(g), -1, size, g.shape[2]).mean(axis=2)
    norm = np.linalg.norm(means, axis=2)
    return np.where(norm > 0, means @ direction / np.where(norm > 0, norm, 1.0), 0.0).mean(axis=1)


def _resampled(repetitions: Repetitions, statistic: Callable[[Repetitions], Any]) -> Estimate:
    """A statistic, with its percentiles 2.5 and 97.5 over resampled repetitions."""
    count = len(repetitions.along)
    drawn = np.random.default_rng(0).integers(0, count, (RESAMPLED, count))
    size, *parts = repetitions
    again = [statistic(Repetitions(size, *(x[rows] for x in parts))) for rows in drawn]
    low, high = np.quantile(again, [0.025, 0.975], method="nearest")
    return Estimate(float(statistic(repetitions)), float(low), float(high))
