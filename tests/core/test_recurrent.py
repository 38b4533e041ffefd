"""Recurrent networks: a sequence equals its steps, resets are where acting had them, and hidden
information is recalled.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import Clock, ClockState
from gymnax.environments import environment, spaces

from pg import rollout
from pg.config import Config, Hyperparams
from pg.envs import make_env
from pg.estimators import ESTIMATORS, Params
from pg.estimators.base import critic_output, policy_output, valued
from pg.evaluation import evaluate
from pg.networks import Network, actor, make_critic, make_policy, start, unroll
from pg.parameter_noise import perturbed
from pg.train import make_learner, make_train

KEY = jax.random.key(0)
SIZES: dict[str, Any] = {"hidden_sizes": (8,), "rnn_size": 8, "num_envs": 4}


def networks(memory: Any, **changes: Any) -> tuple[Any, Any, Any, Params]:
    config = Config(
        **{"env": Clock(), "estimator": "gae", "rnn": memory, **SIZES, **changes}, preset=None
    )
    env = make_env(config.env, config.num_envs)
    policy, critic = make_policy(config, env), make_critic(config, env)
    return env, policy, critic, Params(policy.init(KEY), critic.init(jax.random.key(1)))


@pytest.mark.parametrize("memory", ["gru", "lstm"])
def test_a_sequence_is_its_steps(memory: Any) -> None:
    _, policy, _, params = networks(memory)
    obs = jax.random.normal(KEY, (9, 4, 2))
    first = jax.random.bernoulli(jax.random.key(1), 0.3, (9, 4))
    carry, steps = start(policy, 4), []
    for t in range(9):
        carry, dist = policy.apply(params.policy, carry, obs[t], first[t])
        steps.append(dist.logits)
    np.testing.assert_allclose(
        unroll(policy, params.policy, obs, first).logits, np.stack(steps), atol=1e-6
    )


@pytest.mark.parametrize("memory", ["gru", "lstm"])
def test_an_episode_knows_nothing_of_the_one_before(memory: Any) -> None:
    _, policy, _, params = networks(memory)
    obs = jax.random.normal(KEY, (9, 4, 2))
    first = jnp.zeros((9, 4), bool).at[5].set(True)
    whole = unroll(policy, params.policy, obs, first).logits
    np.testing.assert_allclose(
        whole[5:], unroll(policy, params.policy, obs[5:], first[5:]).logits, atol=1e-6
    )
    through = unroll(policy, params.policy, obs, jnp.zeros_like(first)).logits
    assert not np.allclose(whole[5:], through[5:], atol=1e-4)


def windows(memory: Any, **changes: Any) -> tuple[Any, Any, Params, list[Any]]:
    """Two windows of 10 steps in a row, of episodes of at most 6."""
    env, policy, critic, params = networks(memory, **changes)
    acting = actor(policy, critic)
    window = jax.jit(lambda state, key: rollout.windows(env, acting, params, key, state, 10))
    state, trajectories = rollout.start(env, acting, KEY), []
    for i in range(2):
        state, traj, _ = window(state, jax.random.key(i))
        trajectories.append(traj)
    return policy, critic, params, trajectories


@pytest.mark.parametrize(
    ("memory", "shared"),
    [
        ("gru", True),
        pytest.param("lstm", False, marks=pytest.mark.slow),
        ("lru", True),
        pytest.param("transformer", False, marks=pytest.mark.slow),
    ],
)
def test_learning_resets_where_acting_did(memory: Any, shared: bool) -> None:
    """ρ = 1 on fresh data, with resets within the window and a recurrent state from before it."""
    policy, _, params, (_, traj) = windows(memory, shared_torso=shared)
    assert traj.first[1:].any()
    assert not traj.first[0].all()
    again = policy_output(policy, params, traj).log_prob(traj.action)
    np.testing.assert_allclose(again, traj.log_prob, atol=1e-6)
    # Off by one step, or begun from nothing, it would be seen.
    for wrong in (
        traj._replace(first=traj.done),
        traj._replace(carry=jax.tree.map(jnp.zeros_like, traj.carry)),
    ):
        assert not np.allclose(
            policy_output(policy, params, wrong).log_prob(traj.action), traj.log_prob, atol=1e-6
        )


@pytest.mark.parametrize(("memory", "shared"), [("gru", False), ("lstm", True)])
def test_a_critic_remembers_from_window_to_window(memory: Any, shared: bool) -> None:
    _, critic, params, trajectories = windows(memory, shared_torso=shared)
    whole = jax.tree.map(lambda *x: jnp.concatenate(x), *trajectories)
    expected = critic_output(critic, params, whole)
    values = jnp.concatenate([critic_output(critic, params, traj) for traj in trajectories])
    np.testing.assert_allclose(values, expected, atol=1e-6)
    # V of a successor is V of the next step wherever the episode goes on.
    step = valued(critic, params, whole)
    goes_on = np.asarray(~whole.done[:-1])
    np.testing.assert_allclose(step.v_tp1[:-1][goes_on], expected[1:][goes_on], atol=1e-6)
    assert not np.allclose(step.v_tp1[:-1][~goes_on], expected[1:][~goes_on], atol=1e-4)


@pytest.mark.parametrize("memory", ["none", "gru"])
def test_a_shared_torso_belongs_to_both_losses(memory: Any) -> None:
    policy, critic, params, (traj, _) = windows(memory, shared_torso=True)
    assert set(params.critic["params"]) == {"head"}
    estimator = ESTIMATORS["gae"](policy, critic, Hyperparams())
    batch, _ = estimator.weigh(params, (), traj)
    of_values = estimator.grad(params, batch._replace(psi=jnp.zeros_like(batch.psi)))[0]
    assert all(
        float(jnp.abs(x).max()) > 0 for x in jax.tree.leaves(of_values.policy["params"]["torso"])
    )
    assert all(
        float(jnp.abs(x).max()) == 0 for x in jax.tree.leaves(of_values.policy["params"]["head"])
    )


CASES = [pytest.param("gru", "episodes", marks=pytest.mark.slow), ("lstm", "windows")]


@pytest.mark.parametrize(("memory", "collect"), CASES)
def test_ppo_begins_at_ratio_one(memory: Any, collect: Any) -> None:
    sizes = {**SIZES, "num_steps": 10, "num_updates": 3}
    config = Config(env=Clock(), estimator="ppo", collect=collect, rnn=memory, **sizes, preset=None)
    metrics = jax.jit(make_train(config))(KEY, Hyperparams(learning_rate=0.1))[1]
    np.testing.assert_allclose(metrics["kl"], 0.0, atol=1e-10)
    assert float(jnp.abs(metrics["grad_norm"]).min()) > 0


def test_minibatches_are_whole_sequences() -> None:
    sizes = {**SIZES, "num_steps": 10, "num_updates": 2, "num_epochs": 2, "num_minibatches": 2}
    config = Config(
        env=Clock(), estimator="ppo", collect="windows", rnn="gru", **sizes, preset=None
    )
    state, metrics = jax.jit(make_train(config))(KEY)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state, metrics)) if x.dtype == float)


@pytest.mark.slow
def test_two_seeds_side_by_side_are_two_runs() -> None:
    config = Config(
        env=Clock(),
        estimator="ppo",
        collect="windows",
        rnn="gru",
        num_steps=10,
        num_updates=2,
        **SIZES,
        preset=None,
    )
    keys = jax.random.split(KEY, 2)
    many = jax.jit(jax.vmap(make_train(config)))(keys)[0]
    one = jax.jit(make_train(config))(keys[1])[0]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-3, atol=1e-5),
        many.params,
        one.params,
    )


class Recall(environment.Environment):
    """A bit is shown at first, and asked for two steps later: 1 for the right answer."""

    @property
    def default_params(self) -> environment.EnvParams:
        # above the end at 3, which is the task's own
        return environment.EnvParams(max_steps_in_episode=4)

    def reset_env(
        self, key: jax.Array, params: environment.EnvParams
    ) -> tuple[jax.Array, ClockState]:
        state = ClockState(place=jnp.where(jax.random.bernoulli(key), 1.0, -1.0), time=jnp.int32(0))
        return jnp.stack([state.place, 0.0]), state

    def step_env(
        self, key: jax.Array, state: ClockState, action: Any, params: environment.EnvParams
    ) -> Any:
        asked = state.time == 2
        reward = jnp.where(asked & ((state.place > 0) == (action == 1)), 1.0, 0.0)
        state = ClockState(place=state.place, time=state.time + 1)
        return jnp.stack([0.0, state.time / 2.0]), state, reward, asked, {}

    def action_space(self, params: environment.EnvParams) -> spaces.Discrete:
        return spaces.Discrete(2)

    def observation_space(self, params: environment.EnvParams) -> spaces.Box:
        return spaces.Box(-1.0, 2.0, (2,), jnp.float32)


@pytest.mark.parametrize(
    ("estimator", "collect", "memory", "works"),
    [
        pytest.param("ppo", "windows", "gru", True, marks=pytest.mark.slow),
        ("leave_one_out", "episodes", "gru", True),
        ("ppo", "windows", "none", False),
    ],
)
def test_only_a_memory_recalls(estimator: str, collect: Any, memory: Any, works: bool) -> None:
    sizes = {
        "hidden_sizes": (16,),
        "rnn_size": 16,
        "num_envs": 32,
        "num_steps": 12,
        "num_updates": 80,
    }
    config = Config(
        env=Recall(), estimator=estimator, collect=collect, rnn=memory, **sizes, preset=None
    )
    state = jax.jit(make_train(config))(KEY, Hyperparams(learning_rate=0.02, max_grad_norm=1.0))[0]
    score = float(evaluate(config, state.params.policy, KEY, 200, greedy=True).returns.mean())
    assert score > 0.98 if works else abs(score - 0.5) < 0.15


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rnn": "gru", "optimizer": "trpo"},
            "optimizer='trpo' needs a policy without a recurrent state, got rnn='gru'",
        ),
        (
            {"estimator": "reinforce", "shared_torso": True},
            "shared_torso=True is for estimators with a critic V",
        ),
        (
            {"shared_torso": True, "optimizer": "natural", "estimator": "gae"},
            "with shared_torso the critic's gradient is part",
        ),
        ({"rnn": "cell"}, "unknown rnn 'cell'"),
        ({"rnn_size": 0}, "rnn_size must be a whole number of at least 1"),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**changes, preset=None)


def test_a_fisher_matrix_is_not_of_parameters_that_are_drawn() -> None:
    """They are carried along an episode, and no recurrent state."""

    def drawn(config: Config, env: Any) -> Network:
        return perturbed(make_policy(config, env))

    config = Config(policy=drawn, optimizer="natural", num_envs=2, num_updates=1, preset=None)
    with pytest.raises(ValueError, match=r"with policy 'drawn' a distribution over parameters is"):
        make_learner(config, Hyperparams())


def test_what_is_carried_is_part_of_the_state() -> None:
    config = Config(
        env=Clock(),
        estimator="ppo",
        collect="windows",
        rnn="lstm",
        num_steps=5,
        num_updates=1,
        **SIZES,
        preset=None,
    )
    learner = make_learner(config)
    state = learner.init(KEY)
    after = jax.jit(learner.step)(state, KEY)[0]
    before, now = (jax.tree.leaves(s.rollout.carry) for s in (state, after))
    assert {x.shape for x in now} == {(4, 8)}
    assert len(now) == 4  # both numbers of an LSTM, of policy and critic
    assert all(bool((a != b).any()) for a, b in zip(before, now, strict=True))
