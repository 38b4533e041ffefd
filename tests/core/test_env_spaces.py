"""Spaces of environments: as gymnax, Gymnasium and users write them."""

import functools
from types import SimpleNamespace
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import Clock, ClockParams, paid, roll
from gymnax.environments import spaces

from pg.config import Config
from pg.envs import Box, Discrete, make_env
from pg.networks import make_policy


def test_discrete_observations_are_one_hot() -> None:
    traj = roll("FrozenLake-misc", 20)
    assert traj.obs.shape == (20, 4, 16)
    np.testing.assert_array_equal(traj.obs.sum(-1), 1.0)


def test_bounds_of_actions_may_depend_on_a_traced_parameter() -> None:
    def widest(torque: jax.Array) -> jax.Array:
        env = make_env("Pendulum-v1", 2, {"max_torque": torque})
        policy = make_policy(Config(preset=None), env)
        return jnp.exp(
            policy.apply(policy.init(jax.random.key(0)), (), jnp.zeros((2, 3)), jnp.zeros(2, bool))[
                1
            ].log_std
        )

    np.testing.assert_allclose(
        jax.jit(jax.vmap(widest))(jnp.array([1.0, 5.0]))[:, 0, 0], [1.0, 5.0], rtol=1e-6
    )


def test_what_is_not_observed_is_hidden() -> None:
    whole, part = make_env("CartPole-v1", 5), make_env("CartPole-v1", 5, observe=(2, 0))
    assert part.obs_shape == (2,)
    states = [env.reset(jax.random.key(0)) for env in (whole, part)]
    np.testing.assert_array_equal(states[1][1], states[0][1][:, jnp.array([2, 0])])
    pairs = zip((whole, part), states, strict=True)
    moved = [env.step(jax.random.key(1), state, jnp.ones(5, int))[1] for env, (state, _) in pairs]
    np.testing.assert_array_equal(moved[1].next_obs, moved[0].next_obs[:, jnp.array([2, 0])])
    with pytest.raises(
        ValueError, match="observe must be below 4, the number of entries observed; got 7"
    ):
        make_env("CartPole-v1", 1, observe=(0, 7))
    with pytest.raises(
        ValueError,
        match=r"entries of a vector, and the observation has shape "
        r"\(10, 10, 4\)",
    ):
        make_env("Breakout-MinAtar", 1, observe=(0,))


class Dial(Clock):
    """The action is paid out: the reward is what the environment was given, whose dtype must be
    that of the space.
    """

    def __init__(self, space: Any) -> None:
        self.space = space

    def action_space(self, params: Any) -> Any:
        return self.space

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        assert action.dtype == jax.dtypes.canonicalize_dtype(self.space.dtype)
        obs, state, _, _, info = super().step_env(key, state, 0, params)
        return obs, state, action[0].astype(float), jnp.bool_(False), info


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.int64])
@pytest.mark.parametrize("kind", [spaces.Box, gymnasium.spaces.Box])
def test_actions_of_a_box_of_whole_numbers_are_rounded_and_given_as_such(
    kind: Any, dtype: Any
) -> None:
    env = Dial(kind(0, 4, (1,), dtype))
    assert isinstance(make_env(env, 2).action_space, Box)
    np.testing.assert_array_equal(paid(env, jnp.array([[1.4], [2.6]])), [1.0, 3.0])
    np.testing.assert_array_equal(paid(env, jnp.array([[-9.0], [9.0]])), [0.0, 4.0])


def test_whole_numbers_have_no_pathwise_gradient() -> None:
    class Smooth(Dial):
        _supports_transition_gradients = True

    with pytest.raises(ValueError, match="actions that are whole numbers have no derivative"):
        make_env(Smooth(spaces.Box(0, 4, (1,), np.int32)), 2, differentiable=True)


HUGE = [np.finfo(np.float32).max, np.finfo(np.float64).max, 1e38, 1e30, 2**63, 2**31 - 1, np.inf]


@pytest.mark.parametrize("bound", HUGE)
def test_a_bound_beyond_any_use_is_none(bound: float) -> None:
    low, high = np.array([-bound, -1.0, -2.0]), np.array([bound, bound, 2.0])
    env = make_env(Dial(spaces.Box(low, high, (3,), np.float32)), 2)
    np.testing.assert_array_equal(env.action_space.low, [-np.inf, -1.0, -2.0])
    np.testing.assert_array_equal(env.action_space.high, [np.inf, np.inf, 2.0])
    policy = make_policy(Config(hidden_sizes=(2,), preset=None), env)
    dist = policy.apply(policy.init(jax.random.key(0)), (), jnp.zeros((2, 2)), jnp.zeros(2, bool))[
        1
    ]
    np.testing.assert_allclose(jnp.exp(dist.log_std[0]), [1.0, 1.0, 2.0], rtol=1e-6)
    with pytest.raises(ValueError, match="action_distribution='squashed' needs a bounded Box"):
        make_policy(Config(action_distribution="squashed", preset=None), env)


class Property(Clock):
    """Spaces of Gymnasium that count from elsewhere, a property and a method without parameters; a
    method `name`.
    """

    action_space = gymnasium.spaces.Discrete(2, start=5)

    def default_params(self) -> Any:
        return ClockParams()

    def observation_space(self) -> Any:
        return gymnasium.spaces.Discrete(3, start=1)

    def name(self) -> str:
        return "mine"

    def get_obs(self, state: Any, *_: Any) -> Any:
        return jnp.int32(2)

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        obs, state, _, _, info = super().step_env(key, state, 0, params)
        return obs, state, action.astype(float), jnp.bool_(False), info


def test_spaces_and_names_as_others_write_them() -> None:
    env = make_env(Property(), 2)
    assert env.action_space == Discrete(2)
    np.testing.assert_array_equal(env.reset(jax.random.key(0))[1], [[0, 1, 0]] * 2)
    np.testing.assert_array_equal(paid(Property(), jnp.array([0, 1])), [5.0, 6.0])
    assert Config(env=Property(), preset=None).to_json()["env"] == "mine"


def test_an_environment_without_an_observation_space_shows_what_its_reset_gives() -> None:
    class Blind(Clock):
        def observation_space(self, params: Any) -> Any:
            raise NotImplementedError

    assert make_env(Blind(), 2).obs_shape == (2,)
    del Blind.observation_space
    # looked at when it is used
    Config(env=SimpleNamespace(reset=0, step=0, default_params=0, action_space=0), preset=None)


def test_an_environment_without_actions_is_told_to_have_some() -> None:
    class Idle(Clock):
        def action_space(self, params: Any) -> Any:
            raise NotImplementedError

    with pytest.raises(
        ValueError,
        match=r"the environment has no action_space\(params\): write "
        r"one that returns",
    ):
        make_env(Idle(), 2)


@pytest.mark.parametrize("name", ["action_space", "observation_space"])
@pytest.mark.parametrize(
    "kind", [spaces.Discrete, gymnasium.spaces.Discrete, lambda n: SimpleNamespace(n=n)]
)
def test_a_number_of_actions_or_observations_cannot_be_traced(name: str, kind: Any) -> None:
    class Counted(Clock):
        pass

    setattr(Counted, name, lambda self, params: kind(params.max_steps_in_episode))
    with pytest.raises(
        ValueError, match=f"the {name} of the environment needs the value of a parameter"
    ):
        jax.eval_shape(
            lambda n: make_env(Counted(), 2, {"max_steps_in_episode": n}).reset(jax.random.key(0)),
            3,
        )


def test_a_space_that_is_cached_by_its_parameters_is_one_sentence_where_they_are_traced() -> None:
    class Cached(Clock):
        @functools.lru_cache  # noqa: B019 - as others write it
        def action_space(self, params: Any) -> Any:
            return spaces.Discrete(2)

    env = Cached()
    assert make_env(env, 2).action_space == Discrete(2)
    with pytest.raises(
        ValueError, match="a parameter is traced here, and cannot be the key of a cache"
    ):
        jax.eval_shape(
            lambda start: make_env(env, 2, {"start": start}).reset(jax.random.key(0)), 1.0
        )
