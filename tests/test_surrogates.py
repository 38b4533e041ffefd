"""Surrogates by their derivatives with respect to log π."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pg import surrogates

PSI = jnp.array([2.0, -3.0])


def slope(f: surrogates.Surrogate, log_ratio: float) -> np.ndarray:
    """d f / d log π for Ψ = (2, -3), with the behaviour's log-probability at 0."""
    x = jnp.full(2, log_ratio)
    return np.asarray(jax.grad(lambda x: f(x, jnp.zeros(2), PSI, 0.2).sum())(x))


@pytest.mark.parametrize("f", [surrogates.score, surrogates.importance, surrogates.clipped])
def test_all_are_the_policy_gradient_on_fresh_data(f: surrogates.Surrogate) -> None:
    np.testing.assert_allclose(slope(f, 0.0), PSI)


def test_importance_weighs_by_the_ratio() -> None:
    np.testing.assert_allclose(slope(surrogates.importance, 0.5), np.exp(0.5) * PSI, rtol=1e-6)


@pytest.mark.parametrize(
    ("log_ratio", "expected"),
    [
        (0.5, [0.0, -3 * np.exp(0.5)]),  # grown: no further up, but back down where Ψ < 0
        (-0.5, [2 * np.exp(-0.5), 0.0]),  # shrunk: no further down
        (0.1, [2 * np.exp(0.1), -3 * np.exp(0.1)]),  # within the range
    ],
)
def test_clipping_binds_only_in_the_direction_of_psi(log_ratio: float, expected: list[float]) -> None:
    np.testing.assert_allclose(slope(surrogates.clipped, log_ratio), expected, rtol=1e-6)
