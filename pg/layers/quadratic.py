"""Quadratic functions of a continuous action, as the output of a critic Q(s, a) at each state: the
mean over a policy's actions has a closed form.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from pg.distributions import moments

__all__ = ["Quadratic"]


class Quadratic(NamedTuple):
    """Q(a) = c + gᵀx + ½ xᵀH x with x = a - centre, at each state."""

    constant: Float[Array, "*B"]  # c
    slope: Float[Array, "*B D"]  # g
    curvature: Float[Array, "*B D D"]  # H, symmetric
    centre: Float[Array, "*B D"]

    def at(self, action: Float[Array, "*B D"]) -> Float[Array, "*B"]:
        """Q(a), [...], at actions [..., D]."""
        x = action - self.centre
        linear = jnp.sum(self.slope * x, axis=-1)
        squared = jnp.einsum("...i,...ij,...j->...", x, self.curvature, x)
        return self.constant + linear + 0.5 * squared

    def gradient(self, action: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """∇_a Q = g + H x, [..., D], at actions [..., D]."""
        x = action - self.centre
        return self.slope + jnp.einsum("...ij,...j->...i", self.curvature, x)

    def linear_at(self, action: Float[Array, "*B D"]) -> "Quadratic":
        """The first-order expansion of Q about actions [..., D]."""
        flat = jnp.zeros_like(self.curvature)
        return Quadratic(self.at(action), self.gradient(action), flat, action)

    def mean(
        self, mean: Float[Array, "*B D"], variance: Float[Array, "*B D"]
    ) -> Float[Array, "*B"]:
        """E[Q(a)] = Q(E a) + ½ Σᵢ Hᵢᵢ Var aᵢ, [...], of actions with independent entries.

        Args:
            mean: E a, [..., D].
            variance: Var a of each entry, [..., D].
        """
        diagonal = jnp.einsum("...ii->...i", self.curvature)
        return self.at(mean) + 0.5 * jnp.sum(diagonal * variance, axis=-1)

    def expectation(self, dist: Any) -> Float[Array, "*B"]:
        """E[Q(a)] over the actions of a distribution, [...], with its derivative in the
        distribution: exact, from the moments of the actions.

        Raises ValueError for a distribution without `moments`.
        """
        return self.mean(*moments(dist))

    def affine(
        self, scale: Float[Array, "*#B"], shift: Float[Array, "*#B"] | float = 0.0
    ) -> "Quadratic":
        """scale Q + shift, with [...] or scalar scale and shift."""
        scale = jnp.broadcast_to(scale, self.constant.shape)
        return Quadratic(
            shift + scale * self.constant,
            scale[..., None] * self.slope,
            scale[..., None, None] * self.curvature,
            self.centre,
        )
