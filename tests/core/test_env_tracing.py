"""Environments that cache what they computed, evaluated outside of every trace."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import Clock, ClockParams
from gymnax.environments import spaces

from pg.config import Config, Hyperparams
from pg.envs import make_env
from pg.envs.env_params import default_params
from pg.envs.tracing import call_outside_traces, copy_with_own_attributes
from pg.runs import execution


class Keeping(Clock):
    """Keeps the first space that it makes, whose bounds depend on a parameter."""

    def __init__(self) -> None:
        self.made: dict[str, Any] = {}

    def action_space(self, params: Any) -> Any:
        if "space" not in self.made:
            self.made["space"] = spaces.Box(-1.0 - params.start, 1.0 + params.start, (1,))
        return self.made["space"]

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        return super().step_env(key, state, action[0], params)


def test_a_space_that_is_kept_does_not_outlive_the_trace_that_made_it() -> None:
    env = Keeping()
    for seed in range(2):
        high = jax.jit(
            lambda start, seed=seed: make_env(env, 2, {"start": start}).action_space.high + seed
        )(1.0)
        np.testing.assert_array_equal(high, [2.0 + seed])


class Slotted(Clock):
    """Keeps its space in a slot, of which its subclasses have none of their own."""

    __slots__ = ("__kept",)

    def observation_space(self, params: Any) -> Any:
        if not hasattr(self, "_Slotted__kept"):
            self.__kept = spaces.Box(0.0, params.start + 10.0, (2,), jnp.float32)
        return self.__kept


class Unslotted(Slotted):
    __slots__ = ("more",)


@pytest.mark.parametrize("kind", [Slotted, Unslotted])
def test_a_space_that_is_kept_in_a_slot_does_not_outlive_the_trace_that_made_it(kind: Any) -> None:
    env = kind()
    env.more = 1
    assert copy_with_own_attributes(env).more == 1
    jax.eval_shape(lambda start: make_env(env, 2, {"start": start}).reset(jax.random.key(0)), 1.0)
    assert not hasattr(env, "_Slotted__kept")
    bounds = make_env(env, 2, {"start": 2.0}).obs_bounds
    assert bounds is not None
    np.testing.assert_array_equal(bounds.high, 12.0)


class Arrays(Clock):
    """States its parameters and spaces as arrays of jax, created on access."""

    @property
    def default_params(self) -> Any:
        return ClockParams(
            reward_scale=jnp.asarray(0.1), start=jax.random.uniform(jax.random.key(7))
        )

    def observation_space(self, params: Any) -> Any:
        return spaces.Box(-jnp.asarray(0.1), jnp.asarray(0.1), (2,), jnp.float32)


@pytest.mark.parametrize(
    "setting",
    [
        lambda: jax.enable_x64(True),
        lambda: jax.default_prng_impl("rbg"),
        lambda: jax.threefry_partitionable(False),
    ],
)
@pytest.mark.parametrize("traced", [False, True])
def test_an_environment_is_asked_under_the_settings_that_a_context_makes(
    setting: Any, traced: bool
) -> None:
    env = Arrays()
    with setting():
        wanted, tenth = env.default_params, np.asarray(jnp.asarray(0.1))
        found = []

        def ask(x: Any) -> Any:
            found.append((default_params(env), make_env(env, 2).obs_bounds))
            return x

        (jax.eval_shape if traced else jax.tree.map)(ask, 1.0)
    params, bounds = found[0]
    for name in ("reward_scale", "start"):
        x = getattr(params, name)
        assert (x.dtype, x.item()) == (getattr(wanted, name).dtype, getattr(wanted, name).item())
    np.testing.assert_array_equal(bounds.high, np.asarray(tenth, float))


def test_an_environment_is_asked_on_the_device_and_under_the_settings_of_python() -> None:
    def stated() -> tuple[Any, Any]:
        return jax.config.jax_default_device, np.geterr()["over"]

    device = jax.devices()[0]
    with jax.default_device(device), np.errstate(over="raise"):
        assert call_outside_traces(stated) == (device, "raise")


def keeps_in_step(env: Any, params: Any) -> Any:
    return env.kept.setdefault("scale", params.reward_scale * 2)


def keeps_in_a_module(env: Any, params: Any) -> Any:
    return KEPT.setdefault(type(env), params.reward_scale * 2)


KEPT: dict[Any, Any] = {}


@pytest.mark.parametrize("keep", [keeps_in_step, keeps_in_a_module])
def test_what_outlives_its_trace_is_one_sentence(keep: Any) -> None:
    class Keeper(Clock):
        kept: dict[str, Any]

        def __init__(self) -> None:
            self.kept = {}

        def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
            obs, state, reward, terminated, info = super().step_env(key, state, action, params)
            return obs, state, reward * keep(self, params), terminated, info

    env = Keeper()
    for attempt in (
        lambda: make_env(env, 2),
        lambda: execution.run(
            Config(env=env, num_envs=2, num_updates=1, hidden_sizes=(2,), preset=None),
            Hyperparams(),
            [0],
        ),
    ):
        with pytest.raises(
            ValueError,
            match=r"keeps values computed from traced arrays, .*: "
            r"compute them again",
        ):
            attempt()


def test_a_space_that_is_kept_on_a_class_by_a_trace_is_one_sentence() -> None:
    class Bounded(Clock):
        def observation_space(self, params: Any) -> Any:
            return KEPT.setdefault("space", spaces.Box(0.0, params.start + 1.0, (2,), jnp.float32))

    jax.eval_shape(
        lambda start: make_env(Bounded(), 2, {"start": start}).reset(jax.random.key(0)), 1.0
    )
    with pytest.raises(
        ValueError, match="observation_space fails: it keeps values computed from traced arrays"
    ):
        make_env(Bounded(), 2)


def test_an_environment_made_within_a_trace_may_hold_what_is_traced() -> None:
    class Scaled(Clock):
        def __init__(self, scale: Any) -> None:
            self.scale = scale

        def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
            obs, state, reward, terminated, info = super().step_env(key, state, action, params)
            return obs, state, reward * self.scale, terminated, info

    def reward(scale: jax.Array) -> jax.Array:
        env = make_env(Scaled(scale), 2)
        return env.step(jax.random.key(0), env.reset(jax.random.key(0))[0], jnp.zeros(2, int))[
            1
        ].reward

    one, two = jax.vmap(reward)(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(two, 2 * one)
