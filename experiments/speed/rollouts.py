"""The rollouts that `throughput.py` times: the library's, the plain ones, and the policy's forward
pass alone.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import references
from timing import Program, compiled

from pg import envs, networks, rollout
from pg.config import Config
from pg.distributions import Categorical
from pg.networks import Network
from pg.rollout import Trajectory

# Without thresholds no pole falls: every episode lasts to its time limit, every step of it a real
# one. Time goes slowly, so that in so many steps the poles lean no further than CartPole's may: of
# a spinning pole, sine and cosine would cost more than all the rest, in every form.
ENDLESS = {"theta_threshold_radians": 1e9, "x_threshold": 1e9, "tau": 2e-4}


def setting(num_envs: int, horizon: int = 500, **changes: Any) -> Config:
    """REINFORCE on `num_envs` CartPole episodes of exactly `horizon` steps, with two tanh layers of
    64.
    """
    return Config(
        num_envs=num_envs,
        env_params={**ENDLESS, "max_steps_in_episode": horizon},
        **changes,
        preset=None,
    )


def returns(traj: Trajectory) -> jax.Array:
    """The return of every episode: the result of a rollout whose storage is not timed."""
    return traj.reward.sum(0)


def programs(config: Config) -> dict[str, Program]:
    """Rollouts that give `returns`, of the library and plain, and two more programs.

    `policy_kept` gives the whole trajectory. `forward` is faster than any rollout can be: a scan
    over the steps that computes the policy's logits for stored observations [B, 4], and adds them.
    """
    env = envs.configured(config, config.num_envs)
    policy = networks.make_policy(config, env)
    params = policy.init(jax.random.key(0))
    obs = jax.random.normal(jax.random.key(1), (env.horizon(), env.num_envs, *env.obs_shape))
    return {
        "random": compiled(library(env, uniform(), returns), ()),
        "random_plain": compiled(plain(config, env, lambda params: references.uniform), ()),
        "policy": compiled(library(env, policy, returns), params),
        "policy_kept": compiled(library(env, policy, lambda traj: traj), params),
        "policy_plain": compiled(
            plain(config, env, lambda params: references.acting(policy, params)), params
        ),
        "forward": compiled(forward(policy), params, obs),
    }


def uniform() -> Network:
    """A policy without parameters: CartPole's two actions with equal probability."""
    return Network(
        lambda key: (),
        lambda params, carry, obs, first: (carry, Categorical(jnp.zeros((len(obs), 2)))),
    )


def library(
    env: envs.Env, policy: Network, keep: Callable[[Trajectory], Any]
) -> Callable[..., Any]:
    """`f(params, key) -> what is kept, steps taken`, by the rollout that trains."""

    def collect(params: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        traj = rollout.episodes(env, policy, params, key)
        return keep(traj), traj.valid.sum()

    return collect


def plain(
    config: Config, env: envs.Env, acting: Callable[[Any], references.Act]
) -> Callable[..., Any]:
    """`f(params, key) -> returns, steps taken`, by gymnax's own step."""
    collect = references.make_rollout(
        config.env, dict(config.env_params), env.num_envs, env.horizon()
    )
    return lambda params, key: (
        collect(acting(params), key)[0],
        jnp.int32(env.num_envs * env.horizon()),
    )


def forward(policy: Network) -> Callable[..., Any]:
    """`f(params, obs [T, B, 4], key) -> sum of logits, rows`."""

    def scan(params: Any, obs: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        def step(total: jax.Array, obs: jax.Array) -> tuple[jax.Array, None]:
            return total + policy.apply(params, (), obs, jnp.zeros(len(obs), bool))[1].logits, None

        total, _ = jax.lax.scan(step, jnp.zeros((obs.shape[1], 2)), obs)
        return total, jnp.int32(obs.shape[0] * obs.shape[1])

    return scan
