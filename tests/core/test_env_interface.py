"""A user's environment: the step that is used, and its failures in one sentence."""

from typing import Any

import gymnasium
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import Clock, ClockState, Drifting, roll
from gymnax.wrappers.purerl import FlattenObservationWrapper

from pg import envs
from pg.config import Config
from pg.envs import make_env


def test_a_wrapper_is_stepped_through_not_past() -> None:
    """`step_env` of a gymnax wrapper is that of the environment inside."""
    wrapped = FlattenObservationWrapper(gymnax.make("Catch-bsuite")[0])
    flat, plain = roll(wrapped, 12), roll("Catch-bsuite", 12)
    assert flat.obs.shape == (12, 4, 50)
    assert flat.next_obs.shape == (12, 4, 50)
    assert bool(flat.done.any())
    assert plain.obs.shape == (12, 4, 10, 5)


def test_a_reward_that_is_no_scalar_is_refused() -> None:
    class Odd(Clock):
        def step_env(self, *args: Any) -> Any:
            obs, state, reward, terminated, info = super().step_env(*args)
            return obs, state, reward[None], terminated, info

    with pytest.raises(ValueError, match=r"reward must be a scalar, got shape \(1,\)"):
        make_env(Odd(), 2)


class Halved(Clock):
    """Halves the rewards in `step`, and starts at place 3 in `reset`: its `step_env` and
    `reset_env` are Clock's.
    """

    def step(self, *args: Any) -> Any:
        obs, state, reward, *rest = super().step(*args)
        return obs, state, 0.5 * reward, *rest

    def reset(self, key: Any, params: Any = None) -> Any:
        state = ClockState(place=jnp.float32(3.0), time=jnp.int32(0))
        return self.get_obs(state), state


class Renamed(Halved):
    """Further down, `step_env` is overridden as well: `step` still calls it, and halves what it
    pays.
    """

    def step_env(self, *args: Any) -> Any:
        return super().step_env(*args)


def patched() -> Clock:
    """One object with a `step` and a `reset` of its own."""
    env, own = Clock(), Halved()
    env.step, env.reset = own.step, own.reset  # type: ignore[method-assign]
    return env


@pytest.mark.parametrize("make", [Halved, Renamed, patched])
def test_a_step_or_reset_that_is_overridden_is_the_one_that_is_taken(make: Any) -> None:
    env = make_env(make(), 2)
    state, obs = env.reset(jax.random.key(0))
    np.testing.assert_array_equal(obs, [[3.0, 0.0], [3.0, 0.0]])
    _, moved = env.step(jax.random.key(1), state, jnp.array([0, 1]))
    np.testing.assert_array_equal(moved.reward, [1.5, 2.0])
    np.testing.assert_array_equal(moved.terminated, [False, True])
    # not the reset that follows an end
    np.testing.assert_array_equal(moved.next_obs, [[3.0, 1.0], [4.0, 1.0]])


def test_a_step_that_hides_the_true_successor_is_refused() -> None:
    class Bare(Clock):
        def step(self, *args: Any) -> Any:
            return (*super().step(*args)[:5], {})

    with pytest.raises(
        ValueError,
        match=r"the step of Bare must return the true successor, .* write "
        r"step_env instead",
    ):
        make_env(Bare(), 2)


def test_a_step_that_changes_what_is_seen_shows_it_while_the_episode_lasts() -> None:
    class Doubled(Clock):
        def step(self, *args: Any) -> Any:
            obs, *rest = super().step(*args)
            return 2 * obs, *rest

    env = make_env(Doubled(), 2)
    state, obs = env.reset(jax.random.key(0))
    _, moved = env.step(jax.random.key(1), state, jnp.zeros(2, int))
    np.testing.assert_array_equal(moved.next_obs[:, 0], 2 * obs[:, 0])


KINDS = {
    "a bool": (False, 1),
    "a whole number": (0, 0.5),
    "a float": (0.0, True),
    "an array": (jnp.int32(0), 0.5),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_of_another_kind_after_the_step_is_refused_and_not_truncated(kind: str) -> None:
    refused = r"\.place\['x'\] was \w+, and then \w+, which gymnax's step refuses too"
    with pytest.raises(ValueError, match=refused):
        make_env(Drifting(*KINDS[kind]), 2)


@pytest.mark.parametrize("repeat", [1, 2])
def test_a_state_of_the_same_kind_is_as_wide_as_reset_or_step_makes_it(repeat: int) -> None:
    env = make_env(Drifting(jnp.float16(0.0), jnp.float32(2**-14)), 2, action_repeat=repeat)
    state, _ = env.reset(jax.random.key(0))
    state, _ = env.step(jax.random.key(1), state, jnp.zeros(2, int))
    assert state.place["x"].dtype == jnp.float32
    np.testing.assert_array_equal(state.place["x"], repeat * 2**-14)


NO_ENVIRONMENT = {
    "a pair": (gymnax.make("CartPole-v1"), "got a pair: write env, params = gymnax.make"),
    "a class": (Clock, "got the class Clock: call it"),
    "one of gymnasium": (
        gymnasium.make("CartPole-v1"),
        r"got TimeLimit of Gymnasium: write env=pg.envs.adapters.gymnasium.adapt",
    ),
    "a Config": (Config(preset=None), "got a Config: write config.env"),
    "nothing": (None, "got None without reset, step"),
}


@pytest.mark.parametrize("kind", NO_ENVIRONMENT)
def test_what_is_no_environment_is_one_sentence_from_python(kind: str) -> None:
    env, said = NO_ENVIRONMENT[kind]
    for call in (
        lambda: make_env(env, 2),
        lambda: envs.parameters(env),
        lambda: Config(env=env, preset=None),
    ):
        with pytest.raises(
            ValueError, match=f"^env must be a name or a gymnax environment, .*{said}"
        ):
            call()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        *(
            (({"num_envs": n}), "num_envs must be a whole number of at least 1")
            for n in (0, -1, 2.5, "2", True, None)
        ),
        *(
            (({"action_repeat": n}), "action_repeat must be a whole number of at least 1")
            for n in (0, 2.5, "2")
        ),
        ({"observe": (-1,)}, "observe must be a whole number of at least 0, got -1"),
        ({"observe": (1.5,)}, "observe must be a whole number of at least 0, got 1.5"),
        ({"observe": 0}, "observe must be whole numbers"),
        (
            {"env_params": gymnax.make("CartPole-v1")[1]},
            "env_params must be a dict of the parameters to change",
        ),
        (
            {"env_params": {"max_steps_in_episode": np.array([5, 6])}},
            "max_steps_in_episode must be one number",
        ),
    ],
)
def test_an_argument_that_is_no_count_is_one_sentence_from_python(
    arguments: Any, said: str
) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        make_env(**{"env": "CartPole-v1", "num_envs": 2, **arguments})


UNTRACEABLE = {
    "an if": (
        lambda state, action: 1 if state.place > 3 else 0,
        "a Python if, .* must be jnp.where, jax.lax.cond",
    ),
    "a range": (lambda state, action: list(range(action)), "loop with jax.lax.fori_loop"),
    "an index": (lambda state, action: [1, 2][action], "index jnp.asarray"),
    "numpy": (lambda state, action: np.sin(state.place), "write jnp instead of np"),
    "a mask": (
        lambda state, action: jnp.arange(3)[jnp.arange(3) > state.place],
        r"write jnp.where\(mask, x, 0\)",
    ),
    "a number": (lambda state, action: float(state.place), "leave out int"),
}


@pytest.mark.parametrize("kind", UNTRACEABLE)
def test_python_that_cannot_be_traced_is_one_sentence_with_its_remedy(kind: str) -> None:
    does, said = UNTRACEABLE[kind]

    class Python(Clock):
        def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
            does(state, action)
            return super().step_env(key, state, action, params)

    with pytest.raises(ValueError, match=f"^the environment's step fails: .*{said}"):
        make_env(Python(), 2)


def test_a_reset_of_observations_alone_is_told_of_its_state() -> None:
    class Alone(Clock):
        def reset_env(self, key: Any, params: Any) -> Any:
            return super().reset_env(key, params)[0]

    said = "reset must return 2 values, obs, state; got one array, float32 of shape .2,."
    with pytest.raises(ValueError, match=said):
        make_env(Alone(), 2)


@pytest.mark.parametrize("what", ["action_space", "observation_space", "default_params"])
def test_a_fault_in_what_an_environment_states_is_one_sentence(what: str) -> None:
    def fault(self: Any, *_: Any) -> Any:
        raise KeyError("board\nand more")

    broken = type(
        "Broken", (Clock,), {what: property(fault) if what == "default_params" else fault}
    )
    with pytest.raises(ValueError, match=rf"^the environment's {what} fails: KeyError: [^\n]*$"):
        make_env(broken(), 2)
