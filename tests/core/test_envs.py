"""Environments: all of gymnax's names, the contract of a step, overrides, and a user's own
objects.
"""

import dataclasses
import functools
import gc
import json
import weakref
from types import SimpleNamespace
from typing import Any

import gymnasium
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces
from gymnax.wrappers.purerl import FlattenObservationWrapper
from toys import Clock, ClockParams, ClockState, Target

from pg import envs
from pg.commands import cli, job
from pg.config import ENVIRONMENTS, UNSUPPORTED, Config, Hyperparams
from pg.envs import Box, Discrete, make_env
from pg.evaluate import evaluate
from pg.networks import make_policy
from pg.rollout import episodes, start, windows
from pg.runs import execution
from pg.sweep import grid, sweep
from pg.train import make_learner, make_train

# Which of the 26 names train for three updates, with which head; the others say why not in one
# line.
HEADS = {
    "CartPole-v1": "categorical 2",
    "Pendulum-v1": "gaussian 1",
    "Acrobot-v1": "categorical 3",
    "MountainCar-v0": "categorical 3",
    "MountainCarContinuous-v0": "gaussian 1",
    "Asterix-MinAtar": "categorical 5",
    "Breakout-MinAtar": "categorical 3",
    "Freeway-MinAtar": "categorical 3",
    "Seaquest-MinAtar": "categorical 6",
    "SpaceInvaders-MinAtar": "categorical 4",
    "Catch-bsuite": "categorical 3",
    "DeepSea-bsuite": "categorical 2",
    "MemoryChain-bsuite": "categorical 2",
    "UmbrellaChain-bsuite": "categorical 2",
    "DiscountingChain-bsuite": "categorical 5",
    "MNISTBandit-bsuite": "cannot run: gymnax downloads its images unverified",
    "SimpleBandit-bsuite": "categorical 11",
    "FourRooms-misc": "categorical 4",
    "MetaMaze-misc": "categorical 4",
    "PointRobot-misc": "gaussian 2",
    "BernoulliBandit-misc": "categorical 2",
    "GaussianBandit-misc": "categorical 2",
    "Reacher-misc": "gaussian 2",
    "Swimmer-misc": "gaussian 2",
    "Pong-misc": "categorical 3",
    "FrozenLake-misc": "categorical 4",
}


# One of each kind; the others in the slow lane, as each has a program to compile.
SOME = [
    "CartPole-v1",
    "Pendulum-v1",
    "Breakout-MinAtar",
    "Catch-bsuite",
    "MemoryChain-bsuite",
    "MNISTBandit-bsuite",
]
SOME += ["BernoulliBandit-misc", "FrozenLake-misc"]
OTHERS = [name for name in ENVIRONMENTS if name not in SOME]


@pytest.mark.acceptance("T4")
@pytest.mark.parametrize(
    "name", [*SOME, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)
def test_every_name_trains_or_says_why_not(name: str) -> None:
    if name in UNSUPPORTED:
        with pytest.raises(ValueError, match=HEADS[name]):
            Config(env=name, preset=None)
        return
    config = Config(
        env=name,
        estimator="gae",
        collect="windows",
        num_envs=2,
        num_steps=4,
        num_updates=3,
        hidden_sizes=(8,),
        preset=None,
    )
    # gymnax's own code promotes
    with jax.numpy_rank_promotion("allow" if name == "Swimmer-misc" else "raise"):
        space = make_env(name, 2).action_space
        state, metrics = jax.jit(make_train(config))(jax.random.key(0))
    head = f"categorical {space.n}" if isinstance(space, Discrete) else f"gaussian {space.low.size}"
    assert head == HEADS[name]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state.params, metrics["grad_norm"])))
    assert metrics["grad_norm"].shape == (3,)
    assert np.all(metrics["grad_norm"] > 0)


def roll(env: Any, num_steps: int, num_envs: int = 4, **params: Any) -> Any:
    env = make_env(env, num_envs, params)
    policy = make_policy(Config(preset=None), env)
    key = jax.random.key(1)
    return windows(env, policy, policy.init(key), key, start(env, policy, key), num_steps)[1]


@pytest.mark.acceptance("T4")
@pytest.mark.parametrize(
    "name", ["CartPole-v1", "FourRooms-misc", "FrozenLake-misc", "UmbrellaChain-bsuite"]
)
def test_everything_is_float_at_the_boundary(name: str) -> None:
    traj = roll(name, 3)
    assert {traj.obs.dtype, traj.next_obs.dtype, traj.reward.dtype} == {jnp.dtype("float32")}
    assert {traj.terminated.dtype, traj.truncated.dtype} == {jnp.dtype(bool)}


def test_discrete_observations_are_one_hot() -> None:
    traj = roll("FrozenLake-misc", 20)
    assert traj.obs.shape == (20, 4, 16)
    np.testing.assert_array_equal(traj.obs.sum(-1), 1.0)


@pytest.mark.acceptance("T4")
def test_terminated_truncated_and_the_true_successor_are_kept_apart() -> None:
    """DeepSea's last step is both; Pendulum only ever runs out of time; CartPole falls."""
    both = roll("DeepSea-bsuite", 16)
    assert bool((both.terminated & both.truncated).any())
    limit = roll("Pendulum-v1", 9, max_steps_in_episode=3)
    assert not bool(limit.terminated.any())
    np.testing.assert_array_equal(limit.truncated[:, 0], [False, False, True] * 3)
    assert not np.allclose(limit.next_obs[2], limit.obs[3])  # the reset is not the successor
    falls = roll("CartPole-v1", 60)
    assert bool(falls.terminated.any())
    assert not bool(falls.truncated.any())
    # it shows the fallen pole
    assert bool((jnp.abs(falls.next_obs[..., 2]) > 0.2)[falls.terminated].all())


@pytest.mark.acceptance("T4")
def test_continuous_actions_are_clipped_by_the_environment() -> None:
    """MountainCarContinuous charges 0.1 a² for the action it is given: clipped to 1 by us, it
    charges 0.1.
    """
    env = make_env("MountainCarContinuous-v0", 2)
    state, _ = env.reset(jax.random.key(0))
    _, far = env.step(jax.random.key(1), state, jnp.full((2, 1), 1e6))
    _, edge = env.step(jax.random.key(1), state, jnp.full((2, 1), 1.0))
    np.testing.assert_allclose(far.reward, -0.1, rtol=1e-5)
    np.testing.assert_array_equal(far.next_obs, edge.next_obs)


def test_parameters_can_be_overridden_and_traced() -> None:
    assert make_env("CartPole-v1", 1, {"max_steps_in_episode": 7}).max_steps == 7

    def total(scale: jax.Array) -> jax.Array:
        env = make_env(Clock(), 2, {"reward_scale": scale})
        policy = make_policy(Config(preset=None), env)
        return episodes(env, policy, policy.init(jax.random.key(0)), jax.random.key(1)).reward.sum()

    one, three = jax.jit(jax.vmap(total))(jnp.array([1.0, 3.0]))
    assert one > 0
    np.testing.assert_allclose(three, 3 * one, rtol=1e-6)


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


def test_unknown_parameter_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'gravity'"):
        make_env("CartPole-v1", 1, {"gravty": 9.8})


def test_a_users_environment_is_accepted_wherever_a_name_is() -> None:
    config = Config(env=Clock(), num_updates=3, num_envs=4, preset=None)
    _, metrics = jax.jit(make_train(config))(jax.random.key(0))
    assert np.isfinite(metrics["return"]).all()
    assert config.to_json()["env"] == "Clock"


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
        match=r"the step of Bare must give the true successor, .* write "
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


class Drifting(Clock):
    """The place begins as `begin` and moves by `by`; the reward is the place."""

    def __init__(self, begin: Any, by: Any) -> None:
        self.begin, self.by = begin, by

    def reset_env(self, key: Any, params: Any) -> Any:
        state = ClockState(place={"x": self.begin}, time=0)
        return jnp.zeros(1), state

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        place = (
            state.place["x"] + self.by if jnp.asarray(self.by).dtype != bool else jnp.bool_(True)
        )
        state = ClockState(place={"x": place}, time=state.time + 1)
        return jnp.zeros(1), state, place, jnp.bool_(False), {}


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


KINDS = {
    "a bool": (False, 1),
    "a whole number": (0, 0.5),
    "a float": (0.0, True),
    "an array": (jnp.int32(0), 0.5),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_of_another_kind_after_the_step_is_refused_and_not_truncated(kind: str) -> None:
    refused = r"\.place\['x'\] was \w+, and then \w+, which gymnax's own step refuses too"
    with pytest.raises(ValueError, match=refused):
        make_env(Drifting(*KINDS[kind]), 2)


@pytest.mark.parametrize("repeat", [1, 2])
def test_a_state_of_the_same_kind_is_as_wide_as_reset_or_step_makes_it(repeat: int) -> None:
    env = make_env(Drifting(jnp.float16(0.0), jnp.float32(2**-14)), 2, action_repeat=repeat)
    state, _ = env.reset(jax.random.key(0))
    state, _ = env.step(jax.random.key(1), state, jnp.zeros(2, int))
    assert state.place["x"].dtype == jnp.float32
    np.testing.assert_array_equal(state.place["x"], repeat * 2**-14)


def test_rewards_that_are_booleans_are_counted_while_an_action_is_held() -> None:
    class Paid(Clock):
        def step_env(self, *args: Any) -> Any:
            obs, state, _, terminated, info = super().step_env(*args)
            return obs, state, jnp.bool_(True), terminated, info

    env = make_env(Paid(), 2, action_repeat=3)
    state, _ = env.reset(jax.random.key(0))
    np.testing.assert_array_equal(
        env.step(jax.random.key(1), state, jnp.zeros(2, int))[1].reward, 3.0
    )


@pytest.mark.acceptance("J4", "J10")
def test_states_have_no_weak_types() -> None:
    """A weak type in a state would compile the training program a second time."""
    env = make_env("CartPole-v1", 2)
    state, _ = env.reset(jax.random.key(0))
    after, _ = env.step(jax.random.key(0), state, jnp.zeros(2, jnp.int32))
    assert not any(x.weak_type for x in jax.tree.leaves((state, after)))


def test_one_key_gives_every_environment_its_own_draws() -> None:
    _, obs = make_env("CartPole-v1", 8).reset(jax.random.key(0))
    assert len(np.unique(np.asarray(obs[:, 0]))) == 8
    assert isinstance(make_env("Pendulum-v1", 1).action_space, Box)


def test_a_held_action_is_as_many_steps() -> None:
    """On the clock, whose reward is its place: three steps summed, fewer where the episode ends at
    place 4.
    """
    held, plain = make_env(Clock(), 2, action_repeat=3), make_env(Clock(), 2)
    assert (held.max_steps, plain.max_steps) == (2, 6)
    state, obs = held.reset(jax.random.key(0))
    place = np.asarray(obs[:, 0])
    action = jnp.array([1, 0])
    state, moved = held.step(jax.random.key(1), state, action)
    np.testing.assert_allclose(moved.reward, [3 * place[0] + 6, 3 * place[1]], rtol=1e-6)
    np.testing.assert_allclose(moved.next_obs[:, 0], [place[0] + 3, place[1]], rtol=1e-6)
    np.testing.assert_array_equal(moved.terminated, False)
    _, last = held.step(jax.random.key(2), state, action)
    # one step, then it is over
    np.testing.assert_allclose(last.reward, [place[0] + 4, 3 * place[1]], rtol=1e-6)
    np.testing.assert_array_equal(last.terminated, [True, False])
    np.testing.assert_array_equal(last.truncated, [False, True])
    np.testing.assert_allclose(last.next_obs[:, 1], [4, 6])


def test_held_actions_are_counted_as_steps() -> None:
    config = Config(
        env="Pendulum-v1",
        estimator="gae",
        collect="windows",
        action_repeat=4,
        num_envs=2,
        num_steps=50,
        preset=None,
    )
    metrics = jax.jit(make_learner(config).step)(
        make_learner(config).init(jax.random.key(0)), jax.random.key(1)
    )[1]
    assert (int(metrics["env_steps"]), float(metrics["length"])) == (400, 200.0)
    config = Config(env="Pendulum-v1", action_repeat=7, preset=None)
    params = make_policy(config, make_env("Pendulum-v1", 1)).init(jax.random.key(0))
    np.testing.assert_array_equal(evaluate(config, params, jax.random.key(1), 3).lengths, 200)


class Short(Clock):
    """Every episode is of four steps, by an end or by the limit."""

    ends = True

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        obs, state, reward, _, info = super().step_env(key, state, action, params)
        return obs, state, reward, (state.time >= 4) & self.ends, info


@pytest.mark.parametrize("collect", ["episodes", "windows"])
@pytest.mark.parametrize("by_limit", [False, True])
def test_steps_are_counted_to_where_an_episode_ends_inside_a_held_action(
    collect: Any, by_limit: bool
) -> None:
    env = Short()
    env.ends = not by_limit
    estimator = "gae" if collect == "windows" else "reinforce"
    config = Config(
        env=env, env_params={"max_steps_in_episode": 4 if by_limit else 9},
        estimator=estimator, collect=collect,
        action_repeat=3, num_envs=2, num_steps=3, hidden_sizes=(4,), preset=None
    )  # fmt: skip
    learner = make_learner(config)
    step = jax.jit(learner.step)
    state = learner.init(jax.random.key(0))
    found = []
    for i in range(2):
        state, metrics = step(state, jax.random.key(i))
        found.append([float(metrics[name]) for name in ("episodes", "length", "env_steps")])
    # Held for 3 steps and for 1; a window of three actions begins an episode that the next one
    # ends.
    assert found == ([[2, 4, 8]] * 2 if collect == "episodes" else [[2, 4, 14], [4, 4, 10]])
    lengths = evaluate(config, state.params.policy, jax.random.key(1), 3).lengths
    np.testing.assert_array_equal(lengths, 4)


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
        match="Old sets terminated where its time limit cuts an episode.* leave max_steps_in",
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
        "DeepSea-bsuite",
        "FrozenLake-misc",
        *(pytest.param(n, marks=pytest.mark.slow) for n in OTHERS if n != "DeepSea-bsuite"),
    ],
)
def test_no_environment_of_gymnax_counts_its_limit_as_an_end(name: str) -> None:
    # Swimmer's own step promotes ranks; the probe has a thread of its own, which sees global
    # settings alone.
    jax.config.update("jax_numpy_rank_promotion", "allow")
    try:
        found = envs.base._ends(envs.base._instance(name))
    finally:
        jax.config.update("jax_numpy_rank_promotion", "raise")
    assert found.at_the_limit is False
    assert not found.inherits


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


def paid(env: Any, action: Any, env_params: Any = None) -> jax.Array:
    made = make_env(env, 2, env_params)
    state, _ = made.reset(jax.random.key(0))
    return made.step(jax.random.key(1), state, action)[1].reward


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
        r"one that gives",
    ):
        make_env(Idle(), 2)


def test_a_limit_that_a_property_makes_as_an_array_is_known_under_a_trace() -> None:
    class Fresh(Clock):
        @property
        def default_params(self) -> Any:
            return ClockParams(max_steps_in_episode=jnp.int32(5) + 0)

    config = Config(env=Fresh(), num_envs=2, num_updates=1, hidden_sizes=(2,), preset=None)
    assert jax.eval_shape(make_train(config), jax.random.key(0))[1]["return"].shape == (1,)
    assert make_env(Fresh(), 2).max_steps == 5


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
    assert envs.base._copied(env).more == 1
    jax.eval_shape(lambda start: make_env(env, 2, {"start": start}).reset(jax.random.key(0)), 1.0)
    assert not hasattr(env, "_Slotted__kept")
    bounds = make_env(env, 2, {"start": 2.0}).obs_bounds
    assert bounds is not None
    np.testing.assert_array_equal(bounds.high, 12.0)


class Arrays(Clock):
    """States its parameters and spaces by arrays of jax, which are made when they are asked for."""

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
            found.append((envs.base._default_params(env), make_env(env, 2).obs_bounds))
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
        assert envs.base._outside(stated) == (device, "raise")


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
            match=r"keeps what it has computed of traced arrays, .*: "
            r"compute it anew",
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
        ValueError, match="observation_space fails: it keeps what it has computed of traced arrays"
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


NO_ENVIRONMENT = {
    "a pair": (gymnax.make("CartPole-v1"), "got a pair: write env, params = gymnax.make"),
    "a class": (Clock, "got the class Clock: call it"),
    "one of gymnasium": (
        gymnasium.make("CartPole-v1"),
        "without default_params; environments of other libraries",
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


def test_a_text_for_a_flag_asks_for_true_or_false() -> None:
    with pytest.raises(ValueError, match="env_params: generous must be True or False, got 'true'"):
        make_env(Flagged(), 2, {"generous": "true"})


UNTRACEABLE = {
    "an if": (
        lambda state, action: 1 if state.place > 3 else 0,
        "a Python if, .* must be jnp.where, jax.lax.cond",
    ),
    "a range": (lambda state, action: list(range(action)), "loop by jax.lax.fori_loop"),
    "an index": (lambda state, action: [1, 2][action], "index jnp.asarray"),
    "numpy": (lambda state, action: np.sin(state.place), "write jnp in place of np"),
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

    said = "reset must give 2 values, obs, state; got one array, float32 of shape .2,."
    with pytest.raises(ValueError, match=said):
        make_env(Alone(), 2)


@pytest.mark.parametrize("name", ["action_space", "observation_space"])
@pytest.mark.parametrize(
    "kind", [spaces.Discrete, gymnasium.spaces.Discrete, lambda n: SimpleNamespace(n=n)]
)
def test_a_number_of_actions_or_observations_cannot_be_traced(name: str, kind: Any) -> None:
    class Counted(Clock):
        pass

    setattr(Counted, name, lambda self, params: kind(params.max_steps_in_episode))
    with pytest.raises(
        ValueError, match=f"the {name} of the environment needs the number of a parameter"
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


@pytest.mark.parametrize("what", ["action_space", "observation_space", "default_params"])
def test_a_fault_in_what_an_environment_states_is_one_sentence(what: str) -> None:
    def fault(self: Any, *_: Any) -> Any:
        raise KeyError("board\nand more")

    broken = type(
        "Broken", (Clock,), {what: property(fault) if what == "default_params" else fault}
    )
    with pytest.raises(ValueError, match=rf"^the environment's {what} fails: KeyError: [^\n]*$"):
        make_env(broken(), 2)


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
