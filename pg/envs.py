"""Environments: B copies of a gymnax environment as two pure functions, `Env(reset, step)`.

The only importer of gymnax. What differs between environments ends here: observations become float arrays
(discrete ones are one-hot encoded), rewards floats, continuous actions are clipped to their box, and the step
keeps apart what gymnax's auto-reset would mix: `terminated`, `truncated`, and the true successor observation.
"""

import dataclasses
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

from pg.config import Config, check_env, check_steps
from pg.inputs import COUNTABLE, check_name


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
from gymnax.environments.bsuite.deep_sea import DeepSea  # noqa: E402

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
    max_steps: int | None  # the environment's own time limit, in steps of this one; None: it is traced
    differentiable: bool = False  # a step passes on the derivative of state and observation

    def horizon(self, bound: int | None = None) -> int:
        """The length of the longest episode, in steps: `bound`, or the environment's own time limit.

        Raises ValueError where there is no bound and the limit is traced.
        """
        longest = self.max_steps if bound is None else bound
        if longest is None:
            raise ValueError(
                "max_steps_in_episode is traced, so that the length of the longest episode is not known: set "
                "horizon to the largest of its values, as in Config(horizon=500)"
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

    env: a name registered with gymnax, or an object with gymnax's interface (1.0: a six-valued `step`).
    env_params: overrides of the environment's parameters; their values may be traced.
    action_repeat: environment steps for which an action is held, fewer where the episode ends; one `step` is so many.
    observe: entries of the observation that are seen, all if empty; it must be a vector.
    differentiable: derivatives pass through the transition, for pathwise gradients; a score needs none, and gymnax
    cuts them otherwise, though not those of the reward.
    Raises ValueError for an unknown name or parameter, an unsupported space, a reset or step that fails or gives
    something else than this module's contract, or dynamics that have no derivative.
    """
    base = _instance(env) if isinstance(env, str) else env
    if differentiable:
        base = _with_gradients(base)
    params = _override(_default_params(base), env_params or {})
    single_reset, single_step = _primitives(base)
    start = _shapes("reset", single_reset, jax.random.key(0), params, names=("obs", "state"))
    encode, obs_shape = _observations(base, params, start[0])
    if observe:
        encode, obs_shape = _seen(encode, obs_shape, observe)
    action_space = _actions(base, params)
    dtypes = _check_step(single_step, start, action_space, params)

    def one_step(key: jax.Array, state: EnvState, action: jax.Array) -> tuple[Any, ...]:
        next_state, obs, reward, terminated, truncated = single_step(key, state, action, params)
        ends = terminated.astype(bool), truncated.astype(bool)
        return _as_dtypes(next_state, dtypes), obs, reward.astype(float), *ends

    def clipped_step(key: jax.Array, state: EnvState, action: jax.Array) -> tuple[Any, ...]:
        if isinstance(action_space, Box):
            action = jnp.clip(action, action_space.low, action_space.high)
        if action_repeat == 1:
            return one_step(key, state, action)
        return _held(lambda key, state: one_step(key, state, action), key, state, action_repeat)

    def reset(key: jax.Array) -> tuple[EnvState, jax.Array]:
        obs, state = jax.vmap(single_reset, (0, None))(jax.random.split(key, num_envs), params)
        return _as_dtypes(state, dtypes), encode(obs)

    def step(key: jax.Array, state: EnvState, action: jax.Array) -> tuple[EnvState, Transition]:
        """key: one for all, or one per environment [B]. Continuous actions are clipped to their box."""
        keys = key if key.ndim else jax.random.split(key, num_envs)
        next_state, obs, reward, terminated, truncated = jax.vmap(clipped_step)(keys, state, action)
        return next_state, Transition(reward, terminated, truncated, encode(obs))

    limit = _time_limit(params)
    max_steps = None if limit is None else math.ceil(limit / action_repeat)
    return Env(reset, step, num_envs, obs_shape, action_space, max_steps, differentiable)


def configured(config: Config, num_envs: int, env_params: Mapping[str, Any] | None = None) -> Env:
    """The environment that a Config describes, as training and evaluation see it. env_params: overrides on top.

    Raises ValueError as `make_env` does, and where episodes are collected whose longest is not known or too long.
    """
    overrides = {**dict(config.env_params), **(env_params or {})}
    env = make_env(config.env, num_envs, overrides, action_repeat=config.action_repeat, observe=config.observe)
    if config.collect == "episodes":
        check_steps(config, env.horizon(config.horizon))
    return env


def parameters(env: Any) -> list[str]:
    """The names of an environment's parameters. env: as of `make_env`."""
    return list(vars(_default_params(_instance(env) if isinstance(env, str) else env)))


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


def _default_params(env: Any) -> Any:
    params = env.default_params
    if not (dataclasses.is_dataclass(params) and hasattr(params, "replace")):
        raise ValueError(f"the environment's default_params must be a flax.struct.dataclass, got {params!r:.80}")
    if not hasattr(params, "max_steps_in_episode"):
        raise ValueError(f"the environment's default_params must have max_steps_in_episode, got {params!r:.80}")
    return params


def _time_limit(params: Any) -> int | None:
    """The environment's own, in its steps; None where it is traced."""
    limit = params.max_steps_in_episode
    if isinstance(limit, jax.core.Tracer):
        return None
    number = np.asarray(limit)  # which computes outside of every trace
    countable = number.shape == () and number.dtype.kind in "iuf" and 1 <= number < COUNTABLE
    if not countable or number != int(number):
        raise ValueError(f"max_steps_in_episode must be a whole number of at least 1 and below 2^31, got {limit!r}")
    return int(number)


def _override(params: Any, overrides: Mapping[str, Any]) -> Any:
    valid = list(vars(params))
    for name in overrides:
        check_name("env_params", name, valid)
    return params.replace(**overrides) if overrides else params


def _primitives(env: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`reset` and a `step` that does not reset, of one environment.

    gymnax's own `step` is `step_env` with a reset behind it, so that `step_env` says the same without one. A `step`
    that somebody else wrote, in a wrapper (which forwards `step_env` to what it wraps, and so past itself), in a
    subclass or on the object alone, says what `step_env` does not: then it is the one that is taken. `reset` alike.
    """
    reset = env.reset if _is_own(env, "reset", "reset_env") else env.reset_env
    if _is_own(env, "step", "step_env"):
        return reset, _stepped(env)

    if not hasattr(env, "is_truncated"):
        raise ValueError(
            f"{type(env).__name__} has no is_truncated(state, params), which gymnax 1.0 asks for: {_WHY}"
        )

    def raw_step(key: jax.Array, state: EnvState, action: jax.Array, params: Any) -> tuple[Any, ...]:
        values = _values("step_env", env.step_env(key, state, action, params), _STEP_ENV)
        obs, state, reward, terminated, _ = values
        return state, obs, jnp.asarray(reward), jnp.asarray(terminated), env.is_truncated(state, params)

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
                f"the step of {type(env).__name__} must give the true successor in info['final_observation'], as "
                "gymnax's own does: call that, or write step_env instead of step"
            )
        last = info["final_observation"]
        done = jnp.asarray(terminated, bool) | jnp.asarray(truncated, bool)
        successor = jax.tree.map(lambda last, obs: jnp.where(done, last, obs), last, obs)
        return state, successor, jnp.asarray(reward), jnp.asarray(terminated), jnp.asarray(truncated)

    return step


_STEP = ("obs", "state", "reward", "terminated", "truncated", "info")
_STEP_ENV = ("obs", "state", "reward", "terminated", "info")
_WHY = "the end of the task and a limit of time are told apart"


class _InterfaceError(ValueError):
    """What is wrong with an environment, where its own code has not failed."""


def _values(method: str, given: Any, names: tuple[str, ...]) -> tuple[Any, ...]:
    if not isinstance(given, tuple | list) or len(given) != len(names):
        count = f"{len(given)} values" if isinstance(given, tuple | list) else type(given).__name__
        raise _InterfaceError(
            f"the environment's {method} must give {len(names)} values, {', '.join(names)}, as in gymnax 1.0, where "
            f"{_WHY}; got {count}"
        )
    return tuple(given)


def _shapes(method: str, function: Callable[..., Any], *args: Any, names: tuple[str, ...] = ()) -> Any:
    """What the environment's own code gives, as shapes. Raises ValueError where that code fails, in one line."""

    def run(*traced: Any) -> Any:
        given = function(*traced, args[-1])
        return _values(method, given, names) if names else given

    try:
        return jax.eval_shape(run, *args[:-1])  # parameters that are no arrays stay as they are
    except _InterfaceError:
        raise
    except Exception as error:
        line = str(error).strip().partition("\n")[0]
        raise ValueError(f"the environment's {method} fails: {type(error).__name__}: {line}") from error


def _observations(env: Any, params: Any, obs: Any) -> tuple[Callable[..., Any], tuple[int, ...]]:
    """The encoding of a batch of observations as floats, and the shape of one encoded observation.

    obs: the shape and dtype of one, as reset gives it.
    """
    if not hasattr(obs, "shape"):
        raise ValueError(f"observations must be one array, got {type(obs).__name__}: flatten them in a wrapper")
    if not _real(obs):
        raise ValueError(f"observations must be floats, whole numbers or booleans, got {_described(obs)}")
    if math.prod(obs.shape) == 0:
        raise ValueError(f"observations must have at least one entry, got shape {obs.shape}")
    space = env.observation_space(params)
    if isinstance(space, spaces.Discrete):
        n = int(space.n)
        if n < 1 or obs.shape != () or jnp.issubdtype(obs.dtype, jnp.floating):
            raise ValueError(f"an observation of Discrete({n}) must be one whole number, got {_described(obs)}")
        return lambda x: jax.nn.one_hot(x, n, dtype=float), (n,)
    shape = obs.shape or (1,)
    return lambda x: jnp.asarray(x).astype(float).reshape(-1, *shape), shape


def _real(x: Any) -> bool:
    return any(jnp.issubdtype(x.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))


def _described(x: Any) -> str:
    return f"{x.dtype} of shape {x.shape}"


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

    keys = jax.random.split(key, times)
    return jax.lax.scan(again, step(keys[0], state), keys[1:])[0]


def _actions(env: Any, params: Any) -> Discrete | Box:
    with jax.ensure_compile_time_eval():  # bounds that depend on nothing traced are constants under jit too
        space = env.action_space(params)
        if isinstance(space, spaces.Discrete):
            if int(space.n) < 1:
                raise ValueError(f"Discrete actions must be at least 1, got {space.n}")
            return Discrete(int(space.n))
        if isinstance(space, spaces.Box):
            return _checked_box(Box(*(_filled(space.shape, bound) for bound in (space.low, space.high))))
    raise ValueError(f"actions must be Discrete or Box, got {type(space).__name__}")


def _checked_box(box: Box) -> Box:
    """The box, if it has an inside; bounds that are traced are taken on trust."""
    if box.low.size == 0:
        raise ValueError(f"a Box of actions must have at least one entry, got shape {box.low.shape}")
    if not any(isinstance(bound, jax.core.Tracer) for bound in box) and not np.all(box.low < box.high):
        raise ValueError(
            f"a Box of actions must have low < high, got low={box.low.tolist()}, high={box.high.tolist()}"
        )
    return box


def _filled(shape: tuple[int, ...], bound: Any) -> Any:
    """A bound as an array: numpy's, which no trace can hold on to, unless it is traced itself."""
    try:
        if isinstance(bound, jax.core.Tracer):
            return jnp.full(shape, bound, float)
        return np.full(shape, bound, jnp.result_type(float))
    except ValueError as error:
        raise ValueError(f"bounds of a Box of shape {shape} cannot have shape {np.shape(bound)}") from error


def _check_step(step: Callable[..., Any], start: tuple[Any, Any], space: Discrete | Box, params: Any) -> Any:
    """The dtypes of the state, once a step gives what it should, by its shapes alone.

    start: shapes of obs and state, as reset gives them.
    """
    action = jnp.int32(0) if isinstance(space, Discrete) else jnp.zeros(space.low.shape)
    obs, state = start
    after, next_obs, *scalars = _shapes("step", step, jax.random.key(0), state, action, params)
    for name, x in zip(("reward", "terminated", "truncated"), scalars, strict=True):
        if x.shape != ():
            raise ValueError(
                f"the environment's {name} must be a scalar, got shape {x.shape}: squeeze it in step_env"
            )
        if not _real(x):
            raise ValueError(f"the environment's {name} must be a real number or a boolean, got {x.dtype}")
    if getattr(next_obs, "shape", None) != obs.shape or next_obs.dtype != obs.dtype:
        got = _described(next_obs) if hasattr(next_obs, "shape") else type(next_obs).__name__
        raise ValueError(f"step must give observations like those of reset, {_described(obs)}; got {got}")
    dtypes = _state_dtypes(state, after)
    wider = jax.tree.map(lambda x, dtype: jax.ShapeDtypeStruct(x.shape, dtype), state, dtypes)
    if any(x.dtype != y.dtype for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(wider), strict=True)):
        return _check_step(step, (obs, wider), space, params)  # a step from there may give more digits still
    return dtypes


def _state_dtypes(before: Any, after: Any) -> Any:
    """The dtype of each leaf of the state, which a reset and a step agree on: the wider where only the width differs.

    before, after: shapes and dtypes as reset and step give them. Raises ValueError where they do not fit together.
    """
    first, second = _by_path(before), _by_path(after)
    for name in first | second:
        old, new = first.get(name), second.get(name)
        shapes = [leaf.shape if leaf is not None else "none" for leaf in (old, new)]
        if old is None or new is None or shapes[0] != shapes[1]:
            raise ValueError(
                f"step must give a state like that of reset: {name} had shape {shapes[0]}, and then {shapes[1]}"
            )
        if old.dtype != new.dtype and (_kind(old) is None or _kind(old) is not _kind(new)):
            raise ValueError(
                f"step must give a state like that of reset: {name} was {old.dtype}, and then {new.dtype}, which "
                f"gymnax's own step refuses too; make it jnp.asarray(..., {jnp.promote_types(old.dtype, new.dtype)}) "
                "in both"
            )
    structures: list[Any] = [jax.tree.structure(tree) for tree in (before, after)]
    if structures[0] != structures[1]:
        raise ValueError(f"step must give a state like that of reset, {structures[0]}; got {structures[1]}")

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
    """The state in these dtypes, none of them weak (`time=0` is), which would compile everything a second time."""
    return jax.tree.map(lambda x, dtype: jax.lax.convert_element_type(x, dtype), state, dtypes)
