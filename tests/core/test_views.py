"""Views of policy and critic: parts of an observation by name, and a critic that sees more.

The exact tests use a table in which the policy cannot tell some states apart.
"""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import Clock, ClockState
from mistakes import assert_one_sentence
from scripts import run

import pg
from pg.config import Config, Hyperparams
from pg.distributions import Categorical
from pg.envs import configured, make_env, spaces
from pg.estimators import ESTIMATORS, Params
from pg.estimators.base import successor_values
from pg.estimators.facts import FACTS
from pg.evaluation import evaluate
from pg.exact import tabular
from pg.exact.tabular import TabularMDP
from pg.networks import Network, for_env, make_critic, make_policy
from pg.rollout import Trajectory, episodes
from pg.runs import exporting, folders, parameters

KEY = jax.random.key(0)
GAMMA = 0.8
LOOKS = 2  # what the policy can tell apart


class Hidden(NamedTuple):
    """A table with states that look alike, a policy of observations and critics of states."""

    mdp: TabularMDP  # features: the look, one-hot, and then the state, one-hot
    look: np.ndarray  # [S]
    logits: np.ndarray  # [LOOKS, A]
    v: np.ndarray  # [S]
    q: np.ndarray  # [S, A]


@functools.cache
def hidden() -> Hidden:
    """Three states at three times; the critics are exact."""
    plain = tabular.garnet(0, num_states=3, num_actions=2, branching=2, horizon=3)
    mdp = tabular.with_time_in_state(plain)
    look = np.arange(mdp.num_states) % 3 % LOOKS
    logits = np.random.default_rng(1).normal(size=(LOOKS, 2))
    q, v = tabular.discounted_values(mdp, jnp.asarray(logits[look]), GAMMA)
    features = np.concatenate([np.eye(LOOKS)[look], np.eye(mdp.num_states)], axis=1)
    shown = TabularMDP(mdp.transition, mdp.reward, mdp.initial, mdp.terminal, 3, features)
    return Hidden(shown, look, logits, np.asarray(v), np.asarray(q))


def table(values: Any, wrap: Callable[[Any], Any] = lambda x: x) -> Network:
    """A network whose parameters are a table, of one-hot vectors."""
    return Network(lambda key: values, lambda p, carry, obs, first: (carry, wrap(obs @ p)))


def mean(name: str, critic: Any, *, sees_states: bool = True, limit_ends: bool = False, **h: Any):
    """The mean of an estimator over all trajectories, [LOOKS, A]."""
    problem = hidden()
    states = tuple(range(LOOKS, LOOKS + problem.mdp.num_states))
    looks = tuple(range(LOOKS))
    config = Config(
        env=problem.mdp,
        estimator=name,
        policy=table(problem.logits, Categorical),
        critic=table(critic),
        observe=looks,
        critic_observe=states if sees_states else looks,
        preset=None,
    )
    env = make_env(config.env, 1, observe=config.observe, critic_observe=config.critic_observe)
    networks = make_policy(config, env), make_critic(config, env)
    est = ESTIMATORS[name](*networks, Hyperparams(gamma=GAMMA, **h))
    params, state = est.init(KEY)
    traj, probability = tabular.enumerate_trajectories(problem.mdp, problem.logits[problem.look])

    def shown(features: jax.Array) -> Any:
        own = {"policy": features, "critic": features} if env.views.policy else features
        return jax.vmap(env.encode)(own)

    traj = traj._replace(obs=shown(traj.obs), next_obs=shown(traj.next_obs))
    if limit_ends:
        traj = traj._replace(terminated=traj.done)

    def ascent(traj: Trajectory) -> jax.Array:
        return -est.grad(params, est.weigh(params, state, traj)[0])[0].policy

    alone = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0)[:, :, None], traj)
    each = jax.jit(jax.vmap(ascent))(alone)
    return np.asarray(jnp.einsum("m,mla->la", probability, each))


def gradient() -> np.ndarray:
    """∇J in the logits of what the policy sees, exactly."""
    problem = hidden()

    def expected_return(logits: jax.Array) -> jax.Array:
        return tabular.exact_return(problem.mdp, logits[problem.look], GAMMA)

    return np.asarray(jax.grad(expected_return)(jnp.asarray(problem.logits)))


def random_critic(name: str) -> np.ndarray:
    problem = hidden()
    values = problem.q if FACTS[name].critic == "Q" else problem.v
    return 3.0 * np.random.default_rng(2).normal(size=values.shape)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("state_value", {}),
        pytest.param("action_dependent_baseline", {}, marks=pytest.mark.slow),
        pytest.param("gae", {"gae_lambda": 1.0, "limit_ends": True}, marks=pytest.mark.slow),
        pytest.param("ppo", {"gae_lambda": 1.0, "limit_ends": True}, marks=pytest.mark.slow),
    ],
)
def test_any_critic_of_states_leaves_the_mean_at_the_gradient(name: str, setting: Any) -> None:
    expected = gradient()
    assert np.abs(expected).max() > 0.01
    found = mean(name, random_critic(name), **setting)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "setting"),
    [
        pytest.param("all_action", {}, marks=pytest.mark.slow),
        pytest.param("actor_critic", {"n_step": 1}, marks=pytest.mark.slow),
        ("gae", {"gae_lambda": 0.5}),
        pytest.param("vtrace", {"gae_lambda": 0.5}, marks=pytest.mark.slow),
    ],
)
def test_an_exact_critic_bootstraps_without_bias_where_it_sees_the_state(
    name: str, setting: Any
) -> None:
    """A critic that sees what the policy sees has the mean over indistinguishable states, and a
    bias.
    """
    problem = hidden()
    exact = problem.q if FACTS[name].critic == "Q" else problem.v
    found = mean(name, exact, **setting)
    np.testing.assert_allclose(found, gradient(), rtol=0, atol=1e-12)
    of_looks = np.stack([exact[problem.look == look].mean(0) for look in range(LOOKS)])
    blind = mean(name, of_looks, sees_states=False, **setting)
    assert np.abs(blind - gradient()).max() > 1e-4


class Guided(Clock):
    """The critic sees the place, and a vector that is 0 at an episode's start."""

    def critic_observe(self, state: ClockState, params: Any) -> Any:
        return {"place": state.place, "moved": jnp.full((2,), state.time > 0)}


class Parts(Clock):
    """An observation of three parts."""

    def get_obs(self, state: ClockState, params: Any = None, key: Any = None) -> Any:
        return {
            "time": state.time % 3,
            "pair": jnp.stack([state.place, -state.place]),
            "frame": jnp.full((4, 4, 1), state.time, jnp.uint8),
        }

    def observation_space(self, params: Any) -> Any:
        return spaces.Dict(
            {
                "time": spaces.Discrete(3),
                "pair": spaces.Box(-10.0, 10.0, (2,)),
                "frame": spaces.Box(0, 255, (4, 4, 1), jnp.uint8),
            }
        )


SEEN: dict[str, tuple[Any, dict[str, Any], Any, Any, Any]] = {
    # environment, settings, shapes of what is kept, and of what policy and critic see
    "entries": (Clock, {"observe": (1,)}, (1,), (1,), (1,)),
    "entries each": (
        Clock,
        {"observe": (1,), "critic_observe": (1, 0, 1)},
        {"policy": (1,), "critic": (3,)},
        (1,),
        (3,),
    ),
    "all entries": (
        Clock,
        {"observe": (1,), "critic_observe": "all"},
        {"policy": (1,), "critic": (2,)},
        (1,),
        (2,),
    ),
    "all of both": (Clock, {"critic_observe": "all"}, (2,), (2,), (2,)),
    "a method": (
        Guided,
        {},
        {"policy": (2,), "critic": {"place": (1,), "moved": (2,)}},
        (2,),
        {"place": (1,), "moved": (2,)},
    ),
    "no method": (Guided, {"critic_observe": "policy"}, (2,), (2,), (2,)),
    "the time": (
        Clock,
        {"observe": (0,), "critic_observe": "policy_and_time"},
        {"policy": (1,), "time": (1,)},
        (1,),
        {"policy": (1,), "time": (1,)},
    ),
    "the time beside parts": (
        Parts,
        {"observe": ("time", "pair"), "critic_observe": "policy_and_time"},
        {"policy": {"time": (3,), "pair": (2,)}, "time": (1,)},
        {"time": (3,), "pair": (2,)},
        {"policy": {"time": (3,), "pair": (2,)}, "time": (1,)},
    ),
    "a name": (Parts, {"observe": "time"}, (3,), (3,), (3,)),
    "names": (
        Parts,
        {"observe": ("time", "pair"), "critic_observe": ("pair", "time")},
        *[{"time": (3,), "pair": (2,)}] * 3,
    ),
    "names each": (
        Parts,
        {"observe": ("pair",), "critic_observe": ("time", "pair")},
        {"time": (3,), "pair": (2,)},
        (2,),
        {"time": (3,), "pair": (2,)},
    ),
    "all parts": (
        Parts,
        {"observe": ("time", "pair"), "critic_observe": "all"},
        {"time": (3,), "pair": (2,), "frame": (4, 4, 1)},
        {"time": (3,), "pair": (2,)},
        {"time": (3,), "pair": (2,), "frame": (4, 4, 1)},
    ),
}


@pytest.mark.parametrize("kind", SEEN)
def test_what_is_kept_and_what_each_sees(kind: str) -> None:
    env, settings, kept, of_policy, of_critic = SEEN[kind]
    made = make_env(env(), 2, **settings)
    assert made.obs_shape == kept
    assert made.seen_by(made.views.policy).obs_shape == of_policy
    assert made.seen_by(made.views.critic).obs_shape == of_critic
    obs = made.reset(KEY)[1]
    assert jax.tree.map(lambda x: x.shape[1:], obs) == kept


NAMED = {"observe": ("time", "pair"), "critic_observe": ("pair", "frame")}


@pytest.mark.parametrize(
    ("env", "settings"),
    [
        (Clock, {"observe": (1,), "critic_observe": (0,)}),
        (Parts, NAMED),
        (Clock, {"observe": (0,), "critic_observe": "policy_and_time"}),
        pytest.param(Guided, {"rnn": "gru", "rnn_size": 4}, marks=pytest.mark.slow),
        pytest.param(Parts, NAMED | {"rnn": "lru", "rnn_size": 4}, marks=pytest.mark.slow),
    ],
    ids=["entries", "names", "time", "method, gru", "names, lru"],
)
def test_neither_sees_what_is_the_others(env: Any, settings: dict[str, Any]) -> None:
    config = Config(env=env(), estimator="gae", hidden_sizes=(4,), **settings)
    made = make_env(config.env, 2, observe=config.observe, critic_observe=config.critic_observe)
    _, obs = made.reset(KEY)
    first = jnp.ones(2, bool)
    views = {"policy": made.views.policy, "critic": made.views.critic}
    networks = {"policy": make_policy(config, made), "critic": make_critic(config, made)}
    params = {side: network.init(KEY) for side, network in networks.items()}

    @jax.jit
    def outputs(obs: Any) -> dict[str, jax.Array]:
        found = {
            side: network.apply(params[side], pg.networks.start(network, 2), obs, first)[1]
            for side, network in networks.items()
        }
        return found | {"policy": found["policy"].logits}

    before = outputs(obs)
    for name in obs:
        after = outputs(obs | {name: jax.tree.map(lambda x: x + 1.0, obs[name])})
        for side, view in views.items():
            is_seen = name == view or (isinstance(view, tuple) and name in view)
            assert bool((after[side] != before[side]).any()) == is_seen, (side, name)


@pytest.mark.parametrize("collect", [pytest.param("episodes", marks=pytest.mark.slow), "windows"])
def test_the_critic_is_shown_the_true_successor(collect: Any) -> None:
    """At time limits and in the middle of an episode; V is the place that the critic sees."""
    config = Config(
        env=Guided(),
        estimator="gae",
        collect=collect,
        num_envs=3,
        num_steps=16,
        critic=lambda config, env: Network(
            lambda key: (), lambda p, carry, obs, first: (carry, obs["place"][..., 0])
        ),
        preset=None,
    )
    env = make_env(config.env, 3)
    policy, critic = make_policy(config, env), make_critic(config, env)
    params = policy.init(KEY)
    if collect == "episodes":
        traj = episodes(env, policy, params, KEY)
    else:
        traj = pg.windows(env, policy, params, KEY, pg.rollout.start(env, policy, KEY), 16).traj
    valid = traj.valid & ~traj.terminated
    assert (traj.truncated & valid).any()
    place = traj.next_obs["policy"][..., 0]
    np.testing.assert_array_equal(traj.next_obs["critic"]["place"][..., 0][valid], place[valid])
    np.testing.assert_array_equal(
        traj.obs["critic"]["moved"][valid], np.repeat(traj.time[valid][:, None] > 0, 2, 1)
    )
    v = successor_values(critic, Params(params, ()), traj)
    np.testing.assert_array_equal(v[valid], place[valid])


TIMED = {"env": Clock(), "observe": (0,), "critic_observe": "policy_and_time", "preset": None}


@pytest.mark.parametrize("collect", ["episodes", "windows"])
@pytest.mark.parametrize("action_repeat", [1, 2])
def test_the_critic_sees_the_share_of_the_time_limit(collect: Any, action_repeat: int) -> None:
    """In environment steps since the reset, also of the true successor and of a later episode."""
    config = Config(
        **TIMED,
        estimator="gae",
        collect=collect,
        num_envs=3,
        num_steps=16,
        action_repeat=action_repeat,
    )
    env = configured(config, 3)
    policy = make_policy(config, env)
    params = policy.init(KEY)
    if collect == "episodes":
        traj = episodes(env, policy, params, KEY)
    else:
        traj = pg.windows(env, policy, params, KEY, pg.rollout.start(env, policy, KEY), 16).traj
    passed = traj.time[traj.valid] * action_repeat
    assert passed.max() > 2
    limit = Clock().default_params.max_steps_in_episode
    share = traj.obs["time"][..., 0][traj.valid]
    np.testing.assert_allclose(share, passed / limit, rtol=1e-6)
    steps = traj.env_steps[traj.valid] if action_repeat > 1 else 1
    after = traj.next_obs["time"][..., 0][traj.valid]
    np.testing.assert_allclose(after, (passed + steps) / limit, rtol=1e-6)
    assert (after == 1.0).any()


def test_a_critic_that_sees_the_time_knows_what_is_left() -> None:
    """Nothing but the time tells one state from another, and a linear V of it is exact."""

    class Waiting(Clock):
        def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
            obs, state, _, _, info = super().step_env(key, state, 0, params)
            return obs, state, jnp.float32(1.0), jnp.bool_(False), info

    def lowest_loss(**view: Any) -> float:
        settings = TIMED | {"env": Waiting(), "estimator": "state_value"} | view
        config = Config(**settings, hidden_sizes=(), num_envs=4, num_updates=1000)
        train = jax.jit(pg.make_train(config))
        metrics = train(KEY, Hyperparams(learning_rate=0.1, gamma=1.0))[1]
        return float(metrics["value_loss"].min())

    assert lowest_loss() < 1e-3
    assert lowest_loss(critic_observe="policy") > 0.5  # half the variance of 1, 2, ..., 6: 1.46


TRAINED = {
    "ppo, gru": {
        "estimator": "ppo",
        "num_steps": 8,
        "num_minibatches": 2,
        "rnn": "gru",
        "normalise_observations": True,
        "critic_hidden_sizes": (3,),
    },
    "ppo, steps": {"estimator": "ppo", "num_steps": 8, "minibatch_size": 8, "diagnostics": True},
    "all_action": {"estimator": "all_action", "normalise_observations": True},
    "the time": {
        "estimator": "ppo",
        "num_steps": 8,
        "rnn": "gru",
        "normalise_observations": True,
        "critic_observe": "policy_and_time",
    },
    "reinforce": {"estimator": "reinforce", "optimizer": "natural"},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", TRAINED)
def test_it_trains(kind: str) -> None:
    settings = {"num_envs": 4, "num_updates": 3, "hidden_sizes": (8,)} | TRAINED[kind]
    config = Config(env=Guided(), **settings)
    state, metrics = jax.jit(pg.make_train(config))(KEY)
    assert not metrics["nonfinite"].any()
    found = evaluate(config, state.params.policy, KEY, 4, normaliser=state.normaliser)
    assert np.isfinite(found.returns).all()
    same = Config(env=Guided(), **settings | {"critic_observe": ("policy",)})
    alike = jax.jit(pg.make_train(same))(KEY)[1]
    # the policy that acts is the same until the critic has taught it
    np.testing.assert_array_equal(metrics["return"][0], alike["return"][0])
    if config.normalise_observations:
        moments = state.normaliser.obs
        of_critic = moments["critic"]["place"] if "critic" in moments else moments["time"]
        entry = 0 if "critic" in moments else 1  # Guided shows place and time
        scale = 1.0 if "critic" in moments else Guided().default_params.max_steps_in_episode
        np.testing.assert_allclose(
            scale * of_critic.mean.high[0], moments["policy"].mean.high[entry], rtol=1e-6
        )


def test_by_names_each_part_is_kept_once_and_no_other() -> None:
    config = Config(
        env=Parts(),
        estimator="ppo",
        observe=("pair",),
        critic_observe=("pair", "time"),
        num_envs=4,
        num_steps=8,
        hidden_sizes=(4,),
        normalise_observations=True,
    )
    learner = pg.make_learner(config)
    state, _ = jax.eval_shape(learner.step, jax.eval_shape(learner.init, KEY), KEY)
    assert set(state.rollout.obs) == set(state.normaliser.obs) == {"pair", "time"}
    assert state.params.policy["params"]["torso"]["Dense_0"]["kernel"].shape == (2, 4)
    assert state.params.critic["params"]["torso"]["rest"]["Dense_0"]["kernel"].shape == (5, 4)


def saved(folder: Path, config: Config) -> None:
    """The folder of a run of this, as it begins."""
    folder.mkdir()
    state = jax.tree.map(lambda x: x[None], pg.make_learner(config).init(KEY))
    folders.write_setup(folder, config, config.hyperparams(), {"seed": 0, "seeds": 1})
    parameters.write_params(folder, state.params, state.normaliser)


def test_a_policy_that_is_loaded_needs_nothing_of_the_critics(tmp_path: Path) -> None:
    env = Parts()
    config = Config(
        env=env,
        estimator="gae",
        observe=("pair", "time"),
        critic_observe=("frame",),
        hidden_sizes=(2,),
        normalise_observations=True,
    )
    saved(tmp_path / "run", config)
    policy = pg.load_policy(tmp_path / "run", env=env)
    obs, _ = env.reset_env(KEY, env.default_params)
    assert policy(obs) == policy({name: obs[name] for name in ("pair", "time")})
    assert_one_sentence(lambda: policy(obs["pair"]), "names parts of a dictionary")


def test_what_is_exported_takes_what_the_policy_sees(tmp_path: Path) -> None:
    env = Guided()
    saved(tmp_path / "run", Config(env=env, estimator="gae", normalise_observations=True))
    policy = pg.load_policy(tmp_path / "run", env=env)
    arguments = exporting.programs(policy)["mode"].arguments
    assert [x.shape[1:] for x in jax.tree.leaves(arguments)] == [(2,)]


@pytest.mark.slow
def test_a_run_goes_on_is_evaluated_and_is_swept(tmp_path: Path) -> None:
    flags = (
        "--estimator",
        "ppo",
        "--num-envs",
        "8",
        "--num-steps",
        "8",
        "--schedule",
        "constant",
        "--normalise-observations",
        "--observe",
        "0",
        "2",
        "--eval-episodes",
        "3",
        "--out",
        str(tmp_path),
    )
    asymmetric = (*flags, "--critic-observe", "all")
    for name, updates in (("whole", "4"), ("part", "2")):
        done = run("train.py", *asymmetric, "--num-updates", updates, "--name", name)
        assert done.returncode == 0, done.stderr
    whole, part = (tmp_path / "CartPole-v1" / "ppo" / name for name in ("whole", "part"))
    done = run("train.py", "--resume", str(part), "--num-updates", "4")
    assert done.returncode == 0, done.stderr
    assert (part / "params.safetensors").read_bytes() == (whole / "params.safetensors").read_bytes()
    assert json.loads((whole / "config.json").read_text())["config"]["critic_observe"] == ["all"]
    done = run("render.py", str(whole), "--steps", "3")
    assert done.returncode == 0, done.stderr
    done = run(
        "sweep.py",
        *flags,
        "--num-updates",
        "2",
        "--seeds",
        "2",
        "--fresh-seeds",
        "0",
        "--over",
        "critic_observe=all,policy",
    )
    assert done.returncode == 0, done.stderr
    assert {str(x) for x in pg.load(tmp_path)["critic_observe"].to_pylist()} == {"all", "policy"}


def settings_of(**settings: Any) -> Callable[[], Any]:
    return lambda: pg.make_learner(Config(**{"env": Parts(), "estimator": "gae"} | settings))


MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "an unknown part": (
        settings_of(observe=("tim",)),
        "unknown part of the observation in observe 'tim': did you mean 'time'? valid:",
    ),
    "an unknown part of the critic": (
        settings_of(critic_observe=("place",)),
        "unknown part of the observation in critic_observe 'place': valid: frame, pair, time",
    ),
    "names of a vector": (
        settings_of(env=Clock(), observe=("place",)),
        "observe names parts of a dictionary, and the observation has shape (2,), without names",
    ),
    "the time by name": (
        settings_of(env=Clock(), critic_observe=("time",)),
        "without names; the policy's observation with the time is 'policy_and_time'",
    ),
    "entries of a dictionary": (
        settings_of(observe=("time",), critic_observe=(0,)),
        "critic_observe chooses entries of a vector, and the observation is a dict: write",
    ),
    "an entry that there is not": (
        settings_of(env=Clock(), observe=(0,), critic_observe=(0, 2)),
        "critic_observe must be below 2, the number of entries observed; got 2",
    ),
    "no method": (
        settings_of(env=Clock(), critic_observe=("method",)),
        "critic_observe='method', but Clock has no method critic_observe(state, params)",
    ),
    "no critic": (
        settings_of(estimator="reinforce", critic_observe=("all",)),
        "critic: state_value, centred_state_value, dynamics_control_variate, lookahead_control_va",
    ),
    "the policy's layers": (
        settings_of(estimator="ppo", shared_torso=True, critic_observe=("all",)),
        "with shared_torso it shares the policy's, which see what the policy sees",
    ),
    "the policy's layers and a method": (
        settings_of(env=Guided(), estimator="ppo", shared_torso=True),
        "the environment has a method critic_observe: write critic_observe=('policy',)",
    ),
    "both kinds": (
        settings_of(critic_observe=("time", 0)),
        "critic_observe must be either entries of a vector, as (0, 2), or names; got ('time', 0)",
    ),
    "the time and an entry": (
        settings_of(env=Clock(), critic_observe=("policy_and_time", 0)),
        "or names; got ('policy_and_time', 0)",
    ),
}


def test_without_a_critic_nothing_is_kept_for_it() -> None:
    config = Config(env=Guided(), estimator="reinforce", num_envs=3, horizon=4, preset=None)
    env = configured(config, 3)
    assert env.obs_shape == (2,)
    learner = pg.make_learner(config, config.hyperparams())
    pg.make_policy(config, env)
    assert jax.eval_shape(learner.init, KEY).params.critic == ()
    with_critic = dataclasses.replace(config, estimator="state_value")
    assert set(configured(with_critic, 3).obs_shape) == {"policy", "critic"}


def test_a_policy_that_would_see_what_the_critic_sees_is_refused() -> None:
    env = make_env(Guided(), 3)

    def apply(params: Any, carry: Any, obs: Any, first: Any) -> Any:
        logits = sum(x.reshape(*first.shape, -1)[..., :1] for x in jax.tree.leaves(obs))
        return carry, Categorical(jnp.concatenate([logits, -logits], axis=-1))

    policy = Network(lambda key: (), apply)
    with pytest.raises(ValueError, match="this policy does not select its own: write"):
        episodes(env, policy, (), KEY, 4)
    own = for_env(policy, env, env.views.policy)
    plain = make_env(Guided(), 3, critic_observe=("policy",))
    actions = [episodes(*given, (), KEY, 4).action for given in ((env, own), (plain, policy))]
    np.testing.assert_array_equal(*actions)


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_sentence(name: str) -> None:
    assert_one_sentence(*MISTAKES[name])
