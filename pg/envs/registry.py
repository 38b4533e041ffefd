"""Environments by name: those of gymnax, sequence tasks, and those of other libraries through
an adapter.
"""

import functools
import importlib
from typing import Any

import jax

from pg.config import SEQUENCES, check_env, check_interface, name_of
from pg.envs.library import gymnax
from pg.envs.tracing import call_outside_traces

__all__ = ["environment_named", "environment_of", "with_gradients"]


def environment_of(env: Any) -> Any:
    """The environment of a name, or the object itself after checking its interface."""
    if isinstance(env, str):
        return environment_named(env)
    check_interface(env)
    return env


def environment_named(name: str) -> Any:
    """The one object of this name: gymnax's jitted methods are cached by the object's identity."""
    return _build(name, jax.config.jax_enable_x64)  # type: ignore[attr-defined]


@functools.cache
def _build(name: str, x64: bool) -> Any:
    """A new object of this name. x64: the precision of the numbers that it may keep."""
    check_env(name)
    # tasks and adapters depend on this package, so it loads them only here
    if name in SEQUENCES:
        return importlib.import_module("pg.envs.sequence_tasks").make(name)
    if ":" in name:
        make = importlib.import_module("pg.envs.adapters").make
        # libraries check their own numbers when they build an environment
        return call_outside_traces(lambda: make(name))
    # it may contain arrays, and is kept beyond the first trace that asks for it
    with jax.ensure_compile_time_eval():
        return gymnax.make(name)[0]


def with_gradients(env: Any) -> Any:
    """The environment with a differentiable transition.

    Raises ValueError if there is none.
    """
    if not getattr(env, "supports_transition_gradients", False):
        raise ValueError(
            f"the dynamics of {name_of(env)} have no derivative: use a score-function "
            f"estimator instead"
        )
    return env.with_transition_gradients()
