"""Estimators that lead to a target policy: what they tend to where the target comes near."""

import numpy as np
import pytest
from proofs import case, gradient
from test_unbiased import expectation

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("name", ["reward_weighted_regression", "advantage_weighted_regression"])
def test_a_regression_of_a_large_scale_is_the_policy_gradient(name: str) -> None:
    """η E ĝ = ∇J + O(1 / η): exp(x / η) = 1 + x / η + ..., and 1 has the mean 0 as a weight."""
    errors = []
    for scale in (50.0, 100.0):
        setting = {"advantage_scale": scale, "ratio_bound": np.inf, "gae_lambda": 1.0}
        row = case(name, setting=setting, limit_ends=True)
        errors.append(np.abs(scale * expectation(row) - gradient(row)).max())
    assert 1e-6 < errors[1] < 0.05
    assert 1.9 < errors[0] / errors[1] < 2.1
