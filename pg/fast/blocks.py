"""Loops over blocks of time that run only the blocks that were filled.

A batch of complete episodes is an array [T, B, ...] in which every row after an episode's end is
padding. Cut into blocks of K steps, all that is linear in the rows (the rollout itself, a network's
forward pass, a sum of gradients) may stop after the last block that holds a valid step:  Σₜ∇fₜ =
Σ_{k<n} ∇ Σ_{t in block k} fₜ.  The work then follows the steps that were taken, and the activations
of one block stay in the cache.

Where a single step of all environments has more rows than a block, it is cut too: [T, B, ...] is
taken as [T m, B / m, ...]. So what is computed block by block must treat every row on its own.

Under `vmap` the number of blocks is the largest of the mapped runs. It is kept *unbatched*, because
a loop with a batched length would copy all that it carries at every turn to hold the finished runs
still.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from pg.fast import devices

# Rows of a block: enough to fill the machine's units, few enough that a block's activations stay in
# its cache.
ROWS = {"cpu": 256}
ROWS_ELSEWHERE = 65536

_beside = contextvars.ContextVar("beside", default=1)


@contextlib.contextmanager
def side_by_side(count: int) -> Iterator[None]:
    """What is traced within is about to be mapped over `count`: its blocks shall hold the rows of
    all of them.
    """
    token = _beside.set(count)
    try:
        yield
    finally:
        _beside.reset(token)


@jax.custom_batching.custom_vmap
def largest(x: jax.Array) -> jax.Array:
    """A scalar `x`; under `vmap` the largest over all mapped runs, as one unbatched scalar."""
    return x


@largest.def_vmap
def _largest(axis_size: int, in_batched: list[bool], x: jax.Array) -> tuple[jax.Array, bool]:
    return largest(jnp.max(x)), False


def rows() -> int:
    """Rows of a block on this kind of device, or what falls to one of several that are mapped
    over.
    """
    return max(1, ROWS.get(jax.default_backend(), ROWS_ELSEWHERE) // _beside.get())


def block_size(length: int, width: int) -> int:
    """Steps K in a block, for an array of `length` steps by `width` environments.

    A divisor of `length` where there is one of fitting size, so that nothing needs padding.
    """
    return even_size(length, max(1, rows() // width))


def even_size(length: int, most: int) -> int:
    """The largest divisor of `length` between most / 2 and `most`; `most` itself where there is
    none.
    """
    most = min(length, most)
    return next((k for k in range(most, most // 2, -1) if length % k == 0), most)


def split(tree: Any, size: int) -> Any:
    """Leaves [T, ...] as [ceil(T / size), size, ...], padded with zeros (False) at the end."""

    def one(x: jax.Array) -> jax.Array:
        count = -(-x.shape[0] // size)
        pad = count * size - x.shape[0]
        if pad:
            x = jnp.concatenate([x, jnp.zeros((pad, *x.shape[1:]), x.dtype)])
        return x.reshape(count, size, *x.shape[1:])

    return jax.tree.map(one, tree)


def join(tree: Any, length: int) -> Any:
    """The inverse of `split`: leaves [n, size, ...] as [length, ...]."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:length], tree)


def take(tree: Any, index: jax.Array) -> Any:
    """Block number `index` of split leaves."""
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, index, keepdims=False), tree)


def put(tree: Any, block: Any, index: jax.Array) -> Any:
    """Split leaves with block number `index` replaced."""
    return jax.tree.map(
        lambda x, b: jax.lax.dynamic_update_index_in_dim(x, b, index, 0), tree, block
    )


def map_steps(f: Callable[[Any], Any], tree: Any, valid: jax.Array, *, whole: bool = False) -> Any:
    """`f` of leaves [T, B, ...], computed block by block; 0 in blocks without a valid step.

    f: leaves [K, B, ...] -> leaves [K, B, ...], each row of time on its own. whole: in one block,
    for an f to which the past matters.
    """

    def mapped(tree: Any, valid: jax.Array) -> Any:
        if whole or block_size(*valid.shape) == len(valid):
            return f(tree)
        xs, filled = _cut(tree, valid)
        block = jax.eval_shape(f, take(xs, jnp.int32(0)))
        count = len(jax.tree.leaves(xs)[0])
        ys = jax.tree.map(lambda y: jnp.zeros((count, *y.shape), y.dtype), block)
        ys = jax.lax.fori_loop(0, filled, lambda k, ys: put(ys, f(take(xs, k)), k), ys)
        part = jax.tree.leaves(xs)[0].shape[2]
        steps = join(ys, valid.size // part)
        return jax.tree.map(lambda y: y.reshape(*valid.shape, *y.shape[2:]), steps)

    return devices.over_envs(mapped, tree, valid)


def sum_steps(f: Callable[[Any], Any], tree: Any, valid: jax.Array, *, whole: bool = False) -> Any:
    """Σ over blocks of `f` of leaves [T, B, ...].

    f: leaves [K, B, ...] -> any tree, a sum over time in which steps that are not valid count 0.
    whole: in one block.
    """

    def summed(tree: Any, valid: jax.Array) -> Any:
        if whole or block_size(*valid.shape) == len(valid):
            return f(tree)
        xs, filled = _cut(tree, valid)
        zero = jax.tree.map(jnp.zeros_like, jax.eval_shape(f, take(xs, jnp.int32(0))))
        return jax.lax.fori_loop(
            0, filled, lambda k, total: jax.tree.map(jnp.add, total, f(take(xs, k))), zero
        )

    return devices.over_envs(summed, tree, valid, total=True)


def mean_over_episodes(f: Callable[[Any], Any], tree: Any, valid: jax.Array) -> Any:
    """(1/B) Σ over blocks of `f`, as `sum_steps`."""
    return jax.tree.map(lambda x: x / valid.shape[1], sum_steps(f, tree, valid))


def _cut(tree: Any, valid: jax.Array) -> tuple[Any, jax.Array]:
    """Leaves [T, B, ...] as blocks [n, K, B / m, ...], and the number of leading blocks that hold
    every valid step [T, B].
    """
    width = valid.shape[1]
    part = even_size(width, rows())
    if devices.envs_are_spread() or width % part:
        part = width
    tree, valid = jax.tree.map(lambda x: x.reshape(-1, part, *x.shape[2:]), (tree, valid))
    size = block_size(*valid.shape)
    number = jnp.arange(1, len(valid) + 1)
    used = jnp.max(jnp.where(valid.any(axis=1), number, 0))
    return split(tree, size), largest((used + size - 1) // size)
