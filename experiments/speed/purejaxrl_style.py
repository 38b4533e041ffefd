"""Actor-critic in the style of purejaxrl (Lu et al. 2022), rewritten: PPO, or with a single pass
A2C.

What sets its speed is kept: a reset in every step, keys split in the loop, a log, rows shuffled one
by one, one optimizer, one scan. Runs on gymnax before and after 1.0.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import gymnax
import jax
import jax.numpy as jnp
import optax

GAMMA, LAMBDA, EPSILON = 0.99, 0.95, 0.2
CARTPOLE = {"env": "CartPole-v1", "hidden_sizes": (64, 64), "network": "mlp"}


class Torso(nn.Module):
    """Dense tanh layers over a flat observation, behind a 3×3 convolution of 16 channels for an
    image that is to be convolved.
    """

    sizes: tuple[int, ...]
    convolves: bool

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        """obs: [B, *O] -> [B, sizes[-1]]."""
        x = obs.astype(jnp.float32)
        if self.convolves:
            x = nn.tanh(nn.Conv(16, (3, 3), padding="VALID")(x))
        x = x.reshape(x.shape[0], -1)
        for size in self.sizes:
            x = nn.tanh(nn.Dense(size)(x))
        return x


class Actor(nn.Module):
    """The policy: logits of discrete actions, or the mean and log σ of a Gaussian."""

    torso: Torso
    num_actions: int
    gaussian: bool

    @nn.compact
    def __call__(self, obs: jax.Array) -> Any:
        """obs: [B, *O] -> logits [B, A], or mean and log σ [B, A] each."""
        out = nn.Dense(self.num_actions)(self.torso(obs))
        if not self.gaussian:
            return out
        log_std = self.param("log_std", nn.initializers.zeros, (self.num_actions,))
        return out, jnp.broadcast_to(log_std, out.shape)


class Critic(nn.Module):
    """The value of an observation."""

    torso: Torso

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        """obs: [B, *O] -> [B]."""
        return nn.Dense(1)(self.torso(obs))[:, 0]


def make_train(
    task: Mapping[str, Any] = CARTPOLE,
    /,
    *,
    num_envs: int,
    num_steps: int,
    num_epochs: int,
    num_minibatches: int,
    num_updates: int,
) -> Callable[[jax.Array], Any]:
    """`train(key) -> state, log [num_updates, num_steps, num_envs]`.

    task: env, hidden_sizes, and as network mlp or cnn.
    """
    env, env_params = gymnax.make(task["env"])
    space = env.action_space(env_params)
    gaussian = not hasattr(space, "n")
    num_actions = space.shape[0] if gaussian else space.n
    sizes, convolves = tuple(task["hidden_sizes"]), task["network"] == "cnn"
    actor = Actor(Torso(sizes, convolves), num_actions, gaussian)
    critic = Critic(Torso(sizes, convolves))
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(2.5e-4, eps=1e-5))

    def env_step(carry: Any, _: None) -> Any:
        params, state, obs, log, key = carry
        key, action_key, step_key = jax.random.split(key, 3)
        dist, value = actor.apply(params[0], obs), critic.apply(params[1], obs)
        action = sample(action_key, dist)
        keys = jax.random.split(step_key, num_envs)
        new, state, reward, *ends, _ = jax.vmap(env.step, in_axes=(0, 0, 0, None))(
            keys, state, action, env_params
        )
        # since gymnax 1.0 terminated and truncated
        log = logged(log, reward, done := ends[0] | ends[-1])
        return (params, state, new, log, key), (
            (obs, action, log_prob(dist, action), value, reward, done),
            log,
        )

    def improve(learner: Any, batch: Any) -> Any:
        params, opt_state = learner
        updates, opt_state = optimizer.update(
            jax.grad(loss)(params, batch, actor, critic), opt_state
        )
        return (optax.apply_updates(params, updates), opt_state), None

    def update(carry: Any, _: None) -> Any:
        learner, rest = carry
        (_, *rest), (rows, log) = jax.lax.scan(env_step, (learner[0], *rest), None, num_steps)
        advantages = generalised(rows, critic.apply(learner[0][1], rest[1]))
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
        params = actor.init(actor_key, obs), critic.init(critic_key, obs)
        carry = (params, optimizer.init(params)), [state, obs, (jnp.zeros(num_envs),) * 4, key]
        return jax.lax.scan(update, carry, None, num_updates)

    return train


def sample(key: jax.Array, dist: Any) -> jax.Array:
    """Actions [N] of logits, or [N, A] of mean and log σ."""
    if not isinstance(dist, tuple):
        return jax.random.categorical(key, dist)
    mean, log_std = dist
    return mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)


def log_prob(dist: Any, action: jax.Array) -> jax.Array:
    """log π(action), [N]."""
    if not isinstance(dist, tuple):
        one_hot = jax.nn.one_hot(action, dist.shape[-1])
        return jnp.sum(jax.nn.log_softmax(dist) * one_hot, axis=-1)
    mean, log_std = dist
    return jnp.sum(jax.scipy.stats.norm.logpdf(action, mean, jnp.exp(log_std)), axis=-1)


def entropy(dist: Any) -> jax.Array:
    """The mean entropy, in nats."""
    if not isinstance(dist, tuple):
        return -jnp.sum(jax.nn.softmax(dist) * jax.nn.log_softmax(dist), axis=-1).mean()
    return jnp.sum(dist[1] + 0.5 * jnp.log(2 * jnp.pi * jnp.e), axis=-1).mean()


def logged(log: Any, reward: jax.Array, done: jax.Array) -> Any:
    """Return and length of the running episodes, then of the last that ended, [N] each."""
    now = log[0] + reward, log[1] + 1
    return *(jnp.where(done, 0, x) for x in now), *(
        jnp.where(done, x, y) for x, y in zip(now, log[2:], strict=True)
    )


def generalised(rows: Any, last: jax.Array) -> jax.Array:
    """Generalised advantages, [T, N]; an end of either kind counts as a termination."""

    def back(carry: Any, row: Any) -> Any:
        next_advantage, next_value = carry
        value, reward, done = row
        delta = reward + GAMMA * next_value * (1 - done) - value
        advantage = delta + GAMMA * LAMBDA * (1 - done) * next_advantage
        return (advantage, value), advantage

    return jax.lax.scan(back, (0 * last, last), rows[3:], reverse=True, unroll=16)[1]


def loss(params: Any, batch: Any, actor: Actor, critic: Critic) -> jax.Array:
    """PPO's, with a clipped value and an entropy bonus."""
    obs, action, old, value, advantage = batch
    dist: Any = actor.apply(params[0], obs)
    now: Any = critic.apply(params[1], obs)
    target = value + advantage
    near = value + jnp.clip(now - value, -EPSILON, EPSILON)
    value_loss = jnp.maximum((now - target) ** 2, (near - target) ** 2).mean()
    scaled = jax.nn.standardize(advantage, epsilon=1e-8)
    ratio = jnp.exp(log_prob(dist, action) - old)
    gain = jnp.minimum(ratio * scaled, jnp.clip(ratio, 1 - EPSILON, 1 + EPSILON) * scaled).mean()
    return 0.25 * value_loss - gain - 0.01 * entropy(dist)
