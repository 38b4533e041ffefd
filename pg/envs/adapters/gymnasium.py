"""Gymnasium: environments in plain Python, all stepped by one call of the host,
`gymnasium:CartPole-v1`, `gymnasium:HalfCheetah-v5`.

A Gymnasium environment cannot be copied, so its state cannot be an array that JAX may keep, drop or
use twice. Its history can: the seed of the reset and the actions since. That is our state
(`pg.envs.adapters.hosted`), with the number under which the host has an environment in that state.
A step passes numbers and actions, and is one `env.step` of each environment; a state that the host
does not have is restored from its history, and must give the same observations as before. So the
step is a pure function, as JAX assumes, in episodes and in windows, in groups and sweeps, and after
a checkpoint. Training on windows takes the next episode from the step that ends one: there are no
unused resets.

The environments are stepped one after another in this process, or, if their steps take long, in
parallel in worker processes (`pg.envs.adapters.python_envs`); the bits are the same.

A reward may be an array of one entry. A failure in reset or step is a `HostError`: one sentence,
with the place. Observations and actions are Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or
Tuple of these, possibly nested; others (Text, Sequence, Graph) are refused. Observations keep
that structure (`flatten=True`: Gymnasium's own `FlattenObservation`), with
those of a MultiDiscrete one-hot. The legal actions are those of `info["action_mask"]`, if the first
reset gives one, as in Taxi; or of the observation.

Limits: the environment is made without the wrapper that counts steps. Our limit is the
number it would have counted to (without one: 1000, or `max_steps`); `max_steps_in_episode` may
lower it, but no episode is longer. `truncated` of the environment itself is passed on; the rest of
`info` is lost. Each episode begins with its own seed. An environment that depends on more than seed
and actions (a clock, a network) can be stepped forward, which is all that windows of one run need;
using a state again is an error, and a resumed run restarts its unfinished episodes. This adapter
does not support a mesh of several devices.
"""

import contextlib
import dataclasses
import importlib
import math
import os
import sys
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

__all__ = ["adapt", "adapt_custom", "make"]

PROMISE = (
    "the environments live in Python, and a checkpoint holds the seeds and actions of unfinished "
    "episodes: a resumed run replays these, and continues bit for bit if they lead back to "
    "the same observations; if not, it reports that and restarts these episodes"
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
    for `flatten` and `workers` see `adapt`.
    """
    module, _, own_name = name.rpartition(":")
    if module:  # which registers it
        _import(module)
    check_name(
        "environment of gymnasium",
        own_name,
        gymnasium.registry,
        "gymnasium.pprint_registry() lists them",
    )
    options = {"disable_env_checker": True, **options, "max_episode_steps": -1}
    # the spec, as the name may not be registered in a worker process; without the wrapper that
    # checks that a reset is first, which ours always is
    spec = dataclasses.replace(gymnasium.spec(own_name), order_enforce=False)
    return adapt(
        lambda **more: gymnasium.make(spec, **{**options, **more}),
        name,
        max_steps or spec.max_episode_steps or 1000,
        flatten=flatten,
        workers=workers,
    )


def _import(module: str) -> None:
    """Imports a module that registers environments, from the current folder too, which is not on
    the path of the console command.

    Raises ValueError if there is no such module.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # one that the module imports
        raise ValueError(
            f"there is no module {error.name}, which should register the environment: it is "
            "neither installed, nor in the current folder or on PYTHONPATH"
        ) from None


def adapt_custom(build: Callable[..., Any], name: str) -> HostedEnv:
    """The environment that a class or a function of a user's file makes, with a time limit of 1000
    steps, and in this process alone: a worker process cannot import the file.
    """
    return adapt(build, name, workers=0)


def adapt(
    build: Callable[..., Any],
    name: str,
    max_steps: int = 1000,
    *,
    flatten: bool = False,
    workers: int | None = None,
) -> HostedEnv:
    """The environment that `build()` makes, a new one at each call and without a time limit.

    Args:
        build: Makes it; in a film, `build(render_mode="rgb_array")` if its metadata have that mode.
        name: Its name.
        max_steps: The time limit.
        flatten: Observations of a Dict or a Tuple are one vector.
        workers: Processes that step at the same time, each with a share of the environments; 0:
            this process alone; None: as many as there are cores, if steps take long enough.

    Raises:
        ValueError: Its actions or observations are not a fixed number of numbers, such as text.
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
    with contextlib.suppress(Exception):  # a failure is reported when an episode begins
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
        can_render=recipe.can_render(first),
        render_fps=_render_fps(first),
    )


def _render_fps(env: Any) -> float | None:
    """The pictures per second in an environment's metadata; None without a positive number."""
    fps = (env.metadata or {}).get("render_fps")
    if isinstance(fps, int | float) and 0 < fps < math.inf:
        return float(fps)
    return None


def _check_space(what: str, space: Any, name: str) -> None:
    """Raises ValueError for observations or actions that are not a fixed number of numbers, such as
    text, graphs, sequences.
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
    """The space as one of gymnax; `of_leaf` converts those that are neither a Dict nor a Tuple."""
    if parts(space) is None:
        return of_leaf(space)
    made = map_parts(space, lambda name, part: _spaces(part, of_leaf))
    return spaces.Dict(made) if isinstance(made, dict) else spaces.Tuple(made)


def _shapes(space: Any) -> Any:
    """The shapes and dtypes of a space's elements, a tree for a Dict or a Tuple."""
    parts = getattr(space, "spaces", None)
    if isinstance(parts, Mapping):
        return {name: _shapes(part) for name, part in parts.items()}
    if parts is not None:
        return tuple(map(_shapes, parts))
    if isinstance(space, MultiDiscrete):
        return jax.ShapeDtypeStruct(np.shape(space.nvec), jnp.int32)
    return jax.ShapeDtypeStruct(space.shape, jax.dtypes.canonicalize_dtype(space.dtype))


def _action_space(space: Any) -> Any:
    """An action space as one of gymnax, or as a MultiDiscrete counted from 0."""
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return MultiDiscrete(space.nvec)
    if isinstance(space, gymnasium.spaces.MultiBinary):
        return MultiDiscrete(np.full(space.shape, 2))
    if isinstance(space, gymnasium.spaces.Discrete):
        return spaces.Discrete(int(space.n))
    whole = jnp.issubdtype(space.dtype, jnp.integer)  # to which an action is rounded
    dtype = jax.dtypes.canonicalize_dtype(space.dtype if whole else float)
    return spaces.Box(space.low, space.high, space.shape, dtype)


def _space(space: Any) -> Any:
    """A space of observations as one of gymnax."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return spaces.Discrete(int(space.n))
    if isinstance(space, SEVERAL_NUMBERS):
        space = gymnasium.spaces.flatten_space(space)
    return spaces.Box(space.low, space.high, space.shape, space.dtype)
