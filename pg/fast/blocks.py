"""Loops over blocks of time that run only the blocks that were filled.

A batch of complete episodes is an array [T, B, ...] in which every row after an episode's end is
padding. Cut into blocks of K steps, everything that is linear in the rows (the rollout itself,
a network's forward pass, a sum of gradients) may stop after the last block with a valid step:
Σₜ∇fₜ = Σ_{k<n} ∇ Σ_{t in block k} fₜ.  The work is then
proportional to the steps that were taken, and the activations of one block stay in the cache.

If a single step of all environments has more rows than a block, it is cut too: [T, B, ...] becomes
[T m, B / m, ...]. So a computation block by block must treat every row separately.

Under `vmap` the number of blocks is the largest of the mapped runs. It stays *unbatched*, because
a loop with a batched length would copy its whole carry in every iteration to freeze the finished
runs.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree, Shaped

from pg.fast import devices

# Rows of a block: enough to fill the machine's units, few enough that a block's activations stay in
# its cache.
ROWS = {"cpu": 256}
ROWS_ELSEWHERE = 65536
# Rows of a large block: XLA spreads its products over the cores of a CPU. Blocks of 512 or 1024
# rows take more processor time without being faster.
LARGE_ROWS = 2048

_copies = contextvars.ContextVar("copies", default=1)
_are_large = contextvars.ContextVar("are_large", default=False)


@contextlib.contextmanager
def mapped_over(count: int) -> Iterator[None]:
    """A context for tracing a function that will be mapped over `count`: its blocks hold the rows
    of all copies.
    """
    token = _copies.set(count)
    try:
        yield
    finally:
        _copies.reset(token)


@contextlib.contextmanager
def large() -> Iterator[None]:
    """A context for tracing computations that may have large blocks: all steps are valid, so that
    no block is left out, and no sum over a block's rows has an order that depends on the number of
    cores.
    """
    token = _are_large.set(True)
    try:
        yield
    finally:
        _are_large.reset(token)


@jax.custom_batching.custom_vmap
def largest(x: Shaped[Array, ""]) -> Shaped[Array, ""]:
    """A scalar `x`; under `vmap` the largest over all mapped runs, as one unbatched scalar."""
    return x


@largest.def_vmap
def _largest(
    axis_size: int, in_batched: list[bool], x: Shaped[Array, " n"]
) -> tuple[Shaped[Array, ""], bool]:
    return largest(jnp.max(x)), False


def rows(num_rows: int = 0) -> int:
    """Rows of a block on this kind of device, shared among the copies of `mapped_over`.

    Args:
        num_rows: Rows of the whole batch, on all devices. In the context `large` its blocks are
            large if it fills one. Vmapped runs fill it together; the copies of `mapped_over` do
            not count.
    """
    rows_of_device = ROWS.get(jax.default_backend(), ROWS_ELSEWHERE)
    large_rows = LARGE_ROWS // devices.mapped_runs()
    if _are_large.get() and num_rows >= large_rows:
        rows_of_device = max(rows_of_device, large_rows)
    return max(1, rows_of_device // _copies.get())


def block_size(length: int, width: int, most: int) -> int:
    """Steps K in a block, for an array of `length` steps by `width` environments.

    A divisor of `length` if there is one of suitable size, so that nothing needs padding.

    Args:
        length: The number of steps.
        width: The number of environments.
        most: The largest number of rows.
    """
    return even_size(length, max(1, most // width))


def even_size(length: int, most: int) -> int:
    """The largest divisor of `length` between most / 2 and `most`; `most` itself if there is
    none.
    """
    most = min(length, most)
    for size in range(most, most // 2, -1):
        if length % size == 0:
            return size
    return most


def split(tree: PyTree, size: int) -> PyTree:
    """Leaves [T, ...] as [ceil(T / size), size, ...], padded with zeros (False) at the end."""

    def split_leaf(x: Array) -> Array:
        count = -(-x.shape[0] // size)
        pad = count * size - x.shape[0]
        if pad:
            x = jnp.concatenate([x, jnp.zeros((pad, *x.shape[1:]), x.dtype)])
        return x.reshape(count, size, *x.shape[1:])

    return jax.tree.map(split_leaf, tree)


def join(tree: PyTree, length: int) -> PyTree:
    """The inverse of `split`: leaves [n, size, ...] as [length, ...]."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:length], tree)


def take(tree: PyTree, index: Int[Array, ""]) -> PyTree:
    """Block number `index` of split leaves."""
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, index, keepdims=False), tree)


def put(tree: PyTree, block: PyTree, index: Int[Array, ""]) -> PyTree:
    """Split leaves with block number `index` replaced."""

    def put_leaf(x: Array, new: Array) -> Array:
        return jax.lax.dynamic_update_index_in_dim(x, new, index, 0)

    return jax.tree.map(put_leaf, tree, block)


def map_steps(
    f: Callable[[Any], Any], tree: PyTree, valid: Bool[Array, "T B"], *, one_block: bool = False
) -> PyTree:
    """`f` of leaves [T, B, ...], computed block by block; 0 in blocks without a valid step.

    Args:
        f: Leaves [K, B, ...] -> leaves [K, B, ...], each row of time separately.
        tree: Leaves [T, B, ...].
        valid: The valid steps.
        one_block: Compute all steps at once, for an f that depends on the past.
    """

    most = rows(valid.size)

    def mapped(tree: PyTree, valid: Bool[Array, "T B"]) -> PyTree:
        if one_block or valid.size <= most:
            return f(tree)
        xs, num_filled = _cut(tree, valid, most)
        count, _, width = jax.tree.leaves(xs)[0].shape[:3]
        block = jax.eval_shape(f, take(xs, jnp.int32(0)))

        def fill(k: Int[Array, ""], ys: PyTree) -> PyTree:
            return put(ys, f(take(xs, k)), k)

        ys = jax.tree.map(lambda y: jnp.zeros((count, *y.shape), y.dtype), block)
        ys = jax.lax.fori_loop(0, num_filled, fill, ys)
        steps = join(ys, valid.size // width)
        return jax.tree.map(lambda y: y.reshape(*valid.shape, *y.shape[2:]), steps)

    return devices.over_envs(mapped, tree, valid)


def sum_steps(
    f: Callable[[Any], Any], tree: PyTree, valid: Bool[Array, "T B"], *, one_block: bool = False
) -> PyTree:
    """Σ over blocks of `f` of leaves [T, B, ...].

    Args:
        f: Leaves [K, B, ...] -> any tree, a sum over time in which invalid steps count 0.
        tree: Leaves [T, B, ...].
        valid: The valid steps.
        one_block: Compute all steps at once.
    """

    most = rows(valid.size)

    def summed(tree: PyTree, valid: Bool[Array, "T B"]) -> PyTree:
        if one_block or valid.size <= most:
            return f(tree)
        xs, num_filled = _cut(tree, valid, most)

        def add(k: Int[Array, ""], total: PyTree) -> PyTree:
            return jax.tree.map(jnp.add, total, f(take(xs, k)))

        zero = jax.tree.map(jnp.zeros_like, jax.eval_shape(f, take(xs, jnp.int32(0))))
        return jax.lax.fori_loop(0, num_filled, add, zero)

    return devices.over_envs(summed, tree, valid, total=True)


def mean_over_episodes(f: Callable[[Any], Any], tree: PyTree, valid: Bool[Array, "T B"]) -> PyTree:
    """(1/B) Σ over blocks of `f`, as `sum_steps`."""
    return jax.tree.map(lambda x: x / valid.shape[1], sum_steps(f, tree, valid))


def _cut(tree: PyTree, valid: Bool[Array, "T B"], most: int) -> tuple[PyTree, Int[Array, ""]]:
    """Leaves [T, B, ...] as blocks [n, K, B / m, ...], and the number of leading blocks that hold
    every valid step [T, B].

    A block has at most `most` rows, unless B has no such divisor or environments are spread: then
    it is one whole step.
    """
    width = valid.shape[1]
    part = even_size(width, most)
    if devices.envs_are_spread() or width % part:
        part = width
    tree, valid = jax.tree.map(lambda x: x.reshape(-1, part, *x.shape[2:]), (tree, valid))
    size = block_size(len(valid), part, most)
    return split(tree, size), largest((_num_used(valid) + size - 1) // size)


def num_steps(valid: Bool[Array, "T B"]) -> Int[Array, ""]:
    """The number of leading steps that hold every valid one: the bound of a loop over time."""
    return largest(_num_used(valid))


def _num_used(valid: Bool[Array, "T B"]) -> Int[Array, ""]:
    numbers = jnp.arange(1, len(valid) + 1)
    return jnp.max(jnp.where(valid.any(axis=1), numbers, 0))
