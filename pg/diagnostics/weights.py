"""The effective sample size of weights, and the share of the returns that values explain."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from pg import rounding


def effective_sample_size(log_weight: Float[Array | np.ndarray, "*B N"]) -> Float[Array, "*B"]:
    """(Σ w)² / Σ w² over the last axis, between 1 and N, [...]  (Kong 1992).

    The number of equally weighted samples that would be as good as those with importance weights w.
    In logarithms throughout, so that weights of e^±1000 do not overflow.

    Args:
        log_weight: log w, [..., N], at any scale.
    """
    log_sum = jax.nn.logsumexp(log_weight, axis=-1)
    log_sum_of_squares = jax.nn.logsumexp(2.0 * log_weight, axis=-1)
    return jnp.exp(2.0 * log_sum - log_sum_of_squares)


def explained_variance(
    value: Float[Array | np.ndarray, "T B"],
    target: Float[Array | np.ndarray, "T B"],
    valid: Bool[Array | np.ndarray, "T B"],
    *,
    missing: float = jnp.nan,
) -> Float[Array, ""]:
    """1 - Var(target - V) / Var(target) over the valid steps, []: 1 for a perfect critic, 0 for a
    constant.

    Args:
        value: V, [T, B].
        target: returns, [T, B].
        valid: the valid steps, [T, B].
        missing: the result if all targets are equal up to rounding: there is nothing to explain.
    """
    target, valid = jnp.asarray(target), jnp.asarray(valid)
    unexplained = _variance(target - value, valid)
    return explained_share(unexplained, target, valid, missing=missing)


def explained_share(
    error: Float[Array, ""],
    target: Float[Array | np.ndarray, "T B"],
    valid: Bool[Array | np.ndarray, "T B"],
    *,
    missing: float = jnp.nan,
) -> Float[Array, ""]:
    """1 - error / Var(target) over the valid steps, [].

    Args:
        error: a critic's mean squared error, which includes the variance of target - V, [].
        target: returns, [T, B].
        valid: the valid steps, [T, B].
        missing: the result if all targets are equal up to rounding: there is nothing to explain.
    """
    target, valid = jnp.asarray(target), jnp.asarray(valid)
    variance = _variance(target, valid)
    are_equal = rounding.equal(target, rounding.of_size(target), valid)[0, 0]
    unexplainable = are_equal | (variance <= 0)
    share = 1.0 - error / jnp.where(unexplainable, 1.0, variance)
    return jnp.where(unexplainable, missing, share)


def _variance(x: Float[Array, "T B"], valid: Bool[Array, "T B"]) -> Float[Array, ""]:
    """The variance of x [T, B] over the valid steps, []."""
    count = jnp.maximum(jnp.sum(valid), 1).astype(x.dtype)
    mean = jnp.sum(jnp.where(valid, x, 0.0)) / count
    centred = x - mean
    return jnp.sum(jnp.where(valid, centred, 0.0) ** 2) / count
