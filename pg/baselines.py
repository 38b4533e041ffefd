"""Baselines b: what is subtracted from a return without changing the gradient's expectation.

    E[ ∇log π (R - b) ] = E[ ∇log π R ]   as long as b does not depend on the action it is subtracted for

so a baseline sees other episodes (leave-one-out), past batches (moving average) or the state (a critic that was
fitted to other data), never its own sample.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


def leave_one_out(x: jax.Array) -> jax.Array:
    """bₙ = (1/(N-1)) Σ_{m≠n} xₘ along the last axis, [..., N]  (Kool et al. 2019; Ahmadian et al. 2402.14740).

    Raises ValueError for N < 2, where no other sample exists.
    """
    n = x.shape[-1]
    if n < 2:
        raise ValueError(f"leave_one_out needs at least 2 samples on the last axis, got shape {x.shape}")
    return (jnp.sum(x, axis=-1, keepdims=True) - x) / (n - 1)


class MovingAverage(NamedTuple):
    """Exponential average of a scalar, kept without its bias correction."""

    total: jax.Array  # Σᵢ (1-β) βⁿ⁻ⁱ xᵢ
    weight: jax.Array  # Σᵢ (1-β) βⁿ⁻ⁱ = 1 - βⁿ

    @classmethod
    def start(cls) -> "MovingAverage":
        """Of nothing yet."""
        return cls(jnp.zeros(()), jnp.zeros(()))

    def value(self) -> jax.Array:
        """The average of what was seen so far, []; 0 before anything was."""
        return jnp.where(self.weight > 0, self.total / jnp.where(self.weight > 0, self.weight, 1.0), 0.0)

    def update(self, x: jax.Array, decay: jax.Array | float) -> "MovingAverage":
        """With x included. The *uncorrected* sum is carried: feeding the corrected one back diverges."""
        total = decay * self.total + (1 - decay) * x
        return MovingAverage(total, decay * self.weight + (1 - decay))
