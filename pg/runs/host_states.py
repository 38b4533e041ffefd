"""The environments of a run that live outside of its checkpoints, in Python or in another process.

A checkpoint holds arrays. Of an environment in Python it has the history of the episode (`promise`
says so at the start), from which a run that goes on brings the environment back; or, where that
cannot be, begins a new episode.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from pg.config import Config, Hyperparams
from pg.envs.adapters.hosts import HostError
from pg.envs.registry import environment_of
from pg.runs.execution import PartialRun
from pg.seeds import seed_key
from pg.train import make_learner, training_keys


def promise(config: Config) -> str:
    """A sentence on what a run that is resumed does with its unfinished episodes; "" where all of
    their state is in the checkpoint.
    """
    if config.collect == "episodes":  # every batch begins anew
        return ""
    return str(getattr(environment_of(config.env), "promise", ""))


def about(config: Config) -> dict[str, str]:
    """The promise as an entry of `versions.json`; {} where there is none."""
    sentence = promise(config)
    return {"environments": sentence} if sentence else {}


def taken_up(
    config: Config, hyperparams: Hyperparams, partial: PartialRun, seeds: Sequence[int]
) -> tuple[PartialRun, str]:
    """The run with its environments where they were, or at the beginning of new episodes.

    Args:
        config: The settings.
        hyperparams: The others.
        partial: The run so far, as a checkpoint has it.
        seeds: Of its runs; further ones only fill up the devices.

    Returns:
        The run, and a sentence on the episodes that could not be taken up again, or "".
    """
    env = environment_of(config.env)
    if config.collect == "episodes" or not hasattr(env, "bring_back"):
        return partial, ""
    try:
        env.bring_back(partial.states.rollout)
        return partial, ""
    except HostError as error:
        reason = f"unfinished episodes were begun anew: {error}"
    learner = make_learner(config, hyperparams)

    @jax.jit
    def fresh(key: jax.Array) -> Any:
        init_key, _ = training_keys(key, 0, 0)
        return learner.init(jax.random.fold_in(init_key, partial.updates)).rollout

    num_runs = len(partial.states.update)
    keys = [seed_key(seeds[min(i, len(seeds) - 1)]) for i in range(num_runs)]
    rollouts = [jax.device_get(fresh(key)) for key in keys]
    rollout = jax.tree.map(lambda *x: np.stack(x), *rollouts)
    return partial._replace(states=partial.states._replace(rollout=rollout)), reason
