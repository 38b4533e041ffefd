"""Numbers that differ by rounding alone are equal: they are not divided by their own spread,
whatever its size.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import Clock, tabular_critic, tabular_policy

from pg import baselines, diagnostics, normalisation, rounding, train
from pg.config import Config, Hyperparams
from pg.estimators import ESTIMATORS, Params, Weighted
from pg.estimators.base import standardise_psi
from pg.rollout import Trajectory

KEY = jax.random.key(0)
SIZES = [0.0, 0.1, 1.0, 1000.1, 1e6 + 0.1, -0.01 / 7, 3e12, 1e-30]


def episodes_of(reward: Any, group_size: int = 1) -> Trajectory:
    """Complete episodes with these rewards, [T, B]."""
    reward = jnp.asarray(reward, float)
    T, B = reward.shape
    time = np.broadcast_to(np.arange(T)[:, None], (T, B))
    return Trajectory(
        obs=jnp.ones((T, B, 1)),
        action=jnp.zeros((T, B), int),
        log_prob=jnp.full((T, B), -jnp.log(2.0)),
        reward=reward,
        terminated=jnp.asarray(time == T - 1),
        truncated=jnp.zeros((T, B), bool),
        next_obs=jnp.ones((T, B, 1)),
        first=jnp.asarray(time == 0),
        valid=jnp.ones((T, B), bool),
        time=jnp.asarray(time),
        carry=(),
        group=jnp.asarray(np.broadcast_to(np.arange(B) // group_size, (T, B))),
    )


def psi(name: str, reward: Any, gamma: float = 1.0) -> np.ndarray:
    estimator = ESTIMATORS[name](tabular_policy(1, 2), tabular_critic(1), Hyperparams(gamma=gamma))
    traj = episodes_of(reward, group_size=np.shape(reward)[1])
    psi = estimator.weigh(Params(jnp.zeros((1, 2)), ()), (), traj)[0].psi
    return np.asarray(psi) * (len(np.asarray(reward)) if name == "grpo" else 1)


@pytest.mark.parametrize("name", ["standardised", "grpo"])
def test_equal_returns_of_any_size_have_no_advantage(name: str) -> None:
    for size in SIZES:
        for steps, count in ((1, 55), (7, 55), (40, 8)):
            assert not psi(name, np.full((steps, count), size), gamma=0.99).any(), (
                size,
                steps,
                count,
            )


@pytest.mark.parametrize("name", ["standardised", "grpo"])
def test_equal_returns_that_were_earned_in_another_order_have_no_advantage(name: str) -> None:
    """Sums of the same rewards in another order, and of rewards that cancel."""
    g = np.random.default_rng(0)
    for rewards in (
        np.linspace(0.1, 7.3, 60),
        np.repeat([1000.1, -1000.1, 3.3], 20),
        1e5 * g.normal(size=300),
    ):
        shuffled = np.stack([g.permutation(rewards) for _ in range(16)], axis=1)
        assert len(np.unique(jnp.asarray(shuffled).sum(0))) > 1
        assert not psi(name, shuffled).any()


@pytest.mark.parametrize("name", ["standardised", "grpo"])
def test_a_difference_that_is_real_is_standardised_however_small(name: str) -> None:
    """Around 0, and on a large offset by some ten units in the last place."""
    for a, b in (
        (0.0, 1e-6),
        (-1e-6, 1e-6),
        (1e6, 1e6 + 1.0),
        (1000.0, 1000.01),
        (-1000.1, -1000.09),
    ):
        found = psi(name, [[a, b] * 10])[0]
        np.testing.assert_allclose(found, [-1.0, 1.0] * 10, rtol=0.05)


@pytest.mark.parametrize("name", ["standardised", "grpo"])
@pytest.mark.parametrize("size", [1.0, 1000.1, 1e6, -1 / 3, 3e7])
def test_equal_returns_over_a_thousand_steps_have_no_advantage(name: str, size: float) -> None:
    """Fractions of `size`, in another order in each of 55 episodes; and one episode that earned
    more.
    """
    rng = np.random.default_rng(0)
    for steps in (32, 1000):
        fractions = size * rng.uniform(0.9, 1.1, size=steps)
        rewards = np.stack([rng.permutation(fractions) for _ in range(55)], axis=1)
        in_order = jnp.asarray(rewards, jnp.float32).cumsum(axis=0)[-1]
        assert len(np.unique(in_order)) > 1
        assert not psi(name, rewards).any()
        more = 2e-6 * abs(size) * steps  # of the return: 20 units in the last place
        rewards[steps // 2, 0] += more
        found = psi(name, rewards)[0]
        assert found[0] == pytest.approx(54**0.5, rel=0.05)  # the only one that differs
        assert np.abs(found[1:]).max() < 1.0


@pytest.mark.parametrize("name", ["standardised", "grpo"])
def test_returns_of_1000_and_of_1000_01_over_a_thousand_steps_differ(name: str) -> None:
    rewards = np.ones((1000, 20))
    rewards[500, ::2] += 0.01
    np.testing.assert_allclose(psi(name, rewards)[0], [1.0, -1.0] * 10, rtol=0.05)


@pytest.mark.usefixtures("x64")
def test_the_floor_follows_the_precision() -> None:
    """A difference that 32 bits cannot represent is one in 64."""
    assert psi("standardised", [[1e6, 1e6 + 1e-6] * 5]).all()
    assert not psi("standardised", [[1000.1] * 55]).any()


def test_an_infinite_return_is_not_hidden() -> None:
    assert np.isnan(psi("standardised", [[np.inf] * 4])).all()
    assert np.isnan(psi("grpo", [[1.0, np.nan, 1.0]])).all()


def batch_of(psi: Any, target: Any) -> Weighted:
    traj = episodes_of(np.zeros(np.shape(psi)))
    return Weighted(
        traj,
        jnp.asarray(psi, float),
        target if isinstance(target, tuple) else jnp.asarray(target, float),
    )


def test_equal_advantages_are_not_standardised() -> None:
    """By their own size, or by that of the targets that they are the difference of."""
    for size in SIZES:
        assert not np.asarray(standardise_psi(batch_of(np.full((16, 8), size), ())).psi).any()
    noise = np.random.default_rng(0).normal(size=(16, 8))
    noise /= np.abs(noise).max()
    # V is right but for three units in the last place
    rounded = batch_of(2e-4 * noise, np.full((16, 8), 1000.1))
    assert not np.asarray(standardise_psi(rounded).psi).any()
    assert np.asarray(standardise_psi(rounded._replace(target=())).psi).std() == pytest.approx(
        1.0, rel=1e-3
    )
    real = batch_of(noise, np.full((16, 8), 1000.1))
    assert np.asarray(standardise_psi(real).psi).std() == pytest.approx(1.0, rel=1e-3)


def test_small_advantages_beside_large_targets_are_standardised() -> None:
    """Ψ of 0 and 0.05 where V is 10⁴, of which a float has a thousandth: a difference that is
    real.
    """
    psi = np.resize([0.0, 0.05], (8, 4))
    found = standardise_psi(batch_of(psi, np.full((8, 4), 1e4))).psi
    np.testing.assert_allclose(found, np.resize([-1.0, 1.0], (8, 4)), rtol=1e-3)


def test_advantages_without_a_critic_are_compared_with_the_returns_they_were_made_of() -> None:
    """Ψ = R less the mean of R: what rounding left of equal returns is small, as is the size of Ψ
    itself.
    """
    traj = episodes_of(np.full((1, 55), 1000.1))
    rounded = 6e-5 * (-1.0) ** np.arange(55)
    batch = Weighted(traj, jnp.asarray(rounded[None], float), ())
    assert not np.asarray(standardise_psi(batch).psi).any()
    real = batch._replace(psi=100.0 * batch.psi)
    assert np.asarray(standardise_psi(real).psi).std() == pytest.approx(1.0, rel=1e-3)


def test_rewards_on_a_large_offset_are_scaled_by_their_own_spread() -> None:
    """A bandit's rewards of mean 10⁵ and standard deviation 0.5; in single floats they are not."""
    rewards = 1e5 + 0.5 * np.random.default_rng(0).normal(size=(1, 512))
    config = Config(scale_rewards=True, num_envs=512, preset=None)
    traj = episodes_of(rewards)
    normaliser = normalisation.observe(normalisation.start(config, (1,)), traj, 0.99)
    found = np.asarray(normalisation.scaled(traj, normaliser).reward)
    np.testing.assert_allclose(found, rewards / rewards.std(), rtol=1e-2)


def test_the_explained_variance_of_equal_targets_is_not_a_number() -> None:
    valid = np.random.default_rng(1).random((64, 8)) < 0.7
    value = jax.random.normal(KEY, (64, 8))
    for size in SIZES:
        assert np.isnan(
            diagnostics.explained_variance(value, jnp.full((64, 8), size), jnp.asarray(valid))
        )
    apart = jnp.where(valid, 1000.1, 0.0)  # the others do not count
    assert np.isnan(diagnostics.explained_variance(value, apart, jnp.asarray(valid)))
    tiny = 1e-6 * value
    assert diagnostics.explained_variance(tiny, tiny, jnp.asarray(valid)) == pytest.approx(1.0)


def test_equal_is_relative_and_counts_what_counts() -> None:
    x, where = jnp.array([5.0, 5.0 + 1e-6, 9.0]), jnp.array([True, True, False])
    assert rounding.equal(x, rounding.of_size(x), where)[0]
    assert not rounding.equal(x, rounding.of_size(x), True)[0]
    assert not rounding.equal(x[:2] - 5.0, rounding.of_size(x[:2] - 5.0), True)[0]
    np.testing.assert_array_equal(baselines.standardise(x, jnp.zeros(3), jnp.zeros(3, bool)), 0.0)


@pytest.mark.parametrize("reward", [0.0, 1.0, 1000.1, 1e6 + 0.1])
def test_rewards_are_not_scaled_until_returns_differ(reward: float) -> None:
    """A first reward of 1 stays 1 after however many without one; a constant return is no scale."""
    observe = jax.jit(normalisation.observe)
    normaliser = normalisation.start(Config(scale_rewards=True, num_envs=8, preset=None), (1,))
    for _ in range(3):
        traj = episodes_of(np.full((1, 8), reward))
        normaliser = observe(normaliser, traj, 0.99)
        np.testing.assert_array_equal(normalisation.scaled(traj, normaliser).reward, traj.reward)
        assert normalisation.scaled(episodes_of(np.ones((1, 8))), normaliser).reward.max() == 1.0
    seen = observe(normaliser, episodes_of([[reward, reward + 100.0] * 4]), 0.99)
    scale = float(normalisation.scaled(episodes_of(np.ones((1, 8))), seen).reward[0, 0])
    assert scale == pytest.approx(1 / float(seen.returns.var.high) ** 0.5, rel=1e-5)


def test_rewards_of_the_first_batch_are_as_they_are() -> None:
    """Nothing was seen before: the first update is the one without scaling."""
    normaliser = normalisation.start(Config(scale_rewards=True, num_envs=8, preset=None), (1,))
    traj = episodes_of(np.full((3, 8), 2.0))
    np.testing.assert_array_equal(normalisation.scaled(traj, normaliser).reward, traj.reward)
    sizes: dict[str, Any] = {"num_envs": 4, "num_updates": 1, "horizon": 9, "hidden_sizes": (4,)}
    norms = []
    for scale in (False, True):
        config = Config(env=Clock(), scale_rewards=scale, preset=None, **sizes)
        norms.append(jax.jit(train.make_train(config))(KEY)[1]["grad_norm"])
    np.testing.assert_array_equal(norms[0], norms[1])


def test_a_rare_reward_is_scaled_by_its_size_until_the_deviation_is_known() -> None:
    """One reward of 1 after a hundred windows without any: it is scaled to 10 and not to 450, and 5
    to 50.
    """
    observe, steps, count = jax.jit(normalisation.observe), 16, 128
    normaliser = normalisation.start(Config(scale_rewards=True, num_envs=count, preset=None), (1,))
    nothing = episodes_of(np.zeros((steps, count)))
    for _ in range(100):
        normaliser = observe(normaliser, nothing, 0.99)
    paid = nothing._replace(reward=nothing.reward.at[-1, 0].set(1.0))
    rare = episodes_of([[1.0, 5.0]])
    for _ in range(3):  # at once, and after more of the same
        np.testing.assert_array_equal(normalisation.scaled(nothing, normaliser).reward, 0.0)
        normaliser = observe(normaliser, paid, 0.99)
        found = normalisation.scaled(rare, normaliser).reward
        np.testing.assert_allclose(found, [[10.0, 50.0]], rtol=1e-6)
        normaliser = observe(normaliser, nothing, 0.99)
    for _ in range(100):
        normaliser = observe(normaliser, episodes_of(np.resize([0.0, 1.0], (1, count))), 0.99)
    deviation = float(normaliser.returns.var.high) ** 0.5
    assert deviation > 0.1
    found = normalisation.scaled(rare, normaliser).reward
    np.testing.assert_allclose(found, np.array([[1.0, 5.0]]) / deviation, rtol=1e-5)


def test_a_constant_feature_is_standardised_to_nothing() -> None:
    normaliser = normalisation.start(Config(normalise_observations=True, preset=None), (1,))
    traj = episodes_of(np.zeros((64, 32)))._replace(obs=jnp.full((64, 32, 1), 1000.1))
    for _ in range(3):
        normaliser = jax.jit(normalisation.observe)(normaliser, traj, 0.99)
    assert float(normaliser.obs.mean.high[0]) == np.float32(1000.1)
    assert float(normaliser.obs.var.high[0]) == 0.0


@pytest.mark.parametrize("length", [5, 400])
def test_the_value_loss_of_the_first_rewards_is_bounded(length: int) -> None:
    """MemoryChain pays once, at the end of an episode of several windows: the updates before it
    have seen zeros.
    """
    sizes = {
        "num_envs": 4,
        "num_steps": 4,
        "num_updates": 11 * length // 20 + 4,
        "hidden_sizes": (4,),
    }
    params = {"env_params": {"memory_length": length}}
    config = Config(
        "MemoryChain-bsuite",
        estimator="gae",
        collect="windows",
        scale_rewards=True,
        **sizes,
        **params,
        preset=None,
    )
    metrics = jax.jit(train.make_train(config))(KEY)[1]
    paid = np.flatnonzero(np.isfinite(metrics["return"]))
    assert paid[0] > 0
    assert len(paid) > 1
    loss = np.asarray(metrics["value_loss"])
    assert (loss[: paid[0] + 1] < 3.0).all()
    assert (loss < 60.0).all()  # ½ 10², and what is left of V


def test_a_sum_of_nothing_is_zero() -> None:
    np.testing.assert_array_equal(rounding.sum_in_pairs(jnp.zeros((0, 3))), jnp.zeros(3))
