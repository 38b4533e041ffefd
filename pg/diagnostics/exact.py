"""What is exact: the moments of any estimator on tabular problems, and whether a direction is a gradient at all."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from pg import tabular
from pg.estimators import Estimator, Params
from pg.rollout import Trajectory
from pg.tabular import TabularMDP


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
    num_episodes: 1, or 2 for estimators that couple episodes; a batch is one group. limit_ends: the time limit counts
    as a termination, so that nothing is bootstrapped there. share_start: both episodes of a pair begin at one state.
    The direction is of ascent, flattened as `ravel_pytree(params.policy)`.
    Costs Mⁿ estimates for M trajectories of positive probability.
    """
    if num_episodes not in (1, 2):
        raise ValueError(f"num_episodes must be 1 or 2, got {num_episodes!r}")
    traj, probability = tabular.enumerate_trajectories(mdp, jnp.asarray(logits))
    if limit_ends:
        traj = traj._replace(terminated=traj.done)
    traj = traj._replace(group=jnp.zeros(traj.reward.shape, jnp.int32))
    trajectories = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0)[:, :, None], traj)  # [M, H, 1, ...]
    state = estimator.init(jax.random.key(0))[1]

    def ascent(batch: Trajectory) -> jax.Array:
        return -ravel_pytree(estimator.grad(params, estimator.weigh(params, state, batch)[0])[0].policy)[0]

    begin = jnp.asarray(tabular.initial_states(mdp))
    possible = begin[:, None] == begin[None, :] if share_start else jnp.ones((len(begin),) * 2)

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


def asymmetry(direction: Callable[[jax.Array], jax.Array], params: jax.Array) -> jax.Array:
    """‖A - Aᵀ‖ / ‖A + Aᵀ‖ of A = ∂ direction / ∂ params, Frobenius norms, []: 0 where it is a gradient field.

    A field is the gradient of a function, on a simply connected domain, if and only if its Jacobian is symmetric. So
    this tells ∇J from a direction that no function has (Nota & Thomas 2020, 1906.07073). direction: params, an array
    of D entries, to an array of their shape, as `tabular.exact_gradient` and `tabular.undiscounted_direction` are of
    the logits; a `stop_gradient` in it would hide what it depends on. Use 64-bit floats: rounding is asymmetric.
    """
    jacobian = jax.jacobian(direction)(params).reshape(params.size, params.size)
    return jnp.linalg.norm(jacobian - jacobian.T) / jnp.linalg.norm(jacobian + jacobian.T)
