"""Shuffles of rows by a Feistel network: orders of all numbers, uniform and independent.

Chi-square tests of counts under a fixed seed, each at a level of 1e-4: with about 25 of them a fair
shuffle fails one for one seed in 400.
"""

import itertools
import math

import jax
import numpy as np
import pytest
from scipy import stats

from pg.fast import shuffles

LEVEL = 1e-4


def orders(count: int, number: int, seed: int = 0) -> np.ndarray:
    """So many shuffles of `count` numbers, [number, count]."""
    keys = jax.random.split(jax.random.key(seed), number)
    return np.asarray(jax.jit(jax.vmap(lambda key: shuffles.permutation(key, count)))(keys))


def p_value(values: np.ndarray, num_values: int) -> float:
    """The p-value of uniform `values` below `num_values`."""
    return float(stats.chisquare(np.bincount(values.ravel(), minlength=num_values)).pvalue)


def deviation(a: int, b: int, rounds: int) -> float:
    """The total variation between the difference of two cells after so many rounds and a uniform
    one: the largest over all pairs of cells.
    """
    uniform = np.full((a, b), 1 / (a * b - 1))
    uniform[0, 0] = 0
    found = []
    # Two of the same right, of the same left, and of neither: all others have the same distribution
    # but for the names of the differences.
    for start in ((1 % a, 0), (0, 1 % b), (1 % a, 1 % b)):
        if start == (0, 0):
            continue
        chance = np.zeros((a, b))
        chance[start] = 1
        for _ in range(rounds):
            chance[:, 1:] = chance[:, 1:].mean(axis=0, keepdims=True)
            chance[1:, :] = chance[1:, :].mean(axis=1, keepdims=True)
        found.append(abs(chance - uniform).sum() / 2)
    return max(found)


@pytest.mark.parametrize("count", [1, 2, 3, 35, 1009, 8192])
def test_an_order_has_every_number_once(count: int) -> None:
    found = orders(count, 3)
    np.testing.assert_array_equal(np.sort(found, axis=1), np.tile(np.arange(count), (3, 1)))


def test_a_grid_has_as_many_cells_as_numbers_where_it_can() -> None:
    grids = {count: shuffles.grid(count) for count in range(1, 2000)}
    assert all(a * b >= count for count, (a, b) in grids.items())
    assert all((a - 1) * b < count and a * (b - 1) < count for count, (a, b) in grids.items())
    assert (grids[1024], grids[1009]) == ((32, 32), (32, 32))
    assert shuffles.grid(64 * 128) == (64, 128)


@pytest.mark.parametrize("count", [4, 6, 24, 35, 100, 1024, 8192])
def test_two_rows_are_as_near_to_uniform_as_is_said(count: int) -> None:
    a, b = shuffles.grid(count)
    rounds = shuffles.number_of_rounds(a, b)
    assert deviation(a, b, rounds) <= min(a, b) ** (1.0 - rounds) <= shuffles.DEVIATION
    assert deviation(a, b, 2) > 100 * shuffles.DEVIATION  # as fewer would not do


@pytest.mark.parametrize("count", [4, 5])
def test_every_order_of_few_numbers_is_as_frequent(count: int) -> None:
    found = orders(count, 12_000)
    ranks = {order: i for i, order in enumerate(itertools.permutations(range(count)))}
    seen = np.array([ranks[tuple(order)] for order in found.tolist()])
    assert p_value(seen, math.factorial(count)) > LEVEL


@pytest.mark.parametrize("count", [7, 9, 24])  # beyond the grid, on an odd one, on an even one
def test_even_and_odd_orders_are_as_frequent(count: int) -> None:
    found = orders(count, 4_000, seed=4)
    earlier, later = np.triu_indices(count, 1)
    inversions = (found[:, earlier] > found[:, later]).sum(axis=1)
    assert p_value(inversions % 2, 2) > LEVEL


@pytest.mark.parametrize("count", [24, 23])  # without and with cells beyond
def test_places_are_uniform_alone_and_in_pairs(count: int) -> None:
    found = orders(count, 50_000, seed=1)
    for row in (0, count // 2, count - 1):
        assert p_value(found[:, row], count) > LEVEL
    # Neighbours and rows of one column of the grid: those that a round moves alike.
    _, b = shuffles.grid(count)
    for other in (1, b, b + 1):
        pairs = found[:, 0] * (count - 1) + found[:, other] - (found[:, other] > found[:, 0])
        assert p_value(pairs, count * (count - 1)) > LEVEL


def test_shuffles_of_two_keys_are_independent() -> None:
    found = orders(24, 40_000, seed=2)
    first, second = found[::2], found[1::2]
    for row in (0, 13):
        assert p_value(first[:, row] * 24 + second[:, row], 24 * 24) > LEVEL
    composed = np.take_along_axis(np.argsort(first, axis=1), second, axis=1)
    assert p_value(composed[:, 5], 24) > LEVEL


def test_a_minibatch_has_rows_of_all_the_batch() -> None:
    """Each of 64 environments has about 32 rows in each of 4 minibatches of 2048 rows: the counts
    vary as those of draws without replacement.
    """
    found = orders(8192, 200, seed=3).reshape(200, 4, 2048)
    in_first = np.stack([np.bincount(rows % 64, minlength=64) for rows in found[:, 0]])
    # The variance of a hypergeometric count: 128 rows of an environment, a quarter drawn.
    expected = 128 * (1 / 4) * (3 / 4) * (8192 - 128) / (8192 - 1)
    # Counts of one shuffle add up to 2048, so that 63 of 64 are free.
    squares = ((in_first - 32) ** 2).sum() / expected * 63 / 64
    free = 200 * 63
    assert stats.chi2.cdf(squares, free) > LEVEL / 2
    assert stats.chi2.sf(squares, free) > LEVEL / 2
