"""Baselines leave their own sample out, or see the past only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pg.baselines import (
    MovingAverage,
    centred,
    deviation,
    group_centred,
    group_deviation,
    group_leave_one_out,
    group_mean,
    group_shrinkage,
    leave_one_out,
    leave_one_out_ratio,
    standardise,
    time_shrinkage,
)


@pytest.mark.usefixtures("x64")
def test_leave_one_out_is_the_loop() -> None:
    x = np.random.default_rng(0).normal(size=(3, 7))
    expected = [[np.delete(row, n).mean() for n in range(7)] for row in x]
    np.testing.assert_allclose(leave_one_out(jnp.asarray(x)), expected, atol=1e-13)


@pytest.mark.usefixtures("x64")
def test_subtracting_it_is_the_batch_mean_scaled() -> None:
    x = jnp.asarray(np.random.default_rng(1).normal(size=9))
    np.testing.assert_allclose(x - leave_one_out(x), 9 / 8 * (x - x.mean()), atol=1e-13)


def test_leave_one_out_needs_another() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        leave_one_out(jnp.ones((4, 1)))
    with pytest.raises(ValueError, match="at least 2"):
        leave_one_out_ratio(jnp.ones((1, 4)), jnp.ones((1, 4)))


@pytest.mark.usefixtures("x64")
def test_leave_one_out_ratio_is_the_loop() -> None:
    g = np.random.default_rng(2)
    top, bottom = g.normal(size=(6, 3)), g.random((6, 3))
    bottom[1:, 2] = 0.0  # for sample 0 all others are 0
    expected = [
        [
            np.delete(top[:, j], n).sum() / (np.delete(bottom[:, j], n).sum() or np.inf)
            for j in range(3)
        ]
        for n in range(6)
    ]
    np.testing.assert_allclose(
        leave_one_out_ratio(jnp.asarray(top), jnp.asarray(bottom)), expected, atol=1e-12
    )


def test_leave_one_out_ratio_survives_one_sample_that_dwarfs_the_others() -> None:
    weight = jnp.array([1e12, 1e-6, 3e-6])
    np.testing.assert_allclose(leave_one_out_ratio(2 * weight, weight), 2.0, rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_time_shrinkage_leaves_the_own_sample_out_altogether() -> None:
    """The means, the weight, and the steps that count."""
    g = np.random.default_rng(4)
    x, valid = g.normal(size=(5, 4)), np.arange(5)[:, None] < np.array([5, 2, 3, 4])
    x = np.where(valid, x, 0.0)
    other = x.copy()
    other[:, 0] = g.normal(size=5)
    shorter = valid.copy()
    shorter[3:, 0] = False
    shrunk = jax.jit(time_shrinkage)
    found = shrunk(x, valid)
    changed = shrunk(other, shorter)
    np.testing.assert_array_equal(changed[:, 0], found[:, 0])
    assert np.abs(changed[:, 1] - found[:, 1]).max() > 1e-3
    # between what it shrinks and what it shrinks to, of the steps that others reach
    mean = np.delete(x, 0, axis=1).mean(1)
    share = (found[:4, 0] - mean[:4]) / (mean[:4].mean() - mean[:4])
    np.testing.assert_allclose(share, share[0])
    assert 0 < share[0] < 1
    # a pair has no variance, and equal samples none
    np.testing.assert_array_equal(shrunk(x[:, :2], valid[:, :2]), x[:, 1::-1])
    np.testing.assert_array_equal(shrunk(np.ones((5, 3)), valid[:, :3]), 1.0)
    with pytest.raises(ValueError, match=r"x must be \[T, N\] of at least 2 samples"):
        time_shrinkage(x[:, :1], valid[:, :1])
    with pytest.raises(ValueError, match=r"valid \[T, N\], got x \[5, 4\] and valid \[5\]"):
        time_shrinkage(x, valid[:, 0])


def test_moving_average_of_a_constant_is_the_constant_forever() -> None:
    average = MovingAverage.start()
    assert average.value() == 0.0
    for _ in range(1000):
        average = average.update(jnp.array(3.0), 0.9)
        np.testing.assert_allclose(average.value(), 3.0, rtol=1e-5)


def test_moving_average_forgets() -> None:
    average = MovingAverage.start()
    for x in [0.0] * 50 + [1.0] * 50:
        average = average.update(jnp.array(x), 0.8)
    np.testing.assert_allclose(average.value(), 1.0, atol=1e-4)


def test_whole_numbers_are_averaged_as_fractions_are() -> None:
    whole, group = [1, 2, 4], [7, 7, 7]
    fractions = jnp.array(whole, float)
    np.testing.assert_array_equal(leave_one_out(whole), leave_one_out(fractions))
    np.testing.assert_array_equal(standardise(whole, 0.0), standardise(fractions, 0.0))
    np.testing.assert_array_equal(
        group_leave_one_out(whole, group), group_leave_one_out(fractions, group)
    )
    np.testing.assert_array_equal(
        leave_one_out_ratio(whole, whole), leave_one_out_ratio(fractions, fractions)
    )


def test_the_numbers_of_groups_are_whole_and_one_for_each_sample() -> None:
    """Broadcast, others would put episodes into one group that are in different ones."""
    x, group = jnp.array([1.0, 2.0, 3.0, 4.0]), jnp.array([0, 0, 1, 1])
    said = r"group \[N\] the integer index of each one's group"
    for wrong in (group[:, None] == group[None, :], group[:1], group.astype(float)):
        for function in (group_leave_one_out, group_centred, group_mean):
            with pytest.raises(ValueError, match=said):
                function(x, wrong)
        for function in (group_deviation, group_shrinkage):
            with pytest.raises(ValueError, match=said):
                function(x, jnp.zeros(4), wrong)
    for numbers in (group, 5 - 3 * group, 100_000 * group):
        np.testing.assert_array_equal(group_leave_one_out(x, numbers), [2.0, 1.0, 4.0, 3.0])


def test_groups_take_memory_for_their_samples_alone() -> None:
    """By the compiler's account, for so many that their pairs would be 10¹⁰."""
    number = 100_000
    x, group = (jax.ShapeDtypeStruct((number,), dtype) for dtype in (jnp.float32, jnp.int32))

    def every(x: jax.Array, group: jax.Array) -> list[jax.Array]:
        pairs = [
            function(x, group) for function in (group_leave_one_out, group_centred, group_mean)
        ]
        return pairs + [function(x, x, group) for function in (group_deviation, group_shrinkage)]

    account = jax.jit(every).lower(x, group).compile().memory_analysis()
    assert account.temp_size_in_bytes < 400 * number


@pytest.mark.usefixtures("x64")
def test_mean_and_deviation_of_a_group_are_those_of_its_members() -> None:
    x = np.random.default_rng(3).normal(size=6) + 1e6
    group = np.array([0, 1, 0, 1, 1, 0])
    means = np.array([x[group == g].mean() for g in group])
    deviations = np.array([x[group == g].std() for g in group])
    rows = jnp.asarray(x)
    np.testing.assert_allclose(group_centred(rows, group), x - means, rtol=0, atol=1e-9)
    found = group_deviation(rows, jnp.zeros(6), group)
    np.testing.assert_allclose(found, deviations, rtol=1e-9)
    np.testing.assert_allclose(centred(rows) / deviation(rows, 0.0), standardise(rows, 0.0))


def test_numbers_that_agree_have_an_infinite_deviation() -> None:
    x = jnp.array([2.0, 2.0, 5.0])
    assert deviation(x, 0.0, jnp.array([True, True, False])) == jnp.inf
    np.testing.assert_array_equal(group_deviation(x, jnp.zeros(3), [0, 0, 1]), jnp.inf)


@pytest.mark.usefixtures("x64")
def test_shrinkage_is_the_loop_over_the_other_groups_of_any_size() -> None:
    x = np.random.default_rng(4).normal(size=9) + 1e3
    group = np.array([0, 1, 2, 0, 1, 2, 2, 3, 2])
    expected = []
    for n in range(9):
        groups = [x[group == g] for g in range(4) if g != group[n]]
        # the mean of one alone is as good as known
        off = [g.var(ddof=1) / len(g) if len(g) > 1 else 0.0 for g in groups]
        means = [g.mean() for g in groups]
        share = np.mean(off) / (np.mean(off) + np.var(means))
        others = np.delete(x, n)[np.delete(group, n) == group[n]]
        own = others.mean() if len(others) else 0.0
        expected.append((1 - share) * own + share * np.mean(means))
    found = jax.jit(lambda x: group_shrinkage(x, jnp.zeros(9), group))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_shrinkage_does_not_depend_on_the_own_sample_and_its_weight_on_no_sibling() -> None:
    x = jnp.asarray(np.random.default_rng(5).normal(size=8))
    group = np.arange(8) // 2
    slopes = jax.jit(jax.jacobian(lambda x: group_shrinkage(x, jnp.zeros(8), group)))
    np.testing.assert_array_equal(np.diagonal(slopes(x)), 0)
    # by the own sibling it is a line
    moved = x.at[1].add(7.0)
    np.testing.assert_allclose(slopes(moved)[0, 1], slopes(x)[0, 1], rtol=1e-12)
    assert 0 < slopes(x)[0, 1] < 1
    assert np.abs(slopes(moved)[2] - slopes(x)[2]).max() > 1e-3


@pytest.mark.usefixtures("x64")
def test_half_of_the_mean_of_a_group_remains_where_groups_have_one_mean() -> None:
    """λ is about ½ and not 1: the variance of sample means has that of the samples in it."""
    group = np.arange(64) // 2
    rewards = np.random.default_rng(6).integers(0, 2, size=(500, 64)).astype(float)

    @jax.jit
    @jax.vmap
    def weight(x: jax.Array) -> jax.Array:
        def of_sibling(move: jax.Array) -> jax.Array:
            return group_shrinkage(x.at[1].add(move), jnp.zeros(64), jnp.asarray(group))[0]

        # a line of the sibling, of slope 1 - λ
        return 1.0 - (of_sibling(1.0) - of_sibling(0.0))

    assert weight(rewards).mean() == pytest.approx(0.51, abs=0.01)
    apart = rewards + 2.0 * (group % 2)
    assert weight(apart).mean() < 0.2


THIRDS = [0.1 + 0.2, 0.3]  # equal but for rounding
DEGENERATE = {
    "one group": ([1.0, 2.0, 4.0], [0, 0, 0]),
    "two groups": ([1.0, 2.0, 4.0, 7.0], [0, 0, 1, 1]),
    "groups of one": ([1.0, 2.0, 4.0], [0, 1, 2]),
    "one sample": ([3.0], [0]),
    "groups that agree": ([1.0, 1.0, 2.0, 2.0, 5.0, 5.0], [0, 0, 1, 1, 2, 2]),
    "all the same": ([1.0] * 6, [0, 0, 1, 1, 2, 2]),
    "all the same but for rounding": (THIRDS * 3, [0, 0, 1, 1, 2, 2]),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", DEGENERATE)
def test_shrinkage_without_a_spread_to_weigh_is_leave_one_out(case: str) -> None:
    x, group = (np.array(y) for y in DEGENERATE[case])
    found = jax.jit(lambda x: group_shrinkage(x, jnp.full(len(x), 1e-15), group))(x)
    expected = jax.jit(lambda x: group_leave_one_out(x, group))(x)
    np.testing.assert_array_equal(found, expected)


def test_one_sample_has_no_others() -> None:
    with pytest.raises(ValueError, match="at least 2 samples on the last axis"):
        leave_one_out(1.0)
    with pytest.raises(ValueError, match="at least 2 samples on axis 0"):
        leave_one_out_ratio(1.0, 1.0)
    with pytest.raises(ValueError, match=r"the same shape, \[N, ...\], got \[3\] and \[2\]"):
        leave_one_out_ratio(jnp.ones(3), jnp.ones(2))
