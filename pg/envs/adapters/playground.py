"""MuJoCo Playground: control and locomotion in MJX, `playground:CartpoleBalance`.

Playground's state holds everything, including the observation, reward and `done` of its last step.
Actions are a box from -1 to 1. An observation is one vector, or a dictionary: that of the policy,
`state`, and that of the critic, `privileged_state`. Policy and critic see both, unless
`observe=("state",)` and `critic_observe=("privileged_state",)` say otherwise.

Limits: the time limit and the automatic reset of Playground are wrappers
(`wrapper.wrap_for_brax_training`) that mark a time-out as `done`; the bare environment has neither,
so its `done` is termination. The limit is the environment's `episode_length`.
The physics is Warp's if JAX computes on an NVIDIA GPU, and otherwise that of JAX, `impl="jax"`.
Lost: `metrics` and `info`. Robots (locomotion, manipulation) are files of MuJoCo Menagerie, which
Playground clones with git when the first of them is built, after a warning, or in advance by the
command `CLONE`; if it cannot, put a clone of the commit `mjx_env.MENAGERIE_COMMIT_SHA` at
`mjx_env.MENAGERIE_PATH`.
"""

import subprocess
import warnings
from typing import Any

import jax
from mujoco_playground import registry
from mujoco_playground._src import mjx_env

from pg.envs.adapters.base import Adapter, with_results_in_state
from pg.inputs import check_name

__all__ = ["adapt", "make"]

# Clones the files of all robots, as `make robots` does for the tests of the adapters.
CLONE = (
    'python -c "from mujoco_playground._src.mjx_env import ensure_menagerie_exists as clone; '
    'clone()"'
)


def make(name: str, **options: Any) -> Adapter:
    """The environment that Playground has under this name; options (`episode_length=500`) are
    entries of its configuration.

    Warns before the files of a robot are cloned, and raises ValueError if they are unavailable.
    """
    check_name("environment of playground", name, registry.ALL_ENVS, "registry.ALL_ENVS lists them")
    config = registry.get_default_config(name)
    for option in options:
        check_name(f"option of {name}", option, list(config))
    if "action_repeat" in options:
        raise ValueError(
            "action_repeat of Playground is only read by its own training: set it in "
            "Config(action_repeat=...), or --action-repeat"
        )
    if "impl" in config and "impl" not in options and jax.default_backend() != "gpu":
        options["impl"] = "jax"
    place, commit = mjx_env.MENAGERIE_PATH, mjx_env.MENAGERIE_COMMIT_SHA
    is_robot = name not in registry.dm_control_suite.ALL_ENVS
    is_there = place.exists()
    if is_robot and not is_there:
        warnings.warn(
            f"the robot of {name} is from MuJoCo Menagerie, which Playground now clones with git "
            f"to {place}, once for all robots; to do so in advance: {CLONE}",
            stacklevel=2,
        )
    try:
        env = registry.load(name, config_overrides=options)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        if is_robot and not is_there and not isinstance(error, ValueError):
            remedy = (
                "Playground clones MuJoCo Menagerie with git, which failed "
                f"({type(error).__name__}): with a network, {CLONE}; without one, put a clone at "
                f"{place}, with commit {commit} checked out"
            )
        elif str(place) in str(error):
            remedy = f"{place} lacks its files: remove it, and it is cloned again"
        else:
            raise
        raise ValueError(f"the robot of {name} is missing: {remedy}") from error
    return adapt(env, name, int(env._config.episode_length))


def adapt(env: Any, name: str, max_steps: int = 1000) -> Adapter:
    """An environment of Playground without wrappers."""
    return with_results_in_state(env, f"playground:{name}", max_steps)
