"""The library as one of the programs of `peers.py`: on one device, or spread over the CPU's cores
as devices.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from pg import Config, make_learner
from pg import make_train as plain
from pg.estimators.facts import FACTS
from pg.fast import devices
from pg.runs.execution import CPU_OPTIONS  # as `pg train` compiles its programs

CARTPOLE: Mapping[str, Any] = {"env": "CartPole-v1", "hidden_sizes": (64, 64), "network": "mlp"}


def make_train(
    batch: dict[str, Any],
    num_updates: int,
    estimator: str,
    task: Mapping[str, Any] = CARTPOLE,
    *,
    shuffles_rows: bool = False,
) -> Callable[[Any], Any]:
    """key -> trained parameters. Complete episodes last all their steps, since no pole falls.

    Args:
        batch: The sizes of a batch, and its epochs and minibatches.
        num_updates: The number of updates.
        estimator: The estimator.
        task: The environment and the networks.
        shuffles_rows: Minibatches are of steps drawn from all environments, as the peers' are, and
            not of whole environments.
    """
    if "windows" in FACTS[estimator].collect:
        kwargs: dict[str, Any] = {"collect": "windows"}
    else:
        endless = {"theta_threshold_radians": 1e9, "x_threshold": 1e9, "tau": 2e-4}
        kwargs = {"horizon": batch["num_steps"], "env_params": endless}
    if FACTS[estimator].several_steps:
        kwargs["advantages"] = "minibatch"  # as all the peers standardise them
    if shuffles_rows:
        rows = batch["num_envs"] * batch["num_steps"] // batch["num_minibatches"]
        batch = {**batch, "minibatch_size": rows, "num_minibatches": 1}
    sizes = tuple(task["hidden_sizes"])
    kwargs |= {"env": task["env"], "network": task["network"], "hidden_sizes": sizes}
    return plain(
        Config(estimator=estimator, num_updates=num_updates, **kwargs, **batch, preset=None)
    )


def spread(
    train: Callable[[Any], Any], num_seeds: int, task: Mapping[str, Any]
) -> Callable[[int], Any]:
    """A seed -> arrays of `train(key)`: over all devices the seeds, or of one seed the
    environments, where that pays for networks as large as the task's.
    """
    config = Config(**{**task, "hidden_sizes": tuple(task["hidden_sizes"])}, preset=None)
    shapes = jax.eval_shape(make_learner(config).init, jax.random.key(0)).params
    if num_seeds > 1:
        where = devices.layout("seeds")
    else:
        where = devices.layout("envs", None if devices.spread_pays(shapes) else 1)
    program = jax.jit(
        devices.over_runs(
            lambda data: jax.tree.leaves(train(jax.random.wrap_key_data(data))), where
        ),
        compiler_options=CPU_OPTIONS,
    )

    def run(seed: int) -> Any:
        keys = jax.random.key_data(jax.random.split(jax.random.key(seed), num_seeds))
        with jax.set_mesh(where.mesh):
            return jax.block_until_ready(program(devices.place(keys, where.sharding)))

    return run
