"""The plain forms that `throughput.py` holds the library against: what one writes first, right and
slow.

`env.step` of gymnax itself, which computes a reset at every step; keys split and actions drawn
inside the loop; and the gradient of REINFORCE taken through that loop.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pg import envs
from pg.networks import Network

# key, obs [B, *O] -> action, log-probability [B]
Act = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


class Steps(NamedTuple):
    """The steps of a rollout, [T, B, ...]; `valid` is False after the end of the first episode."""

    obs: jax.Array
    action: jax.Array
    reward: jax.Array
    valid: jax.Array


Rollout = Callable[[Act, jax.Array], tuple[jax.Array, jax.Array, Steps]]


def uniform(key: jax.Array, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One of CartPole's two actions, at random."""
    return jax.random.randint(key, obs.shape[:1], 0, 2), jnp.full(obs.shape[:1], -jnp.log(2.0))


def acting(policy: Network, params: Any) -> Act:
    """a ~ π(·|s) for a categorical policy without a recurrent cell."""

    def act(key: jax.Array, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
        dist = policy.apply(params, (), obs, jnp.zeros(len(obs), bool))[1]
        action = jax.random.categorical(key, dist.logits)
        return action, dist.log_prob(action)

    return act


def make_rollout(
    name: str, env_params: Mapping[str, Any], num_envs: int, num_steps: int
) -> Rollout:
    """`rollout(act, key) -> R [B], Σₜ log π [B], Steps`: sums of the first episode of each of B
    environments.
    """
    env = envs.gymnax.make(name)[0]
    settings = env.default_params.replace(**env_params)

    def rollout(act: Act, key: jax.Array) -> tuple[jax.Array, jax.Array, Steps]:
        key, reset_key = jax.random.split(key)
        obs, state = jax.vmap(env.reset, (0, None))(jax.random.split(reset_key, num_envs), settings)

        def step(loop: tuple[Any, ...], _: None) -> tuple[tuple[Any, ...], Steps]:
            key, obs, state, valid, total, score = loop
            key, action_key, step_key = jax.random.split(key, 3)
            action, log_prob = act(action_key, obs)
            keys = jax.random.split(step_key, num_envs)
            row = jax.vmap(env.step, (0, 0, 0, None))(keys, state, action, settings)
            next_obs, state, reward, terminated, truncated, _ = row
            total, score = total + valid * reward, score + valid * log_prob
            going_on = valid & ~(terminated | truncated)
            return (key, next_obs, state, going_on, total, score), Steps(obs, action, reward, valid)

        zeros = jnp.zeros(num_envs)
        loop, steps = jax.lax.scan(
            step, (key, obs, state, zeros == 0, zeros, zeros), None, num_steps
        )
        return *loop[-2:], steps

    return rollout


def gradient(rollout: Rollout, policy: Network, params: Any, key: jax.Array) -> Any:
    """∇ of the loss -(1/N) Σₙ R Σₜ log π, differentiated through the rollout's scan."""

    def loss(params: Any) -> jax.Array:
        total, score, _ = rollout(acting(policy, params), key)
        return -jnp.mean(jax.lax.stop_gradient(total) * score)

    return jax.grad(loss)(params)


def update(
    rollout: Rollout,
    policy: Network,
    opt: optax.GradientTransformation,
    params: Any,
    opt_state: Any,
    key: jax.Array,
) -> tuple[Any, Any]:
    """θ ← optax(θ, ∇ loss), and the optimizer's state."""
    updates, opt_state = opt.update(gradient(rollout, policy, params, key), opt_state, params)
    return optax.apply_updates(params, updates), opt_state
