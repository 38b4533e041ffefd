"""Jumanji: puzzles, packing and routing, `jumanji:Snake-v1`.

The observation is a tree of arrays: all of them but the action mask, flattened into one vector;
with `flatten=False` the tree, whose arrays of three axes are images to the default network.
Actions are one whole number, or several: those of a MultiDiscrete are independent of each other
unless the mask is of all their combinations (BinPack, Tetris), which then are one whole number that
counts them. The mask says which are legal, and the policy takes no other; with
`action_mask="none"` it may, and the environment does what it does then (Snake ends, Game2048 stays
as it is). Where it calls none legal, as where a snake is shut in, all are; of several actions each
by itself.

Limits: Jumanji tells truncation from termination by the discount of the last step, 1 or 0. But its
environments with a `time_limit` end there with discount 0, so they are given one that they do not
reach, and the number that was there is ours (without one: 1000, or `max_steps`).
Lost: `extras`. `Sokoban-v0` downloads its levels when built.
"""

import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jumanji
import numpy as np
from jumanji import specs

from pg.envs import MultiDiscrete, spaces
from pg.envs.adapters.base import NEVER, Adapter
from pg.envs.masks import split_mask
from pg.inputs import check_name

__all__ = ["adapt", "make"]


class _State(NamedTuple):
    """The state of Jumanji's environment, and the actions that its last observation allows."""

    inner: Any
    mask: jax.Array | tuple[()]  # () where it has no mask


def make(name: str, *, flatten: bool = True, **options: Any) -> Adapter:
    """The environment that Jumanji has under this name; options (`time_limit=100`) are those of its
    class, and `flatten` is as in `adapt`.
    """
    names = jumanji.registered_environments()
    check_name(
        "environment of jumanji",
        name,
        sorted(names),
        "jumanji.registered_environments() lists them",
    )
    return adapt(jumanji.make(name, **options), name, flatten=flatten)


def adapt(env: Any, name: str, max_steps: int = 1000, *, flatten: bool = True) -> Adapter:
    """A Jumanji environment without wrappers.

    Args:
        env: The environment.
        name: Its name.
        max_steps: The time limit, where it has no `time_limit` of its own.
        flatten: An observation is one vector.

    Raises:
        ValueError: Its actions are not whole numbers.
    """
    mask = getattr(env.observation_spec, "action_mask", None)
    space, to_own = _actions(env.action_spec, mask, name)
    if hasattr(env, "time_limit"):
        env, max_steps = copy.copy(env), env.time_limit
        env.time_limit = NEVER

    def shown(observation: Any) -> Any:
        if not flatten:
            return split_mask(observation)[0]
        leaves = jax.tree_util.tree_leaves_with_path(observation)
        arrays = [x for path, x in leaves if "action_mask" not in jax.tree_util.keystr(path)]
        return jnp.concatenate([jnp.ravel(x).astype(float) for x in arrays])

    def reset(key: jax.Array) -> tuple[Any, _State]:
        state, timestep = env.reset(jax.random.key_data(key))
        return shown(timestep.observation), _State(state, mask_of(timestep.observation))

    def step(key: jax.Array, state: _State, action: jax.Array) -> Any:
        inner, timestep = env.step(state.inner, to_own(action))
        last, cut = timestep.last(), timestep.discount > 0
        after = _State(inner, mask_of(timestep.observation))
        return shown(timestep.observation), after, timestep.reward, last & ~cut, last & cut

    def mask_of(observation: Any) -> Any:
        if mask is None:
            return ()
        legal = observation.action_mask
        if isinstance(space, spaces.Discrete):
            legal = legal.ravel()
        # an action is taken in any case, of which a snake that is shut in dies; training would stop
        # at a state without any
        return legal | ~legal.any(axis=-1, keepdims=True)

    return Adapter(
        f"jumanji:{name}",
        reset,
        step,
        space,
        max_steps,
        action_mask=None if mask is None else lambda state: state.mask,
    )


def _actions(spec: Any, mask: Any, name: str) -> tuple[Any, Callable[[Any], Any]]:
    """The space of actions, and a function from one of these to Jumanji's own.

    Args:
        spec: Jumanji's of the actions.
        mask: Jumanji's of the action mask, or None.
        name: The environment.

    Raises:
        ValueError: The actions are not whole numbers.
    """
    if isinstance(spec, specs.DiscreteArray):
        return spaces.Discrete(int(spec.num_values)), lambda action: action
    if not isinstance(spec, specs.MultiDiscreteArray):
        kind = type(spec).__name__
        raise ValueError(
            f"the actions of {name} must be whole numbers (DiscreteArray, MultiDiscreteArray), got "
            f"{kind}"
        )
    sizes = tuple(int(n) for n in np.ravel(spec.num_values))
    if mask is None or mask.shape != sizes or mask.shape == (len(sizes), max(sizes)):
        return MultiDiscrete(np.asarray(spec.num_values)), lambda action: action

    def combination(number: jax.Array) -> jax.Array:
        return jnp.stack(jnp.unravel_index(number, sizes)).astype(spec.dtype)

    return spaces.Discrete(math.prod(sizes)), combination
