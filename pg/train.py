"""Training: a key to trained parameters, in a single `jax.lax.scan` over updates.

    for g in 1..G:
        τ ~ p(·; θ)ᴺ                     collect
        Ψ = weigh(τ)                     weigh
        θ ← optax(θ, ∇ loss(θ; τ, Ψ))    fit: one gradient step, or epochs of minibatches

The loop is in `make_train`, one update in `make_update`, its gradient steps in `make_fit`. The
score-function gradient ∇ (Ψ log π) is `Estimator.grad`, built in `pg.estimators.base`. Environment,
networks, estimator and optimizer are built inside the traced function, from a static Config and
from Hyperparams whose leaves may be traced, so that `jit(vmap(train))` maps over both seeds and
hyperparameters.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PRNGKeyArray, PyTree, Shaped

from pg import (
    accumulation,
    envs,
    lag,
    networks,
    nonfinite,
    normalisation,
    optimizers,
    rollout,
)
from pg.config import (
    WHOLE_NUMBERS,
    Config,
    Hyperparams,
    check_config,
    check_hyperparams,
    check_together,
)
from pg.diagnostics.training import diagnosed, with_weights
from pg.envs import Env
from pg.estimators import Estimator, Params, Weighted
from pg.estimators.base import standardise_psi
from pg.estimators.checks import factory_of
from pg.fast import blocks, devices, shuffles
from pg.fast.scans import scan_keys
from pg.inputs import check_key, check_kind
from pg.networks import Network
from pg.normalisation import Normaliser
from pg.optimizers import OptimizerFactory, scheduled
from pg.parts import with_parts
from pg.rollout import Collector, Finished, RolloutState, Trajectory

EstimatorFactory = Callable[[Network, Network, Hyperparams], Estimator]
NetworkFactory = Callable[[Config, Env], Network]
Metrics = dict[str, Array]


class TrainState(NamedTuple):
    """The training state, carried from one update to the next: arrays only."""

    params: Params
    opt_state: PyTree
    estimator_state: PyTree
    rollout: RolloutState | tuple[()]  # () with episodes, which start from resets
    normaliser: Normaliser  # statistics of observations and returns so far
    update: Int[Array, ""]  # updates done
    # updates that were skipped because of a non-finite number
    skipped: Int[Array, ""]
    # parameters of the last `policy_lag` updates, oldest first, leaves [lag, ...]; () without a lag
    history: PyTree = ()


class Learner(NamedTuple):
    """Training as a pair of pure functions."""

    init: Callable[[PRNGKeyArray], TrainState]  # key -> state
    # state, key -> state, metrics of scalars
    step: Callable[[TrainState, PRNGKeyArray], tuple[TrainState, Metrics]]


class Update(NamedTuple):
    """The results of one update: the next state and its metrics, and for wrappers of the update
    step the data that they were computed from.
    """

    state: TrainState
    metrics: Metrics
    are_finite: Bool[Array, "3"]  # see `nonfinite.of_batch`
    largest_grad_norm: Float[Array, ""]  # see `FitState`
    # the collected trajectory, and the weighted batch (standardised with `advantages="batch"`); ()
    # with micro-batches, where the whole batch never exists at once
    traj: Trajectory | tuple[()] = ()
    batch: Weighted | tuple[()] = ()


class FitState(NamedTuple):
    """The state of the gradient steps on one batch."""

    params: Params
    opt_state: PyTree
    stopped: Bool[Array, ""]  # the KL exceeded `stop_kl`: the remaining steps are skipped
    # the largest joint norm of the gradients of policy and critic so far
    largest_grad_norm: Float[Array, ""]


UpdateStep = Callable[[TrainState, PRNGKeyArray], Update]  # state, key -> results
# state, gradients, metrics, index of the step among all planned ones, **extra arguments of the
# optimizer -> state, metrics
ApplyGradients = Callable[..., tuple[FitState, Metrics]]
# state, batch, shuffling key, number of the update, extra arguments of the optimizer
# -> state, mean metrics
FitBatch = Callable[
    [FitState, Weighted, PRNGKeyArray, Array, dict[str, Any]], tuple[FitState, Metrics]
]


def make_learner(
    config: Config,
    hyperparams: Hyperparams | None = None,
    *,
    optimizer: OptimizerFactory | None = None,
    estimator: EstimatorFactory | None = None,
    policy: Network | NetworkFactory | None = None,
    critic: Network | NetworkFactory | None = None,
) -> Learner:
    """`init` and `step`; a step collects one batch and takes one gradient step on it, or epochs ×
    minibatches of them.

    Schedules of `config` depend on the planned updates and steps, including skipped ones
    (`stop_kl`, non-finite numbers), so that skipped steps do not delay them. The optimizer itself,
    such as Adam in its bias correction, counts the steps that were taken.

    Metrics: return, length (means over the episodes that ended; NaN if none did), episodes,
    env_steps, grad_norm (before clipping), entropy (nats), nonfinite (bits of
    `config.NONFINITE_CAUSES`), skipped (1: the update was not taken), and the estimator's. Returns
    are sums of unscaled rewards. With `config.diagnostics`: grad_variance (tr Σ of one episode's
    gradient, or of one environment's over a window), grad_squared_norm (‖∇J‖², unbiased, so
    possibly negative), explained_variance (with a critic V; NaN if the target is constant), all
    before the update. With `config.policy_lag`: ess, ratio_low, ratio_median and ratio_high, see
    `with_weights`. Under JAX_DEBUG_NANS, which stops at any NaN, `nonfinite.STAND_IN` replaces
    intentional ones.

    Args:
        config: The settings.
        hyperparams: Hyperparameters, which may be traced; default: `config.hyperparams()`.
        optimizer: Learning rate -> optax transformation, instead of that of `config`.
        estimator: Policy, critic, hyperparams -> Estimator, instead of that of `config`.
        policy: A Network, or config, env -> Network, instead of that of `config`.
        critic: The same for the critic.

    Raises:
        ValueError: Values out of range, or parts that do not fit together.
    """
    check_config(config)
    h = check_hyperparams(config.hyperparams() if hyperparams is None else hyperparams)
    config = with_parts(
        config, optimizer=optimizer, estimator=estimator, policy=policy, critic=critic
    )
    check_together(config, h)
    env = envs.configured(config, lag.num_envs(config), h.env_params, restarting=True)
    policy = networks.make_policy(config, env)
    critic = networks.make_critic(config, env)
    make_estimator = factory_of(config.estimator)
    est = make_estimator(policy, critic, h)
    _check_estimator(config, est)
    collector = rollout.make_collector(config, env, extra_rollouts=est.extra_rollouts)
    micro_batch_collector = _micro_batch_collector(config, h)
    optimizer_at = optimizers.planned(config, h)
    init_optimizer = optimizer_at(jnp.int32(0)).init

    def init(key: PRNGKeyArray) -> TrainState:
        check_key(key)
        params_key, rollout_key = jax.random.split(key)
        params, estimator_state = est.init(params_key)
        return TrainState(
            params=params,
            opt_state=init_optimizer(params),
            estimator_state=estimator_state,
            rollout=collector.init(networks.actor(policy, critic), rollout_key),
            normaliser=normalisation.start(config, env.obs_shape),
            update=jnp.int32(0),
            skipped=jnp.int32(0),
            history=lag.initial_history(config, params),
        )

    def make_step(policy: Network, critic: Network, h: Hyperparams) -> UpdateStep:
        est = _in_blocks(config, policy, critic, make_estimator(policy, critic, h))
        actor = networks.actor(policy, critic)
        apply_gradients = make_apply_gradients(
            config, h, policy, est, optimizer_at, collector.scale
        )
        if micro_batch_collector is not None:
            batch_gradient = accumulation.make_gradient(
                config, micro_batch_collector, actor, est, h.gamma
            )
            return make_accumulated_update(batch_gradient, apply_gradients)
        fit_batch = make_fit(config, est, apply_gradients)
        step = make_update(config, h, lag.mixed(config, collector, policy), actor, est, fit_batch)
        if config.policy_lag:
            step = with_weights(step, config, policy)
        if config.diagnostics:
            step = diagnosed(step, config, critic, est, collector.scale)
        return step

    update_step = rebuilt_each_update(make_step, config, h, policy, critic)
    update_step = nonfinite.guarded(update_step, config.on_nonfinite)

    def step(state: TrainState, key: PRNGKeyArray) -> tuple[TrainState, Metrics]:
        check_key(key)
        check_kind("state", state, TrainState, "write learner.init(key)")
        update = update_step(state, key)
        return update.state, update.metrics

    return Learner(init, step)


def make_update(
    config: Config,
    h: Hyperparams,
    collector: Collector,
    actor: Network,
    est: Estimator,
    fit_batch: FitBatch,
) -> UpdateStep:
    """One update of the parameters: collect → weigh → fit → summarise.

    Args:
        config: The settings.
        h: The hyperparameters of this update.
        collector: How a batch is collected.
        actor: The acting policy.
        est: Ψ (`weigh`) and the gradient (`grad`).
        fit_batch: The gradient steps on a batch.
    """

    def weigh(state: TrainState, params: Params, traj: Trajectory) -> tuple[Weighted, PyTree]:
        traj = normalisation.scaled(traj, state.normaliser)
        batch, estimator_state = est.weigh(params, state.estimator_state, traj)
        if config.advantages == "batch":
            batch = standardise_psi(batch)
        return batch, estimator_state

    # see `optimizers.variance_reduction.Resample`
    def resample(
        state: TrainState, params: Params, key: PRNGKeyArray
    ) -> tuple[Weighted, Int[Array, ""]]:
        again = collector.collect(actor, params, key, ())
        batch, _ = weigh(state, params, again.traj)
        return batch, jnp.sum(again.traj.all_env_steps)

    def step(state: TrainState, key: PRNGKeyArray) -> Update:
        collect_key, shuffle_key, optimizer_key = jax.random.split(key, 3)
        behaviour, history = lag.behaviour_params(config, state.params, state.history)
        collected = collector.collect(actor, behaviour, collect_key, state.rollout)
        traj = collected.traj
        batch, estimator_state = weigh(state, state.params, traj)
        extra_args: dict[str, Any] = {"key": optimizer_key, "resample": None}
        if config.collect == "episodes":
            extra_args["resample"] = functools.partial(resample, state)
        fitted, metrics = fit_batch(_fit_state(state), batch, shuffle_key, state.update, extra_args)
        after = _next_state(
            state,
            fitted,
            estimator_state=estimator_state,
            rollout=collected.state,
            normaliser=normalisation.observe(state.normaliser, traj, h.gamma),
            history=history,
        )
        env_steps = jnp.sum(traj.all_env_steps) + optimizers.env_steps(fitted.opt_state)
        metrics = metrics | _summary(collected.finished, env_steps)
        are_finite = nonfinite.of_batch(traj)
        return Update(after, metrics, are_finite, fitted.largest_grad_norm, traj, batch)

    return step


def make_accumulated_update(
    batch_gradient: Callable[[TrainState, PRNGKeyArray], accumulation.Gradient],
    apply_gradients: ApplyGradients,
) -> UpdateStep:
    """One update of the parameters, on a batch in micro-batches.

    Args:
        batch_gradient: State, key of the batch -> its gradient.
        apply_gradients: The step of the optimizer.
    """

    def step(state: TrainState, key: PRNGKeyArray) -> Update:
        collect_key, _, optimizer_key = jax.random.split(key, 3)
        gradient = batch_gradient(state, collect_key)
        grads, metrics = gradient.grads, gradient.metrics
        with accumulation.without_batch():
            fitted, metrics = apply_gradients(
                _fit_state(state), grads, metrics, state.update, key=optimizer_key
            )
        after = _next_state(
            state,
            fitted,
            estimator_state=gradient.estimator_state,
            rollout=gradient.rollout,
            normaliser=gradient.normaliser,
        )
        metrics = metrics | _summary(gradient.finished, gradient.env_steps)
        return Update(after, metrics, gradient.are_finite, fitted.largest_grad_norm)

    return step


def make_fit(config: Config, est: Estimator, apply_gradients: ApplyGradients) -> FitBatch:
    """θ ← optax(θ, ∇ loss): one step on the batch, or epochs of steps on its minibatches until the
    KL divergence exceeds `stop_kl`.

    Steps are numbered as if all planned ones had been taken. Metrics are means over all planned
    steps; those of skipped steps are computed at the parameters where the updates stopped.

    Args:
        config: The settings.
        est: The estimator, whose `grad` is the score-function gradient.
        apply_gradients: The step of the optimizer.
    """
    num_steps = config.steps_per_update
    single_steps = config.minibatch_size is not None

    def standardised(batch: Weighted) -> Weighted:
        return standardise_psi(batch) if config.advantages == "minibatch" else batch

    def gradient_step(
        state: FitState, batch: Weighted, step: Int[Array, ""], extra_args: dict[str, Any]
    ) -> tuple[FitState, Metrics]:
        grads, metrics = est.grad(state.params, batch)
        return apply_gradients(state, grads, metrics, step, batch=batch, **extra_args)

    def fit_batch(
        state: FitState,
        batch: Weighted,
        shuffle_key: PRNGKeyArray,
        update: Int[Array, ""],
        extra_args: dict[str, Any],
    ) -> tuple[FitState, Metrics]:
        if num_steps == 1 and not single_steps:
            return gradient_step(state, standardised(batch), update, extra_args)

        batch = devices.gather_envs(batch)
        if single_steps:  # as T B environments with one step each: leaves [1, T B, ...]
            batch = jax.tree.map(lambda x: x.reshape(1, -1, *x.shape[2:]), batch)

        def minibatch_step(state: FitState, x: tuple[Array, Array]) -> tuple[FitState, Metrics]:
            rows, step = x
            minibatch = standardised(jax.tree.map(lambda x: x[:, rows], batch))
            # Every device holds the whole minibatch, and takes its share only where the gradient is
            # summed: sharded here, each mean over the steps would need a collective.
            minibatch = devices.gather_envs(minibatch)
            taken, metrics = gradient_step(state, minibatch, step, extra_args)
            skipped = state._replace(
                stopped=taken.stopped, largest_grad_norm=taken.largest_grad_norm
            )
            choose = functools.partial(jnp.where, taken.stopped)
            return jax.tree.map(choose, skipped, taken), metrics

        steps = update * num_steps + jnp.arange(num_steps, dtype=jnp.int32)
        minibatches = _minibatches(config, shuffle_key)
        state, metrics = jax.lax.scan(minibatch_step, state, (minibatches, steps))
        return state, jax.tree.map(jnp.mean, metrics)

    return fit_batch


def make_apply_gradients(
    config: Config,
    h: Hyperparams,
    policy: Network,
    est: Estimator,
    optimizer_at: Callable[[Array], optax.GradientTransformationExtraArgs],
    scale: float,
) -> ApplyGradients:
    """θ ← optax(θ, g) for gradients g of a loss.

    Args:
        config: The settings.
        h: The hyperparameters.
        policy: The learning policy.
        est: The estimator.
        optimizer_at: Index of a step among all planned ones -> its optimizer.
        scale: A factor of the gradient, not applied with minibatches of single steps, whose
            gradient is a mean over steps already.
    """
    scale = scale if config.minibatch_size is None else 1.0

    def apply_gradients(
        state: FitState,
        grads: Params,
        metrics: Metrics,
        step: Int[Array, ""],
        *,
        key: PRNGKeyArray,
        **extra_args: Any,  # `batch` and `resample`, if there is a whole batch
    ) -> tuple[FitState, Metrics]:
        grads = jax.tree.map(lambda g: scale * g, grads)
        updates, opt_state = optimizer_at(step).update(
            grads,
            state.opt_state,
            state.params,
            policy=policy,
            estimator=est,
            gradient_scale=scale,
            key=jax.random.fold_in(key, step),
            **extra_args,
        )
        after = FitState(
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
            stopped=state.stopped | (metrics.get("kl", 0.0) > h.stop_kl),
            largest_grad_norm=jnp.maximum(state.largest_grad_norm, optax.tree.norm(grads)),
        )
        return after, {"grad_norm": optax.tree.norm(grads.policy), **metrics}

    return apply_gradients


def rebuilt_each_update(
    make_step: Callable[[Network, Network, Hyperparams], UpdateStep],
    config: Config,
    h: Hyperparams,
    policy: Network,
    critic: Network,
) -> UpdateStep:
    """The update step, rebuilt at every update from the state of the run.

    Networks standardise observations by the current running statistics, and annealed
    hyperparameters take their current value. If the settings use neither, the step is built once.

    Args:
        make_step: Policy, critic, hyperparams -> step.
        config: The settings.
        h: The hyperparameters before they are annealed.
        policy: The policy, on raw observations.
        critic: The critic, on raw observations.
    """
    annealed = config.entropy_schedule != "constant" or config.epsilon_schedule != "constant"
    if not annealed and not config.normalise_observations:
        return make_step(policy, critic, h)

    def step(state: TrainState, key: PRNGKeyArray) -> Update:
        current_policy = normalisation.with_standardised_observations(policy, state.normaliser)
        current_critic = normalisation.with_standardised_observations(critic, state.normaliser)
        current_h = scheduled(config, h, state.update)
        return make_step(current_policy, current_critic, current_h)(state, key)

    return step


def make_train(
    config: Config,
    hyperparams: Hyperparams | None = None,
    *,
    optimizer: OptimizerFactory | None = None,
    estimator: EstimatorFactory | None = None,
    policy: Network | NetworkFactory | None = None,
    critic: Network | NetworkFactory | None = None,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """`train(key, hyperparams) -> state, metrics [num_updates]`: pure, to be jitted and vmapped.

    Args:
        config: The settings.
        hyperparams: The default argument of `train`; default: `config.hyperparams()`.
        optimizer: See `make_learner`.
        estimator: See `make_learner`.
        policy: See `make_learner`.
        critic: See `make_learner`.

    Raises:
        ValueError: Values out of range, or parts that do not fit together.
    """
    check_config(config)
    default = check_hyperparams(config.hyperparams() if hyperparams is None else hyperparams)
    config = with_parts(
        config, optimizer=optimizer, estimator=estimator, policy=policy, critic=critic
    )
    check_together(config, default)

    def train(
        key: PRNGKeyArray, hyperparams: Hyperparams | None = None
    ) -> tuple[TrainState, Metrics]:
        check_key(key)
        h = as_arrays(default) if hyperparams is None else hyperparams
        learner = make_learner(config, h)
        init_key, keys = training_keys(key, 0, config.num_updates)
        return scan_keys(learner.step, learner.init(init_key), keys)

    return train


def as_arrays(hyperparams: Hyperparams) -> Hyperparams:
    """Returns the hyperparameters as arrays behind an optimization barrier, so that XLA cannot
    constant-fold them: a run is bitwise the same whether they are constants or arguments.
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
    policy: Network | NetworkFactory | None = None,
    critic: Network | NetworkFactory | None = None,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """`chunk(state, keys [n], hyperparams, count=n) -> state, metrics [n]`: `count` more updates;
    `count` may be traced.

    One part of a long run, with logging and saving between parts. Bitwise identical to a single
    scan if `count` is traced: XLA inlines a loop whose trip count is known to be one, and the
    inlined body may round differently. Metrics beyond `count` are zeros.

    Args:
        config: The settings.
        optimizer: See `make_learner`.
        estimator: See `make_learner`.
        policy: See `make_learner`.
        critic: See `make_learner`.
    """
    check_config(config)
    config = with_parts(
        config, optimizer=optimizer, estimator=estimator, policy=policy, critic=critic
    )

    def chunk(
        state: TrainState, keys: Shaped[Array, "n ..."], hyperparams: Hyperparams, count: Any = None
    ) -> tuple[TrainState, Metrics]:
        step = make_learner(config, hyperparams).step
        if count is None:
            return scan_keys(step, state, keys)

        step = jax.jit(step, inline=True)  # traced once, for both the shapes and the loop
        impl = jax.random.key_impl(keys)
        # JAX's check for key reuse would report a key indexed from an array inside a loop
        data = jax.random.key_data(keys)

        def write_row(
            i: Int[Array, ""], loop: tuple[TrainState, Metrics]
        ) -> tuple[TrainState, Metrics]:
            state, rows = loop
            state, metrics = step(state, jax.random.wrap_key_data(data[i], impl=impl))
            return state, jax.tree.map(lambda row, x: row.at[i].set(x), rows, metrics)

        shapes = jax.eval_shape(step, state, keys[0])[1]
        rows = jax.tree.map(lambda s: jnp.zeros((len(keys), *s.shape), s.dtype), shapes)
        return jax.lax.fori_loop(0, count, write_row, (state, rows))

    return chunk


def training_keys(
    key: PRNGKeyArray, start: Int[ArrayLike, ""], count: int
) -> tuple[PRNGKeyArray, Shaped[Array, "n ..."]]:
    """The keys of a run: that of `init`, and those of its updates.

    An update's key depends only on its number, so that a run in chunks, or one that is continued
    beyond its planned end, uses the same random numbers as a single scan.

    Args:
        key: The run's key, see `pg.seed_key`.
        start: The number of the first update; it may be traced.
        count: The number of updates.
    """
    init_key, step_key = jax.random.split(key)
    return init_key, jax.vmap(lambda i: jax.random.fold_in(step_key, i))(start + jnp.arange(count))


def _minibatches(config: Config, key: PRNGKeyArray) -> Int[Array, "steps rows"]:
    """The environments of each minibatch, [epochs · minibatches, B / minibatches], reshuffled every
    epoch; with `minibatch_size` its steps, [epochs · T B / minibatch_size, minibatch_size].

    Groups are shuffled whole: a minibatch has all episodes of a group or none.
    """

    def shuffled(key: PRNGKeyArray) -> Int[Array, " things"]:
        if config.minibatch_size is None:
            return jax.random.permutation(key, config.num_envs // config.group_size)
        return shuffles.permutation(key, config.num_envs * config.num_steps)

    # By vmap: a Python loop would compile each shuffle separately.
    groups = jax.vmap(shuffled)(jax.random.split(key, config.num_epochs))
    order = groups[..., None] * config.group_size + jnp.arange(config.group_size)[None, None]
    return order.reshape(config.steps_per_update, -1)


def _micro_batch_collector(config: Config, h: Hyperparams) -> Collector | None:
    """The collector of one micro-batch's environments; None without micro-batches."""
    num_micro_batches = accumulation.num_micro_batches(config)
    if num_micro_batches == 1:
        return None
    num_envs = config.num_envs // num_micro_batches
    env = envs.configured(config, num_envs, h.env_params, restarting=True)
    return rollout.make_collector(config, env)


def _check_estimator(config: Config, est: Estimator) -> None:
    """Raises ValueError for an estimator that does not fit the settings."""
    _, estimator_state = jax.eval_shape(est.init, jax.random.key(0))
    if accumulation.num_micro_batches(config) > 1:
        accumulation.check_estimator(config, est, estimator_state)
    if config.diagnostics and not est.separable:
        raise ValueError(
            "diagnostics need an estimator whose gradient is a mean over the episodes of a batch"
        )
    if config.collect not in est.accepts:
        raise ValueError(
            f"this estimator accepts collect={' or '.join(est.accepts)}, not {config.collect!r}"
        )


def _in_blocks(config: Config, policy: Network, critic: Network, est: Estimator) -> Estimator:
    """The estimator in large blocks of rows, if they suit its networks and batches, see
    `blocks.large`.
    """
    if config.collect == "episodes" or not (policy.has_fixed_sums and critic.has_fixed_sums):
        return est
    return est._replace(weigh=blocks.large()(est.weigh), grad=blocks.large()(est.grad))


def _fit_state(state: TrainState) -> FitState:
    """The state before the first gradient step on a batch."""
    return FitState(state.params, state.opt_state, jnp.bool_(False), jnp.zeros(()))


def _next_state(state: TrainState, fitted: FitState, **changes: Any) -> TrainState:
    """The training state after an update.

    Args:
        state: The state before it.
        fitted: The state after the last gradient step.
        changes: Changes to its other fields.
    """
    return state._replace(
        params=fitted.params, opt_state=fitted.opt_state, update=state.update + 1, **changes
    )


def _summary(finished: Finished, env_steps: Int[Array, ""]) -> Metrics:
    episodes, total, steps = finished
    ended = episodes > 0
    count = jnp.where(ended, episodes.astype(float), 1.0)
    length = steps.astype(float)
    return {
        "return": jnp.where(ended, total / count, nonfinite.missing()),
        "length": jnp.where(ended, length / count, nonfinite.missing()),
        "episodes": episodes,
        "env_steps": env_steps,
    }
