"""Every trajectory of a small MDP with its probability: expectations without noise."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from pg.envs import Masked
from pg.exact.tabular.exact import time_dependent
from pg.exact.tabular.mdp import TabularMDP
from pg.rollout import Trajectory


def enumerate_trajectories(
    mdp: TabularMDP, logits: Float[Array | np.ndarray, "*H S A"]
) -> tuple[Trajectory, Float[Array, " M"]]:
    """Every trajectory of positive probability, leaves [H, M, ...], and its probability [M],
    differentiable; with a mask, of actions that are legal.

    p(τ) = ρ(s₀) Πₜ π(aₜ|sₜ) P(sₜ₊₁|sₜ, aₜ), over the valid steps. There are up to S (A S)ᴴ of them.
    """
    state, action, after = _paths(mdp)
    entered = np.asarray(mdp.terminal)[after]
    ended = np.cumsum(entered, axis=0) - entered > 0
    valid = ~ended
    time = np.broadcast_to(np.arange(mdp.horizon)[:, None], state.shape)
    last = time == mdp.horizon - 1
    log_pi = jax.nn.log_softmax(time_dependent(mdp, logits))
    log_prob = log_pi[time, state, action]
    of_actions = jnp.exp(jnp.sum(jnp.where(valid, log_prob, 0.0), axis=0))
    of_transitions = np.where(valid, mdp.transition[state, action, after], 1.0).prod(0)
    probability = mdp.initial[state[0]] * of_transitions * of_actions

    def observed(state: Int[np.ndarray, "H M"]) -> PyTree:
        if mdp.mask is None:
            return mdp.observations(state)
        return Masked(mdp.observations(state), jnp.asarray(mdp.mask)[state])

    traj = Trajectory(
        obs=observed(state),
        action=jnp.asarray(action),
        log_prob=log_prob,
        reward=jnp.asarray(np.where(valid, mdp.reward[state, action, after], 0.0), float),
        terminated=jnp.asarray(entered & valid),
        truncated=jnp.asarray(last & valid),
        next_obs=observed(after),
        first=jnp.asarray(time == 0),
        valid=jnp.asarray(valid),
        time=jnp.asarray(time),
        carry=(),
    )
    return traj, probability


def initial_states(mdp: TabularMDP) -> Int[np.ndarray, " M"]:
    """The state in which every trajectory of `enumerate_trajectories` begins, int [M]."""
    return _paths(mdp)[0][0]


def num_trajectories(mdp: TabularMDP) -> float:
    """The number of trajectories of positive probability, that is of `enumerate_trajectories`,
    counted without listing them.
    """
    possible = mdp.transition > 0  # [S, A, S]
    if mdp.mask is not None:
        possible = possible & mdp.mask[:, :, None]
    ways = possible.sum(1).astype(float)
    ways[mdp.terminal] = np.eye(mdp.num_states)[mdp.terminal]  # an ended one stays where it is
    reached = (mdp.initial > 0).astype(float)
    for _ in range(mdp.horizon):
        reached = reached @ ways
    return float(reached.sum())


def _paths(
    mdp: TabularMDP,
) -> tuple[Int[np.ndarray, "H M"], Int[np.ndarray, "H M"], Int[np.ndarray, "H M"]]:
    """States, actions and successors [H, M] of every path; an ended one stays where it is, with
    action 0.
    """
    state = np.flatnonzero(mdp.initial)
    history = np.zeros((0, len(state), 3), int)
    for _ in range(mdp.horizon):
        possible = mdp.transition[state] > 0  # [m, A, S]
        if mdp.mask is not None:
            possible &= mdp.mask[state][:, :, None]
        over = mdp.terminal[state]
        possible[over] = False
        possible[over, 0, state[over]] = True
        path, action, after = np.nonzero(possible)
        rows = np.stack([state[path], action, after], axis=-1)
        history = np.concatenate([history[:, path], rows[None]])
        state = after
    return history[..., 0], history[..., 1], history[..., 2]
