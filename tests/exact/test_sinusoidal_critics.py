"""Estimators of continuous actions beside a critic that is a sum of sinusoids of them: means
without noise, summed over every episode of small regulators and bandits by quadrature.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from continuous import (
    CLIPPED,
    GAMMA,
    LOG_STD,
    MEAN,
    PLAIN,
    PLANAR,
    PLANAR_POLICY,
    SQUASHED,
    Episodes,
    all_episodes,
    estimates_of,
    gauss_hermite,
    gaussian,
    in_x,
    mean_of,
    nearly_quadratic,
    one_step,
    sinusoidal_critic,
    wrong_critic,
)

from pg.distributions import CensoredGaussian, TanhGaussian
from pg.exact.closed_forms import bandit, lqr

pytestmark = pytest.mark.usefixtures("x64")

# Frequencies on the regulator are at most this; there the 6 nodes of each action's noise sum a
# sinusoid to 1e-10. On bandits there are 100 nodes and more, and frequencies up to 8.
BEND = 0.3
SLOW = pytest.mark.slow


@functools.cache
def planar() -> Episodes:
    return all_episodes(PLANAR, PLANAR_POLICY)


def mean_on_planar(name: str) -> np.ndarray:
    estimates = estimates_of(name, in_x(), sinusoidal_critic(2))
    return mean_of(estimates(PLANAR_POLICY, BEND, planar()), planar())


def by_actions() -> np.ndarray:
    """Σₜ γᵗ E ∇θ E[Q(xₜ, K xₜ + σ ε)], [P], the inner mean by 8 nodes of ε in both entries."""
    noise, weight = gauss_hermite(8, 2)
    traj = planar().traj
    _, q = sinusoidal_critic(2).apply(BEND, (), traj.obs, traj.first)

    def total(policy: tuple[Any, Any]) -> jax.Array:
        def at(eps: jax.Array) -> jax.Array:
            return q.at(traj.obs[..., :1] @ policy[0].T + (jnp.exp(policy[1]) * eps)[None, None])

        values = jax.vmap(at)(jnp.asarray(noise))
        discount = GAMMA ** jnp.arange(len(traj.obs))
        return jnp.einsum("n,t,m,ntm->", weight, discount, planar().weight, values)

    gradients = jax.grad(total)(jax.tree.map(jnp.asarray, PLANAR_POLICY))
    return np.concatenate([np.ravel(x) for x in gradients])


@pytest.mark.parametrize(
    "name",
    [
        "trajectory_control_variate",
        pytest.param("q_prop", marks=SLOW),
        pytest.param("action_dependent_baseline", marks=SLOW),
        pytest.param("stein_control_variate", marks=SLOW),
    ],
)
def test_control_variates_keep_the_mean(name: str) -> None:
    """Two actions at once, and two steps."""
    gradients = lqr.exact_gradient(PLANAR, *PLANAR_POLICY, GAMMA)
    expected = np.concatenate([np.ravel(x) for x in gradients])
    np.testing.assert_allclose(mean_on_planar(name), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["all_action", pytest.param("svg0", marks=SLOW)])
def test_every_action_by_its_value_has_the_critics_gradient(name: str) -> None:
    """Held against quadrature over both entries at once."""
    np.testing.assert_allclose(mean_on_planar(name), by_actions(), rtol=1e-10, atol=1e-10)


@SLOW
def test_the_deterministic_gradient_is_that_of_q_at_the_mean() -> None:
    """By the derivatives of Q along K alone."""
    traj = planar().traj
    _, q = sinusoidal_critic(2).apply(BEND, (), traj.obs, traj.first)
    discount = GAMMA ** np.arange(len(traj.obs))

    def total(K: jax.Array) -> jax.Array:
        return jnp.einsum("t,m,tm->", discount, planar().weight, q.at(traj.obs[..., :1] @ K.T))

    of_gain = jax.grad(total)(jnp.asarray(PLANAR_POLICY[0]))
    expected = np.concatenate([np.ravel(of_gain), np.zeros(2)])
    found = mean_on_planar("deterministic_policy_gradient")
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


BANDITS = {
    "gaussian": (PLAIN, gaussian()),
    "clipped by the environment": (CLIPPED, gaussian()),
    "censored": (CLIPPED, gaussian(-0.5, 0.6, CensoredGaussian)),
    "squashed": (SQUASHED, gaussian(kind=TanhGaussian)),
}


@SLOW
@pytest.mark.parametrize("kind", list(BANDITS))
def test_every_distribution_of_actions_keeps_the_mean(kind: str) -> None:
    """A Q that turns several times over the range of an action."""
    problem, policy = BANDITS[kind]
    episodes = one_step(problem, policy)
    function = estimates_of("trajectory_control_variate", policy, sinusoidal_critic(1))
    found = function(policy.init(jax.random.key(0)), 8.0, episodes)
    expected = bandit.exact_gradient(problem, MEAN, LOG_STD)
    np.testing.assert_allclose(mean_of(found, episodes), expected, atol=1e-10)


def test_sinusoids_of_a_low_frequency_are_a_quadratic() -> None:
    """Whose estimates theirs tend to, as the square of the frequency."""
    policy = gaussian()
    episodes = one_step(PLAIN, policy)
    params = policy.init(jax.random.key(0))
    limit = estimates_of("all_action", policy, wrong_critic())(params, (), episodes)[0]
    distances = []
    for frequency in (0.1, 0.05):
        critic = nearly_quadratic(wrong_critic(), frequency)
        found = estimates_of("all_action", policy, critic)(params, (), episodes)[0]
        distances.append(np.abs(found - limit).max())
    assert 1e-4 < distances[0] < 1e-2
    np.testing.assert_allclose(distances[0] / distances[1], 4.0, rtol=0.01)
