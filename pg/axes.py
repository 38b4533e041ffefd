"""Axes of arrays."""

from jaxtyping import Array, Shaped


def expand_to(x: Shaped[Array, "..."], like: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """x with axes of size 1 after its own, as many as `like` has more, so that the two broadcast.

    Args:
        x: [*B].
        like: [*B, ...].
    """
    return x.reshape(*x.shape, *[1] * (like.ndim - x.ndim))
