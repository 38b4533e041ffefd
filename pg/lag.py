"""Batches from older policies: the behaviour policy's parameters, and the denominator of importance
ratios.

With a lag of k the policy of k updates ago collects. Or, as in a system whose actors have different
versions, the last k + 1 policies each collect an equal share of the batch. The batch is then a
sample from their mixture, and the importance weight of a trajectory τ may have any of these
denominators:

    own      μ_j(τ), the policy that collected it
    balance  (1/(k+1)) Σ_i μ_i(τ), the mixture
    power    (1/(k+1)) Σ_i μ_i(τ)² / μ_j(τ)

(the heuristics of Veach & Guibas 1995, the second with exponent 2). Each of these weights π(τ) / ·
has mean 1 over the batch in expectation, and without a baseline from other episodes the gradient
stays unbiased. They are put into the trajectory's log-probabilities, also for prefixes, so that
every estimator with an importance ratio works unchanged. Data are collected anew at each update
instead of being reused from earlier ones, as in 2506.06178: the parameters depend on earlier data,
and given the parameters the mean of an estimate would no longer be the gradient.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree, Shaped

from pg.config import Config
from pg.estimators import Params
from pg.estimators.base import log_ratio
from pg.fast import blocks
from pg.networks import Network
from pg.rollout import Collected, Collector, Trajectory

EXPONENT = {"balance": 1.0, "power": 2.0}


def initial_history(config: Config, params: Params) -> PyTree:
    """The history before the first update: its parameters repeated, leaves [lag, ...]; () without a
    lag.
    """
    if not config.policy_lag:
        return ()
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (config.policy_lag, *x.shape)), params)


def behaviour_params(config: Config, params: Params, history: PyTree) -> tuple[Params, PyTree]:
    """The parameters of the behaviour policy, which collects the next batch, leaves [lag + 1, ...]
    for a mixture; and the history after it.

    Args:
        config: The settings.
        params: The newest parameters.
        history: Those before them, oldest first, leaves [lag, ...]; () without a lag.
    """
    if not config.policy_lag:
        return params, ()
    every = jax.tree.map(lambda old, new: jnp.concatenate([old, new[None]]), history, params)
    after = jax.tree.map(lambda x: x[1:], every)
    if config.lag_mixture == "none":
        return jax.tree.map(lambda x: x[0], every), after
    return every, after


def num_envs(config: Config) -> int:
    """The number of environments of each behaviour policy."""
    return config.num_envs // num_policies(config)


def num_policies(config: Config) -> int:
    """The number of behaviour policies of a batch."""
    return 1 if config.lag_mixture == "none" else config.policy_lag + 1


def mixed(config: Config, collector: Collector, policy: Network) -> Collector:
    """The collector of a batch to which each policy of a mixture contributes an equal share, oldest
    first; `collector` itself without a mixture.

    Args:
        config: The settings.
        collector: The collector of the share of one policy.
        policy: The policy.
    """
    if config.lag_mixture == "none":
        return collector
    number = num_policies(config)

    def collect(actor: Network, mixture: Params, key: PRNGKeyArray, state: tuple[()]) -> Collected:
        def collect_share(params: Params, key: PRNGKeyArray) -> Collected:
            return collector.collect(actor, params, key, state)

        with blocks.mapped_over(number):
            shares = jax.vmap(collect_share)(mixture, jax.random.split(key, number))
        traj = shares.traj
        if not isinstance(traj.group, tuple):
            num_groups = num_envs(config) // config.group_size
            first_group = num_groups * jnp.arange(number, dtype=jnp.int32)
            traj = traj._replace(group=traj.group + first_group[:, None, None])
        traj = jax.tree.map(_side_by_side, traj)
        traj = weighed_against(config.lag_mixture, policy, mixture, traj)
        finished = jax.tree.map(lambda x: jnp.sum(x, axis=0), shares.finished)
        return Collected((), traj, finished)

    return collector._replace(collect=collect)


def _side_by_side(x: Shaped[Array, "K T B ..."]) -> Shaped[Array, "T KB ..."]:
    """Concatenates the environments of all shares."""
    return jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])


def weighed_against(
    heuristic: str, policy: Network, params: Params, traj: Trajectory
) -> Trajectory:
    """Complete episodes of a mixture, with the denominator of the heuristic as log-probabilities.

    The log-probability of a step is the difference between those of two prefixes, so that each
    prefix has the mixture of prefixes as its denominator.

    Args:
        heuristic: own, balance or power.
        policy: The policy.
        params: The parameters of the mixture, leaves [K, ...].
        traj: The episodes, with the log-probabilities of the policy that collected each.
    """
    if heuristic == "own":
        return traj
    exponent = EXPONENT[heuristic]

    def of_prefixes(params: Params) -> Array:
        return jnp.cumsum(log_ratio(policy, params, traj), axis=0)

    # log μ_i - log μ_j of each prefix, [K, T, B]
    log_ratios = jax.lax.map(of_prefixes, params)
    total = jax.nn.logsumexp(exponent * log_ratios, axis=0) - jnp.log(len(log_ratios))
    of_step = total - jnp.concatenate([jnp.zeros_like(total[:1]), total[:-1]])
    return traj._replace(log_prob=jnp.where(traj.valid, traj.log_prob + of_step, traj.log_prob))
