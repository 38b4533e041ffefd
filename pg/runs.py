"""Runs: training as the host drives it, many runs side by side, chunk by chunk, with a word in between.

The compiled programs are called for a few updates at a time; between two calls there is room to print, to save or
to stop. What they compute is what a single scan computes.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pg import devices, envs
from pg.config import Config, Hyperparams
from pg.devices import Layout
from pg.evaluate import Evaluation, evaluate
from pg.normalisation import Normaliser
from pg.train import TrainState, make_chunk, make_learner, training_keys

OnChunk = Callable[[int, float, dict[str, np.ndarray]], None]  # updates done, seconds, last metrics [n, updates]


class Programs(NamedTuple):
    """Training and evaluation of n runs side by side, compiled for the devices of `where`; leaves [n, ...]."""

    where: Layout
    num_runs: int  # n
    length: int  # updates of one `advance`
    init: Any  # key data, hyperparams -> states
    advance: Any  # states, key data, hyperparams -> states, metrics [n, length]
    evaluate: Any  # *acting(states), key data -> {"greedy" or "sampled": Evaluation [n, episodes]}; None: not wanted
    seconds: float  # that compilation took

    @property
    def num_bytes(self) -> int:
        """Memory of one device that the largest of them needs, the program itself included."""
        return max(_num_bytes(program) for program in (self.init, self.advance, self.evaluate) if program)


class Run(NamedTuple):
    """What came of training S seeds."""

    states: TrainState  # leaves [S, ...]
    metrics: dict[str, np.ndarray]  # [S, updates done]
    finished: bool  # False: interrupted by Ctrl-C, the rest is of the updates that were done
    compile_seconds: float
    train_seconds: float


def seed_keys(seeds: Sequence[int]) -> tuple[jax.Array, jax.Array]:
    """The training keys and the evaluation keys of seeds, [S] each: the two halves of `key(seed)`."""
    return tuple(jnp.stack([jax.random.split(jax.random.key(seed)) for seed in seeds], axis=1))


def run(
    config: Config,
    hyperparams: Hyperparams,
    seeds: Sequence[int],
    on_chunk: OnChunk = lambda *_: None,
    *,
    where: Layout | None = None,
) -> Run:
    """Trains `seeds` in one program. Ctrl-C ends it after the chunk in progress.

    on_chunk: called after every chunk with updates done, seconds of training, and the chunk's metrics [S, n].
    where: default: the first device. Raises KeyboardInterrupt only where nothing has been trained yet.
    """
    where = where or devices.layout(most=1)
    n = where.round_up(len(seeds))
    keys, h = filled_up(seed_keys(seeds)[0], n), broadcast(hyperparams, n)
    programs = compile_programs(config, h, where, n)
    started = time.monotonic()
    states, metrics, finished = train(programs, config.num_updates, keys, h, on_chunk, kept=len(seeds))
    seconds = time.monotonic() - started
    return Run(first(devices.fetch(states, where), len(seeds)), metrics, finished, programs.seconds, seconds)


def evaluate_run(
    config: Config,
    done: Run,
    seeds: Sequence[int],
    num_episodes: int,
    *,
    greedy: bool,
    where: Layout | None = None,
) -> Evaluation:
    """The final policies of a run on fresh episodes, [S, num_episodes]."""
    where = where or devices.layout(most=1)
    n, actions = where.round_up(len(seeds)), "greedy" if greedy else "sampled"
    f = devices.side_by_side(_evaluation(config, num_episodes, (actions,)), where)
    with jax.set_mesh(where.mesh):
        args = filled_up((*acting(done.states), _data(seed_keys(seeds)[1])), n)
        returns = devices.fetch(jax.jit(f)(*devices.place(args, where)), where)
    return first(returns[actions], len(seeds))


def compile_programs(
    config: Config,
    hyperparams: Hyperparams,
    where: Layout,
    num_runs: int,
    *,
    episodes: int = 0,
    actions: Sequence[str] = ("sampled",),
    exact: bool = False,
) -> Programs:
    """The programs for `num_runs` runs, a multiple of what `where.round_up` gives.

    hyperparams: leaves [>= 1]; their types count. episodes: of each evaluation; 0: none. exact: runs one after the
    other, each with the bits that it has alone.
    """
    where.check(config)
    envs.configured(config, 1)  # an environment may hold arrays, which none of the traces below should make
    length = chunk_length(config.num_updates)

    def init(key: jax.Array, h: Hyperparams) -> TrainState:
        init_key, _ = training_keys(jax.random.wrap_key_data(key), 0, 0)
        return make_learner(config, h).init(init_key)

    def advance(state: TrainState, key: jax.Array, h: Hyperparams) -> Any:
        _, keys = training_keys(jax.random.wrap_key_data(key), state.update, length)
        return make_chunk(config)(state, keys, h)

    def described(x: Any, sharding: Any = where.sharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((num_runs, *x.shape[1:]), x.dtype, sharding=sharding)

    def compiled(f: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return jax.jit(devices.side_by_side(f, where, exact=exact), **options).lower(*args).compile()

    started = time.monotonic()
    key = described(_data(jax.random.split(jax.random.key(0), 1)))
    h = jax.tree.map(described, hyperparams)
    with jax.set_mesh(where.mesh):
        first_program = compiled(init, key, h)
        shapes = jax.eval_shape(devices.side_by_side(init, where, exact=exact), key, h)
        # What comes out goes in again, and so must lie where it lay.
        states = jax.tree.map(described, shapes, first_program.output_shardings)
        out = first_program.output_shardings, where.sharding
        rest = compiled(advance, states, key, h, donate_argnums=0, out_shardings=out)
        last = compiled(_evaluation(config, episodes, actions), *acting(states), key) if episodes else None
    return Programs(where, num_runs, length, first_program, rest, last, time.monotonic() - started)


def train(
    programs: Programs,
    num_updates: int,
    keys: jax.Array,
    hyperparams: Hyperparams,
    on_chunk: OnChunk = lambda *_: None,
    *,
    kept: int | None = None,
) -> tuple[Any, dict[str, np.ndarray], bool]:
    """Trains n runs. -> states, metrics [kept, updates done], whether Ctrl-C left all updates done.

    keys: training keys [n]; hyperparams: leaves [n]. kept: runs whose metrics are wanted, the first; None: all.
    """
    keys, hyperparams = devices.place((_data(keys), hyperparams), programs.where)
    states, rows = programs.init(keys, hyperparams), list[dict[str, np.ndarray]]()
    started = time.monotonic()
    try:
        for done in range(programs.length, num_updates + 1, programs.length):
            states, metrics = programs.advance(states, keys, hyperparams)
            rows.append(first(devices.fetch(metrics, programs.where), kept))
            on_chunk(done, time.monotonic() - started, rows[-1])
    except KeyboardInterrupt:
        if not rows:
            raise
    joined = {name: np.concatenate([row[name] for row in rows], axis=1) for name in rows[0]}
    return states, joined, len(rows) * programs.length == num_updates


def evaluate_all(programs: Programs, states: TrainState, keys: jax.Array) -> dict[str, Evaluation]:
    """The final policies of n runs on fresh episodes, [n, episodes] of each way to act. keys: evaluation keys [n]."""
    found = programs.evaluate(*acting(states), devices.place(_data(keys), programs.where))
    return devices.fetch(found, programs.where)


def acting(state: TrainState) -> tuple[Any, Normaliser]:
    """What a policy needs to act: its parameters, and the statistics of what it observes."""
    return state.params.policy, state.normaliser


def chunk_length(num_updates: int) -> int:
    """Updates between two looks at a run: a divisor of `num_updates`, so that one program serves for all."""
    most = max(1, num_updates // 40)
    return next(length for length in range(most, 0, -1) if num_updates % length == 0)


def broadcast(hyperparams: Hyperparams, num_runs: int) -> Hyperparams:
    """Leaves [n], in the floats of this process; leaves that have runs already keep them."""

    def one(x: Any) -> np.ndarray:
        x = np.asarray(x)
        kind = jnp.zeros(()).dtype if np.issubdtype(x.dtype, np.floating) else np.int32
        return np.broadcast_to(x.astype(kind), (num_runs,) if not x.ndim else x.shape)

    return jax.tree.map(one, hyperparams)


def filled_up(tree: Any, num_runs: int) -> Any:
    """Leaves [n, ...] made [num_runs, ...] by more of the last: work that is thrown away, for widths to be equal."""

    def one(x: Any) -> Any:
        index = np.minimum(np.arange(num_runs), x.shape[0] - 1)
        return x if x.shape[0] == num_runs else x[index]

    return jax.tree.map(one, tree)


def first(tree: Any, num_runs: int | None) -> Any:
    """The first runs of leaves [n, ...]."""
    return jax.tree.map(lambda x: x[:num_runs], tree)


def _evaluation(config: Config, episodes: int, actions: Sequence[str]) -> Callable[..., Mapping[str, Evaluation]]:
    """The evaluation of one run, by every way to act."""

    def one(params: Any, normaliser: Normaliser, key: jax.Array) -> Mapping[str, Evaluation]:
        def by(name: str) -> Evaluation:
            run_key = jax.random.wrap_key_data(key)
            return evaluate(config, params, run_key, episodes, greedy=name == "greedy", normaliser=normaliser)

        return {name: by(name) for name in actions}

    return one


def _data(keys: jax.Array) -> np.ndarray:
    return np.asarray(jax.random.key_data(keys))


def _num_bytes(program: Any) -> int:
    use = program.memory_analysis()
    taken = use.argument_size_in_bytes + use.output_size_in_bytes - use.alias_size_in_bytes
    return taken + use.temp_size_in_bytes + use.generated_code_size_in_bytes
