"""Evolution strategies: their mean and covariance by quadrature over the noise, without
sampling.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mistakes import Mistake, assert_one_sentence

from pg import envs, evolution_gradient, returns, rollout
from pg.distributions import Categorical
from pg.estimators.evolution import antithetic
from pg.exact import tabular
from pg.networks import Network

pytestmark = pytest.mark.usefixtures("x64")
SLOPE, CURVATURE = jnp.array([0.7, -1.3]), jnp.array([[1.0, 0.4], [0.4, -2.0]])
KEY = jax.random.key(0)


def expectation(f: Any, nodes: int = 30) -> np.ndarray:
    """E[f(ε)] for ε ~ N(0, I) in two dimensions, by Gauss-Hermite quadrature."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    w = w / w.sum()
    grid = np.array(list(itertools.product(x, x)))
    weights = np.array([a * b for a, b in itertools.product(w, w)])
    return np.einsum("n,n...->...", weights, np.asarray(jax.vmap(f)(jnp.asarray(grid))))


@pytest.mark.parametrize("sigma", [0.1, 2.0])
def test_on_a_quadratic_it_is_the_gradient_whatever_sigma(sigma: float) -> None:
    theta = jnp.array([0.5, 0.2])

    def objective(x: jax.Array, key: jax.Array) -> jax.Array:
        return SLOPE @ x + 0.5 * x @ CURVATURE @ x

    def estimate(noise: jax.Array) -> jax.Array:
        return antithetic(objective, theta, noise, KEY, sigma)

    g = np.asarray(jax.grad(objective)(theta, KEY))
    np.testing.assert_allclose(expectation(estimate), g, atol=1e-10)
    second = expectation(lambda noise: jnp.outer(estimate(noise), estimate(noise)))
    np.testing.assert_allclose(
        second - np.outer(g, g), np.outer(g, g) + (g @ g) * np.eye(2), atol=1e-9
    )


def test_it_is_the_gradient_of_the_smoothed_return_and_not_of_the_return() -> None:
    """J of a two-armed bandit: ∇ E[J(θ + σε)] = E[∇J(θ + σε)], which differs from ∇J by the order
    of σ².
    """
    mdp, theta = tabular.bandit([1.0, 0.0]), jnp.array([0.3, -0.2])

    def objective(x: jax.Array, key: jax.Array = KEY) -> jax.Array:
        return tabular.exact_return(mdp, jnp.stack([x, jnp.zeros(2)]))

    gaps = []
    for sigma in (0.8, 0.4, 0.2):
        mean = expectation(
            lambda noise, s=sigma: antithetic(objective, theta, noise, KEY, s), nodes=60
        )
        smoothed = expectation(
            lambda noise, s=sigma: jax.grad(objective)(theta + s * noise), nodes=60
        )
        np.testing.assert_allclose(mean, smoothed, atol=1e-8)
        gaps.append(np.linalg.norm(mean - jax.grad(objective)(theta)))
    assert gaps[0] > 1e-2
    assert gaps[1] / gaps[2] == pytest.approx(4.0, rel=0.15)


@pytest.mark.slow
def test_on_the_real_rollout_with_common_random_numbers() -> None:
    """Sampled episodes of a bandit: within standard errors of the smoothed gradient, and the noise
    of the episodes is common to both sides of a difference.
    """
    mdp, sigma, pairs = tabular.bandit([1.0, 0.2, 0.0]), 0.5, 8_000
    env, theta = envs.make_env(mdp, 4), jnp.array([0.3, -0.2, 0.1])

    def apply(params: Any, carry: Any, obs: jax.Array, first: jax.Array) -> Any:
        return carry, Categorical(jnp.broadcast_to(params, (*obs.shape[:-1], 3)))

    policy = Network(lambda key: theta, apply)

    def objective(params: Any, key: jax.Array) -> jax.Array:
        return returns.total_return(rollout.episodes(env, policy, params, key).reward, 1.0).mean()

    def exact(x: jax.Array) -> jax.Array:
        return tabular.exact_return(mdp, jnp.stack([x, jnp.zeros(3)]))

    noise = jax.random.normal(jax.random.key(5), (200_000, 3))
    smoothed = np.asarray(jax.vmap(lambda e: jax.grad(exact)(theta + sigma * e))(noise)).mean(0)
    estimate = jax.jit(lambda key: evolution_gradient(objective, theta, key, pairs // 20, sigma))
    chunks = np.stack([estimate(jax.random.key(i)) for i in range(20)])
    error = chunks.std(0, ddof=1) / 20**0.5
    assert np.abs((chunks.mean(0) - smoothed) / error).max() < 5.0
    # With the same key and no move there is no difference at all.
    assert not np.asarray(antithetic(objective, theta, jnp.zeros(3), KEY, sigma)).any()


MISTAKES: dict[str, tuple[Mistake, str]] = {
    "an objective as a name": (
        lambda: evolution_gradient("return", jnp.zeros(2), KEY, 4),
        "objective must be a function of params, key, got 'return'",
    ),
    "an objective of each episode": (
        lambda: evolution_gradient(lambda params, key: jnp.zeros(3), jnp.zeros(2), KEY, 4),
        "the objective must be one number, got shape [3]: take the mean over episodes",
    ),
    "half a pair": (
        lambda: evolution_gradient(lambda params, key: params.sum(), jnp.zeros(2), KEY, 2.5),
        "num_pairs must be a whole number of at least 1, got 2.5",
    ),
    "a number for the key of evolution": (
        lambda: evolution_gradient(lambda params, key: params.sum(), jnp.zeros(2), 0, 4),
        "key must be a random key, got 0",
    ),
}


@pytest.mark.acceptance("J7", "INPUTS", "S4")
@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence(case: str) -> None:
    assert_one_sentence(*MISTAKES[case])
