"""Environments in Python, outside of JAX, by the numbers of their states.

A JAX state may be kept, dropped or used twice; an environment in Python changes with every step.
`Host` mediates. Each state that it returns has a unique number, and it knows the environment that
is in the state of that number now:

    advance    every number is that of an environment's present state: one step of each
    recall     for any other states, from their history: a reset with the seed, and all actions
               again, which must lead to the same observation

So a state is never mistaken for another: an environment steps from the requested state, or a
`HostError` says why it cannot. Numbers have 64 bits and begin at random, so that those of another
process are not valid here.

    Host     numbers, ends, new episodes after them
    Fleet    the environments themselves: those of Gymnasium (`pg.envs.adapters.python_envs`), or of
             EnvPool

Nothing here imports JAX: worker processes load it too.
"""

import contextlib
import dataclasses
import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from pg import numerals

__all__ = ["Fleet", "Host", "HostError", "Outcome", "as_numbers"]

Arrays = list[Any]  # of numpy: the leaves of a tree, in jax's order

# The number of states that are kept, or of batches as large as the largest. Training continues
# beside the unfinished episodes of its greedy and sampled evaluations.
KEPT = 64
BATCHES = 4


class HostError(ValueError):
    """A failure in the Python code of an environment, in one sentence."""

    names_command = False  # the sentence names the command that continues or starts again

    def with_command(self, sentence: str) -> "HostError":
        """The error, followed by a sentence that names such a command."""
        told = HostError(f"{self}; {sentence}")
        told.names_command = True
        told.__cause__ = self.__cause__
        return told.with_traceback(self.__traceback__)


class Outcome(NamedTuple):
    """The results of a step of one environment."""

    seen: Arrays  # observation and mask
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    fresh: Arrays | None = None  # observation and mask of the next episode, if it has begun


class Fleet(Protocol):
    """Environments that are stepped together. A slot holds one of them."""

    name: str

    def begin(self, seeds: Sequence[int]) -> list[tuple[Any, Arrays]]:
        """A slot with a new episode for each seed, and its observation and mask."""

    def step(
        self, slots: Sequence[Any], actions: Arrays, last: Sequence[bool], seeds: Sequence[int]
    ) -> list[Outcome]:
        """One step of each.

        Args:
            slots: The environments.
            actions: Leaves [N, *A].
            last: The episode ends with this step in any case.
            seeds: Of the episodes that begin after an end; empty: none begins.
        """

    def replay(self, seeds: Sequence[int], pasts: Sequence[Arrays]) -> list[tuple[Any, Outcome]]:
        """A slot for each seed after its actions, leaves [t, *A], or up to an end; and the last
        results. Without actions these are observation and mask.

        Raises HostError where the library cannot.
        """

    def render_episode(self, seed: int, past: Arrays) -> Generator[tuple[np.ndarray, Arrays]]:
        """The pictures of an episode, uint8 [height, width, 3], after its reset and after each
        action, leaves [t, *A]; and observation and mask there.

        Raises HostError where the environment draws none.
        """

    def release(self, slot: Any) -> None:
        """Frees the environment of a slot for another episode."""

    def close(self) -> None:
        """Closes all environments; others are made when an episode begins."""


@dataclasses.dataclass(slots=True)
class _Present:
    """An environment in its present state."""

    slot: Any
    steps: int  # of the episode


class Host:
    """The environments of a fleet, by the numbers of their states.

    The methods write into `out`, arrays of N rows each; a number is a pair of uint32.
    """

    def __init__(self, fleet: Fleet, dtypes: Sequence[Any]) -> None:
        """The environments of this fleet. dtypes: of the arrays of an observation and its mask."""
        self.fleet, self.dtypes = fleet, tuple(dtypes)
        self.present: OrderedDict[int, _Present] = OrderedDict()  # most recently used last
        self.ended: OrderedDict[int, Outcome] = OrderedDict()
        self.largest = 0  # largest number of environments in one call
        self.lock = threading.RLock()  # XLA may run two callbacks at a time
        self.next_number = int.from_bytes(os.urandom(7), "little")
        self.recalled = 0  # number of states so far that were not present

    def reset(self, out: Arrays, seeds: np.ndarray) -> None:
        """Episodes of these seeds. out: number, check, observation, mask."""
        with self.lock:
            begun = self.fleet.begin([int(s) for s in seeds])
            numbers = self._new_numbers(len(begun))
            for number, (slot, _) in zip(numbers, begun, strict=True):
                self.present[number] = _Present(slot, 0)
            _write_all(out[2:], [seen for _, seen in begun])
            _as_keys(out[0])[...] = numbers
            out[1][...] = _checks(out[2:])
            self._keep(len(begun))

    def advance(
        self, out: Arrays, numbers: np.ndarray, limits: np.ndarray, seeds: np.ndarray, *actions: Any
    ) -> None:
        """A step of each, if all are in the states of these numbers.

        Args:
            out: [] True if they were not, and nothing was changed; then number, check, observation,
                mask, reward, terminated, truncated; and of the episodes after an end number,
                check, observation and mask, if seeds are given.
            numbers: [N, 2].
            limits: Steps after which an episode ends, [N].
            seeds: Of the episodes after an end, [N]; or [0].
            actions: Leaves [N, *A].
        """
        with self.lock:
            keys = _as_keys(numbers).tolist()
            distinct = set(keys)
            known = distinct <= self.present.keys() or all(
                key in self.present or key in self.ended for key in distinct
            )
            out[0][...] = not known or len(distinct) < len(keys)
            if not out[0]:
                self._advance(out[1:], keys, limits, seeds, actions)

    def recall(
        self,
        num_actions: int,
        out: Arrays,
        numbers: np.ndarray,
        limits: np.ndarray,
        seeds: np.ndarray,
        own_seeds: np.ndarray,
        times: np.ndarray,
        checks: np.ndarray,
        *arrays: Any,
    ) -> None:
        """`advance` for any states, by their histories.

        Args:
            num_actions: Leaves of an action.
            out: See `advance`.
            numbers: See `advance`; of several states with the same number one is present.
            limits: See `advance`.
            seeds: See `advance`.
            own_seeds: Of their episodes, [N].
            times: Their steps so far, [N].
            checks: Checksums of the last observations, [N].
            arrays: The present actions, leaves [N, *A], and the earlier ones, leaves [N, H, *A].
        """
        actions, pasts = arrays[:num_actions], arrays[num_actions:]
        with self.lock:
            out[0][...] = False
            keys = self.bring_back(numbers, own_seeds, times, checks, pasts)
            self._advance(out[1:], keys, limits, seeds, actions)

    def bring_back(
        self,
        numbers: np.ndarray,
        seeds: np.ndarray,
        times: np.ndarray,
        checks: np.ndarray,
        pasts: Sequence[np.ndarray],
    ) -> list[int]:
        """Environments in these states, and the states' numbers: the given ones, if they are free.

        Raises HostError if a state cannot be restored, or gives another observation than before.
        """
        with self.lock:
            keys: list[int] = _as_keys(np.ascontiguousarray(numbers)).tolist()
            taken, missing = set[int](), list[int]()
            for i, key in enumerate(keys):
                if key in taken or (key not in self.present and key not in self.ended):
                    missing.append(i)
                taken.add(key)
            past_of = [[x[i][: times[i]] for x in pasts] for i in missing]
            back = self.fleet.replay([int(seeds[i]) for i in missing], past_of)
            self.recalled += len(back)
            for i, (_, outcome) in zip(missing, back, strict=True):
                if self._check(outcome.seen) != checks[i]:
                    for slot, _ in back:
                        self.fleet.release(slot)
                    raise self._not_repeated(seeds[i], times[i])
            for i, (slot, outcome) in zip(missing, back, strict=True):
                if keys[i] in self.present or keys[i] in self.ended:
                    (keys[i],) = self._new_numbers(1)
                if outcome.terminated or outcome.truncated:
                    # the environment may write its next observation into the same array
                    own_seen = [np.array(x) for x in outcome.seen]
                    self.ended[keys[i]] = outcome._replace(seen=own_seen)
                    self.fleet.release(slot)
                else:
                    self.present[keys[i]] = _Present(slot, int(times[i]))
            self.largest = max(self.largest, len(keys))
            return keys

    def pictures(self, seed: int, check: int, past: Arrays) -> Generator[np.ndarray]:
        """The pictures that the environment draws of an episode, uint8 [height, width, 3]: after
        its reset, and after each action.

        Args:
            seed: Of the episode.
            check: Checksum of the last observation.
            past: The actions, leaves [t, *A].

        Raises:
            HostError: It draws none, or the episode does not end with that observation.
        """
        last_seen: Arrays = []
        with contextlib.closing(self.fleet.render_episode(seed, past)) as rendered:
            for picture, seen in rendered:
                last_seen = seen
                yield picture
        if self._check(last_seen) != check:
            raise self._not_repeated(seed, len(past[0]))

    def close(self) -> None:
        """Closes all environments. States continue from their histories, like those of a
        checkpoint.
        """
        with self.lock:
            self.present.clear()
            self.ended.clear()
            self.fleet.close()

    def _advance(
        self,
        out: Arrays,
        keys: Sequence[int],
        limits: np.ndarray,
        seeds: np.ndarray,
        actions: Sequence[Any],
    ) -> None:
        """One step of each that has not ended."""
        rows = [i for i, key in enumerate(keys) if key in self.present]
        states = [self.present.pop(keys[i]) for i in rows]
        chosen = list(actions)
        if len(rows) < len(keys):  # the others have ended before, and are frozen
            chosen, limits = [x[rows] for x in actions], limits[rows]
            seeds = seeds[rows] if len(seeds) else seeds
        for state in states:
            state.steps += 1
        last = [x.steps >= limit for x, limit in zip(states, limits.tolist(), strict=True)]
        outcomes = self.fleet.step([x.slot for x in states], chosen, last, seeds.tolist())
        num_seen = len(self.dtypes)
        number, check, *seen = out[: 2 + num_seen]
        reward, terminated, truncated, *fresh = out[2 + num_seen :]
        for array in fresh:
            array[...] = 0
        numbers: Sequence[int] = self._new_numbers(len(rows))
        self.present.update(zip(numbers, states, strict=True))
        if any(last) or any(x.terminated or x.truncated for x in outcomes):
            self._end(fresh, rows, numbers, last, outcomes)
        if len(rows) < len(keys):
            numbers, outcomes = self._with_frozen(keys, rows, numbers, outcomes)
        every_seen, reward[...], terminated[...], truncated[...], _ = zip(*outcomes, strict=True)
        _write_all(seen, every_seen)
        _as_keys(number)[...] = numbers
        check[...] = _checks(seen)
        self._keep(len(keys))

    def _with_frozen(
        self,
        keys: Sequence[int],
        rows: Sequence[int],
        numbers: Sequence[int],
        outcomes: Sequence[Outcome],
    ) -> tuple[list[int], list[Outcome]]:
        """Numbers and results of all states, where only those in `rows` were stepped."""
        of_row = dict(zip(rows, outcomes, strict=True))
        all_outcomes = [of_row.get(i) or self.ended[key] for i, key in enumerate(keys)]
        all_numbers = list(keys)
        for i, now in zip(rows, numbers, strict=True):
            all_numbers[i] = now
        return all_numbers, all_outcomes

    def _end(
        self,
        fresh: Arrays,
        rows: Sequence[int],
        numbers: Sequence[int],
        last: Sequence[bool],
        outcomes: Sequence[Outcome],
    ) -> None:
        """Keeps the last states of the episodes that have ended, and the first of the next ones.

        Args:
            fresh: Number, check, observation and mask of the next episodes, to be written.
            rows: There, of each of the other arguments.
            numbers: Of their states.
            last: See `Fleet.step`.
            outcomes: The results of the step.
        """
        for i, now, is_last, outcome in zip(rows, numbers, last, outcomes, strict=True):
            seen, reward, terminated, truncated, begun = outcome
            if not (is_last or terminated or truncated):
                continue
            state = self.present.pop(now)
            own_seen = [np.array(x) for x in seen]
            self.ended[now] = Outcome(own_seen, reward, terminated, truncated)
            if begun is None:
                self.fleet.release(state.slot)
                continue
            (behind,) = self._new_numbers(1)
            self.present[behind] = _Present(state.slot, 0)
            _write(fresh[2:], i, begun)
            _as_keys(fresh[0])[i] = behind
            fresh[1][i] = _checks([x[i : i + 1] for x in fresh[2:]])[0]

    def _new_numbers(self, count: int) -> range:
        """Numbers that no state has had."""
        first = self.next_number
        self.next_number += count
        return range(first, self.next_number)

    def _check(self, seen: Arrays) -> int:
        """The checksum of an observation and its mask, in the dtypes in which JAX has them."""
        pairs = zip(seen, self.dtypes, strict=True)
        return _checks([np.asarray(x, dtype)[None] for x, dtype in pairs])[0]

    def _not_repeated(self, seed: int, time: int) -> HostError:
        return HostError(
            f"{self.fleet.name} does not repeat itself: after a reset with the seed "
            f"{seed} and the same {numerals.counted(time, 'action')} it is "
            "in another state, so that it depends on more than these (a clock, a "
            "network, its version), and no state of it can be restored"
        )

    def _keep(self, rows: int) -> None:
        """Drops the least recently used states."""
        self.largest = max(self.largest, rows)
        most = max(KEPT, BATCHES * self.largest)
        while len(self.present) > most:
            self.fleet.release(self.present.popitem(last=False)[1].slot)
        while len(self.ended) > most:
            self.ended.popitem(last=False)


def _as_keys(numbers: np.ndarray) -> np.ndarray:
    """A view of contiguous numbers [N, 2] of 32 bits as [N] of 64 bits."""
    return numbers.view(np.uint64)[:, 0]


def as_numbers(keys: Sequence[int]) -> np.ndarray:
    """The inverse of `_as_keys`."""
    return np.array(keys, np.uint64).view(np.uint32).reshape(-1, 2)


def _write(out: Arrays, row: int, values: Sequence[Any]) -> None:
    for array, value in zip(out, values, strict=True):
        array[row] = value


def _write_all(out: Arrays, rows: Sequence[Arrays]) -> None:
    """Writes all rows of `out`, arrays [N, ...]."""
    for array, values in zip(out, zip(*rows, strict=True), strict=True):
        for i, value in enumerate(values):  # for few small rows faster than np.stack
            array[i] = value


def _checks(arrays: Arrays) -> list[int]:
    """Checksums of observations, arrays [N, ...]."""
    first, *others = arrays
    checks = list(map(zlib.crc32, first))
    for array in others:
        checks = list(map(zlib.crc32, array, checks))
    return checks
