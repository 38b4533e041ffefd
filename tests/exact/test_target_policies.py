"""Estimators that lead to a target policy: their limits as the target approaches the policy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from proofs import case, gradient
from test_unbiased import expectation

from pg.config import Hyperparams
from pg.diagnostics import exact_moments, references
from pg.diagnostics.references import Problem
from pg.estimators import ESTIMATORS
from pg.exact import tabular

pytestmark = pytest.mark.usefixtures("x64")
REGRESSIONS = ("reward_weighted_regression", "advantage_weighted_regression")


@pytest.mark.parametrize("name", REGRESSIONS)
def test_a_regression_of_a_large_scale_is_the_policy_gradient(name: str) -> None:
    """η E ĝ = ∇J + O(1 / η): exp(x / η) = 1 + x / η + ..., and 1 has the mean 0 as a weight."""
    errors = []
    for scale in (50.0, 100.0):
        setting = {"advantage_scale": scale, "ratio_bound": np.inf, "gae_lambda": 1.0}
        row = case(name, setting=setting, limit_ends=True)
        errors.append(np.abs(scale * expectation(row) - gradient(row)).max())
    assert 1e-6 < errors[1] < 0.05
    assert 1.9 < errors[0] / errors[1] < 2.1


@pytest.mark.parametrize("name", [*REGRESSIONS, "mdpo", "ppo"])
def test_at_the_target_policy_nothing_is_left_to_improve(name: str) -> None:
    """In a bandit π_old exp(r / η) / Z is a fixed point of a regression and of mirror descent, but
    not of ppo, which aims at the best arm.
    """
    reward, old, eta = np.array([0.3, -0.2, 1.0]), np.array([0.5, 0.0, -1.0]), 0.7
    mdp = tabular.bandit(reward)
    before = np.zeros((mdp.num_states, 3))
    before[0] = old
    target = before + reward / eta
    value = np.zeros(mdp.num_states)
    value[0] = np.asarray(jax.nn.softmax(jnp.asarray(old))) @ reward
    problem = Problem(mdp, target, before, value, np.zeros_like(before))
    h = Hyperparams(advantage_scale=eta, ratio_bound=np.inf, epsilon=10.0)
    estimator, params = references.build(ESTIMATORS[name], problem, "V", h)
    largest = np.abs(exact_moments(estimator, params, mdp, before)[0]).max()
    assert largest > 0.05 if name == "ppo" else largest < 1e-12
