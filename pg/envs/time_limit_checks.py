"""Checks that an environment's time limit is intended, and does not count as termination."""

import functools
import inspect
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun

from pg.config import name_of
from pg.envs.actions import action_space, random_action
from pg.envs.env_params import as_arrays, default_params, time_limit
from pg.envs.failures import OUTLIVES_TRACE
from pg.envs.interface import reset_and_step
from pg.envs.library import environment
from pg.envs.tracing import call_outside_traces, calls_python, is_tracing
from pg.fast import key_numbers

__all__ = ["EpisodeEnds", "check_time_limit", "episode_ends"]


def check_time_limit(env: Any, is_overridden: bool) -> None:
    """Checks that the time limit is intended, and is not a termination. is_overridden: it is among
    the overrides.

    Raises ValueError for arrays kept beyond their trace, which the same steps reveal if this is
    called outside of every other trace; and for gymnax's default of a single step, if nobody has
    set it and it cuts episodes; warns of a limit that is reported as termination. Environments of
    gymnax and of this package are not checked.
    """
    if type(env).__module__.startswith(("gymnax.environments.", "pg.")):
        return
    ends = episode_ends(env)
    if ends.outlives_trace and not is_tracing():
        raise ValueError(f"{name_of(env)} {OUTLIVES_TRACE}")
    if ends.default_limit and not is_overridden and not ends.at_once:
        raise ValueError(
            f"max_steps_in_episode of {name_of(env)} is 1, gymnax's default, and would cut every "
            f"episode after one "
            "step: set it in the class of default_params, as max_steps_in_episode: int = 500, or "
            "in env_params"
        )
    if ends.at_the_limit:
        warnings.warn(
            f"{name_of(env)} sets terminated when its time limit cuts an episode, so that the cut "
            f"is learned as an "
            "end of the task: leave max_steps_in_episode out of step_env's terminated, "
            "since gymnax 1.0 "
            "adds the truncation itself, or, where the task does end at that step, set a larger "
            "limit",
            stacklevel=3,
        )


class EpisodeEnds(NamedTuple):
    """Findings on the ends of an environment's episodes, from a few steps; None: unknown."""

    default_limit: bool  # its time limit is gymnax's default of 1, or written as 1
    at_once: bool | None  # the first step terminates
    at_the_limit: bool | None  # a step terminates at the time limit and only there
    outlives_trace: bool = False  # a step or a reset uses arrays of a trace other than its own


def episode_ends(env: Any) -> EpisodeEnds:
    """The ends of episodes: from the program of a first step, and if that is inconclusive, from a
    few such steps.

    No steps are taken if the program calls Python: such an environment may count its calls.
    """
    params = default_params(env)
    limit = time_limit(params)
    default_limit = limit == 1 and not _states_limit(type(params))
    far_limit = limit if limit is not None and limit > 2 else 1000
    dtype = np.asarray(params.max_steps_in_episode).dtype

    def read_program() -> EpisodeEnds:
        number = jax.ShapeDtypeStruct((), dtype)
        key = jax.eval_shape(jax.random.key, 0)
        first_step = functools.partial(_first_step, env, params)
        program = jax.make_jaxpr(first_step)(number, number, key)
        if any(isinstance(x, jax.core.Tracer) for x in program.consts):
            return EpisodeEnds(default_limit, None, None, outlives_trace=True)
        if calls_python(program):
            return EpisodeEnds(default_limit, None, None)
        terminated_uses_limit = _depends(program.jaxpr, [True, True, False])[0]
        if not default_limit and not terminated_uses_limit:
            return EpisodeEnds(default_limit, None, at_the_limit=False)
        return EpisodeEnds(default_limit, *_take_steps(_Program(program), far_limit, dtype))

    try:
        return call_outside_traces(read_program)
    except Exception:  # a clock that cannot be set is not an error
        return EpisodeEnds(default_limit, None, None)


class _Program:
    """A program as a cache key, equal to programs that compute the same; it keeps no environment
    alive.
    """

    def __init__(self, program: Any) -> None:
        self.program = program
        constants = key_numbers.as_numbers(program.consts)
        self.text = str(program.jaxpr), *(np.asarray(x).tobytes() for x in constants)

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Program) and self.text == other.text


@functools.lru_cache(maxsize=16)
def _take_steps(first_step: _Program, far_limit: int, dtype: np.dtype) -> tuple[bool, bool]:
    """`at_once` and `at_the_limit` of `EpisodeEnds`, from steps.

    The steps are taken from the same states with the same actions (a) far from the limit, (b) under
    a limit of 1, (c) with the clock one step before the limit, (d) two steps before it. An
    episode that ends in (b) and not in (a), or in (c) and in neither (a) nor (d), ends by the
    limit.
    """
    limits = np.array([far_limit, 1, far_limit, far_limit], dtype)
    shifts = np.array([0, 0, far_limit - 1, far_limit - 2]).astype(dtype)
    step = jaxpr_as_fun(first_step.program)
    over_keys = jax.vmap(step, (None, None, 0))
    over_limits = jax.vmap(over_keys, (0, 0, None))
    # not worth optimizing a program for a few steps
    quick = jax.jit(over_limits, compiler_options={"xla_backend_optimization_level": 0})
    keys = jax.random.split(jax.random.key(0), 8)
    terminated, truncated = (np.asarray(x) for x in quick(limits, shifts, keys))
    cut, goes_on = terminated & truncated, ~terminated[0]
    at_the_limit = goes_on & (cut[1] | (cut[2] & ~terminated[3]))
    return bool(terminated[0].all()), bool(at_the_limit.any())


def _depends(program: Any, marks: Sequence[bool]) -> list[bool]:
    """For each output of a program, whether it may depend on a marked input. False is certain.

    It looks into jitted functions, such as gymnax's steps, and treats other operations as units.
    """
    marked = {id(x) for x, mark in zip(program.invars, marks, strict=True) if mark}
    for eqn in program.eqns:
        inputs = [id(x) in marked for x in eqn.invars]
        if eqn.primitive.name in ("jit", "pjit"):
            outputs = _depends(eqn.params["jaxpr"].jaxpr, inputs)
        else:
            outputs = [any(inputs)] * len(eqn.outvars)
        marked.update(id(x) for x, mark in zip(eqn.outvars, outputs, strict=True) if mark)
    return [id(x) in marked for x in program.outvars]


def _first_step(
    env: Any, params: Any, limit: jax.Array, shift: jax.Array, key: jax.Array
) -> tuple[jax.Array, ...]:
    """terminated, truncated of a random step after a reset, under a time limit, the clock advanced
    by `shift`.
    """
    reset, step = reset_and_step(env)
    space, to_own_action = action_space(env, params)
    params = as_arrays(params.replace(max_steps_in_episode=limit))
    reset_key, action_key, step_key = jax.random.split(key, 3)
    action = random_action(space, action_key)

    def move_clock(path: Any, x: Any) -> Any:
        name = getattr(path[-1], "name", None) if path else None
        if name == "time" and jnp.shape(x) == ():
            return jnp.asarray(x) + shift.astype(jnp.asarray(x).dtype)
        return x

    state = jax.tree_util.tree_map_with_path(move_clock, reset(reset_key, params)[1])
    _, _, _, terminated, truncated, _ = step(step_key, state, to_own_action(action), params)
    return terminated.astype(bool), truncated.astype(bool)


def _states_limit(kind: type) -> bool:
    """True if a class of parameters defines max_steps_in_episode itself, instead of inheriting that
    of gymnax's base class.
    """
    owners = [
        base for base in kind.__mro__ if "max_steps_in_episode" in inspect.get_annotations(base)
    ]
    return owners[:1] != [environment.EnvParams]
