"""Time limits of environments: custom, traced, forgotten, and counted as termination."""

import dataclasses
import gc
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import Clock, ClockParams, ClockState, Drifting, Target
from flax import struct
from gymnax.environments import environment, spaces

from pg import networks
from pg.config import ENVIRONMENTS, UNSUPPORTED, Config, Hyperparams
from pg.envs import make_env
from pg.envs.registry import environment_named
from pg.envs.time_limit_checks import episode_ends
from pg.estimators import ESTIMATORS
from pg.runs import execution
from pg.sweep import grid, sweep
from pg.train import make_train

TRIED_FAST = ("DeepSea-bsuite", "FrozenLake-misc")
OTHERS = [name for name in ENVIRONMENTS if name not in (*TRIED_FAST, *UNSUPPORTED)]
LIMITS = jnp.array([3, 6, 12])  # the environment's own is 6
ENDLESS = Config(env=Drifting(0.0, 0.5), num_envs=2, num_updates=1, hidden_sizes=(2,), preset=None)


def test_a_sweep_of_time_limits_has_room_for_the_longest() -> None:
    _, metrics = sweep(ENDLESS, [0], grid(env_params={"max_steps_in_episode": [3, 6, 12]}))
    np.testing.assert_array_equal(metrics["length"].ravel(), LIMITS)
    with pytest.raises(
        ValueError,
        match=r"must be a whole number of at least 1 and below 2\^31, "
        r"got 0",
    ):
        sweep(ENDLESS, [0], grid(env_params={"max_steps_in_episode": [0, 12]}))


def test_a_run_with_a_traced_time_limit_is_trained_and_evaluated_up_to_it() -> None:
    h = Hyperparams(env_params={"max_steps_in_episode": 11})
    config = dataclasses.replace(ENDLESS, action_repeat=2)
    done = execution.run(config, h, [0])
    np.testing.assert_array_equal(done.metrics["env_steps"], [[2 * 11]])
    np.testing.assert_array_equal(
        execution.evaluate_run(config, done, [0], 2, greedy=False).lengths, 11
    )


def test_a_time_limit_that_is_not_known_asks_for_a_horizon() -> None:
    def length(config: Config) -> Any:
        def one(limit: jax.Array) -> jax.Array:
            h = Hyperparams(env_params={"max_steps_in_episode": limit})
            return make_train(config)(jax.random.key(0), h)[1]["length"]

        return jax.vmap(one)

    with pytest.raises(
        ValueError,
        match=r"length of the longest episode is not known: set horizon "
        r"to",
    ):
        jax.eval_shape(length(ENDLESS), LIMITS)
    lengths = jax.jit(length(dataclasses.replace(ENDLESS, horizon=9)))(LIMITS)
    np.testing.assert_array_equal(lengths[:, 0], [3, 6, 9])
    window = dataclasses.replace(ENDLESS, estimator="actor_critic", collect="windows", num_steps=4)
    assert jax.eval_shape(length(window), LIMITS).shape == (3, 1)


class Old(Clock):
    """As written for gymnax before 1.0: what ends contains the time limit, of the parameters or a
    number.
    """

    def __init__(self, limit: Any) -> None:
        self.limit = limit

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        obs, state, reward, terminated, info = super().step_env(key, state, action, params)
        return obs, state, reward, terminated | (state.time >= self.limit(params)), info


@pytest.mark.parametrize("limit", [lambda params: params.max_steps_in_episode, lambda params: 6])
def test_a_time_limit_that_counts_as_an_end_is_warned_of(limit: Any) -> None:
    with pytest.warns(
        UserWarning,
        match="Old sets terminated when its time limit cuts an episode.* leave max_steps_in",
    ):
        make_env(Old(limit), 2)


def test_a_time_limit_that_counts_as_an_end_is_seen_while_training_is_traced() -> None:
    config = Config(
        env=Old(lambda params: params.max_steps_in_episode),
        num_envs=2,
        hidden_sizes=(2,),
        preset=None,
    )
    with pytest.warns(UserWarning, match="so that the cut is learned as an end"):
        jax.eval_shape(make_train(config), jax.random.key(0))


def test_an_end_of_its_own_at_a_time_is_not_warned_of() -> None:
    """At step 3, half way to the limit; and at once."""
    make_env(Old(lambda params: 3), 2)
    make_env(Target(continuous=True), 2)


@pytest.mark.parametrize(
    "name",
    [
        *TRIED_FAST,
        *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS),
    ],
)
def test_no_environment_of_gymnax_counts_its_limit_as_an_end(name: str) -> None:
    # Swimmer's own step promotes ranks; the probe has a thread of its own, which sees global
    # settings alone.
    jax.config.update("jax_numpy_rank_promotion", "allow")
    try:
        found = episode_ends(environment_named(name))
    finally:
        jax.config.update("jax_numpy_rank_promotion", "raise")
    assert found.at_the_limit is False
    assert not found.default_limit


@struct.dataclass
class Windy(environment.EnvParams):
    """Parameters that do not say how long an episode is."""

    start: float = 0.0
    reward_scale: float = 1.0


@pytest.mark.parametrize("params", [Windy, environment.EnvParams])
def test_gymnaxs_default_limit_of_one_step_must_be_meant(params: Any) -> None:
    class Short(Clock):
        default_params = params()

        def reset_env(self, key: Any, params: Any) -> Any:
            return super().reset_env(key, ClockParams())

        def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
            return super().step_env(key, state, action, ClockParams())

    for _ in range(2):
        with pytest.raises(
            ValueError,
            match=r"max_steps_in_episode of Short is 1, gymnax's "
            r"default, .* set it in",
        ):
            make_env(Short(), 2)
    assert make_env(Short(), 2, {"max_steps_in_episode": 1}).max_steps == 1
    assert make_env(Short(), 2, {"max_steps_in_episode": 9}).max_steps == 9
    assert make_env(Target(continuous=True), 2).max_steps == 1  # whose first step is an end


def python_limit(env: Clock, params: Any) -> None:
    """A limit that must be a number, and so cannot be traced."""
    int(params.max_steps_in_episode)


def call_of_python(env: Any, params: Any) -> None:
    def called() -> np.ndarray:
        env.calls += 1
        return np.zeros(())

    jax.debug.callback(called)


@pytest.mark.parametrize("does", [python_limit, call_of_python])
def test_a_limit_that_nobody_has_set_is_refused_where_no_step_can_be_tried(does: Any) -> None:
    class Untried(Clock):
        default_params = Windy()
        calls = 0

        def reset_env(self, key: Any, params: Any) -> Any:
            return super().reset_env(key, ClockParams())

        def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
            does(self, params)
            return super().step_env(key, state, action, ClockParams())

    env = Untried()
    with pytest.raises(
        ValueError,
        match=r"max_steps_in_episode of Untried is 1, gymnax's default, "
        r".* set it in",
    ):
        make_env(env, 2)
    assert env.calls == 0  # nothing but training and evaluation steps the environment of a user
    assert make_env(env, 2, {"max_steps_in_episode": 9}).max_steps == 9


def test_the_ends_of_an_environment_that_is_changed_are_looked_at_again() -> None:
    env = Old(lambda params: 6)
    with pytest.warns(UserWarning, match="so that the cut is learned as an end"):
        make_env(env, 2)
    env.limit = lambda params: 3
    make_env(env, 2)  # without a warning, which would be an error
    kept = weakref.ref(env)
    del env
    gc.collect()
    assert kept() is None


def test_a_limit_of_one_step_that_the_parameters_state_is_taken() -> None:
    @struct.dataclass
    class Once(ClockParams):
        max_steps_in_episode: int = 1

    class Single(Clock):
        default_params = Once()

    assert make_env(Single(), 2).max_steps == 1


def test_a_limit_that_a_property_makes_as_an_array_is_known_under_a_trace() -> None:
    class Fresh(Clock):
        @property
        def default_params(self) -> Any:
            return ClockParams(max_steps_in_episode=jnp.int32(5) + 0)

    config = Config(env=Fresh(), num_envs=2, num_updates=1, hidden_sizes=(2,), preset=None)
    assert jax.eval_shape(make_train(config), jax.random.key(0))[1]["return"].shape == (1,)
    assert make_env(Fresh(), 2).max_steps == 5


@struct.dataclass
class RingParams(environment.EnvParams):
    max_steps_in_episode: int = 8
    worthless: float = 0.0


class Ring(environment.Environment):
    """Eight places in a ring, reward 1 and no end; a reset may lead to a ninth place, where all
    values are 0.
    """

    @property
    def default_params(self) -> RingParams:
        return RingParams()

    def reset_env(self, key: jax.Array, params: RingParams) -> tuple[jax.Array, ClockState]:
        place = jnp.where(jax.random.bernoulli(key, params.worthless), 8, 0)
        state = ClockState(place=place, time=jnp.int32(0))
        return self.get_obs(state), state

    def step_env(self, key: jax.Array, state: ClockState, action: Any, params: RingParams) -> Any:
        place = jnp.where(state.place == 8, 8, (state.place + 1) % 8)
        state = ClockState(place=place, time=state.time + 1)
        return self.get_obs(state), state, (place < 8).astype(float), jnp.bool_(False), {}

    def get_obs(self, state: ClockState, params: Any = None, key: Any = None) -> jax.Array:
        return jax.nn.one_hot(state.place, 9)

    def action_space(self, params: RingParams) -> spaces.Discrete:
        return spaces.Discrete(2)

    def observation_space(self, params: RingParams) -> spaces.Box:
        return spaces.Box(0.0, 1.0, (9,), jnp.float32)


def misread(traj: Any, rule: jax.Array) -> Any:
    """rule 1: a time limit is a termination; rule 2: the successor is what the reset showed; 0:
    neither.
    """
    shown = jnp.concatenate([traj.obs[1:], traj.next_obs[-1:]])
    return traj._replace(
        terminated=traj.terminated | ((rule == 1) & traj.truncated),
        next_obs=jnp.where((rule == 2) & traj.done[..., None], shown, traj.next_obs),
    )


@pytest.mark.acceptance("T1")
def test_a_time_limit_is_no_end() -> None:
    """V = 1 / (1 - 0.9) = 10 all around the ring, whatever a reset is worth; two wrong rules give
    something else.
    """
    config = Config(
        env=Ring(),
        estimator="gae",
        collect="windows",
        num_envs=16,
        num_steps=20,
        num_updates=400,
        hidden_sizes=(32,),
        preset=None,
    )
    critic = networks.make_critic(config, make_env(config.env, 1))

    def values(rule: jax.Array, worthless: jax.Array) -> jax.Array:
        def wrongly(policy: Any, critic: Any, h: Hyperparams) -> Any:
            right = ESTIMATORS["gae"](policy, critic, h)
            return right._replace(
                weigh=lambda params, state, traj: right.weigh(params, state, misread(traj, rule))
            )

        h = Hyperparams(gamma=0.9, learning_rate=0.01, env_params={"worthless": worthless})
        params = make_train(config, estimator=wrongly)(jax.random.key(0), h)[0].params
        return critic.apply(params.critic, (), jnp.eye(9), jnp.zeros(9, bool))[1]

    rules, worthless = jnp.array([0, 0, 1, 2]), jnp.array([0.0, 0.5, 0.0, 0.5])
    plain, apart, terminal, reset = np.asarray(jax.jit(jax.vmap(values))(rules, worthless))
    np.testing.assert_allclose(plain[:8], 10.0, atol=0.1)
    np.testing.assert_allclose(apart[:8], 10.0, atol=0.1)
    assert abs(apart[8]) < 0.1
    np.testing.assert_allclose(terminal[0], (1 - 0.9**8) / (1 - 0.9), atol=0.1)  # 5.7
    assert (reset[:8] < 9.9).all()
    assert reset[0] < 9.0
