"""Recurrent cells that are trained in parallel over a sequence: LRU and minGRU.

    hₜ = aₜ · hₜ₋₁ + bₜ        aₜ and bₜ functions of xₜ only

Such steps are closed under composition, so that a sequence is an associative scan of logarithmic
depth (Martin & Cundy 2018, 1709.04057). An episode's start is part of the operator (Lu et al. 2023,
2303.03982).
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Inexact, PRNGKeyArray

from pg.layers.dense import dense

__all__ = ["LRU", "MinGRU", "linear_recurrence"]

# Initial eigenvalues of the LRU: magnitudes with time constants of 10 to 1000 steps, and small
# phases, as in Orvieto et al. for long sequences.
MAGNITUDES = (0.9, 0.999)
LARGEST_PHASE = math.pi / 10


def linear_recurrence(
    a: Inexact[Array, "*T B N"],
    b: Inexact[Array, "*T B N"],
    first: Bool[Array, "*T B"],
    start: Inexact[Array, "B N"],
) -> Inexact[Array, "*T B N"]:
    """hₜ = aₜ · hₜ₋₁ + bₜ, with 0 for hₜ₋₁ at an episode's first step.

    Args:
        a: the factors, of one step [B, N] or of a sequence [T, B, N].
        b: the inputs, of the same shape.
        first: the steps at which an episode begins, [B] or [T, B].
        start: h before the first step, [B, N].
    """
    resets = first[..., None]
    if first.ndim == 1:
        return a * jnp.where(resets, 0.0, start) + b
    b = b.at[0].add(a[0] * jnp.where(resets[0], 0.0, start))
    return _scanned(jnp.where(resets, 0.0, a), b)


@jax.custom_vjp
def _scanned(a: Inexact[Array, "T B N"], b: Inexact[Array, "T B N"]) -> Inexact[Array, "T B N"]:
    """hₜ = aₜ · hₜ₋₁ + bₜ from h = 0, where a factor 0 is a reset.

    Its derivative is an explicit recurrence backward in time: JAX's own, through all levels of the
    scan, takes 1.5 times as long to compile and 2 to 3 times as long to run.
    """
    return jax.lax.associative_scan(_composed, (a, b))[1]


def _scanned_forward(a: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
    h = _scanned(a, b)
    return h, (a, h)


def _scanned_backward(residuals: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    """∂/∂hₜ = slopeₜ + aₜ₊₁ ∂/∂hₜ₊₁, which equals ∂/∂bₜ; times hₜ₋₁ it is ∂/∂aₜ."""
    a, h = residuals
    none = jnp.zeros_like(h[:1])
    later_a, earlier_h = jnp.concatenate([a[1:], none]), jnp.concatenate([none, h[:-1]])
    of_h = jax.lax.associative_scan(_composed, (later_a, slope), reverse=True)[1]
    return of_h * earlier_h, of_h


_scanned.defvjp(_scanned_forward, _scanned_backward)

_Steps = tuple[Array, Array]  # factors and inputs


def _composed(earlier: _Steps, later: _Steps) -> _Steps:
    """The composition of two steps. A factor 0 discards what came before, even if it is not
    finite.
    """
    (a, b), (later_a, later_b) = earlier, later
    is_reset = later_a == 0
    factor = jnp.where(is_reset, 0.0, later_a * a)
    return factor, jnp.where(is_reset, later_b, later_a * b + later_b)


class LRU(nn.Module):
    """The linear recurrent unit (Orvieto et al. 2023, 2303.06349): a diagonal of complex factors
    inside the unit circle, followed by a gated linear unit.
    """

    size: int

    def start(self) -> tuple[Float[Array, " size"], Float[Array, " size"]]:
        """The carry of one environment at an episode's start: the real and the imaginary part."""
        zeros = jnp.zeros(self.size)
        return zeros, zeros

    @nn.compact
    def __call__(
        self,
        carry: tuple[Float[Array, "B size"], Float[Array, "B size"]],
        x: Float[Array, "*T B F"],
        first: Bool[Array, "*T B"],
    ) -> tuple[tuple[Float[Array, "B size"], Float[Array, "B size"]], Float[Array, "*T B size"]]:
        """carry; x: [B, F] and first: [B], one step, or [T, B, F] and [T, B] -> carry, [...,
        size].
        """
        dtype = jnp.zeros(()).dtype
        decay = jnp.exp(self.param("log_decay", _log_decays, (self.size,), dtype))
        phase = self.param("phase", nn.initializers.uniform(LARGEST_PHASE), (self.size,), dtype)
        magnitude = jnp.exp(-decay)
        factor = jax.lax.complex(magnitude * jnp.cos(phase), magnitude * jnp.sin(phase))
        # √(1 - magnitude²): white noise of variance 1 gives a state of variance 1.
        gain = jnp.sqrt(-jnp.expm1(-2.0 * decay))
        gains = jnp.broadcast_to(jnp.concatenate([gain, gain]), (*first.shape, 2 * self.size))
        real, imaginary = jnp.split(gains * dense(2 * self.size, 1.0)(x), 2, axis=-1)
        b = jax.lax.complex(real, imaginary)
        h = linear_recurrence(jnp.broadcast_to(factor, b.shape), b, first, jax.lax.complex(*carry))
        state = jnp.concatenate([h.real, h.imag], axis=-1)
        last = h if first.ndim == 1 else h[-1]
        return (last.real, last.imag), _gated(state, x, self.size)


class MinGRU(nn.Module):
    """The minimal gated recurrent unit (Feng et al. 2024, 2410.01201), whose gate does not depend
    on the state, followed by a gated linear unit.
    """

    size: int

    def start(self) -> Float[Array, " size"]:
        """The carry of one environment at an episode's start."""
        return jnp.zeros(self.size)

    @nn.compact
    def __call__(
        self,
        carry: Float[Array, "B size"],
        x: Float[Array, "*T B F"],
        first: Bool[Array, "*T B"],
    ) -> tuple[Float[Array, "B size"], Float[Array, "*T B size"]]:
        """carry; x: [B, F] and first: [B], one step, or [T, B, F] and [T, B] -> carry, [...,
        size].
        """
        gate = nn.sigmoid(dense(self.size, 1.0)(x))
        candidate = dense(self.size, 1.0)(x)
        h = linear_recurrence(1.0 - gate, gate * candidate, first, carry)
        return (h if first.ndim == 1 else h[-1]), _gated(h, x, self.size)


def _gated(
    state: Float[Array, "*B N"], x: Float[Array, "*B F"], size: int
) -> Float[Array, "*B size"]:
    """A gated linear unit of state and input (Dauphin et al. 2017, 1612.08083): the nonlinearity
    that a linear recurrence lacks.
    """
    y = nn.gelu(dense(size, 1.0)(state) + dense(size, 1.0)(x))
    return y * nn.sigmoid(dense(size, 1.0)(y))


def _log_decays(key: PRNGKeyArray, shape: tuple[int, ...], dtype: jnp.dtype) -> Float[Array, " N"]:
    """log(-log |λ|) of eigenvalues λ uniform on the ring between two magnitudes."""
    low, high = MAGNITUDES
    squared = jax.random.uniform(key, shape, dtype, low**2, high**2)
    return jnp.log(-0.5 * jnp.log(squared))
