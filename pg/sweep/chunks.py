"""Runs in chunks: as many vmapped runs as fit into memory, in chunks of one width, the last one
padded.

    run r = (configuration g, seed s)     r = g · S + s
    chunk c = runs [c n, (c + 1) n)       n = width × devices

The bits of a run depend on its keys and on the width, but not on its chunk, nor, with two or more
devices, on the number of devices or processes.
"""

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import jax
import numpy as np

from pg import numerals
from pg.config import Config, Hyperparams, check_config, check_is_hyperparams, check_together
from pg.evaluation import Evaluation
from pg.fast import devices
from pg.fast.devices import Layout
from pg.inputs import count
from pg.parts import with_parts
from pg.runs import execution, host_states, memory
from pg.runs.execution import OnCheckpoint, OnChunk, PartialRun, Programs
from pg.runs.interrupts import Interrupted
from pg.train import TrainState

# Vmapped runs on one device, at most. More are not faster: they exceed a CPU's cache, and all runs
# of a device wait for the one with the longest episodes.
WIDTH = {"cpu": 16}
WIDTH_ELSEWHERE = 1024
# Copies of a chunk's metrics on the host: those of each call, and all of them joined.
_COPIES = 2


# First run of a chunk, number of its runs, training keys and hyperparameters of these and of those
# that pad it, [n] -> the partial run to continue, and the writer of its checkpoints.
RestoreChunk = Callable[
    [int, int, jax.Array, Hyperparams], tuple[PartialRun | None, OnCheckpoint | None]
]


class Plan(NamedTuple):
    """The compiled programs of a sweep, and how many runs each call of them trains."""

    programs: Programs  # of `width` runs on each device
    width: int
    bytes_per_run: int  # of device memory, according to the compiler
    compilations: int  # of the training program, until it fitted into memory

    @property
    def chunk(self) -> int:
        """Number of runs in a chunk, n."""
        return self.programs.num_runs


class Chunk(NamedTuple):
    """The results of runs `start`, `start + 1`, ...; leaves [n, ...]."""

    start: int
    states: TrainState
    metrics: dict[str, np.ndarray]  # [n, num_updates]
    evaluation: dict[str, Evaluation]  # [n, episodes] for each way to act; {} without evaluation


def plan(
    config: Config,
    hyperparams: Hyperparams,
    num_runs: int,
    layout: Layout,
    *,
    width: int | None = None,
    fixed: bool = False,
    budget: int | None = None,
    episodes: int = 0,
    actions: Sequence[str] = ("sampled",),
    exact: bool = False,
) -> Plan:
    """Compiles the programs for as many vmapped runs as are useful and fit into memory.

    A program is compiled, which allocates nothing yet, and the compiler says how much memory it
    needs; if that is too much, it is compiled again with fewer runs.

    Args:
        config: static settings.
        hyperparams: leaves [>= 1], see `execution.compile_programs`.
        num_runs: runs of the whole sweep.
        layout: the layout of the runs over devices.
        width: vmapped runs on each device, at most; default: `WIDTH`.
        fixed: do not lower the width, since bits depend on it.
        budget: bytes for the programs; None: the free memory.
        episodes: episodes of each evaluation; 0: no evaluation.
        actions: ways to act in the evaluation.
        exact: runs one after the other, bitwise identical to single-seed runs.

    Raises:
        ValueError: not even one run fits into memory, or not as many as the fixed width.
    """
    parts = layout.round_up(1)
    most = width or WIDTH.get(jax.default_backend(), WIDTH_ELSEWHERE)
    width = most if fixed else max(1, min(most, -(-num_runs // parts)))
    local = layout.num_local
    budget = memory.budget_of(layout, budget)
    for compilations in range(1, 20):
        programs = execution.compile_programs(
            config,
            hyperparams,
            layout,
            width * parts,
            episodes=episodes,
            actions=actions,
            exact=exact,
        )
        # In exact mode a program needs the memory of one run, and holds the results of all.
        on_host = _COPIES * width * 4 * config.num_updates * _num_metrics(programs)
        need = local * (programs.num_bytes + on_host)
        if need <= budget:
            return Plan(programs, width, -(-programs.num_bytes // width), compilations)
        if width == 1 or fixed:
            runs = numerals.counted(width, "run")
            what = f"{memory.readable(need)} for {runs} on {each_of(local)}"
            raise ValueError(
                f"memory: {what}, but only {memory.readable(budget)} available: fewer envs or "
                "devices"
            )
        width = max(1, min(width - 1, int(width * budget / need)))
    raise AssertionError("the width decreases in every iteration")


def each_of(num_devices: int) -> str:
    """The devices in words, as "each of 2 devices"."""
    return "one device" if num_devices == 1 else f"each of {num_devices} devices"


def chunks(
    plan: Plan,
    config: Config,
    keys: tuple[jax.Array, jax.Array],
    hyperparams: Hyperparams,
    *,
    start: int = 0,
    on_chunk: OnChunk = lambda *_: None,
    restore_chunk: RestoreChunk = lambda *_: (None, None),
    until: int | None = None,
) -> Iterator[Chunk]:
    """Trains the runs from `start` on, and yields each chunk as soon as it is finished.

    Args:
        plan: the compiled programs.
        config: static settings of the runs.
        keys: for training and for evaluation, [N] each.
        hyperparams: leaves [N].
        start: the first run.
        on_chunk: called while a chunk trains, see `execution.run`.
        restore_chunk: restores a chunk, and returns the function that writes its checkpoints.
        until: the update at which to stop, see `execution.train`.

    Raises:
        Interrupted: after a signal.
    """
    programs, total = plan.programs, len(keys[0])
    for first in range(start, total, plan.chunk):
        count = min(plan.chunk, total - first)
        rows = jax.tree.map(itemgetter(slice(first, first + count)), (*keys, hyperparams))
        train_keys, eval_keys, h = execution.filled_up(rows, plan.chunk)
        partial, on_checkpoint = restore_chunk(first, count, train_keys, h)
        result = execution.train(
            programs,
            train_keys,
            h,
            on_chunk,
            num_logged=count,
            partial=partial,
            on_checkpoint=on_checkpoint,
            halt=False,
            until=until,
        )
        if result.signum:
            raise Interrupted(result.signum)
        evaluation = {}
        if programs.evaluate:
            evaluation = execution.evaluate_all(programs, result.states, eval_keys, h)
        states = devices.fetch(result.states, programs.layout)
        yield Chunk(
            start=first,
            states=execution.first(states, count),
            metrics=execution.first(result.metrics, count),
            evaluation=execution.first(evaluation, count),
        )


def sweep(
    config: Config,
    seeds: Sequence[int],
    hyperparams: Hyperparams | None = None,
    *,
    width: int | None = None,
    budget: int | None = None,
    exact: bool = False,
    layout: Layout | None = None,
    **parts: Any,
) -> tuple[TrainState, dict[str, np.ndarray]]:
    """Trains every configuration with every seed.

    Run (g, s) is `make_train(config)(pg.seed_key(seeds[s]), configuration g)`: bit for bit where
    `exact`, else up to the rounding of batched products, which lets trajectories diverge in time.

    Args:
        config: static settings of all runs.
        seeds: S whole numbers.
        hyperparams: leaves [G] or scalars, as `grid`, `random` and `sobol` make them; default:
            `config.hyperparams()`.
        width: vmapped runs on each device, at most.
        budget: bytes for the programs; default: the free memory.
        exact: runs one after the other within the program.
        layout: the layout of the runs over devices; default: seeds over all devices.
        parts: custom `estimator`, `policy`, `critic` and `optimizer`, see `make_learner`.

    Returns:
        States [G, S, ...] and metrics [G, S, num_updates], on the host.

    Raises:
        ValueError: a number is below 1, or not even one run fits into memory.
    """
    check_config(config)
    seeds = execution.whole_seeds(seeds)
    num_seeds = len(seeds)
    count("width", 1 if width is None else width)
    h = config.hyperparams() if hyperparams is None else hyperparams
    check_is_hyperparams(h)
    config = with_parts(config, **parts)
    h = crossed(h, num_seeds)
    check_together(config, h)
    total = len(h.learning_rate)
    num_configurations = total // num_seeds
    keys = execution.seed_keys(seeds)[0][np.arange(total) % num_seeds]
    layout = layout or devices.layout(most=total)
    compiled = plan(config, h, total, layout, width=width, budget=budget, exact=exact)
    with host_states.closing([config]):
        trained = chunks(compiled, config, (keys, keys), h)
        done = [(chunk.states, chunk.metrics) for chunk in trained]
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *done)
    return jax.tree.map(lambda x: x.reshape(num_configurations, num_seeds, *x.shape[1:]), joined)


def crossed(hyperparams: Hyperparams, num_seeds: int) -> Hyperparams:
    """Leaves [G · num_seeds] of leaves [G] or scalars: each configuration once per seed."""
    num = max((np.size(x) for x in jax.tree.leaves(hyperparams)), default=1)
    for x in jax.tree.leaves(hyperparams):
        if np.ndim(x) > 1 or np.size(x) not in (1, num):
            raise ValueError(
                f"hyperparams must have leaves [G] or scalars, got shape "
                f"{np.shape(x)} where G is {num}"
            )
    whole = execution.broadcast(hyperparams, num)
    return jax.tree.map(lambda x: np.repeat(np.broadcast_to(x, (num,)), num_seeds), whole)


def _num_metrics(programs: Programs) -> int:
    return len(jax.tree.leaves(programs.advance.out_info[1]))
