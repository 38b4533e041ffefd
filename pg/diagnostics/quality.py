"""Statistics of a sample of gradients, with intervals: variance, signal, noise scale, cosines.

Most are functions of n, ‖ḡ‖² and Σ ‖gᵢ - ḡ‖², which are also known with any one gradient left
out; so each has the jackknife's standard error (Efron & Stein 1981) at the cost of a sum, and the
normal interval from it. Ratios of gradients that are all 0 are NaN. On the host, in 64
bits.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from pg.diagnostics.samples import Sample
from pg.reports.statistics import Estimate


def variance(sample: Sample) -> Estimate:
    """tr Σ, the variance of one gradient summed over its coordinates; of a mean of N, divide by
    N.
    """
    return _jackknife(sample, lambda count, spread, norm: spread / (count - 1.0))


def variance_by_leaf(sample: Sample) -> dict[str, float]:
    """tr Σ of each leaf of the parameters, by its path; they add up to `variance`."""
    leaves = jax.tree.leaves_with_path(sample.moments.variance)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): float(jnp.sum(x))
        for path, x in leaves
    }


def squared_norm(sample: Sample) -> Estimate:
    """‖ḡ‖² - tr Σ̂ / n, unbiased for ‖E g‖²: sometimes negative for a small signal, so do not clip
    it before averaging.
    """
    return _jackknife(sample, _signal)


def signal_to_noise(sample: Sample) -> Estimate:
    """SNR = ‖E g‖² / tr Σ of one gradient, signal as in `squared_norm`; of a mean of N, times N."""
    return _jackknife(
        sample, lambda count, spread, norm: _signal(count, spread, norm) * (count - 1.0) / spread
    )


def noise_scale(sample: Sample) -> Estimate:
    """B = tr Σ / ‖E g‖²: the number of gradients in a mean whose noise and signal have equal size.

    The simple noise scale of McCandlish et al. 2018 (1812.06162, equation 2.9). In episodes, for
    `per_episode`: the steps of one episode are not independent samples. A ratio of unbiased
    estimates; if the signal cannot be distinguished from zero it is meaningless, and its error is
    large.
    """
    return _jackknife(
        sample, lambda count, spread, norm: spread / (count - 1.0) / _signal(count, spread, norm)
    )


def noise_scale_of_two_batches(small: Any, large: Any, num_small: int, num_large: int) -> float:
    """B from the squared norms of estimates of two sizes (1812.06162, appendix A.1), in episodes.

    ‖G‖² = (N ‖g_N‖² - n ‖g_n‖²) / (N - n),  S = (‖g_n‖² - ‖g_N‖²) / (1/n - 1/N),
    B = mean S / mean ‖G‖²; NaN if all norms are 0.

    Args:
        small: ‖g‖² of batches of n episodes, a number or [K] of K pairs of batches.
        large: the same of N episodes.
        num_small: n.
        num_large: N.

    Raises:
        ValueError: not 1 ≤ n < N.
    """
    if not 1 <= num_small < num_large:
        raise ValueError(
            f"num_small must be at least 1 and below num_large, got {num_small} and {num_large}"
        )
    small, large = np.mean(np.asarray(small, float)), np.mean(np.asarray(large, float))
    signal = (num_large * large - num_small * small) / (num_large - num_small)
    noise = (small - large) / (1.0 / num_small - 1.0 / num_large)
    with _ratios_without_signal():
        return float(noise / signal)


def expected_cosine(noise_scale: Any, num_gradients: Any) -> Any:
    """1 / √(1 + B / N): about the cosine of a mean of N gradients to their expectation, for many
    parameters.
    """
    return (1.0 + np.asarray(noise_scale) / np.asarray(num_gradients)) ** -0.5


def cosine(x: PyTree, y: PyTree) -> Float[Array, ""]:
    """x·y / (‖x‖ ‖y‖) of two trees, []; NaN if one of them is 0."""
    return optax.tree.vdot(x, y) / (optax.tree.norm(x) * optax.tree.norm(y))


def cosine_to(sample: Sample) -> Estimate:
    """The mean cosine of one gradient to the reference of the sample.

    Gradients of 0 have no direction and are left out. The reference must be independent of the
    gradients.
    """
    norm = np.sqrt(_squared_norms(sample))
    cosines = np.asarray(sample.reference, float)[norm > 0] / norm[norm > 0]
    if not len(cosines):
        return Estimate(np.nan, np.nan, np.nan)
    return Estimate.of_mean(cosines)


def leave_one_out_cosine(sample: Sample) -> float:
    """The mean cosine of a gradient to the mean of the others: like `cosine_to`, without a
    reference.

    A cosine to a mean that contains the gradient itself would be about 1/√n too large.
    """
    n, c, e, norm = _parts(sample)
    inner = norm + e - (c + e) / (n - 1.0)
    lengths = np.sqrt(_squared_norms(sample) * _left_out(sample)[2])
    directed = lengths > 0
    return float(np.mean(inner[directed] / lengths[directed])) if directed.any() else np.nan


def pairwise_cosines(gradients: Any) -> Estimate:
    """The mean cosine between two independent gradients, over all pairs (Ilyas et al. 2020,
    1811.02553, figure 1).

    gradients: leaves [n, ...]; those that are 0 are left out. About the square of the cosine to the
    truth.
    Raises ValueError for fewer than three gradients.
    """
    flat = np.concatenate(
        [np.asarray(x, float).reshape(len(x), -1) for x in jax.tree.leaves(gradients)], axis=1
    )
    flat = flat[(flat != 0).any(axis=1)]
    n = len(flat)
    if n < 3:
        raise ValueError(f"pairs need at least three gradients that are not 0, got {n}")
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    to_others = (unit @ unit.sum(axis=0)) - 1.0  # [n]
    total = to_others.sum()
    left_out = (total - 2.0 * to_others) / ((n - 1) * (n - 2))
    return Estimate.from_error(float(total / (n * (n - 1))), _spread(left_out))


def _signal(count: Any, spread: Any, norm: Any) -> Any:
    return norm - spread / (count - 1.0) / count


def _jackknife(sample: Sample, statistic: Callable[[Any, Any, Any], Any]) -> Estimate:
    """A statistic of n, Σ ‖gᵢ - ḡ‖² and ‖ḡ‖², with its standard error."""
    n, c, _, norm = _parts(sample)
    if n < 3:
        raise ValueError(f"an error needs at least three gradients, got {n}")
    with _ratios_without_signal():
        value = float(statistic(n, c.sum(), norm))
        return Estimate.from_error(value, _spread(statistic(*_left_out(sample))))


def _ratios_without_signal() -> np.errstate:
    """Ratios of gradients that are all 0, or all equal: NaN or infinite, without warnings."""
    return np.errstate(divide="ignore", invalid="ignore")


def _parts(sample: Sample) -> tuple[int, np.ndarray, np.ndarray, float]:
    """n, ‖gᵢ - ḡ‖² [n], (gᵢ - ḡ)·ḡ [n], ‖ḡ‖²."""
    distance, along = np.asarray(sample.distance, float), np.asarray(sample.along, float)
    return len(distance), distance, along, float(sample.mean_squared_norm)


def _left_out(sample: Sample) -> tuple[int, np.ndarray, np.ndarray]:
    """n - 1, Σ ‖gⱼ - ḡ‖² and ‖ḡ‖² of the others, for each gradient left out, [n]."""
    n, c, e, norm = _parts(sample)
    return (
        n - 1,
        c.sum() - c * n / (n - 1),
        np.maximum(norm - 2.0 * e / (n - 1) + c / (n - 1) ** 2, 0.0),
    )


def _squared_norms(sample: Sample) -> np.ndarray:
    """‖gᵢ‖², [n]."""
    _, c, e, norm = _parts(sample)
    return np.maximum(norm + 2.0 * e + c, 0.0)


def _spread(left_out: np.ndarray) -> float:
    """The jackknife's standard error of a statistic, from its values with each gradient left
    out.
    """
    n = len(left_out)
    return float(np.sqrt((n - 1) / n * np.sum((left_out - left_out.mean()) ** 2)))
