"""Action distributions πθ(·|s): pytrees with batched log-density, entropy and KL.

Sampling is deterministic in a noise that does not depend on parameters, a = sample(ε), so that a
rollout can draw the noise of many steps in one call. `log_prob` scores the sample; `action` maps it
to the environment's action.

A custom distribution needs these methods: `draw, sample, mode, action, log_prob, entropy,
kl`; and `reparameterised`, the sample with its derivative, for gradients through the dynamics;
`moments`, mean and variance of each entry of the action, and `characteristic_function`, for a
critic of continuous actions; `masked`, for environments with action masks; and `noise_quantile`,
the noise from uniform numbers, for dependent noise (`pg.sampling`).
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from pg.inputs import check_key, described, numbers

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_SAMPLE = "write dist.log_prob(dist.sample(dist.draw(key)))"
_GRID = np.linspace(-8.0, 8.0, 257)  # in standard deviations; the rest is below 1e-15
_GRID_WEIGHTS = np.exp(-(_GRID**2) / 2) / np.exp(-(_GRID**2) / 2).sum()
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(64)  # ∫ e^(-x²/2) f(x) dx
_FARTHEST = 9.0  # in standard deviations; the rest is below 1e-18
_LEGENDRE = np.polynomial.legendre.leggauss(96)  # nodes and weights of ∫ f(x) dx from -1 to 1
_FLAT = 16.0  # |tanh(u)| beyond it is 1, to 3e-14
_STEEP = 2.5  # for |u| below it the poles of tanh, at ±iπ/2, are near
_BESIDE, _AMONG = (np.polynomial.legendre.leggauss(n) for n in (40, 48))  # beyond _STEEP, within

Complex = tuple[Float[Array, "*B J"], Float[Array, "*B J"]]  # real and imaginary part


def inverse_cdf(p: Float[Array, "*B A"], noise: Float[Array, "*#B"]) -> Int[Array, "*B"]:
    """The index that uniform `noise` [...] chooses with probabilities p [..., A]; int [...]."""
    cdf = jnp.cumsum(p, axis=-1)
    # Scaled by the rounded total, so that rounding can never choose an index of probability 0.
    threshold = (noise * cdf[..., -1])[..., None]
    return jnp.sum(threshold >= cdf[..., :-1], axis=-1, dtype=jnp.int32)


def inverse_cdf_of_legal(
    p: Float[Array, "*B A"], legal: Bool[Array, "*B A"], noise: Float[Array, "*#B"]
) -> Int[Array, "*B"]:
    """`inverse_cdf` among the legal indices, of which there is at least one; int [...].

    It counts legal indices only: on some devices a rounded cumulative sum is not monotone, and
    could choose an index of probability 0.
    """
    cdf = jnp.cumsum(p, axis=-1)
    threshold = (noise * cdf[..., -1])[..., None]
    number = jnp.cumsum(legal, axis=-1, dtype=jnp.int32)
    below = jnp.sum(legal & (threshold >= cdf), axis=-1, dtype=jnp.int32)
    chosen = jnp.minimum(below, number[..., -1] - 1)
    return jnp.sum(number <= chosen[..., None], axis=-1, dtype=jnp.int32)


class Categorical(NamedTuple):
    """P(a) = softmax(logits)ₐ. An action is an integer; a logit of -inf forbids it."""

    logits: Float[Array, "*B A"]
    # the legal actions, at least one; () if all are legal. Set by `masked`.
    mask: Bool[Array, "*B A"] | tuple[()] = ()

    def masked(self, mask: Shaped[Array | np.ndarray, "*B A"]) -> "Categorical":
        """The distribution given that the action is legal: others have probability 0, exactly.

        If no action is legal there is no such distribution, and all count as legal; training
        reports these steps (`on_nonfinite`).
        """
        if jnp.shape(mask)[-1:] != self.logits.shape[-1:]:
            raise ValueError(
                f"a mask must say of each of the {self.logits.shape[-1]} actions if it is legal, "
                f"got shape {list(jnp.shape(mask))}"
            )
        mask = jnp.asarray(mask) != 0  # whole numbers too
        legal = mask | ~jnp.any(mask, axis=-1, keepdims=True)
        legal = jnp.broadcast_to(legal, self.logits.shape)
        return Categorical(jnp.where(legal, self.logits, -jnp.inf), legal)

    def draw(self, key: PRNGKeyArray) -> Float[Array, "*B"]:
        """Uniform noise [...] for one sample; reads shapes only, so an abstract `self` will do."""
        check_key(key)
        return jax.random.uniform(key, self.logits.shape[:-1], self.logits.dtype)

    def noise_quantile(self, uniform: Float[Array, "*B"]) -> Float[Array, "*B"]:
        """The noise from uniform numbers in (0, 1): the numbers themselves."""
        return uniform

    def sample(self, noise: Float[Array, "*B"]) -> Int[Array, "*B"]:
        """Integers [...] by the inverse of the distribution function: one comparison per action."""
        _check_noise(noise, self.logits.shape[:-1])
        p = jax.nn.softmax(self.logits)
        if isinstance(self.mask, tuple):
            return inverse_cdf(p, noise)
        return inverse_cdf_of_legal(p, self.mask, noise)

    def mode(self) -> Int[Array, "*B"]:
        """The most probable action [...]."""
        return jnp.argmax(self.logits, axis=-1).astype(jnp.int32)

    def action(self, sample: Int[Array, "*B"]) -> Int[Array, "*B"]:
        """The action for the environment: the sample itself."""
        return sample

    def log_prob(self, sample: Int[Array, "*B"]) -> Float[Array, "*B"]:
        """log P(sample), [...]."""
        sample = _as_integers(sample, self.logits.shape[:-1])
        log_p = jax.nn.log_softmax(self.logits)
        return jnp.take_along_axis(log_p, sample[..., None].astype(jnp.int32), axis=-1)[..., 0]

    def entropy(self) -> Float[Array, "*B"]:
        """-Σₐ P(a) log P(a), exact, in nats, [...]."""
        p, log_p = self._finite()
        return -jnp.sum(p * log_p, axis=-1)

    def kl(self, other: "Categorical") -> Float[Array, "*B"]:
        """KL(self ‖ other) = Σₐ P(a) (log P(a) - log Q(a)), exact, in nats, [...].

        0 log 0 = 0; infinite, with a gradient of 0, if an action with P(a) > 0 is illegal under
        `other`.
        """
        _check_pair(self, other)
        p, log_p = self._finite()
        log_q = other._finite()[1]
        impossible = jnp.any((p > 0) & jnp.isneginf(other.logits), axis=-1)
        return jnp.where(impossible, jnp.inf, jnp.sum(p * (log_p - log_q), axis=-1))

    def _finite(self) -> tuple[Float[Array, "*B A"], Float[Array, "*B A"]]:
        """P and log P of every action, 0 for illegal ones."""
        # 0 log 0 = 0: illegal actions are masked before the softmax, so that gradients stay finite
        # too.
        allowed = ~jnp.isneginf(self.logits)
        log_p = jax.nn.log_softmax(
            jnp.where(allowed, self.logits, jnp.finfo(self.logits.dtype).min / 2)
        )
        return jnp.where(allowed, jnp.exp(log_p), 0.0), jnp.where(allowed, log_p, 0.0)


class Gaussian(NamedTuple):
    """Independent N(mean, exp(log_std)²). `log_prob` is that of the *unclipped* sample; clipping is
    part of the environment.

    Mean and log_std may have any shapes that broadcast against each other.
    """

    mean: Float[Array, "*#B #D"]
    log_std: Float[Array, "*#B #D"]

    @property
    def _shape(self) -> tuple[Any, ...]:
        """The shape of a sample, [..., D], also with a symbolic size; reads shapes only."""
        shapes = (x.shape if hasattr(x, "shape") else () for x in (self.mean, self.log_std))
        return jnp.broadcast_shapes(*shapes)

    def draw(self, key: PRNGKeyArray) -> Float[Array, "*B D"]:
        """Standard normal noise [..., D]; reads shapes only."""
        check_key(key)
        return jax.random.normal(key, self._shape, self.mean.dtype)

    def noise_quantile(self, uniform: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """The noise from uniform numbers in (0, 1): their standard normal quantiles."""
        # which jax has for floats of 32 bits and more
        wide = jnp.promote_types(uniform.dtype, jnp.float32)
        return ndtri(uniform.astype(wide)).astype(uniform.dtype)

    def reparameterised(self, noise: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """mean + std ε, [..., D], with its derivative in mean and std."""
        _check_noise(noise, self._shape)
        return self.mean + jnp.exp(self.log_std) * noise

    def sample(self, noise: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """mean + std ε, [..., D], without a gradient: the score function needs a constant
        action.
        """
        return jax.lax.stop_gradient(self.reparameterised(noise))

    def mode(self) -> Float[Array, "*B D"]:
        """The mean [..., D]."""
        return self.mean

    def action(self, sample: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """The action for the environment: the sample itself."""
        return sample

    def moments(self) -> tuple[Float[Array, "*B D"], Float[Array, "*B D"]]:
        """Mean and variance of each entry of the action, [..., D]."""
        variance = jnp.exp(2 * self.log_std)
        return jnp.broadcast_to(self.mean, self._shape), jnp.broadcast_to(variance, self._shape)

    def characteristic_function(self, frequency: Float[Array, "*B J D"]) -> Complex:
        """Real and imaginary part of E exp(i ω·a), exact, [..., J] each. frequency: ω."""
        angle = jnp.einsum("...jd,...d->...j", frequency, self.mean)
        spread = jnp.square(frequency * jnp.exp(self.log_std)[..., None, :])
        damping = jnp.exp(-0.5 * jnp.sum(spread, axis=-1))
        return damping * jnp.cos(angle), damping * jnp.sin(angle)

    def log_prob(self, sample: Float[Array, "*B D"]) -> Float[Array, "*B"]:
        """log N(sample), summed over the D dimensions, [...]."""
        sample = _as_vectors(sample, self.mean, self.log_std)
        z = (sample - self.mean) * jnp.exp(-self.log_std)
        return jnp.sum(-0.5 * z**2 - self.log_std - _LOG_SQRT_2PI, axis=-1)

    def entropy(self) -> Float[Array, "*B"]:
        """Σ_d (log σ_d + ½ log 2πe), exact, in nats, [...]."""
        of_each = jnp.broadcast_to(self.log_std + 0.5 + _LOG_SQRT_2PI, self._shape)
        return jnp.sum(of_each, axis=-1)

    def kl(self, other: "Gaussian") -> Float[Array, "*B"]:
        """KL(self ‖ other), exact, in nats, [...].

        Standard deviations may be 0 or infinite: the result is 0 for equal distributions, and
        infinite otherwise.
        """
        _check_pair(self, other)
        log_ratio = self._log_ratio(other)
        ratio = jnp.exp(2 * log_ratio)
        distance = other._standard(self.mean) ** 2
        # Where one standard deviation is 0 and the other is not, the ratio alone is infinite
        # already.
        log_ratio = jnp.where(jnp.isposinf(log_ratio), 0.0, log_ratio)
        shape = jnp.broadcast_shapes(self._shape, other._shape)
        squares, log_ratio = (
            jnp.broadcast_to(x, shape) for x in (ratio + distance - 1.0, log_ratio)
        )
        return 0.5 * jnp.sum(squares, axis=-1) - jnp.sum(log_ratio, axis=-1)

    def _log_ratio(self, other: "Gaussian") -> Float[Array, "*B D"]:
        """log σ - log σ of `other`, [..., D]; 0 where both are equal and infinite."""
        equal = jnp.isinf(self.log_std) & (self.log_std == other.log_std)
        return jnp.where(equal, 0.0, self.log_std) - jnp.where(equal, 0.0, other.log_std)

    def _standard(self, x: Float[Array, "*#B #D"]) -> Float[Array, "*B D"]:
        """(x - mean) / σ, [..., D]; 0 at the mean, also where 1 / σ is infinite."""
        scale = jnp.exp(-self.log_std)
        return (x - self.mean) * jnp.where(jnp.isinf(scale) & (x == self.mean), 0.0, scale)


class TanhGaussian(NamedTuple):
    """u ~ N(mean, exp(log_std)²), action = centre + half_width tanh(u).

    A sample is the *pre-tanh* u, which is stored: atanh of an action is infinite once tanh has
    saturated. Densities are with respect to tanh(u), the action in units of `half_width`.
    """

    mean: Float[Array, "*B D"]
    log_std: Float[Array, "*B D"]
    centre: Float[Array, "*B D"]
    half_width: Float[Array, "*B D"]

    @property
    def base(self) -> Gaussian:
        """The distribution of u."""
        return Gaussian(self.mean, self.log_std)

    def draw(self, key: PRNGKeyArray) -> Float[Array, "*B D"]:
        """Standard normal noise [..., D]; reads shapes only."""
        return self.base.draw(key)

    def noise_quantile(self, uniform: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """The standard normal noise from uniform numbers in (0, 1)."""
        return self.base.noise_quantile(uniform)

    def reparameterised(self, noise: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """The pre-tanh u, [..., D], with its derivative in mean and std."""
        return self.base.reparameterised(noise)

    def sample(self, noise: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """The pre-tanh u, [..., D]."""
        return self.base.sample(noise)

    def mode(self) -> Float[Array, "*B D"]:
        """u at the mean: the median of the action, [..., D]."""
        return self.mean

    def action(self, sample: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """centre + half_width tanh(u), [..., D]."""
        return self.centre + self.half_width * jnp.tanh(sample)

    def moments(self) -> tuple[Float[Array, "*B D"], Float[Array, "*B D"]]:
        """Mean and variance of each entry of the action, [..., D], and their derivatives in mean
        and log_std, by the trapezoid rule with 257 nodes.

        Its error decreases exponentially in the number of nodes; it is below 1e-8 for σ ≤ 4 and
        1e-6 at σ = 8 (tested). The nodes of Gauss-Hermite quadrature would be too far apart for so
        steep a tanh, and give derivatives of the wrong sign.
        """
        u = self.mean[..., None] + jnp.exp(self.log_std)[..., None] * _nodes(_GRID, self.mean)
        weights = jnp.asarray(_GRID_WEIGHTS, self.mean.dtype)
        x = jnp.tanh(u)
        mean = x @ weights
        variance = (x - mean[..., None]) ** 2 @ weights
        return self.centre + self.half_width * mean, self.half_width**2 * variance

    def characteristic_function(self, frequency: Float[Array, "*B J D"]) -> Complex:
        """Real and imaginary part of E exp(i ω·a), [..., J] each: atoms where tanh is flat, and
        128 nodes of Gauss-Legendre quadrature between them, in each entry. frequency: ω.

        The error of it and of its derivatives in mean and log_std is below 1e-10 for ω half_width
        ≤ 8 and σ from 1e-3 to e² (tested), the upper end of a head's `LOG_STD`.
        """
        cuts = _nodes([-_FLAT, -_STEEP, _STEEP, _FLAT], self.mean)
        standard = (cuts - self.mean[..., None]) * jnp.exp(-self.log_std)[..., None]
        ends = jnp.clip(standard, -_FARTHEST, _FARTHEST)
        z, within = _legendre_between(ends, (_BESIDE, _AMONG, _BESIDE))
        u = self.mean[..., None] + jnp.exp(self.log_std)[..., None] * z
        atoms = norm.cdf(standard[..., :1]), norm.cdf(-standard[..., -1:])
        weight = jnp.concatenate([atoms[0], within * norm.pdf(z), atoms[1]], axis=-1)
        flat = jnp.ones_like(standard[..., :1])
        tanh = jnp.concatenate([-flat, jnp.tanh(u), flat], axis=-1)
        action = self.centre[..., None] + self.half_width[..., None] * tanh
        return _of_points(action, weight, frequency)

    def log_prob(self, sample: Float[Array, "*B D"]) -> Float[Array, "*B"]:
        """log N(u) - Σ_d log(1 - tanh²u_d), finite for every u, [...]."""
        sample = _as_vectors(sample, self.mean, self.log_std)
        return self.base.log_prob(sample) - jnp.sum(_log_one_minus_tanh2(sample), axis=-1)

    def entropy(self) -> Float[Array, "*B"]:
        """H(u) + E[log(1 - tanh²u)], by Gauss-Hermite quadrature with 64 nodes per dimension,
        [...].

        No closed form exists; the error is below 1e-6 nats for σ ≤ 1 (tested), 2e-2 at σ = 8.
        """
        u, weights = self._quadrature()
        return self.base.entropy() + jnp.sum(_log_one_minus_tanh2(u) @ weights, axis=-1)

    def kl(self, other: "TanhGaussian") -> Float[Array, "*B"]:
        """KL(self ‖ other), exact, [...]: it is invariant under a common bijection."""
        _check_pair(self, other)
        return self.base.kl(other.base)

    def _quadrature(self) -> tuple[Float[Array, "*B D 64"], Float[Array, "64"]]:
        """Nodes u and their weights, which sum to 1."""
        u = self.mean[..., None] + jnp.exp(self.log_std)[..., None] * _nodes(_NODES, self.mean)
        return u, jnp.asarray(_WEIGHTS / _WEIGHTS.sum(), self.mean.dtype)


def _nodes(standard: Any, like: Float[Array, "*B D"]) -> Float[Array, "... K"]:
    """Standard normal nodes with leading axes to broadcast against `like`."""
    return jnp.expand_dims(jnp.asarray(standard, like.dtype), tuple(range(like.ndim)))


def _legendre_between(
    ends: Float[Array, "*B P"], rules: tuple[tuple[np.ndarray, np.ndarray], ...]
) -> tuple[Float[Array, "*B K"], Float[Array, "*B K"]]:
    """Nodes and weights of ∫ f(x) dx from the first to the last of the ends, by a quadrature rule
    on each subinterval, given for [-1, 1].
    """
    nodes, weights = [], []
    for i, rule in enumerate(rules):
        start, end = ends[..., i, None], ends[..., i + 1, None]
        x, weight = (_nodes(numbers, start[..., 0]) for numbers in rule)
        nodes.append(0.5 * (end + start) + 0.5 * (end - start) * x)
        weights.append(0.5 * (end - start) * weight)
    return jnp.concatenate(nodes, axis=-1), jnp.concatenate(weights, axis=-1)


class CensoredGaussian(NamedTuple):
    """u ~ N(mean, exp(log_std)²), action = clip(u, low, high): a distribution of the action with
    an atom at each bound.

    A sample is the *unclipped* u. All u beyond a bound are one event, with probability P(u ≤ low)
    or P(u ≥ high), whose score is the mean of the Gaussian scores beyond it, and so has less
    variance (Fujita & Maeda 2018, 1802.07564). Densities are with respect to Lebesgue measure
    between the bounds and counting measure at them.
    """

    mean: Float[Array, "*B D"]
    log_std: Float[Array, "*B D"]
    low: Float[Array, "*B D"]  # finite
    high: Float[Array, "*B D"]  # finite

    @property
    def base(self) -> Gaussian:
        """The distribution of u."""
        return Gaussian(self.mean, self.log_std)

    def draw(self, key: PRNGKeyArray) -> Float[Array, "*B D"]:
        """Standard normal noise [..., D]; reads shapes only."""
        return self.base.draw(key)

    def noise_quantile(self, uniform: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """The standard normal noise from uniform numbers in (0, 1)."""
        return self.base.noise_quantile(uniform)

    def reparameterised(self, noise: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """The unclipped u, [..., D], with its derivative in mean and std."""
        return self.base.reparameterised(noise)

    def sample(self, noise: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """The unclipped u, [..., D]."""
        return self.base.sample(noise)

    def mode(self) -> Float[Array, "*B D"]:
        """u at the mean: the median of the action, [..., D]."""
        return self.mean

    def action(self, sample: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """clip(u), [..., D]."""
        return jnp.clip(sample, self.low, self.high)

    def moments(self) -> tuple[Float[Array, "*B D"], Float[Array, "*B D"]]:
        """Mean and variance of each entry of the action, exact, [..., D]."""
        m0, m1, m2 = self._moments()
        below, above = (jnp.exp(log_p) for log_p in self._log_atoms())
        # Relative to the mean, or the bound nearest to it: differences of large numbers would
        # cancel.
        origin = jnp.clip(self.mean, self.low, self.high)
        low, high, mean = self.low - origin, self.high - origin, self.mean - origin
        std = jnp.exp(self.log_std)
        first = below * low + above * high + mean * m0 + std * m1
        inside = mean**2 * m0 + 2 * mean * std * m1 + std**2 * m2
        second = below * low**2 + above * high**2 + inside
        return origin + first, second - first**2

    def characteristic_function(self, frequency: Float[Array, "*B J D"]) -> Complex:
        """Real and imaginary part of E exp(i ω·a), [..., J] each: the atoms, and between the bounds
        96 nodes of Gauss-Legendre quadrature in each entry. frequency: ω.
        """
        bounds = [self._standard(bound) for bound in (self.low, self.high)]
        ends = jnp.clip(jnp.stack(bounds, axis=-1), -_FARTHEST, _FARTHEST)
        z, within = _legendre_between(ends, (_LEGENDRE,))
        inside = self.mean[..., None] + jnp.exp(self.log_std)[..., None] * z
        below, above = (jnp.exp(log_p)[..., None] for log_p in self._log_atoms())
        action = jnp.concatenate([self.low[..., None], inside, self.high[..., None]], axis=-1)
        weight = jnp.concatenate([below, within * norm.pdf(z), above], axis=-1)
        return _of_points(action, weight, frequency)

    def log_prob(self, sample: Float[Array, "*B D"]) -> Float[Array, "*B"]:
        """log N(u) between the bounds, log Φ beyond them, summed over the D dimensions, [...]."""
        sample = _as_vectors(sample, self.mean, self.log_std)
        inside = -0.5 * self._standard(sample) ** 2 - self.log_std - _LOG_SQRT_2PI
        below, above = self._log_atoms()
        censored = jnp.where(
            sample <= self.low, below, jnp.where(sample >= self.high, above, inside)
        )
        return jnp.sum(censored, axis=-1)

    def entropy(self) -> Float[Array, "*B"]:
        """-Σ over both atoms P log P - ∫ N log N between the bounds, exact, in nats, [...]."""
        m0, _, m2 = self._moments()
        atoms = sum(_expected(log_p, log_p) for log_p in self._log_atoms())
        log_std = jnp.where(m0 > 0, self.log_std, 0.0)
        return jnp.sum(0.5 * m2 + (log_std + _LOG_SQRT_2PI) * m0 - atoms, axis=-1)

    def kl(self, other: "CensoredGaussian") -> Float[Array, "*B"]:
        """KL(self ‖ other) of two distributions with the same bounds, exact, in nats, [...].

        Standard deviations may be 0, and there may be no probability between the bounds.
        """
        _check_pair(self, other)
        m0, m1, m2 = self._moments()
        log_ratio = self.base._log_ratio(other.base)
        # The standardised u of `other` is shift + scale z, z that of self.
        scale, shift = jnp.exp(log_ratio), other._standard(self.mean)
        bounded = (m0 > 0) & jnp.isfinite(scale) & jnp.isfinite(shift)
        scale, shift = (jnp.where(bounded, x, 0.0) for x in (scale, shift))
        square = shift**2 * m0 + 2 * shift * scale * m1 + scale**2 * m2
        inside = 0.5 * (square - m2) - jnp.where(bounded, log_ratio, 0.0) * m0
        inside = jnp.where((m0 > 0) & ~bounded, jnp.inf, inside)
        pairs = zip(self._log_atoms(), other._log_atoms(), strict=True)
        return jnp.sum(inside + sum(_expected(p, p - q) for p, q in pairs), axis=-1)

    def _standard(self, x: Float[Array, "*#B #D"]) -> Float[Array, "*B D"]:
        return self.base._standard(x)

    def _log_atoms(self) -> tuple[Float[Array, "*B D"], Float[Array, "*B D"]]:
        """log P(u ≤ low), log P(u ≥ high), each [..., D]."""
        return norm.logcdf(self._standard(self.low)), norm.logcdf(-self._standard(self.high))

    def _moments(self) -> tuple[Float[Array, "*B D"], Float[Array, "*B D"], Float[Array, "*B D"]]:
        """∫ zᵏ φ(z) dz between the bounds, z = (u - mean) / std, k = 0, 1, 2, each [..., D]."""
        a, b = self._standard(self.low), self._standard(self.high)
        density_a, density_b = norm.pdf(a), norm.pdf(b)
        # in the lower tail, where a difference of two small numbers keeps its precision
        is_above = a > 0
        m0 = norm.cdf(jnp.where(is_above, -a, b)) - norm.cdf(jnp.where(is_above, -b, a))
        # z φ(z) at both bounds; 0 if a bound is infinitely far away
        edge_a = jnp.where(density_a > 0, a * density_a, 0.0)
        edge_b = jnp.where(density_b > 0, b * density_b, 0.0)
        m2 = m0 + edge_a - edge_b
        # If the probability between the bounds rounds to 0, so do the higher moments.
        return m0, jnp.where(m0 > 0, density_a - density_b, 0.0), jnp.where(m0 > 0, m2, 0.0)


class Product(NamedTuple):
    """Independent distributions of several actions: π(a|s) = Πᵢ πᵢ(aᵢ|s). A sample is the tuple of
    their samples.
    """

    parts: tuple[Categorical | Gaussian | TanhGaussian | CensoredGaussian, ...]

    def masked(self, mask: tuple[Any, ...]) -> "Product":
        """The distribution given that every action is legal; () for a part without a mask.

        Raises ValueError for a part that has a mask and no method `masked`.
        """
        pairs = zip(self.parts, mask, strict=True)
        return Product(
            tuple(part if isinstance(x, tuple) else masked(part, x) for part, x in pairs)
        )

    def draw(self, key: PRNGKeyArray) -> tuple[Array, ...]:
        """Noise for one sample of every part; reads shapes only."""
        check_key(key)
        keys = jax.random.split(key, len(self.parts))
        return tuple(part.draw(k) for part, k in zip(self.parts, keys, strict=True))

    def noise_quantile(self, uniform: tuple[Array, ...]) -> tuple[Array, ...]:
        """The noise of every part from uniform numbers in (0, 1)."""
        return tuple(part.noise_quantile(x) for part, x in zip(self.parts, uniform, strict=True))

    def sample(self, noise: tuple[Array, ...]) -> tuple[Array, ...]:
        """The samples of the parts."""
        return tuple(part.sample(x) for part, x in zip(self.parts, noise, strict=True))

    def mode(self) -> tuple[Array, ...]:
        """The modes of the parts, which together are the mode."""
        return tuple(part.mode() for part in self.parts)

    def action(self, sample: tuple[Array, ...]) -> tuple[Array, ...]:
        """The actions for the environment."""
        return tuple(part.action(x) for part, x in zip(self.parts, sample, strict=True))

    def log_prob(self, sample: tuple[Array, ...]) -> Float[Array, "*B"]:
        """Σᵢ log πᵢ(aᵢ), [...]."""
        pairs = zip(self.parts, sample, strict=True)
        return _sum([part.log_prob(x) for part, x in pairs])

    def entropy(self) -> Float[Array, "*B"]:
        """Σᵢ H(πᵢ), in nats, [...]."""
        return _sum([part.entropy() for part in self.parts])

    def kl(self, other: "Product") -> Float[Array, "*B"]:
        """KL(self ‖ other) = Σᵢ KL(πᵢ ‖ πᵢ of `other`), in nats, [...]."""
        if not isinstance(other, Product) or len(other.parts) != len(self.parts):
            raise ValueError(
                f"kl needs two distributions of one class, got a Product of {len(self.parts)} "
                f"actions and {described(other)}"
            )
        pairs: Any = zip(self.parts, other.parts, strict=True)
        return _sum([one.kl(another) for one, another in pairs])


Distribution = Categorical | Gaussian | TanhGaussian | CensoredGaussian | Product


def _of_points(
    action: Float[Array, "*B D K"],
    weight: Float[Array, "*B D K"],
    frequency: Float[Array, "*B J D"],
) -> Complex:
    """Real and imaginary part of E exp(i ω·a), [..., J] each, for independent entries of an action
    with K points each. frequency: ω.
    """
    angle = frequency[..., None] * action[..., None, :, :]
    real, imaginary = (f(angle) * weight[..., None, :, :] for f in (jnp.cos, jnp.sin))
    return _product_of_entries(jnp.sum(real, axis=-1), jnp.sum(imaginary, axis=-1))


def _product_of_entries(real: Float[Array, "*B J D"], imaginary: Float[Array, "*B J D"]) -> Complex:
    """The product of complex numbers over the last axis."""
    product = real[..., 0], imaginary[..., 0]
    for d in range(1, real.shape[-1]):
        x, y = product
        product = (
            x * real[..., d] - y * imaginary[..., d],
            x * imaginary[..., d] + y * real[..., d],
        )
    return product


def moments(dist: Any) -> tuple[Float[Array, "*B D"], Float[Array, "*B D"]]:
    """Mean and variance of each entry of an action, [..., D], also for a custom distribution.

    Raises ValueError for a distribution without `moments`.
    """
    if not hasattr(dist, "moments"):
        raise ValueError(
            "a critic of continuous actions needs mean and variance of the policy's, and its "
            f"distribution, {described(dist)}, has no method moments()"
        )
    mean, variance = dist.moments()
    return mean, variance


def characteristic_function(dist: Any, frequency: Float[Array, "*B J D"]) -> Complex:
    """Real and imaginary part of E exp(i ω·a) of an action, [..., J] each, also for a custom
    distribution. frequency: ω.

    Raises ValueError for a distribution without `characteristic_function`.
    """
    if not hasattr(dist, "characteristic_function"):
        raise ValueError(
            "a critic that is a sum of sinusoids of the action needs E exp(i ω·a) of the policy's "
            f"actions, and its distribution, {described(dist)}, has no method "
            "characteristic_function(frequency)"
        )
    real, imaginary = dist.characteristic_function(frequency)
    return real, imaginary


def masked(dist: Any, mask: Any) -> Any:
    """The distribution given that the action is legal, also for a custom one.

    mask: see its `masked`.

    Raises ValueError for a distribution without such a method.
    """
    if not hasattr(dist, "masked"):
        raise ValueError(
            f"the environment has action masks, and the policy's distribution, {described(dist)}, "
            "has no method masked(mask): write pg.Categorical(logits), or "
            "Config(action_mask='none')"
        )
    return dist.masked(mask)


def _sum(terms: list[Float[Array, "*B"]]) -> Float[Array, "*B"]:
    """The sum of arrays of one shape."""
    return functools.reduce(jnp.add, terms)


def _check_noise(noise: Any, shape: tuple[int, ...]) -> None:
    """Raises ValueError for a key or a seed instead of noise.

    Raises it also for a shape that does not broadcast against `shape`.
    """
    if not hasattr(noise, "dtype"):
        is_noise, got = isinstance(noise, float), described(noise)
    else:
        is_noise, got = jnp.issubdtype(noise.dtype, jnp.floating), noise.dtype
    if not is_noise:
        raise ValueError(f"sample takes noise, got {got}: write dist.sample(dist.draw(key))")
    if not _broadcasts(jnp.shape(noise), shape):
        raise ValueError(f"noise must have shape {list(shape)}, got shape {list(jnp.shape(noise))}")


def _as_integers(sample: Any, shape: tuple[int, ...]) -> jax.Array:
    """Samples of categorical distributions of this batch shape, as an array.

    Raises ValueError for anything but whole numbers, and for another shape.
    """
    array = numbers("sample", sample, _SAMPLE)
    if jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"an action of a Categorical must be a whole number, got {array.dtype}")
    if array.ndim == 0:
        return jnp.broadcast_to(array, shape)
    if array.ndim != len(shape) or not _broadcasts(array.shape, shape):
        raise ValueError(
            f"sample must have shape {list(shape)}, one whole number for each distribution, "
            f"got shape {list(array.shape)}"
        )
    return array


def _as_vectors(sample: Any, mean: Any, log_std: Any) -> jax.Array:
    """Samples of distributions with this mean and width, broadcast against each other, as an array.

    Axes of size 1, and leading axes, are broadcast. Raises ValueError for anything but numbers, and
    for vectors of another size, which would broadcast to another action.
    """
    array = numbers("sample", sample, _SAMPLE)
    if array.dtype == jnp.uint32:  # a key of the old kind
        raise ValueError(f"sample must be an array of numbers, got uint32: {_SAMPLE}")
    if not jnp.shape(mean):
        raise ValueError(
            "the mean of a Gaussian must be [..., D], as in jnp.zeros(1), got one number"
        )
    shape = jnp.broadcast_shapes(jnp.shape(mean), jnp.shape(log_std))
    if array.shape[-1:] != shape[-1:] or not _broadcasts(array.shape, shape):
        raise ValueError(f"sample must have shape {list(shape)}, got shape {list(array.shape)}")
    return array


def _broadcasts(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    pairs = zip(reversed(one), reversed(other), strict=False)
    return all(n == m or 1 in (n, m) for n, m in pairs)


def _check_pair(one: Any, other: Any) -> None:
    """Raises ValueError unless both are of the same class and size: otherwise the divergence is
    undefined.
    """
    if not (isinstance(other, type(one)) or isinstance(one, type(other))):
        classes = f"{described(one)} and {described(other)}"
        raise ValueError(f"kl needs two distributions of one class, got {classes}")
    # The sizes of the logits, or of mean and log_std after broadcasting.
    count = 1 if isinstance(one, Categorical) else 2
    sizes = [jnp.broadcast_shapes(*map(jnp.shape, dist[:count]))[-1] for dist in (one, other)]
    if sizes[0] != sizes[1]:
        got = f"{sizes[0]} and {sizes[1]}"
        raise ValueError(f"kl needs as many actions, or dimensions, in both, got {got}")


def _expected(log_p: Float[Array, "*B"], x: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """P x for a possibly impossible event: 0 if P = 0, whatever x is."""
    possible = jnp.exp(log_p) > 0
    return jnp.where(possible, jnp.exp(log_p) * jnp.where(possible, x, 0.0), 0.0)


def _log_one_minus_tanh2(u: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """log(1 - tanh²u), finite for every finite u."""
    return 2.0 * (math.log(2.0) - u - jax.nn.softplus(-2.0 * u))
