"""Exact means and products of the returns of episodes that begin in one state with given actions,
for branches.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from pg.exact.tabular.exact import log_policy
from pg.exact.tabular.mdp import TabularMDP


class BranchReturns(NamedTuple):
    """The first two moments of X = (Σₖ γᵏ rₜ₊ₖ, Σₖ γᵏ log π(aₜ₊ₖ|sₜ₊ₖ)), by time, state and first
    action.
    """

    mean: Float[Array, "H S A 2"]
    square: Float[Array, "H S A 2 2"]  # E[X Xᵀ]
    # E[X X'ᵀ] of two episodes from the same state that draw the same random numbers
    common: Float[Array, "H S A A 2 2"]


def branch_returns(
    mdp: TabularMDP, logits: Float[Array | np.ndarray, "*H S A"], gamma: Float[ArrayLike, ""] = 1.0
) -> BranchReturns:
    """The moments of the returns of episodes from every state, by a recursion of the moments of two
    episodes that draw the same random numbers.

    A uniform number chooses an action, or a successor, by the inverse of the distribution function,
    so that two episodes choose i and j with the probability of the overlap of two intervals. From
    the same state and action both are the same episode.

    Args:
        mdp: The MDP.
        logits: Of the policy, [S, A] or [H, S, A].
        gamma: γ.
    """
    log_pi = log_policy(mdp, logits)  # [H, S, A]
    num_states, num_actions = mdp.num_states, mdp.num_actions
    transition = jnp.asarray(mdp.transition)
    successors = _overlaps(transition.reshape(-1, num_states))
    shape = num_states, num_actions, num_states, num_actions, num_states, num_states
    successors = successors.reshape(shape)
    running = ~jnp.asarray(mdp.terminal)
    pairs_run = running[:, None] & running[None, :]

    def back(
        after: tuple[Float[Array, "S 2"], Float[Array, "S S 2 2"]], log_pi: Float[Array, "S A"]
    ) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        of_state, of_states = after
        paid = jnp.where(jnp.isneginf(log_pi), 0.0, log_pi)[..., None]
        paid = jnp.broadcast_to(paid, mdp.reward.shape)
        step = jnp.stack([jnp.asarray(mdp.reward), paid], axis=-1)  # [S, A, S, 2]
        later = gamma * of_state[None, None]
        mean = jnp.einsum("sat,sati->sai", transition, step + later)
        # Σ over both successors of (step + γ X)(step' + γ X')ᵀ
        one = jnp.einsum("saubtv,sati,ubvj->saubij", successors, step, step)
        cross = jnp.einsum("saubtv,sati,vj->saubij", successors, step, of_state)
        mirrored = jnp.einsum("saubtv,ti,ubvj->saubij", successors, of_state, step)
        two = jnp.einsum("saubtv,tvij->saubij", successors, of_states)
        product = one + gamma * (cross + mirrored) + gamma**2 * two
        pi = jnp.exp(log_pi)
        actions = _overlaps(pi).transpose(0, 2, 1, 3)  # [S, A, S, A]
        of_state = jnp.where(running[:, None], jnp.einsum("sa,sai->si", pi, mean), 0.0)
        of_states = jnp.einsum("saub,saubij->suij", actions, product)
        of_states = jnp.where(pairs_run[..., None, None], of_states, 0.0)
        return (of_state, of_states), (mean, product)

    nothing = jnp.zeros((num_states, 2)), jnp.zeros((num_states, num_states, 2, 2))
    mean, product = jax.lax.scan(back, nothing, log_pi, reverse=True)[1]
    s, a = jnp.arange(num_states), jnp.arange(num_actions)
    common = product[:, s, :, s].swapaxes(0, 1)  # [H, S, A, A, 2, 2]
    return BranchReturns(mean, common[:, :, a, a], common)


def _overlaps(p: Float[Array, "N S"]) -> Float[Array, "N N S S"]:
    """The probability that one uniform number chooses i of row n and j of row m, [N, N, S, S]."""
    high = jnp.cumsum(p, axis=-1)
    low = high - p
    upper = jnp.minimum(high[:, None, :, None], high[None, :, None, :])
    lower = jnp.maximum(low[:, None, :, None], low[None, :, None, :])
    return jnp.maximum(upper - lower, 0.0)
