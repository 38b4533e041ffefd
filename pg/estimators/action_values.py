"""Estimators that know of every action at a state, by a critic Q(s, a): discrete actions, complete
episodes.

    ĝ = (1/N) Σₙ Σₜ Σₐ Ψₜ(a) ∇θ πθ(a|sₜ)

all_action puts Q for Ψ; action_dependent_baseline corrects Q, at the action that was taken, by what
then happened, so that no error of Q is left in the mean. With Q = 0 the second is reward_to_go.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pg import returns, surrogates
from pg.config import Hyperparams
from pg.estimators.base import Credit, Estimator, Params, Weighted, action_values, build_estimator
from pg.networks import Network, check_shape
from pg.rollout import Trajectory


def all_action(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """No action is left to chance: each is weighed by its value (expected policy gradients,
    1706.05374; 1709.00503).

    Ψₜ = γᵗ Q(sₜ, a), for every a
    Unbiased for: no: unless Q is exact, which stands in for the reward to go.
    Variance: none from the choice of the action, nor from what follows it; that of the states.
    Needs: complete episodes, a critic Q of discrete actions, on-policy.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        q = action_values(critic, params, traj)
        to_go = returns.reward_to_go(traj.reward, traj.done, h.gamma)
        return Credit(returns.discount_powers(q, h.gamma) * q, target=to_go)

    return build_estimator(policy, critic, h, weigh, every_action, taken)


def action_dependent_baseline(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """A baseline that knows the action, and the correction that keeps the mean (Q-Prop 1611.02247;
    1802.10031).

    Summed over the actions it is ∇log π(aₜ|sₜ) (Gₜ - Q(sₜ, aₜ)) + E_a[∇log π(a|sₜ) Q(sₜ, a)].

    Ψₜ = γᵗ (Q(sₜ, a) + 1[a = aₜ] (Gₜ - Q(sₜ, aₜ)) / π(aₜ|sₜ)), for every a
    Unbiased for: J: for any Q, as it was fitted to earlier batches.
    Variance: removes that of the choice of the action, as far as Q is right; the rest remains.
    Needs: complete episodes, a critic Q of discrete actions, on-policy.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        q = action_values(critic, params, traj)
        to_go = returns.reward_to_go(traj.reward, traj.done, h.gamma)
        surprise = (to_go - at_action(q, traj.action)) * jnp.exp(-traj.log_prob)
        surprise = jnp.where(traj.valid, surprise, 0.0)
        q = q + jax.nn.one_hot(traj.action, q.shape[-1], dtype=q.dtype) * surprise[..., None]
        return Credit(returns.discount_powers(q, h.gamma) * q, target=to_go)

    return build_estimator(policy, critic, h, weigh, every_action, taken)


def every_action(dist: Any, batch: Weighted) -> Float[Array, "T B"]:
    """Σₐ π(a) Ψ(a), [T, B]: the surrogate whose gradient samples no action."""
    remedy = "critic and policy must be of the same actions"
    check_shape("psi", batch.psi.shape, dist.logits.shape, "[T, B, A]", remedy)
    return surrogates.all_action(dist.logits, batch.psi)


def taken(q: Float[Array, "T B A"], batch: Weighted) -> Float[Array, "T B"]:
    """Q(s, a) of the action that was taken, [T, B]: it is fitted to the returns."""
    return at_action(q, batch.traj.action)


def at_action(q: Float[Array, "*B A"], action: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """q [..., A] at action [...]."""
    return jnp.take_along_axis(q, action[..., None], axis=-1)[..., 0]
