"""Successive halving (Jamieson & Talwalkar 2016): all configurations train for a first part of
their updates, the best go on, and those of the last rung have trained for all of them.

    rung k = 0, ..., K - 1      updates ⌈N / η^(K - 1 - k)⌉      configurations ⌊G / η^k⌋

A rung is a sweep of its configurations, whose runs go on from the checkpoints of the rung before.
As one program trains every rung, with the schedules of all N updates, a run that was carried over
is bitwise identical to one that was trained in one go.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from pg.commands import cli
from pg.config import Config
from pg.runs import checkpoints
from pg.runs.checkpoints import Keeper, Restored
from pg.runs.execution import PartialRun
from pg.sweep.spec import SweepSpec
from pg.train import TrainState


class Earlier(NamedTuple):
    """The rung before, and those of its configurations that go on."""

    spec: SweepSpec
    folder: Path
    configurations: list[int]  # their numbers there, in the order of the next rung

    def run(self, number: int) -> int:
        """The number there of a run of the next rung."""
        num_seeds = len(self.spec.seeds)
        g, s = divmod(number, num_seeds)
        return self.configurations[g] * num_seeds + s


class Rung(NamedTuple):
    """The part of their updates that the runs of a sweep are trained for."""

    divisor: int  # of a run's updates; 1: the last rung
    earlier: Earlier | None = None

    @property
    def is_last(self) -> bool:
        """True where the runs are trained for all of their updates."""
        return self.divisor == 1

    def updates(self, config: Config) -> int:
        """The update after which its runs end, of all that are planned."""
        return -(-config.num_updates // self.divisor)


WHOLE = Rung(1)  # of a sweep that is no search


def divisors(num_configurations: int, num_updates: int, eta: int, rungs: int | None) -> list[int]:
    """The divisor of each rung, the last one 1.

    Args:
        num_configurations: G.
        num_updates: of a run; where they differ, of the shortest.
        eta: one in so many configurations goes on.
        rungs: their number; None: until one configuration is left, or a rung has no update.

    Raises:
        ValueError: there are more rungs than updates allow.
    """
    most = 1
    while eta**most <= num_updates:
        most += 1
    if rungs is not None and rungs > most:
        raise ValueError(
            f"rungs must be at most {most}, as the first of them trains num_updates / eta^(rungs - "
            f"1) = {num_updates} / {eta}^(rungs - 1) updates; got {rungs}"
        )
    if rungs is None:
        rungs = 1
        while eta**rungs <= num_configurations and rungs < most:
            rungs += 1
    return [eta**k for k in reversed(range(rungs))]


def survivors(ranked: list[int], num_configurations: int, eta: int) -> list[int]:
    """The configurations that go on, in their own order.

    Args:
        ranked: those with a score, the best first.
        num_configurations: of the rung, with those that have none.
        eta: one in so many goes on, and one at least.
    """
    return sorted(ranked[: max(1, num_configurations // eta)])


def carried_over(
    earlier: Earlier,
    runs: range,
    place: Path,
    like: TrainState,
    about: Mapping[str, Any],
    columns: Mapping[str, np.ndarray],
) -> Restored | None:
    """The first checkpoint of a chunk: its runs as the rung before has left them.

    Args:
        earlier: the rung before.
        runs: the numbers of the chunk's runs.
        place: the folder of the chunk's checkpoints, which has none.
        like: as of `checkpoints.restore`.
        about: as of `checkpoints.restore`, of this rung.
        columns: as of `checkpoints.Keeper`, of these runs.

    Returns:
        The checkpoint; None where the rung before has left none that is whole: these runs start
        anew, which comes to the same.
    """
    there = [earlier.run(number) for number in runs]
    found: dict[int, tuple[TrainState, dict[str, np.ndarray]]] = {}
    changed: list[str] = []  # since the rung before
    for before in sorted((earlier.folder / "checkpoints").glob("chunk-*-*")):
        _, first, last = before.name.split("-")
        numbers = range(int(first), int(last) + 1)
        wanted = [number for number in there if number in numbers]
        if not wanted:
            continue
        restored = _restored(before, earlier, like, about, len(numbers))
        if restored is None:
            return None
        for number in wanted:
            found[number] = _row(restored.partial, number - numbers.start)
        changed += [change for change in restored.changed if change not in changed]
    if set(found) != set(there):
        return None
    rows = [found[number] for number in there]
    states, metrics = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
    done = metrics["env_steps"].shape[1]
    Keeper(place, about, columns)(done, lambda: states, metrics, last=True)
    kept = checkpoints.restore(place, like, about, len(there))
    return kept._replace(changed=changed) if kept else None


def _restored(
    place: Path, earlier: Earlier, like: TrainState, about: Mapping[str, Any], num_kept: int
) -> Restored | None:
    """A chunk of the rung before, if it is whole."""
    own = {**about, "setup": earlier.spec.to_json()}
    try:
        return checkpoints.restore(place, like, own, num_kept)
    except checkpoints.DamageError as error:
        cli.say(f"{error}; runs that go on from it start anew")
        return None


def _row(partial: PartialRun, i: int) -> tuple[TrainState, dict[str, np.ndarray]]:
    """The state and the metrics of one run."""
    metrics = {name: values[i] for name, values in partial.metrics.items()}
    return jax.tree.map(lambda x: x[i], partial.states), metrics
