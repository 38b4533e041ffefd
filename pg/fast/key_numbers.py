"""Random keys within trees as their numbers, for loops, files and comparisons, which do not accept
keys.
"""

from typing import Any

import jax
from jaxtyping import Array, PyTree

__all__ = ["as_keys", "as_numbers", "is_key"]


def is_key(x: Any) -> bool:
    """True for an array of typed random keys."""
    return jax.dtypes.issubdtype(getattr(x, "dtype", None), jax.dtypes.prng_key)


def as_numbers(tree: PyTree) -> PyTree:
    """The tree with random keys as their numbers, [..., 2] for JAX's own generator."""

    def one(x: Any) -> Any:
        return jax.random.key_data(x) if is_key(x) else x

    return jax.tree.map(one, tree)


def as_keys(tree: PyTree, like: PyTree) -> PyTree:
    """The inverse of `as_numbers`. like: A tree of that structure, with its keys."""

    def one(x: Array, before: Any) -> Array:
        if is_key(before):
            return jax.random.wrap_key_data(x, impl=jax.random.key_impl(before))
        return x

    return jax.tree.map(one, tree, like)
