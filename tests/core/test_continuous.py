"""Scores of continuous actions through the real rollout, against closed forms: mean and variance
agree within standard errors, and common mistakes with clipped and reparameterised actions are far
outside.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from continuous import (
    CLIPPED,
    GAIN,
    GAIN_LOG_STD,
    GAMMA,
    LOG_STD,
    MEAN,
    PLAIN,
    REGULATOR,
    SQUASHED,
    gaussian,
    linear,
)

from pg import envs, rollout
from pg.config import Config, Hyperparams
from pg.distributions import CensoredGaussian, Gaussian, TanhGaussian
from pg.estimators import ESTIMATORS, Params
from pg.exact.closed_forms import bandit, lqr
from pg.networks import Network
from pg.rollout import Trajectory
from pg.train import make_train

pytestmark = pytest.mark.usefixtures("x64")
N, BOUND, FAR = 200_000, 5.7, 20.0


def exact_value() -> Network:
    """V₀ of the regulator: exact at the first step, any function of the state at the others."""

    def apply(params: Any, carry: Any, obs: jax.Array, first: jax.Array) -> tuple[Any, jax.Array]:
        return carry, lqr.state_value(REGULATOR, GAIN, GAIN_LOG_STD, obs, 0, GAMMA)

    return Network(lambda key: (), apply)


def estimates(
    problem: Any,
    policy: Network,
    name: str = "reinforce",
    change: Callable[[Trajectory], Trajectory] = lambda traj: traj,
    **hyperparams: Any,
) -> np.ndarray:
    """The estimate of every episode, as a direction of ascent, [N, P]."""
    estimator = ESTIMATORS[name](policy, exact_value(), Hyperparams(gamma=GAMMA, **hyperparams))
    params = Params(policy.init(jax.random.key(0)), ())

    @jax.jit
    def collect_and_estimate(key: jax.Array) -> jax.Array:
        traj = change(rollout.episodes(envs.make_env(problem, N), policy, params.policy, key))

        def ascent(episode: Trajectory) -> jax.Array:
            weighted, _ = estimator.weigh(params, (), jax.tree.map(lambda x: x[:, None], episode))
            return -jnp.concatenate([x.ravel() for x in estimator.grad(params, weighted)[0].policy])

        return jax.vmap(ascent, in_axes=1)(traj)

    return np.asarray(collect_and_estimate(jax.random.key(3)))


def z_of_mean(x: np.ndarray, expected: Any) -> float:
    return float(np.abs((x.mean(0) - np.asarray(expected)) / (x.std(0, ddof=1) / N**0.5)).max())


def z_of_variance(x: np.ndarray, expected: Any) -> float:
    """With the standard error of a variance, from the fourth moment: se² = (μ₄ - σ⁴) / N."""
    centred = x - x.mean(0)
    error = np.sqrt(((centred**4).mean(0) - x.var(0) ** 2) / N)
    return float(np.abs((x.var(0, ddof=1) - np.asarray(expected)) / error).max())


BANDITS = {
    "plain": (PLAIN, gaussian(), bandit.score_moments),
    "clipped": (CLIPPED, gaussian(), bandit.score_moments),
    "censored": (CLIPPED, gaussian(-0.5, 0.6, CensoredGaussian), bandit.censored_score_moments),
    "squashed": (SQUASHED, gaussian(kind=TanhGaussian), bandit.score_moments),
}


@pytest.mark.parametrize("name", list(BANDITS))
@pytest.mark.parametrize("b", [pytest.param(0.0, marks=pytest.mark.slow), -0.8])
def test_mean_and_variance_of_the_score_are_the_closed_forms(name: str, b: float) -> None:
    problem, policy, moments = BANDITS[name]
    x = estimates(problem, policy, "constant_baseline", baseline=b)
    mean, variance = moments(problem, MEAN, LOG_STD, b)
    np.testing.assert_allclose(mean, bandit.exact_gradient(problem, MEAN, LOG_STD), atol=1e-12)
    assert z_of_mean(x, mean) < BOUND
    assert z_of_variance(x, variance) < BOUND


def test_the_law_of_the_clipped_action_has_less_variance() -> None:
    plain, censored = (
        BANDITS[name][2](CLIPPED, MEAN, LOG_STD)[1] for name in ("clipped", "censored")
    )
    assert (np.asarray(censored) < np.asarray(plain)).all()


def test_the_score_at_the_clipped_action_is_seen_to_be_wrong() -> None:
    """A buffer that stores clipped actions: its own mean in closed form, and far from the
    gradient.
    """

    def clipped(traj: Trajectory) -> Trajectory:
        return traj._replace(action=jnp.clip(traj.action, CLIPPED.low, CLIPPED.high))

    x = estimates(CLIPPED, gaussian(), change=clipped)
    assert z_of_mean(x, bandit.biased_clipped_action_moments(CLIPPED, MEAN, LOG_STD)[0]) < BOUND
    assert z_of_mean(x, bandit.exact_gradient(CLIPPED, MEAN, LOG_STD)) > FAR


def test_a_reparameterised_action_in_the_score_gives_nothing_for_the_mean() -> None:
    """d log N(μ + σε; μ, σ) / dμ = 0: what a sample that carries its derivative does to the
    theorem.
    """

    def score(mean: jax.Array, sample: str) -> jax.Array:
        dist = Gaussian(mean, jnp.full(1, LOG_STD))
        return dist.log_prob(getattr(dist, sample)(jnp.array([0.7])))

    wrong, right = (
        jax.grad(score)(jnp.array([MEAN]), way) for way in ("reparameterised", "sample")
    )
    np.testing.assert_allclose(wrong, 0.0, atol=1e-12)
    np.testing.assert_allclose(right, 0.7 * np.exp(-LOG_STD), rtol=1e-12)


def test_scores_of_tanh_actions_need_no_correction() -> None:
    """At a fixed pre-tanh sample the Jacobian has no θ-gradient; its ratios are those of the
    Gaussian.
    """
    u = jnp.array([[2.3]])
    one, other = (
        [law(jnp.array([[m]]), jnp.array([[LOG_STD]]), *rest) for m in (MEAN, 0.9)]
        for law, rest in ((Gaussian, ()), (TanhGaussian, (jnp.zeros((1, 1)), jnp.ones((1, 1)))))
    )
    ratios = [d[1].log_prob(u) - d[0].log_prob(u) for d in (one, other)]
    np.testing.assert_allclose(ratios[0], ratios[1], rtol=1e-12)


@pytest.mark.parametrize(
    "name", [pytest.param("reinforce", marks=pytest.mark.slow), "reward_to_go", "state_value"]
)
def test_the_gradient_of_a_regulator(name: str) -> None:
    gradient = np.concatenate(
        [x.ravel() for x in lqr.exact_gradient(REGULATOR, GAIN, GAIN_LOG_STD, GAMMA)]
    )
    assert z_of_mean(estimates(REGULATOR, linear(), name), gradient) < BOUND


def test_the_value_of_a_regulator_is_what_follows_on_average() -> None:
    """E[Gₜ - Vₜ(xₜ)] f(xₜ) = 0 at every time, for a handful of functions f of the state."""
    env, params = envs.make_env(REGULATOR, N), (GAIN, GAIN_LOG_STD)
    traj = jax.jit(lambda key: rollout.episodes(env, linear(), params, key))(jax.random.key(4))
    reward, to_go = np.asarray(traj.reward), np.zeros((6, N))
    for t in range(4, -1, -1):
        to_go[t] = reward[t] + GAMMA * to_go[t + 1]
    value = np.asarray(lqr.state_value(REGULATOR, GAIN, GAIN_LOG_STD, traj.obs, traj.time, GAMMA))
    for t in range(5):
        x = np.asarray(traj.obs[t])
        features = np.stack([np.ones(N), x[:, 0] ** 2, x[:, 0] * x[:, 1], x[:, 1] ** 2], axis=1)
        assert z_of_mean((to_go[t] - value[t])[:, None] * features, np.zeros(4)) < BOUND


def test_a_regulator_is_learned() -> None:
    """Two thirds of the way from the first policy's return to the best one's, by the code of
    training.
    """
    best = float(lqr.exact_return(REGULATOR, lqr.optimal_gain(REGULATOR), -20.0))
    config = Config(
        env=REGULATOR,
        estimator="leave_one_out",
        num_envs=32,
        num_updates=60,
        hidden_sizes=(8,),
        preset=None,
    )
    metrics = jax.jit(make_train(config))(jax.random.key(0), Hyperparams(learning_rate=0.02))[1]
    first, last = (
        np.asarray(metrics["return"][:5]).mean(),
        np.asarray(metrics["return"][-5:]).mean(),
    )
    assert (last - first) / (best - first) > 0.67
