"""Compiled programs: one for all values of what is traced, within a process; and never that of
another run.
"""

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import Clock, ClockParams, ClockState
from mistakes import Mistake, assert_one_sentence
from small import TINY

from pg.config import Config, Hyperparams
from pg.fast import devices
from pg.runs import execution

SMALL: dict[str, Any] = {"num_envs": 2, "num_updates": 2, "hidden_sizes": (4,)}


class Paid(Clock):
    """The reward is what a parameter says, or an attribute of the object."""

    source = "reward_scale"
    wage = np.ones(2)

    def step_env(self, key: jax.Array, state: ClockState, action: Any, params: ClockParams) -> Any:
        obs, state, _, done, info = super().step_env(key, state, action, params)
        return (
            obs,
            state,
            getattr(params, self.source) + 0.0 * jnp.asarray(self.wage)[0],
            done,
            info,
        )


class PaidOnTheHost(Clock):
    """The reward is computed by a function of Python, which no program's text can tell from
    another.
    """

    wage = 1.0

    def step_env(self, key: jax.Array, state: ClockState, action: Any, params: ClockParams) -> Any:
        obs, state, _, done, info = super().step_env(key, state, action, params)
        wage, scalar = np.float32(self.wage), jax.ShapeDtypeStruct((), np.float32)
        reward = jax.pure_callback(lambda: wage, scalar, vmap_method="sequential")
        return obs, state, reward, done, info


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The compilations from now on; nothing has been compiled before."""
    execution.forget_programs()
    seen, original = [], jax.stages.Lowered.compile

    def compiled(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(self.as_text())
        return original(self, *args, **kwargs)

    monkeypatch.setattr(jax.stages.Lowered, "compile", compiled)
    yield seen
    execution.forget_programs()


def trained(config: Config, **hyperparams: Any) -> tuple[execution.Run, np.ndarray]:
    done = execution.run(config, Hyperparams(**hyperparams), [0])
    return done, np.asarray(execution.evaluate_run(config, done, [0], 2, greedy=False).returns)


def test_three_learning_rates_are_one_compilation(compilations: list[str]) -> None:
    """One compilation of training and one of evaluation, with the bits of a program that is
    compiled for one rate alone.
    """
    config = Config(env=Clock(), **SMALL, preset=None)
    found = [trained(config, learning_rate=rate) for rate in (0.5, np.float32(0.1), 1)]
    assert len(compilations) == 3  # of init, of updates, and of the evaluation
    params = [np.asarray(jax.tree.leaves(done.states.params)[0]) for done, _ in found]
    assert not np.array_equal(params[0], params[1])
    execution.forget_programs()
    alone = trained(Config(env=Clock(), **SMALL, preset=None), learning_rate=0.1)
    assert len(compilations) == 6
    (a, x), (b, y) = found[1], alone
    jax.tree.map(np.testing.assert_array_equal, (a.states, a.metrics, x), (b.states, b.metrics, y))


def test_an_environment_that_has_changed_is_compiled_again(compilations: list[str]) -> None:
    """An attribute set, an array of it written to, and a parameter read instead of another that was
    not read.
    """
    env = Paid()
    env.wage = np.ones(2)
    config = Config(env=env, **SMALL, preset=None)
    own = {"reward_scale": 3.0, "start": 1.0}
    first = trained(config, env_params=own)[1]
    count = len(compilations)
    trained(config, env_params=own)
    assert len(compilations) == count
    env.source = "start"
    second = trained(config, env_params=own)[1]
    np.testing.assert_allclose(first, 3.0 * second)
    assert len(compilations) > count
    count = len(compilations)
    env.wage[0] = 2.0
    execution.run(config, Hyperparams(env_params=own), [0])
    assert len(compilations) > count


def test_a_function_of_the_host_that_has_changed_is_called() -> None:
    """The new one is what training and evaluation of the same object call, of a program with the
    same text.
    """
    env = PaidOnTheHost()
    config = Config(env=env, **SMALL, preset=None)
    done, returns = trained(config)
    env.wage = 7.0
    again, more = trained(config)
    np.testing.assert_array_equal(more, 7.0 * returns)
    np.testing.assert_allclose(again.metrics["return"][:, 0], 7.0 * done.metrics["return"][:, 0])


def test_programs_that_are_kept_keep_no_settings_alive(compilations: list[str]) -> None:
    """Nor with them an environment object and its arrays; an object that is like it is not compiled
    again.
    """
    config = Config(env=Clock(), **SMALL, preset=None)
    trained(config)
    there = weakref.ref(config)
    del config
    gc.collect()
    assert there() is None
    trained(Config(env=Clock(), **SMALL, preset=None))
    assert len(compilations) == 3


def test_the_compilers_settings_are_part_of_a_program(compilations: list[str]) -> None:
    config = Config(env=Clock(), **SMALL, preset=None)
    execution.run(config, Hyperparams(), [0])
    count = len(compilations)
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", not before)
    try:
        execution.run(config, Hyperparams(), [0])
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
    assert len(compilations) == 2 * count


def test_few_programs_are_kept(compilations: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "PROGRAMS", 1)
    execution.run(Config(env=Clock(), **SMALL, preset=None), Hyperparams(), [0])
    assert len(compilations) == 2
    assert len(execution._programs) == 1


@pytest.mark.acceptance("J6")
def test_a_state_that_was_given_away_cannot_be_used_again() -> None:
    h, layout = execution.broadcast(Hyperparams(), 2), devices.layout(most=1)
    programs = execution.compile_programs(TINY, h, layout, 2)
    data = np.asarray(jax.random.key_data(jax.random.split(jax.random.key(0), 2)))
    keys, h = devices.place((data, h), layout.sharding)
    count = devices.place(np.int32(1), layout.everywhere)
    states = programs.init(keys, h)
    after, _ = programs.advance(states, keys, h, count)
    with pytest.raises(ValueError, match="deleted or donated"):
        programs.advance(states, keys, h, count)
    with pytest.raises(RuntimeError, match="deleted"):
        np.asarray(states.update)
    programs.advance(after, keys, h, count)


MISTAKES: dict[str, tuple[Mistake, str]] = {
    "a dictionary for the Hyperparams of runs": (
        lambda: execution.run(Config(preset=None), {"gamma": 0.9}, [0]),
        "got {'gamma': 0.9}: write config.hyperparams(gamma=0.9)",
    ),
    "a number for seeds": (
        lambda: execution.run(Config(preset=None), Hyperparams(), 3),
        "seeds must be whole numbers, as in range(5) or [0]",
    ),
    "text for a seed": (
        lambda: execution.run(Config(preset=None), Hyperparams(), ["a"]),
        "a seed must be a whole number in [0, 2^32), got 'a'",
    ),
}


@pytest.mark.acceptance("J7", "INPUTS", "S4")
@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence(case: str) -> None:
    assert_one_sentence(*MISTAKES[case])


@pytest.mark.parametrize("disabled", [True, False])
def test_the_compiler_is_asked_for_less_where_optimisations_are_not_disabled(
    disabled: bool,
) -> None:
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", disabled)
    try:
        expected = {} if disabled or jax.default_backend() != "cpu" else execution.CPU_OPTIONS
        assert execution._compiler_options() == expected
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
