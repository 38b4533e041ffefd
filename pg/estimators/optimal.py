"""Variance-minimising baselines for a step or a state: means weighted by the squared score.

    minimise over b   E[ z² (X - b)² ]:   b = E[ z² X ] / E[ z² ]

Each is optimal for its own term of the sum over steps. Terms of different steps are correlated, so
that another baseline may minimise the variance of the sum (docs/science/estimators.md).
`episodic.optimal_baseline` is for whole episodes.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from pg import baselines, returns, rounding
from pg.axes import expand_to
from pg.config import Hyperparams
from pg.estimators.action_values import probabilities, taken
from pg.estimators.base import (
    Credit,
    Estimator,
    Params,
    Weighted,
    action_values,
    build_estimator,
    discounted_reward_to_go,
)
from pg.fast import blocks
from pg.networks import Network
from pg.rollout import Trajectory


def optimal_time_baseline(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """The optimal constant for every step and parameter, for the reward at that step, from the
    other episodes (GPOMDP's optimal baseline; Peters & Schaal 2008).

    An ended episode counts with reward 0 and its whole score: without it, the scores of the running
    ones would not have mean 0. bₖⱼ is 0 if all other scores are 0. With a recurrent policy it takes
    a pass over the batch for each step.

    Ψₜ = Σ_{k≥t} (γᵏ rₖ - bₖⱼ),  bₖⱼ = Σ_{m≠n} γᵏ rₖ Cₖⱼ² / Σ_{m≠n} Cₖⱼ²,  Cₖ = Σ_{i≤k} ∇log πᵢ
    Unbiased for: J.
    Variance: the lowest of constant baselines, reward by reward, as N grows; not of their sum.
    Needs: complete episodes, on-policy, N ≥ 2, memory for N gradients.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        return Credit(discounted_reward_to_go(traj, h))

    plain = build_estimator(policy, None, h, weigh)
    bare = build_estimator(policy, None, h._replace(entropy_coef=0.0), weigh)

    def grad(params: Params, batch: Weighted) -> tuple[Params, dict[str, Array]]:
        reward = returns.discount_powers(batch.traj.reward, h.gamma) * batch.traj.reward
        time = jnp.arange(len(reward))

        def score_up_to(k: Int[Array, ""], before: PyTree, row: Weighted) -> PyTree:
            """Cₖ of every episode, from Cₖ₋₁ and the step's row of the batch."""
            if policy.recurrent:  # the score of a step depends on the earlier steps
                up_to = (time <= k)[:, None] & batch.traj.valid
                return _scores(bare, params, batch._replace(psi=up_to.astype(reward.dtype)))
            row = row._replace(psi=jnp.ones_like(row.psi))
            step = _scores(bare, params, jax.tree.map(lambda x: x[None], row))
            return jax.tree.map(jnp.add, before, step)

        def add(k: Int[Array, ""], carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            before, total = carry
            score = score_up_to(k, before, jax.tree.map(lambda x: x[k], rows))
            subtracted = jax.tree.map(lambda c: _baseline_times_score(reward[k], c), score)
            return score, jax.tree.map(jnp.add, total, subtracted)

        none = jax.tree.map(
            lambda x: jnp.zeros((reward.shape[1], *x.shape), x.dtype), params.policy
        )
        zero = jax.tree.map(jnp.zeros_like, params.policy)
        rows = batch._replace(traj=batch.traj.without_carry)
        _, total = jax.lax.fori_loop(0, blocks.num_steps(batch.traj.valid), add, (none, zero))
        descent, metrics = plain.grad(params, batch)
        return descent._replace(policy=jax.tree.map(jnp.add, descent.policy, total)), metrics

    return plain._replace(grad=grad, separable=False)


def _scores(bare: Estimator, params: Params, batch: Weighted) -> PyTree:
    """Σₜ Ψₜ ∇log πₜ of every episode, leaves [N, ...]."""

    def of_episode(episode: Weighted) -> PyTree:
        descent = bare.grad(params, jax.tree.map(lambda x: x[:, None], episode))[0]
        return jax.tree.map(jnp.negative, descent.policy)

    return jax.vmap(of_episode, in_axes=1)(batch)


def _baseline_times_score(reward: Float[Array, " N"], score: Float[Array, "N *P"]) -> Array:
    """(1/N) Σₙ bⱼ Cⱼ of a step, [...], b from the other episodes."""
    reward = expand_to(reward, score)
    baseline = baselines.leave_one_out_ratio(reward * score**2, score**2)
    return jnp.mean(baseline * score, axis=0)


def optimal_state_baseline(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """The mean of Q weighted by the squared norm of the score, as a state-dependent baseline
    (Greensmith et al. 2004).

    The score is with respect to the logits, ∂ log π(a|s) / ∂ logits = eₐ - π. For tabular logits,
    and for logits that are linear in features, its norm equals that of the score with respect to
    the parameters up to a factor of the state, which cancels. For a deeper network b is another
    function of the state, still a valid baseline but not the optimal one. With two actions b is
    Σₐ (1 - π(a)) Q(a), which with the exact Q removes all variance from sampling the action.

    Ψₜ = γᵗ (Gₜ - b(sₜ)),  b = Σₐ π(a) ‖eₐ - π‖² Q(a) / Σₐ π(a) ‖eₐ - π‖²
    Unbiased for: J: for any Q fitted to earlier batches.
    Variance: the lowest of state baselines, step by step, if Q is accurate.
    Needs: complete episodes, a critic Q of discrete actions, on-policy.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        q = action_values(critic, params, traj)
        baseline = norm_weighted_mean(q, probabilities(policy, params, traj))
        to_go = returns.reward_to_go(traj.reward, traj.done, h.gamma)
        psi = returns.discount_powers(to_go, h.gamma) * (to_go - baseline)
        return Credit(psi, target=to_go)

    return build_estimator(policy, critic, h, weigh, predict=taken)


def norm_weighted_mean(q: Float[Array, "*B A"], pi: Float[Array, "*B A"]) -> Float[Array, "*B"]:
    """Σₐ π(a) ‖eₐ - π‖² Q(a) / Σₐ π(a) ‖eₐ - π‖², [...]; 0 if one action has probability 1.

    Args:
        q: Q(s, a), [..., A].
        pi: π(a|s), [..., A].
    """
    weight = pi * ((1.0 - pi) ** 2 + rounding.sum_of_others(pi**2))
    total = jnp.sum(weight, axis=-1)
    positive = total > 0
    return jnp.where(positive, jnp.sum(weight * q, axis=-1) / jnp.where(positive, total, 1.0), 0.0)
