"""Runs: training as the host drives it, seeds side by side, chunk by chunk, with a word in between.

The compiled program is called for a few updates at a time; between two calls there is room to print, to save or
to stop. What it computes is what a single scan computes.
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pg.config import Config, Hyperparams
from pg.evaluate import Evaluation, evaluate
from pg.train import TrainState, make_chunk, make_learner, training_keys

OnChunk = Callable[[int, float, dict[str, np.ndarray]], None]  # updates done, seconds, last metrics [S, n]


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


def run(config: Config, hyperparams: Hyperparams, seeds: Sequence[int], on_chunk: OnChunk = lambda *_: None) -> Run:
    """Trains `seeds` in one program. Ctrl-C ends it after the chunk in progress.

    on_chunk: called after every chunk with updates done, seconds of training, and the chunk's metrics [S, n].
    Raises KeyboardInterrupt only where nothing has been trained yet.
    """
    length = chunk_length(config.num_updates)
    init_keys, keys = jax.vmap(lambda key: training_keys(key, 0, config.num_updates))(seed_keys(seeds)[0])
    hyperparams = jax.tree.map(jnp.asarray, hyperparams)  # arguments of the program, not constants in it
    started = time.monotonic()
    states = jax.jit(jax.vmap(make_learner(config, hyperparams).init))(init_keys)
    chunk = jax.jit(make_chunk(config)).lower(states, keys[:, :length], hyperparams).compile()
    compiled = time.monotonic()
    rows: list[dict[str, np.ndarray]] = []
    try:
        for first in range(0, config.num_updates, length):
            states, metrics = chunk(states, keys[:, first : first + length], hyperparams)
            rows.append(jax.device_get(metrics))
            on_chunk(first + length, time.monotonic() - compiled, rows[-1])
    except KeyboardInterrupt:
        if not rows:
            raise
    metrics = {name: np.concatenate([row[name] for row in rows], axis=1) for name in rows[0]}
    finished = len(rows) * length == config.num_updates
    return Run(states, metrics, finished, compiled - started, time.monotonic() - compiled)


def evaluate_run(config: Config, done: Run, seeds: Sequence[int], num_episodes: int, *, greedy: bool) -> Evaluation:
    """The final policies of a run on fresh episodes, [S, num_episodes]."""

    def one(state: TrainState, key: jax.Array) -> Evaluation:
        params, normaliser = state.params.policy, state.normaliser
        return evaluate(config, params, key, num_episodes, greedy=greedy, normaliser=normaliser)

    return jax.jit(jax.vmap(one))(done.states, seed_keys(seeds)[1])


def chunk_length(num_updates: int) -> int:
    """Updates between two looks at a run: a divisor of `num_updates`, so that one program serves for all."""
    most = max(1, num_updates // 40)
    return next(length for length in range(most, 0, -1) if num_updates % length == 0)
