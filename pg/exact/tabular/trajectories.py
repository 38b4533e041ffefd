"""Every trajectory of a small MDP with its probability: expectations without noise."""

import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from pg.envs import Masked
from pg.exact.tabular.exact import time_dependent
from pg.exact.tabular.mdp import TabularMDP
from pg.extra_rollouts import ExtraRollouts, InitialStates, Transitions
from pg.rollout import NO_EXTRA_ROLLOUTS, Trajectory

POINTS_APART = 1e-12  # closer points of a distribution function are the same, up to rounding


def enumerate_trajectories(
    mdp: TabularMDP,
    logits: Float[Array | np.ndarray, "*H S A"],
    extra_rollouts: ExtraRollouts = NO_EXTRA_ROLLOUTS,
    num_branches: int = 1,
) -> tuple[Trajectory, Float[Array, " M"]]:
    """Every trajectory of positive probability, leaves [H, M, ...], and its probability [M],
    differentiable; with a mask, of actions that are legal.

    p(τ) = ρ(s₀) Πₜ π(aₜ|sₜ) P(sₜ₊₁|sₜ, aₜ), over the valid steps. There are up to S (A S)ᴴ of them,
    and many more with extra transitions or initial states. Extra initial states are in
    ascending order, as the order of the drawn ones does not matter.

    Args:
        mdp: The MDP.
        logits: Of the policy.
        extra_rollouts: The extra transitions of the trajectories, as in `pg.episodes`, without
            greedy episodes.
        num_branches: See `pg.episodes`.
    """
    paths = _asked(mdp, extra_rollouts, num_branches)
    state, action, after = paths.state, paths.action, paths.after
    entered = np.asarray(mdp.terminal)[after]
    ended = np.cumsum(entered, axis=0) - entered > 0
    valid = ~ended
    time = np.broadcast_to(np.arange(mdp.horizon)[:, None], state.shape)
    last = time == mdp.horizon - 1
    log_pi = jax.nn.log_softmax(time_dependent(mdp, logits))
    log_prob = log_pi[time, state, action]
    of_actions = jnp.exp(jnp.sum(jnp.where(valid, log_prob, 0.0), axis=0))
    of_transitions = np.where(valid, paths.probability, 1.0).prod(0)
    probability = mdp.initial[state[0]] * of_transitions * of_actions * paths.of_starts

    def observed(state: Int[np.ndarray, "..."]) -> PyTree:
        if mdp.mask is None:
            return mdp.observations(state)
        return Masked(mdp.observations(state), jnp.asarray(mdp.mask)[state])

    def transitions(after: Int[np.ndarray, "H M *K"], action: Any, steps: int) -> Transitions:
        """The transitions to these successors, at the requested `steps`."""
        extra = [1] * (after.ndim - 2)
        begin, runs = (x.reshape(*x.shape, *extra) for x in (state, valid))
        over = np.asarray(mdp.terminal)[after] | last.reshape(*last.shape, *extra)
        return Transitions(
            reward=jnp.asarray(np.where(runs, mdp.reward[begin, action, after], 0.0), float),
            done=jnp.asarray(over & runs),
            next_obs=observed(after),
            env_steps=jnp.asarray(valid * np.int32(steps)),
        )

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
    if extra_rollouts.successors:
        again = paths.draws[:, :, 1 : 1 + num_branches]
        found = _outcomes(mdp, state[..., None], action[..., None], again)
        traj = traj._replace(successors=transitions(found, action[..., None], num_branches))
    if extra_rollouts.lookahead:
        more = paths.draws[:, :, 1 + num_branches * extra_rollouts.successors :]
        draws = np.concatenate([paths.draws[:, :, :1], more], axis=2)[:, :, None]
        every = np.arange(mdp.num_actions)[None, None, :, None]
        found = _outcomes(mdp, state[..., None, None], every, draws)
        steps = mdp.num_actions * num_branches - 1
        traj = traj._replace(lookahead=transitions(found, every, steps))
    if extra_rollouts.starts:
        resets = jnp.asarray(np.where(time == 0, np.int32(extra_rollouts.starts), 0))
        traj = traj._replace(starts=InitialStates(observed(paths.starts[None]), resets))
    return traj, probability


def initial_states(
    mdp: TabularMDP, extra_rollouts: ExtraRollouts = NO_EXTRA_ROLLOUTS, num_branches: int = 1
) -> Int[np.ndarray, " M"]:
    """The state in which every trajectory of `enumerate_trajectories` begins, int [M]; the same
    arguments.
    """
    return _asked(mdp, extra_rollouts, num_branches).state[0]


def visited_states(mdp: TabularMDP) -> Int[np.ndarray, "H M"]:
    """The states of every trajectory of `enumerate_trajectories`, int [H, M]; an ended one stays in
    its state.
    """
    return _paths(mdp)[0]


def num_trajectories(mdp: TabularMDP) -> float:
    """The number of trajectories of positive probability, those of `enumerate_trajectories`,
    counted without listing them.
    """
    possible = mdp.transition > 0  # [S, A, S]
    if mdp.mask is not None:
        possible = possible & mdp.mask[:, :, None]
    ways = possible.sum(1).astype(float)
    ways[mdp.terminal] = np.eye(mdp.num_states)[mdp.terminal]  # an ended one stays in its state
    reached = (mdp.initial > 0).astype(float)
    for _ in range(mdp.horizon):
        reached = reached @ ways
    return float(reached.sum())


class _Paths(NamedTuple):
    """Every path: leaves [H, M, ...]. An ended one stays in its state, with action 0."""

    state: Int[np.ndarray, "H M"]
    action: Int[np.ndarray, "H M"]
    after: Int[np.ndarray, "H M"]
    probability: Float[np.ndarray, "H M"]  # of the transition, with the other draws there
    draws: Int[np.ndarray, "H M D"]  # the outcome of each random number
    starts: Int[np.ndarray, "M R"]  # extra initial states
    of_starts: Float[np.ndarray, " M"]  # the probability of these, in whichever order


def _asked(mdp: TabularMDP, extra_rollouts: ExtraRollouts, num_branches: int) -> _Paths:
    """Every path, with random numbers at requested extra transitions, and with extra initial
    states.
    """
    if extra_rollouts.successors or extra_rollouts.lookahead:
        paths = _coupled_paths(mdp, extra_rollouts.num_keys(num_branches))
    else:
        paths = _paths(mdp)
    return _with_starts(mdp, paths, extra_rollouts.starts) if extra_rollouts.starts else paths


def _with_starts(mdp: TabularMDP, paths: _Paths, number: int) -> _Paths:
    """Every path with every choice of this many extra initial states."""
    possible = np.flatnonzero(mdp.initial)
    chosen = np.array(list(itertools.combinations_with_replacement(possible, number)))
    times = np.stack([np.sum(chosen == s, axis=1) for s in possible], axis=1)  # each is drawn
    same = np.prod([[math.factorial(n) for n in row] for row in times], axis=1)
    orders = math.factorial(number) / same
    probability = orders * np.prod(mdp.initial[possible] ** times, axis=1)
    num_paths = paths.state.shape[1]
    path, choice = np.divmod(np.arange(num_paths * len(chosen)), len(chosen))
    return _Paths(
        state=paths.state[:, path],
        action=paths.action[:, path],
        after=paths.after[:, path],
        probability=paths.probability[:, path],
        draws=paths.draws[:, path],
        starts=chosen[choice],
        of_starts=probability[choice],
    )


def _paths(mdp: TabularMDP) -> _Paths:
    """Every path of states and actions."""
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
    state, action, after = np.moveaxis(history, -1, 0)
    no_draws = np.zeros((*state.shape, 0), int)
    probability = mdp.transition[state, action, after]
    return _Paths(state, action, after, probability, no_draws, *_no_starts(state))


def _coupled_paths(mdp: TabularMDP, num_more: int) -> _Paths:
    """Every path with the random numbers of its transitions and, at each step, `num_more` others.

    A random number is uniform, and chooses the successors of all actions at once: `_outcomes`.
    Between two neighbouring points of their distribution functions it always chooses the same.
    """
    width = _widths(mdp)  # [S, C]
    num_draws = 1 + num_more
    draws = np.stack(
        np.meshgrid(*[np.arange(width.shape[1])] * num_draws, indexing="ij"), axis=-1
    ).reshape(-1, num_draws)  # [C ** num_draws, num_draws]
    state = np.flatnonzero(mdp.initial)
    history = np.zeros((0, len(state), 2 + num_draws), int)
    for _ in range(mdp.horizon):
        chance = width[state][:, draws].prod(-1)  # [m, C ** num_draws]
        legal = np.ones((len(state), mdp.num_actions), bool)
        if mdp.mask is not None:
            legal = mdp.mask[state]
        possible = legal[:, :, None] & (chance > 0)[:, None, :]
        over = mdp.terminal[state]
        possible[over] = False
        possible[over, 0, 0] = True
        path, action, which = np.nonzero(possible)
        rows = np.concatenate([np.stack([state[path], action], -1), draws[which]], axis=-1)
        history = np.concatenate([history[:, path], rows[None]])
        begin = state[path]
        after = _outcomes(mdp, begin, action, draws[which, 0])
        state = np.where(mdp.terminal[begin], begin, after)
    state, action, drawn = history[..., 0], history[..., 1], history[..., 2:]
    after = _outcomes(mdp, state, action, drawn[..., 0])
    after = np.where(mdp.terminal[state], state, after)
    probability = np.take_along_axis(width[state], drawn, axis=-1).prod(-1)
    return _Paths(state, action, after, probability, drawn, *_no_starts(state))


def _no_starts(state: Int[np.ndarray, "H M"]) -> tuple[np.ndarray, np.ndarray]:
    """The `starts` and `of_starts` of paths without extra initial states."""
    num_paths = state.shape[1]
    return np.zeros((num_paths, 0), int), np.ones(num_paths)


def _points(mdp: TabularMDP) -> Float[np.ndarray, "S C"]:
    """The points of [0, 1] at which a random number begins to choose another successor, of every
    action of a state, and 1: ascending, [S, C].
    """
    cdf = np.cumsum(mdp.transition, axis=-1)
    return np.sort((cdf / cdf[..., -1:]).reshape(mdp.num_states, -1), axis=-1)


def _widths(mdp: TabularMDP) -> Float[np.ndarray, "S C"]:
    """The probability that a random number is between two neighbouring points, [S, C]: 0 where
    they are equal up to rounding.
    """
    width = np.diff(_points(mdp), axis=-1, prepend=0.0)
    return np.where(width > POINTS_APART, width, 0.0)


def _outcomes(
    mdp: TabularMDP,
    state: Int[np.ndarray, "..."],
    action: Int[np.ndarray, "..."],
    draw: Int[np.ndarray, "..."],
) -> Int[np.ndarray, "..."]:
    """The successor that a random number below the point of number `draw` chooses; int [...]."""
    points = _points(mdp)
    middle = points[state, draw] - _widths(mdp)[state, draw] / 2
    cdf = np.cumsum(mdp.transition, axis=-1)[state, action]
    return np.sum(middle[..., None] * cdf[..., -1:] >= cdf[..., :-1], axis=-1)
