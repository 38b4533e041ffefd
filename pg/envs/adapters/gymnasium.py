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
the place. Observations and actions are Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or
Tuple of these, nested as they may be; others (Text, Sequence, Graph) are refused. Observations keep
that structure (`flatten=True`: Gymnasium's own `FlattenObservation`), in which those of a
MultiDiscrete are one-hot. The legal actions are those of `info["action_mask"]`, where the first
reset gives one, as Taxi does; or of the observation.

Limits: the environment is made without the wrapper that
counts steps. The number it would have counted to is ours (without one: 1000, or `max_steps`);
`max_steps_in_episode` may lower it, but no episode is longer. `truncated` of the environment itself
is passed on. Lost: all else of `info`, and speed: every step of every environment is a call of
Python, one after another, and windows reset as often as they step. An environment whose course
depends on more than seed and actions (a clock, a network) is not for this adapter, nor is a mesh of
several devices.
"""

import contextlib
import math
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
from pg.envs.observations import is_shape
from pg.inputs import check_name

__all__ = ["adapt", "make"]


class Play(NamedTuple):
    """The history of an environment, which determines its state."""

    seed: jax.Array  # uint32 []
    time: jax.Array  # int32 []
    actions: Any  # [H, *A] each, of which the first `time` were taken
    mask: Any = ()  # the actions that are legal then; () where every action always is


Arrays = list[Any]  # of numpy: the leaves of a tree, in jax's order


class Outcome(NamedTuple):
    """The results of a step: observation, mask, reward, terminated, truncated."""

    arrays: Arrays
    is_over: bool


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
        # read here: which floats are meant is a setting of this thread, and steps are others'
        self.obs_shapes = _shapes(_spaces(self.observations, _space))
        self.obs_dtypes = [x.dtype for x in jax.tree.leaves(self.obs_shapes)]
        self.action_tree: Any = jax.tree.structure(_shapes(_spaces(self.actions, _action_space)))
        self.mask_shapes: Any = ()
        with contextlib.suppress(Exception):  # a fault is reported where an episode begins
            self.mask_shapes = jax.tree.map(np.shape, _mask_of(self.idle[0].reset(seed=0)[1]))

    def reset(self, seed: jax.Array) -> Arrays:
        """The observations, and the masks, after a reset with each seed."""
        seeds = np.asarray(seed)
        with self.lock:
            env = self._idle()
            rows = [self._begin(env, int(s)) for s in seeds.ravel()]
            self.idle.append(env)
        return _stacked(rows, seeds.shape)

    def step(self, play: Play, action: Any) -> Arrays:
        """The outcomes of one more action for each play."""
        seeds, times = np.asarray(play.seed), np.asarray(play.time)
        taken = [np.asarray(x) for x in jax.tree.leaves(play.actions)]
        chosen = [np.asarray(x) for x in jax.tree.leaves(action)]
        which = list(np.ndindex(seeds.shape))
        with self.lock:
            rows = []
            for i in which:
                past, last = [x[i][: times[i]] for x in taken], [x[i] for x in chosen]
                rows.append(self._step(int(seeds[i]), past, last, len(taken[0][i])).arrays)
            self.largest = max(self.largest, len(which))
            while len(self.at) > self.largest:
                self.idle.append(self.at.popitem(last=False)[1][0])
        return _stacked(rows, seeds.shape)

    def _step(self, seed: int, past: Arrays, action: Arrays, longest: int) -> Outcome:
        before = seed, _bytes(past)
        after = seed, before[1] + b"".join(x.tobytes() for x in action)
        if after not in self.at:  # else a twin has been here: the same seed, the same actions
            env, outcome = self.at.pop(before, None) or self._replay(seed, past)
            if outcome is not None and (outcome.is_over or len(past[0]) == longest):
                after = before  # it is frozen
            else:
                outcome = self._act(env, action)
            self.at[after] = env, outcome
        self.at.move_to_end(after)
        return self.at[after][1]

    def _replay(self, seed: int, past: Arrays) -> tuple[Any, Outcome | None]:
        env, outcome = self._idle(), None
        self._begin(env, seed)
        for action in zip(*past, strict=True):
            outcome = self._act(env, list(action))
        return env, outcome

    def _act(self, env: Any, action: Arrays) -> Outcome:
        own_action = _own_action(self.actions, self.action_tree.unflatten(action))
        with self._fault_in_one_sentence("step"):
            results = env.step(own_action)
            if not isinstance(results, tuple) or len(results) != 5:
                raise TypeError(
                    f"it must give obs, reward, terminated, truncated, info; got {_count(results)}"
                )
            obs, reward, terminated, truncated, info = results
            if np.size(reward) != 1 or reward is None:
                raise TypeError(f"the reward must be one number, got {_described(reward)}")
            number = np.asarray(reward, jnp.result_type(float)).reshape(())
            ends = np.bool_(bool(terminated)), np.bool_(bool(truncated))
            arrays = [*self._obs(obs), *self._mask(info), number, *ends]
            return Outcome(arrays, any(ends))

    def _begin(self, env: Any, seed: int) -> Arrays:
        """The observation after a reset, and the mask."""
        with self._fault_in_one_sentence("reset"):
            results = env.reset(seed=seed)
            if not isinstance(results, tuple) or len(results) != 2:
                raise TypeError(f"it must give obs, info; got {_count(results)}")
            obs, info = results
            return [*self._obs(obs), *self._mask(info)]

    def _obs(self, obs: Any) -> Arrays:
        """The arrays of an observation in their dtypes."""
        own = _own_obs(self.observations, obs)
        arrays = [own] if isinstance(own, np.ndarray) else jax.tree.leaves(own)
        pairs = zip(arrays, self.obs_dtypes, strict=True)
        return [np.asarray(x, dtype) for x, dtype in pairs]

    def _mask(self, info: Any) -> Arrays:
        """The legal actions that an info holds, if that of the first reset did."""
        if self.mask_shapes == ():
            return []
        mask = _mask_of(info)
        shapes = jax.tree.map(np.shape, mask)
        if shapes != self.mask_shapes:
            raise TypeError(
                f"info['action_mask'] must have shape {self.mask_shapes}, as in the first reset; "
                f"got {shapes or None}"
            )
        return jax.tree.leaves(mask)

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


def make(
    name: str, max_steps: int | None = None, *, flatten: bool = False, **options: Any
) -> Adapter:
    """The environment that Gymnasium has under this name; options are those of `gymnasium.make`,
    and `flatten` is as of `adapt`.
    """
    if ":" not in name:  # "module:environment" is registered by the import of its module
        check_name(
            "environment of gymnasium",
            name,
            gymnasium.registry,
            "gymnasium.pprint_registry() lists them",
        )
    options = {"disable_env_checker": True, **options, "max_episode_steps": -1}
    limit = max_steps or gymnasium.spec(name).max_episode_steps or 1000
    return adapt(lambda: gymnasium.make(name, **options), name, limit, flatten=flatten)


def adapt(
    build: Callable[[], Any], name: str, max_steps: int = 1000, *, flatten: bool = False
) -> Adapter:
    """The environment that `build()` makes, a new one at each call and without a limit of time.

    Args:
        build: Makes it.
        name: Its name.
        max_steps: The time limit.
        flatten: Observations of a Dict or a Tuple are one vector.

    Raises:
        ValueError: Its actions or observations have no numbers of a fixed count, such as text.
    """

    def built() -> Any:
        env = build()
        _check_space("observations", env.observation_space, name)
        _check_space("actions", env.action_space, name)
        is_tree = _parts(env.observation_space) is not None
        return gymnasium.wrappers.FlattenObservation(env) if flatten and is_tree else env

    host = _Host(built, name)
    actions, observations = _spaces(host.actions, _action_space), _spaces(host.observations, _space)
    mask_shapes = jax.tree.map(
        lambda shape: jax.ShapeDtypeStruct(shape, bool), host.mask_shapes, is_leaf=is_shape
    )
    flag = jax.ShapeDtypeStruct((), bool)
    begins = host.obs_shapes, mask_shapes
    action_shapes = _shapes(actions)

    def called(function: Callable[..., Arrays], gives: Any, *args: Any) -> Any:
        """The tree of arrays like `gives` that a function of the host makes."""
        structure: Any
        leaves, structure = jax.tree.flatten(gives)
        return structure.unflatten(
            jax.pure_callback(function, leaves, *args, vmap_method="broadcast_all")
        )

    def reset(key: jax.Array) -> tuple[Any, Play]:
        seed = jax.random.bits(key, (), jnp.uint32)
        obs, mask = called(host.reset, begins, seed)
        none_taken = jax.tree.map(
            lambda x: jnp.zeros((max_steps, *x.shape), x.dtype), action_shapes
        )
        return obs, Play(seed, jnp.int32(0), none_taken, mask)

    def step(key: jax.Array, play: Play, action: Any) -> Any:
        action = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), action, action_shapes)
        reward = jax.ShapeDtypeStruct((), jnp.result_type(float))
        gives = *begins, reward, flag, flag
        before = play._replace(mask=())
        obs, mask, reward, terminated, cut = called(host.step, gives, before, action)
        taken = jax.tree.map(lambda x, a: x.at[play.time].set(a), play.actions, action)
        after = Play(play.seed, play.time + 1, taken, mask)
        return obs, after, reward, terminated, cut | (after.time >= max_steps)

    return Adapter(
        f"gymnasium:{name}",
        reset,
        step,
        actions,
        max_steps,
        observations,
        action_mask=(lambda play: play.mask) if jax.tree.leaves(mask_shapes) else None,
    )


_KINDS = (
    gymnasium.spaces.Box,
    gymnasium.spaces.Discrete,
    gymnasium.spaces.MultiDiscrete,
    gymnasium.spaces.MultiBinary,
)
_SEVERAL_NUMBERS = gymnasium.spaces.MultiDiscrete, gymnasium.spaces.MultiBinary


def _parts(space: Any) -> dict[Any, Any] | None:
    """The parts of a Dict or a Tuple by their names or numbers; None of another space."""
    if isinstance(space, gymnasium.spaces.Dict):
        return dict(space.spaces)
    if isinstance(space, gymnasium.spaces.Tuple):
        return dict(enumerate(space.spaces))
    return None


def _map_parts(space: Any, of_part: Callable[[Any, Any], Any]) -> Any:
    """A dictionary or a tuple, as the space is one, of what a function gives for each part.

    of_part: name or number, space -> anything.
    """
    each = {name: of_part(name, part) for name, part in (_parts(space) or {}).items()}
    return each if isinstance(space, gymnasium.spaces.Dict) else tuple(each.values())


def _check_space(what: str, space: Any, name: str) -> None:
    """Raises ValueError for observations or actions without numbers of a fixed count, such as text,
    graphs, sequences.
    """
    parts = _parts(space)
    if parts is not None:
        for part in parts.values():
            _check_space(what, part, name)
    elif not isinstance(space, _KINDS):
        remedy = ": encode it as a Box in a wrapper" if what == "observations" else ""
        raise ValueError(
            f"the {what} of {name} must be Box, Discrete, MultiDiscrete or MultiBinary, or a Dict "
            f"or Tuple of these, got {type(space).__name__}{remedy}"
        )


def _spaces(space: Any, of_leaf: Callable[[Any], Any]) -> Any:
    """The space as one of gymnax, of which `of_leaf` gives those that are no Dict and no Tuple."""
    if _parts(space) is None:
        return of_leaf(space)
    made = _map_parts(space, lambda name, part: _spaces(part, of_leaf))
    return spaces.Dict(made) if isinstance(made, dict) else spaces.Tuple(made)


def _shapes(space: Any) -> Any:
    """The shapes and dtypes of what is in a space, a tree where that is a Dict or a Tuple."""
    parts = getattr(space, "spaces", None)
    if isinstance(parts, Mapping):
        return {name: _shapes(part) for name, part in parts.items()}
    if parts is not None:
        return tuple(map(_shapes, parts))
    if isinstance(space, MultiDiscrete):
        return jax.ShapeDtypeStruct(np.shape(space.nvec), jnp.int32)
    return jax.ShapeDtypeStruct(space.shape, jax.dtypes.canonicalize_dtype(space.dtype))


def _action_space(space: Any) -> Any:
    """A space of actions as one of gymnax, or as a MultiDiscrete counted from 0."""
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return MultiDiscrete(space.nvec)
    if isinstance(space, gymnasium.spaces.MultiBinary):
        return MultiDiscrete(np.full(space.shape, 2))
    if isinstance(space, gymnasium.spaces.Discrete):
        return spaces.Discrete(int(space.n))
    whole = jnp.issubdtype(space.dtype, jnp.integer)  # which an action is rounded to
    dtype = jax.dtypes.canonicalize_dtype(space.dtype if whole else float)
    return spaces.Box(space.low, space.high, space.shape, dtype)


def _space(space: Any) -> Any:
    """A space of observations as one of gymnax."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return spaces.Discrete(int(space.n))
    if isinstance(space, _SEVERAL_NUMBERS):
        space = gymnasium.spaces.flatten_space(space)
    return spaces.Box(space.low, space.high, space.shape, space.dtype)


def _own_action(space: Any, action: Any) -> Any:
    """An action as the environment takes it, counted from its own first numbers."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return int(action + space.start)
    if isinstance(space, _KINDS):
        first = space.start if isinstance(space, gymnasium.spaces.MultiDiscrete) else 0
        return (action + first).astype(space.dtype)
    return _map_parts(space, lambda name, part: _own_action(part, action[name]))


def _own_obs(space: Any, obs: Any) -> Any:
    """An observation as arrays, counted from 0 where it is discrete; several whole numbers one-hot.

    Raises TypeError for another shape or structure than the space states.
    """
    if not isinstance(space, _KINDS):
        expected = list(_parts(space) or {})
        found = list(obs) if isinstance(obs, Mapping) else list(range(len(obs)))
        if set(found) != set(expected):
            raise TypeError(f"observations must have the parts {expected}, got {found}")
        return _map_parts(space, lambda name, part: _own_obs(part, obs[name]))
    if isinstance(space, _SEVERAL_NUMBERS):
        obs, space = gymnasium.spaces.flatten(space, obs), gymnasium.spaces.flatten_space(space)
    array = np.asarray(obs - getattr(space, "start", 0))
    if array.shape != space.shape:
        raise TypeError(f"observations must have shape {space.shape}, got {array.shape}")
    return array


def _mask_of(info: Any) -> Any:
    """The mask in an info as booleans, or a tree of these; () where there is none."""
    return jax.tree.map(lambda x: np.asarray(x, bool), info.get("action_mask", ()))


def _bytes(actions: Arrays) -> bytes:
    """Actions [t, ...] as bytes, one after another; those of several parts side by side."""
    if len(actions) == 1:
        return actions[0].tobytes()
    rows = [
        np.ascontiguousarray(x).reshape(len(x), math.prod(x.shape[1:])).view(np.uint8)
        for x in actions
    ]
    return np.concatenate(rows, axis=1).tobytes()


def _stacked(rows: list[Arrays], axes: tuple[int, ...]) -> Arrays:
    """Lists of arrays, one after another, as one list with these axes in front."""
    columns = [np.stack(column) for column in zip(*rows, strict=True)]
    return [column.reshape(*axes, *column.shape[1:]) for column in columns]


def _count(results: Any) -> str:
    return f"{len(results)} values" if isinstance(results, tuple) else type(results).__name__


def _described(x: Any) -> str:
    return "None" if x is None else f"an array of shape {np.shape(x)}"
