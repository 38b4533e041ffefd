"""Training: a key to trained parameters, the whole of it one `jax.lax.scan` over gradient steps.

    for g in 1..G:   τ ~ p(·; θ)ᴺ   collect     Ψ = weigh(τ)     θ ← optax(θ, ∇ loss(θ; τ, Ψ))

Environment, networks, estimator and optimizer are built inside the traced function, from a static
Config and from Hyperparams whose leaves may be traced; so `jit(vmap(train))` maps over seeds and
hyperparameters alike.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pg import diagnostics, envs, networks, nonfinite, normalisation, rollout
from pg.config import (
    WHOLE_NUMBERS,
    Config,
    Hyperparams,
    Schedule,
    check_config,
    check_hyperparams,
    check_together,
)
from pg.estimators import ESTIMATORS, Estimator, Params, Weighted
from pg.estimators.base import standardise, values
from pg.estimators.checks import checked
from pg.estimators.facts import FACTS
from pg.fast import devices
from pg.inputs import check_key, check_kind
from pg.networks import Network
from pg.normalisation import Normaliser
from pg.optimizers import OptimizerFactory, make_optimizer, schedule
from pg.rollout import Finished, Trajectory

EstimatorFactory = Callable[[Network, Network, Hyperparams], Estimator]
Metrics = dict[str, jax.Array]


class TrainState(NamedTuple):
    """All that training carries from one update to the next: arrays only."""

    params: Params
    opt_state: Any
    estimator_state: Any
    rollout: Any  # RolloutState with windows; () with episodes, which start afresh
    normaliser: Normaliser  # statistics of observations and returns so far
    update: jax.Array  # int [], updates done
    # int [], those of them that were not taken, as a number in them was not finite
    skipped: jax.Array


class Learner(NamedTuple):
    """Training as a pair of pure functions."""

    init: Callable[[jax.Array], TrainState]  # key -> state
    # state, key -> state, metrics of scalars
    step: Callable[[TrainState, jax.Array], tuple[TrainState, Metrics]]


def make_learner(
    config: Config,
    hyperparams: Hyperparams | None = None,
    *,
    optimizer: OptimizerFactory | None = None,
    estimator: EstimatorFactory | None = None,
) -> Learner:
    """`init` and `step`, one gradient step (with ppo: its epochs × minibatches) on one batch.

    optimizer: learning rate -> optax transformation; estimator: (policy, critic, hyperparams) ->
    Estimator; each overrides the name in `config`. Raises ValueError for values out of range or
    parts that do not fit together.

    Schedules of `config` follow the updates and the steps that are planned, also past those that
    are not taken (`stop_kl`, numbers that are not finite), so that each ends at zero. What an
    optimizer counts by itself, as Adam for its bias correction, are the steps that were taken.

    Metrics: return, length (means over the episodes that ended; NaN if none did), episodes,
    env_steps, grad_norm (before clipping), entropy (nats), nonfinite (bits of `nonfinite.CAUSES`),
    skipped (1: the update was not taken), and what the estimator adds. All of unscaled rewards.
    With `config.diagnostics`: grad_variance (tr Σ of one episode's gradient, or of one
    environment's over a window), grad_squared_norm (‖∇J‖², unbiased, and so negative at times),
    explained_variance (with a critic V; NaN if there is nothing to explain), all before the update.
    Under JAX_DEBUG_NANS, which stops at any NaN, `nonfinite.STAND_IN` is in the place of those that
    are meant.
    """
    check_config(config)
    h = check_hyperparams(config.hyperparams() if hyperparams is None else hyperparams)
    check_together(config, h)
    env = envs.configured(config, config.num_envs, h.env_params)
    plain = networks.make_policy(config, env), networks.make_critic(config, env)
    make_estimator = checked(estimator or ESTIMATORS[config.estimator])
    first = make_estimator(*plain, h)
    if config.diagnostics and not first.separable:
        raise ValueError(
            "diagnostics need an estimator whose gradient is a mean over the episodes of a batch"
        )
    if config.collect not in first.accepts:
        raise ValueError(
            f"this estimator accepts collect={' or '.join(first.accepts)}, not {config.collect!r}"
        )
    opt = functools.partial(make_optimizer, config, h, optimizer)
    start_optimizer = opt().init  # made here, so that a mistake in it is found here

    def init(key: jax.Array) -> TrainState:
        check_key(key)
        params_key, rollout_key = jax.random.split(key)
        params, estimator_state = first.init(params_key)
        state = (
            rollout.start(env, networks.actor(*plain), rollout_key)
            if config.collect == "windows"
            else ()
        )
        normaliser = normalisation.start(config, env.obs_shape)
        opt_state = start_optimizer(params)
        return TrainState(
            params, opt_state, estimator_state, state, normaliser, jnp.int32(0), jnp.int32(0)
        )

    def collect(
        state: TrainState, actor: Network, key: jax.Array
    ) -> tuple[Any, Trajectory, Finished]:
        if config.collect == "windows":
            return rollout.windows(
                env, actor, state.params, key, state.rollout, config.num_steps, config.horizon
            )
        traj = rollout.episodes(
            env, actor, state.params, key, config.horizon, group_size=config.group_size
        )
        return (
            (),
            traj,
            Finished(jnp.int32(config.num_envs), traj.reward.sum(), traj.env_steps.sum()),
        )

    def step(state: TrainState, key: jax.Array) -> tuple[TrainState, Metrics]:
        check_key(key)
        check_kind("state", state, TrainState, "write learner.init(key)")
        collect_key, shuffle_key = jax.random.split(key)
        policy, critic = (
            normalisation.standardised(network, state.normaliser) for network in plain
        )
        rollout_state, traj, finished = collect(state, networks.actor(policy, critic), collect_key)
        est = make_estimator(policy, critic, scheduled(config, h, state.update))
        seen = normalisation.scaled(traj, state.normaliser)
        batch, estimator_state = est.weigh(state.params, state.estimator_state, seen)
        quality = _quality(config, est, critic, state.params, batch) if config.diagnostics else {}
        improve = _gradient_step(config, h, opt, policy, est)
        learned = Learned(state.params, state.opt_state, jnp.bool_(False), jnp.zeros(()))
        learned, metrics = _passes(config, improve, learned, batch, shuffle_key, state.update)
        normaliser = normalisation.observe(state.normaliser, traj, h.gamma)
        rest = estimator_state, rollout_state, normaliser, state.update + 1, state.skipped
        moved = TrainState(learned.params, learned.opt_state, *rest)
        bits = nonfinite.causes(traj.reward, traj.obs, traj.valid, learned.largest, learned.params)
        metrics |= _summary(finished, traj) | quality | {"nonfinite": bits}
        return _taken(config, state, moved, metrics)

    return Learner(init, step)


class Learned(NamedTuple):
    """What changes between the minibatches of one batch."""

    params: Params
    opt_state: Any
    stay: jax.Array  # bool []: the policy has moved far enough on this batch
    largest: jax.Array  # [] norm of all gradients together, the largest so far on this batch


# Part of a batch, number of the step among all that are planned -> what is learned from it, metrics
Improve = Callable[[Learned, Weighted, jax.Array], tuple[Learned, Metrics]]


def scheduled(config: Config, h: Hyperparams, update: jax.Array) -> Hyperparams:
    """The hyperparameters of an update: entropy and clip ranges on their course."""

    def at(course: Schedule, value: Any) -> Any:
        if course == "constant":
            return value
        return jnp.where(
            jnp.isinf(value), value, value * schedule(course, 1.0, config.num_updates)(update)
        )

    return h._replace(
        **{
            name: at(config.entropy_schedule, getattr(h, name))
            for name in ("entropy_coef", "temperature")
        },
        **{
            name: at(config.epsilon_schedule, getattr(h, name))
            for name in ("epsilon", "value_epsilon")
        },
    )


def make_train(
    config: Config,
    hyperparams: Hyperparams | None = None,
    *,
    optimizer: OptimizerFactory | None = None,
    estimator: EstimatorFactory | None = None,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """`train(key, hyperparams) -> state, metrics [num_updates]`: pure, to be jitted and vmapped.

    hyperparams: those of a call that gives none; default: `config.hyperparams()`.
    """
    check_config(config)
    usual = check_hyperparams(config.hyperparams() if hyperparams is None else hyperparams)
    check_together(config, usual)

    def train(key: jax.Array, hyperparams: Hyperparams | None = None) -> tuple[TrainState, Metrics]:
        check_key(key)
        h = as_arrays(usual) if hyperparams is None else hyperparams
        learner = make_learner(config, h, optimizer=optimizer, estimator=estimator)
        init_key, keys = training_keys(key, 0, config.num_updates)
        return envs.scan_keys(learner.step, learner.init(init_key), keys)

    return train


def as_arrays(hyperparams: Hyperparams) -> Hyperparams:
    """Hyperparameters as arrays that the compiler does not read: bits must not depend on who passes
    them, as constants of a program or as its arguments.
    """
    real = jnp.zeros(()).dtype
    scalars: dict[str, Any] = {
        name: jnp.asarray(value, jnp.int32 if name in WHOLE_NUMBERS else real)
        for name, value in hyperparams.scalars().items()
    }
    return jax.lax.optimization_barrier(hyperparams._replace(**scalars))


def make_chunk(
    config: Config,
    *,
    optimizer: OptimizerFactory | None = None,
    estimator: EstimatorFactory | None = None,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """`chunk(state, keys [n], hyperparams, count=n) -> state, metrics [n]`: `count` more updates;
    it may be traced.

    What a long run calls again and again, with printing and saving in between; equal to one scan,
    bit for bit, where `count` is traced: a loop that is known to turn once is compiled without the
    loop, and may round otherwise. Metrics beyond `count` are zeros.
    """
    check_config(config)

    def chunk(
        state: TrainState, keys: jax.Array, hyperparams: Hyperparams, count: Any = None
    ) -> tuple[TrainState, Metrics]:
        step = make_learner(config, hyperparams, optimizer=optimizer, estimator=estimator).step
        if count is None:
            return envs.scan_keys(step, state, keys)

        impl = jax.random.key_impl(keys)
        # a key that is taken from an array in a loop looks as if it were used twice
        data = jax.random.key_data(keys)

        def one(i: jax.Array, loop: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
            state, new = step(loop[0], jax.random.wrap_key_data(data[i], impl=impl))
            return state, jax.tree.map(lambda row, x: row.at[i].set(x), loop[1], new)

        shapes = jax.eval_shape(step, state, keys[0])[1]
        rows = jax.tree.map(lambda s: jnp.zeros((len(keys), *s.shape), s.dtype), shapes)
        return jax.lax.fori_loop(0, count, one, (state, rows))

    return chunk


def training_keys(key: jax.Array, start: Any, count: int) -> tuple[jax.Array, jax.Array]:
    """The keys of a run: that of `init`, and those of `count` updates from number `start` on, which
    may be traced.

    An update's key depends on its number alone, so that a run in chunks, or one that is continued
    beyond its planned end, draws what a single scan would have drawn.
    """
    init_key, step_key = jax.random.split(key)
    return init_key, jax.vmap(lambda i: jax.random.fold_in(step_key, i))(start + jnp.arange(count))


def _gradient_step(
    config: Config,
    h: Hyperparams,
    opt: Callable[[jax.Array], optax.GradientTransformationExtraArgs],
    policy: Network,
    est: Estimator,
) -> Improve:
    """θ ← optax(θ, ∇ loss) on a batch or a part of one. opt: number of the step -> its
    optimizer.
    """
    scale = 1.0 if _draws_steps(config) else _scale(config)

    def improve(learned: Learned, batch: Weighted, step: jax.Array) -> tuple[Learned, Metrics]:
        if config.advantages == "minibatch":
            batch = standardise(batch)
        grads, metrics = est.grad(learned.params, batch)
        grads = jax.tree.map(lambda g: scale * g, grads)
        extra = {"batch": batch, "policy": policy, "estimator": est, "gradient_scale": scale}
        updates, opt_state = opt(step).update(grads, learned.opt_state, learned.params, **extra)
        metrics = {"grad_norm": optax.tree.norm(grads.policy), **metrics}
        stay = learned.stay | (metrics.get("kl", 0.0) > h.stop_kl)
        largest = jnp.maximum(learned.largest, optax.tree.norm(grads))
        return Learned(
            optax.apply_updates(learned.params, updates), opt_state, stay, largest
        ), metrics

    return improve


def _scale(config: Config) -> float:
    """What gradients are multiplied with.

    Over a window there is no episode to sum over: its gradient is per step, so that its scale,
    which clipping sees, does not depend on where the window is cut.
    """
    return 1 / config.num_steps if config.collect == "windows" else 1.0


def _quality(
    config: Config, est: Estimator, critic: Network, params: Params, batch: Weighted
) -> Metrics:
    """How good the batch's gradient is, of the Ψ that the first step on it takes."""
    batch = devices.gather_envs(batch if config.advantages == "raw" else standardise(batch))
    episodes = diagnostics.of_episodes(est, params, batch)
    found = diagnostics.moments(*episodes, batch_size=diagnostics.at_once(batch.traj, 1))
    noise = _scale(config) ** 2 * optax.tree.sum(found.variance)
    signal = _scale(config) ** 2 * optax.tree.norm(found.mean, squared=True) - noise / found.size
    metrics = {"grad_variance": noise, "grad_squared_norm": signal}
    if FACTS[config.estimator].critic == "V" and not isinstance(batch.target, tuple):
        value = values(critic, params, batch.traj)
        metrics["explained_variance"] = diagnostics.explained_variance(
            value, batch.target, batch.traj.valid, missing=nonfinite.missing()
        )
    return metrics


def _passes(
    config: Config,
    improve: Improve,
    learned: Learned,
    batch: Weighted,
    key: jax.Array,
    update: jax.Array,
) -> tuple[Learned, Metrics]:
    """One step on the batch, or on each of its minibatches until the policy has moved too far. ->
    mean metrics.

    update: number of updates before this one. Steps are numbered as if all of them had been taken.
    """
    if config.advantages == "batch":
        batch = standardise(batch)
    steps = config.steps_per_update
    if steps == 1 and not _draws_steps(config):
        return improve(learned, batch, update)

    def one(
        learned: Learned, part_of_batch: tuple[jax.Array, jax.Array]
    ) -> tuple[Learned, Metrics]:
        rows, step = part_of_batch
        part = devices.spread_envs(jax.tree.map(lambda x: x[:, rows], whole), axis=1)
        moved, metrics = improve(learned, part, step)
        kept = learned._replace(stay=moved.stay, largest=moved.largest)
        return jax.tree.map(lambda old, new: jnp.where(moved.stay, old, new), kept, moved), metrics

    whole = devices.gather_envs(batch)
    if _draws_steps(config):  # each step is an environment with one step: leaves [1, T B, ...]
        whole = jax.tree.map(lambda x: x.reshape(1, -1, *x.shape[2:]), whole)
    numbers = update * steps + jnp.arange(steps, dtype=jnp.int32)
    learned, metrics = jax.lax.scan(one, learned, (_minibatches(config, key), numbers))
    return learned, jax.tree.map(jnp.mean, metrics)


def _taken(
    config: Config, state: TrainState, moved: TrainState, metrics: Metrics
) -> tuple[TrainState, Metrics]:
    """The state after an update, or the one before it where a number is not finite."""
    reject = nonfinite.rejected(config.on_nonfinite, metrics["nonfinite"], state.skipped)
    kept = jax.tree.map(lambda old, new: jnp.where(reject, old, new), state, moved)
    skipped = reject.astype(jnp.int32)
    return kept._replace(update=moved.update, skipped=state.skipped + skipped), metrics | {
        "skipped": skipped
    }


def _minibatches(config: Config, key: jax.Array) -> jax.Array:
    """The environments of each minibatch, [epochs · minibatches, B / minibatches], reshuffled every
    epoch.

    Groups are shuffled whole: a minibatch has all episodes of a group or none. With
    `minibatch_size` it is the steps of the window, of all environments together, that are shuffled.
    """
    things = (
        config.num_envs * config.num_steps
        if _draws_steps(config)
        else config.num_envs // config.group_size
    )

    def shuffled(key: jax.Array) -> jax.Array:
        return jax.random.permutation(key, things)

    # Mapped: written out, each shuffle would be compiled.
    groups = jax.vmap(shuffled)(jax.random.split(key, config.num_epochs))
    order = groups[..., None] * config.group_size + jnp.arange(config.group_size)[None, None]
    return order.reshape(config.steps_per_update, -1)


def _draws_steps(config: Config) -> bool:
    """Tells whether minibatches are made of single steps, not of whole environments."""
    return config.minibatch_size is not None


def _summary(finished: Finished, traj: Trajectory) -> Metrics:
    ended = finished.episodes > 0
    count = jnp.where(ended, finished.episodes.astype(float), 1.0)
    length = finished.steps.astype(float)
    return {
        "return": jnp.where(ended, finished.returns / count, nonfinite.missing()),
        "length": jnp.where(ended, length / count, nonfinite.missing()),
        "episodes": finished.episodes,
        "env_steps": jnp.sum(traj.env_steps),
    }
