"""Evaluation during training: every few updates or minutes, between two chunks.

Its episodes have their own keys, which follow from the seed and the number of updates: training has
the same bits with and without it, and a resumed run has the evaluations of an uninterrupted one.
The results are metrics, `eval_return` and `eval_standard_error`, NaN in updates without an
evaluation.

The evaluation after the last update is part of the results, but not of the state from which a run
is resumed: with more updates added, it has the evaluations and best parameters of a single run.

The parameters with the highest return are kept. That return is the largest of several
noisy ones, and so too high on average: their reported return is from fresh episodes.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pg.fast import devices
from pg.fast.devices import Layout
from pg.normalisation import Normaliser
from pg.runs import results
from pg.seeds import progress_key
from pg.train import Params, TrainState

# key data [n] -> the evaluation of each run, [n, episodes], by how actions are chosen
Evaluate = Callable[[TrainState, np.ndarray], Mapping[str, Any]]


class Plan(NamedTuple):
    """The evaluations of a training."""

    every: int | None = None  # updates from one to the next
    minutes: float | None = None  # or minutes: two runs then have different updates
    episodes: int = 100  # of each evaluation and seed
    greedy: bool = False  # the mode of the policy instead of a sample
    # training ends when the evaluation of every seed has at least this mean; None: it does not
    stop_at_return: float | None = None
    at_end: bool = True  # also evaluate after the last update
    # only after these updates, whatever the fields above say: for a run that is repeated
    updates: frozenset[int] | None = None

    @property
    def actions(self) -> str:
        """The way in which actions are chosen, as named in the results."""
        return "greedy" if self.greedy else "sampled"


class Best(NamedTuple):
    """The parameters of n runs with the highest return of all evaluations so far."""

    params: Params  # leaves [n, ...]
    normaliser: Normaliser  # the statistics that belong to them, leaves [n, ...]
    score: Any  # [n] that return, which selected them and so is not an unbiased estimate
    update: Any  # [n] updates done then


class Evaluator:
    """Evaluates n runs while they are trained."""

    def __init__(
        self,
        plan: Plan,
        evaluate: Evaluate,
        seeds: Sequence[int],
        num_runs: int,
        layout: Layout,
        best: Best | None = None,
    ) -> None:
        """Prepares the keys.

        Args:
            plan: The evaluations.
            evaluate: The program of one evaluation of all runs.
            seeds: Of the runs; further runs only pad the devices.
            num_runs: All of them, n.
            layout: Their layout over devices.
            best: The best parameters so far, for resumed runs.
        """
        self.plan, self.evaluate, self.layout = plan, evaluate, layout
        self.num_seeds, self.best = len(seeds), best
        filled = [seeds[min(i, len(seeds) - 1)] for i in range(num_runs)]
        self.keys = jnp.stack([progress_key(seed) for seed in filled])
        self.since = time.monotonic()  # the last evaluation

    def updates_left(self, done: int) -> float:
        """The updates until the next evaluation; infinite if only the clock decides."""
        if self.plan.updates is not None:
            return min((x for x in self.plan.updates if x > done), default=math.inf) - done
        return math.inf if self.plan.every is None else self.plan.every - done % self.plan.every

    def columns(self, done: int, count: int, states: TrainState) -> dict[str, np.ndarray]:
        """The metrics [seeds, count] of the evaluations in the last `count` updates.

        Args:
            done: Updates done.
            count: Those of them since the last call.
            states: Leaves [n, ...], on the devices.
        """
        columns = {
            name: np.full((self.num_seeds, count), np.nan, np.float32) for name in results.EVALUATED
        }
        if self._is_due(done):
            for name, scores in self._scores(done, states).items():
                columns[name][:, -1] = scores
        return columns

    def at_end(
        self, done: int, metrics: Mapping[str, np.ndarray], states: TrainState
    ) -> dict[str, np.ndarray]:
        """The metrics of the last updates; the very last is evaluated if it was not yet.

        Args:
            done: All updates.
            metrics: [seeds, count] each, of the last ones.
            states: Leaves [n, ...], on the devices.
        """
        evaluated = "eval_return" in metrics and not np.isnan(metrics["eval_return"][:, -1]).all()
        # only the first process has all metrics of a resumed run
        evaluated = bool(devices.agreed(int(evaluated)))
        if evaluated or not self.plan.at_end:
            return dict(metrics)
        empty = np.full(metrics["env_steps"].shape, np.nan, np.float32)
        columns = {name: metrics.get(name, empty).copy() for name in results.EVALUATED}
        for name, scores in self._scores(done, states).items():
            columns[name][:, -1] = scores
        return {**metrics, **columns}

    def has_reached(self, metrics: Mapping[str, np.ndarray]) -> bool:
        """True if the last update was evaluated, and every seed has the return at which training
        ends; frozen seeds do not count.

        metrics: [seeds, updates] each.
        """
        target = self.plan.stop_at_return
        if target is None or "eval_return" not in metrics:
            return False
        scores = metrics["eval_return"][:, -1]
        fine = ~results.failed_runs(metrics)
        return bool(fine.any() and (scores[fine] >= target).all())

    def _is_due(self, done: int) -> bool:
        if self.plan.updates is not None:
            return done in self.plan.updates
        if self.plan.every is not None and done % self.plan.every == 0:
            return True
        if self.plan.minutes is None:
            return False
        passed = time.monotonic() - self.since >= 60 * self.plan.minutes
        return bool(devices.agreed(int(passed)))

    def _scores(self, done: int, states: TrainState) -> dict[str, np.ndarray]:
        """Evaluates all runs after update `done`, and keeps the best; [seeds] each."""
        keys = jax.vmap(jax.random.fold_in, (0, None))(self.keys, np.uint32(done))
        found = self.evaluate(states, np.asarray(jax.random.key_data(keys)))
        scores = results.final_scores(devices.fetch(found[self.plan.actions], self.layout))
        mean = scores["mean"].astype(np.float32)
        self._keep_best(done, states, mean)
        self.since = time.monotonic()
        return {
            "eval_return": mean[: self.num_seeds],
            "eval_standard_error": scores["standard_error"][: self.num_seeds].astype(np.float32),
        }

    def _keep_best(self, done: int, states: TrainState, scores: np.ndarray) -> None:
        """Replaces the best parameters of the runs that have improved; on ties, the first stay."""
        scores = np.where(np.isnan(scores), -np.inf, scores).astype(np.float32)
        before = self.best
        better = scores > before.score if before else np.ones(len(scores), bool)
        if not better.any():
            return
        params, normaliser = devices.fetch((states.params, states.normaliser), self.layout)
        update = np.full(len(scores), done, np.int32)
        now = Best(params, normaliser, scores, update)

        def choose(new: Any, old: Any) -> np.ndarray:
            chosen = better.reshape(-1, *[1] * (np.ndim(new) - 1))
            return np.where(chosen, new, old)  # a copy: the devices' buffers are reused

        self.best = jax.tree.map(choose, now, before or now)


def best_template(state: TrainState) -> Best:
    """The shapes of the best parameters of one run.

    state: that of one run, as in `jax.eval_shape`.
    """
    score = jax.ShapeDtypeStruct((), np.float32)
    return Best(state.params, state.normaliser, score, jax.ShapeDtypeStruct((), np.int32))
