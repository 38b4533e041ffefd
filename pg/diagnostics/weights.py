"""The effective sample size of weights, and the share of the returns that values explain."""

import jax
import jax.numpy as jnp

from pg import rounding


def effective_sample_size(log_weight: jax.Array) -> jax.Array:
    """(Σ w)² / Σ w² over the last axis, between 1 and N, [...]  (Kong 1992). log_weight: log w,
    [..., N], any scale.

    Of importance weights w: how many equally weighted samples would be as good. Computed in
    logarithms throughout, so that weights of e^±1000 do not overflow.
    """
    total, squares = (jax.nn.logsumexp(k * log_weight, axis=-1) for k in (1.0, 2.0))
    return jnp.exp(2.0 * total - squares)


def explained_variance(
    value: jax.Array, target: jax.Array, valid: jax.Array, *, missing: float = jnp.nan
) -> jax.Array:
    """1 - Var(target - V) / Var(target) over the valid steps, []: 1 for a perfect critic, 0 for a
    constant.

    Args:
        value: V, [T, B].
        target: [T, B].
        valid: [T, B].
        missing: stands where all targets are equal but for rounding: there is nothing to explain.
    """
    return explained_share(_variance(target - value, valid), target, valid, missing=missing)


def explained_share(
    error: jax.Array, target: jax.Array, valid: jax.Array, *, missing: float = jnp.nan
) -> jax.Array:
    """1 - error / Var(target) over the valid steps, [].

    Args:
        error: a critic's squared error, of which the variance of target - V is a part, [].
        target: [T, B].
        valid: [T, B].
        missing: stands where all targets are equal but for rounding: there is nothing to explain.
    """
    spread = _variance(target, valid)
    is_constant = rounding.equal(target, rounding.of_size(target), valid)[0, 0] | (spread <= 0)
    return jnp.where(is_constant, missing, 1.0 - error / jnp.where(is_constant, 1.0, spread))


def _variance(x: jax.Array, valid: jax.Array) -> jax.Array:
    """The variance of x [T, B] over the valid steps, []."""
    count = jnp.maximum(jnp.sum(valid), 1).astype(x.dtype)
    centred = x - jnp.sum(jnp.where(valid, x, 0.0)) / count
    return jnp.sum(jnp.where(valid, centred, 0.0) ** 2) / count
