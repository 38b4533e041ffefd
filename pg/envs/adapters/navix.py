"""Navix: the grid worlds of MiniGrid, `navix:Navix-Empty-5x5-v0`.

A timestep of Navix is state and observation in one; the observation is the grid [H, W, 3] of
symbols, as numbers.

Limits: Navix resets when it is stepped from a finished timestep and marks its time limit as
truncation; its `_step` does not reset, and from its step type we read only termination. The limit
is that of MiniGrid, 4 · height · width, unless `max_steps` is given.
Lost: `info`.
"""

from typing import Any

import jax
import navix

from pg.envs import spaces
from pg.envs.adapters.base import Adapter
from pg.inputs import check_name

__all__ = ["adapt", "make"]


def make(name: str, max_steps: int | None = None, **options: Any) -> Adapter:
    """The environment that Navix has under this name; options are those of its class
    (`observation_fn=...`).
    """
    check_name("environment of navix", name, navix.registry(), "navix.registry() lists them")
    return adapt(navix.make(name, max_steps=max_steps, **options), name)


def adapt(env: Any, name: str) -> Adapter:
    """A Navix environment without wrappers."""

    def reset(key: jax.Array) -> tuple[Any, Any]:
        timestep = env.reset(jax.random.key_data(key))
        return timestep.observation, timestep

    def step(key: jax.Array, timestep: Any, action: jax.Array) -> Any:
        timestep = env._step(timestep, action)
        return timestep.observation, timestep, timestep.reward, timestep.is_termination(), False

    return Adapter(
        f"navix:{name}", reset, step, spaces.Discrete(int(env.action_space.n)), env.max_steps
    )
