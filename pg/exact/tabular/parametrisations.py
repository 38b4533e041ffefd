"""Parameters of a table other than logits, as functions to logits, and the barrier that keeps a
policy inside the simplex.

The exact gradient of a parametrisation is that of J through it, as in

    parametrised_gradient(mdp, theta, gamma, escort)

Arguments are those of `exact`; without a time limit.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from pg.exact.tabular.exact import discounted_return, of_legal
from pg.exact.tabular.mdp import TabularMDP

Transform = Callable[[Float[Array, "S A"]], Float[Array, "S A"]]  # parameters -> logits


def softmax(theta: Float[Array, "S A"]) -> Float[Array, "S A"]:
    """The logits of π ∝ exp(θ): θ."""
    return theta


def escort(theta: Float[Array, "*B A"], power: Float[ArrayLike, ""] = 2.0) -> Float[Array, "*B A"]:
    """The logits p log|θ| of π ∝ |θ|ᵖ, [..., A]  (Mei et al. 2020, "Escaping the gravitational pull
    of softmax").

    At θ = 0, π is 0 and, for p > 1, so is its gradient.

    Args:
        theta: θ, [..., A], not all 0 in a state.
        power: p ≥ 1.
    """
    is_zero = theta == 0
    size = jnp.abs(jnp.where(is_zero, 1.0, theta))
    return jnp.where(is_zero, -jnp.inf, power * jnp.log(size))


def parametrised_gradient(
    mdp: TabularMDP,
    theta: Float[Array | np.ndarray, "S A"],
    gamma: Float[ArrayLike, ""],
    transform: Transform = softmax,
) -> Float[Array, "S A"]:
    """∇_θ J(θ), [S, A], of J with the logits transform(θ).

    softmax: d(s) π A;  escort: d(s) p |θ|ᵖ⁻¹ sign θ A / Σ|θ|ᵖ, d the discounted visitation.
    """

    def objective(theta: Float[Array, "S A"]) -> Float[Array, ""]:
        return discounted_return(mdp, transform(theta), gamma)

    return jax.grad(objective)(jnp.asarray(theta))


def log_barrier_return(
    mdp: TabularMDP,
    logits: Float[Array | np.ndarray, "S A"],
    gamma: Float[ArrayLike, ""],
    weight: Float[ArrayLike, ""],
) -> Float[Array, ""]:
    """J + λ times the mean of log π(a|s) over the legal actions of all states that do not end an
    episode, []  (the relative entropy from the uniform policy; Agarwal et al. 2021, 1908.00261,
    section 5, up to a constant).

    At a stationary point every action that is no worse than V has π ≥ 1 / A, and J is below the
    best by 2 λ / (1 - γ) · max_s d*(s) / ρ(s) at most, d* the best policy's share of visits (for ρ
    above 0, and as many legal actions in each state).

    `weight` is λ.
    """
    log_pi = jax.nn.log_softmax(of_legal(mdp, logits))
    counted = ~mdp.terminal[:, None] & jnp.isfinite(log_pi)
    barrier = jnp.mean(log_pi, where=counted)
    return discounted_return(mdp, logits, gamma) + weight * barrier
