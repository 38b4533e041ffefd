"""The mathematics of experiments/reproductions against other forms of it, and the scripts as a user
meets them.
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scripts import REPRODUCTIONS, refused, run

from pg.exact import tabular
from pg.reports.statistics import Estimate

sys.path.insert(0, str(REPRODUCTIONS))
import dynamics
import reporting

sys.path.remove(str(REPRODUCTIONS))

SCRIPTS = ("mei_2020", "agarwal_2021", "chung_2021", "nota_thomas_2020")
REWARD, THREE = np.array([1.0, 0.9, 0.1]), (1.0, 0.7, 0.0)

pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture
def theta() -> np.ndarray:
    return np.random.default_rng(0).normal(size=3)


def test_the_bandit_s_gradient_is_that_of_its_objective(theta: np.ndarray) -> None:
    def objective(x: jax.Array, tau: float) -> jax.Array:
        pi = jax.nn.softmax(x)
        return pi @ (jnp.asarray(REWARD) - tau * jnp.log(pi))

    for tau in (0.0, 0.3):
        expected = jax.jit(jax.grad(objective))(jnp.asarray(theta), tau)
        np.testing.assert_allclose(
            dynamics.bandit_gradient(jnp.asarray(theta), REWARD, tau), expected, atol=1e-14
        )


def test_the_mdp_s_gradient_is_that_of_its_objective() -> None:
    mdp, logits = (
        dynamics.unit_garnet(1, 4, 3),
        jnp.asarray(np.random.default_rng(1).normal(size=(4, 3))),
    )
    expected = jax.jit(jax.grad(lambda x: tabular.discounted_return(mdp, x, 0.7)))(logits)
    found = jax.jit(lambda x: dynamics.mdp_gradient(mdp, x, 0.7))(logits)
    np.testing.assert_allclose(found, expected, atol=1e-13)


def test_the_advantage_is_the_natural_gradient() -> None:
    """F⁺ ∇J = (1-γ)⁻¹ A up to a constant of each state, F of the visitation that sums to 1."""
    mdp, gamma = dynamics.unit_garnet(1, 4, 3), 0.7
    logits = jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)))
    pi, d = jax.nn.softmax(logits), (1 - gamma) * tabular.discounted_visitation(mdp, logits, gamma)
    gradient = np.asarray(dynamics.mdp_gradient(mdp, logits, gamma))
    natural = [
        np.linalg.pinv(d[s] * (np.diag(pi[s]) - np.outer(pi[s], pi[s]))) @ gradient[s]
        for s in range(4)
    ]
    advantage = np.asarray(dynamics.advantage(mdp, logits, gamma)) / (1 - gamma)
    np.testing.assert_allclose(natural, advantage - advantage.mean(1, keepdims=True), atol=1e-9)


def test_the_optimum_is_the_best_of_all_deterministic_policies() -> None:
    mdp, gamma = dynamics.unit_garnet(2, 3, 2), 0.9
    best, optimal = dynamics.optimum(mdp, gamma)
    tables = np.stack(np.meshgrid(*[[0, 1]] * 3), -1).reshape(-1, 3)
    values = [
        tabular.discounted_values(mdp, 1e3 * jax.nn.one_hot(actions, 2), gamma)[1]
        for actions in tables
    ]
    np.testing.assert_allclose(optimal, np.max(values, axis=0), atol=1e-10)
    np.testing.assert_array_equal(best.argmax(1), tables[np.sum(values, axis=1).argmax()])


def test_ascent_watches_before_it_steps() -> None:
    np.testing.assert_allclose(
        dynamics.follow(lambda x: -x / 2, lambda x: x, jnp.array(1.0), 3), [1, 0.5, 0.25]
    )


def test_the_bandit_s_bound_follows_the_rarest_probability_so_far() -> None:
    """From a start where π(a*) falls at first, by a loop; and the suboptimality tends to (K - 1) /
    (K η t).
    """
    x, least, expected = np.log([0.05, 0.85, 0.1]), 1.0, []
    for t in range(1, 3_001):
        pi = np.exp(x) / np.exp(x).sum()
        least = min(least, pi[0])
        expected.append((1 - pi @ REWARD, 5 / (least**2 * t)))
        x = x + 0.4 * pi * (REWARD - pi @ REWARD)
    gap, upper = dynamics.softmax_bandit(REWARD, [0.05, 0.85, 0.1], 0.4, 3_000)
    np.testing.assert_allclose(np.transpose([gap, upper]), expected, rtol=1e-9)
    assert least < 0.03 < 0.9 < pi[0]
    assert np.all(gap <= upper)
    uniform, _ = dynamics.softmax_bandit(REWARD, np.ones(3) / 3, 0.4, 100_000)
    assert uniform[-1] * 1e5 == pytest.approx(2 / (3 * 0.4), rel=0.02)


def test_the_mdp_s_bound_of_a_bandit() -> None:
    """A single state forever: S = 1, d* = μ = 1, so that the bound is 16 / (c² (1-γ)⁶ t)."""
    one = np.ones((1, 3, 1))
    mdp, gamma = tabular.TabularMDP(one, REWARD[None], [1.0], [False], horizon=1), 0.5
    gap, upper = dynamics.softmax_mdp(mdp, gamma, 100)
    bandit, _ = dynamics.softmax_bandit(
        REWARD, np.ones(3) / 3, (1 - gamma) ** 3 / 8 / (1 - gamma), 100
    )
    np.testing.assert_allclose(gap, bandit / (1 - gamma), rtol=1e-12)
    np.testing.assert_allclose(upper, 16 * 9 * 2**6 / np.arange(1, 101))
    mdp, gamma = dynamics.unit_garnet(3, 3, 2), 0.6
    best, _ = dynamics.optimum(mdp, gamma)
    step = np.einsum("sa,sat->st", best, mdp.transition)
    visits = sum(
        (1 - gamma) * gamma**k * mdp.initial @ np.linalg.matrix_power(step, k) for k in range(100)
    )
    expected = 16 * 3 * np.max(3 * visits) ** 2 * 3 / (0.5**2 * 0.4**6)
    assert dynamics.softmax_mdp(mdp, gamma, 1)[1][0] == pytest.approx(expected)


def test_the_soft_gap_is_the_soft_suboptimality_and_falls_at_the_linearised_rate() -> None:
    tau, start = 0.5, np.array([0.2, 0.3, 0.5])
    gap, upper, rate = dynamics.soft_bandit(REWARD, start, 0.4, tau, 4_000)
    best = tau * np.log(np.sum(np.exp(REWARD / tau)))
    assert gap[0] == pytest.approx(best - start @ (REWARD - tau * np.log(start)))
    assert upper[0] == pytest.approx(2 * 3 * (tau * np.log(5) + 1) ** 2 / tau)
    assert np.all(gap <= upper + 1e-15)
    optimum = jax.nn.log_softmax(jnp.asarray(REWARD) / tau)
    update = jax.jacobian(lambda x: x + 0.4 * dynamics.bandit_gradient(x, REWARD, tau))(optimum)
    # the largest is 1, of a constant added to all
    slowest = np.sort(np.linalg.eigvals(update).real)[-2]
    assert rate == pytest.approx(2 * np.log(slowest))
    assert dynamics.slope(np.arange(300, 600), np.log(gap[300:600])) == pytest.approx(
        rate, rel=0.01
    )


def test_the_natural_bound_holds_and_a_smaller_one_does_not() -> None:
    """The bound's terms: at T = 1 and η small, the gap nearly is that of the uniform policy."""
    mdp, gamma, eta = dynamics.unit_garnet(0, 5, 3), 0.8, 0.05
    gaps = dynamics.value_gaps(
        mdp, gamma, lambda x: eta / (1 - gamma) * dynamics.advantage(mdp, x, gamma), 500
    )
    bound = dynamics.natural_bound(3, gamma, eta, 500)
    np.testing.assert_allclose(bound[[0, 499]], [(np.log(3) / eta + 25) / t for t in (1, 500)])
    assert np.all(gaps.max(axis=1) <= bound)
    assert np.all(np.diff(gaps, axis=0) <= 1e-12)  # lemma: it improves in every state
    _, optimal = dynamics.optimum(mdp, gamma)
    first = eta / (1 - gamma) * dynamics.advantage(mdp, jnp.zeros((5, 3)), gamma)
    np.testing.assert_allclose(
        gaps[0], optimal - tabular.discounted_values(mdp, first, gamma)[1], atol=1e-12
    )


def test_the_goal_is_hidden_from_a_uniform_policy() -> None:
    """The gradient shrinks by a factor with each state; the natural one does not."""
    sizes = [
        [
            float(jnp.abs(f(mdp, jnp.zeros((n, 4)), 0.9)).max())
            for f in (dynamics.mdp_gradient, dynamics.advantage)
        ]
        for n, mdp in ((n, dynamics.hidden_goal(n)) for n in (4, 8))
    ]
    assert sizes[1][0] < 0.1 * sizes[0][0]
    assert sizes[1][1] > 0.9 * sizes[0][1]


def test_b_star_has_the_least_variance_and_its_neighbours_have_equal_ones(
    theta: np.ndarray,
) -> None:
    b = float(dynamics.least_variance(jnp.asarray(theta), THREE))
    means, variances = zip(
        *(dynamics.natural_moments(theta, THREE, b + e) for e in (-0.5, -0.1, 0, 0.1, 0.5)),
        strict=True,
    )
    assert variances[0] == pytest.approx(variances[4], rel=1e-12)
    assert variances[1] == pytest.approx(variances[3], rel=1e-12)
    assert variances[2] < variances[1] < variances[0]
    for mean in means:  # unbiased for any baseline
        np.testing.assert_allclose(mean, np.asarray(THREE) - np.mean(THREE), atol=1e-12)


def test_what_is_sampled_is_the_natural_gradient(theta: np.ndarray) -> None:
    """(r - b) / π(a) eₐ is (r - b) F⁺ ∇log π(a) but for a constant added to all logits."""
    pi = np.exp(theta) / np.exp(theta).sum()
    mean, variance = dynamics.natural_moments(theta, THREE, 0.3)
    each = np.diag((np.asarray(THREE) - 0.3) / pi)
    each -= each.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(pi @ each, mean, atol=1e-12)
    assert pi @ np.sum((each - mean) ** 2, axis=1) == pytest.approx(variance, rel=1e-12)


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_the_good_arm_is_never_drawn_as_often_as_the_product_says(alpha: float) -> None:
    runs = 10_000
    ascent = dynamics.natural_ascent(
        jax.random.key(0), (1, 0), lambda x: 0 * x[:, 0] - 1.0, alpha, 100, runs
    )
    expected, for_ever = dynamics.never_drawn(alpha, -1.0, 100)
    assert np.mean(~ascent.drawn[:, 0]) == pytest.approx(expected, abs=4 * np.sqrt(expected / runs))
    assert 0.99 * expected < for_ever <= expected
    assert dynamics.never_drawn(alpha, -1.0, 10)[1] <= dynamics.never_drawn(alpha, -1.0, 1000)[0]
    assert np.all(ascent.best[-1][~ascent.drawn[:, 0]] < 1e-6)


def test_one_update_by_hand() -> None:
    """r = (1, .7, 0), b = 1/2, α = 1 from uniform: the arm that is drawn moves by 3 (r - 1/2)."""
    ascent = dynamics.natural_ascent(
        jax.random.key(1), THREE, lambda x: 0 * x[:, 0] + 0.5, 1.0, 1, 3_000
    )
    arm = ascent.drawn.argmax(axis=1)
    assert np.all(ascent.drawn.sum(axis=1) == 1)
    np.testing.assert_allclose(np.bincount(arm) / 3_000, 1 / 3, atol=4 * np.sqrt(2 / 9 / 3_000))
    for a, reward in enumerate(THREE):
        policy = np.exp(3 * (reward - 0.5) * np.eye(3)[a])
        policy /= policy.sum()
        np.testing.assert_allclose(ascent.best[0][arm == a], policy[0])
        np.testing.assert_allclose(ascent.entropy[0][arm == a], -policy @ np.log(policy))


def test_without_a_baseline_a_bad_draw_changes_nothing() -> None:
    ascent = dynamics.natural_ascent(
        jax.random.key(0), (1, 0), lambda x: 0 * x[:, 0], 0.5, 200, 500
    )
    assert np.all(np.diff(ascent.best, axis=0) >= -1e-12)
    assert np.all(ascent.best[-1] > 0.99)


def test_baselines_of_equal_variance_end_differently() -> None:
    low, high = (
        dynamics.natural_ascent(
            jax.random.key(0),
            THREE,
            lambda x, e=e: dynamics.least_variance(x, THREE) + e,
            0.5,
            300,
            1_000,
        )
        for e in (-0.5, 0.5)
    )
    assert reporting.share(low.best[-1] < 0.5).low > 0.3
    assert reporting.share(high.best[-1] < 0.5).high < 0.1
    assert low.entropy[6].mean() < high.entropy[6].mean() - 0.3


def test_only_the_dropped_direction_is_asymmetric() -> None:
    mdp, logits = (
        tabular.garnet(0, 4, 2, branching=2, horizon=4),
        jnp.asarray(np.random.default_rng(0).normal(size=(4, 2))),
    )
    gradient = dynamics.asymmetry(mdp, tabular.exact_gradient, logits, [0.0, 0.5, 1.0])
    dropped = dynamics.asymmetry(mdp, tabular.undiscounted_direction, logits, [0.5, 0.9, 1.0])
    assert gradient.max() < 1e-13
    assert dropped[:2].min() > 1e-3
    assert dropped[2] < 1e-13


def test_a_rotation_is_no_gradient() -> None:
    """For D = [[1, -1], [1, 1]] the antisymmetric and the symmetric part have norm √8 / 2 each."""
    turn = jnp.array([[1.0, -1.0], [1.0, 1.0]])
    ratio = dynamics.asymmetry(
        tabular.bandit([0.0, 1.0]), lambda mdp, x, gamma: turn @ x, jnp.ones(2), [0.5]
    )
    assert ratio == pytest.approx([1.0])


def test_the_two_directions_lead_to_the_best_and_to_the_worst_policy() -> None:
    """p ← p(θ + ...) with J_γ = -γ p: both logits move, so that the difference moves twice as
    far.
    """
    mdp, gamma, step = tabular.pessimal(), 0.5, 0.5
    kept, dropped = (
        dynamics.linear_ascent(mdp, direction, gamma, step, 100)
        for direction in (tabular.exact_gradient, tabular.undiscounted_direction)
    )
    logit, p = 0.0, []
    for _ in range(100):
        p.append(1 / (1 + np.exp(-logit)))
        logit += 2 * step * p[-1] * (1 - p[-1]) * (3 - 4 * gamma)
    np.testing.assert_allclose(dropped, np.outer(p, [-gamma, -1.0]), rtol=1e-10)
    assert kept[-1, 1] > -0.05 > -0.95 > dropped[-1, 1]


@pytest.mark.slow
def test_training_follows_the_exact_direction() -> None:
    """The mean of the seeds, early, where noise has not yet bent it."""
    mdp = tabular.pessimal()
    for name, direction in (
        ("reward_to_go", tabular.exact_gradient),
        ("undiscounted_reward_to_go", tabular.undiscounted_direction),
    ):
        runs = dynamics.train_linear(mdp, name, 0.5, 0.25, 20, 200, 10)
        exact = dynamics.linear_ascent(mdp, direction, 0.5, 0.5, 20)
        assert runs.shape == (10, 20, 2)
        np.testing.assert_allclose(
            (runs - runs[:, :1]).mean(0)[-1], (exact - exact[:1])[-1], atol=0.1
        )


def test_the_verdict_is_what_the_figures_say() -> None:
    def claim(*values: float) -> reporting.Claim:
        figures = [reporting.Figure("x", Estimate(value, np.nan, np.nan), 0, 1) for value in values]
        return reporting.Claim("", "", figures)

    assert reporting.verdict([claim(0.0, 1.0), claim(0.5)]) == "reproduced"
    assert (
        reporting.verdict([claim(0.5), claim(0.5, 1.1)])
        == "partly reproduced: no support for claim 2"
    )
    assert (
        reporting.verdict([claim(float("nan")), claim()])
        == "not reproduced: no support for claims 1, 2"
    )


def test_a_share_has_its_interval() -> None:
    """For 0 of n it reaches up to 1 - (α/2)^(1/n), Clopper & Pearson."""
    assert reporting.share(np.zeros(100, bool)) == pytest.approx((0.0, 0.0, 1 - 0.025**0.01))
    value, low, high = reporting.share(np.arange(100) < 20)
    assert (value, low, high) == pytest.approx((0.2, 0.1267, 0.2918), abs=1e-4)


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("mei_2020", ("--gamma", "1"), "gamma must be above 0 and below 1, got 1"),
        ("agarwal_2021", ("--steps", "5"), "steps must be at least 100"),
        ("chung_2021", ("--runs", "10"), "runs must be at least 1000"),
        ("nota_thomas_2020", ("--gamma", "0.8"), "gamma must be above 0 and below 0.75"),
        ("nota_thomas_2020", ("--seed", "many"), "--seeds"),
        ("mei_2020", ("--out", "{file}"), "cannot make the folder"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_is_compiled(
    script: str, arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    words = [word.format(file=file) for word in arguments]
    done = refused(f"reproductions/{script}.py", *words)
    assert message in done.stderr + done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_reproduction(script: str, tmp_path: Path) -> None:
    done = run(
        f"reproductions/{script}.py",
        "--out",
        str(tmp_path / "figures"),
        "--json",
        str(tmp_path / "found.json"),
    )
    assert done.returncode == 0, done.stderr
    assert "\nverdict: reproduced\n" in done.stdout
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        f"{script}.png",
        f"{script}.svg",
    }
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["verdict"] == "reproduced"
    assert all(claim["holds"] and claim["figures"] for claim in found["claims"])
