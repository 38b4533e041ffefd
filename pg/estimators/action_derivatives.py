"""Estimators that differentiate a critic Q(s, a) with respect to a continuous action, on complete
episodes.

The critic returns a function of the action (`pg.layers.ActionFunction`); a(θ, ε) below is the
policy's action for given noise ε.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pg import baselines, returns
from pg.config import Hyperparams
from pg.estimators import continuous
from pg.estimators.action_values import (
    at_actions,
    corrected_credit,
    every_action_and_surprise,
    taken,
    value_of,
)
from pg.estimators.base import Credit, Estimator, Params, Weighted, build_estimator, score_surrogate
from pg.estimators.q_prop_switches import Covariance, Eta, QProp
from pg.networks import Network
from pg.rollout import Trajectory

Factory = Callable[[Network, Network, Hyperparams], Estimator]


def deterministic_policy_gradient(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """The deterministic policy gradient, on-policy (Silver et al. 2014, theorem 1).

    Ascends Q(sₜ, μθ(sₜ)), μ the policy's mode, in the states visited by the stochastic policy; the
    standard deviation gets no gradient.

    Ψₜ = γᵗ ∂Q(sₜ, a)/∂a at a = μ(sₜ), by ∇μ
    Unbiased for: nothing: J only if Q is exact and quadratic, and then for the mean alone.
    Variance: none from sampling the action; that of the states.
    Needs: complete episodes, a critic Q of continuous actions, on-policy.
    """

    def surrogate(dist: Any, batch: Weighted) -> Float[Array, "T B"]:
        return batch.psi * batch.extra.q.at(dist.action(dist.mode()))

    return build_estimator(policy, critic, h, _by_values(policy, critic, h), surrogate, taken)


def svg0(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """The gradient of Q through the reparameterised action (SVG(0); Heess et al. 2015, 1510.09142).

    Ψₜ = γᵗ ∂Q(sₜ, a)/∂a at a = aₜ, by ∇a(θ, εₜ)
    Unbiased for: nothing: J only if Q, which replaces the reward to go, is exact.
    Variance: none from later steps; that of the derivative over actions, and of states.
    Needs: complete episodes, a critic Q of continuous actions, on-policy.
    """

    def surrogate(dist: Any, batch: Weighted) -> Float[Array, "T B"]:
        return batch.psi * batch.extra.q.at(action_for_noise(dist, batch.traj))

    return build_estimator(policy, critic, h, _by_values(policy, critic, h), surrogate, taken)


def q_prop(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """A control variate that is linear in the action (Q-Prop; Gu et al. 2017, 1611.02247, eq. 7).

    L(s, a) = Q(s, μ) + ∂Q/∂a(s, μ)ᵀ(a - μ), with the policy's mean action μ, is the first-order
    expansion of Q. action_dependent_baseline keeps the second order too. `q_prop_with` scales the
    linear term.

    Ψₜ = γᵗ (Gₜ - L(sₜ, aₜ)), and γᵗ ∂Q(sₜ, a)/∂a at a = μ(sₜ), by ∇μ
    Unbiased for: J: for any Q fitted to earlier batches.
    Variance: removes what is linear in the action, as far as Q is accurate.
    Needs: complete episodes, a critic Q of continuous actions, on-policy.
    """

    return _q_prop(policy, critic, h, QProp())


def q_prop_with(*, eta: Eta = "one", covariance: Covariance = "others") -> Factory:
    """Q-Prop with a factor η of its control variate (Gu et al. 2017, 1611.02247, section 3.2).

    With the advantage Â = Gₜ - Q(sₜ, μ) and the control variate Ā = ∂Q/∂a(sₜ, μ)ᵀ(aₜ - μ) the
    optimal factor is Cov(Â, Ā) / Var(Ā), where Var(Ā) is known. The covariance is estimated by the
    mean of Â Ā over all steps of the other episodes: η is then one number for each episode,
    independent of its actions, and the estimator is unbiased. Or, as published, it is estimated
    from the step's own action, which causes a bias. Its name is, for example,
    "q_prop:eta=adaptive".

    Args:
        eta: one; adaptive: that ratio; conservative: 1 where it is positive, else 0; aggressive:
            its sign.
        covariance: others, which needs at least two episodes, or step.

    Returns:
        policy, critic, hyperparameters -> Estimator.

    Raises:
        ValueError: an unknown value, or a covariance although η is 1.
    """
    switches = QProp(eta=eta, covariance=covariance)
    if eta == "one":
        return q_prop

    def estimator(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
        return _q_prop(policy, critic, h, switches)

    estimator.__name__ = switches.name
    estimator.facts = switches.facts  # type: ignore[attr-defined]
    return estimator


def _q_prop(policy: Network, critic: Network, h: Hyperparams, switches: QProp) -> Estimator:
    """Q-Prop with the factor given by the switches."""

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        at = at_actions(policy, critic, params, traj)
        mean, variance = continuous.moments_along(policy, params, traj)
        linear = at._replace(q=at.q.linear_at(mean))
        to_go = returns.reward_to_go(traj.reward, traj.done, h.gamma)
        if switches.eta != "one":
            advantage = to_go - linear.q.constant
            variate = value_of(linear) - linear.q.constant
            of_variate = jnp.sum(linear.q.slope**2 * variance, axis=-1)
            eta = _eta(switches, traj, advantage * variate, of_variate)
            linear = linear._replace(q=linear.q._replace(slope=eta[..., None] * linear.q.slope))
        return corrected_credit(linear, to_go - value_of(linear), to_go, traj, h)

    accepts = "episodes"
    return build_estimator(
        policy, critic, h, weigh, every_action_and_surprise, taken, accepts=accepts
    )


def _eta(
    switches: QProp,
    traj: Trajectory,
    product: Float[Array, "T B"],
    variance: Float[Array, "T B"],
) -> Float[Array, "T B"]:
    """The factor of the control variate at every step, [T, B].

    Args:
        switches: the switches, with `eta` other than one.
        traj: the trajectory.
        product: advantage times control variate, whose mean is their covariance.
        variance: variance of the control variate over the policy's actions.
    """
    product, variance = (jnp.where(traj.valid, x, 0.0) for x in (product, variance))
    if switches.covariance == "others":
        of_episode = baselines.leave_one_out_ratio(
            jnp.sum(product, axis=0), jnp.sum(variance, axis=0)
        )
        ratio = jnp.broadcast_to(of_episode, product.shape)
    else:
        positive = variance > 0
        ratio = jnp.where(positive, product / jnp.where(positive, variance, 1.0), 0.0)
    if switches.eta == "conservative":
        return (ratio > 0).astype(ratio.dtype)
    return jnp.sign(ratio) if switches.eta == "aggressive" else ratio


def stein_control_variate(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """A control variate by Stein's identity, E[∇log π(a) Q(a)] = E[∂Q/∂a ∇a(θ, ε)] (Liu et al.
    2018, 1710.11198, eq. 8).

    action_dependent_baseline has the right-hand side in closed form, which needs a Q whose mean is
    known; here it is evaluated at the action taken.

    Ψₜ = γᵗ (Gₜ - Q(sₜ, aₜ)), and γᵗ ∂Q(sₜ, a)/∂a at a = aₜ, by ∇a(θ, εₜ)
    Unbiased for: J: for any Q fitted to earlier batches.
    Variance: that of action_dependent_baseline, and that of the derivative over actions.
    Needs: complete episodes, a critic Q of continuous actions, on-policy.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        at = at_actions(policy, critic, params, traj)
        to_go = returns.reward_to_go(traj.reward, traj.done, h.gamma)
        return corrected_credit(at, to_go - value_of(at), to_go, traj, h)

    def surrogate(dist: Any, batch: Weighted) -> Float[Array, "T B"]:
        along = batch.extra.q.at(action_for_noise(dist, batch.traj))
        return score_surrogate(dist, batch) + along

    return build_estimator(policy, critic, h, weigh, surrogate, taken)


def action_for_noise(dist: Any, traj: Trajectory) -> Float[Array, "T B D"]:
    """The action taken, [T, B, D], with its derivative in the policy's parameters for given
    noise.
    """
    noise = (traj.action - dist.mean) * jnp.exp(-dist.log_std)
    sample = dist.reparameterised(jax.lax.stop_gradient(noise))
    action: Float[Array, "T B D"] = dist.action(sample)
    return action


def _by_values(policy: Network, critic: Network, h: Hyperparams) -> Any:
    """`weigh` for estimators that use only Q: Ψ is γᵗ, and Q is passed to the surrogate."""

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        to_go = returns.reward_to_go(traj.reward, traj.done, h.gamma)
        discount = returns.discount_powers(to_go, h.gamma)
        return Credit(discount, to_go, extra=at_actions(policy, critic, params, traj))

    return weigh


# names from before they were in the table
deterministic, stein = deterministic_policy_gradient, stein_control_variate
