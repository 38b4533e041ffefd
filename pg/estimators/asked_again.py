"""Control variates from resampled transitions: their means are known given V.

    xₖ = rₖ + γ V(sₖ₊₁),   Cₖ = xₖ - its mean given sₖ (and aₖ),   Gₜ - Σ_{k≥t} γᵏ⁻ᵗ Cₖ

An environment is a pure function of its state, so that transitions can be resampled from any state.
Cₖ has mean 0 given the past for any V, and so causes no bias; if V is exact, it is all of the noise
that step k adds to the return.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from pg import returns
from pg.config import Hyperparams
from pg.estimators.action_values import (
    AtActions,
    at_action,
    corrected_credit,
    every_action,
    expected_value,
)
from pg.estimators.base import (
    ONE_NUMBER,
    Credit,
    Estimator,
    Params,
    build_estimator,
    critic_output,
    map_along,
    per_step,
    successor_values,
    values,
)
from pg.extra_rollouts import ExtraRollouts, Transitions
from pg.networks import Network
from pg.rollout import Trajectory


def dynamics_control_variate(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """state_value without a part of the dynamics' noise (after Cheng et al. 2020, 1908.03263).

    Each transition is resampled `num_branches` times, and V after it is replaced by the mean over
    all samples.

    With M + 1 samples, 1 / (M + 1) of that variance remains, at M + 1 times the environment steps:
    with M + 1 times the episodes as little of it would remain, and of the other noise too. It pays
    if environment steps are cheap compared with the computation for an episode.

    Ψₜ = γᵗ (Σ_{k≥t} γᵏ⁻ᵗ (rₖ - Cₖ) - V(sₜ)),  C = x - mean of x over M + 1 draws, x = r + γ V(s')
    Unbiased for: J: for any V fitted to earlier batches.
    Variance: that of state_value, the dynamics' part divided by M + 1 if V is accurate.
    Needs: complete episodes, a critic V, on-policy, extra transitions.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        surprise = surprise_of_dynamics(critic, params, traj, h)
        to_go = returns.reward_to_go(traj.reward - surprise, traj.done, h.gamma)
        advantage = to_go - values(critic, params, traj)
        psi = returns.discount_powers(advantage, h.gamma) * advantage
        return Credit(psi, target=returns.reward_to_go(traj.reward, traj.done, h.gamma))

    return build_estimator(policy, critic, h, weigh, extra_rollouts=ExtraRollouts(successors=True))


def lookahead_control_variate(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
    """trajectory_control_variate with a one-step lookahead as Q (after Cheng et al. 2020,
    1908.03263).

    Every action is tried in every state for one step, followed by V.

    q(a) is the mean of x = r + γ V(s') over M samples (`num_branches`), the first with the
    episode's own random numbers, and v = Σₐ π(a|s) q(a). What remains of the later steps is
    Σ_{k>t} γᵏ⁻ᵗ (vₖ - V(sₖ)), the Bellman errors of V.

    Ψₜ = γᵗ (qₜ(a) + 1[a = aₜ] (Σ_{k≥t} γᵏ⁻ᵗ (rₖ - Cₖ) - vₜ) / πₜ(a)), for every a,  C = x - v
    Unbiased for: J: for any V fitted to earlier batches.
    Variance: that of the states, the errors of V, and 1 / M of that of the dynamics.
    Needs: complete episodes, a critic V, on-policy, transitions of every action, discrete actions.
    """

    def weigh(params: Params, state: Any, traj: Trajectory) -> Credit:
        tried = outcomes(critic, params, traj, lambda rows: rows.lookahead, h)
        q = jnp.mean(tried, axis=-1)
        v = expected_value(policy, params, traj, q)
        own = at_action(tried[..., 0], traj.action)  # the first sample is the episode's own
        surprise = jnp.where(traj.valid, own - v, 0.0)
        calm = returns.reward_to_go(traj.reward - surprise, traj.done, h.gamma)
        to_go = returns.reward_to_go(traj.reward, traj.done, h.gamma)
        return corrected_credit(AtActions(q, traj.action), calm - v, to_go, traj, h)

    return build_estimator(
        policy, critic, h, weigh, every_action, extra_rollouts=ExtraRollouts(lookahead=True)
    )


def surprise_of_dynamics(
    critic: Network, params: Params, traj: Trajectory, h: Hyperparams
) -> Float[Array, "T B"]:
    """C = x - its mean over the M + 1 samples for the same state and action, [T, B]; 0 where not
    valid.
    """
    own = own_outcome(critic, params, traj, h)
    again = outcomes(critic, params, traj, lambda rows: rows.successors, h)
    every = jnp.concatenate([own[..., None], again], axis=-1)
    return jnp.where(traj.valid, own - jnp.mean(every, axis=-1), 0.0)


def own_outcome(
    critic: Network, params: Params, traj: Trajectory, h: Hyperparams
) -> Float[Array, "T B"]:
    """r + γ V(s') of the episode itself, [T, B], with the environment's reward r: an entropy term
    depends only on the action, and is not noise of the dynamics.
    """
    reward = traj.reward + h.temperature * jnp.where(traj.valid, traj.log_prob, 0.0)
    v = jnp.where(traj.done, 0.0, successor_values(critic, params, traj))
    return reward + h.gamma * v


def outcomes(
    critic: Network,
    params: Params,
    traj: Trajectory,
    asked: Callable[[Trajectory], Any],
    h: Hyperparams,
) -> Float[Array, "T B *K"]:
    """r + γ V(s') of extra transitions, [T, B, *K].

    Args:
        critic: V.
        params: Its parameters.
        traj: The trajectory.
        asked: Rows of the trajectory -> their extra transitions.
        h: The hyperparameters, for γ.

    Raises:
        ValueError: The trajectory has no such transitions, or the critic is recurrent.
    """
    if critic.recurrent:
        raise ValueError(
            "extra transitions need a critic of single observations, and this one is "
            "recurrent: give rnn='none', or an estimator that does not query the environment again"
        )
    if not isinstance(asked(traj), Transitions):
        raise ValueError(
            "there are no extra transitions to compare with: collect with "
            "pg.episodes(..., extra_rollouts=estimator.extra_rollouts)"
        )

    def block(rows: Trajectory) -> Float[Array, "T B *K"]:
        found = asked(rows)
        per_step_shape = found.reward.shape[2:]

        def value(obs: Any) -> Shaped[Array, "T B"]:
            v = critic_output(critic, params, rows._replace(obs=obs))
            return per_step("the critic's V", v, rows, ONE_NUMBER)

        flat = jax.tree.map(
            lambda x: x.reshape(*x.shape[:2], -1, *x.shape[2 + len(per_step_shape) :]),
            found.next_obs,
        )
        v = jax.vmap(value, in_axes=2, out_axes=2)(flat).reshape(found.reward.shape)
        return found.reward + h.gamma * jnp.where(found.done, 0.0, v)

    return map_along(critic, block, traj)
