"""Kinetix: physical puzzles in two dimensions, `kinetix:s/h4_thrust_aim`, one of the levels that
come with it.

A level always begins in the same state. Its motors and thrusters are several whole numbers;
with `action_type="continuous"` a box from -1 to 1, with "discrete" one whole number. The
observation is one vector, `observation_type="symbolic_flat"`; with "symbolic_entity" and "pixels"
it is a tree.

Limits: Kinetix' interface is that of gymnax before 1.0, whose step has five values: one `done` for
the end of the level and for the time limit. It is stepped through `step_env`, which does not reset,
with a limit `max_timesteps` that it never reaches, so that its `done` is only termination; our
limit is the original number.
Lost: `info`. For levels that are redrawn at each reset, `adapt` takes an environment with your
`reset_fn`.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import kinetix
from kinetix.environment import env as environments
from kinetix.environment.spaces import ActionType, ObservationType
from kinetix.util.saving import load_from_json_file

from pg.envs import MultiDiscrete, spaces
from pg.envs.adapters.base import NEVER, Adapter
from pg.inputs import check_name

__all__ = ["adapt", "make"]

_LEVELS = Path(kinetix.__file__).parent / "levels"
_ACTIONS = ("multi_discrete", "continuous", "discrete")
_OBSERVATIONS = ("symbolic_flat", "symbolic_flat_padded", "symbolic_entity", "pixels")


def make(
    name: str,
    *,
    action_type: str = "multi_discrete",
    observation_type: str = "symbolic_flat",
    **options: Any,
) -> Adapter:
    """The level that Kinetix has under this name; options (`max_timesteps=100`) are those of its
    parameters.
    """
    levels = sorted(path.relative_to(_LEVELS).with_suffix("") for path in _LEVELS.glob("*/*.json"))
    check_name("environment of kinetix", name, [path.as_posix() for path in levels])
    check_name("action_type", action_type, _ACTIONS)
    check_name("observation_type", observation_type, _OBSERVATIONS)
    level, static_params, params = load_from_json_file(str(_LEVELS / f"{name}.json"))
    for option in options:
        check_name(f"parameter of {name}", option, vars(params))
    begin = jax.tree.map(jnp.asarray, level)
    env = environments.make_kinetix_env(
        ActionType.from_string(action_type),
        ObservationType.from_string(observation_type),
        lambda key: begin,
        params,
        static_params,
        auto_reset=False,
    )
    return adapt(env, params.replace(**options), name)


def adapt(env: Any, params: Any, name: str) -> Adapter:
    """An environment of Kinetix, with its parameters."""
    endless = params.replace(max_timesteps=NEVER)

    def reset(key: jax.Array) -> tuple[Any, Any]:
        return env.reset_env(jax.random.key_data(key), endless, None)

    def step(key: jax.Array, state: Any, action: jax.Array) -> Any:
        obs, state, reward, done, _ = env.step_env(jax.random.key_data(key), state, action, endless)
        return obs, state, reward, done, False

    return Adapter(
        f"kinetix:{name}", reset, step, _actions(env.action_space(params)), params.max_timesteps
    )


def _actions(space: Any) -> Any:
    """The action space, with Kinetix' own type of several whole numbers as that of pg."""
    numbers = getattr(space, "number_of_dims_per_distribution", None)
    if numbers is not None:
        return MultiDiscrete(numbers)
    return space if isinstance(space, spaces.Discrete | spaces.Box) else spaces.Discrete(space.n)
