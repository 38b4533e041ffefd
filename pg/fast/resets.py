"""Resets within a window, of the environments that ended alone.

To draw an initial state for every step of a window is the fastest where a reset costs as little as
a step: no step then has a branch. Where a reset makes a world, as Craftax's does, nearly all of the
time would go into states that nobody enters: there the environments that ended are reset in the
step of the end, a few at a time, from the keys that they would have had.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray, PyTree, Shaped

from pg.fast import blocks, devices, programs

# Numbers that a reset may compute and still be drawn ahead for every step: those of gymnax compute
# 50 to 4,000, of Jumanji's Maze 22,000, of Craftax-Classic 1,200,000.
NUMBERS = 5_000
# Of the environments this part is reset at once: as many as Craftax's own wrapper resets per step.
PART = 32


def is_costly(program: Any, number: int) -> bool:
    """True where the program of `number` resets computes more than `NUMBERS` for each."""
    return numbers_computed(program) > NUMBERS * number


def numbers_computed(program: Any) -> int:
    """The sizes of all results of a program: of a scan at every turn, of a loop whose turns are not
    known at one.
    """
    total = 0
    for equation in program.eqns:
        turns = equation.params["length"] if equation.primitive.name == "scan" else 1
        parts = programs.parts_of(equation)
        inner = sum(map(numbers_computed, parts))
        own = sum(math.prod(getattr(x.aval, "shape", ())) for x in equation.outvars)
        total += turns * inner if parts else own
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

    def replaced(data: Array, ended: Array, current: PyTree) -> PyTree:
        """The same for leaves [1, B, ...], as `over_envs` hands them out."""
        data, ended, current = jax.tree.map(lambda x: x[0], (data, ended, current))
        own_keys = jax.random.wrap_key_data(data, impl=implementation)
        new = _replaced(reset, own_keys, ended, current)
        return jax.tree.map(lambda x: x[None], new)

    tree = jax.tree.map(lambda x: x[None], (jax.random.key_data(keys), ended, current))
    return jax.tree.map(lambda x: x[0], devices.over_envs(replaced, *tree))


def _replaced(reset: Any, keys: Any, ended: Bool[Array, " B"], current: PyTree) -> PyTree:
    """`replace_ended` of the environments of one device."""
    num_envs = len(ended)
    few = -(-num_envs // PART)
    padded = -(-num_envs // few) * few
    places = jnp.flatnonzero(ended, size=padded, fill_value=num_envs)
    # one number for all runs that are mapped over, so that the loop copies nothing: see `blocks`
    rounds = blocks.largest((ended.sum() + few - 1) // few)

    def replace_few(turn: Array, current: PyTree) -> PyTree:
        here = jax.lax.dynamic_slice_in_dim(places, turn * few, few)
        new = reset(keys[jnp.minimum(here, num_envs - 1)])
        return jax.tree.map(lambda x, y: x.at[here].set(y, mode="drop"), current, new)

    return jax.lax.fori_loop(0, rounds, replace_few, current)
