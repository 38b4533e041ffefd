"""Heads: features to action distributions and values."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, PRNGKeyArray

from pg.config import ActionDistribution
from pg.distributions import Categorical, CensoredGaussian, Gaussian, Product, TanhGaussian
from pg.envs import Box
from pg.layers.dense import dense, over_rows
from pg.layers.quadratic import Quadratic
from pg.layers.sinusoids import Sinusoids

__all__ = [
    "LOG_STD",
    "ActionValues",
    "Joint",
    "LogOdds",
    "Logits",
    "Normal",
    "QuadraticValues",
    "SinusoidalValues",
    "Value",
    "units_of_box",
]

# Bounds of a log-std that is an output of the network, in units of the box's half width: a std of
# 0.0067 to 7.4.
LOG_STD = (-5.0, 2.0)


class Logits(nn.Module):
    """A categorical policy. The final scale 0.01 starts it close to uniform."""

    num_actions: int

    @nn.compact
    def __call__(self, features: Float[Array, "*B F"]) -> Categorical:
        """features: [..., F] -> logits [..., A]."""
        return Categorical(dense(self.num_actions, 0.01)(features))


class Normal(nn.Module):
    """A Gaussian policy: mean and log-std, a parameter or an output, in units of the box's half
    width.
    """

    box: Box
    distribution: ActionDistribution
    state_dependent_std: bool
    initial_std: float = 1.0

    @nn.compact
    def __call__(
        self, features: Float[Array, "*B F"]
    ) -> Gaussian | TanhGaussian | CensoredGaussian:
        """features: [..., F] -> mean and log-std [..., D]; at the start
        N(centre, (initial_std * half width)²) or tanh(N(0, initial_std²)).
        """
        size = self.box.low.size
        mean = dense(size, 0.01)(features)
        initial = math.log(self.initial_std)
        if self.state_dependent_std:
            log_std = jnp.clip(dense(size, 0.01, bias=initial)(features), *LOG_STD)
        else:
            constant = nn.initializers.constant(initial)
            log_std = self.param("log_std", constant, self.box.low.shape, mean.dtype)
            log_std = over_rows(log_std, mean.shape[:-1])
        centre, half_width = (jnp.broadcast_to(x, mean.shape) for x in units_of_box(self.box))
        if self.distribution == "squashed":
            return TanhGaussian(mean, log_std, centre, half_width)
        gaussian = Gaussian(centre + half_width * mean, log_std + jnp.log(half_width))
        if self.distribution == "censored":
            return CensoredGaussian(*gaussian, *(jnp.broadcast_to(x, mean.shape) for x in self.box))
        return gaussian


def units_of_box(box: Box) -> tuple[Float[Array, "*D"], Float[Array, "*D"]]:
    """Centre and half width of each action; 0 and 1 if it is unbounded."""
    bounded = jnp.isfinite(box.low) & jnp.isfinite(box.high)
    low, high = jnp.where(bounded, box.low, -1.0), jnp.where(bounded, box.high, 1.0)
    return (low + high) / 2, (high - low) / 2


class Joint(nn.Module):
    """A policy of several actions at once: a head for each, on the same features."""

    heads: tuple[nn.Module, ...]

    def __call__(self, features: Float[Array, "*B F"]) -> Product:
        """features: [..., F] -> the product of the heads' distributions."""
        return Product(tuple(head(features) for head in self.heads))


class Value(nn.Module):
    """A critic of states."""

    @nn.compact
    def __call__(self, features: Float[Array, "*B F"]) -> Float[Array, "*B"]:
        """features: [..., F] -> V [...]."""
        return dense(1, 1.0)(features)[..., 0]


class ActionValues(nn.Module):
    """A critic of every action. The final scale 0.01 makes initial values nearly equal."""

    num_actions: int

    @nn.compact
    def __call__(self, features: Float[Array, "*B F"]) -> Float[Array, "*B A"]:
        """features: [..., F] -> Q [..., A]."""
        return dense(self.num_actions, 0.01)(features)


class LogOdds(nn.Module):
    """log h(a|s, u) - log π(a|s) up to a constant, for a hindsight distribution h. It is initially
    0: then h is the policy, and later rewards are not credited.
    """

    num_actions: int

    @nn.compact
    def __call__(self, features: Float[Array, "*B F"]) -> Float[Array, "*B A"]:
        """features: [..., F] -> f [..., A]."""
        return dense(self.num_actions, 0.0)(features)


class QuadraticValues(nn.Module):
    """A critic of continuous actions that is quadratic in them, in units of the box's half width:
    c + gᵀx + ½ xᵀH x of any symmetric H (the advantage of NAF, 1603.00748, without its bound on H).

    The final scale 0.01 makes initial values nearly equal.
    """

    box: Box

    @nn.compact
    def __call__(self, features: Float[Array, "*B F"]) -> Quadratic:
        """features: [..., F] -> the function of an action at each state."""
        size = self.box.low.size
        rows, columns = jnp.tril_indices(size)
        constant, slope, triangle = jnp.split(
            dense(1 + size + rows.size, 0.01)(features), [1, 1 + size], axis=-1
        )
        lower = jnp.zeros((*slope.shape, size), slope.dtype).at[..., rows, columns].set(triangle)
        curvature = 0.5 * (lower + lower.mT)
        centre, half_width = (jnp.broadcast_to(x, slope.shape) for x in units_of_box(self.box))
        return Quadratic(
            constant[..., 0],
            slope / half_width,
            curvature / (half_width[..., None] * half_width[..., None, :]),
            centre,
        )


class SinusoidalValues(nn.Module):
    """A critic of continuous actions that is a sum of sinusoids of them, in units of the box's half
    width: c + Σⱼ wⱼ sin(uⱼ·x + bⱼ).

    Frequencies are initially about N(0, 1) and phases about uniform, as in random features (Rahimi
    & Recht 2007); their dependence on the state is learned. The final scale 0.01 of the amplitudes
    makes initial values nearly equal.
    """

    box: Box
    num_units: int

    @nn.compact
    def __call__(self, features: Float[Array, "*B F"]) -> Sinusoids:
        """features: [..., F] -> the function of an action at each state."""
        units, size = self.num_units, self.box.low.size
        constant, amplitude, phase, frequency = jnp.split(
            dense(1 + 2 * units + units * size, 0.01)(features),
            [1, 1 + units, 1 + 2 * units],
            axis=-1,
        )
        axes, dtype = features.shape[:-1], constant.dtype
        usual_phase = self.param("phase", _angles, (units,), dtype)
        normal = nn.initializers.normal(1.0)
        usual_frequency = self.param("frequency", normal, (units, size), dtype)
        frequency = frequency.reshape(*axes, units, size)
        frequency = over_rows(usual_frequency, axes) + frequency
        centre, half_width = (jnp.broadcast_to(x, (*axes, size)) for x in units_of_box(self.box))
        return Sinusoids(
            constant[..., 0],
            amplitude,
            frequency / half_width[..., None, :],
            over_rows(usual_phase, axes) + phase,
            centre,
        )


def _angles(
    key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> Float[Array, "..."]:
    """Uniform angles in [0, 2π)."""
    return jax.random.uniform(key, shape, dtype, maxval=2 * jnp.pi)
