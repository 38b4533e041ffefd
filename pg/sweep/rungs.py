"""Successive halving (Jamieson & Talwalkar 2016): all configurations train for the first part of
their updates, the best continue, and those that reach the last rung train for all of them.

    rung k = 0, ..., K - 1      updates ⌈N / η^(K - 1 - k)⌉      configurations ⌊G / η^k⌋

A rung is a sweep of its configurations, whose runs continue from the checkpoints of the previous
rung. The same program trains every rung, with the schedules of all N updates, so that a run over
several rungs is bitwise identical to one without a pause.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from pg.commands import cli
from pg.config import Config
from pg.runs import checkpoints
from pg.runs.checkpoints import CheckpointWriter, Restored
from pg.runs.execution import PartialRun
from pg.sweep.spec import SweepSpec
from pg.train import TrainState


class Earlier(NamedTuple):
    """The previous rung, and its surviving configurations."""

    spec: SweepSpec
    folder: Path
    configurations: list[int]  # the survivors' numbers in it, in the order of the next rung
    updates: list[int]  # of each of its configurations at its end

    def run(self, number: int) -> int:
        """The number that a run of the next rung has in this one."""
        num_seeds = len(self.spec.seeds)
        g, s = divmod(number, num_seeds)
        return self.configurations[g] * num_seeds + s

    def updates_of(self, number: int) -> int:
        """The number of updates after which this run of the rung ends."""
        return self.updates[number // len(self.spec.seeds)]


class Rung(NamedTuple):
    """The part of their updates for which the runs of a sweep are trained."""

    divisor: int  # runs train for num_updates / divisor updates; 1: the last rung
    earlier: Earlier | None = None

    @property
    def is_last(self) -> bool:
        """True if the runs are trained for all of their updates."""
        return self.divisor == 1

    def updates(self, config: Config) -> int:
        """The number of updates after which the runs of this rung end."""
        return -(-config.num_updates // self.divisor)


WHOLE = Rung(1)  # of a sweep that is not part of a search


def divisors(num_configurations: int, num_updates: int, eta: int, rungs: int | None) -> list[int]:
    """The divisor of each rung, the last one 1.

    Args:
        num_configurations: G.
        num_updates: of a run; if they differ, of the shortest.
        eta: one configuration in eta survives a rung.
        rungs: their number; None: until one configuration is left, or a rung would have no update.

    Raises:
        ValueError: there are more rungs than the updates allow.
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
    """The configurations that survive a rung, in ascending order.

    Args:
        ranked: configurations with a score, the best first.
        num_configurations: configurations of the rung, with and without a score.
        eta: one configuration in eta survives, and at least one.
    """
    return sorted(ranked[: max(1, num_configurations // eta)])


def carried_over(
    earlier: Earlier,
    runs: range,
    place: Path,
    template: TrainState,
    metadata: Mapping[str, Any],
    columns: Mapping[str, np.ndarray],
) -> Restored | None:
    """The first checkpoint of a chunk: the states of its runs at the end of the previous rung.

    Args:
        earlier: the previous rung.
        runs: the numbers of the chunk's runs.
        place: the folder for the chunk's checkpoints, still empty.
        template: see `checkpoints.restore`.
        metadata: see `checkpoints.restore`; that of this rung.
        columns: see `checkpoints.CheckpointWriter`; those of these runs.

    Returns:
        The checkpoint, or None if the previous rung has left no complete one: then these runs start
        from the beginning, with the same result.
    """
    there = [earlier.run(number) for number in runs]
    found: dict[int, tuple[TrainState, dict[str, np.ndarray]]] = {}
    changed: list[str] = []  # since the previous rung
    for before in sorted((earlier.folder / "checkpoints").glob("chunk-*-*")):
        _, first, last = before.name.split("-")
        numbers = range(int(first), int(last) + 1)
        wanted = [number for number in there if number in numbers]
        if not wanted:
            continue
        restored = _restored(before, earlier, template, metadata, len(numbers))
        if restored is None:
            return None
        if restored.partial.updates < earlier.updates_of(numbers.start):
            continue  # of a chunk of another width, which was left behind unfinished
        for number in wanted:
            found[number] = _row(restored.partial, number - numbers.start)
        changed += [change for change in restored.changed if change not in changed]
    if set(found) != set(there):
        return None
    rows = [found[number] for number in there]
    states, metrics = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
    done = metrics["env_steps"].shape[1]
    CheckpointWriter(place, metadata, columns)(done, lambda: states, metrics, last=True)
    kept = checkpoints.restore(place, template, metadata, len(there))
    return kept._replace(changed=changed) if kept else None


def _restored(
    place: Path, earlier: Earlier, template: TrainState, metadata: Mapping[str, Any], num_kept: int
) -> Restored | None:
    """A chunk of the previous rung; None if its checkpoint is corrupt."""
    own = {**metadata, "setup": earlier.spec.to_json()}
    try:
        return checkpoints.restore(place, template, own, num_kept)
    except checkpoints.DamageError as error:
        cli.say(f"{error}; runs that continue from it restart")
        return None


def _row(partial: PartialRun, i: int) -> tuple[TrainState, dict[str, np.ndarray]]:
    """The state and the metrics of one run."""
    metrics = {name: values[i] for name, values in partial.metrics.items()}
    return jax.tree.map(lambda x: x[i], partial.states), metrics
