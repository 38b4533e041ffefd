"""On-policy estimators from complete episodes: the theorem, and baselines that keep it unbiased.

ĝ = (1/N) Σₙ Σₜ Ψₜ ∇θ log πθ(aₜ|sₜ),   Ψ the return, or the reward to go, minus a baseline
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pg import baselines, returns
from pg.axes import expand_to
from pg.baselines import MovingAverage
from pg.config import Hyperparams
from pg.estimators.base import (
    Credit,
    Estimator,
    Params,
    Weighted,
    build_estimator,
    discounted_reward_to_go,
    return_and_error,
    values,
)
from pg.networks import Network
from pg.rollout import Trajectory


def reinforce(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """The theorem: the score of a trajectory times its return (Williams 1992).

    Ψₜ = R
    Unbiased for: J.
    Variance: the largest: H scores, each times the full return.
    Needs: complete episodes, on-policy.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        total = returns.total_return(traj.reward, h.gamma)
        return Credit(total[None, :])

    return build_estimator(policy, None, h, weigh)


def reward_to_go(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """An action is not weighted by rewards before it (GPOMDP; Baxter & Bartlett 2001, 1106.0665).

    Ψₜ = γᵗ Gₜ = Σ_{k≥t} γᵏ rₖ
    Unbiased for: J.
    Variance: drops the past rewards' zero-mean terms; usually less than reinforce, not always.
    Needs: complete episodes, on-policy.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        return Credit(discounted_reward_to_go(traj, h))

    return build_estimator(policy, None, h, weigh)


def undiscounted_reward_to_go(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """The reward to go as most code computes it, without the state weighting γᵗ (Nota & Thomas
    2020, 1906.07073).

    Ψₜ = Gₜ
    Unbiased for: nothing: for γ < 1 it is not the gradient of any function; J if γ = 1.
    Variance: late steps weigh as much as early ones.
    Needs: complete episodes, on-policy.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        return Credit(returns.reward_to_go(traj.reward, traj.done, h.gamma))

    return build_estimator(policy, None, h, weigh, state_discount=1.0)


def constant_baseline(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """A constant baseline; the optimal one is E[R ‖Z‖²] / E[‖Z‖²], Z an episode's score (Weaver &
    Tao 2001).

    Ψₜ = R - b,  b = `baseline`
    Unbiased for: J: for any b that is independent of the batch.
    Variance: smallest at the b above; grows with the square of the distance from it.
    Needs: complete episodes, on-policy.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        psi = returns.total_return(traj.reward, h.gamma) - h.baseline
        return Credit(psi[None, :])

    return build_estimator(policy, None, h, weigh)


def batch_mean(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """The mean return of the batch as baseline, including the episode itself (folklore).

    Ψₜ = R - (1/N) Σₘ Rₘ
    Unbiased for: nothing: its mean is (N-1)/N ∇J, shrunk by its own sample.
    Variance: ((N-1)/N)² that of leave_one_out; the same signal-to-noise ratio.
    Needs: complete episodes, on-policy, N ≥ 2.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        total = returns.total_return(traj.reward, h.gamma)
        psi = total - total.mean()
        return Credit(psi[None, :])

    return build_estimator(policy, None, h, weigh)


def standardised(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """Returns standardised over the batch (as implementations of PPO and GRPO do).

    If all returns are equal up to rounding, Ψ is 0: rounding errors are not a scale.

    Ψₜ = (R - mean R) / std R
    Unbiased for: nothing: the scale is random and correlated with Ψ, which turns the direction.
    Variance: that of batch_mean in units of the returns, whatever their scale.
    Needs: complete episodes, on-policy, N ≥ 2.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        psi = baselines.standardise(*return_and_error(traj, h))
        return Credit(psi[None, :])

    return build_estimator(policy, None, h, weigh)


def leave_one_out(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """The mean return of the *other* episodes as baseline (RLOO; Kool et al. 2019; 2402.14740).

    Ψₜ = R - (1/(N-1)) Σ_{m≠n} Rₘ
    Unbiased for: J.
    Variance: removes the mean return from the weight of every score.
    Needs: complete episodes, on-policy, N ≥ 2.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        total = returns.total_return(traj.reward, h.gamma)
        psi = total - baselines.leave_one_out(total)
        return Credit(psi[None, :])

    return build_estimator(policy, None, h, weigh)


def time_baseline(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """Reward-to-go minus its mean at the same step over the other episodes, with 0 for ended ones
    (folklore).

    Ψₜ = γᵗ Gₜ - (1/(N-1)) Σ_{m≠n} γᵗ Gₜ⁽ᵐ⁾
    Unbiased for: J.
    Variance: removes the part of the reward to go that the time step explains.
    Needs: complete episodes, on-policy, N ≥ 2.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        to_go = discounted_reward_to_go(traj, h)
        return Credit(to_go - baselines.leave_one_out(to_go))

    return build_estimator(policy, None, h, weigh)


def shrunk_time_baseline(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """time_baseline, shrunk towards its mean over the steps by an amount that depends on its noise
    (James-Stein; Zeng et al. 2025, 2511.03710, for groups).

    v² is the squared error of the means of N - 1 episodes, s² the variance of these means over the
    steps (`baselines.time_shrinkage`). With N = 2 there is no v², and this is time_baseline.

    Ψₜ = γᵗ Gₜ - ((1-λ) Xₜ + λ mean X),  Xₜ = (1/(N-1)) Σ_{m≠n} γᵗ Gₜ⁽ᵐ⁾; λ = v² / (v² + s²)
    Unbiased for: J.
    Variance: that of time_baseline, with less noise of few episodes if step means are close.
    Needs: complete episodes, on-policy, N ≥ 2.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        to_go = discounted_reward_to_go(traj, h)
        return Credit(to_go - baselines.time_shrinkage(to_go, traj.valid))

    return build_estimator(policy, None, h, weigh)


def optimal_baseline(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """The variance-minimising constant for every parameter, from the other episodes (Peters &
    Schaal 2008).

    bⱼ is 0 if Zₘⱼ is 0 for all other episodes.

    Ψₜ = R - bⱼ,  bⱼ = Σ_{m≠n} Rₘ Zₘⱼ² / Σ_{m≠n} Zₘⱼ²,  Zⱼ = Σₜ ∂ log π / ∂θⱼ
    Unbiased for: J.
    Variance: the lowest of constant baselines, coordinate by coordinate, as N grows.
    Needs: complete episodes, on-policy, N ≥ 2, memory for N gradients.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        total = returns.total_return(traj.reward, h.gamma)
        return Credit(total[None, :])

    plain = build_estimator(policy, None, h, weigh)
    bare = build_estimator(policy, None, h._replace(entropy_coef=0.0), weigh)

    def scores(params: Params, batch: Weighted) -> Params:
        """-Z of every episode, leaves [N, ...]: the loss's gradient with Ψ = 1."""

        def one(episode: Weighted) -> Params:
            return bare.grad(params, jax.tree.map(lambda x: x[:, None], episode))[0]

        return jax.vmap(one, in_axes=1)(batch._replace(psi=jnp.ones_like(batch.psi)))

    def grad(params: Params, batch: Weighted) -> tuple[Params, dict[str, Array]]:
        def subtract(gradient: Float[Array, "*P"], z: Float[Array, "N *P"]) -> Float[Array, "*P"]:
            total = expand_to(batch.psi[0], z)
            baseline = baselines.leave_one_out_ratio(total * z**2, z**2)
            return gradient - jnp.mean(baseline * z, axis=0)

        gradient, metrics = plain.grad(params, batch)
        return jax.tree.map(subtract, gradient, scores(params, batch)), metrics

    return plain._replace(grad=grad, separable=False)


def moving_average(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """An exponential moving average of *past* batches' mean returns as baseline (Williams 1992).

    Ψₜ = R - b,  b the average before this batch, with decay `baseline_decay`
    Unbiased for: J: b was computed before this batch was sampled.
    Variance: removes the recent mean return from the weight of every score.
    Needs: complete episodes, on-policy.
    """

    def weigh(params: Params, state: MovingAverage, traj: Trajectory) -> Credit:
        total = returns.total_return(traj.reward, h.gamma)
        psi = total - state.value()
        return Credit(psi[None, :], state=state.update(total.mean(), h.baseline_decay))

    return build_estimator(policy, None, h, weigh, state=MovingAverage.start())


def state_value(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """A learned V(s) as baseline, complete returns (Sutton et al. 2000).

    Ψₜ = γᵗ (Gₜ - V(sₜ))
    Unbiased for: J: for any V fitted to earlier batches.
    Variance: removes what V explains; near the best state baseline if V is accurate.
    Needs: complete episodes, a critic V, on-policy.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        to_go = returns.reward_to_go(traj.reward, traj.done, h.gamma)
        advantage = to_go - values(critic, params, traj)
        return Credit(returns.discount_powers(advantage, h.gamma) * advantage, target=to_go)

    return build_estimator(policy, critic, h, weigh)


def centred_state_value(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """state_value minus the mean residual G - V of the other episodes at the same step, with 0 for
    ended ones (time_baseline of the residuals).

    An error of V that depends only on the time cancels, as for a V that cannot see the time left.

    Ψₜ = γᵗ Aₜ - (1/(N-1)) Σ_{m≠n} γᵗ Aₜ⁽ᵐ⁾,  A = G - V(s)
    Unbiased for: J: for any V fitted to earlier batches.
    Variance: that of state_value, without errors of V that all states of a step share.
    Needs: complete episodes, a critic V, on-policy, N ≥ 2.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        to_go = returns.reward_to_go(traj.reward, traj.done, h.gamma)
        residual = jnp.where(traj.valid, to_go - values(critic, params, traj), 0.0)
        advantage = residual - baselines.leave_one_out(residual)
        return Credit(returns.discount_powers(advantage, h.gamma) * advantage, target=to_go)

    return build_estimator(policy, critic, h, weigh)


def entropy_reward(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """Entropy as part of the reward, so that future entropy counts too (maximum-entropy RL;
    1704.06440). Other estimators accept the temperature τ as well.

    Ψₜ = Σ_{k≥t} γᵏ (rₖ - τ log π(aₖ|sₖ)),  τ = `temperature`
    Unbiased for: J_τ: E[Σₜ γᵗ (rₜ - τ log π(aₜ|sₜ))].
    Variance: that of reward_to_go, plus the noise of the sampled log-probabilities.
    Needs: complete episodes, on-policy, τ above 0, which its preset sets.
    """
    return reward_to_go(policy, critic, h)
