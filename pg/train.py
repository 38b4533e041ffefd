"""Training: a key to trained parameters, the whole of it one `jax.lax.scan` over gradient steps.

    for g in 1..G:   τ ~ p(·; θ)ᴺ    collect        Ψ = weigh(τ)        θ ← optax(θ, ∇ loss(θ; τ, Ψ))

Environment, networks, estimator and optimizer are built inside the traced function, from a static Config and
from Hyperparams whose leaves may be traced; so `jit(vmap(train))` maps over seeds and hyperparameters alike.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pg import envs, networks, rollout
from pg.config import Config, Hyperparams, check_hyperparams
from pg.estimators import ESTIMATORS, Estimator, Params, Weighted
from pg.networks import Network
from pg.optimizers import OptimizerFactory, make_optimizer
from pg.rollout import Finished, Trajectory

EstimatorFactory = Callable[[Network, Network, Hyperparams], Estimator]
Metrics = dict[str, jax.Array]


class TrainState(NamedTuple):
    """All that training carries from one update to the next: arrays only."""

    params: Params
    opt_state: Any
    estimator_state: Any
    rollout: Any  # RolloutState with windows; () with episodes, which start afresh


class Learner(NamedTuple):
    """Training as a pair of pure functions."""

    init: Callable[[jax.Array], TrainState]  # key -> state
    step: Callable[[TrainState, jax.Array], tuple[TrainState, Metrics]]  # state, key -> state, metrics of scalars


def make_learner(
    config: Config,
    hyperparams: Hyperparams | None = None,
    *,
    optimizer: OptimizerFactory | None = None,
    estimator: EstimatorFactory | None = None,
) -> Learner:
    """`init` and `step`, one gradient step (with ppo: its epochs × minibatches) on one batch.

    optimizer: learning rate -> optax transformation; estimator: (policy, critic, hyperparams) -> Estimator; each
    overrides the name in `config`. Raises ValueError for values out of range or parts that do not fit together.

    Metrics: return, length (means over the episodes that ended; NaN if none did), episodes, env_steps,
    grad_norm (before clipping), entropy (nats), and what the estimator adds.
    """
    h = check_hyperparams(hyperparams or Hyperparams())
    env = envs.make_env(config.env, config.num_envs, {**dict(config.env_params), **h.env_params})
    policy, critic = networks.make_policy(config, env), networks.make_critic(config, env)
    est = (estimator or ESTIMATORS[config.estimator])(policy, critic, h)
    if config.collect not in est.accepts:
        raise ValueError(f"this estimator accepts collect={' or '.join(est.accepts)}, not {config.collect!r}")
    opt = make_optimizer(config, h, optimizer)
    # Over a window there is no episode to sum over: its gradient is per step, so that its scale, which clipping
    # sees, does not depend on where the window is cut.
    scale = 1 / config.num_steps if config.collect == "windows" else 1.0

    def init(key: jax.Array) -> TrainState:
        params_key, rollout_key = jax.random.split(key)
        params, estimator_state = est.init(params_key)
        state = rollout.start(env, policy, rollout_key) if config.collect == "windows" else ()
        return TrainState(params, opt.init(params), estimator_state, state)

    def collect(state: TrainState, key: jax.Array) -> tuple[Any, Trajectory, Finished]:
        if config.collect == "windows":
            return rollout.windows(env, policy, state.params.policy, key, state.rollout, config.num_steps)
        traj = rollout.episodes(env, policy, state.params.policy, key, config.horizon, group_size=config.group_size)
        return (), traj, Finished(jnp.int32(config.num_envs), traj.reward.sum(), traj.valid.sum())

    def update(learned: tuple[Params, Any], batch: Weighted) -> tuple[tuple[Params, Any], Metrics]:
        params, opt_state = learned
        grads, metrics = est.grad(params, batch)
        grads = jax.tree.map(lambda g: scale * g, grads)
        updates, opt_state = opt.update(grads, opt_state, params, batch=batch, policy=policy, estimator=est)
        metrics = {"grad_norm": optax.tree.norm(grads.policy), **metrics}
        return (optax.apply_updates(params, updates), opt_state), metrics

    def step(state: TrainState, key: jax.Array) -> tuple[TrainState, Metrics]:
        collect_key, shuffle_key = jax.random.split(key)
        rollout_state, traj, finished = collect(state, collect_key)
        batch, estimator_state = est.weigh(state.params, state.estimator_state, traj)
        learned = state.params, state.opt_state
        if config.num_epochs * config.num_minibatches == 1:
            learned, metrics = update(learned, batch)
        else:
            learned, metrics = jax.lax.scan(
                lambda learned, rows: update(learned, jax.tree.map(lambda x: x[:, rows], batch)),
                learned,
                _minibatches(config, shuffle_key),
            )
            metrics = jax.tree.map(jnp.mean, metrics)
        return TrainState(*learned, estimator_state, rollout_state), _summary(finished, traj) | metrics

    return Learner(init, step)


def make_train(
    config: Config, *, optimizer: OptimizerFactory | None = None, estimator: EstimatorFactory | None = None
) -> Callable[..., tuple[TrainState, Metrics]]:
    """`train(key, hyperparams=Hyperparams()) -> state, metrics [num_updates]`: pure, to be jitted and vmapped."""

    def train(key: jax.Array, hyperparams: Hyperparams | None = None) -> tuple[TrainState, Metrics]:
        learner = make_learner(config, hyperparams, optimizer=optimizer, estimator=estimator)
        init_key, keys = training_keys(key, 0, config.num_updates)
        return jax.lax.scan(learner.step, learner.init(init_key), keys)

    return train


def make_chunk(
    config: Config, *, optimizer: OptimizerFactory | None = None, estimator: EstimatorFactory | None = None
) -> Callable[..., tuple[TrainState, Metrics]]:
    """`chunk(states [S, ...], keys [S, n], hyperparams) -> states, metrics [S, n]`: n more updates of S seeds.

    What a long run calls again and again, with printing and saving in between; equal to one scan, bit for bit.
    """

    def chunk(states: TrainState, keys: jax.Array, hyperparams: Hyperparams) -> tuple[TrainState, Metrics]:
        step = make_learner(config, hyperparams, optimizer=optimizer, estimator=estimator).step
        return jax.vmap(lambda state, keys: jax.lax.scan(step, state, keys))(states, keys)

    return chunk


def training_keys(key: jax.Array, start: int, stop: int) -> tuple[jax.Array, jax.Array]:
    """The keys of a run: that of `init`, and those of updates `start` to `stop - 1`.

    An update's key depends on its number alone, so that a run in chunks, or one that is continued beyond its
    planned end, draws what a single scan would have drawn.
    """
    init_key, step_key = jax.random.split(key)
    return init_key, jax.vmap(lambda i: jax.random.fold_in(step_key, i))(jnp.arange(start, stop))


def _minibatches(config: Config, key: jax.Array) -> jax.Array:
    """The environments of each minibatch, [epochs · minibatches, B / minibatches], reshuffled every epoch."""

    def epoch(key: jax.Array) -> jax.Array:
        return jax.random.permutation(key, config.num_envs).reshape(config.num_minibatches, -1)

    return jnp.concatenate([epoch(k) for k in jax.random.split(key, config.num_epochs)])


def _summary(finished: Finished, traj: Trajectory) -> Metrics:
    count = jnp.where(finished.episodes > 0, finished.episodes, jnp.nan)
    return {
        "return": finished.returns / count,
        "length": finished.steps / count,
        "episodes": finished.episodes,
        "env_steps": jnp.sum(traj.valid),
    }
