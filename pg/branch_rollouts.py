"""Rollouts of branches: the episodes that leave the states which a batch has visited.

Each begins with an action that `branches.first_actions` chooses and then follows the policy, by the
same steps as the episodes of the batch: `pg.rollout` hands them in.
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

# Episodes out of visited states that run side by side, unless those of one step are more. It is
# that of each run that is mapped over: random numbers follow how states are cut, and those of a run
# are the same whatever runs beside it.
BRANCHES_AT_ONCE = 4096


# A policy and where it acts, a random key, a state, and `act` as in `rollout.episodes`, by default
# the policy's samples -> the episodes from that state on.
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
    """Episodes out of visited states, leaves [T, B, K, M, ...].

    Those of several steps run side by side, `BRANCHES_AT_ONCE` or of one step, and their memory is
    that of as many environments; all visited states are kept, too.

    Args:
        acting: The policy, and where it acts.
        key: A random key.
        visited: The states before each step, [T, B], keys as their numbers, and True where there
            was a step.
        like: One of these states, with its keys.
        branching: Which episodes.
        num_branches: K.
        branch_every: Episodes leave every so many-th state.
        make_scan: The episodes out of given states.
    """
    start_key, key = jax.random.split(key)
    length, num_envs = visited.alive.shape
    own = jnp.arange(num_envs)[None]
    num_rows = -(-length // branch_every)
    # the first is drawn for each episode, so that every state is as likely
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
        # out of range is what no step has: it is dropped
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
    """Episodes out of N states, leaves [N, K, M, ...]; arguments as in `branch_off`."""
    action_key, first_key, key = jax.random.split(key, 3)
    state, alive = begin
    _, dist = acting.policy.apply(acting.params, state.carry, state.obs, state.time == 0)
    first = first_actions(branching.kind, dist, action_key, num_branches)
    num_states, repetitions, members = first.constant.shape
    each = repetitions * members
    together = members if branching.common_numbers else 1  # that draw the same random numbers
    many = acting.with_envs(num_states * each)
    few = acting.with_envs(num_states * each // together)
    first_action = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), first.action)

    def shared_inputs(key: PRNGKeyArray, state: RolloutState) -> Callable[[Array], PyTree]:
        """The random inputs of all branches, drawn once for those that share them."""
        state_of_few = jax.tree.map(lambda x: x[::together], state)
        of_few = make_scan(few, key, state_of_few).inputs
        return lambda times: jax.tree.map(lambda x: jnp.repeat(x, together, axis=1), of_few(times))

    # one step by the first actions, and the policy's own from there on
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
