"""Estimators that bootstrap with a learned V, and so work with windows, at the price of bias.

actor_critic → gae → ppo: n-step returns, their exponential mixture, and a clipped ratio for several
steps on one batch
"""

from typing import Any

import jax.numpy as jnp

from pg import returns
from pg.config import Hyperparams
from pg.estimators.base import (
    Credit,
    Estimator,
    ExtraMetrics,
    Params,
    Surrogate,
    build_estimator,
    clipped_surrogate,
    drift,
    log_ratio,
    own_entropy,
    score_surrogate,
    state_discount,
    state_weight,
    valued,
)
from pg.networks import Network
from pg.rollout import Trajectory


def actor_critic(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """n rewards, then V (A2C, A3C; Mnih et al. 2016, 1602.01783).

    Ψₜ = γᵗ (Σ_{l<n} γˡ rₜ₊ₗ + γⁿ V(sₜ₊ₙ) - V(sₜ))
    Unbiased for: nothing: J only if V is exact or n reaches every episode's termination.
    Variance: falls as n falls.
    Needs: episodes or windows, a critic V, on-policy.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        step = valued(critic, params, traj)
        advantage = returns.n_step(*step, h.gamma, h.n_step)
        return Credit(state_weight(traj, h) * advantage, target=advantage + step.v_t)

    return build_estimator(policy, critic, h, weigh, state_discount=state_discount(h))


def gae(
    policy: Network,
    critic: Network,
    h: Hyperparams,
    surrogate: Surrogate = score_surrogate,
    extra_metrics: ExtraMetrics | None = None,
    off_policy: bool = False,
) -> Estimator:
    """Generalised advantage estimation: a mixture of n-step advantages (Schulman et al. 2016,
    1506.02438).

    Ψₜ = γᵗ Σₗ (γλ)ˡ δₜ₊ₗ,  δₜ = rₜ + γ V(sₜ₊₁) - V(sₜ)
    Unbiased for: nothing: J only if V is exact, or λ = 1 and every episode terminates.
    Variance: falls as λ falls.
    Needs: episodes or windows, a critic V, on-policy.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        step = valued(critic, params, traj)
        advantage = returns.gae(*step, h.gamma, h.gae_lambda)
        return Credit(
            state_weight(traj, h) * advantage, target=advantage + step.v_t, value=step.v_t
        )

    return build_estimator(
        policy,
        critic,
        h,
        weigh,
        surrogate,
        extra_metrics=extra_metrics,
        state_discount=state_discount(h),
        off_policy=off_policy,
    )


def vtrace(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """Advantages from another policy's data, with truncated ratios (IMPALA; Espeholt et al. 2018,
    1802.01561).

    Ψₜ = γᵗ min(1, ρₜ) (rₜ + γ vₜ₊₁ - V(sₜ)),  v the V-trace target, its trace λ min(1, ρ)
    Unbiased for: nothing: off-policy it aims at a policy between behaviour and π; on-policy as gae.
    Variance: bounded by the truncation.
    Needs: episodes or windows, a critic V, the behaviour's log-probabilities.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        log_rho = log_ratio(policy, params, traj)
        step = valued(critic, params, own_entropy(traj, log_rho, h))
        target, advantage = returns.vtrace(jnp.exp(log_rho), *step, h.gamma, h.gae_lambda)
        return Credit(state_weight(traj, h) * advantage, target=target)

    return build_estimator(policy, critic, h, weigh, state_discount=state_discount(h))


def ppo(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """gae with the clipped importance ratio, for several steps on one batch (Schulman et al. 2017,
    1707.06347).

    Ψₜ = as gae, times ρₜ while clipping does not bind
    Unbiased for: nothing: as gae on the first minibatch; after it the states are the old policy's.
    Variance: as gae; clipping bounds the ratio's.
    Needs: episodes or windows, a critic V, the behaviour's log-probabilities.
    """

    return gae(policy, critic, h, clipped_surrogate(h), drift(h), off_policy=True)
