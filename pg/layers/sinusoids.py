"""Sums of sinusoids of a continuous action, as the output of a flexible critic Q(s, a) at each
state, with a mean over a policy's actions that needs no samples.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from pg.distributions import characteristic_function
from pg.layers.quadratic import Quadratic

__all__ = ["Sinusoids"]


class Sinusoids(NamedTuple):
    """Q(a) = c + Σⱼ wⱼ sin(uⱼ·x + bⱼ) with x = a - centre, at each state.

    With enough units they approximate any continuous function on a box (a Fourier series). The mean
    of each follows from the characteristic function of the action: E sin(u·a + b) = Im(eⁱᵇ E eⁱᵘᵃ).
    """

    constant: Float[Array, "*B"]  # c
    amplitude: Float[Array, "*B J"]  # w
    frequency: Float[Array, "*B J D"]  # u, in radians by a unit of the action
    phase: Float[Array, "*B J"]  # b
    centre: Float[Array, "*B D"]

    def at(self, action: Float[Array, "*B D"]) -> Float[Array, "*B"]:
        """Q(a), [...], at actions [..., D]."""
        return self.constant + jnp.sum(self.amplitude * jnp.sin(self._angle(action)), axis=-1)

    def gradient(self, action: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """∇_a Q = Σⱼ wⱼ cos(uⱼ·x + bⱼ) uⱼ, [..., D], at actions [..., D]."""
        slope = self.amplitude * jnp.cos(self._angle(action))
        return jnp.einsum("...j,...jd->...d", slope, self.frequency)

    def linear_at(self, action: Float[Array, "*B D"]) -> Quadratic:
        """The first-order expansion of Q about actions [..., D]."""
        flat = jnp.zeros((*action.shape, action.shape[-1]), action.dtype)
        return Quadratic(self.at(action), self.gradient(action), flat, action)

    def expectation(self, dist: Any) -> Float[Array, "*B"]:
        """E[Q(a)] over the actions of a distribution with independent entries, [...], with its
        derivative in the distribution: exact for a Gaussian, by quadrature in each entry for
        others.

        Raises ValueError for a distribution without a `characteristic_function`.
        """
        real, imaginary = characteristic_function(dist, self.frequency)
        angle = self._angle(jnp.zeros_like(self.centre))
        mean = jnp.sin(angle) * real + jnp.cos(angle) * imaginary
        return self.constant + jnp.sum(self.amplitude * mean, axis=-1)

    def affine(
        self, scale: Float[Array, "*#B"], shift: Float[Array, "*#B"] | float = 0.0
    ) -> "Sinusoids":
        """scale Q + shift, with [...] or scalar scale and shift."""
        scale = jnp.broadcast_to(scale, self.constant.shape)
        return self._replace(
            constant=shift + scale * self.constant, amplitude=scale[..., None] * self.amplitude
        )

    def _angle(self, action: Float[Array, "*B D"]) -> Float[Array, "*B J"]:
        """uⱼ·x + bⱼ, [..., J]."""
        x = action - self.centre
        return jnp.einsum("...jd,...d->...j", self.frequency, x) + self.phase
