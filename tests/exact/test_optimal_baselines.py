"""Baselines of least variance: each estimate tends to the exact optimum, and the exact variance is
least there.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from proofs import GAMMA, H, arbitrary, corridor, discount, exact_critics, summands

from pg.baselines import time_shrinkage
from pg.config import Hyperparams
from pg.diagnostics import exact_moments, references
from pg.diagnostics.references import Problem
from pg.estimators import ESTIMATORS
from pg.estimators.facts import FACTS
from pg.estimators.optimal import norm_weighted_mean
from pg.exact import tabular

pytestmark = pytest.mark.usefixtures("x64")


def variance(name: str, problem: Problem, num_episodes: int = 1) -> float:
    """The trace of the covariance of one batch's estimate, exactly."""
    h = Hyperparams(gamma=GAMMA)
    estimator, params = references.build(ESTIMATORS[name], problem, FACTS[name].critic, h)
    moments = exact_moments(estimator, params, problem.mdp, problem.logits, num_episodes)
    return float(np.trace(moments[1]))


# The reward of a step: a constant of its own for every parameter.


def scores_up_to() -> np.ndarray:
    """Cₖ = Σ_{i≤k} ∇log πᵢ of every trajectory, [H, M, D]."""
    score = summands().score
    return score.reshape(*score.shape[:2], -1).cumsum(0)


def paid() -> np.ndarray:
    """γᵏ rₖ, [H, M, 1]."""
    return (discount() * summands().reward)[..., None]


def best_constants(weight: np.ndarray) -> np.ndarray:
    """bₖⱼ = E[γᵏ rₖ Cₖⱼ²] / E[Cₖⱼ²], [H, D], of trajectories that have these weights, [M]."""
    squared = np.einsum("m,kmd->kd", weight, scores_up_to() ** 2)
    of_reward = np.einsum("m,kmd->kd", weight, paid() * scores_up_to() ** 2)
    return np.divide(of_reward, squared, out=np.zeros_like(squared), where=squared > 0)


def variance_with(constants: Any) -> jax.Array:
    """Var Σₖ Cₖⱼ (γᵏ rₖ - bₖⱼ) of every parameter, [D], exactly. constants: bₖⱼ, [H, D]."""
    probability = summands().probability
    x = jnp.sum(scores_up_to() * (paid() - constants[:, None]), axis=0)
    return probability @ x**2 - (probability @ x) ** 2


def test_the_constants_of_other_episodes_tend_to_the_best_ones() -> None:
    """As 1/N, N the number of episodes, of which each trajectory has a fixed share."""
    copies = np.ceil(50 * summands().probability).astype(int)
    share = copies / copies.sum()
    centred = paid() - best_constants(share)[:, None]
    limit = np.einsum("m,kmd->d", share, scores_up_to() * centred)
    h = Hyperparams(gamma=GAMMA)
    factory = ESTIMATORS["optimal_time_baseline"]
    estimator, params = references.build(factory, arbitrary(), "none", h)
    distance = []
    for repeat in (1, 8):
        numbers = np.repeat(np.arange(len(copies)), repeat * copies)
        traj = jax.tree.map(lambda x, numbers=numbers: jnp.asarray(x)[:, numbers], summands().traj)
        weighted, _ = estimator.weigh(params, (), traj)
        ascent = -jax.jit(estimator.grad)(params, weighted)[0].policy
        distance.append(float(np.abs(ascent.ravel() - limit).max()))
    assert distance[0] < 0.02
    assert distance[1] < distance[0] / 7


def test_where_one_step_is_paid_its_constants_have_the_least_variance() -> None:
    """By the recursion of moments, in which a trajectory is never listed."""
    mdp = tabular.with_time_in_state(arbitrary().mdp)
    logits = np.tile(arbitrary().logits, (H + 1, 1))
    last = np.arange(mdp.num_states) // arbitrary().mdp.num_states == H - 1
    paid_last = tabular.TabularMDP(
        mdp.transition, mdp.reward * last[:, None, None], mdp.initial, mdp.terminal, H
    )
    traj, probability = tabular.enumerate_trajectories(paid_last, jnp.asarray(logits))
    pi = jax.nn.softmax(logits)
    centred = jax.nn.one_hot(traj.action, pi.shape[1]) - traj.obs @ pi
    valid = traj.valid[..., None, None]
    score = jnp.sum(jnp.where(valid, traj.obs[..., None] * centred[..., None, :], 0.0), axis=0)
    squared = score.reshape(len(probability), -1) ** 2
    reward = GAMMA ** (H - 1) * traj.reward[-1]
    bottom = probability @ squared
    best = (probability * reward) @ squared / jnp.where(bottom > 0, bottom, 1.0)

    def variances(baseline: jax.Array) -> jax.Array:
        covariance = tabular.total_return_moments(paid_last, logits, GAMMA, baseline)[1]
        return jnp.diagonal(covariance)

    slopes = jax.jit(jax.vmap(jax.jacfwd(variances)))
    np.testing.assert_allclose(jnp.diagonal(slopes(best)), 0.0, atol=1e-12)
    assert np.abs(slopes(jnp.zeros(1))).max() > 1e-2


def test_each_reward_s_best_constants_are_not_those_of_the_sum() -> None:
    """Terms of different steps are correlated: the variance of the sum is least elsewhere."""
    probability, scores = summands().probability, scores_up_to()
    of_each = best_constants(probability)
    slope = jax.grad(lambda b: variance_with(b).sum())
    assert np.abs(slope(jnp.asarray(of_each))).max() > 1e-2
    # E[Cₖ Cₗ] b = E[Cₖ Σₗ γˡ rₗ Cₗ], for every parameter
    products = np.einsum("m,kmd,lmd->dkl", probability, scores, scores)
    with_reward = np.einsum("m,kmd,md->dk", probability, scores, (paid() * scores).sum(0))
    of_sum = (np.linalg.pinv(products) @ with_reward[..., None])[..., 0].T
    np.testing.assert_allclose(slope(jnp.asarray(of_sum)), 0.0, atol=1e-12)
    of_zero = variance_with(np.zeros_like(of_each)).sum()
    assert variance_with(of_sum).sum() < 0.95 * variance_with(of_each).sum()
    assert variance_with(of_each).sum() < 0.95 * of_zero
    np.testing.assert_allclose(of_zero, variance("reward_to_go", arbitrary()), atol=1e-12)


# A state's: weighed by the norm of the score.


def test_the_norm_weighted_mean_minimises_the_second_moment() -> None:
    g = np.random.default_rng(0)
    q, logits = g.normal(size=(2, 4, 3))
    pi = np.asarray(jax.nn.softmax(logits))
    score = np.eye(3) - pi[:, None, :]

    def second_moment(b: jax.Array) -> jax.Array:
        return jnp.einsum("sa,sab->", pi * (q - b[:, None]) ** 2, score**2)

    best = norm_weighted_mean(jnp.asarray(q), jnp.asarray(pi))
    np.testing.assert_allclose(jax.grad(second_moment)(best), 0.0, atol=1e-12)
    # of two actions it weighs each by the probability of the other
    pair = pi[:, :2] / pi[:, :2].sum(1, keepdims=True)
    found = norm_weighted_mean(jnp.asarray(q[:, :2]), jnp.asarray(pair))
    np.testing.assert_allclose(found, (pair[:, ::-1] * q[:, :2]).sum(1), atol=1e-12)
    certain = norm_weighted_mean(jnp.ones((1, 2)), jnp.array([[1.0, 0.0]]))
    np.testing.assert_array_equal(certain, 0.0)


@pytest.mark.parametrize("hidden", [False, True], ids=["linear", "hidden layer"])
def test_for_linear_logits_the_weight_is_the_norm_of_the_score_of_the_parameters(
    hidden: bool,
) -> None:
    g = np.random.default_rng(1)
    obs, q = g.normal(size=4), g.normal(size=3)
    params = {"hidden": g.normal(size=(4, 4)), "out": g.normal(size=(4, 3))}

    def log_pi(params: Any) -> jax.Array:
        features = jnp.tanh(obs @ params["hidden"]) if hidden else obs
        return jax.nn.log_softmax(features @ params["out"])

    jacobian = jax.jacobian(log_pi)(params)
    squares = [jnp.sum(x**2, axis=(1, 2)) for x in jax.tree.leaves(jacobian)]
    weight = jnp.exp(log_pi(params)) * sum(squares)
    of_parameters = jnp.sum(weight * q) / jnp.sum(weight)
    of_logits = norm_weighted_mean(jnp.asarray(q), jnp.exp(log_pi(params)))
    gap = abs(float(of_parameters - of_logits))
    assert gap > 1e-3 if hidden else gap < 1e-12


def test_the_variance_is_least_at_the_best_baseline_of_states() -> None:
    """With the time in the state no parameter is at two steps, and the variance of the sum is the
    sum of the variances.
    """
    problem = exact_critics()
    pi = jax.nn.softmax(problem.logits)
    best = norm_weighted_mean(jnp.asarray(problem.q), pi)

    @jax.jit
    def trace(baseline: jax.Array) -> jax.Array:
        moments = tabular.reward_to_go_moments(problem.mdp, problem.logits, GAMMA, baseline)
        return jnp.trace(moments[1])

    slope = jax.jit(jax.grad(trace))
    np.testing.assert_allclose(slope(best), 0.0, atol=1e-12)
    np.testing.assert_allclose(trace(best), variance("optimal_state_baseline", problem), atol=1e-12)
    assert np.abs(slope(jnp.asarray(problem.v))).max() > 1e-3
    assert trace(best) < 0.5 * trace(problem.v)


@pytest.mark.slow
def test_two_actions_of_exact_values_leave_nothing_of_the_choice() -> None:
    """An estimate of one step is the gradient itself if only the action is random."""
    for means in ([1.0, 3.0], [1.0, 3.0, -2.0]):
        problem = references.with_first_values(references.arbitrary(tabular.bandit(means)), GAMMA)
        left = variance("optimal_state_baseline", problem)
        assert left < 1e-14 if len(means) == 2 else left > 1e-2
        assert variance("state_value", problem) > left + 1e-3


# Shrinkage of the means over time.


@pytest.mark.slow
def test_shrinkage_is_less_than_the_noise_that_it_removes() -> None:
    """Exactly, of batches of three; a pair says nothing of its variance, and is not shrunk."""
    for problem in (arbitrary(), corridor()):
        shrunk, plain = (
            variance(name, problem, 3) for name in ("shrunk_time_baseline", "time_baseline")
        )
        assert shrunk < 0.95 * plain


@pytest.mark.slow
def test_shrinkage_fades_as_the_batch_grows() -> None:
    """Towards the mean at each step, which is the mean of γᵗ Gₜ, as 1/N."""
    to_go = paid()[::-1, :, 0].cumsum(0)[::-1]
    copies = np.ceil(50 * summands().probability).astype(int)
    mean = to_go @ copies / copies.sum()
    distance = []
    for repeat in (1, 8):
        numbers = np.repeat(np.arange(len(copies)), repeat * copies)
        valid = summands().traj.valid[:, numbers]
        baseline = jax.jit(time_shrinkage)(jnp.asarray(to_go[:, numbers]), jnp.asarray(valid))
        distance.append(np.abs(baseline - mean[:, None]).max())
    assert distance[0] < 0.1
    assert distance[1] < distance[0] / 6
