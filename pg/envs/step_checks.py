"""Checks of an environment's step by its shapes, and the dtypes of its state."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pg.envs.actions import zero_action
from pg.envs.env_spaces import ActionSpace
from pg.envs.failures import described
from pg.envs.interface import shapes_of
from pg.envs.observations import Masked, is_one_array, is_real

__all__ = ["as_dtypes", "checked_dtypes"]


def checked_dtypes(
    step: Callable[..., Any], start: tuple[Any, Any], space: ActionSpace, params: Any
) -> Any:
    """The dtypes of the state, on which `reset` and `step` agree.

    Args:
        step: key, state, action, params -> state, obs, reward, terminated, truncated.
        start: The shapes of obs and state, as reset returns them.
        space: The space of actions.
        params: The parameters of the environment.

    Raises:
        ValueError: For a step that fails, or whose results are not those of the interface.
    """
    obs, state = start
    results = shapes_of("step", step, jax.random.key(0), state, zero_action(space), params)
    next_state, next_obs, *scalars = results
    for name, x in zip(("reward", "terminated", "truncated"), scalars, strict=True):
        if x.shape != ():
            raise ValueError(
                f"the environment's {name} must be a scalar, got shape {x.shape}: squeeze it in "
                f"step_env"
            )
        if not is_real(x):
            raise ValueError(
                f"the environment's {name} must be a real number or a boolean, got {x.dtype}"
            )
    _check_alike(obs, next_obs)
    dtypes = _state_dtypes(state, next_state)
    wider = jax.tree.map(lambda x, dtype: jax.ShapeDtypeStruct(x.shape, dtype), state, dtypes)
    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(wider), strict=True)
    if any(x.dtype != y.dtype for x, y in pairs):
        # a further step may widen it again
        return checked_dtypes(step, (obs, wider), space, params)
    return dtypes


def _check_alike(obs: Any, next_obs: Any) -> None:
    """Raises ValueError unless the observations of reset and of step match."""
    if isinstance(obs, Masked) != isinstance(next_obs, Masked):
        has, has_none = ("reset", "step") if isinstance(obs, Masked) else ("step", "reset")
        raise ValueError(
            f"{has} returns an action mask and {has_none} none: let reset return obs, state, info "
            "with info['action_mask'] too, write a method action_mask(state, params), or set "
            "action_mask='none', and every action counts as legal"
        )
    if isinstance(obs, Masked):
        obs, next_obs = obs.obs, next_obs.obs
    if not is_one_array(obs):
        _check_trees_alike(obs, next_obs)
    elif getattr(next_obs, "shape", None) != obs.shape or next_obs.dtype != obs.dtype:
        got = described(next_obs) if hasattr(next_obs, "shape") else type(next_obs).__name__
        raise ValueError(
            f"step must return observations like those of reset, {described(obs)}; got {got}"
        )


def _check_trees_alike(obs: Any, next_obs: Any) -> None:
    """Raises ValueError unless two trees of observations have the same leaves."""
    first, second = _leaves_by_path(obs), _leaves_by_path(next_obs)
    for name in first | second:
        old, new = first.get(name), second.get(name)
        described_leaves = [described(x) if x is not None else "none" for x in (old, new)]
        if described_leaves[0] != described_leaves[1]:
            raise ValueError(
                f"step must return observations like those of reset: {name} is "
                f"{described_leaves[0]}, and then {described_leaves[1]}"
            )
    _check_structure("observations like those of reset", obs, next_obs)


def _state_dtypes(before: Any, after: Any) -> Any:
    """The dtype of each leaf of the state: the wider one if only the width differs.

    before, after: shapes and dtypes as reset and step return them. Raises ValueError if
    they do not match.
    """
    first, second = _leaves_by_path(before), _leaves_by_path(after)
    for name in first | second:
        old, new = first.get(name), second.get(name)
        shapes = [leaf.shape if leaf is not None else "none" for leaf in (old, new)]
        if old is None or new is None or shapes[0] != shapes[1]:
            raise ValueError(
                f"step must return a state like that of reset: {name} had shape {shapes[0]}, and "
                f"then {shapes[1]}"
            )
        if old.dtype != new.dtype and not _same_kind(old, new):
            raise ValueError(
                f"step must return a state like that of reset: {name} was {old.dtype}, and then "
                f"{new.dtype}, which gymnax's step refuses too; make it jnp.asarray(..., "
                f"{jnp.promote_types(old.dtype, new.dtype)}) in both"
            )
    _check_structure("a state like that of reset", before, after)

    def wider(old: Any, new: Any) -> Any:
        return old.dtype if old.dtype == new.dtype else jnp.promote_types(old.dtype, new.dtype)

    return jax.tree.map(wider, before, after)


def _check_structure(what: str, before: Any, after: Any) -> None:
    """Raises ValueError unless two trees with the same leaves have the same structure.

    Args:
        what: The result that step must return, as named in the sentence.
        before: That of reset.
        after: That of step.
    """
    structures: list[Any] = [jax.tree.structure(tree) for tree in (before, after)]
    if structures[0] != structures[1]:
        raise ValueError(f"step must return {what}, {structures[0]}; got {structures[1]}")


def _leaves_by_path(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def _same_kind(x: Any, y: Any) -> bool:
    """True for two arrays of the same kind of number, where the wider represents all of the
    narrower.
    """
    kinds = (jnp.bool_, jnp.signedinteger, jnp.unsignedinteger, jnp.floating, jnp.complexfloating)
    return any(jnp.issubdtype(x.dtype, kind) and jnp.issubdtype(y.dtype, kind) for kind in kinds)


def as_dtypes(state: Any, dtypes: Any) -> Any:
    """The state in these dtypes, none of them weak (as `time=0` is), which would cause a second
    compilation.
    """
    return jax.tree.map(lambda x, dtype: jax.lax.convert_element_type(x, dtype), state, dtypes)
