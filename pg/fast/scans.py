"""Scans: one that stops early, for batches whose episodes end at different times, and one over
random keys.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray, PyTree, Shaped

from pg.fast import blocks

# Steps between two checks of whether any is alive. A check is cheap; up to this many steps are
# wasted.
BLOCK = 10
# Blocks whose inputs are computed at once: for a single block, dispatching so little work to
# another thread costs more than the work.
AHEAD = 10


def scan_until(
    step: Callable[[Any, Any], tuple[Any, Any]],
    carry: PyTree,
    xs: Callable[[Array], PyTree],
    alive: Callable[[Any], Array],
    *,
    length: int,
) -> PyTree:
    """The outputs of `jax.lax.scan(step, carry, xs(jnp.arange(length)))`, stopped when all are
    done.

    The cost depends on the longest lifetime, not on `length`: `BLOCK` steps are taken at a time.

    Args:
        step: carry, x -> carry, y.
        carry: The initial carry.
        xs: Step numbers [K] -> the inputs of these steps, leaves [K, ...]. They are computed for
            several blocks at a time, so for some steps that are never reached too, with numbers
            that may be beyond `length`.
        alive: carry -> bool, of any shape: who is alive.
        length: The largest number of steps.

    Returns:
        The outputs, leaves [length, ...]: zeros where no step was taken. No carry, as the last
        block may go beyond `length`.
    """
    size = blocks.even_size(length, BLOCK)
    count = -(-length // size)
    ahead = min(AHEAD, count)

    def some_alive(loop: Any) -> Bool[Array, ""]:
        index, carry, _, _ = loop
        return (index < count) & blocks.largest(alive(carry).any())

    def inputs(index: Int[Array, ""]) -> PyTree:
        """The inputs of the next blocks, from number `index` on."""
        return blocks.split(xs(index * size + jnp.arange(ahead * size)), size)

    def take_block(loop: Any) -> Any:
        index, carry, ready, ys = loop
        ready = jax.lax.cond(index % ahead == 0, inputs, lambda _: ready, index)
        carry, new = jax.lax.scan(step, carry, blocks.take(ready, index % ahead))
        return index + 1, carry, ready, blocks.put(ys, new, index)

    first = jnp.int32(0)
    ready = jax.tree.map(jnp.zeros_like, jax.eval_shape(inputs, first))
    block = jax.eval_shape(lambda: jax.lax.scan(step, carry, blocks.take(ready, first))[1])
    ys = jax.tree.map(lambda y: jnp.zeros((count, *y.shape), y.dtype), block)
    ys = jax.lax.while_loop(some_alive, take_block, (first, carry, ready, ys))[-1]
    return blocks.join(ys, length)


def scan_keys(
    step: Callable[[Any, PRNGKeyArray], tuple[Any, Any]],
    carry: PyTree,
    keys: Shaped[Array, "n ..."],
) -> tuple[PyTree, PyTree]:
    """`jax.lax.scan(step, carry, keys)` for random keys [n, ...].

    They are passed as raw keys: under `vmap` JAX's check for key reuse (`jax.debug_key_reuse`)
    mistakes moving the scan axis of an array of keys for a use of all of them.
    """
    impl = jax.random.key_impl(keys)

    def one(carry: PyTree, data: Array) -> tuple[PyTree, PyTree]:
        return step(carry, jax.random.wrap_key_data(data, impl=impl))

    return jax.lax.scan(one, carry, jax.random.key_data(keys))
