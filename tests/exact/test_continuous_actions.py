"""Estimators of continuous actions with a critic Q(s, a): means and variances without noise, summed
over every episode of small regulators and bandits by quadrature.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from continuous import (
    CLIPPED,
    GAMMA,
    LOG_STD,
    MEAN,
    NOISY,
    NOISY_POLICY,
    PLAIN,
    PLANAR,
    PLANAR_POLICY,
    SQUASHED,
    Episodes,
    all_episodes,
    critic_off_by_error,
    estimates_of,
    gauss_hermite,
    gaussian,
    in_x,
    mean_of,
    one_step,
    variance_of,
    wrong_critic,
)

from pg.config import Config
from pg.distributions import CensoredGaussian, TanhGaussian
from pg.estimators import action_derivatives
from pg.estimators.facts import FACTS, ON_TABLES
from pg.estimators.names import facts_of
from pg.exact.closed_forms import LQR, bandit, lqr
from pg.layers import Quadratic
from pg.networks import Network
from pg.presets import preset
from pg.train import make_learner, make_train

pytestmark = pytest.mark.usefixtures("x64")


class Regulator(NamedTuple):
    """A regulator, its policy, and every episode."""

    problem: LQR
    policy: tuple[Any, Any]
    episodes: Episodes

    @property
    def critic(self) -> Network:
        return critic_off_by_error(self.problem, self.policy)

    @property
    def gradient(self) -> np.ndarray:
        gradients = lqr.exact_gradient(self.problem, *self.policy, GAMMA)
        return np.concatenate([np.ravel(x) for x in gradients])


@functools.cache
def regulator(on: str) -> Regulator:
    problem, policy = {"planar": (PLANAR, PLANAR_POLICY), "noisy": (NOISY, NOISY_POLICY)}[on]
    return Regulator(problem, policy, all_episodes(problem, policy))


@functools.cache
def function(name: str, on: str) -> Callable[..., np.ndarray]:
    return estimates_of(name, in_x(), regulator(on).critic)


def estimates(name: str, on: str, error: float = 0.0) -> np.ndarray:
    """The estimates of every episode, with a critic that is exact for an error of 0."""
    found = regulator(on)
    return function(name, on)(found.policy, error, found.episodes)


def by_actions(on: str, error: float) -> np.ndarray:
    """Σₜ γᵗ E ∇θ E[Q(xₜ, K xₜ + σ ε)], [P], Q the critic, the inner mean by quadrature of ε."""
    found = regulator(on)
    noise, weight = gauss_hermite(3, found.problem.action_dim)
    traj = found.episodes.traj
    _, q = found.critic.apply(error, (), traj.obs, traj.first)

    def total(policy: tuple[Any, Any]) -> jax.Array:
        def at(eps: jax.Array) -> jax.Array:
            action = traj.obs[..., :1] @ policy[0].T + (jnp.exp(policy[1]) * eps)[None, None]
            return q.at(action)

        values = jax.vmap(at)(jnp.asarray(noise))
        discount = GAMMA ** jnp.arange(len(traj.obs))
        return jnp.einsum("n,t,m,ntm->", weight, discount, found.episodes.weight, values)

    gradients = jax.grad(total)(jax.tree.map(jnp.asarray, found.policy))
    return np.concatenate([np.ravel(x) for x in gradients])


@pytest.mark.parametrize("on", ["planar", pytest.param("noisy", marks=pytest.mark.slow)])
def test_the_value_of_an_action_is_what_follows_on_average(on: str) -> None:
    """Gₜ - Qₜ(xₜ, uₜ) has the mean 0 whatever of x and u it is multiplied by, and the mean of
    Q is V.
    """
    found = regulator(on)
    traj, weight = found.episodes.traj, found.episodes.weight
    reward = np.asarray(traj.reward)
    to_go = np.stack([reward[0] + GAMMA * reward[1], reward[1]])
    _, q = found.critic.apply(0.0, (), traj.obs, traj.first)
    left = to_go - np.asarray(q.at(traj.action))
    x, u = np.asarray(traj.obs[..., :1]), np.asarray(traj.action)
    features = np.concatenate([np.ones_like(x), x, x**2, u, u**2, x * u], axis=-1)
    np.testing.assert_allclose(np.einsum("m,tm,tmf->tf", weight, left, features), 0.0, atol=1e-12)
    variance = jnp.broadcast_to(np.exp(2 * found.policy[1]), u.shape)
    v = q.mean(traj.obs[..., :1] @ jnp.asarray(found.policy[0].T), variance)
    exact = lqr.state_value(found.problem, *found.policy, traj.obs[..., :1], traj.time, GAMMA)
    np.testing.assert_allclose(v, exact, atol=1e-12)


BANDITS = {
    "gaussian": (PLAIN, gaussian()),
    "clipped by the environment": (CLIPPED, gaussian()),
    "censored": (CLIPPED, gaussian(-0.5, 0.6, CensoredGaussian)),
    "squashed": (SQUASHED, gaussian(kind=TanhGaussian)),
}
UNBIASED = ("action_dependent_baseline", "trajectory_control_variate")


@pytest.mark.parametrize(
    ("name", "on"),
    [
        ("trajectory_control_variate", "planar"),
        ("trajectory_control_variate", "noisy"),
        ("action_dependent_baseline", "planar"),
        pytest.param("action_dependent_baseline", "noisy", marks=pytest.mark.slow),
    ],
)
def test_the_mean_is_the_gradient_whatever_the_critic(name: str, on: str) -> None:
    found = regulator(on)
    for error in (0.0, 1.0):
        mean = mean_of(estimates(name, on, error), found.episodes)
        np.testing.assert_allclose(mean, found.gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("on", ["planar", pytest.param("noisy", marks=pytest.mark.slow)])
def test_every_action_by_its_value_has_the_critics_gradient(on: str) -> None:
    """The critic's gradient is ∇J where Q is exact."""
    found = regulator(on)
    for error in (0.0, 1.0):
        mean = mean_of(estimates("all_action", on, error), found.episodes)
        np.testing.assert_allclose(mean, by_actions(on, error), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(by_actions(on, 0.0), found.gradient, rtol=1e-12, atol=1e-12)
    assert np.abs(by_actions(on, 1.0) - found.gradient).max() > 0.1


CONTROL_VARIATES = ("q_prop", "stein_control_variate")
BY_DERIVATIVE = ("svg0", "deterministic_policy_gradient")


def test_every_estimator_of_continuous_actions_alone_is_judged_by_what_the_table_says() -> None:
    """An estimator that is unbiased for J is compared with ∇J for a wrong critic; any other with
    the expectation under that critic, which is another vector.
    """
    assert {*CONTROL_VARIATES, *BY_DERIVATIVE} == set(FACTS) - set(ON_TABLES)
    assert {FACTS[name].unbiased_for for name in CONTROL_VARIATES} == {"J"}
    assert {FACTS[name].unbiased_for for name in BY_DERIVATIVE} == {"no"}


@pytest.mark.parametrize("name", CONTROL_VARIATES)
def test_control_variates_of_derivatives_keep_the_mean(name: str) -> None:
    episodes = regulator("planar").episodes
    for error in (0.0, 1.0):
        mean = mean_of(estimates(name, "planar", error), episodes)
        np.testing.assert_allclose(mean, regulator("planar").gradient, rtol=1e-12, atol=1e-12)
    exact = [estimates(x, "planar") for x in (name, "action_dependent_baseline")]
    traces = [variance_of(x, episodes).sum() for x in exact]
    assert traces[1] < 0.9 * traces[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(BANDITS))
@pytest.mark.parametrize("name", CONTROL_VARIATES)
def test_control_variates_of_derivatives_take_every_distribution(name: str, kind: str) -> None:
    problem, policy = BANDITS[kind]
    episodes = one_step(problem, policy)
    function = estimates_of(name, policy, wrong_critic())
    found = function(policy.init(jax.random.key(0)), (), episodes)
    expected = bandit.exact_gradient(problem, MEAN, LOG_STD)
    np.testing.assert_allclose(mean_of(found, episodes), expected, atol=1e-11)


@pytest.mark.parametrize(
    "name",
    [
        "q_prop",
        *(pytest.param(x, marks=pytest.mark.slow) for x in ("svg0", "stein_control_variate")),
    ],
)
def test_estimators_of_derivatives_train_and_need_continuous_actions(name: str) -> None:
    """By their names alone on the environment of their presets."""
    config, h = preset(name, num_updates=3, hidden_sizes=(4,), num_envs=2)
    assert config.env == "Pendulum-v1"
    _, metrics = jax.eval_shape(make_train(config, h), jax.random.key(0))
    assert metrics["return"].shape == (3,)
    with pytest.raises(ValueError, match="and so needs one Box with one axis of them"):
        make_learner(Config(env="CartPole-v1", estimator=name))


def test_their_functions_are_those_of_the_names() -> None:
    """Those of the names from before the table, too."""
    for name in (*CONTROL_VARIATES, *BY_DERIVATIVE):
        assert facts_of(getattr(action_derivatives, name)) is FACTS[name]
    assert facts_of(action_derivatives.stein) is FACTS["stein_control_variate"]
    assert facts_of(action_derivatives.deterministic) is FACTS["deterministic_policy_gradient"]


@pytest.mark.parametrize("name", BY_DERIVATIVE)
def test_derivatives_of_a_quadratic_have_the_gradient_of_every_action_by_its_value(
    name: str,
) -> None:
    """At the mode that of the mean alone; at the action that was taken that of both."""
    episodes, of_mean = regulator("planar").episodes, PLANAR_POLICY[0].size
    for error in (0.0, 1.0):
        expected = by_actions("planar", error)
        if name == "deterministic_policy_gradient":
            expected[of_mean:] = 0.0
        found = mean_of(estimates(name, "planar", error), episodes)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_the_stochastic_gradient_tends_to_the_deterministic_one() -> None:
    """Theorem 2 of Silver et al. 2014: at a rate of σ² on a regulator; the table of the docs."""
    K, silent = NOISY_POLICY[0], np.array([-40.0])
    critic = critic_off_by_error(NOISY, (K, silent))
    by_derivative = estimates_of("deterministic_policy_gradient", in_x(), critic)
    without_noise = all_episodes(NOISY, (K, silent))
    found = by_derivative((K, silent), 0.0, without_noise)
    limit = mean_of(found, without_noise)[0]
    exact = float(lqr.exact_gradient(NOISY, K, silent, GAMMA)[0][0, 0])
    np.testing.assert_allclose(limit, exact, rtol=1e-12)
    by_score = estimates_of("reward_to_go", in_x(), critic)
    distances = []
    for std in (1.0, 0.3, 0.1, 0.03, 0.01):
        acting = K, np.log([std])
        episodes = all_episodes(NOISY, acting)
        stochastic = mean_of(by_score(acting, 0.0, episodes), episodes)[0]
        distances.append(abs(stochastic - limit) / abs(limit))
    rates = np.array(distances) / np.square([1.0, 0.3, 0.1, 0.03, 0.01])
    np.testing.assert_allclose(rates, rates[0], rtol=1e-6)
    page = (Path(__file__).parents[2] / "docs" / "science" / "estimators.md").read_text()
    assert f"| {' | '.join(f'{x:.2g}' for x in distances)} |" in page


def test_without_noise_of_the_dynamics_the_exact_critic_leaves_the_states_alone() -> None:
    """The control variate's estimate is that of every action by its value, episode by episode."""
    episodes = regulator("planar").episodes
    every, corrected, baseline = (
        estimates(name, "planar") for name in ("all_action", *reversed(UNBIASED))
    )
    np.testing.assert_allclose(corrected, every, atol=1e-12)
    traces = [variance_of(x, episodes).sum() for x in (corrected, baseline)]
    assert traces[0] < 0.7 * traces[1]


def test_noise_of_the_dynamics_is_what_the_exact_critic_leaves() -> None:
    """Per episode, γ (V(x₁) - E V(x₁)) times the score of the first action."""
    found = regulator("noisy")
    traj, (K, log_std) = found.episodes.traj, found.policy
    x0, x1 = traj.obs[0, :, :1], traj.obs[1, :, :1]
    v = lqr.state_value(found.problem, K, log_std, x1, jnp.ones(len(x1), int), GAMMA)
    _, q = found.critic.apply(0.0, (), traj.obs, traj.first)
    surprise = np.asarray(traj.reward[0] + GAMMA * v - q.at(traj.action)[0])[:, None]
    eps = (traj.action[0] - x0 @ K.T) / np.exp(log_std)[None]
    score = np.concatenate([eps * x0 / np.exp(log_std)[None], eps**2 - 1], axis=-1)
    left = estimates("trajectory_control_variate", "noisy") - estimates("all_action", "noisy")
    np.testing.assert_allclose(left, surprise * score, atol=1e-11)
    assert np.abs(left).max() > 1.0


@pytest.mark.parametrize(
    "kind",
    [
        "squashed",
        pytest.param("censored", marks=pytest.mark.slow),
        pytest.param("gaussian", marks=pytest.mark.slow),
        pytest.param("clipped by the environment", marks=pytest.mark.slow),
    ],
)
def test_every_distribution_of_actions_keeps_the_mean(kind: str) -> None:
    problem, policy = BANDITS[kind]
    episodes = one_step(problem, policy)
    function = estimates_of("trajectory_control_variate", policy, wrong_critic())
    found = function(policy.init(jax.random.key(0)), (), episodes)
    expected = bandit.exact_gradient(problem, MEAN, LOG_STD)
    np.testing.assert_allclose(mean_of(found, episodes), expected, atol=1e-11)


def off_by_a_constant() -> Network:
    """Q(a) = r(a) + its parameter, of the plain bandit."""

    def apply(offset: Any, carry: Any, obs: jax.Array, first: jax.Array) -> tuple[Any, Quadratic]:
        one = jnp.ones_like(obs)
        constant = offset * one[..., 0]
        return carry, Quadratic(constant, 0 * one, -2 * one[..., None], PLAIN.target * one)

    return Network(lambda key: (), apply)


def test_the_variance_that_an_offset_leaves_is_its_square_by_that_of_the_score() -> None:
    """Var(d ε / σ) = d² / σ² and Var(d (ε² - 1)) = 2 d², by hand; none where Q is exact."""
    policy = gaussian()
    function = estimates_of("action_dependent_baseline", policy, off_by_a_constant())
    params, episodes = policy.init(jax.random.key(0)), one_step(PLAIN, policy)
    for offset in (0.0, 0.7):
        expected = offset**2 * np.array([np.exp(-2 * LOG_STD), 2.0])
        found = variance_of(function(params, offset, episodes), episodes)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
