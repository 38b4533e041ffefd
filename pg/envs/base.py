"""Environments: B copies of a gymnax environment as two pure functions, `Env(reset, step)`.

The only importer of gymnax. What differs between environments ends here: observations become float
arrays (discrete ones are one-hot encoded), rewards floats, continuous actions are clipped to their
box, and the step keeps apart what gymnax's auto-reset would mix: `terminated`, `truncated`, and the
true successor observation.
"""

import concurrent.futures
import contextlib
import contextvars
import copy
import dataclasses
import functools
import importlib
import inspect
import math
import sys
import types
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import get_opaque_trace_state, jaxpr_as_fun

from pg.config import (
    Config,
    check_config,
    check_env,
    check_interface,
    check_standardised,
    check_steps,
    name_of,
)
from pg.inputs import COUNTABLE, EXAMPLE, check_key, check_name, count, counts, shown


class _Lazy(types.ModuleType):
    """Stands in for a plotting library that gymnax imports, and loads the library when it is
    used.
    """

    def __getattr__(self, name: str) -> Any:
        # the import machinery looks at these, and needs no library for it
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


# Environments of gymnax import these for their pictures; seaborn (with pandas and scipy) and pyplot
# cost seconds.
_PLOTTING = [name for name in ("seaborn", "matplotlib.pyplot") if name not in sys.modules]
sys.modules.update({name: _Lazy(name) for name in _PLOTTING})
import gymnax  # noqa: E402

for _name in _PLOTTING:  # gymnax keeps its stand-in; everyone else gets the library
    if isinstance(sys.modules[_name], _Lazy):
        del sys.modules[_name]

from gymnax.environments import environment, spaces  # noqa: E402
from gymnax.environments.bsuite.deep_sea import DeepSea  # noqa: E402

__all__ = [
    "Box",
    "Discrete",
    "Env",
    "Transition",
    "configured",
    "environment",
    "gymnax",
    "make_env",
    "spaces",
]

EnvState = Any


class Discrete(NamedTuple):
    """Actions 0 .. n-1."""

    n: int


class Box(NamedTuple):
    """Continuous actions between `low` and `high`, float arrays of the action's shape (traced if
    swept).

    A bound of 1e9 and beyond is infinite, that is none: a policy starts with a standard deviation
    of half the width.
    """

    low: jax.Array
    high: jax.Array


class Transition(NamedTuple):
    """What one step of B environments gives."""

    reward: jax.Array  # [B] float
    terminated: jax.Array  # [B] bool: the task ended; nothing follows
    # [B] bool: a time limit cut the episode; both can be set, then `terminated` wins
    truncated: jax.Array
    next_obs: jax.Array  # [B, *O] the true successor, never the observation of a reset
    steps: Any = ()  # int [B] environment steps that a held action took; () where none is held


class Env(NamedTuple):
    """B environments as pure functions. Steps do not reset: rollouts do, where they need to."""

    reset: Callable[[jax.Array], tuple[EnvState, jax.Array]]  # key -> env_state, obs [B, *O]
    # key, env_state, action [B, *A] -> env_state, Transition
    step: Callable[..., tuple[EnvState, Transition]]
    num_envs: int
    obs_shape: tuple[int, ...]
    action_space: Discrete | Box
    # the environment's own time limit, in steps of this one; None: it is traced
    max_steps: int | None
    differentiable: bool = False  # a step passes on the derivative of state and observation
    # of every entry of an observation; None: not all of them are known
    obs_bounds: Box | None = None
    # that a trajectory keeps observations in, which are floats: bytes if they come as bytes
    obs_dtype: Any = float
    # From and to what the environment's own code gives and takes: observations [B, ...], their
    # shape, an action.
    encode: Callable[[Any], jax.Array] = jnp.asarray
    own_obs_shape: tuple[int, ...] = ()
    sent: Callable[[jax.Array], jax.Array] = jnp.asarray
    action_repeat: int = 1  # environment steps for which an action is held, at most

    def encoded(self, obs: jax.Array) -> tuple[jax.Array, tuple[int, ...]]:
        """The environment's own observations [..., *own] as `reset` and `step` give them, [N, *O],
        and their axes.

        Raises ValueError where they have another shape.
        """
        count = obs.ndim - len(self.own_obs_shape)
        if count < 0 or obs.shape[count:] != self.own_obs_shape:
            raise ValueError(
                f"an observation of the environment has shape {self.own_obs_shape}, after any axes "
                f"for several of them; got {obs.shape}"
            )
        return self.encode(obs.reshape(-1, *self.own_obs_shape)), obs.shape[:count]

    def horizon(self, bound: int | None = None) -> int:
        """The length of the longest episode, in steps: `bound`, or the environment's own time
        limit.

        Raises ValueError for a bound that is no whole number, and where there is none and the limit
        is traced.
        """
        longest = self.max_steps if bound is None else count("horizon", bound)
        if longest is None:
            raise ValueError(
                "max_steps_in_episode is traced, so that the length of the longest episode is not "
                "known: set horizon to the largest of its values, as in Config(horizon=500)"
            )
        return longest


def make_env(
    env: Any,
    num_envs: int,
    env_params: Mapping[str, Any] | None = None,
    *,
    action_repeat: int = 1,
    observe: Sequence[int] = (),
    differentiable: bool = False,
) -> Env:
    """`num_envs` copies of an environment, batched.

    env: a name registered with gymnax, or an object with gymnax's interface (1.0: a six-valued
    `step`).
    env_params: overrides of the environment's parameters; their values may be traced.
    action_repeat: environment steps for which an action is held, fewer where the episode ends; one
    `step` is so many.
    observe: entries of the observation that are seen, all if empty; it must be a vector.
    differentiable: derivatives pass through the transition, for pathwise gradients; a score needs
    none, and gymnax cuts them otherwise, though not those of the reward.
    Raises ValueError for an unknown name or parameter, something that is no environment, a number
    of environments or steps that is no count, an unsupported space, a reset or step that fails or
    gives something else than this module's contract, a time limit that nobody has set, or dynamics
    that have no derivative. Warns of an environment that counts its time limit as an end.
    """
    num_envs, action_repeat = count("num_envs", num_envs), count("action_repeat", action_repeat)
    observe = counts("observe", observe, low=0)
    base = _object(env)
    if differentiable:
        base = _with_gradients(base)
    stated = _override(_default_params(base), env_params or {})
    limit = _time_limit(stated)
    action_space, sent = _actions(base, stated, differentiable)
    params = _as_arrays(stated)
    single_reset, primitive_step = _primitives(base)

    def single_step(
        key: jax.Array, state: EnvState, action: jax.Array, params: Any
    ) -> tuple[Any, ...]:
        return primitive_step(key, state, sent(action), params)

    start = _shapes("reset", single_reset, jax.random.key(0), params, names=("obs", "state"))
    encode, obs_shape = _observations(base, stated, start[0])
    if observe:
        encode, obs_shape = _seen(encode, obs_shape, observe)
    obs_dtype = jnp.uint8 if start[0].dtype == jnp.uint8 and start[0].shape else float
    obs_bounds = _obs_bounds(base, stated, start[0], observe)
    dtypes = _check_step(single_step, start, action_space, params)
    _check_limit(base, "max_steps_in_episode" in (env_params or {}))

    def one_step(key: jax.Array, state: EnvState, action: jax.Array) -> tuple[Any, ...]:
        next_state, obs, reward, terminated, truncated = single_step(key, state, action, params)
        ends = terminated.astype(bool), truncated.astype(bool)
        return _as_dtypes(next_state, dtypes), obs, reward.astype(float), *ends

    def held_step(key: jax.Array, state: EnvState, action: jax.Array) -> tuple[Any, ...]:
        if action_repeat == 1:
            return *one_step(key, state, action), ()
        return _held(lambda key, state: one_step(key, state, action), key, state, action_repeat)

    def reset(key: jax.Array) -> tuple[EnvState, jax.Array]:
        check_key(key)
        obs, state = jax.vmap(single_reset, (0, None))(jax.random.split(key, num_envs), params)
        return _as_dtypes(state, dtypes), encode(obs)

    def step(key: jax.Array, state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        """key: one for all, or one per environment [B]. Continuous actions are clipped to their
        box, and rounded where it is one of whole numbers.
        """
        keys = key if key.ndim else jax.random.split(key, num_envs)
        next_state, obs, reward, terminated, truncated, steps = jax.vmap(held_step)(
            keys, state, action
        )
        return next_state, Transition(reward, terminated, truncated, encode(obs), steps)

    max_steps = None if limit is None else math.ceil(limit / action_repeat)
    about = differentiable, obs_bounds, obs_dtype, encode, start[0].shape, sent, action_repeat
    return Env(reset, step, num_envs, obs_shape, action_space, max_steps, *about)


def configured(config: Config, num_envs: int, env_params: Mapping[str, Any] | None = None) -> Env:
    """The environment that a Config describes, as training and evaluation see it. env_params:
    overrides on top.

    Raises ValueError as `make_env` does, and where episodes are collected whose longest is not
    known, too long, or one step whose advantage alone would be standardised.
    """
    check_config(config)
    overrides = {**dict(config.env_params), **(env_params or {})}
    env = make_env(
        config.env, num_envs, overrides, action_repeat=config.action_repeat, observe=config.observe
    )
    if config.collect == "episodes":
        longest = env.horizon(config.horizon)
        check_steps(config, longest)
        check_standardised(config, min(longest, env.max_steps or longest))
    return env


def parameters(env: Any) -> list[str]:
    """The names of an environment's parameters. env: as of `make_env`."""
    return _fields(_default_params(_object(env)))


def _object(env: Any) -> Any:
    """The environment of a name, or the object itself once it has an environment's interface."""
    if isinstance(env, str):
        return _instance(env)
    check_interface(env)
    return env


def _instance(name: str) -> Any:
    """One object per name: gymnax's jitted methods are cached by the object's identity."""
    return _made(name, jax.config.jax_enable_x64)  # type: ignore[attr-defined]


@functools.cache
def _made(name: str, x64: bool) -> Any:
    """A new object of this name. x64: the precision of the numbers that it may keep."""
    check_env(name)
    if ":" in name:  # adapters are written on top of this module, so it loads them only here
        return importlib.import_module("pg.envs.adapters").make(name)
    # it may hold arrays, and is kept beyond the trace that asks for it first
    with jax.ensure_compile_time_eval():
        return gymnax.make(name)[0]


def _with_gradients(env: Any) -> Any:
    if not getattr(env, "supports_transition_gradients", False):
        raise ValueError(
            f"the dynamics of {name_of(env)} have no derivative: use an estimator of "
            f"the score instead"
        )
    return env.with_transition_gradients()


def _default_params(env: Any) -> Any:
    def ask() -> Any:
        params = env.default_params
        if callable(params) and (isinstance(params, type) or not dataclasses.is_dataclass(params)):
            return params()  # a method, or the class itself
        return params

    try:
        # they may be arrays that a property makes, which no trace should hold on to
        params = _outside(ask)
    except Exception as error:
        raise ValueError(_failure("default_params", error)) from error
    if not (dataclasses.is_dataclass(params) and hasattr(params, "replace")):
        raise ValueError(
            f"the environment's default_params must be a flax.struct.dataclass, got {params!r:.80}"
        )
    if not hasattr(params, "max_steps_in_episode"):
        raise ValueError(
            f"the environment's default_params must have max_steps_in_episode, got {params!r:.80}"
        )
    return params


def _time_limit(params: Any) -> int | None:
    """The environment's own, in its steps; None where it is traced."""
    limit = params.max_steps_in_episode
    if isinstance(limit, jax.core.Tracer):
        return None
    if np.shape(limit):
        raise ValueError(f"max_steps_in_episode must be one number, got {shown(limit)}")
    return longest_limit(limit)


def longest_limit(limits: Any) -> int:
    """The longest of the time limits of several environments, in steps of the environment.

    Raises ValueError for a limit that is no number of steps.
    """
    numbers = np.asarray(limits)  # which computes outside of every trace
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


def check_parameters(env: Any, values: Mapping[str, Iterable[Any]]) -> None:
    """Raises ValueError for a value that a parameter of the environment cannot have, before they
    are all traced.

    env: as of `make_env`. values: those of several runs, by the name of the parameter.
    """
    params = _default_params(_instance(env) if isinstance(env, str) else env)
    for name, several in values.items():
        check_name("env_params", name, _fields(params))
        default = getattr(params, name)
        for value in several:
            flag = isinstance(_like(default, name, value), bool)
            # 0 and 1 are taken where one run is made, and are traced here
            if flag and not isinstance(value, bool):
                raise ValueError(f"env_params: {name} must be True or False, got {shown(value)}")


def _override(params: Any, overrides: Mapping[str, Any]) -> Any:
    if not isinstance(overrides, Mapping):
        raise ValueError(
            f"env_params must be a dict of the parameters to change, as in {EXAMPLE}; got "
            f"{shown(overrides)}"
        )
    for name in overrides:
        check_name("env_params", name, _fields(params))
    if not overrides:
        return params
    return params.replace(
        **{name: _like(getattr(params, name), name, x) for name, x in overrides.items()}
    )


def _fields(params: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(params)]


def _like(default: Any, name: str, value: Any) -> Any:
    """The value as the kind of number that the default is: environments select between parameters,
    which takes one.

    Raises ValueError for a number where the default is True or False, and the other way round; for
    text in the place of a number; and for a whole number beyond 32 bits, which no array of integers
    holds.
    """
    if _is_number(default) and isinstance(value, str):
        wanted = "True or False" if jnp.result_type(default).kind == "b" else "a number"
        raise ValueError(f"env_params: {name} must be {wanted}, got {shown(value)}")
    if isinstance(default, str) and not isinstance(value, str):
        raise ValueError(
            f"env_params: {name} is a text in this environment, {default!r} by itself, and "
            f"env_params are numbers; got {_given(value)}: make the environment with it"
        )
    if not (_is_number(default) and _is_number(value)):
        return value
    wanted = jnp.result_type(default).kind
    # A whole number of Python's may have more digits than any of jax's types.
    given = (
        "i"
        if isinstance(value, int) and not isinstance(value, bool)
        else jnp.result_type(value).kind
    )
    if wanted == "b" and given != "b":
        if isinstance(value, jax.core.Tracer) or not np.isin(value, (0, 1)).all():
            raise ValueError(f"env_params: {name} must be True or False, got {_given(value)}")
        return np.asarray(value, bool) if np.ndim(value) else bool(value)
    if given == "b" and wanted != "b":
        raise ValueError(f"env_params: {name} must be a number, got {_given(value)}")
    if wanted == "f" and given in "iu":
        return value.astype(float) if hasattr(value, "astype") else float(value)
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if wanted in "iu" and whole:
        if abs(value) >= COUNTABLE:
            raise ValueError(
                f"env_params: {name} must be a whole number below 2^31, got {shown(value)}"
            )
        return int(value)
    return value


def _given(value: Any) -> str:
    """A value as an error names it: of a traced one only the type is known."""
    return f"a traced {value.dtype}" if isinstance(value, jax.core.Tracer) else shown(value)


def _as_arrays(params: Any) -> Any:
    """The parameters with arrays for numbers, as gymnax's own jitted step has them: ~True is -2,
    and ~array False.
    """
    with jax.ensure_compile_time_eval():
        return jax.tree.map(lambda x: jnp.asarray(x) if _is_number(x) else x, params)


def _is_number(x: Any) -> bool:
    """True of what is a number, or an array of numbers, traced or not."""
    if isinstance(x, np.generic | np.ndarray | jax.Array):
        return x.dtype.kind in "biuf"
    return isinstance(x, bool | int | float)


def _primitives(env: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`reset` and a `step` that does not reset, of one environment.

    gymnax's own `step` is `step_env` with a reset behind it, so that `step_env` says the same
    without one. A `step` that somebody else wrote, in a wrapper (which forwards `step_env` to what
    it wraps, and so past itself), in a subclass or on the object alone, says what `step_env` does
    not: then it is the one that is taken. `reset` alike.
    """
    reset = env.reset if _is_own(env, "reset", "reset_env") else env.reset_env
    if _is_own(env, "step", "step_env"):
        return reset, _stepped(env)

    if not hasattr(env, "is_truncated"):
        raise ValueError(
            f"{type(env).__name__} has no is_truncated(state, params), which gymnax 1.0 asks for: "
            f"{_WHY}"
        )

    def raw_step(
        key: jax.Array, state: EnvState, action: jax.Array, params: Any
    ) -> tuple[Any, ...]:
        values = _values("step_env", env.step_env(key, state, action, params), _STEP_ENV)
        obs, state, reward, terminated, _ = values
        reward, terminated = jnp.asarray(reward), jnp.asarray(terminated)
        return state, obs, reward, terminated, env.is_truncated(state, params)

    return reset, raw_step


def _is_own(env: Any, name: str, inner: str) -> bool:
    """True where `env.name` is not gymnax's function around `env.inner`."""
    if not hasattr(type(env), inner):
        return True
    method = getattr(env, name)
    return getattr(method, "__func__", method) not in _OF_GYMNAX


# DeepSea's own `step` only keeps its counts beyond the reset.
_OF_GYMNAX = (environment.Environment.step, environment.Environment.reset, DeepSea.step)


def _stepped(env: Any) -> Callable[..., Any]:
    """A step that does not reset, of the environment's own `step`, which does."""

    def step(key: jax.Array, state: EnvState, action: jax.Array, params: Any) -> tuple[Any, ...]:
        values = _values("step", env.step(key, state, action, params), _STEP)
        obs, state, reward, terminated, truncated, info = values
        if not isinstance(info, Mapping) or "final_observation" not in info:
            raise _InterfaceError(
                f"the step of {type(env).__name__} must give the true successor, in "
                "info['final_observation'], as gymnax's own does: call that, or write step_env "
                "instead of step"
            )
        last = info["final_observation"]
        done = jnp.asarray(terminated, bool) | jnp.asarray(truncated, bool)
        successor = jax.tree.map(lambda last, obs: jnp.where(done, last, obs), last, obs)
        return (
            state,
            successor,
            jnp.asarray(reward),
            jnp.asarray(terminated),
            jnp.asarray(truncated),
        )

    return step


_STEP = ("obs", "state", "reward", "terminated", "truncated", "info")
_STEP_ENV = ("obs", "state", "reward", "terminated", "info")
_WHY = "the end of the task and a limit of time are told apart"


class _InterfaceError(ValueError):
    """What is wrong with an environment, where its own code has not failed."""


def _values(method: str, given: Any, names: tuple[str, ...]) -> tuple[Any, ...]:
    if isinstance(given, tuple | list) and len(given) == len(names):
        return tuple(given)
    if isinstance(given, tuple | list):
        got = "one value" if len(given) == 1 else f"{len(given)} values"
    else:
        got = (
            f"one array, {_described(given)}"
            if isinstance(given, jax.Array | np.ndarray)
            else type(given).__name__
        )
    why = f", as in gymnax 1.0, where {_WHY}" if "terminated" in names else ""
    raise _InterfaceError(
        f"the environment's {method} must give {len(names)} values, {', '.join(names)}{why}; got "
        f"{got}"
    )


def _shapes(
    method: str, function: Callable[..., Any], *args: Any, names: tuple[str, ...] = ()
) -> Any:
    """What the environment's own code gives, as shapes. Raises ValueError where that code fails, in
    one line.
    """

    def run(*traced: Any) -> Any:
        given = function(*traced, args[-1])
        return _values(method, given, names) if names else given

    try:
        return jax.eval_shape(run, *args[:-1])  # parameters that are no arrays stay as they are
    except _InterfaceError:
        raise
    except Exception as error:
        raise ValueError(_failure(method, error)) from error


def _failure(method: str, error: Exception) -> str:
    """The failure of the environment's own code, in one line, with a remedy where it is of a common
    kind.
    """
    line = str(error).strip().partition("\n")[0].rstrip(".")
    remedy = next((remedy for kind, remedy in _REMEDIES.items() if isinstance(error, kind)), None)
    return (
        f"the environment's {method} fails: {type(error).__name__}: "
        f"{line}{f': {remedy}' if remedy else ''}"
    )


_KEPT = (
    "keeps what it has computed of traced arrays, on itself, on a class or in a module, where it "
    "outlives the trace: compute it anew in each call"
)
# The first that fits: the last kind of fault is a base of others.
_REMEDIES = {
    jax.errors.UnexpectedTracerError: f"it {_KEPT}",
    jax.errors.TracerBoolConversionError: "a Python if, while, and, or, not of an array must be "
    "jnp.where, jax.lax.cond, or & | ~",
    jax.errors.TracerIntegerConversionError: "an array cannot be Python's index, nor the end of a "
    "range: index jnp.asarray(...) by it, or loop by jax.lax.fori_loop",
    jax.errors.TracerArrayConversionError: "numpy cannot compute with traced arrays: write jnp in "
    "place of np",
    jax.errors.NonConcreteBooleanIndexError: "an array cannot be cut by a mask, as its size is not "
    "known: write jnp.where(mask, x, 0)",
    jax.errors.ConcretizationTypeError: "an array cannot be made a number of Python, nor a size: "
    "leave out int() and float(), and write x.astype(...)",
}


def _observations(env: Any, params: Any, obs: Any) -> tuple[Callable[..., Any], tuple[int, ...]]:
    """The encoding of a batch of observations as floats, and the shape of one encoded observation.

    obs: the shape and dtype of one, as reset gives it.
    """
    if not hasattr(obs, "shape"):
        raise ValueError(
            f"observations must be one array, got {type(obs).__name__}: flatten them in a wrapper"
        )
    if not _real(obs):
        raise ValueError(
            f"observations must be floats, whole numbers or booleans, got {_described(obs)}"
        )
    if math.prod(obs.shape) == 0:
        raise ValueError(f"observations must have at least one entry, got shape {obs.shape}")
    space = _space(env, "observation_space", params)
    if _is_discrete(space):
        n, first = int(space.n), _first(space)
        if n < 1 or obs.shape != () or jnp.issubdtype(obs.dtype, jnp.floating):
            raise ValueError(
                f"an observation of Discrete({n}) must be one whole number, got {_described(obs)}"
            )
        return lambda x: jax.nn.one_hot(x - first if first else x, n, dtype=float), (n,)
    shape = obs.shape or (1,)
    return lambda x: jnp.asarray(x).astype(float).reshape(-1, *shape), shape


def _obs_bounds(env: Any, params: Any, obs: Any, entries: Sequence[int]) -> Any:
    """The bounds of an encoded observation, a Box of numpy's arrays; None unless every entry has
    two of use.
    """
    space = _space(env, "observation_space", params)
    low: Any = getattr(space, "low", None)
    high: Any = getattr(space, "high", None)
    shape = obs.shape or (1,)
    if _is_discrete(space):  # it is one-hot
        low, high, shape = 0.0, 1.0, (int(space.n),)
    for bound in (low, high):
        if (
            bound is None
            or isinstance(bound, jax.core.Tracer)
            or np.shape(bound) not in ((), shape)
        ):
            return None
    low, high = (np.broadcast_to(np.asarray(bound, float), shape) for bound in (low, high))
    if not (np.abs([low, high]) < _NO_BOUND).all() or not (low < high).all():
        return None
    return Box(low[list(entries)], high[list(entries)]) if entries else Box(low, high)


def _real(x: Any) -> bool:
    return any(jnp.issubdtype(x.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))


def _described(x: Any) -> str:
    return f"{x.dtype} of shape {x.shape}"


def _seen(
    encode: Callable[..., Any], shape: tuple[int, ...], entries: Sequence[int]
) -> tuple[Any, tuple[int, ...]]:
    """The encoding without what is hidden."""
    if len(shape) != 1:
        raise ValueError(
            f"observe chooses entries of a vector, and the observation has shape {shape}"
        )
    if max(entries) >= shape[0]:
        raise ValueError(
            f"observe must be below {shape[0]}, the number of entries observed; got {max(entries)}"
        )
    return lambda x: encode(x)[..., jnp.asarray(entries)], (len(entries),)


def _held(step: Callable[..., Any], key: jax.Array, state: EnvState, times: int) -> tuple[Any, ...]:
    """`step` again and again until the episode ends, `times` at most.

    Returns the last transition with the sum of the rewards, and the number of steps that were
    taken.
    """

    def again(before: tuple[Any, ...], key: jax.Array) -> tuple[tuple[Any, ...], None]:
        state, _, total, *ends, count = before
        state, obs, reward, *new_ends = step(key, state)
        after = state, obs, total + reward, *new_ends, count + 1
        return jax.tree.map(
            lambda old, new: jnp.where(ends[0] | ends[1], old, new), before, after
        ), None

    keys = jax.random.split(key, times)
    first = *step(keys[0], state), jnp.int32(1)
    return scan_keys(again, first, keys[1:])[0]


def scan_keys(
    step: Callable[[Any, jax.Array], tuple[Any, Any]], carry: Any, keys: jax.Array
) -> tuple[Any, Any]:
    """`jax.lax.scan(step, carry, keys)` for random keys [n, ...].

    They pass as plain numbers: under `vmap` the search for keys that are used twice
    (`jax.debug_key_reuse`) takes the axis of a scan, which an array of keys has moved, for a use of
    all of them.
    """
    impl = jax.random.key_impl(keys)

    def one(carry: Any, data: jax.Array) -> tuple[Any, Any]:
        return step(carry, jax.random.wrap_key_data(data, impl=impl))

    return jax.lax.scan(one, carry, jax.random.key_data(keys))


def _actions(
    env: Any, params: Any, differentiable: bool = False
) -> tuple[Discrete | Box, Callable[[jax.Array], jax.Array]]:
    """The space of actions, and a function: an action that was chosen -> what the environment is
    given.
    """
    # bounds that depend on nothing traced are constants under jit too
    with jax.ensure_compile_time_eval():
        space = _space(env, "action_space", params)
        if space is None:
            raise ValueError(
                "the environment has no action_space(params): write one that gives a "
                "Discrete or a Box"
            )
        if _is_discrete(space):
            if int(space.n) < 1:
                raise ValueError(f"Discrete actions must be at least 1, got {space.n}")
            first = _first(space)
            return Discrete(int(space.n)), lambda action: action + first if first else action
        if not _is_box(space):
            raise ValueError(f"actions must be Discrete or Box, got {type(space).__name__}")
        box = _checked_box(Box(*(_filled(space.shape, bound) for bound in (space.low, space.high))))
    whole = not jnp.issubdtype(np.dtype(getattr(space, "dtype", None) or float), jnp.floating)
    if whole and differentiable:
        raise ValueError(
            "actions that are whole numbers have no derivative: use an estimator of "
            "the score instead"
        )

    def sent(action: jax.Array) -> jax.Array:
        inside = jnp.clip(action, box.low, box.high)
        return (
            jnp.round(inside).astype(jax.dtypes.canonicalize_dtype(space.dtype))
            if whole
            else inside
        )

    return box, sent


def _space(env: Any, name: str, params: Any) -> Any:
    """The space, of gymnax or gymnasium, as a method with or without params or as a property; None:
    there is none.
    """
    traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(params))
    # it may keep the space, which is that of these parameters and of this trace
    asked = _copied(env)

    def ask() -> Any:
        space = getattr(asked, name, None)
        if callable(space):
            return space(params) if inspect.signature(space).parameters else space()
        return space

    try:
        space = ask() if traced else _outside(ask)
    except NotImplementedError:
        return None
    except _NOT_TRACED as error:
        raise ValueError(_decides(name)) from error
    except Exception as error:
        unhashable = traced and "unhashable" in str(error)
        # gymnasium's spaces say so by themselves
        if traced and not unhashable and "Tracer" in str(error):
            raise ValueError(_decides(name)) from error
        why = "; a parameter is traced here, and cannot be the key of a cache" if unhashable else ""
        raise ValueError(_failure(name, error) + why) from error
    if isinstance(getattr(space, "n", None), jax.core.Tracer):
        raise ValueError(_decides(name))
    bounds = [getattr(space, bound, None) for bound in ("low", "high")]
    if any(isinstance(x, jax.core.Tracer) for x in bounds) and not _is_traced():
        raise ValueError(f"the environment's {name} fails: it {_KEPT}")
    return space


_NOT_TRACED = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


def _decides(name: str) -> str:
    return (
        f"the {name} of the environment needs the number of a parameter that is traced here: "
        "bounds of gymnax's Box may be traced, but no n of a Discrete, no shape, and nothing that "
        "a Python if decides on; give the parameter one number, in Config(env_params=...)"
    )


# What a context of jax may set for its thread alone, and what numbers depend on: each a function of
# jax.
_SETTINGS = (
    "allow_f16_reductions",
    "default_device",
    "default_matmul_precision",
    "default_prng_impl",
    "enable_custom_prng",
    "enable_x64",
    "legacy_prng_key",
    "numpy_dtype_promotion",
    "numpy_rank_promotion",
    "softmax_custom_jvp",
    "threefry_partitionable",
)


def _settings() -> dict[str, Any]:
    """The settings of jax that hold in this thread."""
    names = [name for name in _SETTINGS if hasattr(jax, name)]
    return {name: getattr(jax.config, f"jax_{name}") for name in names}


def _outside(f: Callable[[], Any]) -> Any:
    """Returns f(), outside of every trace and every mesh, and under the settings that hold here.

    Traces and meshes are a thread's own, and so f is called in another. Settings made by `with
    jax.enable_x64(True)` are a thread's own too, and those of Python (`np.errstate`): they are made
    there once more.
    """
    here = _settings()
    context = contextvars.copy_context()

    def under_settings() -> Any:
        there = _settings()
        with contextlib.ExitStack() as stack:
            for name, value in here.items():
                if value != there[name]:
                    stack.enter_context(getattr(jax, name)(value))
            return f()

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(context.run, under_settings).result()


def _copied(env: Any) -> Any:
    """Returns the same object once more, with attributes of its own; itself where it cannot be
    copied.
    """
    try:
        twin = object.__new__(type(env))
    except TypeError:  # a tuple, or another kind of Python's own
        return env
    for name, value in _attributes(env).items():
        own = copy.copy(value) if isinstance(value, dict | list | set) else value
        object.__setattr__(twin, name, own)
    return twin


def _attributes(x: Any) -> dict[str, Any]:
    """What an object holds: in its dict, and in the slots of its class and of every base."""
    held = dict(getattr(x, "__dict__", {}))
    for kind in type(x).__mro__:
        for name, member in vars(kind).items():
            if inspect.ismemberdescriptor(member):
                with contextlib.suppress(AttributeError):  # a slot without a value
                    held[name] = member.__get__(x)
    return held


def _is_discrete(space: Any) -> bool:
    return np.shape(getattr(space, "n", [])) == () and not getattr(space, "shape", ())


def _is_box(space: Any) -> bool:
    return all(hasattr(space, name) for name in ("low", "high", "shape"))


def _first(space: Any) -> int:
    """The first of the whole numbers of a Discrete space; another than 0 in gymnasium alone."""
    return int(getattr(space, "start", 0))


def _checked_box(box: Box) -> Box:
    """The box, if it has an inside; bounds that are traced are taken on trust."""
    if box.low.size == 0:
        raise ValueError(
            f"a Box of actions must have at least one entry, got shape {box.low.shape}"
        )
    if not any(isinstance(bound, jax.core.Tracer) for bound in box) and not np.all(
        box.low < box.high
    ):
        raise ValueError(
            f"a Box of actions must have low < high, got low={box.low.tolist()}, "
            f"high={box.high.tolist()}"
        )
    return box


def _filled(shape: tuple[int, ...], bound: Any) -> Any:
    """A bound as an array: numpy's, which no trace can hold on to, unless it is traced itself."""
    xp: Any = jnp if isinstance(bound, jax.core.Tracer) else np
    try:
        with np.errstate(over="ignore"):  # the largest of 64 bits
            filled = xp.full(shape, bound, jnp.result_type(float))
    except ValueError as error:
        raise ValueError(
            f"bounds of a Box of shape {shape} cannot have shape {np.shape(bound)}"
        ) from error
    return xp.where(abs(filled) >= _NO_BOUND, xp.copysign(np.inf, filled), filled).astype(
        filled.dtype
    )


_NO_BOUND = 1e9  # what is written where there is none: 2^31 - 1, 1e38, the largest float


def _check_step(
    step: Callable[..., Any], start: tuple[Any, Any], space: Discrete | Box, params: Any
) -> Any:
    """The dtypes of the state, once a step gives what it should, by its shapes alone.

    start: shapes of obs and state, as reset gives them.
    """
    action = jnp.int32(0) if isinstance(space, Discrete) else jnp.zeros(space.low.shape)
    obs, state = start
    after, next_obs, *scalars = _shapes("step", step, jax.random.key(0), state, action, params)
    for name, x in zip(("reward", "terminated", "truncated"), scalars, strict=True):
        if x.shape != ():
            raise ValueError(
                f"the environment's {name} must be a scalar, got shape {x.shape}: squeeze it in "
                f"step_env"
            )
        if not _real(x):
            raise ValueError(
                f"the environment's {name} must be a real number or a boolean, got {x.dtype}"
            )
    if getattr(next_obs, "shape", None) != obs.shape or next_obs.dtype != obs.dtype:
        got = _described(next_obs) if hasattr(next_obs, "shape") else type(next_obs).__name__
        raise ValueError(
            f"step must give observations like those of reset, {_described(obs)}; got {got}"
        )
    dtypes = _state_dtypes(state, after)
    wider = jax.tree.map(lambda x, dtype: jax.ShapeDtypeStruct(x.shape, dtype), state, dtypes)
    if any(
        x.dtype != y.dtype
        for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(wider), strict=True)
    ):
        # a step from there may give more digits still
        return _check_step(step, (obs, wider), space, params)
    return dtypes


def _state_dtypes(before: Any, after: Any) -> Any:
    """The dtype of each leaf of the state, which a reset and a step agree on: the wider where only
    the width differs.

    before, after: shapes and dtypes as reset and step give them. Raises ValueError where they do
    not fit together.
    """
    first, second = _by_path(before), _by_path(after)
    for name in first | second:
        old, new = first.get(name), second.get(name)
        shapes = [leaf.shape if leaf is not None else "none" for leaf in (old, new)]
        if old is None or new is None or shapes[0] != shapes[1]:
            raise ValueError(
                f"step must give a state like that of reset: {name} had shape {shapes[0]}, and "
                f"then {shapes[1]}"
            )
        if old.dtype != new.dtype and (_kind(old) is None or _kind(old) is not _kind(new)):
            raise ValueError(
                f"step must give a state like that of reset: {name} was {old.dtype}, and then "
                f"{new.dtype}, which gymnax's own step refuses too; make it jnp.asarray(..., "
                f"{jnp.promote_types(old.dtype, new.dtype)}) in both"
            )
    structures: list[Any] = [jax.tree.structure(tree) for tree in (before, after)]
    if structures[0] != structures[1]:
        raise ValueError(
            f"step must give a state like that of reset, {structures[0]}; got {structures[1]}"
        )

    def wider(old: Any, new: Any) -> Any:
        return old.dtype if old.dtype == new.dtype else jnp.promote_types(old.dtype, new.dtype)

    return jax.tree.map(wider, before, after)


def _by_path(tree: Any) -> dict[str, Any]:
    """The leaves under their names."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def _kind(x: Any) -> Any:
    """The kind of number in an array, within which one dtype holds all that a narrower one does."""
    kinds = (jnp.bool_, jnp.signedinteger, jnp.unsignedinteger, jnp.floating, jnp.complexfloating)
    return next((kind for kind in kinds if jnp.issubdtype(x.dtype, kind)), None)


def _as_dtypes(state: Any, dtypes: Any) -> Any:
    """The state in these dtypes, none of them weak (`time=0` is), which would compile everything a
    second time.
    """
    return jax.tree.map(lambda x, dtype: jax.lax.convert_element_type(x, dtype), state, dtypes)


def _is_traced() -> bool:
    """Tells whether this thread is within a trace."""
    return bool(get_opaque_trace_state() != _outside(get_opaque_trace_state))


def _check_limit(env: Any, is_given: bool) -> None:
    """Checks that the time limit was meant, and is no end of the task. is_given: among the
    overrides.

    Raises ValueError for what is kept beyond its trace, which the same steps show where this is
    called outside of every other; and for gymnax's own default of a single step, which nobody has
    set and which cuts episodes; warns of a limit that is told as an end. What gymnax and this
    package write themselves is not looked at.
    """
    if type(env).__module__.startswith(("gymnax.environments.", "pg.")):
        return
    found = _ends(env)
    if found.keeps and not _is_traced():
        raise ValueError(f"{name_of(env)} {_KEPT}")
    if found.inherits and not is_given and not found.at_once:
        raise ValueError(
            f"max_steps_in_episode of {name_of(env)} is 1, gymnax's default, and would cut every "
            f"episode after one "
            "step: set it in the class of default_params, as max_steps_in_episode: int = 500, or "
            "in env_params"
        )
    if found.at_the_limit:
        warnings.warn(
            f"{name_of(env)} sets terminated where its time limit cuts an episode, so that the cut "
            f"is learned as an "
            "end of the task: leave max_steps_in_episode out of what step_env gives as terminated, "
            "since gymnax 1.0 "
            "adds the truncation itself, or, where the task does end at that step, set a larger "
            "limit",
            stacklevel=3,
        )


class _Ends(NamedTuple):
    """The ends of an environment's episodes, as a few steps of it show them; None: they do not."""

    inherits: bool  # its time limit is gymnax's default of 1, or is written as that
    at_once: bool | None  # the first step is an end of the task
    at_the_limit: bool | None  # a step is an end of the task at the time limit and only there
    keeps: bool = False  # a step or a reset uses arrays of a trace other than its own


def _ends(env: Any) -> _Ends:
    """The ends of episodes: from the program of a first step, and where that does not say, from a
    few such steps.

    They are not taken where the program calls Python: an environment of that kind may count its
    calls.
    """
    params = _default_params(env)
    limit = _time_limit(params)
    inherits = limit == 1 and not _states_limit(type(params))
    far = limit if limit is not None and limit > 2 else 1000
    kind = np.asarray(params.max_steps_in_episode).dtype

    def read() -> _Ends:
        number = jax.ShapeDtypeStruct((), kind)
        key = jax.eval_shape(jax.random.key, 0)
        program = jax.make_jaxpr(functools.partial(_first_step, env, params))(number, number, key)
        if any(isinstance(x, jax.core.Tracer) for x in program.consts):
            return _Ends(inherits, None, None, keeps=True)
        if _calls_python(program):
            return _Ends(inherits, None, None)
        if not inherits and not _enters(program.jaxpr, [True, True, False])[0]:
            return _Ends(inherits, None, at_the_limit=False)
        return _Ends(inherits, *_probed(_Program(program), far, kind))

    try:
        return _outside(read)
    except Exception:  # it is no mistake to have a clock that cannot be set
        return _Ends(inherits, None, None)


class _Program:
    """A program as the key of a cache, equal to those that compute the same: it holds no
    environment.
    """

    def __init__(self, program: Any) -> None:
        self.program = program
        numbers = (
            jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
            for x in program.consts
        )
        self.text = str(program.jaxpr), *(np.asarray(x).tobytes() for x in numbers)

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Program) and self.text == other.text


@functools.lru_cache(maxsize=16)
def _probed(key: _Program, far: int, kind: np.dtype) -> tuple[bool, bool]:
    """`at_once` and `at_the_limit` of `_Ends`, from steps. key: the program of `_first_step`.

    The steps are taken from the same states with the same actions (a) far from the limit, (b) under
    a limit of 1, (c) with the clock one step before the limit, (d) two steps before it. What ends
    in (b) and not in (a), or in (c) and in neither (a) nor (d), ends by the limit.
    """
    limits, shifts = np.array([far, 1, far, far], kind), np.array([0, 0, far - 1, far - 2])
    step = jaxpr_as_fun(key.program)
    many = jax.vmap(jax.vmap(step, (None, None, 0)), (0, 0, None))
    quick = jax.jit(many, compiler_options={"xla_backend_optimization_level": 0})
    keys = jax.random.split(jax.random.key(0), 8)
    terminated, truncated = (np.asarray(x) for x in quick(limits, shifts.astype(kind), keys))
    cut, goes_on = terminated & truncated, ~terminated[0]
    at_the_limit = goes_on & (cut[1] | (cut[2] & ~terminated[3]))
    return bool(terminated[0].all()), bool(at_the_limit.any())


def _calls_python(program: Any) -> bool:
    """True where a program, or one within it, has a callback."""
    for eqn in program.eqns:
        inner = [x for x in jax.tree.leaves(dict(eqn.params)) if hasattr(x, "eqns")]
        if "callback" in eqn.primitive.name or any(map(_calls_python, inner)):
            return True
    return False


def _enters(program: Any, marks: Sequence[bool]) -> list[bool]:
    """For each output of a program, whether an input that is marked may enter it. False is certain.

    It looks into functions that are jitted, as gymnax's own steps are, and takes the other
    operations as wholes.
    """
    marked = {id(x) for x, mark in zip(program.invars, marks, strict=True) if mark}
    for eqn in program.eqns:
        given = [id(x) in marked for x in eqn.invars]
        inner = eqn.params.get("jaxpr") if eqn.primitive.name in ("jit", "pjit") else None
        gives = [any(given)] * len(eqn.outvars) if inner is None else _enters(inner.jaxpr, given)
        marked.update(id(x) for x, mark in zip(eqn.outvars, gives, strict=True) if mark)
    return [id(x) in marked for x in program.outvars]


def _first_step(
    env: Any, params: Any, limit: jax.Array, shift: jax.Array, key: jax.Array
) -> tuple[jax.Array, ...]:
    """terminated, truncated of a random step after a reset, under a time limit, the clock moved on
    by `shift`.
    """
    reset, step = _primitives(env)
    space, sent = _actions(env, params)
    params = _as_arrays(params.replace(max_steps_in_episode=limit))
    reset_key, action_key, step_key = jax.random.split(key, 3)
    if isinstance(space, Discrete):
        action = jax.random.randint(action_key, (), 0, space.n)
    else:
        action = jax.random.normal(action_key, space.low.shape)

    def moved_on(path: Any, x: Any) -> Any:
        name = getattr(path[-1], "name", None) if path else None
        return (
            jnp.asarray(x) + shift.astype(jnp.asarray(x).dtype)
            if name == "time" and jnp.shape(x) == ()
            else x
        )

    state = jax.tree_util.tree_map_with_path(moved_on, reset(reset_key, params)[1])
    *_, terminated, truncated = step(step_key, state, sent(action), params)
    return terminated.astype(bool), truncated.astype(bool)


def _states_limit(kind: type) -> bool:
    """True where a class of parameters has a max_steps_in_episode of its own, and not that of
    gymnax's base class.
    """
    owners = [
        base for base in kind.__mro__ if "max_steps_in_episode" in inspect.get_annotations(base)
    ]
    return owners[:1] != [environment.EnvParams]
