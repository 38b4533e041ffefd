"""Estimators that move towards a target policy ∝ π_old exp(A / η), which improves on π_old.

It maximises E[A] - η KL(π ‖ π_old) at each state. A regression fits the policy to the actions
taken, each weighted by the target's ratio exp(A / η), and does not need their probabilities.

reward_weighted_regression → advantage_weighted_regression → v_mpo: the return, the advantage, and
the better half of a batch with an η computed for it. mdpo ascends the objective itself, with the
ratio.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from pg import returns, rounding, surrogates
from pg.config import Hyperparams
from pg.estimators.base import (
    Credit,
    Estimator,
    Params,
    Surrogate,
    Weighted,
    build_estimator,
    drift,
    per_step,
    state_discount,
    state_weight,
    valued,
)
from pg.estimators.bootstrapped import gae
from pg.networks import Network
from pg.rollout import Trajectory

HALVINGS = 60  # bisections for η: to the precision of a 64-bit float


def reward_weighted_regression(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """Maximum likelihood of the actions, weighted by the exponential of the reward to go (RWR;
    Peters & Schaal 2007).

    The reward to go is as in section 2 of 1910.00177. A gradient step is a partial M step of an EM
    algorithm, which does not depend on a common scale of the weights.

    Ψₜ = γᵗ exp(Gₜ / η),  η = `advantage_scale`; exp(·) is at most `ratio_bound`
    Unbiased for: nothing: large returns count exponentially more; η times it tends to ∇J as η → ∞.
    Variance: that of weights without a baseline, which are never negative.
    Needs: complete episodes, actions of any policy.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        to_go = returns.reward_to_go(traj.reward, traj.done, h.gamma)
        return Credit(returns.discount_powers(to_go, h.gamma) * exponential_weight(to_go, h))

    return build_estimator(policy, None, h, weigh, extra_metrics=drift(h), off_policy=True)


def advantage_weighted_regression(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """Maximum likelihood of the actions, weighted by the exponential of their advantage (AWR; Peng
    et al. 2019, 1910.00177).

    V is fitted to TD(λ) returns, as in the paper; the batch replaces its replay buffer.

    Ψₜ = γᵗ exp(Aₜ / η),  A as gae's, η = `advantage_scale`; exp(·) is at most `ratio_bound`
    Unbiased for: nothing: good actions count exponentially more; η times it tends to gae as η → ∞.
    Variance: bounded by `ratio_bound`.
    Needs: episodes or windows, a critic V, actions of any policy.
    """

    def psi(advantage: Array, target: Array, traj: Trajectory) -> Float[Array, "T B"]:
        return state_weight(traj, h) * exponential_weight(advantage, h)

    return advantage_regression(policy, critic, h, psi)


def v_mpo(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """Maximum likelihood of the better half of the actions, weighted by the exponential of their
    advantage (Song et al. 2019, 1909.12238).

    The policy loss of section 4.1, per step instead of per batch. η solves the dual problem of the
    batch, min_η η ε + η log mean exp(A / η), on which the paper takes gradient steps along with θ.
    The bound on KL(π_old ‖ π) is `stop_kl`, at which the remaining steps on a batch are skipped,
    instead of a multiplier.

    Ψₜ = γᵗ n exp(Aₜ / η) / Σ exp(A / η),  of the better half of n steps; `max_kl` sets η
    Unbiased for: nothing: only the better half counts, and of it the best exponentially more.
    Variance: that of a mean over the effective number of steps; in units of the score.
    Needs: episodes or windows, a critic V, actions of any policy, N ≥ 2.
    """

    def psi(advantage: Array, target: Array, traj: Trajectory) -> Float[Array, "T B"]:
        # advantages are targets minus V
        better = better_half(advantage, rounding.of_size(target), traj.valid)
        eta = dual_scale(advantage, better, h.max_kl)
        share = normalised_weights(advantage, better, eta)
        return state_weight(traj, h) * jnp.sum(traj.valid) * share

    return advantage_regression(policy, critic, h, psi)


def mdpo(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """Mirror descent: several steps on E[A] - η KL(π ‖ π_old), π_old the policy that collected the
    batch (Tomar et al. 2020, 2005.09814).

    The on-policy objective of section 4.1, with 1 / t = η = `advantage_scale`. The divergence is
    estimated at the actions of the batch, and has no gradient at π = π_old.

    Ψₜ = ρₜ (Aₜ - γᵗ η log ρₜ),  A as gae's Ψ, η = `advantage_scale`
    Unbiased for: nothing: as gae on the first minibatch; after it the states are the old policy's.
    Variance: as gae, times that of the ratio, which only the divergence bounds.
    Needs: episodes or windows, a critic V, the behaviour's log-probabilities.
    """
    return gae(policy, critic, h, less_divergence(h), drift(h), off_policy=True)


def advantage_regression(
    policy: Network,
    critic: Network,
    h: Hyperparams,
    psi: Callable[[Array, Array, Trajectory], Array],
) -> Estimator:
    """The regression weighted by a function of gae's advantage, with V fitted to TD(λ) returns.

    Args:
        policy: The policy.
        critic: V.
        h: The hyperparameters.
        psi: Advantage, its target A + V, trajectory -> Ψ, [T, B] each.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        step = valued(critic, params, traj)
        advantage = returns.gae(*step, h.gamma, h.gae_lambda)
        target = advantage + step.v_t
        return Credit(psi(advantage, target, traj), target=target, value=step.v_t)

    return build_estimator(
        policy,
        critic,
        h,
        weigh,
        extra_metrics=drift(h),
        state_discount=state_discount(h),
        off_policy=True,
    )


def less_divergence(h: Hyperparams) -> Surrogate:
    """The surrogate ρ Ψ minus γᵗ η times an estimate of KL(π ‖ π_old), [T, B]."""

    def surrogate(dist: Any, batch: Weighted) -> Float[Array, "T B"]:
        per_step("psi", batch.psi, batch.traj)
        log_ratio = dist.log_prob(batch.traj.action) - batch.traj.log_prob
        weight = h.advantage_scale * state_weight(batch.traj, h)
        return surrogates.proximal(log_ratio, batch.psi, weight)

    return surrogate


def exponential_weight(x: Float[Array, "T B"], h: Hyperparams) -> Float[Array, "T B"]:
    """min(exp(x / η), `ratio_bound`), [T, B], η = `advantage_scale`: the ratio of the target policy
    to the old one, up to a factor of the state.

    The exponent is bounded first, so that no intermediate value is infinite.
    """
    return jnp.exp(jnp.minimum(x / h.advantage_scale, jnp.log(h.ratio_bound)))


def better_half(
    x: Float[Array, "T B"], error: Float[Array, "T B"], valid: Bool[Array, "T B"]
) -> Bool[Array, "T B"]:
    """True for the ⌈n / 2⌉ largest x of the n valid ones, and for those equal to the smallest of
    them up to rounding, [T, B].

    Args:
        x: [T, B].
        error: the rounding error of each, [T, B].
        valid: [T, B].
    """
    number = (jnp.sum(valid) + 1) // 2
    falling = -jnp.sort(-jnp.where(valid, x, -jnp.inf).reshape(-1))
    return valid & (x >= falling[jnp.maximum(number, 1) - 1] - error)


def normalised_weights(
    x: Float[Array, "T B"], counted: Bool[Array, "T B"], eta: Float[ArrayLike, ""]
) -> Float[Array, "T B"]:
    """exp(x / η) divided by its sum over the counted steps, 0 elsewhere, [T, B]."""
    weight = jnp.where(counted, jnp.exp(_below_the_largest(x, counted) / eta), 0.0)
    return weight / jnp.sum(weight)


def dual_scale(
    x: Float[Array, "T B"], counted: Bool[Array, "T B"], max_kl: Float[ArrayLike, ""]
) -> Float[Array, ""]:
    """The η > 0 that minimises η ε + η log mean exp(x / η), ε = `max_kl`, [].

    There the weights ∝ exp(x / η) have a KL divergence of ε from equal ones, which decreases in η;
    with s = max x - min x it is at most (s / η)² / 4, so that η ≤ s / (2 √ε). If the divergence is
    below ε even for the largest x alone, η is about 0; if all x are equal, η is arbitrary.

    Args:
        x: advantages, [T, B].
        counted: the included steps, [T, B].
        max_kl: ε, in nats.
    """
    excess = _below_the_largest(x, counted)
    spread = -jnp.min(excess)
    most = jnp.where(spread > 0, spread / (2 * jnp.sqrt(max_kl)), 1.0)
    number = jnp.sum(counted)

    def divergence(eta: Float[Array, ""]) -> Float[Array, ""]:
        weight = jnp.where(counted, jnp.exp(excess / eta), 0.0)
        total = jnp.sum(weight)
        return jnp.sum(weight * excess / eta) / total - jnp.log(total / number)

    def halve(_: Any, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) / 2
        is_far = divergence(middle) > max_kl
        return jnp.where(is_far, middle, low), jnp.where(is_far, high, middle)

    return jax.lax.fori_loop(0, HALVINGS, halve, (jnp.zeros_like(most), most))[1]


def _below_the_largest(x: Float[Array, "T B"], counted: Bool[Array, "T B"]) -> Float[Array, "T B"]:
    """x minus the largest of the counted ones, 0 elsewhere, [T, B]."""
    return jnp.where(counted, x - jnp.max(x, initial=-jnp.inf, where=counted), 0.0)
