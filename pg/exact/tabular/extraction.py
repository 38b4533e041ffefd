"""Tabular MDPs extracted from environments, by taking every action in every state."""

import copy
import math
import operator
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree

from pg.envs import Box, Discrete, Env, Masked, gymnax, make_env
from pg.envs.observations import is_shape
from pg.exact.tabular.mdp import TabularMDP

MAX_STATES = 5_000  # with more, the transitions [S, A, S] would take gigabytes
BLOCK = 64  # states that are stepped at once
PROBES = 16  # keys, and times if the states have none, that must not change a step


class _Numbered(NamedTuple):
    """A state of the environment, and its row of the table."""

    number: int
    state: PyTree  # the environment's own, leaves without a batch axis
    obs: Any  # [*O]; `Masked` where the environment has action masks
    terminal: bool


def tabulate(
    env: Any, horizon: int | None = None, *, time_in_state: bool = False, starts: int = 256
) -> TabularMDP:
    """The MDP of an environment with discrete actions and deterministic steps; its features are the
    observations.

    The initial states are the distinct ones among `starts` resets, taken as equally likely; they
    are numbered first, and the others in the order of a breadth-first search. States entered with
    `terminated` are terminal. An illegal action leads nowhere, without reward. Observations [S,
    *O] are encoded as for a network by `make_env`; they and the rewards are exact to the
    environment's float32.

    Args:
        env: a name registered with gymnax, or an object with its interface.
        horizon: H; default: the environment's own time limit.
        time_in_state: a state is identified by all its leaves, up to time H, where nothing follows;
            default: by all but `time`.
        starts: resets.

    Raises:
        ValueError: the actions are not discrete, a step depends on its key or (without
            `time_in_state`) on the time, or there are more than `MAX_STATES` states.
    """
    # Some gymnax environments fail with 64-bit integers; JAX would warn about those imported with
    # them.
    with jax.enable_x64(False), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Explicitly requested dtype")
        made = make_env(env, starts, critic_observe=("policy",))
        if not isinstance(made.action_space, Discrete):
            space = made.action_space
            got = "several at once"
            if isinstance(space, Box):
                got = f"a box of shape {space.low.shape}"
            raise ValueError(f"a table needs discrete actions, got {got}")
        if not is_shape(made.obs_shape):
            raise ValueError("a table needs observations that are one array, got a tree of them")
        horizon = made.horizon(horizon)
        states: dict[bytes, _Numbered] = {}
        state, obs = made.reset(jax.random.key(0))
        if not time_in_state:
            state = _at(state, 0)
        _number(states, state, obs, np.zeros(starts, bool))
        num_initial = len(states)
        depth = horizon if time_in_state else math.inf
        steps = _search(states, _explorer(made, horizon, time_in_state), depth)
    S, A = len(states), made.action_space.n
    initial = (np.arange(S) < num_initial) / num_initial
    after = np.tile(np.arange(S)[:, None], A)  # a terminal state leads to itself
    reward = np.zeros((S, A))
    for number, step in steps.items():
        after[number], reward[number] = step
    rows = list(states.values())
    obs = jax.tree.map(lambda *leaves: np.stack(leaves), *(row.obs for row in rows))
    features, mask = obs if isinstance(obs, Masked) else (obs, None)
    features = features.reshape(S, *made.obs_shape)
    terminal = [row.terminal for row in rows]
    return TabularMDP(np.eye(S)[after], reward, initial, terminal, horizon, features, mask)


def frozen_lake(env: Any = None) -> TabularMDP:
    """The table of a gymnax FrozenLake, slippery or not; default: the registered one, 4x4 and
    slippery.

    P(s'|s, a) = p M(s'|s, a) + (1 - p)/2 [M(s'|s, a - 1) + M(s'|s, a + 1)], actions modulo 4, where
    M are the moves of the same lake when it is not slippery, by `tabulate`, and p is its
    `success_rate`. The reward is that of the tile entered.
    """
    env = gymnax.make("FrozenLake-misc")[0] if env is None else env
    firm = copy.copy(env)
    firm.is_slippery = False
    mdp = tabulate(firm)
    p = env.success_rate if env.is_slippery else 1.0
    M = mdp.transition
    transition = p * M + (1 - p) / 2 * (np.roll(M, 1, axis=1) + np.roll(M, -1, axis=1))
    # Only possible moves show the reward of a tile: in the table a terminal tile leads to itself,
    # with reward 0.
    pays = np.zeros(mdp.num_states)
    pays[M[~mdp.terminal].argmax(-1)] = mdp.mean_reward[~mdp.terminal]
    reward = np.broadcast_to(pays, M.shape)
    return TabularMDP(transition, reward, mdp.initial, mdp.terminal, mdp.horizon, mdp.features)


def _search(
    states: dict[bytes, _Numbered], explore: Callable[..., Any], depth: float
) -> dict[int, Any]:
    """Successors and rewards [A] by number of state, breadth first down to `depth`; adds new states
    to `states`.
    """
    steps: dict[int, Any] = {}
    frontier = list(states.values())
    while frontier and depth > 0:
        known = len(states)
        for start in range(0, len(frontier), BLOCK):
            steps |= _expand(states, explore, frontier[start : start + BLOCK])
            if len(states) > MAX_STATES:
                raise ValueError(
                    f"found more than {MAX_STATES} states: a table is for environments with fewer"
                )
        # Terminal states are never stepped: their moves are meaningless, and their indices may be
        # out of range.
        new = list(states.values())[known:]
        frontier = [row for row in new if not row.terminal]
        depth -= 1
    return steps


def _expand(
    states: dict[bytes, _Numbered], explore: Callable[..., Any], block: list[_Numbered]
) -> dict[int, Any]:
    """Successors and rewards [A] by number of state, for at most `BLOCK` states; adds the
    successors to `states`.
    """
    # Padded by repetition, so that one compilation serves all blocks.
    rows = [block[i % len(block)].state for i in range(BLOCK)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *rows)
    outcome, deterministic = jax.device_get(explore(stacked))
    if not deterministic:
        raise ValueError(
            "a step's outcome depends on its random key or on the time: a table is for "
            "deterministic steps, and needs time_in_state=True if the time matters"
        )
    state, obs, terminal, reward = jax.tree.map(
        lambda x: x[: len(block)].reshape(-1, *x.shape[2:]), outcome
    )
    num_actions = len(reward) // len(block)
    everything = np.ones(num_actions, bool)
    legal = np.concatenate(
        [row.obs.mask if isinstance(row.obs, Masked) else everything for row in block]
    )
    after = np.repeat([row.number for row in block], num_actions)
    taken = jax.tree.map(lambda x: x[legal], (state, obs, terminal))
    after[legal] = _number(states, *taken)
    successors, reward = after.reshape(len(block), -1), np.where(legal, reward, 0.0)
    return {
        row.number: step
        for row, *step in zip(block, successors, reward.reshape(successors.shape), strict=True)
    }


def _explorer(env: Env, horizon: int, time_in_state: bool) -> Callable[..., Any]:
    """A function of states [BLOCK]: (state, obs, terminated, reward) after every action, leaves
    [BLOCK, A, ...]; and True, [], if they are equal for all keys and, unless the time is part of
    the state, at all times.
    """
    num_actions = env.action_space.n  # type: ignore[union-attr]
    actions = jnp.broadcast_to(jnp.arange(num_actions)[:, None], (num_actions, BLOCK))
    probes = (
        jax.random.split(jax.random.key(1), (PROBES, BLOCK)),
        jnp.linspace(0, horizon - 1, PROBES).astype(int),
    )

    def explore(state: PyTree) -> tuple[PyTree, Bool[Array, ""]]:
        def outcome(probe: tuple[Array, Array]) -> PyTree:
            keys, time = probe
            before = state if time_in_state else _at(state, time)
            take = jax.vmap(env.step, (None, None, 0), out_axes=1)
            after, transition = take(keys, before, actions)
            if not time_in_state:
                after = _at(after, 0)
            return after, transition.next_obs, transition.terminated, transition.reward

        outcomes = jax.lax.map(outcome, probes)
        equal = [jnp.all(x == x[:1]) for x in jax.tree.leaves(outcomes)]
        return jax.tree.map(lambda x: x[0], outcomes), jnp.stack(equal).all()

    return jax.jit(explore)


def _number(states: dict[bytes, _Numbered], state: PyTree, obs: Any, terminal: Any) -> list[int]:
    """The numbers of N states, leaves [N, ...]; new ones are added to `states`."""
    state, obs, terminal = jax.device_get((state, obs, terminal))
    numbers = []
    for i, ended in enumerate(terminal.tolist()):
        row = jax.tree.map(operator.itemgetter(i), state)
        name = b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(row)) + bytes([ended])
        seen = jax.tree.map(operator.itemgetter(i), obs)
        new = _Numbered(len(states), row, seen, ended)
        numbers.append(states.setdefault(name, new).number)
    return numbers


def _at(state: PyTree, time: Any) -> PyTree:
    """The state with the leaf called `time` set to a time."""

    def reset(path: Any, x: Array) -> Array:
        is_time = jax.tree_util.keystr(path[-1:], simple=True) == "time"
        return jnp.full_like(x, time) if is_time else x

    return jax.tree_util.tree_map_with_path(reset, state)
