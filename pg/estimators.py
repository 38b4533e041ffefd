"""Gradient estimators: ĝ = (1/N) Σₙ Σₜ Ψₜ ∇θ log πθ(aₜ|sₜ), as triples of pure functions `(init, weigh, grad)`.

An estimator is a choice of Ψ and of a surrogate. The split between `weigh` and `grad` is the stop-gradient:
`weigh` computes all that is constant in θ, once a batch; `grad` differentiates the surrogate only, as often as
wanted. Steps are summed, episodes (environments) averaged; nothing else is scaled.

To add one: write a function like those below, a row in ESTIMATORS, a row in `config.ACCEPTS` and a line in the
README's table. Each carries four lines: Ψₜ, Unbiased for, Variance, Needs. There, J is the expected return
J_γ = E[Σₜ γᵗ rₜ] up to the time limit, R its sample, Gₜ = Σ_{k≥t} γᵏ⁻ᵗ rₖ.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pg import baselines, blocks, returns, surrogates
from pg.baselines import MovingAverage
from pg.config import ACCEPTS, Hyperparams
from pg.networks import Network, unroll
from pg.rollout import Trajectory


class Params(NamedTuple):
    """What is learned; `critic` is () where there is none."""

    policy: Any
    critic: Any


class Weighted(NamedTuple):
    """A batch with all that is constant in θ: leaves [T, B, ...]."""

    traj: Trajectory
    psi: jax.Array  # [T, B] the weight Ψ of ∇log π
    target: Any  # [T, B] what the critic regresses to; () without a critic


class Estimator(NamedTuple):
    """A gradient estimator as pure functions."""

    init: Callable[[jax.Array], tuple[Params, Any]]  # key -> params, estimator_state
    weigh: Callable[[Params, Any, Trajectory], tuple[Weighted, Any]]  # -> weighted, estimator_state
    grad: Callable[[Params, Weighted], tuple[Params, dict[str, jax.Array]]]  # of the LOSS -> grads, metrics
    accepts: tuple[str, ...] = ("episodes", "windows")


Weigh = Callable[[Params, Any, Trajectory], tuple[jax.Array, Any, Any]]  # -> psi, target, estimator_state


def reinforce(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """The theorem: the score of a trajectory times its return (Williams 1992).

    Ψₜ = R
    Unbiased for: J.
    Variance: the largest; H scores, each times the full return.
    Needs: complete episodes, on-policy.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Any:
        return returns.total_return(traj.reward, h.gamma), (), state

    return build_estimator(policy, None, h, weigh, accepts=ACCEPTS["reinforce"])


def reward_to_go(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """An action is not weighed by rewards that came before it (GPOMDP; Baxter & Bartlett 2001, cs/1106.0665).

    Ψₜ = γᵗ Gₜ = Σ_{k≥t} γᵏ rₖ
    Unbiased for: J.
    Variance: drops the past rewards' zero-mean terms; usually less than reinforce, not always.
    Needs: complete episodes, on-policy.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Any:
        return discounted_reward_to_go(traj, h), (), state

    return build_estimator(policy, None, h, weigh, accepts=ACCEPTS["reward_to_go"])


def undiscounted_reward_to_go(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """What most code computes: reward-to-go with the state weighting γᵗ dropped.

    Ψₜ = Gₜ
    Unbiased for: no: for γ < 1 it is the gradient of no function (Nota & Thomas 2020, 1906.07073); J if γ = 1.
    Variance: late steps weigh as much as early ones.
    Needs: complete episodes, on-policy.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Any:
        return returns.reward_to_go(traj.reward, traj.done, h.gamma), (), state

    return build_estimator(policy, None, h, weigh, accepts=ACCEPTS["undiscounted_reward_to_go"])


def batch_mean(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """The mean return of the batch as baseline, own episode included (folklore).

    Ψₜ = R - (1/N) Σₘ Rₘ
    Unbiased for: no: its mean is (N-1)/N ∇J, shrunk by the own sample.
    Variance: ((N-1)/N)² that of leave_one_out; the same signal-to-noise ratio.
    Needs: complete episodes, on-policy, N ≥ 2.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Any:
        total = returns.total_return(traj.reward, h.gamma)
        return total - total.mean(), (), state

    return build_estimator(policy, None, h, weigh, accepts=ACCEPTS["batch_mean"])


def leave_one_out(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """The mean return of the *other* episodes as baseline (RLOO; Kool et al. 2019; 2402.14740).

    Ψₜ = R - (1/(N-1)) Σ_{m≠n} Rₘ
    Unbiased for: J.
    Variance: removes the mean return from the weight of every score.
    Needs: complete episodes, on-policy, N ≥ 2.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Any:
        total = returns.total_return(traj.reward, h.gamma)
        return total - baselines.leave_one_out(total), (), state

    return build_estimator(policy, None, h, weigh, accepts=ACCEPTS["leave_one_out"])


def time_baseline(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """Reward-to-go less its mean at the same time step over the other episodes, ended ones counting 0.

    Ψₜ = γᵗ Gₜ - (1/(N-1)) Σ_{m≠n} γᵗ Gₜ⁽ᵐ⁾
    Unbiased for: J.
    Variance: removes what the clock alone predicts of the reward to go.
    Needs: complete episodes, on-policy, N ≥ 2.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Any:
        to_go = discounted_reward_to_go(traj, h)
        return to_go - baselines.leave_one_out(to_go), (), state

    return build_estimator(policy, None, h, weigh, accepts=ACCEPTS["time_baseline"])


def moving_average(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """An exponential average of *past* batches' mean returns as baseline (Williams 1992, reinforcement comparison).

    Ψₜ = R - b,  b the average before this batch, with decay `baseline_decay`
    Unbiased for: J: b was computed before this batch was sampled.
    Variance: removes the recent mean return from the weight of every score.
    Needs: complete episodes, on-policy.
    """

    def weigh(params: Params, state: MovingAverage, traj: Trajectory) -> Any:
        total = returns.total_return(traj.reward, h.gamma)
        return total - state.value(), (), state.update(total.mean(), h.baseline_decay)

    return build_estimator(policy, None, h, weigh, state=MovingAverage.start(), accepts=ACCEPTS["moving_average"])


def state_value(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """A learned V(s) as baseline, complete returns (Sutton et al. 2000).

    Ψₜ = γᵗ (Gₜ - V(sₜ))
    Unbiased for: J, for any V: it was fitted to earlier batches.
    Variance: removes what the state predicts; near the best state baseline where V is accurate.
    Needs: a critic, complete episodes, on-policy.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Any:
        to_go = returns.reward_to_go(traj.reward, traj.done, h.gamma)
        advantage = to_go - values(critic, params, traj.obs, traj)
        return jnp.asarray(h.gamma, to_go.dtype) ** traj.time * advantage, to_go, state

    return build_estimator(policy, critic, h, weigh, accepts=ACCEPTS["state_value"])


def actor_critic(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """n rewards, then V (A2C, A3C; Mnih et al. 2016, 1602.01783).

    Ψₜ = γᵗ (Σ_{l<n} γˡ rₜ₊ₗ + γⁿ V(sₜ₊ₙ) - V(sₜ))
    Unbiased for: no, unless V is exact or n reaches every episode's termination: V stands in for what follows.
    Variance: falls as n falls.
    Needs: a critic, on-policy; episodes or windows.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Any:
        v_t, v_tp1 = values(critic, params, traj.obs, traj), values(critic, params, traj.next_obs, traj)
        ends = traj.terminated, traj.truncated
        advantage = returns.n_step(traj.reward, *ends, v_t, v_tp1, h.gamma, h.n_step)
        return state_weight(traj, h) * advantage, advantage + v_t, state

    return build_estimator(policy, critic, h, weigh)


def gae(
    policy: Network, critic: Network, h: Hyperparams, surrogate: surrogates.Surrogate = surrogates.score
) -> Estimator:
    """Generalised advantage estimation: n-step advantages of every n, mixed (Schulman et al. 2016, 1506.02438).

    Ψₜ = γᵗ Σₗ (γλ)ˡ δₜ₊ₗ,  δₜ = rₜ + γ V(sₜ₊₁) - V(sₜ)
    Unbiased for: no, unless V is exact, or λ = 1 and every episode terminates: V stands in for what follows.
    Variance: falls as λ falls.
    Needs: a critic, on-policy; episodes or windows.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Any:
        v_t, v_tp1 = values(critic, params, traj.obs, traj), values(critic, params, traj.next_obs, traj)
        ends = traj.terminated, traj.truncated
        advantage = returns.gae(traj.reward, *ends, v_t, v_tp1, h.gamma, h.lambda_)
        return state_weight(traj, h) * advantage, advantage + v_t, state

    return build_estimator(policy, critic, h, weigh, surrogate)


def ppo(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """gae with the clipped importance ratio, for several steps on one batch (Schulman et al. 2017, 1707.06347).

    Ψₜ = as gae, times ρₜ while clipping does not bind
    Unbiased for: no: as gae on the first minibatch, where ρ = 1; after it the states are the old policy's.
    Variance: as gae; clipping bounds the ratio's.
    Needs: a critic, the behaviour's log-probabilities; episodes or windows.
    """
    return gae(policy, critic, h, surrogates.clipped)


ESTIMATORS: dict[str, Callable[[Network, Network, Hyperparams], Estimator]] = {
    "reinforce": reinforce,
    "reward_to_go": reward_to_go,
    "undiscounted_reward_to_go": undiscounted_reward_to_go,
    "batch_mean": batch_mean,
    "leave_one_out": leave_one_out,
    "time_baseline": time_baseline,
    "moving_average": moving_average,
    "state_value": state_value,
    "actor_critic": actor_critic,
    "gae": gae,
    "ppo": ppo,
}


def build_estimator(
    policy: Network,
    critic: Network | None,
    h: Hyperparams,
    weigh: Weigh,
    surrogate: surrogates.Surrogate = surrogates.score,
    *,
    state: Any = (),
    accepts: tuple[str, ...] = ("episodes", "windows"),
) -> Estimator:
    """The estimator of a choice of Ψ (`weigh`) and of a surrogate.

    weigh: params, estimator_state, trajectory -> Ψ (broadcast to [T, B]), critic target [T, B] or (), state.
    state: the estimator's state before the first batch. accepts: the ways of collecting it is right for.

    loss = -(1/N) Σ (surrogate + entropy_coef H(π)) + value_coef (1/N) Σ ½ (V - target)², Σ over valid steps.
    """

    def init(key: jax.Array) -> tuple[Params, Any]:
        policy_key, critic_key = jax.random.split(key)
        return Params(policy.init(policy_key), () if critic is None else critic.init(critic_key)), state

    def weighted(params: Params, state: Any, traj: Trajectory) -> tuple[Weighted, Any]:
        traj = traj._replace(reward=jnp.where(traj.valid, traj.reward, 0.0))
        psi, target, state = weigh(params, state, traj)
        psi = jnp.broadcast_to(psi, traj.reward.shape)
        return jax.lax.stop_gradient((Weighted(traj, psi, target), state))

    def loss(params: Params, batch: Weighted) -> tuple[jax.Array, dict[str, jax.Array]]:
        traj = batch.traj
        dist = unroll(policy, params.policy, traj.obs, traj.first)
        entropy = dist.entropy()
        gain = surrogate(dist.log_prob(traj.action), traj.log_prob, batch.psi, h.epsilon)
        sums = {"gain": gain + h.entropy_coef * entropy, "entropy": entropy}
        if critic is not None:
            error = unroll(critic, params.critic, traj.obs, traj.first) - batch.target
            sums["value_loss"] = 0.5 * error**2
        sums = {name: jnp.sum(jnp.where(traj.valid, x, 0.0)) for name, x in sums.items()}
        total = -sums.pop("gain") + h.value_coef * sums.get("value_loss", 0.0)
        return total / traj.valid.shape[1], sums

    def grad(params: Params, batch: Weighted) -> tuple[Params, dict[str, jax.Array]]:
        def block(rows: Weighted) -> tuple[Params, dict[str, jax.Array]]:
            return jax.grad(loss, has_aux=True)(params, rows)

        grads, sums = blocks.sum_steps(block, batch, batch.traj.valid)
        steps = jnp.maximum(jnp.sum(batch.traj.valid), 1)
        return grads, {name: x / steps for name, x in sums.items()}

    return Estimator(init, weighted, grad, accepts)


def discounted_reward_to_go(traj: Trajectory, h: Hyperparams) -> jax.Array:
    """γᵗ Gₜ of complete episodes, [T, B]: the discounted rewards from t on, counted from the episode's start."""
    return returns.discounted_sum(returns.discount_powers(traj.reward, h.gamma) * traj.reward, 1.0)


def state_weight(traj: Trajectory, h: Hyperparams) -> jax.Array:
    """γᵗ, t counted from the episode's start, [T, B]; 1 where `undiscounted_state_weighting` is 1."""
    return jnp.asarray(h.gamma, traj.reward.dtype) ** (traj.time * (1.0 - h.undiscounted_state_weighting))


def values(critic: Network, params: Params, obs: jax.Array, traj: Trajectory) -> jax.Array:
    """V of obs [T, B, *O], [T, B]; 0 in blocks of time without a valid step."""

    def block(rows: tuple[jax.Array, jax.Array]) -> jax.Array:
        return unroll(critic, params.critic, *rows)

    return blocks.map_steps(block, (obs, traj.first), traj.valid)
