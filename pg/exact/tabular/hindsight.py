"""Exact hindsight distributions of tabular MDPs: the probability of an action, given its
outcome.

    h(a | s, u) ∝ Σ_{t<k<H} γᵏ P(sₜ = s, aₜ = a, uₖ = u)

The sum is over all pairs of steps of an episode, each weighted by γᵏ: with these weights, those of
rewards in J, a single h for all times leaves the estimators of `pg.estimators.credit` unbiased.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from pg.exact.tabular.exact import of_legal, visitation
from pg.exact.tabular.mdp import TabularMDP, check_shape
from pg.rollout import Trajectory


def hindsight_of_states(
    mdp: TabularMDP, logits: Float[Array | np.ndarray, "S A"], gamma: Float[ArrayLike, ""] = 1.0
) -> Float[Array, "S S A"]:
    """h(a|s, s') of a later state s', [S, S', A]; π(a|s) where s' is never reached from s.

    By the recursion of P(sₜ₊ₗ = s' | sₜ = s, aₜ = a) over l, of a policy that does not depend on
    the time.

    Args:
        mdp: the MDP.
        logits: of the policy, [S, A].
        gamma: γ.
    """
    return _normalised(mdp, logits, _pairs_of_states(mdp, logits, gamma))


def hindsight_of_rewards(
    mdp: TabularMDP, logits: Float[Array | np.ndarray, "S A"], gamma: Float[ArrayLike, ""] = 1.0
) -> tuple[Float[np.ndarray, " U"], Float[Array, "S U A"]]:
    """The possible rewards of an MDP, [U], in ascending order, and h(a|s, r) of a later reward r,
    [S, U, A]; π(a|s) where r never follows s.

    Args:
        mdp: the MDP.
        logits: of the policy, [S, A].
        gamma: γ.
    """
    possible = _possible(mdp)
    rewards, number = np.unique(mdp.reward[possible], return_inverse=True)
    paid = np.zeros((*mdp.reward.shape, len(rewards)))
    paid[possible, number] = 1.0
    pi = jax.nn.softmax(of_legal(mdp, logits))
    of_state = jnp.einsum("sa,sat,satu->su", pi, jnp.asarray(mdp.transition), jnp.asarray(paid))
    pairs = jnp.einsum("sax,xu->sau", _pairs_of_states(mdp, logits, gamma), of_state)
    return rewards, _normalised(mdp, logits, pairs)


def paid_rewards(mdp: TabularMDP) -> Float[np.ndarray, " U"]:
    """The possible rewards of an MDP, [U], in ascending order."""
    return np.unique(mdp.reward[_possible(mdp)])


def table_coefficients(
    hindsight: Float[Array, "S U A"],
    logits: Float[Array | np.ndarray, "S A"],
    outcome: Callable[[Trajectory], Int[Array, "T B"]] | None = None,
) -> Callable[[Any, Trajectory, Int[Array, ""]], Float[Array, "T B A"]]:
    """w(s, a, u) = h(a|s, u) / π(a|s) - 1, for `pg.estimators.credit.counterfactual`, with one-hot
    observations; 0 for illegal actions.

    Args:
        hindsight: h(a|s, u), [S, U, A].
        logits: of the policy, [S, A], -inf for actions that are illegal.
        outcome: trajectory -> the number u of each step's outcome, int [T, B]; default: its state.
    """
    check_shape("hindsight", hindsight.shape[::2], [np.shape(logits)])
    pi = jax.nn.softmax(jnp.asarray(logits))[:, None, :]
    w = jnp.where(pi > 0, hindsight / jnp.where(pi > 0, pi, 1.0) - 1.0, 0.0)

    def coefficients(params: Any, traj: Trajectory, k: Int[Array, ""]) -> Float[Array, "T B A"]:
        state = jnp.argmax(traj.obs, axis=-1)
        later = state if outcome is None else outcome(traj)
        return w[state, jnp.broadcast_to(later[k], state.shape)]

    return coefficients


def _possible(mdp: TabularMDP) -> Bool[np.ndarray, "S A S"]:
    """The transitions that can happen while an episode runs, [S, A, S]."""
    return (mdp.transition > 0) & ~mdp.terminal[:, None, None]


def _pairs_of_states(
    mdp: TabularMDP, logits: Float[Array | np.ndarray, "S A"], gamma: Float[ArrayLike, ""]
) -> Float[Array, "S A S"]:
    """Σ_{t<k<H} γᵏ P(sₜ = s, aₜ = a, sₖ = s'), [S, A, S'], of steps in which the episode runs."""
    check_shape("logits", np.shape(logits), [(mdp.num_states, mdp.num_actions)])
    pi = jax.nn.softmax(of_legal(mdp, logits))
    continuing = jnp.asarray(mdp.continuing)
    chain = jnp.einsum("sa,sat->st", pi, continuing)
    weight = jnp.asarray(gamma, float) ** jnp.arange(mdp.horizon)
    visits = weight[:, None] * visitation(mdp, logits)
    total = jnp.zeros_like(continuing)
    after = continuing
    for lag in range(1, mdp.horizon):
        before = visits[: mdp.horizon - lag].sum(0)  # Σ_t γᵗ dₜ(s), of t + lag < H
        total += weight[lag] * before[:, None, None] * pi[..., None] * after
        after = after @ chain
    return total


def _normalised(
    mdp: TabularMDP, logits: Float[Array | np.ndarray, "S A"], pairs: Float[Array, "S A U"]
) -> Float[Array, "S U A"]:
    """h(a|s, u) from weights proportional to it, [S, U, A]."""
    pairs = jnp.swapaxes(pairs, 1, 2)
    total = pairs.sum(-1, keepdims=True)
    pi = jax.nn.softmax(of_legal(mdp, logits))[:, None, :]
    return jnp.where(total > 0, pairs / jnp.where(total > 0, total, 1.0), pi)
