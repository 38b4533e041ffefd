"""Steps measured in distributions instead of parameters: the natural gradient and trust regions.

F = E[Σₜ ∇log π ∇log πᵀ],   KL(π_θ ‖ π_θ₊ₓ) ≈ ½ xᵀ F x,   x = F⁻¹ g: steepest for a given KL
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

from pg import returns
from pg.fast import blocks
from pg.layers.dense import forward_mode
from pg.networks import Network, unroll
from pg.rollout import Trajectory
from pg.surrogates import reweighted

MatVec = Callable[[PyTree], PyTree]
Solve = Callable[[MatVec, PyTree], PyTree]  # v ↦ M v, b -> M⁻¹ b


def mean_kl(
    policy: Network,
    params: PyTree,
    other: PyTree,
    traj: Trajectory,
    gamma: Float[ArrayLike, ""] = 1.0,
) -> Float[Array, ""]:
    """(1/N) Σₙ Σₜ γᵗ KL(π_params ‖ π_other) over the valid steps, [].

    Args:
        policy: the policy.
        params: its parameters.
        other: its other parameters.
        traj: the states, [T, N].
        gamma: γ of the states' weights.
    """
    return blocks.mean_over_episodes(
        lambda rows: _kl(policy, params, other, rows, gamma), traj.without_carry, traj.valid
    )


def fisher_vector_product(
    policy: Network,
    params: PyTree,
    traj: Trajectory,
    vector: PyTree,
    gamma: Float[ArrayLike, ""] = 1.0,
) -> PyTree:
    """F v, F = (1/N) Σₙ Σₜ γᵗ E_{a~π}[∇log π ∇log πᵀ], without forming F; a tree like params.

    The Hessian of the mean KL at equal parameters, exact in the action (Schulman et al. 2015,
    1502.05477, app. C).

    Args:
        policy: the policy.
        params: its parameters.
        traj: the states, [T, N].
        vector: v, a tree like params.
        gamma: γ of the states' weights; 1 for none. It should be the gradient's own (Thomas 2014).
    """

    def block(rows: Trajectory) -> Any:
        slope = jax.grad(lambda other: _kl(policy, params, other, rows, gamma))
        with forward_mode():
            return jax.jvp(slope, (params,), (vector,))[1]

    return blocks.mean_over_episodes(block, traj.without_carry, traj.valid)


def fisher_matrix(
    policy: Network, params: PyTree, traj: Trajectory, gamma: Float[ArrayLike, ""] = 1.0
) -> Float[Array, "P P"]:
    """F [P, P], parameters flattened by `ravel_pytree`: for small policies, as it costs P products.
    Arguments as in `fisher_vector_product`.
    """
    return _matrix(lambda v: fisher_vector_product(policy, params, traj, v, gamma), params)


def conjugate_gradient(iterations: int = 10) -> Solve:
    """Solves by conjugate gradients, stopped once solved: on a singular matrix further steps only
    amplify rounding errors.
    """

    def solve(product: MatVec, b: PyTree) -> PyTree:
        x, _ = jax.scipy.sparse.linalg.cg(product, b, maxiter=iterations, tol=1e-10)
        return x

    return solve


def exact_solve(product: MatVec, b: PyTree) -> PyTree:
    """M⁺ b by the eigenvectors of the symmetric M, the pseudo-inverse if M is singular: for
    small policies.

    A direction counts as part of M's null space, in which the solution is 0, if its eigenvalue
    cannot be distinguished from rounding: below min(10 P, 1000) machine epsilons times the largest,
    for P parameters. In 32 bits that is a share of 7·10⁻⁶ for six parameters and 1.2·10⁻⁴ from a
    hundred on; 64 bits (`jax_enable_x64`) resolve 10⁻¹³. With a damping above that share of the
    largest eigenvalue no direction is left out.
    """
    flat, unravel = ravel_pytree(b)
    matrix = _matrix(product, b)
    rounding = min(10.0 * flat.size, 1e3) * jnp.finfo(matrix.dtype).eps
    return unravel(jnp.linalg.pinv(matrix, rtol=rounding, hermitian=True) @ flat)


def scale_by_fisher(
    damping: Any = 1e-2, gamma: Any = None, solve: Solve | None = None
) -> optax.GradientTransformationExtraArgs:
    """The natural gradient of the policy, (F + damping I)⁻¹ g (Kakade 2001); updates: of the
    policy.

    F and g come from the same episodes, so that the mean of the result is not F⁻¹∇J, to which it
    tends as the number of episodes grows. The update's extra argument `gradient_scale` is the
    factor of g, 1 / length for windows: F gets the same, and a step does not depend on where
    windows are cut.

    Args:
        damping: In units of F's eigenvalues, some of which are 0 for softmax policies.
        gamma: Of the state weighting of F; default: the estimator's own.
        solve: `conjugate_gradient()` by default, or `exact_solve`.
    """

    def update(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        batch: Any,
        policy: Network,
        estimator: Any = None,
        gradient_scale: Any = 1.0,
        **extra: Any,
    ) -> Any:
        product = fisher(policy, params, batch.traj, _state_discount(gamma, estimator))
        scaled = damped(lambda v: _scaled(gradient_scale, product(v)), damping)
        return (solve or conjugate_gradient())(scaled, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def scale_by_trust_region(
    max_kl: Any = 1e-2,
    damping: Any = 1e-2,
    gamma: Any = None,
    solve: Solve | None = None,
    halvings: int = 10,
) -> optax.GradientTransformationExtraArgs:
    """TRPO's step (Schulman et al. 2015, 1502.05477, app. C); updates: of the policy, the result is
    the step itself.

    x along (F + damping I)⁻¹ g, with ½ xᵀ (F + damping I) x = max_kl, then halved until the
    surrogate (1/N) Σ ρ Ψ has increased and the mean KL per state is within max_kl; no step if that
    is never true. The paper's length has ½ xᵀ F x = max_kl; with damping, as in the codes
    (baselines, spinningup, SB3-contrib), ½ xᵀ F x is less than max_kl by ½ damping ‖x‖², which
    bounds the step in the null space of F. F and KL are averages over the visited states, weighted
    by γᵗ like the gradient, so that max_kl is in nats per state.

    Args:
        max_kl: Largest mean KL divergence of a step.
        damping: In units of the eigenvalues of F per state.
        gamma: Of the state weighting of F and KL; default: the estimator's own.
        solve: `conjugate_gradient()` by default, or `exact_solve`.
        halvings: The number of halvings after which no step is taken.
    """

    def update(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        batch: Any,
        policy: Network,
        estimator: Any = None,
        **extra: Any,
    ) -> Any:
        traj, discount = batch.traj, _state_discount(gamma, estimator)
        steps = _mean_steps(traj, discount)
        product = damped(
            lambda v: _scaled(1 / steps, fisher(policy, params, traj, discount)(v)), damping
        )
        direction = _scaled(-1.0, (solve or conjugate_gradient())(product, updates))
        curvature = optax.tree.vdot(direction, product(direction))
        is_curved = curvature > 0
        longest = jnp.sqrt(2 * max_kl / jnp.where(is_curved, curvature, 1.0))
        longest = jnp.where(is_curved, longest, 0.0)
        before = surrogate(policy, params, batch)

        def rejected(length: Float[Array, ""]) -> Bool[Array, ""]:
            moved = jax.tree.map(lambda p, d: p + length * d, params, direction)
            is_better = surrogate(policy, moved, batch) > before
            is_near = mean_kl(policy, params, moved, traj, discount) / steps <= max_kl
            return ~(is_better & is_near)

        def is_rejected(search: tuple[Array, Array]) -> Bool[Array, ""]:
            halved, length = search
            return (halved < halvings) & rejected(length)

        def halve(search: tuple[Array, Array]) -> tuple[Array, Array]:
            halved, length = search
            return halved + 1, length / 2

        halved, length = jax.lax.while_loop(is_rejected, halve, (jnp.int32(0), longest))
        return _scaled(jnp.where(halved < halvings, length, 0.0), direction), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def surrogate(policy: Network, params: PyTree, batch: Any) -> Float[Array, ""]:
    """(1/N) Σₙ Σₜ ρₜ Ψₜ, []: the objective of a step.

    Args:
        policy: the policy.
        params: its parameters, which need not be those that acted.
        batch: weighted episodes.
    """

    def block(rows: Any) -> Float[Array, ""]:
        traj = rows.traj
        log_prob = unroll(policy, params, traj.obs, traj.first).log_prob(traj.action)
        log_rho = jnp.where(traj.valid, log_prob - traj.log_prob, 0.0)
        return jnp.sum(jnp.where(traj.valid, reweighted(rows.psi, log_rho), 0.0))

    steps = batch._replace(traj=batch.traj.without_carry)
    return blocks.mean_over_episodes(block, steps, batch.traj.valid)


def fisher(
    policy: Network, params: PyTree, traj: Trajectory, gamma: Float[ArrayLike, ""]
) -> MatVec:
    """v ↦ F v."""
    return lambda v: fisher_vector_product(policy, params, traj, v, gamma)


def damped(product: MatVec, damping: Float[ArrayLike, ""]) -> MatVec:
    """v ↦ M v + damping v."""
    return lambda v: jax.tree.map(lambda mv, x: mv + damping * x, product(v), v)


def _state_discount(gamma: Any, estimator: Any) -> Any:
    """The γ with which the Fisher matrix weights states: the given one, else the estimator's
    (Thomas 2014).
    """
    return estimator.state_discount if gamma is None else gamma


def _kl(
    policy: Network, params: PyTree, other: PyTree, rows: Trajectory, gamma: Float[ArrayLike, ""]
) -> Float[Array, ""]:
    """Σₙ Σₜ γᵗ KL(π_params ‖ π_other) over the valid steps, []."""
    before = unroll(policy, params, rows.obs, rows.first)
    after = unroll(policy, other, rows.obs, rows.first)
    divergence = _weight(rows, gamma) * before.kl(after)
    return jnp.sum(jnp.where(rows.valid, divergence, 0.0))


def _mean_steps(traj: Trajectory, gamma: Float[ArrayLike, ""]) -> Float[Array, ""]:
    """(1/N) Σₙ Σₜ γᵗ over the valid steps, []."""
    return jnp.sum(jnp.where(traj.valid, _weight(traj, gamma), 0.0)) / traj.valid.shape[1]


def _weight(traj: Trajectory, gamma: Float[ArrayLike, ""]) -> Float[Array, "T N"]:
    """γᵗ, [T, N]."""
    return returns.discount(traj.time.astype(traj.reward.dtype), gamma)


def _matrix(product: MatVec, like: PyTree) -> Float[Array, "P P"]:
    """The matrix [P, P] of a symmetric product, by its columns."""
    flat, unravel = ravel_pytree(like)

    def column(v: Float[Array, " P"]) -> Float[Array, " P"]:
        return ravel_pytree(product(unravel(v)))[0]

    return jax.lax.map(column, jnp.eye(flat.size, dtype=flat.dtype))


def _scaled(factor: Float[ArrayLike, ""], tree: PyTree) -> PyTree:
    """The tree with its leaves multiplied by a number."""
    return jax.tree.map(lambda x: factor * x, tree)
