"""Running statistics: exact over long runs, frozen within a batch, used in evaluation."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import Clock

from pg import normalisation, rollout
from pg.config import Config, Hyperparams
from pg.envs import make_env
from pg.evaluation import evaluate
from pg.networks import make_policy
from pg.normalisation import Moments, Sum
from pg.runs import parameters
from pg.train import make_learner, make_train

KEY = jax.random.key(0)


@pytest.mark.acceptance("J9")
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_moments_of_many_batches_are_those_of_all_samples(offset: float) -> None:
    """In single precision, also where the mean is a thousand standard deviations away from zero."""
    rng = np.random.default_rng(0)
    x = (offset + rng.normal(size=(5000, 4, 3, 2)) * [1.0, 0.1]).astype(np.float32)
    valid = rng.random((5000, 4, 3)) < 0.7

    def merge(moments: Moments, batch: Any) -> tuple[Moments, None]:
        return moments.merge(*batch), None

    moments = jax.jit(
        lambda: jax.lax.scan(merge, Moments.start((2,)), (jnp.asarray(x), jnp.asarray(valid)))[0]
    )()
    samples = x[valid].astype(np.float64)
    assert moments.number.high == len(samples)
    np.testing.assert_allclose(moments.mean.high, samples.mean(0), rtol=2e-7, atol=1e-6)
    np.testing.assert_allclose(moments.var.high, samples.var(0), rtol=1e-5)


@pytest.mark.acceptance("J9")
def test_counting_goes_on_where_one_float_stops() -> None:
    many = 2**25
    number = Sum(jnp.float32(many), jnp.float32(0))
    assert jnp.float32(many) + jnp.float32(1) == many  # one float
    number = jax.lax.fori_loop(0, 1001, lambda _, n: n.add(jnp.float32(1)), number)
    assert int(number.high) + int(number.low) == many + 1001


@pytest.mark.slow
@pytest.mark.acceptance("J9")
def test_a_long_run_still_follows_what_it_meets() -> None:
    """After 2³⁰ samples of mean 0, as many of mean 1 must move the mean to ½ and the variance by
    ¼.
    """
    moments = Moments.start()._replace(number=Sum(jnp.float32(2**30), jnp.float32(0)))
    # mean 1, variance 1
    batch = jnp.concatenate([jnp.full((2**10, 1), 2.0), jnp.zeros((2**10, 1))])

    def merge(_: int, moments: Moments) -> Moments:
        return moments.merge(batch, jnp.ones(batch.shape, bool))

    moments = jax.jit(lambda: jax.lax.fori_loop(0, 2**19, merge, moments))()
    assert float(moments.number.high) == 2.0**31
    np.testing.assert_allclose([moments.mean.high, moments.var.high], [0.5, 1.25], rtol=1e-4)


def test_nothing_valid_changes_nothing() -> None:
    before = Moments.start((2,)).merge(jnp.ones((3, 2, 2)), jnp.ones((3, 2), bool))
    after = before.merge(jnp.full((3, 2, 2), jnp.nan), jnp.zeros((3, 2), bool))
    jax.tree.map(np.testing.assert_array_equal, before, after)


def settings(**changes: Any) -> Config:
    sizes = {
        "collect": "windows",
        "num_envs": 4,
        "num_steps": 16,
        "num_updates": 4,
        "hidden_sizes": (8,),
    }
    return Config(env=Clock(), estimator="ppo", **{**sizes, **changes}, preset=None)


@pytest.mark.parametrize("collect", ["windows", "episodes"])
def test_acting_and_learning_see_the_same_observations(collect: Any) -> None:
    """ρ = 1 on fresh data in every update: a batch is learned with the statistics that it was
    collected with.
    """
    config = settings(normalise_observations=True, collect=collect)
    state, metrics = jax.jit(make_train(config))(KEY, Hyperparams(learning_rate=0.1))
    np.testing.assert_allclose(metrics["kl"], 0.0, atol=1e-12)
    np.testing.assert_array_equal(metrics["clip_fraction"], 0.0)
    assert state.normaliser.obs.number.high == metrics["env_steps"].sum()
    # places and times are far from standard
    assert float(jnp.abs(state.normaliser.obs.mean.high).min()) > 0.5


@pytest.mark.slow
def test_statistics_of_the_batch_itself_would_part_them() -> None:
    """A negative control of the test above."""
    config = settings(normalise_observations=True)
    learner = make_learner(config)
    state = jax.jit(learner.init)(KEY)
    for i in range(2):
        state, _ = learner.step(state, jax.random.key(i))
    env = make_env(config.env, config.num_envs)
    policy = make_policy(config, env)
    acting = normalisation.with_standardised_observations(policy, state.normaliser)
    traj = rollout.episodes(env, acting, state.params.policy, KEY)
    later = normalisation.with_standardised_observations(
        policy, normalisation.observe(state.normaliser, traj, 1.0)
    )
    for network, same in ((acting, True), (later, False)):
        log_prob = network.apply(state.params.policy, (), traj.obs, traj.first)[1].log_prob(
            traj.action
        )
        assert np.allclose(log_prob, traj.log_prob, atol=1e-6) == same


def test_the_running_return_goes_on_in_the_next_window() -> None:
    config, gamma = settings(scale_rewards=True, num_updates=1), 0.9
    learner = make_learner(config, Hyperparams(gamma=gamma, learning_rate=0.0))
    state = jax.jit(learner.init)(KEY)
    env = make_env(config.env, config.num_envs)
    policy = make_policy(config, env)
    so_far, rows = np.zeros(4), []
    standing = state.rollout
    step = jax.jit(learner.step)

    @jax.jit
    def window(params: Any, key: jax.Array, start: rollout.RolloutState) -> Any:
        return rollout.windows(env, policy, params, key, start, 16)

    for i in range(3):
        key = jax.random.key(i)
        collect_key = jax.random.split(key)[0]
        traj = window(state.params.policy, collect_key, standing._replace(carry=()))
        standing = traj[0]._replace(carry=state.rollout.carry)
        for reward, first in zip(
            np.asarray(traj[1].reward), np.asarray(traj[1].first), strict=True
        ):
            so_far = reward + gamma * so_far * ~first
            rows.append(so_far)
        state, metrics = step(state, key)
    np.testing.assert_allclose(state.normaliser.returns.mean.high, np.mean(rows), rtol=1e-5)
    np.testing.assert_allclose(state.normaliser.returns.var.high, np.var(rows), rtol=1e-4)
    np.testing.assert_allclose(state.normaliser.running, so_far, rtol=1e-5)
    assert metrics["return"] > 5  # reported unscaled


@pytest.mark.slow
def test_the_scale_of_rewards_is_divided_out() -> None:
    """From the second batch on, rewards a thousand times as large give the same parameters."""

    def final(scale: float) -> Any:
        config = settings(scale_rewards=True, env_params={"reward_scale": scale})
        learner = make_learner(config, Hyperparams(learning_rate=0.01))
        state = jax.jit(learner.init)(KEY)
        seen = learner.step(state, jax.random.key(0))[0]
        # the first batch has no scale yet
        state = seen._replace(params=state.params, opt_state=state.opt_state)
        return learner.step(state, jax.random.key(1))[0].params

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        final(1.0),
        final(1000.0),
    )


def test_evaluation_sees_what_training_saw() -> None:
    config = settings(normalise_observations=True)
    state = jax.jit(make_train(config))(KEY, Hyperparams(learning_rate=0.1))[0]
    with pytest.raises(
        ValueError,
        match=r"standardised observations: evaluate\(\.\.\., "
        r"normaliser=state.normal",
    ):
        evaluate(config, state.params.policy, KEY)
    policy, env = make_policy(config, make_env(config.env, 8)), make_env(config.env, 8)
    acting = normalisation.with_standardised_observations(policy, state.normaliser)
    traj = rollout.episodes(env, acting, state.params.policy, KEY)
    done = evaluate(config, state.params.policy, KEY, 8, normaliser=state.normaliser)
    np.testing.assert_allclose(done.returns, traj.reward.sum(0))


def test_what_is_standardised_stays_within_its_limit() -> None:
    config = Config(normalise_observations=True, preset=None)
    policy = make_policy(config, make_env("CartPole-v1", 1))
    params = policy.init(KEY)
    network = normalisation.with_standardised_observations(
        policy, normalisation.start(config, (4,))
    )
    for x in (1e3, 1e30):
        out = network.apply(params, (), jnp.full((1, 4), x), jnp.ones(1, bool))[1].logits
        limit = policy.apply(params, (), jnp.full((1, 4), 10.0), jnp.ones(1, bool))[1].logits
        np.testing.assert_allclose(out, limit)


def test_statistics_are_kept_with_the_parameters(tmp_path: Path) -> None:
    config = settings(normalise_observations=True, scale_rewards=True)
    state = jax.jit(make_train(config))(KEY)[0]
    parameters.write_params(tmp_path, state.params, state.normaliser)
    like = jax.eval_shape(make_learner(config).init, KEY)
    params, normaliser = parameters.read_state(tmp_path, like.params, like.normaliser)
    jax.tree.map(
        np.testing.assert_array_equal, (params, normaliser), (state.params, state.normaliser)
    )
    with pytest.raises(ValueError, match="obs/mean/high"):
        parameters.read_state(tmp_path, like.params, normalisation.start(settings(), (2,)))


@pytest.mark.acceptance("J9")
def test_accumulators_hold_what_they_were_given() -> None:
    """Mean and variance of observations and of returns over 2²⁵ items, against 64-bit floats."""
    T, B, rounds, gamma = 128, 256, 2**10, 0.9
    g = np.random.default_rng(0)
    normaliser = normalisation.start(
        Config(normalise_observations=True, scale_rewards=True, num_envs=B, preset=None), ()
    )

    @jax.jit
    def observe(normaliser: Any, x: jax.Array, first: jax.Array) -> Any:
        fields = dict.fromkeys(rollout.Trajectory._fields, ())
        valid = jnp.ones((T, B), bool)
        return normalisation.observe(
            normaliser,
            rollout.Trajectory(**{**fields, "obs": x, "reward": x, "first": first, "valid": valid}),
            gamma,
        )

    sums, so_far = np.zeros((2, 2)), np.zeros(B)
    for _ in range(rounds):
        x = g.standard_normal((T, B), np.float32) + np.float32(3)
        first = g.random((T, B), np.float32) < 0.02
        normaliser = observe(normaliser, x, first)
        exact, total = x.astype(np.float64), np.empty((T, B))
        for t in range(T):
            so_far = total[t] = exact[t] + gamma * np.where(first[t], 0.0, so_far)
        sums += [[y.sum(), (y**2).sum()] for y in (exact, total)]
    mean = sums[:, 0] / 2**25
    var = sums[:, 1] / 2**25 - mean**2
    for moments, m, v in zip((normaliser.obs, normaliser.returns), mean, var, strict=True):
        assert float(moments.number.high) + float(moments.number.low) == 2**25
        np.testing.assert_allclose([moments.mean.high, moments.var.high], [m, v], rtol=1e-6)
