"""The quality of estimates, per environment step and per second, with intervals from independent
repetitions.

cos(N): the expected cosine of an estimate from N episodes to ∇J. As far as the estimates reach it
is counted, on the means of N / N₀ of them; beyond, it is  cos(N) = a / √(‖E g‖² + N₀ tr Σ / N),  a
= E g·∇J / ‖∇J‖, which is what a cosine tends to in many dimensions. A biased estimator never comes
above a / ‖E g‖; of one whose mean is along ∇J that is 1, and ‖E g‖ is a, which has one dimension of
noise where ‖E g‖ has all of them.
"""

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from pg.benchmarks.leaderboard.measuring import Estimates, Reference
from pg.estimators.facts import FACTS
from pg.reports import tables
from pg.runs import files

Line = TypeVar("Line", "Quality", "Point")
LEVELS = (0.5, 0.9)
RESOLVED = 0.7  # a reference whose own cosine to ∇J is expected to be lower is no reference
REPETITIONS = 8  # parts of the estimates, each evaluated on its own
RESAMPLED = 1000


class Quality(NamedTuple):
    """A line of the table: of an estimator, a subject, a stage; low and high are 95 % intervals."""

    subject: str
    stage: str
    estimator: str
    seed: int
    num_episodes: int  # N₀ of one estimate
    steps: float  # environment steps of one episode
    seconds: float  # of one episode, rollout and gradient
    reference: float  # expected cosine of the reference itself to ∇J
    variance: float  # tr Σ of one episode
    variance_low: float
    variance_high: float
    snr: float  # ‖E g‖² / tr Σ of one episode
    snr_low: float
    snr_high: float
    cosine: float  # of one estimate of N₀ episodes
    cosine_low: float
    cosine_high: float
    half: float  # environment steps for an expected cosine of 0.5; NaN without a reference
    half_low: float
    half_high: float
    most: float  # environment steps for an expected cosine of 0.9
    most_low: float
    most_high: float
    counted: int  # largest number of episodes at which the cosine was counted, not reckoned


class Point(NamedTuple):
    """A point of a curve: the expected cosine at a number of episodes."""

    subject: str
    stage: str
    estimator: str
    seed: int
    episodes: int
    steps: float
    seconds: float
    cosine: float
    low: float
    high: float


class Parts(NamedTuple):
    """The figures of R repetitions, [R] and [R, M]; cosines at `size[i]` episodes, 1, 2, 4, ...
    times N₀.
    """

    size: np.ndarray  # [M]
    cosine: np.ndarray  # [R, M]
    along: np.ndarray  # a, [R]
    signal: np.ndarray  # ‖E g‖², unbiased, [R]
    noise: np.ndarray  # tr Σ of one episode, [R]


def parts(estimates: Estimates, reference: Reference, repetitions: int = REPETITIONS) -> Parts:
    """Statistics of the estimates in `repetitions` equal parts.

    Raises ValueError for fewer than two in each, and for estimates that are not finite.
    """
    g = np.asarray(estimates.gradients, float)
    if bad := int((~np.isfinite(g).all(axis=1)).sum()):
        raise ValueError(f"estimates must be finite, and {bad} of {len(g)} are not")
    each = len(g) // repetitions
    if each < 2:
        raise ValueError(
            f"{repetitions} repetitions need at least {2 * repetitions} estimates, got {len(g)}"
        )
    # A reference that is noisy itself lowers every cosine to it by the factor of its own: that is
    # undone.
    direction = reference.gradient / np.linalg.norm(reference.gradient) / reference.cosine
    g = g[: each * repetitions].reshape(repetitions, each, -1)
    mean = g.mean(axis=1)
    spread = ((g - mean[:, None]) ** 2).sum(axis=(1, 2)) / (each - 1)
    sizes = 2 ** np.arange(int(np.log2(each)) + 1)
    cosine = np.stack([_cosines(g, direction, int(m)) for m in sizes], axis=1)
    signal = (mean**2).sum(axis=1) - spread / each
    return Parts(
        sizes * estimates.num_episodes,
        cosine,
        mean @ direction,
        signal,
        spread * estimates.num_episodes,
    )


def budget(found: Parts, level: float, *, parallel: bool) -> float:
    """Episodes for an expected cosine of `level`; infinite where it is never reached.

    Counted where the mean curve crosses the level, between two sizes linearly in log N; else
    reckoned.
    """
    curve = found.cosine.mean(axis=0)
    if (above := curve >= level).any():
        i = int(above.argmax())
        if i == 0:
            return float(found.size[0]) * min(1.0, (level / curve[0]) ** 2)
        share = (level - curve[i - 1]) / (curve[i] - curve[i - 1])
        return float(found.size[i - 1] * (found.size[i] / found.size[i - 1]) ** share)
    along = found.along.mean()
    signal = along**2 if parallel else max(found.signal.mean(), along**2)
    missing = (along / level) ** 2 - signal
    if along <= 0 or missing <= 0:
        return float("inf")
    return max(float(found.noise.mean() / missing), float(found.size[-1]))


def assess(
    subject: str, stage: str, estimator: str, seed: int, estimates: Estimates, reference: Reference
) -> tuple[Quality, list[Point]]:
    """The line of the table that estimates make, and their curve, with intervals by resampling the
    repetitions.
    """
    resolved = reference.cosine >= RESOLVED
    found = parts(estimates, reference if resolved else reference._replace(cosine=1.0))
    to = (
        functools.partial(budget, parallel=FACTS[estimator].parallel)
        if resolved
        else lambda some, level: math.nan
    )
    steps = estimates.steps / estimates.num_episodes
    figures = [
        *_interval(found, lambda some: some.noise.mean()),
        *_interval(found, lambda some: some.signal.mean() / some.noise.mean()),
        *_interval(found, lambda some: some.cosine[:, 0].mean()),
        *(
            steps * x
            for level in LEVELS
            for x in _interval(found, functools.partial(to, level=level))
        ),
    ]
    seconds, about = estimates.seconds / estimates.num_episodes, (subject, stage, estimator, seed)
    fixed = estimates.num_episodes, steps, seconds, reference.cosine
    curve = [
        Point(
            *about,
            int(n),
            n * steps,
            n * seconds,
            *_interval(found, functools.partial(_at, index=i)),
        )
        for i, n in enumerate(found.size)
    ]
    line: Quality = Quality._make([*about, *fixed, *figures, int(found.size[-1])])
    return line, curve


def write_csv(path: Path, lines: Sequence[Line]) -> None:
    """Writes lines of one kind as a table, in four digits, whole or not at all."""

    def shown(x: Any) -> Any:
        return f"{x:.4g}" if isinstance(x, float) else x

    files.make_folder(path.parent)
    tables.write_csv(path, lines[0]._fields, ([shown(x) for x in line] for line in lines))


def _cosines(g: np.ndarray, direction: np.ndarray, size: int) -> np.ndarray:
    """The mean cosine of means of `size` estimates that follow each other, [R]; of 0 it is 0."""
    means = g[:, : g.shape[1] // size * size].reshape(len(g), -1, size, g.shape[2]).mean(axis=2)
    norm = np.linalg.norm(means, axis=2)
    return np.where(norm > 0, means @ direction / np.where(norm > 0, norm, 1.0), 0.0).mean(axis=1)


def _at(found: Parts, index: int) -> float:
    return found.cosine[:, index].mean()


def _interval(found: Parts, statistic: Callable[[Parts], Any]) -> tuple[float, float, float]:
    """A statistic, and the percentiles 2.5 and 97.5 of it with the repetitions drawn again."""
    drawn = np.random.default_rng(0).integers(0, len(found.along), (RESAMPLED, len(found.along)))
    again = [statistic(Parts(found.size, *(x[rows] for x in found[1:]))) for rows in drawn]
    low, high = np.quantile(again, [0.025, 0.975], method="nearest")
    return float(statistic(found)), float(low), float(high)
