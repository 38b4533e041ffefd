"""Gradient accumulation: the gradient of a batch in micro-batches of environments, one after the
other, so that only one micro-batch is in memory.

    for k in 1..K:   τ ~ p(·; θ)ᴹ   collect      Ψ = weigh(τ)      g ← g + ∇ loss(θ; τ, Ψ) / K

Every environment has the same initial state and random numbers as in the whole batch
(`fast.row_keys`), so that the gradient equals that of the whole batch up to rounding. If Ψ compares
episodes with each other there are two passes over the micro-batches: the first keeps rewards and
ends, from which Ψ is computed; the second collects the same episodes again, and differentiates.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray, PyTree, Shaped

from pg import nonfinite, normalisation
from pg.config import Config
from pg.estimators import Estimator, Params, Weighted
from pg.estimators.names import facts_of
from pg.fast import row_keys
from pg.networks import Network
from pg.normalisation import Normaliser
from pg.rollout import NO_EXTRA_ROLLOUTS, Collector, Finished, RolloutState, Trajectory


class Gradient(NamedTuple):
    """The gradient of a batch, and its other results that an update needs."""

    grads: Params
    metrics: dict[str, Array]  # the estimator's, means over the valid steps of the batch
    estimator_state: PyTree
    rollout: RolloutState | tuple[()]  # the environments after it
    normaliser: Normaliser  # with the batch included
    finished: Finished
    env_steps: Int[Array, ""]  # of all environments
    are_finite: Bool[Array, "3"]  # see `nonfinite.of_batch`


class _Task(NamedTuple):
    """The arguments of `make_gradient`, and the sizes."""

    config: Config
    collector: Collector
    actor: Network
    est: Estimator
    gamma: Float[ArrayLike, ""]
    compares: bool  # Ψ compares episodes
    num_micro_batches: int  # K
    size: int  # environments of a micro-batch, M


class _Start(NamedTuple):
    """The start of an update: the training state, and the batch's raw key."""

    state: Any  # `pg.train.TrainState`
    key_data: Array


class _MicroBatch(NamedTuple):
    """The environments of a micro-batch: leaves [K, M, ...] of all, [M, ...] of one."""

    number: Int[Array, ""]  # its index among the K
    rollout: RolloutState | tuple[()]
    running: PyTree  # see `Normaliser`
    # Ψ and further constants from the whole batch, [T, M, ...]; () if micro-batches are weighted
    # separately
    weighed: PyTree


class _Sums(NamedTuple):
    """Sums over micro-batches."""

    grads: Params
    metrics: dict[str, Array]  # the means over the steps of a micro-batch, times their number
    steps: Float[Array, ""]  # valid ones
    finished: Finished
    env_steps: Int[Array, ""]
    not_finite: Int[Array, "3"]  # number of micro-batches with non-finite numbers


class _Pass(NamedTuple):
    """The results of a pass over all micro-batches."""

    sums: _Sums
    normaliser: Normaliser
    rollout: RolloutState | tuple[()]
    weighed: PyTree  # see `_MicroBatch`; leaves [K, T, M, ...]
    estimator_state: PyTree


def make_gradient(
    config: Config,
    collector: Collector,
    actor: Network,
    est: Estimator,
    gamma: Float[ArrayLike, ""],
) -> Callable[[Any, PRNGKeyArray], Gradient]:
    """Training state, key of the batch -> the `Gradient` at its parameters.

    Args:
        config: The settings, with at least two micro-batches.
        collector: How a micro-batch is collected.
        actor: The acting policy.
        est: The estimator.
        gamma: γ of the returns that set the scale of the rewards.
    """
    task = _Task(
        config,
        collector,
        actor,
        est,
        gamma,
        compares=facts_of(config.estimator).compares_episodes,
        num_micro_batches=num_micro_batches(config),
        size=config.num_envs // num_micro_batches(config),
    )

    def gradient(state: Any, key: PRNGKeyArray) -> Gradient:
        row_keys.check_generator(jax.random.key_impl(key))
        start = _Start(state, jax.random.key_data(key))
        result = _two_passes(task, start) if task.compares else _one_pass(task, start)
        sums = result.sums
        steps = jnp.maximum(sums.steps, 1.0)
        return Gradient(
            grads=jax.tree.map(lambda g: g / task.num_micro_batches, sums.grads),
            metrics={name: x / steps for name, x in sums.metrics.items()},
            estimator_state=result.estimator_state,
            rollout=result.rollout,
            normaliser=result.normaliser,
            finished=sums.finished,
            env_steps=sums.env_steps,
            are_finite=sums.not_finite == 0,
        )

    return gradient


def num_micro_batches(config: Config) -> int:
    """K, the number of micro-batches. Raises ValueError if it is still "auto"."""
    if config.micro_batches == "auto":
        raise ValueError(
            "micro_batches='auto' is chosen by the train command, which measures the memory: "
            "write a number"
        )
    return config.micro_batches


@contextlib.contextmanager
def without_batch() -> Iterator[None]:
    """A context for an optimizer step without the batch and without a way to collect another.

    Raises ValueError for a custom optimizer that asks for them.
    """
    try:
        yield
    except (KeyError, TypeError) as error:
        asked = [name for name in ("batch", "resample") if f"'{name}'" in str(error)]
        if not asked:
            raise
        raise ValueError(
            f"micro_batches keeps no batch, and this optimizer asks for {asked[0]!r} besides its "
            "gradient: use one that needs gradients alone, or micro_batches=1"
        ) from error


def check_estimator(config: Config, est: Estimator, estimator_state: PyTree) -> None:
    """Raises ValueError for an estimator whose gradient is not the mean of those of micro-batches.

    Args:
        config: The settings.
        est: The estimator.
        estimator_state: Its state.
    """
    instead = "or micro_batches=1"
    if not est.separable:
        raise ValueError(
            "micro_batches needs an estimator whose gradient is a mean over the episodes of a "
            f"batch: use another, {instead}"
        )
    if est.extra_rollouts != NO_EXTRA_ROLLOUTS:
        raise ValueError(
            "micro_batches excludes an estimator that queries the environment again, or samples "
            f"extra actions, with random numbers of the whole batch: use another, {instead}"
        )
    if jax.tree.leaves(estimator_state) and not facts_of(config.estimator).compares_episodes:
        raise ValueError(
            "micro_batches has no whole batch to update the state of an estimator with, and this "
            "one has a state: say that it compares with past batches, "
            '@pg.with_facts(baseline="past", ...), ' + instead
        )


def _one_pass(task: _Task, start: _Start) -> _Pass:
    """One pass, for an estimator whose Ψ does not compare environments."""
    sums, normaliser, rollout, _ = _over_micro_batches(task, start, ())
    return _Pass(sums, normaliser, rollout, (), start.state.estimator_state)


def _two_passes(task: _Task, start: _Start) -> _Pass:
    """Two passes of the same loop, so that both collect bitwise the same episodes."""
    state = start.state

    def take_pass(index: Int[Array, ""], weighed: PyTree) -> _Pass:
        sums, normaliser, rollout, scalars = _over_micro_batches(task, start, weighed, index > 0)
        batch, estimator_state = task.est.weigh(
            state.params, state.estimator_state, jax.tree.map(_side_by_side, scalars)
        )
        weighed = _in_micro_batches(task, _constants(batch), axis=1)
        return _Pass(sums, normaliser, rollout, weighed, estimator_state)

    take_pass = jax.jit(take_pass, inline=True)  # traced once for its shapes and for the loop
    no_weights = _zeros(_shape_of_constants(task, start))
    before = _zeros(jax.eval_shape(take_pass, jnp.int32(0), no_weights))
    # a loop of unknown length: one of known length might be unrolled, and then rounds differently
    count = jax.lax.optimization_barrier(jnp.int32(2))
    return jax.lax.fori_loop(0, count, lambda index, last: take_pass(index, last.weighed), before)


def _over_micro_batches(
    task: _Task, start: _Start, weighed: PyTree, differentiate: Bool[Array, ""] | None = None
) -> tuple[_Sums, Normaliser, RolloutState | tuple[()], PyTree]:
    """The sums over all micro-batches, the normaliser and the environments after them, and the
    `_step_scalars` of each, leaves [K, T, M], from which the whole batch is weighted.

    Args:
        task: The arguments and the sizes.
        start: The start of the update.
        weighed: See `_MicroBatch`; leaves [K, T, M, ...].
        differentiate: If False, the gradient is not computed, and is 0.
    """
    state = start.state
    micro_batches = _MicroBatch(
        jnp.arange(task.num_micro_batches, dtype=jnp.int32),
        _in_micro_batches(task, state.rollout),
        _in_micro_batches(task, state.normaliser.running),
        weighed,
    )

    def of_micro_batch(normaliser: Normaliser, micro_batch: _MicroBatch) -> Any:
        return _of_micro_batch(task, start, micro_batch, normaliser, differentiate)

    of_micro_batch = jax.jit(of_micro_batch, inline=True)
    normaliser = state.normaliser._replace(running=())
    first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), micro_batches)
    sums = _zeros(jax.eval_shape(of_micro_batch, normaliser, first)[0])

    def add(carry: tuple[_Sums, Normaliser], micro_batch: _MicroBatch) -> Any:
        sums, normaliser = carry
        new, normaliser, outputs = of_micro_batch(normaliser, micro_batch)
        return (jax.tree.map(jnp.add, sums, new), normaliser), outputs

    (sums, normaliser), outputs = jax.lax.scan(add, (sums, normaliser), micro_batches)
    rollout, running, scalars = outputs
    rollout, running = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (rollout, running))
    return sums, normaliser._replace(running=running), rollout, scalars


def _of_micro_batch(
    task: _Task,
    start: _Start,
    micro_batch: _MicroBatch,
    normaliser: Normaliser,
    differentiate: Bool[Array, ""] | None,
) -> tuple[_Sums, Normaliser, Any]:
    """The sums of one micro-batch; the normaliser with it included; and its environments
    afterwards, their returns so far and `_step_scalars`.
    """
    state, est = start.state, task.est
    key = jax.random.wrap_key_data(start.key_data, impl=row_keys.GENERATOR)
    total = task.config.num_envs
    rows_key = row_keys.of_rows(key, micro_batch.number * task.size, task.size, total)
    collected = task.collector.collect(task.actor, state.params, rows_key, micro_batch.rollout)
    traj = normalisation.scaled(collected.traj, state.normaliser)
    batch, _ = est.weigh(state.params, state.estimator_state, traj)
    if task.compares:
        batch = batch._replace(**micro_batch.weighed)

    def grad() -> tuple[Params, dict[str, Array]]:
        return est.grad(state.params, batch)

    if differentiate is None:
        grads, metrics = grad()
    else:
        grads, metrics = jax.lax.cond(differentiate, grad, lambda: _zeros(jax.eval_shape(grad)))
    steps = jnp.sum(traj.valid, dtype=traj.reward.dtype)
    sums = _Sums(
        grads=grads,
        metrics={name: steps * x for name, x in metrics.items()},
        steps=steps,
        finished=collected.finished,
        env_steps=jnp.sum(collected.traj.all_env_steps),
        not_finite=jnp.where(nonfinite.of_batch(collected.traj), 0, 1),
    )
    before = normaliser._replace(running=micro_batch.running)
    after = normalisation.observe(before, collected.traj, task.gamma)
    scalars = _step_scalars(task, traj, micro_batch.number) if task.compares else ()
    return sums, after._replace(running=()), (collected.state, after.running, scalars)


def _step_scalars(task: _Task, traj: Trajectory, number: Int[Array, ""]) -> Trajectory:
    """The trajectory of a micro-batch without observations and actions, with groups numbered as in
    the whole batch.
    """
    group = traj.group
    if not isinstance(group, tuple):
        group = group + number * (task.size // task.config.group_size)
    return traj._replace(obs=(), action=(), next_obs=(), carry=(), group=group)


def _constants(batch: Weighted) -> dict[str, PyTree]:
    """Ψ and the further constants of a batch, by name: all but its trajectory."""
    return {name: x for name, x in batch._asdict().items() if name != "traj"}


def _shape_of_constants(task: _Task, start: _Start) -> PyTree:
    """The shapes of `_constants` of all micro-batches, leaves [K, T, M, ...].

    Raises ValueError for an estimator whose `weigh` needs more than `_step_scalars`.
    """
    state, size = start.state, task.size

    def scalars() -> Trajectory:
        key = row_keys.of_rows(jax.random.key(0, impl=row_keys.GENERATOR), 0, size, size)
        rollout = jax.tree.map(lambda x: x[:size], state.rollout)
        collected = task.collector.collect(task.actor, state.params, key, rollout)
        return _step_scalars(task, collected.traj, jnp.int32(0))

    def of_whole(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((x.shape[0], task.config.num_envs, *x.shape[2:]), x.dtype)

    whole = jax.tree.map(of_whole, jax.eval_shape(scalars))
    try:
        batch, _ = jax.eval_shape(task.est.weigh, state.params, state.estimator_state, whole)
    except Exception as error:
        raise ValueError(
            "micro_batches keeps only rewards, ends and log-probabilities, and "
            "`weigh` of this estimator asks for more, such as observations or actions: write "
            "micro_batches=1"
        ) from error
    return jax.eval_shape(lambda x: _in_micro_batches(task, x, axis=1), _constants(batch))


def _in_micro_batches(task: _Task, tree: PyTree, axis: int = 0) -> PyTree:
    """Splits the environments on `axis` into micro-batches: leaves [K, ...]."""

    def split(x: Shaped[Array, "..."]) -> Shaped[Array, "K ..."]:
        shape = *x.shape[:axis], task.num_micro_batches, task.size, *x.shape[axis + 1 :]
        return jnp.moveaxis(x.reshape(shape), axis, 0)

    return jax.tree.map(split, tree)


def _side_by_side(x: Shaped[Array, "K T M ..."]) -> Shaped[Array, "T KM ..."]:
    """Concatenates the environments of all micro-batches."""
    return jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])


def _zeros(shapes: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
