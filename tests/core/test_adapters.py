"""Environments of other libraries: names and messages, spaces, failures; the promises common to all
are in test_adapter_contract.py.

Tests of a library that is not installed are skipped. gymnax installs Gymnasium.
"""

import contextlib
import importlib
import operator
import re
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from own_loops import PICTURES, robot_files

import pg
from pg.config import LIBRARIES, Config, Hyperparams, check_env
from pg.envs import Discrete, ProductSpace, adapters, configured, make_env, spaces
from pg.envs.adapters import ADAPTERS, POPGYM_ARCADE, base, make
from pg.envs.adapters.gymnasium import adapt
from pg.evaluation import evaluate
from pg.networks import make_policy
from pg.rollout import episodes
from pg.runs import execution
from pg.runs.acting import load_policy
from pg.train import make_train
from pg.trajectory import where

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the libraries


def roll(env: Any, actions: list[Any], key: int = 0, **params: Any) -> Any:
    """The transitions [T, 2, ...] of two environments that take the same actions, and the first
    observation.
    """
    env = make_env(env, 2, params, action_mask="none")  # the actions end episodes
    state, obs = env.reset(jax.random.key(key))
    pairs = jnp.stack([jnp.stack([jnp.asarray(a)] * 2) for a in actions])
    return obs, jax.jit(
        lambda s: jax.lax.scan(lambda s, a: env.step(jax.random.key(1), s, a), s, pairs)[1]
    )(state)


def test_craftax_death_is_a_termination() -> None:
    pytest.importorskip("craftax")
    env = make("craftax:Craftax-Classic-Symbolic-v1")
    _, state = env.reset_env(jax.random.key(0), env.default_params)
    dead = state.replace(inner=state.inner.replace(player_health=jnp.int32(0)))
    _, after, _, terminated, _ = env.step_env(jax.random.key(1), dead, 0, env.default_params)
    assert bool(terminated)
    assert not bool(env.is_truncated(after, env.default_params))
    with pytest.raises(ValueError, match="did you mean 'max_timesteps'"):
        make("craftax:Craftax-Classic-Symbolic-v1", max_timestep=9)


def test_jumanji_takes_whole_numbers_as_actions() -> None:
    pytest.importorskip("jumanji")
    with pytest.raises(ValueError, match=r"actions of SearchAndRescue-v0 .* got BoundedArray"):
        make("jumanji:SearchAndRescue-v0")


@pytest.mark.slow
def test_observations_of_jumanji_are_trees_if_asked_for() -> None:
    pytest.importorskip("jumanji")
    with jax.numpy_rank_promotion("allow"):
        env = make("jumanji:Snake-v1", flatten=False)
        made, flat = make_env(env, 2), make_env(make("jumanji:Snake-v1"), 2)
        obs, whole = (one.reset(jax.random.key(0))[1].obs for one in (made, flat))
        assert made.obs_shape.grid == (12, 12, 5)
        leaves = [x.reshape(2, -1) for x in jax.tree.leaves(obs)]
        np.testing.assert_array_equal(jnp.concatenate(leaves, axis=-1), whole)
        config = Config(env=env, estimator="ppo", num_envs=2, num_steps=4, num_minibatches=1)
        state, metrics = jax.jit(make_train(replace(config, num_updates=1)))(jax.random.key(0))
        assert not metrics["nonfinite"].any()
        assert "rest" in state.params.policy["params"]["torso"]


@pytest.mark.slow
def test_a_snake_that_is_shut_in_may_do_anything() -> None:
    """And dies of it: Jumanji's mask then allows nothing, which would stop a training."""
    pytest.importorskip("jumanji")
    with jax.numpy_rank_promotion("allow"):
        sizes = {"num_envs": 64, "num_steps": 32, "num_updates": 40}
        config = Config(env="jumanji:Snake-v1", estimator="ppo", **sizes)
        _, metrics = jax.jit(make_train(config))(jax.random.key(0))
    assert metrics["return"][-1] > 3  # long enough to be shut in
    assert not metrics["nonfinite"].any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sizes"),
    [("RubiksCube-v0", (6, 1, 3)), ("Cleaner-v0", (4, 4, 4)), ("Tetris-v0", 40)],
)
def test_several_whole_numbers_of_jumanji(name: str, sizes: Any) -> None:
    """Independent ones, with and without masks, and those whose combinations are masked."""
    pytest.importorskip("jumanji")
    with jax.numpy_rank_promotion("allow"):
        config = Config(
            env=f"jumanji:{name}", estimator="ppo", num_envs=4, num_steps=8, num_updates=2
        )
        env = configured(config, 4)
        if isinstance(sizes, int):
            assert env.action_space == Discrete(sizes)
        else:
            assert env.action_space == ProductSpace(tuple(map(Discrete, sizes)))
        assert env.masked == (name != "RubiksCube-v0")
        _, metrics = jax.jit(make_train(config))(jax.random.key(0))
        assert not metrics["nonfinite"].any()


@pytest.mark.slow
def test_jumanji_trains_better_with_its_masks_than_without() -> None:
    """Over 20 seeds, in returns of the policies that were trained."""
    pytest.importorskip("jumanji")
    bounds = {}
    with jax.numpy_rank_promotion("allow"):
        for mask in ("auto", "none"):
            config = Config(
                env="jumanji:Knapsack-v1",
                estimator="ppo",
                num_envs=16,
                num_steps=32,
                num_updates=60,
                action_mask=mask,
            )

            def trained(key: jax.Array, config: Config = config) -> jax.Array:
                state, _ = make_train(config)(key)
                return evaluate(config, state.params.policy, key, 32).returns.mean()

            returns = jax.jit(jax.vmap(trained))(jax.vmap(jax.random.key)(jnp.arange(20)))
            half = 2.09 * returns.std(ddof=1) / 20**0.5  # 95 %, of a t distribution
            bounds[mask] = returns.mean() - half, returns.mean() + half
    assert bounds["auto"][0] > bounds["none"][1]


@pytest.mark.slow
def test_a_policy_of_pg_is_an_opponent_in_pgx(tmp_path: Path) -> None:
    """Both sides respect the masks: no game ends by an illegal move, which loses at once."""
    pytest.importorskip("pgx")
    flags = ["--num-envs", "8", "--num-steps", "16", "--num-updates", "2", "--out", str(tmp_path)]
    command = ["train", "--env", "pgx:tic_tac_toe", "--estimator", "gae", *flags]
    subprocess.run([sys.executable, "-m", "pg", *command], check=True)
    (settings,) = tmp_path.rglob("config.json")
    policy = load_policy(settings.parent)

    def opponent(key: Any, observation: Any, mask: Any) -> Any:
        return policy(observation, key, mask=mask)

    env = make_env(make("pgx:tic_tac_toe", opponent=opponent), 64)
    network = make_policy(Config(preset=None, hidden_sizes=(2,)), env)
    traj = episodes(env, network, network.init(jax.random.key(0)), jax.random.key(1))
    assert set(np.unique(traj.reward)) == {-1.0, 0.0, 1.0}
    # nine squares, of which the agent fills five at most, and two where it loses soonest
    assert traj.valid.sum(0).max() == 5
    assert traj.valid.sum(0).min() >= 2
    assert np.take_along_axis(traj.mask, traj.action[..., None], -1)[traj.valid].all()


@pytest.mark.slow
def test_a_random_opponent_in_pgx_takes_the_legal_actions_alike() -> None:
    pytest.importorskip("pgx")
    from pg.envs.adapters.pgx import random_opponent

    keys, mask = jax.random.split(jax.random.key(0), 3000), jnp.array([True, False, True, True])
    taken = jax.vmap(random_opponent, (0, None, None))(keys, jnp.zeros(2), mask)
    shares = np.bincount(taken, minlength=4) / len(keys)
    np.testing.assert_allclose(shares, [1 / 3, 0, 1 / 3, 1 / 3], atol=0.04)


def two_updates_of_ppo(env: Any, **settings: Any) -> Any:
    """The state after them, in which every number is finite and there was a gradient to follow."""
    config = Config(
        env=env,
        estimator="ppo",
        num_envs=2,
        num_updates=2,
        num_minibatches=1,
        hidden_sizes=(8,),
        preset=None,
        **settings,
    )
    state, metrics = jax.jit(make_train(config))(jax.random.key(0))
    assert not metrics["nonfinite"].any()
    assert np.all(metrics["grad_norm"] > 0)
    return state


@pytest.mark.slow
def test_a_robots_policy_sees_its_sensors_and_the_critic_more() -> None:
    pytest.importorskip("mujoco_playground")
    if lacks := robot_files("booster_t1"):
        pytest.skip(lacks)
    seen = {"observe": ("state",), "critic_observe": ("privileged_state",)}
    with jax.numpy_rank_promotion("allow"):
        state = two_updates_of_ppo("playground:T1JoystickFlatTerrain", num_steps=4, **seen)
    policy, critic = (
        {leaf.shape for leaf in jax.tree.leaves(part)}
        for part in (state.params.policy, state.params.critic)
    )
    assert (85, 8) in policy
    assert (180, 8) in critic


@pytest.mark.slow
def test_a_recurrent_policy_is_trained_on_pictures_that_show_less_than_the_state() -> None:
    pytest.importorskip("popgym_arcade")
    with jax.numpy_rank_promotion("allow"):
        env = make("popgym_arcade:CountRecallEasy", partial_obs=True)
        state = two_updates_of_ppo(env, num_steps=8, rnn="gru", **PICTURES)
    assert "memory" in state.params.policy["params"]


@pytest.mark.slow
def test_a_game_that_gives_a_discount_in_its_info_is_stepped() -> None:
    """POPGym Arcade's, which is made for a gymnax whose `discount` asks for another method."""
    pytest.importorskip("popgym_arcade")
    with jax.numpy_rank_promotion("allow"):
        env = make("popgym_arcade:CartPoleEasy")
        params, key = env.default_params, jax.random.key(0)
        obs, state = jax.eval_shape(lambda: env.reset_env(key, params))
        after, *_ = jax.eval_shape(lambda state: env.step_env(key, state, 0, params), state)
    assert after == obs


def test_several_whole_numbers_of_gymnasium() -> None:
    """They reach the environment as it counts them, in an array of its own dtype."""

    class Pair(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0.0, 9.0, (2,))
        action_space = gymnasium.spaces.MultiDiscrete([3, 2], start=[5, 0])

        def reset(self, *, seed: Any = None, options: Any = None) -> Any:
            return np.zeros(2, np.float32), {}

        def step(self, action: Any) -> Any:
            assert action.dtype == self.action_space.dtype
            assert self.action_space.contains(action)
            return action.astype(np.float32), 1.0, False, False, {}

    env = make_env(adapt(Pair, "Pair", 3), 2)
    assert env.action_space == ProductSpace((Discrete(3), Discrete(2)))
    state, _ = env.reset(jax.random.key(0))
    actions = jnp.array([0, 2]), jnp.array([1, 0])
    seen = env.step(jax.random.key(1), state, actions)[1].next_obs
    np.testing.assert_array_equal(seen, [[5.0, 1.0], [7.0, 0.0]])


class Robot(gymnasium.Env):
    """Observations and actions of several parts, and a mask: the arm moves in even steps only."""

    observation_space = gymnasium.spaces.Dict(
        {
            "camera": gymnasium.spaces.Box(0, 255, (4, 4, 1), np.uint8),
            "at": gymnasium.spaces.Tuple(
                [gymnasium.spaces.Discrete(3, start=5), gymnasium.spaces.MultiDiscrete([2, 3])]
            ),
        }
    )
    action_space = gymnasium.spaces.Dict(
        {
            "push": gymnasium.spaces.Box(-1.0, 1.0, (2,)),
            "arm": gymnasium.spaces.MultiDiscrete([2, 3], start=[4, 0]),
            "mode": gymnasium.spaces.Discrete(2, start=1),
        }
    )
    info_of_steps = True

    def seen(self) -> Any:
        obs = {
            "camera": np.full((4, 4, 1), self.steps, np.uint8),
            "at": (5 + self.steps % 3, np.array([1, self.steps % 3])),
        }
        moves = np.array([True, self.steps % 2 == 0])
        mask = {"arm": (moves, np.ones(3, np.int8)), "mode": np.ones(2, np.int8), "push": None}
        return obs, {"action_mask": mask} if self.info_of_steps or not self.steps else {}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.steps = 0
        return self.seen()

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        self.steps += 1
        obs, info = self.seen()
        return obs, float(action["arm"][0] - 4 + 10 * (action["mode"] - 1)), False, False, info


def test_parts_of_observations_and_actions_of_gymnasium() -> None:
    """As the environment has them, from a history too that another host has to take again."""
    env = make_env(adapt(Robot, "Robot", 6), 2)
    assert env.obs_shape == {"camera": (4, 4, 1), "at": ((3,), (5,))}
    assert env.obs_dtype["camera"] == jnp.uint8
    assert [getattr(part, "n", None) for part in env.action_space.parts] == [2, 3, 2, None]
    begin, _ = env.reset(jax.random.key(0))
    arm, mode, push = (jnp.array([0, 1]), jnp.array([2, 0])), jnp.array([1, 0]), jnp.zeros((2, 2))
    step = jax.jit(lambda state, *actions: env.step(jax.random.key(1), state, actions))
    state, first = step(begin, *arm, mode, push)
    np.testing.assert_array_equal(first.reward, [10.0, 1.0])
    # histories that differ in one part alone are told apart
    np.testing.assert_array_equal(step(begin, *arm, 1 - mode, push)[1].reward, [0.0, 11.0])
    obs, mask = first.next_obs
    np.testing.assert_array_equal(obs["camera"], 1.0)
    np.testing.assert_array_equal(obs["at"][0], [[0.0, 1.0, 0.0]] * 2)
    np.testing.assert_array_equal(obs["at"][1], [[0.0, 1.0, 0.0, 1.0, 0.0]] * 2)
    np.testing.assert_array_equal(mask[0], [[True, False]] * 2)
    assert mask[3] == ()
    other = make_env(adapt(Robot, "Robot", 6), 2)
    again = other.step(jax.random.key(1), state, (*arm, mode, push))[1]
    jax.tree.map(np.testing.assert_array_equal, again, step(state, *arm, mode, push)[1])


def test_masks_in_the_info_of_gymnasium_are_kept_to() -> None:
    env = make_env(adapt(Robot, "Robot", 6), 8)
    policy = make_policy(Config(preset=None, hidden_sizes=(2,)), env)
    traj = episodes(env, policy, policy.init(jax.random.key(0)), jax.random.key(1))
    np.testing.assert_array_equal(traj.mask[0][..., 1], traj.time % 2 == 0)
    assert not (traj.action[0] > traj.mask[0][..., 1]).any()
    assert (traj.action[0] == 1).any()
    assert not make_env(adapt(Robot, "Robot", 6), 2, action_mask="none").masked
    taxi = make_env(make("gymnasium:Taxi-v4"), 3)
    obs = taxi.reset(jax.random.key(0))[1]
    assert obs.mask.shape == (3, 6)
    assert not obs.mask.all()


def test_a_mask_that_is_missing_in_a_step_is_one_sentence() -> None:
    class Silent(Robot):
        info_of_steps = False

    env = make_env(adapt(Silent, "Silent", 6), 1)
    actions = jnp.array([0]), jnp.array([2]), jnp.array([1]), jnp.zeros((1, 2))

    def one_step() -> Any:
        state = env.reset(jax.random.key(0))[0]
        return env.step(jax.random.key(1), state, actions)[1].reward

    said = r"the step of Silent fails: .*'action_mask'\] must have shape .* got None"
    with pytest.raises(base.HostError, match=said), base.faults_in_one_sentence():
        jax.block_until_ready(jax.jit(one_step)())


def test_unknown_names_are_answered_with_near_ones() -> None:
    with pytest.raises(ValueError, match="did you mean 'gymnasium'"):
        make("gymnasum:CartPole-v1")
    with pytest.raises(
        ValueError,
        match="unknown environment of gymnasium 'CartPole-v7': did you mean 'CartPole-v1'",
    ):
        make("gymnasium:CartPole-v7")
    with pytest.raises(
        ValueError, match="'brax' names no environment: write brax:inverted_pendulum"
    ):
        make("brax")


def test_the_settings_know_the_libraries_without_loading_them() -> None:
    assert tuple(ADAPTERS) == LIBRARIES
    for library in LIBRARIES:
        check_env(f"{library}:anything")


@pytest.mark.parametrize("library", ADAPTERS)
def test_a_missing_library_is_named_with_its_extra(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, f"pg.envs.adapters.{library}", raising=False)
    module = {"playground": "mujoco_playground"}.get(library, library)
    for loaded in [module, *(name for name in sys.modules if name.startswith(f"{module}."))]:
        monkeypatch.setitem(sys.modules, loaded, None)
    extra = f"pip install -e '.[{library}]'"
    command = {"popgym_arcade": POPGYM_ARCADE}.get(library, extra)
    said = f"needs {module}, which is not installed: {command}"
    with pytest.raises(ValueError, match=re.escape(said)):
        make(f"{library}:{ADAPTERS[library]}")


@pytest.mark.parametrize(
    ("place", "failure", "said"),
    [
        ("none", subprocess.CalledProcessError(128, "git"), r"with git, which failed .*: with a "),
        (".", ValueError("Error opening file '{place}/x.xml'"), "lacks its files: remove it"),
        (".", ValueError("no such option"), "^no such option$"),
    ],
)
def test_playground_says_that_it_clones_its_robots_before_it_does(
    place: str, failure: Exception, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With stand-ins for its modules, so that it needs neither the library nor a network."""
    adapter = "pg.envs.adapters.playground"
    monkeypatch.setitem(sys.modules, adapter, None)  # so that what was there is put back at the end
    monkeypatch.delitem(sys.modules, adapter)
    clone = types.SimpleNamespace(MENAGERIE_PATH=tmp_path / place, MENAGERIE_COMMIT_SHA="1b8")
    failure.args = tuple(str(x).format(place=clone.MENAGERIE_PATH) for x in failure.args)
    control = types.SimpleNamespace(ALL_ENVS=("Cartpole",))
    registry = types.SimpleNamespace(
        ALL_ENVS=("Cartpole", "Robot"),
        dm_control_suite=control,
        get_default_config=lambda name: {},
        load=Mock(side_effect=failure),
    )
    source = types.SimpleNamespace(mjx_env=clone)
    library = types.SimpleNamespace(registry=registry, _src=source)
    monkeypatch.setitem(sys.modules, "mujoco_playground", library)
    monkeypatch.setitem(sys.modules, "mujoco_playground._src", source)
    is_cloned = place == "none"
    warned = pytest.warns(
        UserWarning, match="now clones with git to .*; to do so in advance: python"
    )
    with warned if is_cloned else contextlib.nullcontext(), pytest.raises(ValueError, match=said):
        make("playground:Robot")


def test_a_package_that_popgym_arcade_needs_is_named_with_its_own_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The library is installed without the packages that it depends on."""
    monkeypatch.delitem(sys.modules, "pg.envs.adapters.popgym_arcade", raising=False)
    missing = ModuleNotFoundError("No module named 'somepackage'", name="somepackage.part")
    monkeypatch.setattr(importlib, "import_module", Mock(side_effect=missing))
    with pytest.raises(ValueError, match=r"needs somepackage.*: pip install somepackage$"):
        make("popgym_arcade:CountRecallEasy")


def test_a_library_is_asked_for_its_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for Navix with one environment."""
    fake: Any = types.ModuleType("navix")
    fake.registry = lambda: {"Navix-Empty-5x5-v0": None}
    monkeypatch.delitem(sys.modules, "pg.envs.adapters.navix", raising=False)
    monkeypatch.setitem(sys.modules, "navix", fake)
    with pytest.raises(
        ValueError,
        match="unknown environment of navix 'Navix-Empty-5x5': did you mean 'Navix-Empty",
    ):
        make("navix:Navix-Empty-5x5")
    monkeypatch.delitem(sys.modules, "pg.envs.adapters.navix", raising=False)


def test_importing_the_adapters_imports_no_library() -> None:
    code = (
        "import sys, pg.envs.adapters; print([m for m in ('jax', 'gymnax', 'brax', 'gymnasium') if "
        "m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip()
        == "[]"
    )


def test_a_cut_of_the_librarys_own_is_a_truncation() -> None:
    def step(key: Any, state: Any, action: Any) -> Any:
        return state[None] + 1.0, state + 1, 1, state >= 4, state == 1

    env = base.Adapter(
        "toy:Line", lambda key: (jnp.zeros(1), jnp.int32(0)), step, spaces.Discrete(2), 9
    )
    _, steps = roll(env, [0] * 5)
    np.testing.assert_array_equal(steps.truncated[:, 0], [False, True, False, False, False])
    np.testing.assert_array_equal(steps.terminated[:, 0], [False, False, False, False, True])


class Walk(gymnasium.Env):
    """Adds up actions and noise; ends beyond 3. Observations and actions of Gymnasium start at 0
    and at 1.
    """

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Discrete(2, start=1)
    steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.place = self.np_random.random(2)
        return self.place.copy(), {}

    def step(self, action: Any) -> Any:
        assert action in (1, 2)
        Walk.steps += 1
        self.place = self.place + np.array([action - 1, self.np_random.random()])
        return self.place.copy(), float(self.place[0]), bool(self.place[0] > 3), False, {}


def test_gymnasium_is_stepped_as_it_steps_itself() -> None:
    adapted = adapt(Walk, "Walk", 8)
    env = make_env(adapted, 3)
    assert env.action_space == Discrete(2)
    state, obs = env.reset(jax.random.key(0))
    actions = jnp.array([[1, 0, 1], [1, 1, 0], [0, 1, 1]])
    _, steps = jax.jit(
        lambda s: jax.lax.scan(lambda s, a: env.step(jax.random.key(1), s, a), s, actions)
    )(state)
    for b in range(3):
        walk = Walk()
        np.testing.assert_allclose(obs[b], walk.reset(seed=int(state.inner.seed[b]))[0], rtol=1e-6)
        for t in range(3):
            place, reward, *_ = walk.step(int(actions[t, b]) + 1)
            np.testing.assert_allclose(steps.next_obs[t, b], place, rtol=1e-6)
            np.testing.assert_allclose(steps.reward[t, b], reward, rtol=1e-6)


def test_a_gymnasium_step_is_a_function_of_the_state() -> None:
    """From one state twice, with other actions, in another order, from copies, and after the host
    has dropped it.
    """
    env = make_env(adapt(Walk, "Walk", 8), 4)
    state, _ = env.reset(jax.random.key(0))
    twins = jax.tree.map(lambda x: x[jnp.array([0, 0, 2, 2])], state)
    step = jax.jit(lambda state, action: env.step(jax.random.key(1), state, action))
    first, one = step(twins, jnp.array([1, 1, 0, 1]))
    np.testing.assert_array_equal(one.next_obs[0], one.next_obs[1])
    second, two = step(first, jnp.array([1, 0, 1, 1]))
    again = step(first, jnp.array([1, 0, 1, 1]))[1]
    jax.tree.map(np.testing.assert_array_equal, two, again)
    step(first, jnp.array([0, 1, 0, 0]))
    jax.tree.map(np.testing.assert_array_equal, step(first, jnp.array([1, 0, 1, 1]))[1], two)
    # a host that has seen nothing, as after a checkpoint
    other = make_env(adapt(Walk, "Walk", 8), 4)
    jax.tree.map(
        np.testing.assert_array_equal,
        other.step(jax.random.key(1), first, jnp.array([1, 0, 1, 1]))[1],
        two,
    )
    assert int(second.inner.time[0]) == 2


def test_gymnasium_steps_once_per_step_and_a_finished_one_stands_still() -> None:
    env = make_env(adapt(Walk, "Walk", 20), 2)
    state, _ = env.reset(jax.random.key(0))
    before, alive = Walk.steps, jnp.ones(2, bool)
    for _ in range(8):
        after, steps = env.step(jax.random.key(1), state, jnp.array([1, 0]))
        state = where(alive, after, state)  # as in a rollout
        alive &= ~steps.terminated
    np.testing.assert_array_equal(steps.terminated, [True, False])
    np.testing.assert_array_equal(state.time, [3, 8])
    assert Walk.steps - before == 3 + 8


def test_no_gymnasium_episode_is_longer_than_its_state_has_room_for() -> None:
    _, steps = roll(adapt(Walk, "Walk", 3), [0] * 4, max_steps_in_episode=9)
    np.testing.assert_array_equal(steps.truncated[:, 0], [False, False, True, True])
    assert not steps.terminated.any()


def test_gymnasium_spaces() -> None:
    """Discrete observations are one-hot, in a tuple too, which may be flattened; actions are
    Discrete or Box.
    """
    assert make_env(make("gymnasium:FrozenLake-v1"), 1).obs_shape == (16,)
    tree = make_env(make("gymnasium:Blackjack-v1"), 1)
    assert tree.obs_shape == ((32,), (11,), (2,))
    flat = make_env(make("gymnasium:Blackjack-v1", flatten=True), 1)
    assert flat.obs_shape == (32 + 11 + 2,)
    parts, whole = (env.reset(jax.random.key(3))[1] for env in (tree, flat))
    np.testing.assert_array_equal(jnp.concatenate(parts, axis=-1), whole)
    assert make_env(make("gymnasium:Pendulum-v1", max_steps=7), 1).max_steps == 7

    class Switches(Walk):
        action_space = gymnasium.spaces.Text(3)

    with pytest.raises(
        ValueError,
        match=r"actions of Switches must be Box, Discrete, .* Dict or Tuple of these, got Text",
    ):
        adapt(Switches, "Switches")


def test_a_registry_is_not_printed_for_an_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'Taxi-v4'\? ") as caught:
        make("gymnasium:Taxi-v3")
    assert len(str(caught.value)) < 200
    with pytest.raises(
        ValueError,
        match=r"unknown environment of gymnasium '%%%': \d+ names are known, as "
        r"CartPole.*; g.*lists",
    ):
        make("gymnasium:%%%")


FAULTS: dict[str, tuple[Exception, str]] = {
    "an extra that is missing": (
        gymnasium.error.DependencyNotInstalled(
            "no MuJoCo: `pip install 'gymnasium[mujoco]'`\nmore"
        ),
        r"DependencyNotInstalled: no MuJoCo: `pip install 'gymnasium\[mujoco\]'`$",
    ),
    "a module that is missing": (
        ModuleNotFoundError("no cv2", name="cv2"),
        "ModuleNotFoundError: no cv2: pip install cv2$",
    ),
    "an option that it does not have": (
        TypeError("an unexpected keyword"),
        "TypeError: an unexpected keyword$",
    ),
    "several lines": (ValueError("one\ntwo"), "ValueError: one$"),
    "nothing said": (AssertionError(), "AssertionError: $"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_constructor_that_fails_is_one_sentence(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    error, said = FAULTS[kind]

    def fail(name: str, **_: Any) -> Any:
        raise error

    monkeypatch.setattr(adapters.gymnasium, "make", fail)
    with pytest.raises(ValueError, match="^env='gymnasium:CartPole-v1' cannot be built: " + said):
        make("gymnasium:CartPole-v1")


def walk(*, step: Any = None, reset: Any = None) -> Any:
    """Walk, whose step or reset gives something else."""

    class Other(Walk):
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            gymnasium.Env.reset(self, seed=seed)
            return reset() if reset else (np.zeros(2), {})

        def step(self, action: Any) -> Any:
            return step() if step else (np.zeros(2), 1.0, False, False, {})

    return adapt(Other, "Other", 4)


def fault() -> Any:
    raise KeyError("board")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an exception": (
        {"step": fault},
        r"the step of Other fails: KeyError: 'board' "
        r"\(.*test_adapters.py, line \d+\)",
    ),
    "an exception in reset": ({"reset": fault}, r"the reset of Other fails: KeyError: 'board' \("),
    "two rewards": (
        {"step": lambda: (np.zeros(2), np.ones(2), False, False, {})},
        "one number, got an array of shape",
    ),
    "no reward": (
        {"step": lambda: (np.zeros(2), None, False, False, {})},
        "the reward must be one number, got None",
    ),
    "four values": (
        {"step": lambda: (np.zeros(2), 0.0, False, {})},
        "it must return obs, .*, info; got 4 values",
    ),
    "a reset of old": ({"reset": lambda: np.zeros(2)}, "it must return obs, info; got ndarray"),
    "a longer observation": (
        {"step": lambda: (np.zeros(3), 0.0, False, False, {})},
        "must have shape .2,., got .3,.",
    ),
}
TINY = {"num_envs": 2, "num_updates": 1, "hidden_sizes": (2,)}


@pytest.mark.parametrize("kind", WRONG)
def test_a_fault_in_python_code_is_one_sentence_with_its_place(kind: str) -> None:
    given, said = WRONG[kind]
    made = make_env(walk(**given), 2)

    def one_step() -> Any:
        return made.step(jax.random.key(1), made.reset(jax.random.key(0))[0], jnp.zeros(2, int))[
            1
        ].reward

    with pytest.raises(base.HostError, match=said) as caught, base.faults_in_one_sentence():
        jax.block_until_ready(jax.jit(one_step)())
    assert "\n" not in str(caught.value)


def test_envpool_says_that_it_draws_no_pictures() -> None:
    pytest.importorskip("envpool")
    from pg.envs.adapters.envpool import EnvPoolFleet

    fleet = EnvPoolFleet("CartPole-v1", {})
    said = "^envpool:CartPole-v1 draws no pictures: use gymnasium:NAME"
    with pytest.raises(base.HostError, match=said):
        fleet.render_episode(0, [])


def test_a_fault_in_python_code_ends_a_run_in_one_sentence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(ValueError, match=r"^the step of Other fails: KeyError: 'board'"):
        execution.run(Config(env=walk(step=fault), **TINY, preset=None), Hyperparams(), [0])
    assert not caplog.records


UNFLAT = {
    "text": gymnasium.spaces.Text(5),
    "text in a dict": gymnasium.spaces.Dict(
        {"a": gymnasium.spaces.Text(5), "b": gymnasium.spaces.Discrete(2)}
    ),
    "a sequence": gymnasium.spaces.Tuple(
        (gymnasium.spaces.Sequence(gymnasium.spaces.Discrete(2)),)
    ),
    "a graph": gymnasium.spaces.Graph(gymnasium.spaces.Discrete(2), None),
}


@pytest.mark.parametrize("kind", UNFLAT)
def test_observations_without_a_fixed_count_of_numbers_are_refused_at_once(kind: str) -> None:
    class Seen(Walk):
        observation_space = UNFLAT[kind]

    with pytest.raises(
        ValueError,
        match=r"observations of Seen must be .* a Dict or Tuple of "
        r"these, got",
    ):
        adapt(Seen, "Seen", 5)


def test_a_reward_of_one_entry_is_a_number() -> None:
    _, steps = roll(
        walk(step=lambda: (np.zeros(2), np.array([2.0]), False, np.array([False]), {})), [0]
    )
    np.testing.assert_array_equal(steps.reward, 2.0)


def test_actions_of_a_box_of_whole_numbers_reach_gymnasium_rounded() -> None:
    class Dial(Walk):
        action_space = gymnasium.spaces.Box(0, 4, (1,), np.int64)

        def step(self, action: Any) -> Any:
            assert self.action_space.contains(action)
            return np.zeros(2), float(action[0]), False, False, {}

    _, steps = roll(adapt(Dial, "Dial", 3), [[2.6], [-1.0], [9.0]])
    np.testing.assert_array_equal(steps.reward[:, 0], [3.0, 0.0, 4.0])


NAMED = (
    "envs.adapters.make",
    "envs.adapters.base.Adapter",
    "envs.adapters.gymnasium.adapt",
    "branches.first_actions",
    "commands.zoo",
    "lag",
    "rounding",
    "trackers.base.Tracker",
    "tuned",
    "window_resets.FRESH_BYTES",
)


@pytest.mark.parametrize("name", ["envs.adapters.gymnasium.adapt", "trackers.base.Tracker"])
def test_what_errors_name_is_reached_after_import_pg_alone(name: str) -> None:
    """Each in its own process, as importing one module may import another."""
    program = (
        "import sys, pg; assert not {'jax', 'gymnasium'} & set(sys.modules); "
        f"print(pg.{name}.__qualname__)"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert said.stdout.strip() == name.rpartition(".")[2], said.stderr


def test_what_pages_name_is_reached_through_pg() -> None:
    for name in NAMED:
        operator.attrgetter(name)(pg)
    listed = {name.partition(".")[0] for name in NAMED}
    assert listed <= set(pg.__all__)
