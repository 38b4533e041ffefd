"""How good a gradient estimate is: its exact mean and variance on tabular problems, and the weight of its samples."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from pg import tabular
from pg.estimators import Estimator, Params
from pg.rollout import Trajectory
from pg.tabular import TabularMDP


def effective_sample_size(log_weight: jax.Array) -> jax.Array:
    """(Σ w)² / Σ w² over the last axis, between 1 and N, [...]  (Kong 1992). log_weight: log w, [..., N], any scale.

    Of importance weights w: how many equally weighted samples would be as good. Computed in logarithms throughout,
    so that weights of e^±1000 do not overflow.
    """
    total, squares = (jax.nn.logsumexp(k * log_weight, axis=-1) for k in (1.0, 2.0))
    return jnp.exp(2.0 * total - squares)


def exact_moments(
    estimator: Estimator,
    params: Params,
    mdp: TabularMDP,
    logits: Any,
    num_episodes: int = 1,
    *,
    limit_ends: bool = False,
    share_start: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean [P] and covariance [P, P] of one batch's estimate of ∇J, exactly: a sum over every batch.

    logits: of the policy that acts, [S, A] or [H, S, A]; the estimator's own, or another's (off-policy).
    num_episodes: 1, or 2 for estimators that couple episodes. limit_ends: the time limit counts as a termination,
    so that nothing is bootstrapped there. share_start: both episodes of a pair begin at one state.
    The direction is of ascent, flattened as `ravel_pytree(params.policy)`.
    Costs Mⁿ estimates for M trajectories of positive probability.
    """
    if num_episodes not in (1, 2):
        raise ValueError(f"num_episodes must be 1 or 2, got {num_episodes!r}")
    traj, probability = tabular.enumerate_trajectories(mdp, jnp.asarray(logits))
    if limit_ends:
        traj = traj._replace(terminated=traj.done)
    trajectories = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0)[:, :, None], traj)  # [M, H, 1, ...]
    state = estimator.init(jax.random.key(0))[1]

    def ascent(batch: Trajectory) -> jax.Array:
        return -ravel_pytree(estimator.grad(params, estimator.weigh(params, state, batch)[0])[0].policy)[0]

    begin = traj.obs[0].reshape(len(probability), -1)
    possible = jnp.all(begin[:, None] == begin[None, :], axis=-1) if share_start else jnp.ones((len(begin),) * 2)

    def row(first: tuple[Trajectory, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """First and second moment over the other episode of the batch, given one and which others are possible."""
        episode, others = first
        if num_episodes == 1:
            x = ascent(episode)
            return x, jnp.outer(x, x)

        def pair(second: Trajectory) -> jax.Array:
            return ascent(jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), episode, second))

        x = jax.vmap(pair)(trajectories)
        weight = probability * others / jnp.sum(probability * others)
        return weight @ x, jnp.einsum("m,mp,mq->pq", weight, x, x)

    means, seconds = jax.lax.map(row, (trajectories, possible))
    mean = np.asarray(probability @ means)
    return mean, np.asarray(jnp.einsum("m,mpq->pq", probability, seconds)) - np.outer(mean, mean)
