"""Estimators that use the values Q(s, a) of all actions, on complete episodes.

    ĝ = (1/N) Σₙ Σₜ Σₐ Ψₜ(a) ∇θ πθ(a|sₜ)

all_action uses Q as Ψ. action_dependent_baseline corrects Q at the action taken by the observed
return, so that errors of Q cause no bias. trajectory_control_variate removes the noise of later
actions from that correction. With Q = 0 the last two are reward_to_go.

For continuous actions Q is a function (`pg.layers.ActionFunction`) whose mean over the policy's
actions needs no samples, and Σₐ Q(s, a) ∇π(a|s) is ∇E[Q(s, a)]; the correction is the weight of
∇log π(aₜ|sₜ). Or Q is any network of observation and action, and the mean is over extra sampled
actions (`continuous.SampledValues`).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree, Shaped

from pg import returns, surrogates
from pg.config import Hyperparams
from pg.estimators import continuous
from pg.estimators.base import (
    Credit,
    Estimator,
    Params,
    Weighted,
    action_values,
    build_estimator,
    log_ratio,
    map_along,
    own_entropy,
    policy_output,
    score_surrogate,
)
from pg.estimators.continuous import AtActions, FunctionOfAction, SampledValues
from pg.layers import ActionFunction
from pg.networks import Network, check_shape
from pg.rollout import Trajectory


def all_action(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """A sum over all actions, weighted by their values (expected policy gradients, 1706.05374;
    1709.00503).

    Ψₜ = γᵗ Q(sₜ, a), for every a
    Unbiased for: nothing: J only if Q, which replaces the reward to go, is exact.
    Variance: none from sampling the action or from what follows it; that of the states.
    Needs: complete episodes, a critic Q of discrete or continuous actions, on-policy.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        at = at_actions(policy, critic, params, traj)
        to_go = returns.reward_to_go(traj.reward, traj.done, h.gamma)
        discount = returns.discount_powers(to_go, h.gamma)
        if isinstance(at.q, FunctionOfAction):
            return Credit(discount, target=to_go, extra=at)
        return Credit(discount[..., None] * at.q, target=to_go)

    extra_rollouts = continuous.extra_rollouts_of(critic)
    return build_estimator(
        policy, critic, h, weigh, every_action, taken, extra_rollouts=extra_rollouts
    )


def action_dependent_baseline(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """An action-dependent baseline with the correction that keeps it unbiased (Q-Prop 1611.02247;
    1802.10031).

    Summed over the actions it is ∇log π(aₜ|sₜ) (Gₜ - Q(sₜ, aₜ)) + E_a[∇log π(a|sₜ) Q(sₜ, a)].

    Ψₜ = γᵗ (Q(sₜ, a) + 1[a = aₜ] (Gₜ - Q(sₜ, aₜ)) / π(aₜ|sₜ)), for every a
    Unbiased for: J: for any Q fitted to earlier batches.
    Variance: removes that of sampling the action, as far as Q is accurate; the rest remains.
    Needs: complete episodes, a critic Q of discrete or continuous actions, on-policy.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        at = at_actions(policy, critic, params, traj)
        to_go = returns.reward_to_go(traj.reward, traj.done, h.gamma)
        surprise = to_go - value_of(at)
        return corrected_credit(at, surprise, to_go, traj, h)

    extra_rollouts = continuous.extra_rollouts_of(critic)
    return build_estimator(
        policy, critic, h, weigh, every_action_and_surprise, taken, extra_rollouts=extra_rollouts
    )


def trajectory_control_variate(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """The same without the noise of the later actions (TrajCV; Cheng et al. 2020, 1908.03263).

    With Qₖ(a) = Q(sₖ, a), Vₖ = Σₐ π(a|sₖ) Qₖ(a) and Aₖ = Qₖ(aₖ) - Vₖ, the advantage of a later step
    has mean 0 given the past, whatever Q. So it can be subtracted from the reward without a bias,
    and if Q is exact only the noise of the dynamics remains of the later steps. At step t itself,
    Aₜ + Vₜ is the Qₜ(aₜ) of action_dependent_baseline. On-policy, with a Q that does not depend on
    θ, this is the doubly robust gradient (DR-PG; Huang & Jiang 2020, 1910.09066).

    Ψₜ = γᵗ (Qₜ(a) + 1[a = aₜ] (Σ_{k≥t} γᵏ⁻ᵗ (rₖ - Aₖ) - Vₜ) / πₜ(a)), for every a,  A = Q - V
    Unbiased for: J: for any Q fitted to earlier batches.
    Variance: that of the states and of the dynamics, if Q is accurate.
    Needs: complete episodes, a critic Q of discrete or continuous actions, on-policy.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        at = at_actions(policy, critic, params, traj)
        v = expected_value(policy, params, traj, at.q)
        advantage = jnp.where(traj.valid, value_of(at) - v, 0.0)
        calm = returns.reward_to_go(traj.reward - advantage, traj.done, h.gamma)
        # Q's target: its mean is the policy's Q, whatever the critic, without the later actions'
        # noise
        of_action = calm + advantage
        return corrected_credit(at, calm - v, of_action, traj, h)

    extra_rollouts = continuous.extra_rollouts_of(critic)
    return build_estimator(
        policy, critic, h, weigh, every_action_and_surprise, taken, extra_rollouts=extra_rollouts
    )


def pooled_trajectory_control_variate(
    policy: Network, critic: Network, h: Hyperparams
) -> Estimator:
    """trajectory_control_variate with its TD errors averaged over the episodes that take the same
    action in the same state at the same step (after Cheng et al. 2020, 1908.03263; Kallus & Uehara
    2020, 2002.04014).

    The estimate is Σₖ eₖ δₖ, where eₖ = Σ_{t≤k} ∇log πₜ depends on the past, and δₖ on the next
    transition. Given state and action they are independent, so that the δ of other episodes with
    the same state and action have the same mean; their average has less variance. If no two
    episodes visit the same state this is trajectory_control_variate.

    Raises ValueError for a recurrent policy or critic, whose Q also depends on the past.

    Ψₜ = γᵗ (Qₜ(a) + 1[a = aₜ] Σ_{k≥t} γᵏ⁻ᵗ dₖ / πₜ(a)), for every a,  d = mean of r + γ V(s') - Q
    Unbiased for: J: for any Q(s, a) of earlier batches, if observations are states.
    Variance: that of the states, and of the dynamics in states that are visited once.
    Needs: complete episodes, a critic Q of discrete or continuous actions, on-policy.
    """
    if policy.recurrent or critic.recurrent:
        raise ValueError(
            "pooled_trajectory_control_variate averages TD errors of different episodes in one "
            "state, and with a recurrent policy or critic they depend on what came before: give "
            "networks without a recurrent state, or write trajectory_control_variate"
        )

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        at = at_actions(policy, critic, params, traj)
        q = value_of(at)
        v = expected_value(policy, params, traj, at.q)
        # nothing follows a termination or truncation
        error = returns.td_error(traj.reward, traj.done, q, jnp.roll(v, -1, axis=0), h.gamma)
        error = jnp.where(traj.valid, error, 0.0)
        pooled = mean_over_equal_steps(error, traj)
        surprise = returns.reward_to_go(pooled, traj.done, h.gamma)
        own = returns.reward_to_go(error, traj.done, h.gamma)
        return corrected_credit(at, surprise, q + own, traj, h)

    extra_rollouts = continuous.extra_rollouts_of(critic)
    return build_estimator(
        policy, critic, h, weigh, every_action_and_surprise, taken, extra_rollouts=extra_rollouts
    )


def mean_over_equal_steps(x: Float[Array, "T B"], traj: Trajectory) -> Float[Array, "T B"]:
    """At each step, the mean of x over the episodes with the same observation and action, [T, B].

    It takes the memory of [B, B] numbers, whatever the size of an observation.

    Args:
        x: A number of each step, [T, B]; 0 where not valid.
        traj: The episodes.
    """

    def equal_so_far(
        equal: Bool[Array, "B B"], column: Shaped[Array, " B"]
    ) -> tuple[Bool[Array, "B B"], None]:
        return equal & (column[:, None] == column[None, :]), None

    def of_step(step: tuple[Float[Array, " B"], PyTree]) -> Float[Array, " B"]:
        x, place = step
        number = len(x)
        equal = jnp.ones((number, number), bool)
        for leaf in jax.tree.leaves(place):
            equal, _ = jax.lax.scan(equal_so_far, equal, leaf.reshape(number, -1).T)
        equal |= jnp.eye(number, dtype=bool)  # an observation that is NaN is not equal to itself
        return equal.astype(x.dtype) @ x / jnp.sum(equal, axis=1, dtype=x.dtype)

    return jax.lax.map(of_step, (x, (traj.valid, traj.time, traj.obs, traj.action)))


def at_actions(policy: Network, critic: Network, params: Params, traj: Trajectory) -> AtActions:
    """Q along a trajectory, and the actions taken, in the form that Q takes."""
    if jnp.issubdtype(jnp.result_type(traj.action), jnp.integer):
        return AtActions(action_values(critic, params, traj), traj.action)
    action = continuous.actions_taken(policy, params, traj)
    if critic.outcome == "action":
        return AtActions(continuous.sampled_values(policy, critic, params, traj), action)
    return AtActions(continuous.action_functions(critic, params, traj), action)


def value_of(at: AtActions) -> Float[Array, "T B"]:
    """Q(sₜ, aₜ), [T, B]."""
    if isinstance(at.q, SampledValues):
        return at.q.own
    return at.q.at(at.action) if isinstance(at.q, ActionFunction) else at_action(at.q, at.action)


def corrected_credit(
    at: AtActions,
    surprise: Float[Array, "T B"],
    to_go: Float[Array, "T B"],
    traj: Trajectory,
    h: Hyperparams,
) -> Credit:
    """γᵗ Q for every action, and γᵗ `surprise` for the action taken.

    Args:
        at: Q and the actions taken.
        surprise: the observed outcome minus the prediction of Q, [T, B].
        to_go: the critic's target, [T, B].
        traj: the trajectory.
        h: the hyperparameters.
    """
    discount = returns.discount_powers(to_go, h.gamma)
    if isinstance(at.q, FunctionOfAction):
        return Credit(discount * surprise, to_go, extra=at._replace(q=at.q.affine(discount)))
    return Credit(discount[..., None] * corrected(at.q, surprise, traj), to_go)


def doubly_robust(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """trajectory_control_variate from another policy's episodes: the derivative of a doubly robust
    estimate of J, Q held fixed (DR-PG; Huang & Jiang 2020, 1910.09066).

    That estimate is D₀ with Dₜ = Vₜ + ρₜ (rₜ + γ Dₜ₊₁ - Qₜ(aₜ)) and Vₜ = Σₐ π(a|sₜ) Qₜ(a) (Jiang &
    Li 2016, 1511.03722). Its mean is J for any Q and every θ, so that the mean of its derivative is
    ∇J. On-policy it is trajectory_control_variate.

    Ψₜ = γᵗ w (Qₜ(a) + 1[a = aₜ] (rₜ + γ Dₜ₊₁ - Qₜ(aₜ)) / β(aₜ|sₜ)), for every a,  w = Π_{k<t} ρₖ
    Unbiased for: J: for any Q fitted to earlier batches.
    Variance: that of per_decision_importance, without what Q predicts.
    Needs: complete episodes, a critic Q of discrete actions, the behaviour's log-probabilities.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        log_rho = log_ratio(policy, params, traj)
        own = own_entropy(traj, log_rho, h)
        q = action_values(critic, params, traj)
        v = expected_value(policy, params, traj, q)
        rho = jnp.exp(log_rho)
        reward = jnp.where(traj.valid, own.reward, 0.0)
        running = h.gamma * (1.0 - traj.done.astype(q.dtype))
        of_action = at_action(q, traj.action)
        estimate = returns.discounted_sum(v + rho * (reward - of_action), rho * running)
        # its mean is the policy's Q, also off-policy
        target = reward + running * _next(estimate)
        surprise = target - of_action
        before = jnp.exp(jnp.cumsum(log_rho, axis=0) - log_rho)  # of the earlier decisions
        weight = returns.discount_powers(before, h.gamma) * before
        psi = weight[..., None] * corrected(q, surprise, traj)
        return Credit(psi, target=target)

    return build_estimator(policy, critic, h, weigh, every_action, taken)


def _next(x: Float[Array, "T B"]) -> Float[Array, "T B"]:
    """xₜ₊₁ at every step, [T, B]; 0 at the last."""
    return jnp.concatenate([x[1:], jnp.zeros_like(x[:1])])


def corrected(
    q: Float[Array, "T B A"], surprise: Float[Array, "T B"], traj: Trajectory
) -> Float[Array, "T B A"]:
    """Q(s, a) + 1[a = aₜ] surprise / β(aₜ|s), [T, B, A], β the behaviour policy.

    In the sum over π the surprise is multiplied by ρ, which is 1 on-policy.
    """
    share = jnp.where(traj.valid, surprise * jnp.exp(-traj.log_prob), 0.0)
    chosen = jax.nn.one_hot(traj.action, q.shape[-1], dtype=q.dtype)
    return q + chosen * share[..., None]


def expected_value(
    policy: Network, params: Params, traj: Trajectory, q: Float[Array, "T B A"] | FunctionOfAction
) -> Float[Array, "T B"]:
    """V(s) = Σₐ π(a|s) Q(s, a), [T, B]; 0 in blocks of time without a valid step."""
    if isinstance(q, FunctionOfAction):
        return continuous.expectation_along(policy, params, traj, q)
    return jnp.sum(probabilities(policy, params, traj) * q, axis=-1)


def probabilities(policy: Network, params: Params, traj: Trajectory) -> Float[Array, "T B A"]:
    """π(a|s) of every action, [T, B, A]; 0 in blocks of time without a valid step."""

    def block(rows: Trajectory) -> Float[Array, "K B A"]:
        return jax.nn.softmax(policy_output(policy, params, rows).logits)

    return map_along(policy, block, traj)


def every_action(dist: Any, batch: Weighted) -> Float[Array, "T B"]:
    """Σₐ π(a) Ψ(a), [T, B]: the surrogate whose gradient samples no action."""
    if isinstance(batch.extra, AtActions):
        return batch.psi * batch.extra.q.expectation(dist)
    remedy = "critic and policy must be of the same actions"
    check_shape("psi", batch.psi.shape, dist.logits.shape, "[T, B, A]", remedy)
    return surrogates.all_action(dist.logits, batch.psi)


def every_action_and_surprise(dist: Any, batch: Weighted) -> Float[Array, "T B"]:
    """The same if Ψ(aₜ) includes the surprise at the action taken; with a Q of continuous actions
    the surprise is the Ψ of ∇log π(aₜ); [T, B].
    """
    if isinstance(batch.extra, AtActions):
        return score_surrogate(dist, batch) + batch.extra.q.expectation(dist)
    return every_action(dist, batch)


def taken(q: Float[Array, "T B *A"] | ActionFunction, batch: Weighted) -> Float[Array, "T B"]:
    """Q(s, a) of the action taken, [T, B], which is fitted to the returns."""
    if isinstance(q, ActionFunction):
        return q.at(batch.extra.action)
    if q.ndim == batch.traj.valid.ndim:  # of a network evaluated at this action only
        return q
    return at_action(q, batch.traj.action)


def at_action(q: Float[Array, "*B A"], action: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """q [..., A] at action [...]."""
    return jnp.take_along_axis(q, action[..., None], axis=-1)[..., 0]
