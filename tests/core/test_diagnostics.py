"""The diagnostics: against the exact moments of small problems, within their own standard errors,
and against plain numpy on stored gradients. Exact moments themselves are tested in test_unbiased.
"""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import tabular_policy
from proofs import GAMMA, A, Problem, arbitrary, corridor, endless

from pg import diagnostics, envs
from pg.config import Config, Hyperparams
from pg.diagnostics import Sample
from pg.diagnostics.exact import _Episodes, _moments
from pg.estimators import ESTIMATORS, Estimator, Params
from pg.estimators.facts import FACTS
from pg.exact import tabular
from pg.networks import make_critic, make_policy
from pg.reports import curves, plots
from pg.reports.statistics import Estimate
from pg.rollout import Trajectory, episodes, start, windows

EPISODES, BOUND = 40_000, 4.5


def test_effective_sample_size() -> None:
    w = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0], [3.0, 1.0, 0.5, 0.5]])
    expected = w.sum(1) ** 2 / (w**2).sum(1)
    with np.errstate(divide="ignore"):
        log_w = jnp.asarray(np.log(w))
    np.testing.assert_allclose(diagnostics.effective_sample_size(log_w), expected, rtol=1e-6)
    # any scale
    np.testing.assert_allclose(
        diagnostics.effective_sample_size(log_w + 1000.0), expected, rtol=1e-3
    )


def test_batches_of_any_size_are_enumerated_as_far_as_there_are_not_too_many() -> None:
    made = Estimator(*[lambda *_: None] * 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_episodes must be a whole number of at least 1"):
        diagnostics.exact_moments(made, None, None, None, 0)  # type: ignore[arg-type]
    problem = tabular.garnet(0, 3, 2, branching=2, horizon=3)
    uniform = np.zeros((3, 2))
    with pytest.raises(ValueError, match=r"num_episodes=9 makes \d+\^9 batches, above 100000000"):
        diagnostics.exact_moments(made, None, problem, uniform, 9)  # type: ignore[arg-type]


@functools.cache
def sampled(problem: functools._lru_cache_wrapper, num_episodes: int = EPISODES) -> Trajectory:
    env, policy = (
        envs.make_env(problem().mdp, num_episodes),
        tabular_policy(*problem().logits.shape),
    )
    rollout = jax.jit(lambda logits: episodes(env, policy, logits, jax.random.key(3)))
    return rollout(jnp.asarray(problem().logits))


def tabular_sample(
    name: str, problem: functools._lru_cache_wrapper, **options: int | object
) -> Sample:
    """The samples of `per_episode` for an estimator on a tabular problem."""
    estimator = ESTIMATORS[name](
        tabular_policy(*problem().logits.shape), None, Hyperparams(gamma=GAMMA)
    )
    params = Params(jnp.asarray(problem().logits), ())
    state = estimator.init(jax.random.key(0))[1]
    measured = jax.jit(
        lambda p, traj: diagnostics.per_episode(estimator, p, state, traj, **options)
    )
    return measured(params, sampled(problem))


def agrees(measured: Estimate, exact: float) -> bool:
    return abs(measured.value - exact) < BOUND * measured.standard_error < 0.3 * abs(exact)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("reinforce", arbitrary),
        ("reward_to_go", corridor),
        pytest.param("reinforce", corridor, marks=pytest.mark.slow),
        pytest.param("reinforce", endless, marks=pytest.mark.slow),
        pytest.param("reward_to_go", arbitrary, marks=pytest.mark.slow),
        pytest.param("reward_to_go", endless, marks=pytest.mark.slow),
    ],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_the_exact_moments_of_tabular_problems(
    name: str, problem: functools._lru_cache_wrapper
) -> None:
    """Variance, squared norm, SNR and noise scale, each within its standard error, which is not
    large.
    """
    exact = tabular.total_return_moments if name == "reinforce" else tabular.reward_to_go_moments
    mean, covariance = exact(problem().mdp, jnp.asarray(problem().logits), GAMMA)
    signal, noise = float(mean @ mean), float(jnp.trace(covariance))
    sample = tabular_sample(name, problem)
    assert agrees(diagnostics.variance(sample), noise)
    assert agrees(diagnostics.squared_norm(sample), signal)
    assert agrees(diagnostics.signal_to_noise(sample), signal / noise)
    assert agrees(diagnostics.noise_scale(sample), noise / signal)
    np.testing.assert_allclose(
        sample.moments.variance.ravel(), jnp.diag(covariance), rtol=0.1, atol=1e-12
    )
    assert sum(diagnostics.variance_by_leaf(sample).values()) == pytest.approx(
        diagnostics.variance(sample).value
    )


@pytest.mark.usefixtures("x64")
def test_cosines_of_tabular_problems() -> None:
    """The cosine of one episode's estimate to ∇J, over every trajectory; and to the mean of the
    others.
    """
    problem, logits = arbitrary(), jnp.asarray(arbitrary().logits)
    truth = tabular.exact_gradient(problem.mdp, logits, GAMMA)
    traj, probability = tabular.enumerate_trajectories(problem.mdp, logits)
    estimator = ESTIMATORS["reinforce"](
        tabular_policy(*logits.shape), None, Hyperparams(gamma=GAMMA)
    )
    each = jax.vmap(
        lambda t: (
            estimator.grad(Params(logits, ()), estimator.weigh(Params(logits, ()), (), t)[0])[
                0
            ].policy
        ),
        1,
    )
    g = -np.asarray(each(jax.tree.map(lambda x: x[:, :, None], traj))).reshape(len(probability), -1)
    norm = np.linalg.norm(g, axis=1)
    cosines = g[norm > 0] @ np.asarray(truth).ravel() / norm[norm > 0] / np.linalg.norm(truth)
    exact = probability[norm > 0] @ cosines / probability[norm > 0].sum()
    sample = tabular_sample("reinforce", arbitrary, reference=truth)
    assert agrees(diagnostics.cosine_to(sample), float(exact))
    assert diagnostics.leave_one_out_cosine(sample) == pytest.approx(
        diagnostics.cosine_to(sample).value, rel=0.01
    )


def numbers(seed: int, n: int = 37) -> dict[str, jax.Array]:
    """n gradients of two leaves, with a signal."""
    g = np.random.default_rng(seed)
    return {
        "a": jnp.asarray(g.normal(size=(n, 3)) + 0.3),
        "b": jnp.asarray(2.0 * g.normal(size=(n, 2, 2)) - 0.1),
    }


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("batch_size", [1, 8, 37, 100])
def test_streamed_moments_are_those_of_stored_gradients(batch_size: int) -> None:
    xs = numbers(0)
    reference = jax.tree.map(lambda x: x[0] + 1.0, numbers(1))
    sample = diagnostics.sample(lambda x: x, xs, batch_size=batch_size, reference=reference)
    flat = np.concatenate([xs["a"], xs["b"].reshape(37, -1)], axis=1)
    r = np.concatenate([reference["a"], reference["b"].ravel()])
    mean = flat.mean(0)
    np.testing.assert_allclose(
        np.concatenate([sample.moments.mean["a"], sample.moments.mean["b"].ravel()]), mean
    )
    np.testing.assert_allclose(sample.moments.variance["a"], flat[:, :3].var(0, ddof=1))
    np.testing.assert_allclose(sample.distance, ((flat - mean) ** 2).sum(1))
    np.testing.assert_allclose(sample.along, (flat - mean) @ mean, atol=1e-12)
    np.testing.assert_allclose(sample.reference, flat @ r / np.linalg.norm(r))
    cosines = np.asarray(sample.reference) / np.linalg.norm(flat, axis=1)
    expected = Estimate.from_error(cosines.mean(), cosines.std(ddof=1) / 37**0.5)
    assert diagnostics.cosine_to(sample) == pytest.approx(expected)
    others = (flat.sum(0) - flat) / 36
    to_others = (
        (flat * others).sum(1) / np.linalg.norm(flat, axis=1) / np.linalg.norm(others, axis=1)
    )
    assert diagnostics.leave_one_out_cosine(sample) == pytest.approx(to_others.mean())
    assert diagnostics.variance_by_leaf(sample)["b"] == pytest.approx(
        flat[:, 3:].var(0, ddof=1).sum()
    )


@pytest.mark.usefixtures("x64")
def test_errors_are_those_of_the_jackknife() -> None:
    """Computed again with each gradient left out in turn."""
    xs, take = numbers(0), jax.jit(lambda xs: diagnostics.sample(lambda x: x, xs))
    left_out = [take(jax.tree.map(lambda x, i=i: np.delete(x, i, axis=0), xs)) for i in range(37)]
    for name in ("variance", "squared_norm", "signal_to_noise", "noise_scale"):
        statistic = getattr(diagnostics, name)
        values = np.array([statistic(some).value for some in left_out])
        expected = np.sqrt(36 / 37 * ((values - values.mean()) ** 2).sum())
        assert statistic(take(xs)).standard_error == pytest.approx(expected), name


@pytest.mark.usefixtures("x64")
def test_the_squared_norm_is_unbiased_and_may_be_negative() -> None:
    """Without a signal its mean is zero; the plain squared norm of the mean would be the variance
    over n.
    """
    take = jax.jit(lambda x: diagnostics.sample(lambda x: x, x))
    xs = jax.random.normal(jax.random.key(0), (200, 8, 5))
    norms = np.array([diagnostics.squared_norm(take(x)).value for x in xs])
    assert abs(norms.mean()) < 4 * norms.std() / 200**0.5 < 0.2 < 5 / 8
    assert (norms < 0).mean() > 0.3


@pytest.mark.usefixtures("x64")
def test_both_forms_of_the_noise_scale_agree() -> None:
    xs = numbers(0)
    sample = diagnostics.sample(lambda x: x, xs)
    flat = np.concatenate([xs["a"], xs["b"].reshape(37, -1)], axis=1)
    single, whole = (flat**2).sum(1).mean(), (flat.mean(0) ** 2).sum()
    of_two = diagnostics.noise_scale_of_two_batches(single, whole, 1, 37)
    assert of_two == pytest.approx(diagnostics.noise_scale(sample).value)
    with pytest.raises(
        ValueError, match="num_small must be at least 1 and below num_large, got 4 and 4"
    ):
        diagnostics.noise_scale_of_two_batches(1.0, 1.0, 4, 4)


@pytest.mark.usefixtures("x64")
def test_pairwise_cosines_of_stored_gradients() -> None:
    xs = numbers(0)
    flat = np.concatenate([xs["a"], xs["b"].reshape(37, -1)], axis=1)
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)

    def mean(unit: np.ndarray) -> float:
        return (unit @ unit.T)[~np.eye(len(unit), dtype=bool)].mean()

    left_out = np.array([mean(np.delete(unit, i, axis=0)) for i in range(37)])
    error = np.sqrt(36 / 37 * ((left_out - left_out.mean()) ** 2).sum())
    expected = Estimate.from_error(mean(unit), error)
    assert diagnostics.pairwise_cosines(xs) == pytest.approx(expected)
    with_zero = jax.tree.map(lambda x: jnp.concatenate([x, jnp.zeros_like(x[:1])]), xs)
    assert diagnostics.pairwise_cosines(with_zero) == pytest.approx(expected)
    with pytest.raises(ValueError, match="at least three gradients that are not 0, got 2"):
        diagnostics.pairwise_cosines(jax.tree.map(lambda x: x[:2], xs))


def test_the_expected_cosine_of_many_parameters() -> None:
    """The cosine of the mean of N Gaussian gradients in 2,000 dimensions to their expectation."""
    truth = jax.random.normal(jax.random.key(0), (2_000,))
    for n in (4, 64):
        noise = jax.random.normal(jax.random.key(n), (50, n, 2_000)) * 5.0
        seen = jax.vmap(diagnostics.cosine, (0, None))(truth[None] + noise.mean(1), truth).mean()
        assert diagnostics.expected_cosine(25.0, n) == pytest.approx(float(seen), rel=0.03)


def cartpole(name: str, num_envs: int = 12) -> tuple[Estimator, Params, object, Trajectory]:
    """An estimator on a batch of CartPole, with networks."""
    way = FACTS[name].collect[0]
    group = 2 if FACTS[name].baseline == "group" else 1
    config = Config(
        estimator=name,
        num_envs=num_envs,
        hidden_sizes=(8,),
        collect=way,
        group_size=group,
        preset=None,
    )
    env = envs.configured(config, num_envs)
    policy, critic = make_policy(config, env), make_critic(config, env)
    estimator = ESTIMATORS[name](policy, critic, Hyperparams(gamma=0.97))
    params, state = jax.jit(estimator.init)(jax.random.key(0))

    @jax.jit
    def collect(params: Params, key: jax.Array) -> Trajectory:
        if way == "windows":
            begin = start(env, policy, jax.random.key(1))
            return windows(env, policy, params.policy, key, begin, 40)[1]
        return episodes(env, policy, params.policy, key, 60, group_size=group)

    return estimator, params, state, collect(params, jax.random.key(2))


FAST = ("standardised", "state_value", "gpomdp")  # a coupled one, one with a critic, one of windows
REST = sorted(set(FACTS) - {*FAST, "optimal_baseline", "optimal_time_baseline"})


@pytest.mark.parametrize("gradient", [0.0, 2.0], ids=["all 0", "all alike"])
def test_without_noise_ratios_are_nan_or_infinite_and_nothing_warns(gradient: float) -> None:
    """As of rewards that are all 0, or of an environment with one action; a warning is an error
    here.
    """
    gradients = {"w": jnp.full((5, 3), gradient)}
    sample = diagnostics.sample(lambda x: x, gradients)
    assert diagnostics.variance(sample) == (0.0, 0.0, 0.0)
    assert diagnostics.squared_norm(sample).value == 3 * gradient**2
    ratio, inverse = diagnostics.noise_scale(sample), diagnostics.signal_to_noise(sample)
    cosine = diagnostics.leave_one_out_cosine(sample)
    two = diagnostics.noise_scale_of_two_batches(gradient, gradient, 1, 4)
    if gradient:
        assert (ratio.value, inverse.value, two) == (0.0, np.inf, 0.0)
        assert cosine == pytest.approx(1.0)
    else:
        assert np.isnan([ratio.value, inverse.value, cosine, two]).all()
        assert str(ratio) == "—"
    assert str(Estimate.from_error(2.0, np.nan)).startswith("2 (no interval")


def test_the_explained_variance_at_the_end_is_that_of_the_last_tenth() -> None:
    """The mean over seeds and updates in which there was something to explain."""
    explained = np.zeros((2, 20))
    explained[:, -2:] = [[0.5, 0.7], [np.nan, 0.9]]
    metrics = {name: np.ones((2, 20)) for name in ("env_steps", "grad_variance")}
    metrics["grad_squared_norm"] = metrics["grad_variance"]
    assert curves.final_explained_variance(metrics) is None  # of an estimator without V
    metrics["explained_variance"] = explained
    assert curves.final_explained_variance(metrics) == pytest.approx(0.7)


# variance, signal -> noise scale, signal to noise
NO_SIGNAL: dict[str, tuple[float, float, float, float]] = {
    "every gradient is 0": (0.0, 0.0, np.nan, np.nan),
    "nothing was measured": (np.nan, np.nan, np.nan, np.nan),
    "noise alone": (3.0, -1.0, np.inf, -1.0 / 3.0),
    "signal alone": (0.0, 2.0, 0.0, np.inf),
}


@pytest.mark.parametrize("name", NO_SIGNAL)
@pytest.mark.parametrize("updates", [1, 4])
def test_the_quality_of_gradients_without_a_signal(name: str, updates: int, tmp_path: Path) -> None:
    """No warning of an empty mean or a division by 0, also in the picture."""
    noise, signal, noise_scale, signal_to_noise = NO_SIGNAL[name]
    shape = (2, updates)
    metrics = {
        "env_steps": np.full(shape, 5),
        "grad_variance": np.full(shape, noise),
        "grad_squared_norm": np.full(shape, signal),
        "explained_variance": np.full(shape, np.nan),  # as of targets that are all equal
    }
    found = curves.gradient_quality(metrics)
    np.testing.assert_array_equal(found["noise_scale"], noise_scale)
    np.testing.assert_array_equal(found["signal_to_noise"], signal_to_noise)
    assert np.isnan(found["explained_variance"]).all()
    assert np.isnan(curves.final_explained_variance(metrics))
    plots.gradient_quality(found, tmp_path / "gradient.png", title="no signal")
    assert (tmp_path / "gradient.png").exists()


@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in REST)]
)
def test_the_mean_over_episodes_is_the_estimate_of_the_batch(name: str) -> None:
    estimator, params, state, traj = cartpole(name)
    sample = jax.jit(lambda p, t: diagnostics.per_episode(estimator, p, state, t, batch_size=5))(
        params, traj
    )

    @jax.jit
    def ascent(params: Params, traj: Trajectory) -> Any:
        batch = estimator.weigh(params, state, traj)[0]
        return jax.tree.map(jnp.negative, estimator.grad(params, batch)[0].policy)

    whole = ascent(params, traj)
    for a, b in zip(jax.tree.leaves(sample.moments.mean), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("name", ["optimal_baseline", "optimal_time_baseline"])
def test_an_estimator_that_is_no_mean_over_episodes_is_refused(name: str) -> None:
    estimator, params, state, traj = cartpole(name)
    with pytest.raises(ValueError, match="not a mean over the episodes of a batch: use per_batch"):
        diagnostics.per_episode(estimator, params, state, traj)
    with pytest.raises(
        ValueError, match="num_episodes must divide the 12 of the trajectory, got 5"
    ):
        diagnostics.per_batch(estimator, params, state, traj, 5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["leave_one_out", "optimal_baseline", "time_baseline"])
def test_batches_have_the_exact_moments_of_pairs(name: str) -> None:
    """Also of estimators that couple the episodes of a batch."""
    problem = arbitrary()
    estimator = ESTIMATORS[name](
        tabular_policy(*problem.logits.shape), None, Hyperparams(gamma=GAMMA)
    )
    params = Params(jnp.asarray(problem.logits), ())
    mean, covariance = diagnostics.exact_moments(estimator, params, problem.mdp, problem.logits, 2)
    state = estimator.init(jax.random.key(0))[1]
    measured = jax.jit(lambda p, t: diagnostics.per_batch(estimator, p, state, t, 2))
    sample = measured(params, sampled(arbitrary))
    assert agrees(diagnostics.variance(sample), float(np.trace(covariance)))
    assert agrees(diagnostics.squared_norm(sample), float(mean @ mean))


@pytest.mark.parametrize("num_episodes", [1, 2])
def test_exact_moments_need_memory_for_the_trajectories_alone(num_episodes: int) -> None:
    """By the compiler's account, for so many that their square would be 10¹⁰ numbers."""
    problem, count = arbitrary(), 100_000
    logits = jnp.asarray(problem.logits, jnp.float32)
    estimator = ESTIMATORS["reward_to_go"](
        tabular_policy(*logits.shape), None, Hyperparams(gamma=GAMMA)
    )
    few = tabular.enumerate_trajectories(problem.mdp, logits)[0]
    many = jax.tree.map(lambda x: jax.ShapeDtypeStruct((len(x), count, *x.shape[2:]), x.dtype), few)
    probability = jax.ShapeDtypeStruct((count,), jnp.float32)
    begins = jax.ShapeDtypeStruct((count,), jnp.int32)

    def moments(traj: Trajectory, probability: jax.Array, begins: jax.Array) -> object:
        every = _Episodes(traj, probability, (), begins)
        one_group = np.zeros(num_episodes, np.int32)
        return _moments(estimator, Params(logits, ()), every, one_group, share_start=True)

    account = jax.jit(moments).lower(many, probability, begins).compile().memory_analysis()
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(many))
    estimates = count * logits.size * 4 * (num_episodes - 1)
    assert account.temp_size_in_bytes < 2 * num_episodes * size + 4 * estimates


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_gradients() -> None:
    """The P-vectors are never stored: four times the episodes take less than one more copy of their
    rows.
    """

    def bytes_of(num_envs: int) -> tuple[int, int]:
        estimator, params, state, traj = cartpole("reinforce", num_envs)
        f = jax.jit(lambda p, t: diagnostics.per_episode(estimator, p, state, t, batch_size=4))
        analysis = f.lower(params, traj).compile().memory_analysis()
        rows = sum(x.nbytes for x in jax.tree.leaves(traj))
        return analysis.temp_size_in_bytes, rows

    (small, few), (large, many) = bytes_of(64), bytes_of(256)
    assert large - small < 4 * (many - few)
    gradients = 192 * 8 * 4 * 4  # of the first layer alone
    assert large - small < 4 * (many - few) + gradients


@pytest.mark.usefixtures("x64")
def test_only_a_gradient_field_is_symmetric() -> None:
    """∇J is one; without γᵗ it is one at γ = 1 alone (Nota & Thomas 2020)."""
    mdp = tabular.garnet(5, num_states=5, num_actions=3, branching=3, horizon=6)
    logits = jax.random.normal(jax.random.key(0), (5, 3))

    def asymmetry(direction: object, gamma: float) -> float:
        return float(diagnostics.asymmetry(lambda x: direction(mdp, x, gamma), logits))  # type: ignore[operator]

    assert asymmetry(tabular.exact_gradient, 0.8) < 1e-14
    assert asymmetry(tabular.undiscounted_direction, 1.0) < 1e-14
    assert asymmetry(tabular.undiscounted_direction, 0.8) > 0.03


def test_explained_variance() -> None:
    g = np.random.default_rng(0)
    target, noise = g.normal(size=(2, 5, 4)).astype(np.float32)
    valid = g.random((5, 4)) > 0.3
    expected = 1 - (target - noise)[valid].var() / target[valid].var()
    assert diagnostics.explained_variance(noise, target, valid) == pytest.approx(expected, rel=1e-5)
    assert diagnostics.explained_variance(target + 3.0, target, valid) == pytest.approx(1.0)
    assert np.isnan(diagnostics.explained_variance(noise, np.ones_like(noise), valid))


def exact_decomposition(problem: Problem, baseline: np.ndarray) -> np.ndarray:
    """Σ_τ, Σ_a, Σ_s of a visited step, by sums over times, states and actions."""
    mdp, pi = problem.mdp, np.asarray(jax.nn.softmax(problem.logits))
    d = np.asarray(tabular.visitation(mdp, jnp.asarray(problem.logits))) * ~mdp.terminal
    weight = d / d.sum()
    Q = np.asarray(tabular.values(mdp, jnp.asarray(problem.logits), GAMMA)[0])  # [H, S, A]
    z = np.zeros((len(pi), A, *pi.shape))
    for s in range(len(pi)):
        z[s, :, s] = np.eye(A) - pi[s]
    z = z.reshape(len(pi), A, -1)
    second = [second_moment(problem, t) for t in range(mdp.horizon)]
    spread = np.array(second) - Q**2  # Var(G|s, a), [H, S, A]
    trajectory = np.einsum("ts,sa,sap,tsa->", weight, pi, z**2, spread)
    terms = z[None] * (Q - baseline[None, :, None])[..., None]  # [H, S, A, P]
    mean = np.einsum("sa,tsap->tsp", pi, terms)
    action = np.einsum("ts,sa,tsap->", weight, pi, (terms - mean[:, :, None]) ** 2)
    overall = np.einsum("ts,tsp->p", weight, mean)
    return np.array([trajectory, action, np.einsum("ts,tsp->", weight, (mean - overall) ** 2)])


def second_moment(problem: Problem, t: int) -> np.ndarray:
    """E[G²|s, a] with t steps taken, [S, A], by recursion over what follows."""
    mdp, pi = problem.mdp, np.asarray(jax.nn.softmax(problem.logits))
    if t == mdp.horizon:
        return np.zeros(pi.shape)
    Q = np.asarray(tabular.values(mdp, jnp.asarray(problem.logits), GAMMA)[0])
    v1 = (pi * Q[t + 1]).sum(1) if t + 1 < mdp.horizon else np.zeros(len(pi))
    v2 = (pi * second_moment(problem, t + 1)).sum(1)
    v1, v2 = np.where(mdp.terminal, 0.0, v1), np.where(mdp.terminal, 0.0, v2)
    r = mdp.reward
    return (mdp.transition * (r**2 + 2 * r * GAMMA * v1 + GAMMA**2 * v2)).sum(-1)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("with_baseline", [pytest.param(False, marks=pytest.mark.slow), True])
def test_the_decomposition_of_variance_is_exact_on_tables(with_baseline: bool) -> None:
    problem = arbitrary()
    env, policy = envs.make_env(problem.mdp, 4_000), tabular_policy(*problem.logits.shape)
    b = problem.v if with_baseline else np.zeros(len(problem.v))
    parts = diagnostics.decompose(
        env,
        policy,
        jnp.asarray(problem.logits),
        jax.random.key(0),
        num_states=4_000,
        gamma=GAMMA,
        baseline=(lambda state: state.obs @ jnp.asarray(b)) if with_baseline else None,
    )
    exact = exact_decomposition(problem, b)
    for measured, expected in zip(parts, exact, strict=True):
        assert abs(measured.value - expected) < BOUND * measured.standard_error < 0.1 * exact.sum()
    assert parts.total == pytest.approx(exact.sum(), rel=0.1)


def test_a_decomposition_needs_two_of_each() -> None:
    env = envs.make_env("CartPole-v1", 2)
    with pytest.raises(ValueError, match="num_actions must be at least 2, for a variance; got 1"):
        diagnostics.decompose(
            env, make_policy(Config(preset=None), env), None, jax.random.key(0), num_actions=1
        )
