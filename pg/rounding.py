"""Differences that are real, and those that are the rounding of a float.

A spread of rounding errors is no scale: divided by itself it makes numbers of size 1 of returns that are all equal.
So what is standardised is first asked here whether it differs at all, relative to its size and its precision.
"""

import jax
import jax.numpy as jnp

# Of a float's precision: how far off a number may be that came through a network, or a sum of some hundred terms.
UNITS = 64


def of_sums(terms: jax.Array) -> jax.Array:
    """The distance that rounding may put between equal sums over axis 0, [...]: 4 ε √K Σ|x|, K terms not 0.

    Rounding errors of a sum grow as a random walk does, each at most ε / 2 of what has been added so far.
    """
    count = jnp.sum(terms != 0, axis=0).astype(terms.dtype)
    return 4 * jnp.finfo(terms.dtype).eps * jnp.sqrt(count) * jnp.sum(jnp.abs(terms), axis=0)


def of_size(x: jax.Array) -> jax.Array:
    """The distance that rounding may put between equal numbers of the size of x, [...]: 64 ε |x|."""
    return UNITS * jnp.finfo(x.dtype).eps * jnp.abs(x)


def equal(x: jax.Array, error: jax.Array, where: jax.Array, axis: int | tuple[int, ...] | None = None) -> jax.Array:
    """Tells where x are equal but for rounding: no two are farther apart than the largest `error`; `axis` stays.

    Args:
        x: [...].
        error: how far each may be off, broadcast against x.
        where: those of x that count, broadcast against x.
        axis: over which x are compared; None: all.

    An infinity or a NaN among them is equal to nothing, so that it is not hidden.
    """
    where = jnp.broadcast_to(where, x.shape)
    largest = jnp.max(x, axis=axis, keepdims=True, initial=-jnp.inf, where=where)
    smallest = jnp.min(x, axis=axis, keepdims=True, initial=jnp.inf, where=where)
    error = jnp.max(jnp.broadcast_to(error, x.shape), axis=axis, keepdims=True, initial=0.0, where=where)
    gap = largest - smallest
    return (gap <= error) & (gap < jnp.inf)
