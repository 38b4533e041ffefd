"""Closed forms against quadrature, finite differences and one another, and rollouts against closed
forms.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.integrate import quad_vec
from scipy.stats import norm

from pg import envs, rollout
from pg.distributions import Gaussian
from pg.exact.closed_forms import LQR, GaussianBandit, SquashedBandit, bandit, lqr
from pg.exact.closed_forms.expectations import quadrature
from pg.networks import Network

pytestmark = pytest.mark.usefixtures("x64")
CASES = {
    "plain": (GaussianBandit(0.5), 0.3, -0.2),
    "clipped": (GaussianBandit(0.5, -1.0, 1.0), 0.3, -0.2),
    "one bound": (GaussianBandit(-2.0, low=-0.5), 0.3, 0.4),
    "far bounds": (GaussianBandit(0.5, -30.0, 20.0), 0.3, -0.2),
    "nearly touching": (GaussianBandit(0.5, 0.2, 0.25), 0.3, 0.1),
    "mean above": (GaussianBandit(0.9, -1.0, 1.0), 2.5, -0.9),
    "mean below": (GaussianBandit(0.0, 4.0, 7.0), 2.0, 0.0),
    "squashed": (SquashedBandit(0.4), 0.3, -0.2),
    "saturated": (SquashedBandit(-0.4), 2.0, 0.9),
}
every = pytest.mark.parametrize("case", list(CASES))
BASELINE = np.array([-0.7, 0.4])
SCORES = [bandit.score_moments, bandit.censored_score_moments, bandit.biased_clipped_action_moments]


def close(got: Any, expected: Any, rtol: float = 1e-12) -> None:
    jax.tree.map(
        lambda g, e: np.testing.assert_allclose(g, e, rtol=rtol, atol=1e-13), got, expected
    )


def by_quadrature(problem: GaussianBandit, mean: float, log_std: float) -> tuple[float, list[Any]]:
    """J, and the moments of SCORES and of the pathwise estimator, from definitions in numpy and
    `quad_vec`.
    """
    std, squashed = np.exp(log_std), isinstance(problem, SquashedBandit)
    low, high = (-np.inf, np.inf) if squashed else (problem.low, problem.high)
    below, above = (low - mean) / std, (high - mean) / std

    def x(e: float) -> float:
        return np.tanh(mean + std * e) if squashed else np.clip(mean + std * e, low, high)

    def score(e: float) -> np.ndarray:
        return np.array([e / std, e**2 - 1])

    def censored(e: float) -> np.ndarray:
        if below <= e <= above:
            return score(e)
        side, cut = (-1, below) if e < below else (1, above)
        return side * norm.pdf(cut) / norm.cdf(-side * cut) * np.array([1 / std, cut])

    def path(e: float) -> np.ndarray:
        slope = np.cosh(mean + std * e) ** -2.0 if squashed else below < e < above
        return -2 * (x(e) - problem.target) * slope * np.array([1.0, std * e])

    def expect(f: Callable[[float], Any]) -> Any:
        breaks = {"points": (below, -4.0, 0.0, 4.0, above), "epsabs": 1e-20, "epsrel": 1e-11}
        return quad_vec(lambda e: f(e) * norm.pdf(e), -14.0, 14.0, **breaks)[0]

    def moments(f: Callable[[float], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        centre = expect(f)
        return centre, expect(lambda e: (f(e) - centre) ** 2)

    scores = [score] if squashed else [score, censored, lambda e: score((x(e) - mean) / std)]
    estimators = [
        lambda e, s=s: (-((x(e) - problem.target) ** 2) - BASELINE) * s(e) for s in scores
    ]
    return expect(lambda e: -((x(e) - problem.target) ** 2)), [
        moments(f) for f in [*estimators, path]
    ]


@every
def test_moments_are_those_of_quadrature(case: str) -> None:
    total, (*scores, path) = by_quadrature(*CASES[case])
    close(bandit.exact_return(*CASES[case]), total, 1e-8)
    close(bandit.exact_gradient(*CASES[case]), path[0], 1e-8)
    close(bandit.pathwise_moments(*CASES[case]), path, 1e-8)
    # a squashed action has the first score only
    for moments, expected in zip(SCORES, scores, strict=False):
        close(moments(*CASES[case], BASELINE), expected, 1e-8)


@every
def test_what_is_unbiased_what_is_better_and_what_is_wrong(case: str) -> None:
    problem, *theta = CASES[case]
    gradient, best = (
        bandit.exact_gradient(problem, *theta),
        bandit.optimal_baseline(problem, *theta),
    )
    least = bandit.score_moments(problem, *theta, best)[1]
    for b in (0.0, BASELINE, best - 0.1, best + 0.1):
        mean, variance = bandit.score_moments(problem, *theta, b)
        close(mean, gradient, 1e-10)
        assert np.all(least < variance)
        if isinstance(problem, SquashedBandit):
            continue
        mean, smaller = bandit.censored_score_moments(problem, *theta, b)
        close(mean, gradient, 1e-10)
        assert np.all(smaller <= variance * (1 + 1e-12))
        wrong = bandit.biased_clipped_action_moments(problem, *theta, b)[0]
        assert np.all(np.abs(wrong - gradient) > 1e-4) == (case not in ("plain", "far bounds"))


def test_the_plain_gaussian_as_it_is_written_and_as_the_limit_of_far_bounds() -> None:
    (mean, log_std), c = (0.3, -0.2), 0.5
    d, s2 = mean - c, np.exp(2 * log_std)
    best = np.array([-(d**2 + 3 * s2), -(d**2 + 5 * s2)])
    for bound in (np.inf, 1e9, 30.0):
        plain = GaussianBandit(c, -bound, bound), mean, log_std
        close(bandit.exact_return(*plain), -(d**2 + s2))
        close(bandit.exact_gradient(*plain), [-2 * d, -2 * s2])
        close(bandit.optimal_baseline(*plain), best)
        close(bandit.score_moments(*plain, best)[1][0], 8 * d**2 + 6 * s2)
        close(bandit.pathwise_moments(*plain)[1], [4 * s2, 4 * s2 * (d**2 + 2 * s2)])
        for b in (np.zeros(2), BASELINE, best):
            k = d**2 + b
            of_mean = (k**2 + 12 * d**2 * s2 + 15 * s2**2 + 6 * k * s2) / s2 - 4 * d**2
            of_log_std = 2 * k**2 + 40 * d**2 * s2 + 78 * s2**2 + 20 * k * s2 - 4 * s2**2
            for moments in SCORES:
                close(moments(*plain, b)[1], [of_mean[0], of_log_std[1]])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_nothing_is_infinite_however_far_the_bounds_are(dtype: str) -> None:
    jax.config.update("jax_enable_x64", dtype == "float64")
    for low, high in ((-np.inf, np.inf), (-np.inf, 0.0), (30.0, 31.0), (-90.0, -60.0), (-1e4, 1e4)):
        problem = GaussianBandit(0.5, low, high)
        slope = jax.jacfwd(lambda mean, p=problem: bandit.censored_score_moments(p, mean, 0.0))(0.1)
        got = (
            slope,
            bandit.exact_gradient(problem, 0.1, 0.0),
            bandit.pathwise_moments(problem, 0.1, 0.0),
        )
        assert all(np.isfinite(x).all() and x.dtype == dtype for x in jax.tree.leaves(got))


def test_the_trapezoidal_rule_is_as_accurate_as_it_says() -> None:
    for std, error in ((0.1, 1e-13), (1.0, 1e-13), (10.0, 1e-13), (20.0, 1e-6)):
        means = [
            rule.mean(jnp.tanh(0.3 + std * rule.eps) ** 4 * rule.eps**4)
            for rule in map(quadrature, (40, 1000))
        ]
        assert abs(means[0] - means[1]) < error


RNG = np.random.default_rng(0)
A, Q = np.array([[1.0, 0.3], [-0.2, 0.9]]), np.array([[1.0, 0.2], [0.2, 0.5]])
W = np.array([[0.05, 0.02], [0.02, 0.04]])
NARROW = LQR(A, [[0.1], [0.5]], Q, [[0.3]], W, np.diag([1.0, 0.0]), horizon=6)
WIDE = LQR(A, np.eye(2), Q, [[0.3, 0.1], [0.1, 0.7]], W, np.eye(2), horizon=6)
GAINS = {
    "one action": (NARROW, np.array([[-0.3, -0.6]]), np.array([-0.5])),
    "two actions": (WIDE, 0.4 * RNG.normal(size=(2, 2)), np.array([-0.5, 0.2])),
    "clocked": (WIDE, 0.4 * RNG.normal(size=(6, 2, 2)), np.array([0.1, -0.7])),
}
gains = pytest.mark.parametrize("case", list(GAINS))
GAMMA = 0.9


@gains
def test_the_gradient_of_lqr_by_three_routes(case: str) -> None:
    system, *theta = GAINS[case]

    def total(K: Any, log_std: Any) -> jax.Array:
        return lqr.exact_return(system, K, log_std, GAMMA)

    close(lqr.exact_gradient(system, *theta, GAMMA), jax.grad(total, (0, 1))(*theta))
    check_grads(total, theta, order=1, modes=["rev"], rtol=1e-6)
    close(
        lqr.exact_gradient(system, theta[0], 0.1, GAMMA)[1].sum(), jax.grad(total, 1)(theta[0], 0.1)
    )


@gains
def test_a_value_is_the_return_from_a_certain_start(case: str) -> None:
    """V₀ averaged over the start is J, and Vₜ(x) is J of H - t steps from M₀ = x xᵀ, by the forward
    recursion.
    """
    system, K, log_std = GAINS[case]
    given, (P, c) = system.matrices, lqr.value_matrices(system, K, log_std, GAMMA)
    close(lqr.exact_return(system, K, log_std, GAMMA), -(jnp.trace(P[0] @ given.start) + c[0]))
    x = RNG.normal(size=(7, 2))
    value = lqr.state_value(system, K, log_std, x, np.arange(7), GAMMA)
    for t in range(6):
        rest = LQR(*given[:5], start=np.outer(x[t], x[t]), horizon=6 - t)
        close(value[t], lqr.exact_return(rest, K if K.ndim == 2 else K[t:], log_std, GAMMA))
    assert value[6] == 0


def test_no_gain_nearby_does_better_than_the_riccati_recursion() -> None:
    K = lqr.optimal_gain(WIDE, GAMMA)
    close(lqr.exact_gradient(WIDE, K, 0.0, GAMMA)[0], np.zeros((6, 2, 2)))
    for step in (1e-3, 0.1, 1.0):
        other = K + step * RNG.normal(size=K.shape)
        assert lqr.exact_return(WIDE, other, 0.0, GAMMA) < lqr.exact_return(WIDE, K, 0.0, GAMMA)


@pytest.mark.parametrize("case", ["clipped", "one bound", "one action"])
def test_the_rollout_earns_what_the_formula_says(case: str) -> None:
    """The same code as in training, 20,000 episodes: the mean return within 5 standard errors."""
    problem, gain, log_std = {**CASES, **GAINS}[case]
    expected = (
        lqr.exact_return(problem, gain, log_std, GAMMA)
        if case in GAINS
        else bandit.exact_return(*CASES[case])
    )

    def apply(params: Any, carry: Any, obs: jax.Array, first: jax.Array) -> tuple[Any, Gaussian]:
        mean = jnp.einsum("mn,bn->bm", jnp.atleast_2d(gain), obs)
        return carry, Gaussian(mean, jnp.full(mean.shape, np.squeeze(log_std)))

    env = envs.make_env(problem, 20_000)
    traj = jax.jit(
        lambda: rollout.episodes(env, Network(lambda key: (), apply), (), jax.random.key(1))
    )()
    assert traj.valid.all()
    assert traj.terminated.any() == (case in CASES)
    returns = np.asarray((GAMMA ** np.arange(len(traj.reward))[:, None] * traj.reward).sum(0))
    assert abs(returns.mean() - expected) < 5 * returns.std() / 20_000**0.5


def test_gradients_pass_through_the_dynamics_only_where_they_are_asked_for() -> None:
    """Without noise, what one episode earns from x₀ = v is J for start = v vᵀ, and its derivative
    ∇J.
    """
    K, v = jnp.array([[-0.3, -0.6]]), np.array([1.0, -0.5])
    system = LQR(A, [[0.1], [0.5]], Q, [[0.3]], 0 * W, np.outer(v, v), horizon=6)

    def earned(K: jax.Array, env: LQR) -> jax.Array:
        state, total = lqr.State(x=jnp.asarray(v), time=jnp.int32(0)), 0.0
        for _ in range(6):
            _, state, reward, _, _ = env.step_env(
                jax.random.key(0), state, K @ state.x, env.default_params
            )
            total += reward
        return total

    exact = lqr.exact_gradient(system, K, -100.0)[0]
    close(jax.grad(earned)(K, system.with_transition_gradients()), exact)
    assert jnp.abs(jax.grad(earned)(K, system) - exact).max() > 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianBandit(np.inf), "target must be a finite number"),
        (lambda: GaussianBandit(0.0, 1.0, 1.0), "low must be below high"),
        (
            lambda: bandit.censored_score_moments(SquashedBandit(), 0.0, 0.0),
            "clips nothing: use score_moments",
        ),
        (lambda: LQR(A, np.ones(2), Q, Q, W, W, 3), r"B must have shape \(n, m\)"),
        (lambda: LQR(A, A, Q, Q, -W, W, 3), "W must be symmetric and positive semidefinite"),
        (lambda: LQR(A, A, Q, Q, W, A, 3), "start must be symmetric"),
        (lambda: LQR(A, A, Q, Q, W, W, 0), "horizon must be a whole number of at least 1, got 0"),
        (lambda: lqr.exact_return(NARROW, A, 0.0), r"K must have shape \(1, 2\) or \(6, 1, 2\)"),
        (lambda: lqr.exact_return(NARROW, np.ones((1, 2)), np.zeros(2)), "log_std must have shape"),
    ],
)
def test_mistakes(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
