"""Extra episodes from the states that a batch visits replace the critic: nothing is fitted, and
more episodes reduce the noise.

    V̂ₜ = (1/K) Σₖ Gₜₖ        the mean return of K episodes from sₜ

As the environment is a pure function of its state, such episodes can start in any state. On average
they cost H / 2 steps for each of `num_branches` and each state, which are counted as environment
steps. With `branch_every` n only every n-th state has branches, with n times the weight, so that
the mean does not change.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pg import returns
from pg.axes import expand_to
from pg.branches import Branches, Branching
from pg.config import Hyperparams
from pg.distributions import Gaussian
from pg.estimators.action_values import every_action
from pg.estimators.base import Credit, Estimator, Params, Weighted, build_estimator
from pg.extra_rollouts import ExtraRollouts
from pg.networks import Network
from pg.rollout import Trajectory


def vine_value(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """The mean return of K extra episodes from the state as baseline (VinePPO; Kazemnejad et al.
    2024, 2410.01679).

    Each samples its own first action, so that their mean is independent of the actions of the
    episode from which it is subtracted. The value estimate is VinePPO's; its advantage is
    `vine_advantage`.

    Ψₜ = γᵗ (Gₜ - V̂ₜ),  V̂ₜ the mean return of K other episodes from sₜ
    Unbiased for: J: V̂ₜ is independent of the action, given the state.
    Variance: that of a perfect critic, plus 1/K of the variance of the return from the state.
    Needs: complete episodes, on-policy, episodes from each state.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        to_go = returns.reward_to_go(traj.reward, traj.done, h.gamma)
        return Credit(_of_state(traj, to_go - _value(traj), h))

    return _estimator(policy, h, weigh, Branching(gamma=h.gamma))


def vine_advantage(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """The one-step advantage, with both values from K extra episodes (VinePPO; Kazemnejad et al.
    2024, 2410.01679).

    V̂ is not learned, and so has no bias; the episode's own later steps are replaced by K other
    episodes.

    Ψₜ = γᵗ (rₜ + γ V̂ₜ₊₁ - V̂ₜ),  V̂ₜ the mean return of K other episodes from sₜ
    Unbiased for: J: V̂ₜ₊₁ has the mean V(sₜ₊₁), and V̂ₜ is independent of the action.
    Variance: only 1/K remains of what follows the successor.
    Needs: complete episodes, on-policy, episodes from each state.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        value = _value(traj)
        # J ends with the episode, also at a time limit
        after = jnp.concatenate([value[1:], jnp.zeros_like(value[:1])])
        one_step = traj.reward + h.gamma * jnp.where(traj.done, 0.0, after)
        return Credit(_of_state(traj, one_step - value, h))

    return _estimator(policy, h, weigh, Branching(gamma=h.gamma, every_state=True))


def vine_action_value(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """The mean over K other actions in each visited state, each compared with the others (TRPO's
    vine; Schulman et al. 2015, 1502.05477).

    As in section 5.2, on-policy, with a leave-one-out baseline. The episode itself only determines
    which states are visited. As in `group_leave_one_out` there is no baseline for K = 1.

    Ψₜ = γᵗ (Gₜₖ - the mean return of the others) / K,  for K actions of the policy in sₜ
    Unbiased for: J: an action is compared with returns that are independent of it.
    Variance: 1/K of that of the action and of what follows it; that of the states.
    Needs: complete episodes, on-policy, episodes from each state.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        found = branches_of(traj)
        to_go = found.reward_to_go[..., 0]  # [T, B, K]
        number = to_go.shape[-1]
        others = (to_go.sum(axis=-1, keepdims=True) - to_go) / max(1, number - 1)
        action = jax.tree.map(lambda x: x[:, :, :, 0], found.action)
        return Credit(_of_state(traj, (to_go - others) / number, h), extra=action)

    return _estimator(policy, h, weigh, Branching(gamma=h.gamma), of_each_action)


def vine_all_action(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """A sum over all actions, weighted by returns of episodes that start with them (TRPO's vine;
    Schulman et al. 2015, 1502.05477).

    `all_action` with a sampled return instead of the critic: no action is sampled in the visited
    states. All actions are tried with common random numbers.

    Ψₜ = γᵗ Ĝₜ(a), for every a,  Ĝ the mean return of K episodes that start with a
    Unbiased for: J: Ĝₜ(a) has the mean Q(sₜ, a).
    Variance: none from sampling the action; 1/K of what follows it; that of the states.
    Needs: complete episodes, on-policy, episodes from each state, discrete actions.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        q = branches_of(traj).reward_to_go.mean(axis=2)  # [T, B, A]
        return Credit(_of_state(traj, q, h))

    branching = Branching("every_action", h.gamma, common_numbers=True)
    return _estimator(policy, h, weigh, branching, every_action)


def measure_valued(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """The measure-valued derivative of the action distribution, from pairs of episodes (Pflug 1996;
    Mohamed et al. 2020, 1906.10652).

    See section 6 of the latter; the two episodes are also called phantoms. There is no score whose
    variance grows: for a Gaussian with small σ, c is proportional to 1/σ, and the difference of the
    returns to σ if they are smooth. For discrete actions there is one pair, for a sampled logit;
    for D Gaussian actions there are 2 D, one for each mean and standard deviation
    (`branches.first_actions`). Both episodes of a pair use the same random numbers.

    Ψₜ = γᵗ c (G⁺ - G⁻),  returns after a⁺ and a⁻, ∂π = c (p⁺ - p⁻) in a parameter of π
    Unbiased for: J: c (p⁺ - p⁻) is the derivative of the action distribution.
    Variance: that of a difference of returns with common random numbers; that of the states.
    Needs: complete episodes, on-policy, episodes from each state, discrete or Gaussian actions.
    """
    return measure_valued_with(policy, critic, h)


def measure_valued_with(
    policy: Network, critic: Network, h: Hyperparams, *, common_numbers: bool = True
) -> Estimator:
    """`measure_valued`, with or without common random numbers within a pair."""

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        found = branches_of(traj)
        signed = found.constant * found.reward_to_go  # [T, B, K, 2 pairs]
        difference = signed[..., ::2] + signed[..., 1::2]
        steps, number = difference.shape[:2], difference.shape[2]
        psi = _of_state(traj, difference.reshape(*steps, -1) / number, h)
        # the parameter of a Gaussian pair is known without the actions
        is_discrete = jnp.issubdtype(found.action.dtype, jnp.integer)
        return Credit(psi, extra=found.action if is_discrete else ())

    branching = Branching("pairs", h.gamma, common_numbers=common_numbers)
    return _estimator(policy, h, weigh, branching, of_each_parameter)


def of_each_action(dist: Any, batch: Weighted) -> Float[Array, "T B"]:
    """Σₖ Ψₖ log π(aₖ), [T, B]: the surrogate of several actions in one state."""
    log_prob = jax.vmap(dist.log_prob, in_axes=2, out_axes=2)(batch.extra)
    return jnp.sum(batch.psi * log_prob, axis=-1)


def of_each_parameter(dist: Any, batch: Weighted) -> Float[Array, "T B"]:
    """Σ Ψ x, [T, B], x the parameters of the distribution with respect to which Ψ is the
    derivative.

    For a Gaussian they are the means and the log standard deviations; for discrete actions x is the
    logit of a⁺ minus that of a⁻.
    """
    if hasattr(dist, "logits"):
        log_prob = jax.vmap(jax.vmap(dist.log_prob, 2, 2), 3, 3)(batch.extra)
        return jnp.sum(batch.psi * (log_prob[..., 0] - log_prob[..., 1]), axis=-1)
    base = dist if isinstance(dist, Gaussian) else dist.base
    log_std = jnp.broadcast_to(base.log_std, base.mean.shape)
    parameters = jnp.concatenate([base.mean, log_std], axis=-1)  # [T, B, 2 D]
    number = batch.psi.shape[-1] // parameters.shape[-1]
    return jnp.sum(batch.psi * jnp.tile(parameters, number), axis=-1)


def branches_of(traj: Trajectory) -> Branches:
    """The extra episodes from each state. Raises ValueError for a trajectory without them."""
    if not isinstance(traj.branches, Branches):
        raise ValueError(
            "there are no extra episodes from the visited states: collect with "
            "pg.episodes(..., extra_rollouts=estimator.extra_rollouts, num_branches=4)"
        )
    return traj.branches


def _value(traj: Trajectory) -> Float[Array, "T B"]:
    """V̂, [T, B]: the mean return of the episodes from a state."""
    return branches_of(traj).reward_to_go.mean(axis=(2, 3))


def _of_state(
    traj: Trajectory, psi: Float[Array, "T B *K"], h: Hyperparams
) -> Float[Array, "T B *K"]:
    """γᵗ Ψ of the states with branches, times the number of states that each represents."""
    stands_for = branches_of(traj).stands_for
    weighed = psi * expand_to(stands_for, psi)
    return returns.discount_powers(weighed, h.gamma) * weighed


def _estimator(
    policy: Network, h: Hyperparams, weigh: Any, branching: Branching, surrogate: Any = None
) -> Estimator:
    """An estimator that uses extra episodes from each state."""
    extra_rollouts = ExtraRollouts(branches=branching)
    own = {} if surrogate is None else {"surrogate": surrogate}
    return build_estimator(
        policy, None, h, weigh, accepts="episodes", extra_rollouts=extra_rollouts, **own
    )
