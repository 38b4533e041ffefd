"""Samples of gradients, from an estimator and trajectories, storing only their moments.

A gradient has P entries, and n of them need not fit into memory: they are computed a few at a time,
and their moments are merged as they come (Chan, Golub & LeVeque 1979). All directions are of
ascent, of the policy's parameters.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PyTree

from pg.estimators import Estimator, Params, Weighted
from pg.fast import blocks
from pg.rollout import Trajectory

# the data of one gradient -> the gradient, a tree of P numbers
Gradient = Callable[[Any], PyTree]

ALL_AT_ONCE = 4096  # number of gradients of small tables in memory together
ROUNDING = 1e-12  # of a gradient of 64-bit floats


class Moments(NamedTuple):
    """The first two moments of n gradients."""

    size: Float[Array, ""]  # n
    mean: PyTree  # ḡ, the tree of a gradient
    variance: PyTree  # (1/(n-1)) Σ (gᵢ - ḡ)², coordinate by coordinate, the tree of a gradient


class Sample(NamedTuple):
    """The statistics of n gradients: moments, and a few numbers of each, [n], from which errors are
    computed.
    """

    moments: Moments
    distance: Float[Array, " n"]  # ‖gᵢ - ḡ‖²
    along: Float[Array, " n"]  # (gᵢ - ḡ)·ḡ
    reference: Float[Array, " n"]  # gᵢ·r / ‖r‖, r a gradient to compare with; NaN without one

    @property
    def mean_squared_norm(self) -> Float[Array, ""]:
        """‖ḡ‖², []."""
        return optax.tree.norm(self.moments.mean, squared=True)


def per_episode(
    estimator: Estimator,
    params: Params,
    state: PyTree,
    traj: Trajectory,
    *,
    batch_size: int | None = None,
    reference: PyTree = None,
) -> Sample:
    """The gradients of the single episodes of a batch, whose mean is the batch's estimate.

    For windows: of its environments. Ψ is that of the whole batch, as in training; if it couples
    episodes (leave_one_out, ...), the variance leaves out their small covariance, which `per_batch`
    includes.

    Args:
        estimator: the estimator.
        params: of policy and critic.
        state: of the estimator, as returned by `init`.
        traj: the batch, [T, N, ...].
        batch_size: number of gradients in memory together; default: `at_once`.
        reference: a tree like `params.policy`, for `cosine_to`.

    Raises:
        ValueError: the estimator's gradient is not a mean over episodes.
    """
    gradient, xs = of_episodes(estimator, params, estimator.weigh(params, state, traj)[0])
    return sample(gradient, xs, batch_size=batch_size or at_once(traj, 1), reference=reference)


def per_batch(
    estimator: Estimator,
    params: Params,
    state: PyTree,
    traj: Trajectory,
    num_episodes: int,
    *,
    batch_size: int | None = None,
    reference: PyTree = None,
) -> Sample:
    """The estimates of n batches: independent, for any estimator.

    Args:
        estimator: the estimator.
        params: of policy and critic.
        state: of the estimator, as returned by `init`.
        traj: the batches side by side, [T, n N, ...].
        num_episodes: N, of one batch.
        batch_size: number of gradients in memory together; default: `at_once`.
        reference: a tree like `params.policy`, for `cosine_to`.

    Raises:
        ValueError: N does not divide the episodes, or cuts a group of them.
    """
    gradient, xs = of_batches(estimator, params, state, traj, num_episodes)
    return sample(
        gradient, xs, batch_size=batch_size or at_once(traj, num_episodes), reference=reference
    )


def z_scores(
    estimator: Estimator,
    params: Params,
    state: PyTree,
    traj: Trajectory,
    num_episodes: int,
    expected: Float[ArrayLike, "..."],
) -> Float[np.ndarray, " P"]:
    """The differences between mean estimate and expected mean, in standard errors, [P].

    It is 0 for a coordinate that is right up to rounding, and infinite for a wrong one without
    variance.

    Args:
        estimator: the estimator.
        params: of policy and critic.
        state: of the estimator, as returned by `init`.
        traj: batches side by side, [T, n N, ...].
        num_episodes: N, of one batch.
        expected: the mean, with as many numbers as the policy has parameters.

    Raises:
        ValueError: N does not divide the episodes, or cuts a group of them.
    """
    gradient, batches = of_batches(estimator, params, state, traj, num_episodes)
    found = jax.jit(lambda xs: moments(gradient, xs, batch_size=ALL_AT_ONCE))(batches)
    mean, variance = (ravel_pytree(tree)[0] for tree in (found.mean, found.variance))
    gap = np.asarray(mean) - np.ravel(np.asarray(expected))
    error = np.sqrt(np.asarray(variance / found.size))
    gap = np.where(np.abs(gap) <= ROUNDING, 0.0, gap)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(gap == 0.0, 0.0, gap / error)


def of_episodes(estimator: Estimator, params: Params, batch: Weighted) -> tuple[Gradient, Weighted]:
    """The gradient of one episode as a function, and the episodes, for `sample` and others.

    Args:
        estimator: the estimator.
        params: of policy and critic.
        batch: N episodes, weighted.

    Returns:
        The function, and the episodes, leaves [N, T, 1, ...].

    Raises:
        ValueError: the estimator's gradient is not a mean over episodes.
    """
    if not estimator.separable:
        raise ValueError(
            "this estimator's gradient is not a mean over the episodes of a batch: use per_batch"
        )
    return lambda episode: ascent(estimator, params, episode), _groups(batch, 1)


def of_batches(
    estimator: Estimator, params: Params, state: PyTree, traj: Trajectory, num_episodes: int
) -> tuple[Gradient, Trajectory]:
    """The gradient of one batch as a function, and the batches, for `sample` and others.

    Args:
        estimator: the estimator.
        params: of policy and critic.
        state: of the estimator, as returned by `init`.
        traj: the batches side by side, [T, n N, ...].
        num_episodes: N, of one batch.

    Returns:
        The function, and the batches, leaves [n, T, N, ...].

    Raises:
        ValueError: N does not divide the episodes, or cuts a group of them.
    """
    episodes = traj.reward.shape[1]
    if num_episodes < 1 or episodes % num_episodes:
        raise ValueError(
            f"num_episodes must divide the {episodes} of the trajectory, got {num_episodes}"
        )
    if _cuts_a_group(traj, num_episodes):
        raise ValueError(
            f"num_episodes must be a multiple of the trajectory's group size, got {num_episodes}"
        )

    def gradient(part: Trajectory) -> PyTree:
        return ascent(estimator, params, estimator.weigh(params, state, part)[0])

    return gradient, _groups(traj, num_episodes)


def _cuts_a_group(traj: Trajectory, num_episodes: int) -> bool:
    """True if two batches share a group; False if the groups are traced, and so unknown."""
    if isinstance(traj.group, tuple | jax.core.Tracer):
        return False
    first = traj.group[0][::num_episodes]
    last = traj.group[0][num_episodes - 1 :: num_episodes]
    return bool((first[1:] == last[:-1]).any())


def ascent(estimator: Estimator, params: Params, batch: Weighted) -> PyTree:
    """The estimate of a weighted batch, as a direction of ascent: a tree like `params.policy`.

    Args:
        estimator: the estimator.
        params: of policy and critic.
        batch: as returned by `weigh`.
    """
    return jax.tree.map(jnp.negative, estimator.grad(params, batch)[0].policy)


def at_once(traj: Trajectory, num_episodes: int) -> int:
    """The number of gradients of `num_episodes` episodes to compute together: few, as their time is
    cut into blocks. At least four, so that a block with a few steps of each is full; enough short
    episodes to fill a block.
    """
    return max(4, blocks.rows() // (len(traj.reward) * num_episodes))


def sample(
    gradient: Gradient, xs: PyTree, *, batch_size: int = 16, reference: PyTree = None
) -> Sample:
    """The statistics of gradients. Each is computed twice, as the mean is needed first.

    Args:
        gradient: maps one of xs to a gradient.
        xs: leaves [n, ...].
        batch_size: number of gradients in memory together.
        reference: a gradient, for `cosine_to`.
    """
    first = moments(gradient, xs, batch_size=batch_size)
    unit = None  # the direction of the reference
    if reference is not None:
        unit = optax.tree.scale(1.0 / optax.tree.norm(reference), reference)

    def numbers(x: Any) -> tuple[Float[Array, ""], ...]:
        g = gradient(x)
        centred = optax.tree.sub(g, first.mean)
        distance = optax.tree.norm(centred, squared=True)
        along = optax.tree.vdot(centred, first.mean)
        if unit is None:
            return distance, along, jnp.full_like(first.size, jnp.nan)
        return distance, along, optax.tree.vdot(g, unit)

    return Sample(first, *_mapped(numbers, xs, batch_size))


def gradients(gradient: Gradient, xs: PyTree, *, batch_size: int = 16) -> PyTree:
    """The gradients themselves, leaves [n, ...], if they fit into memory.

    Args:
        gradient: maps one of xs to a gradient.
        xs: leaves [n, ...].
        batch_size: number of gradients computed together.
    """
    return _mapped(gradient, xs, batch_size)


def moments(gradient: Gradient, xs: PyTree, *, batch_size: int = 16) -> Moments:
    """The mean and the variance of gradients.

    Args:
        gradient: maps one of xs to a gradient.
        xs: leaves [n, ...].
        batch_size: number of gradients in memory together.
    """
    n = len(jax.tree.leaves(xs)[0])
    size = min(batch_size, n)
    in_full_parts = n - n % size

    def of_part(part: PyTree) -> Moments:
        with blocks.mapped_over(size):
            g = jax.vmap(gradient)(part)
        mean = jax.tree.map(lambda x: jnp.mean(x, axis=0), g)
        squares = jax.tree.map(lambda x, m: jnp.sum((x - m[None]) ** 2, axis=0), g, mean)
        return Moments(jnp.asarray(len(jax.tree.leaves(part)[0]), float), mean, squares)

    def add(total: Moments, part: PyTree) -> tuple[Moments, None]:
        return _merged(total, of_part(part)), None

    parts = jax.tree.map(lambda x: x[:in_full_parts].reshape(-1, size, *x.shape[1:]), xs)
    shapes = jax.eval_shape(of_part, jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    total, _ = jax.lax.scan(add, zeros, parts)
    if in_full_parts < n:
        total, _ = add(total, jax.tree.map(lambda x: x[in_full_parts:], xs))
    return total._replace(
        variance=optax.tree.scale(1.0 / jnp.maximum(total.size - 1.0, 1.0), total.variance)
    )


def _mapped(f: Callable[[Any], Any], xs: PyTree, batch_size: int) -> PyTree:
    """The values of `f` at xs, leaves [n, ...], `batch_size` at a time."""
    with blocks.mapped_over(min(batch_size, len(jax.tree.leaves(xs)[0]))):
        return jax.lax.map(f, xs, batch_size=batch_size)


def _merged(a: Moments, b: Moments) -> Moments:
    """The moments of two samples as one; in all three `variance` is the sum of squared
    distances.
    """
    size = a.size + b.size
    gap = optax.tree.sub(b.mean, a.mean)
    mean = jax.tree.map(lambda m, d: m + d * (b.size / size), a.mean, gap)
    squares = jax.tree.map(
        lambda s, t, d: s + t + d**2 * (a.size * b.size / size), a.variance, b.variance, gap
    )
    return Moments(size, mean, squares)


def _groups(tree: PyTree, size: int) -> PyTree:
    """Leaves [T, n · size, ...] as [n, T, size, ...]."""

    def grouped(x: Array) -> Array:
        return jnp.moveaxis(x.reshape(len(x), -1, size, *x.shape[2:]), 1, 0)

    return jax.tree.map(grouped, tree)
