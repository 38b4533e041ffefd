"""Tables read off environments that can be solved exactly, by taking every action in every
state.
"""

import copy
import math
import operator
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pg.envs import Discrete, Env, gymnax, make_env
from pg.exact.tabular.mdp import TabularMDP

MAX_STATES = 5_000  # the transitions [S, A, S] of more would fill gigabytes
BLOCK = 64  # states that are stepped from at once
PROBES = 16  # keys, and times if the states have none, that must not change a step


class _Found(NamedTuple):
    """A state as it was first seen."""

    number: int
    state: Any  # the environment's own, leaves without a batch axis
    obs: np.ndarray  # [*O]
    terminal: bool


def tabulate(
    env: Any, horizon: int | None = None, *, clock: bool = False, starts: int = 256
) -> TabularMDP:
    """The table of an environment with discrete actions and deterministic steps; its features are
    the observations.

    env: a name registered with gymnax, or an object with its interface. horizon: H; default: its
    own time limit. Initial are the distinct states among `starts` resets, taken as equally likely;
    they are numbered first, and the others in the order of a breadth-first search. A state is the
    values of all its leaves but `time`; with `clock` of all, up to time H, where nothing follows.
    Terminal are those entered with `terminated`. Observations [S, *O] are encoded as for a network
    by `make_env`; they and the rewards are exact to the environment's float32.
    Raises ValueError if the actions are not discrete, if a step depends on its key or (without
    `clock`) on the time, or if there are more than `MAX_STATES` states.
    """
    # Some environments of gymnax fail with 64-bit integers; of those that were imported with them
    # JAX would warn.
    with jax.enable_x64(False), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Explicitly requested dtype")
        made = make_env(env, starts)
        if not isinstance(made.action_space, Discrete):
            raise ValueError(
                f"a table needs discrete actions, got a box of shape {made.action_space.low.shape}"
            )
        horizon = made.horizon(horizon)
        found: dict[bytes, _Found] = {}
        state, obs = made.reset(jax.random.key(0))
        _number(found, state if clock else _at(state, 0), obs, np.zeros(starts, bool))
        starting = len(found)
        steps = _search(found, _explorer(made, horizon, clock), horizon if clock else math.inf)
    S, A = len(found), made.action_space.n
    initial = (np.arange(S) < starting) / starting
    after, reward = np.tile(np.arange(S)[:, None], A), np.zeros((S, A))
    for number, step in steps.items():
        after[number], reward[number] = step
    features = np.stack([row.obs for row in found.values()]).reshape(S, *made.obs_shape)
    terminal = [row.terminal for row in found.values()]
    return TabularMDP(np.eye(S)[after], reward, initial, terminal, horizon, features)


def frozen_lake(env: Any = None) -> TabularMDP:
    """The table of a gymnax FrozenLake, slippery or not; default: the registered one, 4x4 and
    slippery.

    P(s'|s, a) = p M(s'|s, a) + (1 - p)/2 [M(s'|s, a - 1) + M(s'|s, a + 1)], actions modulo 4, where
    M are the moves of the same lake when it is not slippery, read by `tabulate`, and p is its
    `success_rate`. The reward is that of the tile entered.
    """
    env = gymnax.make("FrozenLake-misc")[0] if env is None else env
    firm = copy.copy(env)
    firm.is_slippery = False
    mdp = tabulate(firm)
    p = env.success_rate if env.is_slippery else 1.0
    M = mdp.transition
    transition = p * M + (1 - p) / 2 * (np.roll(M, 1, axis=1) + np.roll(M, -1, axis=1))
    # Only moves that can be made tell what a tile pays: in the table a terminal tile leads to
    # itself, and pays 0.
    pays = np.zeros(mdp.num_states)
    pays[M[~mdp.terminal].argmax(-1)] = mdp.mean_reward[~mdp.terminal]
    reward = np.broadcast_to(pays, M.shape)
    return TabularMDP(transition, reward, mdp.initial, mdp.terminal, mdp.horizon, mdp.features)


def _search(
    found: dict[bytes, _Found], explore: Callable[..., Any], depth: float
) -> dict[int, Any]:
    """Successors and rewards [A] by number of state, breadth first down to `depth`; adds what it
    finds to `found`.
    """
    steps: dict[int, Any] = {}
    frontier = list(found.values())
    while frontier and depth > 0:
        known = len(found)
        for start in range(0, len(frontier), BLOCK):
            steps |= _expand(found, explore, frontier[start : start + BLOCK])
            if len(found) > MAX_STATES:
                raise ValueError(
                    f"found more than {MAX_STATES} states: a table is for environments with fewer"
                )
        # A terminal state is never stepped from: its moves mean nothing, and its indices may be out
        # of range.
        frontier = [row for row in list(found.values())[known:] if not row.terminal]
        depth -= 1
    return steps


def _expand(
    found: dict[bytes, _Found], explore: Callable[..., Any], block: list[_Found]
) -> dict[int, Any]:
    """Successors and rewards [A] by number of state, for at most `BLOCK` states; adds the
    successors to `found`.
    """
    # Filled up by repetition, so that one compilation serves all blocks.
    rows = [block[i % len(block)].state for i in range(BLOCK)]
    outcome, same = jax.device_get(explore(jax.tree.map(lambda *leaves: np.stack(leaves), *rows)))
    if not same:
        raise ValueError(
            "a step's outcome depends on its random key or on the time: a table is read off "
            "deterministic steps, and needs clock=True where the time matters"
        )
    state, obs, terminal, reward = jax.tree.map(
        lambda x: x[: len(block)].reshape(-1, *x.shape[2:]), outcome
    )
    after = np.reshape(_number(found, state, obs, terminal), (len(block), -1))
    return {
        row.number: step
        for row, *step in zip(block, after, reward.reshape(after.shape), strict=True)
    }


def _explorer(env: Env, horizon: int, clock: bool) -> Callable[..., Any]:
    """A function of states [BLOCK]: (state, obs, terminated, reward) after every action, leaves
    [BLOCK, A, ...], and whether they are the same for all keys and, without a clock, at all times,
    bool [].
    """
    num_actions = env.action_space.n  # type: ignore[union-attr]
    actions = jnp.broadcast_to(jnp.arange(num_actions)[:, None], (num_actions, BLOCK))
    probes = (
        jax.random.split(jax.random.key(1), (PROBES, BLOCK)),
        jnp.linspace(0, horizon - 1, PROBES).astype(int),
    )

    def explore(state: Any) -> tuple[Any, jax.Array]:
        def outcome(probe: tuple[jax.Array, jax.Array]) -> Any:
            keys, time = probe
            begun = state if clock else _at(state, time)
            after, seen = jax.vmap(env.step, (None, None, 0), out_axes=1)(keys, begun, actions)
            return after if clock else _at(after, 0), seen.next_obs, seen.terminated, seen.reward

        outcomes = jax.lax.map(outcome, probes)
        same = [jnp.all(x == x[:1]) for x in jax.tree.leaves(outcomes)]
        return jax.tree.map(lambda x: x[0], outcomes), jnp.stack(same).all()

    return jax.jit(explore)


def _number(found: dict[bytes, _Found], state: Any, obs: Any, terminal: Any) -> list[int]:
    """The numbers of N states, leaves [N, ...]; those that are new are added to `found`."""
    state, obs, terminal = jax.device_get((state, obs, terminal))
    numbers = []
    for i, ended in enumerate(terminal.tolist()):
        row = jax.tree.map(operator.itemgetter(i), state)
        name = b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(row)) + bytes([ended])
        numbers.append(found.setdefault(name, _Found(len(found), row, obs[i], ended)).number)
    return numbers


def _at(state: Any, time: Any) -> Any:
    """The state with its clock, the leaf called `time`, set to a time."""

    def reset(path: Any, x: jax.Array) -> jax.Array:
        return (
            jnp.full_like(x, time) if jax.tree_util.keystr(path[-1:], simple=True) == "time" else x
        )

    return jax.tree_util.tree_map_with_path(reset, state)
