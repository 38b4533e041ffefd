"""A control variate of the whole gradient: its mean with any coefficients, and what it leaves of
the variance with the best ones, exactly.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import proofs
import pytest
from proofs import GAMMA, A, S, arbitrary

import pg
from pg import envs, rollout
from pg.config import Hyperparams
from pg.diagnostics import exact_moments, references
from pg.estimators import (
    ESTIMATORS,
    Estimator,
    Params,
    linear_control_variate,
    with_dynamics_control_variate,
    with_gradient_control_variate,
)
from pg.estimators.linear_control_variate import PastMoments, coefficients, control_variates
from pg.exact import tabular
from pg.extra_rollouts import ExtraRollouts
from pg.train import make_chunk, make_learner, training_keys

pytestmark = pytest.mark.usefixtures("x64")
SETTINGS = Hyperparams(gamma=GAMMA)
NAME = "gradient_control_variate"
KEY = jax.random.key(3)


class Episodes(NamedTuple):
    """Every trajectory with every outcome of the resets."""

    probability: np.ndarray  # [M]
    z: np.ndarray  # [M, d]
    g: np.ndarray  # [M, P], of descent, as an estimator's `grad`

    def covariance(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Cov(x, y) of numbers of each trajectory, [P, Q]."""
        x, y = x - self.probability @ x, y - self.probability @ y
        return np.einsum("m,mp,mq->pq", self.probability, x, y)


@pytest.fixture(scope="module")
def subject() -> tuple[Estimator, Params, references.Problem, Episodes]:
    with jax.enable_x64(True):
        mdp = tabular.garnet(0, S, A, branching=2, horizon=2)
        problem = arbitrary()._replace(mdp=mdp)
        estimator, params = references.build(ESTIMATORS[NAME], problem, "Q", SETTINGS)
        return estimator, params, problem, enumerated(estimator, params, problem)


def enumerated(estimator: Estimator, params: Params, problem: references.Problem) -> Episodes:
    traj, probability = tabular.enumerate_trajectories(
        problem.mdp, problem.logits, estimator.extra_rollouts
    )
    policy = tabular.table_policy(problem.logits)
    z = control_variates(policy, params, traj, SETTINGS).z
    batch, _ = estimator.weigh(params, estimator.init(jax.random.key(0))[1], traj)

    def alone(episode: Any) -> jax.Array:
        one = jax.tree.map(lambda x: x[:, None], episode)
        return estimator.grad(params, one)[0].policy.ravel()

    return Episodes(*map(np.asarray, (probability, z, jax.vmap(alone, 1)(batch))))


def with_past(estimator: Estimator, params: Params, past: PastMoments) -> Estimator:
    """The estimator as it is after earlier batches of these moments."""
    past = jax.tree.map(jnp.asarray, past)
    return estimator._replace(init=lambda key: (params, ((), past)))


def past_of(episodes: Episodes, weight: np.ndarray) -> PastMoments:
    z, g = episodes.z, episodes.g
    zz, zg = np.einsum("m,md,me->de", weight, z, z), np.einsum("m,md,mp->dp", weight, z, g)
    return PastMoments(weight.sum(), weight @ z, weight @ g, zz, zg, weight @ z**2)


def test_what_is_on_average_over_the_actions_is_the_mean_of_the_squares() -> None:
    """Scores are independent of one another given the past."""
    problem = arbitrary()
    policy = tabular.table_policy(problem.logits)
    traj, probability = tabular.enumerate_trajectories(
        problem.mdp, problem.logits, ExtraRollouts(starts=1)
    )
    z, square = control_variates(policy, Params(jnp.asarray(problem.logits), ()), traj, SETTINGS)
    np.testing.assert_allclose(probability @ square, probability @ z**2, atol=1e-12)
    assert np.abs(square - z**2).max() > 0.1


def test_an_action_that_was_never_taken_has_no_large_coefficient() -> None:
    """Its score was -p wherever it could be taken, and will be 1: 1e6 times as much."""
    p, n, g = 1e-6, 100, np.linspace(-1.0, 1.0, 100)
    z = np.where(g > 0, -p, 0.0)
    sums = (1.0, z, g, z * z, z * g, (g > 0) * p * (1 - p))
    n, one, of_g, zz, zg, square = (np.sum(x * np.ones(n)) for x in sums)
    past = PastMoments(n, one[None], of_g[None], zz[None, None], zg[None, None], square[None])
    assert 0.1 < np.abs(coefficients(past)).max() < 1.0


def test_the_rounding_of_a_variance_is_none() -> None:
    """A number that is always the same is no control variate, in any units."""
    with jax.enable_x64(False):
        rng = np.random.default_rng(0)
        z, g = rng.normal(size=(60, 7)), 1.0 + rng.normal(size=(60, 5))
        z[:, :6] = np.geomspace(1e-8, 1.0, 6) / 3
        z, g = jnp.float32(z), jnp.float32(g)
        square = jnp.zeros(7)  # what the probabilities say where they are rounded to 0 and 1
        found = coefficients(
            PastMoments(jnp.float32(60), z.sum(0), g.sum(0), z.T @ z, z.T @ g, square)
        )
    np.testing.assert_array_equal(found[:6], 0.0)
    assert np.abs(found[6]).max() > 0.01


def test_a_fixed_start_is_no_control_variate() -> None:
    """In single precision the mean of three equal numbers is another number, and what is left of
    them would be a constant.
    """
    made = tabular.garnet(0, S, A, branching=2, horizon=2)
    shown = np.eye(S)
    shown[1] = 1.0, 0.7, 1 / 3
    mdp = tabular.TabularMDP(
        made.transition, made.reward, np.eye(S)[1], made.terminal, made.horizon, shown
    )
    with jax.enable_x64(False):
        env, logits = envs.make_env(mdp, 64), jnp.float32(arbitrary().logits)
        policy, extra_rollouts = tabular.table_policy(logits), ExtraRollouts(starts=3)

        @jax.jit
        def numbers(key: jax.Array) -> jax.Array:
            traj = rollout.episodes(env, policy, logits, key, extra_rollouts=extra_rollouts)
            return control_variates(policy, Params(logits, ()), traj, SETTINGS).z

        z = numbers(KEY)
    of_start = S + S * (S + 1) // 2
    np.testing.assert_array_equal(z[:, :of_start], 0.0)
    assert np.abs(z[:, of_start:]).max() > 0.1


def test_the_numbers_of_an_episode_have_no_mean(subject: Any) -> None:
    *_, episodes = subject
    assert episodes.probability.sum() == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_allclose(episodes.probability @ episodes.z, 0.0, atol=1e-14)
    assert (episodes.covariance(episodes.z, episodes.z).diagonal() > 0).sum() >= 2 * S


def test_with_any_coefficients_of_the_past_the_mean_is_the_gradient(subject: Any) -> None:
    estimator, params, problem, episodes = subject
    skewed = np.linspace(1.0, 2.0, len(episodes.probability))
    past = past_of(episodes, skewed)
    assert np.abs(np.asarray(coefficients(past))).max() > 0.05
    mean, covariance = exact_moments(
        with_past(estimator, params, past), params, problem.mdp, problem.logits
    )
    np.testing.assert_allclose(mean, references.gradient(problem, SETTINGS).ravel(), atol=1e-12)
    plain = episodes.covariance(episodes.g, episodes.g)
    assert abs(np.trace(covariance) / np.trace(plain) - 1.0) > 0.01


def test_the_variance_at_the_best_coefficients(
    subject: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Var(g) - Cov(g, z) Cov(z)⁻¹ Cov(z, g); a step in any direction and one in the opposite one
    add as much.
    """
    estimator, params, problem, episodes = subject
    zz, zg = (episodes.covariance(episodes.z, x) for x in (episodes.z, episodes.g))
    best = np.linalg.pinv(zz, rcond=1e-10, hermitian=True) @ zg
    left = episodes.covariance(episodes.g, episodes.g) - zg.T @ best
    monkeypatch.setattr(linear_control_variate, "coefficients", lambda past: past.zg)
    none = jax.tree.map(np.zeros_like, past_of(episodes, episodes.probability))

    def covariance(b: np.ndarray) -> np.ndarray:
        own = with_past(estimator, params, none._replace(zg=b))
        return exact_moments(own, params, problem.mdp, problem.logits)[1]

    np.testing.assert_allclose(covariance(best), left, atol=1e-12)
    step = 0.1 * np.random.default_rng(0).normal(size=best.shape)
    more, less = (np.trace(covariance(best + sign * step)) for sign in (1, -1))
    assert more == pytest.approx(less, abs=1e-12)
    assert more > np.trace(left) + 1e-3
    assert np.trace(left) < 0.8 * np.trace(episodes.covariance(episodes.g, episodes.g))


def test_the_regression_finds_them_but_for_the_ridge(subject: Any) -> None:
    estimator, params, problem, episodes = subject
    zz, zg = (episodes.covariance(episodes.z, x) for x in (episodes.z, episodes.g))
    left = episodes.covariance(episodes.g, episodes.g)
    best = left - zg.T @ np.linalg.pinv(zz, rcond=1e-10, hermitian=True) @ zg
    past = past_of(episodes, 1e6 * episodes.probability)
    own = with_past(estimator, params, past)
    found = exact_moments(own, params, problem.mdp, problem.logits)[1]
    assert np.trace(found) == pytest.approx(np.trace(best), rel=0.01)


@pytest.mark.slow
def test_it_goes_with_another_control_variate(subject: Any) -> None:
    """The mean is ∇J over every outcome of the extra transitions and of the resets, too."""
    mdp = tabular.garnet(0, S, A, branching=2, horizon=1)
    problem = arbitrary()._replace(mdp=mdp)
    factory = with_gradient_control_variate(
        with_dynamics_control_variate("reward_to_go"), num_starts=1
    )
    estimator, params = references.build(factory, problem, "V", SETTINGS)
    estimator, _ = proofs.with_past(estimator, params, problem)
    mean, _ = exact_moments(estimator, params, mdp, problem.logits)
    np.testing.assert_allclose(mean, references.gradient(problem, SETTINGS).ravel(), atol=1e-12)


def test_a_batch_that_is_not_finite_leaves_the_past_as_it_was(subject: Any) -> None:
    estimator, params, problem, episodes = subject
    past = jax.tree.map(jnp.asarray, past_of(episodes, episodes.probability))
    traj, _ = tabular.enumerate_trajectories(problem.mdp, problem.logits, estimator.extra_rollouts)
    weigh = jax.jit(lambda traj: estimator.weigh(params, ((), past), traj)[1][1])
    after = weigh(traj._replace(reward=traj.reward.at[0, 3].set(jnp.nan)))
    jax.tree.map(np.testing.assert_array_equal, past, after)
    assert weigh(traj).weight == pytest.approx(0.9 + len(episodes.probability))


def test_every_reset_is_counted_and_has_the_law_of_the_first_states() -> None:
    problem, extra_rollouts = arbitrary(), ExtraRollouts(starts=4)
    env, policy = envs.make_env(problem.mdp, 1000), tabular.table_policy(problem.logits)
    plain = rollout.episodes(env, policy, jnp.asarray(problem.logits), KEY)
    traj = rollout.episodes(
        env, policy, jnp.asarray(problem.logits), KEY, extra_rollouts=extra_rollouts
    )
    jax.tree.map(np.testing.assert_array_equal, plain, traj.without_extra_rollouts)
    assert traj.starts.obs.shape == (1, 1000, 4, S)
    assert traj.all_env_steps.sum() == traj.valid.sum() + 4 * 1000
    initial = problem.mdp.initial
    error = np.sqrt(initial * (1 - initial) / 4000)
    assert (np.abs(traj.starts.obs.mean((0, 1, 2)) - initial) <= 4 * error).all()


@pytest.mark.slow
def test_a_run_in_chunks_and_vmapped_seeds_are_the_run() -> None:
    """Bit for bit the one, within rounding the others; one trace."""
    config = pg.Config(
        env=arbitrary().mdp,
        estimator=NAME,
        num_envs=8,
        num_updates=3,
        hidden_sizes=(4,),
        preset=None,
    )
    keys = jax.random.split(KEY, 2)
    traces = []

    def train(key: jax.Array) -> Any:
        traces.append(key)
        return pg.make_train(config)(key)

    solo = jax.jit(train)
    whole = [solo(key) for key in keys]
    assert len(traces) == 1
    many = jax.jit(jax.vmap(pg.make_train(config)))(keys)
    for i, one in enumerate(whole):
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=1e-9), many, one)
    init_key, update_keys = training_keys(keys[0], 0, 3)
    state = jax.jit(make_learner(config).init)(init_key)
    chunk = jax.jit(make_chunk(config))
    for i in range(3):
        state, _ = chunk(state, jnp.roll(update_keys, -i), config.hyperparams(), 1)
    jax.tree.map(np.testing.assert_array_equal, state, whole[0][0])
    assert state.estimator_state[1].weight == pytest.approx(8 * (1 + 0.9 + 0.81))


def test_what_it_cannot_control_is_refused(subject: Any) -> None:
    *_, problem, _ = subject
    policy, critic = (
        tabular.table_policy(problem.logits),
        tabular.table_critic(jnp.asarray(problem.q)),
    )
    make = ESTIMATORS[NAME]
    for other in (policy._replace(obs_shape=None), policy._replace(masked=True)):
        with pytest.raises(ValueError, match="must be one array that it states"):
            make(other, critic, SETTINGS)
    frames = pg.Config(env="Breakout-MinAtar", estimator=NAME)
    with pytest.raises(ValueError, match="at most 512 features"):
        jax.eval_shape(pg.make_train(frames), KEY)
    with pytest.raises(ValueError, match="not a mean of these"):
        with_gradient_control_variate("optimal_baseline")(policy, critic, SETTINGS)
    with pytest.raises(ValueError, match="is for windows"):
        with_gradient_control_variate("gpomdp")
    traj, _ = tabular.enumerate_trajectories(problem.mdp, problem.logits)
    estimator = make(policy, critic, SETTINGS)
    with pytest.raises(ValueError, match="no extra initial states to compare with"):
        estimator.weigh(*estimator.init(KEY), traj)
