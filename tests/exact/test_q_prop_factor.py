"""Q-Prop's factor η: means without noise, over every pair of episodes of a regulator of two steps,
and η by hand.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from continuous import GAMMA, Episodes, all_episodes, critic_off_by_error, in_x, sinusoidal_critic

from pg.config import Config, Hyperparams
from pg.estimators import FACTS, Params, q_prop_with
from pg.estimators.family import find
from pg.estimators.names import facts_of
from pg.exact.closed_forms import LQR, lqr
from pg.rollout import Trajectory

pytestmark = pytest.mark.usefixtures("x64")

PROBLEM = LQR([[0.9]], [[0.5]], [[1.0]], [[0.5]], [[0.0]], [[0.7]], 2)
K, LOG_STD = POLICY = np.array([[-0.3]]), np.array([-0.5])
ERROR = 1.0  # of the critic


@functools.cache
def episodes() -> Episodes:
    """4 nodes of each noise: exact for what is polynomial of degree 7 in an episode's own."""
    return all_episodes(PROBLEM, POLICY, num_nodes=4)


def estimate(name: str, traj: Trajectory, critic: Any = None) -> np.ndarray:
    """The ascent direction of each batch, [M, P], of trajectories with leaves [M, T, B, ...]."""
    critic = critic_off_by_error(PROBLEM, POLICY) if critic is None else critic
    estimator = find(name)(in_x(), critic, Hyperparams(gamma=GAMMA))
    params = jax.tree.map(jnp.asarray, Params(POLICY, ERROR))

    def ascent(batch: Trajectory) -> jax.Array:
        weighted, _ = estimator.weigh(params, (), batch)
        return -jnp.concatenate([x.ravel() for x in estimator.grad(params, weighted)[0].policy])

    return np.asarray(jax.jit(jax.vmap(ascent))(traj))


def pairs() -> tuple[Trajectory, np.ndarray]:
    """Every pair of episodes, leaves [M, T, 2, ...], and its weight, [M]."""
    n = len(episodes().weight)
    index = np.stack([np.repeat(np.arange(n), n), np.tile(np.arange(n), n)])
    traj = jax.tree.map(lambda x: jnp.moveaxis(x[:, index], 2, 0), episodes().traj)
    return traj, np.prod(episodes().weight[index], axis=0)


def exact_gradient() -> np.ndarray:
    return np.concatenate([np.ravel(x) for x in lqr.exact_gradient(PROBLEM, *POLICY, GAMMA)])


@pytest.mark.parametrize(
    "eta",
    [
        "adaptive",
        pytest.param("conservative", marks=pytest.mark.slow),
        pytest.param("aggressive", marks=pytest.mark.slow),
    ],
)
def test_a_factor_of_the_other_episodes_keeps_the_mean(eta: str) -> None:
    traj, weight = pairs()
    found = weight @ estimate(f"q_prop:eta={eta}", traj)
    np.testing.assert_allclose(found, exact_gradient(), rtol=1e-12, atol=1e-12)


class Parts:
    """The parts of Q-Prop along every episode, by hand from Q and its derivative: [T, M]."""

    def __init__(self, critic: Any) -> None:
        traj = episodes().traj
        _, q = critic.apply(ERROR, (), traj.obs, traj.first)
        x, a = np.asarray(traj.obs[..., :1]), np.asarray(traj.action)
        mean, std = x @ K.T, np.exp(LOG_STD)[0]
        slope = np.asarray(jax.grad(lambda a: jnp.sum(q.at(a)))(jnp.asarray(mean)))[..., 0]
        noise = (a - mean)[..., 0] / std
        reward = np.asarray(traj.reward)
        to_go = np.stack([reward[0] + GAMMA * reward[1], reward[1]])
        self.advantage = to_go - np.asarray(q.at(jnp.asarray(mean)))
        self.variate = slope * std * noise
        self.variance = slope**2 * std**2
        # by the gain and by log σ, [T, M, 2]
        self.score = np.stack([noise * x[..., 0] / std, noise**2 - 1], axis=-1)
        self.of_mean = np.stack([slope * x[..., 0], 0 * slope], axis=-1)

    def estimates(self, eta: np.ndarray) -> np.ndarray:
        """The estimates of every episode, [M, P], for η [T, M]."""
        left = (self.advantage - eta * self.variate)[..., None] * self.score
        left = left + eta[..., None] * self.of_mean
        return np.einsum("t,tmp->mp", GAMMA ** np.arange(2), left)


ETAS = {"adaptive": lambda x: x, "conservative": lambda x: 1.0 * (x > 0), "aggressive": np.sign}


@pytest.mark.parametrize(
    ("eta", "bends"),
    [
        ("adaptive", False),
        *(pytest.param(eta, True, marks=pytest.mark.slow) for eta in ETAS),
    ],
)
def test_a_factor_of_the_step_is_biased(eta: str, bends: bool) -> None:
    """By E[η (∇log π Ā - ∂Q ∇μ)], which is not 0 as η is of the same action."""
    critic = sinusoidal_critic(1) if bends else critic_off_by_error(PROBLEM, POLICY)
    alone = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0)[:, :, None], episodes().traj)
    found = estimate(f"q_prop:eta={eta}+covariance=step", alone, critic)
    parts = Parts(critic)
    expected = parts.estimates(ETAS[eta](parts.advantage * parts.variate / parts.variance))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    bias = episodes().weight @ found - exact_gradient()
    assert np.abs(bias).max() > 0.05


def test_a_factor_of_three_episodes_is_the_ratio_of_the_other_two() -> None:
    """The sum over steps and episodes of Â Ā over that of the variance of Ā."""
    index = np.array([3, 20, 45])
    traj = jax.tree.map(lambda x: x[:, index][None], episodes().traj)
    parts = Parts(critic_off_by_error(PROBLEM, POLICY))
    product = (parts.advantage * parts.variate)[:, index].sum(axis=0)
    variance = parts.variance[:, index].sum(axis=0)
    eta = (product.sum() - product) / (variance.sum() - variance)
    everywhere = np.zeros(parts.variance.shape)
    everywhere[:, index] = eta[None]
    expected = parts.estimates(everywhere)[index].mean(axis=0)
    np.testing.assert_allclose(estimate("q_prop:eta=adaptive", traj)[0], expected, rtol=1e-10)


def test_the_facts_say_which_are_biased() -> None:
    assert facts_of("q_prop:eta=adaptive").unbiased_for == "J"
    assert facts_of("q_prop:eta=adaptive+covariance=step").unbiased_for == "no"
    assert facts_of("q_prop:eta=one") == FACTS["q_prop"]
    factory = q_prop_with(eta="aggressive")
    assert facts_of(factory) == facts_of("q_prop:eta=aggressive")
    assert q_prop_with() is q_prop_with(eta="one")
    assert Config(env="Pendulum-v1", estimator=factory).to_json()["estimator"] == factory.__name__
    with pytest.raises(ValueError, match="num_envs must be at least 2"):
        Config(env="Pendulum-v1", estimator="q_prop:eta=adaptive", num_envs=1)
