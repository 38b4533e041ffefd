"""Resets within a window, only of the environments that ended.

Sampling an initial state for every step of a window in advance is the fastest if a reset is as
cheap as a step: steps then have no branch. If a reset generates a world, as in Craftax, nearly all
of the time would be spent on unused states. There the environments that ended are reset in that
step, a few at a time, with the same keys.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray, PyTree, Shaped

from pg.fast import blocks, devices, programs

# The largest number of values that a reset may compute and still be sampled ahead for every step:
# gymnax's compute 50 to 4,000, Jumanji's Maze 22,000, Craftax-Classic 1,200,000. On other devices,
# where loop iterations synchronise with the host and parallel resets are cheaper, this was not
# measured, and there is no bound.
NUMBERS = {"cpu": 5_000}
ENVS_PER_RESET = 32  # one in this many environments is reset at a time


def is_costly(reset: Callable[[Any], PyTree]) -> bool:
    """True if a reset computes more than `NUMBERS` values. reset: as in `replace_ended`."""
    bound = NUMBERS.get(jax.default_backend())
    return bound is not None and numbers_per_reset(reset) > bound


def numbers_per_reset(reset: Callable[[Any], PyTree]) -> int:
    """The number of values that one additional reset computes, without what all resets share, such
    as a map.
    """

    def of_several(number: int) -> int:
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), number))
        return numbers_computed(jax.make_jaxpr(reset)(keys))

    return of_several(2) - of_several(1)


def numbers_computed(program: Any) -> int:
    """The total size of all results of a program: for a scan in every iteration, for a loop of
    unknown length in one, for a condition in every branch.
    """
    total = 0
    for equation in program.eqns:
        turns = equation.params["length"] if equation.primitive.name == "scan" else 1
        inner = turns * sum(map(numbers_computed, programs.parts_of(equation)))
        results = sum(math.prod(getattr(x.aval, "shape", ())) for x in equation.outvars)
        total += max(inner, results)  # a scatter's program is for a single number
    return total


def replace_ended(
    reset: Callable[[Any], PyTree],
    keys: Shaped[PRNGKeyArray, " B"],
    ended: Bool[Array, " B"],
    current: PyTree,
) -> PyTree:
    """`current`, with `reset(keys)` where an environment ended.

    Args:
        reset: Keys [N] -> leaves [N, ...], of each key on its own.
        keys: A key for each environment.
        ended: Those that are reset.
        current: Leaves [B, ...].
    """
    implementation = jax.random.key_impl(keys)

    def reset_by_data(data: Array) -> PyTree:
        return reset(jax.random.wrap_key_data(data, impl=implementation))

    def replaced(data: Array, ended: Array, current: PyTree) -> PyTree:
        """The same for leaves [1, B, ...], as `over_envs` hands them out."""
        data, ended, current = jax.tree.map(lambda x: x[0], (data, ended, current))
        return jax.tree.map(lambda x: x[None], _replaced(reset_by_data, data, ended, current))

    tree = jax.tree.map(lambda x: x[None], (jax.random.key_data(keys), ended, current))
    return jax.tree.map(lambda x: x[0], devices.over_envs(replaced, *tree))


def _replaced(
    reset: Callable[[Array], PyTree],
    data: Shaped[Array, "B ..."],
    ended: Bool[Array, " B"],
    current: PyTree,
) -> PyTree:
    """`replace_ended` for the environments of one device. data: raw keys, since JAX's check for key
    reuse rejects typed keys that a loop would use in several iterations.
    """
    num_envs = len(ended)
    few = -(-num_envs // ENVS_PER_RESET)
    padded = -(-num_envs // few) * few
    places = jnp.flatnonzero(ended, size=padded, fill_value=num_envs)
    # one number for all vmapped runs, so that the loop copies nothing: see `blocks`
    rounds = blocks.largest((ended.sum() + few - 1) // few)

    def replace_few(turn: Array, current: PyTree) -> PyTree:
        here = jax.lax.dynamic_slice_in_dim(places, turn * few, few)
        new = reset(data[jnp.minimum(here, num_envs - 1)])
        return jax.tree.map(lambda x, y: x.at[here].set(y, mode="drop"), current, new)

    return jax.lax.fori_loop(0, rounds, replace_few, current)
