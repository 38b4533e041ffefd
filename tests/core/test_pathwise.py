"""The pathwise gradient against closed forms, on the episodes of the score-function estimate."""

import functools
from typing import Any

import gymnax
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
from mistakes import Mistake, assert_one_sentence, handed

from pg import envs, pathwise_gradient, returns, rollout
from pg.config import Config
from pg.distributions import TanhGaussian
from pg.envs import Env
from pg.exact.closed_forms import bandit, lqr
from pg.networks import Network, make_policy

BATCHES = 20_000
THETA = (GAIN, GAIN_LOG_STD)


def each_gradient(
    problem: Any, policy: Network, params: Any, change: Any = lambda env: env
) -> np.ndarray:
    """One episode's gradient for each of BATCHES keys, [BATCHES, P]."""
    env = change(envs.make_env(problem, 1, differentiable=True))

    def one(key: jax.Array) -> jax.Array:
        gradient = pathwise_gradient(env, policy, params, key, GAMMA)
        return jnp.concatenate([x.ravel() for x in jax.tree.leaves(gradient)])

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), BATCHES)))


def z(x: np.ndarray, expected: Any) -> float:
    return float(
        np.abs((x.mean(0) - np.asarray(expected)) / (x.std(0, ddof=1) / BATCHES**0.5)).max()
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("problem", "policy"),
    [(PLAIN, gaussian()), (CLIPPED, gaussian()), (SQUASHED, gaussian(kind=TanhGaussian))],
    ids=["plain", "clipped", "squashed"],
)
def test_mean_and_variance_of_one_step(problem: Any, policy: Network) -> None:
    x = each_gradient(problem, policy, (jnp.array([MEAN]), jnp.array([LOG_STD])))
    mean, variance = bandit.pathwise_moments(problem, MEAN, LOG_STD)
    np.testing.assert_allclose(mean, bandit.exact_gradient(problem, MEAN, LOG_STD), atol=1e-12)
    assert z(x, mean) < 5.7
    assert z((x - x.mean(0)) ** 2, variance) < 5.7


@pytest.mark.usefixtures("x64")
def test_through_the_dynamics_of_a_regulator() -> None:
    exact = np.concatenate([x.ravel() for x in lqr.exact_gradient(REGULATOR, *THETA, GAMMA)])
    x = each_gradient(REGULATOR, linear(), THETA)
    assert z(x, exact) < 5.7

    def cut(env: Env) -> Env:
        """The environment as it is by default: reward differentiable, transition not. The bug,
        forced.
        """
        return envs.make_env(REGULATOR, 1)._replace(differentiable=True)

    assert z(each_gradient(REGULATOR, linear(), THETA, cut), exact) > 20


@pytest.mark.usefixtures("x64")
def test_it_is_the_derivative_of_the_return_of_the_same_episodes() -> None:
    """By finite differences of what `episodes` returns for the same key; and far less noisy than
    the score.
    """
    env, policy = envs.make_env(REGULATOR, 8, differentiable=True), linear()

    @jax.jit
    def mean_return(gain: jax.Array) -> jax.Array:
        traj = rollout.episodes(env, policy, (gain, GAIN_LOG_STD), jax.random.key(2))
        return returns.total_return(traj.reward, GAMMA).mean()

    gradient = pathwise_gradient(env, policy, THETA, jax.random.key(2), GAMMA)[0]
    for j in range(2):
        step = 1e-6 * jnp.eye(2)[None, j]
        slope = (mean_return(GAIN + step) - mean_return(GAIN - step)) / 2e-6
        np.testing.assert_allclose(gradient[0, j], slope, rtol=1e-6)


@pytest.mark.parametrize(
    "name", ["Pendulum-v1", pytest.param("Reacher-misc", marks=pytest.mark.slow)]
)
def test_gymnax_environments_that_have_a_derivative(name: str) -> None:
    """The same trajectory as `episodes`, and the derivative of a return of a few steps by finite
    differences.
    """
    env = envs.make_env(name, 4, differentiable=True)
    policy = make_policy(Config(hidden_sizes=(8,), preset=None), env)
    params, key, horizon = policy.init(jax.random.key(0)), jax.random.key(1), 5
    plain = jax.jit(functools.partial(rollout.episodes, env, policy, horizon=horizon))(params, key)
    smooth = jax.jit(
        functools.partial(rollout.differentiable_episodes, env, policy, horizon=horizon)
    )(params, key)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), plain, smooth)
    gradient = jax.jit(lambda p: pathwise_gradient(env, policy, p, key, horizon=horizon))(params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))

    @jax.jit
    def along(step: float) -> jax.Array:
        moved = jax.tree.map(lambda p, g: p + step * g, params, gradient)
        return rollout.episodes(env, policy, moved, key, horizon).reward.sum(0).mean()

    square, h = sum(float((g**2).sum()) for g in jax.tree.leaves(gradient)), 1e-2
    h /= square**0.5
    assert (along(h) - along(-h)) / (2 * h) == pytest.approx(square, rel=0.05)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="the dynamics of CartPole-v1 have no derivative"):
        envs.make_env("CartPole-v1", 2, differentiable=True)
    env = envs.make_env("Pendulum-v1", 2)
    policy = make_policy(Config(preset=None), env)
    with pytest.raises(ValueError, match=r"make_env\(..., differentiable=True\)"):
        pathwise_gradient(env, policy, policy.init(jax.random.key(0)), jax.random.key(0))
    discrete = envs.make_env("CartPole-v1", 2)._replace(differentiable=True)
    with pytest.raises(ValueError, match="needs continuous actions"):
        pathwise_gradient(discrete, policy, (), jax.random.key(0))
    assert gymnax.make("Pendulum-v1")[0].supports_transition_gradients


MISTAKES: dict[str, tuple[Mistake, str]] = {
    "the name of an environment in pathwise_gradient": (
        handed(
            lambda x: pathwise_gradient(
                "CartPole-v1", x.policy, x.state.params.policy, jax.random.key(0)
            )
        ),
        "env must be a pg.Env, got 'CartPole-v1': write pg.make_env('CartPole-v1', num_envs=8)",
    ),
}


@pytest.mark.acceptance("J7", "INPUTS", "S4")
@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence(case: str) -> None:
    assert_one_sentence(*MISTAKES[case])
