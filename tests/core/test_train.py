"""Training: one scan, in chunks or not, jitted or not, over seeds and hyperparameters, traced
once.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from environments import Clock
from mistakes import Mistake, assert_one_sentence, handed
from small import MDP, TINY, TRACED, adam_steps

from pg import train as train_module
from pg.config import Config, Hyperparams
from pg.estimators import ESTIMATORS, Estimator, Params, Weighted, build_estimator, episodic
from pg.estimators import checks as estimator_checks
from pg.estimators.base import standardise_psi
from pg.estimators.facts import FACTS, ON_TABLES
from pg.evaluation import evaluate
from pg.networks import Network
from pg.presets import preset
from pg.rollout import Trajectory
from pg.runs import execution
from pg.train import make_chunk, make_learner, make_train, scheduled, training_keys

KEY = jax.random.key(0)
CONFIG = Config(num_envs=8, num_updates=12, hidden_sizes=(16,), preset=None)
PPO = Config(
    estimator="ppo",
    collect="windows",
    num_envs=8,
    num_steps=16,
    num_updates=12,
    num_epochs=2,
    num_minibatches=4,
    hidden_sizes=(16,),
    preset=None,
)


def assert_equal(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


# Of those that are alike one, whose program has the most in it.
FAST_WAYS = {
    ("pooled_trajectory_control_variate", "episodes"),
    ("hindsight_credit", "episodes"),
    ("deterministic_policy_gradient", "episodes"),
    ("lookahead_control_variate", "episodes"),
    ("ppo", "windows"),
    ("gpomdp", "windows"),
}


def ways() -> Iterator[Any]:
    """Every estimator with all that it accepts, most of them among the slow tests."""
    for name, facts in FACTS.items():
        for way in facts.collect:
            is_fast = (name, way) in FAST_WAYS
            yield pytest.param(name, way, marks=[] if is_fast else pytest.mark.slow)


@pytest.mark.parametrize(("estimator", "collect"), [*ways()])
def test_every_estimator_trains_on_everything_it_accepts(estimator: str, collect: Any) -> None:
    group = 2 if FACTS[estimator].baseline == "group" else 1
    sizes = {
        "env": "CartPole-v1" if estimator in ON_TABLES else "Pendulum-v1",
        "num_envs": 4,
        "num_steps": 8,
        "num_updates": 3,
        "group_size": group,
        "hidden_sizes": (8,),
    }
    config = Config(estimator=estimator, collect=collect, **sizes, preset=None)
    start = jax.jit(make_learner(config).init)(training_keys(KEY, 0, 3)[0])
    state, metrics = jax.jit(make_train(config))(KEY)
    assert {x.shape for x in metrics.values()} == {(3,)}
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), start.params, state.params)
    assert any(jax.tree.leaves(moved.policy))
    assert isinstance(moved.critic, tuple) or any(jax.tree.leaves(moved.critic))


SLOWER = [pytest.param(config, marks=pytest.mark.slow) for config in (CONFIG, PPO)]


@pytest.mark.parametrize(
    "config",
    [Config(estimator="moving_average", num_envs=4, num_updates=12, preset=None), *SLOWER],
)
def test_chunks_of_updates_are_the_one_scan_bit_for_bit(config: Config) -> None:
    whole = jax.jit(make_train(config))(KEY, Hyperparams())
    init_key, keys = training_keys(KEY, 0, config.num_updates)
    chunk, count = jax.jit(make_chunk(config)), config.num_updates
    for size in (1, count // 4, count):
        state, rows = jax.jit(make_learner(config).init)(init_key), []
        for i in range(0, count, size):
            state, metrics = chunk(state, jnp.roll(keys, -i), Hyperparams(), size)
            rows.append({name: x[:size] for name, x in metrics.items()})
        assert_equal(state, whole[0])
        assert_equal(jax.tree.map(lambda *x: np.concatenate(x), *rows), whole[1])


@pytest.mark.acceptance("J1")
def test_every_update_has_a_key_of_its_own() -> None:
    """The key follows the update's number: a key that is not threaded through would sample the
    same episodes at every update.
    """
    init_key, keys = training_keys(KEY, 0, 50)
    data = np.asarray(jax.random.key_data(jnp.append(keys, init_key)))
    assert len(np.unique(data, axis=0)) == 51
    np.testing.assert_array_equal(jax.random.key_data(training_keys(KEY, 20, 30)[1]), data[20:50])
    config = Config(num_envs=4, num_updates=4, hidden_sizes=(8,), preset=None)
    returns = jax.jit(make_train(config))(KEY, Hyperparams(learning_rate=0.0))[1]["return"]
    assert len(np.unique(returns)) > 1


def test_a_run_may_go_on_beyond_its_planned_end() -> None:
    """An update's key depends on its number, not on how many were planned."""
    short, long = training_keys(KEY, 0, 5)[1], training_keys(KEY, 0, 9)[1]
    assert_equal(jax.random.key_data(short), jax.random.key_data(long[:5]))
    assert_equal(jax.random.key_data(training_keys(KEY, 5, 4)[1]), jax.random.key_data(long[5:]))


@pytest.mark.slow
def test_jit_is_no_jit() -> None:
    config = Config(env=Clock(), num_envs=4, num_updates=2, hidden_sizes=(8,), preset=None)
    learner = make_learner(config)
    init_key, keys = training_keys(KEY, 0, 1)
    state = learner.init(init_key)
    with jax.disable_jit():
        plain = learner.step(state, keys[0])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        plain,
        jax.jit(learner.step)(state, keys[0]),
    )


@pytest.mark.acceptance("D4")
def test_vmapped_seeds_are_the_solo_seeds() -> None:
    """Within rounding, after few updates: batched products round differently, and trajectories part
    in the end.
    """
    config = Config(
        estimator="leave_one_out", num_envs=8, num_updates=4, hidden_sizes=(16,), preset=None
    )
    keys = jax.random.split(KEY, 3)
    many = jax.jit(jax.vmap(make_train(config)))(keys)
    solo = jax.jit(make_train(config))
    for i, key in enumerate(keys):
        one = solo(key)
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-3, atol=1e-5),
            many[0].params,
            one[0].params,
        )
        np.testing.assert_array_equal(many[1]["env_steps"][i], one[1]["env_steps"])
    assert len({float(x) for x in many[1]["grad_norm"][:, -1]}) == 3


SWEPT: dict[str, tuple[float, float]] = {
    "learning_rate": (0.001, 0.01),
    "gamma": (0.9, 0.99),
    "gae_lambda": (0.5, 1.0),
    "n_step": (1, 4),
    "epsilon": (1e-4, 0.3),
    "undiscounted_state_weighting": (0.0, 1.0),
    "entropy_coef": (0.0, 0.1),
    "value_coef": (0.1, 1.0),
    "baseline": (0.0, 20.0),
    "temperature": (0.0, 0.5),
    "value_epsilon": (1e-4, 1.0),
    "stop_kl": (1e-6, 1.0),
    "critic_rate": (0.5, 2.0),
    "baseline_decay": (0.0, 0.99),
    "max_grad_norm": (0.01, 10.0),
    "adam_epsilon": (1e-8, 1e-2),
    "advantage_scale": (1.0, 10.0),
    "beta": (0.0, 0.9),
    "damping": (0.001, 1.0),
    "max_kl": (0.001, 0.01),
    "momentum": (0.0, 0.9),
    "snapshot_period": (1, 3),
    "restart_probability": (0.0, 1.0),
}


ALWAYS = ("learning_rate",)
OTHERS = [name for name in Hyperparams._fields if name not in (*ALWAYS, "env_params")]


@pytest.mark.parametrize(
    "name", [*ALWAYS, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)
def test_every_hyperparameter_can_be_vmapped(name: str) -> None:
    """And matters, for an estimator that uses it."""
    config = {
        "n_step": Config(estimator="actor_critic", num_envs=4, num_updates=3, preset=None),
        "baseline": Config(estimator="constant_baseline", num_envs=4, num_updates=3, preset=None),
        "temperature": Config(estimator="entropy_reward", num_envs=4, num_updates=3, preset=None),
        "critic_rate": Config(
            estimator="state_value", optimizer="rmsprop", num_envs=4, num_updates=3, preset=None
        ),
        "adam_epsilon": Config(optimizer="adamw", num_envs=4, num_updates=3, preset=None),
        "baseline_decay": Config(
            estimator="moving_average", num_envs=4, num_updates=3, preset=None
        ),
        "beta": Config(
            estimator="gpomdp",
            collect="windows",
            num_envs=4,
            num_steps=8,
            num_updates=3,
            preset=None,
        ),
        "advantage_scale": Config(
            estimator="advantage_weighted_regression", num_envs=4, num_updates=3, preset=None
        ),
        "damping": Config(optimizer="natural", num_envs=4, num_updates=3, preset=None),
        "max_kl": Config(optimizer="trpo", num_envs=4, num_updates=3, preset=None),
        "momentum": Config(optimizer="storm", num_envs=4, num_updates=3, preset=None),
        "snapshot_period": Config(optimizer="svrpg", num_envs=4, num_updates=3, preset=None),
        "restart_probability": Config(optimizer="page_pg", num_envs=4, num_updates=3, preset=None),
    }.get(name, PPO if name != "gamma" else Config(num_envs=4, num_updates=3, preset=None))

    def final(value: jax.Array) -> Any:
        h = Hyperparams(**{"gamma": 0.9, "learning_rate": 0.1, "max_grad_norm": 1e9, name: value})
        plain = optax.sgd if config.optimizer == "adam" else None
        return make_train(config, optimizer=plain)(KEY, h)[0].params

    pair = jax.jit(jax.vmap(final))(jnp.array(SWEPT[name]))
    assert any(bool((x[0] != x[1]).any()) for x in jax.tree.leaves(pair))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(pair))


def test_environment_parameters_can_be_vmapped() -> None:
    config = Config(env=Clock(), num_envs=4, num_updates=2, preset=None)

    def total(scale: jax.Array) -> jax.Array:
        return make_train(config)(KEY, Hyperparams(env_params={"reward_scale": scale}))[1]["return"]

    one, two = jax.jit(jax.vmap(total))(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(two[0], 2 * one[0], rtol=1e-5)


@pytest.mark.slow
def test_a_run_in_chunks_is_the_function_with_traced_environment_parameters_too() -> None:
    """From the first reset on: a window starts in an environment that has them."""
    config = Config(
        env=Clock(),
        estimator="gae",
        collect="windows",
        num_envs=2,
        num_steps=3,
        num_updates=2,
        preset=None,
    )
    h = Hyperparams(env_params={"start": 2.0})
    metrics = execution.run(config, h, [0]).metrics
    expected = jax.jit(make_train(config))(execution.seed_keys([0])[0][0], h)[1]
    np.testing.assert_allclose(metrics["grad_norm"][0], expected["grad_norm"], rtol=1e-4)


@pytest.mark.acceptance("J4")
def test_the_program_is_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = []
    original = train_module.make_learner

    def counted(*args: Any, **kwargs: Any) -> Any:
        traces.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(train_module, "make_learner", counted)
    chunk = jax.jit(make_chunk(CONFIG))
    init_key, keys = training_keys(KEY, 0, 12)
    state = jax.jit(original(CONFIG).init)(init_key)
    h = jax.tree.map(jnp.asarray, Hyperparams())
    for i in range(0, 12, 3):
        state, _ = chunk(state, keys[i : i + 3], h._replace(learning_rate=jnp.float32(0.1 * i)))
    assert len(traces) == 1
    train = jax.jit(chex.assert_max_traces(make_train(CONFIG), n=1))
    train(KEY)
    train(jax.random.key(1))
    assert len(traces) == 2


def test_sgd_is_the_bare_theorem() -> None:
    """θ' = θ + α (1/N) Σₙ R(τₙ) Σₜ ∇log π, written out."""
    config = Config(num_envs=8, num_updates=1, hidden_sizes=(8,), optimizer="sgd", preset=None)
    h = Hyperparams(learning_rate=0.125, max_grad_norm=float("inf"), gamma=0.9)
    init_key, keys = training_keys(KEY, 0, 1)
    learner = make_learner(config, h)
    before, after = learner.init(init_key), make_train(config)(KEY, h)[0]

    env = train_module.envs.make_env("CartPole-v1", 8)
    policy = train_module.networks.make_policy(config, env)
    traj = train_module.rollout.episodes(
        env, policy, before.params.policy, jax.random.split(keys[0])[0]
    )

    def surrogate(params: Any) -> jax.Array:
        log_pi = policy.apply(params, (), traj.obs, traj.first)[1].log_prob(traj.action)
        total = (traj.reward * 0.9 ** jnp.arange(500)[:, None]).sum(0)
        return ((log_pi * traj.valid).sum(0) * total).mean()

    ascent = jax.grad(surrogate)(before.params.policy)
    jax.tree.map(
        lambda a, b, g: np.testing.assert_allclose(a, b + 0.125 * g, rtol=2e-4, atol=1e-5),
        after.params.policy,
        before.params.policy,
        ascent,
    )


def test_clipping_is_by_the_global_norm_of_each_network() -> None:
    config = Config(
        estimator="state_value",
        num_envs=8,
        num_updates=1,
        hidden_sizes=(8,),
        optimizer="sgd",
        preset=None,
    )
    h = Hyperparams(learning_rate=1.0, max_grad_norm=0.01)
    before = make_learner(config, h).init(training_keys(KEY, 0, 1)[0])
    after, metrics = jax.jit(make_train(config))(KEY, h)
    step = jax.tree.map(jnp.subtract, after.params, before.params)
    np.testing.assert_allclose(
        [optax.tree.norm(step.policy), optax.tree.norm(step.critic)], 0.01, rtol=1e-3
    )
    assert metrics["grad_norm"][0] > 1.0  # reported before clipping


@pytest.mark.parametrize("schedule", ["linear", pytest.param("cosine", marks=pytest.mark.slow)])
def test_schedules_end_at_zero(schedule: Any) -> None:
    config = Config(
        num_envs=2,
        num_updates=8,
        hidden_sizes=(8,),
        optimizer="sgd",
        schedule=schedule,
        preset=None,
    )
    learner = make_learner(config, Hyperparams(learning_rate=1.0, max_grad_norm=1.0))
    init_key, keys = training_keys(KEY, 0, 9)
    state, lengths, step = learner.init(init_key), [], jax.jit(learner.step)
    for key in keys:
        new, _ = step(state, key)
        lengths.append(float(optax.tree.norm(jax.tree.map(jnp.subtract, new.params, state.params))))
        state = new
    assert lengths[0] == pytest.approx(1.0, rel=1e-3)
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[8] == 0.0


def test_functions_override_names() -> None:
    def doubled(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
        base = ESTIMATORS["reinforce"](policy, critic, h)

        def grad(params: Params, batch: Any) -> Any:
            grads, metrics = base.grad(params, batch)
            return jax.tree.map(lambda g: 2 * g, grads), {**metrics, "mine": jnp.float32(7)}

        return base._replace(grad=grad)

    config = Config(num_envs=4, num_updates=1, preset=None)
    plain = make_train(config, optimizer=optax.sgd)(KEY, Hyperparams(max_grad_norm=jnp.inf))[1]
    mine = make_train(config, optimizer=optax.sgd, estimator=doubled)(
        KEY, Hyperparams(max_grad_norm=jnp.inf)
    )[1]
    np.testing.assert_allclose(mine["grad_norm"], 2 * plain["grad_norm"], rtol=1e-5)
    assert mine["mine"][0] == 7


def test_a_total_return_over_windows_is_refused() -> None:
    def mine(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
        return build_estimator(
            policy, None, h, lambda params, state, traj: (1.0, (), state), accepts=("episodes",)
        )

    with pytest.raises(ValueError, match="accepts collect=episodes, not 'windows'"):
        make_learner(Config(estimator="gae", collect="windows", preset=None), estimator=mine)


@pytest.mark.parametrize("reinforce", [episodic.reinforce, ESTIMATORS["reinforce"]])
def test_one_of_the_family_accepts_what_the_table_says_whoever_hands_it_in(reinforce: Any) -> None:
    with pytest.raises(ValueError, match=r"estimator='reinforce' .* needs collect='episodes'"):
        make_learner(Config(estimator="gae", collect="windows"), estimator=reinforce)


@pytest.mark.slow
def test_windows_are_scaled_per_step() -> None:
    """The gradient over a window is that of one step on average, however long the window."""
    norms = []
    for num_steps in (64, 256):
        config = Config(
            estimator="gae",
            collect="windows",
            num_envs=64,
            num_steps=num_steps,
            num_updates=1,
            preset=None,
        )
        h = Hyperparams(learning_rate=0.0, gamma=0.5, undiscounted_state_weighting=1.0)
        norms.append(float(jax.jit(make_train(config))(KEY, h)[1]["grad_norm"][0]))
    assert 0.5 < norms[1] / norms[0] < 2.0


def test_metrics_of_a_window_without_an_end_are_nan_not_zero() -> None:
    config = Config(
        env="Pendulum-v1",
        estimator="gae",
        collect="windows",
        num_envs=2,
        num_steps=5,
        num_updates=2,
        preset=None,
    )
    metrics = jax.jit(make_train(config))(KEY)[1]
    np.testing.assert_array_equal(metrics["episodes"], 0)
    assert np.isnan(metrics["return"]).all()
    np.testing.assert_array_equal(metrics["env_steps"], 10)


def test_minibatches_are_a_partition_of_the_environments() -> None:
    rows = np.asarray(train_module._minibatches(PPO, KEY))
    assert rows.shape == (8, 2)
    for epoch in rows.reshape(2, 8):
        assert sorted(epoch) == list(range(8))
    assert not np.array_equal(rows[:4], rows[4:])


@pytest.mark.acceptance("J1", "J3")
def test_nothing_leaks_and_keys_are_used_once() -> None:
    config = Config(env=Clock(), num_envs=4, num_updates=2, hidden_sizes=(8,), preset=None)
    with jax.checking_leaks(), jax.debug_key_reuse(True):
        jax.jit(make_train(config))(jax.random.key(1))
    windows = Config(
        env=Clock(),
        estimator="ppo",
        collect="windows",
        num_envs=4,
        num_steps=4,
        num_updates=2,
        num_epochs=2,
        preset=None,
    )
    with jax.checking_leaks(), jax.debug_key_reuse(True):
        jax.jit(make_train(windows))(jax.random.key(2))


class Drawing(Clock):
    """A Clock whose steps draw random numbers."""

    def step_env(self, key: jax.Array, state: Any, action: Any, params: Any) -> Any:
        obs, state, reward, *ends = super().step_env(key, state, action, params)
        return obs, state, reward + jax.random.normal(key), *ends


@pytest.mark.acceptance("J1", "J3")
@pytest.mark.parametrize("collect", ["episodes", "windows"])
def test_runs_side_by_side_use_each_key_once_where_steps_draw(collect: Any) -> None:
    """Under vmap: jax took the keys of a scan for used when it moved their axis. The same with
    repeated actions.
    """
    config = Config(
        env=Drawing(),
        estimator="gae",
        collect=collect,
        action_repeat=2,
        num_envs=2,
        num_steps=4,
        num_updates=2,
        hidden_sizes=(4,),
        preset=None,
    )
    keys = jax.random.split(KEY, 2)
    chunk, learner = train_module.make_chunk(config), make_learner(config)
    with jax.checking_leaks(), jax.debug_key_reuse(True):
        jax.jit(jax.vmap(make_train(config))).lower(keys)
        states = jax.eval_shape(jax.vmap(learner.init), keys)
        jax.jit(jax.vmap(chunk, (0, 0, None, None))).lower(states, keys[:, None], Hyperparams(), 1)


def test_keys_of_another_kind_stay_of_their_kind() -> None:
    """Their numbers pass through loops, and are keys again there."""
    config = Config(
        env=Drawing(), num_envs=2, num_updates=1, hidden_sizes=(4,), action_repeat=2, preset=None
    )
    train = jax.jit(make_train(config))
    plain, other = (train(jax.random.key(0, impl=impl))[1] for impl in ("threefry2x32", "rbg"))
    assert float(plain["return"][0]) != float(other["return"][0])


def test_a_batch_is_left_once_the_policy_has_moved_too_far() -> None:
    config = Config(**{**vars(PPO), "num_updates": 1})
    # the first minibatch is at ratio 1, and always taken
    for stop, steps in ((float("inf"), 8), (1e-9, 1)):
        state, metrics = jax.jit(make_train(config))(
            KEY, Hyperparams(learning_rate=0.01, stop_kl=stop)
        )
        assert adam_steps(state) == steps
        assert np.isfinite(metrics["kl"]).all()


def rate_seen(rate: Any) -> optax.GradientTransformation:
    """SGD, in whose state the learning rate of the last step that was taken stands."""
    return optax.inject_hyperparams(optax.sgd)(learning_rate=rate)


def rates_of_updates(config: Config, h: Hyperparams, **parts: Any) -> tuple[np.ndarray, np.ndarray]:
    """After every update the learning rate of the last step that was taken, and whether the update
    was skipped.
    """
    learner = make_learner(config, h, optimizer=rate_seen, **parts)
    init_key, keys = training_keys(KEY, 0, config.num_updates)

    def step(state: Any, key: jax.Array) -> Any:
        state, metrics = learner.step(state, key)
        return state, (state.opt_state[1].hyperparams["learning_rate"], metrics["skipped"])

    rates, skipped = jax.jit(lambda: jax.lax.scan(step, learner.init(init_key), keys)[1])()
    return np.asarray(rates), np.asarray(skipped) > 0


@pytest.mark.parametrize("schedule", ["linear", pytest.param("cosine", marks=pytest.mark.slow)])
def test_the_learning_rate_follows_updates_where_a_batch_is_left_early(schedule: Any) -> None:
    """One of eight planned steps is taken in each update, and still the rate falls over all of the
    run.
    """
    config = Config(**{**vars(PPO), "schedule": schedule})
    rates, _ = rates_of_updates(config, Hyperparams(learning_rate=0.01, stop_kl=1e-9))
    done = np.arange(config.num_updates) / config.num_updates
    share = {"linear": 1.0 - done, "cosine": 0.5 * (1.0 + np.cos(np.pi * done))}[schedule]
    np.testing.assert_allclose(rates, 0.01 * share, rtol=1e-5)


def test_the_learning_rate_follows_updates_that_are_skipped() -> None:
    """About half of the updates are not finite and not taken: the others have the rate of their
    place in the run.
    """

    def poisoned(policy: Network, critic: Network, h: Hyperparams) -> Estimator:
        plain = ESTIMATORS["reinforce"](policy, critic, h)

        def grad(params: Params, batch: Any) -> Any:
            grads, metrics = plain.grad(params, batch)
            bad = batch.traj.obs[0, 0, 0] > 0.0
            return jax.tree.map(lambda g: jnp.where(bad, jnp.nan, g), grads), metrics

        return plain._replace(grad=grad)

    sizes = {"num_envs": 2, "num_updates": 12, "horizon": 8, "hidden_sizes": (4,)}
    config = Config(**sizes, schedule="linear", on_nonfinite="skip", preset=None)
    rates, skipped = rates_of_updates(config, Hyperparams(learning_rate=0.01), estimator=poisoned)
    assert skipped.any()
    assert not skipped.all()
    planned = 0.01 * (1.0 - np.arange(12) / 12)
    np.testing.assert_allclose(rates[~skipped], planned[~skipped], rtol=1e-5)


def test_advantages_are_standardised_over_valid_steps() -> None:
    psi, valid = (
        jax.random.normal(KEY, (6, 4)),
        jnp.asarray(np.arange(6)[:, None] < np.array([1, 3, 6, 2])),
    )
    traj = jax.tree.map(lambda _: jnp.zeros((6, 4)), Trajectory(*Trajectory._fields))._replace(
        valid=valid
    )
    out = standardise_psi(Weighted(traj, 5 + 3 * psi, ())).psi
    kept = np.asarray(psi)[np.asarray(valid)]
    np.testing.assert_allclose(
        np.asarray(out)[np.asarray(valid)], (kept - kept.mean()) / kept.std(), rtol=1e-4
    )
    np.testing.assert_array_equal(np.asarray(out)[~np.asarray(valid)], 0.0)


@pytest.mark.slow
def test_where_advantages_are_standardised_matters() -> None:
    finals = []
    for where in ("raw", "batch", "minibatch"):
        config = Config(**{**vars(PPO), "num_updates": 2, "advantages": where})
        finals.append(jax.jit(make_train(config))(KEY)[0].params.policy)
    for a, b in ((0, 1), (1, 2)):
        pairs = zip(jax.tree.leaves(finals[a]), jax.tree.leaves(finals[b]), strict=True)
        assert any(bool((x != y).any()) for x, y in pairs)


def test_courses_of_entropy_and_clip_range() -> None:
    h = Hyperparams(entropy_coef=0.1, temperature=0.2, epsilon=0.3)
    config = Config(
        num_updates=10, entropy_schedule="linear", epsilon_schedule="cosine", preset=None
    )
    for update, linear, cosine in ((0, 1.0, 1.0), (5, 0.5, 0.5), (10, 0.0, 0.0), (25, 0.0, 0.0)):
        now = scheduled(config, h, jnp.int32(update))
        values = [now.entropy_coef, now.temperature, now.epsilon]
        np.testing.assert_allclose(values, [0.1 * linear, 0.2 * linear, 0.3 * cosine], atol=1e-6)
        assert now.value_epsilon == float("inf")  # no clipping stays no clipping
    assert scheduled(Config(preset=None), h, jnp.int32(3)) == h


@pytest.mark.parametrize(
    ("schedule", "name", "value", "at_the_end"),
    [
        pytest.param("entropy_schedule", "entropy_coef", 0.3, 0.0, marks=pytest.mark.slow),
        ("epsilon_schedule", "epsilon", 0.3, 0.0),
    ],
)
def test_what_is_annealed_is_gone_at_the_end_of_the_plan(
    schedule: str, name: str, value: float, at_the_end: float
) -> None:
    """An update beyond the last that is planned is one with the coefficient at zero."""
    config = dataclasses.replace(PPO, num_updates=3)
    annealed = dataclasses.replace(config, **{schedule: "linear"})
    learner = make_learner(annealed, Hyperparams(**{name: value}))
    state = learner.init(KEY)._replace(update=jnp.int32(3))
    ended, _ = jax.jit(learner.step)(state, KEY)
    without = make_learner(config, Hyperparams(**{name: at_the_end}))
    expected, _ = jax.jit(without.step)(state, KEY)
    whole = make_learner(config, Hyperparams(**{name: value}))
    other, _ = jax.jit(whole.step)(state, KEY)
    close = jax.tree.map(lambda a, b: np.allclose(a, b, atol=1e-6), ended.params, expected.params)
    assert all(jax.tree.leaves(close))
    same = jax.tree.map(lambda a, b: np.allclose(a, b, atol=1e-6), ended.params, other.params)
    assert not all(jax.tree.leaves(same))


def test_an_estimator_is_checked_where_it_is_handed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the table are ours."""
    handed_in: list[Any] = []
    monkeypatch.setattr(
        estimator_checks, "checked", lambda factory: handed_in.append(factory) or factory
    )
    make_learner(CONFIG)
    assert not handed_in
    make_learner(CONFIG, estimator=ESTIMATORS["reward_to_go"])
    assert handed_in == [ESTIMATORS["reward_to_go"]]


def test_the_update_is_counted_in_the_state() -> None:
    config = Config(
        num_envs=4, num_updates=3, entropy_schedule="linear", hidden_sizes=(8,), preset=None
    )
    assert int(jax.jit(make_train(config))(KEY)[0].update) == 3


def diagnosed(name: str, **changes: Any) -> tuple[Any, Any, Any, Any]:
    """The states and metrics of two runs, the second with diagnostics."""
    sizes = {
        "num_envs": 6,
        "num_updates": 3,
        "hidden_sizes": (8,),
        "num_steps": 12,
        "group_size": 1,
    }
    if FACTS[name].baseline == "group":
        sizes["group_size"] = 2
    config = Config(
        estimator=name, collect=FACTS[name].collect[-1], **(sizes | changes), preset=None
    )
    return *jax.jit(make_train(config))(KEY), *jax.jit(
        make_train(dataclasses.replace(config, diagnostics=True))
    )(KEY)


@pytest.mark.parametrize("name", [pytest.param("reinforce", marks=pytest.mark.slow), "gae"])
def test_diagnostics_leave_training_as_it_is(name: str) -> None:
    state, metrics, watched, more = diagnosed(name)
    assert set(more) - set(metrics) == {"grad_variance", "grad_squared_norm"} | (
        {"explained_variance"} if name == "gae" else set()
    )
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(watched.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    # ‖ḡ‖² is the signal and a share of the noise.
    np.testing.assert_allclose(
        more["grad_squared_norm"] + more["grad_variance"] / 6, more["grad_norm"] ** 2, rtol=1e-3
    )
    assert (more["grad_variance"] > 0).all()


@pytest.mark.parametrize("mode", [pytest.param("batch", marks=pytest.mark.slow), "minibatch"])
def test_diagnostics_are_of_the_advantages_that_are_used(mode: Any) -> None:
    _, _, _, metrics = diagnosed("ppo", advantages=mode)
    np.testing.assert_allclose(
        metrics["grad_squared_norm"] + metrics["grad_variance"] / 6,
        metrics["grad_norm"] ** 2,
        rtol=1e-3,
    )


def test_diagnostics_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="num_envs must be at least 2 for diagnostics"):
        Config(num_envs=1, diagnostics=True, preset=None)
    with pytest.raises(
        ValueError, match="diagnostics need an estimator whose gradient is a mean over the episodes"
    ):
        make_learner(Config(estimator="optimal_baseline", diagnostics=True, preset=None))


@pytest.mark.acceptance("INPUTS")
def test_what_is_handed_over_and_right() -> None:
    """A preset is unpacked into what trains, and keys of the old kind are keys."""
    changes = {
        "num_updates": 1,
        "num_envs": 2,
        "num_steps": 2,
        "hidden_sizes": (4,),
        "num_minibatches": 1,
    }
    pair = preset("ppo", env=Clock(), **changes, learning_rate=0.5)
    state, _ = make_train(*pair)(KEY)
    by_hand, _ = make_train(pair[0])(KEY, pair[1])
    usual, _ = make_train(pair[0])(KEY)
    assert jax.tree.all(jax.tree.map(np.array_equal, state.params, by_hand.params))
    assert not jax.tree.all(jax.tree.map(np.array_equal, state.params, usual.params))
    old, _ = make_train(*pair)(jax.random.PRNGKey(0))
    assert jax.tree.all(jax.tree.map(np.array_equal, state.params, old.params))
    assert not np.isnan(
        evaluate(pair[0], state.params.policy, jax.random.PRNGKey(1), 2).returns
    ).any()


LEARNING_RATES = (0.003, np.float64(0.003), np.float32(0.003), jnp.float32(0.003), np.array(0.003))


@pytest.mark.acceptance("J4", "J6")
def test_one_compilation_serves_all_chunks() -> None:
    """100 of them, learning rates of five kinds, states that were on the host in between; and
    nothing is donated.
    """
    many = jax.jit(jax.vmap(make_chunk(TINY)))
    keys = jax.random.split(KEY, (2, 1))
    states = start = jax.jit(jax.vmap(make_learner(TINY).init))(keys[:, 0])
    for i in range(100):
        h = execution.broadcast(Hyperparams(learning_rate=LEARNING_RATES[i % 5]), 2)
        states, _ = many(states, keys, h)
        if i == 50:
            states = jax.tree.map(jnp.asarray, jax.device_get(states))
    assert many._cache_size() == 1
    assert not any(x.is_deleted() for x in jax.tree.leaves((keys, start)))


@pytest.mark.acceptance("J6")
def test_the_callers_arrays_are_left_alone() -> None:
    key, h = jax.random.key(1), jax.tree.map(jnp.copy, TRACED)
    train = jax.jit(make_train(TINY))
    first, second = train(key, h), train(key, h)
    assert not any(x.is_deleted() for x in jax.tree.leaves((key, h, first)))
    assert_equal(first, second)


@pytest.mark.acceptance("J8")
def test_updates_are_counted_up_to_the_last() -> None:
    """Four chunks up to number 2³¹ - 2, the last one with a successor in int32: keys and schedules
    continue.
    """
    first = 2**31 - 10
    config = Config(
        env=MDP,
        num_envs=4,
        num_updates=2**31 - 1,
        hidden_sizes=(),
        entropy_schedule="linear",
        preset=None,
    )

    def advance(state: Any) -> Any:
        keys = training_keys(KEY, state.update, 2)[1]
        return make_chunk(config)(state, keys, Hyperparams())[0], jax.random.key_data(keys)

    state, advance = (
        make_learner(config).init(KEY)._replace(update=jnp.int32(first)),
        jax.jit(advance),
    )
    numbers, keys = [int(state.update)], []
    for _ in range(4):
        state, data = advance(state)
        numbers.append(int(state.update))
        keys.append(np.asarray(data))
    assert numbers == list(range(first, 2**31 - 1, 2))
    expected = training_keys(KEY, np.int32(0), 1)[1]
    assert len(np.unique(np.concatenate([*keys, jax.random.key_data(expected)]), axis=0)) == 9
    coefficients = [
        float(
            train_module.scheduled(config, Hyperparams(entropy_coef=1.0), jnp.int32(n)).entropy_coef
        )
        for n in numbers
    ]
    assert coefficients == sorted(coefficients, reverse=True)
    assert 0 <= coefficients[-1] <= coefficients[0] < 1e-6


MISTAKES: dict[str, tuple[Mistake, str]] = {
    "a preset for a Config": (
        lambda: make_train(preset("ppo")),
        "config must be a pg.Config, got a tuple of Config, Hyperparams: pg.preset gives a pair, "
        "so write make_train(*pg.preset(...))",
    ),
    "a preset for the Config of a learner": (
        lambda: make_learner(preset("ppo")),
        "pg.preset gives a pair, so write",
    ),
    "Hyperparams for a Config": (
        lambda: make_train(Hyperparams(), Config(preset=None)),
        "got a Hyperparams: the Config comes first",
    ),
    "a Config for Hyperparams": (
        lambda: make_train(Config(preset=None), Config(preset=None)),
        "got a Config: the Config comes first",
    ),
    "a dictionary for a Config": (
        lambda: make_train({"env": "CartPole-v1"}),
        "got {'env': 'CartPole-v1'}: write pg.Config(env='CartPole-v1')",
    ),
    "the name of an environment for a Config": (
        lambda: make_train("CartPole-v1"),
        "config must be a pg.Config, got 'CartPole-v1': write pg.Config(env='CartPole-v1')",
    ),
    "the name of an estimator for a Config": (
        lambda: make_learner("ppo"),
        "got 'ppo': write *pg.preset('ppo')",
    ),
    "a dictionary for Hyperparams": (
        handed(lambda x: make_train(x.config)(KEY, {"gamma": 0.9})),
        "got {'gamma': 0.9}: write config.hyperparams(gamma=0.9)",
    ),
    "a number for Hyperparams": (
        handed(lambda x: make_train(x.config)(KEY, 0.1)),
        "got 0.1: write config.hyperparams(learning_rate=0.1)",
    ),
    "parameters for a state": (
        handed(lambda x: make_learner(x.config).step(x.state.params, KEY)),
        "state must be a pg.TrainState, got a Params: write learner.init(key)",
    ),
    "a number for a key": (
        handed(lambda x: make_train(x.config)(0)),
        "key must be a random key, got 0: write jax.random.key(0), where 0 is the seed",
    ),
    "a number for the key of a learner": (
        handed(lambda x: make_learner(x.config).init(0)),
        "write jax.random.key(0)",
    ),
    "keys for a key": (
        handed(lambda x: make_train(x.config)(jax.random.split(KEY, 3))),
        "key must be one random key, got an array of them, of shape (3,): use jax.vmap",
    ),
    "key and state changed about": (
        handed(lambda x: make_learner(x.config).step(KEY, x.state)),
        "key must be a random key, got a TrainState",
    ),
    "four seeds for a key": (
        handed(lambda x: make_train(x.config)(np.arange(4, dtype=np.uint32))),
        "key must be a random key, of shape (2,) if it is an array of uint32; got shape (4,): "
        "write",
    ),
    "keys of the old kind for a key": (
        handed(lambda x: make_train(x.config)(jax.random.split(jax.random.PRNGKey(0), 3))),
        "key must be one random key, got an array of them, of shape (3, 2): use jax.vmap",
    ),
}


@pytest.mark.acceptance("J7", "INPUTS", "S4")
@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence(case: str) -> None:
    assert_one_sentence(*MISTAKES[case])
