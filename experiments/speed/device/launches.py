"""Kernels of compiled programs, and the time of a turn of a loop."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from device import hlo
from device.limits import seconds
from device.training import setting
from pg import envs, networks, rollout
from pg.config import Config
from pg.train import make_learner


def kernels(task: str, what: str, num_envs: int) -> dict[str, Any]:
    """Counts of the kernels and loops of a rollout, or of an update of an estimator."""
    config = setting(task, "reinforce" if what == "rollout" else what, num_envs, 128)
    program = _rollout(config) if what == "rollout" else _update(config)
    launches, loops = hlo.counted(program.as_text())
    return {
        "largest": max((loop.kernels for loop in loops if not loop.has_loops), default=0),
        "launches": launches,
        "loops": len(loops),
        "open": sum(loop.turns is None for loop in loops),
    }


def _rollout(config: Config) -> Any:
    env = envs.configured(config, config.num_envs)
    policy = networks.make_policy(config, env)
    params = jax.eval_shape(policy.init, jax.random.key(0))

    def collect(params: Any, key: jax.Array) -> Any:
        return rollout.episodes(env, policy, params, key, config.horizon).reward

    return jax.jit(collect).lower(params, jax.random.key(0)).compile()


def _update(config: Config) -> Any:
    learner = make_learner(config)
    state = jax.eval_shape(learner.init, jax.random.key(0))
    return jax.jit(learner.step).lower(state, jax.random.key(0)).compile()


def turn(kind: str, turns: int) -> dict[str, float]:
    """Microseconds of a product of a loop of so many products."""
    matrix = jax.random.normal(jax.random.key(0), (64, 64)) / 8
    x = jax.random.normal(jax.random.key(1), (64, 64))

    def product(x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ matrix)

    loop = {"while": _while, "scan": _scan, "unrolled": _unrolled}[kind]
    return {"microseconds": 1e6 * seconds(lambda x: loop(product, x, turns), x, calls=1) / turns}


Body = Callable[[jax.Array], jax.Array]


def _while(product: Body, x: jax.Array, turns: int) -> jax.Array:
    """The end depends on the numbers, as that of a rollout does."""

    def goes_on(loop: tuple[jax.Array, jax.Array]) -> jax.Array:
        return (loop[0] < turns) & (loop[1][0, 0] < 2)  # a tanh is below 1

    start = jnp.int32(0), x
    return jax.lax.while_loop(goes_on, lambda loop: (loop[0] + 1, product(loop[1])), start)[1]


def _scan(product: Body, x: jax.Array, turns: int, unroll: int = 1) -> jax.Array:
    return jax.lax.scan(lambda x, _: (product(x), None), x, None, turns, unroll=unroll)[0]


def _unrolled(product: Body, x: jax.Array, turns: int) -> jax.Array:
    return _scan(product, x, turns, unroll=8)
