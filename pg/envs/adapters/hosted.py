"""Environments of the host as environments of JAX: all are stepped by one callback.

The JAX state is an episode's history, from which the environment can always be restored, and the
number under which the host has it now:

    state = (number, seed, t, a_0 ... a_{t-1}, checksum of the last observation)

A step passes the host only the numbers and the actions. Only if the host does not know a number, it
gets the histories too: after a checkpoint, for a state that is used twice (groups, branches,
extra transitions), or one that was dropped. So a step is a pure function, as JAX assumes, in
episodes and in windows, mapped over seeds and environments, and costs as much as the environments
do. The order of the steps is that of the numbers: each is made by the step before.

Windows take the observation of the next episode from the step that ended the last one
(`HostedEnv.restarting`), as the reset of a Python environment may cost as much as a hundred steps:
the seed is drawn in advance, and the state holds both the true successor and the start of the next
episode, which `restart` returns.

On a CPU the arrays of the callback are XLA's own (`jax.experimental.buffer_callback`), which takes
a tenth of the time of `jax.pure_callback`; on other devices it is the latter.
"""

import contextlib
import copy
import ctypes
import functools
import threading
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.buffer_callback import buffer_callback

from pg.envs import environment
from pg.envs.adapters.base import Adapter, State
from pg.envs.adapters.hosts import Host, as_numbers

__all__ = ["HostedEnv", "Play"]


class Start(NamedTuple):
    """The beginning of an episode."""

    number: jax.Array  # uint32 [2]: that of the host
    seed: jax.Array  # uint32 []
    check: jax.Array  # uint32 []: checksum of obs and mask
    obs: Any
    mask: Any  # the legal actions; () if every action always is


class Play(NamedTuple):
    """The history of an environment, which determines its state, and the host's number of it."""

    number: jax.Array  # uint32 [2]
    seed: jax.Array  # uint32 []
    time: jax.Array  # int32 []
    actions: Any  # [H, *A] each, of which the first `time` were taken; () if not stored
    check: jax.Array  # uint32 []: checksum of the last observation
    mask: Any = ()  # see `Start`
    fresh: Start | tuple[()] = ()  # the episode after the end; () if none begins by itself


class Shapes(NamedTuple):
    """Shapes and dtypes of one environment."""

    obs: Any
    mask: Any
    action: Any


class HostedEnv(Adapter):
    """gymnax's interface of one environment of a host."""

    def __init__(
        self,
        name: str,
        host: Host,
        shapes: Shapes,
        action_space: Any,
        observation_space: Any,
        max_steps: int,
        *,
        promise: str,
        repeats: bool = True,
        can_render: bool = False,
        render_fps: float | None = None,
    ) -> None:
        """An environment of this host.

        Args:
            name: The library and its name of the environment.
            host: The environments.
            shapes: Of one of them.
            action_space: See `Adapter`.
            observation_space: See `Adapter`.
            max_steps: The time limit; no episode is longer.
            promise: A sentence on unfinished episodes of a resumed run.
            repeats: A history determines a state.
            can_render: It renders pictures of its states.
            render_fps: The pictures per second at its own speed; None: not known.
        """
        self.promise, self.can_render, self.render_fps = promise, can_render, render_fps
        self.host, self.shapes, self.repeats = host, shapes, repeats
        self.restarts, self.cut = False, max_steps
        has_mask = bool(jax.tree.leaves(shapes.mask))
        super().__init__(
            name,
            self._start,
            self._never,
            action_space,
            max_steps,
            observation_space,
            action_mask=(lambda play: play.mask) if has_mask else None,
        )

    def restarting(self, cut: int | None = None) -> "HostedEnv":
        """The same environments, with a new episode beginning in the step that ends one.

        cut: steps after which an episode ends in any case.
        """
        own = copy.copy(self)
        own.restarts, own.cut = True, min(self.cut, cut or self.cut)
        own._reset = own._start
        return own

    def restart_env(self, state: State, params: environment.EnvParams) -> tuple[Any, State]:
        """obs, state of the next episode, which has begun at the end at this state."""
        play, fresh = state.inner, state.inner.fresh
        after = Play(
            fresh.number, fresh.seed, jnp.int32(0), play.actions, fresh.check, fresh.mask, fresh
        )
        return fresh.obs, State(jnp.int32(0), after, jnp.bool_(False))

    def step_env(
        self, key: jax.Array, state: State, action: Any, params: environment.EnvParams
    ) -> Any:
        """obs, state, reward, terminated, info of the step, in which the next episode may begin."""
        play, shapes = state.inner, self.shapes
        action = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), action, shapes.action)
        limit = jnp.minimum(jnp.asarray(params.max_steps_in_episode, jnp.int32), self.cut)
        next_seed: Any = jax.random.bits(key, (), jnp.uint32) if self.restarts else ()
        before = play._replace(mask=(), fresh=())
        number, check, obs, mask, reward, terminated, truncated, fresh = self._stepped(
            before, action, limit, next_seed
        )
        after = Play(
            number,
            play.seed,
            play.time + 1,
            jax.tree.map(lambda x, a: x.at[play.time].set(a), play.actions, action)
            if self.repeats
            else (),
            check,
            mask,
            Start(fresh[0], next_seed, *fresh[1:]) if self.restarts else (),
        )
        truncated = truncated | (after.time >= self._max_steps)
        state = State(time=state.time + 1, inner=after, truncated=truncated)
        return obs, state, reward, terminated, {}

    def bring_back(self, states: Any) -> Any:
        """These states, numpy leaves [...], under the numbers of their environments in the host;
        equal states get separate environments.

        Raises HostError if a state cannot be restored.
        """

        def brought_back(play: Play) -> Play:
            axes = play.time.ndim
            rows = play._replace(mask=(), fresh=())
            flat = jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[axes:]), rows)
            past = jax.tree.leaves(flat.actions)
            keys = self.host.bring_back(flat.number, flat.seed, flat.time, flat.check, past)
            number: Any = as_numbers(keys).reshape(play.number.shape)
            return play._replace(number=number)

        def one(x: Any) -> Any:
            return brought_back(x) if is_play(x) else x

        is_play = lambda x: isinstance(x, Play)  # noqa: E731
        return jax.tree.map(one, states, is_leaf=is_play)

    def pictures(self, play: Play) -> Generator[np.ndarray]:
        """The pictures that the environment draws of an episode up to this state, uint8 [height,
        width, 3]: after its reset, and after each action.

        play: Numpy leaves, of one environment.
        Raises HostError if it fails to draw, or does not reach this state again.
        """
        past = [x[: play.time] for x in jax.tree.leaves(play.actions)]
        return self.host.pictures(int(play.seed), int(play.check), past)

    def check_rendering(self) -> None:
        """Raises HostError unless the environment renders a picture after a reset."""
        no_actions = [np.zeros((0, *x.shape), x.dtype) for x in jax.tree.leaves(self.shapes.action)]
        with contextlib.closing(self.host.fleet.render_episode(0, no_actions)) as rendered:
            next(rendered)

    def close(self) -> None:
        """Closes the environments of the host, and ends its worker processes; they are made again
        when an episode begins.
        """
        self.host.close()

    def _never(self, *args: Any) -> Any:
        raise NotImplementedError("the step of a hosted environment is its step_env")

    def _start(self, key: jax.Array) -> tuple[Any, Play]:
        """The observation and the state of a new episode."""
        seed = jax.random.bits(key, (), jnp.uint32)
        number, check, obs, mask = self._begun(seed)
        none_taken = ()
        if self.repeats:
            room = self._max_steps
            none_taken = jax.tree.map(
                lambda x: jnp.zeros((room, *x.shape), x.dtype), self.shapes.action
            )
        fresh = Start(number, seed, check, obs, mask) if self.restarts else ()
        return obs, Play(number, seed, jnp.int32(0), none_taken, check, mask, fresh)

    def _begun(self, seed: jax.Array) -> Any:
        """number, check, obs, mask of a new episode."""
        gives = _NUMBER, _CHECK, self.shapes.obs, self.shapes.mask

        def rows(num_rows: int, seed: jax.Array) -> Any:
            return _call(self.host.reset, _several(gives, num_rows), seed)

        return _in_rows(rows)(seed)

    def _stepped(self, play: Play, action: Any, limit: jax.Array, next_seed: Any) -> Any:
        """number, check, obs, mask, reward, terminated, truncated, and the start after an end."""
        seen = self.shapes.obs, self.shapes.mask
        flag = jax.ShapeDtypeStruct((), bool)
        reward = jax.ShapeDtypeStruct((), jnp.result_type(float))
        fresh = (_NUMBER, _CHECK, *seen) if self.restarts else ()
        gives = _NUMBER, _CHECK, *seen, reward, flag, flag, fresh

        def rows(num_rows: int, play: Play, action: Any, limit: jax.Array, seed: Any) -> Any:
            results = flag, _several(gives, num_rows)
            chosen = jax.tree.leaves(action)
            now = play.number, limit, seed if self.restarts else jnp.zeros(0, jnp.uint32)
            unknown, quick = _call(self.host.advance, results, *now, *chosen)

            def from_history(play: Play) -> Any:
                past = jax.tree.leaves(play.actions)
                own = play.seed, play.time, play.check
                recall = functools.partial(self.host.recall, len(chosen))
                return _call(recall, results, *now, *own, *chosen, *past)[1]

            return jax.lax.cond(unknown, from_history, lambda _: quick, play)

        return _in_rows(rows)(play, action, limit, next_seed)


_thread = threading.local()
_NUMBER = jax.ShapeDtypeStruct((2,), jnp.uint32)
_CHECK = jax.ShapeDtypeStruct((), jnp.uint32)


def _several(tree: Any, num_rows: int) -> Any:
    """The shapes of a batch of N."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((num_rows, *x.shape), x.dtype), tree)


def _in_rows(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of one element, which calls `function` once for all elements over which it is
    mapped.

    function: N, leaves [N, ...] -> leaves [N, ...].
    """

    def of_axes(num_axes: int) -> Callable[..., Any]:
        @jax.custom_batching.custom_vmap
        def one(*args: Any) -> Any:
            axes = jax.tree.leaves(args)[0].shape[:num_axes]
            flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[num_axes:]), args)
            num_rows = len(jax.tree.leaves(flat)[0])
            results = function(num_rows, *flat)
            return jax.tree.map(lambda x: x.reshape(*axes, *x.shape[1:]), results)

        @one.def_vmap
        def mapped(size: int, is_mapped: Any, *args: Any) -> Any:
            def filled(x: jax.Array, own: bool) -> jax.Array:
                return x if own else jnp.broadcast_to(x, (size, *x.shape))

            results = of_axes(num_axes + 1)(*jax.tree.map(filled, args, tuple(is_mapped)))
            return results, jax.tree.map(lambda _: True, results)

        return one

    return of_axes(0)


def _call(function: Callable[..., None], gives: Any, *args: jax.Array) -> Any:
    """The arrays like `gives` that `function(out, *args)` of the host writes into `out`."""
    shapes, structure = jax.tree.flatten(gives)

    def into(context: Any, out: Any, *args: Any) -> None:
        _keep_thread()
        # np.asarray asks for more protocols first, and takes three times as long
        function([x.__array__() for x in out], *[x.__array__() for x in args])

    def returned(*args: Any) -> Any:
        _keep_thread()
        out = [np.zeros(x.shape, x.dtype) for x in shapes]
        function(out, *map(np.asarray, args))
        return out

    if _is_on_cpu():
        results = buffer_callback(into, shapes)(*args)
    else:
        results = jax.pure_callback(returned, shapes, *args)
    return jax.tree.unflatten(structure, results)


def _keep_thread() -> None:
    """Keeps Python's state of the thread that calls back, one of XLA's few, as long as the thread.

    Else it is made and discarded by every callback, which takes 30 µs, as long as five steps of
    CartPole.
    """
    if not hasattr(_thread, "is_kept"):
        _thread.is_kept = True
        ctypes.pythonapi.PyGILState_Ensure()  # the state is discarded when this is released: never


def _is_on_cpu() -> bool:
    return jax.default_backend() == "cpu"
