"""Loops over blocks of time that run only the blocks that were filled.

A batch of complete episodes is an array [T, B, ...] in which every row after an episode's end is padding. Cut
into blocks of K steps, all that is linear in the rows (the rollout itself, a network's forward pass, a sum of
gradients) may stop after the last block that holds a valid step:  Σₜ∇fₜ = Σ_{k<n} ∇ Σ_{t in block k} fₜ.  The
work then follows the steps that were taken, and the activations of one block stay in the cache.

Under `vmap` the number of blocks is the largest of the mapped runs. It is kept *unbatched*, because a loop with
a batched length would copy all that it carries at every turn to hold the finished runs still.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# Rows of a block: enough to fill the machine's units, few enough that a block's activations stay in its cache.
ROWS = {"cpu": 256}
ROWS_ELSEWHERE = 65536


@jax.custom_batching.custom_vmap
def largest(x: jax.Array) -> jax.Array:
    """A scalar `x`; under `vmap` the largest over all mapped runs, as one unbatched scalar."""
    return x


@largest.def_vmap
def _largest(axis_size: int, in_batched: list[bool], x: jax.Array) -> tuple[jax.Array, bool]:
    return largest(jnp.max(x)), False


def block_size(length: int, width: int) -> int:
    """Steps K in a block, for an array of `length` steps by `width` environments.

    A divisor of `length` where there is one of fitting size, so that nothing needs padding.
    """
    rows = ROWS.get(jax.default_backend(), ROWS_ELSEWHERE)
    return even_size(length, max(2, rows // width))


def even_size(length: int, most: int) -> int:
    """The largest divisor of `length` between most / 2 and `most`; `most` itself where there is none."""
    most = min(length, most)
    return next((k for k in range(most, most // 2, -1) if length % k == 0), most)


def split(tree: Any, size: int) -> Any:
    """Leaves [T, ...] as [ceil(T / size), size, ...], padded with zeros (False) at the end."""

    def one(x: jax.Array) -> jax.Array:
        count = math.ceil(x.shape[0] / size)
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
    return jax.tree.map(lambda x, b: jax.lax.dynamic_update_index_in_dim(x, b, index, 0), tree, block)


def filled(valid: jax.Array, size: int) -> jax.Array:
    """Number of leading blocks of `size` steps that hold every valid step. valid: [T, B] bool."""
    steps = jnp.arange(1, valid.shape[0] + 1)
    length = jnp.max(jnp.where(valid.any(axis=1), steps, 0))
    return largest((length + size - 1) // size)


def map_steps(f: Callable[[Any], Any], tree: Any, valid: jax.Array, *, whole: bool = False) -> Any:
    """`f` of leaves [T, B, ...], computed block by block; 0 in blocks without a valid step.

    f: leaves [K, B, ...] -> leaves [K, B, ...], each row of time on its own. whole: in one block, for an f to which
    the past matters.
    """
    length, size = valid.shape[0], block_size(*valid.shape)
    if whole or size == length:
        return f(tree)
    xs = split(tree, size)
    out = jax.eval_shape(f, take(xs, jnp.int32(0)))
    ys = jax.tree.map(lambda s: jnp.zeros((math.ceil(length / size), *s.shape), s.dtype), out)
    ys = jax.lax.fori_loop(0, filled(valid, size), lambda k, ys: put(ys, f(take(xs, k)), k), ys)
    return join(ys, length)


def sum_steps(f: Callable[[Any], Any], tree: Any, valid: jax.Array, *, whole: bool = False) -> Any:
    """Σ over blocks of `f` of leaves [T, B, ...].

    f: leaves [K, B, ...] -> any tree, a sum over time in which steps that are not valid count 0. whole: in one block.
    """
    length, size = valid.shape[0], block_size(*valid.shape)
    if whole or size == length:
        return f(tree)
    xs = split(tree, size)
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(f, take(xs, jnp.int32(0))))

    def add(k: jax.Array, total: Any) -> Any:
        return jax.tree.map(jnp.add, total, f(take(xs, k)))

    return jax.lax.fori_loop(0, filled(valid, size), add, zero)
