"""The action space of an environment, and the conversion of a policy's actions for its code."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pg.envs.env_spaces import (
    UNBOUNDED,
    ActionSpace,
    Box,
    Discrete,
    ProductSpace,
    first_number,
    is_box,
    is_discrete,
    space_of,
)

__all__ = ["action_space", "random_action", "zero_action"]


def action_space(
    env: Any, params: Any, differentiable: bool = False
) -> tuple[ActionSpace, Callable[[Any], Any]]:
    """The action space, and a function from a policy's action to that of the environment's code:
    clipped to its Box, rounded if that has whole numbers, offset by its first number.

    Several actions at once are a tuple for the policy, and in the environment's own form for its
    code: an array for a MultiDiscrete, a dictionary for a dictionary of spaces.

    Raises ValueError for an unsupported space, and for whole numbers if actions must be
    differentiable.
    """
    # bounds that do not depend on traced values are constants under jit too
    with jax.ensure_compile_time_eval():
        space = space_of(env, "action_space", params)
        if space is None:
            raise ValueError(
                "the environment has no action_space(params): write one that returns a "
                "Discrete or a Box"
            )
        made = _made(space, differentiable)
    if isinstance(made.space, ProductSpace) and not made.space.parts:
        raise ValueError("the environment has no action: its action_space has no parts")
    return made.space, made.to_own


class _Actions(NamedTuple):
    """A space of actions, and the function from a policy's action to the environment's own."""

    space: ActionSpace
    to_own: Callable[[Any], Any]


def _made(space: Any, differentiable: bool) -> _Actions:
    """The actions of a space that an environment declares. Raises ValueError for an unsupported
    one.
    """
    if hasattr(space, "nvec"):
        return _of_numbers(np.asarray(space.nvec), np.asarray(getattr(space, "start", 0)))
    spaces = getattr(space, "spaces", None)
    if isinstance(spaces, Mapping):
        names = sorted(spaces)  # the order of a mask, whose leaves jax sorts by their keys
        return _together([_made(spaces[name], differentiable) for name in names], names)
    if isinstance(spaces, Sequence):
        return _together([_made(part, differentiable) for part in spaces])
    if is_discrete(space):
        if int(space.n) < 1:
            raise ValueError(f"Discrete actions must be at least 1, got {space.n}")
        first = first_number(space)
        return _Actions(Discrete(int(space.n)), lambda action: action + first if first else action)
    if not is_box(space):
        raise ValueError(
            "actions must be Discrete, Box, MultiDiscrete, or a tuple or dictionary of these, got "
            f"{type(space).__name__}"
        )
    return _of_box(space, differentiable)


def _of_numbers(nvec: np.ndarray, start: np.ndarray) -> _Actions:
    """The actions of a MultiDiscrete: one array of whole numbers for the environment."""
    if not (nvec >= 1).all():
        raise ValueError(f"actions of a MultiDiscrete must be at least 1 each, got {nvec.tolist()}")
    parts = tuple(Discrete(int(n)) for n in nvec.ravel())

    def to_own(actions: tuple[jax.Array, ...]) -> jax.Array:
        return jnp.stack(actions).reshape(nvec.shape) + start.astype(np.int32)

    return _Actions(ProductSpace(parts), to_own)


def _together(many: list[_Actions], names: list[str] | None = None) -> _Actions:
    """The actions of a tuple of spaces, or of a dictionary with these names."""
    parts: list[Discrete | Box] = []
    ends = []
    for each in many:
        parts += each.space.parts if isinstance(each.space, ProductSpace) else [each.space]
        ends.append(len(parts))

    def to_own(actions: tuple[Any, ...]) -> Any:
        own = []
        for each, begin, end in zip(many, [0, *ends], ends, strict=False):
            several = isinstance(each.space, ProductSpace)
            own.append(each.to_own(actions[begin:end] if several else actions[begin]))
        return tuple(own) if names is None else dict(zip(names, own, strict=True))

    return _Actions(ProductSpace(tuple(parts)), to_own)


def _of_box(space: Any, differentiable: bool) -> _Actions:
    """The actions of a Box."""
    low, high = (_bound(space.shape, bound) for bound in (space.low, space.high))
    box = _checked_box(Box(low, high))
    whole = not jnp.issubdtype(np.dtype(getattr(space, "dtype", None) or float), jnp.floating)
    if whole and differentiable:
        raise ValueError(
            "actions that are whole numbers have no derivative: use a score-function "
            "estimator instead"
        )

    def to_own_action(action: jax.Array) -> jax.Array:
        low, high = (jnp.broadcast_to(bound, action.shape) for bound in box)
        clipped = jnp.clip(action, low, high)
        if whole:
            return jnp.round(clipped).astype(jax.dtypes.canonicalize_dtype(space.dtype))
        return clipped

    return _Actions(box, to_own_action)


def zero_action(space: ActionSpace) -> Any:
    """An action of a policy: the first of each Discrete, and 0."""
    if isinstance(space, ProductSpace):
        return tuple(zero_action(part) for part in space.parts)
    return jnp.int32(0) if isinstance(space, Discrete) else jnp.zeros(space.low.shape)


def random_action(space: ActionSpace, key: jax.Array) -> Any:
    """An action of a policy at random: uniform, and N(0, 1)."""
    if isinstance(space, ProductSpace):
        keys = jax.random.split(key, len(space.parts))
        return tuple(random_action(part, k) for part, k in zip(space.parts, keys, strict=True))
    if isinstance(space, Discrete):
        return jax.random.randint(key, (), 0, space.n)
    return jax.random.normal(key, space.low.shape)


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

    A numpy array, which no trace can hold on to, unless the bound itself is traced.
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
