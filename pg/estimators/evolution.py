"""Evolution strategies: the gradient of the smoothed objective by finite differences.

    ∇ E_ε[f(θ + σε)] = E_ε[ (f(θ + σε) - f(θ - σε)) ε ] / 2σ,   ε ~ N(0, I)

Salimans et al. 2017 (1703.03864). It needs no score, no derivative and no temporal credit
assignment; its variance grows with the number of parameters.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from pg.inputs import check_function, check_key, count, numbers

Objective = Callable[[PyTree, PRNGKeyArray], Array]  # params, key -> an estimate of J, []


def antithetic(
    objective: Objective,
    params: PyTree,
    noise: Float[Array, " P"],
    key: PRNGKeyArray,
    sigma: Float[ArrayLike, ""],
) -> Float[Array, " P"]:
    """(f(θ + σε) - f(θ - σε)) ε / 2σ, [P], for one direction ε; both sides see the same key.

    On a linear f its covariance is g gᵀ + ‖g‖² I.

    Args:
        objective: f, params and key -> an estimate of J.
        params: θ; flattened as `ravel_pytree` does.
        noise: ε, [P].
        key: a random key.
        sigma: σ.

    Raises:
        ValueError: the objective does not return a scalar.
    """
    flat, unravel = ravel_pytree(params)
    up = objective(unravel(flat + sigma * noise), key)
    down = objective(unravel(flat - sigma * noise), key)
    if numbers("the objective", up).ndim:
        raise ValueError(
            f"the objective must be one number, got shape {list(up.shape)}: take the "
            f"mean over episodes"
        )
    return (up - down) / (2 * sigma) * noise


def evolution_gradient(
    objective: Objective,
    params: PyTree,
    key: PRNGKeyArray,
    num_pairs: int,
    sigma: Float[ArrayLike, ""] = 0.1,
    batch_size: int = 32,
) -> PyTree:
    """The mean of `num_pairs` antithetic differences: an ascent direction, like params.

    Unbiased for E[J(θ + σε)], which differs from J by the order of σ².

    Args:
        objective: params, key -> an estimate of J, for instance
            `lambda theta, key: returns.total_return(rollout.episodes(env, policy, theta,
            key).reward, gamma).mean()`.
        params: θ.
        key: a random key.
        num_pairs: differences to average.
        sigma: σ.
        batch_size: number of pairs evaluated at a time.

    Raises:
        ValueError: the objective does not return a scalar.
    """
    check_function(
        "objective", objective, ("params", "key"), "write a function that returns an estimate of J"
    )
    check_key(key)
    num_pairs, batch_size = count("num_pairs", num_pairs), count("batch_size", batch_size)
    flat, unravel = ravel_pytree(params)

    def pair(key: PRNGKeyArray) -> Float[Array, " P"]:
        noise_key, key = jax.random.split(key)
        noise = jax.random.normal(noise_key, flat.shape, flat.dtype)
        return antithetic(objective, params, noise, key, sigma)

    keys = jax.random.split(key, num_pairs)
    differences = jax.lax.map(pair, keys, batch_size=batch_size)
    return unravel(jnp.mean(differences, axis=0))
