"""Training dynamics for the reproductions: exact ascent on bandits and MDPs with bounds, and
sampled natural gradients.

Rewards are in [0, 1]; results are NumPy arrays.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pg import diagnostics
from pg.config import Config, Hyperparams
from pg.envs import configured
from pg.exact import tabular
from pg.exact.tabular import TabularMDP
from pg.networks import make_policy
from pg.train import TrainState, make_learner, training_keys


def follow(
    direction: Callable[[jax.Array], Any], watch: Callable[[jax.Array], Any], theta: Any, steps: int
) -> Any:
    """The values watch(θₜ) for t = 1 .. steps along θₜ₊₁ = θₜ + direction(θₜ), as NumPy arrays.

    Args:
        direction: θ to the change of θ.
        watch: θ to a tree of arrays.
        theta: θ₁.
        steps: number of values.

    Returns:
        The tree of `watch`, leaves [steps, ...].
    """

    def step(theta: jax.Array, _: None) -> tuple[jax.Array, Any]:
        return theta + direction(theta), watch(theta)

    return jax.tree.map(
        np.asarray, jax.jit(lambda theta: jax.lax.scan(step, theta, None, steps)[1])(theta)
    )


def bandit_gradient(theta: jax.Array, reward: Any, tau: float = 0.0) -> jax.Array:
    """The gradient of π·(r - τ log π), [K]: (diag π - π πᵀ)(r - τ log π).

    Args:
        theta: logits, [K].
        reward: r, [K].
        tau: temperature τ.
    """
    pi, gain = jax.nn.softmax(theta), jnp.asarray(reward) - tau * jax.nn.log_softmax(theta)
    return pi * (gain - pi @ gain)


def mdp_gradient(mdp: TabularMDP, theta: jax.Array, gamma: float) -> jax.Array:
    """∇V(μ) = d π A, [S, A], without a time limit; d(s) = Σₜ γᵗ P(sₜ = s).

    Args:
        mdp: the problem.
        theta: logits, [S, A].
        gamma: discount.
    """
    visits = tabular.discounted_visitation(mdp, theta, gamma)
    return visits[:, None] * jax.nn.softmax(theta) * advantage(mdp, theta, gamma)


def advantage(mdp: TabularMDP, theta: jax.Array, gamma: float) -> jax.Array:
    """A = Q - V, [S, A], without a time limit.

    It is (1 - γ) times the natural gradient (1908.00261, lemma 15).

    Args:
        mdp: the problem.
        theta: logits, [S, A].
        gamma: discount.
    """
    q, v = tabular.discounted_values(mdp, theta, gamma)
    return q - v[:, None]


def optimum(mdp: TabularMDP, gamma: float) -> tuple[jax.Array, jax.Array]:
    """π* [S, A] of zeros and ones, and V* [S], without a time limit, by policy iteration."""
    best = jnp.zeros((mdp.num_states, mdp.num_actions)).at[:, 0].set(1.0)
    for _ in range(mdp.num_actions**mdp.num_states):  # no policy comes twice
        q, v = tabular.discounted_values(mdp, 1e3 * best, gamma)
        if bool(jnp.all(q.max(axis=1) <= v + 1e-12)):
            break
        best = jax.nn.one_hot(q.argmax(axis=1), mdp.num_actions)
    return best, v


def softmax_bandit(
    reward: np.ndarray, policy: Any, eta: float, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """(π* - πₜ)·r and its bound 5 / (c² t), [steps] each (2005.06392, theorem 2).

    c is the minimum of πₛ(a*) over s ≤ t.

    Args:
        reward: r, [K].
        policy: π₁, [K].
        eta: step size.
        steps: number of updates.
    """
    pi = follow(
        lambda x: eta * bandit_gradient(x, reward),
        jax.nn.softmax,
        jnp.log(jnp.asarray(policy)),
        steps,
    )
    c = np.minimum.accumulate(pi[:, reward.argmax()])
    return pi @ (reward.max() - reward), 5 / (c**2 * np.arange(1, steps + 1))


def softmax_mdp(mdp: TabularMDP, gamma: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """V*(μ) - Vₜ(μ) with η = (1-γ)³ / 8 from uniform, and its bound, [steps] each (2005.06392,
    theorem 4).

    16 S ‖d*/μ‖² ‖1/μ‖ / (c² (1-γ)⁶ t), with maximum norms, d* normalised to 1, and c the minimum of
    πₛ(a*(s)|s) up to t.

    Args:
        mdp: the problem.
        gamma: discount.
        steps: number of updates.
    """
    best, optimal = optimum(mdp, gamma)

    def watch(theta: jax.Array) -> tuple[jax.Array, jax.Array]:
        gap = jnp.asarray(mdp.initial) @ (optimal - tabular.discounted_values(mdp, theta, gamma)[1])
        return gap, jnp.min(jnp.sum(jax.nn.softmax(theta) * best, axis=1))

    eta, start = (1 - gamma) ** 3 / 8, jnp.zeros(best.shape)
    gap, right = follow(lambda x: eta * mdp_gradient(mdp, x, gamma), watch, start, steps)
    mismatch = float(
        jnp.max((1 - gamma) * tabular.discounted_visitation(mdp, 1e3 * best, gamma) / mdp.initial)
    )
    constant = 16 * mdp.num_states * mismatch**2 / (mdp.initial.min() * (1 - gamma) ** 6)
    return gap, constant / (np.minimum.accumulate(right) ** 2 * np.arange(1, steps + 1))


def soft_bandit(
    reward: np.ndarray, policy: Any, eta: float, tau: float, steps: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """The soft gap τ KL(πₜ ‖ softmax(r/τ)), its bound, and the rate of its logarithm.

    2 K (τ ‖θ₁‖ + 1)² / τ exp(-2 τ η Σ_{s<t} minₐ πₛ(a)) for τ η ≤ 1 (2005.06392, theorem 5). Near
    the optimum, θ - r/τ shrinks by I - τ η (diag π - π πᵀ) in every step, and the gap is quadratic
    in it.

    Args:
        reward: r, [K].
        policy: π₁, [K].
        eta: step size.
        tau: temperature τ.
        steps: number of updates.

    Returns:
        Gap and bound, [steps] each, and the rate that the gap's logarithm tends to.
    """
    theta, goal = jnp.log(jnp.asarray(policy)), jax.nn.log_softmax(reward / tau)
    log_pi = follow(
        lambda x: eta * bandit_gradient(x, reward, tau), jax.nn.log_softmax, theta, steps
    )
    gap = tau * np.sum(np.exp(log_pi) * (log_pi - np.asarray(goal)), axis=1)
    least = np.exp(log_pi).min(axis=1)
    decay = np.exp(-2 * tau * eta * (np.cumsum(least) - least))
    fisher = np.diag(pi := np.exp(goal)) - np.outer(pi, pi)
    rate = 2 * np.log(1 - tau * eta * np.linalg.eigvalsh(fisher)[1])
    return (
        gap,
        2 * len(reward) * (tau * float(jnp.abs(theta).max()) + 1) ** 2 / tau * decay,
        float(rate),
    )


def value_gaps(
    mdp: TabularMDP, gamma: float, direction: Callable[[jax.Array], Any], steps: int
) -> np.ndarray:
    """V*(s) - V_T(s) after T updates of θ ← θ + direction(θ) from θ = 0, [steps, S].

    Args:
        mdp: the problem.
        gamma: discount.
        direction: θ to the change of θ.
        steps: the largest T.
    """
    best, optimal = optimum(mdp, gamma)

    def watch(theta: jax.Array) -> jax.Array:
        return optimal - tabular.discounted_values(mdp, theta, gamma)[1]

    return follow(direction, watch, jnp.zeros(best.shape), steps + 1)[1:]


def natural_bound(num_actions: int, gamma: float, eta: float, steps: int) -> np.ndarray:
    """log A / (η T) + 1 / ((1-γ)² T) for T = 1 .. steps (1908.00261, theorem 16).

    Args:
        num_actions: A.
        gamma: discount.
        eta: step size η.
        steps: the largest T.
    """
    return (np.log(num_actions) / eta + 1 / (1 - gamma) ** 2) / np.arange(1, steps + 1)


def hidden_goal(length: int) -> TabularMDP:
    """A chain in which one action of four leads to the goal, which a uniform policy hardly
    reaches.
    """
    mdp, actions = tabular.chain(length, horizon=1), [1, 0, 0, 0]
    return TabularMDP(
        mdp.transition[:, actions], mdp.reward[:, actions], mdp.initial, mdp.terminal, horizon=1
    )


def asymmetry(
    mdp: TabularMDP, direction: Callable[..., jax.Array], logits: Any, gammas: Any
) -> np.ndarray:
    """The asymmetry of a direction as in `diagnostics.asymmetry`, for each discount, [K].

    Args:
        mdp: the problem.
        direction: (mdp, logits, γ) to an array like the logits.
        logits: [S, A].
        gammas: discounts, [K].
    """

    def one(gamma: jax.Array) -> jax.Array:
        return diagnostics.asymmetry(lambda x: direction(mdp, x, gamma), logits)

    return np.asarray(jax.jit(jax.vmap(one))(jnp.asarray(gammas)))


def linear_ascent(
    mdp: TabularMDP, direction: Callable[..., jax.Array], gamma: float, step: float, updates: int
) -> np.ndarray:
    """(J_γ, J₁) before each update of W ← W + step Φᵀ direction(Φ W) from W = 0, [updates, 2].

    Args:
        mdp: the problem, with features Φ.
        direction: (mdp, logits, γ) to an array like the logits.
        gamma: discount.
        step: step size.
        updates: their number.
    """
    features = jnp.asarray(mdp.features)

    def watch(weights: jax.Array) -> jax.Array:
        return jnp.stack([tabular.exact_return(mdp, features @ weights, g) for g in (gamma, 1.0)])

    start = jnp.zeros((features.shape[1], mdp.num_actions))
    return follow(
        lambda x: step * features.T @ direction(mdp, features @ x, gamma), watch, start, updates
    )


def train_linear(
    mdp: TabularMDP,
    estimator: str,
    gamma: float,
    rate: float,
    updates: int,
    episodes: int,
    seeds: int,
) -> np.ndarray:
    """(J_γ, J₁) before each update, exact, of linear policies trained from sampled episodes.

    Plain stochastic gradient ascent on a weight and a bias for each logit: if the feature is 1,
    their sum moves at twice the rate.

    Args:
        mdp: the problem.
        estimator: its name.
        gamma: discount.
        rate: learning rate.
        updates: their number.
        episodes: of an update.
        seeds: their number.

    Returns:
        [seeds, updates, 2].
    """
    config = Config(
        env=mdp,
        estimator=estimator,
        num_updates=updates,
        num_envs=episodes,
        hidden_sizes=(),
        optimizer="sgd",
        preset=None,
    )
    learner = make_learner(
        config, Hyperparams(gamma=gamma, learning_rate=rate, max_grad_norm=np.inf)
    )
    policy = make_policy(config, configured(config, episodes))

    def step(state: TrainState, key: jax.Array) -> tuple[TrainState, jax.Array]:
        logits = tabular.table(mdp, policy, state.params.policy)
        exact = jnp.stack([tabular.exact_return(mdp, logits, g) for g in (gamma, 1.0)])
        return learner.step(state, key)[0], exact

    def run(key: jax.Array) -> jax.Array:
        first, keys = training_keys(key, 0, updates)
        return jax.lax.scan(step, learner.init(first), keys)[1]

    return np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), seeds)))


def unit_garnet(seed: int, num_states: int, num_actions: int) -> TabularMDP:
    """A random MDP without terminal states: rewards in [0, 1], two successors per action, uniform
    μ.

    Args:
        seed: of the MDP.
        num_states: S.
        num_actions: A.
    """
    mdp = tabular.garnet(seed, num_states, num_actions, branching=2, horizon=1, ends=0)
    reward = (mdp.reward - mdp.reward.min()) / np.ptp(mdp.reward)
    return TabularMDP(mdp.transition, reward, np.full(num_states, 1 / num_states), mdp.terminal, 1)


def slope(x: np.ndarray, y: np.ndarray) -> float:
    """The slope of a least-squares line; for logarithms, the power p in y ∝ xᵖ."""
    return float(np.polyfit(x, y, 1)[0])


def least_variance(theta: jax.Array, reward: Any) -> jax.Array:
    """b* = Σₐ rₐ / πₐ / Σₐ 1 / πₐ, [...]: the variance-minimising baseline for the natural gradient
    from one sample.
    """
    return jax.nn.softmax(-theta) @ jnp.asarray(reward)  # proportional to 1 / π, without overflow


def natural_moments(theta: Any, reward: Any, baseline: Any) -> tuple[np.ndarray, float]:
    """Mean [K] and total variance of (rₐ - b) F⁺ ∇log π(a), a ~ π.

    The Fisher matrix is F = diag π - π πᵀ.

    Args:
        theta: logits, [K].
        reward: r, [K].
        baseline: b.
    """
    pi = np.asarray(jax.nn.softmax(jnp.asarray(theta)))
    natural = (np.eye(len(pi)) - pi) @ np.linalg.pinv(np.diag(pi) - np.outer(pi, pi))
    each = (np.asarray(reward) - float(baseline))[:, None] * natural
    return (mean := pi @ each), float(pi @ np.sum((each - mean) ** 2, axis=1))


class NaturalRuns(NamedTuple):
    """Runs of stochastic natural gradient ascent on a bandit."""

    best: np.ndarray  # [steps, runs] probability of the best arm after each update
    entropy: np.ndarray  # [steps, runs]
    drawn: np.ndarray  # [runs, K] True for arms that were ever drawn


def natural_ascent(
    key: jax.Array,
    reward: Any,
    baseline: Callable[[jax.Array], Any],
    alpha: float,
    steps: int,
    runs: int,
) -> NaturalRuns:
    """Runs of θ ← θ + α (rₐ - b(θ)) / π(a) eₐ, a ~ π, from the uniform policy.

    (1 / π(a)) eₐ is F⁺ ∇log π(a), up to a constant.

    Args:
        key: of the draws.
        reward: r, [K].
        baseline: maps θ [runs, K] to b [runs].
        alpha: step size α.
        steps: updates of a run.
        runs: their number.
    """
    gain = jnp.asarray(reward, float)

    def step(carry: tuple[jax.Array, jax.Array], key: jax.Array) -> Any:
        theta, drawn = carry
        log_pi = jax.nn.log_softmax(theta)
        cumulative = jnp.cumsum(jnp.exp(log_pi), axis=1)
        uniform = jax.random.uniform(key, (runs, 1)) * cumulative[:, -1:]
        arm = jnp.arange(len(gain))[None] == jnp.sum(uniform >= cumulative, axis=1, keepdims=True)
        move = alpha * (gain[None] - baseline(theta)[:, None]) * jnp.exp(-log_pi)
        theta = theta + jnp.where(arm, move, 0.0)
        log_pi = jax.nn.log_softmax(theta)
        entropy = -jnp.sum(jnp.exp(log_pi) * jnp.maximum(log_pi, -1e3), axis=1)  # 0 log 0 = 0
        return (theta, drawn | arm), (jnp.exp(log_pi[:, jnp.argmax(gain)]), entropy)

    start = jnp.zeros((runs, len(gain))), jnp.zeros((runs, len(gain)), bool)
    (_, drawn), (best, entropy) = jax.jit(lambda keys: jax.lax.scan(step, start, keys))(
        jax.random.split(key, steps)
    )
    return NaturalRuns(np.asarray(best), np.asarray(entropy), np.asarray(drawn))


def never_drawn(alpha: float, baseline: float, steps: int) -> tuple[float, float]:
    """The probability that the good arm of r = (1, 0) is never drawn, for b < 0.

    Π (1 - pₙ) along θₙ₊₁ = θₙ - α |b| / (1 - pₙ), p = σ(θ), θ₀ = 0; the rest of the product is at
    least 1 - Σ pₙ ≥ 1 - e^θ / (1 - e^(-α |b|)), since θ decreases by at least α |b| in every
    update.

    Args:
        alpha: step size α.
        baseline: b.
        steps: number of updates.

    Returns:
        The probability within the given updates, and a lower bound for infinitely many.
    """
    theta, log_product = 0.0, 0.0
    for _ in range(steps):
        bad = 1 / (1 + np.exp(theta))
        log_product, theta = log_product + np.log(bad), theta - alpha * abs(baseline) / bad
    product = float(np.exp(log_product))
    return product, product * (1 + np.exp(theta) / np.expm1(-alpha * abs(baseline)))
