"""Observations of an environment as float arrays: their encoding, their bounds, a part of them."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pg.envs.env_spaces import UNBOUNDED, Box, first_number, is_discrete, space_of
from pg.envs.failures import described

__all__ = ["entries_of", "is_real", "observation_bounds", "observation_encoding"]


def observation_encoding(
    env: Any, params: Any, obs: Any
) -> tuple[Callable[..., Any], tuple[int, ...]]:
    """The encoding of a batch of observations as floats, and the shape of one encoded observation.

    Args:
        env: An environment with gymnax's interface.
        params: Its parameters.
        obs: The shape and dtype of one observation, as reset gives it.

    Raises:
        ValueError: For observations that cannot be encoded.
    """
    if not hasattr(obs, "shape"):
        raise ValueError(
            f"observations must be one array, got {type(obs).__name__}: flatten them in a wrapper"
        )
    if not is_real(obs):
        raise ValueError(
            f"observations must be floats, whole numbers or booleans, got {described(obs)}"
        )
    if math.prod(obs.shape) == 0:
        raise ValueError(f"observations must have at least one entry, got shape {obs.shape}")
    space = space_of(env, "observation_space", params)
    if is_discrete(space):
        n, first = int(space.n), first_number(space)
        if n < 1 or obs.shape != () or jnp.issubdtype(obs.dtype, jnp.floating):
            raise ValueError(
                f"an observation of Discrete({n}) must be one whole number, got {described(obs)}"
            )
        return lambda x: jax.nn.one_hot(x - first if first else x, n, dtype=float), (n,)
    shape = obs.shape or (1,)
    return lambda x: jnp.asarray(x).astype(float).reshape(-1, *shape), shape


def observation_bounds(env: Any, params: Any, obs: Any, entries: Sequence[int]) -> Box | None:
    """The bounds of an encoded observation, a Box of numpy's arrays; None unless every entry has
    two that are finite.

    Args:
        env: An environment with gymnax's interface.
        params: Its parameters.
        obs: The shape and dtype of one observation, as reset gives it.
        entries: Those of the observation that are observed; empty for all.
    """
    space = space_of(env, "observation_space", params)
    low: Any = getattr(space, "low", None)
    high: Any = getattr(space, "high", None)
    shape = obs.shape or (1,)
    if is_discrete(space):  # it is one-hot
        low, high, shape = 0.0, 1.0, (int(space.n),)
    for bound in (low, high):
        if bound is None or isinstance(bound, jax.core.Tracer):
            return None
        if np.shape(bound) not in ((), shape):
            return None
    low, high = (np.broadcast_to(np.asarray(bound, float), shape) for bound in (low, high))
    if not (np.abs([low, high]) < UNBOUNDED).all() or not (low < high).all():
        return None
    return Box(low[list(entries)], high[list(entries)]) if entries else Box(low, high)


def entries_of(
    encode: Callable[..., Any], shape: tuple[int, ...], entries: Sequence[int]
) -> tuple[Callable[..., Any], tuple[int, ...]]:
    """The encoding of these entries of the observation alone, and their shape.

    Args:
        encode: The encoding of whole observations.
        shape: The shape of one of them.
        entries: The entries that are observed.

    Raises:
        ValueError: For an observation that is no vector, or has no such entry.
    """
    if len(shape) != 1:
        raise ValueError(
            f"observe chooses entries of a vector, and the observation has shape {shape}"
        )
    if max(entries) >= shape[0]:
        raise ValueError(
            f"observe must be below {shape[0]}, the number of entries observed; got {max(entries)}"
        )
    return lambda x: encode(x)[..., jnp.asarray(entries)], (len(entries),)


def is_real(x: Any) -> bool:
    """True of an array of floats, whole numbers or booleans."""
    return any(jnp.issubdtype(x.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))
