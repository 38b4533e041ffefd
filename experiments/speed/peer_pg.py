"""The library as one of the programs of `peers.py`: on one device, or spread over the CPU's cores
as devices.
"""

from collections.abc import Callable
from typing import Any

import jax

from pg import Config
from pg import make_train as plain
from pg.estimators.facts import FACTS
from pg.fast import devices


def make_train(batch: dict[str, Any], num_updates: int, estimator: str) -> Callable[[Any], Any]:
    """key -> trained parameters. Complete episodes last all their steps, since no pole falls."""
    endless = {"theta_threshold_radians": 1e9, "x_threshold": 1e9, "tau": 2e-4}
    episodes: dict[str, Any] = {"horizon": batch["num_steps"], "env_params": endless}
    kwargs = {"collect": "windows"} if "windows" in FACTS[estimator].collect else episodes
    return plain(
        Config(estimator=estimator, num_updates=num_updates, **kwargs, **batch, preset=None)
    )


def spread(train: Callable[[Any], Any], num_seeds: int) -> Callable[[int], Any]:
    """A seed -> arrays of `train(key)`: over all devices the environments of the one seed, or the
    seeds.
    """
    where = devices.layout("envs" if num_seeds == 1 else "seeds")
    program = jax.jit(
        devices.over_runs(
            lambda data: jax.tree.leaves(train(jax.random.wrap_key_data(data))), where
        )
    )

    def run(seed: int) -> Any:
        keys = jax.random.key_data(jax.random.split(jax.random.key(seed), num_seeds))
        with jax.set_mesh(where.mesh):
            return jax.block_until_ready(program(devices.place(keys, where.sharding)))

    return run
