"""Environments: all of gymnax's names, the contract of a step, repeated actions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import compiled
from environments import Clock, roll

from pg import rollout
from pg.config import ENVIRONMENTS, UNSUPPORTED, Config
from pg.envs import Box, Discrete, gymnax, make_env
from pg.evaluation import evaluate
from pg.networks import make_policy
from pg.runs import memory
from pg.train import make_learner, make_train

KEY = jax.random.key(0)
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


@pytest.mark.acceptance("T4")
@pytest.mark.parametrize(
    "name", ["CartPole-v1", "FourRooms-misc", "FrozenLake-misc", "UmbrellaChain-bsuite"]
)
def test_everything_is_float_at_the_boundary(name: str) -> None:
    traj = roll(name, 3)
    assert {traj.obs.dtype, traj.next_obs.dtype, traj.reward.dtype} == {jnp.dtype("float32")}
    assert {traj.terminated.dtype, traj.truncated.dtype} == {jnp.dtype(bool)}


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


def test_a_users_environment_is_accepted_wherever_a_name_is() -> None:
    config = Config(env=Clock(), num_updates=3, num_envs=4, preset=None)
    _, metrics = jax.jit(make_train(config))(jax.random.key(0))
    assert np.isfinite(metrics["return"]).all()
    assert config.to_json()["env"] == "Clock"


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


@pytest.mark.parametrize(
    ("collect", "by_limit"),
    [
        ("episodes", False),
        ("windows", True),
        pytest.param("episodes", True, marks=pytest.mark.slow),
        pytest.param("windows", False, marks=pytest.mark.slow),
    ],
)
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


@pytest.mark.acceptance("J10")
def test_environments_are_made_without_compiling_again() -> None:
    """40 times, used each time, in less than 5 MB."""

    def used() -> None:
        env = make_env("CartPole-v1", 2)
        state, _ = env.reset(KEY)
        jax.block_until_ready(env.step(KEY, state, jnp.zeros(2, int)))

    jax.clear_caches()  # other tests may have compiled the same
    with compiled() as first:
        used()
    assert first
    used()
    before = memory.resident()
    with compiled() as later:
        for _ in range(40):
            used()
    assert not later
    assert memory.resident() - before < 5e6


def rolled(name: str) -> tuple[Any, Any, bool]:
    """An environment cut at five steps, twelve random steps in it, and whether it clips an action
    to its box.
    """
    # gymnax's BernoulliBandit takes a float only
    limit = type(gymnax.make(name)[1].max_steps_in_episode)(5)
    env = make_env(name, 3, {"max_steps_in_episode": limit})
    policy = make_policy(Config(hidden_sizes=(), preset=None), env)
    params = policy.init(KEY)

    def roll(key: jax.Array) -> Any:
        standing = rollout.start(env, policy, key)
        return rollout.windows(env, policy, params, jax.random.fold_in(key, 1), standing, 12)[1]

    traj = jax.tree.map(np.asarray, jax.jit(jax.vmap(roll))(jax.random.split(KEY, 2)))
    state, space = env.reset(KEY)[0], env.action_space
    if not isinstance(space, Box):
        return env, traj, True
    far, edge = (
        env.step(KEY, state, jnp.broadcast_to(a, (3, *space.high.shape))) for a in (1e6, space.high)
    )
    same = jax.tree.map(lambda x, y: bool((x == y).all()), far, edge)
    return env, traj, all(jax.tree.leaves(same))


@pytest.mark.slow
@pytest.mark.acceptance("T4")
@pytest.mark.parametrize("name", [name for name in ENVIRONMENTS if name not in UNSUPPORTED])
def test_environments_keep_the_contract(name: str) -> None:
    """In a scan, under vmap and jit: floats, finite, cut at five steps, true successors, actions
    clipped.
    """
    with jax.numpy_rank_promotion("allow"):  # gymnax's own code promotes
        env, traj, clipped = rolled(name)
    assert clipped
    assert {traj.obs.dtype, traj.next_obs.dtype, traj.reward.dtype} == {np.dtype(np.float32)}
    assert {traj.terminated.dtype, traj.truncated.dtype} == {np.dtype(bool)}
    assert traj.obs.shape == traj.next_obs.shape == (2, 12, 3, *env.obs_shape)
    assert all(np.isfinite(x).all() for x in (traj.obs, traj.next_obs, traj.reward))
    assert traj.time.max() <= 4
    assert traj.truncated[traj.time == 4].all()  # also where the task ends with it
    goes_on = ~(traj.terminated | traj.truncated)[:, :-1]
    np.testing.assert_array_equal(traj.next_obs[:, :-1][goes_on], traj.obs[:, 1:][goes_on])
    np.testing.assert_array_equal(traj.first[:, 1:], ~goes_on)
