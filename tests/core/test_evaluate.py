"""Evaluation: complete episodes, undiscounted, and its summary."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pg.config import Config
from pg.envs import make_env
from pg.evaluate import Evaluation, evaluate
from pg.networks import make_policy

KEY = jax.random.key(0)


def test_a_random_policy_has_the_known_floor() -> None:
    """CartPole under uniform actions: 22.1 ± 12.3 per episode, measured elsewhere."""
    config = Config(preset=None)
    params = make_policy(config, make_env("CartPole-v1", 1)).init(KEY)
    params = jax.tree.map(jnp.zeros_like, params)
    done = jax.jit(lambda: evaluate(config, params, KEY, 2000))()
    summary = done.summary()
    assert abs(summary["mean"] - 22.1) < 5 * 12.3 / 2000**0.5
    np.testing.assert_array_equal(done.returns, done.lengths)
    np.testing.assert_allclose(
        summary["standard_error"], np.std(done.returns, ddof=1) / 2000**0.5, rtol=1e-5
    )


def test_greedy_and_sampled_are_different_quantities() -> None:
    config = Config(env="Pendulum-v1", horizon=20, preset=None)
    params = make_policy(config, make_env("Pendulum-v1", 1)).init(KEY)
    sampled, greedy = (evaluate(config, params, KEY, 8, greedy=g) for g in (False, True))
    assert sampled.returns.shape == (8,)
    assert not np.allclose(sampled.returns, greedy.returns)
    np.testing.assert_array_equal(sampled.lengths, 20)


def test_one_episode_has_no_standard_error() -> None:
    summary = Evaluation(jnp.array([3.0]), jnp.array([3])).summary()
    assert np.isnan(summary["standard_error"])
    assert (summary["mean"], summary["min"], summary["max"], summary["episodes"]) == (
        3.0,
        3.0,
        3.0,
        1,
    )


def test_no_episodes_are_refused() -> None:
    with pytest.raises(
        ValueError, match="num_episodes must be a whole number of at least 1, got 0"
    ):
        evaluate(Config(preset=None), {}, KEY, 0)
