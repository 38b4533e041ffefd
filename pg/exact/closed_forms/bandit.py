"""One step, one action, reward -(x - c)², x = clip(u) or tanh(u) of u ~ N(mean, std²).

    J(θ) = E[r(x(u))],  θ = (mean, log std),  u = mean + std ε,  ∇log N(u) = (ε / std, ε² - 1)

Results are [2], in the order of θ; mean and log_std are scalars (`vmap` gives more). Moments are
those of one sample's estimate: the mean of
n independent ones has 1/n of the variance.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from pg.envs import environment, spaces
from pg.exact.closed_forms.expectations import (
    ABOVE,
    BELOW,
    FAR,
    INSIDE,
    Algebra,
    mean_and_variance,
    piecewise,
    quadrature,
)

Moments = tuple[Float[Array, "2"], Float[Array, "2"]]


class State(NamedTuple):
    """The number of steps taken, 0 or 1."""

    time: Int[Array, ""]


class TransformedGaussian(NamedTuple):
    """x(u), u = mean + std ε, as functions of ε: arrays [*F] of the algebra."""

    algebra: Algebra
    mean: Float[Array, ""]
    std: Float[Array, ""]
    x: Float[Array, "*F"]
    slope: Float[Array, "*F"]  # dx/du


class GaussianBandit(environment.Environment):
    """Reward -(clip(a, low, high) - target)² for a Gaussian policy; without bounds, nothing is
    clipped.
    """

    _supports_transition_gradients = True

    def __init__(self, target: float = 0.0, low: float = -math.inf, high: float = math.inf) -> None:
        """Raises ValueError for a target that is not finite, or bounds in the wrong order."""
        if not math.isfinite(target):
            raise ValueError(f"target must be a finite number, got {target}")
        if not low < high or low == math.inf or high == -math.inf:
            raise ValueError(f"low must be below high, got low={low} and high={high}")
        self.target, self.low, self.high = float(target), float(low), float(high)

    def distribution(
        self, mean: Float[ArrayLike, ""], log_std: Float[ArrayLike, ""]
    ) -> TransformedGaussian:
        """x = clip(u): a constant, a line and a constant."""
        mean, std = jnp.asarray(mean, float), jnp.exp(jnp.asarray(log_std, float))
        (low, high), cuts = _bounds(self, mean, std)
        algebra, inside = piecewise(cuts), jnp.asarray(INSIDE, float)
        line = algebra.times(inside, mean * algebra.one + std * algebra.eps)
        return TransformedGaussian(algebra, mean, std, low * BELOW + line + high * ABOVE, inside)

    @property
    def default_params(self) -> environment.EnvParams:
        """One step."""
        return environment.EnvParams(max_steps_in_episode=1)

    def reset_env(self, key: PRNGKeyArray, params: Any) -> tuple[Float[Array, "1"], State]:
        """The only state."""
        state = State(time=jnp.int32(0))
        return self.get_obs(state), state

    def step_env(
        self, key: PRNGKeyArray, state: State, action: Float[Array, "1"], params: Any
    ) -> tuple[Any, ...]:
        """The reward of an action [1], and the end."""
        reward = -((jnp.clip(action[0], self.low, self.high) - self.target) ** 2)
        state = State(time=state.time + 1)
        obs, state = self._apply_transition_gradient_policy(self.get_obs(state), state)
        return obs, state, reward, jnp.bool_(True), {}

    def get_obs(self, state: State, params: Any = None, key: Any = None) -> Float[Array, "1"]:
        """[1.0]."""
        return jnp.ones(1)

    def action_space(self, params: Any) -> spaces.Box:
        """Between the bounds, [1]."""
        return spaces.Box(self.low, self.high, (1,))

    def observation_space(self, params: Any) -> spaces.Box:
        """The one observation."""
        return spaces.Box(1.0, 1.0, (1,))


class SquashedBandit(GaussianBandit):
    """Reward -(a - target)² on Box(-1, 1) for the policy TanhGaussian: a = tanh(u)."""

    def __init__(self, target: float = 0.0) -> None:
        """Raises ValueError for a target that is not finite."""
        super().__init__(target, -1.0, 1.0)

    def distribution(
        self, mean: Float[ArrayLike, ""], log_std: Float[ArrayLike, ""]
    ) -> TransformedGaussian:
        """x = tanh(u)."""
        mean, std = jnp.asarray(mean, float), jnp.exp(jnp.asarray(log_std, float))
        algebra = quadrature()
        u = mean + std * algebra.eps
        # 1 - tanh² would cancel where tanh saturates
        slope = 4 * jax.nn.sigmoid(2 * u) * jax.nn.sigmoid(-2 * u)
        return TransformedGaussian(algebra, mean, std, jnp.tanh(u), slope)


def exact_return(
    problem: GaussianBandit, mean: Float[ArrayLike, ""], log_std: Float[ArrayLike, ""]
) -> Float[Array, ""]:
    """J = E[r], []. Without bounds -((mean - c)² + std²). Differentiable to any order."""
    dist = problem.distribution(mean, log_std)
    return dist.algebra.mean(_reward(problem, dist))


def exact_gradient(
    problem: GaussianBandit, mean: Float[ArrayLike, ""], log_std: Float[ArrayLike, ""]
) -> Float[Array, "2"]:
    """∇J, [2]. Without bounds (-2 (mean - c), -2 std²)."""
    theta = jnp.stack([jnp.asarray(mean, float), jnp.asarray(log_std, float)])
    return jax.grad(lambda theta: exact_return(problem, *theta))(theta)


def score_moments(
    problem: GaussianBandit,
    mean: Float[ArrayLike, ""],
    log_std: Float[ArrayLike, ""],
    baseline: Float[ArrayLike, "..."] = 0.0,
) -> Moments:
    """Mean [2], which is ∇J, and variance [2] of (r - b) ∇log N(u), u the sample before it is
    clipped or squashed.

    The score of tanh(u) is that of u: the Jacobian does not depend on θ. baseline: [] or, by
    parameter, [2].
    """
    dist = problem.distribution(mean, log_std)
    return _weighted(problem, dist, _score(dist, dist.algebra.eps), baseline)


def optimal_baseline(
    problem: GaussianBandit, mean: Float[ArrayLike, ""], log_std: Float[ArrayLike, ""]
) -> Float[Array, "2"]:
    """b* = E[r (∂log N)²] / E[(∂log N)²], of each parameter, [2]: the minimiser of the score
    estimator's variance.

    Without bounds (-(δ² + 3 std²), -(δ² + 5 std²)), δ = mean - c. (Peters & Schaal 2008.)
    """
    dist = problem.distribution(mean, log_std)
    score = _score(dist, dist.algebra.eps)
    weight = dist.algebra.times(score, score)
    weighted_reward = dist.algebra.times(_reward(problem, dist)[None], weight)
    return dist.algebra.mean(weighted_reward) / dist.algebra.mean(weight)


def censored_score_moments(
    problem: GaussianBandit,
    mean: Float[ArrayLike, ""],
    log_std: Float[ArrayLike, ""],
    baseline: Float[ArrayLike, "..."] = 0.0,
) -> Moments:
    """Mean [2], which is ∇J, and variance [2] of (r - b) ∇log p(x), x = clip(u): p is a density and
    two atoms.

    ∇log N(u) inside, ∇log Φ(α) at the lower bound, ∇log Φ(-β) at the upper, where α and β are the
    bounds in standard deviations from the mean. It is E[∇log N(u) | x]: its variance is never
    larger than the score's, for a constant b. (CAPG: Fujita & Maeda 2018, 1802.07564.) Raises
    ValueError for a SquashedBandit.
    """
    _check_clips(problem)
    dist = problem.distribution(mean, log_std)
    _, cuts = _bounds(problem, dist.mean, dist.std)
    side = jnp.array([-1.0, 1.0])
    # in logs: far out φ and Φ are both 0
    hazard = side * jnp.exp(norm.logpdf(cuts) - norm.logcdf(-side * cuts))
    scores = jnp.stack([hazard / dist.std, cuts * hazard])
    atoms = jnp.tensordot(scores, jnp.stack([BELOW, ABOVE]), axes=1)
    indicator = jnp.asarray(INSIDE, float)[None]
    inside = dist.algebra.times(indicator, _score(dist, dist.algebra.eps))
    return _weighted(problem, dist, atoms + inside, baseline)


def biased_clipped_action_moments(
    problem: GaussianBandit,
    mean: Float[ArrayLike, ""],
    log_std: Float[ArrayLike, ""],
    baseline: Float[ArrayLike, "..."] = 0.0,
) -> Moments:
    """Mean [2], which is *not* ∇J, and variance [2] of (r - b) ∇log N(clip(u)): a common mistake,
    not an estimator.

    The score of the density at the clipped action, as when a buffer stores actions clipped. A
    negative control: it is biased wherever the bounds bind. Raises ValueError for a SquashedBandit.
    """
    _check_clips(problem)
    dist = problem.distribution(mean, log_std)
    eps = (dist.x - dist.mean * dist.algebra.one) / dist.std
    return _weighted(problem, dist, _score(dist, eps), baseline)


def pathwise_moments(
    problem: GaussianBandit, mean: Float[ArrayLike, ""], log_std: Float[ArrayLike, ""]
) -> Moments:
    """Mean [2], which is ∇J, and variance [2] of d r(x(mean + std ε)) / dθ = r'(x) x'(u) (1, std
    ε).

    Without bounds the variance is (4 std², 4 std² (δ² + 2 std²)), δ = mean - c.
    """
    dist = problem.distribution(mean, log_std)
    times, eps = dist.algebra.times, dist.algebra.eps
    slope = times(-2 * (dist.x - problem.target * dist.algebra.one), dist.slope)
    return mean_and_variance(dist.algebra, jnp.stack([slope, dist.std * times(slope, eps)]))


def _bounds(
    problem: GaussianBandit, mean: Float[Array, ""], std: Float[Array, ""]
) -> tuple[Float[Array, "2"], Float[Array, "2"]]:
    """The bounds [2], and (α, β), their distances from the mean in standard deviations, [2]; all
    finite.
    """
    # A bound at FAR never binds, and being finite it has finite gradients.
    low = jnp.maximum(problem.low, mean - FAR * std)
    high = jnp.minimum(problem.high, mean + FAR * std)
    edges = jnp.stack([low, high])
    return edges, jnp.clip((edges - mean) / std, -FAR, FAR)


def _reward(problem: GaussianBandit, dist: TransformedGaussian) -> Float[Array, "*F"]:
    """-(x - c)², [*F]."""
    error = dist.x - problem.target * dist.algebra.one
    return -dist.algebra.times(error, error)


def _score(dist: TransformedGaussian, eps: Float[Array, "*F"]) -> Float[Array, "2 *F"]:
    """(ε / std, ε² - 1), [2, *F], with a function [*F] for ε."""
    return jnp.stack([eps / dist.std, dist.algebra.times(eps, eps) - dist.algebra.one])


def _weighted(
    problem: GaussianBandit,
    dist: TransformedGaussian,
    score: Float[Array, "2 *F"],
    baseline: Float[ArrayLike, "..."],
) -> Moments:
    """The moments of (r - b) score."""
    baseline = jnp.broadcast_to(jnp.asarray(baseline, float), (2,))
    advantage = _reward(problem, dist)[None] - jnp.tensordot(baseline, dist.algebra.one, axes=0)
    return mean_and_variance(dist.algebra, dist.algebra.times(advantage, score))


def _check_clips(problem: GaussianBandit) -> None:
    """Raises ValueError for a SquashedBandit."""
    if isinstance(problem, SquashedBandit):
        raise ValueError(
            "a SquashedBandit clips nothing: use score_moments, or a GaussianBandit with bounds"
        )
