"""Estimators of continuous actions beside a critic that is any network of observation and action,
averaged over sampled actions: their means, summed over every episode of a small regulator and over
every sample by quadrature.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from continuous import GAMMA, Episodes, all_episodes, estimates_of, gauss_hermite, in_x, mean_of

from pg.distributions import Gaussian
from pg.envs import make_env
from pg.estimators.continuous import SampledValues
from pg.exact.closed_forms import LQR, lqr
from pg.extra_rollouts import ExtraRollouts
from pg.networks import Network, Pair
from pg.rollout import episodes as rolled_out

pytestmark = pytest.mark.usefixtures("x64")

# One action, two steps, and no noise but the policy's: the products of critic and score have a
# degree of at most 8 in each node, which 6 of them sum exactly, and of 5 in each sample, for 4.
STEADY = LQR([[0.9]], [[0.7]], [[1.0]], [[0.4]], [[0.0]], [[0.7]], 2)
POLICY = np.array([[-0.4]]), np.array([-0.3])
SAMPLED = ("all_action", "action_dependent_baseline", "trajectory_control_variate")


def value(x: Any, action: Any) -> Any:
    """A function of state and action of degree 3 that has nothing to do with the regulator."""
    return 2.0 - x + 0.6 * action * x - 0.7 * action**2 + 0.5 * action**3


def critic(num_samples: int) -> Network:
    """`value` as a network of a pair, whose observation is (x, t)."""

    def apply(params: Any, carry: Any, obs: Pair, first: jax.Array) -> tuple[Any, jax.Array]:
        return carry, value(obs.obs[..., 0], obs.outcome[..., 0])

    return Network(lambda key: (), apply, outcome="action", action_samples=num_samples)


@functools.cache
def with_every_sample(num_samples: int) -> Episodes:
    """Every episode, times every combination of the samples of its two steps."""
    episodes = all_episodes(STEADY, POLICY)
    noise, weight = gauss_hermite(4, STEADY.horizon * num_samples)
    number, each = len(episodes.weight), len(weight)
    traj = jax.tree.map(lambda x: jnp.repeat(x, each, axis=1), episodes.traj)
    of_samples = np.tile(noise.reshape(each, STEADY.horizon, num_samples), (number, 1, 1))
    mean = traj.obs[..., :1] @ POLICY[0].T
    others = mean[..., None] + np.exp(POLICY[1]) * np.swapaxes(of_samples, 0, 1)[..., None]
    return Episodes(
        traj._replace(other_actions=jnp.asarray(others)), np.kron(episodes.weight, weight)
    )


def mean_by_samples(name: str, num_samples: int) -> np.ndarray:
    episodes = with_every_sample(num_samples)
    estimates = estimates_of(name, in_x(), critic(num_samples))
    return mean_of(estimates(POLICY, (), episodes), episodes)


def by_actions() -> np.ndarray:
    """Σₜ γᵗ E ∇θ E[Q(xₜ, K xₜ + σ ε)], [P], the inner mean by 8 nodes of ε."""
    episodes = all_episodes(STEADY, POLICY)
    noise, weight = gauss_hermite(8, 1)
    x = episodes.traj.obs[..., 0]
    discount = GAMMA ** jnp.arange(len(x))

    def total(policy: tuple[Any, Any]) -> jax.Array:
        action = policy[0][0, 0] * x[..., None] + jnp.exp(policy[1][0]) * noise[:, 0][None, None]
        values = value(x[..., None], action)
        return jnp.einsum("n,t,m,tmn->", weight, discount, episodes.weight, values)

    gradients = jax.grad(total)(jax.tree.map(jnp.asarray, POLICY))
    return np.concatenate([np.ravel(x) for x in gradients])


@pytest.mark.parametrize("num_samples", [1, 2])
def test_the_mean_over_sampled_actions_is_that_over_all(num_samples: int) -> None:
    found = mean_by_samples("all_action", num_samples)
    np.testing.assert_allclose(found, by_actions(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("num_samples", [1, 2])
@pytest.mark.parametrize("name", SAMPLED[1:])
def test_control_variates_keep_the_mean(name: str, num_samples: int) -> None:
    gradients = lqr.exact_gradient(STEADY, *POLICY, GAMMA)
    expected = np.concatenate([np.ravel(x) for x in gradients])
    found = mean_by_samples(name, num_samples)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    assert np.abs(by_actions() - expected).max() > 0.1  # the critic is wrong


def test_samples_stand_for_another_policy_than_their_own() -> None:
    """By the ratio of the two: value and derivative are those of the other policy on average."""
    noise, weight = gauss_hermite(40, 2)
    drawn = Gaussian(jnp.full((1, 1), 0.2), jnp.full((1, 1), -0.3))
    samples = (0.2 + jnp.exp(-0.3) * noise)[:, None, None, :, None]  # [n, T, B, M, D]

    def estimate(mean: jax.Array, samples: jax.Array) -> jax.Array:
        log_prob = jax.vmap(drawn.log_prob, in_axes=1, out_axes=1)(samples[0])[None]
        values = value(0.5, samples[..., 0])
        q = SampledValues(jnp.zeros((1, 1)), values, samples, log_prob)
        dist = Gaussian(jnp.broadcast_to(mean, (1, 1, 1)), jnp.full((1, 1, 1), -0.4))
        return q.expectation(dist)[0, 0]

    def exact(mean: jax.Array) -> jax.Array:
        nodes, weights = gauss_hermite(8, 1)
        return jnp.sum(weights * value(0.5, mean + jnp.exp(-0.4) * nodes[:, 0]))

    def average(mean: jax.Array) -> jax.Array:
        return jnp.sum(weight * jax.vmap(estimate, in_axes=(None, 0))(mean, samples))

    for f, g in ((average, exact), (jax.grad(average), jax.grad(exact))):
        np.testing.assert_allclose(f(jnp.asarray(0.3)), g(jnp.asarray(0.3)), rtol=1e-6)


def test_samples_are_of_the_policy_and_leave_the_episodes_as_they_are() -> None:
    env = make_env("Pendulum-v1", num_envs=64)
    policy = Network(
        lambda key: (),
        lambda params, carry, obs, first: (
            carry,
            Gaussian(obs[..., :1], jnp.full((*obs.shape[:-1], 1), -0.5)),
        ),
    )
    key = jax.random.key(3)
    alone = rolled_out(env, policy, (), key, 10)
    beside = rolled_out(env, policy, (), key, 10, extra_rollouts=ExtraRollouts(actions=5))
    assert beside.other_actions.shape == (10, 64, 5, 1)
    jax.tree.map(np.testing.assert_array_equal, beside.without_extra_rollouts, alone)
    np.testing.assert_array_equal(beside.all_env_steps, alone.all_env_steps)
    of_others = (beside.other_actions[..., 0] - beside.obs[..., :1]) / np.exp(-0.5)
    own = (beside.action - beside.obs[..., :1]) / np.exp(-0.5)
    noise = np.concatenate([own, of_others], axis=-1).reshape(-1, 6)
    np.testing.assert_allclose(noise.mean(axis=0), 0.0, atol=5 / np.sqrt(len(noise)))
    np.testing.assert_allclose(np.cov(noise.T), np.eye(6), atol=8 / np.sqrt(len(noise)))
