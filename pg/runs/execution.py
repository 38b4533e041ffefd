"""Training driven by the host: vmapped runs, chunk by chunk, with logging between chunks.

The compiled programs are called for a few updates at a time; between two calls the host prints,
saves or stops. They compute what a single scan computes.
"""

import dataclasses
import functools
import hashlib
import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from pg import envs, lag, nonfinite, window_resets
from pg.config import (
    WHOLE_NUMBERS,
    Config,
    Hyperparams,
    OnNonfinite,
    check_config,
    check_is_hyperparams,
    check_together,
)
from pg.envs.adapters.base import faults_in_one_sentence
from pg.evaluation import Evaluation, evaluate
from pg.fast import devices
from pg.fast.devices import Layout
from pg.inputs import described, entries, shown
from pg.normalisation import Normaliser
from pg.parts import with_parts
from pg.runs import folders, interrupts, memory, periodic, results
from pg.runs.periodic import Best, Evaluator
from pg.seeds import evaluation_key, seed_key
from pg.train import TrainState, make_chunk, make_learner, training_keys

# updates done, seconds, last metrics [n, updates]
OnChunk = Callable[[int, float, dict[str, np.ndarray]], None]
# Writes checkpoints. Arguments: updates done, a function that fetches the states [n, ...] to the
# host, with the best parameters under `best` if there are any, the metrics since the last call, and
# True at the last call.
OnCheckpoint = Callable[[int, Callable[[], Any], dict[str, np.ndarray], bool], None]
# number of chunks after which metrics are concatenated: many small arrays take more memory
MERGED = 64
# compiled programs that are cached, each with its code and the constants compiled into it
PROGRAMS = 16
# LLVM's first level: it compiles a training in about 0.8 of the default's processor time, and the
# training is as fast (experiments/speed/compilation.py).
CPU_OPTIONS: Any = {"xla_backend_optimization_level": 1}
_programs: OrderedDict[Any, Any] = OrderedDict()  # most recently used last
# host callbacks in a program's text, for JAX's backends
_CALLS_PYTHON = re.compile(r"custom_call @\w*callback|is_host_transfer")
_lock = threading.Lock()
SECONDS = 2.0  # largest duration of a chunk, roughly: the time from a signal to the end of a run


class Programs(NamedTuple):
    """Training and evaluation of n vmapped runs, compiled for the devices of `layout`; leaves
    [n, ...].
    """

    config: Config
    layout: Layout
    num_runs: int  # n
    length: int  # updates of one `advance`, at most
    init: Any  # key data, hyperparams -> states
    # states, key data, hyperparams, count -> states, metrics [n, length], the first `count` of
    # them real
    advance: Any
    # *acting(states), env_params, key data -> {"greedy" or "sampled": Evaluation [n, episodes]};
    # None: not compiled
    evaluate: Any
    seconds: float  # of compilation

    @property
    def num_bytes(self) -> int:
        """Memory of one device that the largest program needs, including its code."""
        return max(
            _num_bytes(program) for program in (self.init, self.advance, self.evaluate) if program
        )


class PartialRun(NamedTuple):
    """Runs that are partly done, on the host."""

    states: TrainState  # leaves [n, ...]
    metrics: dict[str, np.ndarray]  # [num_logged, updates done]
    best: Best | None = None  # leaves [n, ...], of runs that were evaluated while they trained

    @property
    def updates(self) -> int:
        """Updates done."""
        return self.metrics["env_steps"].shape[1]


class TrainResult(NamedTuple):
    """The results of training n vmapped runs."""

    states: TrainState  # leaves [n, ...], on the devices
    metrics: dict[str, np.ndarray]  # [num_logged, updates done]
    # False: ended by a signal, or because all runs have stopped
    finished: bool
    signum: int | None  # the signal
    best: Best | None = None  # leaves [n, ...], on the host; None: there was no evaluation
    reached: bool = False  # the return at which training ends was reached


class Run(NamedTuple):
    """The results of training S seeds."""

    states: TrainState  # leaves [S, ...]
    metrics: dict[str, np.ndarray]  # [S, updates done]
    finished: bool  # False: interrupted or stopped
    signum: int | None  # the signal that interrupted it
    compile_seconds: float
    train_seconds: float
    env_params: Mapping[str, np.ndarray] = {}  # traced ones of the training, leaves [S]
    # parameters with the best evaluation during training, leaves [S, ...]; None: no evaluation
    best: Best | None = None
    reached: bool = False  # training ended at `stop_at_return`
    on_nonfinite: OnNonfinite = "stop"  # the setting of the training

    def with_params(self, params: Any, normaliser: Normaliser) -> "Run":
        """The run with other parameters instead of its last ones, to be evaluated."""
        return self._replace(states=self.states._replace(params=params, normaliser=normaliser))


def whole_seeds(seeds: Any) -> list[int]:
    """The seeds as Python integers. Raises ValueError for anything but whole numbers in
    [0, 2^32).
    """
    several = entries(seeds)
    if not several:
        raise ValueError(
            f"seeds must be whole numbers, as in range(5) or [0]; got {described(seeds)}"
        )
    for seed in several:
        if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= int(seed) < 2**32:
            raise ValueError(f"a seed must be a whole number in [0, 2^32), got {described(seed)}")
    return [int(seed) for seed in several]


def seed_keys(seeds: Sequence[int]) -> tuple[jax.Array, jax.Array]:
    """The training keys and the evaluation keys of seeds, [S] each."""
    training = jnp.stack([seed_key(seed) for seed in seeds])
    return training, jnp.stack([evaluation_key(seed) for seed in seeds])


def run(
    config: Config,
    hyperparams: Hyperparams | None,
    seeds: Sequence[int],
    on_chunk: OnChunk = lambda *_: None,
    *,
    layout: Layout | None = None,
    partial: PartialRun | None = None,
    on_checkpoint: OnCheckpoint | None = None,
    plan: periodic.Plan | None = None,
    on_compiled: Callable[[], object] = lambda: None,
    **parts: Any,
) -> Run:
    """Trains `seeds` in one program. Ctrl-C ends it after the chunk in progress.

    Args:
        config: the static settings.
        hyperparams: of all seeds; default: `config.hyperparams()`.
        seeds: S whole numbers.
        on_chunk: called after every chunk with updates done, seconds of training, and the chunk's
            metrics [S, n].
        layout: the layout of the seeds over devices; default: the first device.
        partial: runs to continue; default: start from scratch.
        on_checkpoint: writes checkpoints; called after every chunk.
        plan: the evaluations during training; default: none.
        on_compiled: called before the first update.
        parts: custom `estimator`, `policy`, `critic` and `optimizer`, as in `make_learner`.

    Returns:
        States [S, ...], metrics [S, updates] by name, and the way in which training ended.

    Raises:
        ValueError: settings that are invalid or do not fit together, or invalid seeds.
    """
    check_config(config)
    hyperparams = config.hyperparams() if hyperparams is None else hyperparams
    check_is_hyperparams(hyperparams)
    config = with_parts(config, **parts)
    check_together(config, hyperparams)
    layout = layout or devices.layout(most=1)
    seeds = whole_seeds(seeds)
    n = layout.round_up(len(seeds))
    keys, h = filled_up(seed_keys(seeds)[0], n), broadcast(hyperparams, n)
    wanted = plan or periodic.Plan(episodes=0)
    programs = compile_programs(
        config, h, layout, n, episodes=wanted.episodes, actions=(wanted.actions,)
    )
    memory.check_programs(config, layout.num_local * programs.num_bytes)
    evaluator = _evaluator(programs, plan, h, seeds, partial) if plan else None
    on_compiled()
    started = time.monotonic()
    result = train(
        programs,
        keys,
        h,
        on_chunk,
        num_logged=len(seeds),
        partial=partial,
        on_checkpoint=on_checkpoint,
        evaluator=evaluator,
    )
    seconds = time.monotonic() - started
    return Run(
        states=first(devices.fetch(result.states, layout), len(seeds)),
        metrics=result.metrics,
        finished=result.finished,
        signum=result.signum,
        compile_seconds=programs.seconds,
        train_seconds=seconds,
        env_params=first(h.env_params, len(seeds)),
        best=first(result.best, len(seeds)),
        reached=result.reached,
        on_nonfinite=config.on_nonfinite,
    )


def _evaluator(
    programs: Programs,
    plan: periodic.Plan,
    hyperparams: Hyperparams,
    seeds: Sequence[int],
    partial: PartialRun | None,
) -> Evaluator:
    """The evaluations of runs while they train. hyperparams: leaves [n]."""
    layout, n = programs.layout, programs.num_runs
    env_params = devices.place(hyperparams.env_params, layout.sharding)

    def one(states: TrainState, keys: np.ndarray) -> Any:
        return programs.evaluate(*acting(states), env_params, devices.place(keys, layout.sharding))

    before = partial and partial.best
    best = filled_up(first(before, n), n) if before else None
    return Evaluator(plan, one, seeds, n, layout, best)


@faults_in_one_sentence()
def way_of_resets(
    config: Config, hyperparams: Hyperparams, layout: Layout, num_runs: int
) -> dict[str, str]:
    """The way in which windows reset their environments (see `window_resets.way_of_resets`), as an
    entry of `versions.json`; {} with complete episodes, where every batch begins with resets.

    Args:
        config: The settings, with a number of micro-batches.
        hyperparams: Scalars.
        layout: The devices.
        num_runs: Vmapped runs, over all devices.
    """
    if config.collect == "episodes":
        return {}
    num_envs = min(lag.num_envs(config), config.envs_at_once)
    env = envs.configured(config, num_envs, hyperparams.env_params, restarting=True)
    each = num_runs // layout.mesh.size if layout.shard == "seeds" else num_runs
    return {"resets": window_resets.way_of_resets(env, config.num_steps, each)}


@faults_in_one_sentence()
def check_update(config: Config, hyperparams: Hyperparams) -> None:
    """Traces an update without compiling it, so that a part that does not fit is found before
    others have trained.

    Raises ValueError as `make_learner` and its learner do.
    """
    learner = make_learner(config, hyperparams)
    state = jax.eval_shape(learner.init, jax.random.key(0))
    jax.eval_shape(learner.step, state, jax.random.key(0))


@faults_in_one_sentence()
def evaluate_run(
    config: Config,
    done: Run,
    seeds: Sequence[int],
    num_episodes: int,
    *,
    greedy: bool,
    layout: Layout | None = None,
) -> Evaluation:
    """The final policies of a run on fresh episodes of the environment they were trained in, [S,
    num_episodes].
    """
    layout, config = layout or devices.layout(most=1), bounded(config, done.env_params)
    n, actions = layout.round_up(len(seeds)), "greedy" if greedy else "sampled"
    f = devices.over_runs(_evaluation(config, num_episodes, (actions,)), layout)
    with interrupts.held("the evaluation"), jax.set_mesh(layout.mesh):
        args = filled_up((*acting(done.states), done.env_params, _data(seed_keys(seeds)[1])), n)
        placed = devices.place(args, layout.sharding)
        returns = devices.fetch(_compiled(f, layout, *placed)(*placed), layout)
    return first(returns[actions], len(seeds))


def compile_programs(
    config: Config,
    hyperparams: Hyperparams,
    layout: Layout,
    num_runs: int,
    *,
    episodes: int = 0,
    actions: Sequence[str] = ("sampled",),
    exact: bool = False,
    length: int | None = None,
) -> Programs:
    """The programs for `num_runs` runs, a multiple of what `layout.round_up` gives.

    hyperparams: leaves [>= 1]; only their types and the largest time limit matter. episodes: of
    each evaluation; 0: none. exact: runs one after the other, bitwise identical to single-seed
    runs. length: largest number of updates per call; default: a fortieth of the run.

    Programs are cached for the process: hyperparameter values are not part of a program, so that
    it is traced again, recognised by its text, and not compiled again. A program with a host
    callback is always compiled, as its text does not tell which Python function is called.
    """
    layout.check(config)
    values = {name: dict.fromkeys(x.tolist()) for name, x in hyperparams.env_params.items()}
    envs.check_parameters(config.env, values)
    config = bounded(config, hyperparams.env_params)
    # an environment may create arrays, which must not happen within a trace below
    envs.configured(config, 1)
    length = length or max(1, config.num_updates // 40)

    def init(key: jax.Array, h: Hyperparams) -> TrainState:
        init_key, _ = training_keys(jax.random.wrap_key_data(key), 0, 0)
        return make_learner(config, h).init(init_key)

    def advance(state: TrainState, key: jax.Array, h: Hyperparams, count: jax.Array) -> Any:
        _, keys = training_keys(jax.random.wrap_key_data(key), state.update, length)
        return make_chunk(config)(state, keys, h, count)

    def described(x: Any, sharding: Any = layout.sharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((num_runs, *x.shape[1:]), x.dtype, sharding=sharding)

    def compiled(f: Callable[..., Any], *args: Any, shared: int = 0, **options: Any) -> Any:
        many = devices.over_runs(f, layout, exact=exact, shared=shared)
        return _compiled(many, layout, *args, exact=exact, **options)

    started = time.monotonic()
    key = described(_data(jax.random.split(jax.random.key(0), 1)))
    h = jax.tree.map(described, hyperparams)
    with interrupts.held("the compilation"), jax.set_mesh(layout.mesh):
        first_program = compiled(init, key, h)
        # The output states are the next input, and so need the same sharding.
        states = jax.tree.map(described, first_program.out_info, first_program.output_shardings)
        out = first_program.output_shardings, layout.sharding
        count = jax.ShapeDtypeStruct((), np.int32, sharding=layout.everywhere)
        rest = compiled(
            advance, states, key, h, count, shared=1, donate_argnums=0, out_shardings=out
        )
        last = None
        if episodes:
            last = compiled(
                _evaluation(config, episodes, actions), *acting(states), h.env_params, key
            )
    return Programs(
        config, layout, num_runs, length, first_program, rest, last, time.monotonic() - started
    )


class Fitted(NamedTuple):
    """A number of micro-batches with which the programs fit into memory."""

    micro_batches: int
    num_bytes: int  # of the programs, on this process's devices of the layout
    budget: int  # bytes available for them
    compilations: int  # number of compilations until they fitted


def fitted(
    config: Config,
    hyperparams: Hyperparams,
    layout: Layout,
    num_runs: int,
    *,
    episodes: int = 0,
    actions: Sequence[str] = ("sampled",),
    least: Callable[[Config], float] = lambda config: 0.0,
    budget: int | None = None,
    first: int = 1,
) -> Fitted:
    """The smallest number of micro-batches with which the programs fit, by the compiler's account.

    They are compiled, which does not allocate their memory, for more and more micro-batches. With K
    of them they need a + b/K bytes, a >= 0: if that is too much, no number below K·need(K)/budget
    fits, and the next one above it is tried.

    Args:
        config: The settings; its own number is ignored.
        hyperparams: See `compile_programs`.
        layout: The devices.
        num_runs: Vmapped runs.
        episodes: Of each evaluation.
        actions: Ways to act in it.
        least: Settings -> a lower bound on their bytes; beyond the budget no program is compiled.
        budget: Bytes for the programs; None: the free memory, less what the account leaves out.
        first: The number that is tried first, and used if it fits even if a smaller one would too.

    Raises:
        ValueError: No number is large enough.
    """
    of_envs = layout.mesh.size if layout.shard == "envs" else 1
    numbers = memory.micro_batches(config, of_envs)
    over = memory.over_account() if budget is None else 1.0
    budget = int(memory.budget_of(layout, budget) / over)
    if first in numbers:
        numbers = (first, *(number for number in numbers if number != first))
    fewest, compilations, need = 1.0, 0, 0
    for number in numbers:
        settings = dataclasses.replace(config, micro_batches=number)
        last = number == numbers[-1]
        if not last and (number < fewest or least(settings) > budget):
            continue
        programs = compile_programs(
            settings, hyperparams, layout, num_runs, episodes=episodes, actions=actions
        )
        compilations += 1
        need = layout.num_local * programs.num_bytes
        if need <= budget:
            return Fitted(number, need, budget, compilations)
        fewest = number * need / budget if budget else math.inf
    raise ValueError(
        f"memory: {memory.readable(need)} in {numbers[-1]} micro-batches of num_envs="
        f"{config.num_envs}, but only {memory.readable(budget)} available: fewer seeds, "
        "environments or eval_episodes, or smaller networks"
    )


@faults_in_one_sentence()
def train(
    programs: Programs,
    keys: jax.Array,
    hyperparams: Hyperparams,
    on_chunk: OnChunk = lambda *_: None,
    *,
    num_logged: int | None = None,
    partial: PartialRun | None = None,
    on_checkpoint: OnCheckpoint | None = None,
    halt: bool = True,
    evaluator: Evaluator | None = None,
    until: int | None = None,
) -> TrainResult:
    """Trains n runs until all updates are done, a signal comes, or, with `halt`, every run has
    stopped.

    Args:
        programs: compiled for n runs.
        keys: training keys [n].
        hyperparams: leaves [n].
        on_chunk: called after every chunk with updates done, seconds, and its metrics
            [num_logged, count].
        num_logged: number of the first runs, whose metrics are returned; None: all.
        partial: runs to continue.
        on_checkpoint: writes checkpoints; called after every chunk.
        halt: end when every run has stopped at a number that is not finite.
        evaluator: evaluates the runs between chunks, which end when an evaluation is due.
        until: the update after which training ends, on the schedules of the whole run; None: the
            last.

    Raises:
        ValueError: `partial` has metrics that this training does not have.
    """
    partial = partial and _fitted(partial, programs)
    layout = programs.layout
    keys, hyperparams = devices.place((_data(keys), hyperparams), layout.sharding)
    states = _initial_states(programs, partial, keys, hyperparams)
    num_updates = programs.config.num_updates if until is None else until
    rows = [partial.metrics] if partial else list[dict[str, np.ndarray]]()
    done = partial.updates if partial else 0
    best = partial.best if partial else None
    reached = bool(evaluator and partial and evaluator.has_reached(partial.metrics))
    stopped = bool(halt and partial and _should_stop(programs.config, partial.metrics))
    # only the first process has all metrics
    reached, stopped = bool(devices.agreed(int(reached))), bool(devices.agreed(int(stopped)))
    if evaluator and partial and done == num_updates:  # it ended before its results were written
        rows = [evaluator.at_end(done, partial.metrics, states)]
        best, reached = evaluator.best, evaluator.has_reached(rows[0])
    count, signum, started = 1, 0, time.monotonic()
    with interrupts.deferred("the updates in progress") as caught:
        while done < num_updates and not (signum or stopped or reached):
            began = time.monotonic()
            count = min(count, programs.length, num_updates - done)
            if evaluator:
                count = int(min(count, evaluator.updates_left(done)))
            states, metrics = _advance_chunk(programs, states, keys, hyperparams, count, num_logged)
            done += count
            taken = time.monotonic() - began
            logged = metrics
            if evaluator:
                is_end = done == num_updates
                metrics, logged, best = _evaluate_chunk(
                    evaluator, metrics, states, done, count, is_end
                )
                reached = evaluator.has_reached(logged)
            rows = [joined([*rows, logged])] if len(rows) == MERGED else [*rows, logged]
            on_chunk(done, time.monotonic() - started, logged)
            # One count and one end for all processes: each has a part of every program.
            count = max(1, min(programs.length, int(SECONDS * count / taken)))
            count, signum = devices.settled(count, caught.signum or 0)
            stopped = halt and _should_stop(programs.config, metrics)
            if on_checkpoint:
                is_last = done == num_updates or bool(signum) or stopped or reached
                fetch = functools.partial(_fetched, states, best, layout)
                # both without the evaluation at the end, so that more updates can be added
                on_checkpoint(done, fetch, metrics, is_last)
    if jax.process_count() == 1:
        signum = caught.signum or 0  # also one that came after the last check
    finished = done == num_updates
    best = evaluator.best if evaluator else best
    return TrainResult(states, joined(rows), finished, signum or None, best, reached)


def _initial_states(
    programs: Programs, partial: PartialRun | None, keys: Any, hyperparams: Hyperparams
) -> TrainState:
    """The states of runs before their next update, [n, ...], on the devices."""
    with interrupts.held("the start of the environments"):
        if partial:
            states: TrainState = devices.place(partial.states, programs.layout.sharding)
        else:
            states = jax.block_until_ready(programs.init(keys, hyperparams))
    return states


def _advance_chunk(
    programs: Programs,
    states: TrainState,
    keys: Any,
    hyperparams: Hyperparams,
    count: int,
    num_logged: int | None,
) -> tuple[TrainState, dict[str, np.ndarray]]:
    """The states after `count` updates, and their metrics on the host, [num_logged, count]."""
    number = devices.place(np.int32(count), programs.layout.everywhere)
    states, padded = programs.advance(states, keys, hyperparams, number)
    fetched = devices.fetch(padded, programs.layout)
    metrics = {name: x[:num_logged, :count].copy() for name, x in fetched.items()}
    return states, nonfinite.restored(metrics)


def _evaluate_chunk(
    evaluator: Evaluator,
    metrics: dict[str, np.ndarray],
    states: TrainState,
    done: int,
    count: int,
    is_end: bool,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], Best | None]:
    """The metrics of a chunk with the columns of its evaluation, and the same with the evaluation
    at the end of training; and the best parameters so far, without the evaluation at the end.
    """
    metrics = metrics | evaluator.columns(done, count, states)
    best = evaluator.best
    logged = evaluator.at_end(done, metrics, states) if is_end else metrics
    return metrics, logged, best


def _should_stop(config: Config, metrics: Mapping[str, np.ndarray]) -> bool:
    """True if every run has stopped at a number that is not finite."""
    return config.on_nonfinite == "stop" and bool(results.failed_runs(metrics).all())


def _fetched(states: TrainState, best: Best | None, layout: Layout) -> Any:
    """The states on the host, with the best parameters, as a checkpoint stores them."""
    fetched = devices.fetch(states, layout)
    return fetched._asdict() | {"best": best} if best else fetched


def explained(
    config: Config, hyperparams: Hyperparams, state: TrainState, key: jax.Array, update: int
) -> str:
    """The first operation of an update that produces a NaN, with its line.

    state: of one run, as it was before the update; key: the run's training key.
    """
    _, keys = training_keys(key, update, 1)
    step = checkify.checkify(make_learner(config, hyperparams).step, errors=checkify.float_checks)
    error, _ = jax.jit(step)(state, keys[0])
    return error.get() or "no operation produces a NaN: it comes from outside JAX or is an overflow"


@faults_in_one_sentence()
def evaluate_all(
    programs: Programs, states: TrainState, keys: jax.Array, hyperparams: Hyperparams
) -> dict[str, Evaluation]:
    """The final policies of n runs on fresh episodes, [n, episodes] of each way to act.

    keys: evaluation keys [n]; hyperparams: leaves [n], those of the
    training, which include parameters of the environment.
    """
    env_params, data = devices.place(
        (hyperparams.env_params, _data(keys)), programs.layout.sharding
    )
    with interrupts.held("the evaluation"):
        return devices.fetch(programs.evaluate(*acting(states), env_params, data), programs.layout)


def acting(state: TrainState) -> tuple[Any, Normaliser]:
    """The parts of the state that a policy needs to act: parameters, and statistics of its
    observations.
    """
    return state.params.policy, state.normaliser


def broadcast(hyperparams: Hyperparams, num_runs: int) -> Hyperparams:
    """Leaves [n], in the float type of this process; leaves that already have a run axis keep it.

    A learning rate of 1 becomes a float like one of 0.1: another type would be another program.
    """

    check_is_hyperparams(hyperparams)
    real = jnp.zeros(()).dtype
    kinds = {"f": real, "b": np.bool_}  # of environment parameters; else a whole number

    def one(x: Any, dtype: Any) -> np.ndarray:
        x = np.asarray(x)
        return np.broadcast_to(x.astype(dtype), (num_runs,) if not x.ndim else x.shape)

    own = {
        name: one(x, np.int32 if name in WHOLE_NUMBERS else real)
        for name, x in hyperparams.scalars().items()
    }
    env_params = {
        name: one(x, kinds.get(np.asarray(x).dtype.kind, np.int32))
        for name, x in hyperparams.env_params.items()
    }
    return Hyperparams(**own, env_params=env_params)


def bounded(config: Config, env_params: Mapping[str, Any]) -> Config:
    """The config with the longest time limit of all runs as its horizon, since the limits are
    traced in their program.

    env_params: parameters of the environment with concrete values; leaves [n].
    Raises ValueError for a limit that is not a number of steps.
    """
    limits = env_params.get("max_steps_in_episode")
    if limits is None or config.horizon is not None:
        return config
    longest = math.ceil(envs.longest_limit(limits) / config.action_repeat)
    return dataclasses.replace(config, horizon=longest)


def filled_up(tree: Any, num_runs: int) -> Any:
    """Leaves [n, ...] padded to [num_runs, ...] by repeating the last; the padded work is
    discarded.
    """

    def one(x: Any) -> Any:
        index = np.minimum(np.arange(num_runs), x.shape[0] - 1)
        return x if x.shape[0] == num_runs else x[index]

    return jax.tree.map(one, tree)


def joined(rows: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Metrics [n, updates], concatenated along updates."""
    whole = results.completed(rows)
    return {name: np.concatenate([row[name] for row in whole], axis=1) for name in whole[0]}


def first(tree: Any, num_runs: int | None) -> Any:
    """The first runs of leaves [n, ...]."""
    return jax.tree.map(lambda x: x[:num_runs], tree)


def forget_programs() -> None:
    """Drops the cached programs."""
    with _lock:
        _programs.clear()


def _compiled(
    f: Callable[..., Any], layout: Layout, *args: Any, exact: bool = False, **options: Any
) -> Any:
    """`f` compiled for arguments like these, from the cache if possible.

    exact: with the compiler's default options, for the bits of `jax.jit`. options: of `jax.jit`.
    """
    # Unused arguments are kept, as the text of the program is its key in the cache. The settings
    # cannot be the key: an environment object, or a function it calls, may have changed since.
    lowered = jax.jit(f, keep_unused=True, **options).lower(*args)
    text, compiler_options = lowered.as_text(), {} if exact else _compiler_options()
    # the text does not tell which Python function, nor its closure
    if _CALLS_PYTHON.search(text):
        return lowered.compile(compiler_options)
    settings = tuple(folders.settings_of_jax().items())
    key = (
        hashlib.sha256(text.encode()).digest(),
        layout.mesh,
        lowered.in_tree,
        lowered.out_tree,
        settings,
        tuple(compiler_options.items()),
    )
    with _lock:
        if key in _programs:
            _programs.move_to_end(key)
            return _programs[key]
    program = lowered.compile(compiler_options)
    with _lock:
        _programs[key] = program
        while len(_programs) > PROGRAMS:
            _programs.popitem(last=False)
    return program


def _compiler_options() -> dict[str, Any]:
    """The options of XLA's compiler that differ from its defaults."""
    is_optimised = not jax.config.values["jax_disable_most_optimizations"]
    return CPU_OPTIONS if jax.default_backend() == "cpu" and is_optimised else {}


def _evaluation(
    config: Config, episodes: int, actions: Sequence[str]
) -> Callable[..., Mapping[str, Evaluation]]:
    """The evaluation of one run, for each way to act."""

    def one(
        params: Any, normaliser: Normaliser, env_params: Mapping[str, Any], key: jax.Array
    ) -> Mapping[str, Evaluation]:
        def by(name: str) -> Evaluation:
            run_key, greedy = jax.random.wrap_key_data(key), name == "greedy"
            own: Any = {"normaliser": normaliser, "env_params": env_params}
            return evaluate(config, params, run_key, episodes, greedy=greedy, **own)

        return {name: by(name) for name in actions}

    return one


def _fitted(partial: PartialRun, programs: Programs) -> PartialRun:
    """The runs to continue, padded to the number of runs of the programs.

    Raises ValueError if a stored metric has another name or type than those of this training.
    """
    coming = programs.advance.out_info[1]
    for name, x in partial.metrics.items():
        if name in results.EVALUATED:
            continue
        if name not in coming or x.dtype != coming[name].dtype:
            raise ValueError(
                f"the metrics of the checkpoint are of another run: this run has no "
                f"{x.dtype} {shown(name)}"
            )
    n = programs.num_runs
    return partial._replace(states=filled_up(first(partial.states, n), n))


def _data(keys: jax.Array) -> np.ndarray:
    return np.asarray(jax.random.key_data(keys))


def _num_bytes(program: Any) -> int:
    use = program.memory_analysis()
    taken = use.argument_size_in_bytes + use.output_size_in_bytes - use.alias_size_in_bytes
    return taken + use.temp_size_in_bytes + use.generated_code_size_in_bytes
