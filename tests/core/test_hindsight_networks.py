"""Hindsight networks: what they see of a step and its later outcome, and settings without one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import pg
from pg import envs, networks, normalisation
from pg.envs.observations import zeros_of
from pg.networks import Network, Pair

BY_STATE, BY_REWARD = "hindsight_credit", "counterfactual_contributions"
CARTPOLE = jax.random.normal(jax.random.key(1), (6, 2, 4))  # observations [T, B, 4]
FIRST = jnp.zeros((6, 2), bool)


def network(estimator: str, env: str = "CartPole-v1", **settings: Any) -> tuple[Network, Any]:
    """The network of the settings, and the environment."""
    settings = {"hidden_sizes": (8,), "num_envs": 2, **settings}
    config = pg.Config(env=env, estimator=estimator, preset=None, **settings)
    made = envs.configured(config, 2)
    return networks.make_critic(config, made), made


def sizes(net: Network) -> Any:
    """The shapes of the torso's parameters."""
    shapes = jax.eval_shape(net.init, jax.random.key(0))["params"]["torso"]
    return jax.tree.map(lambda x: x.shape, shapes)


def test_it_sees_the_observation_beside_the_later_outcome() -> None:
    assert sizes(network(BY_STATE)[0])["rest"]["Dense_0"]["kernel"] == (4 + 4, 8)
    assert sizes(network(BY_REWARD)[0])["rest"]["Dense_0"]["kernel"] == (4 + 1, 8)


def test_of_images_each_has_a_convolution_of_its_own() -> None:
    by_state = sizes(network(BY_STATE, "Breakout-MinAtar")[0])
    by_reward = sizes(network(BY_REWARD, "Breakout-MinAtar")[0])
    assert set(by_state) == {"parts_0", "parts_1", "rest"}
    assert set(by_reward) == {"parts_0", "rest"}
    features = by_reward["rest"]["Dense_0"]["kernel"][0] - 1
    assert by_state["rest"]["Dense_0"]["kernel"][0] == 2 * features


def test_before_anything_is_known_hindsight_is_the_policy() -> None:
    net, _ = network(BY_STATE)
    pair = Pair(CARTPOLE, CARTPOLE[::-1])
    f = net.apply(net.init(jax.random.key(0)), (), pair, FIRST)[1]
    assert f.shape == (6, 2, 2)
    np.testing.assert_array_equal(f, 0.0)


@pytest.mark.parametrize("outcome", ["state", "reward"])
def test_both_observations_are_standardised_and_a_reward_is_not(outcome: str) -> None:
    def show(params: Any, carry: Any, pair: Pair, first: Any) -> tuple[Any, Pair]:
        return carry, pair

    obs, later = 10.0 + 3.0 * CARTPOLE, 10.0 + 3.0 * CARTPOLE[::-1]
    axes = (0, 1)

    def standardised(x: jax.Array) -> jax.Array:
        return (x - obs.mean(axes, keepdims=True)) / obs.std(axes, keepdims=True)

    moments = normalisation.Moments.start((4,)).merge(obs, ~FIRST)
    net = Network(lambda key: (), show, outcome=outcome)
    net = normalisation.with_standardised_observations(
        net, normalisation.Normaliser(moments, (), ())
    )
    found = net.apply((), (), Pair(obs, later), FIRST)[1]
    np.testing.assert_allclose(found.obs, standardised(obs), atol=1e-4)
    expected = standardised(later) if outcome == "state" else later
    np.testing.assert_allclose(found.outcome, expected, atol=1e-4)


@pytest.mark.parametrize(("estimator", "size"), [(BY_STATE, 3 + 3), (BY_REWARD, 3 + 1)])
def test_it_sees_the_critics_part_of_each_observation(estimator: str, size: int) -> None:
    net, env = network(estimator, observe=(0, 1), critic_observe=(0, 1, 2))
    assert sizes(net)["rest"]["Dense_0"]["kernel"] == (size, 8)
    obs = zeros_of(env.obs_shape, (6, 2))
    assert set(obs) == {"policy", "critic"}
    outcome = obs if estimator == BY_STATE else jnp.zeros((6, 2, 1))
    f = net.apply(net.init(jax.random.key(0)), (), Pair(obs, outcome), FIRST)[1]
    assert f.shape == (6, 2, 2)


def test_where_there_is_no_hindsight_distribution_a_sentence_says_so() -> None:
    for settings, said in (
        ({"env": "Pendulum-v1"}, "needs one Discrete of them"),
        ({"rnn": "gru"}, "and rnn='gru' remembers earlier steps: leave one of them out"),
        ({"collect": "windows"}, "needs collect='episodes'"),
        ({"shared_torso": True}, "shared_torso=True is for estimators with a critic V"),
        ({"optimizer": "trpo"}, "weights all actions; use optimizer='natural'"),
        ({"critic": own(3)}, r"must be \[B, A\] = \[2, 2\], one number for each action"),
        ({"critic": own(2)._replace(carry=jnp.zeros(1))}, "it can have no recurrent state"),
    ):
        with pytest.raises(ValueError, match=said):
            network(BY_STATE, **settings)
    with pytest.raises(ValueError, match="learns a hindsight distribution of its own"):
        pg.Config(estimator="selected:reward_to_go+hindsight_credit")


def own(num_actions: int) -> Network:
    """A custom critic of pairs."""
    model = nn.Dense(num_actions)
    return Network(
        lambda key: model.init(key, jnp.zeros((1, 8))),
        lambda params, carry, pair, first: (
            carry,
            model.apply(params, jnp.concatenate(pair, axis=-1)),
        ),
    )


def test_one_of_ones_own_learns() -> None:
    config = pg.Config(
        estimator=BY_STATE, critic=own(2), num_envs=4, num_updates=3, horizon=20, preset=None
    )
    state, metrics = jax.jit(pg.make_train(config))(jax.random.key(0))
    assert (np.asarray(metrics["nonfinite"]) == 0).all()
    assert np.isfinite(metrics["hindsight_loss"]).all()
    first = own(2).init(jax.random.key(0))
    assert jax.tree.structure(state.params.critic) == jax.tree.structure(first)
