"""Tells real differences from floating-point rounding.

Standardising equal returns would divide rounding errors by their own standard deviation, and give
numbers of size 1. So these functions first check whether numbers differ at all, relative to their
size and precision.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Tolerance, in units of the machine precision, for the result of a few operations, each with an
# error of half a unit.
UNITS = 8


def sum_in_pairs(terms: Float[Array, "T *B"]) -> Float[Array, "*B"]:
    """Σ over axis 0, [...], by pairwise summation.

    A term passes through log₂ T additions, in the same order on every backend, instead of up to T,
    each of which rounds.
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

    The whole sum minus xₙ would be mostly rounding error if xₙ is nearly all of it.

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
    """The maximum difference of equal sums over axis 0 due to rounding, [...]: ε (1 + log₂ T) Σ|x|.

    Each term has a relative error of at most ε / 2, and so does each of the log₂ T additions of
    `sum_in_pairs` that it passes through (Higham 1993); the difference of two sums is at most twice
    that. Zeros add no error: K other terms pass through at most K - 1 additions.
    """
    count = jnp.sum(terms != 0, axis=0).astype(terms.dtype)
    additions = jnp.clip(count - 1, 0, math.ceil(math.log2(max(1, len(terms)))))
    return jnp.finfo(terms.dtype).eps * (1 + additions) * jnp.sum(jnp.abs(terms), axis=0)


def of_size(x: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """The maximum difference of equal numbers of the size of x due to rounding, [...]: 8 ε |x|."""
    return UNITS * jnp.finfo(x.dtype).eps * jnp.abs(x)


def equal(
    x: Float[Array, "*B"],
    error: Float[Array, "..."] | float,
    where: Bool[Array, "..."] | bool,
    axis: int | tuple[int, ...] | None = None,
) -> Bool[Array, "*#B"]:
    """True if all x are equal up to rounding: no two differ by more than the largest `error`.

    With an infinity or a NaN among them the result is False, so that it is not hidden.

    Args:
        x: [...].
        error: the error of each x, broadcast against x.
        where: the x that are included, broadcast against x.
        axis: the axis of the comparison, kept with size 1; None: all.
    """
    where = jnp.broadcast_to(where, x.shape)
    largest = jnp.max(x, axis=axis, keepdims=True, initial=-jnp.inf, where=where)
    smallest = jnp.min(x, axis=axis, keepdims=True, initial=jnp.inf, where=where)
    error = jnp.max(
        jnp.broadcast_to(error, x.shape), axis=axis, keepdims=True, initial=0.0, where=where
    )
    gap = largest - smallest
    return (gap <= error) & (gap < jnp.inf)
