"""Baselines b, which are subtracted from a return without changing the gradient's expectation.

    E[ ∇log π (R - b) ] = E[ ∇log π R ]   if b does not depend on the action it is subtracted for

so a baseline is computed from other episodes (leave-one-out), past batches (moving average) or the
state (a critic fitted to other data), never from its own sample.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from pg import rounding
from pg.inputs import converted, floats, numbers


def _values(x: Any) -> dict[str, Any]:
    """Values of any shape, as floats."""
    return {"x": floats("x", x)}


def _samples(x: Any) -> dict[str, Any]:
    """Samples along the last axis, [..., N], as floats. Raises ValueError for N < 2."""
    samples = floats("x", x)
    if samples.ndim == 0 or samples.shape[-1] < 2:
        raise ValueError(
            f"leave_one_out needs at least 2 samples on the last axis, got shape {samples.shape}"
        )
    return {"x": samples}


def _weighted_samples(numerator: Any, denominator: Any) -> dict[str, Any]:
    """Two arrays of samples along axis 0, [N, ...], as floats.

    Raises ValueError if shapes differ, and for N < 2.
    """
    numerator, denominator = floats("numerator", numerator), floats("denominator", denominator)
    if numerator.shape != denominator.shape:
        shapes = f"{list(numerator.shape)} and {list(denominator.shape)}"
        raise ValueError(
            f"numerator and denominator must have the same shape, [N, ...], got {shapes}"
        )
    if numerator.ndim == 0 or len(numerator) < 2:
        raise ValueError(
            f"leave_one_out_ratio needs at least 2 samples on axis 0, got shape {numerator.shape}"
        )
    return {"numerator": numerator, "denominator": denominator}


def _grouped_samples(x: Any, group: Any) -> dict[str, Any]:
    """Samples [N] as floats, and the indices of their groups [N], starting from 0.

    Raises ValueError for another shape, and for indices that are not integers.
    """
    samples, number = floats("x", x), numbers("group", group)
    shape = samples.shape
    if len(shape) != 1 or number.shape != shape or not jnp.issubdtype(number.dtype, jnp.integer):
        raise ValueError(
            f"x must be [N], and group [N] the integer index of each one's group, got x "
            f"{list(shape)} and group {list(number.shape)} of {number.dtype}"
        )
    return {"x": samples, "group": numbered(number)}


def _steps(x: Any, valid: Any) -> dict[str, Any]:
    """Samples by step, [T, N], as floats, and which of them count, [T, N] bool.

    Raises ValueError for another shape, and for N < 2.
    """
    samples, counts = floats("x", x), numbers("valid", valid)
    if samples.ndim != 2 or counts.shape != samples.shape or samples.shape[1] < 2:
        raise ValueError(
            f"x must be [T, N] of at least 2 samples, and valid [T, N], got x "
            f"{list(samples.shape)} and valid {list(counts.shape)}"
        )
    return {"x": samples, "valid": counts.astype(bool)}


def numbered(group: Int[Array, " N"]) -> Int[Array, " N"]:
    """The indices of groups renumbered from 0, so that they are below N, [N]."""
    return jnp.unique(group, size=len(group), return_inverse=True)[1]


@converted(_samples, "x")
def leave_one_out(x: Float[Array, "*B N"]) -> Float[Array, "*B N"]:
    """bₙ = (1/(N-1)) Σ_{m≠n} xₘ along the last axis, [..., N]  (Kool et al. 2019; Ahmadian et al.
    2402.14740).

    Raises ValueError for N < 2, where no other sample exists.
    """
    n = x.shape[-1]
    return (jnp.sum(x, axis=-1, keepdims=True) - x) / (n - 1)


@converted(_grouped_samples, "x", "group")
def group_leave_one_out(x: Float[Array, " N"], group: Int[Array, " N"]) -> Float[Array, " N"]:
    """bₙ = the mean of x over the other members of n's group, [N]; 0 if there are none
    (2402.14740, for each prompt).

    x: [N]. group: [N] the index of each one's group.
    Raises ValueError for another shape.
    """
    others = _group_size(x, group) - 1.0
    return (_group_sum(x, group) - x) / jnp.maximum(others, 1.0)


@converted(_grouped_samples, "x", "group")
def group_mean(x: Float[Array, " N"], group: Int[Array, " N"]) -> Float[Array, " N"]:
    """The mean of x over n's group, n included, [N].

    x: [N]. group: [N] the index of each one's group.
    Raises ValueError for another shape.
    """
    return _group_sum(x, group) / _group_size(x, group)


def _group_sum(x: Float[Array, " N"], group: Int[Array, " N"]) -> Float[Array, " N"]:
    """The sum over n's group, [N]; groups are numbered from 0."""
    return jax.ops.segment_sum(x, group, len(x))[group]


def _group_size(x: Float[Array, " N"], group: Int[Array, " N"]) -> Float[Array, " N"]:
    """The number of samples in n's group, in the dtype of x, [N]."""
    return _group_sum(jnp.ones_like(x), group)


@converted(_values, "x")
def centred(x: Float[Array, "*B"], where: Bool[Array, "..."] | bool = True) -> Float[Array, "*B"]:
    """x - mean over all x in `where`, [...]; 0 elsewhere.

    Args:
        x: [...].
        where: the x that are included, broadcast against x.
    """
    where = jnp.broadcast_to(where, x.shape)
    count = jnp.maximum(jnp.sum(where), 1).astype(x.dtype)
    # twice: for numbers far from 0 the first mean has the rounding error of a large sum
    for _ in range(2):
        mean = jnp.sum(jnp.where(where, x, 0.0)) / count
        x = jnp.where(where, x - mean, 0.0)
    return x


@converted(_values, "x")
def deviation(
    x: Float[Array, "*B"],
    error: Float[Array, "..."] | float,
    where: Bool[Array, "..."] | bool = True,
) -> Float[Array, ""]:
    """Standard deviation of all x in `where`, []; infinite if all of them are equal, so that
    dividing by it gives 0.

    Args:
        x: [...].
        error: the difference that rounding may cause between equal x, broadcast against x
            (`pg.rounding`).
        where: the x that are included, broadcast against x.
    """
    where = jnp.broadcast_to(where, x.shape)
    count = jnp.maximum(jnp.sum(where), 1).astype(x.dtype)
    std = jnp.sqrt(jnp.sum(centred(x, where) ** 2) / count)
    all_equal = rounding.equal(x, error, where).reshape(())
    return jnp.where(all_equal, jnp.inf, std)


@converted(_values, "x")
def standardise(
    x: Float[Array, "*B"],
    error: Float[Array, "..."] | float,
    where: Bool[Array, "..."] | bool = True,
) -> Float[Array, "*B"]:
    """(x - mean) / std over all x in `where`, [...]; 0 elsewhere, and if all of them are equal.

    Args:
        x: [...].
        error: the difference that rounding may cause between equal x, broadcast against x
            (`pg.rounding`).
        where: the x that are included, broadcast against x.
    """
    return centred(x, where) / deviation(x, error, where)


@converted(_grouped_samples, "x", "group")
def group_centred(x: Float[Array, " N"], group: Int[Array, " N"]) -> Float[Array, " N"]:
    """xₙ - mean over n's group, n included, [N]  (Shao et al. 2024, 2402.03300, without the scale).

    x: [N]. group: [N] the index of each one's group.
    Raises ValueError for another shape.
    """
    return _group_centred(x, group)


def _group_centred(x: Float[Array, " N"], group: Int[Array, " N"]) -> Float[Array, " N"]:
    """`group_centred` for groups that are numbered from 0, [N]."""
    size = _group_size(x, group)
    # twice, as in `centred`
    for _ in range(2):
        x = x - _group_sum(x, group) / size
    return x


@converted(_grouped_samples, "x", "group")
def group_deviation(
    x: Float[Array, " N"], error: Float[Array, " N"], group: Int[Array, " N"]
) -> Float[Array, " N"]:
    """`deviation` over n's group, n included, [N]; infinite for a group of equal x  (Shao et al.
    2024, 2402.03300, section 4.1.2).

    Args:
        x: [N].
        error: the difference that rounding may cause between equal x, [N].
        group: [N] the index of each one's group.

    Raises:
        ValueError: another shape of `group`.
    """
    number = len(x)
    variance = _group_sum(_group_centred(x, group) ** 2, group) / _group_size(x, group)
    gap = jax.ops.segment_max(x, group, number) - jax.ops.segment_min(x, group, number)
    # a group with a NaN or an infinity never counts as equal, as in `rounding.equal`
    all_equal = (gap <= jax.ops.segment_max(error, group, number)) & (gap < jnp.inf)
    return jnp.where(all_equal[group], jnp.inf, jnp.sqrt(variance))


@converted(_grouped_samples, "x", "group")
def group_shrinkage(
    x: Float[Array, " N"], error: Float[Array, " N"], group: Int[Array, " N"]
) -> Float[Array, " N"]:
    """bₙ = (1-λ) (mean of x over the other members of n's group) + λ (mean of the other groups'
    means), [N], with λ = v² / (v² + s²)  (Zeng et al. 2025, 2511.03710).

    v² is the squared error of a group's mean: the unbiased variance divided by the size, averaged
    over the other groups. s² is the variance of the other groups' means, a sum of squares divided
    by their number. λ does not depend on n's own group, nor b on n. As the variance of sample means
    includes v², λ is about 1/2 if the groups' expectations are equal, and smaller if they differ.

    λ is 0, and b is `group_leave_one_out`, with fewer than two other groups, where s² would be 0
    however much groups differ, and if all x are equal within each other group. The authors' code
    has v² / (v² + s² + 1e-6), which is near 1 with one other group. If n is alone in its group, the
    mean of the others is 0.

    Args:
        x: [N].
        error: the difference that rounding may cause between equal x, [N] (`pg.rounding`).
        group: [N] the index of each one's group.

    Raises:
        ValueError: another shape of `group`.
    """
    size = _group_size(x, group)
    std = group_deviation(x, error, group)
    variance_of_mean = jnp.where(jnp.isposinf(std), 0.0, std**2) / jnp.maximum(size - 1.0, 1.0)

    def of_each_group(y: Float[Array, " N"]) -> Float[Array, " N"]:
        """A value shared by all members of a group, at the group's index; 0 for unused indices."""
        return jax.ops.segment_sum(y / size, group, len(y))

    is_group = of_each_group(jnp.ones_like(x))
    others = _spread_of_others(of_each_group(x), is_group > 0.5)
    at_least_one = jnp.maximum(others.number, 1.0)
    within = rounding.sum_of_others(of_each_group(variance_of_mean)) / at_least_one
    between = others.squares / at_least_one
    none = (others.number < 1.5) | (within == 0)
    weight = jnp.where(none, 0.0, within / jnp.where(none, 1.0, within + between))[group]
    return (1.0 - weight) * group_leave_one_out(x, group) + weight * others.mean[group]


@converted(_steps, "x", "valid")
def time_shrinkage(x: Float[Array, "T N"], valid: Bool[Array, "T N"]) -> Float[Array, "T N"]:
    """bₜₙ = (1-λₙ) Xₜₙ + λₙ (mean of Xₙ over the steps), [T, N], with Xₜₙ the mean of xₜ over the
    samples other than n, and λ = v² / (v² + s²)  (`group_shrinkage` with steps as groups).

    Means over steps include only the steps that another sample reaches. v² is the squared error of
    Xₜₙ: the unbiased variance of the others at a step, divided by their number, averaged over
    steps. s² is the variance of Xₙ over the steps, a sum of squares divided by their number. b does
    not depend on n. λ is 0 for N = 2, since a single other sample gives no variance, and if the
    others are equal.

    Args:
        x: [T, N], 0 at steps that a sample does not reach.
        valid: the steps that a sample reaches, [T, N].

    Raises:
        ValueError: fewer than two samples, or another shape of `valid`.
    """
    counted = jnp.ones(x.shape, bool)
    others = jax.vmap(_spread_of_others)(x, counted)
    free = others.number * jnp.maximum(others.number - 1.0, 1.0)
    reached = leave_one_out(valid.astype(x.dtype)) > 0
    steps = jnp.maximum(jnp.sum(reached, axis=0, keepdims=True), 1).astype(x.dtype)

    def over_steps(y: Float[Array, "T N"]) -> Float[Array, "1 N"]:
        return jnp.sum(jnp.where(reached, y, 0.0), axis=0, keepdims=True) / steps

    mean = over_steps(others.mean)
    within = over_steps(others.squares / free)
    between = over_steps((others.mean - mean) ** 2)
    none = within == 0
    weight = jnp.where(none, 0.0, within / jnp.where(none, 1.0, within + between))
    return (1.0 - weight) * others.mean + weight * mean


class _Spread(NamedTuple):
    """The number of samples, their mean, and the sum of squared distances from it: each [N]."""

    number: Float[Array, " N"]
    mean: Float[Array, " N"]
    squares: Float[Array, " N"]


def _merged(a: _Spread, b: _Spread) -> _Spread:
    """The spread of the union of two sets of samples (Chan et al. 1979)."""
    number = a.number + b.number
    share = b.number / jnp.maximum(number, 1.0)
    gap = b.mean - a.mean
    squares = a.squares + b.squares + gap**2 * a.number * share
    return _Spread(number, a.mean + gap * share, squares)


def _spread_of_others(x: Float[Array, " N"], counts: Bool[Array, " N"]) -> _Spread:
    """The spread of the included x without the n-th, for every n. The samples before and after it
    are merged, so that the result does not depend on xₙ at all.
    """
    zero = jnp.zeros_like(x)
    single = _Spread(counts.astype(x.dtype), jnp.where(counts, x, 0.0), zero)
    up_to = jax.lax.associative_scan(_merged, single)
    from_on = jax.lax.associative_scan(_merged, single, reverse=True)
    nothing = jnp.zeros_like(x[:1])
    before = jax.tree.map(lambda y: jnp.concatenate([nothing, y[:-1]]), up_to)
    after = jax.tree.map(lambda y: jnp.concatenate([y[1:], nothing]), from_on)
    return _merged(before, after)


@converted(_weighted_samples, "numerator", "denominator")
def leave_one_out_ratio(
    numerator: Float[Array, "N *B"], denominator: Float[Array, "N *B"]
) -> Float[Array, "N *B"]:
    """Σ_{m≠n} numeratorₘ / Σ_{m≠n} denominatorₘ along axis 0, [N, ...]; 0 where the denominator is
    0.

    With R Z² and Z², Z the score of an episode: the variance-minimising baseline of each parameter,
    from the other episodes (Peters & Schaal 2008; Greensmith et al. 2004). Raises ValueError for N
    < 2.
    """
    top = rounding.sum_of_others(numerator, axis=0)
    bottom = rounding.sum_of_others(denominator, axis=0)
    positive = bottom > 0
    return jnp.where(positive, top / jnp.where(positive, bottom, 1.0), 0.0)


class MovingAverage(NamedTuple):
    """An exponential moving average of a scalar, stored without its bias correction."""

    total: Float[Array, ""]  # Σᵢ (1-β) βⁿ⁻ⁱ xᵢ
    weight: Float[Array, ""]  # Σᵢ (1-β) βⁿ⁻ⁱ = 1 - βⁿ

    @classmethod
    def start(cls) -> "MovingAverage":
        """The average of no samples."""
        return cls(jnp.zeros(()), jnp.zeros(()))

    def value(self) -> Float[Array, ""]:
        """The bias-corrected average of all samples so far, []; 0 before the first."""
        has_samples = self.weight > 0
        return jnp.where(has_samples, self.total / jnp.where(has_samples, self.weight, 1.0), 0.0)

    def update(
        self,
        x: Float[Array | np.floating, ""] | float,
        decay: Float[Array | np.floating, ""] | float,
    ) -> "MovingAverage":
        """The average with x included. The *uncorrected* sum is stored: feeding back the corrected
        one would diverge.
        """
        total = decay * self.total + (1 - decay) * x
        return MovingAverage(total, decay * self.weight + (1 - decay))
