"""Environments of Gymnasium, in this process or in worker processes.

Worker processes help if a step takes long: each has a share of the environments, and all step in
parallel. An environment depends only on its seed and its actions, so that results are the same bits
with any number of workers. They are started if a call has enough work for them (`WORTH`), or as
many as are requested, and have only the episodes of such calls: smaller calls stay in this process,
and so do environments whose constructor cannot be sent to another process. A worker ends when the
fleet is closed, and with this process, in whatever way that ends: it waits at a connection that
then closes by itself, and closes its environments; one that hangs in an environment is killed. A
Ctrl-C in the terminal does not reach it, so that the step in progress is finished. The connection
is a pair of unnamed sockets, which nobody else can open.

A failure in reset or step is a `HostError`: one sentence, with the place.
"""

import contextlib
import functools
import inspect
import os
import select
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.vector.utils import CloudpickleWrapper

from pg import numerals
from pg.envs.adapters.hosts import Arrays, HostError, Outcome
from pg.fast.cores import num_cores

__all__ = ["KINDS", "SEVERAL_NUMBERS", "PythonFleet", "Recipe", "map_leaves"]

KINDS = (
    gymnasium.spaces.Box,
    gymnasium.spaces.Discrete,
    gymnasium.spaces.MultiDiscrete,
    gymnasium.spaces.MultiBinary,
)
SEVERAL_NUMBERS = gymnasium.spaces.MultiDiscrete, gymnasium.spaces.MultiBinary

# Seconds that workers must save in each call to be started: they take one second to start, and a
# message to all of them and back about 0.3 ms.
WORTH = 1e-3
TRIED = 20  # number of steps that are timed
PATIENCE = 5.0  # seconds that a worker has to close its environments before it is killed
PICTURES = "rgb_array"  # the render mode in which `render` returns a picture


class Recipe(NamedTuple):
    """The construction of environments, and the shapes of their observations."""

    build: Callable[..., Any]  # takes `render_mode` too, if its environments draw pictures
    name: str
    flatten: bool = False  # observations of a Dict or a Tuple are one vector
    mask_shapes: Any = ()  # those of `info["action_mask"]`, a tree; () if there is none

    def make(self) -> Any:
        """A new environment."""
        env = self.build()
        is_tree = parts(env.observation_space) is not None
        return gymnasium.wrappers.FlattenObservation(env) if self.flatten and is_tree else env

    def can_render(self, env: Any) -> bool:
        """True if environments of this recipe, of which this is one, can render pictures."""
        if PICTURES not in (env.metadata or {}).get("render_modes", ()):
            return False
        try:
            inspect.signature(self.build).bind(render_mode=PICTURES)
        except (TypeError, ValueError):
            return False
        return True

    def of_pictures(self) -> "Recipe":
        """The same environments in the mode in which they draw pictures."""
        return self._replace(build=functools.partial(self.build, render_mode=PICTURES))


class _Envs:
    """Environments of this process, by number."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.envs: dict[int, Any] = {}
        self.observations: Any = None
        self.shape: tuple[int, ...] | None = None  # of an observation, if it is one array

    def begin(self, rows: Sequence[tuple[int, int]]) -> list[Arrays]:
        """Resets. rows: number, seed."""
        return [self._begin(number, seed) for number, seed in rows]

    def step(self, rows: Sequence[tuple[int, Any, bool, int | None]]) -> list[Outcome]:
        """Steps. rows: number, action, whether the episode ends in any case, the next seed."""
        outcomes = []
        for number, action, last, seed in rows:
            outcome = self._act(number, action)
            if seed is not None and (last or outcome.terminated or outcome.truncated):
                # the environment may write the next observation into the same array
                seen = [x.copy() for x in outcome.seen]
                outcome = Outcome(seen, *outcome[1:4], self._begin(number, seed))
            outcomes.append(outcome)
        return outcomes

    def replay(self, rows: Sequence[tuple[int, int, list[Any]]]) -> list[Outcome]:
        """Resets, and all steps. rows: number, seed, actions."""
        return [self._replay(*row) for row in rows]

    def render_episode(self, seed: int, past: list[Any]) -> Generator[tuple[np.ndarray, Arrays]]:
        """The picture and the observation after a reset, and after each action."""
        seen = self._begin(0, seed)
        yield self._picture(0), seen
        for action in past:
            seen = self._act(0, action).seen
            yield self._picture(0), seen

    def close(self) -> None:
        """Closes all; warns, in one sentence, if one cannot be closed."""
        envs, self.envs = self.envs, {}
        faults: dict[str, None] = {}
        for env in envs.values():
            try:
                env.close()
            except Exception as error:
                faults[str(self._fault("close", error))] = None
        for fault in faults:
            warnings.warn(fault, stacklevel=1)

    def _replay(self, number: int, seed: int, past: list[Any]) -> Outcome:
        outcome = Outcome(self._begin(number, seed))
        for action in past:
            if outcome.terminated or outcome.truncated:
                break
            outcome = self._act(number, action)
        return outcome

    def _act(self, number: int, action: Any) -> Outcome:
        env = self.envs[number]
        try:
            results = env.step(action)
            if type(results) is not tuple or len(results) != 5:
                raise TypeError(
                    "it must return obs, reward, terminated, truncated, info; got "
                    f"{_count(results)}"
                )
            obs, reward, terminated, truncated, info = results
            if not isinstance(reward, float):
                if np.size(reward) != 1 or reward is None:
                    raise TypeError(f"the reward must be one number, got {_described(reward)}")
                reward = float(np.asarray(reward).reshape(()))
            seen = self._seen(obs, info)
            return Outcome(seen, reward, bool(terminated), bool(truncated))
        except Exception as error:
            raise self._fault("step", error) from None

    def _begin(self, number: int, seed: int) -> Arrays:
        """The observation after a reset, and the mask."""
        if number not in self.envs:
            try:
                self.envs[number] = self.recipe.make()
            except Exception as error:
                raise self._fault("constructor", error) from None
        env = self.envs[number]
        self.observations = env.observation_space
        is_box = type(self.observations) is gymnasium.spaces.Box
        self.shape = self.observations.shape if is_box else None
        try:
            results = env.reset(seed=seed)
            if not isinstance(results, tuple) or len(results) != 2:
                raise TypeError(f"it must return obs, info; got {_count(results)}")
            return self._seen(*results)
        except Exception as error:
            raise self._fault("reset", error) from None

    def _picture(self, number: int) -> np.ndarray:
        """The picture that an environment draws of its state, [height, width, 3]."""
        env = self.envs[number]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a renderer; its error is reported
                picture = env.render()
            array = np.asarray(picture)
            if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
                found = _described(picture)
                raise TypeError(f"it must return uint8 [height, width, 3], got {found}")
            return array.copy()  # the environment may draw into the same array again
        except Exception as error:
            fault = f"{self._fault('render', error)}{_remedy(env, error)}"
            raise HostError(fault) from None

    def _seen(self, obs: Any, info: Any) -> Arrays:
        """The arrays of an observation and of the mask."""
        if type(obs) is np.ndarray and obs.shape == self.shape:
            seen = [obs]
        else:
            seen = _leaves(_own_obs(self.observations, obs))
        return seen if self.recipe.mask_shapes == () else seen + self._mask(info)

    def _mask(self, info: Any) -> Arrays:
        """The legal actions in an info, in the form of the first reset's."""
        mask = mask_of(info)
        shapes = map_leaves(np.shape, mask)
        if shapes != self.recipe.mask_shapes:
            raise TypeError(
                f"info['action_mask'] must have shape {self.recipe.mask_shapes}, as in the first "
                f"reset; got {shapes or None}"
            )
        return _leaves(mask)

    def _fault(self, method: str, error: Exception) -> HostError:
        """A failure in the environment's own code as one sentence."""
        place = traceback.extract_tb(error.__traceback__)[-1]
        line = str(error).strip().partition("\n")[0]
        at = "" if place.filename == __file__ else f" ({place.filename}, line {place.lineno})"
        name = self.recipe.name
        return HostError(f"the {method} of {name} fails: {type(error).__name__}: {line}{at}")


class _Here:
    """Environments of this process, called as those of a worker are."""

    def __init__(self, recipe: Recipe) -> None:
        self.envs = _Envs(recipe)
        self.asked: tuple[str, Any] = "begin", ()

    def ask(self, method: str, rows: Any) -> None:
        """Notes a call."""
        self.asked = method, rows

    def answer(self) -> Any:
        """The results of the call."""
        method, rows = self.asked
        return getattr(self.envs, method)(rows)

    def close(self) -> None:
        """Closes the environments."""
        self.envs.close()


class _Worker:
    """Environments in another process."""

    def __init__(self, recipe: Recipe) -> None:
        self.name, self.calls = recipe.name, 0
        ours, theirs = socket.socketpair()
        program = f"from {__name__} import serve; serve({theirs.fileno()})"
        path = os.pathsep.join(p or os.getcwd() for p in sys.path)
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C in the terminal is for this process alone
            env={**os.environ, "PYTHONPATH": path},
        )
        theirs.close()
        self.connection = Connection(ours.detach())
        with self._lost():
            self.connection.send(recipe._replace(build=CloudpickleWrapper(recipe.build)))

    def ask(self, method: str, rows: Any) -> None:
        """Sends a call."""
        self.calls += 1
        with self._lost():
            self.connection.send((self.calls, method, rows))

    def answer(self) -> Any:
        """The results of the call."""
        call = 0
        while call != self.calls:  # the result of an earlier, interrupted call is still unread
            with self._lost():
                call, fault, results = self.connection.recv()
        if fault:
            raise HostError(fault)
        return results

    def dismiss(self) -> None:
        """Tells it to close its environments and end."""
        self.connection.close()

    def ends(self, seconds: float) -> bool:
        """Waits for its end, at most this long; then kills it. Returns True if it ended by
        itself.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
            return True
        self.process.kill()
        self.process.wait()
        return False

    @contextlib.contextmanager
    def _lost(self) -> Iterator[None]:
        """The error for a worker that has ended."""
        try:
            yield
        except (EOFError, OSError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
            code = self.process.poll()
            raise HostError(
                f"a worker process with environments of {self.name} has ended by itself, with "
                f"exit code {code}"
            ) from None


def _close(members: "Sequence[_Here | _Worker]") -> None:
    """Closes the environments of this process and of workers, which end; warns, in one sentence,
    about those that had to be killed.
    """
    workers = [member for member in members if isinstance(member, _Worker)]
    for worker in workers:
        worker.dismiss()  # all work in parallel
    for member in members:
        if isinstance(member, _Here):
            member.close()
    until = time.monotonic() + PATIENCE
    hung = [worker for worker in workers if not worker.ends(max(0.0, until - time.monotonic()))]
    if hung:
        processes = numerals.counted(len(hung), "worker process", "worker processes")
        have = numerals.agreeing(len(hung), "has", "have")
        were = numerals.agreeing(len(hung), "was", "were")
        warnings.warn(
            f"{processes} with environments of {hung[0].name} {have} not closed them within "
            f"{PATIENCE:g} s, and {were} killed: a step, a reset or a close takes longer, or hangs",
            stacklevel=1,
        )


def serve(descriptor: int) -> None:
    """The work of a worker process, until its connection is closed."""
    connection = Connection(descriptor)
    threading.Thread(target=_end_after, args=(descriptor,), daemon=True).start()
    with contextlib.suppress(EOFError, OSError), contextlib.ExitStack() as stack:
        envs = _Envs(connection.recv())
        stack.callback(envs.close)
        while True:
            call, method, rows = connection.recv()
            fault, results = "", None
            try:
                results = getattr(envs, method)(rows)
            except HostError as error:
                fault = str(error)
            connection.send((call, fault, results))


def _end_after(descriptor: int) -> None:
    """Ends this process some time after its connection is closed, which is not noticed if an
    environment hangs. Normally the parent kills it earlier, but that may be gone.

    It does not end one that hangs in C code and holds Python's lock. Linux would, by
    PR_SET_PDEATHSIG, but with the thread that has started this process, here any of XLA's or of
    the user's, and so too early.
    """
    closing = select.poll()
    closing.register(descriptor, 0)  # no event is requested: a closed end is always reported
    closing.poll()
    time.sleep(2 * PATIENCE)
    os._exit(1)


class _Slot(NamedTuple):
    member: int
    number: int


class PythonFleet:
    """Environments of Gymnasium, one after another, or in parallel in worker processes."""

    def __init__(self, recipe: Recipe, first: Any, workers: int | None = None) -> None:
        """Environments of this recipe.

        Args:
            recipe: Their construction.
            first: One that exists already.
            workers: Worker processes; 0: none; None: as many as there are cores, once a call has
                enough work for them.
        """
        self.recipe, self.name, self.workers = recipe, recipe.name, workers
        self.action_space = first.action_space
        here = _Here(recipe)
        here.envs.envs[0] = first
        self.members: list[_Here | _Worker] = [here]
        self.idle: list[list[int]] = [[0]]
        self.made = [1]
        self.seconds: float | None = None  # of a step
        weakref.finalize(self, _close, self.members)  # at the latest

    def begin(self, seeds: Sequence[int]) -> list[tuple[_Slot, Arrays]]:
        """A slot with a new episode for each seed, and its observation and mask."""
        self._staff(len(seeds))
        slots = self._places(len(seeds))
        rows = [(slot.number, seed) for slot, seed in zip(slots, seeds, strict=True)]
        return list(zip(slots, self._all("begin", slots, rows), strict=True))

    def step(
        self, slots: Sequence[_Slot], actions: Arrays, last: Sequence[bool], seeds: Sequence[int]
    ) -> list[Outcome]:
        """One step of each, in parallel in all workers; arguments as in `Fleet.step`."""
        own = _own_actions(self.action_space, iter(actions))
        next_seeds: Sequence[int | None] = seeds or [None] * len(slots)
        numbers = [slot.number for slot in slots]
        rows = list(zip(numbers, own, last, next_seeds, strict=True))
        return self._all("step", slots, rows)

    def replay(self, seeds: Sequence[int], pasts: Sequence[Arrays]) -> list[tuple[_Slot, Outcome]]:
        """A slot for each seed after its actions, leaves [t, *A], and the last results."""
        self._staff(len(seeds))
        slots = self._places(len(seeds))
        own = [_own_actions(self.action_space, iter(past)) for past in pasts]
        each = zip(slots, seeds, own, strict=True)
        rows = [(slot.number, seed, past) for slot, seed, past in each]
        return list(zip(slots, self._all("replay", slots, rows), strict=True))

    def render_episode(self, seed: int, past: Arrays) -> Generator[tuple[np.ndarray, Arrays]]:
        """The pictures of an episode, with observation and mask; see `Fleet.render_episode`."""
        # pygame looks for a sound card, and prints lines about a missing one
        os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
        envs = _Envs(self.recipe.of_pictures())
        with contextlib.closing(envs):
            yield from envs.render_episode(seed, _own_actions(self.action_space, iter(past)))

    def release(self, slot: _Slot) -> None:
        """Frees the environment of a slot for another episode."""
        self.idle[slot.member].append(slot.number)

    def close(self) -> None:
        """Closes all environments, and ends the workers."""
        here, *workers = self.members
        self.members[1:], self.idle, self.made = [], [[]], [0]
        _close([here, *workers])

    def _all(self, method: str, slots: Sequence[_Slot], rows: Sequence[Any]) -> list[Any]:
        """The results of a call, on which all members work in parallel."""
        if len(self.members) == 1:
            only = self.members[0]
            only.ask(method, rows)
            return only.answer()
        of_member: list[list[int]] = [[] for _ in self.members]
        for i, slot in enumerate(slots):
            of_member[slot.member].append(i)
        busy = [m for m, mine in enumerate(of_member) if mine]
        for m in reversed(busy):  # the first is this process, which then works itself
            self.members[m].ask(method, [rows[i] for i in of_member[m]])
        results: list[Any] = [None] * len(rows)
        faults = []
        for m in busy:
            try:
                for i, result in zip(of_member[m], self.members[m].answer(), strict=True):
                    results[i] = result
            except HostError as fault:  # the answers of the others are still unread
                faults.append(fault)
        if faults:
            raise faults[0]
        return results

    def _places(self, count: int) -> list[_Slot]:
        """Slots for this many environments: spread evenly over the workers if these help, or in
        this process.
        """
        num_workers = len(self.members) - 1
        in_workers = num_workers and (self.workers or self._pays(count, num_workers))
        shares = range(1, num_workers + 1) if in_workers else range(1)
        return [self._place(shares[i * len(shares) // count]) for i in range(count)]

    def _place(self, member: int) -> _Slot:
        if self.idle[member]:
            return _Slot(member, self.idle[member].pop())
        self.made[member] += 1
        return _Slot(member, self.made[member] - 1)

    def _staff(self, rows: int) -> None:
        """Starts the workers, if they are requested or help with calls of this many rows."""
        if len(self.members) > 1 or self.workers == 0 or os.name != "posix":
            return
        wanted = self.workers or min(num_cores(), rows)
        if self.workers is None and not self._pays(rows, wanted):
            return
        if (fault := _cannot_be_sent(self.recipe.build)) is not None:
            if self.workers:
                raise HostError(
                    f"the constructor of {self.name} cannot be sent to workers: {fault}"
                )
            self.workers = 0
            return
        for _ in range(wanted):
            self.members.append(_Worker(self.recipe))
            self.idle.append([])
            self.made.append(0)

    def _pays(self, rows: int, workers: int) -> bool:
        """True if this many workers save enough in each call of this many rows."""
        if workers < 2 or rows < 4:
            return False
        if self.seconds is None:
            self.seconds = _seconds(self.recipe)
        return rows * self.seconds * (1 - 1 / workers) > WORTH


def _cannot_be_sent(build: Callable[[], Any]) -> str | None:
    """The reason why a function cannot be sent to another process; None if it can."""
    try:
        CloudpickleWrapper(build).__getstate__()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _seconds(recipe: Recipe) -> float:
    """The seconds of a step, measured with random actions; 0 if one fails, which is reported when a
    run takes it.
    """
    with contextlib.suppress(Exception), contextlib.closing(recipe.make()) as env:
        env.reset(seed=0)
        env.action_space.seed(0)
        times = []
        for _ in range(TRIED):
            action, began = env.action_space.sample(), time.perf_counter()
            has_ended = any(env.step(action)[2:4])
            times.append(time.perf_counter() - began)
            if has_ended:
                env.reset()
        return float(np.median(times))
    return 0.0


def _remedy(env: Any, error: Exception) -> str:
    """The end of a sentence on a failure to draw."""
    if isinstance(error, ModuleNotFoundError):
        return f": pip install {error.name}"
    modules = [kind.__module__ for kind in type(env.unwrapped).__mro__]
    if any("mujoco" in module for module in modules):
        return "; MuJoCo draws with OpenGL: without a display set MUJOCO_GL=egl, or =osmesa"
    return ""


def parts(space: Any) -> dict[Any, Any] | None:
    """The parts of a Dict or a Tuple by their names or numbers; None for another space."""
    if isinstance(space, gymnasium.spaces.Dict):
        return dict(space.spaces)
    if isinstance(space, gymnasium.spaces.Tuple):
        return dict(enumerate(space.spaces))
    return None


def map_parts(space: Any, of_part: Callable[[Any, Any], Any]) -> Any:
    """A dictionary or a tuple, like the space, of a function's results for each part.

    of_part: name or number, space -> anything.
    """
    own = parts(space) or {}
    # in jax's order of the leaves of an action
    names = sorted(own) if isinstance(space, gymnasium.spaces.Dict) else list(own)
    each = {name: of_part(name, own[name]) for name in names}
    return each if isinstance(space, gymnasium.spaces.Dict) else tuple(each.values())


def _own_actions(space: Any, actions: Iterator[Any]) -> list[Any]:
    """N actions for environments, offset by their first numbers.

    actions: An iterator over leaves [N, *A], of which the space's are consumed.
    """
    if isinstance(space, gymnasium.spaces.Discrete):
        whole: list[Any] = (next(actions) + space.start).tolist()
        return whole
    if isinstance(space, KINDS):
        first = space.start if isinstance(space, gymnasium.spaces.MultiDiscrete) else 0
        return list((next(actions) + first).astype(space.dtype))
    of_part = map_parts(space, lambda name, part: _own_actions(part, actions))
    if isinstance(of_part, dict):
        each = zip(*of_part.values(), strict=True)
        return [dict(zip(of_part, action, strict=True)) for action in each]
    return list(zip(*of_part, strict=True))


def _own_obs(space: Any, obs: Any) -> Any:
    """An observation as arrays, counted from 0 if it is discrete; several whole numbers one-hot.

    Raises TypeError for another shape or structure than that of the space.
    """
    if not isinstance(space, KINDS):
        expected = list(parts(space) or {})
        found = list(obs) if isinstance(obs, Mapping) else list(range(len(obs)))
        if set(found) != set(expected):
            raise TypeError(f"observations must have the parts {expected}, got {found}")
        return map_parts(space, lambda name, part: _own_obs(part, obs[name]))
    if isinstance(space, SEVERAL_NUMBERS):
        obs, space = gymnasium.spaces.flatten(space, obs), gymnasium.spaces.flatten_space(space)
    if isinstance(space, gymnasium.spaces.Discrete):
        obs = obs - space.start
    array = np.asarray(obs)
    _check_shape(array, space)
    return array


def _check_shape(array: np.ndarray, space: Any) -> None:
    if array.shape != space.shape:
        raise TypeError(f"observations must have shape {space.shape}, got {array.shape}")


def mask_of(info: Any) -> Any:
    """The mask in an info as booleans, or a tree of these; () if there is none."""
    return map_leaves(lambda x: np.asarray(x, bool), info.get("action_mask", ()))


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """`jax.tree.map` for dictionaries, tuples and lists, without jax."""
    if tree is None:
        return None
    if isinstance(tree, Mapping):
        return {name: map_leaves(function, part) for name, part in tree.items()}
    if isinstance(tree, tuple | list):
        each = [map_leaves(function, part) for part in tree]
        return tuple(each) if isinstance(tree, tuple) else each
    return function(tree)


def _leaves(tree: Any) -> list[Any]:
    """`jax.tree.leaves` for dictionaries, tuples and lists, without jax."""
    if tree is None:
        return []
    if not isinstance(tree, Mapping | tuple | list):
        return [tree]
    each = [tree[name] for name in sorted(tree)] if isinstance(tree, Mapping) else tree
    return [leaf for part in each for leaf in _leaves(part)]


def _count(results: Any) -> str:
    return (
        numerals.counted(len(results), "value")
        if isinstance(results, tuple)
        else type(results).__name__
    )


def _described(x: Any) -> str:
    return "None" if x is None else f"an array of shape {np.shape(x)}"
