"""Batches of the policy of some updates ago: the right parameters act, and importance weights know
of it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import MDP

from pg import Config, Hyperparams, envs, make_learner, make_train, networks, rollout
from pg.estimators import ESTIMATORS, Params, sequence_estimator
from pg.train import training_keys

KEY = jax.random.key(0)
SIZES: dict[str, Any] = {"num_envs": 6, "num_updates": 5, "hidden_sizes": (4,)}
NAME = "per_decision_importance"


def config(lag: int, estimator: Any = NAME, **changes: Any) -> Config:
    """A small run by plain gradient steps."""
    fields = {**SIZES, "optimizer": "sgd", **changes}
    return Config(env=MDP, estimator=estimator, policy_lag=lag, preset=None, **fields)


def by_a_loop(lag: int, num_updates: int, learning_rate: float) -> list[Params]:
    """The parameters before each update and after the last, by a loop that keeps all of them."""
    made = config(lag)
    env = envs.configured(made, made.num_envs)
    policy, critic = networks.make_policy(made, env), networks.make_critic(made, env)
    estimator = ESTIMATORS[NAME](policy, critic, Hyperparams())
    init_key, keys = training_keys(KEY, 0, num_updates)
    history = [make_learner(made).init(init_key).params]
    for update in range(num_updates):
        acting = history[max(0, update - lag)]
        collect_key, _ = jax.random.split(keys[update])
        traj = rollout.episodes(env, policy, acting.policy, collect_key)
        batch, _ = estimator.weigh(history[-1], (), traj)
        grads, _ = estimator.grad(history[-1], batch)
        history.append(jax.tree.map(lambda p, g: p - learning_rate * g, history[-1], grads))
    return history


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_the_policy_that_acts_is_that_of_as_many_updates_ago(lag: int) -> None:
    made = config(lag)
    h = made.hyperparams(learning_rate=0.5, max_grad_norm=jnp.inf)
    state = jax.jit(make_train(made, h))(KEY)[0]
    expected = by_a_loop(lag, made.num_updates, 0.5)
    for x, y in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected[-1]), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    for age in range(lag):
        kept = jax.tree.map(lambda x, age=age: x[age], state.history)
        wanted = expected[made.num_updates - lag + age]
        for x, y in zip(jax.tree.leaves(kept), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("collect", ["episodes", "windows"])
def test_the_weights_are_one_until_the_policy_has_moved(collect: Any) -> None:
    changes = {"collect": collect, "num_steps": 6}
    made = config(2, "vtrace" if collect == "windows" else NAME, **changes)
    metrics = jax.jit(make_train(made, made.hyperparams(learning_rate=0.5)))(KEY)[1]
    np.testing.assert_allclose(metrics["ess"][0], 1.0, rtol=1e-6)
    np.testing.assert_allclose(metrics["ratio_median"][0], 1.0, rtol=1e-6)
    later = {name: np.asarray(x[1:]) for name, x in metrics.items()}
    assert (later["ess"] < 1 - 1e-5).all()
    assert (later["ess"] > 0).all()
    assert (later["ratio_low"] <= later["ratio_median"]).all()
    assert (later["ratio_median"] <= later["ratio_high"]).all()
    without = jax.eval_shape(make_train(config(0)), KEY)[1]
    assert "ess" not in without


def test_a_step_size_of_zero_makes_the_lag_nothing() -> None:
    results = []
    for lag in (0, 3):
        made = config(lag)
        results.append(jax.jit(make_train(made, made.hyperparams(learning_rate=0.0)))(KEY)[1])
    np.testing.assert_array_equal(results[0]["return"], results[1]["return"])


def test_a_lag_needs_an_importance_ratio() -> None:
    with pytest.raises(ValueError, match="policy_lag=2 needs an estimator with an importance"):
        config(2, "leave_one_out")
    with pytest.raises(ValueError, match="excludes optimizer='storm'"):
        config(2, "ppo", optimizer="storm", collect="windows")
    with pytest.raises(ValueError, match="policy_lag must be a whole number of at least 0"):
        config(-1)
    assert config(2, sequence_estimator(ratio="token"), group_size=2).policy_lag == 2


def test_a_lag_excludes_a_bound_on_the_divergence_from_the_behaviour() -> None:
    """Which is above it before the first step, so that nothing would be learned."""
    made = config(2, "ppo", collect="windows")
    with pytest.raises(ValueError, match="large before the first step, so that none may be taken"):
        make_learner(made, made.hyperparams(stop_kl=0.01))
    make_learner(made, made.hyperparams())
    without = config(0, "ppo", collect="windows")
    make_learner(without, without.hyperparams(stop_kl=0.01))
