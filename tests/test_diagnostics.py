"""Diagnostics by hand-made weights; exact moments are tested in test_unbiased."""

import jax.numpy as jnp
import numpy as np
import pytest

from pg.diagnostics import effective_sample_size, exact_moments
from pg.estimators import Estimator


def test_effective_sample_size() -> None:
    w = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0], [3.0, 1.0, 0.5, 0.5]])
    expected = w.sum(1) ** 2 / (w**2).sum(1)
    with np.errstate(divide="ignore"):
        log_w = jnp.asarray(np.log(w))
    np.testing.assert_allclose(effective_sample_size(log_w), expected, rtol=1e-6)
    np.testing.assert_allclose(effective_sample_size(log_w + 1000.0), expected, rtol=1e-3)  # any scale


def test_only_single_episodes_and_pairs_are_enumerated() -> None:
    with pytest.raises(ValueError, match="num_episodes must be 1 or 2, got 3"):
        exact_moments(Estimator(*[lambda *_: None] * 3), None, None, None, 3)  # type: ignore[arg-type]
