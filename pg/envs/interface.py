"""gymnax's interface of an environment, as a `reset` and a `step` that does not reset."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pg.envs.failures import InterfaceError, described, failure
from pg.envs.library import DeepSea, environment

__all__ = ["EnvState", "reset_and_step", "shapes_of"]

EnvState = Any

_RESET = ("obs", "state")
_STEP = ("obs", "state", "reward", "terminated", "truncated", "info")
_STEP_ENV = ("obs", "state", "reward", "terminated", "info")
_WHY = "termination and truncation are separate"

# gymnax's functions around `step_env` and `reset_env`. DeepSea's own `step` only keeps its counts
# across resets.
_GYMNAX_METHODS = (environment.Environment.step, environment.Environment.reset, DeepSea.step)


def reset_and_step(env: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`reset` and a `step` that does not reset, of one environment.

    reset: key, params -> obs, state, info, which is {} if the environment returns only two
    values. step: key, state, action, params -> state, obs, reward, terminated, truncated, info.

    gymnax's own `step` is `step_env` followed by a reset, so that `step_env` is the same without
    one. A `step` that somebody else wrote, in a wrapper (which forwards `step_env` to the wrapped
    environment, and so past itself), in a subclass or on the object, differs from `step_env`: then
    that one is used. The same holds for `reset`.
    """
    own_reset = env.reset if _is_own(env, "reset", "reset_env") else env.reset_env

    def reset(key: jax.Array, params: Any) -> tuple[Any, ...]:
        results = own_reset(key, params)
        if isinstance(results, tuple | list) and len(results) == 3:
            return tuple(results)
        return *_checked_results("reset", results, _RESET), {}

    if _is_own(env, "step", "step_env"):
        return reset, _without_reset(env)

    if not hasattr(env, "is_truncated"):
        raise ValueError(
            f"{type(env).__name__} has no is_truncated(state, params), which gymnax 1.0 asks for: "
            f"{_WHY}"
        )

    def step(key: jax.Array, state: EnvState, action: jax.Array, params: Any) -> tuple[Any, ...]:
        results = _checked_results("step_env", env.step_env(key, state, action, params), _STEP_ENV)
        obs, state, reward, terminated, info = results
        reward, terminated = jnp.asarray(reward), jnp.asarray(terminated)
        return state, obs, reward, terminated, env.is_truncated(state, params), info

    return reset, step


def _is_own(env: Any, name: str, inner: str) -> bool:
    """True if `env.name` is not gymnax's function around `env.inner`."""
    if not hasattr(type(env), inner):
        return True
    method = getattr(env, name)
    return getattr(method, "__func__", method) not in _GYMNAX_METHODS


def _without_reset(env: Any) -> Callable[..., Any]:
    """A step that does not reset, made from the environment's own `step`, which does."""

    def step(key: jax.Array, state: EnvState, action: jax.Array, params: Any) -> tuple[Any, ...]:
        results = _checked_results("step", env.step(key, state, action, params), _STEP)
        obs, state, reward, terminated, truncated, info = results
        if not isinstance(info, Mapping) or "final_observation" not in info:
            raise InterfaceError(
                f"the step of {type(env).__name__} must return the true successor, in "
                "info['final_observation'], as gymnax's own does: call that, or write step_env "
                "instead of step"
            )
        last = info["final_observation"]
        done = jnp.asarray(terminated, bool) | jnp.asarray(truncated, bool)
        successor = jax.tree.map(lambda last, obs: jnp.where(done, last, obs), last, obs)
        ends = jnp.asarray(terminated), jnp.asarray(truncated)
        return state, successor, jnp.asarray(reward), *ends, info

    return step


def shapes_of(
    method: str, function: Callable[..., Any], *args: Any, names: tuple[str, ...] = ()
) -> Any:
    """The shapes and dtypes of the results of the environment's own code.

    Args:
        method: The name of the method, for errors.
        function: The method.
        *args: Its arguments; the last are the parameters, which are not traced, as they may contain
            objects that are not arrays.
        names: The names of the results, whose number is checked.

    Raises:
        ValueError: The environment's code fails; in one line.
    """

    def call(*traced: Any) -> Any:
        results = function(*traced, args[-1])
        return _checked_results(method, results, names) if names else results

    try:
        return jax.eval_shape(call, *args[:-1])
    except InterfaceError:
        raise
    except Exception as error:
        raise ValueError(failure(method, error)) from error


def _checked_results(method: str, results: Any, names: tuple[str, ...]) -> tuple[Any, ...]:
    """The results of a method. Raises InterfaceError unless there are as many as names."""
    if isinstance(results, tuple | list) and len(results) == len(names):
        return tuple(results)
    if isinstance(results, tuple | list):
        got = "one value" if len(results) == 1 else f"{len(results)} values"
    elif isinstance(results, jax.Array | np.ndarray):
        got = f"one array, {described(results)}"
    else:
        got = type(results).__name__
    why = f", as in gymnax 1.0, where {_WHY}" if "terminated" in names else ""
    raise InterfaceError(
        f"the environment's {method} must return {len(names)} values, {', '.join(names)}{why}; got "
        f"{got}"
    )
