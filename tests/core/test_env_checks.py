"""Environments with a mistake, in a user's code or in their parameters: one sentence, before
anything is compiled.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import Clock, ClockState, Odd, acting, boxed
from gymnax.environments import spaces
from mistakes import Mistake, assert_one_sentence, handed

from pg.config import Config, Hyperparams
from pg.envs import configured, make_env

KEY, H = jax.random.key(0), Hyperparams()


def seeing(space: Any, obs: Any = None) -> Odd:
    return Odd(obs=obs, observation_space=lambda params: space)


class OldStep:
    """gymnax before 1.0: five values, `done` for both ends, and no `step_env` of its own."""

    default_params = Clock().default_params
    reset = Clock().reset_env
    action_space, observation_space = Clock().action_space, Clock().observation_space

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        return Clock().step_env(key, state, action, params)


class NoSuccessor(OldStep):
    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        obs, state, reward, done, info = Clock().step_env(key, state, action, params)
        return obs, state, reward, done, done, info


def env_of(env: Any, **params: Any) -> Callable[[], object]:
    return lambda: make_env(env, 2, params)


def changed(change: Callable[..., Any]) -> Callable[[], object]:
    return env_of(Odd(change))


@pytest.mark.acceptance("INPUTS")
def test_an_observation_without_axes_has_one_entry() -> None:
    for obs in (
        lambda s: s.time,
        lambda s: s.time.astype(jnp.uint8)[None],
        lambda s: s.place > 1,
        lambda s: s.place,
    ):
        assert make_env(Odd(obs=obs), 2).obs_shape == (1,)


MISTAKES: dict[str, tuple[Mistake, str]] = {
    "episodes of an environment beyond a counter": (
        lambda: configured(Config(env_params={"max_steps_in_episode": 2**30}, preset=None), 25),
        "the steps of one update, must be below 2^31; got 25 × 1073741824 × 1",
    ),
    "an entry beyond the last": (
        lambda: configured(Config(observe=(0, 9), preset=None), 2),
        "observe must be below 4, the number of entries observed; got 9",
    ),
    "a parameter that does not exist": (
        env_of("CartPole-v1", gravty=9.8),
        "did you mean 'gravity'",
    ),
    "a reward of shape (1,)": (
        changed(lambda obs, state, reward, end, info: (obs, state, reward[None], end, info)),
        "the environment's reward must be a scalar, got shape (1,)",
    ),
    "a complex reward": (
        changed(lambda obs, state, reward, end, info: (obs, state, reward * 1j, end, info)),
        "the environment's reward must be a real number or a boolean, got complex64",
    ),
    "two ends": (
        changed(
            lambda obs, state, reward, end, info: (obs, state, reward, jnp.stack([end, end]), info)
        ),
        "the environment's terminated must be a scalar, got shape (2,)",
    ),
    "a limit of shape (1,)": (
        env_of(Odd(is_truncated=lambda state, params: state.time[None] >= 6)),
        "the environment's truncated must be a scalar, got shape (1,)",
    ),
    "a successor of another shape": (
        changed(lambda obs, *rest: (obs[:1], *rest)),
        "step must return observations like those of reset, float32 of shape (2,); got float32 of "
        "shape (1,)",
    ),
    "a successor of another dtype": (
        changed(lambda obs, *rest: (obs.astype(jnp.uint8), *rest)),
        "step must return observations like those of reset, float32 of shape (2,); got uint8 of "
        "shape (2,)",
    ),
    "a state of another shape": (
        changed(lambda obs, state, *rest: (obs, state.replace(place=state.place[None]), *rest)),
        "step must return a state like that of reset: .place had shape (), and then (1,)",
    ),
    "a state of another kind": (
        env_of(
            Odd(
                lambda obs, state, *rest: (obs, (state, 1), *rest),
                is_truncated=lambda state, params: False,
            )
        ),
        "step must return a state like that of reset: .time had shape (), and then none",
    ),
    "the step of an older gymnax": (
        env_of(OldStep()),
        "must return 6 values, obs, state, reward, terminated, truncated, info, as in gymnax 1.0",
    ),
    "a step without the successor": (
        env_of(NoSuccessor()),
        "the true successor, in info['final_observation']",
    ),
    "a step_env of six values": (
        changed(lambda obs, state, reward, end, info: (obs, state, reward, end, end, info)),
        "step_env must return 5 values, obs, state, reward, terminated, info",
    ),
    "a step_env of no values": (changed(lambda *values: None), "step_env must return 5 values"),
    "a step that fails": (
        changed(lambda obs, *rest: (obs @ jnp.zeros(3), *rest)),
        "the environment's step fails: TypeError: dot_general requires",
    ),
    "a reset that fails": (
        env_of(Odd(obs=lambda state: "text")),
        "the environment's reset fails: TypeError",
    ),
    "observations in a dictionary": (
        env_of(Odd(obs=lambda state: {"time": jnp.zeros(2, complex), "place": state.time})),
        "observations must be floats, whole numbers or booleans, got complex64 of shape (2,), in "
        "['time']",
    ),
    "complex observations": (
        env_of(Odd(obs=lambda state: jnp.zeros(2, complex))),
        "observations must be floats, whole numbers or booleans, got complex64 of shape (2,)",
    ),
    "observations that are keys": (
        env_of(Odd(obs=lambda state: jax.random.key(0))),
        "observations must be floats, whole numbers or booleans, got key<fry> of shape ()",
    ),
    "observations of nothing": (
        env_of(Odd(obs=lambda state: jnp.zeros((3, 0)))),
        "observations must have at least one entry, got shape (3, 0)",
    ),
    "discrete observations that are floats": (
        env_of(seeing(spaces.Discrete(3), lambda state: state.place)),
        "an observation of Discrete(3) must be one whole number, got float32 of shape ()",
    ),
    "no action": (env_of(acting(spaces.Discrete(0))), "Discrete actions must be at least 1, got 0"),
    "a dictionary without actions": (
        env_of(acting(spaces.Dict({}))),
        "the environment has no action: its action_space has no parts",
    ),
    "actions of another space": (
        env_of(acting(object())),
        "actions must be Discrete, Box, MultiDiscrete, or a tuple or dictionary of these, got "
        "object",
    ),
    "a bound that is NaN": (
        env_of(boxed(0.0, math.nan)),
        "a Box of actions must have low < high, got low=[0.0], high",
    ),
    "bounds in the wrong order": (
        env_of(boxed(1.0, -1.0)),
        "a Box of actions must have low < high, got low=[1.0]",
    ),
    "a Box without an inside": (
        env_of(boxed(1.0, 1.0)),
        "a Box of actions must have low < high, got low=[1.0]",
    ),
    "a Box of nothing": (
        env_of(boxed(0.0, 1.0, (0,))),
        "a Box of actions must have at least one entry",
    ),
    "bounds of another shape": (
        env_of(boxed(np.zeros(3), np.ones(3), (2,))),
        "bounds of a Box of shape (2,) cannot have shape (3,)",
    ),
    "parameters that are no dataclass": (
        lambda: make_env(type("Own", (Clock,), {"default_params": {"gravity": 9.8}})(), 2),
        "default_params must be a flax.struct.dataclass, got {'gravity': 9.8}",
    ),
    "parameters without a time limit": (
        lambda: make_env(
            type("Own", (Clock,), {"default_params": ClockState(time=0, place=0)})(), 2
        ),
        "default_params must have max_steps_in_episode",
    ),
    "a time limit of nothing": (
        env_of(Clock(), max_steps_in_episode=0),
        "max_steps_in_episode must be a whole number",
    ),
    "a number for the key of a reset": (
        handed(lambda x: x.env.reset(0)),
        "write jax.random.key(0)",
    ),
}


@pytest.mark.acceptance("J7", "INPUTS", "S4")
@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence(case: str) -> None:
    assert_one_sentence(*MISTAKES[case])
