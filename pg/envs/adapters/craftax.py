"""Craftax: an open world of crafting, `craftax:Craftax-Classic-Symbolic-v1`.

Its interface is that of gymnax before 1.0, whose step has five values: one `done` for death and for
the time limit.

Limits: the environment is stepped through `step_env`, which does not reset, with a limit
`max_timesteps` that it never reaches, so that its `done` is only termination; our limit is the
original number. It is 10,000 (Classic) or 100,000: collect windows, or set `max_steps_in_episode`,
since a batch of episodes has room for the longest. Lost: the achievements in `info`.
"""

from typing import Any

import jax
from craftax.craftax_env import make_craftax_env_from_name

from pg.envs import spaces
from pg.envs.adapters.base import NEVER, Adapter
from pg.inputs import check_name

__all__ = ["adapt", "make"]

_NAMES = (
    "Craftax-Symbolic-v1",
    "Craftax-Pixels-v1",
    "Craftax-Classic-Symbolic-v1",
    "Craftax-Classic-Pixels-v1",
)


def make(name: str, **options: Any) -> Adapter:
    """The environment that Craftax has under this name; options (`max_timesteps=500`) are those of
    its parameters.
    """
    check_name("environment of craftax", name, _NAMES)
    return adapt(make_craftax_env_from_name(name, auto_reset=False), name, **options)


def adapt(env: Any, name: str, **options: Any) -> Adapter:
    """An environment of Craftax."""
    for option in options:
        check_name(f"parameter of {name}", option, vars(env.default_params))
    given = env.default_params.replace(**options)
    params = given.replace(max_timesteps=NEVER)

    def reset(key: jax.Array) -> tuple[Any, Any]:
        return env.reset_env(jax.random.key_data(key), params)

    def step(key: jax.Array, state: Any, action: jax.Array) -> Any:
        obs, state, reward, done, _ = env.step_env(jax.random.key_data(key), state, action, params)
        return obs, state, reward, done, False

    return Adapter(
        f"craftax:{name}", reset, step, spaces.Discrete(env.num_actions), given.max_timesteps
    )
