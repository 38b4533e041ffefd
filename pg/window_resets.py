"""Resets within windows: the initial states of the episodes that start inside a window.

    drawn ahead           one for every step and environment, before the first step
    where ended           in the step in which an episode ends, only for the environments that ended
    by the environments   which start their next episodes by themselves

The first two use the same keys. The first is the fastest if a reset is about as cheap as a step,
since steps then have no branch.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
from jaxtyping import Array, Bool, PRNGKeyArray, PyTree

from pg import networks
from pg.envs import Env
from pg.fast import devices, resets, row_keys
from pg.trajectory import RolloutState, as_stored

__all__ = ["FRESH_BYTES", "Resets", "make_resets", "way_of_resets"]

# Maximum bytes of initial states that are drawn ahead for a window, one for every step, in all
# vmapped runs together; larger ones are drawn in their steps.
FRESH_BYTES = 2**26

Resets = Literal["drawn ahead", "where ended", "by the environments"]


def way_of_resets(env: Env, num_steps: int, num_runs: int = 1) -> Resets:
    """The method by which `windows` obtains the initial states of episodes that start inside it.

    Args:
        env: B environments.
        num_steps: Steps of a window.
        num_runs: Number of vmapped runs.
    """
    if env.restart is not None:
        return "by the environments"
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), num_steps))
    starts = jax.tree.leaves(jax.eval_shape(jax.vmap(functools.partial(_begin, env)), keys))
    of_one_run = sum(x.size * x.dtype.itemsize for x in starts)
    is_large = num_runs * of_one_run > FRESH_BYTES
    return "where ended" if is_large or resets.is_costly(env.reset) else "drawn ahead"


def make_resets(
    env: Env, key: PRNGKeyArray, num_steps: int, horizon: int | None
) -> tuple[Any, Callable[..., Any]]:
    """The initial states that the steps of a window may need.

    Args:
        env: B environments.
        key: A random key.
        num_steps: Steps of the window.
        horizon: H, the steps after which an episode is truncated; None: only the environment's own
            time limit.

    Returns:
        Inputs of the steps, [num_steps, ...], and a function: such an input, the environments'
        state after the step, and which of them have ended [B] -> env_state, obs, meaningful only
        for those.

    Raises:
        ValueError: Environments that restart by themselves have another horizon.
    """
    restart = env.restart
    if restart is not None:
        if not (horizon is None or isinstance(horizon, int)) or horizon != restart.horizon:
            raise ValueError(
                f"the environments start their next episodes after {restart.horizon} steps at the "
                f"latest, and the horizon is {horizon}: make them with that one"
            )
        return (), lambda start, moved, done: restart.begin(moved.env_state)
    keys = jax.random.split(key, num_steps)

    def drawn_ahead(start: Any, moved: RolloutState, done: Bool[Array, " B"]) -> Any:
        return start[0], networks.as_float(start[1])

    def where_ended(data: Array, moved: RolloutState, done: Bool[Array, " B"]) -> Any:
        step_key = jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))
        reset_keys = row_keys.split(step_key, env.num_envs)
        return resets.replace_ended(env.reset, reset_keys, done, (moved.env_state, moved.obs))

    if way_of_resets(env, num_steps, devices.mapped_runs()) == "where ended":
        return jax.random.key_data(keys), where_ended
    return jax.vmap(functools.partial(_begin, env))(keys), drawn_ahead


def _begin(env: Env, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
    """Initial states, and their observations in the dtypes of a trajectory."""
    env_state, obs = env.reset(key)
    return env_state, as_stored(env, obs)
