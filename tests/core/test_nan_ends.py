"""A task that ends because its state is no longer finite: nothing of that state may enter the
gradient.

Each test trains twice, with NaN and with some number after every end, and expects equal bits.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from pg import (
    Config,
    Hyperparams,
    diagnostics,
    make_env,
    make_learner,
    make_policy,
    make_train,
    returns,
    rollout,
)
from pg.envs import environment, spaces
from pg.estimators import ESTIMATORS
from pg.estimators.base import valued
from pg.estimators.facts import FACTS, ON_TABLES
from pg.estimators.pathwise import pathwise_gradient
from pg.networks import actor, make_critic
from pg.runs import results

KEY = jax.random.key(0)
SMALL: dict[str, Any] = {"num_envs": 4, "num_updates": 3, "hidden_sizes": (4,), "rnn_size": 3}


@struct.dataclass
class State(environment.EnvState):
    place: jax.Array
    time: jax.Array


@struct.dataclass
class Params(environment.EnvParams):
    max_steps_in_episode: int = 6
    after: Any = 0.0
    cut: Any = False


class Leaving(environment.Environment):
    """A walk that ends by chance, and is at `after` then; with `cut` its end is a limit of time."""

    supports_transition_gradients = True

    def __init__(self, continuous: bool = False) -> None:
        self.continuous = continuous

    def with_transition_gradients(self) -> "Leaving":
        return self

    @property
    def default_params(self) -> Params:
        return Params()

    def reset_env(self, key: jax.Array, params: Params) -> tuple[jax.Array, State]:
        state = State(place=jax.random.uniform(key, ()), time=jnp.int32(0))
        return self.get_obs(state), state

    def step_env(self, key: jax.Array, state: State, action: Any, params: Params) -> Any:
        push = jnp.reshape(action, ()).astype(float)
        place = jnp.sin(state.place + push)
        reward = place * state.place
        ends = jax.random.bernoulli(key, 0.4) & (params.cut == 0)
        place = jnp.where(
            self.limit_reached(state, params), params.after, jnp.where(ends, params.after, place)
        )
        after = State(place=place, time=state.time + 1)
        return self.get_obs(after), after, reward, ends, {}

    def limit_reached(self, state: State, params: Params) -> jax.Array:
        """A limit of time after two steps, if `cut`."""
        return (params.cut != 0) & (state.time >= 1)

    def is_truncated(self, state: State, params: Params) -> jax.Array:
        limit = (params.cut != 0) & (state.time >= 2)
        return limit | (state.time >= params.max_steps_in_episode)

    def get_obs(self, state: State, params: Any = None, key: Any = None) -> jax.Array:
        return jnp.stack([state.place, 1.0 + state.place**2])

    def action_space(self, params: Any = None) -> Any:
        return spaces.Box(-1.0, 1.0, (1,)) if self.continuous else spaces.Discrete(2)

    def observation_space(self, params: Any) -> spaces.Box:
        return spaces.Box(-jnp.inf, jnp.inf, (2,))


def assert_ends_enter_nothing(config: Config) -> None:
    """Equal bits, and updates that are all taken."""
    train = jax.jit(make_train(config))
    h = Hyperparams(temperature=0.1, entropy_coef=0.01, gamma=0.9)
    with_nan, without = (
        train(KEY, h._replace(env_params={"after": jnp.float32(x)})) for x in (jnp.nan, 3.0)
    )
    assert not np.asarray(with_nan[1]["nonfinite"]).any()
    kept = [(state._replace(rollout=()), metrics) for state, metrics in (with_nan, without)]
    for a, b in zip(*map(jax.tree.leaves, kept), strict=True):
        assert a.tobytes() == b.tobytes()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(with_nan[0].params))
    assert float(with_nan[1]["length"].min()) < 6  # it does end


FAST = ("state_value", "optimal_baseline")
OTHERS = [name for name in ON_TABLES if name not in ("gpomdp", "ppo", "vtrace", *FAST)]
EPISODES = [
    pytest.param(
        "state_value", {"normalise_observations": True, "diagnostics": True}, id="state_value"
    ),
    pytest.param(
        "gae", {"rnn": "lstm", "shared_torso": True}, id="gae-lstm-shared", marks=pytest.mark.slow
    ),
    pytest.param("optimal_baseline", {}, id="optimal_baseline"),
    *(
        pytest.param(
            name,
            {
                "group_size": 2,
                "optimizer": "adam" if FACTS[name].psi_depends_on_policy else optimizer,
            },
            id=name,
            marks=pytest.mark.slow,
        )
        for name, optimizer in zip(
            OTHERS, itertools.cycle(("sgd", "natural", "storm")), strict=False
        )
    ),
]
WINDOWS = [
    pytest.param("actor_critic", {"rnn": "gru"}, id="actor_critic-gru"),
    pytest.param(
        "ppo", {"normalise_observations": True, "num_epochs": 2, "diagnostics": True}, id="ppo"
    ),
    *(
        pytest.param(name, {}, id=name, marks=pytest.mark.slow)
        for name in ("actor_critic", "gae", "vtrace", "gpomdp")
    ),
]


@pytest.mark.parametrize(("estimator", "changes"), EPISODES)
def test_what_follows_an_end_enters_no_update_of_episodes(
    estimator: str, changes: dict[str, Any]
) -> None:
    assert_ends_enter_nothing(
        Config(env=Leaving(), estimator=estimator, **SMALL | changes, preset=None)
    )


@pytest.mark.parametrize(("estimator", "changes"), WINDOWS)
def test_what_follows_an_end_enters_no_update_of_windows(
    estimator: str, changes: dict[str, Any]
) -> None:
    config = {"collect": "windows", "num_steps": 8, **SMALL}
    assert_ends_enter_nothing(
        Config(env=Leaving(), estimator=estimator, **config | changes, preset=None)
    )


def test_a_terminal_successor_has_no_value_in_any_return() -> None:
    """Whatever stands in for it: NaN, an infinity, a number."""
    rng = np.random.default_rng(0)
    reward, v_t, v_tp1, rho = jnp.asarray(rng.normal(size=(4, 7, 3)), jnp.float32)
    terminated, truncated = jnp.asarray(rng.random((2, 7, 3)) < 0.3)

    def found(after: float) -> list[jax.Array]:
        ends = reward, terminated, truncated, v_t, jnp.where(terminated, after, v_tp1)
        off_policy = returns.vtrace(jnp.exp(rho), *ends, 0.9)
        return [returns.n_step(*ends, 0.9, 3), returns.gae(*ends, 0.9, 0.8), *off_policy]

    for after in (jnp.nan, jnp.inf):
        for a, b in zip(found(after), found(1.0), strict=True):
            assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("memory", ["none", "gru"])
def test_no_network_sees_a_terminal_observation(memory: Any) -> None:
    config = Config(env=Leaving(), estimator="gae", rnn=memory, **SMALL, preset=None)
    env = make_env(Leaving(), 8, {"after": jnp.nan})
    policy, critic = make_policy(config, env), make_critic(config, env)
    params, _ = ESTIMATORS["gae"](policy, critic, Hyperparams()).init(KEY)
    traj = rollout.episodes(env, actor(policy, critic), params, KEY)
    step = valued(critic, params, traj)
    assert bool(traj.terminated.any())
    assert bool(jnp.isnan(traj.next_obs[traj.terminated]).any())  # recorded as it was
    assert all(bool(jnp.isfinite(x).all()) for x in (traj.obs, traj.log_prob, step.v_t, step.v_tp1))


def test_an_observation_that_is_used_is_still_found() -> None:
    """At a limit of time V of the successor stands in for what would follow."""
    config = Config(
        env=Leaving(), estimator="gae", collect="windows", num_steps=8, **SMALL, preset=None
    )
    learner = make_learner(
        config, Hyperparams(env_params={"after": jnp.float32(jnp.nan), "cut": 1})
    )
    state, metrics = jax.jit(learner.step)(learner.init(KEY), KEY)
    assert "gradients" in results.causes(int(metrics["nonfinite"]))
    assert int(metrics["skipped"]) == 1
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(state.params))


def test_evaluation_and_gradients_of_episodes_that_end_in_nan() -> None:
    config = Config(env=Leaving(), estimator="reward_to_go", **SMALL, preset=None)

    def found(after: float) -> Any:
        env = make_env(Leaving(), 8, {"after": after})
        policy = make_policy(config, env)
        params = policy.init(KEY)
        estimator = ESTIMATORS["reward_to_go"](policy, None, Hyperparams())
        both, state = estimator.init(KEY)
        traj = rollout.episodes(env, actor(policy, policy), both, KEY)
        seen = rollout.episodes(env, policy, params, KEY, act=rollout.greedy).reward.sum(0)
        return seen, diagnostics.per_episode(estimator, both, state, traj)._replace(reference=())

    for a, b in zip(*(jax.tree.leaves(jax.jit(found)(x)) for x in (jnp.nan, 3.0)), strict=True):
        assert a.tobytes() == b.tobytes()


def test_a_pathwise_gradient_of_episodes_that_end_in_nan() -> None:
    def found(after: float) -> Any:
        env = make_env(Leaving(continuous=True), 8, {"after": after}, differentiable=True)
        policy = make_policy(Config(hidden_sizes=(4,), preset=None), env)
        return jax.jit(lambda: pathwise_gradient(env, policy, policy.init(KEY), KEY))()

    for a, b in zip(*(jax.tree.leaves(found(x)) for x in (jnp.nan, 3.0)), strict=True):
        assert bool(jnp.isfinite(a).all())
        assert a.tobytes() == b.tobytes()
