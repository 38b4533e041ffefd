"""Statistics against loops written by hand, against scipy and rliable, and the coverage of
intervals.
"""

import itertools
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from pg.reports import statistics
from pg.reports.statistics import (
    Estimate,
    bootstrap_interval,
    iqm,
    mean,
    normalise,
    performance_profile,
    probability_of_improvement,
    standard_error,
)

# Two methods, [10 seeds, 5 environments], in hundredths.
X = np.array(
    [
        [63, 57, 73, 62, 49],
        [67, 86, 79, 46, 35],
        [48, 61, 13, 56, 35],
        [45, 49, 54, 68, 81],
        [57, 87, 47, 67, 78],
        [62, 45, 42, 51, 64],
        [40, 56, 57, 71, 64],
        [67, 47, 57, 76, 90],
        [35, 90, 87, 76, 65],
        [54, 89, 99, 96, 86],
    ]
) / np.float64(100)
Y = np.array(
    [
        [61, 14, 50, 70, 11],
        [62, 63, 71, 14, 30],
        [37, 15, 102, 35, 60],
        [42, 98, 90, 69, -16],
        [52, 71, 80, 31, 105],
        [10, 30, 78, 51, 110],
        [56, 31, 39, 17, 12],
        [69, 67, 89, 27, 101],
        [41, 97, 37, 28, 57],
        [81, 55, 32, 10, 8],
    ]
) / np.float64(100)
SHAPES = [(1,), (3,), (4,), (7,), (20,), (1, 1), (1, 5), (10, 5), (7, 3)]


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_the_standard_error_of_a_mean_is_scipys_and_nan_for_one_value(
    array: Callable[[np.ndarray], Any],
) -> None:
    values = np.random.default_rng(0).normal(size=(3, 7))
    expected = scipy.stats.sem(values, axis=-1)
    np.testing.assert_allclose(standard_error(array(values)), expected, rtol=1e-5)
    np.testing.assert_array_equal(standard_error(array(values[:, :1])), [np.nan] * 3)
    assert np.isnan(standard_error(array(np.array([3]))))  # a warning is an error here
    one_infinite = np.array([[1.0, 2.0], [1.0, np.inf]])
    np.testing.assert_allclose(standard_error(array(one_infinite)), [0.5, np.nan])


def test_the_mean_of_a_sample_has_its_normal_interval_and_one_value_has_none() -> None:
    found = Estimate.of_mean(np.array([1.0, 2.0, 6.0]))
    error = scipy.stats.sem([1.0, 2.0, 6.0])
    assert found == pytest.approx((3.0, 3.0 - 1.96 * error, 3.0 + 1.96 * error))
    assert found.standard_error == pytest.approx(error)
    np.testing.assert_array_equal(Estimate.of_mean(np.array([3.0])), [3.0, np.nan, np.nan])
    opposite = Estimate.of_mean(np.array([np.inf, -np.inf]))  # a warning is an error here
    np.testing.assert_array_equal(opposite, [np.nan] * 3)


@pytest.mark.parametrize("shape", SHAPES)
def test_mean_and_iqm_are_scipys_and_a_loops(shape: tuple[int, ...]) -> None:
    scores = np.random.default_rng(len(shape)).normal(size=shape)
    assert iqm(scores) == pytest.approx(scipy.stats.trim_mean(scores, 0.25, axis=None), abs=1e-12)
    runs = sorted(scores.ravel().tolist())
    for _ in range(len(runs) // 4):
        runs = runs[1:-1]
    assert iqm(scores) == pytest.approx(sum(runs) / len(runs), abs=1e-12)
    assert mean(scores) == pytest.approx(sum(scores.ravel().tolist()) / scores.size, abs=1e-12)


def test_known_values() -> None:
    assert iqm(np.arange(8)) == 3.5
    assert iqm([0.0, 1.0, 2.0, 1e9]) == 1.5
    assert iqm([5.0]) == 5.0
    assert (mean([1, 2, 6]), mean([[1, 2], [3, 4]])) == (3.0, 2.5)
    stack = np.random.default_rng(0).normal(size=(2, 3, 6, 4))
    for statistic in (iqm, mean):  # the leading axes are kept
        whole = statistic(stack)
        assert whole.shape == (2, 3)
        assert whole[1, 2] == pytest.approx(statistic(stack[1, 2]), abs=1e-12)


def test_iqm_and_its_interval_move_with_the_scores() -> None:
    """Affine maps pass through; the order of seeds and of environments is nothing to the value."""
    moved = bootstrap_interval(3.0 * X - 7.0)
    np.testing.assert_allclose(moved, 3.0 * np.array(bootstrap_interval(X)) - 7.0)
    flipped = bootstrap_interval(-X, mean)
    np.testing.assert_allclose([-flipped.high, -flipped.low], bootstrap_interval(X, mean)[1:])
    g = np.random.default_rng(0)
    assert iqm(g.permuted(X, axis=0)) == pytest.approx(iqm(X), abs=1e-12)
    assert iqm(X[:, ::-1]) == pytest.approx(iqm(X), abs=1e-12)


def test_numbers_of_rliable() -> None:
    """rliable 1.2.0 (numpy's RandomState(0)), on X and Y:

    get_interval_estimates({"x": X}, lambda s: [aggregate_iqm(s)], reps=20000), the same with
    aggregate_mean, get_interval_estimates({"x,y": (X, Y)}, probability_of_improvement, reps=2000),
    and create_performance_profile({"x": X}, [0.25, 0.5, 0.75], reps=20000). Points agree exactly,
    the ends of intervals within the noise of resampling.
    """
    cases: list[tuple[Any, Any]] = [
        (bootstrap_interval(X, iqm), [0.61653846, 0.56384615, 0.67538462]),
        (bootstrap_interval(X, mean), [0.6258, 0.5768, 0.674405]),
        (probability_of_improvement(X, Y), [0.616, 0.508, 0.724]),
        (
            performance_profile(X, [0.25, 0.5, 0.75]),
            [[0.98, 0.72, 0.28], [0.94, 0.6, 0.16], [1.0, 0.84, 0.4]],
        ),
    ]
    for got, want in cases:
        np.testing.assert_allclose(got[0], want[0], atol=1e-8)
        np.testing.assert_allclose(got[1:], want[1:], atol=0.02)
    # 21 runs: whole runs are left out
    assert iqm(X[:7, :3]) == pytest.approx(0.5554545454545455, abs=1e-12)
    assert iqm(X[:, 0]) == pytest.approx(0.5483333333333333, abs=1e-12)


def test_the_interval_of_one_environment_is_scipys() -> None:
    ours = bootstrap_interval(X[:, 0], mean, repetitions=20_000)
    theirs = scipy.stats.bootstrap(
        (X[:, 0],), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    np.testing.assert_allclose(ours[1:], theirs, atol=0.004)


def test_the_interval_against_every_resample() -> None:
    """Three seeds on two environments: 27 × 27 equally likely resamples, all listed."""
    scores = np.array([[0.0, 10.0], [1.0, 14.0], [5.0, 11.0]])
    draws = list(itertools.product(range(3), repeat=3))
    exact = [np.mean([scores[list(a), 0], scores[list(b), 1]]) for a in draws for b in draws]
    value, low, high = bootstrap_interval(scores, mean, repetitions=100_000, confidence=0.8)
    assert value == pytest.approx(scores.mean())
    np.testing.assert_allclose([low, high], np.quantile(exact, [0.1, 0.9]), atol=0.02)


def test_seeds_are_resampled_within_their_environment() -> None:
    """Environments of different levels but no noise: nothing is uncertain. Were runs pooled, it
    would be.
    """
    levels = np.broadcast_to([0.0, 100.0, -7.0], (20, 3))
    assert bootstrap_interval(levels, mean) == (31.0, 31.0, 31.0)
    apart = np.array([[0.0, 1.0], [1.0, 0.0]])  # whole rows would always give one half
    _, low, high = bootstrap_interval(apart, mean)
    assert (low, high) == (0.0, 1.0)


@pytest.mark.parametrize(("n", "m"), [(10, 1), (20, 1), (10, 4)])
def test_the_interval_of_a_mean_covers_as_often_as_it_must(n: int, m: int) -> None:
    """For normal scores the percentile interval is about ± 1.96 √(s²/n) with s² over n, not n - 1:
    for one environment it covers with P(|t_{n-1}| < 1.96 √((n-1)/n)), less than 95 %; for several t
    has more freedom.
    """
    g, count = np.random.default_rng(n + m), 400
    data, truth = g.normal(size=(count, n, m)), 0.0
    intervals = [
        bootstrap_interval(scores, mean, seed=i, repetitions=500) for i, scores in enumerate(data)
    ]
    covered = sum(low <= truth <= high for _, low, high in intervals)
    expected = 2 * scipy.stats.t.cdf(1.96 * ((n - 1) / n) ** 0.5, m * (n - 1)) - 1
    low, high = scipy.stats.binom.ppf([1e-3, 1 - 1e-3], count, expected)
    assert low <= covered <= high, (covered / count, expected)


def test_the_interval_of_the_iqm_and_of_poi_cover() -> None:
    """Symmetric scores, whose IQM is their centre; and equal methods, one of which improves half
    the time.
    """
    g, count = np.random.default_rng(0), 400
    data, other = g.standard_t(5, size=(2, count, 12, 3))
    for interval, truth in (
        (lambda x, y, i: bootstrap_interval(x, seed=i, repetitions=500), 0.0),
        (lambda x, y, i: probability_of_improvement(x, y, seed=i, repetitions=500), 0.5),
    ):
        ends = np.array(
            [interval(x, y, i)[1:] for i, (x, y) in enumerate(zip(data, other, strict=True))]
        )
        coverage = ((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean()
        assert 0.90 <= coverage <= 0.98, coverage


def test_a_wider_confidence_is_a_wider_interval_and_a_seed_is_a_number() -> None:
    narrow, wide = bootstrap_interval(X, confidence=0.5), bootstrap_interval(X, confidence=0.99)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high
    assert bootstrap_interval(X) == bootstrap_interval(X)
    assert bootstrap_interval(X) != bootstrap_interval(X, seed=1)


def test_a_fraction_of_seeds_is_a_statistic_too() -> None:
    reached = bootstrap_interval(
        np.array([500.0] * 15 + [100.0] * 5), lambda x: (x >= 475).mean(axis=(-2, -1))
    )
    assert reached.value == 0.75
    # resampling seeds is drawing from a binomial
    low, high = scipy.stats.binom.ppf([0.025, 0.975], 20, 0.75) / 20
    assert (reached.low, reached.high) == (
        pytest.approx(low, abs=0.051),
        pytest.approx(high, abs=0.051),
    )


@pytest.mark.parametrize(("n", "k", "m"), [(1, 1, 1), (4, 7, 3), (10, 10, 5)])
def test_the_probability_of_improvement_is_a_loops(n: int, k: int, m: int) -> None:
    g = np.random.default_rng(n)
    x, y = g.integers(0, 4, (n, m)), g.integers(0, 4, (k, m))  # with ties
    loop = [
        (x[i, e] > y[j, e]) + 0.5 * (x[i, e] == y[j, e])
        for i, j, e in itertools.product(range(n), range(k), range(m))
    ]
    got = probability_of_improvement(x, y)
    assert got.value == pytest.approx(np.mean(loop), abs=1e-12)
    if n > 1:
        assert 0.0 <= got.low <= got.high <= 1.0
    by_scipy = (
        [scipy.stats.mannwhitneyu(x[:, e], y[:, e]).statistic / (n * k) for e in range(m)]
        if n > 1
        else loop
    )
    assert got.value == pytest.approx(np.mean(by_scipy), abs=1e-12)


def test_the_probability_of_improvement_is_of_the_order_alone() -> None:
    got = probability_of_improvement(X, Y)
    np.testing.assert_allclose(
        probability_of_improvement(np.exp(3 * X), np.exp(3 * Y)), got, atol=1e-12
    )
    assert probability_of_improvement(Y, X).value == pytest.approx(1.0 - got.value, abs=1e-12)
    assert probability_of_improvement(X, X).value == pytest.approx(0.5, abs=1e-12)
    np.testing.assert_allclose(probability_of_improvement([2.0, 3.0], [0.0, 1.0]), 1.0)
    np.testing.assert_allclose(probability_of_improvement([7.0] * 3, [7.0] * 4), 0.5)


def test_the_probability_of_improvement_resamples_both_methods() -> None:
    """Against resampling by hand, run by run."""
    g, values = np.random.default_rng(0), []
    for _ in range(4000):
        x, y = (
            np.stack([g.choice(column, len(column)) for column in s.T], 1)
            for s in (X[:, :2], Y[:6, :2])
        )
        values.append(((x[:, None] > y) + 0.5 * (x[:, None] == y)).mean())
    got = probability_of_improvement(X[:, :2], Y[:6, :2], repetitions=20_000)
    np.testing.assert_allclose(got[1:], np.quantile(values, [0.025, 0.975]), atol=0.015)


def test_the_probability_of_improvement_of_pairs_is_wilsons() -> None:
    """The share of pairs that are won; its interval is scipy's of a binomial."""
    x, y = X[:, :2], Y[:, :2]
    got = probability_of_improvement(x, y, paired=True)
    won = int((x > y).sum())
    theirs = scipy.stats.binomtest(won, x.size).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose(got, [won / x.size, theirs.low, theirs.high], atol=1e-12)
    tied = probability_of_improvement([1.0, 2.0, 3.0], [1.0, 0.0, 4.0], paired=True)
    assert tied.value == pytest.approx(0.5)
    assert probability_of_improvement([1.0], [0.0], paired=True)[:1] == (1.0,)
    with pytest.raises(ValueError, match="pairs need equally many runs, got 3 and 2"):
        probability_of_improvement([1.0, 2.0, 3.0], [1.0, 2.0], paired=True)


@pytest.mark.parametrize("chance", [0.5, 0.8, 0.95])
def test_the_interval_of_pairs_covers(chance: float) -> None:
    """Also near 1, where every pair is won as often as not."""
    g, count = np.random.default_rng(3), 2000
    won = g.random((count, 10)) < chance
    ends = np.array([probability_of_improvement(w, np.full(10, 0.5), paired=True)[1:] for w in won])
    coverage = ((ends[:, 0] <= chance) & (chance <= ends[:, 1])).mean()
    assert 0.88 <= coverage <= 0.999, coverage


def test_pairs_tell_what_is_hidden_between_seeds() -> None:
    """Seeds that differ a hundred times as much as the methods do."""
    seeds = 100.0 * np.random.default_rng(0).normal(size=30)
    unpaired = probability_of_improvement(seeds + 1.0, seeds)
    paired = probability_of_improvement(seeds + 1.0, seeds, paired=True)
    assert unpaired.low < 0.5 < unpaired.high
    assert (paired.value, paired.low > 0.85) == (1.0, True)


def test_a_median_time_counts_those_that_did_not_come() -> None:
    inf = np.inf
    assert statistics.median_time([3.0, 1.0, inf]).value == 3.0
    assert statistics.median_time([1.0, 2.0, inf, inf]).value == inf
    assert statistics.median_time([inf] * 3) == (inf, inf, inf)
    value, low, high = statistics.median_time([1.0, 2.0, 3.0, inf, inf])
    assert (value, low, high) == (3.0, 1.0, inf)
    times = np.random.default_rng(0).exponential(size=30)
    theirs = scipy.stats.bootstrap(
        (times,), np.median, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    np.testing.assert_allclose(
        statistics.median_time(times, repetitions=20_000)[1:], theirs, atol=0.06
    )
    with pytest.raises(ValueError, match="none of them NaN"):
        statistics.median_time([1.0, np.nan])


def test_a_curve_of_any_statistic_is_that_of_its_points() -> None:
    curves = np.random.default_rng(0).normal(size=(9, 4)).cumsum(axis=1)
    band = statistics.curve(curves, iqm, repetitions=20_000)
    for k in range(4):
        one = bootstrap_interval(curves[:, k], iqm, repetitions=20_000)
        np.testing.assert_allclose([x[k] for x in band], one, atol=0.05)


def test_the_performance_profile_is_a_loops() -> None:
    thresholds = [-1.0, 0.35, 0.5, 0.99, 2.0]
    value, low, high = performance_profile(X, thresholds)
    assert value.tolist() == [np.mean([score > t for score in X.ravel()]) for t in thresholds]
    assert value[0] == low[0] == high[0] == 1.0
    assert value[3] == value[-1] == high[-1] == 0.0  # above, not at
    assert (np.diff(value) <= 0).all()
    one = bootstrap_interval(X, lambda s: (s > 0.5).mean(axis=(-2, -1)), repetitions=20_000)
    many = performance_profile(X, [0.5], repetitions=20_000)
    np.testing.assert_allclose(np.ravel(many), one, atol=0.011)
    area = np.trapezoid(
        performance_profile(X, np.linspace(0, 1, 1001), repetitions=1).value, dx=0.001
    )
    assert area == pytest.approx(mean(X), abs=1e-3)  # of scores in [0, 1]


def test_the_curve_of_the_mean_is_of_whole_curves() -> None:
    curves = np.random.default_rng(0).normal(size=(12, 7)).cumsum(axis=1)
    band = statistics.mean_curve(curves, repetitions=20_000)
    for k in range(7):
        one = statistics.bootstrap_interval(curves[:, k], statistics.mean, repetitions=20_000)
        np.testing.assert_allclose([x[k] for x in band], one, atol=0.05)
    shifted = statistics.mean_curve(np.array([[0.0], [1.0]]) + np.arange(3.0))
    np.testing.assert_allclose(
        shifted.high - shifted.low, 1.0
    )  # curves that differ by a constant, as does their mean


SINGLE: dict[str, Callable[[], Any]] = {
    "one seed": lambda: bootstrap_interval([3.0], mean),
    "a table of one seed": lambda: bootstrap_interval([[3.0]]),
    "a table on its side": lambda: bootstrap_interval([[1.0, 2.0, 3.0, 4.0, 5.0]], mean),
    "a curve of one seed": lambda: statistics.mean_curve([[1.0, 2.0, 3.0]]),
    "a profile of one seed": lambda: performance_profile([[0.2, 0.4, 0.6]], [0.3, 0.5]),
    "one seed against several": lambda: probability_of_improvement([3.0], [1.0, 2.0, 4.0]),
    "several seeds against one": lambda: probability_of_improvement([1.0, 2.0, 4.0], [3.0]),
    "two tables on their sides": lambda: probability_of_improvement([[1.0, 2.0]], [[3.0, 0.0]]),
}


@pytest.mark.parametrize("name", SINGLE)
def test_a_single_seed_has_no_interval(name: str) -> None:
    value, low, high = SINGLE[name]()
    assert np.isfinite(value).all()
    assert np.isnan(low).all()
    assert np.isnan(high).all()
    assert np.shape(low) == np.shape(high) == np.shape(value)


def test_an_estimate_without_an_interval_says_why() -> None:
    for scores in ([3.0], [[1.0, 3.0, 5.0]]):
        assert str(bootstrap_interval(scores, mean)).startswith(
            "3 (no interval, which takes two seeds or more"
        )
    assert str(bootstrap_interval([7.0] * 5, mean)) == "7 [7, 7]"  # five equal seeds have one
    assert str(statistics.Estimate(np.zeros(2), np.zeros(2), np.zeros(2))).startswith("Estimate(")


def test_a_standard_error_is_a_normal_interval() -> None:
    estimate = statistics.Estimate.from_error(1000.0, 0.5)
    assert estimate == (1000.0, 999.02, 1000.98)
    assert estimate.standard_error == pytest.approx(0.5)
    assert str(estimate) == "1000 [999, 1001]"
    assert statistics.Estimate.from_error(3.0, 0.0) == (3.0, 3.0, 3.0)


@pytest.mark.parametrize(("value", "text"), [(np.nan, "—"), (np.inf, "∞")])
def test_what_is_no_number_has_no_interval(value: float, text: str) -> None:
    assert str(statistics.Estimate.from_error(value, np.nan)) == text


def test_a_mean_curve_is_of_the_seeds_that_have_a_value() -> None:
    """No episode ends in the first update of any seed; one seed ends its first late, and another
    never one.
    """
    nan = np.nan
    curves = np.array(
        [
            [nan, nan, 1.0, 2.0, 4.0],
            [nan, 5.0, 3.0, 6.0, nan],
            [nan, nan, nan, 7.0, 9.0],
            [nan, nan, nan, nan, nan],
        ]
    )
    band = statistics.mean_curve(curves)
    np.testing.assert_array_equal(band.value, [nan, 5.0, 2.0, 5.0, 6.5])
    np.testing.assert_array_equal(np.isnan(band.low), [True, True, False, False, False])
    np.testing.assert_array_equal(np.isnan(band.high), np.isnan(band.low))
    assert (band.low[2:] <= band.value[2:]).all()
    assert (band.value[2:] <= band.high[2:]).all()
    assert (band.low[3], band.high[3]) == (2.0, 7.0)


def test_a_mean_curve_without_any_value_is_nan() -> None:
    for shape in ((3, 4), (1, 1)):
        assert all(np.isnan(x).all() for x in statistics.mean_curve(np.full(shape, np.nan)))


def test_normalised_scores() -> None:
    np.testing.assert_allclose(normalise([22.0, 261.0, 500.0], 22.0, 500.0), [0.0, 0.5, 1.0])
    scores = np.array([[-500.0, 0.0], [-80.0, 1.0]])
    np.testing.assert_allclose(
        normalise(scores, [-500.0, 0.0], [-80.0, 2.0]), [[0.0, 0.0], [1.0, 0.5]]
    )


BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: iqm([]), r"at least one run, got shape \(0,\)"),
    (lambda: mean(3.0), r"at least one run, got shape \(\)"),
    (lambda: bootstrap_interval(np.zeros((0, 3))), "at least one run"),
    (lambda: iqm([1.0, np.nan, np.inf]), "2 of 3 are NaN or infinite"),
    (
        lambda: bootstrap_interval(np.zeros((2, 2, 2))),
        r"\[seeds, environments\], got shape \(2, 2, "
        r"2\)",
    ),
    (lambda: bootstrap_interval(X, confidence=95), "confidence must be between 0 and 1, got 95"),
    (
        lambda: bootstrap_interval(X, repetitions=0),
        "repetitions must be a whole number of at least 1, got 0",
    ),
    (lambda: probability_of_improvement(X, Y[:, :3]), "same environments, got 5 and 3 columns"),
    (lambda: probability_of_improvement(X, Y * np.nan), "50 of 50 are NaN"),
    (lambda: performance_profile(X, [np.nan]), "thresholds must be a list of finite numbers"),
    (lambda: statistics.mean_curve([[1.0, np.inf]]), "1 of 2 is NaN or infinite"),
    (lambda: bootstrap_interval([np.nan, np.nan]), "2 of 2 are NaN or infinite"),
    (lambda: normalise(X, 1.0, 1.0), "high must be above low"),
    (lambda: normalise(X, np.zeros(3), 1.0), "one entry per environment"),
    (lambda: normalise([np.nan], 0.0, 1.0), "NaN"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_mistakes(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_hundred_environments_fit_into_memory() -> None:
    """The pairs of all runs of all resamples, 20 × 20 × 100 × 2000 of them, would be 6 GB."""
    g = np.random.default_rng(0)
    assert probability_of_improvement(*g.normal(size=(2, 20, 100))).value == pytest.approx(
        0.5, abs=0.05
    )


def test_it_needs_no_jax() -> None:
    code = f"import sys; import {statistics.__name__}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
