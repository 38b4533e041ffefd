"""Actor-critic in the style of purejaxrl (Lu et al. 2022), written anew: PPO, or with a single pass
A2C.

What sets its speed is kept: a reset in every step, keys split in the loop, a log, rows shuffled one
by one, one optimizer, one scan. Runs on gymnax before and after 1.0.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import gymnax
import jax
import jax.numpy as jnp
import optax

GAMMA, LAMBDA, EPSILON = 0.99, 0.95, 0.2
ACTOR, CRITIC = (
    nn.Sequential([nn.Dense(64), nn.tanh, nn.Dense(64), nn.tanh, nn.Dense(n)]) for n in (2, 1)
)


def make_train(
    num_envs: int, num_steps: int, num_epochs: int, num_minibatches: int, num_updates: int
) -> Callable[[jax.Array], Any]:
    """`train(key) -> state, log [num_updates, num_steps, num_envs]` on CartPole."""
    env, env_params = gymnax.make("CartPole-v1")
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(2.5e-4, eps=1e-5))

    def env_step(carry: Any, _: None) -> Any:
        params, state, obs, log, key = carry
        key, action_key, step_key = jax.random.split(key, 3)
        logits, value = ACTOR.apply(params[0], obs), CRITIC.apply(params[1], obs)[:, 0]
        action = jax.random.categorical(action_key, logits)
        keys = jax.random.split(step_key, num_envs)
        new, state, reward, *ends, _ = jax.vmap(env.step, in_axes=(0, 0, 0, None))(
            keys, state, action, env_params
        )
        # since gymnax 1.0 terminated and truncated
        log = logged(log, reward, done := ends[0] | ends[-1])
        return (params, state, new, log, key), (
            (obs, action, log_prob(logits, action), value, reward, done),
            log,
        )

    def improve(learner: Any, batch: Any) -> Any:
        params, opt_state = learner
        updates, opt_state = optimizer.update(jax.grad(loss)(params, batch), opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    def update(carry: Any, _: None) -> Any:
        learner, rest = carry
        (_, *rest), (rows, log) = jax.lax.scan(env_step, (learner[0], *rest), None, num_steps)
        advantages = generalised(rows, CRITIC.apply(learner[0][1], rest[1])[:, 0])
        batch = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (*rows[:4], advantages))

        def epoch(learner: Any, key: jax.Array) -> Any:
            order = jax.random.permutation(key, num_envs * num_steps)
            parts = jax.tree.map(
                lambda x: x[order].reshape(num_minibatches, -1, *x.shape[1:]), batch
            )
            return jax.lax.scan(improve, learner, parts)

        key, shuffle_key = jax.random.split(rest.pop())
        if num_epochs * num_minibatches == 1:
            learner, _ = improve(learner, batch)
        else:
            learner, _ = jax.lax.scan(epoch, learner, jax.random.split(shuffle_key, num_epochs))
        return (learner, [*rest, key]), log

    def train(key: jax.Array) -> Any:
        key, actor_key, critic_key, reset_key = jax.random.split(key, 4)
        obs, state = jax.vmap(env.reset, in_axes=(0, None))(
            jax.random.split(reset_key, num_envs), env_params
        )
        params = ACTOR.init(actor_key, obs), CRITIC.init(critic_key, obs)
        carry = (params, optimizer.init(params)), [state, obs, (jnp.zeros(num_envs),) * 4, key]
        return jax.lax.scan(update, carry, None, num_updates)

    return train


def log_prob(logits: jax.Array, action: jax.Array) -> jax.Array:
    """log π(action), [N]."""
    return jnp.sum(jax.nn.log_softmax(logits) * jax.nn.one_hot(action, 2), axis=-1)


def logged(log: Any, reward: jax.Array, done: jax.Array) -> Any:
    """Return and length of the running episodes, then of the last that ended, [N] each."""
    now = log[0] + reward, log[1] + 1
    return *(jnp.where(done, 0, x) for x in now), *(
        jnp.where(done, x, y) for x, y in zip(now, log[2:], strict=True)
    )


def generalised(rows: Any, last: jax.Array) -> jax.Array:
    """Generalised advantages, [T, N]; an end of either kind counts as a termination."""

    def back(carry: Any, row: Any) -> Any:
        (advantage, following), (value, reward, done) = carry, row
        delta = reward + GAMMA * following * (1 - done) - value
        return (advantage := delta + GAMMA * LAMBDA * (1 - done) * advantage, value), advantage

    return jax.lax.scan(back, (0 * last, last), rows[3:], reverse=True, unroll=16)[1]


def loss(params: Any, batch: Any) -> jax.Array:
    """PPO's, with a clipped value and an entropy bonus."""
    obs, action, old, value, advantage = batch
    logits, now, target = (
        ACTOR.apply(params[0], obs),
        CRITIC.apply(params[1], obs)[:, 0],
        value + advantage,
    )
    near, scaled = (
        value + jnp.clip(now - value, -EPSILON, EPSILON),
        jax.nn.standardize(advantage, epsilon=1e-8),
    )
    ratio = jnp.exp(log_prob(logits, action) - old)
    gain = jnp.minimum(ratio * scaled, jnp.clip(ratio, 1 - EPSILON, 1 + EPSILON) * scaled).mean()
    entropy = -jnp.sum(jax.nn.softmax(logits) * jax.nn.log_softmax(logits), axis=-1).mean()
    return (
        0.25 * jnp.maximum((now - target) ** 2, (near - target) ** 2).mean() - gain - 0.01 * entropy
    )
