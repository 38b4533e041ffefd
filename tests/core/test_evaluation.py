"""Evaluation: complete episodes, undiscounted, and its summary."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mistakes import Mistake, assert_one_sentence, handed

import pg
from pg.config import Config, Hyperparams
from pg.envs import make_env
from pg.evaluation import Evaluation, evaluate
from pg.networks import make_policy

KEY = jax.random.key(0)


def test_the_function_is_a_public_name() -> None:
    assert pg.evaluate is evaluate
    assert pg.Evaluation is Evaluation


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


MISTAKES: dict[str, tuple[Mistake, str]] = {
    "all parameters for the policy's": (
        handed(lambda x: evaluate(x.config, x.state.params, KEY, 2)),
        "params must be those of one network, got a Params: write params.policy",
    ),
    "a state for parameters": (
        handed(lambda x: evaluate(x.config, x.state, KEY, 2)),
        "params must be those of one network, got a TrainState: write state.params.policy",
    ),
    "a network for parameters": (
        handed(lambda x: evaluate(x.config, x.policy, KEY, 2)),
        "params must be a tree of arrays, as policy.init(key) gives it, got a Network",
    ),
    "no parameters": (
        handed(lambda x: evaluate(x.config, None, KEY, 2)),
        "params must be those of one network, got None: write policy.init(key), or "
        "state.params.policy",
    ),
    "a state for a normaliser": (
        handed(lambda x: evaluate(x.config, x.state.params.policy, KEY, 2, normaliser=x.state)),
        "normaliser must be a pg.normalisation.Normaliser, got a TrainState: write "
        "state.normaliser",
    ),
    "a number for parameters of the environment": (
        handed(lambda x: evaluate(x.config, x.state.params.policy, KEY, 2, env_params=3)),
        "env_params must be names with numbers, as in {'gravity': 9.8}; got 3",
    ),
    "a switch of an evaluation as text": (
        handed(lambda x: evaluate(x.config, x.state.params.policy, KEY, 2, greedy="no")),
        "greedy must be True or False, got 'no'",
    ),
    "parameters of several runs": (
        handed(
            lambda x: evaluate(
                x.config, jax.tree.map(lambda p: jnp.stack([p, p]), x.state.params.policy), KEY
            )
        ),
        "params are those of 2 runs: take one of them, jax.tree.map(lambda x: x[0], params), or "
        "use jax.vmap",
    ),
    "parameters of another Config": (
        handed(
            lambda x: evaluate(replace(x.config, hidden_sizes=(5,)), x.state.params.policy, KEY)
        ),
        "params do not fit this network: ['params']['head']['Dense_0']['kernel'] must have shape "
        "(5, 2), got (4, 2)",
    ),
    "a pair for the Config of an evaluation": (
        handed(lambda x: evaluate((x.config, Hyperparams()), x.state.params.policy, KEY)),
        "config must be a pg.Config, got a tuple of Config, Hyperparams",
    ),
}


@pytest.mark.acceptance("J7", "INPUTS", "S4")
@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence(case: str) -> None:
    assert_one_sentence(*MISTAKES[case])
