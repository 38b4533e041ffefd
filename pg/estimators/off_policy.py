"""Off-policy estimators from complete episodes, with importance weights ρ = π / behaviour.

The weights are constants of the batch, so that an estimator takes one step on it. On-policy all of
them are 1. With a `temperature` τ the reward is r - τ log π with the learning policy π, not the
behaviour policy.
"""

from typing import Any

import jax.numpy as jnp

from pg import returns
from pg.config import Hyperparams
from pg.estimators.base import (
    Credit,
    Estimator,
    Params,
    build_estimator,
    discounted_reward_to_go,
    log_ratio,
    own_entropy,
)
from pg.networks import Network
from pg.rollout import Trajectory
from pg.surrogates import reweighted


def trajectory_importance(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """reinforce from another policy's episodes, each weighted by its probability ratio (Precup et
    al. 2000).

    Ψₜ = w R,  w = Π_{k<H} ρₖ
    Unbiased for: J: if the behaviour covers the support of π.
    Variance: grows exponentially with the horizon and the distance between the two policies.
    Needs: complete episodes, the behaviour's log-probabilities.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        log_rho = log_ratio(policy, params, traj)
        total = returns.total_return(own_entropy(traj, log_rho, h).reward, h.gamma)
        psi = reweighted(total, log_rho.sum(0))
        return Credit(psi[None, :])

    return build_estimator(policy, None, h, weigh)


def per_decision_importance(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """reward_to_go from another policy's episodes, each reward weighted by the ratios of the
    decisions before it (Precup et al. 2000).

    Ψₜ = Σ_{k≥t} γᵏ rₖ Π_{i≤k} ρᵢ
    Unbiased for: J: if the behaviour covers the support of π.
    Variance: usually less than trajectory_importance; still exponential in the horizon.
    Needs: complete episodes, the behaviour's log-probabilities.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        log_rho = log_ratio(policy, params, traj)
        reward = reweighted(own_entropy(traj, log_rho, h).reward, jnp.cumsum(log_rho, axis=0))
        return Credit(discounted_reward_to_go(traj._replace(reward=reward), h))

    return build_estimator(policy, None, h, weigh)


def ratio_only(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """Only the ratio of the action itself, as in off-policy actor-critic and PPO (Degris et al.
    2012, 1205.4839).

    Ψₜ = ρₜ γᵗ Gₜ
    Unbiased for: nothing: off-policy, states and rewards to go are the behaviour's; J on-policy.
    Variance: bounded by one ratio.
    Needs: complete episodes, the behaviour's log-probabilities.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        log_rho = log_ratio(policy, params, traj)
        to_go = discounted_reward_to_go(own_entropy(traj, log_rho, h), h)
        return Credit(reweighted(to_go, log_rho))

    return build_estimator(policy, None, h, weigh)
