"""Transformed MDPs: with the time in the state, so that values are stationary; continuing; or with
a divergence from a reference policy in the reward.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pg.exact.tabular.exact import of_legal, stationary
from pg.exact.tabular.mdp import TabularMDP, check_shape


def with_time_in_state(mdp: TabularMDP) -> TabularMDP:
    """The same MDP on states (t, s), numbered t S + s for t = 0 .. H; observations are one-hot in
    them.

    P'((t + 1, s')|(t, s), a) = P(s'|s, a),  r' = r,  ρ'(0, s) = ρ(s). All states (H, s) are
    terminal, so that every episode terminates at its H-th step at the latest. Logits [(H + 1) S, A]
    whose first H S rows are those of a policy [H, S, A] give its J, its gradient, and as values
    without a time limit its Vₜ(s) at (t, s), at any γ.
    """
    H, S, A = mdp.horizon, mdp.num_states, mdp.num_actions
    N = (H + 1) * S
    one_step_later = np.eye(H + 1, k=1)
    transition = np.einsum("tu,sav->tsauv", one_step_later, mdp.transition).reshape(N, A, N)
    transition[-S:, :, -S:] = np.eye(S)[:, None]
    reward = np.tile(mdp.reward, (H + 1, 1, H + 1))
    initial = np.concatenate([mdp.initial, np.zeros(H * S)])
    terminal = np.concatenate([np.tile(mdp.terminal, H), np.ones(S, bool)])
    mask = None if mdp.mask is None else np.tile(mdp.mask, (H + 1, 1))
    return TabularMDP(transition, reward, initial, terminal, H, mask=mask)


def restarting(mdp: TabularMDP) -> TabularMDP:
    """The MDP as a continuing task on its S' non-terminal states: an end is a restart.

    P'(s'|s, a) = P(s'|s, a) + P(ends|s, a) ρ(s'),  and the same mean reward: the process that
    windows, which reset, sample from.
    """
    alive = ~mdp.terminal
    onward = mdp.transition[alive][:, :, alive]
    initial, reward = mdp.initial[alive], mdp.mean_reward[alive]
    transition = onward + (1.0 - onward.sum(-1, keepdims=True)) * initial
    endless = np.zeros(alive.sum(), bool)
    mask = None if mdp.mask is None else mdp.mask[alive]
    features = jax.tree.map(lambda x: x[alive], mdp.features)
    space = mdp.observation_space(None)
    return TabularMDP(transition, reward, initial, endless, mdp.horizon, features, mask, space)


def with_reference(
    mdp: TabularMDP, reference: Float[Array | np.ndarray, "S A"], beta: float
) -> TabularMDP:
    """The MDP whose J_τ at τ = β is J_β = J - β KL(π ‖ π_ref), KL = E[Σₜ log π - log π_ref].

        exact_gradient(with_reference(mdp, reference, beta), logits, gamma, tau=beta)

    r'(s, a, s') = r(s, a, s') + β log π_ref(a|s), so that r' - β log π is the reward of J_β.

    Args:
        mdp: the MDP.
        reference: logits of π_ref, [S, A].
        beta: β.
    """
    check_shape("reference", np.shape(reference), [(mdp.num_states, mdp.num_actions)])
    log_reference = np.asarray(jax.nn.log_softmax(of_legal(mdp, reference)))
    bonus = np.where(np.isneginf(log_reference), 0.0, beta * log_reference)
    return TabularMDP(
        mdp.transition,
        mdp.reward + bonus[..., None],
        mdp.initial,
        mdp.terminal,
        mdp.horizon,
        mdp.features,
        mdp.mask,
    )


def stationary_window(mdp: TabularMDP, logits: Float[Array | np.ndarray, "S A"]) -> TabularMDP:
    """`restarting(mdp)` from the policy's stationary distribution: its episodes are windows of H
    steps.

    logits: [S, A] on the states of `mdp`.
    """
    continuing = restarting(mdp)
    initial = stationary(continuing, jnp.asarray(logits)[~mdp.terminal])
    return TabularMDP(
        continuing.transition,
        continuing.reward,
        initial,
        continuing.terminal,
        mdp.horizon,
        continuing.features,
        continuing.mask,
        continuing.observation_space(None),
    )
