"""Action masks: the legal actions, as the environment reports them.

    method         action_mask(state, params)                     -> bool [A]
    observation    the key, or the attribute, `action_mask` of a structured observation
    info           info["action_mask"] of step, and of a reset that gives obs, state, info

All three are known at the start of an episode too. A mask belongs to the state in which the action
is chosen; `make_env` shows it beside the observation, as `Masked(obs, mask)`, so that the
mask is stored wherever an observation is: trajectories, minibatches, the state of a rollout.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pg.config import name_of
from pg.envs.env_spaces import ActionSpace, Box, Discrete, ProductSpace
from pg.envs.failures import InterfaceError, described
from pg.envs.observations import Masked
from pg.envs.tracing import call_outside_traces, calls_python, is_tracing

__all__ = ["as_mask", "check_some_legal", "split_mask", "with_masks"]

NAME = "action_mask"


def with_masks(
    env: Any,
    reset: Callable[..., Any],
    step: Callable[..., Any],
    space: ActionSpace,
    source: str = "auto",
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`reset` and `step` whose observations are `Masked` if the environment has action masks.

    Args:
        env: The environment.
        reset: key, params -> obs, state, info.
        step: key, state, action, params -> state, obs, reward, terminated, truncated, info.
        space: The space of actions.
        source: Of the mask: method, observation, info; auto for the first of these that exists; or
            none.

    Returns:
        reset: key, params -> obs, state. step: key, state, action, params -> state, obs, reward,
        terminated, truncated.
    """

    def shown(obs: Any, state: Any, info: Any, params: Any) -> Any:
        obs, mask = _found(env, source, obs, state, info, params)
        return obs if mask is None else Masked(obs, as_mask(mask, space))

    def masked_reset(key: jax.Array, params: Any) -> tuple[Any, Any]:
        obs, state, info = reset(key, params)
        return shown(obs, state, info, params), state

    def masked_step(key: jax.Array, state: Any, action: Any, params: Any) -> tuple[Any, ...]:
        state, obs, *rest, info = step(key, state, action, params)
        return state, shown(obs, state, info, params), *rest

    return masked_reset, masked_step


def _found(env: Any, source: str, obs: Any, state: Any, info: Any, params: Any) -> tuple[Any, Any]:
    """The observation without the mask, and the mask; None if there is none."""
    if source == "none":
        return obs, None
    method = getattr(env, NAME, None)
    if source in ("auto", "method") and callable(method):
        return obs, method(state, params)
    if source in ("auto", "observation"):
        rest, mask = split_mask(obs)
        if mask is not None:
            return rest, mask
    if source in ("auto", "info") and isinstance(info, Mapping) and NAME in info:
        return obs, info[NAME]
    if source == "auto":
        return obs, None
    raise InterfaceError(f"action_mask={source!r}, but {name_of(env)} has {_MISSING[source]}")


_MISSING = {
    "method": f"no method {NAME}(state, params)",
    "observation": f"no key and no attribute {NAME!r} in its observation",
    "info": f"no {NAME!r} in the info of step, and of reset, which then gives obs, state, info",
}


def split_mask(obs: Any) -> tuple[Any, Any]:
    """A structured observation without its action mask, and the mask; None if it has none."""
    if isinstance(obs, Mapping):
        if NAME not in obs:
            return obs, None
        return {name: x for name, x in obs.items() if name != NAME}, obs[NAME]
    if isinstance(obs, tuple) and NAME in getattr(obs, "_fields", ()):
        return obs._replace(**{NAME: ()}), getattr(obs, NAME)  # type: ignore[attr-defined]
    if dataclasses.is_dataclass(obs) and hasattr(obs, NAME):
        return dataclasses.replace(obs, **{NAME: ()}), getattr(obs, NAME)  # type: ignore[type-var]
    return obs, None


def as_mask(mask: Any, space: ActionSpace) -> Any:
    """The mask as booleans [..., A]; for several actions a tuple, with () for a Box.

    The mask of several actions is an array [..., k, A] if all k have equally many, or a tree with
    an array for each discrete part.
    Raises ValueError for another shape, and other numbers.
    """
    if isinstance(space, ProductSpace):
        return _of_parts(mask, space.parts)
    if isinstance(space, Box):
        raise InterfaceError("an action mask is for discrete actions, and these are a Box")
    array = jnp.asarray(mask)
    if array.shape[-1:] != (space.n,) or jnp.issubdtype(array.dtype, jnp.inexact):
        raise InterfaceError(
            f"the action mask must be {space.n} booleans, True for each action that is legal; got "
            f"{described(array)}"
        )
    return array.astype(bool)


def _of_parts(mask: Any, parts: tuple[Discrete | Box, ...]) -> tuple[Any, ...]:
    """The masks of several actions, in order; () for continuous ones."""
    sizes = [part.n for part in parts if isinstance(part, Discrete)]
    masks = _leaves(mask)
    if hasattr(mask, "shape") and mask.shape[-2:] == (len(sizes), max(sizes, default=0)):
        masks = [mask[..., i, :] for i in range(len(sizes))]
    if len(masks) != len(sizes):
        raise InterfaceError(
            f"the action mask must hold one array for each of the {len(sizes)} discrete actions, "
            f"of sizes {sizes}; got {len(masks)}, of shapes {[jnp.shape(x) for x in masks]}"
        )
    rest = iter(masks)
    return tuple(as_mask(next(rest), part) if isinstance(part, Discrete) else () for part in parts)


def _leaves(mask: Any) -> list[Any]:
    """The arrays of a mask in the order of the actions: those of a dictionary by its sorted keys,
    of an ordered one too.
    """
    if isinstance(mask, Mapping):
        return [leaf for name in sorted(mask) for leaf in _leaves(mask[name])]
    if isinstance(mask, tuple | list):
        return [leaf for part in mask for leaf in _leaves(part)]
    return jax.tree.leaves(mask)


def check_some_legal(env: Any, reset: Callable[..., Any], params: Any) -> None:
    """Raises ValueError if a few resets find a state without a legal action.

    They are skipped within a trace, with traced parameters, and for an environment that calls
    Python, which may count its calls.
    """
    traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(params))
    if traced or is_tracing():
        return

    def masks(keys: jax.Array) -> Any:
        return jax.vmap(lambda key: reset(key, params)[0].mask)(keys)

    def some_legal() -> bool:
        keys = jax.random.split(jax.random.key(0), 8)
        if calls_python(jax.make_jaxpr(masks)(keys)):
            return True
        # not worth optimizing a program for a few resets
        quick = jax.jit(masks, compiler_options={"xla_backend_optimization_level": 0})
        return all(np.asarray(mask).any(-1).all() for mask in jax.tree.leaves(quick(keys)))

    if not call_outside_traces(some_legal):
        raise ValueError(
            f"{name_of(env)} begins in a state in which no action is legal: its action mask must "
            "be True for at least one"
        )
