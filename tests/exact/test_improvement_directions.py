"""Steps and parametrisations of tables other than the gradient of logits: their theorems, executed.

The problem has no time limit, terminal states none, and every state may be the first one.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from pg.exact import tabular
from pg.exact.tabular import TabularMDP
from pg.exact.tabular.parametrisations import softmax

pytestmark = pytest.mark.usefixtures("x64")
S, A, GAMMA = 4, 3, 0.8
RNG = np.random.default_rng(1)
LOGITS = RNG.normal(size=(S, A))


def make_mdp(horizon: int = 1) -> TabularMDP:
    """A garnet without terminal states, from any state."""
    drawn = tabular.garnet(3, S, A, branching=2, horizon=horizon, ends=0)
    return TabularMDP(drawn.transition, drawn.reward, np.full(S, 1 / S), np.zeros(S, bool), horizon)


MDP = make_mdp()


def best(mdp: TabularMDP) -> tuple[np.ndarray, np.ndarray]:
    """V* [S] and a policy that has it, [S, A] of zeros and ones, by policy iteration."""
    logits = np.zeros((mdp.num_states, mdp.num_actions))
    for _ in range(50):
        q, v = tabular.discounted_values(mdp, logits, GAMMA)
        chosen = np.eye(mdp.num_actions)[np.asarray(q).argmax(1)]
        logits = np.where(chosen > 0, 0.0, -np.inf)
    return np.asarray(v), chosen


def values(logits: Any) -> np.ndarray:
    return np.asarray(tabular.discounted_values(MDP, logits, GAMMA)[1])


def test_a_step_in_kl_is_the_natural_gradient_of_softmax_tables() -> None:
    """θ + η F⁺ ∇J, F the Fisher matrix at the discounted visits; the policies are equal."""
    d = np.asarray(tabular.discounted_visitation(MDP, LOGITS, GAMMA))
    pi = np.asarray(jax.nn.softmax(LOGITS))
    fisher = np.zeros((S, A, S, A))
    for s in range(S):
        fisher[s, :, s, :] = d[s] * (np.diag(pi[s]) - np.outer(pi[s], pi[s]))
    slope = np.asarray(tabular.parametrised_gradient(MDP, LOGITS, GAMMA)).reshape(-1)
    natural = np.linalg.pinv(fisher.reshape(S * A, S * A)) @ slope
    moved = jax.nn.softmax(LOGITS + 1.7 * natural.reshape(S, A))
    found = jax.nn.softmax(tabular.kl_mirror_step(MDP, LOGITS, GAMMA, 1.7))
    np.testing.assert_allclose(found, moved, atol=1e-12)


def test_a_step_in_kl_is_soft_policy_iteration_from_the_old_policy() -> None:
    """The softmax of Q / β where the reward is r - β log π / π_old, β = 1 / η."""
    step = 1.7
    long = make_mdp(horizon=300)  # 0.8³⁰⁰ is nothing
    soft = tabular.with_reference(long, LOGITS, 1 / step)
    q = np.asarray(tabular.values(soft, LOGITS, GAMMA, tau=1 / step)[0][0])
    found = tabular.kl_mirror_step(MDP, LOGITS, GAMMA, step)
    np.testing.assert_allclose(found, jax.nn.log_softmax(step * q), atol=1e-10)


@pytest.mark.parametrize("kind", ["kl", "euclidean"])
def test_a_mirror_step_maximises_its_objective(kind: str) -> None:
    """η Q·p - D(p, π), no other policy has more; and V grows at every state."""
    step = 2.0
    move = {"kl": tabular.kl_mirror_step, "euclidean": tabular.euclidean_mirror_step}[kind]
    pi = np.asarray(jax.nn.softmax(LOGITS))
    q = np.asarray(tabular.discounted_values(MDP, LOGITS, GAMMA)[0])
    logits = move(MDP, LOGITS, GAMMA, step)
    found = np.asarray(jax.nn.softmax(logits))
    assert kind == "kl" or (found == 0).any()

    def objective(p: np.ndarray) -> np.ndarray:
        ratio = np.where(p > 0, p / pi, 1.0)
        divergence = p * np.log(ratio) if kind == "kl" else 0.5 * (p - pi) ** 2
        return np.sum(step * q * p - divergence, axis=-1)

    for p in np.random.default_rng(2).dirichlet(np.ones(A), size=(200, S)):
        near = 0.99 * found + 0.01 * p
        assert (objective(near) <= objective(found) + 1e-14).all()
        assert (objective(p) <= objective(found)).all()
    assert (values(logits) >= values(LOGITS) - 1e-12).all()
    assert values(logits).max() > values(LOGITS).max() + 1e-3


def test_steps_that_grow_reach_the_rate_of_policy_iteration() -> None:
    """‖V* - V_k‖∞ ≤ γᵏ (‖V* - V₀‖∞ + c / (1 - γ)): Johnson et al. 2023; constant steps do not."""
    c, logits, constant = 0.1, LOGITS, LOGITS
    v_best = best(MDP)[0]
    first = np.abs(v_best - values(LOGITS)).max()
    for k in range(25):
        step = tabular.step_towards_greedy(MDP, logits, GAMMA, c * GAMMA ** (2 * k + 1))
        q = np.asarray(tabular.discounted_values(MDP, logits, GAMMA)[0])
        logits = tabular.kl_mirror_step(MDP, logits, GAMMA, step)
        constant = tabular.kl_mirror_step(MDP, constant, GAMMA, 0.1)
        lost = q.max(1) - (np.asarray(jax.nn.softmax(logits)) * q).sum(1)
        assert lost.max() <= c * GAMMA ** (2 * k + 1) + 1e-12
        bound = GAMMA ** (k + 1) * (first + c / (1 - GAMMA))
        assert np.abs(v_best - values(logits)).max() <= bound + 1e-12
    assert np.abs(v_best - values(constant)).max() > bound


@pytest.mark.parametrize("kind", ["kl", "euclidean"])
def test_steps_that_grow_by_a_factor_converge_linearly(kind: str) -> None:
    """Xiao 2022, section 4.2: J* - J_k ≤ (1 - 1/ϑ)ᵏ (J* - J₀ + D₀ / (η₀ (1 - γ) (ϑ - 1))), ϑ =
    max_s d*(s) / ρ(s) / (1 - γ), steps larger by ϑ / (ϑ - 1) each time.
    """
    move = {"kl": tabular.kl_mirror_step, "euclidean": tabular.euclidean_mirror_step}[kind]
    v_best, chosen = best(MDP)
    greedy = np.where(chosen > 0, 0.0, -np.inf)
    visits = (1 - GAMMA) * np.asarray(tabular.discounted_visitation(MDP, greedy, GAMMA))
    mismatch = (visits / MDP.initial).max() / (1 - GAMMA)
    pi = np.asarray(jax.nn.softmax(LOGITS))
    of_state = -np.log((pi * chosen).sum(1)) if kind == "kl" else 0.5 * ((chosen - pi) ** 2).sum(1)
    step, logits = 0.5, jnp.asarray(LOGITS)
    gap = MDP.initial @ (v_best - values(LOGITS))
    room = gap + visits @ of_state / (step * (1 - GAMMA) * (mismatch - 1))
    for k in range(1, 60):
        logits = move(MDP, logits, GAMMA, step)
        step *= mismatch / (mismatch - 1)
        gap = MDP.initial @ (v_best - values(logits))
        assert gap <= (1 - 1 / mismatch) ** k * room + 1e-12
    assert gap < 1e-3


def test_projections_on_the_simplex() -> None:
    x = np.array([[0.2, 0.3, 0.5], [2.0, 0.0, 0.0], [0.5, 0.4, -np.inf], [-3.0, -3.0, -3.1]])
    expected = [[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [0.55, 0.45, 0.0], [1.1 / 3, 1.1 / 3, 0.8 / 3]]
    np.testing.assert_allclose(tabular.project_on_simplex(jnp.asarray(x)), expected, atol=1e-12)


def test_a_mirror_step_leaves_illegal_actions_alone() -> None:
    mask = np.ones((S, A), bool)
    mask[0, 1] = False
    masked = TabularMDP(
        MDP.transition, MDP.reward, MDP.initial, MDP.terminal, MDP.horizon, mask=mask
    )
    for move in (tabular.kl_mirror_step, tabular.euclidean_mirror_step):
        pi = np.asarray(jax.nn.softmax(move(masked, LOGITS, GAMMA, 1.0)))
        assert pi[0, 1] == 0
        np.testing.assert_allclose(pi.sum(1), 1.0)
    assert np.isfinite(tabular.step_towards_greedy(masked, LOGITS, GAMMA, 0.1))
    assert np.isfinite(tabular.log_barrier_return(masked, LOGITS, GAMMA, 0.1))


def test_the_gradient_of_escort_parameters() -> None:
    """d p |θ|ᵖ⁻¹ sign θ A / Σ|θ|ᵖ, and 0 where θ is 0, or as θ grows in length."""
    theta, p = np.where(LOGITS > 0.8, 0.0, LOGITS), 3.0
    found = tabular.parametrised_gradient(MDP, theta, GAMMA, lambda x: tabular.escort(x, p))
    logits = tabular.escort(jnp.asarray(theta), p)
    q, v = tabular.discounted_values(MDP, logits, GAMMA)
    d = tabular.discounted_visitation(MDP, logits, GAMMA)[:, None]
    size = np.abs(theta)
    share = p * np.sign(theta) * size ** (p - 1) / np.sum(size**p, axis=-1, keepdims=True)
    assert (theta == 0).any()
    np.testing.assert_allclose(found, d * share * (q - v[:, None]), atol=1e-12)
    np.testing.assert_allclose(np.sum(found * theta, axis=-1), 0.0, atol=1e-12)


CORNERS = (1e-2, 1e-3, 1e-4)  # probabilities of the best arm at the start
PARAMETRISATIONS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "softmax": (softmax, jnp.log),
    "escort, p = 2": (lambda x: tabular.escort(x, 2.0), jnp.sqrt),
    "escort, p = 3": (lambda x: tabular.escort(x, 3.0), jnp.cbrt),
}  # parameters to logits, and probabilities to parameters


@functools.cache
def escape_times(name: str) -> list[int]:
    """Steps of gradient ascent of size 0.4 until the best of three arms has half of the
    probability, from each of the corners.
    """
    mdp = tabular.bandit([1.0, 0.5, 0.0])
    transform, inverse = PARAMETRISATIONS[name]

    def is_stuck(state: Any) -> Any:
        return jax.nn.softmax(transform(state[0]))[0, 0] < 0.5

    def climb(state: Any) -> Any:
        theta, steps = state
        slope = tabular.parametrised_gradient(mdp, theta, GAMMA, transform)
        return theta + 0.4 * slope, steps + 1

    pi = [[[p, 1.0 - 2 * p, p], [1 / 3] * 3] for p in CORNERS]  # of the start, and of the end
    starts = inverse(jnp.asarray(pi))
    found = jax.vmap(lambda theta: jax.lax.while_loop(is_stuck, climb, (theta, 0)))(starts)
    return [int(steps) for steps in found[1]]


def test_escort_parameters_escape_from_where_softmax_is_stuck() -> None:
    """Near a corner π grows as π² (softmax), π (escort of p = 2) or π^(4/3) (p = 3): from a start
    that is ten times worse it takes ten times as long, a constant longer, or 10^(1/3) times.
    """
    soft, second, third = (escape_times(name) for name in PARAMETRISATIONS)
    assert soft[2] / soft[1] == pytest.approx(10.0, rel=0.02)
    assert abs((second[2] - second[1]) - (second[1] - second[0])) <= 1
    assert third[2] / third[1] == pytest.approx(10 ** (1 / 3), rel=0.1)
    assert soft[2] > 1000 * second[2]


def test_the_table_of_escapes_is_that_of_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "science" / "exact.md").read_text()
    for name in PARAMETRISATIONS:
        label = name.replace("p = 2", "$p = 2$").replace("p = 3", "$p = 3$")
        cells = " | ".join(f"{steps:,}" for steps in escape_times(name))
        assert f"| {label} | {cells} |" in page


def test_stationary_points_of_the_log_barrier_stay_inside() -> None:
    """Also from a corner; what is no worse than V keeps 1 / A, and J is near the best by λ."""
    weight, v_best = 0.02, best(MDP)[0]
    visits = np.asarray(
        tabular.discounted_visitation(MDP, np.where(best(MDP)[1] > 0, 0.0, -np.inf), GAMMA)
    )
    mismatch = (1 - GAMMA) * (visits / MDP.initial).max()

    def loss(x: jax.Array) -> jax.Array:
        return -tabular.log_barrier_return(MDP, x.reshape(S, A), GAMMA, weight)

    corner = -5.0 * (best(MDP)[1] > 0) + LOGITS
    found = optimize.minimize(
        jax.jit(jax.value_and_grad(loss)), corner.reshape(-1), jac=True, options={"gtol": 1e-9}
    )
    logits = found.x.reshape(S, A)
    pi = np.asarray(jax.nn.softmax(logits))
    q, v = (np.asarray(x) for x in tabular.discounted_values(MDP, logits, GAMMA))
    assert np.abs(found.jac).max() < 1e-6
    good = q >= v[:, None] - 1e-9
    assert (pi[good] >= 1 / A - 1e-6).all()
    d = np.asarray(tabular.discounted_visitation(MDP, logits, GAMMA))[:, None]
    inside = weight / (S * A) / (weight / S - d * (q - v[:, None]))
    np.testing.assert_allclose(pi, inside, atol=1e-5)
    gap = MDP.initial @ (v_best - v)
    assert 1e-3 < gap <= 2 * weight / (1 - GAMMA) * mismatch
