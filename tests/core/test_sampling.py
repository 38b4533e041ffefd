"""Action noise that depends on the other episodes of a batch: each episode alone has the policy's
distribution, means are unchanged, and variances fall where they should.
"""

from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from continuous import PLAIN, REGULATOR, gaussian, linear
from environments import tabular_critic, tabular_policy
from proofs import GAMMA, A, S, arbitrary
from scipy import stats

import pg
from pg import Config, diagnostics, envs, rollout, sampling
from pg.distributions import Categorical, Gaussian, Product
from pg.estimators import ESTIMATORS, Params
from pg.estimators.facts import FACTS
from pg.exact import tabular
from pg.sampling import BatchNoise
from pg.settings.choices import Sampling

KEY = jax.random.key(0)
DEPENDENT = [name for name in get_args(Sampling) if name != "independent"]
ESTIMATED = ("reinforce", "reward_to_go", "state_value")


def noise_of(name: Any, size: int, steps: int, num_keys: int = 1, num_envs: int = 0) -> np.ndarray:
    """Uniform noise of batches of `size` episodes, [keys, steps, episodes]."""
    num_envs = num_envs or size
    dist = Categorical(jnp.zeros((num_envs, 2)))
    noise = sampling.make_noise(dist, BatchNoise(name, size), num_envs, steps)

    def of_key(key: jax.Array) -> jax.Array:
        return jax.vmap(lambda t: noise(jax.random.fold_in(key, t), t).action)(jnp.arange(steps))

    return np.asarray(jax.jit(jax.vmap(of_key))(jax.random.split(KEY, num_keys)))


@pytest.mark.parametrize("name", DEPENDENT)
def test_the_noise_of_one_episode_is_uniform_and_independent_from_step_to_step(name: Any) -> None:
    """The first and the last episode of 4,000 batches."""
    noise = noise_of(name, 6, 2, num_keys=4000)
    for u in (noise[:, :, 0], noise[:, :, 5]):
        assert stats.kstest(u[:, 0], "uniform").pvalue > 1e-3
        assert stats.kstest(u[:, 1], "uniform").pvalue > 1e-3
        # both steps together, in 64 cells
        table = np.histogram2d(u[:, 0], u[:, 1], bins=8, range=[[0, 1], [0, 1]])[0]
        assert stats.chisquare(table.ravel()).pvalue > 1e-3


@pytest.mark.parametrize("size", [7, 8])
def test_a_batch_has_an_episode_in_each_cell(size: int) -> None:
    def numbers(noise: np.ndarray) -> np.ndarray:
        return np.sort(np.floor(noise * size), axis=-1)

    every = np.broadcast_to(np.arange(size), (3, 2, size))
    cells = numbers(noise_of("latin_hypercube", size, 2, num_keys=3))
    np.testing.assert_array_equal(cells, every)
    cells = numbers(noise_of("stratified", size, 2, num_keys=3))
    np.testing.assert_array_equal(cells[:, 0], every[:, 0])
    assert (cells[:, 1] != every[:, 1]).any(axis=-1).all()


def test_pairs_are_mirrored_at_every_step() -> None:
    noise = noise_of("antithetic", 6, 4, num_keys=3)
    np.testing.assert_array_equal(noise[..., ::2] + noise[..., 1::2], 1.0)
    assert np.unique(noise).size == noise.size


def test_sobol_points_fill_every_elementary_interval_of_two_steps() -> None:
    """Any 16 points of a (0, 2)-sequence have one in each of 16 equal boxes, also scrambled."""
    noise = noise_of("sobol", 16, 2, num_keys=5)
    for wide in (1, 2, 4, 8, 16):
        cells = np.floor(noise[:, 0] * wide) * (16 // wide) + np.floor(noise[:, 1] * 16 / wide)
        np.testing.assert_array_equal(np.sort(cells, axis=-1), np.tile(np.arange(16), (5, 1)))


def test_direction_numbers_are_those_of_scipy() -> None:
    numbers, index = sampling._direction_numbers(9, 5), np.arange(32)
    points = np.zeros((32, 9), np.uint32)
    for digit in range(5):
        points ^= numbers[None, :, digit] * ((index[:, None] >> digit) & 1).astype(np.uint32)
    expected = stats.qmc.Sobol(9, scramble=False, bits=32).random(32)
    np.testing.assert_array_equal(np.sort(points / 2.0**32, axis=0), np.sort(expected, axis=0))


def test_steps_beyond_the_dimensions_are_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "MOST_DIMENSIONS", 2)
    cells = np.sort(np.floor(noise_of("sobol", 16, 4) * 16), axis=-1)[0]
    filled = (cells == np.arange(16)).all(axis=-1)
    np.testing.assert_array_equal(filled, [True, True, False, False])


@pytest.mark.parametrize("name", DEPENDENT)
def test_batches_side_by_side_are_independent(name: Any) -> None:
    noise = noise_of(name, 4, 1, num_keys=2000, num_envs=8)[:, 0]
    both = np.histogram2d(noise[:, 1], noise[:, 5], bins=4, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(both.ravel()).pvalue > 1e-3


def test_a_part_of_equal_size_is_exactly_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 16 numbers of four digits comes from as many cells and positions within them."""
    monkeypatch.setattr(sampling, "_DIGITS", 4)
    cell, within = jnp.meshgrid(jnp.arange(3), jnp.arange(16))
    found = sampling._in_cell(cell.astype(jnp.uint32), within.astype(jnp.uint32), 3)
    np.testing.assert_array_equal(np.bincount(np.ravel(found)), 3)
    np.testing.assert_array_equal(found, (16 * cell + within) // 3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.float16, jnp.bfloat16])
def test_uniform_numbers_are_within_0_and_1_and_mirrored_exactly(dtype: Any) -> None:
    bits = jnp.array([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 123456789], jnp.uint32)
    u, mirrored = sampling._uniform(bits, dtype), sampling._uniform(~bits, dtype)
    assert u.dtype == dtype
    assert ((u > 0) & (u < 1)).all()
    np.testing.assert_array_equal(np.asarray(u + mirrored, np.float64), 1.0)
    normal = Gaussian(jnp.zeros(6, dtype), jnp.zeros(6, dtype))
    noise = normal.noise_quantile(u)
    assert noise.dtype == dtype
    assert jnp.isfinite(noise).all()
    of_mirrored = np.asarray(normal.noise_quantile(mirrored), np.float64)
    np.testing.assert_allclose(np.asarray(noise, np.float64), -of_mirrored, rtol=1e-6)


def test_normal_noise_is_standard_normal_and_of_several_actions_each_its_own() -> None:
    both = Product((Gaussian(jnp.zeros((4, 2)), jnp.zeros(2)), Categorical(jnp.zeros((4, 3)))))
    noise = sampling.make_noise(both, BatchNoise("sobol", 4), 4, horizon=5)
    keys = jax.random.split(KEY, 2000)
    found = jax.jit(jax.vmap(lambda key: noise(key, jnp.int32(3)).action))(keys)
    normal, uniform = np.asarray(found[0]), np.asarray(found[1])
    assert (normal.shape, uniform.shape) == ((2000, 4, 2), (2000, 4))
    for one in (normal[:, 1, 0], normal[:, 1, 1]):
        assert stats.kstest(one, "norm").pvalue > 1e-3
    assert stats.kstest(uniform[:, 1], "uniform").pvalue > 1e-3
    for other in (normal[:, 1, 1], uniform[:, 1]):
        assert stats.pearsonr(normal[:, 1, 0], other).pvalue > 1e-3


def test_points_are_handed_out_in_the_order_of_states() -> None:
    obs = jnp.array([[0.3], [-1.0], [0.1], [7.0], [5.0], [5.0], [-2.0], [9.0]])
    alive = jnp.array([True, True, True, True, True, True, False, True])
    noise = jnp.arange(8.0)
    found = sampling.by_state(noise, obs, alive, 4)
    np.testing.assert_array_equal(found, [2, 0, 1, 3, 4, 5, 7, 6])
    one_hot = jnp.eye(4)[jnp.array([2, 0, 3, 2])]
    found = sampling.by_state(noise[:4], one_hot, jnp.ones(4, bool), 4)
    np.testing.assert_array_equal(found, [1, 3, 0, 2])  # from the last state to the first


def through_the_rollout(name: Any, num_keys: int) -> tuple[np.ndarray, np.ndarray]:
    """The policy's observations at two steps, [keys, 2, 8, 2], and the noise of its actions as
    numbers in (0, 1), [keys, 2, 8].
    """
    env, policy = envs.make_env(REGULATOR, 8), linear()

    def of_key(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        traj = rollout.episodes(
            env,
            policy,
            policy.init(key),
            key,
            horizon=2,
            act=lambda dist, noise: noise,
            sampling=name,
        )
        return traj.obs, jax.scipy.special.ndtr(traj.action[..., 0])

    obs, noise = jax.jit(jax.vmap(of_key))(jax.random.split(KEY, num_keys))
    return np.asarray(obs), np.asarray(noise)


def test_a_rollout_scrambles_each_step_anew() -> None:
    _, noise = through_the_rollout("sobol", 1000)
    for one in (noise[:, 0, 3], noise[:, 1, 3]):
        assert stats.kstest(one, "uniform").pvalue > 1e-3
    table = np.histogram2d(noise[:, 0, 3], noise[:, 1, 3], bins=5, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(table.ravel()).pvalue > 1e-3


def test_a_rollout_sorts_states_at_each_step() -> None:
    """In the lower half of the states, and in the upper, the noise is in each of 4 cells once."""
    obs, noise = through_the_rollout("array", 20)
    order = np.argsort(obs[..., 0], axis=-1)
    in_order = np.take_along_axis(noise, order, axis=-1).reshape(20, 2, 2, 4)
    np.testing.assert_array_equal(
        np.sort(np.floor(4 * in_order), axis=-1), np.broadcast_to(np.arange(4), (20, 2, 2, 4))
    )


DETERMINISTIC = tabular.TabularMDP(
    transition=np.eye(3)[[[1, 2], [0, 1], [2, 0]]],
    reward=[[1.0, -0.5], [0.3, 2.0], [-1.0, 0.7]],
    initial=[1, 0, 0],
    terminal=[False] * 3,
    horizon=2,
)
# probabilities that are multiples of 1/16: between these an episode does not depend on its noise
LOGITS = np.log([[5.0, 11.0], [3.0, 13.0], [10.0, 6.0]])


def estimates_of_every_cell(
    problem: tuple[tabular.TabularMDP, np.ndarray],
    name: Any,
    num_episodes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, np.ndarray]:
    """The estimates of a batch through the rollout, for each of 16² values of the first four digits
    that are drawn at both steps, [256, P], by estimator.
    """
    mdp, logits = problem
    env = envs.make_env(mdp, num_episodes)
    policy, critic = tabular_policy(*logits.shape), tabular_critic(len(logits))
    values = jnp.linspace(0.4, -3.0, len(logits))
    make_bits, random_bits = sampling._make_bits, sampling._random_bits
    times: list[Any] = []

    def with_time(*args: Any, **given: Any) -> Any:
        bits_of = make_bits(*args, **given)

        def bits(key: jax.Array, time: Any) -> jax.Array:
            times.append(time)
            return bits_of(key, time)

        return bits

    def ascent(estimator: str, traj: rollout.Trajectory) -> jax.Array:
        made = ESTIMATORS[estimator](policy, critic, pg.Hyperparams(gamma=GAMMA))
        params = Params(jnp.asarray(logits), values if estimator == "state_value" else ())
        weighted = made.weigh(params, (), traj)[0]
        return jnp.ravel(diagnostics.samples.ascent(made, params, weighted))

    def estimates(first: jax.Array) -> dict[str, jax.Array]:
        def chosen(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            if shape[-1] == 32:  # the matrix by which points are scrambled stays as it is
                return random_bits(key, shape)
            digits = first[jnp.minimum(times[-1], 1)].astype(jnp.uint32) << 28
            return (random_bits(key, shape) >> 4) | digits

        monkeypatch.setattr(sampling, "_random_bits", chosen)
        traj = rollout.episodes(env, policy, jnp.asarray(logits), KEY, sampling=name)
        return {estimator: ascent(estimator, traj) for estimator in ESTIMATED}

    monkeypatch.setattr(sampling, "_make_bits", with_time)
    every = jnp.stack(jnp.meshgrid(jnp.arange(16), jnp.arange(16)), axis=-1).reshape(-1, 2)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(estimates))(every))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "num_episodes"),
    [
        ("antithetic", 2),
        ("sobol", 4),
        pytest.param("array", 3, marks=pytest.mark.slow),
        pytest.param("stratified", 1, marks=pytest.mark.slow),
    ],
)
def test_the_mean_over_all_noise_is_the_gradient(
    name: Any, num_episodes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean over all shifts, or all pairs, through the rollout, is exactly the gradient."""
    expected = np.ravel(tabular.exact_gradient(DETERMINISTIC, LOGITS, GAMMA))
    every = estimates_of_every_cell((DETERMINISTIC, LOGITS), name, num_episodes, monkeypatch)
    for found in every.values():
        np.testing.assert_allclose(found.mean(axis=0), expected, atol=1e-12)
        assert found.std(axis=0).max() > 0.01


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", DEPENDENT)
def test_means_of_estimators_stay(name: Any) -> None:
    """Within standard errors of ∇J, with random dynamics, over 20,000 batches."""
    problem = arbitrary()
    num_episodes, logits = 4, jnp.asarray(problem.logits)
    env, policy = envs.make_env(problem.mdp, 80_000), tabular_policy(S, A)
    traj = jax.jit(
        lambda key: rollout.episodes(
            env, policy, logits, key, sampling=name, num_episodes=num_episodes
        )
    )(jax.random.key(5))
    expected = tabular.exact_gradient(problem.mdp, problem.logits, GAMMA)
    for estimator in ESTIMATED:
        made = ESTIMATORS[estimator](policy, tabular_critic(S), pg.Hyperparams(gamma=GAMMA))
        critic = jnp.asarray(problem.v) if estimator == "state_value" else ()
        z = diagnostics.z_scores(made, Params(logits, critic), (), traj, num_episodes, expected)
        assert np.abs(z).max() < 5.0
    # what would be wrong: the baseline is another episode's, whose noise is the mirrored one
    if name == "antithetic":
        compared = ESTIMATORS["leave_one_out"](policy, tabular_critic(S), pg.Hyperparams())
        z = diagnostics.z_scores(compared, Params(logits, ()), (), traj, 2, expected)
        assert np.abs(z).max() > 20.0


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", DEPENDENT)
def test_means_stay_where_the_noise_of_the_environment_is_spread(name: Any) -> None:
    """Within standard errors of ∇J over 20,000 batches, also of TD errors that are averaged over
    the episodes of a batch in one state.
    """
    problem = arbitrary()
    num_episodes, logits = 4, jnp.asarray(problem.logits)
    env, policy = envs.make_env(problem.mdp, 80_000), tabular_policy(S, A)
    traj = jax.jit(
        lambda key: rollout.episodes(
            env,
            policy,
            logits,
            key,
            sampling=name,
            sample_env=True,
            num_episodes=num_episodes,
        )
    )(jax.random.key(5))
    expected = tabular.exact_gradient(problem.mdp, problem.logits, GAMMA)
    for estimator, critic, params in (
        ("state_value", tabular_critic(S), jnp.asarray(problem.v)),
        ("pooled_trajectory_control_variate", tabular_critic(S), jnp.asarray(problem.q)),
    ):
        made = ESTIMATORS[estimator](policy, critic, pg.Hyperparams(gamma=GAMMA))
        z = diagnostics.z_scores(made, Params(logits, params), (), traj, num_episodes, expected)
        assert np.abs(z).max() < 5.0


@pytest.mark.usefixtures("x64")
def test_the_variance_of_antithetic_pairs_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step, P(a = 0) = p = 5/16: a pair takes both actions with probability 2 p, and the other
    one twice with 1 - 2 p. The estimate of θ₀ is r₀ (1 - p) with one, and -r₁ p with the other.
    """
    p, rewards = 5 / 16, np.array([2.0, -1.0])
    one, other = rewards[0] * (1 - p), -rewards[1] * p
    mean = p * one + (1 - p) * other
    pairs = 2 * p * ((one + other) / 2 - mean) ** 2 + (1 - 2 * p) * (other - mean) ** 2
    alone = (p * (one - mean) ** 2 + (1 - p) * (other - mean) ** 2) / 2
    problem = tabular.bandit(rewards), np.log([[p, 1 - p], [0.5, 0.5]])
    every = estimates_of_every_cell(problem, "antithetic", 2, monkeypatch)
    found = every["reinforce"][:, 0]
    np.testing.assert_allclose([found.mean(), found.var()], [mean, pairs], atol=1e-12)
    assert pairs < alone


def variances(name: Any, num_episodes: int) -> float:
    """The variance of an estimate of the derivative in the mean of a Gaussian bandit."""
    env, policy = envs.make_env(PLAIN, 1024 * num_episodes), gaussian()
    params = policy.init(KEY)
    made = ESTIMATORS["reinforce"](policy, gaussian(), pg.Hyperparams())

    def sample(key: jax.Array) -> diagnostics.Sample:
        traj = rollout.episodes(env, policy, params, key, sampling=name, num_episodes=num_episodes)
        state = made.init(KEY)[1]
        return diagnostics.per_batch(made, Params(params, ()), state, traj, num_episodes)

    return float(jax.jit(sample)(KEY).moments.variance[0][0])


@pytest.mark.slow
def test_the_variance_of_a_smooth_integral_falls_faster_than_1_over_n() -> None:
    """From 4 episodes to 64 by more than 60 with Sobol' points and Latin hypercubes, which in one
    dimension are both stratified (90 and 114 with this key), and by 16 where they are independent.
    """
    falls = {
        name: variances(name, 4) / variances(name, 64)
        for name in ("independent", "antithetic", "latin_hypercube", "sobol")
    }
    assert 10 < falls["independent"] < 25, falls
    assert 10 < falls["antithetic"] < 25, falls
    assert falls["latin_hypercube"] > 60, falls
    assert falls["sobol"] > 60, falls


class Own(Categorical):
    """A custom distribution that does not define its noise from uniform numbers."""

    noise_quantile = property()


def test_what_cannot_be_sampled_so_is_refused_in_a_sentence() -> None:
    def episodes(env: Any, num_envs: int, apply: Any = None, **changes: Any) -> Any:
        made = pg.make_env(env, num_envs)
        policy = pg.make_policy(Config(env=env, preset=None), made)
        policy = policy if apply is None else policy._replace(apply=apply)

        def collected(key: jax.Array) -> Any:
            return rollout.episodes(made, policy, policy.init(key), key, **changes)

        return jax.eval_shape(collected, KEY)

    with pytest.raises(ValueError, match="unknown sampling 'sobl': did you mean 'sobol'"):
        episodes("CartPole-v1", 4, sampling="sobl")
    with pytest.raises(ValueError, match="num_episodes must divide the 4 environments, got 3"):
        episodes("CartPole-v1", 4, sampling="sobol", num_episodes=3)
    with pytest.raises(ValueError, match="num_episodes must be even with sampling='antithetic'"):
        episodes("CartPole-v1", 3, sampling="antithetic")
    with pytest.raises(ValueError, match="must be a vector of at most 64 entries, got shape"):
        episodes("Catch-bsuite", 4, sampling="array")

    def of_own(params: Any, carry: Any, obs: jax.Array, first: jax.Array) -> tuple[Any, Any]:
        return carry, Own(jnp.zeros((*obs.shape[:-1], 2)))

    with pytest.raises(ValueError, match="has no method noise_quantile"):
        episodes("CartPole-v1", 4, of_own, sampling="sobol")


def test_settings_that_compare_episodes_are_refused() -> None:
    def config(**changes: Any) -> Config:
        fields = {"estimator": "state_value", "num_envs": 4, "preset": None, **changes}
        return Config(sampling=fields.pop("sampling", "sobol"), **fields)

    assert config().sampling == "sobol"
    for name, row in FACTS.items():
        if "episodes" not in row.collect:
            continue
        together = {"group_size": 2} if row.baseline == "group" else {}
        if row.baseline in ("batch", "group"):
            with pytest.raises(ValueError, match="of its actions to be a baseline: use one of"):
                config(estimator=name, **together)
        else:
            config(estimator=name)
    for changes, message in (
        ({"estimator": "gae", "collect": "windows"}, "needs collect='episodes', got 'windows'"),
        ({"advantages": "batch"}, "advantages='batch' compares them"),
        ({"diagnostics": True}, "leave diagnostics out"),
        (
            {"estimator": "vtrace", "policy_lag": 1, "lag_mixture": "own"},
            "give lag_mixture='none'",
        ),
        ({"num_envs": 1}, "num_envs must be at least 2 for sampling='sobol'"),
        ({"sampling": "independent", "sample_env": True}, "got sampling='independent': give"),
        (
            {"estimator": "moving_average", "exploration": "parameters", "sample_env": True},
            "give exploration='actions'",
        ),
        (
            {"estimator": "dynamics_control_variate", "sample_env": True},
            "queries the environment again with its own random numbers",
        ),
        ({"num_envs": 3, "sampling": "antithetic"}, "num_envs must be even"),
    ):
        with pytest.raises(ValueError, match=message):
            config(**changes)


@pytest.mark.parametrize("name", [pytest.param("sobol", marks=pytest.mark.slow), "array"])
def test_seeds_train_side_by_side_as_alone(name: Any) -> None:
    config = Config(
        env=arbitrary().mdp,
        estimator="state_value",
        num_envs=4,
        num_updates=2,
        group_size=2,
        hidden_sizes=(4,),
        sampling=name,
        preset=None,
    )
    train = pg.make_train(config)
    keys = jax.random.split(KEY, 2)
    together = jax.jit(jax.vmap(train))(keys)[1]["return"]
    train = jax.jit(train)
    alone = jnp.stack([train(key)[1]["return"] for key in keys])
    np.testing.assert_allclose(together, alone, rtol=1e-6)
    assert jnp.isfinite(together).all()
