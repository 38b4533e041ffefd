"""Brax: rigid bodies, `brax:inverted_pendulum`.

Brax's state holds everything, including the observation, reward and `done` of its last step.
Actions are a box from -1 to 1, which the environments scale to their motors.

Limits: the time limit and the automatic reset of Brax are wrappers (`brax.envs.create`) that mark a
time-out as `done`; the bare environment has neither, so its `done` is termination. Our limit is
that of the wrappers, 1000. Lost: `metrics` and `info`, and the derivative of the dynamics.
"""

from typing import Any

from brax import envs

from pg.envs.adapters.base import Adapter, with_results_in_state
from pg.inputs import check_name

__all__ = ["adapt", "make"]


def make(name: str, **options: Any) -> Adapter:
    """The environment that Brax has under this name; options (`backend="spring"`) are those of its
    class.
    """
    check_name("environment of brax", name, envs._envs)
    return adapt(envs.get_environment(name, **options), name)


def adapt(env: Any, name: str, max_steps: int = 1000) -> Adapter:
    """A Brax environment without wrappers."""
    return with_results_in_state(env, f"brax:{name}", max_steps)
