"""XLand-MiniGrid: the grid worlds of MiniGrid, and worlds whose rules must be discovered,
`xminigrid:MiniGrid-Empty-5x5`.

A timestep of XLand-MiniGrid is both state and observation. The observation is the part of the
grid that the agent sees, [V, V, 2] of tiles and colours, as numbers.

Limits: its step does not reset, and marks termination by a discount of 0; the time limit is counted
here. It is the environment's own, `max_steps`, on which the reward of a goal also depends.
Lost: the benchmarks of rule sets, which `xminigrid.load_benchmark` downloads: the option `ruleset`
is one of them, or your own.
"""

from typing import Any

import jax
import xminigrid

from pg.envs import spaces
from pg.envs.adapters.base import Adapter
from pg.inputs import check_name

__all__ = ["adapt", "make"]


def make(name: str, **options: Any) -> Adapter:
    """The environment that XLand-MiniGrid has under this name; options (`max_steps=50`) are those
    of its parameters.
    """
    names = xminigrid.registered_environments()
    check_name(
        "environment of xminigrid", name, names, "xminigrid.registered_environments() lists them"
    )
    env, params = xminigrid.make(name, **options)
    return adapt(env, params, name)


def adapt(env: Any, params: Any, name: str) -> Adapter:
    """An environment of XLand-MiniGrid without wrappers that reset, with its parameters."""

    def reset(key: jax.Array) -> tuple[Any, Any]:
        timestep = env.reset(params, jax.random.key_data(key))
        return timestep.observation, timestep

    def step(key: jax.Array, timestep: Any, action: jax.Array) -> Any:
        timestep = env.step(params, timestep, action)
        terminated = timestep.last() & (timestep.discount == 0)
        return timestep.observation, timestep, timestep.reward, terminated, False

    actions = spaces.Discrete(int(env.num_actions(params)))
    return Adapter(f"xminigrid:{name}", reset, step, actions, params.max_steps)
