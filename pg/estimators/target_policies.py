"""Estimators that lead to a target policy ∝ π_old exp(A / η), better than the one that acted.

It maximises E[A] - η KL(π ‖ π_old) at each state. A regression fits the policy to the actions that
were taken, each weighed by the target's ratio exp(A / η), and needs no probability of them.

reward_weighted_regression → advantage_weighted_regression: the return, then the advantage
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from pg import returns
from pg.config import Hyperparams
from pg.estimators.base import (
    Credit,
    Estimator,
    Params,
    build_estimator,
    drift,
    state_discount,
    state_weight,
    valued,
)
from pg.networks import Network
from pg.rollout import Trajectory


def reward_weighted_regression(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """The likelihood of the actions, weighed by the exponential of what followed them (RWR; Peters
    & Schaal 2007).

    With the reward to go as 1910.00177 writes it, section 2. A step of gradient ascent on it is a
    part of the maximisation of an EM algorithm, which weights of any common scale leave alone.

    Ψₜ = γᵗ exp(Gₜ / η),  η = `advantage_scale`; exp(·) is at most `ratio_bound`
    Unbiased for: no: large returns count exponentially more; as η grows, η times it tends to ∇J.
    Variance: that of weights without a baseline, which are never negative.
    Needs: complete episodes, actions of any policy.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        to_go = returns.reward_to_go(traj.reward, traj.done, h.gamma)
        return Credit(returns.discount_powers(to_go, h.gamma) * exponential_weight(to_go, h))

    return build_estimator(policy, None, h, weigh, watch=drift(h), off_policy=True)


def advantage_weighted_regression(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """The likelihood of the actions, weighed by the exponential of their advantage (AWR; Peng et
    al. 2019, 1910.00177).

    V is fitted to TD(λ) returns, as there; the batch stands for its replay buffer.

    Ψₜ = γᵗ exp(Aₜ / η),  A as gae's, η = `advantage_scale`; exp(·) is at most `ratio_bound`
    Unbiased for: no: good actions count exponentially more; as η grows, η times it tends to gae.
    Variance: bounded by `ratio_bound`; at least the score's, as weights are positive.
    Needs: episodes or windows, a critic V, actions of any policy.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        step = valued(critic, params, traj)
        advantage = returns.gae(*step, h.gamma, h.gae_lambda)
        psi = state_weight(traj, h) * exponential_weight(advantage, h)
        return Credit(psi, target=advantage + step.v_t, value=step.v_t)

    return build_estimator(
        policy,
        critic,
        h,
        weigh,
        watch=drift(h),
        state_discount=state_discount(h),
        off_policy=True,
    )


def exponential_weight(x: Float[Array, "T B"], h: Hyperparams) -> Float[Array, "T B"]:
    """min(exp(x / η), `ratio_bound`), [T, B], η = `advantage_scale`: the ratio of the target policy
    to the one that acted, but for a factor of the state.

    The exponent is bounded, so that no weight is infinite on the way.
    """
    return jnp.exp(jnp.minimum(x / h.advantage_scale, jnp.log(h.ratio_bound)))
