"""Environments whose state is outside of checkpoints, in Python or in another process.

A checkpoint holds arrays. For an environment in Python it holds the history of the episode
(`promise` announces this at the start), from which a resumed run restores the environment, or, if
that is impossible, begins a new episode. This holds for single runs and the runs of sweeps and
searches.
"""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from pg.config import Config, Hyperparams
from pg.envs.adapters.base import HostError, faults_in_one_sentence
from pg.envs.registry import environment_of
from pg.runs import checkpoints, execution, interrupts
from pg.runs.checkpoints import CheckpointWriter, Restored
from pg.runs.waiting import said_after
from pg.train import make_learner, training_keys

PATIENCE = 10.0  # seconds after which closing environments is reported; 5 for workers


def promise(config: Config) -> str:
    """A sentence on the unfinished episodes of a resumed run; "" if all of their state is in the
    checkpoint.
    """
    if config.collect == "episodes":  # every batch begins with new episodes
        return ""
    env = _hosted(config)
    return "" if env is None else str(env.promise)


def _hosted(config: Config) -> Any:
    """The environment if it is a host environment (`pg.envs.adapters.hosted`) or a wrapper of one;
    else None.
    """
    env = environment_of(config.env)
    return env if hasattr(env, "bring_back") else None


def can_fail(config: Config) -> bool:
    """True if a step of the environment runs code outside of JAX, which may fail."""
    return _hosted(config) is not None


def with_resumption(
    error: HostError, writer: CheckpointWriter, command: str, otherwise: str = ""
) -> HostError:
    """The error of a failed environment, with the update after which the runs can be resumed;
    first, a checkpoint of the last finished updates is written.

    Args:
        error: The error.
        writer: Of the checkpoints of the runs that were trained.
        command: Resumes them.
        otherwise: A sentence on the command that starts them again, if there is no checkpoint; "":
            the error names one already.
    """
    parts = []
    try:
        writer.write_held()
    except OSError as unwritten:  # an older checkpoint may exist
        parts.append(f"the last updates are lost, as a checkpoint failed: {unwritten}")
    done = checkpoints.steps(writer.folder) if writer.folder else []
    if done:
        parts.append(f"{command} continues after update {done[0]}, the last checkpoint")
    elif otherwise:
        parts.append(otherwise)
    return error.with_command("; ".join(parts)) if parts else error


def promises(configs: Iterable[Config]) -> list[str]:
    """The promises of several runs, each once."""
    return list(dict.fromkeys(filter(None, map(promise, configs))))


def about(configs: Iterable[Config]) -> dict[str, str]:
    """The promises as an entry of `versions.json`; {} if there are none."""
    sentences = promises(configs)
    return {"environments": "; ".join(sentences)} if sentences else {}


@contextlib.contextmanager
def closing(configs: Iterable[Config]) -> Iterator[None]:
    """On exit, also by an error or a signal, closes the environments of these settings and their
    worker processes, and reports if that takes long. A signal in the meantime raises Interrupted
    once all are closed, unless another error is being raised.
    """
    try:
        yield
    finally:
        with interrupts.deferred("closing the environments") as caught:
            for config in configs:
                env = _hosted(config)
                if env is None:
                    continue
                slow = (
                    f"environments of {env.name} are still being closed after {PATIENCE:g} s: "
                    "their close takes longer, or hangs; pressing Ctrl-C twice quits without "
                    "waiting for it"
                )
                with said_after(PATIENCE, slow, sys.stderr):
                    env.close()
    if caught.signum:
        raise interrupts.Interrupted(caught.signum)


def taken_up(
    config: Config, hyperparams: Hyperparams, found: Restored, keys: jax.Array
) -> Restored:
    """The runs with their environments restored, or at the beginning of new episodes.

    Args:
        config: The static settings.
        hyperparams: The others, leaves [n] or scalars.
        found: The runs so far, as a checkpoint has them.
        keys: The training keys of the runs that continue, [n]; runs beyond the stored ones are
            copies of the last.

    Returns:
        The runs, n of them if environments are restored; episodes that could not be restored are
        listed in `changed`.
    """
    env = _hosted(config)
    if config.collect == "episodes" or env is None:
        return found
    n, partial, changed = len(keys), found.partial, found.changed
    states = execution.filled_up(execution.first(partial.states, n), n)
    try:
        rollout = env.bring_back(states.rollout)
    except HostError as error:
        rollout = _begun_anew(config, hyperparams, partial.updates, keys)
        changed = [*changed, f"unfinished episodes were restarted: {error}"]
    partial = partial._replace(states=states._replace(rollout=rollout))
    return found._replace(partial=partial, changed=changed)


@faults_in_one_sentence()
def _begun_anew(config: Config, hyperparams: Hyperparams, updates: int, keys: jax.Array) -> Any:
    """The states of new episodes, leaves [n, ...]; they differ from update to update."""
    h = execution.broadcast(hyperparams, len(keys))
    config = execution.bounded(config, h.env_params)

    @jax.jit
    def fresh(key: jax.Array, h: Hyperparams) -> Any:
        init_key, _ = training_keys(key, 0, 0)
        return make_learner(config, h).init(jax.random.fold_in(init_key, updates)).rollout

    rollouts = []
    with interrupts.held("the start of the environments"):
        for i, key in enumerate(keys):
            of_run = jax.tree.map(lambda x, i=i: x[i], h)
            rollouts.append(jax.device_get(fresh(key, of_run)))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rollouts)
