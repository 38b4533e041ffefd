"""A saved policy acts as in its run; parameters that depend on running statistics are not used
without them.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import Clock

import pg
from pg import networks, normalisation, rollout
from pg.config import Config, Hyperparams
from pg.runs import execution, folders, parameters
from pg.runs.acting import Policy
from pg.train import make_learner

CONFIG = Config(
    env="Pendulum-v1",
    env_params={"max_steps_in_episode": 20},
    estimator="gae",
    collect="windows",
    num_envs=4,
    num_steps=16,
    num_updates=3,
    hidden_sizes=(4,),
    normalise_observations=True,
    preset=None,
)
SEEDS = range(5, 7)
KEY = jax.random.key(3)


def saved(folder: Path, config: Config, hyperparams: Hyperparams | None = None) -> execution.Run:
    """A run of two seeds, in its folder."""
    h = hyperparams or Hyperparams()
    done = execution.run(config, h, SEEDS)
    folders.write_setup(folder, config, h, {"seed": SEEDS.start, "seeds": len(SEEDS)})
    parameters.write_params(folder, done.states.params, done.states.normaliser)
    return done


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, execution.Run]:
    folder = tmp_path_factory.mktemp("run")
    return folder, saved(folder, CONFIG)


def test_a_policy_is_shown_in_a_line() -> None:
    policy = pg.load_policy("DiscountingChain-bsuite/standardised")
    assert re.fullmatch(
        r"<policy of standardised on DiscountingChain-bsuite, [\d,]+ parameters>", repr(policy)
    )


@pytest.mark.parametrize("greedy", [False, True])
def test_episodes_of_a_saved_policy_are_those_of_its_own_evaluation(
    run: tuple[Path, execution.Run], greedy: bool
) -> None:
    """The episodes of every seed, with the statistics and the parameters of the environment."""
    folder, done = run
    evaluation = execution.evaluate_run(CONFIG, done, SEEDS, 6, greedy=greedy)
    keys = execution.seed_keys(SEEDS)[1]
    for i, seed in enumerate(SEEDS):
        policy = pg.load_policy(folder, seed=seed)
        env = pg.make_env(CONFIG.env, 6, dict(CONFIG.env_params))
        act = rollout.greedy if greedy else rollout.sample
        traj = pg.episodes(env, policy.network, policy.params, keys[i], act=act)
        np.testing.assert_allclose(traj.reward.sum(0), evaluation.returns[i], rtol=1e-5)
        again = policy.evaluate(keys[i], 6, greedy=greedy)
        np.testing.assert_allclose(again.returns, evaluation.returns[i], rtol=1e-5)
        np.testing.assert_array_equal(again.lengths, 20)
        assert policy.env.max_steps == 20


def test_a_saved_policy_evaluates_itself(run: tuple[Path, execution.Run]) -> None:
    policy = pg.load_policy(run[0])
    for config, params in ((policy, policy.params), (policy.config, policy)):
        with pytest.raises(ValueError, match=r"write policy\.evaluate\(key\)"):
            pg.evaluate(config, params, KEY)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="greedy must be True or False, got 3"):
        policy.evaluate(KEY, 2, greedy=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_episodes must be a whole number of at least 1"):
        policy.evaluate(KEY, 0)


def test_the_assembly_without_statistics_is_refused(run: tuple[Path, execution.Run]) -> None:
    """In a sentence that names what to write: from the folder, and from a state in memory."""
    folder, done = run
    like = jax.eval_shape(make_learner(CONFIG).init, KEY)
    with pytest.raises(
        ValueError,
        match=r"sees standardised observations, "
        r".*pg\.load_policy\(folder\)",
    ):
        parameters.read_params(folder, like.params)
    env = pg.make_env(CONFIG.env, 2)
    policy, params = (
        networks.make_policy(CONFIG, env),
        jax.tree.map(lambda x: x[0], done.states.params.policy),
    )
    with pytest.raises(
        ValueError,
        match=r"pg\.normalisation\.with_standardised_observations\(policy, "
        r"state\.normaliser\)",
    ):
        pg.episodes(env, policy, params, KEY)
    statistics = jax.tree.map(lambda x: x[0], done.states.normaliser)
    pg.episodes(
        env, normalisation.with_standardised_observations(policy, statistics), params, KEY, 2
    )


def test_one_observation_or_many_the_mode_or_a_sample(run: tuple[Path, execution.Run]) -> None:
    policy = pg.load_policy(run[0])
    # of doubles, as other libraries have them
    obs = np.random.default_rng(0).normal(size=(2, 3, 3))
    together = policy(obs)
    assert together.shape == (2, 3, 1)
    for i, j in np.ndindex(2, 3):
        np.testing.assert_allclose(together[i, j], policy(obs[i, j]), rtol=1e-5)
    sampled = [policy(obs, key) for key in jax.random.split(KEY, 3)]
    assert len({x.tobytes() for x in map(np.asarray, [*sampled, together])}) == 4
    np.testing.assert_array_equal(sampled[0], policy(obs, jax.random.split(KEY, 3)[0]))
    np.testing.assert_allclose(jax.jit(policy)(obs), together, rtol=1e-6)
    assert np.abs(policy(obs, KEY)).max() <= 2.0
    with pytest.raises(
        ValueError,
        match=r"an observation of the environment has shape \(3,\), "
        r"after .*got \(4,\)",
    ):
        policy(np.zeros(4))
    with pytest.raises(ValueError, match="key must be a random key"):
        policy(obs, 0)


def test_actions_are_within_the_bounds_of_the_environment(run: tuple[Path, execution.Run]) -> None:
    policy = pg.load_policy(run[0])
    wide = jax.tree.map(lambda x: x + 100.0, policy.params)
    wild = dataclasses.replace(policy, params=wide)
    assert float(jnp.abs(wild(np.zeros((50, 3)), KEY)).max()) == 2.0


@pytest.mark.parametrize("seed", [4, 7, -1, "5", 5.0, True, jax.random.key(5)])
def test_a_seed_that_was_not_trained(run: tuple[Path, execution.Run], seed: Any) -> None:
    with pytest.raises(ValueError, match=r"seed must be from 5 to 6, those of .*, got "):
        pg.load_policy(run[0], seed=seed)


@pytest.mark.parametrize("folder", [None, 0, b"results"])
def test_what_is_no_path_of_a_folder(folder: Any) -> None:
    with pytest.raises(ValueError, match="folder must be the path of a run, as in"):
        pg.load_policy(folder)


@pytest.mark.parametrize(
    "obs", ["x", None, {"obs": 1}, ["a"] * 3, [[0.0], [0.0, 0.0]], KEY, np.zeros(3, complex)]
)
def test_what_is_no_observation(run: tuple[Path, execution.Run], obs: Any) -> None:
    with pytest.raises(
        ValueError,
        match=r"obs must be an array of numbers, got .*: give what the "
        r"environment's",
    ):
        pg.load_policy(run[0])(obs)


def test_a_carry_is_of_as_many_episodes_as_there_are_observations(tmp_path: Path) -> None:
    """Broadcast, the episodes would share one."""
    policy, _ = kept(tmp_path, Config(rnn="lstm", rnn_size=3, hidden_sizes=(4,), preset=None))
    for carry, obs in (
        (policy.start(), np.zeros((2, 4))),
        (policy.start(2), np.zeros(4)),
        ((), np.zeros(4)),
    ):
        with pytest.raises(
            ValueError,
            match=r"carry must have the leading axes of obs: start "
            r"with policy.start\(",
        ):
            policy.step(carry, obs)
    with pytest.raises(ValueError, match=r"first must be \[...\] = \[2\] as obs, got shape \[3\]"):
        policy.step(policy.start(2), np.zeros((2, 4)), first=np.zeros(3, bool))
    with pytest.raises(
        ValueError,
        match=r"a size of the batch must be a whole number of at least "
        r"0, got \(2,\)",
    ):
        policy.start((2,))


def kept(tmp_path: Path, config: Config, **more: Any) -> tuple[Policy, Any]:
    """The policy of a folder with parameters as they are at the start, and its state."""
    state = make_learner(config).init(KEY)
    folders.write_setup(tmp_path, config, Hyperparams(), {})
    parameters.write_params(tmp_path, state.params, state.normaliser)
    return pg.load_policy(tmp_path, **more), state


def test_a_recurrent_policy_is_asked_step_by_step(tmp_path: Path) -> None:
    """As in an episode, one environment or several; it forgets what was before a first step."""
    policy, state = kept(tmp_path, Config(rnn="gru", rnn_size=3, hidden_sizes=(4,), preset=None))
    obs = np.random.default_rng(0).normal(size=(5, 2, 4))
    first = np.zeros((5, 2), bool)
    first[0] = first[3, 1] = True
    dist = networks.unroll(
        policy.network, state.params.policy, jnp.asarray(obs, float), jnp.asarray(first)
    )
    carry, alone = policy.start(2), policy.start()
    for t in range(5):
        carry, action = policy.step(carry, obs[t], first=first[t])
        np.testing.assert_array_equal(action, dist.mode()[t])
        alone, action = policy.step(alone, obs[t, 0])
        np.testing.assert_array_equal(action, dist.mode()[t, 0])
    np.testing.assert_allclose(carry[0], alone, rtol=1e-5)
    with pytest.raises(
        ValueError,
        match=r"write carry = policy\.start\(\) at the start of an "
        r"episode",
    ):
        policy(obs[0])


def test_it_takes_what_the_environment_itself_gives(tmp_path: Path) -> None:
    """Entries that are hidden are hidden by it; a whole number becomes one-hot."""
    policy, state = kept(tmp_path, Config(observe=(0, 2), hidden_sizes=(4,), preset=None))
    obs = jnp.arange(4.0)
    dist = policy.network.apply(
        state.params.policy, (), obs[jnp.array([0, 2])][None], jnp.ones(1, bool)
    )[1]
    np.testing.assert_array_equal(policy(obs), dist.mode()[0])
    assert policy(jnp.zeros((3, 4)), KEY).shape == (3,)
    policy, _ = kept(tmp_path, Config(env="FrozenLake-misc", hidden_sizes=(4,), preset=None))
    assert policy(jnp.int32(3)).shape == ()
    assert policy(np.arange(6)).shape == (6,)


def test_an_environment_object_is_given_again(tmp_path: Path) -> None:
    env = Clock()
    policy, _ = kept(tmp_path, Config(env=env, hidden_sizes=(4,), preset=None), env=env)
    assert policy.config.env is env
    with pytest.raises(ValueError, match="holds a run of an environment object"):
        pg.load_policy(tmp_path)


def test_a_folder_without_a_policy_says_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a folder of a run: give the one that"):
        pg.load_policy(str(tmp_path))
    (tmp_path / "seeds-0-1.json").touch()
    with pytest.raises(ValueError, match="holds scores of an old benchmark, without metrics and"):
        pg.load_policy(tmp_path)
    (tmp_path / "sweep.json").touch()
    with pytest.raises(ValueError, match="has not trained its best configuration again"):
        pg.load_policy(tmp_path)
    best = tmp_path / "best"
    best.mkdir()
    folders.write_setup(best, Config(hidden_sizes=(4,), preset=None), Hyperparams(), {})
    with pytest.raises(ValueError, match=r"best/params\.safetensors"):
        pg.load_policy(tmp_path)
    state = make_learner(Config(hidden_sizes=(4,), preset=None)).init(KEY)
    parameters.write_params(best, state.params)
    jax.tree.map(
        np.testing.assert_array_equal, pg.load_policy(tmp_path).params, state.params.policy
    )
