"""Rollouts: a policy and environments to a `Trajectory` [T, B, ...], collected in one of two ways.

    episodes   N complete episodes from N fresh resets:  τ⁽ⁿ⁾ ~ p(τ; θ),  n = 1..N     (the theorem's own)
    windows    T steps that continue from the last update, reset where an episode ended  (actor-critic)

All random numbers of step t are drawn from `fold_in(key, t)`, before the loop that uses them: what a step sees
depends neither on the length of the batch nor on how the loop is cut into blocks.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pg import blocks
from pg.envs import Env
from pg.networks import Network

# Steps between two looks at whether every episode has ended. A look is cheap; up to this many steps are wasted.
BLOCK = 10


class Trajectory(NamedTuple):
    """What happened. Every leaf is [T, B, ...], time first."""

    obs: jax.Array  # float [T, B, *O]
    action: jax.Array  # [T, B, *A] the sample that is scored, unclipped and pre-tanh
    log_prob: jax.Array  # [T, B] log π_behaviour(action | obs)
    reward: jax.Array  # [T, B] 0 where not valid
    terminated: jax.Array  # [T, B] the task ended after this step
    truncated: jax.Array  # [T, B] a time limit ended the episode after this step
    next_obs: jax.Array  # [T, B, *O] the true successor, also where an episode ended
    first: jax.Array  # [T, B] this step is its episode's first
    valid: jax.Array  # [T, B] True until and including the ending step
    time: jax.Array  # int [T, B] steps since the episode's start
    carry: Any  # the policy's memory before the step; () if it has none

    @property
    def done(self) -> jax.Array:
        """[T, B] the episode ended after this step, either way."""
        return self.terminated | self.truncated


class Finished(NamedTuple):
    """The episodes that ended within a batch: their number, and sums of undiscounted return and of length."""

    episodes: jax.Array
    returns: jax.Array
    steps: jax.Array


class RolloutState(NamedTuple):
    """Where B environments stand between two windows. Leaves are [B, ...]."""

    env_state: Any
    obs: jax.Array
    carry: Any
    time: jax.Array  # steps since the episode's start
    episode_return: jax.Array  # undiscounted, so far


def start(env: Env, policy: Network, key: jax.Array) -> RolloutState:
    """B environments, each at the start of an episode."""
    return _fresh(env, policy, *env.reset(key))


def episodes(
    env: Env, policy: Network, params: Any, key: jax.Array, horizon: int | None = None, *, greedy: bool = False
) -> Trajectory:
    """One complete episode per environment, [horizon, B, ...]; one that is cut at `horizon` is truncated.

    horizon: H, in steps; default: the environment's own time limit. greedy: the mode instead of a sample.
    The cost follows the longest episode of the batch, not H: `BLOCK` steps at a time are taken until no episode
    is running. Rows after an episode's end have `valid` False and reward 0.
    """
    horizon = env.max_steps if horizon is None else horizon
    size = blocks.even_size(horizon, BLOCK)
    reset_key, key = jax.random.split(key)
    state = start(env, policy, reset_key)
    draw = _draws(env, policy, params, state, key)

    def step(loop: tuple[RolloutState, jax.Array], draws: Any) -> Any:
        state, alive = loop
        moved, row = _step(env, policy, params, state, draws, greedy)
        cut = row.truncated | (row.time == horizon - 1)
        row = row._replace(
            valid=alive,
            reward=jnp.where(alive, row.reward, 0.0),
            terminated=alive & row.terminated,
            truncated=alive & cut,
        )
        # A finished environment stands still: stepped on, its state could leave the finite numbers.
        return (_where(alive, moved, state), alive & ~row.done), row

    def block(loop: Any) -> Any:
        index, standing, rows = loop
        standing, new = jax.lax.scan(step, standing, draw(index * size + jnp.arange(size)))
        return index + 1, standing, blocks.put(rows, new, index)

    def running(loop: Any) -> jax.Array:
        index, (_, alive), _ = loop
        return (index < count) & blocks.largest(alive.any())

    count = math.ceil(horizon / size)
    standing = (state, jnp.ones(env.num_envs, bool))
    shapes = jax.eval_shape(lambda: jax.lax.scan(step, standing, draw(jnp.arange(size)))[1])
    rows = jax.tree.map(lambda s: jnp.zeros((count, *s.shape), s.dtype), shapes)
    rows = jax.lax.while_loop(running, block, (jnp.int32(0), standing, rows))[-1]
    return blocks.join(rows, horizon)


def windows(
    env: Env, policy: Network, params: Any, key: jax.Array, state: RolloutState, num_steps: int
) -> tuple[RolloutState, Trajectory, Finished]:
    """The next `num_steps` steps of every environment, [num_steps, B, ...], reset where an episode ended."""
    reset_key, key = jax.random.split(key)
    # The initial state that each step may need, drawn for the whole window at once: as many as a step-by-step
    # reset draws, without its cost per step.
    fresh = jax.vmap(env.reset)(jax.random.split(reset_key, num_steps))

    def step(state: RolloutState, xs: Any) -> Any:
        draws, reset = xs
        moved, row = _step(env, policy, params, state, draws, greedy=False)
        ended = Finished(row.done, row.done * moved.episode_return, row.done * moved.time)
        return _where(row.done, _fresh(env, policy, *reset), moved), (row, ended)

    draws = _draws(env, policy, params, state, key)(jnp.arange(num_steps))
    state, (traj, ended) = jax.lax.scan(step, state, (draws, fresh))
    return state, traj, Finished(*map(jnp.sum, ended))


def _step(
    env: Env, policy: Network, params: Any, state: RolloutState, draws: Any, greedy: bool
) -> tuple[RolloutState, Trajectory]:
    """One step of B environments: where they stand afterwards, unreset, and the row [B, ...] to record."""
    noise, keys = draws
    first = state.time == 0
    carry, dist = policy.apply(params, state.carry, state.obs, first)
    action = dist.mode() if greedy else dist.sample(noise)
    env_state, transition = env.step(keys, state.env_state, dist.action(action))
    row = Trajectory(
        obs=state.obs,
        action=action,
        log_prob=dist.log_prob(action),
        reward=transition.reward,
        terminated=transition.terminated,
        truncated=transition.truncated,
        next_obs=transition.next_obs,
        first=first,
        valid=jnp.ones(env.num_envs, bool),
        time=state.time,
        carry=state.carry,
    )
    episode_return = state.episode_return + transition.reward
    return RolloutState(env_state, transition.next_obs, carry, state.time + 1, episode_return), row


def _draws(env: Env, policy: Network, params: Any, state: RolloutState, key: jax.Array) -> Any:
    """times [K] -> the random numbers of those steps: action noise [K, B, ...] and environment keys [K, B]."""
    dist = jax.eval_shape(policy.apply, params, state.carry, state.obs, state.time == 0)[1]

    def one(time: jax.Array) -> tuple[jax.Array, jax.Array]:
        action_key, env_key = jax.random.split(jax.random.fold_in(key, time))
        return dist.draw(action_key), jax.random.split(env_key, env.num_envs)

    return jax.vmap(one)


def _fresh(env: Env, policy: Network, env_state: Any, obs: jax.Array) -> RolloutState:
    zeros = jnp.zeros(env.num_envs)
    carry = jax.tree.map(lambda c: jnp.broadcast_to(c, (env.num_envs, *c.shape)), policy.carry)
    return RolloutState(env_state, obs, carry, zeros.astype(jnp.int32), zeros)


def _where(condition: jax.Array, x: Any, y: Any) -> Any:
    """Leaf by leaf x where condition [B] holds, else y; leaves [B, ...]."""

    def select(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(condition.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(select, x, y)
