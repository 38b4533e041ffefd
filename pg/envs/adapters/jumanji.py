"""Jumanji: puzzles, packing and routing, `jumanji:Snake-v1`.

The observation is a tree of arrays: all of them but the action mask, flattened into one vector;
with `flatten=False` the tree, whose arrays of three axes are images to the default network.
Actions are one whole number, or several: those of a MultiDiscrete are independent of each other
unless the mask is over all their combinations (BinPack, Tetris), which then become one whole
number. The policy takes only legal actions; with `action_mask="none"` it may take others, and the
environment reacts in its own way (Snake ends, Game2048 does not change). If no action is legal, as
for a trapped snake, all are; for several actions each separately.

Limits: Jumanji tells truncation from termination by the discount of the last step, 1 or 0. But its
environments with a `time_limit` end there with discount 0, so they get one that they never
reach, and our limit is the original number (without one: 1000, or `max_steps`).
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
    mask: jax.Array | tuple[()]  # () without a mask


def make(name: str, *, flatten: bool = True, **options: Any) -> Adapter:
    """The environment that Jumanji has under this name; options (`time_limit=100`) are those of its
    class, and for `flatten` see `adapt`.
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
        max_steps: The time limit, if it has no `time_limit`.
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
        # some action must be taken, and a trapped snake dies of it; training would stop at a state
        # without legal ones
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
    """The action space, and a function from its actions to Jumanji's.

    Args:
        spec: Jumanji's spec of the actions.
        mask: Jumanji's spec of the action mask, or None.
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
