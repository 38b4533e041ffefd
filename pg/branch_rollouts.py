"""Rollouts of branches: the extra episodes from the states that a batch has visited.

Each starts with an action from `branches.first_actions` and then follows the policy, by the same
step function as the episodes of the batch, which `pg.rollout` passes in.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, Shaped

from pg.branches import Branches, Branching, first_actions
from pg.fast import blocks, key_numbers
from pg.fast.scans import scan_until
from pg.trajectory import (
    Acting,
    EpisodeScan,
    RandomInputs,
    RolloutState,
    Running,
    is_alive,
    where,
)

__all__ = ["BRANCHES_AT_ONCE", "MakeScan", "branch_off"]

# Number of extra episodes that run in parallel, unless those of one step are more. It applies to
# each vmapped run separately: random numbers depend on how states are split into blocks, and a
# run's must not depend on the other runs.
BRANCHES_AT_ONCE = 4096


# A policy and its environments, a random key, a state, and `act` as in `rollout.episodes`, by
# default the policy's samples -> the episodes from that state on.
MakeScan = Callable[..., EpisodeScan]


def branch_off(
    acting: Acting,
    key: PRNGKeyArray,
    visited: Running,
    like: RolloutState,
    branching: Branching,
    num_branches: int,
    branch_every: int,
    make_scan: MakeScan,
) -> Branches:
    """Episodes from visited states, leaves [T, B, K, M, ...].

    `BRANCHES_AT_ONCE` of them, or those of one step, run in parallel, and take the memory of as
    many environments; all visited states are kept as well.

    Args:
        acting: The policy and its environments.
        key: A random key.
        visited: The states before each step, [T, B], with raw keys, and True where there was a
            step.
        like: A template of these states, with typed keys.
        branching: The kind of episodes.
        num_branches: K.
        branch_every: n; only every n-th state has branches.
        make_scan: Makes the episodes from given states.
    """
    start_key, key = jax.random.split(key)
    length, num_envs = visited.alive.shape
    own = jnp.arange(num_envs)[None]
    num_rows = -(-length // branch_every)
    # the first is random for each episode, so that all states are equally likely
    start = jax.random.randint(start_key, (1, num_envs), 0, branch_every)
    number = jnp.arange(num_rows)[:, None] * branch_every + start
    row = jnp.minimum(number, length - 1)
    states, valid = jax.tree.map(lambda x: x[row, own], tuple(visited))
    chosen = Running(states, valid & (number < length))

    def of_rows(x: tuple[Int[Array, ""], Running]) -> Branches:
        index, rows = x
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)
        flat = flat._replace(state=key_numbers.as_keys(flat.state, like))
        of_index = jax.random.fold_in(key, index)
        return _of_states(acting, of_index, flat, branching, num_branches, make_scan)

    one = jax.tree.map(lambda x: x[:1], chosen)
    width = jax.eval_shape(of_rows, (jnp.int32(0), one)).reward_to_go.size
    size = blocks.even_size(num_rows, max(1, BRANCHES_AT_ONCE // width))
    rows = blocks.split(chosen, size)
    found = jax.lax.map(of_rows, (jnp.arange(len(rows.alive)), rows))
    found = jax.tree.map(lambda x: x.reshape(-1, num_envs, *x.shape[2:])[:num_rows], found)

    def placed(x: Shaped[Array, "R B ..."]) -> Shaped[Array, "T B ..."]:
        # the index of a missing step is out of range: it is dropped
        return jnp.zeros((length, *x.shape[1:]), x.dtype).at[number, own].set(x, mode="drop")

    found = jax.tree.map(placed, found)
    return found._replace(stands_for=branch_every * found.stands_for)


def _of_states(
    acting: Acting,
    key: PRNGKeyArray,
    begin: Running,
    branching: Branching,
    num_branches: int,
    make_scan: MakeScan,
) -> Branches:
    """Episodes from N states, leaves [N, K, M, ...]; arguments as in `branch_off`."""
    action_key, first_key, key = jax.random.split(key, 3)
    state, alive = begin
    _, dist = acting.policy.apply(acting.params, state.carry, state.obs, state.time == 0)
    first = first_actions(branching.kind, dist, action_key, num_branches)
    num_states, repetitions, members = first.constant.shape
    each = repetitions * members
    together = members if branching.common_numbers else 1  # episodes that share random numbers
    many = acting.with_envs(num_states * each)
    few = acting.with_envs(num_states * each // together)
    first_action = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), first.action)

    def shared_inputs(key: PRNGKeyArray, state: RolloutState) -> Callable[[Array], PyTree]:
        """The random inputs of all branches, with common random numbers where requested."""
        state_of_few = jax.tree.map(lambda x: x[::together], state)
        of_few = make_scan(few, key, state_of_few).inputs
        return lambda times: jax.tree.map(lambda x: jnp.repeat(x, together, axis=1), of_few(times))

    # one step with the first actions, then the policy's
    running = jax.tree.map(lambda x: jnp.repeat(x, each, axis=0), begin)
    opening = make_scan(many, first_key, running.state, act=lambda dist, noise: first_action)
    first_inputs = shared_inputs(first_key, running.state)(jnp.zeros(1, int))
    running, row = opening.step(running, jax.tree.map(lambda x: x[0], first_inputs))
    rest = make_scan(many, key, running.state)

    def step(running: Running, inputs: RandomInputs) -> tuple[Running, tuple[Array, Array, Array]]:
        after, row = rest.step(running, inputs)
        return after, (row.reward, jnp.where(row.valid, row.log_prob, 0.0), row.env_steps)

    inputs = shared_inputs(key, running.state)
    later = scan_until(step, running, inputs, is_alive, length=rest.length)
    reward, log_prob, env_steps = later
    gamma = jnp.asarray(branching.gamma, reward.dtype)
    powers = gamma ** jnp.arange(1, rest.length + 1, dtype=reward.dtype)

    def of_branches(x: Shaped[Array, " L"]) -> Shaped[Array, "N K M"]:
        return x.reshape(num_states, repetitions, members)

    def to_go(now: Float[Array, " L"], later: Float[Array, "H L"]) -> Float[Array, "N K M"]:
        return of_branches(now + jnp.sum(powers[:, None] * later, axis=0))

    return Branches(
        action=jax.tree.map(lambda x: where(alive, x, jnp.zeros_like(x)), first.action),
        reward_to_go=to_go(row.reward, reward),
        log_prob_to_go=to_go(jnp.where(row.valid, row.log_prob, 0.0), log_prob),
        constant=jnp.where(alive[:, None, None], first.constant, 0.0),
        stands_for=alive.astype(reward.dtype),
        env_steps=of_branches(row.env_steps + jnp.sum(env_steps, axis=0)).sum(axis=(1, 2)),
    )
