"""The action space of an environment, and the action that its own code is given."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pg.envs.env_spaces import (
    UNBOUNDED,
    Box,
    Discrete,
    first_number,
    is_box,
    is_discrete,
    space_of,
)

__all__ = ["action_space"]


def action_space(
    env: Any, params: Any, differentiable: bool = False
) -> tuple[Discrete | Box, Callable[[jax.Array], jax.Array]]:
    """The space of actions, and a function from a policy's action to that of the environment's own
    code: clipped to its Box, rounded where that is one of whole numbers, counted from its first.

    Raises ValueError for an unsupported space, and for whole numbers where actions must be
    differentiable.
    """
    # bounds that depend on nothing traced are constants under jit too
    with jax.ensure_compile_time_eval():
        space = space_of(env, "action_space", params)
        if space is None:
            raise ValueError(
                "the environment has no action_space(params): write one that gives a "
                "Discrete or a Box"
            )
        if is_discrete(space):
            if int(space.n) < 1:
                raise ValueError(f"Discrete actions must be at least 1, got {space.n}")
            first = first_number(space)
            return Discrete(int(space.n)), lambda action: action + first if first else action
        if not is_box(space):
            raise ValueError(f"actions must be Discrete or Box, got {type(space).__name__}")
        low, high = (_bound(space.shape, bound) for bound in (space.low, space.high))
        box = _checked_box(Box(low, high))
    whole = not jnp.issubdtype(np.dtype(getattr(space, "dtype", None) or float), jnp.floating)
    if whole and differentiable:
        raise ValueError(
            "actions that are whole numbers have no derivative: use an estimator of "
            "the score instead"
        )

    def to_own_action(action: jax.Array) -> jax.Array:
        clipped = jnp.clip(action, box.low, box.high)
        if whole:
            return jnp.round(clipped).astype(jax.dtypes.canonicalize_dtype(space.dtype))
        return clipped

    return box, to_own_action


def _checked_box(box: Box) -> Box:
    """The box, if low < high; bounds that are traced are not checked."""
    if box.low.size == 0:
        raise ValueError(
            f"a Box of actions must have at least one entry, got shape {box.low.shape}"
        )
    traced = any(isinstance(bound, jax.core.Tracer) for bound in box)
    if not traced and not np.all(box.low < box.high):
        raise ValueError(
            f"a Box of actions must have low < high, got low={box.low.tolist()}, "
            f"high={box.high.tolist()}"
        )
    return box


def _bound(shape: tuple[int, ...], bound: Any) -> Any:
    """A bound as an array of this shape, infinite from `UNBOUNDED` on.

    An array of numpy's, which no trace can hold on to, unless the bound is traced itself.
    """
    xp: Any = jnp if isinstance(bound, jax.core.Tracer) else np
    try:
        with np.errstate(over="ignore"):  # the largest of 64 bits
            full = xp.full(shape, bound, jnp.result_type(float))
    except ValueError as error:
        raise ValueError(
            f"bounds of a Box of shape {shape} cannot have shape {np.shape(bound)}"
        ) from error
    finite_or_infinite = xp.where(abs(full) >= UNBOUNDED, xp.copysign(np.inf, full), full)
    return finite_or_infinite.astype(full.dtype)
