"""Gymnasium: environments in plain Python, stepped on the host by a callback, `gymnasium:CartPole-v1`. Slow.

A Gymnasium environment cannot be copied, so its state cannot be an array that JAX may keep, drop or use twice. What
can is all that led to it: the seed of the reset and the actions since. That play is our state, which makes the step
the pure function that JAX takes it for, in episodes and in windows, in groups and sweeps, and after a checkpoint.
The host keeps environments alive at the plays that they have reached, so that a step is normally one `env.step`; from
a play that it no longer holds, it resets with the seed and takes all the actions again.

    state = (seed, t, a_0 ... a_{t-1}),   one array of the longest episode's length

Observations are Box or Discrete, others go through Gymnasium's own `FlattenObservation`; actions are Box or Discrete.
Limits: the environment is made without the wrapper that counts steps. The number it would have counted to is ours
(without one: 1000, or `max_steps`); `max_steps_in_episode` may lower it, but no episode is longer. `truncated` of
the environment itself is passed on.
Lost: `info`, and speed: every step of every environment is a call of Python, one after another, and windows reset as
often as they step. An environment whose course depends on more than seed and actions (a clock, a network) is not
for this adapter, nor is a mesh of several devices.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from pg.adapters.base import Adapter
from pg.envs import spaces
from pg.inputs import check_name

__all__ = ["adapt", "make"]


class Play(NamedTuple):
    """How an environment came to where it stands."""

    seed: jax.Array  # uint32 []
    time: jax.Array  # int32 []
    actions: jax.Array  # [H, *A], of which the first `time` were taken


class _Host:
    """Environments, each kept under the play that it has reached, and what the play's last step gave."""

    def __init__(self, build: Callable[[], Any]) -> None:
        self.build = build
        self.at: OrderedDict[Any, tuple[Any, Any]] = OrderedDict()  # what was used last is at the end
        self.idle = [build()]
        self.largest = 1  # environments in one call
        self.lock = threading.Lock()  # XLA may run two callbacks at a time
        self.observations, self.actions = self.idle[0].observation_space, self.idle[0].action_space
        self.dtype = jax.dtypes.canonicalize_dtype(self.observations.dtype)

    def reset(self, seed: jax.Array) -> np.ndarray:
        """The observation after a reset with each seed."""
        seeds = np.asarray(seed)
        with self.lock:
            env = self._idle()
            obs = [self._observed(env.reset(seed=int(s))[0]) for s in seeds.ravel()]
            self.idle.append(env)
        return np.stack(obs).reshape(*seeds.shape, *self.observations.shape)

    def step(self, play: Play, action: jax.Array) -> tuple[np.ndarray, ...]:
        """obs, reward, terminated and truncated of one more action for each play."""
        seeds, times, taken, chosen = (np.asarray(x) for x in (*play, action))
        which = list(np.ndindex(seeds.shape))
        with self.lock:
            rows = [self._step(int(seeds[i]), taken[i][: times[i]], chosen[i], len(taken[i])) for i in which]
            self.largest = max(self.largest, len(which))
            while len(self.at) > self.largest:
                self.idle.append(self.at.popitem(last=False)[1][0])
        columns = [np.stack(column) for column in zip(*rows, strict=True)]
        return tuple(column.reshape(*seeds.shape, *column.shape[1:]) for column in columns)

    def _step(self, seed: int, past: np.ndarray, action: np.ndarray, longest: int) -> Any:
        before = seed, past.tobytes()
        after = seed, past.tobytes() + action.tobytes()
        if after not in self.at:  # else a twin has been here: the same seed, the same actions
            env, outcome = self.at.pop(before, None) or self._replay(seed, past)
            if outcome is not None and (outcome[2] or outcome[3] or len(past) == longest):
                after = before  # over: it stands still
            else:
                outcome = self._act(env, action)
            self.at[after] = env, outcome
        self.at.move_to_end(after)
        return self.at[after][1]

    def _replay(self, seed: int, past: np.ndarray) -> Any:
        env, outcome = self._idle(), None
        env.reset(seed=seed)
        for action in past:
            outcome = self._act(env, action)
        return env, outcome

    def _act(self, env: Any, action: np.ndarray) -> Any:
        discrete = isinstance(self.actions, gymnasium.spaces.Discrete)
        sent = int(action + self.actions.start) if discrete else action.astype(self.actions.dtype)
        obs, reward, terminated, truncated, _ = env.step(sent)
        return self._observed(obs), np.asarray(reward, jnp.result_type(float)), bool(terminated), bool(truncated)

    def _observed(self, obs: Any) -> np.ndarray:
        return np.asarray(obs - getattr(self.observations, "start", 0), self.dtype)

    def _idle(self) -> Any:
        return self.idle.pop() if self.idle else self.build()


def make(name: str, max_steps: int | None = None, **options: Any) -> Adapter:
    """The environment that Gymnasium has under this name; options are those of `gymnasium.make`."""
    if ":" not in name:  # "module:environment" is registered by the import of its module
        check_name("environment of gymnasium", name, gymnasium.registry)
    options = {"disable_env_checker": True, **options, "max_episode_steps": -1}
    limit = max_steps or gymnasium.spec(name).max_episode_steps or 1000
    return adapt(lambda: gymnasium.make(name, **options), name, limit)


def adapt(build: Callable[[], Any], name: str, max_steps: int = 1000) -> Adapter:
    """The environment that `build()` makes, a new one at each call and without a limit of time.

    Raises ValueError if its actions are not Box or Discrete.
    """

    def flat() -> Any:
        env = build()
        plain = isinstance(env.observation_space, gymnasium.spaces.Box | gymnasium.spaces.Discrete)
        return env if plain else gymnasium.wrappers.FlattenObservation(env)

    host = _Host(flat)
    actions, observations = _space(host.actions, name), _space(host.observations, name)
    obs_shape = jax.ShapeDtypeStruct(observations.shape, host.dtype)
    flag = jax.ShapeDtypeStruct((), bool)

    def reset(key: jax.Array) -> tuple[Any, Play]:
        seed = jax.random.bits(key, (), jnp.uint32)
        obs = jax.pure_callback(host.reset, obs_shape, seed, vmap_method="broadcast_all")
        return obs, Play(seed, jnp.int32(0), jnp.zeros((max_steps, *actions.shape), actions.dtype))

    def step(key: jax.Array, play: Play, action: jax.Array) -> Any:
        action = jnp.asarray(action, actions.dtype)
        reward = jax.ShapeDtypeStruct((), jnp.result_type(float))
        gives = obs_shape, reward, flag, flag
        obs, *outcome, cut = jax.pure_callback(host.step, gives, play, action, vmap_method="broadcast_all")
        after = Play(play.seed, play.time + 1, play.actions.at[play.time].set(action))
        return obs, after, *outcome, cut | (after.time >= max_steps)

    return Adapter(f"gymnasium:{name}", reset, step, actions, max_steps, observations)


def _space(space: Any, name: str) -> Any:
    """The space as one of gymnax."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return spaces.Discrete(int(space.n))
    if isinstance(space, gymnasium.spaces.Box):
        return spaces.Box(space.low, space.high, space.shape, jnp.result_type(float))
    raise ValueError(f"the actions of {name} must be Discrete or Box, got {type(space).__name__}")
