"""Diagnostics of the gradient of each batch of training, before the step along it."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import PRNGKeyArray

from pg import nonfinite
from pg.config import Config
from pg.diagnostics.samples import at_once, moments, of_episodes
from pg.diagnostics.weights import effective_sample_size, explained_variance
from pg.estimators import Estimator
from pg.estimators.base import log_ratio, standardise_psi, values
from pg.estimators.names import facts_of
from pg.fast import devices
from pg.networks import Network


def diagnosed(
    step: Callable[[Any, PRNGKeyArray], Any],
    config: Config,
    critic: Network,
    est: Estimator,
    scale: float,
) -> Callable[[Any, PRNGKeyArray], Any]:
    """A training step whose metrics include the quality of the gradient of its batch.

    Ψ is that of the first step on the batch.

    Args:
        step: state, key -> `pg.train.Update`.
        config: the settings.
        critic: V, for `explained_variance`.
        est: the estimator, separable.
        scale: factor of the gradient of a batch.
    """

    def with_diagnostics(state: Any, key: PRNGKeyArray) -> Any:
        done = step(state, key)
        batch = standardise_psi(done.batch) if config.advantages == "minibatch" else done.batch
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


QUANTILES = {"ratio_low": 0.05, "ratio_median": 0.5, "ratio_high": 0.95}


def with_weights(
    step: Callable[[Any, PRNGKeyArray], Any], config: Config, policy: Network
) -> Callable[[Any, PRNGKeyArray], Any]:
    """A training step whose metrics include the importance weights of its batch: those of whole
    episodes, Π_t ρₜ, or with windows those of steps.

    ess is their effective sample size over their number, in (0, 1]; ratio_low, ratio_median and
    ratio_high are their 5 %, 50 % and 95 % quantiles. All before the update.

    Args:
        step: state, key -> `pg.train.Update`.
        config: the settings.
        policy: the policy that learns.
    """

    def measured(state: Any, key: PRNGKeyArray) -> Any:
        done = step(state, key)
        log_rho = log_ratio(policy, state.params, done.traj)
        of_episodes = config.collect == "episodes"
        log_weight = jnp.sum(log_rho, axis=0) if of_episodes else log_rho.ravel()
        ess = effective_sample_size(log_weight) / log_weight.size
        levels = jnp.asarray(list(QUANTILES.values()), log_weight.dtype)
        quantiles = jnp.exp(jnp.quantile(log_weight, levels))
        metrics = {"ess": ess, **dict(zip(QUANTILES, quantiles, strict=True))}
        return done._replace(metrics=done.metrics | metrics)

    return measured
