"""Evolution strategies: the gradient of the smoothed objective, by differences alone.

    ∇ E_ε[f(θ + σε)] = E_ε[ (f(θ + σε) - f(θ - σε)) ε ] / 2σ,   ε ~ N(0, I)

Salimans et al. 2017 (1703.03864). It needs no score, no derivative and no credit over time; its
variance grows with the number of parameters.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from pg.inputs import check_function, check_key, count, numbers

Objective = Callable[[Any, jax.Array], jax.Array]  # params, key -> an estimate of J, []


def antithetic(
    objective: Objective, params: Any, noise: jax.Array, key: jax.Array, sigma: Any
) -> jax.Array:
    """(f(θ + σε) - f(θ - σε)) ε / 2σ, [P], for one direction ε = noise [P]; both sides see the same
    key.

    Parameters are flattened as `ravel_pytree` does. On a linear f its covariance is g gᵀ + ‖g‖² I.
    Raises ValueError for an objective that does not give one number.
    """
    flat, unravel = ravel_pytree(params)
    up, down = (objective(unravel(flat + side * sigma * noise), key) for side in (1.0, -1.0))
    if numbers("the objective", up).ndim:
        raise ValueError(
            f"the objective must be one number, got shape {list(up.shape)}: take the "
            f"mean over episodes"
        )
    return (up - down) / (2 * sigma) * noise


def evolution_gradient(
    objective: Objective,
    params: Any,
    key: jax.Array,
    num_pairs: int,
    sigma: Any = 0.1,
    batch_size: int = 32,
) -> Any:
    """The mean of `num_pairs` antithetic differences: of ascent, like params.

    objective: params, key -> an estimate of J, for instance
    `lambda theta, key: returns.total_return(rollout.episodes(env, policy, theta, key).reward,
    gamma).mean()`.
    Unbiased for E[J(θ + σε)], which differs from J by the order of σ². `batch_size` pairs are
        evaluated at a time.
    Raises ValueError for an objective that does not give one number.
    """
    check_function(
        "objective", objective, ("params", "key"), "write a function that returns an estimate of J"
    )
    check_key(key)
    num_pairs, batch_size = count("num_pairs", num_pairs), count("batch_size", batch_size)
    flat, unravel = ravel_pytree(params)

    def pair(key: jax.Array) -> jax.Array:
        noise_key, key = jax.random.split(key)
        return antithetic(
            objective, params, jax.random.normal(noise_key, flat.shape, flat.dtype), key, sigma
        )

    return unravel(
        jnp.mean(jax.lax.map(pair, jax.random.split(key, num_pairs), batch_size=batch_size), axis=0)
    )
