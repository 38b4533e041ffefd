"""Exact references against finite differences, enumeration, long horizons, and the same rollout
code as training.
"""

from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pg import envs, rollout
from pg.config import Config
from pg.exact import tabular
from pg.exact.tabular import TabularMDP
from pg.networks import make_policy
from pg.train import make_train

pytestmark = pytest.mark.usefixtures("x64")
GAMMA = 0.9
MDP = tabular.garnet(0, num_states=4, num_actions=2, branching=2, horizon=4)
RNG = np.random.default_rng(1)
LOGITS = {"stationary": RNG.normal(size=(4, 2)), "clocked": RNG.normal(size=(4, 4, 2))}
both = pytest.mark.parametrize("kind", list(LOGITS))


def enumerated(logits: jax.Array, tau: float = 0.0) -> jax.Array:
    """J as a sum over trajectories."""
    traj, probability = tabular.enumerate_trajectories(MDP, logits)
    reward = jnp.where(traj.valid, traj.reward - tau * traj.log_prob, 0.0)
    return jnp.sum(probability * (GAMMA ** jnp.arange(4)[:, None] * reward).sum(0))


@both
def test_probabilities_sum_to_one_and_the_return_is_their_mean(kind: str) -> None:
    logits = jnp.asarray(LOGITS[kind])
    _, probability = tabular.enumerate_trajectories(MDP, logits)
    assert float(probability.sum()) == pytest.approx(1.0, abs=1e-12)
    for tau in (0.0, 0.3):
        assert abs(enumerated(logits, tau) - tabular.exact_return(MDP, logits, GAMMA, tau)) < 1e-12


@both
def test_gradient_and_hessian_are_those_of_the_sum(kind: str) -> None:
    logits = jnp.asarray(LOGITS[kind])
    for tau in (0.0, 0.3):
        gradient = jax.jit(jax.grad(lambda x, tau=tau: enumerated(x, tau)))(logits)
        np.testing.assert_allclose(
            tabular.exact_gradient(MDP, logits, GAMMA, tau), gradient, atol=1e-12
        )
    found = jax.jit(lambda x: tabular.exact_hessian(MDP, x, GAMMA))(logits)
    np.testing.assert_allclose(found, jax.jit(jax.hessian(enumerated))(logits), atol=1e-12)


def test_the_gradient_is_the_formula_of_the_theorem() -> None:
    logits = jnp.asarray(LOGITS["stationary"])
    pi, (q, v), d = (
        jax.nn.softmax(logits),
        tabular.values(MDP, logits, GAMMA),
        tabular.visitation(MDP, logits),
    )
    formula = jnp.einsum("t,ts,sa,tsa->sa", GAMMA ** jnp.arange(4), d, pi, q - v[..., None])
    np.testing.assert_allclose(tabular.exact_gradient(MDP, logits, GAMMA), formula, atol=1e-12)
    undiscounted = jnp.einsum("ts,sa,tsa->sa", d, pi, q - v[..., None])
    np.testing.assert_allclose(
        tabular.undiscounted_direction(MDP, logits, GAMMA), undiscounted, atol=1e-12
    )
    np.testing.assert_allclose(
        tabular.undiscounted_direction(MDP, logits, 1.0),
        tabular.exact_gradient(MDP, logits, 1.0),
        atol=1e-12,
    )


def test_terminal_states_have_no_gradient_and_no_value() -> None:
    logits = jnp.asarray(LOGITS["stationary"])
    assert not np.any(tabular.exact_gradient(MDP, logits, GAMMA)[3])
    assert not np.any(tabular.values(MDP, logits, GAMMA)[1][:, 3])
    assert not np.any(tabular.visitation(MDP, logits)[:, 3])


def test_the_dynamics_cancel() -> None:
    """∇ log p(τ), with ρ and P in it, is Σₜ ∇ log π: neither depends on θ."""
    logits = jnp.asarray(LOGITS["clocked"])
    whole = jax.jacobian(lambda x: jnp.log(tabular.enumerate_trajectories(MDP, x)[1]))(logits)

    def score(x: jax.Array) -> jax.Array:
        traj, _ = tabular.enumerate_trajectories(MDP, x)
        return jnp.sum(jnp.where(traj.valid, traj.log_prob, 0.0), axis=0)

    np.testing.assert_allclose(whole, jax.jacobian(score)(logits), atol=1e-12)


def summands(logits: jax.Array) -> tuple[np.ndarray, np.ndarray, Any]:
    """Probabilities [M], scores [H, M, D] and trajectories."""
    traj, probability = tabular.enumerate_trajectories(MDP, logits)
    scores = jax.jacobian(
        lambda x: jnp.where(traj.valid, tabular.enumerate_trajectories(MDP, x)[0].log_prob, 0.0)
    )(logits)
    return np.asarray(probability), np.asarray(scores).reshape(4, len(probability), -1), traj


def moments(probability: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = probability @ x
    return mean, (x - mean).T @ ((x - mean) * probability[:, None])


@both
def test_moments_of_the_total_return_by_recursion_and_by_enumeration(kind: str) -> None:
    logits = jnp.asarray(LOGITS[kind])
    probability, scores, traj = summands(logits)
    total = (GAMMA ** np.arange(4)[:, None] * traj.reward).sum(0)
    gradient = tabular.exact_gradient(MDP, logits, GAMMA).ravel()
    by_recursion = jax.jit(lambda b: tabular.total_return_moments(MDP, logits, GAMMA, b))
    for b in (0.0, 0.7):
        expected = moments(probability, scores.sum(0) * np.asarray(total - b)[:, None])
        got = by_recursion(b)
        jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, atol=1e-12), got, expected)
        np.testing.assert_allclose(got[0], gradient, atol=1e-12)


@both
def test_moments_of_the_reward_to_go_by_recursion_and_by_enumeration(kind: str) -> None:
    logits = jnp.asarray(LOGITS[kind])
    probability, scores, traj = summands(logits)
    discounted = GAMMA ** np.arange(4)[:, None] * np.asarray(traj.reward)
    to_go = np.cumsum(discounted[::-1], axis=0)[::-1]
    for b in (np.zeros((4, 4)), np.random.default_rng(3).normal(size=(4, 4))):
        at = (
            GAMMA ** np.arange(4)[:, None]
            * b[np.arange(4)[:, None], np.asarray(traj.obs).argmax(-1)]
        )
        expected = moments(probability, (scores * (to_go - at)[..., None]).sum(0))
        got = tabular.reward_to_go_moments(MDP, logits, GAMMA, b)
        jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, atol=1e-12), got, expected)


def test_without_a_time_limit() -> None:
    logits = jnp.asarray(LOGITS["stationary"])
    long = TabularMDP(MDP.transition, MDP.reward, MDP.initial, MDP.terminal, horizon=600)
    total = tabular.discounted_return(MDP, logits, GAMMA)
    np.testing.assert_allclose(total, tabular.exact_return(long, logits, GAMMA), atol=1e-10)
    gradient = jax.grad(lambda x: tabular.discounted_return(MDP, x, GAMMA))(logits)
    np.testing.assert_allclose(gradient, tabular.exact_gradient(long, logits, GAMMA), atol=1e-10)


def test_average_reward_and_its_gradient() -> None:
    ring = tabular.garnet(2, num_states=4, num_actions=2, branching=4, horizon=4000, ends=0)
    logits = jnp.asarray(LOGITS["stationary"])
    mu = tabular.stationary(ring, logits)
    step = jnp.einsum("sa,sat->st", jax.nn.softmax(logits), ring.transition)
    np.testing.assert_allclose(mu @ step, mu, atol=1e-12)
    assert float(mu.sum()) == pytest.approx(1.0)
    eta = tabular.average_reward(ring, logits)
    assert abs(tabular.exact_return(ring, logits) / 4000 - eta) < 1e-2
    gradient = jax.grad(lambda x: tabular.average_reward(ring, x))(logits)
    gaps = [
        float(jnp.abs(tabular.gpomdp_direction(ring, logits, beta) - gradient).max())
        for beta in (0.5, 0.9, 0.999999)
    ]
    assert gaps[0] > gaps[1] > 1e-4  # biased for β < 1
    assert gaps[2] < 1e-5  # and less and less so
    # The same through the Poisson equation: ∇η = Σ μ π (Q - V), with V = h its solution.
    pi, reward = jax.nn.softmax(logits), jnp.asarray(ring.mean_reward)
    h = jnp.linalg.solve(jnp.eye(4) - step + mu[None, :], jnp.sum(pi * reward, -1) - eta)
    q = reward - eta + jnp.asarray(ring.transition) @ h
    formula = mu[:, None] * pi * (q - jnp.sum(pi * q, -1, keepdims=True))
    np.testing.assert_allclose(gradient, formula, atol=1e-12)


def test_dropping_the_discount_can_climb_to_the_worst_policy() -> None:
    mdp, gamma = tabular.pessimal(), 0.5

    def logits(theta: jax.Array) -> jax.Array:
        return jnp.broadcast_to(jnp.stack([jnp.zeros(()), theta]), (3, 2))

    @jax.jit
    def derivative(theta: jax.Array, gamma: jax.Array) -> jax.Array:
        return jax.grad(lambda x: tabular.exact_return(mdp, logits(x), gamma))(theta)

    @jax.jit
    def pull(theta: jax.Array) -> jax.Array:
        return tabular.undiscounted_direction(mdp, logits(theta), gamma)[:, 1].sum()

    for theta in (-2.0, 0.0, 2.0):
        p = jax.nn.sigmoid(theta)
        for g, slope in ((gamma, -gamma), (1.0, -1.0)):
            np.testing.assert_allclose(derivative(theta, g), slope * p * (1 - p), atol=1e-12)
        np.testing.assert_allclose(pull(theta), (3 - 4 * gamma) * p * (1 - p), atol=1e-12)


@pytest.mark.parametrize(
    ("mdp", "best"),
    [
        (tabular.chain(5, horizon=10, slip=0.0), 1.0),
        (tabular.gridworld(["S.", "HG"], horizon=6), 1.0),
        (tabular.bandit([0.1, 0.9, 0.3]), 0.9),
    ],
)
def test_ready_made_problems_are_what_they_say(mdp: TabularMDP, best: float) -> None:
    """The greedy policy of their own Q, found by value iteration, earns what it should."""
    logits = jnp.zeros((mdp.horizon, mdp.num_states, mdp.num_actions))
    values = jax.jit(lambda x: tabular.values(mdp, x)[0])
    for _ in range(mdp.horizon + 1):
        logits = 1e3 * values(logits)
    assert float(tabular.exact_return(mdp, logits)) == pytest.approx(best, abs=1e-6)


def test_the_rollout_visits_what_the_recursion_says() -> None:
    """The same code as in training, 20,000 episodes: visitation and return within 5 standard
    errors.
    """
    config = Config(env=MDP, hidden_sizes=(), preset=None)
    env = envs.make_env(MDP, 20_000)
    policy = make_policy(config, env)
    params = jax.tree.map(
        lambda x: x + 1.0 * jax.random.normal(jax.random.key(5), x.shape),
        policy.init(jax.random.key(0)),
    )
    traj = jax.jit(lambda: rollout.episodes(env, policy, params, jax.random.key(1)))()
    logits = tabular.table(MDP, policy, params)
    n, d = 20_000, np.asarray(tabular.visitation(MDP, logits))
    visits = np.asarray((traj.obs * traj.valid[..., None]).mean(1))
    assert np.all(np.abs(visits - d) <= 5 * np.sqrt(d * (1 - d) / n))
    returns = np.asarray((GAMMA ** jnp.arange(4)[:, None] * traj.reward).sum(0))
    assert (
        abs(returns.mean() - tabular.exact_return(MDP, logits, GAMMA)) < 5 * returns.std() / n**0.5
    )
    assert bool(traj.truncated.any())
    assert bool(traj.terminated.any())


def test_the_exact_gradient_of_a_network() -> None:
    """`table` composes: finite differences of J with respect to a parameter of an MLP."""
    policy = make_policy(Config(hidden_sizes=(5,), preset=None), envs.make_env(MDP, 1))
    params, direction = policy.init(jax.random.key(0)), policy.init(jax.random.key(1))

    def objective(step: float) -> jax.Array:
        moved = jax.tree.map(lambda p, d: p + step * d, params, direction)
        return tabular.exact_return(MDP, tabular.table(MDP, policy, moved), GAMMA)

    slope = jax.grad(objective)(0.0)
    np.testing.assert_allclose(slope, (objective(1e-5) - objective(-1e-5)) / 2e-5, rtol=1e-6)


def test_registered_by_name() -> None:
    tabular.register("Chain-test", tabular.chain(3, horizon=5))
    assert "Chain-test" in gymnax.registered_envs
    _, metrics = jax.jit(make_train(Config(env="Chain-test", num_updates=2, preset=None)))(
        jax.random.key(0)
    )
    assert np.isfinite(metrics["return"]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": np.zeros((4, 3))}, r"reward must have shape \(4, 2\) or \(4, 2, 4\)"),
        ({"transition": np.zeros((4, 2, 4))}, "transition must hold probabilities"),
        ({"initial": np.array([0.0, 0.0, 0.0, 1.0])}, "terminal states probability 0"),
        ({"horizon": 0}, "horizon must be"),
        ({"features": np.zeros((3, 2))}, "features must have shape"),
    ],
)
def test_mistakes(change: dict[str, Any], message: str) -> None:
    given = {
        name: getattr(MDP, name)
        for name in ("transition", "reward", "initial", "terminal", "horizon")
    }
    with pytest.raises(ValueError, match=message):
        TabularMDP(**{**given, **change})
    with pytest.raises(ValueError, match="logits must have shape"):
        tabular.exact_return(MDP, jnp.zeros((2, 4)))
