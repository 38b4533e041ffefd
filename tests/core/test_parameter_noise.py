"""Policies whose parameters are drawn once an episode, against closed forms: E[R(θ)] of a policy
that acts by its mode is a polynomial of probabilities that one Gaussian is above another.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from scipy import stats

from pg import envs, returns, rollout
from pg.config import Config, Hyperparams
from pg.estimators import ESTIMATORS, Estimator, Params
from pg.estimators.base import policy_output
from pg.exact import tabular
from pg.networks import Network, actor, make_policy
from pg.parameter_noise import perturbed
from pg.rollout import Trajectory
from pg.train import make_train

pytestmark = pytest.mark.usefixtures("x64")
S, A, H, GAMMA, EPISODES = 3, 2, 3, 0.9, 100_000
MDP = tabular.garnet(0, S, A, branching=2, horizon=H)  # of which the last state is terminal
MEAN = np.array([[0.2, -0.1], [0.0, 0.4], [0.0, 0.0]])
LOG_STD = np.log(np.array([[0.5, 1.0], [0.7, 0.3], [1.0, 1.0]]))
PARAMS = {"mean": MEAN, "log_std": LOG_STD}


def table() -> Network:
    """The policy of a table whose logits are drawn."""
    return perturbed(tabular.table_policy(jnp.asarray(MEAN)))


def smoothed_return(params: Any) -> jax.Array:
    """E[R(θ)], θ ~ N(μ, σ²), of the policy that takes the larger of θ(s, 0) and θ(s, 1)."""
    mean, variance = params["mean"], jnp.exp(2 * params["log_std"])
    ahead = (mean[:, 1] - mean[:, 0]) / jnp.sqrt(variance.sum(1))
    total = jnp.zeros(())
    for choice in itertools.product(range(A), repeat=S - 1):
        chosen = np.array([*choice, 0])
        logits = np.where(np.eye(A)[chosen] > 0, 0.0, -np.inf)
        sign = jnp.asarray(2.0 * chosen[:-1] - 1.0)
        probability = jnp.prod(norm.cdf(sign * ahead[:-1]))
        total += probability * tabular.exact_return(MDP, logits, GAMMA)
    return total


def collect(number: int, act: Any = rollout.sample) -> tuple[Trajectory, Estimator, Params]:
    env = envs.make_env(MDP, number)
    estimator = ESTIMATORS["leave_one_out"](table(), None, Hyperparams(gamma=GAMMA))
    params = Params(jax.tree.map(jnp.asarray, PARAMS), ())
    acting = actor(table(), tabular.table_critic(jnp.zeros(S)))
    traj = rollout.episodes(env, acting, params, jax.random.key(3), act=act)
    return traj, estimator, params


def estimate(traj: Trajectory, estimator: Estimator, params: Params) -> Any:
    """ĝ as a direction of ascent, in μ and log σ."""
    weighted, _ = estimator.weigh(params, (), traj)
    return jax.tree.map(lambda x: -x, estimator.grad(params, weighted)[0].policy)


def scores(theta: np.ndarray) -> dict[str, np.ndarray]:
    """∇ log N(θ; μ, σ) in μ and log σ, [N, S, A] each."""
    scaled = (theta.reshape(-1, S, A) - MEAN) / np.exp(LOG_STD)
    return {"mean": scaled / np.exp(LOG_STD), "log_std": scaled**2 - 1}


def test_the_estimate_is_the_score_of_the_parameters_and_its_mean_the_gradient() -> None:
    traj, estimator, params = collect(EPISODES)
    found = estimate(traj, estimator, params)
    theta = np.asarray(traj.carry.policy.theta[0])
    total = np.asarray(returns.total_return(traj.reward, GAMMA))
    others = (total.sum() - total) / (EPISODES - 1)
    exact = jax.grad(smoothed_return)(params.policy)
    for name, score in scores(theta).items():
        each = (total - others)[:, None, None] * score
        np.testing.assert_allclose(found[name], each.mean(0), atol=1e-10)
        error = each.std(0) / EPISODES**0.5
        gap = np.abs(found[name] - np.asarray(exact[name]))[: S - 1]
        assert (gap < 5 * error[: S - 1]).all()
        assert np.abs(exact[name])[: S - 1].max() > 20 * error.max()


def test_an_episode_acts_by_the_mode_of_its_own_parameters() -> None:
    """And is scored at its first step, also by other parameters, as a ratio needs."""
    traj, _, _ = collect(50)
    theta = np.asarray(traj.carry.policy.theta[0]).reshape(-1, S, A)
    states = np.asarray(traj.obs.argmax(-1))
    chosen = theta[np.arange(50)[None], states].argmax(-1)
    valid = np.asarray(traj.valid)
    np.testing.assert_array_equal(np.asarray(traj.action)[valid], chosen[valid])
    density = stats.norm.logpdf(theta, MEAN, np.exp(LOG_STD)).sum((1, 2))
    np.testing.assert_allclose(traj.log_prob[0], density, atol=1e-12)
    np.testing.assert_array_equal(traj.log_prob[1:], 0.0)
    other = {"mean": jnp.asarray(MEAN + 0.3), "log_std": jnp.asarray(LOG_STD - 0.2)}
    dist = policy_output(table(), Params(other, ()), traj)
    density = stats.norm.logpdf(theta, MEAN + 0.3, np.exp(LOG_STD - 0.2)).sum((1, 2))
    np.testing.assert_allclose(dist.log_prob(traj.action)[0], density, atol=1e-12)
    entropy = (LOG_STD + 0.5 * np.log(2 * np.pi * np.e)).sum()
    np.testing.assert_allclose(dist.entropy()[0], (entropy - 0.2 * S * A), atol=1e-12)
    np.testing.assert_array_equal(dist.entropy()[1:], 0.0)


def test_greedy_episodes_act_by_the_mean_and_have_no_score() -> None:
    traj, estimator, params = collect(50, rollout.greedy)
    states, valid = np.asarray(traj.obs.argmax(-1)), np.asarray(traj.valid)
    np.testing.assert_array_equal(np.asarray(traj.action)[valid], MEAN.argmax(-1)[states][valid])
    assert not any(x.any() for x in jax.tree.leaves(estimate(traj, estimator, params)))


def in_parameters(config: Any, env: Any) -> Network:
    return perturbed(make_policy(config, env))


def test_training_with_parameters_that_are_drawn() -> None:
    """Several seeds at once; each moves μ and log σ."""
    config = Config(
        policy=in_parameters, estimator="leave_one_out", hidden_sizes=(), num_envs=6, num_updates=2
    )
    state, metrics = jax.jit(jax.vmap(make_train(config)))(jax.random.split(jax.random.key(0), 2))
    assert np.isfinite(metrics["return"]).all()
    log_std = jax.tree.leaves(state.params.policy["log_std"])
    assert all(np.abs(x - np.log(0.3)).max() > 1e-4 for x in log_std)
    assert not np.array_equal(*log_std[-1])


def test_what_parameters_cannot_be_drawn_for() -> None:
    config = Config(policy=in_parameters, estimator="gae", collect="windows", num_envs=2)
    with pytest.raises(ValueError, match="draws parameters for each episode and so needs collect"):
        make_train(config)(jax.random.key(0))
    cells = Config(rnn="gru", num_envs=2, preset=None)
    env = envs.make_env(cells.env, 2)
    with pytest.raises(ValueError, match="without a recurrent cell"):
        perturbed(make_policy(cells, env))
