"""Environments: B copies of a gymnax environment as two pure functions, `Env(reset, step)`.

The only importer of gymnax. What differs between environments ends here: observations become float arrays
(discrete ones are one-hot encoded), rewards floats, continuous actions are clipped to their box, and the step
keeps apart what gymnax's auto-reset would mix: `terminated`, `truncated`, and the true successor observation.
"""

import functools
import importlib
import math
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pg.config import Config, check_env, check_name


class _Lazy(types.ModuleType):
    """Stands in for a plotting library that gymnax imports, and loads the library when it is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import machinery looks at these, and needs no library for it
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


# Environments of gymnax import these for their pictures; seaborn (with pandas and scipy) and pyplot cost seconds.
_PLOTTING = [name for name in ("seaborn", "matplotlib.pyplot") if name not in sys.modules]
sys.modules.update({name: _Lazy(name) for name in _PLOTTING})
import gymnax  # noqa: E402

for _name in _PLOTTING:  # gymnax keeps its stand-in; everyone else gets the library
    if isinstance(sys.modules[_name], _Lazy):
        del sys.modules[_name]

from gymnax.environments import environment, spaces  # noqa: E402

__all__ = ["Box", "Discrete", "Env", "Transition", "configured", "environment", "gymnax", "make_env", "spaces"]

EnvState = Any


class Discrete(NamedTuple):
    """Actions 0 .. n-1."""

    n: int


class Box(NamedTuple):
    """Continuous actions between `low` and `high`, float arrays of the action's shape (traced if swept)."""

    low: jax.Array
    high: jax.Array


class Transition(NamedTuple):
    """What one step of B environments gives."""

    reward: jax.Array  # [B] float
    terminated: jax.Array  # [B] bool: the task ended; nothing follows
    truncated: jax.Array  # [B] bool: a time limit cut the episode; both can be set, then `terminated` wins
    next_obs: jax.Array  # [B, *O] the true successor, never the observation of a reset


class Env(NamedTuple):
    """B environments as pure functions. Steps do not reset: rollouts do, where they need to."""

    reset: Callable[[jax.Array], tuple[EnvState, jax.Array]]  # key -> env_state, obs [B, *O]
    step: Callable[..., tuple[EnvState, Transition]]  # key, env_state, action [B, *A] -> env_state, Transition
    num_envs: int
    obs_shape: tuple[int, ...]
    action_space: Discrete | Box
    max_steps: int  # the environment's own time limit, in steps of this one
    differentiable: bool = False  # a step passes on the derivative of state and observation


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

    env: a name registered with gymnax, or an object with gymnax's interface (1.0: a six-valued `step`).
    env_params: overrides of the environment's parameters; their values may be traced.
    action_repeat: environment steps for which an action is held, fewer where the episode ends; one `step` is so many.
    observe: entries of the observation that are seen, all if empty; it must be a vector.
    differentiable: derivatives pass through the transition, for pathwise gradients; a score needs none, and gymnax
    cuts them otherwise, though not those of the reward.
    Raises ValueError for an unknown name or parameter, an unsupported space, a reward that is no scalar, or dynamics
    that have no derivative.
    """
    base = _instance(env) if isinstance(env, str) else env
    if differentiable:
        base = _with_gradients(base)
    params = _override(base.default_params, env_params or {})
    single_reset, single_step = _primitives(base)
    encode, obs_shape = _observations(base, params, single_reset)
    if observe:
        encode, obs_shape = _seen(encode, obs_shape, observe)
    action_space = _actions(base, params)
    _check_reward(single_reset, single_step, base, params)

    def clipped_step(key: jax.Array, state: EnvState, action: jax.Array) -> tuple[Any, ...]:
        if isinstance(action_space, Box):
            action = jnp.clip(action, action_space.low, action_space.high)
        if action_repeat == 1:
            return single_step(key, state, action, params)
        return _held(lambda key, state: single_step(key, state, action, params), key, state, action_repeat)

    def reset(key: jax.Array) -> tuple[EnvState, jax.Array]:
        obs, state = jax.vmap(single_reset, (0, None))(jax.random.split(key, num_envs), params)
        return _strong(state), encode(obs)

    def step(key: jax.Array, state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        """key: one for all, or one per environment [B]. Continuous actions are clipped to their box."""
        keys = key if key.ndim else jax.random.split(key, num_envs)
        next_state, obs, reward, terminated, truncated = jax.vmap(clipped_step)(keys, state, action)
        next_state = jax.tree.map(lambda new, old: new.astype(old.dtype), _strong(next_state), state)
        return next_state, Transition(
            reward.astype(float), terminated.astype(bool), truncated.astype(bool), encode(obs)
        )

    max_steps = getattr(params, "max_steps_in_episode", None)
    if max_steps is None or isinstance(max_steps, jax.core.Tracer):
        max_steps = base.default_params.max_steps_in_episode
    max_steps = math.ceil(int(max_steps) / action_repeat)
    return Env(reset, step, num_envs, obs_shape, action_space, max_steps, differentiable)


def configured(config: Config, num_envs: int, env_params: Mapping[str, Any] | None = None) -> Env:
    """The environment that a Config describes, as training and evaluation see it. env_params: overrides on top."""
    overrides = {**dict(config.env_params), **(env_params or {})}
    return make_env(config.env, num_envs, overrides, action_repeat=config.action_repeat, observe=config.observe)


def parameters(env: Any) -> list[str]:
    """The names of an environment's parameters. env: as of `make_env`."""
    return list(vars((_instance(env) if isinstance(env, str) else env).default_params))


@functools.cache
def _instance(name: str) -> Any:
    """One object per name: gymnax's jitted methods are cached by the object's identity."""
    check_env(name)
    if ":" in name:  # adapters are written on top of this module, so it loads them only here
        return importlib.import_module("pg.adapters").make(name)
    with jax.ensure_compile_time_eval():  # it may hold arrays, and is kept beyond the trace that asks for it first
        return gymnax.make(name)[0]


def _with_gradients(env: Any) -> Any:
    if not getattr(env, "supports_transition_gradients", False):
        name = getattr(env, "name", type(env).__name__)
        raise ValueError(f"the dynamics of {name} have no derivative: use an estimator of the score instead")
    return env.with_transition_gradients()


def _override(params: Any, overrides: Mapping[str, Any]) -> Any:
    valid = list(vars(params))
    for name in overrides:
        check_name("env_params", name, valid)
    return params.replace(**overrides) if overrides else params


def _primitives(env: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`reset` and a `step` that does not reset, of one environment.

    A wrapper forwards `step_env` to what it wraps, and so past itself; only its `step` is its own.
    """
    if not hasattr(type(env), "step_env"):

        def step(key: jax.Array, state: EnvState, action: jax.Array, params: Any) -> tuple[Any, ...]:
            _, state, reward, terminated, truncated, info = env.step(key, state, action, params)
            return state, info["final_observation"], reward, terminated, truncated

        return env.reset, step

    def raw_step(key: jax.Array, state: EnvState, action: jax.Array, params: Any) -> tuple[Any, ...]:
        obs, state, reward, terminated, _ = env.step_env(key, state, action, params)
        return state, obs, jnp.asarray(reward), jnp.asarray(terminated), env.is_truncated(state, params)

    return env.reset_env, raw_step


def _observations(env: Any, params: Any, reset: Callable[..., Any]) -> tuple[Callable[..., Any], tuple[int, ...]]:
    """The encoding of a batch of observations as floats, and the shape of one encoded observation."""
    obs, _ = jax.eval_shape(reset, jax.random.key(0), params)
    if not hasattr(obs, "shape"):
        raise ValueError(f"observations must be one array, got {type(obs).__name__}: flatten them in a wrapper")
    space = env.observation_space(params)
    if isinstance(space, spaces.Discrete):
        n = int(space.n)
        return lambda x: jax.nn.one_hot(x, n, dtype=float), (n,)
    shape = obs.shape or (1,)
    return lambda x: jnp.asarray(x).astype(float).reshape(-1, *shape), shape


def _seen(encode: Callable[..., Any], shape: tuple[int, ...], entries: Sequence[int]) -> tuple[Any, tuple[int, ...]]:
    """The encoding without what is hidden."""
    if len(shape) != 1:
        raise ValueError(f"observe chooses entries of a vector, and the observation has shape {shape}")
    if max(entries) >= shape[0]:
        raise ValueError(f"observe must be below {shape[0]}, the number of entries observed; got {max(entries)}")
    return lambda x: encode(x)[..., jnp.asarray(entries)], (len(entries),)


def _held(step: Callable[..., Any], key: jax.Array, state: EnvState, times: int) -> tuple[Any, ...]:
    """`step` again and again until the episode ends, `times` at most: the last transition, rewards summed."""

    def again(before: tuple[Any, ...], key: jax.Array) -> tuple[tuple[Any, ...], None]:
        state, _, total, *ends = before
        after = step(key, state)
        after = (*after[:2], total + after[2], *after[3:])
        return jax.tree.map(lambda old, new: jnp.where(ends[0] | ends[1], old, new), before, after), None

    first_key, *keys = jax.random.split(key, times)
    return jax.lax.scan(again, step(first_key, state), jnp.stack(keys))[0]


def _actions(env: Any, params: Any) -> Discrete | Box:
    with jax.ensure_compile_time_eval():  # bounds that depend on nothing traced are constants under jit too
        space = env.action_space(params)
        if isinstance(space, spaces.Discrete):
            return Discrete(int(space.n))
        if isinstance(space, spaces.Box):
            return Box(*(_filled(space.shape, bound) for bound in (space.low, space.high)))
    raise ValueError(f"actions must be Discrete or Box, got {type(space).__name__}")


def _filled(shape: tuple[int, ...], bound: Any) -> Any:
    """A bound as an array: numpy's, which no trace can hold on to, unless it is traced itself."""
    if isinstance(bound, jax.core.Tracer):
        return jnp.full(shape, bound, float)
    return np.full(shape, bound, jnp.result_type(float))


def _check_reward(reset: Callable[..., Any], step: Callable[..., Any], env: Any, params: Any) -> None:
    def one(key: jax.Array) -> Any:
        reset_key, action_key, step_key = jax.random.split(key, 3)
        _, state = reset(reset_key, params)
        return step(step_key, state, env.action_space(params).sample(action_key), params)[2]

    shape = jax.eval_shape(one, jax.random.key(0)).shape
    if shape != ():
        raise ValueError(f"the environment's reward must be a scalar, got shape {shape}: squeeze it in step_env")


def _strong(tree: Any) -> Any:
    """`tree` without weak types (`time=0` is one), which would compile everything a second time."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.asarray(x).dtype), tree)
