"""Diagnostics of the gradient of each batch of training, before the step along it."""

from collections.abc import Callable
from typing import Any

import optax
from jaxtyping import PRNGKeyArray

from pg import nonfinite
from pg.config import Config
from pg.diagnostics.samples import at_once, moments, of_episodes
from pg.diagnostics.weights import explained_variance
from pg.estimators import Estimator
from pg.estimators.base import standardise, values
from pg.estimators.facts import facts_of
from pg.fast import devices
from pg.networks import Network


def diagnosed(
    step: Callable[[Any, PRNGKeyArray], Any],
    config: Config,
    critic: Network,
    est: Estimator,
    scale: float,
) -> Callable[[Any, PRNGKeyArray], Any]:
    """A step of training whose metrics include the quality of the gradient of its batch.

    Ψ is that which the first step on the batch takes.

    Args:
        step: state, key -> `pg.train.Update`.
        config: the settings.
        critic: V, for `explained_variance`.
        est: the estimator, separable.
        scale: factor of the gradient of a batch.
    """

    def with_diagnostics(state: Any, key: PRNGKeyArray) -> Any:
        done = step(state, key)
        batch = standardise(done.batch) if config.advantages == "minibatch" else done.batch
        batch = devices.gather_envs(batch)
        gradient, episodes = of_episodes(est, state.params, batch)
        episode = moments(gradient, episodes, batch_size=at_once(batch.traj, 1))
        noise = scale**2 * optax.tree.sum(episode.variance)
        squared_norm = scale**2 * optax.tree.norm(episode.mean, squared=True)
        signal = squared_norm - noise / episode.size
        metrics = done.metrics | {"grad_variance": noise, "grad_squared_norm": signal}
        if facts_of(config.estimator).critic == "V" and not isinstance(batch.target, tuple):
            metrics["explained_variance"] = explained_variance(
                values(critic, state.params, batch.traj),
                batch.target,
                batch.traj.valid,
                missing=nonfinite.missing(),
            )
        return done._replace(metrics=metrics)

    return with_diagnostics
