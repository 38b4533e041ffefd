"""Gymnasium: environments in plain Python, all of which are stepped by one call of the host,
`gymnasium:CartPole-v1`, `gymnasium:HalfCheetah-v5`.

A Gymnasium environment cannot be copied, so its state cannot be an array that JAX may keep, drop or
use twice. Its history can: the seed of the reset and the actions since. That is our state
(`pg.envs.adapters.hosted`), with the number under which the host has an environment that has come
there. A step hands over numbers and actions, and is one `env.step` of each environment; a state
that the host does not have is brought back from its history, and must show what it has shown
before. So the step is the pure function that JAX takes it for, in episodes and in windows, in
groups and sweeps, and after a checkpoint. Training on windows takes the next episode from the step
that ends one: no reset is drawn that nobody needs.

The environments are stepped one after another in this process, or, where their steps take long, at
the same time in worker processes (`pg.envs.adapters.python_envs`); the bits are the same.

A reward may be an array of one entry. A fault in reset or step is a `HostError`: one sentence, with
the place. Observations and actions are Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or
Tuple of these, nested as they may be; others (Text, Sequence, Graph) are refused. Observations keep
that structure (`flatten=True`: Gymnasium's own `FlattenObservation`), in which those of a
MultiDiscrete are one-hot. The legal actions are those of `info["action_mask"]`, where the first
reset gives one, as Taxi does; or of the observation.

Limits: the environment is made without the wrapper that counts steps. The number it would have
counted to is ours (without one: 1000, or `max_steps`); `max_steps_in_episode` may lower it, but no
episode is longer. `truncated` of the environment itself is passed on, and all else of `info` is
lost. Each episode begins with a seed of its own. An environment whose course depends on more than
seed and actions (a clock, a network) can be stepped forward, and that is all that windows of one
run ask for; where a state is used again, it is an error, and a run that is resumed begins its
unfinished episodes anew. A mesh of several devices is not for this adapter.
"""

import contextlib
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from pg.envs import MultiDiscrete, spaces
from pg.envs.adapters.hosted import HostedEnv, Shapes
from pg.envs.adapters.hosts import Host
from pg.envs.adapters.python_envs import (
    KINDS,
    SEVERAL_NUMBERS,
    PythonFleet,
    Recipe,
    map_leaves,
    map_parts,
    mask_of,
    parts,
)
from pg.envs.observations import is_shape
from pg.inputs import check_name

__all__ = ["adapt", "make"]

PROMISE = (
    "the environments live in Python, and a checkpoint holds the seeds and actions of unfinished "
    "episodes: a resumed run takes these again, and goes on bit for bit where they lead back to "
    "the same observations; where they do not, it says so and begins these episodes anew"
)


def make(
    name: str,
    max_steps: int | None = None,
    *,
    flatten: bool = False,
    workers: int | None = None,
    **options: Any,
) -> HostedEnv:
    """The environment that Gymnasium has under this name; options are those of `gymnasium.make`,
    `flatten` and `workers` are as in `adapt`.
    """
    module, _, own_name = name.rpartition(":")
    if module:  # which registers it
        importlib.import_module(module)
    check_name(
        "environment of gymnasium",
        own_name,
        gymnasium.registry,
        "gymnasium.pprint_registry() lists them",
    )
    options = {"disable_env_checker": True, **options, "max_episode_steps": -1}
    spec = gymnasium.spec(own_name)  # which a worker process need not have registered
    return adapt(
        lambda: gymnasium.make(spec, **options),
        name,
        max_steps or spec.max_episode_steps or 1000,
        flatten=flatten,
        workers=workers,
    )


def adapt(
    build: Callable[[], Any],
    name: str,
    max_steps: int = 1000,
    *,
    flatten: bool = False,
    workers: int | None = None,
) -> HostedEnv:
    """The environment that `build()` makes, a new one at each call and without a limit of time.

    Args:
        build: Makes it.
        name: Its name.
        max_steps: The time limit.
        flatten: Observations of a Dict or a Tuple are one vector.
        workers: Processes that step at the same time, each with a share of the environments; 0:
            this process alone; None: as many as there are cores, where steps take long enough.

    Raises:
        ValueError: Its actions or observations have no numbers of a fixed count, such as text.
    """

    recipe = Recipe(build, name, flatten)
    first = recipe.make()
    try:
        _check_space("observations", first.observation_space, name)
        _check_space("actions", first.action_space, name)
    except ValueError:
        first.close()
        raise
    actions = _spaces(first.action_space, _action_space)
    observations = _spaces(first.observation_space, _space)
    obs_shapes = _shapes(observations)
    mask_shapes: Any = ()
    with contextlib.suppress(Exception):  # a fault is reported where an episode begins
        mask_shapes = map_leaves(np.shape, mask_of(first.reset(seed=0)[1]))
    masks = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, bool), mask_shapes, is_leaf=is_shape
    )
    seen = jax.tree.leaves((obs_shapes, masks))
    fleet = PythonFleet(recipe._replace(mask_shapes=mask_shapes), first, workers)
    return HostedEnv(
        f"gymnasium:{name}",
        Host(fleet, [x.dtype for x in seen]),
        Shapes(obs_shapes, masks, _shapes(actions)),
        actions,
        observations,
        max_steps,
        promise=PROMISE,
    )


def _check_space(what: str, space: Any, name: str) -> None:
    """Raises ValueError for observations or actions without numbers of a fixed count, such as text,
    graphs, sequences.
    """
    own = parts(space)
    if own is not None:
        for part in own.values():
            _check_space(what, part, name)
    elif not isinstance(space, KINDS):
        remedy = ": encode it as a Box in a wrapper" if what == "observations" else ""
        raise ValueError(
            f"the {what} of {name} must be Box, Discrete, MultiDiscrete or MultiBinary, or a Dict "
            f"or Tuple of these, got {type(space).__name__}{remedy}"
        )


def _spaces(space: Any, of_leaf: Callable[[Any], Any]) -> Any:
    """The space as one of gymnax, of which `of_leaf` gives those that are neither a Dict nor a Tuple."""
    if parts(space) is None:
        return of_leaf(space)
    made = map_parts(space, lambda name, part: _spaces(part, of_leaf))
    return spaces.Dict(made) if isinstance(made, dict) else spaces.Tuple(made)


def _shapes(space: Any) -> Any:
    """The shapes and dtypes of what is in a space, a tree where that is a Dict or a Tuple."""
    parts = getattr(space, "spaces", None)
    if isinstance(parts, Mapping):
        return {name: _shapes(part) for name, part in parts.items()}
    if parts is not None:
        return tuple(map(_shapes, parts))
    if isinstance(space, MultiDiscrete):
        return jax.ShapeDtypeStruct(np.shape(space.nvec), jnp.int32)
    return jax.ShapeDtypeStruct(space.shape, jax.dtypes.canonicalize_dtype(space.dtype))


def _action_space(space: Any) -> Any:
    """A space of actions as one of gymnax, or as a MultiDiscrete counted from 0."""
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return MultiDiscrete(space.nvec)
    if isinstance(space, gymnasium.spaces.MultiBinary):
        return MultiDiscrete(np.full(space.shape, 2))
    if isinstance(space, gymnasium.spaces.Discrete):
        return spaces.Discrete(int(space.n))
    whole = jnp.issubdtype(space.dtype, jnp.integer)  # which an action is rounded to
    dtype = jax.dtypes.canonicalize_dtype(space.dtype if whole else float)
    return spaces.Box(space.low, space.high, space.shape, dtype)


def _space(space: Any) -> Any:
    """A space of observations as one of gymnax."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return spaces.Discrete(int(space.n))
    if isinstance(space, SEVERAL_NUMBERS):
        space = gymnasium.spaces.flatten_space(space)
    return spaces.Box(space.low, space.high, space.shape, space.dtype)
