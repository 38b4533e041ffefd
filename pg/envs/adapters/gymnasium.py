"""Gymnasium: environments in plain Python, stepped on the host by a callback,
`gymnasium:CartPole-v1`. Slow.

A Gymnasium environment cannot be copied, so its state cannot be an array that JAX may keep, drop or
use twice. Its history can: the seed of the reset and the actions since. That play is our state,
which makes the step the pure function that JAX takes it for, in episodes and in windows,
in groups and sweeps, and after a checkpoint. The host keeps environments alive at the plays that
they have reached, so that a step is normally one `env.step`; from a play that it no longer holds,
it resets with the seed and takes all the actions again.

    state = (seed, t, a_0 ... a_{t-1}),   one array of the longest episode's length

A reward may be an array of one entry. A fault in reset or step is a `HostError`: one sentence, with
the place. Observations are Box or Discrete; MultiDiscrete, MultiBinary, and Dict or Tuple of all
these go through Gymnasium's own `FlattenObservation`, and others (Text, Sequence, Graph) are
refused. Actions are Box, Discrete, MultiDiscrete or MultiBinary.

Limits: the environment is made without the wrapper that
counts steps. The number it would have counted to is ours (without one: 1000, or `max_steps`);
`max_steps_in_episode` may lower it, but no episode is longer. `truncated` of the environment itself
is passed on. Lost: `info`, and speed: every step of every environment is a call of Python, one
after another, and windows reset as often as they step. An environment whose course depends on more
than seed and actions (a clock, a network) is not for this adapter, nor is a mesh of several
devices.
"""

import contextlib
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from pg.envs import MultiDiscrete, spaces
from pg.envs.adapters.base import Adapter, HostError
from pg.inputs import check_name

__all__ = ["adapt", "make"]


class Play(NamedTuple):
    """The history of an environment, which determines its state."""

    seed: jax.Array  # uint32 []
    time: jax.Array  # int32 []
    actions: jax.Array  # [H, *A], of which the first `time` were taken


class _Host:
    """Environments of the host, each by the play that it has reached, with the play's last step."""

    def __init__(self, build: Callable[[], Any], name: str) -> None:
        self.build, self.name = build, name
        # what was used last is at the end
        self.at: OrderedDict[Any, tuple[Any, Any]] = OrderedDict()
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
            obs = [self._begin(env, int(s)) for s in seeds.ravel()]
            self.idle.append(env)
        return np.stack(obs).reshape(*seeds.shape, *self.observations.shape)

    def step(self, play: Play, action: jax.Array) -> tuple[np.ndarray, ...]:
        """obs, reward, terminated and truncated of one more action for each play."""
        seeds, times, taken, chosen = (np.asarray(x) for x in (*play, action))
        which = list(np.ndindex(seeds.shape))
        with self.lock:
            rows = [
                self._step(int(seeds[i]), taken[i][: times[i]], chosen[i], len(taken[i]))
                for i in which
            ]
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
                after = before  # over: it is frozen
            else:
                outcome = self._act(env, action)
            self.at[after] = env, outcome
        self.at.move_to_end(after)
        return self.at[after][1]

    def _replay(self, seed: int, past: np.ndarray) -> Any:
        env, outcome = self._idle(), None
        self._begin(env, seed)
        for action in past:
            outcome = self._act(env, action)
        return env, outcome

    def _act(self, env: Any, action: np.ndarray) -> Any:
        if isinstance(self.actions, gymnasium.spaces.Discrete):
            own_action: Any = int(action + self.actions.start)
        elif isinstance(self.actions, gymnasium.spaces.MultiDiscrete):
            own_action = (action + self.actions.start).astype(self.actions.dtype)
        else:
            own_action = action.astype(self.actions.dtype)
        with self._fault_in_one_sentence("step"):
            results = env.step(own_action)
            if not isinstance(results, tuple) or len(results) != 5:
                raise TypeError(
                    f"it must give obs, reward, terminated, truncated, info; got {_count(results)}"
                )
            obs, reward, terminated, truncated, _ = results
            if np.size(reward) != 1 or reward is None:
                raise TypeError(f"the reward must be one number, got {_described(reward)}")
            number = np.asarray(reward, jnp.result_type(float)).reshape(())
            return self._checked_obs(obs), number, bool(terminated), bool(truncated)

    def _begin(self, env: Any, seed: int) -> np.ndarray:
        """The observation after a reset."""
        with self._fault_in_one_sentence("reset"):
            results = env.reset(seed=seed)
            if not isinstance(results, tuple) or len(results) != 2:
                raise TypeError(f"it must give obs, info; got {_count(results)}")
            return self._checked_obs(results[0])

    def _checked_obs(self, obs: Any) -> np.ndarray:
        """The observation as an array, counted from 0 where it is discrete."""
        array = np.asarray(obs - getattr(self.observations, "start", 0), self.dtype)
        if array.shape != self.observations.shape:
            raise TypeError(
                f"observations must have shape {self.observations.shape}, got {array.shape}"
            )
        return array

    @contextlib.contextmanager
    def _fault_in_one_sentence(self, method: str) -> Iterator[None]:
        """A fault in the environment's own code as one sentence: JAX would report its way to
        here.
        """
        try:
            yield
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            line = str(error).strip().partition("\n")[0]
            at = "" if place.filename == __file__ else f" ({place.filename}, line {place.lineno})"
            sentence = f"the {method} of {self.name} fails: {type(error).__name__}: {line}{at}"
        else:
            return
        raise HostError(sentence)

    def _idle(self) -> Any:
        return self.idle.pop() if self.idle else self.build()


def make(name: str, max_steps: int | None = None, **options: Any) -> Adapter:
    """The environment that Gymnasium has under this name; options are those of `gymnasium.make`."""
    if ":" not in name:  # "module:environment" is registered by the import of its module
        check_name(
            "environment of gymnasium",
            name,
            gymnasium.registry,
            "gymnasium.pprint_registry() lists them",
        )
    options = {"disable_env_checker": True, **options, "max_episode_steps": -1}
    limit = max_steps or gymnasium.spec(name).max_episode_steps or 1000
    return adapt(lambda: gymnasium.make(name, **options), name, limit)


def adapt(build: Callable[[], Any], name: str, max_steps: int = 1000) -> Adapter:
    """The environment that `build()` makes, a new one at each call and without a limit of time.

    Raises ValueError if its actions are none of the four, or its observations cannot be one array.
    """

    def flat() -> Any:
        env = build()
        if isinstance(env.observation_space, gymnasium.spaces.Box | gymnasium.spaces.Discrete):
            return env
        _check_flattens(env.observation_space, name)
        return gymnasium.wrappers.FlattenObservation(env)

    host = _Host(flat, name)
    actions, observations = _action_space(host.actions, name), _space(host.observations, name)
    action_shape, action_dtype = _stored(actions)
    obs_shape = jax.ShapeDtypeStruct(observations.shape, host.dtype)
    flag = jax.ShapeDtypeStruct((), bool)

    def reset(key: jax.Array) -> tuple[Any, Play]:
        seed = jax.random.bits(key, (), jnp.uint32)
        obs = jax.pure_callback(host.reset, obs_shape, seed, vmap_method="broadcast_all")
        return obs, Play(seed, jnp.int32(0), jnp.zeros((max_steps, *action_shape), action_dtype))

    def step(key: jax.Array, play: Play, action: jax.Array) -> Any:
        action = jnp.asarray(action, action_dtype)
        reward = jax.ShapeDtypeStruct((), jnp.result_type(float))
        gives = obs_shape, reward, flag, flag
        obs, *outcome, cut = jax.pure_callback(
            host.step, gives, play, action, vmap_method="broadcast_all"
        )
        after = Play(play.seed, play.time + 1, play.actions.at[play.time].set(action))
        return obs, after, *outcome, cut | (after.time >= max_steps)

    return Adapter(f"gymnasium:{name}", reset, step, actions, max_steps, observations)


def _check_flattens(space: Any, name: str) -> None:
    """Raises ValueError for observations that have no numbers of a fixed count, such as text,
    graphs, sequences.
    """
    parts = getattr(space, "spaces", None)
    if isinstance(space, gymnasium.spaces.Dict | gymnasium.spaces.Tuple) and parts is not None:
        for part in parts.values() if isinstance(parts, Mapping) else parts:
            _check_flattens(part, name)
    elif not isinstance(space, _FLAT):
        raise ValueError(
            f"the observations of {name} must be Box, Discrete, MultiDiscrete or MultiBinary, or a "
            f"Dict or Tuple of these, got {type(space).__name__}: encode it as a Box in a wrapper"
        )


_FLAT = (
    gymnasium.spaces.Box,
    gymnasium.spaces.Discrete,
    gymnasium.spaces.MultiDiscrete,
    gymnasium.spaces.MultiBinary,
)


def _action_space(space: Any, name: str) -> Any:
    """The space of actions as one of gymnax, or as a MultiDiscrete counted from 0."""
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return MultiDiscrete(space.nvec)
    if isinstance(space, gymnasium.spaces.MultiBinary):
        return MultiDiscrete(np.full(space.shape, 2))
    return _space(space, name)


def _stored(actions: Any) -> tuple[tuple[int, ...], Any]:
    """The shape and the dtype of an action, as a play holds it."""
    if isinstance(actions, MultiDiscrete):
        return actions.nvec.shape, jnp.int32
    return actions.shape, actions.dtype


def _space(space: Any, name: str) -> Any:
    """The space as one of gymnax."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return spaces.Discrete(int(space.n))
    if isinstance(space, gymnasium.spaces.Box):
        whole = jnp.issubdtype(space.dtype, jnp.integer)  # which an action is rounded to
        dtype = jax.dtypes.canonicalize_dtype(space.dtype if whole else float)
        return spaces.Box(space.low, space.high, space.shape, dtype)
    raise ValueError(
        f"the actions of {name} must be Box, Discrete, MultiDiscrete or MultiBinary, got "
        f"{type(space).__name__}"
    )


def _count(results: Any) -> str:
    return f"{len(results)} values" if isinstance(results, tuple) else type(results).__name__


def _described(x: Any) -> str:
    return "None" if x is None else f"an array of shape {np.shape(x)}"
