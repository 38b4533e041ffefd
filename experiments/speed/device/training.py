"""Steps per second of training, and beside a loop in purejaxrl's style."""

import time
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import peer_pg
import purejaxrl_style
import rollouts
import sampling
import timing
import updates

from pg import envs, networks
from pg.config import Config
from pg.estimators.facts import FACTS
from pg.runs import memory

NAMES = {"CartPole": "CartPole-v1", "Breakout": "Breakout-MinAtar", "Pendulum": "Pendulum-v1"}
LENGTH = 32  # of sequences
EPOCHS = MINIBATCHES = 4  # of PPO
SECONDS = 3.0  # about the time for which a program is called
CALLS = (3, 20)  # at least and at most


def setting(task: str, estimator: str, num_envs: int, num_steps: int, **changes: Any) -> Config:
    """An update of a task.

    Args:
        task: of `plan.TASKS`.
        estimator: its name.
        num_envs: environments.
        num_steps: the steps of a window, or the most of an episode.
        **changes: other settings.
    """
    passes: dict[str, Any] = {}
    if estimator == "ppo":
        passes = {"num_epochs": EPOCHS, "num_minibatches": MINIBATCHES}
    common: dict[str, Any] = {
        "estimator": estimator,
        "num_envs": num_envs,
        "preset": None,
        **passes,
        **changes,
    }
    if task == "sequences":
        size: Any = SimpleNamespace(num_tokens=16, prompt_length=8)
        transformer: dict[str, Any] = {"network": "causal_transformer", "hidden_sizes": (64, 64)}
        return Config(env=sampling.sequences(min(LENGTH, num_steps), size), **transformer, **common)
    if "windows" in FACTS[estimator].collect:
        return Config(env=NAMES[task], collect="windows", num_steps=num_steps, **common)
    # poles that cannot fall: every episode has all its steps
    endless = rollouts.ENDLESS if task == "CartPole" else {}
    return Config(env=NAMES[task], horizon=num_steps, env_params=endless, **common)


def throughput(
    task: str, estimator: str, seeds: int, num_envs: int, num_steps: int
) -> dict[str, float]:
    """The speed of an update of vmapped seeds.

    Raises:
        MemoryError: the program needs more than the device has.
    """
    config = setting(task, estimator, num_envs, num_steps)
    program = updates.vmapped_seeds(config, seeds)
    _check_memory(program.temp_bytes)
    seconds, steps = _timed(program)
    rate = steps / seconds
    return {
        "steps_per_second": rate,
        "milliseconds": 1e3 * seconds,
        "compile_seconds": program.compile_seconds,
        "gflops": rate * operations(config) / 1e9,
        "megabytes": program.temp_bytes / 1e6,
    }


def _check_memory(num_bytes: int) -> None:
    """Raises MemoryError for a program that does not fit."""
    stats = jax.devices()[0].memory_stats() or {}
    limit = stats.get("bytes_limit")
    if limit is not None and num_bytes > limit:
        raise MemoryError(
            f"the program needs {memory.readable(num_bytes)}, the device has "
            f"{memory.readable(limit)}"
        )


def _timed(program: timing.Program) -> tuple[float, float]:
    """Seconds and environment steps of a call, medians over as many calls as there is time for."""
    key = jax.random.key(0)
    jax.block_until_ready(program.run(key))
    found: list[tuple[float, int]] = []
    began = time.perf_counter()
    while len(found) < CALLS[0] or (
        len(found) < CALLS[1] and time.perf_counter() - began < SECONDS
    ):
        key = jax.block_until_ready(jax.random.key(len(found) + 1))
        started = time.perf_counter()
        result, steps = jax.block_until_ready(program.run(key))
        found.append((time.perf_counter() - started, int(steps)))
        del result
    seconds, steps = np.median(np.array(found), axis=0)
    return float(seconds), float(steps)


def operations(config: Config) -> float:
    """Floating-point operations of the networks per environment step.

    A forward pass of the policy while it acts; for each pass over the batch three of every network,
    one forward and two backward; and one of the critic, where there is one, for its values.
    """
    env = envs.configured(config, config.num_envs)
    policy = _forward(networks.make_policy(config, env), env)
    if FACTS[str(config.estimator)].critic != "V":
        return policy * (1 + 3 * config.num_epochs)
    critic = _forward(networks.make_critic(config, env), env)
    return (policy + critic) * (1 + 3 * config.num_epochs)


def _forward(network: Any, env: Any) -> float:
    """Operations of a forward pass of one observation, by XLA's analysis of a batch of them."""
    rows = env.num_envs
    _, obs = jax.eval_shape(env.reset, jax.random.key(0))
    params = jax.eval_shape(network.init, jax.random.key(0))
    carry = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((rows, *jnp.shape(x)), jnp.result_type(x)), network.carry
    )
    first = jax.ShapeDtypeStruct((rows,), bool)
    lowered = jax.jit(lambda *args: network.apply(*args)[1]).lower(params, carry, obs, first)
    analysis = lowered.cost_analysis()
    # None: a backend without such an analysis, of which JAX's own are none
    assert analysis is not None
    return float(analysis["flops"]) / rows


def beside_purejaxrl(seeds: int, num_envs: int, num_steps: int) -> dict[str, float]:
    """PPO on CartPole: steps per second of training here and in purejaxrl's style, in turns."""
    num_updates = 4
    batch = {
        "num_envs": num_envs,
        "num_steps": num_steps,
        "num_epochs": EPOCHS,
        "num_minibatches": MINIBATCHES,
    }
    total = seeds * num_updates * num_envs * num_steps
    trains = {
        "ours": peer_pg.make_train(batch, num_updates, "ppo"),
        "theirs": purejaxrl_style.make_train(**batch, num_updates=num_updates),
    }
    programs = {name: _counting(train, seeds, total) for name, train in trains.items()}
    for program in programs.values():
        _check_memory(program.temp_bytes)
    found = timing.take_turns(programs, CALLS[0])
    return {
        **{name: float(np.median(x.rate)) for name, x in found.items()},
        **{f"compile_{name}": program.compile_seconds for name, program in programs.items()},
        "ratio": timing.faster(found["ours"], found["theirs"]),
    }


def _counting(train: Any, seeds: int, total: int) -> timing.Program:
    """Training of vmapped seeds as a program that says its environment steps."""

    def program(key: jax.Array) -> Any:
        keys = jax.random.split(key, seeds)
        return jax.vmap(train)(keys), jnp.int32(total)

    return timing.compiled(program)
