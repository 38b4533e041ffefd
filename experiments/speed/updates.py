"""The updates that `throughput.py` times: the library's, the plain one, training, and each way to
make it larger.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import references
from rollouts import setting
from timing import Program, compiled

from pg import envs, networks, nonfinite
from pg.config import Config, Hyperparams
from pg.fast.devices import layout, over_runs
from pg.optimizers import make_optimizer
from pg.train import make_learner, make_train


def programs(config: Config) -> dict[str, Program]:
    """The library's update and the plain one; `training` from a key; and 64 `short` episodes, whose
    poles fall after about 22 of 500 steps, with 64 `full` ones.
    """
    return {
        "update": update(config),
        "update_unguarded": unguarded_update(config),
        "update_plain": plain_update(config),
        "training": training(config),
        "short": update(Config(num_envs=64, preset=None)),
        "full": update(setting(64)),
    }


def scaling(num_envs: int, horizon: int, *, quick: bool) -> dict[str, dict[str, Program]]:
    """One update by number of environments, by horizon, and of seeds side by side; and split over
    devices, if any.
    """
    num_envs_each, seeds = (4, (2,)) if quick else (64, (1, 8, 64))
    environments = (num_envs,) if quick else (64, 512, 4096)
    horizons = (horizon,) if quick else (horizon // 5, horizon)
    devices = [2**i for i in range(jax.device_count().bit_length()) if 2**i <= jax.device_count()]
    each = setting(num_envs_each, horizon)
    return {
        "environments": {str(n): update(setting(n, horizon)) for n in environments},
        "horizon": {str(n): update(setting(num_envs, n)) for n in horizons},
        "seeds": {str(n): vmapped_seeds(each, n) for n in seeds},
        "devices": {
            str(n): vmapped_seeds(each, 8 * devices[-1], n) for n in devices if len(devices) > 1
        },
    }


@functools.cache  # the batch at hand is in several tables
def update(config: Config) -> Program:
    """One update of the library, from a fresh policy."""
    learner = make_learner(config)
    return compiled(counted(learner.step), jax.jit(learner.init)(jax.random.key(0)))


def unguarded_update(config: Config) -> Program:
    """The library's update without its look at numbers that are not finite."""
    with mock.patch.object(nonfinite, "causes", return_value=jnp.int32(0)):
        return update(dataclasses.replace(config, on_nonfinite="skip"))


def plain_update(config: Config) -> Program:
    """The same update by a gradient through the rollout's scan, with the same optimizer."""
    env = envs.configured(config, config.num_envs)
    policy = networks.make_policy(config, env)
    actor = policy._replace(apply=lambda params, *seen: policy.apply(params.policy, *seen))
    opt, state = make_optimizer(config, Hyperparams()), make_learner(config).init(jax.random.key(0))
    rollout = references.make_rollout(
        config.env, dict(config.env_params), env.num_envs, env.horizon()
    )

    def step(params: Any, opt_state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        learned = references.update(rollout, actor, opt, params, opt_state, key)
        return learned, jnp.int32(env.num_envs * env.horizon())

    return compiled(step, state.params, state.opt_state)


def training(config: Config) -> Program:
    """All of training in one program, initialisation included."""
    train = make_train(config)
    return compiled(counted(lambda state, key: train(key)), ())


def vmapped_seeds(config: Config, seeds: int, devices: int = 1) -> Program:
    """One update of each of `seeds` runs, mapped, and over several devices in equal parts."""
    learner = make_learner(config)
    step = over_runs(learner.step, layout(most=devices))
    states = jax.jit(jax.vmap(learner.init))(jax.random.split(jax.random.key(0), seeds))
    return compiled(counted(lambda states, key: step(states, jax.random.split(key, seeds))), states)


def counted(
    step: Callable[[Any, jax.Array], tuple[Any, dict[str, jax.Array]]],
) -> Callable[..., Any]:
    """`step`, and with it the number of environment steps by its own account."""

    def f(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        state, metrics = step(state, key)
        return (state, metrics), metrics["env_steps"].sum()

    return f
