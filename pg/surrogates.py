"""Surrogates: functions of log π, per step, whose θ-gradient is an estimator's summand.

    score       ∇ (Ψ log π)              = Ψ ∇log π
    importance  ∇ (ρ Ψ)                  = ρ Ψ ∇log π,   ρ = π / π_behaviour
    clipped     ∇ min(ρ Ψ, clip(ρ) Ψ)    = the same until ρ has left [1-ε, 1+ε] in the direction of Ψ

All have one signature, so that an estimator names its own. Ψ and the behaviour's log-probability are constants:
they were computed before differentiation.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Surrogate = Callable[..., jax.Array]


def score(log_prob: jax.Array, behaviour: jax.Array, psi: jax.Array, epsilon: jax.Array | float) -> jax.Array:
    """Ψ log π, [...]  (Williams 1992). All arguments [...]; `behaviour` and `epsilon` are not used."""
    del behaviour, epsilon
    return psi * log_prob


def importance(log_prob: jax.Array, behaviour: jax.Array, psi: jax.Array, epsilon: jax.Array | float) -> jax.Array:
    """ρ Ψ, [...]  (Degris et al. 2012, 1205.4839). `epsilon` is not used."""
    del epsilon
    return jnp.exp(log_prob - behaviour) * psi


def clipped(log_prob: jax.Array, behaviour: jax.Array, psi: jax.Array, epsilon: jax.Array | float) -> jax.Array:
    """min(ρ Ψ, clip(ρ, 1-ε, 1+ε) Ψ), [...]  (Schulman et al. 2017, 1707.06347, eq. 7)."""
    ratio = jnp.exp(log_prob - behaviour)
    return jnp.minimum(ratio * psi, jnp.clip(ratio, 1 - epsilon, 1 + epsilon) * psi)
