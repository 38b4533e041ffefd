"""Parameters of an environment: defaults, overrides, and the time limit among them."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pg.envs.failures import failure
from pg.envs.registry import environment_named, environment_of
from pg.envs.tracing import call_outside_traces
from pg.inputs import COUNTABLE, EXAMPLE, check_name, shown

__all__ = [
    "as_arrays",
    "check_parameters",
    "default_params",
    "longest_limit",
    "override",
    "parameters",
    "time_limit",
]


def parameters(env: Any) -> list[str]:
    """The names of an environment's parameters. env: see `make_env`."""
    return _field_names(default_params(environment_of(env)))


def check_parameters(env: Any, values: Mapping[str, Iterable[Any]]) -> None:
    """Raises ValueError for an invalid value of a parameter, before they are all traced.

    env: see `make_env`. values: those of several runs, by the name of the parameter.
    """
    params = default_params(environment_named(env) if isinstance(env, str) else env)
    for name, of_runs in values.items():
        check_name("env_params", name, _field_names(params))
        default = getattr(params, name)
        for value in of_runs:
            is_flag = isinstance(_converted(default, name, value), bool)
            # 0 and 1 are accepted when one run is made, and are traced here
            if is_flag and not isinstance(value, bool):
                raise ValueError(f"env_params: {name} must be True or False, got {shown(value)}")


def default_params(env: Any) -> Any:
    """The default parameters of an environment, a dataclass that has a time limit.

    Raises ValueError for anything else, and where the environment's code fails.
    """

    def ask() -> Any:
        params = env.default_params
        if callable(params) and (isinstance(params, type) or not dataclasses.is_dataclass(params)):
            return params()  # a method, or the class itself
        return params

    try:
        # a property may create arrays, which no trace should hold on to
        params = call_outside_traces(ask)
    except Exception as error:
        raise ValueError(failure("default_params", error)) from error
    if not (dataclasses.is_dataclass(params) and hasattr(params, "replace")):
        raise ValueError(
            f"the environment's default_params must be a flax.struct.dataclass, got {params!r:.80}"
        )
    if not hasattr(params, "max_steps_in_episode"):
        raise ValueError(
            f"the environment's default_params must have max_steps_in_episode, got {params!r:.80}"
        )
    return params


def _field_names(params: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(params)]


def time_limit(params: Any) -> int | None:
    """The environment's own time limit, in its steps; None if it is traced."""
    limit = params.max_steps_in_episode
    if isinstance(limit, jax.core.Tracer):
        return None
    if np.shape(limit):
        raise ValueError(f"max_steps_in_episode must be one number, got {shown(limit)}")
    return longest_limit(limit)


def longest_limit(limits: Any) -> int:
    """The longest of the time limits of several environments, in steps of the environment.

    Raises ValueError for a limit that is not a number of steps.
    """
    numbers = np.asarray(limits)  # numpy, to compute outside of every trace
    fits = np.zeros(numbers.shape, bool)
    if numbers.dtype.kind in "iuf":
        fits = (numbers >= 1) & (numbers < COUNTABLE) & (numbers == np.floor(numbers))
    if not fits.all():
        wrong = sorted(set(numbers[~fits].tolist())) if numbers.shape else limits
        raise ValueError(
            "max_steps_in_episode must be a whole number of at least 1 and below 2^31, got "
            f"{shown(wrong[0] if isinstance(wrong, list) and len(wrong) == 1 else wrong)}"
        )
    return int(numbers.max())


def override(params: Any, overrides: Mapping[str, Any]) -> Any:
    """The parameters with some of them replaced, each by a number of its default's kind.

    Raises ValueError for an unknown name and for an invalid value.
    """
    if not isinstance(overrides, Mapping):
        raise ValueError(
            f"env_params must be a dict of the parameters to change, as in {EXAMPLE}; got "
            f"{shown(overrides)}"
        )
    for name in overrides:
        check_name("env_params", name, _field_names(params))
    if not overrides:
        return params
    converted = {
        name: _converted(getattr(params, name), name, value) for name, value in overrides.items()
    }
    return params.replace(**converted)


def _converted(default: Any, name: str, value: Any) -> Any:
    """The value as the default's kind of number: environments select between parameters, which
    needs equal types.

    Raises ValueError for a number if the default is True or False, and the reverse; for a string
    instead of a number; and for a whole number beyond 32 bits.
    """
    if _is_number(default) and isinstance(value, str):
        wanted = "True or False" if jnp.result_type(default).kind == "b" else "a number"
        raise ValueError(f"env_params: {name} must be {wanted}, got {shown(value)}")
    if isinstance(default, str) and not isinstance(value, str):
        raise ValueError(
            f"env_params: {name} is a string in this environment, by default {default!r}, and "
            f"env_params are numbers; got {_shown_or_traced(value)}: make the environment with it"
        )
    if not (_is_number(default) and _is_number(value)):
        return value
    default_kind, value_kind = jnp.result_type(default).kind, _number_kind(value)
    if default_kind == "b":
        return _as_flag(name, value) if value_kind != "b" else value
    if value_kind == "b":
        raise ValueError(f"env_params: {name} must be a number, got {_shown_or_traced(value)}")
    if default_kind == "f" and value_kind in "iu":
        return value.astype(float) if hasattr(value, "astype") else float(value)
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if default_kind in "iu" and is_whole:
        if abs(value) >= COUNTABLE:
            raise ValueError(
                f"env_params: {name} must be a whole number below 2^31, got {shown(value)}"
            )
        return int(value)
    return value


def _as_flag(name: str, value: Any) -> Any:
    """0 and 1 as False and True. Raises ValueError for another number."""
    if isinstance(value, jax.core.Tracer) or not np.isin(value, (0, 1)).all():
        raise ValueError(f"env_params: {name} must be True or False, got {_shown_or_traced(value)}")
    return np.asarray(value, bool) if np.ndim(value) else bool(value)


def _number_kind(value: Any) -> str:
    """The kind of a number, as numpy's dtypes name it."""
    # A Python integer may have more digits than any of jax's types.
    if isinstance(value, int) and not isinstance(value, bool):
        return "i"
    return jnp.result_type(value).kind


def _shown_or_traced(value: Any) -> str:
    """A value in an error: only the type of a traced one is known."""
    return f"a traced {value.dtype}" if isinstance(value, jax.core.Tracer) else shown(value)


def as_arrays(params: Any) -> Any:
    """The parameters with arrays for numbers, as in gymnax's jitted step: ~True is -2, and ~array
    False.
    """
    with jax.ensure_compile_time_eval():
        return jax.tree.map(lambda x: jnp.asarray(x) if _is_number(x) else x, params)


def _is_number(x: Any) -> bool:
    """True for a number and for an array of numbers, traced or not."""
    if isinstance(x, np.generic | np.ndarray | jax.Array):
        return x.dtype.kind in "biuf"
    return isinstance(x, bool | int | float)
