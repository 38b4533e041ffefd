"""Axes of arrays."""

from jaxtyping import Array, Shaped


def expand_to(x: Shaped[Array, "..."], like: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """x with trailing axes of size 1, so that it broadcasts against `like`.

    Args:
        x: [*B].
        like: [*B, ...].
    """
    return x.reshape(*x.shape, *[1] * (like.ndim - x.ndim))
