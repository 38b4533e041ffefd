"""Parameters of environments: overrides, flags, and values that do not fit into an array of their
kind.
"""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import Clock, ClockParams, paid
from flax import struct
from gymnax.environments import spaces

from pg.commands import cli, job
from pg.config import Config
from pg.envs import make_env
from pg.networks import make_policy
from pg.rollout import episodes
from pg.sweep import grid, sweep


def test_parameters_can_be_overridden_and_traced() -> None:
    assert make_env("CartPole-v1", 1, {"max_steps_in_episode": 7}).max_steps == 7

    def total(scale: jax.Array) -> jax.Array:
        env = make_env(Clock(), 2, {"reward_scale": scale})
        policy = make_policy(Config(preset=None), env)
        return episodes(env, policy, policy.init(jax.random.key(0)), jax.random.key(1)).reward.sum()

    one, three = jax.jit(jax.vmap(total))(jnp.array([1.0, 3.0]))
    assert one > 0
    np.testing.assert_allclose(three, 3 * one, rtol=1e-6)


def test_unknown_parameter_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'gravity'"):
        make_env("CartPole-v1", 1, {"gravty": 9.8})


@struct.dataclass
class Flags(ClockParams):
    """A flag, a number of arms and a limit that is a float."""

    generous: bool = True
    arms: int = 2
    max_steps_in_episode: float = 6.0


class Flagged(Clock):
    """Pays 10 where `generous` is not set, and 1 else; its parameters are used as gymnax's own step
    has them.
    """

    default_params = Flags()

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        obs, state, _, terminated, info = super().step_env(key, state, action, params)
        reward = jnp.where(~params.generous, 10.0, 1.0) + 0.0 * params.arms.astype(float)
        return obs, state, reward, terminated, info

    def action_space(self, params: Any) -> Any:
        return spaces.Discrete(params.arms)

    def observation_space(self, params: Any) -> Any:
        top = jax.lax.select(params.generous, 1.0, params.max_steps_in_episode)
        return spaces.Box(0.0, top, (2,), jnp.float32)


@pytest.mark.parametrize("form", [bool, np.bool_, int, jnp.bool_])
def test_true_and_false_are_parameters_of_an_environment(form: Any) -> None:
    for value, reward in ((True, 1.0), (False, 10.0)):
        np.testing.assert_array_equal(
            paid(Flagged(), jnp.zeros(2, int), {"generous": form(value)}), reward
        )


def test_a_flag_may_be_traced_and_swept() -> None:
    both = jax.jit(jax.vmap(lambda flag: paid(Flagged(), jnp.zeros(2, int), {"generous": flag})))
    np.testing.assert_array_equal(both(jnp.array([True, False]))[:, 0], [1.0, 10.0])
    config = Config(env=Flagged(), num_envs=2, num_updates=1, hidden_sizes=(2,), preset=None)
    h = grid(env_params={"generous": [True, False], "max_steps_in_episode": [1]})
    np.testing.assert_array_equal(sweep(config, [0], h)[1]["return"].ravel(), [1.0, 10.0])


def test_a_flag_is_kept_by_a_config_and_on_the_command_line() -> None:
    config = Config(env_params={"generous": True, "quiet": np.bool_(False)}, preset=None)
    assert config.env_params == (("generous", True), ("quiet", False))
    assert Config.from_json(json.loads(json.dumps(config.to_json()))) == config
    argv = ["--env-params", "generous=true", "quiet=False", "length=0.5"]
    parsed = cli.parse("train.py", "", job.Options, argv)[0]
    assert parsed.env_params == (("generous", True), ("quiet", False), ("length", 0.5))
    with pytest.raises(ValueError, match="max_steps_in_episode must be a finite number, got True"):
        Config(env_params={"max_steps_in_episode": True}, preset=None)


@pytest.mark.parametrize(
    ("name", "value"), [("generous", 0.5), ("generous", 2), ("arms", True), ("start", False)]
)
def test_a_flag_is_no_number_and_a_number_no_flag(name: str, value: Any) -> None:
    with pytest.raises(
        ValueError, match=f"env_params: {name} must be (True or False|a number), got {value}"
    ):
        make_env(Flagged(), 2, {name: value})


def test_a_whole_number_for_a_parameter_that_is_a_float_is_one() -> None:
    """gymnax's BernoulliBandit selects between its limit and another float."""
    assert make_env("BernoulliBandit-misc", 2, {"max_steps_in_episode": 1}).max_steps == 1
    shapes = jax.eval_shape(
        lambda n: paid(Flagged(), jnp.zeros(2, int), {"max_steps_in_episode": n}), jnp.int32(3)
    )
    assert shapes.shape == (2,)


def test_a_text_for_a_flag_asks_for_true_or_false() -> None:
    with pytest.raises(ValueError, match="env_params: generous must be True or False, got 'true'"):
        make_env(Flagged(), 2, {"generous": "true"})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "max_steps_in_episode",
            10**12,
            "max_steps_in_episode must be a whole number below 2\\^31, got 1000000000000",
        ),
        ("max_steps_in_episode", 1e12, "max_steps_in_episode must be a whole number below 2\\^31"),
        (
            "max_steps_in_episode",
            -(2**40),
            "max_steps_in_episode must be a whole number below 2\\^31",
        ),
        ("g", "heavy", "g must be a number, got 'heavy'"),
        ("g", True, "g must be a number, got True"),
    ],
)
def test_a_parameter_that_no_array_of_its_kind_holds_is_refused(
    name: str, value: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_env("Pendulum-v1", 2, {name: value})


def test_a_large_whole_number_is_a_float_where_one_is_wanted() -> None:
    assert make_env("Pendulum-v1", 2, {"max_speed": 10**12}).max_steps == 200
