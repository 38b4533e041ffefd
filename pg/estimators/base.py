"""What an estimator is, and `build_estimator`, which makes one from a choice of Ψ and of a surrogate.

The split between `weigh` and `grad` is the stop-gradient: `weigh` computes all that is constant in θ, once a batch;
`grad` differentiates the surrogate only, as often as wanted. Steps are summed, episodes (environments) averaged.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pg import blocks, returns, surrogates
from pg.config import Hyperparams
from pg.networks import Network, unroll
from pg.rollout import Trajectory


class Params(NamedTuple):
    """What is learned; `critic` is () where there is none."""

    policy: Any
    critic: Any


class Weighted(NamedTuple):
    """A batch with all that is constant in θ: leaves [T, B, ...]."""

    traj: Trajectory
    psi: jax.Array  # [T, B] the weight Ψ of ∇log π, or [T, B, A] the weight of every action's ∇π
    target: Any  # [T, B] what the critic regresses to; () without a critic


class Estimator(NamedTuple):
    """A gradient estimator as pure functions."""

    init: Callable[[jax.Array], tuple[Params, Any]]  # key -> params, estimator_state
    weigh: Callable[[Params, Any, Trajectory], tuple[Weighted, Any]]  # -> weighted, estimator_state
    grad: Callable[[Params, Weighted], tuple[Params, dict[str, jax.Array]]]  # of the LOSS -> grads, metrics
    accepts: tuple[str, ...] = ("episodes", "windows")


Weigh = Callable[[Params, Any, Trajectory], tuple[jax.Array, Any, Any]]  # -> psi, target, estimator_state
Gain = Callable[[Any, Weighted], jax.Array]  # the policy's distribution at each step, weighted -> surrogate [T, B]
Predict = Callable[[Any, Weighted], jax.Array]  # the critic's output at each step, weighted -> prediction [T, B]


def score(dist: Any, batch: Weighted) -> jax.Array:
    """Ψ log π, [T, B]: the surrogate of every estimator that does not name another."""
    return surrogates.score(dist.log_prob(batch.traj.action), batch.psi)


def clipped(h: Hyperparams) -> Gain:
    """The surrogate min(ρ Ψ, clip(ρ) Ψ), [T, B], for several steps on one batch."""

    def gain(dist: Any, batch: Weighted) -> jax.Array:
        return surrogates.clipped(dist.log_prob(batch.traj.action), batch.traj.log_prob, batch.psi, h.epsilon)

    return gain


def value(output: jax.Array, batch: Weighted) -> jax.Array:
    """V(s), [T, B]: what a critic of states predicts."""
    return output


def build_estimator(
    policy: Network,
    critic: Network | None,
    h: Hyperparams,
    weigh: Weigh,
    gain: Gain = score,
    predict: Predict = value,
    *,
    state: Any = (),
    accepts: tuple[str, ...] = ("episodes", "windows"),
) -> Estimator:
    """The estimator of a choice of Ψ (`weigh`) and of a surrogate (`gain`).

    weigh: params, estimator_state, trajectory -> Ψ (broadcast to [T, B]), critic target [T, B] or (), state.
    predict: what of the critic's output is held against the target. state: the estimator's before the first batch.
    accepts: the ways of collecting it is right for.

    loss = -(1/N) Σ (gain + entropy_coef H(π)) + value_coef (1/N) Σ ½ (predict - target)², Σ over valid steps.
    """

    def init(key: jax.Array) -> tuple[Params, Any]:
        policy_key, critic_key = jax.random.split(key)
        return Params(policy.init(policy_key), () if critic is None else critic.init(critic_key)), state

    def weighted(params: Params, state: Any, traj: Trajectory) -> tuple[Weighted, Any]:
        traj = traj._replace(reward=jnp.where(traj.valid, traj.reward, 0.0))
        psi, target, state = weigh(params, state, traj)
        psi = jnp.broadcast_to(psi, traj.reward.shape + psi.shape[2:])
        return jax.lax.stop_gradient((Weighted(traj, psi, target), state))

    def loss(params: Params, batch: Weighted) -> tuple[jax.Array, dict[str, jax.Array]]:
        traj = batch.traj
        dist = unroll(policy, params.policy, traj.obs, traj.first)
        entropy = dist.entropy()
        sums = {"gain": gain(dist, batch) + h.entropy_coef * entropy, "entropy": entropy}
        if critic is not None:
            error = predict(unroll(critic, params.critic, traj.obs, traj.first), batch) - batch.target
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


def log_ratio(policy: Network, params: Params, traj: Trajectory) -> jax.Array:
    """log ρ = log π(a|s) - log behaviour(a|s), [T, B]; 0 where not valid."""

    def block(rows: tuple[jax.Array, ...]) -> jax.Array:
        obs, first, action = rows
        return unroll(policy, params.policy, obs, first).log_prob(action)

    log_prob = blocks.map_steps(block, (traj.obs, traj.first, traj.action), traj.valid)
    return jnp.where(traj.valid, log_prob - traj.log_prob, 0.0)


def state_weight(traj: Trajectory, h: Hyperparams) -> jax.Array:
    """γᵗ, t counted from the episode's start, [T, B]; 1 where `undiscounted_state_weighting` is 1."""
    return jnp.asarray(h.gamma, traj.reward.dtype) ** (traj.time * (1.0 - h.undiscounted_state_weighting))


def values(critic: Network, params: Params, obs: jax.Array, traj: Trajectory) -> jax.Array:
    """The critic's output at obs [T, B, *O], [T, B] or [T, B, A]; 0 in blocks of time without a valid step."""

    def block(rows: tuple[jax.Array, jax.Array]) -> jax.Array:
        return unroll(critic, params.critic, *rows)

    return blocks.map_steps(block, (obs, traj.first), traj.valid)


class Valued(NamedTuple):
    """What bootstrapped advantages are made of, in the order in which `returns` takes it; each [T, B]."""

    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    v_t: jax.Array
    v_tp1: jax.Array  # of the true successor


def valued(critic: Network, params: Params, traj: Trajectory) -> Valued:
    """The trajectory's rewards and ends, with V before and after every step."""
    v_t, v_tp1 = (values(critic, params, obs, traj) for obs in (traj.obs, traj.next_obs))
    return Valued(traj.reward, traj.terminated, traj.truncated, v_t, v_tp1)
