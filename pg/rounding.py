"""Differences that are real, and those that are the rounding of a float.

A spread of rounding errors is no scale: divided by itself it makes numbers of size 1 of returns
that are all equal. So what is standardised is first asked here whether it differs at all, relative
to its size and its precision.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Of a float's precision: how far off a number may be that came of a few operations, each off by
# half a unit.
UNITS = 8


def sum_in_pairs(terms: Float[Array, "T *B"]) -> Float[Array, "*B"]:
    """Σ over axis 0, [...], half of the terms added to the other half until one is left.

    A term passes through log₂ T additions, in the same order on every backend; added one after
    another it would pass through up to T of them, each of which rounds.
    """
    if not len(terms):
        return jnp.sum(terms, axis=0)
    while len(terms) > 1:
        half = len(terms) // 2
        pairs = terms[:half] + terms[half : 2 * half]
        terms = jnp.concatenate([pairs, terms[2 * half :]])
    return terms[0]


def sum_of_others(x: Float[Array, "*B"], axis: int = -1) -> Float[Array, "*B"]:
    """Σ_{m≠n} xₘ for every n along an axis, [...]: the sum of those before n and of those after it.

    The whole sum less xₙ would leave little that is not rounding where xₙ is nearly all of it.

    Args:
        x: [...].
        axis: The axis of the sum.
    """
    x = jnp.moveaxis(x, axis, 0)
    zero = jnp.zeros_like(x[:1])
    before = jnp.concatenate([zero, jnp.cumsum(x[:-1], axis=0)])
    after = jnp.concatenate([jnp.cumsum(x[:0:-1], axis=0)[::-1], zero])
    return jnp.moveaxis(before + after, 0, axis)


def of_sums(terms: Float[Array, "T *B"]) -> Float[Array, "*B"]:
    """The distance that rounding may put between equal sums over axis 0, [...]: ε (1 + log₂ T)
    Σ|x|.

    Each term is off by ε / 2 at most, as a float is, and so is each of the log₂ T additions of
    `sum_in_pairs` that it passes through (Higham 1993): twice that lies between two sums. Zeros add
    nothing: K other terms pass through K - 1 additions at most.
    """
    count = jnp.sum(terms != 0, axis=0).astype(terms.dtype)
    additions = jnp.clip(count - 1, 0, math.ceil(math.log2(max(1, len(terms)))))
    return jnp.finfo(terms.dtype).eps * (1 + additions) * jnp.sum(jnp.abs(terms), axis=0)


def of_size(x: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """The distance that rounding may put between equal numbers of the size of x, [...]: 8 ε |x|."""
    return UNITS * jnp.finfo(x.dtype).eps * jnp.abs(x)


def equal(
    x: Float[Array, "*B"],
    error: Float[Array, "..."] | float,
    where: Bool[Array, "..."] | bool,
    axis: int | tuple[int, ...] | None = None,
) -> Bool[Array, "*#B"]:
    """True where x are equal but for rounding: no two are farther apart than the largest `error`.

    An infinity or a NaN among them is equal to nothing, so that it is not hidden.

    Args:
        x: [...].
        error: how far each may be off, broadcast against x.
        where: those of x that count, broadcast against x.
        axis: over which x are compared; None: all. It stays, of size 1.
    """
    where = jnp.broadcast_to(where, x.shape)
    largest = jnp.max(x, axis=axis, keepdims=True, initial=-jnp.inf, where=where)
    smallest = jnp.min(x, axis=axis, keepdims=True, initial=jnp.inf, where=where)
    error = jnp.max(
        jnp.broadcast_to(error, x.shape), axis=axis, keepdims=True, initial=0.0, where=where
    )
    gap = largest - smallest
    return (gap <= error) & (gap < jnp.inf)
