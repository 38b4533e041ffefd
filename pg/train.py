"""Training: a key to trained parameters, the whole of it one `jax.lax.scan` over updates.

    for g in 1..G:   τ ~ p(·; θ)ᴺ    collect      Ψ = weigh(τ)      θ ← optax(θ, ∇ loss(θ; τ, Ψ))

The loop is in `make_train`, one update of it in `one_update`, one gradient step in `gradient_step`;
the score-function gradient, that of Ψ log π, is `Estimator.grad`, made in `pg.estimators.base`.
Environment, networks, estimator and optimizer are built inside the traced function, from a static
Config and from Hyperparams whose leaves may be traced; so `jit(vmap(train))` maps over seeds and
hyperparameters alike.
"""

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
from pg.estimators import Estimator, Params, Weighted
from pg.estimators.base import standardise_psi
from pg.estimators.checks import factory_of
from pg.fast import devices, shuffles
from pg.fast.scans import scan_keys
from pg.inputs import check_key, check_kind
from pg.networks import Network
from pg.normalisation import Normaliser
from pg.optimizers import OptimizerFactory, scheduled
from pg.optimizers.variance_reduction import Resample
from pg.parts import with_parts
from pg.rollout import Collected, Collector, Finished, RolloutState, Trajectory

EstimatorFactory = Callable[[Network, Network, Hyperparams], Estimator]
Metrics = dict[str, Array]


class TrainState(NamedTuple):
    """All that training carries from one update to the next: arrays only."""

    params: Params
    opt_state: PyTree
    estimator_state: PyTree
    rollout: RolloutState | tuple[()]  # () with episodes, which start afresh
    normaliser: Normaliser  # statistics of observations and returns so far
    update: Int[Array, ""]  # updates done
    # updates that were skipped because a number in them was not finite
    skipped: Int[Array, ""]
    # parameters of the last `policy_lag` updates, oldest first, leaves [lag, ...]; () without a lag
    history: PyTree = ()


class Learner(NamedTuple):
    """Training as a pair of pure functions."""

    init: Callable[[PRNGKeyArray], TrainState]  # key -> state
    # state, key -> state, metrics of scalars
    step: Callable[[TrainState, PRNGKeyArray], tuple[TrainState, Metrics]]


class Update(NamedTuple):
    """The results of one update: the next state, its metrics, and for the wrappers of a step what
    they were computed from.
    """

    state: TrainState
    metrics: Metrics
    are_finite: Bool[Array, " C"]  # as of `nonfinite.of_batch`
    largest: Float[Array, ""]  # norm of all gradients together, the largest on this batch
    # the collected trajectory, and the weighed batch (standardised with `advantages="batch"`); ()
    # with micro-batches, where the whole batch never exists at once
    traj: Trajectory | tuple[()] = ()
    batch: Weighted | tuple[()] = ()


Step = Callable[[TrainState, PRNGKeyArray], Update]  # state, key


class Learned(NamedTuple):
    """The state of the minibatch steps on one batch."""

    params: Params
    opt_state: PyTree
    stay: Bool[Array, ""]  # KL exceeded `stop_kl`: later steps are skipped
    largest: Float[Array, ""]  # norm of all gradients together, the largest so far on this batch


class Source(NamedTuple):
    """The source of gradients: a batch, and what an optimizer may ask for beside it."""

    batch: Weighted
    resample: Resample | None  # a batch at other parameters; None with windows
    key: PRNGKeyArray


# learned, gradients, metrics, index of the step in the run, **extra arguments of the optimizer
# -> learned, metrics
OptimizerStep = Callable[..., tuple[Learned, Metrics]]
# Source, part of its batch, number of the step among all that are planned -> learned, metrics
GradientStep = Callable[[Learned, Source, Weighted, Array], tuple[Learned, Metrics]]
# Source, key that shuffles its batch, number of the update -> learned, mean metrics
Passes = Callable[[Learned, Source, PRNGKeyArray, Array], tuple[Learned, Metrics]]


def make_learner(
    config: Config,
    hyperparams: Hyperparams | None = None,
    *,
    optimizer: OptimizerFactory | None = None,
    estimator: EstimatorFactory | None = None,
    policy: Any = None,
    critic: Any = None,
) -> Learner:
    """`init` and `step`, one gradient step (with ppo: its epochs × minibatches) on one batch.

    Schedules of `config` follow the updates and the steps that are planned, also past those that
    are not taken (`stop_kl`, numbers that are not finite), so that each ends at zero. An optimizer
    itself, as Adam for its bias correction, counts the steps that were taken.

    Metrics: return, length (means over the episodes that ended; NaN if none did), episodes,
    env_steps, grad_norm (before clipping), entropy (nats), nonfinite (bits of
    `config.NONFINITE_CAUSES`), skipped (1: the update was not taken), and what the estimator adds.
    All of unscaled rewards.
    With `config.diagnostics`: grad_variance (tr Σ of one episode's gradient, or of one
    environment's over a window), grad_squared_norm (‖∇J‖², unbiased, and so negative at times),
    explained_variance (with a critic V; NaN if there is nothing to explain), all before the update.
    With `config.policy_lag`: ess, ratio_low, ratio_median and ratio_high, of `with_weights`.
    Under JAX_DEBUG_NANS, which stops at any NaN, `nonfinite.STAND_IN` is in the place of those that
    are meant.

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
    number = accumulation.number_of_groups(config)
    env = envs.configured(config, lag.num_envs(config), h.env_params, restarting=True)
    policy = networks.make_policy(config, env)
    critic = networks.make_critic(config, env)
    make_estimator = factory_of(config.estimator)
    first = make_estimator(policy, critic, h)
    _check_estimator(config, first, jax.eval_shape(first.init, jax.random.key(0))[1])
    collector = rollout.make_collector(config, env, further=first.further)
    collector_of_group = _collector_of_group(config, h, number) if number > 1 else None
    optimizer_at = optimizers.planned(config, h)
    start_optimizer = optimizer_at(jnp.int32(0)).init

    def init(key: PRNGKeyArray) -> TrainState:
        check_key(key)
        params_key, rollout_key = jax.random.split(key)
        params, estimator_state = first.init(params_key)
        return TrainState(
            params=params,
            opt_state=start_optimizer(params),
            estimator_state=estimator_state,
            rollout=collector.init(networks.actor(policy, critic), rollout_key),
            normaliser=normalisation.start(config, env.obs_shape),
            update=jnp.int32(0),
            skipped=jnp.int32(0),
            history=lag.start(config, params),
        )

    def make_step(policy: Network, critic: Network, h: Hyperparams) -> Step:
        est = make_estimator(policy, critic, h)
        actor = networks.actor(policy, critic)
        move = optimizer_step(config, h, policy, est, optimizer_at, collector.scale)
        if collector_of_group is not None:
            gradient = accumulation.make_gradient(config, collector_of_group, actor, est, h.gamma)
            return accumulated_update(gradient, move)
        collect = lag.mixed(config, collector, policy)
        learn = passes(config, gradient_step(config, est, move))
        step = one_update(config, h, collect, actor, est, learn)
        if config.policy_lag:
            step = with_weights(step, config, policy)
        return diagnosed(step, config, critic, est, collector.scale) if config.diagnostics else step

    step = following(make_step, config, h, policy, critic)
    step = nonfinite.guarded(step, config.on_nonfinite)

    def public_step(state: TrainState, key: PRNGKeyArray) -> tuple[TrainState, Metrics]:
        check_key(key)
        check_kind("state", state, TrainState, "write learner.init(key)")
        done = step(state, key)
        return done.state, done.metrics

    return Learner(init, public_step)


def one_update(
    config: Config,
    h: Hyperparams,
    collector: Collector,
    actor: Network,
    est: Estimator,
    learn: Passes,
) -> Step:
    """One update of the parameters: collect → weigh → learn → summarise.

    Args:
        config: The settings.
        h: The hyperparameters of this update.
        collector: How a batch is collected.
        actor: The policy that acts.
        est: Ψ (`weigh`) and the gradient (`grad`).
        learn: The gradient steps on a batch.
    """

    def weighed(state: TrainState, params: Params, collected: Collected) -> tuple[Weighted, PyTree]:
        traj = normalisation.scaled(collected.traj, state.normaliser)
        batch, estimator_state = est.weigh(params, state.estimator_state, traj)
        return standardise_psi(batch) if config.advantages == "batch" else batch, estimator_state

    def step(state: TrainState, key: PRNGKeyArray) -> Update:
        collect_key, shuffle_key, steps_key = jax.random.split(key, 3)
        acting, history = lag.acting(config, state.params, state.history)
        collected = collector.collect(actor, acting, collect_key, state.rollout)
        batch, estimator_state = weighed(state, state.params, collected)

        def resample(params: Params, key: PRNGKeyArray) -> tuple[Weighted, Array]:
            again = collector.collect(actor, params, key, ())
            return weighed(state, params, again)[0], jnp.sum(again.traj.all_env_steps)

        source = Source(batch, resample if config.collect == "episodes" else None, steps_key)
        start = Learned(state.params, state.opt_state, jnp.bool_(False), jnp.zeros(()))
        learned, metrics = learn(start, source, shuffle_key, state.update)
        after = state._replace(
            params=learned.params,
            opt_state=learned.opt_state,
            estimator_state=estimator_state,
            rollout=collected.state,
            normaliser=normalisation.observe(state.normaliser, collected.traj, h.gamma),
            update=state.update + 1,
            history=history,
        )
        env_steps = jnp.sum(collected.traj.all_env_steps)
        metrics = metrics | _summary(collected.finished, env_steps)
        metrics["env_steps"] += optimizers.env_steps(learned.opt_state)
        are_finite = nonfinite.of_batch(collected.traj)
        return Update(after, metrics, are_finite, learned.largest, collected.traj, batch)

    return step


def accumulated_update(
    gradient: Callable[[TrainState, PRNGKeyArray], accumulation.Gradient], move: OptimizerStep
) -> Step:
    """One update of the parameters, on a batch in micro-batches.

    Args:
        gradient: State, key of the batch -> its gradient.
        move: The step of the optimizer.
    """

    def step(state: TrainState, key: PRNGKeyArray) -> Update:
        collect_key, _, steps_key = jax.random.split(key, 3)
        found = gradient(state, collect_key)
        start = Learned(state.params, state.opt_state, jnp.bool_(False), jnp.zeros(()))
        with accumulation.without_batch():
            learned, metrics = move(start, found.grads, found.metrics, state.update, key=steps_key)
        after = state._replace(
            params=learned.params,
            opt_state=learned.opt_state,
            estimator_state=found.estimator_state,
            rollout=found.rollout,
            normaliser=found.normaliser,
            update=state.update + 1,
        )
        metrics = metrics | _summary(found.finished, found.env_steps)
        return Update(after, metrics, found.are_finite, learned.largest)

    return step


def gradient_step(config: Config, est: Estimator, move: OptimizerStep) -> GradientStep:
    """θ ← optax(θ, ∇ loss) on a batch or on a part of one.

    Args:
        config: The settings.
        est: The estimator, whose `grad` is the score-function gradient.
        move: The step of the optimizer.
    """

    def one(
        learned: Learned, source: Source, batch: Weighted, step: Int[Array, ""]
    ) -> tuple[Learned, Metrics]:
        grads, metrics = est.grad(learned.params, batch)
        further = {"batch": batch, "key": source.key, "resample": source.resample}
        return move(learned, grads, metrics, step, **further)

    return one


def optimizer_step(
    config: Config,
    h: Hyperparams,
    policy: Network,
    est: Estimator,
    optimizer_at: Callable[[Array], optax.GradientTransformationExtraArgs],
    scale: float,
) -> OptimizerStep:
    """θ ← optax(θ, g) for gradients g of a loss.

    Args:
        config: The settings.
        h: The hyperparameters.
        policy: The policy that learns.
        est: The estimator.
        optimizer_at: Number of a step among those that are planned -> its optimizer.
        scale: Multiplies the gradient; that of single steps is a mean over steps already.
    """
    scale = scale if config.minibatch_size is None else 1.0

    def one(
        learned: Learned,
        grads: Params,
        metrics: Metrics,
        step: Int[Array, ""],
        *,
        key: PRNGKeyArray,
        **of_batch: Any,  # `batch` and `resample`, where there is a batch
    ) -> tuple[Learned, Metrics]:
        grads = jax.tree.map(lambda g: scale * g, grads)
        updates, opt_state = optimizer_at(step).update(
            grads,
            learned.opt_state,
            learned.params,
            policy=policy,
            estimator=est,
            gradient_scale=scale,
            key=jax.random.fold_in(key, step),
            **of_batch,
        )
        after = Learned(
            params=optax.apply_updates(learned.params, updates),
            opt_state=opt_state,
            stay=learned.stay | (metrics.get("kl", 0.0) > h.stop_kl),
            largest=jnp.maximum(learned.largest, optax.tree.norm(grads)),
        )
        return after, {"grad_norm": optax.tree.norm(grads.policy), **metrics}

    return one


def passes(config: Config, take: GradientStep) -> Passes:
    """One step on the batch, or on each of its minibatches until the policy has moved too far.

    Steps are numbered as if all that are planned had been taken; metrics are means over them.
    """
    steps = config.steps_per_update
    single_steps = config.minibatch_size is not None

    def standardised(batch: Weighted) -> Weighted:
        return standardise_psi(batch) if config.advantages == "minibatch" else batch

    def one_step(
        learned: Learned, source: Source, key: PRNGKeyArray, update: Int[Array, ""]
    ) -> tuple[Learned, Metrics]:
        return take(learned, source, standardised(source.batch), update)

    if steps == 1 and not single_steps:
        return one_step

    def minibatches(
        learned: Learned, source: Source, key: PRNGKeyArray, update: Int[Array, ""]
    ) -> tuple[Learned, Metrics]:
        full = devices.gather_envs(source.batch)
        if single_steps:  # each is an environment with one step: leaves [1, T B, ...]
            full = jax.tree.map(lambda x: x.reshape(1, -1, *x.shape[2:]), full)

        def one(learned: Learned, x: tuple[Array, Array]) -> tuple[Learned, Metrics]:
            rows, step = x
            part = standardised(jax.tree.map(lambda x: x[:, rows], full))
            # Every device holds the whole minibatch, and takes its share only where the gradient is
            # summed: sharded here, each mean over the steps would need a collective.
            moved, metrics = take(learned, source, devices.gather_envs(part), step)
            unmoved = learned._replace(stay=moved.stay, largest=moved.largest)
            after = jax.tree.map(lambda old, new: jnp.where(moved.stay, old, new), unmoved, moved)
            return after, metrics

        numbers = update * steps + jnp.arange(steps, dtype=jnp.int32)
        learned, metrics = jax.lax.scan(one, learned, (_minibatches(config, key), numbers))
        return learned, jax.tree.map(jnp.mean, metrics)

    return minibatches


def following(
    make_step: Callable[[Network, Network, Hyperparams], Step],
    config: Config,
    h: Hyperparams,
    policy: Network,
    critic: Network,
) -> Step:
    """The step, rebuilt at every update from the state of the run.

    Networks standardise observations by the running statistics, and annealed hyperparameters take
    their value at this update. If the settings ask for neither, the step is built once.

    Args:
        make_step: Policy, critic, hyperparams -> step.
        config: The settings.
        h: The hyperparameters before they are annealed.
        policy: The policy, which sees observations as they are.
        critic: The critic, which does too.
    """
    annealed = config.entropy_schedule != "constant" or config.epsilon_schedule != "constant"
    if not annealed and not config.normalise_observations:
        return make_step(policy, critic, h)

    def step(state: TrainState, key: PRNGKeyArray) -> Update:
        own_policy = normalisation.with_standardised_observations(policy, state.normaliser)
        own_critic = normalisation.with_standardised_observations(critic, state.normaliser)
        return make_step(own_policy, own_critic, scheduled(config, h, state.update))(state, key)

    return step


def make_train(
    config: Config,
    hyperparams: Hyperparams | None = None,
    *,
    optimizer: OptimizerFactory | None = None,
    estimator: EstimatorFactory | None = None,
    policy: Any = None,
    critic: Any = None,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """`train(key, hyperparams) -> state, metrics [num_updates]`: pure, to be jitted and vmapped.

    Args:
        config: The settings.
        hyperparams: Those of a call that gives none; default: `config.hyperparams()`.
        optimizer: As of `make_learner`.
        estimator: As of `make_learner`.
        policy: As of `make_learner`.
        critic: As of `make_learner`.

    Raises:
        ValueError: Values out of range, or parts that do not fit together.
    """
    check_config(config)
    usual = check_hyperparams(config.hyperparams() if hyperparams is None else hyperparams)
    config = with_parts(
        config, optimizer=optimizer, estimator=estimator, policy=policy, critic=critic
    )
    check_together(config, usual)

    def train(
        key: PRNGKeyArray, hyperparams: Hyperparams | None = None
    ) -> tuple[TrainState, Metrics]:
        check_key(key)
        h = as_arrays(usual) if hyperparams is None else hyperparams
        learner = make_learner(config, h)
        init_key, keys = training_keys(key, 0, config.num_updates)
        return scan_keys(learner.step, learner.init(init_key), keys)

    return train


def as_arrays(hyperparams: Hyperparams) -> Hyperparams:
    """Returns the hyperparameters as arrays behind an optimization barrier, so that XLA cannot fold
    them: a run has the same bits whether they are constants of the program or its arguments.
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
    policy: Any = None,
    critic: Any = None,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """`chunk(state, keys [n], hyperparams, count=n) -> state, metrics [n]`: `count` more updates;
    it may be traced.

    One part of a long run, with logging and saving between parts. Bitwise identical to a single
    scan if `count` is traced: XLA inlines a loop whose trip count is known to be one, and the
    inlined body may round differently. Metrics beyond `count` are zeros.

    Args:
        config: The settings.
        optimizer: As of `make_learner`.
        estimator: As of `make_learner`.
        policy: As of `make_learner`.
        critic: As of `make_learner`.
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

        step = jax.jit(step, inline=True)  # it is traced once for its shapes and for the loop
        impl = jax.random.key_impl(keys)
        # a key that is taken from an array in a loop looks as if it were used twice
        data = jax.random.key_data(keys)

        def one(i: Int[Array, ""], loop: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
            state, new = step(loop[0], jax.random.wrap_key_data(data[i], impl=impl))
            return state, jax.tree.map(lambda row, x: row.at[i].set(x), loop[1], new)

        shapes = jax.eval_shape(step, state, keys[0])[1]
        rows = jax.tree.map(lambda s: jnp.zeros((len(keys), *s.shape), s.dtype), shapes)
        return jax.lax.fori_loop(0, count, one, (state, rows))

    return chunk


def training_keys(
    key: PRNGKeyArray, start: Int[ArrayLike, ""], count: int
) -> tuple[PRNGKeyArray, Shaped[Array, "n ..."]]:
    """The keys of a run: that of `init`, and those of its updates.

    An update's key depends on its number alone, so that a run in chunks, or one that is continued
    beyond its planned end, draws what a single scan would have drawn.

    Args:
        key: The run's key, as of `pg.seed_key`.
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

    # Mapped: written out, each shuffle would be compiled.
    groups = jax.vmap(shuffled)(jax.random.split(key, config.num_epochs))
    order = groups[..., None] * config.group_size + jnp.arange(config.group_size)[None, None]
    return order.reshape(config.steps_per_update, -1)


def _collector_of_group(config: Config, h: Hyperparams, number: int) -> Collector:
    """The collector of the environments of one of so many micro-batches."""
    num_envs = config.num_envs // number
    env = envs.configured(config, num_envs, h.env_params, restarting=True)
    return rollout.make_collector(config, env)


def _check_estimator(config: Config, est: Estimator, estimator_state: PyTree) -> None:
    """Raises ValueError for an estimator that does not fit the settings."""
    if accumulation.number_of_groups(config) > 1:
        accumulation.check_estimator(config, est, estimator_state)
    if config.diagnostics and not est.separable:
        raise ValueError(
            "diagnostics need an estimator whose gradient is a mean over the episodes of a batch"
        )
    if config.collect not in est.accepts:
        raise ValueError(
            f"this estimator accepts collect={' or '.join(est.accepts)}, not {config.collect!r}"
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
