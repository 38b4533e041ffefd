"""The random keys and numbers of a rollout, all drawn before the loop.

The keys of step t fold in its number, and all other keys fold in numbers beyond the horizon. So the
randomness of a step depends neither on the length of the batch nor on extra rollouts.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, PyTree, Shaped

from pg import networks
from pg import sampling as noise_sampling
from pg.envs import Env, Masked
from pg.envs.actions import random_action
from pg.envs.views import seen
from pg.extra_rollouts import ExtraRollouts
from pg.fast import point_keys, row_keys
from pg.networks import Network
from pg.sampling import NO_NUMBERS, BatchNoise, EnvNumbers, StepNoise
from pg.trajectory import Acting, ExtraKeys, RandomInputs, RolloutState, Running

__all__ = [
    "env_numbers",
    "episode_inputs",
    "extra_keys",
    "make_order",
    "reset_keys",
    "step_inputs",
    "with_drawn_carry",
]


def extra_keys(key: PRNGKeyArray, horizon: int) -> ExtraKeys:
    """The keys other than those of the steps, which fold in numbers below the horizon."""
    numbers = range(len(ExtraKeys._fields))
    return ExtraKeys(*(jax.random.fold_in(key, horizon + number) for number in numbers))


def step_inputs(
    acting: Acting,
    state: RolloutState,
    key: PRNGKeyArray,
    horizon: int = 1,
    batch_noise: BatchNoise | None = None,
    numbers: EnvNumbers = NO_NUMBERS,
) -> Callable[[Int[Array, " K"]], RandomInputs]:
    """Step numbers [K] -> the random inputs of those steps, without any for extra rollouts.

    Args:
        acting: The policy and its environments.
        state: The environments' state, of which only shapes are used.
        key: A random key, into which the number of each step is folded.
        horizon: The steps of an episode, for noise that depends on it.
        batch_noise: How the noise of a batch is drawn; default: independently.
        numbers: The random numbers of an environment that are drawn in the same way.
    """
    env, policy, params = acting
    networks.check_params(params)
    dist = _shape_of_distribution(policy, params, state)
    networks.check_distribution(dist)
    batch_noise = batch_noise or BatchNoise("independent", env.num_envs)
    noise = noise_sampling.make_noise(dist, batch_noise, env.num_envs, horizon, numbers)

    def inputs(time: Int[Array, ""]) -> RandomInputs:
        action_key, env_key = jax.random.split(jax.random.fold_in(key, time))
        of_step = noise(action_key, time)
        return RandomInputs(of_step, jax.random.key_data(row_keys.split(env_key, env.num_envs)))

    return jax.vmap(inputs)


def episode_inputs(
    acting: Acting,
    state: RolloutState,
    key: PRNGKeyArray,
    keys: ExtraKeys,
    *,
    horizon: int,
    batch_noise: BatchNoise | None,
    extra_rollouts: ExtraRollouts,
    num_branches: int,
) -> Callable[[Int[Array, " K"]], RandomInputs]:
    """Step numbers [K] -> the random inputs of those steps, with those of extra rollouts.

    Args:
        acting: The policy and its environments.
        state: The environments' state, of which only shapes are used.
        key: The random key of the steps.
        keys: The keys of extra rollouts.
        horizon: The steps of an episode.
        batch_noise: How the noise of a batch is drawn; None: independently.
        extra_rollouts: The extra rollouts.
        num_branches: M, the number of extra transitions per state and action.
    """
    of_actions = batch_noise if acting.policy.draw_carry is None else None
    numbers = env_numbers(acting.env, batch_noise)
    of_steps = step_inputs(acting, state, key, horizon, of_actions, numbers)
    num_keys = extra_rollouts.num_keys(num_branches)
    other_actions = _noise_of_other_actions(acting, state, keys.actions, extra_rollouts.actions)

    def inputs(times: Int[Array, " K"]) -> RandomInputs:
        transition_keys = _transition_keys(keys.transitions, times, num_keys, acting.env.num_envs)
        return of_steps(times)._replace(
            transition_keys=transition_keys, other_actions=other_actions(times)
        )

    return inputs


def make_order(
    env: Env, policy: Network, batch_noise: BatchNoise | None
) -> Callable[[StepNoise, Running], StepNoise]:
    """Assigns the noise of a step to the episodes: in the order of drawing, or in that of the
    states.

    Raises ValueError for states that have no order.
    """
    if batch_noise is None or batch_noise.sampling != "array" or policy.draw_carry is not None:
        return lambda noise, running: noise
    noise_sampling.check_sortable(seen(env.obs_shape, policy.view))

    def by_state(noise: StepNoise, running: Running) -> StepNoise:
        obs = running.state.obs
        obs = seen(obs.obs if isinstance(obs, Masked) else obs, policy.view)
        return noise_sampling.by_state(noise, obs, running.alive, batch_noise.num_episodes)

    return by_state


def env_numbers(env: Env, batch_noise: BatchNoise | None) -> EnvNumbers:
    """The random numbers of one environment that points replace; none if its noise is independent.

    Raises ValueError for an environment with which that is impossible.
    """
    if batch_noise is None or not batch_noise.of_env:
        return NO_NUMBERS
    key = jax.random.key(0)
    keys = jax.random.split(key, env.num_envs)
    state, _ = jax.eval_shape(env.reset, key)
    action = jax.eval_shape(jax.vmap(lambda key: random_action(env.action_space, key)), keys)
    of_points = point_keys.with_points(keys, jnp.zeros((env.num_envs, 1), jnp.uint32))
    try:
        return EnvNumbers(
            point_keys.numbers_drawn(env.reset, of_points),
            point_keys.numbers_drawn(env.step, of_points, state, action),
        )
    except Exception as error:
        raise ValueError(
            "sample_env hands an environment keys whose first numbers are given, and this one "
            "takes its keys apart (jax.random.key_data) or keeps them in its state: leave "
            "sample_env out"
        ) from error


def reset_keys(env: Env, key: PRNGKeyArray, batch_noise: BatchNoise | None, group_size: int) -> Any:
    """The key of the resets, or one for each of them if their noise is drawn jointly for a batch.

    Args:
        env: B environments.
        key: A random key.
        batch_noise: How the noise of a batch is drawn; None: independently.
        group_size: Number of consecutive episodes that share their initial state.
    """
    numbers = env_numbers(env, batch_noise).reset
    if batch_noise is None or not numbers:
        return key
    bits_key, key = jax.random.split(key)
    num_groups = env.num_envs // group_size
    of_groups = batch_noise._replace(num_episodes=batch_noise.num_episodes // group_size)
    points = noise_sampling.start_bits(bits_key, of_groups, num_groups, numbers)
    points = jnp.repeat(points, group_size, axis=0)
    return point_keys.with_points(row_keys.split(key, env.num_envs), points)


def with_drawn_carry(
    acting: Acting, state: RolloutState, key: PRNGKeyArray, batch_noise: BatchNoise | None = None
) -> RolloutState:
    """The state with a separate carry for each episode, if the policy's carry is random.

    Raises ValueError for noise in the order of the states, which do not exist yet.
    """
    _, policy, params = acting
    if policy.draw_carry is None:
        return state
    num_envs = len(state.time)
    batch_noise = batch_noise or BatchNoise("independent", num_envs)
    if batch_noise.sampling == "array":
        raise ValueError(
            "sampling='array' hands out noise in the order of the states, and this policy draws "
            "its own before the first: write sampling='sobol'"
        )
    dist = networks.carry_noise(policy, num_envs)
    noise = noise_sampling.make_noise(dist, batch_noise, num_envs, 1)(key, jnp.int32(0)).action
    return state._replace(carry=jax.vmap(policy.draw_carry, (None, 0))(params, noise))


def _shape_of_distribution(policy: Network, params: PyTree, state: RolloutState) -> Any:
    """The policy's distributions in these states, as shapes."""
    return jax.eval_shape(policy.apply, params, state.carry, state.obs, state.time == 0)[1]


def _noise_of_other_actions(
    acting: Acting, state: RolloutState, key: PRNGKeyArray, number: int
) -> Callable[[Int[Array, " K"]], PyTree]:
    """Step numbers [K] -> the noise of extra actions of those steps, leaves [K, B, number, ...];
    () for none.
    """
    if not number:
        return lambda times: ()
    dist = _shape_of_distribution(acting.policy, acting.params, state)

    def of_step(time: Int[Array, ""]) -> PyTree:
        keys = jax.random.split(jax.random.fold_in(key, time), number)
        return jax.vmap(dist.draw, out_axes=1)(keys)

    return jax.vmap(of_step)


def _transition_keys(
    key: PRNGKeyArray, times: Int[Array, " K"], number: int, num_envs: int
) -> Shaped[Array, "K number B ..."]:
    """The keys of extra transitions of steps, [K, number, B], as their numbers; empty for none.

    Args:
        key: A random key.
        times: The numbers of the steps.
        number: The number of keys per step and environment.
        num_envs: B.
    """

    def of_step(time: Int[Array, ""]) -> Array:
        keys = jax.random.split(jax.random.fold_in(key, time), (number, num_envs))
        return jax.random.key_data(keys)

    return jax.vmap(of_step)(times)
