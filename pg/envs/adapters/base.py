"""An environment as two functions, which each library's adapter states, and gymnax's interface
around them.

    reset(key)                  -> obs, state
    step(key, state, action)    -> obs, state, reward, terminated, truncated

`step` neither resets nor counts: `obs` is the true successor, and `truncated` only a truncation by
the library for another reason than the number of steps. The steps are counted here, against
`max_steps_in_episode`.
"""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from pg.envs import environment, spaces
from pg.envs.adapters.hosts import HostError

__all__ = ["NEVER", "Adapter", "HostError", "faults_in_one_sentence", "with_results_in_state"]

NEVER = 2**30  # a time limit for the library's own counter, which is never reached


@contextlib.contextmanager
def faults_in_one_sentence() -> Iterator[None]:
    """Raises the HostError of a callback, whose text JAX wraps in its own report."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        sentence = str(error).partition(f"{HostError.__name__}: ")[2].partition("\n")[0]
        if not sentence:
            raise
        _forget_failed_programs()
        raise HostError(sentence) from None


def _forget_failed_programs() -> None:
    """Waits for running programs until one has failed, and forgets them all; JAX would report
    failed ones again at the end of the process, with all calls.
    """
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        jax.effects_barrier()
    tokens = getattr(sys.modules.get("jax._src.dispatch"), "runtime_tokens", None)
    if tokens is not None:
        tokens.clear()


def _is_no_fault(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HostError))


# which prints the traceback of its exception
logging.getLogger("jax._src.callback").addFilter(_is_no_fault)


@struct.dataclass
class State(environment.EnvState):
    """The state of one environment, `time` steps after its reset."""

    inner: Any  # the library's own state
    truncated: jax.Array  # the library cut the episode at this step


class Adapter(environment.Environment):
    """gymnax's interface of one environment of another library."""

    def __init__(
        self,
        name: str,
        reset: Callable[[jax.Array], tuple[Any, Any]],
        step: Callable[[jax.Array, Any, Any], tuple[Any, Any, Any, Any, Any]],
        action_space: Any,
        max_steps: int,
        observation_space: Any = None,
        action_mask: Callable[[Any], Any] | None = None,
    ) -> None:
        """An environment of these functions.

        Args:
            name: The library and its name of the environment.
            reset: key -> obs, state.
            step: key, state, action -> obs, state, reward, terminated, truncated.
            action_space: A space of gymnax.
            max_steps: The time limit.
            observation_space: A space of gymnax; default: an unbounded Box of reset's shape.
            action_mask: The library's state -> the legal actions; None: every action is legal.
        """
        self._name, self._reset, self._step = name, reset, step
        self._action_space, self._observation_space = action_space, observation_space
        self._max_steps = max_steps
        if action_mask is not None:
            self.action_mask = lambda state, params: action_mask(state.inner)

    @property
    def name(self) -> str:
        """The library and its name of the environment."""
        return self._name

    @property
    def default_params(self) -> environment.EnvParams:
        """The time limit, which `env_params` may change."""
        return environment.EnvParams(max_steps_in_episode=self._max_steps)

    def reset_env(self, key: jax.Array, params: environment.EnvParams) -> tuple[Any, State]:
        """obs, state of a new episode."""
        obs, inner = self._reset(key)
        return obs, State(time=jnp.int32(0), inner=inner, truncated=jnp.bool_(False))

    def step_env(
        self, key: jax.Array, state: State, action: Any, params: environment.EnvParams
    ) -> Any:
        """obs, state, reward, terminated, info of the step, which does not reset."""
        obs, inner, reward, terminated, truncated = self._step(key, state.inner, action)
        state = State(time=state.time + 1, inner=inner, truncated=jnp.asarray(truncated, bool))
        return obs, state, jnp.asarray(reward), jnp.asarray(terminated, bool), {}

    def is_truncated(self, state: State, params: environment.EnvParams) -> jax.Array:
        """True if a limit ended the episode at `state`: the time limit, or one of the library."""
        return state.truncated | (state.time >= params.max_steps_in_episode)

    def action_space(self, params: environment.EnvParams) -> Any:
        """The library's action space, as one of gymnax."""
        return self._action_space

    def observation_space(self, params: environment.EnvParams) -> Any:
        """Discrete, or a Box with the shape of an observation; None for a tree without a declared
        space.
        """
        if self._observation_space is not None:
            return self._observation_space
        obs = jax.eval_shape(lambda: self._reset(jax.random.key(0))[0])
        if not hasattr(obs, "shape"):
            return None
        return spaces.Box(-jnp.inf, jnp.inf, obs.shape, obs.dtype)


def with_results_in_state(env: Any, name: str, max_steps: int) -> Adapter:
    """An environment whose state holds the observation, the reward and `done` of its last step, and
    whose actions are a box from -1 to 1: the interface of Brax and Playground.

    Args:
        env: The environment, without the wrappers that count steps and reset.
        name: The library and its name of the environment.
        max_steps: The time limit.
    """

    def reset(key: jax.Array) -> tuple[Any, Any]:
        state = env.reset(jax.random.key_data(key))
        return state.obs, state

    def step(key: jax.Array, state: Any, action: jax.Array) -> Any:
        state = env.step(state, action)
        return state.obs, state, state.reward, state.done > 0, False

    return Adapter(name, reset, step, spaces.Box(-1.0, 1.0, (env.action_size,)), max_steps)
