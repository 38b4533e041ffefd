"""Random orders of many rows without a sort.

A Feistel network on the cells of a grid, as in ciphers with small domains (Black & Rogaway 2002,
"Ciphers with arbitrary finite domains"): row i is the cell (i // b, i mod b) of a grid a × b, and
alternately one coordinate is shifted by a function of the other,

    left ← left + F(right) mod a        right ← right + G(left) mod b

each of which is a bijection, whatever F and G are. Here they are tables of random numbers, drawn
for every round. With ab > n cells, those beyond n are mapped again until they are below: "cycle
walking". If a and b are odd, every shift is an even permutation, and so is their composition; a
fair coin decides whether rows 0 and 1 are exchanged first, so that even and odd orders are equally
frequent. TensorFlow's `random_index_shuffle` and Grain's `index_shuffle` do the same with rounds of
a block cipher.

`jax.random.permutation` sorts twice, which on a CPU takes 40 times as long for 8192 rows
(experiments/speed/shuffles.py).
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from pg.fast import blocks

# the largest total variation distance of two rows' positions from uniform
DEVIATION = 1e-6

Cells = tuple[Int[Array, " n"], Int[Array, " n"]]  # left and right


def permutation(key: PRNGKeyArray, count: int) -> Int[Array, " count"]:
    """A random order of the numbers 0 .. count - 1, replacing `jax.random.permutation`.

    If the grid has exactly `count` cells, the position of each number is uniform and the positions
    of any two are within `DEVIATION` of uniform, up to the bias of random words modulo a and b,
    2⁻³² a and 2⁻³² b. With more cells this is only known from tests. Even and odd orders are
    equally frequent. Not every order can occur if there are more orders than tables of random
    words.

    Args:
        key: The random key.
        count: The number of rows, at least 1.
    """
    a, b = grid(count)
    table_key, coin_key = jax.random.split(key)
    words = jax.random.bits(table_key, (number_of_rounds(a, b), a + b), jnp.uint32)
    shifts_of_left = (words[:, :b] % a).astype(jnp.int32)
    shifts_of_right = (words[:, b:] % b).astype(jnp.int32)

    def one_round(cells: Cells, shifts: tuple[Array, Array]) -> tuple[Cells, None]:
        left, right = cells
        shift_of_left, shift_of_right = shifts
        left = _shifted(left, shift_of_left[right], a)
        right = _shifted(right, shift_of_right[left], b)
        return (left, right), None

    def mapped(cells: Cells) -> Cells:
        return jax.lax.scan(one_round, cells, (shifts_of_left, shifts_of_right))[0]

    def are_beyond(cells: Cells) -> Bool[Array, " count"]:
        left, right = cells
        return left * b + right >= count

    def walk(cells: Cells) -> Cells:
        beyond = are_beyond(cells)
        further = mapped(cells)
        return jax.tree.map(lambda new, old: jnp.where(beyond, new, old), further, cells)

    numbers = jnp.arange(count, dtype=jnp.int32)
    if count > 1:
        exchanged = numbers.at[:2].set(jnp.array([1, 0], jnp.int32))
        numbers = jnp.where(jax.random.bernoulli(coin_key), exchanged, numbers)
    cells = mapped((numbers // b, numbers % b))
    if a * b > count:
        cells = jax.lax.while_loop(lambda cells: jnp.any(are_beyond(cells)), walk, cells)
    left, right = cells
    return left * b + right


def grid(count: int) -> tuple[int, int]:
    """A grid a × b of at least `count` cells: exactly `count` if it has a divisor near its root."""
    a = blocks.even_size(count, math.isqrt(count - 1) + 1)
    return a, -(-count // a)


def number_of_rounds(a: int, b: int) -> int:
    """Rounds, each a shift of both coordinates, that bring any two cells within `DEVIATION` of
    uniform: in total variation they are off by at most min(a, b)^(1 - rounds), with a, b > 1.

    Two cells with the same right coordinate keep the difference of their left ones until their
    right ones differ, which happens after another round except with probability 1 / b; and vice
    versa.
    """
    return 1 + math.ceil(math.log(1 / DEVIATION, max(2, min(a, b))))


def _shifted(x: Int[Array, " n"], shift: Int[Array, " n"], size: int) -> Int[Array, " n"]:
    """x + shift modulo `size`, of numbers below it."""
    moved = x + shift
    return jnp.where(moved >= size, moved - size, moved)
